-- Compiled mappings of the webhook connector: payload, request and body of one row.
\pset format unaligned
\pset tuples_only on
CREATE FUNCTION pg_temp.compiled(connector text, action text, fields text, settings text, batch_size int, operation text, key text, data text, old text, repeat int)
  RETURNS text LANGUAGE c AS 'retl', 'retl_test_map';
CREATE FUNCTION pg_temp.map(fields text, data text = '{"id": 1, "email": "A b/\u00fc@x.y", "none": null, "list": {"a": [1, 2]}, "price": 1.50, "type": "column"}',
  old text = NULL, operation text = 'added', settings text = '{}', batch_size int = 0)
  RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.compiled(definition::text, 'send', fields, ('{"url": "https://example.com/in", "method": "POST", "headers": {}, "batch_size": 1}'::jsonb || settings::jsonb)::text,
    batch_size, operation, '"k"', data, old, 0)
  FROM retl.connector WHERE name = 'webhook' $$;

-- the whole row, unless mapped
SELECT pg_temp.map('{}');
SELECT pg_temp.map('{}', batch_size => 2);
SELECT pg_temp.map('{}', settings => '{"batch_size": 2, "headers": {"X-Team": "crm", "content-type": "text/json"}, "method": "PUT"}');

-- the envelope: its members come first, other names are columns
SELECT pg_temp.map('{"data": {"col": {"@path": "$.email"}, "prop": {"@path": "$.properties.type"}, "type": {"@path": "$.type"}, "event": {"@path": "$.event"},
  "op": {"@path": "$.operation"}, "key": {"@path": "$.__segment_id"}, "id": {"@path": "$.messageId"}, "at": {"@path": "$.timestamp"},
  "deep": {"@path": "$.list.a[1]"}, "none": {"@path": "$.nowhere"}, "text": {"@template": "{{email}} {{properties.price}}"},
  "old": {"@path": "$.old"}, "was": {"@path": "$.old.id"}, "changed": {"@path": "$.changed"}, "sql": {"@sql": "lower(email)"}}}',
  old => '{"price": 1.50, "id": 2, "gone": 3}', operation => op) FROM unnest('{added,updated,deleted}'::text[]) op;
SELECT pg_temp.map('{"data": {"@path": "$."}}', data => '{"a": 1}', old => '{"a": 2}', operation => 'updated');
SELECT pg_temp.map('{"data": {"@path": {"@path": "$.which"}}}', data => '{"which": "properties.a", "a": 1}');
SELECT pg_temp.map('{"@transform": {"apply": {"x": {"@path": "$.email"}}, "mapping": {"data": {"@path": "$.x"}, "other": 1}}}');
SELECT pg_temp.map('{"data": {"@arrayPath": ["$.rows", {"v": {"@path": "$.type"}, "s": {"@sql": "1"}}]}}', data => '{"rows": [{"type": 1}, {}]}');

-- URL, method and headers from the row
SELECT pg_temp.map('{"data": 1, "url": {"@template": "https://example.com/{{email}}?p={{{price}}}"}, "method": "DELETE", "headers": {"X-Email": {"@path": "$.email"}, "X-None": {"@path": "$.none"}, "X-Price": {"@path": "$.price"}}}');

-- rows that fail
SELECT pg_temp.map('{"data": {"@path": "$.none"}}');
SELECT pg_temp.map('{"data": 1, "url": {"@path": "$.u"}}', data => json_build_object('u', u)::text)
  FROM unnest(ARRAY['ftp://x', 'http://', 'http://u:p@x/', 'https://ü.example/', 'https://x/a b', E'https://x/\r\nHost: y', 'x', 'https://x\@y']) u;
SELECT pg_temp.map('{"data": 1, "headers": {"@path": "$.h"}}', data => json_build_object('h', h::json)::text)
  FROM unnest(ARRAY['{"A": "x\r\nB: y"}', '{"A\r\nB": "y"}', '{"A B": "x"}', '{"": "x"}', '{"Content-LENGTH": 1}', '{"A": [1]}', '{"A": "\u0000"}', '[]', '{"A": "x", "a": "y", "B": null}']) h;
SELECT pg_temp.map('{"data": 1, "method": {"@path": "$.m"}}', data => '{"m": "TRACE"}');

-- mappings that are refused
SELECT pg_temp.map('{"dta": 1}');
SELECT pg_temp.map('{"zzzzzzzz": 1}');
SELECT pg_temp.map('{"data": {"x": {"@pth": "$.a"}}, "url": {"@path": 1}}');
SELECT pg_temp.map('{"data": [{"@pth": "$.a"}]}');
SELECT pg_temp.map('{"data": {"@if": {"then": 1}}}');
SELECT pg_temp.map('[]');
SELECT pg_temp.map('{"data": ');
SELECT pg_temp.map('{}', batch_size => 10001);
SELECT pg_temp.map('{}', batch_size => -1);
SELECT pg_temp.map('{}', settings => '{"headers": {"Host": "x"}}');
SELECT pg_temp.compiled(definition::text, 'sned', '{}', '{}', 0, 'added', '1', '{}', NULL, 0) FROM retl.connector WHERE name = 'webhook';
SELECT pg_temp.map('{"data": 1, "method": "TRACE"}');
SELECT pg_temp.map('{"data": 1, "headers": "x"}');

