-- Looking before anything is sent.

CREATE FUNCTION retl.preview_mapping(mapping text, max_rows int DEFAULT 10,
    OUT key json, OUT operation text, OUT payload json, OUT request json, OUT error text) RETURNS SETOF record
  LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'retl_preview_mapping';
COMMENT ON FUNCTION retl.preview_mapping(text, int) IS 'What would be sent for the first rows of a mapping''s model as they are now: payload, and request with secrets masked; error: why it would not be sent. Sends and changes nothing';
