-- Scenarios in which a design for the state of mappings can go wrong, one by
-- one. Nothing is delivered here: this test is both workers. What is covered
-- where is in test/SCENARIOS.md.
SET client_min_messages = warning;
CREATE SCHEMA s;

-- What the destination says to all that is pending of a mapping: accepted, refused, or nothing (the outcome is unknown, given up).
CREATE FUNCTION s.answer(p_mapping text, said text DEFAULT 'accepted') RETURNS TABLE (operation text, key json, payload json)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  m bigint := (SELECT id FROM retl.mapping WHERE name = p_mapping);
BEGIN
  CREATE TEMP TABLE due ON COMMIT DROP AS
    SELECT b.id, b.run, b.stage, k.n, y.operations, k.value AS key, y.body::json AS payload
      FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id CROSS JOIN json_array_elements(y.keys) WITH ORDINALITY k (value, n)
     WHERE b.mapping = m AND b.status = 'pending';
  UPDATE retl.batch SET status = CASE said WHEN 'accepted' THEN 'delivered' ELSE 'failed' END, finished_at = now(),
    attempts = attempts + 1, maybe = said = 'nothing' WHERE mapping = m AND status = 'pending';
  IF said <> 'accepted' THEN
    INSERT INTO retl.exception AS e (mapping, key, run, batch, operation, reason, maybe, resolved)
      SELECT m, d.key::text, d.run, d.id,
        CASE substr(d.operations, d.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,
        CASE said WHEN 'refused' THEN 'rejected' ELSE 'gave_up' END, said = 'nothing', false FROM due d
      ON CONFLICT (mapping, key) DO UPDATE SET run = excluded.run, operation = excluded.operation, maybe = e.maybe OR excluded.maybe;
  END IF;
  UPDATE retl.run SET open_batches = 0, open_bytes = 0, quiesced = stop_reason IS NOT NULL,
    sent = sent + CASE WHEN said = 'accepted' THEN added + updated + deleted ELSE 0 END,
    failed = failed + CASE WHEN said = 'accepted' THEN 0 ELSE added + updated + deleted END
    WHERE mapping = m AND finished_at IS NULL AND status = 'delivering';
  RETURN QUERY SELECT CASE substr(d.operations, d.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,
    d.key, d.payload FROM due d ORDER BY d.stage, d.id, d.n;
END
$$;

CREATE FUNCTION s.mapping(name text, model text, records text[] DEFAULT '{added,updated,deleted}', fields json DEFAULT '{"@path": "$.properties"}')
RETURNS bigint LANGUAGE sql AS $$
  SELECT retl.create_mapping(name => name, model => model, destination => 'there', action => 'send', records => records,
    fields => json_build_object('data', fields), enabled => true)
$$;
SELECT retl.create_destination('there', 'webhook', '{"url": "http://127.0.0.1:9/"}') IS NOT NULL AS there;

\echo '# a key changes: in one snapshot it goes under its old name and comes under its new one'
CREATE TABLE s.t (id int, v int);
INSERT INTO s.t VALUES (1, 1), (2, 1);
SELECT retl.create_model('t', 's.t', '{id}') IS NOT NULL AND s.mapping('m', 't') IS NOT NULL AS made;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
UPDATE s.t SET id = 3 WHERE id = 2;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a key of char(n) is not cut to one character'
CREATE TABLE s.padded (code char(5), v int);
INSERT INTO s.padded VALUES ('abcde', 1), ('abcdf', 1), ('ab', 1);
SELECT retl.create_model('padded', 's.padded', '{code}') IS NOT NULL AND s.mapping('padded', 'padded') IS NOT NULL AS made;
SELECT retl.sync('padded') IS NOT NULL AS asked;
CALL retl.work();
SELECT operation, key, payload FROM s.answer('padded') ORDER BY key::text;
CALL retl.work();
UPDATE s.padded SET v = 2 WHERE code = 'ab';
SELECT retl.sync('padded') IS NOT NULL AS asked;
CALL retl.work();
SELECT operation, key, payload FROM s.answer('padded');
CALL retl.work();
SELECT retl.drop_model('padded', cascade => true);

\echo '# numbers of rows that went are given again'
CREATE TABLE s.churn AS SELECT id FROM generate_series(1, 5) id;
SELECT retl.create_model('churn', 's.churn', '{id}') IS NOT NULL AND s.mapping('churn', 'churn') IS NOT NULL AS made;
CREATE PROCEDURE s.churn(first int, count int) LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM s.churn;
  INSERT INTO s.churn SELECT id FROM generate_series(first, first + count - 1) id;
  PERFORM retl.reset_mapping('churn', baseline => true);
END
$$;
CREATE FUNCTION s.slots() RETURNS TABLE (next_slot bigint, rows bigint, numbers bigint, last bigint) LANGUAGE plpgsql AS $$
DECLARE
  m bigint := (SELECT id FROM retl.model WHERE name = 'churn');
BEGIN
  RETURN QUERY EXECUTE format('SELECT st.next_slot, count(*), count(DISTINCT c.slot), max(c.slot)'
    ' FROM retl.model_state st, retl_data.checkpoint_%s c WHERE st.model = %1$s GROUP BY 1', m);
END
$$;
CALL s.churn(1, 5);
CALL retl.work();
CALL s.churn(4, 5);
CALL retl.work();
SELECT * FROM s.slots();
CALL s.churn(100, 7);
CALL retl.work();
SELECT * FROM s.slots();
CALL s.churn(200, 3);
CALL retl.work();
CALL s.churn(202, 8);
CALL retl.work();
SELECT * FROM s.slots();
SELECT retl.drop_model('churn', cascade => true);

\echo '# a model is executed once, whoever is due'
CREATE FUNCTION s.heard() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE WARNING 'the model is executed'; RETURN true; END $$;
SELECT retl.create_model('once', 'SELECT t.* FROM (SELECT s.heard() AS h OFFSET 0) h JOIN s.t ON h.h', '{id}') IS NOT NULL AS model;
SELECT s.mapping('once_1', 'once') IS NOT NULL AND s.mapping('once_2', 'once') IS NOT NULL AS mappings;
SELECT count(*) FROM retl.sync_model('once');
CALL retl.work();
SELECT count(*) FROM s.answer('once_1');
SELECT count(*) FROM s.answer('once_2');
CALL retl.work();
UPDATE s.t SET v = v + 1;
SELECT count(*) FROM retl.sync_model('once');
CALL retl.work();
SELECT retl.drop_model('once', cascade => true);

\echo '# what the database has for defaults of transactions is not what a snapshot runs under'
SELECT retl.sync('m') IS NOT NULL AS asked;
SET default_transaction_isolation = serializable;
SET default_transaction_read_only = on;
CALL retl.work();
RESET default_transaction_isolation;
RESET default_transaction_read_only;
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT status FROM retl.runs WHERE mapping = 'm' ORDER BY id DESC LIMIT 1;

\echo '# added, no answer, gone: it is deleted, as it may have arrived; also when that fails, and the log has forgotten the row'
INSERT INTO s.t VALUES (5, 1);
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m', 'nothing');
DELETE FROM s.t WHERE id = 5;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m', 'refused');
UPDATE retl.model_state SET log_rows = 1000000;
CALL retl.work();
SELECT retl.retry_failed('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT count(*) FROM retl.failed_rows;

\echo '# added, refused, gone: nothing to do. Added, refused, changed: still added'
INSERT INTO s.t VALUES (5, 1), (6, 1);
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m', 'refused');
DELETE FROM s.t WHERE id = 5;
UPDATE s.t SET v = 2 WHERE id = 6;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a delete that was refused, and the key is there again: updated, from the row that the destination has, though the log has none of it'
DELETE FROM s.t WHERE id = 6;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m', 'refused');
CALL retl.work();
UPDATE retl.model_state SET log_rows = 1000000;
CALL retl.work();
SELECT key, operation, acked FROM retl.exception;
INSERT INTO s.t VALUES (6, 9);
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a disabled mapping holds back one net row a key, however long it is disabled'
SELECT retl.disable_mapping('m');
SELECT s.mapping('other', 't') IS NOT NULL AS other;
DO $$
BEGIN
  FOR i IN 1 .. 20 LOOP
    UPDATE s.t SET v = v + 1;
    DELETE FROM s.t WHERE id = 6 AND i % 2 = 0;
    INSERT INTO s.t SELECT 6, 100 + i WHERE NOT EXISTS (SELECT FROM s.t WHERE id = 6);
    PERFORM retl.sync('other');
    COMMIT;
    CALL retl.work();
    PERFORM s.answer('other');
    COMMIT;
    CALL retl.work();
  END LOOP;
END
$$;
UPDATE retl.model_state SET log_rows = 1000000;
CALL retl.work();
SELECT log_rows FROM retl.model_state;
SELECT retl.enable_mapping('m');
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a reset whose run fails, or is of something disabled, loses no delete'
SELECT retl.create_mapping(name => 'm', model => 't', destination => 'there', action => 'send', records => '{added,updated,deleted}',
  fields => '{"data": {"id": {"@path": "$.id"}, "v": {"@path": "$.v"}}}', or_replace => true) IS NOT NULL AS edited;
DELETE FROM s.t WHERE id = 3;
ALTER TABLE s.t RENAME COLUMN v TO w;
SELECT retl.reset_mapping('m') IS NOT NULL AS asked;
CALL retl.work();
ALTER TABLE s.t RENAME COLUMN w TO v;
SELECT retl.reset_mapping('m') IS NOT NULL AS asked;
SELECT retl.disable_mapping('m');
CALL retl.work();
DELETE FROM s.t WHERE id = 6;
SELECT retl.enable_mapping('m');
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a reset that is canceled leaves nothing behind at the destination for good'
INSERT INTO s.t VALUES (7, 7);
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT retl.reset_mapping('m') AS run \gset
CALL retl.work();
SELECT retl.cancel_run(:run);
UPDATE retl.run SET quiesced = true WHERE id = :run;
CALL retl.work();
SELECT key::text, reason, maybe FROM retl.failed_rows ORDER BY 1;
DELETE FROM s.t WHERE id = 7;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# baseline: what is there counts as sent, also while a run is active'
INSERT INTO s.t VALUES (8, 8);
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT retl.reset_mapping('m', baseline => true) IS NOT NULL AS asked;
UPDATE retl.run SET quiesced = true WHERE id = :run;
CALL retl.work();
SELECT * FROM s.answer('m');
SELECT id = :run AS canceled_one, status FROM retl.runs WHERE mapping = 'm' ORDER BY id DESC LIMIT 2;
SELECT count(*) FROM retl.failed_rows;
UPDATE s.t SET v = 9 WHERE id = 8;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a run that is canceled: what was answered late counts, what was not is sent by the next'
UPDATE s.t SET v = 10 WHERE id = 8;
INSERT INTO s.t VALUES (9, 9);
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT retl.cancel_run(:run);
WITH late AS (UPDATE retl.batch SET status = 'delivered', finished_at = now(), attempts = 1 WHERE run = :run
  AND id = (SELECT min(id) FROM retl.batch WHERE run = :run) RETURNING run)
UPDATE retl.run r SET quiesced = true, sent = 1, open_batches = open_batches - 1 FROM late WHERE r.id = late.run;
CALL retl.work();
SELECT status, sent FROM retl.runs WHERE id = :run;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a held run: the next sync replaces it; released, it goes as far as it was planned, once'
SELECT retl.alter_mapping('m', max_delete_percent => 10, brake_min_rows => 1);
DELETE FROM s.t WHERE id IN (8, 9);
SELECT retl.sync('m') AS one \gset
CALL retl.work();
SELECT status, error FROM retl.runs WHERE id = :one;
UPDATE s.t SET v = 77 WHERE id = 1;
SELECT retl.sync('m') AS two \gset
CALL retl.work();
SELECT status, served_by = :two AS by_the_other FROM retl.runs WHERE id = :one;
\set VERBOSITY sqlstate
SELECT retl.release_run(:one);
\set VERBOSITY default
INSERT INTO s.t VALUES (10, 10);
SELECT retl.sync('other') IS NOT NULL AS asked;
CALL retl.work();
SELECT count(*) FROM s.answer('other');
CALL retl.work();
SELECT retl.release_run(:two);
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT status FROM retl.runs WHERE id = :two;
\set VERBOSITY sqlstate
SELECT retl.release_run(:two);
\set VERBOSITY default
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# TRUNCATE and reload in two transactions, with a look between: held, and then there is nothing to do'
CREATE TABLE s.kept AS SELECT * FROM s.t;
TRUNCATE s.t;
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT status, error FROM retl.runs WHERE id = :run;
INSERT INTO s.t SELECT * FROM s.kept;
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT * FROM s.answer('m');
SELECT status, sent FROM retl.runs WHERE id = :run;

\echo '# what the model reads is gone: the run fails, nothing is taken for deleted'
ALTER TABLE s.t RENAME TO away;
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT status, error_code FROM retl.runs WHERE id = :run;
SELECT retl.sync('m') AS run \gset
CREATE TABLE s.t AS SELECT id::bigint, v FROM s.away;
CALL retl.work();
SELECT status, error_code, error FROM retl.runs WHERE id = :run;
DROP TABLE s.t;
ALTER TABLE s.away RENAME TO t;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');

\echo '# a replay does not bring back an old version'
UPDATE s.t SET v = 20 WHERE id = 1;
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
UPDATE s.t SET v = 21 WHERE id = 1;
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT retl.replay_run(:run) IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# a change made while its mapping''s run is under way is in the run of the request that followed it'
UPDATE s.t SET v = 30 WHERE id = 1;
SELECT retl.sync('m') AS one \gset
CALL retl.work();
BEGIN;
UPDATE s.t SET v = 31 WHERE id = 1;
SELECT retl.sync('m') AS two \gset
COMMIT;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();
SELECT id = :two AS second, status, served_by FROM retl.runs WHERE id IN (:one, :two) ORDER BY id;

\echo '# keys of text are kept in the order of their bytes, whatever the database collates by'
SELECT retl.create_model('words', $$SELECT w, 1 AS v FROM unnest('{a,B,"ä",Z,"\\b"}'::text[]) w$$, '{w}') IS NOT NULL AND s.mapping('w', 'words') IS NOT NULL AS made;
SELECT retl.sync('w') IS NOT NULL AS asked;
CALL retl.work();
SELECT key FROM s.answer('w');
SELECT DISTINCT c.collname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation
 WHERE a.attrelid = ('retl_data.checkpoint_' || (SELECT id FROM retl.models WHERE name = 'words'))::regclass AND a.attnum > 0;

\echo '# a column that no mapping uses comes, with a value in every row, changes and goes: nothing is sent, no brake trips'
SELECT retl.alter_mapping('m', max_change_percent => 1);
ALTER TABLE s.t ADD COLUMN x text DEFAULT 'new';
SELECT retl.sync('m') AS run \gset
CALL retl.work();
SELECT * FROM s.answer('m');
SELECT status, sent FROM retl.runs WHERE id = :run;
SELECT log_rows FROM retl.model_state WHERE model = (SELECT id FROM retl.models WHERE name = 't');
\echo '# a change on the one side of it and the column on the other: the row as it is now is sent'
UPDATE s.t SET v = 40 WHERE id = 1;
ALTER TABLE s.t DROP COLUMN x;
SELECT retl.sync('other') IS NOT NULL AS asked;
CALL retl.work();
SELECT count(*) FROM s.answer('other');
CALL retl.work();
ALTER TABLE s.t ADD COLUMN x text DEFAULT 'newer';
SELECT retl.sync('other') IS NOT NULL AS asked;
CALL retl.work();
SELECT count(*) FROM s.answer('other');
CALL retl.work();
SELECT retl.alter_mapping('m', fields => '{"data": {"v": {"@path": "$.v"}, "x": {"@path": "$.x"}}}', max_change_percent => 100);
SELECT retl.sync('m') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('m');
CALL retl.work();

\echo '# 1,200 columns, and 460 long texts'
SELECT 'SELECT 1 AS id, ' || string_agg('n::bigint AS c' || i, ', ') || ' FROM s.n' AS wide FROM generate_series(1, 1200) i \gset
SELECT 'SELECT 1 AS id, ' || string_agg('repeat(chr(64 + n), 64) AS c' || i, ', ') || ' FROM s.n' AS long FROM generate_series(1, 460) i \gset
CREATE TABLE s.n AS SELECT 1 AS n;
SELECT retl.create_model('wide', :'wide', '{id}') IS NOT NULL AND retl.create_model('long', :'long', '{id}') IS NOT NULL AS models;
SELECT s.mapping('wide', 'wide', fields => '{"@path": "$.c1200"}') IS NOT NULL AND s.mapping('long', 'long', fields => '{"@path": "$.c460"}') IS NOT NULL AS mappings;
SELECT retl.sync('wide') IS NOT NULL AND retl.sync('long') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('wide');
SELECT * FROM s.answer('long');
CALL retl.work();
UPDATE s.n SET n = 2;
SELECT retl.sync('wide') IS NOT NULL AND retl.sync('long') IS NOT NULL AS asked;
CALL retl.work();
SELECT * FROM s.answer('wide');
SELECT * FROM s.answer('long');
CALL retl.work();

\echo '# what differs in every run makes no update: identifier, time, operation, old row'
SELECT s.mapping('same', 't', fields => '{"v": {"@path": "$.v"}, "message": {"@path": "$.messageId"}, "at": {"@path": "$.timestamp"}, "event": {"@path": "$.event"}}') IS NOT NULL AS made;
SELECT retl.sync('same') IS NOT NULL AS asked;
CALL retl.work();
SELECT count(*) FROM s.answer('same');
CALL retl.work();
UPDATE s.t SET x = 'other';
SELECT retl.sync('same') AS run \gset
CALL retl.work();
SELECT count(*) FROM s.answer('same');
SELECT status, updated FROM retl.runs WHERE id = :run;

\echo '# dropped with a run under way: all of it is gone, and nothing is deleted at the destination'
UPDATE s.t SET v = 50 WHERE id = 1;
SELECT count(*) FROM retl.sync_model('t');
CALL retl.work();
\set VERBOSITY sqlstate
SELECT retl.drop_model('t');
\set VERBOSITY default
SELECT retl.drop_model('t', cascade => true);
CALL retl.work();
SELECT count(*) FROM retl.batch b WHERE NOT EXISTS (SELECT FROM retl.mapping m WHERE m.id = b.mapping);
SELECT count(*) FROM retl.request;

SELECT retl.drop_model(name, cascade => true) FROM retl.models ORDER BY name;
SELECT retl.drop_destination('there');
DROP SCHEMA s CASCADE;
