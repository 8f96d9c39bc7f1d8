-- Schedules.

CREATE FUNCTION retl.next_ticks(schedule text, count int DEFAULT 10, after timestamptz DEFAULT now()) RETURNS SETOF timestamptz
  LANGUAGE c STABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'retl_next_ticks';
COMMENT ON FUNCTION retl.next_ticks(text, int, timestamptz) IS 'When a schedule comes next after a time; for an interval, if its mapping is enabled at that time';

CREATE FUNCTION retl.tick(now timestamptz DEFAULT NULL) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_tick';
COMMENT ON FUNCTION retl.tick(timestamptz) IS 'Asks for the syncs that are due and returns how many; to be called every minute, which install_tick arranges. now: a time to take for the present, for superusers';
REVOKE ALL ON FUNCTION retl.tick(timestamptz) FROM PUBLIC;

CREATE FUNCTION retl.install_tick() RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_install_tick';
COMMENT ON FUNCTION retl.install_tick() IS 'Makes the job of pg_cron that calls retl.tick() every minute, as the caller, and returns its number. Where pg_cron is elsewhere, the hint has what is to be done';
REVOKE ALL ON FUNCTION retl.install_tick() FROM PUBLIC;

CREATE FUNCTION retl.uninstall_tick() RETURNS boolean
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_uninstall_tick';
COMMENT ON FUNCTION retl.uninstall_tick() IS 'Removes that job; whether there was one';
REVOKE ALL ON FUNCTION retl.uninstall_tick() FROM PUBLIC;
