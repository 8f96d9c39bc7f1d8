-- The good paths: models, destinations, mappings and requests for syncs, as
-- their owner and others see them.
CREATE ROLE regress_retl_ann;
CREATE ROLE regress_retl_team;
CREATE ROLE regress_retl_cleo IN ROLE regress_retl_team;
CREATE ROLE regress_retl_watch IN ROLE pg_monitor;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO regress_retl_ann, regress_retl_team, regress_retl_cleo;
CREATE SCHEMA regress_app;
CREATE SCHEMA "Odd ""schema""";
GRANT ALL ON SCHEMA regress_app, "Odd ""schema""" TO regress_retl_ann, regress_retl_team;

SET ROLE regress_retl_ann;
SET search_path = regress_app, "Odd ""schema""", no_such_schema, "$user";
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE customer (id int PRIMARY KEY, email text, "Name" text, feels mood, tags text[], paid numeric, at timestamptz, doc jsonb);
INSERT INTO customer VALUES
  (1, 'ann@example.com', 'Ann "A" O''Neil', 'glad', '{a,"b c"}', 12.50, '2024-02-29 12:00+02', '{"k": [1, null]}'),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE "Odd ""schema"""."it's; a ""table"" --" (id int PRIMARY KEY, "c""1; DROP" text);
INSERT INTO "it's; a ""table"" --" VALUES (1, 'x');
CREATE VIEW glad AS SELECT id, email FROM customer WHERE feels = 'glad';
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, sum(paid) AS paid FROM customer;
CREATE TABLE part (id int, day date) PARTITION BY RANGE (day);

-- models: from names and from queries
SELECT retl.create_model('customers', 'customer', '{id}', description => 'Everybody') > 0 AS created;
SELECT retl.create_model('glad', 'regress_app.glad', '{id}') > 0 AS created;
SELECT retl.create_model('totals', format('%I.regress_app."totals"', current_database()), '{n}') > 0 AS created;
SELECT retl.create_model('parts', 'part', '{id,day}') > 0 AS created;
SELECT retl.create_model('odd', '"Odd ""schema"""."it''s; a ""table"" --"', '{id}') > 0 AS created;
SELECT retl.create_model('query', $$
  -- comments are fine
  WITH g AS (SELECT * FROM glad) SELECT id, lower(email) AS email, 'x' AS "Kind" FROM g$$, '{id,Kind}') > 0 AS created;
SELECT retl.create_model('mood', 'SELECT DISTINCT feels FROM customer', '{feels}') > 0 AS created;
SELECT retl.create_model('dice', 'SELECT id, random() AS eyes FROM customer', '{id}') > 0 AS created;
SELECT retl.create_model('values', 'VALUES (1, 2)', '{column1}') > 0 AS created;
SELECT name, owner, source, query, relation, search_path, key, description, enabled, snapshots, rows FROM retl.models ORDER BY id;

-- or_replace: the same key, whatever else
SELECT retl.create_model('customers', 'SELECT id, email, "Name" AS name FROM customer', '{id}', or_replace => true) =
       (SELECT id FROM retl.models WHERE name = 'customers') AS same_id;
SELECT query, relation, description FROM retl.models WHERE name = 'customers';
SELECT retl.create_model('customers', 'customer', '{id}', description => 'All', or_replace => true) > 0 AS replaced;
SELECT query, relation, description FROM retl.models WHERE name = 'customers';

-- previews
SELECT retl.preview_model('customers');
SELECT retl.preview_model('customers', 1);
SELECT retl.preview_model('customers', 0);
SELECT * FROM retl.preview_model('odd') AS row;
SELECT retl.preview_query('SELECT n, n * 1.5 AS half FROM generate_series(1, 1000) n', 3);
SELECT count(*) FROM retl.preview_query('SELECT n FROM generate_series(1, 1000) n', 1000);
SELECT retl.preview_query('glad');
-- it sees what this transaction did
BEGIN;
INSERT INTO customer (id) VALUES (3);
SELECT count(*) FROM retl.preview_model('customers');
ROLLBACK;

