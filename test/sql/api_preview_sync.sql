-- preview_sync says what a sync would do, and leaves no trace. Nothing is
-- delivered here: this test is snapshot worker and delivery worker itself.
SET client_min_messages = warning;
CREATE TABLE customer (id int, email text);
INSERT INTO customer SELECT n, format('c%s@example.com', n) FROM generate_series(1, 200) n;
SELECT retl.create_model('customers', 'customer', '{id}') > 0 AS created;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example/in", "batch_size": 50}') > 0 AS created;
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send',
  '{"data": {"id": {"@path": "$.id"}, "email": {"@sql": "lower(email)"}, "x": {"@sql": "1 / id"}}}',
  records => '{added,updated,deleted}', brake_min_rows => 10) > 0 AS created;

-- what the destination would say to all that is pending
CREATE PROCEDURE deliver(fail int DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO retl.exception (mapping, key, run, batch, operation, reason, maybe, resolved)
    SELECT mapping, fail, run, id, 'updated', 'rejected', false, false FROM retl.batch WHERE status = 'pending' AND fail IS NOT NULL LIMIT 1
    ON CONFLICT (mapping, key) DO UPDATE SET run = excluded.run;
  UPDATE retl.batch SET status = 'delivered', finished_at = now() WHERE status = 'pending';
  UPDATE retl.run SET open_batches = 0, open_bytes = 0, failed = failed + (fail IS NOT NULL)::int,
    sent = added + updated + deleted - failed - (fail IS NOT NULL)::int WHERE finished_at IS NULL AND planned;
END $$;
CREATE FUNCTION trace() RETURNS text LANGUAGE sql AS $$
  SELECT format('%s requests, %s runs, %s batches, %s exceptions, %s tables, seq %s, cursor %s',
    (SELECT count(*) FROM retl.request), (SELECT count(*) FROM retl.run), (SELECT count(*) FROM retl.batch), (SELECT count(*) FROM retl.exception),
    (SELECT count(*) FROM pg_class WHERE relnamespace = 'retl_data'::regnamespace AND relkind = 'r'), (SELECT seq FROM retl.model_state),
    (SELECT coalesce(cursor::text, 'none') FROM retl.mapping_state)) $$;

-- a first sync, of a mapping that is still disabled
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
SELECT trace();
SELECT retl.enable_mapping('contacts');
SELECT retl.sync('contacts') > 0 AS asked;
CALL retl.work();
SELECT added, updated, deleted, unchanged, set_aside, failed, open_batches, open_bytes FROM retl.run;
-- while a run is under way nobody knows
\set VERBOSITY terse
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
\set VERBOSITY default
CALL deliver(fail => 7);
CALL retl.work();
SELECT status, sent, failed FROM retl.runs;

-- later ones: changes that matter and those that do not, keys that are none, failed rows, rows that cannot be mapped
BEGIN;
UPDATE customer SET email = upper(email) WHERE id <= 20;
UPDATE customer SET email = 'x' WHERE id BETWEEN 21 AND 25;
DELETE FROM customer WHERE id > 195;
INSERT INTO customer VALUES (300, 'new'), (301, 'dup'), (301, 'dup'), (NULL, 'no'), (0, 'no');
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
SELECT trace();
COMMIT;
SELECT retl.sync('contacts') > 0 AS asked;
CALL retl.work();
SELECT status, added, updated, deleted, unchanged, set_aside, failed, open_batches, open_bytes FROM retl.run ORDER BY id DESC LIMIT 1;
CALL deliver();
CALL retl.work();
SELECT status, sent, failed FROM retl.runs ORDER BY id DESC LIMIT 1;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');

-- what a brake would hold, and how much it would be
DELETE FROM customer WHERE id > 100;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
SELECT retl.sync('contacts') > 0 AS asked;
CALL retl.work();
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
SELECT status, error FROM retl.runs ORDER BY id DESC LIMIT 1;

-- requests that wait are part of it
SELECT retl.reset_mapping('contacts', baseline => true) > 0 AS asked;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
SELECT retl.cancel_run(max(id)) FROM retl.request;
SELECT retl.reset_mapping('contacts') > 0 AS asked;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
SELECT trace();

-- what a sync would fail with
ALTER TABLE customer RENAME TO client;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
ALTER TABLE client RENAME TO customer;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
ROLLBACK;
BEGIN READ ONLY;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('contacts');
ROLLBACK;
SELECT trace();
