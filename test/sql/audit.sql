-- Who changed what.
SET client_min_messages = warning;
CREATE ROLE audit_marketing;
CREATE ROLE audit_other;
CREATE ROLE audit_monitor IN ROLE pg_monitor;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA retl TO audit_marketing;
CREATE TABLE t (id int PRIMARY KEY, v int);
GRANT SELECT ON t TO audit_marketing;
GRANT CREATE ON SCHEMA public TO audit_marketing;

CREATE FUNCTION hook() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
  SELECT retl.create_model('by hook', 't', '{id}') $$;
SET ROLE audit_marketing;
SELECT retl.create_model('m', 't', '{id}') > 0 AS created;
SELECT retl.create_destination('d', 'webhook', '{"url": "https://example.com/"}') > 0 AS created;
RESET ROLE;
SET log_statement = none;
SELECT retl.set_secret('d', 'bearer_token', 'canary-7f3a');
SELECT retl.set_secret('d', 'bearer_token', NULL);
SELECT retl.alter_destination('d', secrets => '{"shared_secret": {"env": "NAME_OF_IT"}}');
SET ROLE audit_marketing;
SELECT retl.create_mapping('x', 'm', 'd', 'send', '{"data": {"v": {"@path": "$.v"}}}') > 0 AS created;
SELECT retl.alter_mapping('x', batch_size => 7);
SELECT retl.enable_mapping('x');
SELECT retl.enable_mapping('x');  -- changes nothing
SELECT retl.alter_destination('d', settings => '{"timeout": 10}');
SELECT retl.rename_mapping('x', 'y');
BEGIN;
SELECT retl.disable_mapping('y');
ROLLBACK;
SELECT retl.drop_destination('d', cascade => true);
RESET ROLE;
SELECT hook() > 0 AS created;
UPDATE retl.model SET description = 'by hand' WHERE name = 'by hook';

SELECT role, action, kind, name FROM retl.changes WHERE kind <> 'instance' ORDER BY id;
SELECT session_role = session_user AS mine FROM retl.changes GROUP BY 1;
SELECT name, detail FROM retl.changes WHERE action IN ('send', 'alter', 'enable', 'set') OR kind = 'secret' ORDER BY id;
SELECT detail - '{id,owner,created_at}'::text[] AS detail FROM retl.changes WHERE name = 'd' AND action IN ('create', 'drop') ORDER BY id;
SELECT count(*) FROM retl.audit WHERE audit::text ~ 'canary|NAME_OF_IT';

-- Each sees what is of the reader's objects; who watches, that something was changed.
SET ROLE audit_marketing;
SELECT count(*) > 5 AS own, count(detail) > 5 AS detail, bool_or(name = 'by hook') AS others FROM retl.changes;
SET ROLE audit_other;
SELECT count(*) FROM retl.changes;
SELECT FROM retl.audit;
SET ROLE audit_monitor;
SELECT count(*) > 10 AS n, count(detail) FROM retl.changes;
RESET ROLE;

-- A row that comes from a dump is none of these.
SELECT count(*) AS n FROM retl.audit \gset
INSERT INTO retl.connector (name, definition) SELECT 'restored', definition FROM retl.connector WHERE name = 'webhook';
SELECT count(*) - :n AS recorded FROM retl.audit;
DELETE FROM retl.connector WHERE name = 'restored';
SELECT action, kind, name FROM retl.audit ORDER BY id DESC LIMIT 1;
SELECT retl.drop_model('m', cascade => true);
DROP OWNED BY audit_marketing;
DROP ROLE audit_marketing, audit_other, audit_monitor;
