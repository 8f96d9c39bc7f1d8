-- What the snapshot's statements call. They are executed as a model's owner,
-- so anybody may; outside a snapshot they do nothing of use.

CREATE FUNCTION retl.snapshot_filter_support(internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT
AS 'MODULE_PATHNAME', 'retl_snapshot_filter_support';
REVOKE ALL ON FUNCTION retl.snapshot_filter_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION retl.snapshot_filter_support(internal) IS 'Internal: tells the planner how many rows of a snapshot differ';

CREATE FUNCTION retl.snapshot_filter(hash bigint, checkpoint_hash bigint, slot bigint, segment oid) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL SAFE CALLED ON NULL INPUT SUPPORT retl.snapshot_filter_support
AS 'MODULE_PATHNAME', 'retl_snapshot_filter';
COMMENT ON FUNCTION retl.snapshot_filter(bigint, bigint, bigint, oid) IS
  'Internal: passes the joined rows of a snapshot that differ, and counts all';

CREATE FUNCTION retl.snapshot_filter(hash bigint, checkpoint_hash bigint, slot bigint, segment oid, watermark timestamptz) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL SAFE CALLED ON NULL INPUT SUPPORT retl.snapshot_filter_support
AS 'MODULE_PATHNAME', 'retl_snapshot_filter';
COMMENT ON FUNCTION retl.snapshot_filter(bigint, bigint, bigint, oid, timestamptz) IS
  'Internal: the same of a model with a watermark, the greatest of which it finds';

CREATE FUNCTION retl.row_differs(old_data json, old_columns json, new_data json, new_columns json) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT
AS 'MODULE_PATHNAME', 'retl_row_differs';
COMMENT ON FUNCTION retl.row_differs(json, json, json, json) IS
  'Whether a stored row, put in place of another, loses a value: one that differs, or a column that is gone or has another type';

CREATE PROCEDURE retl.work()
LANGUAGE c
AS 'MODULE_PATHNAME', 'retl_work';
REVOKE ALL ON PROCEDURE retl.work() FROM PUBLIC;
COMMENT ON PROCEDURE retl.work() IS
  'Does in this session what the snapshot worker has to do now: snapshots, plans, ends of runs. For tests and for debugging; superusers only';
