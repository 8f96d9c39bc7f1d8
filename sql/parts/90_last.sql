-- Workers, seen from SQL.

CREATE FUNCTION retl.worker_state(OUT kind text, OUT found boolean, OUT pid int, OUT announced boolean, OUT due_at timestamptz,
    OUT failures int, OUT retry_at timestamptz, OUT obstacle text)
  RETURNS SETOF record
  LANGUAGE c VOLATILE PARALLEL RESTRICTED
  AS 'MODULE_PATHNAME', 'retl_worker_state';
COMMENT ON FUNCTION retl.worker_state() IS 'This database''s workers: whether one has found retl here, running process, announced or due work, failures in a row, and what is in their way';

CREATE FUNCTION retl.wake_workers() RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'retl_wake_workers';
COMMENT ON FUNCTION retl.wake_workers() IS 'Makes the workers of this database look for work when the transaction commits';
REVOKE ALL ON FUNCTION retl.wake_workers() FROM PUBLIC;

-- A new extension is found at once, not when the launcher looks again.
SELECT retl.wake_workers();
