-- Changing what there is. NULL leaves an attribute as it is.

CREATE FUNCTION retl.alter_model(name text, query text DEFAULT NULL, description text DEFAULT NULL, owner regrole DEFAULT NULL,
    reset text[] DEFAULT '{}', max_skip interval DEFAULT NULL, watermark text DEFAULT NULL,
    watermark_overlap interval DEFAULT NULL, full_every interval DEFAULT NULL, timeout interval DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_alter_model';
COMMENT ON FUNCTION retl.alter_model(text, text, text, regrole, text[], interval, text, interval, interval, interval) IS 'Changes a model and keeps its state; the query must keep the key. reset: attributes to clear (description, watermark, timeout) or to put back to their defaults (max_skip, watermark_overlap, full_every)';
REVOKE ALL ON FUNCTION retl.alter_model(text, text, text, regrole, text[], interval, text, interval, interval, interval) FROM PUBLIC;

CREATE FUNCTION retl.alter_destination(name text, settings jsonb DEFAULT NULL, secrets jsonb DEFAULT NULL, owner regrole DEFAULT NULL,
    reset text[] DEFAULT '{}') RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_alter_destination';
COMMENT ON FUNCTION retl.alter_destination(text, jsonb, jsonb, regrole, text[]) IS 'Changes the settings that are given and keeps the others; reset: settings to put back to their defaults. Secrets, given as references, are set beside those there are; all are dropped where requests go elsewhere from now on';
REVOKE ALL ON FUNCTION retl.alter_destination(text, jsonb, jsonb, regrole, text[]) FROM PUBLIC;

CREATE FUNCTION retl.alter_mapping(name text, fields json DEFAULT NULL, records text[] DEFAULT NULL, filter text DEFAULT NULL,
    schedule text DEFAULT NULL, batch_size int DEFAULT NULL, update_when text DEFAULT NULL, max_delete_percent numeric DEFAULT NULL,
    max_change_percent numeric DEFAULT NULL, brake_min_rows int DEFAULT NULL, allow_empty boolean DEFAULT NULL,
    max_attempts int DEFAULT NULL, max_age interval DEFAULT NULL,
    owner regrole DEFAULT NULL, resend text DEFAULT 'none', reset text[] DEFAULT '{}',
    model text DEFAULT NULL, destination text DEFAULT NULL, action text DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_alter_mapping';
COMMENT ON FUNCTION retl.alter_mapping(text, json, text[], text, text, int, text, numeric, numeric, int, boolean, int, interval, regrole, text, text[], text, text, text) IS 'Makes a new version of a mapping, in force from the next run on. resend: what that run sends again: none, changed (rows of which something else is sent than before), all; brakes apply. reset: attributes to clear (filter, batch_size, max_attempts, max_age). Model, destination and action cannot be changed: copy_mapping';
REVOKE ALL ON FUNCTION retl.alter_mapping(text, json, text[], text, text, int, text, numeric, numeric, int, boolean, int, interval, regrole, text, text[], text, text, text) FROM PUBLIC;

CREATE FUNCTION retl.copy_mapping(name text, new_name text, model text DEFAULT NULL, destination text DEFAULT NULL) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_copy_mapping';
COMMENT ON FUNCTION retl.copy_mapping(text, text, text, text) IS 'Creates a mapping as another one is, of another model or to another destination where these are given. It is the caller''s, starts disabled and without state. Returns its id';
REVOKE ALL ON FUNCTION retl.copy_mapping(text, text, text, text) FROM PUBLIC;

CREATE FUNCTION retl.rename_model(name text, new_name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_rename_model';
COMMENT ON FUNCTION retl.rename_model(text, text) IS 'Renames a model; all that refers to it stays';
REVOKE ALL ON FUNCTION retl.rename_model(text, text) FROM PUBLIC;

CREATE FUNCTION retl.rename_destination(name text, new_name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_rename_destination';
COMMENT ON FUNCTION retl.rename_destination(text, text) IS 'Renames a destination; all that refers to it stays';
REVOKE ALL ON FUNCTION retl.rename_destination(text, text) FROM PUBLIC;

CREATE FUNCTION retl.rename_mapping(name text, new_name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_rename_mapping';
COMMENT ON FUNCTION retl.rename_mapping(text, text) IS 'Renames a mapping; all that refers to it stays';
REVOKE ALL ON FUNCTION retl.rename_mapping(text, text) FROM PUBLIC;