-- destinations and secrets
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://user.example/in", "batch_size": 50}') > 0 AS created;
SELECT name, owner, connector, settings, secrets, enabled FROM retl.destinations;
SELECT retl.set_secret('hook', 'bearer_token', 'hush');
SELECT secrets FROM retl.destinations;
SELECT retl.set_secret('hook', 'bearer_token', NULL);
SELECT retl.set_secret('hook', 'bearer_token', NULL);
SELECT secrets FROM retl.destinations;
SELECT retl.set_secret('hook', 'bearer_token', 'hush');
SELECT retl.set_secret('hook', 'signing_key', 'hush');
-- the same origin keeps them, another one does not
SELECT retl.create_destination('hook', 'webhook', '{"url": "HTTPS://USER.example/other?x=1"}', or_replace => true) > 0 AS replaced;
SELECT settings, secrets FROM retl.destinations;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://user.example.evil.example/in"}', or_replace => true) > 0 AS replaced;
SELECT settings ->> 'url' AS url, secrets FROM retl.destinations;
SELECT retl.set_secret('hook', 'bearer_token', 'hush');
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://user.example.evil.example:8443/in"}', or_replace => true) > 0 AS replaced;
SELECT secrets FROM retl.destinations;
RESET ROLE;
SELECT count(*) AS armed FROM retl.instance;
-- references are for those who may read the server's files
GRANT pg_read_server_files TO regress_retl_ann;
SET ROLE regress_retl_ann;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://user.example/in"}',
  '{"bearer_token": {"file": "/etc/retl/token"}, "signing_key": {"env": "RETL_KEY"}}', or_replace => true) > 0 AS replaced;
SELECT secrets FROM retl.destinations;
RESET ROLE;
SELECT name, value, reference FROM retl.secret ORDER BY name;
REVOKE pg_read_server_files FROM regress_retl_ann;

-- mappings
SET ROLE regress_retl_ann;
SELECT retl.create_mapping(NULL, 'customers', 'hook', 'send', '{"data": {"@path": "$.properties"}}') > 0 AS created;
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send',
  '{"data": {"z": {"@path": "$.emial"}, "a": {"@path": "$.properties.Name"}, "old": {"@path": "$.old.paid"}, "id": {"@path": "$.__segment_id"}}}',
  records => '{deleted,added,added}', filter => 'paid > 0 AND email IS NOT NULL', batch_size => 10, update_when => 'id, "Name"',
  max_delete_percent => 0.5, max_change_percent => 100, brake_min_rows => 0, allow_empty => true) > 0 AS created;
SELECT name, owner, model, destination, connector, action, enabled, schedule, records, filter, fields, batch_size, update_when,
       max_delete_percent, max_change_percent, brake_min_rows, allow_empty, version, synced_to, active_run
  FROM retl.mappings ORDER BY id \gx
-- the same again changes nothing, another definition is another version
SELECT retl.create_mapping('send', 'customers', 'hook', 'send', '{"data": {"@path": "$.properties"}}', or_replace => true) > 0 AS replaced;
SELECT version FROM retl.mappings WHERE name = 'send';
SELECT retl.create_mapping('send', 'customers', 'hook', 'send', '{"data": {"@path": "$.email"}}', or_replace => true) > 0 AS replaced;
SELECT version, enabled FROM retl.mappings WHERE name = 'send';
SELECT retl.create_mapping('send', 'customers', 'hook', 'send', '{"data": {"@sql": "lower(email)"}}', enabled => true, or_replace => true) > 0 AS replaced;
SELECT version, enabled, fields FROM retl.mappings WHERE name = 'send';
-- the default of enabled disables nothing
SELECT retl.create_mapping('send', 'customers', 'hook', 'send', '{"data": {"@path": "$.email"}}', or_replace => true) > 0 AS replaced;
SELECT version, enabled FROM retl.mappings WHERE name = 'send';

