-- Configuration as code: export, plan, apply, prune; as roles with their own rights.
\set SHOW_CONTEXT never
CREATE ROLE regress_retl_ann;
CREATE ROLE regress_retl_bob;
CREATE ROLE regress_retl_team;
GRANT regress_retl_team TO regress_retl_ann;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO regress_retl_ann, regress_retl_bob;
CREATE SCHEMA regress_app;
GRANT ALL ON SCHEMA regress_app TO regress_retl_ann, regress_retl_bob, regress_retl_team;
CREATE TABLE regress_app.customer (id int PRIMARY KEY, email text, "Plan" text, "any" text, paid numeric(8,2), seen timestamptz);
CREATE VIEW regress_app.paying AS SELECT id, email FROM regress_app.customer WHERE paid > 0;
GRANT SELECT ON ALL TABLES IN SCHEMA regress_app TO regress_retl_ann, regress_retl_bob, regress_retl_team;

\echo Arguments of create_... that an export would lack
SELECT kind, a.name
  FROM (VALUES ('destination', 'retl.destinations'::regclass), ('model', 'retl.models'), ('mapping', 'retl.mappings')) AS k (kind, view),
       retl.config_arguments(kind) a
 WHERE NOT EXISTS (SELECT FROM pg_attribute c WHERE c.attrelid = view AND c.attname = a.name);
\echo Arguments whose default is NULL and that alter_... cannot reset
SELECT kind, a.name
  FROM (VALUES ('destination'), ('model'), ('mapping')) AS k (kind), retl.config_arguments(kind) a
 WHERE a."default" LIKE 'NULL::%' AND NOT EXISTS (
         SELECT FROM pg_proc p WHERE p.pronamespace = 'retl'::regnamespace AND p.proname = 'alter_' || kind
            AND a.name = ANY (p.proargnames));

-- something of everything, with no argument left at its default
SELECT retl.create_connector(jsonb_set(definition::jsonb, '{name}', '"own"')::json) FROM retl.connectors WHERE name = 'webhook';
SELECT retl.create_destination('hook', 'own', '{"url": "https://hook.example/in", "batch_size": 50}',
  '{"signing_key": {"env": "HOOK_KEY"}}', enabled => false) > 0 AS created;
SELECT retl.set_secret('hook', 'bearer_token', 'hush');
SET search_path = regress_app, public;
SELECT retl.create_model('customers', 'customer', '{id}', description => 'Who buys', max_skip => '2 hours',
  watermark => 'seen', watermark_overlap => '3 hours', full_every => '4 days', timeout => '5 minutes') > 0 AS created;
SELECT retl.create_model('paying', 'SELECT p.*, c."Plan" FROM paying p JOIN customer c USING (id)', '{id}') > 0 AS created;
RESET search_path;
SELECT retl.disable_model('paying');
SELECT retl.create_mapping('customers to hook', 'customers', 'hook', 'send',
  '{"data": {"zip": {"@path": "$.email"}, "a": {"@sql": "upper(email)"}}}', records => '{updated,deleted}',
  filter => 'paid > 0 AND email IS NOT NULL', enabled => true, batch_size => 7, update_when => 'email, "Plan", "any"',
  max_delete_percent => 11, max_change_percent => 12.5, brake_min_rows => 13, allow_empty => true,
  max_attempts => 3, max_age => '1 day 2 hours') > 0 AS created;
SELECT retl.create_mapping('any', 'customers', 'hook', 'send', '{"data": {"@path": "$.properties"}}', update_when => '"any"') > 0 AS created;
SELECT retl.set_managed('mapping', 'any', '{"by": "hand"}');
SELECT retl.alter_model('paying', owner => 'regress_retl_team');
SELECT retl.export_config() AS config \gset
SELECT jsonb_pretty(retl.export_config() - 'connectors');
\echo Arguments that no object of the export above gives another value than the default
SELECT kind, a.name, a."default"
  FROM (VALUES ('destination'), ('model'), ('mapping')) AS k (kind), retl.config_arguments(kind) a
 WHERE NOT EXISTS (
         SELECT FROM jsonb_array_elements(:'config'::jsonb -> (kind || 's')) o
          WHERE NOT retl.config_equal(kind, o - a.name, o) OR a."default" IS NULL AND o ? a.name)
 ORDER BY 1, 2;
