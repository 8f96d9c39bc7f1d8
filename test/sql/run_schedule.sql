-- Schedules: what their text means, what is refused, and what ticks make of them.
SET timezone = 'UTC';
SET intervalstyle = postgres;
CREATE FUNCTION shows(schedule text, after timestamptz DEFAULT '2027-01-01 12:00:30Z', count int DEFAULT 3) RETURNS text LANGUAGE sql
  RETURN (SELECT string_agg(to_char(t, 'Dy YYYY-MM-DD HH24:MI:SS'), ', ' ORDER BY t) FROM retl.next_ticks($1, $3, $2) t);
CREATE FUNCTION fails(schedule text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  detail text;
BEGIN
  PERFORM retl.next_ticks(schedule);
  RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN format('%s: %s. %s', SQLSTATE, SQLERRM, detail);
END
$$;

-- intervals: at once, and on from there
SELECT s, shows(s) FROM unnest('{15 minutes,30min,1 hour,90m,1 day,1d12h,2 weeks,1 hour 30 minutes,  5   MINUTES  }'::text[]) s;
-- days and times
SELECT s, shows(s) FROM unnest(ARRAY['on mon at 09:30', 'on mon,wed,fri at 09:30,17:00 Europe/Paris', 'on Monday, Wednesday at 9:30, 17:00 europe/paris',
  'on fri-sun at 00:00 America/New_York', 'on mon-fri at 23:59 Asia/Kolkata', 'on sun at 12:00 Etc/GMT+5', 'on sat,mon-tue at 01:00 America/Port-au-Prince']) s;
-- cron lines
SELECT s, shows(s) FROM unnest(ARRAY['*/15 8-18 * * mon-fri', '0 0 29 2 *', '0 0 1 * mon', '0 0 */2 * mon', '5,35 * * * *', '0 6 * jan-mar,dec 7', '0 6 * * sat-sun',
  '0 6 * * 5-7', '10-40/10 3 * * * Europe/Paris', '0 0 13 * fri', '* * * * *', '0 0 31 * *']) s;
SELECT shows('manual');
SELECT shows('1 hour', count => 0);

-- clocks go forward: at the first instant after; where two times fall together, once
SELECT shows('on sat,sun at 02:30 Europe/Paris', '2027-03-26Z', 4);
SELECT shows('on sun at 02:15,02:45,03:00 Europe/Paris', '2027-03-27Z', 4);
SELECT shows('*/30 * * * * Europe/Paris', '2027-03-28 00:15Z', 4);
-- clocks go back: once; a line for every hour: in every hour
SELECT shows('on sat,sun at 02:30 Europe/Paris', '2027-10-30Z', 4);
SELECT shows('30 2 * * * Europe/Paris', '2027-10-30Z', 3);
SELECT shows('*/30 * * * * Europe/Paris', '2027-10-31 00:15Z', 4);
-- half an hour, midnight, and a day that there was not
SELECT shows('on sun at 02:10 Australia/Lord_Howe', '2027-10-02Z', 2);
SELECT shows('0 0 * * * America/Sao_Paulo', '2018-11-03Z', 3);
SELECT shows('0 12 * * * Pacific/Apia', '2011-12-29Z', 3);

-- what is refused
SELECT s, fails(s) FROM unnest(ARRAY['', ' ', 'sometimes', 'hourly', '15', '0 minutes', '30 seconds', '-5 minutes', '1.5 hours', '1 month', '400 days', '99999999 minutes', '15 minutes 5',
  'manual 5', 'on', 'on mon', 'on mon at', 'on at 09:30', 'on mon at 9', 'on mon at 24:00', 'on mon at 09:60', 'on mon at 09:30,', 'on mon at 09:30 Europe/Pari', 'on mo at 09:30',
  'on fri-mon at 09:30', 'on 1 at 09:30', 'on * at 09:30', 'on mon at 09:30 UTC UTC', 'on mon at 09:30 FOO5', 'on mon at 09:30 ../etc/passwd',
  '* * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 13 *', '* * * * 8', '* * * * * *', '5/10 * * * *', '*/0 * * * *', '*/61 * * * *', '10-5 * * * *',
  '1,,2 * * * *', ', * * * *', '1- * * * *', 'a * * * *', '* * * foo *', '0 0 30 2 *', '0 0 31 4,6 *', '@daily', '* * * * * * *', '1 2 3 4 5 6 7 8 9 10']) s;
SELECT retl.next_ticks('often');
SELECT retl.next_ticks(NULL);
SELECT retl.next_ticks('1 hour', -1);
SELECT retl.next_ticks('1 hour', 1, 'infinity');

-- ticks
CREATE TABLE t (id int PRIMARY KEY);
SELECT retl.create_model('t', 't', '{id}') > 0, retl.create_destination('hook', 'webhook', '{"url": "https://hook.example/in"}') > 0;
SELECT retl.create_mapping(name, 't', 'hook', 'send', '{"data": {"@path": "$.properties"}}', schedule => schedule) > 0
  FROM (VALUES ('cycle', '15 minutes'), ('slot', 'on mon at 09:30'), ('cron', '0 12 * * *'), ('manual', 'manual')) m (name, schedule);
CREATE VIEW asked AS SELECT m.name, q.trigger, q.requested_by = m.owner AS by_owner FROM retl.request q JOIN retl.mapping m ON m.id = q.mapping ORDER BY 1;
-- nothing is due of what is disabled
SELECT retl.tick(now() + interval '10 days');
SELECT retl.enable_mapping(name) FROM retl.mappings;
-- as of a Friday
UPDATE retl.mapping SET scheduled_since = '2027-01-01 12:00:30Z';
SELECT name, next_due_at FROM retl.mappings ORDER BY 1;
SELECT retl.tick('2027-01-01 12:00:31Z');
SELECT * FROM asked;
SELECT name, next_due_at FROM retl.mappings ORDER BY 1;
-- what was asked for has not begun: skipped
SELECT retl.tick('2027-01-01 12:15:00Z'), retl.tick('2027-01-01 12:16:00Z'), retl.tick('2027-01-01 12:17:00Z');
SELECT mapping, status, trigger, regexp_replace(error, '\d+', 'N') AS error, finished_at IS NOT NULL AS ended FROM retl.runs ORDER BY id;
DELETE FROM retl.request;
-- nothing came for three days: once, and on in the same cycle
SELECT retl.tick('2027-01-04 12:20:00Z');
SELECT * FROM asked;
SELECT name, next_due_at FROM retl.mappings ORDER BY 1;
DELETE FROM retl.request;
SELECT retl.tick('2027-01-04 12:20:01Z');
-- a clock that goes back repeats nothing; one that was far ahead is forgotten
SELECT retl.tick('2027-01-04 11:00:00Z');
SELECT retl.tick('2037-01-01 00:00:00Z');
DELETE FROM retl.request;
SELECT retl.tick('2027-01-05 11:00:00Z');
SELECT * FROM asked;
SELECT name, next_due_at FROM retl.mappings ORDER BY 1;
-- another schedule begins anew; the same one does not
SELECT retl.alter_mapping('cycle', schedule => '15 minutes', batch_size => 10), retl.alter_mapping('cron', schedule => '2 hours');
SELECT name, scheduled_since = '2027-01-01 12:00:30Z' AS same FROM retl.mapping ORDER BY name;
SELECT retl.alter_mapping('cron', schedule => 'hourly');
SELECT retl.disable_mapping('cycle'), retl.enable_mapping('cycle');
SELECT scheduled_since = '2027-01-01 12:00:30Z' AS same FROM retl.mapping WHERE name = 'cycle';

-- who is disabled rests, and is caught up with once
UPDATE retl.mapping SET scheduled_since = '2027-01-05 11:00:00Z';
SELECT retl.tick('2027-01-05 11:00:00Z');
DELETE FROM retl.request;
SELECT retl.disable_destination('hook');
SELECT retl.tick('2027-01-05 20:00:00Z');
SELECT what, object, detail, hint FROM retl.health WHERE what LIKE 'schedule%' ORDER BY 2;
SELECT retl.enable_destination('hook'), retl.disable_model('t');
SELECT retl.tick('2027-01-05 20:00:00Z');
SELECT what, object, detail FROM retl.health WHERE what LIKE 'schedule%' ORDER BY 2;
SELECT retl.enable_model('t');
SELECT retl.tick('2027-01-05 20:00:00Z');
SELECT * FROM asked;
DELETE FROM retl.request;

-- an error is that of its mapping
CREATE ROLE regress_schedule_ann;
GRANT SELECT ON t TO regress_schedule_ann;
SET client_min_messages = warning;
SELECT retl.alter_model('t', owner => 'regress_schedule_ann'), retl.alter_destination('hook', owner => 'regress_schedule_ann'),
  retl.alter_mapping('cycle', owner => 'regress_schedule_ann');
RESET client_min_messages;
UPDATE retl.mapping SET schedule = 'on mon at 09:30 Atlantis/Town' WHERE name = 'slot';
UPDATE retl.mapping SET owner = 'regress_schedule_ann' WHERE name IN ('cycle', 'slot', 'manual');
CREATE ROLE regress_schedule_bob;
UPDATE retl.mapping SET owner = 'regress_schedule_bob' WHERE name = 'cron';
UPDATE retl.mapping SET scheduled_since = scheduled_since - interval '1 s' WHERE name = 'slot';
SELECT retl.tick('2027-01-06 20:00:00Z');
SELECT name FROM asked;
SELECT what, object, since, detail, hint FROM retl.health WHERE what LIKE 'schedule fails' ORDER BY 2;
UPDATE retl.mapping SET owner = 'regress_schedule_ann' WHERE name = 'cron';
UPDATE retl.mapping SET schedule = 'on mon at 09:30 Europe/Paris' WHERE name = 'slot';
SELECT name FROM asked;
DELETE FROM retl.request;
SELECT retl.tick('2027-01-06 20:00:00Z');
SELECT * FROM asked;
SELECT what, object, detail FROM retl.health WHERE what LIKE 'schedule fails';

-- what is seen when ticks stop
CREATE VIEW silence AS SELECT what, object, since IS NOT NULL AS since, regexp_replace(detail, 'called at [^;]*', 'called at ...') AS detail, hint FROM retl.health
  WHERE what IN ('no tick comes', 'schedule is overdue') ORDER BY 1, 2;
UPDATE retl.clock SET at = now();
UPDATE retl.schedule_state SET due_at = now() + interval '1 minute';
UPDATE retl.mapping SET scheduled_since = now() - interval '1 day';
UPDATE retl.schedule_state s SET since = m.scheduled_since FROM retl.mapping m WHERE m.id = s.mapping;
SELECT * FROM silence;
UPDATE retl.clock SET at = now() - interval '10 minutes';
SELECT * FROM silence;
UPDATE retl.clock SET at = now();
UPDATE retl.schedule_state s SET due_at = now() - interval '10 minutes' FROM retl.mapping m WHERE m.id = s.mapping AND m.name = 'cron';
SELECT what, object, since, regexp_replace(detail, 'due at .*', 'due at ...') FROM silence;
UPDATE retl.clock SET at = NULL;
SELECT what, object, hint FROM silence;
SELECT retl.disable_mapping(name) FROM retl.mappings;
SELECT * FROM silence;

-- whose it is
SELECT retl.install_tick();
SELECT retl.uninstall_tick();
GRANT EXECUTE ON FUNCTION retl.tick TO regress_schedule_bob;
SET ROLE regress_schedule_bob;
SELECT retl.tick();
SELECT retl.tick(now());
SELECT retl.install_tick();
RESET ROLE;
SELECT retl.drop_model('t', cascade => true), retl.drop_destination('hook');
SELECT count(*) FROM retl.schedule_state;
REVOKE EXECUTE ON FUNCTION retl.tick FROM regress_schedule_bob;
REVOKE ALL ON t FROM regress_schedule_ann;
DROP ROLE regress_schedule_ann, regress_schedule_bob;
