-- The row hash: these numbers are in checkpoints, so they are frozen.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE address AS (street text, number int, tags text[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE float_range AS RANGE (subtype = float8);

SELECT retl.row_hash(NULL::text) AS null_text, retl.row_hash(''::text) AS empty_text, retl.row_hash(0) AS zero;
SELECT what, hash FROM (VALUES
  ('bool', retl.row_hash(true)),
  ('int2', retl.row_hash((-2)::int2)),
  ('int4', retl.row_hash(-2)),
  ('int8', retl.row_hash(9223372036854775807)),
  ('float4', retl.row_hash(1.5::float4)),
  ('float8', retl.row_hash(-1e300::float8)),
  ('numeric', retl.row_hash(123456.7800)),
  ('numeric, huge', retl.row_hash(1e500::numeric)),
  ('numeric, long scale', retl.row_hash(1.5::numeric(200, 100))),
  ('numeric NaN', retl.row_hash('NaN'::numeric)),
  ('text of 3', retl.row_hash('abc'::text)),
  ('text of 7', retl.row_hash('abcdefg'::text)),
  ('text of 8', retl.row_hash('abcdefgh'::text)),
  ('text of 13', retl.row_hash('abcdefghijklm'::text)),
  ('text of 63', retl.row_hash(repeat('x', 63))),
  ('text of 64', retl.row_hash(repeat('x', 64))),
  ('text of 1003', retl.row_hash(repeat('x', 1003))),
  ('char(5)', retl.row_hash('abc'::char(5))),
  ('name', retl.row_hash('abc'::name)),
  ('bytea', retl.row_hash('\x0001ff'::bytea)),
  ('date', retl.row_hash('2024-02-29'::date)),
  ('timestamp', retl.row_hash('2024-02-29 12:34:56.789'::timestamp)),
  ('timestamptz', retl.row_hash('2024-02-29 12:34:56.789+01'::timestamptz)),
  ('time', retl.row_hash('12:34:56'::time)),
  ('timetz', retl.row_hash('12:34:56+02'::timetz)),
  ('interval', retl.row_hash('1 mon 2 days 03:04:05'::interval)),
  ('uuid', retl.row_hash('00112233-4455-6677-8899-aabbccddeeff'::uuid)),
  ('json', retl.row_hash('{"b": 1, "a": [true, null]}'::json)),
  ('jsonb', retl.row_hash('{"b": 1.50, "a": [true, null], "long": "some text"}'::jsonb)),
  ('int[]', retl.row_hash('{{1,2},{3,NULL}}'::int[])),
  ('text[]', retl.row_hash('{a,"",NULL}'::text[])),
  ('enum', retl.row_hash('ok'::mood)),
  ('enum[]', retl.row_hash('{ok,sad}'::mood[])),
  ('composite', retl.row_hash(ROW('High St', 5, '{x}')::address)),
  ('record', retl.row_hash(ROW(1, 'a'::text))),
  ('domain', retl.row_hash(5::positive)),
  ('int4range', retl.row_hash('[1,5)'::int4range)),
  ('empty range', retl.row_hash('empty'::int4range)),
  ('float_range', retl.row_hash('(1.5,]'::float_range)),
  ('int4multirange', retl.row_hash('{[1,5),[7,9)}'::int4multirange)),
  ('inet', retl.row_hash('10.0.0.1/8'::inet)),
  ('bit', retl.row_hash(B'1011')),
  ('oid', retl.row_hash(4294967295::oid)),
  ('money', retl.row_hash(12.5::money)),
  ('point', retl.row_hash('(1,2)'::point)),
  ('tsvector', retl.row_hash('a b'::tsvector)),
  ('several', retl.row_hash(1, 'a'::text, NULL::int, 2.50, '{}'::jsonb))
) v (what, hash);

-- NULL is not empty, columns have boundaries, and their number counts
SELECT count(DISTINCT hash) = count(*) AS all_differ FROM (VALUES
  (retl.row_hash(''::text)), (retl.row_hash(NULL::text)), (retl.row_hash(''::text, NULL::text)),
  (retl.row_hash(NULL::text, ''::text)), (retl.row_hash(NULL::text, NULL::text)),
  (retl.row_hash('ab'::text, 'c'::text)), (retl.row_hash('a'::text, 'bc'::text)), (retl.row_hash('abc'::text)),
  (retl.row_hash('{}'::text[])), (retl.row_hash('{NULL}'::text[])), (retl.row_hash('{""}'::text[])),
  (retl.row_hash('{a,b}'::text[])), (retl.row_hash('{{a,b}}'::text[])), (retl.row_hash('{{a},{b}}'::text[])),
  (retl.row_hash(ROW(NULL::int))), (retl.row_hash(ROW(NULL::int, NULL::int))),
  (retl.row_hash('(,)'::int4range)), (retl.row_hash('[1,)'::int4range)), (retl.row_hash('(,1)'::int4range)),
  (retl.row_hash('empty'::int4range)), (retl.row_hash('{}'::int4multirange)),
  (retl.row_hash(1.5)), (retl.row_hash(1.50)), (retl.row_hash(0.0)), (retl.row_hash(-1.5)), (retl.row_hash(15)),
  (retl.row_hash(0)), (retl.row_hash(1e10::numeric)), (retl.row_hash(1e14::numeric)), (retl.row_hash('Infinity'::numeric)),
  (retl.row_hash('-Infinity'::numeric)), (retl.row_hash('1 day'::interval)), (retl.row_hash('24:00:00'::interval)),
  (retl.row_hash('1 mon'::interval)), (retl.row_hash('30 days'::interval))) v (hash);

-- no two of many alike
SELECT count(DISTINCT retl.row_hash(i)) AS ints, count(DISTINCT retl.row_hash(i::text)) AS texts,
       count(DISTINCT retl.row_hash(i / 300, i % 300)) AS pairs, count(DISTINCT retl.row_hash(i * 0.01)) AS numerics,
       count(DISTINCT retl.row_hash(repeat('x', i % 200) || i)) AS longer,
       count(DISTINCT retl.row_hash(i::float8)) AS floats
  FROM generate_series(1, 100000) i;

-- one value, one hash
SELECT retl.row_hash('-0'::float8) = retl.row_hash('0'::float8) AS zeros,
       retl.row_hash('-0'::float4) = retl.row_hash('0'::float4) AS zeros4,
       retl.row_hash('NaN'::float8) = retl.row_hash(-'NaN'::float8) AS nans,
       retl.row_hash('2024-01-01 12:00+00'::timestamptz) = retl.row_hash('2024-01-01 13:00+01'::timestamptz) AS instants,
       retl.row_hash('{"a":1,"b":2}'::jsonb) = retl.row_hash('{"b":2, "a":1}'::jsonb) AS jsonbs,
       retl.row_hash(5::positive) = retl.row_hash(5) AS domains,
       retl.row_hash('ok'::mood) = retl.row_hash('ok'::text) AS labels,
       retl.row_hash('[2:3]={1,2}'::int[]) = retl.row_hash('{1,2}'::int[]) AS lower_bounds,
       retl.row_hash('[1,4]'::int4range) = retl.row_hash('[1,5)'::int4range) AS ranges,
       retl.row_hash('abc') = retl.row_hash('abc'::text) AS literals,
       retl.row_hash(VARIADIC ARRAY[1, 2]) = retl.row_hash(1, 2) AS variadic,
       retl.row_hash(VARIADIC NULL::int[]) IS NULL AS variadic_null;

-- computed and stored numerics
CREATE TABLE numerics (a numeric, b numeric(20, 4));
INSERT INTO numerics SELECT i / 7.0, i / 7.0 FROM generate_series(-50, 50) i;
INSERT INTO numerics SELECT ('1e' || i)::numeric, ('1e-' || abs(i) % 5)::numeric FROM generate_series(-400, 400, 7) i;
SELECT count(*) AS different FROM numerics
 WHERE retl.row_hash(a, b) <> retl.row_hash(a::text::numeric, b::text::numeric) OR retl.row_hash(-a) <> retl.row_hash((-a)::text::numeric)
    OR retl.row_hash(a - 0) <> retl.row_hash((a - 0)::text::numeric);

-- toasted and compressed values
CREATE TABLE toasted (id int, plain text, external text, list text[], doc jsonb, n numeric);
ALTER TABLE toasted ALTER external SET STORAGE EXTERNAL, ALTER list SET STORAGE EXTERNAL;
INSERT INTO toasted
SELECT 1, repeat('compress me ', 10000), string_agg(md5(i::text), ''), array_agg(md5(i::text)),
       jsonb_agg(jsonb_build_object('i', i, 'm', md5(i::text))), ('1.' || repeat('123456789', 1000))::numeric
  FROM generate_series(1, 1000) i;
SELECT pg_relation_size(reltoastrelid) > 0 AS is_toasted FROM pg_class WHERE oid = 'toasted'::regclass;
SELECT retl.row_hash(plain) = (SELECT retl.row_hash(repeat('compress me ', 10000))) AS plain,
       retl.row_hash(external) = (SELECT retl.row_hash(string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i) AS external,
       retl.row_hash(list) = (SELECT retl.row_hash(array_agg(md5(i::text))) FROM generate_series(1, 1000) i) AS list,
       retl.row_hash(doc) = retl.row_hash(doc::text::jsonb) AS doc, retl.row_hash(n) = retl.row_hash(n::text::numeric) AS n,
       retl.row_hash_record(toasted) = retl.row_hash(id, plain, external, list, doc, n) AS record
  FROM toasted;

-- settings do not matter
CREATE TABLE settings_hashes (setting text, hash bigint);
CREATE FUNCTION hash_all() RETURNS bigint LANGUAGE sql AS $$
  SELECT retl.row_hash('2024-02-29 12:34:56.789+01'::timestamptz, '2024-02-29'::date, 0.1::float8, 1e-7::float4,
                       '\xff00'::bytea, '1 mon 2 days'::interval, '{2024-02-29,NULL}'::date[], 12.5::money,
                       ROW('2024-02-29'::date, '\xff'::bytea), daterange('2024-01-01', '2024-02-01')) $$;
SET timezone = 'UTC';
INSERT INTO settings_hashes SELECT 'none', hash_all();
SET timezone = 'Asia/Kathmandu';
INSERT INTO settings_hashes VALUES ('timezone', retl.row_hash('2024-02-29 12:34:56.789+01'::timestamptz));
SELECT hash = retl.row_hash(timestamptz '2024-02-29 11:34:56.789+00') FROM settings_hashes WHERE setting = 'timezone';
DELETE FROM settings_hashes WHERE setting = 'timezone';
INSERT INTO settings_hashes SELECT 'timezone', hash_all();
SET datestyle = 'German';
INSERT INTO settings_hashes SELECT 'datestyle', hash_all();
SET extra_float_digits = -5;
INSERT INTO settings_hashes SELECT 'extra_float_digits', hash_all();
SET bytea_output = 'escape';
INSERT INTO settings_hashes SELECT 'bytea_output', hash_all();
SET intervalstyle = 'iso_8601';
INSERT INTO settings_hashes SELECT 'intervalstyle', hash_all();
SET xmlbinary = 'hex';
SET lc_monetary = 'C';
SET search_path = pg_catalog, public;
INSERT INTO public.settings_hashes SELECT 'search_path', public.hash_all();
SELECT count(*) AS settings, count(DISTINCT hash) AS hashes FROM public.settings_hashes;
RESET ALL;

-- OIDs do not enter: a type that is made anew, with its labels in another order
CREATE TABLE before AS
  SELECT retl.row_hash('ok'::mood, '{happy,sad}'::mood[], ROW('x', 1, '{a}')::address, ARRAY[ROW('x', 1, '{a}')::address],
                       '[1,2]'::float_range) AS hash;
DROP TYPE mood, address, float_range;
CREATE TYPE mood AS ENUM ('happy', 'new', 'ok', 'sad');
CREATE TYPE float_range AS RANGE (subtype = float8);
CREATE TYPE address AS (street text, gone int, number int, tags text[]);
ALTER TYPE address DROP ATTRIBUTE gone;
SELECT hash = retl.row_hash('ok'::mood, '{happy,sad}'::mood[], ROW('x', 1, '{a}')::address, ARRAY[ROW('x', 1, '{a}')::address],
                            '[1,2]'::float_range) AS same FROM before;

-- a user's cast, operator or operator class plays no part
CREATE FUNCTION trap(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'the cast was used'; END $$;
CREATE CAST (mood AS json) WITH FUNCTION trap(mood);
CREATE FUNCTION trap(mood, mood) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'the operator was used'; END $$;
CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = trap);
SELECT retl.row_hash('ok'::mood, ARRAY['sad'::mood]) = retl.row_hash('ok'::text, ARRAY['sad']) AS no_trap;

-- the record variant: dropped columns, and more columns than a function takes arguments
CREATE TABLE narrow (a int, b text, c numeric);
ALTER TABLE narrow DROP b;
INSERT INTO narrow VALUES (1, 2.5), (NULL, NULL);
ALTER TABLE narrow ADD d text DEFAULT 'later';
SELECT retl.row_hash_record(narrow) = retl.row_hash(a, c, d) AS same FROM narrow;
SELECT retl.row_hash_record(r) = retl.row_hash(r.x, r.y) AS same FROM (SELECT 1 AS x, 'a'::text AS y) r;
SELECT retl.row_hash_record(NULL::narrow) IS NULL AS null_record;
SELECT 'CREATE TABLE wide AS SELECT '
       || string_agg(format('%s AS c%s', CASE i % 3 WHEN 0 THEN i::text WHEN 1 THEN quote_literal('t' || i) || '::text' ELSE 'NULL::int' END, i), ', ')
  FROM generate_series(1, 1200) i \gexec
SELECT retl.row_hash_record(wide) AS wide FROM wide;
SELECT retl.row_hash_record(s) = retl.row_hash_record(wide) AS subquery FROM (SELECT * FROM wide) s, wide;
UPDATE wide SET c1200 = c1200 + 1;
SELECT retl.row_hash_record(wide) AS wide_changed FROM wide;

-- records of several shapes at one place
SELECT retl.row_hash(r) = ANY (ARRAY[retl.row_hash(ROW(1, 'a'::text)), retl.row_hash(ROW(2::bigint))]) AS known
  FROM (VALUES (1), (2), (3), (4)) v (i),
       LATERAL (SELECT CASE WHEN i % 2 = 0 THEN ROW(1, 'a'::text) ELSE ROW(2::bigint) END) r (r);

SELECT provolatile, proparallel, proisstrict, has_function_privilege('public', oid, 'EXECUTE') AS public
  FROM pg_proc WHERE oid = 'retl.row_hash("any")'::regprocedure;
