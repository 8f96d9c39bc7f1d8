-- What users read. Each view shows what its reader may see: of objects, those
-- whose owner's privileges the reader has; of mappings and all that they did,
-- also those of the reader's models. Members of pg_monitor see every object
-- and every count, but no queries, no settings (which may hold addresses that
-- are as good as a key), no keys of rows and nothing that a destination said.

CREATE VIEW retl.sources WITH (security_barrier) AS
SELECT 'local'::pg_catalog.text AS name,
       pg_catalog.current_database()::pg_catalog.text AS database;
COMMENT ON VIEW retl.sources IS 'Where models run';
COMMENT ON COLUMN retl.sources.name IS 'Name, as create_model takes it';
COMMENT ON COLUMN retl.sources.database IS 'Its database';

CREATE VIEW retl.models WITH (security_barrier) AS
SELECT m.id, m.name, m.owner, m.source, CASE WHEN a.own THEN m.query END AS query, m.relation, m.search_path, m.key,
       m.description, m.enabled, m.managed_by, s.seq AS snapshots, s.row_count AS rows, s.snapshot_at, s.full_at,
       m.max_skip, m.watermark, m.watermark_overlap, m.full_every, m.timeout, n.set_aside,
       CASE WHEN a.own THEN n.set_aside_sample END AS set_aside_sample, m.created_at, m.altered_at
  FROM retl.model m
  JOIN retl.model_state s ON s.model OPERATOR(pg_catalog.=) m.id
  LEFT JOIN retl.snapshot n ON n.model OPERATOR(pg_catalog.=) m.id AND n.seq OPERATOR(pg_catalog.=) s.full_seq
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'USAGE') AS own) a
 WHERE a.own OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.models IS 'Models, and how their last snapshot went; those of the reader';
COMMENT ON COLUMN retl.models.id IS 'Identifier';
COMMENT ON COLUMN retl.models.name IS 'Name';
COMMENT ON COLUMN retl.models.owner IS 'Role with whose rights the query runs';
COMMENT ON COLUMN retl.models.source IS 'Where the query runs';
COMMENT ON COLUMN retl.models.query IS 'The SELECT; NULL: not for the reader';
COMMENT ON COLUMN retl.models.relation IS 'Qualified name, where the model was given as a relation';
COMMENT ON COLUMN retl.models.search_path IS 'Path in which the names of the query are looked up';
COMMENT ON COLUMN retl.models.key IS 'Key columns';
COMMENT ON COLUMN retl.models.description IS 'For people';
COMMENT ON COLUMN retl.models.enabled IS 'False: no snapshot is taken';
COMMENT ON COLUMN retl.models.managed_by IS 'What keeps it up to date, where that is no person: {"dbt": project, "node": unique_id}';
COMMENT ON COLUMN retl.models.snapshots IS 'Snapshots taken so far; the number of the last one';
COMMENT ON COLUMN retl.models.rows IS 'Rows as of the last snapshot';
COMMENT ON COLUMN retl.models.snapshot_at IS 'When the last snapshot was taken';
COMMENT ON COLUMN retl.models.full_at IS 'When the model was last read as a whole';
COMMENT ON COLUMN retl.models.max_skip IS 'For how long at most it is not read while nothing that it reads seems written';
COMMENT ON COLUMN retl.models.watermark IS 'Column from whose greatest value on rows are read; NULL: all are';
COMMENT ON COLUMN retl.models.watermark_overlap IS 'By how much further back than that';
COMMENT ON COLUMN retl.models.full_every IS 'All rows are read after this time at the latest';
COMMENT ON COLUMN retl.models.timeout IS 'How long a snapshot may read; NULL: as long as it takes';
COMMENT ON COLUMN retl.models.set_aside IS 'Rows, when it was last read as a whole, with NULL, duplicate or too long keys, which are not synced';
COMMENT ON COLUMN retl.models.set_aside_sample IS 'Some of these keys; NULL also where they are not for the reader';
COMMENT ON COLUMN retl.models.created_at IS 'When created';
COMMENT ON COLUMN retl.models.altered_at IS 'When last altered';