SELECT :'config' LIKE '%hush%' AS leaks;

-- what it is now is what it says
SELECT * FROM retl.apply_config(:'config');
SELECT mapping, version FROM retl.mapping_version ORDER BY 1, 2;

-- all of it pruned: a plan, then in earnest
SELECT * FROM retl.apply_config('{"connectors": [], "destinations": [], "models": [], "mappings": []}');
SELECT * FROM retl.apply_config('{"connectors": [], "destinations": [], "models": [], "mappings": []}', dry_run => true, prune => true);
SELECT retl.set_managed('mapping', 'any', NULL);
SELECT * FROM retl.apply_config('{"connectors": [], "destinations": [], "models": [], "mappings": []}', dry_run => true, prune => true);
SELECT count(*) FROM retl.mappings;
SELECT * FROM retl.apply_config('{"connectors": [], "destinations": [], "models": [], "mappings": []}', prune => true);
SELECT retl.export_config();

-- and made anew, by somebody whose path is another one
SET search_path = pg_catalog;
SELECT * FROM retl.apply_config(:'config', dry_run => true);
SELECT retl.export_config();
SELECT * FROM retl.apply_config(:'config');
SELECT jsonb_set(retl.export_config(), '{destinations,0,secrets,bearer_token}', 'null') = :'config' AS equal;
SELECT * FROM retl.apply_config(:'config') WHERE action <> 'unchanged';
SELECT retl.set_secret('hook', 'bearer_token', 'hush');
SELECT * FROM retl.apply_config(:'config') WHERE action <> 'unchanged';
SELECT retl.export_config() = :'config' AS equal;
RESET search_path;

-- single changes, and what is left out: a default, or what it is
SELECT * FROM retl.apply_config('{"models": [{"name": "customers", "query": "regress_app.customer", "key": ["id"]}]}');
SELECT * FROM retl.apply_config('{"mappings": [{"name": "any", "model": "customers", "destination": "hook", "action": "send",
  "fields": {"data": {"@path": "$.properties"}}, "update_when": "email,   \"any\"", "records": ["updated", "added"]}]}');
SELECT * FROM retl.apply_config('{"mappings": [{"name": "any", "model": "customers", "destination": "hook", "action": "send",
  "fields": {"data": {"@path": "$.properties"}}, "update_when": "email,   \"any\"", "records": ["updated", "added"]}]}') WHERE name = 'any';
SELECT mapping, max(version) FROM retl.mapping_version GROUP BY 1 ORDER BY 1;
SELECT * FROM retl.apply_config('{"mappings": [{"name": "customers to hook", "model": "customers", "destination": "hook", "action": "send",
  "fields": {"data": {"@path": "$.properties"}}}]}') WHERE name = 'customers to hook';
SELECT * FROM retl.apply_config('{"destinations": [{"name": "hook", "connector": "own", "settings": {"url": "https://hook.example/in"}, "secrets": {}, "enabled": true}]}');
SELECT secrets FROM retl.destinations;
SELECT * FROM retl.apply_config('{"mappings": [{"name": "customers to hook", "model": "customers", "destination": "hook", "action": "send",
  "fields": {"data": {"@path": "$.properties"}}, "enabled": false}]}') WHERE name = 'customers to hook';

-- all or nothing
SELECT * FROM retl.apply_config('{"models": [{"name": "new", "query": "SELECT 1 AS id", "key": ["id"]}, {"name": "bad", "query": "SELECT 1 AS id", "key": ["no"]}]}');
SELECT count(*) FROM retl.models WHERE name = 'new';

