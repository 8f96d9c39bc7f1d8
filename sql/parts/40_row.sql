-- Rows: their hash and their stored form. Pure functions of their arguments;
-- models run them as their owners, so everybody may. Not IMMUTABLE: types
-- beyond the built-in ones enter by their text form, which depends on settings.

CREATE FUNCTION retl.row_hash_support(internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retl_row_hash_support';
REVOKE ALL ON FUNCTION retl.row_hash_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION retl.row_hash_support(internal) IS 'Internal: tells the planner what row_hash costs';

CREATE FUNCTION retl.row_data_support(internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retl_row_data_support';
REVOKE ALL ON FUNCTION retl.row_data_support(internal) FROM PUBLIC;
COMMENT ON FUNCTION retl.row_data_support(internal) IS 'Internal: tells the planner what row_data costs';

CREATE FUNCTION retl.row_hash(VARIADIC "any") RETURNS bigint
LANGUAGE c STABLE PARALLEL SAFE SUPPORT retl.row_hash_support AS 'MODULE_PATHNAME', 'retl_row_hash';
COMMENT ON FUNCTION retl.row_hash("any") IS '64 bits that stand for the values; the same on every server and in every release';

CREATE FUNCTION retl.row_hash_record(record) RETURNS bigint
LANGUAGE c STABLE STRICT PARALLEL SAFE SUPPORT retl.row_hash_support AS 'MODULE_PATHNAME', 'retl_row_hash_record';
COMMENT ON FUNCTION retl.row_hash_record(record) IS 'row_hash of the columns of a row, however many';

CREATE FUNCTION retl.row_data(VARIADIC "any") RETURNS json
LANGUAGE c STABLE PARALLEL SAFE SUPPORT retl.row_data_support AS 'MODULE_PATHNAME', 'retl_row_data';
COMMENT ON FUNCTION retl.row_data("any") IS 'The stored form of a row: a JSON array of the values';

CREATE FUNCTION retl.row_data_record(record) RETURNS json
LANGUAGE c STABLE STRICT PARALLEL SAFE SUPPORT retl.row_data_support AS 'MODULE_PATHNAME', 'retl_row_data_record';
COMMENT ON FUNCTION retl.row_data_record(record) IS 'row_data of the columns of a row, however many';

CREATE FUNCTION retl.row_object(data json, columns json) RETURNS json
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retl_row_object';
COMMENT ON FUNCTION retl.row_object(json, json) IS 'A stored row as an object by column name; columns as in retl.shape';

CREATE FUNCTION retl.key_data(names text[], VARIADIC "any") RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retl_key_data';
COMMENT ON FUNCTION retl.key_data(text[], "any") IS 'A key as one text: the JSON value of its one column, else an object by column';
