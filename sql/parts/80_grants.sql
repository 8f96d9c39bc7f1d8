-- Who may read what: the views show each reader what is the reader's. Tables
-- are for retl's own roles alone, and functions that change anything for those
-- to whom they are granted.
GRANT SELECT ON retl.sources, retl.models, retl.connectors, retl.destinations, retl.mappings, retl.runs, retl.batches, retl.attempts,
  retl.failed_rows, retl.progress, retl.health TO PUBLIC;

-- pg_read_all_data reads every table, but not past row security.
ALTER TABLE retl.secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY delivery ON retl.secret FOR SELECT TO retl_delivery USING (true);
COMMENT ON POLICY delivery ON retl.secret IS 'The delivery worker alone reads secrets';