-- what is no configuration
SELECT retl.apply_config(NULL);
SELECT retl.apply_config('[]');
SELECT retl.apply_config('{"model": []}');
SELECT retl.apply_config('{"format": 2}');
SELECT retl.apply_config('{"models": {}}');
SELECT retl.apply_config('{"models": [{}]}');
SELECT retl.apply_config('{"connectors": [{"definition": {}}]}');
SELECT retl.apply_config('{"models": [{"name": "m", "query": "SELECT 1 AS id", "key": ["id"], "or_replace": true}]}');
SELECT retl.apply_config('{"models": [{"name": "m"}, {"name": "m"}]}');
SELECT retl.apply_config('{"models": [{"name": "m", "query": "SELECT 1 AS id", "key": ["id"], "enabled": "no"}]}');
SELECT retl.apply_config('{"models": [{"name": "m", "query": {"sql": "SELECT 1 AS id"}, "key": ["id"]}]}');
SELECT retl.apply_config('{"models": [{"name": "m", "query": "SELECT 1 AS id", "key": ["id"], "owner": "nobody_there"}]}');
SELECT retl.apply_config('{"models": [{"name": "m", "key": ["id"]}]}');
SELECT retl.apply_config('{"models": [{"name": "customers", "query": "regress_app.customer", "key": ["email"]}]}');
SELECT retl.apply_config('{"mappings": [{"name": "any", "model": "paying", "destination": "hook", "action": "send", "fields": {"data": 1}}]}');
SELECT retl.apply_config('{"mappings": [{"name": "any", "model": "customers", "destination": "hook", "action": "send", "fields": {"data": 1}, "batch_size": "many"}]}');
SELECT retl.set_managed('connector', 'own', '{}');
SELECT retl.set_managed('model', 'customers', '[]');

-- who applies may do what he may do
SET ROLE regress_retl_bob;
SELECT retl.export_config() - 'connectors';
SELECT retl.apply_config('{"models": [{"name": "customers", "query": "regress_app.customer", "key": ["id"]}]}');
SELECT retl.apply_config('{"models": [{"name": "bobs", "query": "retl.secret", "key": ["name"]}]}');
SELECT * FROM retl.apply_config('{"models": [{"name": "bobs", "query": "regress_app.customer", "key": ["id"]}]}');
SELECT retl.model_columns('customers');
SELECT retl.set_managed('model', 'customers', '{}');
SET ROLE regress_retl_ann;
SELECT * FROM retl.apply_config('{"models": []}', dry_run => true, prune => true);
SELECT jsonb_path_query_array(retl.export_config(), '$.models[*].name');
RESET ROLE;

-- a model that cannot be read is exported all the same
DROP VIEW regress_app.paying;
SELECT retl.export_config() -> 'lineage';
SELECT * FROM retl.model_columns('customers');

-- columns of a mapping, without anything it is about
SELECT retl.mapping_columns('{"a": {"@path": "$.email"}, "b": {"@path": "$.properties.x.y"}, "c": {"@path": "$.old.z"}, "d": {"@path": "$.__segment_id"}}');
SELECT retl.mapping_columns('{"a": {"@template": "{{first}} {{properties.last}}"}, "b": {"@if": {"exists": {"@path": "$.p"}, "then": {"@sql": "lower(q) || coalesce(\"R\", changed::text)"}}}}',
  filter => 's > 1 AND operation = ''added''', update_when => 't, "U"');
SELECT retl.mapping_columns('{"a": {"@path": "$.properties"}}'), retl.mapping_columns('{"a": {"@path": "$."}}'), retl.mapping_columns('{"a": 1}', update_when => 'payload');
SELECT retl.mapping_columns('{"a": {"@path": 1}}');
SELECT retl.mapping_columns('{"a": 1}', filter => 'a >');

SELECT retl.drop_model(name, cascade => true) FROM retl.models;
DROP SCHEMA regress_app CASCADE;
REVOKE ALL ON ALL ROUTINES IN SCHEMA retl FROM regress_retl_ann, regress_retl_bob;
DROP ROLE regress_retl_ann, regress_retl_bob, regress_retl_team;
