-- Who changed what users configure.

CREATE TABLE retl.audit (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  session_role text NOT NULL,
  role text NOT NULL,
  action text NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  owner regrole,
  detail jsonb
);
CREATE INDEX audit_at ON retl.audit (at);
COMMENT ON TABLE retl.audit IS 'Changes to definitions';
COMMENT ON COLUMN retl.audit.id IS 'Number, in the order of the changes';
COMMENT ON COLUMN retl.audit.at IS 'When';
COMMENT ON COLUMN retl.audit.session_role IS 'Role that had logged in';
COMMENT ON COLUMN retl.audit.role IS 'Role it acted as (SET ROLE)';
COMMENT ON COLUMN retl.audit.action IS 'create, alter, enable, disable, drop; of what a mapping sends: send; of secrets: set, drop; of the instance: arm';
COMMENT ON COLUMN retl.audit.kind IS 'model, destination, mapping, secret, connector, instance';
COMMENT ON COLUMN retl.audit.name IS 'Name at that time; of a secret: destination/name';
COMMENT ON COLUMN retl.audit.owner IS 'Owner of the object at that time';
COMMENT ON COLUMN retl.audit.detail IS 'What it was created with, or was when dropped; of what was altered: {"old", "new"} of each member. No values of secrets';

SELECT pg_catalog.pg_extension_config_dump('retl.audit', '');
SELECT pg_catalog.pg_extension_config_dump('retl.audit_id_seq', '');

CREATE FUNCTION retl.audit_change() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'retl_audit_change';
COMMENT ON FUNCTION retl.audit_change() IS 'Records a change to a definition';
REVOKE ALL ON FUNCTION retl.audit_change() FROM PUBLIC;

CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON retl.model FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON retl.destination FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON retl.mapping FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON retl.mapping_version FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON retl.secret FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON retl.connector FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON retl.instance FOR EACH ROW EXECUTE FUNCTION retl.audit_change();
COMMENT ON TRIGGER audit ON retl.model IS 'Records changes in retl.audit';
COMMENT ON TRIGGER audit ON retl.destination IS 'Records changes in retl.audit';
COMMENT ON TRIGGER audit ON retl.mapping IS 'Records changes in retl.audit';
COMMENT ON TRIGGER audit ON retl.mapping_version IS 'Records changes in retl.audit';
COMMENT ON TRIGGER audit ON retl.secret IS 'Records changes in retl.audit';
COMMENT ON TRIGGER audit ON retl.connector IS 'Records changes in retl.audit';
COMMENT ON TRIGGER audit ON retl.instance IS 'Records changes in retl.audit';

CREATE VIEW retl.changes WITH (security_barrier) AS
SELECT a.id, a.at, a.session_role, a.role, a.action, a.kind, a.name, a.owner,
       CASE WHEN pg_catalog.pg_has_role(a.owner::pg_catalog.oid, 'USAGE') THEN a.detail END AS detail
  FROM retl.audit a
 WHERE pg_catalog.pg_has_role(a.owner::pg_catalog.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.changes IS 'Who changed which model, destination, mapping, secret or connector, and how; of the reader''s objects';
COMMENT ON COLUMN retl.changes.id IS 'Number, in the order of the changes';
COMMENT ON COLUMN retl.changes.at IS 'When';
COMMENT ON COLUMN retl.changes.session_role IS 'Role that had logged in';
COMMENT ON COLUMN retl.changes.role IS 'Role it acted as (SET ROLE)';
COMMENT ON COLUMN retl.changes.action IS 'create, alter, enable, disable, drop; of what a mapping sends: send; of secrets: set, drop; of the instance: arm';
COMMENT ON COLUMN retl.changes.kind IS 'model, destination, mapping, secret, connector, instance';
COMMENT ON COLUMN retl.changes.name IS 'Name at that time; of a secret: destination/name';
COMMENT ON COLUMN retl.changes.owner IS 'Owner of the object at that time; NULL: it has none';
COMMENT ON COLUMN retl.changes.detail IS 'What it was created with, or was when dropped; of what was altered: {"old", "new"} of each member. No values of secrets; NULL: not for the reader';
GRANT SELECT ON retl.changes TO PUBLIC;

-- Kept for as long as retl.audit_retention says.
GRANT SELECT (at), DELETE ON retl.audit TO retl_snapshot;
