-- retl: Reverse ETL inside PostgreSQL. Install script, put together from
-- sql/parts and sql/connectors.

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION retl" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

-- The API lives in retl. Checkpoints and change logs live in retl_data: the
-- schema is a member of the extension, its tables are not, so that they are
-- dumped and restored, and go with the schema.
CREATE SCHEMA retl;
COMMENT ON SCHEMA retl IS 'Reverse ETL: models, destinations, mappings, runs';
CREATE SCHEMA retl_data;
COMMENT ON SCHEMA retl_data IS 'Checkpoints and change logs of retl''s models, one pair of tables a model';

GRANT USAGE ON SCHEMA retl TO PUBLIC;
