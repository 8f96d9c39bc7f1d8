-- Workers, seen from SQL.

CREATE FUNCTION retl.worker_state(OUT kind text, OUT found boolean, OUT pid int, OUT announced boolean, OUT due_at timestamptz,
    OUT failures int, OUT retry_at timestamptz, OUT obstacle text)
  RETURNS SETOF record
  LANGUAGE c VOLATILE PARALLEL RESTRICTED
  AS 'MODULE_PATHNAME', 'retl_worker_state';
COMMENT ON FUNCTION retl.worker_state() IS 'This database''s workers: whether one has found retl here, running process, announced or due work, failures in a row, and what is in their way';
