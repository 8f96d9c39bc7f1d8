-- The stored form of rows: values as JSON, readable without any user's code.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine"');
CREATE TYPE address AS (street text, "house number" int, tags text[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN tags AS text[];
SET timezone = 'America/New_York';

SELECT retl.row_data(1::int2, -2147483648, 9223372036854775807, -9223372036854775808, true, false, NULL::int);
SELECT retl.row_data(0.1::float4, 0.1::float8, 1e300::float8, 1e-7::float8, '-0'::float8, 'NaN'::float8, '-Infinity'::float4);
SELECT retl.row_data(0.10, -123456789012345678901234567890.5, 1e-10::numeric, 1e20::numeric, 'NaN'::numeric, 'Infinity'::numeric, '-Infinity'::numeric);
SELECT retl.row_data('plain'::text, ''::varchar, 'ab'::char(4), 'n'::name, 'c'::"char", 'literal', E'q" b\\ n\n r\r t\t b\b f\f c\x01 \x7f é 😀'::text);
SELECT retl.row_data('\x00ff'::bytea, B'101', '10.0.0.1/8'::inet, '00112233-4455-6677-8899-aabbccddeeff'::uuid, 5::oid, '(1,2)'::point);
SELECT retl.row_data('2024-02-29'::date, '2024-02-29 12:34:56'::timestamp, '2024-02-29 12:34:56.7890+01'::timestamptz, '12:34:56.5'::time, '12:34+02'::timetz, '1 mon -2 days'::interval);
SELECT retl.row_data('infinity'::date, '-infinity'::timestamp, 'infinity'::timestamptz, '0044-03-15 BC'::date, '12024-01-01'::date, '0044-03-15 12:00 BC'::timestamptz);
SELECT retl.row_data('{"b": 1,  "a": [true]}'::json, '{"b": 1.50,  "a": [true]}'::jsonb, 'null'::json, '"s"'::jsonb, NULL::jsonb);
SELECT retl.row_data(E'{"b":\n\t[1,\r\n2]}'::json);
SELECT retl.row_data('{}'::int[], '{1,NULL,3}'::int[], '{{a,"b c"},{"\"",NULL}}'::text[], '[0:1]={t,f}'::bool[], '{2024-01-15}'::date[], '{{{1},{2}},{{3},{4}}}'::int[], '{"{\"a\": 1}"}'::jsonb[]);
SELECT retl.row_data(ROW('x "y"', 5, '{a}')::address, ROW(1, 'a', NULL), ARRAY[ROW('x', NULL, NULL)::address], NULL::address);
SELECT retl.row_data('ok'::mood, 'it''s "fine"'::mood, '{sad,NULL}'::mood[], 5::positive, '{a}'::tags, 'mood'::regtype);
SELECT retl.row_data('[1,5)'::int4range, 'empty'::int4range, '[2024-01-01,)'::daterange, '{[1,2),[5,6)}'::int4multirange);
SELECT retl.row_data(VARIADIC ARRAY['a', NULL]), retl.row_data(VARIADIC NULL::text[]) IS NULL;

-- every instant as to_json has it, in UTC
SET timezone = 'UTC';
SELECT count(*) AS different
  FROM generate_series(-3000, 12000) i, LATERAL (SELECT timestamp '2000-01-01' + i * interval '301 days 05:07:11.123457') t (t)
 WHERE retl.row_data(t, t::date, t AT TIME ZONE 'UTC')::text <> json_build_array(t, t::date, t AT TIME ZONE 'UTC')::text
   AND json_build_array(t, t::date, t AT TIME ZONE 'UTC')::jsonb <> retl.row_data(t, t::date, t AT TIME ZONE 'UTC')::jsonb;
SELECT count(*) AS different
  FROM generate_series(0, 5000) i, LATERAL (SELECT timestamp '1999-12-31 23:59' + i * interval '0.000701 s' + i * interval '33 ms') t (t)
 WHERE retl.row_data(t)::jsonb <> json_build_array(t)::jsonb;

-- numbers and texts as to_json has them
SELECT count(*) AS different FROM generate_series(1, 5000) i,
       LATERAL (SELECT (random() * power(10, i % 40 - 20))::float8, (random() * 1000)::float4, random()::numeric * 10 ^ (i % 30)) v (f8, f4, n)
 WHERE retl.row_data(f8, f4, n, i)::jsonb <> json_build_array(f8, f4, n, i)::jsonb;
SELECT count(*) AS different FROM generate_series(0, 400) i,
       LATERAL (SELECT repeat('a', i % 20) || chr(i % 255 + 1) || repeat('b', i % 11) || chr(i + 1)) v (t)
 WHERE retl.row_data(t)::jsonb <> jsonb_build_array(t);
RESET timezone;

-- a user's cast to json is not used
CREATE FUNCTION trap(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'the cast was used'; END $$;
CREATE CAST (mood AS json) WITH FUNCTION trap(mood);
SELECT retl.row_data('ok'::mood, ARRAY['sad'::mood], ROW('sad'::mood));
SELECT to_json('ok'::mood);

-- the record variant
CREATE TABLE narrow (a int, b text, c numeric);
ALTER TABLE narrow DROP b;
INSERT INTO narrow VALUES (1, 2.5), (NULL, NULL);
ALTER TABLE narrow ADD d text DEFAULT 'later';
SELECT retl.row_data_record(narrow), retl.row_data_record(narrow)::text = retl.row_data(a, c, d)::text AS same FROM narrow;
SELECT retl.row_data_record(r) FROM (SELECT 1 AS x, narrow FROM narrow) r;
SELECT retl.row_data_record(NULL::narrow) IS NULL AS null_record;
SELECT 'CREATE TABLE wide AS SELECT ' || string_agg(format('%s AS c%s', i, i), ', ') FROM generate_series(1, 1600) i \gexec
SELECT json_array_length(retl.row_data_record(wide)), retl.row_data_record(wide) ->> 1599 AS last FROM wide;

-- whatever there is in the catalogs
DO $$
DECLARE
  catalog record;
  wrong bigint;
BEGIN
  FOR catalog IN SELECT oid::regclass AS name, (SELECT count(*) FROM pg_attribute a WHERE attrelid = c.oid AND attnum > 0) AS columns
                   FROM pg_class c WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' LOOP
    EXECUTE format('SELECT count(*) FROM %s t WHERE jsonb_array_length(retl.row_data_record(t)::jsonb) <> $1 OR retl.row_hash_record(t) IS NULL',
                   catalog.name) INTO wrong USING catalog.columns;
    IF wrong > 0 THEN
      RAISE 'rows of %: %', catalog.name, wrong;
    END IF;
  END LOOP;
END $$;

-- large values
CREATE TABLE large AS SELECT repeat(E'"\n', 100000) AS t, (SELECT array_agg(i) FROM generate_series(1, 10000) i) AS a,
                             (SELECT jsonb_agg(i) FROM generate_series(1, 10000) i) AS j;
SELECT length(retl.row_data(t, a, j)::text), (retl.row_data(t, a, j) ->> 0) = t AS text, (retl.row_data(t, a, j) ->> 1) = to_json(a)::text AS list,
       (retl.row_data(t, a, j) ->> 2)::jsonb = j AS doc FROM large;

-- inspection by column name
SELECT retl.row_object('[1, "a,]\"b" ,{"x": [1, "]"]},null]',
                       '[{"name": "id", "type": "bigint"}, {"name": "a \"b\"", "type": "text"}, {"name": "doc", "type": "jsonb"}, {"name": "n", "type": "text"}]');
SELECT retl.row_object(retl.row_data(i, 'x'::text), '[{"name": "i", "type": "integer"}, {"name": "x", "type": "text"}]') FROM generate_series(1, 2) i;
SELECT retl.row_object('[]', '[]');
SELECT retl.row_object('[1, 2]', '[{"name": "id", "type": "bigint"}]');
SELECT retl.row_object('[1]', '[{"name": "id", "type": "bigint"}, {"name": "x", "type": "bigint"}]');
SELECT retl.row_object('{"a": 1}', '[{"name": "id", "type": "bigint"}]');
SELECT retl.row_object('[1]', '[{"type": "bigint"}]');
SELECT retl.row_object('[1]', '{}');

-- keys as one text
SELECT retl.key_data('{id}', 42), retl.key_data('{id}', 'a"b'::text), retl.key_data('{id}', 1.50), retl.key_data('{id}', NULL::int);
SELECT retl.key_data('{region,"the \"id\""}', 'eu'::text, 7), retl.key_data('{at,m}', '2024-01-15 12:00+00'::timestamptz, 'ok'::mood);
SELECT retl.key_data(ARRAY['n' || i, 'x'], i, 'v') FROM generate_series(1, 2) i;
SELECT retl.key_data('{a,b}', 1);
SELECT retl.key_data(NULL, 1);
SELECT retl.key_data('{NULL}', 1);
