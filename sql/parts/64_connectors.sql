-- Connectors of one's own.

CREATE FUNCTION retl.create_connector(definition json, or_replace boolean DEFAULT false) RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_create_connector';
COMMENT ON FUNCTION retl.create_connector(json, boolean) IS 'Registers a connector: a definition as sql/connectors/README.md describes it, with its "name". Whoever may call this may send secrets of destinations anywhere. Returns the name';
REVOKE ALL ON FUNCTION retl.create_connector(json, boolean) FROM PUBLIC;

CREATE FUNCTION retl.alter_connector(name text, definition json) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_alter_connector';
COMMENT ON FUNCTION retl.alter_connector(text, json) IS 'Gives a connector another definition, under which its destinations and their mappings are still valid; batches that are planned keep their bytes';
REVOKE ALL ON FUNCTION retl.alter_connector(text, json) FROM PUBLIC;

CREATE FUNCTION retl.drop_connector(name text, cascade boolean DEFAULT false, if_exists boolean DEFAULT false) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_drop_connector';
COMMENT ON FUNCTION retl.drop_connector(text, boolean, boolean) IS 'Drops a connector of one''s own; cascade: its destinations and their mappings, too';
REVOKE ALL ON FUNCTION retl.drop_connector(text, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION retl.describe_connector(name text, OUT action text, OUT kind text, OUT member text, OUT type text, OUT required boolean,
    OUT "default" json, OUT choices json, OUT limits json, OUT description text)
  RETURNS SETOF record LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 50 AS 'MODULE_PATHNAME', 'retl_describe_connector';
COMMENT ON FUNCTION retl.describe_connector(text) IS 'What a connector takes: its settings and secrets, its actions with what a request carries, and their fields';
