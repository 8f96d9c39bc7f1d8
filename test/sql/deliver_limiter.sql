-- How much may be sent to a destination, by a clock that the test sets.
CREATE FUNCTION limiter(limits float8[], script text[]) RETURNS text[] AS '$libdir/retl', 'retl_test_limiter' LANGUAGE c STRICT;
CREATE FUNCTION limiter_windows(limits float8[], rows int, seconds float8, pause float8) RETURNS float8[]
  AS '$libdir/retl', 'retl_test_limiter_windows' LANGUAGE c STRICT;
CREATE FUNCTION play(limits float8[], VARIADIC script text[]) RETURNS TABLE (line text, result text) LANGUAGE sql
  AS 'SELECT * FROM unnest(script, limiter(limits, script))';

-- limits are {concurrency, requests a second, burst, rows a second, burst, requests a day, rows a day}

-- Rates. The bucket starts empty, and holds the burst; two percent are left.
SELECT * FROM play('{9,10,2,0,0,0,0}', '0.01 send 1', '0.2 send 1', '0.2 send 1', '10 send 1', '10 send 1', '10.001 send 1', '10.2 send 1');
-- Records: a request of more than the bucket holds waits until it is full, and the next ones for what it took too much.
SELECT * FROM play('{9,0,0,100,50,0,0}', '1 send 40', '1 send 10', '1.4 send 10', '2 send 200', '2.5 send 10', '4 send 10');
-- Both.
SELECT * FROM play('{9,2,2,100,100,0,0}', '10 send 1', '10 send 99', '10 send 1', '10.6 send 1', '10.6 send 60');

-- No window sees more than its rate and a burst; and the rates are made use of.
SELECT limits, rows, pause, w[1] <= 1 AS kept, w[1] > 0.85 AS reached, w[2] BETWEEN 0.9 AND 1.05 AS used
  FROM (VALUES ('{9,10,10,0,0,0,0}'::float8[], 1, 5), ('{9,50,5,0,0,0,0}', 1, 2), ('{9,1,1,0,0,0,0}', 1, 10), ('{9,0,0,1000,1000,0,0}', 100, 3),
    ('{9,20,20,100,100,0,0}', 10, 4), ('{9,20,20,1000,1000,0,0}', 10, 4), ('{9,0.5,1,0,0,0,0}', 1, 100)) AS l (limits, rows, pause)
 CROSS JOIN LATERAL limiter_windows(limits, rows, 40, pause) AS w;

-- Concurrency: half of it when the destination has too much to do, once for what was under way; one more for each round of good answers.
SELECT * FROM play('{16,0,0,0,0,0,0}', '1 ok 0.1', '2 busy 0.1', '2.01 busy 0.1', '2.05 ok 0.1', '2.2 busy 0.1', '3 busy 0.1', '3.1 ok 0.1', '4 ok 0.1', '4 ok 0.1',
  '4 ok 0.1', '5 busy 0.1', '6 busy 0.1', '7 busy 0.1', '7.1 ok 0.1', '7.2 ok 0.1', '7.3 ok 0.1', '7.4 ok 0.1');
SELECT (limiter('{16,0,0,0,0,0,0}', ARRAY['1 busy 0.1', '2 busy 0.1', '3 busy 0.1'] || array_fill('5 ok 0.1'::text, '{200}')))[203] AS recovered;
-- Answers that take longer and longer: less, down to a quarter. What always took long does not count.
SELECT (limiter('{16,0,0,0,0,0,0}', array_fill('1 ok 0.1'::text, '{50}') || array_fill('2 ok 0.15'::text, '{50}')))[100] AS a_little,
  (limiter('{16,0,0,0,0,0,0}', array_fill('1 ok 0.1'::text, '{50}') || array(SELECT format('%s ok 2', i) FROM generate_series(5, 100, 3) i)))[75] AS much,
  (limiter('{16,0,0,0,0,0,0}', array_fill('1 ok 0.1'::text, '{50}') || array_fill('5 ok 2'::text, '{16}')))[60] AS one_moment,
  (limiter('{16,0,0,0,0,0,0}', array_fill('1 ok 5'::text, '{50}') || array_fill('10 ok 6'::text, '{50}')))[100] AS always,
  (limiter('{16,0,0,0,0,0,0}', array_fill('1 ok 0.5'::text, '{9}') || array_fill('9 busy 0.001'::text, '{3}') || array_fill('20 ok 0.5'::text, '{99}')))[111] AS refused_quickly;
SELECT * FROM play('{2,0,0,0,0,0,0}', '1 send 1', '1 send 1', '1 send 1', '2 ok 1', '2 send 1');

-- The breaker: five failures in a row, then one at a time until one succeeds.
SELECT * FROM play('{8,0,0,0,0,0,0}', '1 fail 0', '1 fail 0', '1 fail 0', '1 fail 0', '1 ok 0', '2 fail 0', '2 fail 0', '2 fail 0', '2 fail 0', '2 fail 0', '2.2 fail 0', '3 stand 0',
  '3 send 1', '3 send 1', '3.1 fail 0.1', '5.1 send 1', '5.2 ok 0.1', '5.2 send 1', '5.2 send 1');
-- Its pauses grow, but not for ever.
SELECT (limiter('{8,0,0,0,0,0,0}', array(SELECT format('%s fail 0', i * 100) FROM generate_series(1, 100) i)))[100] AS most;

-- The quota: by days in UTC. A request that does not fit closes the day; one that never fits has a day of its own.
SELECT * FROM play('{8,0,0,0,0,2,0}', '1 load 5', '1 load 5', '1 load 5', '86399 load 5', '86400 load 5', '86401 load 5', '86402 load 5');
SELECT * FROM play('{8,0,0,0,0,0,10}', '1 load 5', '1 load 6', '1 load 1', '86400 load 6', '86400 load 4', '86401 load 1', '172800 load 11', '172800 load 1', '259200 load 1');

-- Settings that every destination takes.
\set VERBOSITY terse
SET client_min_messages = warning;
SELECT retl.create_destination('limited', 'slack', '{"requests_per_second": 0}');
SELECT retl.create_destination('limited', 'slack', '{"requests_per_day": 0}');
SELECT retl.create_destination('limited', 'slack', '{"rows_per_minute": 5}');
SELECT retl.create_destination('limited', 'slack', '{"compression": "best"}');
SELECT retl.create_destination('limited', 'slack', '{"proxy": "socks5://proxy.example"}');
SELECT retl.create_destination('limited', 'slack', '{"requests_per_second": 0.5, "burst": 2, "rows_per_day": 1000}') > 0 AS created;
SELECT retl.alter_destination('limited', settings => '{"rows_per_second": 10}', reset => '{burst,rows_per_day}');
SELECT settings, breaker, breaker_since, retry_at, error, paused_until, concurrency, requests_left, rows_left, requests_today, rows_today FROM retl.destinations;
-- A connector has limits of its own.
SELECT retl.create_connector('{"name": "counted", "base_url": "https://x.example", "rate": {"requests": 10, "rows": 100, "seconds": 1}, "quota": {"requests": 5, "rows": 50},
  "actions": {"a": {"operations": ["added"], "fields": {}, "request": {"url": "/"}}}}');
SELECT retl.create_connector('{"name": "counted", "base_url": "https://x.example", "quota": {"requests_a_day": 5},
  "actions": {"a": {"operations": ["added"], "fields": {}, "request": {"url": "/"}}}}');
