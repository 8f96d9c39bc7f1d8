-- A sync that is waited for, through the workers to a receiver and back.
\getenv url RECEIVER
SET client_min_messages = warning;
CREATE TABLE customer (id int PRIMARY KEY, email text);
INSERT INTO customer SELECT n, format('c%s@example.com', n) FROM generate_series(1, 250) n;
SELECT retl.create_model('customers', 'customer', '{id}') > 0 AS created;
SELECT retl.create_destination('hook', 'webhook', jsonb_build_object('url', :'url' || '/live_api', 'batch_size', 100)) > 0 AS created;
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send',
  '{"data": {"id": {"@path": "$.id"}, "email": {"@path": "$.email"}, "event": {"@path": "$.event"}}}',
  records => '{added,updated,deleted}', enabled => true) > 0 AS created;

CALL retl.sync_and_wait('contacts');
SELECT status, added, updated, deleted, unchanged, sent, failed FROM retl.runs ORDER BY id DESC LIMIT 1;
SELECT status, stage, records, attempts, http_status, json_array_length(keys) AS keys FROM retl.batches ORDER BY id;

UPDATE customer SET email = upper(email) WHERE id <= 3;
DELETE FROM customer WHERE id = 250;
INSERT INTO customer VALUES (1000, 'new@example.com');
CALL retl.sync_and_wait('contacts');
SELECT status, added, updated, deleted, unchanged, sent, failed FROM retl.runs ORDER BY id DESC LIMIT 1;

-- nothing changed: nothing is sent
CALL retl.sync_and_wait('contacts');
SELECT status, added, updated, deleted, unchanged, sent, failed FROM retl.runs ORDER BY id DESC LIMIT 1;

-- a model that cannot be read fails its run, and the call with it
ALTER TABLE customer RENAME TO client;
CALL retl.sync_and_wait('contacts');
SELECT status, error_code, error FROM retl.runs ORDER BY id DESC LIMIT 1;
ALTER TABLE client RENAME TO customer;

-- by the relation's name, as a hook of dbt does it
INSERT INTO customer VALUES (1001, 'hook@example.com');
SELECT run FROM retl.sync_model('public.customer', 'an invocation') run \gset
CALL retl.wait_for_run(:run);
SELECT status, added, sent FROM retl.runs WHERE id = :run;
SELECT mapping, synced_to = snapshots AS up_to_date FROM (SELECT name AS mapping, model, synced_to FROM retl.mappings) m JOIN retl.models o ON o.name = m.model;
