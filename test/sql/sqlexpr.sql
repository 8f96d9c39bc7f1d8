-- @sql: what is an expression, what it sees, and as whom it runs. The function
-- is compiled only into test builds; the install script knows nothing of it.
CREATE FUNCTION eval(columns json, rows json[], old json[], expressions text[], owner regrole, search_path text)
RETURNS text[] LANGUAGE c AS 'retl', 'retl_test_sql';
CREATE ROLE retl_test_writer;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE address AS (street text, number int, tags text[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);

-- all kinds of columns, and what is there beside them
CREATE TABLE shape (columns json, new json, old json);
INSERT INTO shape VALUES ('[{"name": "id", "type": "bigint"}, {"name": "email", "type": "text"}, {"name": "amount", "type": "numeric(12,2)"},
  {"name": "at", "type": "timestamp with time zone"}, {"name": "m", "type": "public.mood"}, {"name": "a", "type": "public.address"},
  {"name": "tags", "type": "text[]"}, {"name": "doc", "type": "jsonb"}, {"name": "p", "type": "public.positive"},
  {"name": "r", "type": "int4range"}, {"name": "anonymous", "type": "record"}, {"name": "gone", "type": "public.nonesuch"}]',
  '[42, "Ann@Ex.com\n", 12.50, "2024-01-15T12:00:00+00:00", "ok", {"street": "x \"y\"", "number": 5, "tags": ["a", null]},
    ["a", "b"], {"k": [1, "\u00e9"]}, 5, "[1,5)", {"f1": 1}, null]',
  '[42, "Bob", 12.50, "2024-01-15T12:00:00+00:00", null, null, null, null, null, null, null, null]');
CREATE FUNCTION show(VARIADIC expressions text[]) RETURNS TABLE (expression text, "with old" text, "all null" text) LANGUAGE sql AS $$
  SELECT e, (eval(columns, ARRAY[new], ARRAY[old], ARRAY[e], 'retl_test_writer', 'public'))[1],
         (eval(columns, ARRAY['[null,null,null,null,null,null,null,null,null,null,null,null]']::json[], '{}', ARRAY[e], 'retl_test_writer', 'public'))[1]
    FROM shape, unnest(expressions) e $$;
SELECT * FROM show('id + 1', 'lower(trim(email, E'' \n''))', 'amount * 2', 'at + interval ''1 day''', 'm', 'm = ''ok''', '(a).number + 1',
  '(a).tags[1]', '(a).street', 'tags', 'array_length(tags, 1)', 'doc -> ''k'' ->> 1', 'p', 'upper(r)', 'anonymous ->> ''f1''',
  'old ->> ''email''', 'changed', '''email'' = ANY (changed)', 'operation', '''literal''', 'NULL', 'a', 'ROW(1, id)', 'current_user::text',
  'CASE WHEN id > 1 THEN ''big'' ELSE ''small'' END', 'interval ''1 day 2 hours''', 'id -- a comment', '1.50', 'coalesce(email, ''none'')');

-- a column hides what is beside the columns
SELECT eval('[{"name": "operation", "type": "integer"}, {"name": "old", "type": "integer"}]', ARRAY['[7, 8]']::json[], '{}',
            ARRAY['operation + old'], 'retl_test_writer', 'public');

-- settings of the session play no part
SET intervalstyle = 'iso_8601';
SET timezone = 'Asia/Kathmandu';
SET datestyle = 'German';
SELECT eval(columns, ARRAY[new], '{}', ARRAY['interval ''1 day 2 hours''', 'at::text', 'at::date::text'], 'retl_test_writer', 'public') FROM shape;
RESET ALL;

-- nor in the hash of what is hashed by its text form
CREATE FUNCTION hash_texts() RETURNS text LANGUAGE sql AS $$
  SELECT (eval(columns, ARRAY[new], '{}', ARRAY['retl.row_hash(point(0.1, 1e-7 + 0.3), ''[2024-01-02,2024-02-01)''::daterange::text,
    ''24:00:00''::interval::text, ''\xff''::bytea::text, at::text, ''public.shape''::regclass, xmlelement(name x, ''\xff''::bytea))'],
    'retl_test_writer', 'public'))[1] FROM shape $$;
CREATE TABLE hashes (hash text);
INSERT INTO hashes VALUES (hash_texts());
SET extra_float_digits = -10;
INSERT INTO hashes VALUES (hash_texts());
SET timezone = 'Asia/Kathmandu';
INSERT INTO hashes VALUES (hash_texts());
SET datestyle = 'German';
INSERT INTO hashes VALUES (hash_texts());
SET intervalstyle = 'iso_8601';
INSERT INTO hashes VALUES (hash_texts());
SET bytea_output = 'escape';
INSERT INTO hashes VALUES (hash_texts());
SET xmlbinary = 'hex';
INSERT INTO hashes VALUES (hash_texts());
SELECT count(*) AS settings, count(DISTINCT hash) AS hashes, count(*) FILTER (WHERE hash ~ 'error') AS errors FROM hashes;
RESET ALL;