-- requests
SELECT retl.sync('send') > 0 AS asked;
SELECT retl.enable_mapping('contacts');
SELECT count(*) AS asked FROM retl.sync_model('customers');
SELECT count(*) AS asked FROM retl.sync_model('customer');
SELECT count(*) AS asked FROM retl.sync_model('regress_app.customer');
SELECT count(*) AS asked FROM retl.sync_model(format('%I."regress_app"."customer"', current_database()));
SELECT count(*) AS asked FROM retl.sync_model('Regress_App.CUSTOMER');
SELECT count(*) AS asked FROM retl.sync_model('no_such_thing', missing_ok => true);
SELECT count(*) AS asked FROM retl.sync_model('elsewhere.regress_app.customer', missing_ok => true);
SELECT count(*) AS asked FROM retl.sync_model('glad');
-- once for each invocation
SELECT array_agg(i ORDER BY i) AS first FROM retl.sync_model('customers', 'invocation 1') i \gset
SELECT array_agg(i ORDER BY i) = :'first'::bigint[] AS the_same FROM retl.sync_model('customer', 'invocation 1') i;
SELECT array_agg(i ORDER BY i) = :'first'::bigint[] AS the_same FROM retl.sync_model('customers', 'invocation 2') i;
-- disabled ones are passed over
SELECT retl.disable_mapping('contacts');
SELECT count(*) AS asked FROM retl.sync_model('customers');
SELECT retl.disable_destination('hook');
SELECT count(*) AS asked FROM retl.sync_model('customers');
SELECT retl.enable_destination('hook');
SELECT retl.disable_model('customers');
SELECT count(*) AS asked FROM retl.sync_model('customers');
SELECT count(*) AS asked FROM retl.sync_model('customer');
SELECT retl.enable_model('customers');
-- gone with the transaction
SELECT count(*) AS requests FROM retl.runs \gset
BEGIN;
SELECT retl.sync('send') > 0 AS asked;
ROLLBACK;
SELECT count(*) - :requests AS more FROM retl.runs;
SELECT mapping, status, trigger, count(*) FROM retl.runs GROUP BY 1, 2, 3 ORDER BY 1, 3;
SELECT id FROM retl.runs LIMIT 0;
RESET ROLE;

-- runs, batches and failed rows as workers leave them, and who sees what of it
INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, requested_at, error_code, error, hint)
  SELECT 900000, id, 1, 'partial', 'manual', now(), NULL, 'a refusal', 'a hint' FROM retl.mapping WHERE name = 'send';
INSERT INTO retl.batch (run, mapping, mapping_version, destination, stage, records, bytes, idempotency_key, status, http_status, error)
  SELECT 900000, id, 1, destination, 0, 2, 20, 'key', 'partial', 422, 'bad email ann@example.com' FROM retl.mapping WHERE name = 'send';
INSERT INTO retl.batch_body (batch, request, body, keys, operations) SELECT id, '{}', '[]', '[1, 2]', 'au' FROM retl.batch;
INSERT INTO retl.exception (mapping, key, run, operation, reason, http_status, error, maybe, resolved)
  SELECT id, '2', 900000, 'updated', 'rejected', 422, 'bad email ann@example.com', false, true FROM retl.mapping WHERE name = 'send';
SET ROLE regress_retl_ann;
SELECT mapping, status, error, hint FROM retl.runs WHERE status <> 'queued';
SELECT mapping, destination, status, stage, records, http_status, error, keys FROM retl.batches;
SELECT mapping, key, operation, reason, http_status, error, maybe, run, attempts FROM retl.failed_rows;
SET ROLE regress_retl_watch;
SELECT name, query FROM retl.models WHERE name = 'customers';
SELECT name, settings FROM retl.destinations;
SELECT name, fields FROM retl.mappings ORDER BY 1;
SELECT mapping, status, error, hint FROM retl.runs WHERE status <> 'queued';
SELECT mapping, destination, status, stage, records, http_status, error, keys FROM retl.batches;
SELECT mapping, key, operation, reason, http_status, error, maybe, run, attempts FROM retl.failed_rows;
SET ROLE regress_retl_cleo;
SELECT (SELECT count(*) FROM retl.models) AS models, (SELECT count(*) FROM retl.destinations) AS destinations,
       (SELECT count(*) FROM retl.mappings) AS mappings, (SELECT count(*) FROM retl.runs) AS runs,
       (SELECT count(*) FROM retl.batches) AS batches, (SELECT count(*) FROM retl.failed_rows) AS failed_rows;
