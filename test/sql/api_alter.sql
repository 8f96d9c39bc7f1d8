-- Changing, renaming and copying what there is; and what an edit sends again.
-- Nothing is delivered here: this test is snapshot worker and delivery worker.
SET client_min_messages = warning;
CREATE ROLE regress_alter_ann;
CREATE ROLE regress_alter_bob;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA retl TO regress_alter_ann, regress_alter_bob;
CREATE SCHEMA regress_alter AUTHORIZATION regress_alter_ann;
GRANT USAGE ON SCHEMA regress_alter TO regress_alter_bob;
SET ROLE regress_alter_ann;
SET search_path = regress_alter;
CREATE TABLE customer (id int PRIMARY KEY, email text, city text);
INSERT INTO customer SELECT n, 'C' || n, CASE WHEN n <= 3 THEN 'Bonn' ELSE 'Köln' END FROM generate_series(1, 10) n;
SELECT retl.create_model('customers', 'customer', '{id}', description => 'who buys') > 0 AS created;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example/in", "batch_size": 4}') > 0 AS created;
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": {"email": {"@path": "$.email"}}}',
  records => '{added,updated,deleted}', update_when => 'email, "city"', enabled => true) > 0 AS created;

-- models
SELECT retl.alter_model('customers', query => 'SELECT id, email, city FROM customer');
SELECT query, relation, description FROM retl.models;
SELECT retl.alter_model('customers', description => 'buyers');
SELECT retl.alter_model('customers', reset => '{description}');
SELECT query, description FROM retl.models;
SELECT retl.alter_model('customers');
SELECT retl.alter_model('customers', query => 'SELECT email FROM customer');
-- its type may change as long as nothing is stored
SELECT retl.alter_model('customers', query => 'SELECT id::text, email FROM customer');
SELECT retl.alter_model('customers', query => 'SELECT id, email, city FROM customer');
SELECT retl.alter_model('customers', reset => '{query}');
SELECT retl.alter_model('customers', description => 'x', reset => '{description}');
SELECT retl.alter_model('customer', description => 'x');

-- destinations: what is given changes, the rest stays
SELECT retl.alter_destination('hook', settings => '{"batch_size": 5, "headers": {"X": "y"}}');
SELECT settings FROM retl.destinations;
SELECT retl.alter_destination('hook', reset => '{headers,batch_size}');
SELECT settings FROM retl.destinations;
SELECT retl.alter_destination('hook', settings => '{"batch_size": 4}');
SELECT retl.alter_destination('hook');
SELECT retl.alter_destination('hook', settings => '{"batchsize": 4}');
SELECT retl.alter_destination('hook', reset => '{url}');
SELECT retl.alter_destination('hook', reset => '{color}');
SELECT retl.alter_destination('hook', settings => '{"method": "PUT"}', reset => '{method}');
SELECT retl.set_secret('hook', 'bearer_token', 'hush');
SET client_min_messages = warning;
SELECT retl.alter_destination('hook', settings => '{"url": "https://hook.example/other"}');
SELECT retl.alter_destination('hook', settings => '{"url": "https://other.example/in"}');
SELECT secrets ->> 'bearer_token' AS set FROM retl.destinations;

-- mappings: a new version each, and none for nothing
SELECT retl.alter_mapping('contacts', filter => 'id > 0', batch_size => 2, max_delete_percent => 20);
SELECT version, filter, batch_size, max_delete_percent, update_when, enabled FROM retl.mappings;
SELECT retl.alter_mapping('contacts', reset => '{filter,batch_size}', update_when => 'payload');
SELECT version, filter, batch_size, max_delete_percent, update_when FROM retl.mappings;
SELECT retl.alter_mapping('contacts', update_when => 'payload');
SELECT version FROM retl.mappings;
SELECT retl.alter_mapping('contacts');
SELECT retl.alter_mapping('contacts', fields => '{"daten": 1}');
SELECT retl.alter_mapping('contacts', filter => 'idd > 0');
SELECT retl.alter_mapping('contacts', filter => 'id > 0', reset => '{filter}');
SELECT retl.alter_mapping('contacts', reset => '{fields}');
SELECT retl.alter_mapping('contacts', batch_size => 0);
SELECT retl.alter_mapping('contacts', max_change_percent => 101);
SELECT retl.alter_mapping('contacts', resend => 'some');
SELECT retl.alter_mapping('contacts', model => 'customers');
SELECT retl.alter_mapping('contacts', destination => 'hook');
SELECT retl.alter_mapping('contacts', action => 'send');
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": {"email": {"@path": "$.email"}}}',
  records => '{added,updated,deleted}', max_delete_percent => 20, or_replace => true) > 0 AS replaced;