CREATE VIEW retl.connectors WITH (security_barrier) AS
SELECT c.name, c.definition OPERATOR(pg_catalog.->>) 'title' AS title,
       c.definition OPERATOR(pg_catalog.->>) 'description' AS description,
       ARRAY(SELECT pg_catalog.json_object_keys(c.definition OPERATOR(pg_catalog.->) 'actions')) AS actions,
       ARRAY(SELECT pg_catalog.json_object_keys(c.definition OPERATOR(pg_catalog.->) 'settings')) AS settings,
       ARRAY(SELECT pg_catalog.json_object_keys(c.definition OPERATOR(pg_catalog.->) 'secrets')) AS secrets,
       c.built_in, c.definition
  FROM retl.connector c;
COMMENT ON VIEW retl.connectors IS 'Kinds of destinations; for everybody';
COMMENT ON COLUMN retl.connectors.name IS 'Name, as create_destination takes it';
COMMENT ON COLUMN retl.connectors.title IS 'What people call it';
COMMENT ON COLUMN retl.connectors.description IS 'What it is for';
COMMENT ON COLUMN retl.connectors.actions IS 'Names of what it can do with records';
COMMENT ON COLUMN retl.connectors.settings IS 'Names of the settings it takes';
COMMENT ON COLUMN retl.connectors.secrets IS 'Names of the secrets it takes';
COMMENT ON COLUMN retl.connectors.built_in IS 'Comes with the extension';
COMMENT ON COLUMN retl.connectors.definition IS 'Settings, secrets, actions and their fields';