-- what is refused, when a mapping is created
CREATE FUNCTION refused(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text; hint text;
BEGIN
  PERFORM eval(columns, '{}', '{}', ARRAY[expression], 'retl_test_writer', 'public') FROM shape;
  RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(' / ', SQLSTATE || ': ' || SQLERRM, detail, nullif(hint, ''));
END $$;
CREATE FUNCTION hidden(x int, y float8 DEFAULT random()) RETURNS float8 IMMUTABLE LANGUAGE sql AS 'SELECT x + y';
SELECT refused(e) FROM unnest(ARRAY['', '*', '1, 2', '1) , (2', '1) + (2', '1; DROP TABLE shape', '1;', '1 AS x', '1 x', 'ALL 1', 'DISTINCT 1',
  '1 FROM shape', '1 WHERE true', '1 LIMIT 1', '1 ORDER BY 1', '1 UNION SELECT 2', '1 INTO x', '1 FOR UPDATE', 'lower(email', '/* open',
  '(SELECT 1)', 'EXISTS (SELECT 1)', 'ARRAY(SELECT 1)', 'id IN (SELECT 1)', 'count(*)', 'sum(id)', 'count(*) FILTER (WHERE true)', 'grouping(id)',
  'row_number() OVER ()', 'generate_series(1, 2)', 'unnest(tags)', '$1', 'random()', 'clock_timestamp()', 'nextval(''shape'')', 'hidden(1)',
  'hidden(1, 2)', 'pg_sleep(0)', 'emial', 'lower(id)', 'gone', 'x.id', 'shape.*', '(id).x', '1::nosuch', 'DEFAULT', 'now()', 'email COLLATE "C"']) e;
SELECT eval(columns, '{}', '{}', ARRAY['id', 'lower(emial)'], 'retl_test_writer', 'public') FROM shape;

-- a row that fails, fails alone
CREATE FUNCTION no_two(x int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN IF x = 2 THEN RAISE 'two is bad'; END IF; RETURN x * 10; END $$;
CREATE FUNCTION divide(x int) RETURNS text STABLE LANGUAGE sql AS $$ SELECT (10 / x)::text || current_user ORDER BY 1 $$;
SELECT unnest(eval('[{"name": "x", "type": "integer"}]', ARRAY['[1]', '[2]', '[3]', '[0]', '[4]', '["z"]', '[5]']::json[], '{}',
                   ARRAY['no_two(x)', 'divide(x)'], 'retl_test_writer', 'public'));
SELECT unnest(eval('[{"name": "x", "type": "public.positive"}]', ARRAY['[1]', '[-1]']::json[], '{}', ARRAY['x'], 'retl_test_writer', 'public'));
SELECT eval('[{"name": "x", "type": "integer"}]', ARRAY['[2]']::json[], '{}', ARRAY['no_two(x)'], 'retl_test_writer', 'public');

-- cancellation is not a row's fault
CREATE FUNCTION cancel(x int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RAISE query_canceled; END $$;
SELECT eval('[{"name": "x", "type": "integer"}]', ARRAY['[2]']::json[], '{}', ARRAY['cancel(x)'], 'retl_test_writer', 'public');

-- nothing is gained and nothing left behind
CREATE TABLE secret (s text);
INSERT INTO secret VALUES ('hidden');
CREATE FUNCTION peek() RETURNS text STABLE LANGUAGE sql AS 'SELECT s FROM public.secret';
CREATE FUNCTION lying(statement text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.doing(statement); RETURN 'done'; END $$;
CREATE FUNCTION doing(statement text) RETURNS void VOLATILE LANGUAGE plpgsql AS $$ BEGIN EXECUTE statement; END $$;
SELECT eval('[{"name": "x", "type": "text"}]', ARRAY['["x"]']::json[], '{}', ARRAY['peek()'], 'retl_test_writer', 'public');
SELECT unnest(eval('[{"name": "x", "type": "text"}]',
  ARRAY['["RESET ROLE"]', '["SET SESSION AUTHORIZATION postgres"]', '["CREATE TEMP TABLE planted ()"]', '["CREATE TABLE public.planted ()"]',
        '["PREPARE planted AS SELECT 1"]', '["LISTEN planted"]', '["SET search_path = evil"]', '["SET DateStyle = German"]']::json[], '{}',
  ARRAY['lying(x)'], 'retl_test_writer', 'public'));
SELECT current_user = session_user AS same_user, current_setting('search_path') AS path, current_setting('DateStyle') AS datestyle,
       (SELECT count(*) FROM pg_prepared_statements) AS prepared, (SELECT count(*) FROM pg_listening_channels()) AS listening,
       to_regclass('planted') AS planted;
REVOKE EXECUTE ON FUNCTION no_two FROM PUBLIC;
SELECT eval('[{"name": "x", "type": "integer"}]', ARRAY['[2]']::json[], '{}', ARRAY['no_two(x)'], 'retl_test_writer', 'public');
DROP ROLE retl_test_writer;
