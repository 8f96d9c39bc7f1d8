-- What users call. The functions run as their caller and check the caller's
-- rights themselves; whoever may call them is up to GRANT EXECUTE.

-- Models.

CREATE FUNCTION retl.create_model(name text, query text, key text[], source text DEFAULT 'local',
    description text DEFAULT NULL, or_replace boolean DEFAULT false, max_skip interval DEFAULT '0', watermark text DEFAULT NULL,
    watermark_overlap interval DEFAULT '1 hour', full_every interval DEFAULT '1 day', timeout interval DEFAULT NULL) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_create_model';
COMMENT ON FUNCTION retl.create_model(text, text, text[], text, text, boolean, interval, text, interval, interval, interval) IS 'Creates a model from one SELECT, or from the name of a table or view; key: the columns that tell rows apart. It runs with its creator''s rights, in the search_path of this call. max_skip, watermark, watermark_overlap and full_every say how much of it is read; timeout: how long a snapshot may read. Returns its id';
REVOKE ALL ON FUNCTION retl.create_model(text, text, text[], text, text, boolean, interval, text, interval, interval, interval) FROM PUBLIC;

CREATE FUNCTION retl.enable_model(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_enable_model';
COMMENT ON FUNCTION retl.enable_model(text) IS 'Lets snapshots of a model be taken again';
REVOKE ALL ON FUNCTION retl.enable_model(text) FROM PUBLIC;

CREATE FUNCTION retl.disable_model(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_disable_model';
COMMENT ON FUNCTION retl.disable_model(text) IS 'No snapshot of the model is taken from now on; active runs go on';
REVOKE ALL ON FUNCTION retl.disable_model(text) FROM PUBLIC;

CREATE FUNCTION retl.drop_model(name text, cascade boolean DEFAULT false, if_exists boolean DEFAULT false) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_drop_model';
COMMENT ON FUNCTION retl.drop_model(text, boolean, boolean) IS 'Drops a model and its state; cascade: its mappings, too. Nothing is deleted at a destination';
REVOKE ALL ON FUNCTION retl.drop_model(text, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION retl.preview_model(model text, max_rows int DEFAULT 10) RETURNS SETOF json
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'retl_preview_model';
COMMENT ON FUNCTION retl.preview_model(text, int) IS 'First rows of a model as they are now, read with its owner''s rights';

CREATE FUNCTION retl.preview_query(query text, max_rows int DEFAULT 10) RETURNS SETOF json
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'retl_preview_query';
COMMENT ON FUNCTION retl.preview_query(text, int) IS 'First rows of what could become a model: one SELECT, or the name of a table or view';

-- Destinations.

CREATE FUNCTION retl.create_destination(name text, connector text, settings jsonb DEFAULT '{}', secrets jsonb DEFAULT '{}',
    enabled boolean DEFAULT true, or_replace boolean DEFAULT false) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_create_destination';
COMMENT ON FUNCTION retl.create_destination(text, text, jsonb, jsonb, boolean, boolean) IS 'Creates a destination: an account at a tool. secrets takes references, {"name": {"file": path}} or {"env": variable}; values go through set_secret. Returns its id';
REVOKE ALL ON FUNCTION retl.create_destination(text, text, jsonb, jsonb, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION retl.set_secret(destination text, name text, value text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_set_secret';
COMMENT ON FUNCTION retl.set_secret(text, text, text) IS 'Sets a secret of a destination; NULL removes it. Meant for bind parameters (psql: \bind), since the text of a statement can be seen in pg_stat_activity; refuses where it would be logged';
REVOKE ALL ON FUNCTION retl.set_secret(text, text, text) FROM PUBLIC;

CREATE FUNCTION retl.enable_destination(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_enable_destination';
COMMENT ON FUNCTION retl.enable_destination(text) IS 'Lets a destination be sent to again; the next runs send what changed since';
REVOKE ALL ON FUNCTION retl.enable_destination(text) FROM PUBLIC;

CREATE FUNCTION retl.disable_destination(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_disable_destination';
COMMENT ON FUNCTION retl.disable_destination(text) IS 'Stops the active runs of a destination''s mappings; nothing is sent to it from now on';
REVOKE ALL ON FUNCTION retl.disable_destination(text) FROM PUBLIC;

CREATE FUNCTION retl.drop_destination(name text, cascade boolean DEFAULT false, if_exists boolean DEFAULT false) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_drop_destination';
COMMENT ON FUNCTION retl.drop_destination(text, boolean, boolean) IS 'Drops a destination and its secrets; cascade: the mappings to it, too. Nothing is deleted at the tool itself';
REVOKE ALL ON FUNCTION retl.drop_destination(text, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION retl.arm(also text[] DEFAULT '{}') RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_arm';
COMMENT ON FUNCTION retl.arm(text[]) IS 'Says that this database on this host delivers, as do the hosts in also (standbys). A restored or cloned database delivers nothing until then. For the extension''s owner';
REVOKE ALL ON FUNCTION retl.arm(text[]) FROM PUBLIC;

-- Mappings.

CREATE FUNCTION retl.create_mapping(name text, model text, destination text, action text, fields json,
    records text[] DEFAULT '{added,updated}', filter text DEFAULT NULL, schedule text DEFAULT 'manual',
    enabled boolean DEFAULT false, batch_size int DEFAULT NULL, update_when text DEFAULT 'payload',
    max_delete_percent numeric DEFAULT 10, max_change_percent numeric DEFAULT 50, brake_min_rows int DEFAULT 100,
    allow_empty boolean DEFAULT false, max_attempts int DEFAULT NULL, max_age interval DEFAULT NULL,
    or_replace boolean DEFAULT false) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_create_mapping';
COMMENT ON FUNCTION retl.create_mapping(text, text, text, text, json, text[], text, text, boolean, int, text, numeric, numeric, int, boolean, int, interval, boolean) IS 'Creates a mapping: which rows of a model become what at a destination. name NULL: the action''s. It starts disabled. Returns its id';
REVOKE ALL ON FUNCTION retl.create_mapping(text, text, text, text, json, text[], text, text, boolean, int, text, numeric, numeric, int, boolean, int, interval, boolean) FROM PUBLIC;

CREATE FUNCTION retl.enable_mapping(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_enable_mapping';
COMMENT ON FUNCTION retl.enable_mapping(text) IS 'Lets a mapping be synced; the next run sends what changed since its last one';
REVOKE ALL ON FUNCTION retl.enable_mapping(text) FROM PUBLIC;

CREATE FUNCTION retl.disable_mapping(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_disable_mapping';
COMMENT ON FUNCTION retl.disable_mapping(text) IS 'Stops the active run of a mapping; what it did not deliver, and what changes from now on, is sent after enable_mapping';
REVOKE ALL ON FUNCTION retl.disable_mapping(text) FROM PUBLIC;

CREATE FUNCTION retl.drop_mapping(name text, cascade boolean DEFAULT false, if_exists boolean DEFAULT false) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_drop_mapping';
COMMENT ON FUNCTION retl.drop_mapping(text, boolean, boolean) IS 'Drops a mapping with its runs and failed rows. Nothing is deleted at its destination';
REVOKE ALL ON FUNCTION retl.drop_mapping(text, boolean, boolean) FROM PUBLIC;

-- Syncs.

CREATE FUNCTION retl.sync(mapping text, "full" boolean DEFAULT false) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_sync';
COMMENT ON FUNCTION retl.sync(text, boolean) IS 'Asks for a sync of a mapping and returns the run''s id. It begins when this transaction commits, and sees its data. full: the model is read as a whole, whatever could be saved';
REVOKE ALL ON FUNCTION retl.sync(text, boolean) FROM PUBLIC;

CREATE FUNCTION retl.sync_model(model text, invocation text DEFAULT NULL, missing_ok boolean DEFAULT false) RETURNS SETOF bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'retl_sync_model';
COMMENT ON FUNCTION retl.sync_model(text, text, boolean) IS 'Asks for a sync of every enabled mapping of a model, or of the models on a relation given by one to three names; once for each invocation. Returns the runs'' ids';
REVOKE ALL ON FUNCTION retl.sync_model(text, text, boolean) FROM PUBLIC;

CREATE FUNCTION retl.skip_model(model text, reason text, hint text DEFAULT NULL, invocation text DEFAULT NULL) RETURNS SETOF bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'retl_skip_model';
COMMENT ON FUNCTION retl.skip_model(text, text, text, text) IS 'Records, for every enabled mapping of a model, a run that was skipped, with the reason; once for each invocation, and not where that asked for a sync already. Returns the runs'' ids';
REVOKE ALL ON FUNCTION retl.skip_model(text, text, text, text) FROM PUBLIC;

CREATE PROCEDURE retl.sync_and_wait(mapping text)
  LANGUAGE c AS 'MODULE_PATHNAME', 'retl_sync_and_wait';
COMMENT ON PROCEDURE retl.sync_and_wait(text) IS 'Asks for a sync of a mapping, commits, and waits for the run to end; fails as the run fails (held: 55000, canceled: 57000), warns where records failed';
REVOKE ALL ON PROCEDURE retl.sync_and_wait(text) FROM PUBLIC;

CREATE PROCEDURE retl.wait_for_run(run bigint, timeout interval DEFAULT '1 hour')
  LANGUAGE c AS 'MODULE_PATHNAME', 'retl_wait_for_run';
COMMENT ON PROCEDURE retl.wait_for_run(bigint, interval) IS 'Commits and waits for a run, or the one that serves it, to end; as sync_and_wait, and fails with 57014 after the timeout, while the run goes on';
