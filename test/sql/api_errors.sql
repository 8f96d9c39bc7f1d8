-- Every mistake is told with its SQLSTATE, what is wrong, and what to do.
SET client_min_messages = error;
CREATE ROLE regress_retl_ann;
CREATE ROLE regress_retl_bob;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO regress_retl_ann, regress_retl_bob;
CREATE SCHEMA regress_app AUTHORIZATION regress_retl_ann;
GRANT USAGE ON SCHEMA regress_app TO regress_retl_bob;

CREATE FUNCTION regress_app.fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  code text; message text; detail text; hint text;
BEGIN
  EXECUTE statement;
  RETURN 'it did not fail';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN format(E'%s: %s%s%s', code, message, E'\n  detail: ' || nullif(detail, ''), E'\n  hint: ' || nullif(hint, ''));
END
$$;
\pset format unaligned
\pset tuples_only on

SET ROLE regress_retl_ann;
SET search_path = regress_app;
CREATE TABLE customer (id int PRIMARY KEY, email text, "Name" text, tags text[], place point);
CREATE TABLE hidden (id int);
CREATE SEQUENCE counter;
CREATE TEMP TABLE passing (id int);

-- Models
SELECT fails($$SELECT retl.create_model(NULL, 'customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('', 'customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model(E'a\nb', 'customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', NULL, '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', '', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', NULL)$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{NULL}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{{id},{email}}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{id,id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{idd}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{name}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{nothing_like_it}')$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', (SELECT array_agg('c' || i) FROM generate_series(1, 32) i))$$);
SELECT fails($$SELECT retl.create_model('m', 'customer', '{id}', source => 'remote')$$);
SELECT fails($$SELECT retl.create_model('m', 'custmer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'nowhere.customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'otherdb.public.customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'counter', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'passing', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT p.id FROM customer c JOIN passing p USING (id)', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id FROM customer WHERE id IN (SELECT id FROM passing)', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELEC id FROM customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id FROM customer; SELECT 1', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'DELETE FROM customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'WITH d AS (DELETE FROM customer RETURNING id) SELECT id FROM d', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id INTO copy FROM customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id FROM customer FOR UPDATE', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id FROM customer WHERE id = $1', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id, emial FROM customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id, 1 FROM customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT id, email AS id FROM customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('m', 'SELECT FROM customer', '{id}')$$);
SELECT retl.create_model('customers', 'customer', '{id}') > 0;
SELECT fails($$SELECT retl.create_model('customers', 'customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('customers', 'customer', '{email}', or_replace => true)$$);
SELECT fails($$SELECT retl.enable_model('custmers')$$);
SELECT fails($$SELECT retl.disable_model('something else')$$);
SELECT fails($$SELECT retl.drop_model('custmers')$$);
SELECT fails($$SELECT retl.preview_model('custmers')$$);
SELECT fails($$SELECT retl.preview_model('customers', -1)$$);
SELECT fails($$SELECT retl.preview_model('customers', NULL)$$);
SELECT fails($$SELECT retl.preview_query('SELECT 1/0 AS x')$$);
SELECT fails($$SELECT retl.preview_query('SELECT nextval(''counter'') AS x')$$);
SELECT fails($$SELECT retl.preview_query('SELECT pg_catalog.set_config(''role'', ''postgres'', false) AS x')$$);

-- Destinations
SELECT fails($$SELECT retl.create_destination('d', 'webhok', '{"url": "https://a.example"}')$$);
SELECT fails($$SELECT retl.create_destination('d', NULL)$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example", "methd": "PUT"}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "ftp://a.example"}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example", "batch_size": "many"}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '[1]')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '[1]')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"token": {"env": "T"}}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": "hush"}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": {"file": "relative"}}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": {"file": "/a", "env": "B"}}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": {"env": "1 A"}}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": {"env": "TOKEN"}}')$$);
SELECT fails($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": {"file": "/etc/retl/token"}}')$$);
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://a.example"}') > 0;
SELECT fails($$SELECT retl.create_destination('hook', 'webhook', '{"url": "https://a.example"}')$$);
SELECT fails($$SELECT retl.set_secret('hok', 'bearer_token', 'hush')$$);
SELECT fails($$SELECT retl.set_secret('hook', 'bearer', 'hush')$$);
SELECT fails($$SELECT retl.set_secret('hook', 'bearer_token', '')$$);
SELECT fails($$SELECT retl.set_secret('hook', NULL, 'hush')$$);
SELECT fails($$SELECT retl.arm()$$);

-- Mappings
SELECT fails($$SELECT retl.create_mapping('m', 'custmers', 'hook', 'send', '{}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hok', 'send', '{}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'sned', '{"data": 1}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1, "dota": 2}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": {"@pth": "$.email"}}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": {"@sql": "lower(emial)"}}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": {"@sql": "(SELECT 1)"}}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": {"@sql": "random()"}}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', NULL)$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', records => '{}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', records => '{added,removed}')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', filter => 'idd > 5')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', filter => 'id')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', filter => 'id > 5) OR (true')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', filter => 'id IN (SELECT 1)')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', schedule => '15 fortnights')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', batch_size => 0)$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', batch_size => 20000)$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', update_when => 'emial')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', update_when => 'id,,email')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', max_delete_percent => 101)$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', max_change_percent => 'NaN')$$);
SELECT fails($$SELECT retl.create_mapping('m', 'customers', 'hook', 'send', '{"data": 1}', brake_min_rows => -1)$$);
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": 1}') > 0;
SELECT fails($$SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": 1}')$$);
SELECT retl.create_model('others', 'SELECT id, email FROM customer', '{id}') > 0;
SELECT retl.create_destination('other', 'webhook', '{"url": "https://b.example"}') > 0;
SELECT fails($$SELECT retl.create_mapping('contacts', 'others', 'hook', 'send', '{"data": 1}', or_replace => true)$$);
SELECT fails($$SELECT retl.create_mapping('contacts', 'customers', 'other', 'send', '{"data": 1}', or_replace => true)$$);
SELECT fails($$SELECT retl.enable_mapping('contcts')$$);
SELECT fails($$SELECT retl.drop_mapping('contcts')$$);

-- Dropping what is used
SELECT fails($$SELECT retl.drop_model('customers')$$);
SELECT fails($$SELECT retl.drop_destination('hook')$$);
SELECT fails($$SELECT retl.drop_destination('hok')$$);

-- Syncs
SELECT fails($$SELECT retl.sync('contcts')$$);
SELECT fails($$SELECT retl.sync('contacts')$$);
SELECT retl.enable_mapping('contacts');
SELECT retl.disable_destination('hook');
SELECT fails($$SELECT retl.sync('contacts')$$);
SELECT retl.enable_destination('hook');
SELECT retl.disable_model('customers');
SELECT fails($$SELECT retl.sync('contacts')$$);
SELECT retl.enable_model('customers');
SELECT fails($$SELECT retl.sync_model('custmers')$$);
SELECT fails($$SELECT retl.sync_model('no such model')$$);
SELECT fails($$SELECT retl.sync_model('regress_app.nothing')$$);
SELECT fails($$CALL retl.sync_and_wait('contacts')$$);
SELECT fails($$CALL retl.wait_for_run(1)$$);
\set VERBOSITY sqlstate
BEGIN;
CALL retl.sync_and_wait('contacts');
ROLLBACK;
BEGIN;
CALL retl.wait_for_run(1);
ROLLBACK;
CALL retl.sync_and_wait('contcts');
CALL retl.wait_for_run(987654321);
CALL retl.wait_for_run(NULL);
CALL retl.wait_for_run(1, '-1 s');
SELECT retl.sync('contacts') AS run \gset
CALL retl.wait_for_run(:run, '10 ms');
\set VERBOSITY default

-- Somebody else may call everything, and touch nothing
RESET ROLE;
SET ROLE regress_retl_bob;
SELECT fails($$SELECT retl.create_model('bobs', 'customer', '{id}')$$);
SELECT fails($$SELECT retl.create_model('bobs', 'SELECT count(*) AS n FROM customer', '{n}')$$);
SELECT fails($$SELECT retl.create_model('customers', 'SELECT 1 AS id', '{id}', or_replace => true)$$);
SELECT fails($$SELECT retl.preview_model('customers')$$);
SELECT fails($$SELECT retl.preview_query('customer')$$);
SELECT fails($$SELECT retl.enable_model('customers')$$);
SELECT fails($$SELECT retl.disable_model('customers')$$);
SELECT fails($$SELECT retl.drop_model('customers', cascade => true)$$);
SELECT fails($$SELECT retl.create_destination('hook', 'webhook', '{"url": "https://evil.example"}', or_replace => true)$$);
SELECT fails($$SELECT retl.set_secret('hook', 'bearer_token', 'mine')$$);
SELECT fails($$SELECT retl.enable_destination('hook')$$);
SELECT fails($$SELECT retl.disable_destination('hook')$$);
SELECT fails($$SELECT retl.drop_destination('hook', cascade => true)$$);
SELECT fails($$SELECT retl.arm()$$);
SELECT retl.create_model('bobs', 'SELECT 1 AS id', '{id}') > 0;
SELECT retl.create_destination('bobs', 'webhook', '{"url": "https://c.example"}') > 0;
SELECT fails($$SELECT retl.create_mapping('b', 'customers', 'bobs', 'send', '{"data": 1}')$$);
SELECT fails($$SELECT retl.create_mapping('b', 'bobs', 'hook', 'send', '{"data": 1}')$$);
SELECT fails($$SELECT retl.create_mapping('contacts', 'bobs', 'bobs', 'send', '{"data": 1}', or_replace => true)$$);
SELECT fails($$SELECT retl.enable_mapping('contacts')$$);
SELECT fails($$SELECT retl.disable_mapping('contacts')$$);
SELECT fails($$SELECT retl.drop_mapping('contacts')$$);
SELECT fails($$SELECT retl.sync('contacts')$$);
SELECT fails($$SELECT retl.sync_model('customers')$$);
SELECT fails($$SELECT retl.sync_model('regress_app.customer')$$);
\set VERBOSITY sqlstate
CALL retl.wait_for_run(:run);
\set VERBOSITY default
-- the hint names what bob may see, not what ann has
SELECT fails($$SELECT retl.drop_model('custmers')$$);
SELECT fails($$SELECT retl.drop_model('bob')$$);
SELECT name FROM retl.models;
SELECT name FROM retl.destinations;
SELECT count(*) FROM retl.mappings;
SELECT count(*) FROM retl.runs;
RESET ROLE;

-- without EXECUTE, nothing
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA retl FROM regress_retl_bob;
SET ROLE regress_retl_bob;
SELECT fails($$SELECT retl.create_model('more', 'SELECT 1 AS id', '{id}')$$);
SELECT fails($$SELECT retl.sync('contacts')$$);
SELECT fails($$SELECT * FROM retl.model$$);
SELECT fails($$INSERT INTO retl.request (mapping, model, trigger, requested_by) VALUES (1, 1, 'x', current_user::regrole)$$);
RESET ROLE;

-- secrets are not set where they would be logged
SELECT fails($$SELECT retl.set_secret('hook', 'bearer_token', 'hush')$$);
SET log_statement = 'all';
SELECT fails($$SELECT retl.set_secret('hook', 'bearer_token', 'hush')$$);
RESET log_statement;
SET log_min_duration_statement = 0;
SELECT fails($$SELECT retl.set_secret('hook', 'bearer_token', 'hush')$$);
RESET log_min_duration_statement;
SET debug_print_parse = on;
SELECT fails($$SELECT retl.set_secret('hook', 'bearer_token', 'hush')$$);
RESET debug_print_parse;
SELECT fails($$SELECT retl.arm('{""}')$$);
SELECT fails(format($$SELECT retl.create_destination('d', 'webhook', '{"url": "https://a.example"}', '{"bearer_token": {"file": "%s/token"}}')$$, setting))
  FROM pg_settings WHERE name = 'data_directory';

DROP SCHEMA regress_app CASCADE;
DROP OWNED BY regress_retl_ann, regress_retl_bob;
DROP ROLE regress_retl_ann, regress_retl_bob;
