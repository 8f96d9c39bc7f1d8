-- Rules for answers: what becomes of each record.
\pset format unaligned
\pset tuples_only on
CREATE FUNCTION pg_temp.verdicts(rule text, status int, answer text, sent text, records int)
  RETURNS text[] LANGUAGE c STRICT AS 'retl', 'retl_test_response';
CREATE FUNCTION pg_temp.said(rule text, status int, answer text, sent text = '[{"id": "a"}, {"id": "b"}, {"id": "c"}]', records int = 3)
  RETURNS text LANGUAGE sql AS $$ SELECT coalesce(array_to_string(pg_temp.verdicts(rule, status, answer, sent, records), ' | '), 'nothing') $$;

-- by number; the status class decides about the others
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": "$.index", "reason": "$.type"}}', 201, '{"errors": [{"index": 1, "type": "bad event"}]}');
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": "$.index", "reason": "$.type"}}', 400, '{"errors": [{"index": 1, "type": "bad event"}]}');
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": "$.index"}}', 201, '{"errors": []}');
-- a number inside a pointer, and the worst verdict on a record
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": {"path": "$.source.pointer", "after": "/data/"}, "reason": "{{$.title}}: {{$.detail}}"}}',
  400, '{"errors": [{"title": "T", "detail": "D", "source": {"pointer": "/data/2/email"}}, {"title": "U", "detail": "E", "source": {"pointer": "/data/2/id"}}]}');
-- numbers in lists by field
SELECT pg_temp.said('{"listed": [{"at": "$.invalid[*]", "index": "$", "reason": "{{key}} is invalid"}, {"at": "$.throttled", "index": "$", "outcome": "retry", "reason": "throttled"}]}',
  400, '{"invalid": {"time": [0, 2], "name": [2]}, "throttled": [1]}');
-- by a value of theirs, in any case of letters; several with the same one
SELECT pg_temp.said('{"listed": {"at": "$.failed[*]", "key": "$", "record": "$.id", "reason": "refused"}}', 200, '{"failed": {"ids": ["B"], "emails": []}}');
SELECT pg_temp.said('{"listed": {"at": "$.errors", "key": "$.context.ids[*]", "record": "$.id", "reason": "$.message"}}', 207,
  '{"errors": [{"message": "m", "context": {"ids": ["a", "c"]}}]}', '{"inputs": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}');
-- somebody is at fault, but not one of ours: ask again
SELECT pg_temp.said('{"listed": {"at": "$.errors", "key": "$.id", "record": "$.id", "reason": "$.message"}}', 207, '{"errors": [{"message": "m", "id": "z"}]}');
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": "$.n", "reason": "$.message"}}', 207, '{"errors": [{"message": "m", "n": 3}, {"message": "k", "n": 0}]}');
-- a result for each
SELECT pg_temp.said('{"results": {"at": "$", "accepted": {"path": "$.success", "is": true}, "retry": {"path": "$.errors[0].code", "is": ["LOCKED"]}, "reason": "$.errors[0].message"}}', 200,
  '[{"success": true}, {"success": false, "errors": [{"code": "X", "message": "no"}]}, {"success": false, "errors": [{"code": "LOCKED"}]}]');
SELECT pg_temp.said('{"results": {"at": "$", "accepted": {"path": "$.success"}}}', 200, '[{"success": true}]');
-- cases: the first that holds; conditions on items
SELECT pg_temp.said(rule, status, answer)
  FROM (VALUES ('[{"when": {"status": [207, "4xx"], "path": "$.errors"}, "listed": {"at": "$.errors", "index": "$.i", "when": {"path": "$.code", "is": "fatal"}, "reason": "$.code"}},
                  {"when": {"status": 409}, "all": "accepted"},
                  {"when": {"status": "2xx", "path": "$.ok", "is": false}, "all": "rejected", "reason": "$.error"}]')) r (rule),
       (VALUES (207, '{"errors": [{"i": 0, "code": "fatal"}, {"i": 1, "code": "warning"}]}'), (207, '{"errors": []}'), (409, 'no json'), (200, '{"ok": false, "error": "channel_not_found"}'),
               (200, '{"ok": true}'), (500, '{}')) a (status, answer);
-- answers that cannot be read say nothing
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": "$.i"}}', 200, answer) FROM unnest('{"","<html>","[1"}'::text[]) answer;
SELECT pg_temp.said('{"listed": {"at": "$.errors", "index": "$.i"}}', 200, '[1, 2]');
-- rules that are not valid
SELECT pg_temp.said('{"listed": {"path": "$"}}', 200, '{}');
SELECT pg_temp.said('[{}, {"listed": [{"at": "errors"}]}]', 200, '{}');
SELECT pg_temp.said('{"all": "fine"}', 200, '{}');
SELECT pg_temp.said('{"when": {"code": 200}}', 200, '{}');
SELECT pg_temp.said('{"results": {"accepted": true}}', 200, '{}');
