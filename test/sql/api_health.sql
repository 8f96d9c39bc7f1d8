-- What progress and health show, of states that are made here; and to whom.
SET client_min_messages = warning;
CREATE ROLE regress_health_ann;
CREATE ROLE regress_health_gone;
CREATE ROLE regress_health_watch IN ROLE pg_monitor;
CREATE ROLE regress_health_other;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA retl TO regress_health_ann, regress_health_gone;
CREATE SCHEMA regress_health AUTHORIZATION regress_health_ann;
SET ROLE regress_health_ann;
SET search_path = regress_health, public;
CREATE TABLE customer (id int, email text);
INSERT INTO customer SELECT n, 'c' || n FROM generate_series(1, 20) n;
SELECT retl.create_model('customers', 'customer', '{id}') > 0 AS created;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example/in"}') > 0 AS created;
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": {"id": {"@path": "$.id"}}}', records => '{added,updated,deleted}',
  brake_min_rows => 5, enabled => true) > 0 AS created;
-- what is wrong with the server is everybody's
SELECT what, object, detail, hint FROM retl.health;
RESET ROLE;
CREATE VIEW public.trouble AS SELECT what, object, since IS NOT NULL AS since, regexp_replace(regexp_replace(detail, 'run \d+', 'run N'), 'OID \d+', 'OID N') AS detail,
  regexp_replace(hint, '\(\d+\)', '(N)') AS hint FROM retl.health WHERE what <> 'worker does not run' ORDER BY 1, 2;
GRANT SELECT ON trouble TO PUBLIC;

-- a run from its request to its end
SELECT retl.sync('contacts') > 0 AS asked;
SELECT mapping, destination, status, phase, planned, sent, open_requests FROM retl.progress;
CALL retl.work();
SELECT mapping, destination, status, phase, planned, sent, failed, open_requests, records_per_second, time_left FROM retl.progress;
UPDATE retl.run SET delivering_since = clock_timestamp() - interval '10 s', sent = 10, open_batches = 10;
SELECT status, phase, planned, sent, open_requests, records_per_second BETWEEN 0.5 AND 1 AS rate, time_left BETWEEN '9 s' AND '20 s' AS left FROM retl.progress;
-- it does not move
UPDATE retl.run SET started_at = started_at - interval '1 hour', delivering_since = delivering_since - interval '1 hour';
SELECT * FROM trouble;
-- nothing is accepted
UPDATE retl.run SET sent = 0, started_at = clock_timestamp();
UPDATE retl.batch SET attempts = 3, error = 'the destination answered with status 503' WHERE id = (SELECT min(id) FROM retl.batch);
SELECT * FROM trouble;
-- some fail
UPDATE retl.batch SET status = 'delivered', finished_at = now();
UPDATE retl.run SET open_batches = 0, open_bytes = 0, sent = 18, failed = 2;
INSERT INTO retl.exception (mapping, key, run, operation, reason, error, maybe, resolved)
  SELECT mapping, k::text, id, 'added', CASE k WHEN 3 THEN 'unmapped' ELSE 'rejected' END, 'no', false, true FROM retl.run, generate_series(1, 3) k;
CALL retl.work();
SELECT * FROM trouble;
SELECT count(*) AS active FROM retl.progress;
DELETE FROM retl.exception;

-- held; and rows without a usable key
DELETE FROM regress_health.customer WHERE id > 5;
INSERT INTO regress_health.customer VALUES (NULL, 'x'), (5, 'y');
SELECT retl.sync('contacts') > 0 AS asked;
CALL retl.work();
SELECT * FROM trouble;
SELECT status, phase FROM retl.progress;
SET ROLE regress_health_watch;
SELECT what, object, detail FROM trouble;
SELECT mapping, status FROM retl.progress;
SET ROLE regress_health_other;
SELECT * FROM trouble;
SELECT * FROM retl.progress;
RESET ROLE;

-- a model that cannot be read
ALTER TABLE regress_health.customer RENAME TO client;
SELECT retl.sync('contacts') > 0 AS asked;
CALL retl.work();
SELECT * FROM trouble WHERE what = 'run failed';
ALTER TABLE regress_health.client RENAME TO customer;

-- requests that wait
SELECT retl.sync('contacts') > 0 AS asked;
UPDATE retl.request SET requested_at = requested_at - interval '1 hour';
SELECT * FROM trouble WHERE what LIKE '%request%';
SELECT retl.disable_model('customers');
SELECT * FROM trouble WHERE what LIKE '%request%';
SELECT retl.enable_model('customers');
DELETE FROM retl.request;

-- a mapping that lags keeps the log of all
UPDATE retl.model_state SET log_rows = 20000, seq = 10;
SELECT * FROM trouble WHERE what LIKE 'log%';
UPDATE retl.model_state SET log_rows = 5, seq = (SELECT max(seq) FROM retl.snapshot);

-- a connector with an identity and a secret
INSERT INTO retl.connector (name, definition)
  SELECT 'crm', replace(definition::text, '"title": "Send",', '"title": "Send", "identity": ["data"],')::jsonb || '{"auth": [{"type": "bearer", "secret": "bearer_token"}]}' FROM retl.connector WHERE name = 'webhook';
SET ROLE regress_health_ann;
SELECT retl.create_destination('crm', 'crm', '{"url": "https://crm.example/in"}') > 0 AS created;
SELECT retl.create_mapping(n, 'customers', 'crm', 'send', '{"data": {"id": {"@path": "$.id"}}}', enabled => true) > 0 AS created FROM unnest('{one,two}'::text[]) n;
SELECT * FROM trouble WHERE object IN ('crm', 'one', 'two');
SELECT retl.alter_mapping('two', fields => '{"data": {"other": {"@path": "$.id"}}}');
SELECT retl.set_secret('crm', 'bearer_token', 'hush');
SELECT * FROM trouble WHERE object IN ('crm', 'one', 'two');
RESET ROLE;

-- owners
UPDATE retl.mapping SET owner = 'regress_health_gone'::regrole WHERE name = 'two';
SELECT * FROM trouble WHERE object LIKE '%two%';
SET client_min_messages = error;
DROP OWNED BY regress_health_gone;
SET client_min_messages = warning;
DROP ROLE regress_health_gone;
SELECT * FROM trouble WHERE object LIKE '%two%';
SET ROLE regress_health_ann;
SELECT retl.alter_mapping('two', owner => 'regress_health_ann');
RESET ROLE;
SELECT retl.alter_mapping('two', owner => 'regress_health_ann');
SELECT * FROM trouble WHERE object LIKE '%two%';

-- a copy of a database
UPDATE retl.instance SET system_identifier = 1;
SELECT * FROM trouble WHERE what = 'not armed';
SELECT retl.arm();
SELECT * FROM trouble WHERE what = 'not armed';

SET client_min_messages = error;
DROP VIEW trouble;
DROP SCHEMA regress_health CASCADE;
DROP OWNED BY regress_health_ann, regress_health_watch, regress_health_other;
DROP ROLE regress_health_ann, regress_health_watch, regress_health_other;
