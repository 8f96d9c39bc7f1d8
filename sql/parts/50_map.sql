-- The mapping language by itself.

CREATE FUNCTION retl.transform(mapping json, event json) RETURNS json
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
  AS 'MODULE_PATHNAME', 'retl_transform';
COMMENT ON FUNCTION retl.transform(json, json) IS 'What a mapping makes of an event (a JSON object); NULL when it makes nothing of it';