CREATE VIEW retl.destinations WITH (security_barrier) AS
SELECT d.id, d.name, d.owner, d.connector,
       CASE WHEN pg_catalog.pg_has_role(d.owner::pg_catalog.oid, 'USAGE') THEN d.settings END AS settings,
       (SELECT pg_catalog.jsonb_object_agg(k.name, EXISTS (SELECT FROM retl.secret s
                 WHERE s.destination OPERATOR(pg_catalog.=) d.id AND s.name OPERATOR(pg_catalog.=) k.name))
          FROM pg_catalog.json_object_keys(c.definition OPERATOR(pg_catalog.->) 'secrets') AS k (name)) AS secrets,
       (SELECT pg_catalog.jsonb_object_agg(s.name, s.reference) FROM retl.secret s
         WHERE s.destination OPERATOR(pg_catalog.=) d.id AND s.reference IS NOT NULL
           AND pg_catalog.pg_has_role(d.owner::pg_catalog.oid, 'USAGE')) AS secret_references,
       d.enabled, d.managed_by,
       CASE WHEN t.breaker_since IS NULL THEN 'closed'
            WHEN t.retry_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN 'open' ELSE 'half-open' END AS breaker,
       t.breaker_since, CASE WHEN t.breaker_since IS NOT NULL THEN t.retry_at END AS retry_at,
       CASE WHEN pg_catalog.pg_has_role(d.owner::pg_catalog.oid, 'USAGE') THEN t.error END AS error,
       CASE WHEN t.paused_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN t.paused_until END AS paused_until,
       t.concurrency, t.requests_left, t.rows_left,
       CASE WHEN t.day OPERATOR(pg_catalog.=) (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::pg_catalog.date
            THEN t.requests_today ELSE 0 END AS requests_today,
       CASE WHEN t.day OPERATOR(pg_catalog.=) (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::pg_catalog.date
            THEN t.rows_today ELSE 0 END AS rows_today,
       d.created_at, d.altered_at
  FROM retl.destination d
  LEFT JOIN retl.destination_state t ON t.destination OPERATOR(pg_catalog.=) d.id
  JOIN retl.connector c ON c.name OPERATOR(pg_catalog.=) d.connector
 WHERE pg_catalog.pg_has_role(d.owner::pg_catalog.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.destinations IS 'Destinations, and how much may be sent to them now; those of the reader';
COMMENT ON COLUMN retl.destinations.id IS 'Identifier';
COMMENT ON COLUMN retl.destinations.name IS 'Name';
COMMENT ON COLUMN retl.destinations.owner IS 'Role that may use and alter it';
COMMENT ON COLUMN retl.destinations.connector IS 'Kind of destination';
COMMENT ON COLUMN retl.destinations.settings IS 'The connector''s settings; NULL: not for the reader';
COMMENT ON COLUMN retl.destinations.secrets IS 'Names of its secrets, and whether each is set';
COMMENT ON COLUMN retl.destinations.secret_references IS 'Where secrets are read that were given by reference; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.destinations.enabled IS 'False: nothing is sent';
COMMENT ON COLUMN retl.destinations.managed_by IS 'What keeps it up to date, where that is no person';
COMMENT ON COLUMN retl.destinations.breaker IS 'Circuit breaker: closed; open: nothing is sent, as requests failed in a row; half-open: one is sent to see';
COMMENT ON COLUMN retl.destinations.breaker_since IS 'When it opened; NULL: it is closed';
COMMENT ON COLUMN retl.destinations.retry_at IS 'When the next request is let through';
COMMENT ON COLUMN retl.destinations.error IS 'What went wrong with the last request, where it failed; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.destinations.paused_until IS 'Until when it asked to be left alone (Retry-After)';
COMMENT ON COLUMN retl.destinations.concurrency IS 'Requests under way at once: less than its setting while it has too much to do. NULL: nothing was sent yet';
COMMENT ON COLUMN retl.destinations.requests_left IS 'Requests that might be sent at once, when it was last looked at; NULL: it has no rate';
COMMENT ON COLUMN retl.destinations.rows_left IS 'Records likewise';
COMMENT ON COLUMN retl.destinations.requests_today IS 'Requests of today (UTC) that were taken from its quota; 0 where it has none';
COMMENT ON COLUMN retl.destinations.rows_today IS 'Records likewise';
COMMENT ON COLUMN retl.destinations.created_at IS 'When created';
COMMENT ON COLUMN retl.destinations.altered_at IS 'When last altered';

CREATE VIEW retl.mappings WITH (security_barrier) AS
SELECT m.id, m.name, m.owner, o.name AS model, d.name AS destination, d.connector, m.action, m.enabled, m.schedule,
       CASE WHEN m.enabled AND m.schedule OPERATOR(pg_catalog.<>) 'manual' AND c.since OPERATOR(pg_catalog.=) m.scheduled_since
            THEN c.due_at END AS next_due_at,
       v.records, v.filter, CASE WHEN a.own THEN v.fields END AS fields, v.batch_size, v.update_when,
       v.max_delete_percent, v.max_change_percent, v.brake_min_rows, v.allow_empty, v.max_attempts, v.max_age, m.managed_by, m.version,
       s.cursor AS synced_to, s.active_run, m.created_at, m.altered_at
  FROM retl.mapping m
  JOIN retl.mapping_version v ON v.mapping OPERATOR(pg_catalog.=) m.id AND v.version OPERATOR(pg_catalog.=) m.version
  JOIN retl.mapping_state s ON s.mapping OPERATOR(pg_catalog.=) m.id
  JOIN retl.schedule_state c ON c.mapping OPERATOR(pg_catalog.=) m.id
  JOIN retl.model o ON o.id OPERATOR(pg_catalog.=) m.model
  JOIN retl.destination d ON d.id OPERATOR(pg_catalog.=) m.destination
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'USAGE')
                         OR pg_catalog.pg_has_role(o.owner::pg_catalog.oid, 'USAGE') AS own) a
 WHERE a.own OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.mappings IS 'Mappings; those of the reader, and of the reader''s models';
COMMENT ON COLUMN retl.mappings.id IS 'Identifier';
COMMENT ON COLUMN retl.mappings.name IS 'Name';
COMMENT ON COLUMN retl.mappings.owner IS 'Role that may alter, sync and drop it; @sql and the filter run as the owner of the model';
COMMENT ON COLUMN retl.mappings.model IS 'Model';
COMMENT ON COLUMN retl.mappings.destination IS 'Destination';
COMMENT ON COLUMN retl.mappings.connector IS 'Kind of destination';
COMMENT ON COLUMN retl.mappings.action IS 'What the destination does with a record';
COMMENT ON COLUMN retl.mappings.enabled IS 'New mappings start disabled';
COMMENT ON COLUMN retl.mappings.schedule IS 'When it is synced';
COMMENT ON COLUMN retl.mappings.next_due_at IS 'When its schedule asks for the next sync, as of the last tick; NULL: not by schedule, or no tick has seen it yet';
COMMENT ON COLUMN retl.mappings.records IS 'Operations sent: any of added, updated, deleted';
COMMENT ON COLUMN retl.mappings.filter IS 'Condition over the model''s columns';
COMMENT ON COLUMN retl.mappings.fields IS 'The destination''s fields in the mapping language; NULL: not for the reader';
COMMENT ON COLUMN retl.mappings.batch_size IS 'Records a request; NULL: the destination''s';
COMMENT ON COLUMN retl.mappings.update_when IS 'What makes a row updated: payload, any, or column names';
COMMENT ON COLUMN retl.mappings.max_delete_percent IS 'Brake: share of rows deleted above which a run is held';
COMMENT ON COLUMN retl.mappings.max_change_percent IS 'Brake: share of rows updated above which a run is held';
COMMENT ON COLUMN retl.mappings.brake_min_rows IS 'Fewer rows than this never trip a share';
COMMENT ON COLUMN retl.mappings.allow_empty IS 'Whether a model without rows may delete everything';
COMMENT ON COLUMN retl.mappings.max_attempts IS 'Attempts at a request before its records fail; NULL: 15 of those that are answered, no limit of the others';
COMMENT ON COLUMN retl.mappings.max_age IS 'How long after its first attempt a request is tried, and how long a destination that accepts nothing is; NULL: no limit';
COMMENT ON COLUMN retl.mappings.managed_by IS 'What keeps it up to date, where that is no person: {"dbt": project, "node": unique_id}';
COMMENT ON COLUMN retl.mappings.version IS 'Version; an edit makes a new one';
COMMENT ON COLUMN retl.mappings.synced_to IS 'Snapshot of the model up to which changes are planned; NULL: never synced';
COMMENT ON COLUMN retl.mappings.active_run IS 'The run under way, if any';
COMMENT ON COLUMN retl.mappings.created_at IS 'When created';
COMMENT ON COLUMN retl.mappings.altered_at IS 'When last altered';

CREATE VIEW retl.runs WITH (security_barrier) AS
SELECT r.id, m.name AS mapping, r.status, r.trigger, r.served_by, r.requested_at, r.started_at, r.finished_at,
       r.strategy, CASE WHEN a.own THEN r.strategy_reason END AS strategy_reason,
       r.snapshot_seconds, r.plan_seconds, r.delivery_seconds, r.added, r.updated, r.deleted, r.unchanged, r.set_aside,
       r.sent, r.failed, r.retried, r.error_code,
       CASE WHEN a.own THEN r.error END AS error, CASE WHEN a.own THEN r.hint END AS hint
  FROM (SELECT n.id, n.mapping, COALESCE(s.status, n.status), n.trigger, n.served_by, n.requested_at, n.started_at,
               COALESCE(s.finished_at, n.finished_at), n.strategy, n.strategy_reason,
               n.snapshot_seconds, n.plan_seconds, n.delivery_seconds, n.added, n.updated, n.deleted, n.unchanged,
               n.set_aside, n.sent, n.failed, n.retried,
               COALESCE(s.error_code, n.error_code), COALESCE(s.error, n.error), COALESCE(s.hint, n.hint)
          FROM retl.run n
          -- one that was merged ends as the run that serves it
          LEFT JOIN retl.run s ON s.id OPERATOR(pg_catalog.=) n.served_by AND n.finished_at IS NULL
         UNION ALL
        SELECT q.id, q.mapping,
               -- whoever takes a snapshot holds the model's lock
               CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l
                                  WHERE l.locktype OPERATOR(pg_catalog.=) 'object'
                                    AND l.classid OPERATOR(pg_catalog.=) 'retl.model'::pg_catalog.regclass
                                    AND l.objid OPERATOR(pg_catalog.=) q.model::pg_catalog.oid
                                    AND l.mode OPERATOR(pg_catalog.=) 'ShareUpdateExclusiveLock' AND l.granted
                                    AND l.database OPERATOR(pg_catalog.=)
                                        (SELECT d.oid FROM pg_catalog.pg_database d
                                          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
                    THEN 'snapshotting' ELSE 'queued' END, q.trigger, NULL, q.requested_at, NULL, NULL, NULL, NULL,
               NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL
          FROM retl.request q
         WHERE NOT EXISTS (SELECT FROM retl.run n WHERE n.id OPERATOR(pg_catalog.=) q.id))
       AS r (id, mapping, status, trigger, served_by, requested_at, started_at, finished_at, strategy,
             strategy_reason, snapshot_seconds, plan_seconds, delivery_seconds, added, updated, deleted, unchanged, set_aside, sent, failed, retried,
             error_code, error, hint)
  JOIN retl.mapping m ON m.id OPERATOR(pg_catalog.=) r.mapping
  JOIN retl.model o ON o.id OPERATOR(pg_catalog.=) m.model
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'USAGE')
                         OR pg_catalog.pg_has_role(o.owner::pg_catalog.oid, 'USAGE') AS own) a
 WHERE a.own OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.runs IS 'Runs: one sync of one mapping each, from its request on; those of mappings that the reader sees';