SELECT version, enabled FROM retl.mappings;

-- names
SELECT retl.rename_model('customers', 'clients'), retl.rename_destination('hook', 'tool'), retl.rename_mapping('contacts', 'people');
SELECT name, model, destination FROM retl.mappings;
SELECT retl.copy_mapping('people', 'people again') > 0 AS copied;
SELECT retl.create_destination('second', 'webhook', '{"url": "https://second.example/in"}') > 0 AS created;
SELECT retl.create_model('bonn', 'SELECT id, email FROM customer WHERE city = ''Bonn''', '{id}') > 0 AS created;
SELECT retl.copy_mapping('people', 'elsewhere', model => 'bonn', destination => 'second') > 0 AS copied;
SELECT name, model, destination, version, records, max_delete_percent, enabled, synced_to FROM retl.mappings ORDER BY id;
SELECT retl.rename_mapping('people', 'elsewhere');
SELECT retl.rename_mapping('people', ' ');
SELECT retl.rename_mapping('nobody', 'somebody');
SELECT retl.copy_mapping('people', 'elsewhere');
SELECT retl.copy_mapping('people', 'x', model => 'bon');

-- owners
-- (the words are PostgreSQL's, and differ by version)
\set VERBOSITY sqlstate
SELECT retl.alter_mapping('people', owner => 'regress_alter_bob');
\set VERBOSITY default
RESET ROLE;
GRANT regress_alter_ann TO regress_alter_bob;
SELECT retl.alter_mapping('elsewhere', owner => 'regress_alter_bob');
SELECT name, owner FROM retl.mappings ORDER BY id;
SELECT retl.alter_model('clients', owner => 'regress_alter_bob');
SELECT retl.alter_mapping('people', max_delete_percent => 50);
SELECT retl.alter_mapping('people', owner => 'regress_alter_ann');
SELECT retl.alter_model('clients', owner => 'regress_alter_ann');
REVOKE regress_alter_ann FROM regress_alter_bob;
-- a model's owner must be able to run it
SELECT retl.alter_model('clients', owner => 'regress_alter_bob');
SET ROLE regress_alter_bob;
SELECT retl.alter_mapping('people', batch_size => 3);
SELECT retl.alter_destination('tool', settings => '{}');
SELECT retl.alter_model('clients', description => 'mine');
SELECT retl.rename_mapping('people', 'mine');
SELECT retl.copy_mapping('people', 'mine');
RESET ROLE;
SELECT retl.drop_mapping('people again'), retl.drop_mapping('elsewhere');

-- what an edit sends again
CREATE PROCEDURE deliver(fail text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO retl.exception (mapping, key, run, batch, operation, reason, maybe, resolved)
    SELECT b.mapping, fail, b.run, b.id, 'updated', 'rejected', false, false FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id
     WHERE b.status = 'pending' AND fail IN (SELECT k::text FROM json_array_elements(y.keys) k)
    ON CONFLICT (mapping, key) DO UPDATE SET run = excluded.run;
  UPDATE retl.batch SET status = 'delivered', finished_at = now() WHERE status = 'pending';
  UPDATE retl.run SET open_batches = 0, open_bytes = 0, failed = failed + (fail IS NOT NULL)::int WHERE finished_at IS NULL AND planned;
END $$;
-- syncs, and says what was sent
CREATE FUNCTION sent() RETURNS TABLE (stage smallint, operations text, keys text, bodies text) LANGUAGE sql AS $$
  SELECT b.stage, string_agg(y.operations, '' ORDER BY b.id),
         string_agg((SELECT string_agg(k::text, ' ') FROM json_array_elements(y.keys) k), ' ' ORDER BY b.id),
         min(y.body)
    FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id
   WHERE b.run = (SELECT max(id) FROM retl.run) GROUP BY b.stage ORDER BY b.stage $$;
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT * FROM sent();
CALL deliver();
CALL retl.work();

SELECT retl.alter_model('clients', query => 'SELECT id::text, email FROM regress_alter.customer');

-- none, the default: only what changes is sent as it is now
SELECT retl.alter_mapping('people', fields => '{"data": {"mail": {"@path": "$.email"}}}');
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');
-- changed: what a new version makes of a row is other for some of them
SELECT retl.alter_mapping('people', fields => '{"data": {"mail": {"@sql": "CASE WHEN id < 4 THEN lower(email) ELSE email END"}}}', resend => 'changed');
UPDATE regress_alter.customer SET city = 'Ulm' WHERE id = 9;
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');
-- compared is with the version that planned last: that was the first one
SELECT retl.alter_mapping('people', fields => '{"data": {"email": {"@sql": "CASE WHEN id < 4 THEN lower(email) ELSE email END"}}}');
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT status, added, updated, deleted, unchanged FROM retl.run ORDER BY id DESC LIMIT 1;
SELECT * FROM sent();
-- one is refused, and stays to be sent
CALL deliver(fail => '2');
CALL retl.work();
SELECT key, reason, maybe, acked IS NOT NULL AS acked FROM retl.exception;
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT * FROM sent();
CALL deliver();
CALL retl.work();
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');
SELECT count(*) FROM retl.exception;

-- a filter that changed: rows begin and cease to be the mapping's
SELECT retl.alter_mapping('people', filter => 'id > 2', resend => 'changed');
UPDATE regress_alter.customer SET email = 'new' WHERE id IN (2, 3);
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT status, added, updated, deleted, unchanged FROM retl.run ORDER BY id DESC LIMIT 1;
SELECT * FROM sent();
CALL deliver();
CALL retl.work();
SELECT retl.alter_mapping('people', reset => '{filter}', resend => 'changed');
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT * FROM sent();
CALL deliver();
CALL retl.work();

-- all, with changes between
DELETE FROM regress_alter.customer WHERE id = 10;
INSERT INTO regress_alter.customer VALUES (11, 'C11', 'Bonn');
SELECT retl.alter_mapping('people', resend => 'all');
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT status, added, updated, deleted, unchanged FROM retl.run ORDER BY id DESC LIMIT 1;
SELECT * FROM sent();
-- stopped when all of it is planned: what was not delivered is sent by the next run
SELECT retl.cancel_run(max(id)) FROM retl.run;
UPDATE retl.run SET quiesced = true WHERE finished_at IS NULL;
CALL retl.work();
SELECT status FROM retl.run ORDER BY id DESC LIMIT 1;
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT * FROM sent();
CALL deliver();
CALL retl.work();
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');

-- brakes apply
SELECT retl.alter_mapping('people', fields => '{"data": {"e": {"@path": "$.email"}}}', brake_min_rows => 5, resend => 'changed');
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
SELECT id AS held, status, error FROM retl.runs ORDER BY id DESC LIMIT 1 \gset
SELECT :'status' AS status, :'error' AS error;
SELECT retl.release_run(:held);
CALL retl.work();
SELECT status, updated FROM retl.run WHERE id = :held;
CALL deliver();
CALL retl.work();
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');

-- a version that cannot be compiled any more: everything counts as changed
SELECT retl.alter_mapping('people', fields => '{"data": {"@sql": "city"}}');
UPDATE regress_alter.customer SET email = 'x' WHERE id = 1;
SELECT retl.sync('people') > 0 AS asked;
CALL retl.work();
CALL deliver();
CALL retl.work();
SELECT retl.alter_model('clients', query => 'SELECT id, email FROM regress_alter.customer');
SELECT retl.alter_mapping('people', fields => '{"data": {"@sql": "email"}}', resend => 'changed');
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');
-- and a baseline asks for nothing
SELECT retl.reset_mapping('people', baseline => true) > 0 AS asked;
CALL retl.work();
SELECT added, updated, deleted, unchanged, set_aside, failed_to_retry, unmapped, requests, bytes, brakes, strategy
  FROM retl.preview_sync('people');

SET client_min_messages = error;
DROP SCHEMA regress_alter CASCADE;
DROP OWNED BY regress_alter_ann, regress_alter_bob;
DROP ROLE regress_alter_ann, regress_alter_bob;
