-- What comes last.

CREATE FUNCTION retl.wake_workers() RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'retl_wake_workers';
COMMENT ON FUNCTION retl.wake_workers() IS 'Makes the workers of this database look for work when the transaction commits';
REVOKE ALL ON FUNCTION retl.wake_workers() FROM PUBLIC;

-- A new extension is found at once, not when the launcher looks again.
SELECT retl.wake_workers();