COMMENT ON COLUMN retl.runs.id IS 'Number, as sync returns it';
COMMENT ON COLUMN retl.runs.mapping IS 'Mapping';
COMMENT ON COLUMN retl.runs.status IS 'queued, snapshotting, planning, delivering, held; at the end succeeded, partial, failed, canceled, skipped, replaced';
COMMENT ON COLUMN retl.runs.trigger IS 'What caused it';
COMMENT ON COLUMN retl.runs.served_by IS 'The run that did the work, where requests were merged, or that replaced this one';
COMMENT ON COLUMN retl.runs.requested_at IS 'When asked for';
COMMENT ON COLUMN retl.runs.started_at IS 'When its snapshot began';
COMMENT ON COLUMN retl.runs.finished_at IS 'When it ended';
COMMENT ON COLUMN retl.runs.strategy IS 'What its snapshot read of the model: full, all of it; watermark, rows from a watermark on; keys, those that were asked for; skipped, nothing, as nothing can have changed';
COMMENT ON COLUMN retl.runs.strategy_reason IS 'Why, or which rows; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.runs.snapshot_seconds IS 'Time of the snapshot';
COMMENT ON COLUMN retl.runs.plan_seconds IS 'Time spent planning';
COMMENT ON COLUMN retl.runs.delivery_seconds IS 'From its first batch to its last outcome';
COMMENT ON COLUMN retl.runs.added IS 'Records planned as added';
COMMENT ON COLUMN retl.runs.updated IS 'Records planned as updated';
COMMENT ON COLUMN retl.runs.deleted IS 'Records planned as deleted';
COMMENT ON COLUMN retl.runs.unchanged IS 'Rows that needed nothing';
COMMENT ON COLUMN retl.runs.set_aside IS 'Rows of the snapshot without a usable key';
COMMENT ON COLUMN retl.runs.sent IS 'Records that the destination accepted';
COMMENT ON COLUMN retl.runs.failed IS 'Records that it refused, that were given up, or that could not be mapped';
COMMENT ON COLUMN retl.runs.retried IS 'Attempts beyond the first, over all batches';
COMMENT ON COLUMN retl.runs.error_code IS 'SQLSTATE of what failed or held the run';
COMMENT ON COLUMN retl.runs.error IS 'What failed or held the run; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.runs.hint IS 'What to do';

