-- Looking before anything is sent.

CREATE FUNCTION retl.preview_mapping(mapping text, max_rows int DEFAULT 10,
    OUT key json, OUT operation text, OUT payload json, OUT request json, OUT error text) RETURNS SETOF record
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'retl_preview_mapping';
COMMENT ON FUNCTION retl.preview_mapping(text, int) IS 'What would be sent for the first rows of a mapping''s model as they are now: payload, and request with secrets masked; error: why it would not be sent. Sends and changes nothing';

CREATE FUNCTION retl.preview_sync(mapping text,
    OUT added bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint, OUT set_aside bigint,
    OUT failed_to_retry bigint, OUT unmapped bigint, OUT requests bigint, OUT bytes bigint, OUT brakes text,
    OUT strategy text, OUT strategy_reason text, OUT plan_cost float8, OUT plan_rows float8) RETURNS record
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_preview_sync';
COMMENT ON FUNCTION retl.preview_sync(text) IS 'What a sync of the mapping, enabled or not, would do now: its model is read and compared, changes are mapped and counted, and all of it is rolled back. It costs what snapshot and plan cost. brakes: what would hold the run; the counts are then those of the run if released. strategy: what would be read of the model; plan_cost, plan_rows: the planner''s estimate of that statement, which is not executed where strategy is skipped';
REVOKE ALL ON FUNCTION retl.preview_sync(text) FROM PUBLIC;

CREATE FUNCTION retl.test_mapping(mapping text, key json DEFAULT NULL, send boolean DEFAULT false, timeout interval DEFAULT '30 s',
    OUT key json, OUT operation text, OUT payload json, OUT request json, OUT http_status int, OUT seconds float8,
    OUT answer text, OUT error text) RETURNS record
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_test_mapping';
COMMENT ON FUNCTION retl.test_mapping(text, json, boolean, interval) IS 'One record, the first one or that of a key, mapped as it is now; send: sends it, too, and returns the answer, whose body is cut. It is no sync: no state changes, and the record is sent again by the next one. Fails with 57014 where no answer comes in time';
REVOKE ALL ON FUNCTION retl.test_mapping(text, json, boolean, interval) FROM PUBLIC;

CREATE FUNCTION retl.test_destination(name text, timeout interval DEFAULT '30 s',
    OUT ok boolean, OUT request json, OUT http_status int, OUT seconds float8, OUT answer text, OUT error text) RETURNS record
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_test_destination';
COMMENT ON FUNCTION retl.test_destination(text, interval) IS 'Sends the test request of a destination''s connector; where it has none, OPTIONS to its address, which tells whether it can be reached. Fails with 57014 where no answer comes in time';
REVOKE ALL ON FUNCTION retl.test_destination(text, interval) FROM PUBLIC;
