-- What every object of the extension owes its readers. Each query lists
-- offenders, and finds none.
\pset tuples_only on
\pset format unaligned

\echo Members without a comment
SELECT pg_describe_object(d.classid, d.objid, 0)
  FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'retl')
   AND d.deptype = 'e'
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
   -- a sequence belongs to its column, a row type to its table
   AND NOT (d.classid = 'pg_class'::regclass
            AND (SELECT c.relkind FROM pg_class c WHERE c.oid = d.objid) = 'S')
   AND d.classid <> 'pg_type'::regclass
 ORDER BY 1;

\echo Columns without a comment
SELECT c.oid::regclass || '.' || a.attname
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'retl'::regnamespace AND c.relkind IN ('r', 'v')
   AND col_description(c.oid, a.attnum) IS NULL
 ORDER BY c.relname, a.attnum;

\echo Functions that change something and that everybody may call
SELECT p.oid::regprocedure
  FROM pg_proc p
 WHERE p.pronamespace = 'retl'::regnamespace
   AND (p.provolatile = 'v' OR p.prokind = 'p')
   AND has_function_privilege('public', p.oid, 'EXECUTE')
   -- these only read, as their caller or what is their caller's; snapshot_filter
   -- is called by models' owners and does nothing outside of a snapshot
   AND p.proname NOT IN ('preview_model', 'preview_query', 'preview_mapping', 'wait_for_run', 'worker_state', 'snapshot_filter')
 ORDER BY 1;

\echo Functions that are not as they should be
SELECT p.oid::regprocedure
  FROM pg_proc p
 WHERE p.pronamespace IN ('retl'::regnamespace, 'retl_data'::regnamespace)
   AND (p.prosecdef AND NOT coalesce(p.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)
        OR p.provolatile = 'v' AND p.proparallel = 's'
        OR p.pronargs > 0 AND p.proargnames IS NULL AND p.provariadic = 0 AND p.proname NOT IN ('row_hash_record', 'row_data_record'))
 ORDER BY 1;

\echo Tables and sequences of which everybody may do something
SELECT c.oid::regclass, a.privilege_type
  FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace IN ('retl'::regnamespace, 'retl_data'::regnamespace)
   AND a.grantee = 0 AND c.relkind <> 'v'
 ORDER BY 1;

\echo Views that are not barriers, that everybody may write to, or not read
SELECT c.oid::regclass
  FROM pg_class c
 WHERE c.relnamespace = 'retl'::regnamespace AND c.relkind = 'v'
   AND (NOT coalesce(c.reloptions @> '{security_barrier=true}', false)
        OR EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0 AND a.privilege_type <> 'SELECT')
        OR NOT has_table_privilege('public', c.oid, 'SELECT'))
 ORDER BY 1;

\echo Secrets that somebody other than the delivery worker may read
SELECT r.rolname
  FROM pg_roles r
 WHERE NOT r.rolsuper AND r.rolname NOT IN ('retl_delivery', 'pg_read_all_data')
   AND (has_table_privilege(r.oid, 'retl.secret', 'SELECT') OR has_any_column_privilege(r.oid, 'retl.secret', 'SELECT'))
 ORDER BY 1;
INSERT INTO retl.connector (name, definition) VALUES ('catalog_test', '{}');
INSERT INTO retl.destination (name, owner, connector, settings) VALUES ('d', current_user::regrole, 'catalog_test', '{}');
INSERT INTO retl.secret (destination, name, value) SELECT id, 'token', 'hush' FROM retl.destination;
SET ROLE pg_read_all_data;
SELECT name, value FROM retl.secret;
RESET ROLE;
