-- How long history is kept. Ages are made by moving a run's end into the past.
SET client_min_messages = warning;
CREATE TABLE item (id int PRIMARY KEY, v int);
INSERT INTO item SELECT i, 0 FROM generate_series(1, 20) i;
SELECT retl.create_model('items', 'item', '{id}') > 0 AS created;
SELECT retl.create_destination('sink', 'webhook', '{"url": "http://127.0.0.1:9/"}') > 0 AS created;
SELECT retl.create_mapping('items to sink', 'items', 'sink', 'send', '{"data": {"@path": "$.properties"}}', records => '{added,updated,deleted}', batch_size => 5, enabled => true) > 0 AS created;

-- Stands in for the delivery worker: everything of a run is accepted, in one attempt that is answered.
CREATE FUNCTION deliver() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE one bigint := (SELECT active_run FROM retl.mapping_state);
BEGIN
  INSERT INTO retl.attempt (batch, attempt, at, seconds, bytes, answer_bytes, http_status, answer)
    SELECT b.id, 1, now(), 0.1, 1, 4, 200, 'fine' FROM retl.batch b WHERE b.run = one;
  UPDATE retl.batch SET status = 'delivered', attempts = 1, finished_at = now() WHERE run = one;
  UPDATE retl.run r SET sent = r.added + r.updated, open_batches = 0, open_bytes = 0 WHERE r.id = one;
  RETURN one;
END $$;
CREATE FUNCTION sync() RETURNS bigint LANGUAGE sql AS $$ SELECT retl.sync('items to sink') $$;
CREATE VIEW history AS
  SELECT r.id, r.status, age, count(b.id) AS requests, count(y.batch) AS bodies, count(a.batch) AS attempts, count(a.answer) AS answers
    FROM retl.run r CROSS JOIN LATERAL date_trunc('day', now() - r.finished_at) age
    LEFT JOIN retl.batch b ON b.run = r.id LEFT JOIN retl.batch_body y ON y.batch = b.id LEFT JOIN retl.attempt a ON a.batch = b.id
   GROUP BY r.id, r.status, age ORDER BY r.id;
CREATE PROCEDURE age(old bigint, days int) LANGUAGE sql AS $$
  UPDATE retl.run SET finished_at = now() - make_interval(days => days, mins => 1) WHERE id = old $$;

SELECT sync() AS run \gset
CALL retl.work();
SELECT deliver() = :run AS delivered;
CALL retl.work();
UPDATE item SET v = 1 WHERE id <= 5;
SELECT sync() AS second \gset
SELECT sync() AS merged \gset
CALL retl.work();
SELECT deliver() = :second AS delivered;
CALL retl.work();
SELECT * FROM history WHERE status <> 'queued';
SELECT status, served_by = :second AS served FROM retl.runs WHERE id = :merged;

-- Answers and bytes go after a week, attempts after a month, and of that run alone.
CALL age(:run, 6);
CALL retl.work();
SELECT * FROM history WHERE id = :run;
CALL age(:run, 7);
CALL retl.work();
SELECT * FROM history WHERE id IN (:run, :second);
CALL age(:run, 30);
CALL retl.work();
SELECT * FROM history WHERE id = :run;
SELECT count(*) FROM retl.find_requests('items to sink', '1') WHERE run = :run;

-- The run itself after three months; one that was merged into it with it.
CALL age(:second, 90);
CALL retl.work();
SELECT id = :run AS first, status FROM retl.runs;
SELECT count(*) FROM retl.batch WHERE run = :second;

-- What has not ended stays, however old: a held run, and a run under way.
TRUNCATE item;
SELECT sync() AS held \gset
CALL retl.work();
SELECT status FROM retl.runs WHERE id = :held;
CALL age(:run, 90);
UPDATE retl.run SET requested_at = now() - interval '1 year', started_at = now() - interval '1 year' WHERE id = :held;
CALL retl.work();
SELECT id = :held AS held, status FROM retl.runs;

-- Snapshots: the last hundred of a model are kept.
INSERT INTO retl.snapshot (model, seq, shape, started_at, finished_at, rows, added, updated, deleted, set_aside)
  SELECT m.id, -i, 1, now() - interval '91 days', now() - interval '91 days', 0, 0, 0, 0, 0 FROM retl.model m, generate_series(90, 110) i;
CALL retl.work();
SELECT count(*) FILTER (WHERE seq < 0) AS old, count(*) FILTER (WHERE seq > 0) AS new, min(seq) FROM retl.snapshot;

-- Failed rows stay until they are accepted, unless a setting says otherwise.
INSERT INTO retl.exception (mapping, key, run, operation, reason, maybe, resolved, failed_at)
  SELECT id, '1', 0, 'added', 'rejected', false, true, now() - interval '400 days' FROM retl.mapping;
CALL retl.work();
SELECT count(*) FROM retl.failed_rows;
