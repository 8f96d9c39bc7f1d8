-- What a user does to runs, and to what a mapping remembers.

CREATE FUNCTION retl.cancel_run(run bigint, reason text DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_cancel_run';
COMMENT ON FUNCTION retl.cancel_run(bigint, text) IS 'Stops a run: no new request, answers under way are recorded; what is not delivered is sent by the next sync';
REVOKE ALL ON FUNCTION retl.cancel_run(bigint, text) FROM PUBLIC;

CREATE FUNCTION retl.release_run(run bigint) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_release_run';
COMMENT ON FUNCTION retl.release_run(bigint) IS 'Lets through what a brake held, once: the changes up to the run''s snapshot';
REVOKE ALL ON FUNCTION retl.release_run(bigint) FROM PUBLIC;

CREATE FUNCTION retl.replay_run(run bigint) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_replay_run';
COMMENT ON FUNCTION retl.replay_run(bigint) IS 'Sends again the keys that a run sent, as they are now. Returns the new run''s id';
REVOKE ALL ON FUNCTION retl.replay_run(bigint) FROM PUBLIC;

CREATE FUNCTION retl.reset_mapping(mapping text, baseline boolean DEFAULT false) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_reset_mapping';
COMMENT ON FUNCTION retl.reset_mapping(text, boolean) IS 'Forgets what was sent: stops the active run, then sends every present row as added, with every outstanding delete. baseline: sends nothing, and takes what is present for acknowledged. Returns the new run''s id';
REVOKE ALL ON FUNCTION retl.reset_mapping(text, boolean) FROM PUBLIC;

CREATE FUNCTION retl.resync_keys(mapping text, keys json) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_resync_keys';
COMMENT ON FUNCTION retl.resync_keys(text, json) IS 'Sends some keys as they are now, changed or not; keys: one key or an array, a key being a value, or an object by column for composite keys. Returns the new run''s id';
REVOKE ALL ON FUNCTION retl.resync_keys(text, json) FROM PUBLIC;

CREATE FUNCTION retl.retry_failed(mapping text) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_retry_failed';
COMMENT ON FUNCTION retl.retry_failed(text) IS 'Asks for a sync, which tries failed rows again with their newest version. Returns the run''s id';
REVOKE ALL ON FUNCTION retl.retry_failed(text) FROM PUBLIC;
