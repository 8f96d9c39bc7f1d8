-- One record by its key.

CREATE FUNCTION retl.status_of(mapping text, key json, OUT record json, OUT acknowledged json, OUT operation text, OUT run bigint,
    OUT at timestamptz, OUT pending text, OUT pending_run bigint, OUT reason text, OUT error text, OUT failed_at timestamptz,
    OUT maybe boolean) RETURNS SETOF record
  LANGUAGE c AS 'MODULE_PATHNAME', 'retl_status_of';
COMMENT ON FUNCTION retl.status_of(text, json) IS 'What the destination of a mapping has of a record: the row that it last acknowledged (NULL: none; the mapping''s filter is not looked at), by which operation and run and when, as far as requests are kept; what is pending (added, updated, deleted) and in which run, if it is under way; why it failed last, and whether the destination may have it nevertheless. A key is a value, or an object by column for composite keys. No row: the model was never read';
REVOKE ALL ON FUNCTION retl.status_of(text, json) FROM PUBLIC;

CREATE FUNCTION retl.erase(model text, key json, force boolean DEFAULT false, OUT mapping text, OUT destination text, OUT connector text,
    OUT run bigint, OUT batch bigint, OUT operation text, OUT at timestamptz, OUT status text) RETURNS SETOF record
  LANGUAGE c AS 'MODULE_PATHNAME', 'retl_erase';
COMMENT ON FUNCTION retl.erase(text, json, boolean) IS 'Removes what is stored of a record: its row in checkpoint and change log, failed rows, the bytes of requests it was in, and their answers. Returns where it was sent, as far as requests are kept. It must be gone from the model, and its destinations told, unless force. Space is overwritten after a VACUUM; backups and write-ahead log keep it for as long as they are kept';
REVOKE ALL ON FUNCTION retl.erase(text, json, boolean) FROM PUBLIC;
