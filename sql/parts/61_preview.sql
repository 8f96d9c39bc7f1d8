-- Looking before anything is sent.

CREATE FUNCTION retl.preview_mapping(mapping text, max_rows int DEFAULT 10,
    OUT key json, OUT operation text, OUT payload json, OUT request json, OUT error text) RETURNS SETOF record
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'retl_preview_mapping';
COMMENT ON FUNCTION retl.preview_mapping(text, int) IS 'What would be sent for the first rows of a mapping''s model as they are now: payload, and request with secrets masked; error: why it would not be sent. Sends and changes nothing';

CREATE FUNCTION retl.preview_sync(mapping text,
    OUT added bigint, OUT updated bigint, OUT deleted bigint, OUT unchanged bigint, OUT set_aside bigint,
    OUT failed_to_retry bigint, OUT unmapped bigint, OUT requests bigint, OUT bytes bigint, OUT brakes text) RETURNS record
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_preview_sync';
COMMENT ON FUNCTION retl.preview_sync(text) IS 'What a sync of the mapping, enabled or not, would do now: its model is read and compared, changes are mapped and counted, and all of it is rolled back. It costs what snapshot and plan cost. brakes: what would hold the run; the counts are then those of the run if released';
REVOKE ALL ON FUNCTION retl.preview_sync(text) FROM PUBLIC;