CREATE VIEW retl.batches WITH (security_barrier) AS
SELECT b.id, b.run, m.name AS mapping, d.name AS destination, b.status,
       CASE b.stage WHEN 0 THEN 'upsert' ELSE 'delete' END AS stage,
       b.records, b.bytes, b.attempts, b.failed, b.http_status, CASE WHEN a.own THEN b.error END AS error,
       b.next_attempt_at, b.created_at, b.finished_at, b.idempotency_key, b.mapping_version,
       CASE WHEN a.own THEN y.keys END AS keys, CASE WHEN a.own THEN y.operations END AS operations
  FROM retl.batch b
  JOIN retl.mapping m ON m.id OPERATOR(pg_catalog.=) b.mapping
  JOIN retl.model o ON o.id OPERATOR(pg_catalog.=) m.model
  JOIN retl.destination d ON d.id OPERATOR(pg_catalog.=) b.destination
  LEFT JOIN retl.batch_body y ON y.batch OPERATOR(pg_catalog.=) b.id
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'USAGE')
                         OR pg_catalog.pg_has_role(o.owner::pg_catalog.oid, 'USAGE') AS own) a
 WHERE a.own OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON COLUMN retl.batches.operations IS 'What they are, in this order, a letter each: a(dded), u(pdated), d(eleted); NULL as keys is';