SELECT name, database = current_database() AS here FROM retl.sources;
SELECT name, title, actions, settings, secrets, built_in FROM retl.connectors WHERE name = 'webhook';
RESET ROLE;

-- privileges of an owner are those of its members; a member acts for the owner
SET ROLE regress_retl_team;
CREATE TABLE regress_app.teams (id int PRIMARY KEY);
SELECT retl.create_model('teams', 'regress_app.teams', '{id}') > 0 AS created;
SELECT retl.create_destination('teams', 'webhook', '{"url": "https://team.example"}') > 0 AS created;
SET ROLE regress_retl_cleo;
SELECT retl.create_mapping('teams', 'teams', 'teams', 'send', '{"data": 1}', enabled => true) > 0 AS created;
SELECT retl.create_model('teams', 'SELECT id FROM regress_app.teams', '{id}', or_replace => true) > 0 AS replaced;
SELECT name, owner FROM retl.models;
SELECT name, owner FROM retl.mappings;
-- the model's owner sees and starts what others send of it
SET ROLE regress_retl_team;
SELECT name, owner FROM retl.mappings;
SELECT count(*) AS asked FROM retl.sync_model('teams');
SELECT mapping, status FROM retl.runs;
RESET ROLE;

-- arming again on the same host keeps the identity; as a copy, it gets one of its own
SELECT id AS armed FROM retl.instance \gset
SELECT retl.arm('{standby}');
SELECT id = :'armed' AS same, hosts[2:] AS also FROM retl.instance;
UPDATE retl.instance SET system_identifier = 1;
SELECT retl.arm();
SELECT id = :'armed' AS same, system_identifier = 1 AS old, cardinality(hosts) AS hosts FROM retl.instance;

-- drops
SET ROLE regress_retl_ann;
SELECT retl.drop_mapping('contacts');
SELECT retl.drop_mapping('contacts', if_exists => true);
SELECT retl.drop_destination('hook', cascade => true);
SELECT count(*) FROM retl.runs;
SELECT retl.drop_destination('hook', if_exists => true);
SELECT retl.drop_model('nothing', if_exists => true);
RESET ROLE;
-- a model goes with its own tables and no others
SELECT id FROM retl.model WHERE name = 'customers' \gset
SELECT format('CREATE TABLE retl_data.checkpoint_%s (); CREATE TABLE retl_data.log_%s_1 (); CREATE TABLE retl_data.checkpoint_%s0 (); CREATE TABLE retl_data.log_%s0_1 ()', :id, :id, :id, :id) AS make \gset
:make;
SET ROLE regress_retl_ann;
SELECT retl.drop_model('customers');
RESET ROLE;
SELECT replace(relname, :'id', 'ID') FROM pg_class WHERE relnamespace = 'retl_data'::regnamespace AND relkind = 'r' ORDER BY 1;
SELECT (SELECT count(*) FROM retl.request) AS requests, (SELECT count(*) FROM retl.exception) AS exceptions,
       (SELECT count(*) FROM retl.secret) AS secrets;

SET client_min_messages = error;
DROP SCHEMA regress_app, "Odd ""schema""" CASCADE;
DROP OWNED BY regress_retl_ann, regress_retl_team, regress_retl_cleo, regress_retl_watch;
DROP ROLE regress_retl_ann, regress_retl_team, regress_retl_cleo, regress_retl_watch;
