-- What goes on, and what is wrong. As the other views, each shows its reader
-- what the reader may see.

CREATE FUNCTION retl.scan_progress(OUT model bigint, OUT rows bigint, OUT expected bigint, OUT started_at timestamptz)
  RETURNS SETOF record
  LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 2
  AS 'MODULE_PATHNAME', 'retl_scan_progress';
COMMENT ON FUNCTION retl.scan_progress() IS 'Snapshots of this database that are going on: rows read so far, and as many as the planner expects';

CREATE FUNCTION retl.delivery_obstacle() RETURNS text
  LANGUAGE c STABLE PARALLEL RESTRICTED
  AS 'MODULE_PATHNAME', 'retl_delivery_obstacle';
COMMENT ON FUNCTION retl.delivery_obstacle() IS 'Why nothing may be delivered from this database on this host; NULL: it may';

CREATE VIEW retl.progress WITH (security_barrier) AS
SELECT p.run, m.name AS mapping, d.name AS destination, p.status, p.phase, p.since,
       p.rows_read, p.rows_expected,
       CASE WHEN p.rows_expected > 0 THEN least(round(100.0 * p.rows_read / p.rows_expected, 1), 100) END AS percent_read,
       p.planned, p.sent, p.failed, p.open_requests, round(p.rate::numeric, 1) AS records_per_second,
       CASE WHEN p.all_planned AND p.rate > 0
            THEN make_interval(secs => round(greatest(p.planned - p.sent - p.failed, 0) / p.rate)) END AS time_left
  FROM (SELECT r.id AS run, r.mapping, r.status,
               CASE WHEN r.stop_reason IS NOT NULL THEN 'stopping'
                    WHEN r.status = 'held' THEN 'held by a brake'
                    WHEN r.status = 'planning' THEN
                      CASE r.phase WHEN 0 THEN 'planning changes' WHEN 1 THEN 'planning what failed before'
                                   WHEN 2 THEN 'planning deletes' ELSE 'planning deletes that failed before' END
                    WHEN r.open_batches > 0 THEN 'delivering' ELSE 'ending' END AS phase,
               coalesce(r.delivering_since, r.started_at) AS since,
               NULL::bigint AS rows_read, NULL::bigint AS rows_expected,
               r.added + r.updated + r.deleted AS planned, r.sent, r.failed, r.open_batches AS open_requests,
               r.planned AS all_planned,
               CASE WHEN r.delivering_since IS NOT NULL
                    THEN (r.sent + r.failed) / greatest(extract(epoch FROM clock_timestamp() - r.delivering_since), 0.001)::float8 END AS rate
          FROM retl.run r
         WHERE r.finished_at IS NULL AND r.served_by IS NULL
         UNION ALL
        SELECT q.id, q.mapping, CASE WHEN s.model IS NOT NULL AND t.active_run IS NULL THEN 'snapshotting' ELSE 'queued' END,
               CASE WHEN t.active_run IS NOT NULL THEN 'waiting for run ' || t.active_run
                    WHEN s.model IS NOT NULL THEN 'reading the model' ELSE 'waiting for a snapshot' END,
               coalesce(s.started_at, q.requested_at), s.rows, coalesce(nullif(st.row_count, 0), s.expected),
               0, 0, 0, 0, false, NULL
          FROM retl.request q
          LEFT JOIN retl.mapping_state t ON t.mapping = q.mapping
          LEFT JOIN retl.model_state st ON st.model = q.model
          LEFT JOIN retl.scan_progress() s ON s.model = q.model) p
  JOIN retl.mapping m ON m.id = p.mapping
  JOIN retl.model o ON o.id = m.model
  JOIN retl.destination d ON d.id = m.destination
 WHERE pg_has_role(m.owner::oid, 'USAGE') OR pg_has_role(o.owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW retl.progress IS 'Runs that have not ended, as they are now';
COMMENT ON COLUMN retl.progress.run IS 'Run';
COMMENT ON COLUMN retl.progress.mapping IS 'Mapping';
COMMENT ON COLUMN retl.progress.destination IS 'Destination';
COMMENT ON COLUMN retl.progress.status IS 'queued, snapshotting, planning, delivering, held';
COMMENT ON COLUMN retl.progress.phase IS 'What is being done, or waited for';
COMMENT ON COLUMN retl.progress.since IS 'Since when it has been delivered, read or waited for';
COMMENT ON COLUMN retl.progress.rows_read IS 'Rows of the model that the snapshot has read so far';
COMMENT ON COLUMN retl.progress.rows_expected IS 'Rows of the last snapshot; before the first one an estimate';
COMMENT ON COLUMN retl.progress.percent_read IS 'Share of them';
COMMENT ON COLUMN retl.progress.planned IS 'Records planned so far';
COMMENT ON COLUMN retl.progress.sent IS 'Records accepted so far';
COMMENT ON COLUMN retl.progress.failed IS 'Records that failed so far';
COMMENT ON COLUMN retl.progress.open_requests IS 'Requests without outcome';
COMMENT ON COLUMN retl.progress.records_per_second IS 'Records sent or failed, a second since delivery began';
COMMENT ON COLUMN retl.progress.time_left IS 'At this rate; NULL as long as not everything is planned';

CREATE VIEW retl.health WITH (security_barrier) AS
WITH mapping AS (
  SELECT m.id, m.name, m.owner, m.model, m.destination, m.action, m.version, m.enabled, m.schedule, m.scheduled_since,
         o.name AS model_name, o.owner AS model_owner, o.enabled AS model_enabled,
         d.name AS destination_name, d.owner AS destination_owner, d.enabled AS destination_enabled, d.connector,
         a.own
    FROM retl.mapping m
    JOIN retl.model o ON o.id = m.model
    JOIN retl.destination d ON d.id = m.destination
   CROSS JOIN LATERAL (SELECT pg_has_role(m.owner::oid, 'USAGE') OR pg_has_role(o.owner::oid, 'USAGE') AS own) a
   WHERE a.own OR pg_has_role('pg_monitor', 'USAGE')),
newest AS (
  SELECT n.*, (SELECT max(b.attempts) FROM retl.batch b WHERE b.run = n.id AND b.status = 'pending') AS attempts
    FROM mapping m
   CROSS JOIN LATERAL (SELECT r.* FROM retl.run r WHERE r.mapping = m.id AND r.served_by IS NULL AND r.status <> 'skipped' ORDER BY r.id DESC LIMIT 1) n)

-- the workers
SELECT 'worker does not run' AS what, w.kind || ' worker' AS object, NULL::timestamptz AS since, w.obstacle AS detail,
       CASE WHEN w.obstacle LIKE '%shared_preload_libraries%' THEN 'Add retl to shared_preload_libraries and restart the server.'
            WHEN w.obstacle LIKE '%retl.enabled%' THEN 'ALTER SYSTEM SET retl.enabled = on; SELECT pg_reload_conf();'
            WHEN w.obstacle LIKE '%roles%' THEN 'Take attributes and members away from roles retl_snapshot and retl_delivery.'
            WHEN w.obstacle LIKE '%may not connect%' THEN 'Allow retl_snapshot and retl_delivery to connect: privilege CONNECT, connection limits, datallowconn.'
            WHEN w.obstacle LIKE '%slots%' THEN 'Raise max_worker_processes and restart the server.'
            WHEN w.obstacle LIKE '%other databases%' THEN 'It takes its turn; more retl.snapshot_workers or retl.delivery_workers make it quicker.'
            WHEN w.obstacle LIKE '%recovery%' THEN 'Workers run on the primary server, and here after promotion.'
            ELSE 'See the server''s log.' END AS hint
  FROM retl.worker_state() w WHERE w.obstacle IS NOT NULL
UNION ALL
SELECT 'worker fails', w.kind || ' worker', NULL, format('%s in a row failed; the next one is started at %s', w.failures, w.retry_at),
       'See the server''s log.'
  FROM retl.worker_state() w WHERE w.failures > 0 AND w.obstacle IS DISTINCT FROM 'the last worker failed'
UNION ALL
-- the guard against copies
SELECT 'not armed', 'database', NULL, retl.delivery_obstacle(), 'If this is the database that is to deliver, run retl.arm() in it.'
 WHERE EXISTS (SELECT FROM retl.destination) AND retl.delivery_obstacle() IS NOT NULL
UNION ALL
-- schedules
SELECT 'no tick comes', 'schedules', t.since,
       format('retl.tick() %s; enabled mappings with a schedule: %s', CASE WHEN c.at IS NULL THEN 'was never called' ELSE 'was last called at ' || c.at END, t.n)
         || CASE WHEN current_setting('cron.database_name', true) IS NULL THEN '; pg_cron is not loaded' ELSE '' END,
       CASE WHEN current_setting('cron.database_name', true) IS NULL
            THEN 'Install pg_cron, add it to shared_preload_libraries and restart the server; then SELECT retl.install_tick(). Anything else that calls retl.tick() every minute does as well.'
            ELSE 'SELECT retl.install_tick() makes the job; cron.job_run_details in database ' || current_setting('cron.database_name', true) || ' tells how it went.' END
  FROM retl.clock c
 CROSS JOIN LATERAL (SELECT count(*) AS n, greatest(c.at, min(m.scheduled_since)) AS since FROM mapping m
                      WHERE m.enabled AND m.schedule <> 'manual' AND m.model_enabled AND m.destination_enabled) t
 WHERE c.name = 'tick' AND t.n > 0 AND t.since < clock_timestamp() - interval '5 minutes'
UNION ALL
SELECT 'schedule is overdue', m.name, s.due_at, format('%s was due at %s', m.schedule, s.due_at),
       'retl.tick() must be called every minute, and see every mapping: look for transactions that hold it locked in pg_locks.'
  FROM mapping m JOIN retl.schedule_state s ON s.mapping = m.id AND s.since = m.scheduled_since
 WHERE m.enabled AND m.schedule <> 'manual' AND m.model_enabled AND m.destination_enabled
   AND s.error IS NULL AND s.due_at < clock_timestamp() - interval '5 minutes'
UNION ALL
SELECT 'schedule fails', m.name, s.failed_since, CASE WHEN m.own THEN s.error ELSE s.error_code END,
       CASE WHEN m.own THEN coalesce(s.hint, 'See SQLSTATE ' || s.error_code || '.') ELSE 'Its owner sees why.' END
  FROM mapping m JOIN retl.schedule_state s ON s.mapping = m.id
 WHERE m.enabled AND m.schedule <> 'manual' AND m.model_enabled AND m.destination_enabled AND s.error IS NOT NULL
UNION ALL
SELECT 'schedule rests', m.name, NULL,
       format('%s is disabled', CASE WHEN NOT m.model_enabled THEN format('model "%s"', m.model_name) ELSE format('destination "%s"', m.destination_name) END),
       format('Enable it; or, if nothing is to be synced, SELECT retl.disable_mapping(%s).', quote_literal(m.name))
  FROM mapping m WHERE m.enabled AND m.schedule <> 'manual' AND NOT (m.model_enabled AND m.destination_enabled)
UNION ALL
-- runs
SELECT 'run is held', m.name, r.started_at, CASE WHEN m.own THEN format('run %s: %s', r.id, r.error) ELSE format('run %s', r.id) END,
       format('Look at what changed. If it is right, SELECT retl.release_run(%s); if not, mend the model and sync again.', r.id)
  FROM mapping m JOIN retl.run r ON r.mapping = m.id AND r.status = 'held' AND r.finished_at IS NULL
UNION ALL
SELECT 'run failed', m.name, n.finished_at, CASE WHEN m.own THEN format('run %s: %s', n.id, n.error) ELSE format('run %s', n.id) END,
       CASE WHEN m.own THEN coalesce(n.hint, 'See view retl.runs.') ELSE 'See view retl.runs.' END
  FROM mapping m JOIN newest n ON n.mapping = m.id WHERE n.status = 'failed' AND n.error_code IS NOT NULL
UNION ALL
SELECT 'run does not move', m.name, l.since, format('run %s is %s; open requests: %s', r.id, r.status, r.open_batches),
       format('View retl.batches has what the destination answers; the server''s log what happens to the workers. SELECT retl.cancel_run(%s) stops it.', r.id)
  FROM mapping m
  JOIN retl.run r ON r.mapping = m.id AND r.finished_at IS NULL AND r.served_by IS NULL AND r.status IN ('planning', 'delivering')
 CROSS JOIN LATERAL (SELECT greatest(r.started_at, r.delivering_since,
                       (SELECT b.finished_at FROM retl.batch b WHERE b.run = r.id AND b.finished_at IS NOT NULL ORDER BY b.id DESC LIMIT 1)) AS since) l
 WHERE l.since < clock_timestamp() - interval '15 minutes'
   AND NOT EXISTS (SELECT FROM retl.destination_state t WHERE t.destination = m.destination AND t.quota_full
                      AND t.day = (clock_timestamp() AT TIME ZONE 'UTC')::date)
UNION ALL
SELECT 'request waits', m.name, min(q.requested_at), format('waiting for a snapshot of model "%s": %s', m.model_name, count(*)),
       'A snapshot worker must run, and no session may hold locks on what the model reads: see pg_stat_activity and pg_locks.'
  FROM mapping m JOIN retl.request q ON q.mapping = m.id JOIN retl.mapping_state s ON s.mapping = m.id
 WHERE s.active_run IS NULL AND q.requested_at < clock_timestamp() - interval '5 minutes'
 GROUP BY m.name, m.model_name
UNION ALL
SELECT 'disabled, with requests', m.name, min(q.requested_at),
       format('%s is disabled; requests that wait: %s', CASE WHEN NOT m.enabled THEN 'the mapping'
         WHEN NOT m.model_enabled THEN format('model "%s"', m.model_name) ELSE format('destination "%s"', m.destination_name) END, count(*)),
       'Enable it and sync again: these requests end as canceled.'
  FROM mapping m JOIN retl.request q ON q.mapping = m.id
 WHERE NOT (m.enabled AND m.model_enabled AND m.destination_enabled)
 GROUP BY m.name, m.enabled, m.model_enabled, m.model_name, m.destination_name
UNION ALL
-- records
SELECT 'failed rows', m.name, min(e.since), format('%s records: %s', sum(e.n), string_agg(e.n || ' ' || e.reason, ', ' ORDER BY e.n DESC, e.reason)),
       'View retl.failed_rows tells why. Each sync tries them again; SELECT retl.retry_failed(' || quote_literal(m.name) || ') does now.'
  FROM mapping m
  JOIN (SELECT x.mapping, x.reason, count(*) AS n, min(x.failed_at) AS since FROM retl.exception x
         WHERE x.reason IN ('rejected', 'gave_up', 'unmapped') GROUP BY x.mapping, x.reason) e ON e.mapping = m.id
 GROUP BY m.name
UNION ALL
SELECT 'rows set aside', o.name, n.started_at, format('%s rows have a NULL, duplicate or too long key and are not synced', n.set_aside),
       'View retl.models has some of them in set_aside_sample. Make the key tell the model''s rows apart.'
  FROM retl.model o JOIN retl.model_state s ON s.model = o.id JOIN retl.snapshot n ON n.model = o.id AND n.seq = s.seq AND n.set_aside > 0
 WHERE pg_has_role(o.owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE')
UNION ALL
-- destinations
SELECT 'destination fails', m.destination_name, min(n.delivering_since), format('nothing was accepted in the newest run of %s', string_agg(format('"%s"', m.name), ', ' ORDER BY m.name)),
       'See view retl.batches for what it answers, and SELECT * FROM retl.test_destination(' || quote_literal(m.destination_name) || ').'
  FROM mapping m JOIN newest n ON n.mapping = m.id
 WHERE n.delivering_since IS NOT NULL AND (n.sent > 0 OR n.failed > 0 OR n.attempts > 0)
 GROUP BY m.destination_name HAVING bool_and(n.sent = 0)
UNION ALL
SELECT 'circuit breaker is open', d.name, t.breaker_since,
       format('%s requests in a row failed; the next one is sent at %s%s', t.failures, t.retry_at,
              CASE WHEN pg_has_role(d.owner::oid, 'USAGE') THEN ': ' || t.error END),
       'It closes by itself when a request succeeds. Look at the destination''s settings and secrets, and at SELECT * FROM retl.test_destination('
       || quote_literal(d.name) || ').'
  FROM retl.destination d JOIN retl.destination_state t ON t.destination = d.id
 WHERE t.breaker_since IS NOT NULL AND (pg_has_role(d.owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'))
   AND EXISTS (SELECT FROM retl.mapping m JOIN retl.run r ON r.mapping = m.id AND r.finished_at IS NULL WHERE m.destination = d.id AND r.open_batches > 0)
UNION ALL
SELECT 'daily quota is used up', d.name, t.saved_at, format('requests today: %s, records: %s', t.requests_today, t.rows_today),
       'What is left is sent after midnight UTC. Settings requests_per_day and rows_per_day are the quota.'
  FROM retl.destination d JOIN retl.destination_state t ON t.destination = d.id
 WHERE t.day = (clock_timestamp() AT TIME ZONE 'UTC')::date AND t.quota_full AND (pg_has_role(d.owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'))
   AND EXISTS (SELECT FROM retl.mapping m JOIN retl.run r ON r.mapping = m.id AND r.finished_at IS NULL WHERE m.destination = d.id AND r.open_batches > 0)
UNION ALL
SELECT 'secret not set', d.name, NULL, format('secret "%s" of connector "%s"', a.value ->> 'secret', d.connector),
       'SELECT retl.set_secret(' || quote_literal(d.name) || ', ' || quote_literal(a.value ->> 'secret') || ', $1), with the value as a parameter.'
  FROM retl.destination d JOIN retl.connector c ON c.name = d.connector
 CROSS JOIN LATERAL json_array_elements(c.definition -> 'auth') a (value)
 WHERE json_typeof(c.definition -> 'auth') = 'array' AND (a.value ->> 'optional') IS DISTINCT FROM 'true' AND (a.value ->> 'secret') IS NOT NULL
   AND NOT EXISTS (SELECT FROM retl.secret s WHERE s.destination = d.id AND s.name = a.value ->> 'secret')
   AND (pg_has_role(d.owner::oid, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'))
UNION ALL
-- what is kept
SELECT 'log is pinned', m.name, n.started_at,
       format('%s changes of model "%s" are kept for it, since snapshot %s of %s', st.log_rows, m.model_name, s.cursor, st.seq),
       format('Sync it; or SELECT retl.reset_mapping(%s, baseline => true) once it may forget them; or drop it.', quote_literal(m.name))
  FROM mapping m JOIN retl.mapping_state s ON s.mapping = m.id JOIN retl.model_state st ON st.model = m.model
  LEFT JOIN retl.snapshot n ON n.model = m.model AND n.seq = s.cursor
 WHERE s.cursor < st.seq AND st.log_rows > greatest(10000, st.row_count / 2)
   AND s.cursor = (SELECT min(x.cursor) FROM retl.mapping_state x JOIN retl.mapping y ON y.id = x.mapping WHERE y.model = m.model)
UNION ALL
-- definitions
SELECT 'two mappings write one identity', m.name, NULL,
       format('mapping "%s" writes it, too: %s of action %s at destination "%s"', n.name, i.names, m.action, m.destination_name),
       'What one of them deletes or changes, the other does not know of. Join their models, or map the identity otherwise.'
  FROM mapping m JOIN mapping n ON n.destination = m.destination AND n.action = m.action AND n.id > m.id AND m.enabled AND n.enabled
  JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = m.version
  JOIN retl.mapping_version u ON u.mapping = n.id AND u.version = n.version
  JOIN retl.connector c ON c.name = m.connector
 CROSS JOIN LATERAL (SELECT string_agg(f.name, ', ') AS names, bool_and((v.fields -> f.name)::text IS NOT DISTINCT FROM (u.fields -> f.name)::text) AS same,
                            bool_or((v.fields -> f.name) IS NOT NULL) AS mapped
                       FROM json_array_elements_text(CASE json_typeof(c.definition -> 'actions' -> m.action -> 'identity') WHEN 'array'
                              THEN c.definition -> 'actions' -> m.action -> 'identity' ELSE '[]' END) f (name)) i
 WHERE i.same AND i.mapped
UNION ALL
-- owners: roles that are dropped or reassigned take nothing along
SELECT 'owner is gone', x.kind || ' ' || quote_ident(x.name), NULL, format('the role with OID %s does not exist', x.owner::oid),
       format('As a superuser, SELECT retl.alter_%s(%s, owner => ...), or drop it.', x.kind, quote_literal(x.name))
  FROM (SELECT 'model' AS kind, name, owner FROM retl.model UNION ALL SELECT 'destination', name, owner FROM retl.destination
        UNION ALL SELECT 'mapping', name, owner FROM retl.mapping) x
 WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = x.owner::oid) AND pg_has_role('pg_monitor', 'USAGE')
UNION ALL
SELECT 'owner lacks a privilege', m.name, NULL,
       format('role %s does not have the privileges of the owner of %s', m.owner, CASE WHEN NOT pg_has_role(m.owner::oid, m.model_owner::oid, 'USAGE')
         THEN format('model "%s"', m.model_name) ELSE format('destination "%s"', m.destination_name) END),
       format('Grant them, or SELECT retl.alter_mapping(%s, owner => ...).', quote_literal(m.name))
  FROM mapping m
 WHERE EXISTS (SELECT FROM pg_roles r WHERE r.oid = m.owner::oid)
   AND NOT (pg_has_role(m.owner::oid, m.model_owner::oid, 'USAGE') AND pg_has_role(m.owner::oid, m.destination_owner::oid, 'USAGE'));
COMMENT ON VIEW retl.health IS 'What is wrong now, one row each; none: all is well, as far as the reader may see';
COMMENT ON COLUMN retl.health.what IS 'Kind of trouble';
COMMENT ON COLUMN retl.health.object IS 'What it is about: a mapping, a destination, a model, a worker';
COMMENT ON COLUMN retl.health.since IS 'Since when, where that is known';
COMMENT ON COLUMN retl.health.detail IS 'What is known of it';
COMMENT ON COLUMN retl.health.hint IS 'What to do';