COMMENT ON VIEW retl.batches IS 'Requests to destinations; those of mappings that the reader sees';
COMMENT ON COLUMN retl.batches.id IS 'Number; requests of a run go out in this order';
COMMENT ON COLUMN retl.batches.run IS 'Run';
COMMENT ON COLUMN retl.batches.mapping IS 'Mapping';
COMMENT ON COLUMN retl.batches.destination IS 'Destination';
COMMENT ON COLUMN retl.batches.status IS 'pending; at the end delivered, partial, failed, canceled';
COMMENT ON COLUMN retl.batches.stage IS 'upsert (added and updated records), or delete, which is sent after them';
COMMENT ON COLUMN retl.batches.records IS 'Records in it';
COMMENT ON COLUMN retl.batches.bytes IS 'Length of the body';
COMMENT ON COLUMN retl.batches.attempts IS 'Attempts on record';
COMMENT ON COLUMN retl.batches.failed IS 'Records of it that failed';
COMMENT ON COLUMN retl.batches.http_status IS 'Status of the last answer';
COMMENT ON COLUMN retl.batches.error IS 'What went wrong last; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.batches.next_attempt_at IS 'Not sent before this; NULL: at once';
COMMENT ON COLUMN retl.batches.created_at IS 'When planned';
COMMENT ON COLUMN retl.batches.finished_at IS 'When its outcome was recorded';
COMMENT ON COLUMN retl.batches.idempotency_key IS 'Same on every attempt';
COMMENT ON COLUMN retl.batches.mapping_version IS 'Version of the mapping that made it';
COMMENT ON COLUMN retl.batches.keys IS 'Keys of its records, in the order of the body; NULL: not for the reader, or cleared';

CREATE VIEW retl.attempts WITH (security_barrier) AS
SELECT a.batch, a.attempt, b.run, m.name AS mapping, d.name AS destination, a.at, a.seconds, a.bytes, a.http_status,
       a.answer_bytes, CASE WHEN w.own THEN a.error END AS error, CASE WHEN w.own THEN a.answer END AS answer
  FROM retl.attempt a
  JOIN retl.batch b ON b.id OPERATOR(pg_catalog.=) a.batch
  JOIN retl.mapping m ON m.id OPERATOR(pg_catalog.=) b.mapping
  JOIN retl.model o ON o.id OPERATOR(pg_catalog.=) m.model
  JOIN retl.destination d ON d.id OPERATOR(pg_catalog.=) b.destination
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'USAGE')
                         OR pg_catalog.pg_has_role(o.owner::pg_catalog.oid, 'USAGE') AS own) w
 WHERE w.own OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.attempts IS 'Every attempt at a request; those of mappings that the reader sees';
COMMENT ON COLUMN retl.attempts.batch IS 'Request, as retl.batches has it';
COMMENT ON COLUMN retl.attempts.attempt IS 'Number, from 1';
COMMENT ON COLUMN retl.attempts.run IS 'Run';
COMMENT ON COLUMN retl.attempts.mapping IS 'Mapping';
COMMENT ON COLUMN retl.attempts.destination IS 'Destination';
COMMENT ON COLUMN retl.attempts.at IS 'When it was dispatched';
COMMENT ON COLUMN retl.attempts.seconds IS 'How long it took';
COMMENT ON COLUMN retl.attempts.bytes IS 'Length of the body as it was sent; 0: it was not sent';
COMMENT ON COLUMN retl.attempts.http_status IS 'Status of the answer; NULL: there was none';
COMMENT ON COLUMN retl.attempts.answer_bytes IS 'Length of the answer''s body, as much as was read';
COMMENT ON COLUMN retl.attempts.error IS 'What went wrong, if anything; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.attempts.answer IS 'Beginning of the answer''s body, secrets masked; NULL also where it is not for the reader';

CREATE FUNCTION retl.find_requests(mapping text, key json, OUT batch bigint, OUT run bigint, OUT operation text, OUT status text,
    OUT attempt int, OUT at timestamptz, OUT seconds float8, OUT http_status int, OUT error text, OUT answer text,
    OUT idempotency_key text) RETURNS SETOF record
  LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  -- most requests do not have the text of the key in them, which is quicker to see than their keys
  SELECT b.id, b.run, k.operation, b.status, a.attempt, a.at, a.seconds, a.http_status, coalesce(a.error, b.error), a.answer, b.idempotency_key
    FROM retl.batches b
   CROSS JOIN LATERAL (SELECT CASE substr(b.operations, x.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END AS operation
                         FROM json_array_elements(b.keys) WITH ORDINALITY x (value, n)
                        WHERE x.value::jsonb = find_requests.key::jsonb LIMIT 1) k
    LEFT JOIN retl.attempts a ON a.batch = b.id
   WHERE b.mapping = find_requests.mapping
     AND (find_requests.key::text !~ '^(-?[0-9]+|"[A-Za-z0-9_@.:+-]*")$' OR strpos(b.keys::text, find_requests.key::text) > 0)
   ORDER BY b.id, a.attempt;
END;
COMMENT ON FUNCTION retl.find_requests(text, json) IS 'Which requests of a mapping carried a key, and what was answered: a row for each attempt. A key is a value, or an object by column for composite keys. Shows what the views retl.batches and retl.attempts show the caller';

CREATE VIEW retl.failed_rows WITH (security_barrier) AS
SELECT m.name AS mapping, CASE WHEN a.own THEN e.key::pg_catalog.json END AS key, e.operation, e.reason, e.http_status,
       CASE WHEN a.own THEN e.error END AS error, e.maybe, e.run, e.batch, e.attempts, e.failed_at
  FROM retl.exception e
  JOIN retl.mapping m ON m.id OPERATOR(pg_catalog.=) e.mapping
  JOIN retl.model o ON o.id OPERATOR(pg_catalog.=) m.model
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role(m.owner::pg_catalog.oid, 'USAGE')
                         OR pg_catalog.pg_has_role(o.owner::pg_catalog.oid, 'USAGE') AS own) a
 WHERE a.own OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.failed_rows IS 'Records that their destination has not acknowledged as they are; the next run tries them again. Those of mappings that the reader sees';
COMMENT ON COLUMN retl.failed_rows.mapping IS 'Mapping';
COMMENT ON COLUMN retl.failed_rows.key IS 'Key: a scalar, or an object by column for composite keys; NULL: not for the reader';
COMMENT ON COLUMN retl.failed_rows.operation IS 'What was tried: added, updated, deleted';
COMMENT ON COLUMN retl.failed_rows.reason IS 'rejected, gave_up, unmapped, canceled';
COMMENT ON COLUMN retl.failed_rows.http_status IS 'Status of the answer, if there was one';
COMMENT ON COLUMN retl.failed_rows.error IS 'What the destination or the mapping said; NULL also where it is not for the reader';
COMMENT ON COLUMN retl.failed_rows.maybe IS 'The outcome is unknown: the destination may have it';
COMMENT ON COLUMN retl.failed_rows.run IS 'Run that failed to deliver it last';
COMMENT ON COLUMN retl.failed_rows.batch IS 'Request it was in; NULL: it could not be mapped';
COMMENT ON COLUMN retl.failed_rows.attempts IS 'Runs that failed to deliver it';
COMMENT ON COLUMN retl.failed_rows.failed_at IS 'When it failed last';
