"""Snapshots against an oracle in SQL: random models, random changes.

    exact.py --socket DIR --port N [--seconds N] [--seed N] [--cases N] [--only N]

Each case is a model over tables of random columns (1 to 1,200, of every kind of type) with a random key. After each of
a few rounds of changes a snapshot is taken by CALL retl.work(), and its numbers, change log and checkpoint are compared,
by EXCEPT, with what follows from a copy of the model's rows as of the last snapshot. The copy holds text, made with to_json() and
output functions, and never passes through the code that is tested. One line of TAP for each width of models; what
differs is printed with its seed and case.
"""
import argparse
import os
import random
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from oracle_pg import Session, SqlError  # noqa: E402

MOST_KEY_BYTES = 2000
TABLE_COLUMNS = 240             # of one table: a page holds so many pointers to toasted values
DIFFERENCES = 3                 # shown of a case

# Changes of one value that compares equal, or nearly so, are what hashes get wrong: so they stand side by side.
TEXTS = ["''", "' '", "'  '", "'a'", "'A'", "'a '", "'null'", "'NULL'", r"E'\n'", r"E'\t\x01\x7f\r'", "'\"'", r"'\'", "'{}'", "'[1,2]'",
         "'é'", r"E'e\u0301'", "'😀'", r"U&'\+10FFFF'", r"U&'\FEFFx'", r"U&'\2028'", "'مرحبا'", "'日本語'", "'{\"a\": 1}'", "'0'", "'1.0'",
         *[f"repeat('x', {n})" for n in (3, 4, 7, 8, 9, 15, 16, 63, 64, 65, 96, 127)], "repeat('x', 64) || 'y'", "repeat('é', 30)"]
SCALARS = {
    "bool": ["true", "false"],
    "int2": ["0", "1", "-1", "32767", "'-32768'"],
    "int4": ["0", "1", "-1", "2147483647", "'-2147483648'"],
    "int8": ["0", "1", "-1", "4294967296", "9223372036854775807", "'-9223372036854775808'"],
    "float4": ["'0'", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "'1e-45'", "'3.4028235e38'", "'0.1'", "'1'", "'16777216'", "'1e7'"],
    "float8": ["'0'", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "'5e-324'", "'1.7976931348623157e308'", "'0.1'", "0.1 + 0.2",
               "'1e15'", "'1e16'", "'123456789012345680000'", "'-1'"],
    "numeric": ["0", "0.0", "1", "1.0", "1.00", "-1", "'NaN'", "'Infinity'", "'-Infinity'", "1e20::numeric", "'1e400'", "'1e-400'", "9999", "10000",
                "1.5 + 0.5", "10.0 / 3", "1234567890.123456789", "99990000", "'0.00000001'", "-0.5"],
    "numeric(12,2)": ["0", "1", "-1.5", "9999999999.99", "'NaN'"],
    "numeric(200,100)": ["0", "1", "-1.5"],
    "numeric(3,-2)": ["100", "99900"],
    "text": TEXTS, "varchar": TEXTS, "varchar(200)": TEXTS,
    "bpchar": ["'a'", "'a '", "''", "' '", "'é'"],
    "char(5)": ["'a'", "'a '", "'abcde'", "'é'"],
    "name": ["''", "'a'", "'A b'", "repeat('n', 63)"],
    '"char"': ["'a'", "''", "'b'"],
    "bytea": [r"'\x'", r"'\x00'", r"'\x0000'", r"'\xff00'", r"'\xdeadbeefdeadbeef'", "decode(repeat('00', 70), 'hex')"],
    "json": ["'{}'", "'null'", "'{\"a\":1}'", "'{\"a\": 1}'", "'{\"a\":1,\"a\":2}'", "'[1.0]'", "'[1.00]'", r"""E'{"a":\n1}'""", "' 1 '",
             r"""'"\u0000"'""", "'1e400'", "'\"é\"'", "'{\"é\": [{}, [], null, true]}'"],
    "jsonb": ["'{}'", "'null'", "'{\"a\":1}'", "'{\"a\":1.0}'", "'{\"a\":\"1\"}'", "'[]'", "'[[]]'", "'{\"b\":1,\"a\":2}'", "'\"x\"'", "'1e400'",
              r"""'"\n\t\u0001"'""", "'{\"\": null}'", "'[null]'", "to_jsonb(repeat('x', 200))"],
    "xml": ["''", "'<a/>'", "'<a></a>'", "'<a>&amp;é</a>'", "'text'"],
    "date": ["'2024-02-29'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'0001-01-01'", "'9999-12-31'", "'10000-01-01'", "'5874897-12-31'"],
    "timestamp": ["'2024-02-29 12:34:56.789'", "'1999-12-31 23:59:59.999999'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'294276-12-31'",
                  "'2000-01-01'", "'0001-01-01'"],
    "timestamptz": ["'2024-02-29 12:34:56.789+01'", "'2024-02-29 11:34:56.789+00'", "'1999-12-31 23:59:59.999999+00'", "'infinity'", "'-infinity'",
                    "'0044-03-15 BC'", "'2024-10-27 02:30+02'", "'2024-10-27 02:30+01'", "'10000-01-01 00:00+00'"],
    "timestamptz(0)": ["'2024-02-29 12:34:56.789+01'", "'2024-02-29 12:34:57+01'"],
    "time": ["'00:00'", "'24:00'", "'12:34:56.000001'"],
    "timetz": ["'12:00+00'", "'13:00+01'", "'00:00-15:59'"],
    "interval": ["'0'", "'1 mon'", "'30 days'", "'1 day'", "'24:00:00'", "'-1 mon 1 day'", "'1 year -00:00:01'", "'00:00:00.000001'"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'00112233-4455-6677-8899-aabbccddeeff'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "oid": ["0", "1", "4294967295"],
    "money": ["0", "1", "'-1.5'", "'92233720368547758.07'"],
    "inet": ["'10.0.0.1'", "'10.0.0.1/32'", "'10.0.0.1/8'", "'::1'", "'::ffff:10.0.0.1'"],
    "cidr": ["'10.0.0.0/8'", "'10.0.0.0/9'", "'::/0'"],
    "macaddr": ["'08:00:2b:01:02:03'", "'00:00:00:00:00:00'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'", "'00:00:00:00:00:00:00:00'"],
    "bit(4)": ["B'0000'", "B'1011'"],
    "varbit": ["B''", "B'0'", "B'00'", "B'1'", "repeat('01', 40)"],
    "pg_lsn": ["'0/0'", "'FFFFFFFF/FFFFFFFF'"],
    "xid8": ["'0'", "'18446744073709551615'"],
    "tid": ["'(0,1)'", "'(4294967295,65535)'"],
    "point": ["'(0,0)'", "'(-0,0)'", "'(NaN,1e300)'", "'(0.1,1)'"],
    "line": ["'{1,2,3}'", "'{0,-1,0.1}'"],
    "lseg": ["'[(0,0),(1,1)]'", "'[(1,1),(0,0)]'"],
    "box": ["'(1,1),(0,0)'", "'(2,2),(0,0)'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "polygon": ["'((0,0),(1,1),(1,0))'", "'((0,0),(1,0),(1,1))'"],
    "circle": ["'<(0,0),1>'", "'<(0,0),1.5>'"],
    "tsvector": ["''", "'a b'", "'a:1A b:2'", "'a:1 b:2'"],
    "tsquery": ["''", "'a & b'", "'a | b'", "'!a <-> b:*A'"],
    "jsonpath": ["'$.a'", "'strict $.a'"],
    "int2vector": ["''", "'1 2'"],
    "oidvector": ["''", "'1 4294967295'"],
    "int4range": ["'empty'", "'(,)'", "'[1,5)'", "'[1,4]'", "'[1,)'", "'(,1)'"],
    "numrange": ["'empty'", "'[1,5]'", "'[1.0,5]'", "'(1,5)'", "'(,)'"],
    "tstzrange": ["'empty'", "'[2024-01-01 00:00+00,2024-01-01 01:00+00)'", "'[2024-01-01 01:00+01,2024-01-01 02:00+01)'", "'(,infinity)'", "'(,)'"],
    "daterange": ["'empty'", "'[2024-01-01,2024-01-31]'", "'[2024-01-01,2024-02-01)'", "'[2024-01-01,infinity]'"],
    "int8multirange": ["'{}'", "'{[1,2),[5,9)}'", "'{[1,9)}'", "'{(,)}'"],
    "nummultirange": ["'{}'", "'{[1,2],[5,9]}'", "'{[1.0,2],[5,9]}'"],
    "datemultirange": ["'{}'", "'{[2024-01-01,2024-01-31],[2024-03-01,)}'"],
    # Of our own, see SETUP.
    "e.mood": ["'sad'", "'é \"'", "'LABEL'"],
    "e.address": ["ROW('High St', 5, '{x,NULL}')", "ROW('', NULL, '{}')", "ROW(NULL, NULL, NULL)", "ROW('a\"b,c', 5, '{}')"],
    "e.nested": ["ROW(ROW('x', 1, '{a}')::e.address, ARRAY[ROW(NULL, 2, NULL)]::e.address[], 'sad', '-0', '{\"a\":1}')",
                 "ROW(NULL, '{}', NULL, '0', NULL)", "ROW(NULL, '{}', NULL, 'NaN', 'null')"],
    "e.positive": ["1", "2147483647"],
    "e.mail": ["'a@b'", "'é@b'"],
    "e.tags": ["'{}'", "'{a}'", "'{a,NULL,\"NULL\"}'"],
    "e.home": ["ROW('x', 5, '{}')"],
    "e.floats": ["'[0,1)'", "'[-0,1)'", "'(,NaN]'", "'empty'"],
    "e.floatsets": ["'{}'", "'{[0,1),[2,3)}'", "'{[-0,1),[2,3)}'"],
    "e.words": ["'[a,b]'", "'[a,b)'", "'[\"\",\"x y\"]'", "'(,)'"],
}
# What stands in both forms of what is equal needs a wash: lower bounds of arrays are not kept, and -0 is 0.
FLOATS = {"float4", "float8", "e.nested", "e.floats", "e.floatsets"}
CONTAINERS = {"e.address", "e.nested", "e.tags", "e.home"}
BOUNDED = {"int4": "'[0:1]={1,2}'", "text": "'[5:6]={a,b}'", "float8": "'[-1:0]={-0,0}'", "e.mood": "'[3:3]={sad}'"}
# Keys of these types are told apart by their operator; of all others by text.
NATIVE_KEYS = {"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "numeric(12,2)", "uuid", "date", "time", "timetz",
               "timestamp", "timestamptz", "timestamptz(0)", "interval", "bytea", "inet", "cidr", "macaddr", "bpchar", "char(5)", "text",
               "varchar", "varchar(200)", "e.positive"}
COMMON_KEYS = ["int4", "int8", "text", "uuid", "numeric", "timestamptz", "date", "varchar"]

# What a value, c, becomes when it changes as little as it can; N is a number that varies. May be no change.
NEAR = {
    "bool": "NOT c", "int2": "c # 1::int2", "int4": "c # (1 << N % 31)", "int8": "c # (1::int8 << N % 63)", "oid": "(c::int8 # 1)::oid",
    "float4": "CASE WHEN abs(c) < 1e38 THEN c * 1.0000002 ELSE -c END", "float8": "CASE WHEN abs(c) < 1e300 THEN c * 1.0000000000000003 ELSE -c END",
    "numeric": "CASE N % 3 WHEN 0 THEN c * 1.0 WHEN 1 THEN c + 1 ELSE -c END", "numeric(12,2)": "-c", "numeric(200,100)": "c + 1e-100",
    "text": "overlay(c placing chr(97 + N % 26) from 1 + N % greatest(length(c), 1) for 1)",
    "varchar": "overlay(c placing chr(97 + N % 26) from greatest(length(c), 1) for 1)", "varchar(200)": "left(c, 198) || 'é'",
    "bpchar": "c || ' '", "char(5)": "reverse(c::text)", "name": "left(c::text, 60) || 'x'", "e.mail": "left(c, -1) || chr(97 + N % 26)",
    "bytea": "CASE WHEN c = '' THEN c ELSE set_bit(c, N % (length(c) * 8), 1 - get_bit(c, N % (length(c) * 8))) END",
    "json": "CASE N % 2 WHEN 0 THEN c::text || ' ' ELSE regexp_replace(c::text, '[0-9]', '7') END",
    "jsonb": "regexp_replace(c::text, '[0-9a-z](?=[^0-9a-z]*$)', '7')::text", "uuid": "overlay(c::text placing to_hex(N % 16) from 1 + N % 8 for 1)",
    "date": "CASE WHEN isfinite(c) THEN c - 1 ELSE c END", "timestamp": "c - interval '1 microsecond'", "timestamptz": "c - interval '1 microsecond'",
    "time": "c - interval '1 microsecond'", "timetz": "CASE N % 2 WHEN 0 THEN c - interval '1 microsecond' ELSE c AT TIME ZONE interval '1 hour' END",
    "interval": "CASE N % 3 WHEN 0 THEN justify_days(c) WHEN 1 THEN c + interval '1 microsecond' ELSE -c END", "money": "c - '0.01'::money",
    "inet": "set_masklen(c, N % 32)", "macaddr": "~c", "macaddr8": "~c", "bit(4)": "~c", "varbit": "~c", "e.positive": "c # (2 << N % 29)",
    "e.address": "ROW((c).street, (c).number # 1, (c).tags)", "e.home": "ROW((c).street || 'x', (c).number, (c).tags)",
    "e.tags": "array_remove(c, 'a')", "point": "point(-c[0], c[1])", "path": "CASE WHEN isclosed(c) THEN popen(c) ELSE pclose(c) END",
    "int4range": "CASE WHEN upper_inf(c) THEN 'empty' ELSE int4range(NULL, upper(c), '[]') END", "tsvector": "setweight(c, 'B')",
    "numrange": "numrange(lower(c), upper(c), (ARRAY['[]', '[)', '(]', '()'])[1 + N % 4])", "int8multirange": "c - int8multirange(int8range(1, 2))",
}

SETUP = r"""
DROP SCHEMA IF EXISTS e CASCADE;
CREATE SCHEMA e;
CREATE TYPE e.mood AS ENUM ('sad', 'é "', 'fine');
CREATE TYPE e.address AS (street text, number int, tags text[]);
CREATE TYPE e.nested AS (home e.address, others e.address[], mood e.mood, f float8, doc json);
CREATE DOMAIN e.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN e.mail AS text CHECK (VALUE LIKE '%@%');
CREATE DOMAIN e.tags AS text[];
CREATE DOMAIN e.home AS e.address;
CREATE TYPE e.floats AS RANGE (subtype = float8, multirange_type_name = e.floatsets);
CREATE TYPE e.words AS RANGE (subtype = text, collation = "C");
-- Texts of equal values are made equal: the first array says what each element needs.
CREATE FUNCTION e.wash(needs text, value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE needs WHEN '' THEN value
    WHEN 'f' THEN regexp_replace(regexp_replace(value, '(\[-?\d+:-?\d+\])+=', '', 'g'), '(^|[\[({,"\\])-0(?=$|[\])},"\\])', '\10', 'g')
    ELSE regexp_replace(value, '(\[-?\d+:-?\d+\])+=', '', 'g') END
$$;
CREATE FUNCTION e.stored(kinds text[], needs text[], data json) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT array_agg(CASE WHEN kinds[n] = 'j' THEN value::text ELSE e.wash(needs[n], value::jsonb::text) END ORDER BY n)
    FROM json_array_elements(data) WITH ORDINALITY v (value, n)
$$;
SELECT retl.create_destination('exact', 'webhook', '{"url": "http://127.0.0.1:9/"}')
  WHERE NOT EXISTS (SELECT FROM retl.destinations WHERE name = 'exact');
"""

# What a plan may look like; the results are the same.
PLANS = [{}, {}, {"enable_hashjoin": "off"}, {"enable_mergejoin": "off", "work_mem": "'64kB'"}, {"force_parallel": "on"},
         {"force_parallel": "on", "enable_hashjoin": "off"}, {"enable_indexonlyscan": "off"}, {"parallel": "on"}]
# What a session may be set to; the results are the same.
SESSIONS = [{}, {"timezone": "'Asia/Kathmandu'", "datestyle": "'German'"}, {"extra_float_digits": "-5", "bytea_output": "'escape'"},
            {"intervalstyle": "'iso_8601'", "xmlbinary": "'hex'"}, {"default_transaction_isolation": "'serializable'"}]


class Type:
    def __init__(self, name, array):
        self.base = name
        self.name = name + "[]" if array else name
        self.array = array
        self.near = "CASE WHEN array_ndims(c) = 1 THEN c[2:] || c[1:1] ELSE c END" if array else NEAR.get(name)
        self.is_json = self.name == "json"
        self.needs = "f" if name in FLOATS else "a" if array or name in CONTAINERS else ""

    def value(self, chance, big, label):
        if chance.random() < 0.12:
            return "NULL"
        if not self.array:
            return f"({self.scalar(chance, big, label)})::{self.name}"
        if self.base in BOUNDED and chance.random() < 0.15:
            return f"({BOUNDED[self.base]})::{self.name}"
        elements = [f"({self.scalar(chance, False, label)})::{self.base}" if chance.random() < 0.85 else f"NULL::{self.base}"
                    for _ in range(4)]
        shape = chance.randrange(5)
        if shape == 0:
            return f"'{{}}'::{self.name}"
        if shape == 1:
            return f"ARRAY[[{elements[0]},{elements[1]}],[{elements[2]},{elements[3]}]]::{self.name}"
        if shape == 2 and big:
            return f"array_fill({elements[0]}, ARRAY[{chance.randint(100, 1500)}])::{self.name}"
        return f"ARRAY[{','.join(elements[:shape])}]::{self.name}"

    def scalar(self, chance, big, label):
        if chance.random() < (0.15 if big else 0.03):
            longer = self.longer(chance, big)
            if longer:
                return longer
        # jsonb, by which elements of arrays are compared, takes no \\u0000.
        values = [value for value in SCALARS[self.base] if not (self.array and "u0000" in value)]
        return chance.choice(values).replace("LABEL", label)

    def longer(self, chance, big):
        """A value that is toasted: compressed, or, of random bytes, out of line."""
        size = chance.choice([100, 700, 30000]) if big else 5
        noise = f"(SELECT string_agg(md5(i::text || '{chance.random()}'), '') FROM generate_series(1, {size // 30 + 1}) i)"
        text = chance.choice([f"repeat('{chance.choice('xyé')}', {size})", noise, f"{noise} || repeat('z', {size})"])
        if self.base in ("text", "varchar"):
            return text
        if self.base == "e.mail":
            return f"'a@' || {text}"
        if self.base == "bytea":
            return f"convert_to({text}, 'UTF8')"
        if self.base in ("json", "jsonb"):
            return f"to_{self.base}({text})" if chance.random() < 0.5 else f"json_build_object('a', {text}, 'n', {chance.randint(1, 9)})"
        if self.base == "xml":
            return f"('<a>' || {text} || '</a>')::xml"
        if self.base == "numeric" and big:
            return f"('{chance.randint(1, 9)}.' || repeat('{chance.randint(1, 9)}7', {min(size, 5000)}))"
        if self.base == "e.address":
            return f"ROW({text}, {chance.randint(1, 9)}, NULL)"
        if self.base == "varbit":
            return f"repeat('{chance.choice(['01', '10'])}', {min(size, 5000)})"
        if self.base == "int8multirange" and big:
            return (f"(SELECT range_agg(int8range(i * 10, i * 10 + {chance.randint(1, 5)})) FROM generate_series(1, {size // 10}) i)")
        return None


class Case:
    def __init__(self, session, seed, number, width, version):
        self.session = session
        self.chance = random.Random(f"{seed} {number}")
        self.number = number
        self.name = f"exact_{number}"
        self.version = version
        self.label = "fine"
        chance = self.chance
        self.nkeys = chance.choice([1, 1, 1, 2, 3, 5]) if width > 4 else 1
        self.big = width <= 30
        self.columns = []
        for n in range(width):
            if n < self.nkeys and chance.random() < 0.6:
                self.columns.append(Type(chance.choice(COMMON_KEYS), False))
            else:
                self.columns.append(Type(chance.choice(list(SCALARS)), chance.random() < 0.2))
        # What has no array type.
        for column in self.columns:
            if column.array and column.base in ("int2vector", "oidvector"):
                column.__init__(column.base, False)
        self.rows = chance.choice([0, 1, 8, 40, 120]) if width <= 30 else chance.randint(2, 12)
        self.tables = [range(first, min(first + TABLE_COLUMNS, width)) for first in range(0, width, TABLE_COLUMNS)]
        self.next_row = 1
        self.alive = []
        self.unique = chance.random() < 0.7     # the key is, nearly always

    def query(self, sql):
        try:
            return self.session.query(sql)
        except SqlError as error:
            raise SqlError({"M": f"{error}\nin: {sql[:2000]}", "C": error.code})

    # ---- tables and changes

    def create(self):
        statements = []
        for t, columns in enumerate(self.tables):
            listed = "".join(f", c{n} {self.columns[n].name}" for n in columns)
            statements.append(f"CREATE TABLE e.t_{t} (rid int PRIMARY KEY{listed})")
            for n in columns:
                if self.columns[n].base in ("text", "json", "bytea") and self.chance.random() < 0.3:
                    statements.append(f"ALTER TABLE e.t_{t} ALTER c{n} SET STORAGE EXTERNAL")
        listed = ", ".join(f"c{n}" for n in range(len(self.columns)))
        joined = "e.t_0" + "".join(f" JOIN e.t_{t} USING (rid)" for t in range(1, len(self.tables)))
        model = f"SELECT {listed} FROM {joined}"
        if self.chance.random() < 0.3:
            statements.append(f"CREATE VIEW e.v AS {model}")
            model = "e.v"
        self.model = model if model != "e.v" else "SELECT * FROM e.v"
        if self.chance.random() < 0.2:
            # What the executor makes rather than reads: expanded arrays, records, values not stored.
            model = self.model = f"SELECT * FROM (SELECT * FROM ({self.model}) a ORDER BY 1 OFFSET 0) b" \
                if self.columns[0].name in COMMON_KEYS else f"SELECT * FROM ({self.model}) a OFFSET 0"
        for statement in statements:
            self.query(statement)
        key = ",".join(f"c{n}" for n in range(self.nkeys))
        quoted = model.replace("'", "''")
        self.query(f"SELECT retl.create_model('{self.name}', '{quoted}', '{{{key}}}')")
        self.query(f"SELECT retl.create_mapping('{self.name}', '{self.name}', 'exact', 'send', '{{}}', records => '{{deleted}}',"
                   " enabled => true)")
        self.id = int(self.query(f"SELECT id FROM retl.model WHERE name = '{self.name}'")[0][0])

    def key_value(self, n, row):
        """Keys differ mostly, come back, and are NULL, equal in other forms, or too long at times."""
        column, chance = self.columns[n], self.chance
        if chance.random() < (0.04 if self.unique else 0.3):
            value = column.value(chance, False, self.label)
            if column.name in ("text", "varchar") and chance.random() < 0.3:
                return "repeat('k', 3000)"
            return value
        if n > 0:
            return column.value(chance, False, self.label)
        return {"int4": str(row), "int8": str(row * 5000000000), "text": f"'k{row}é'", "varchar": f"'{row}'",
                "uuid": f"'00112233-4455-6677-8899-{row:012d}'", "numeric": f"{row}.{'0' * chance.randrange(3)}1",
                "timestamptz": f"'2024-01-01 00:00+00'::timestamptz + {row} * interval '1 second'",
                "date": f"'2024-01-01'::date + {row}"}.get(column.name) or column.value(chance, False, self.label)

    def column_value(self, n, row):
        if n < self.nkeys:
            return self.key_value(n, row)
        return self.columns[n].value(self.chance, self.big, self.label)

    def insert(self, row):
        for t, columns in enumerate(self.tables):
            values = ", ".join(self.column_value(n, row) for n in columns)
            self.query(f"INSERT INTO e.t_{t} VALUES ({row}, {values})")
        self.alive.append(row)

    def change(self):
        chance = self.chance
        kind = chance.choices(["insert", "delete", "update", "near", "again", "label"], [3, 2, 6, 6, 1, 0.15])[0]
        if kind == "insert" or not self.alive:
            self.insert(self.next_row)
            self.next_row += 1
        elif kind == "delete":
            row = self.alive.pop(chance.randrange(len(self.alive)))
            for t in range(len(self.tables)):
                self.query(f"DELETE FROM e.t_{t} WHERE rid = {row}")
        elif kind == "update":
            row = chance.choice(self.alive)
            columns = chance.sample(range(len(self.columns)), min(len(self.columns), chance.choice([1, 1, 1, 2, 5])))
            for n in columns:
                self.query(f"UPDATE e.t_{n // TABLE_COLUMNS} SET c{n} = {self.column_value(n, row)} WHERE rid = {row}")
        elif kind == "near":
            for _ in range(4):
                n = chance.randrange(len(self.columns))
                column = self.columns[n]
                if column.near:
                    share = chance.choice([1, 2, 5])
                    value = re.sub(r"\bN\b", f"(rid + {chance.randrange(1000)})", re.sub(r"\bc\b", f"c{n}", column.near))
                    try:
                        self.query(f"UPDATE e.t_{n // TABLE_COLUMNS} SET c{n} = ({value})::{column.name} WHERE rid % {share} = 0")
                    except SqlError as error:
                        # Beyond the type's, or the domain's, values: none changes.
                        if error.code[:2] not in ("22", "23"):
                            raise
        elif kind == "again":
            # A row that is written anew as it is.
            self.query(f"UPDATE e.t_0 SET rid = rid WHERE rid = {chance.choice(self.alive)}")
        elif kind == "label":
            other = "great" if self.label == "fine" else "fine"
            self.query(f"ALTER TYPE e.mood RENAME VALUE '{self.label}' TO '{other}'")
            self.label = other

    # ---- the oracle

    def text(self, n):
        """What a value is compared by: what its output function says. (NULL is told from a row of NULLs.)"""
        return f"CASE WHEN c{n} IS DISTINCT FROM NULL THEN e.wash('{self.columns[n].needs}', format('%s', c{n})) END"

    def json(self, n):
        column = self.columns[n]
        if column.is_json:
            return f"coalesce(btrim(regexp_replace(c{n}::text, '[\\x01-\\x1f]', '', 'g'), ' '), 'null')"
        return f"coalesce(e.wash('{column.needs}', to_json(c{n})::jsonb::text), 'null')"

    def key(self, n):
        column = self.columns[n]
        if column.name in ("text", "varchar", "varchar(200)", "bpchar", "char(5)"):
            return f'c{n} COLLATE "C"'
        if column.name in NATIVE_KEYS:
            return f"c{n}"
        return f"format('%s', c{n}) COLLATE \"C\"" if column.array or column.name not in ("name",) else f'c{n}::text COLLATE "C"'

    def expect(self):
        """e.now: what the model says, without what is set aside; e.aside: how many rows are."""
        columns = range(len(self.columns))
        keys = range(self.nkeys)
        wanted = ", ".join([*[f"CASE WHEN c{n} IS DISTINCT FROM NULL THEN {self.key(n)} END AS k{n}" for n in keys],
                            f"ARRAY[{', '.join(self.text(n) for n in columns)}]::text[] AS texts",
                            f"ARRAY[{', '.join(self.json(n) for n in columns)}]::text[] AS jsons"])
        listed = ", ".join(f"k{n}" for n in keys)
        no_null = " AND ".join(f"k{n} IS NOT NULL" for n in keys)
        short = " + ".join(f"octet_length(k{n}::text)" for n in keys)
        return [
            f"CREATE TABLE e.all AS SELECT {wanted} FROM ({self.model}) m",
            f"""CREATE TABLE e.now AS SELECT {listed}, texts, jsons FROM (
                  SELECT *, count(*) OVER (PARTITION BY {listed}) AS n FROM e.all WHERE {no_null} AND {short} <= {MOST_KEY_BYTES}) a
                WHERE n = 1""",
        ]

    def check(self, seq):
        """Compares snapshot number seq with the copy of the rows before it; what differs, as lines."""
        keys = range(self.nkeys)
        same = " AND ".join(f"a.k{n} = b.k{n}" for n in keys)
        kinds = "ARRAY[" + ", ".join("'j'" if column.is_json else "''" for column in self.columns) + "]::text[]"
        needs = "ARRAY[" + ", ".join(f"'{column.needs}'" for column in self.columns) + "]::text[]"
        listed = ", ".join(f"k{n}" for n in keys)
        no_null = " AND ".join(f"k{n} IS NOT NULL" for n in keys)
        for statement in self.expect():
            self.query(statement)
        if seq > 1:
            # Keys that the model returns more than once stay as they were.
            self.query(f"""INSERT INTO e.now SELECT b.* FROM e.past b WHERE EXISTS (
                SELECT FROM (SELECT {listed} FROM e.all WHERE {no_null} GROUP BY {listed} HAVING count(*) > 1) a WHERE {same})""")
        else:
            self.query("CREATE TABLE e.past AS SELECT * FROM e.now LIMIT 0")
        generation = self.query(f"SELECT log_generation FROM retl.model_state WHERE model = {self.id}")[0][0]
        log = f"retl_data.log_{self.id}_{generation}"
        expected = f"""SELECT b.jsons AS before, a.jsons AS after FROM e.now a FULL JOIN e.past b ON {same}
                         WHERE a.texts IS DISTINCT FROM b.texts"""
        if seq == 1:
            expected += " AND false"
        found = f"""SELECT CASE WHEN old_data IS NOT NULL THEN e.stored({kinds}, {needs}, old_data) END AS before,
                           CASE WHEN new_data IS NOT NULL THEN e.stored({kinds}, {needs}, new_data) END AS after
                      FROM {log} WHERE seq = {seq}"""
        state = f"SELECT e.stored({kinds}, {needs}, data) AS after FROM retl_data.checkpoint_{self.id}"
        wrong = []
        for what, one, other in (("in the log, not in the oracle", found, expected), ("in the oracle, not in the log", expected, found)):
            for before, after in self.query(f"SELECT to_json(before), to_json(after) FROM (({one}) EXCEPT ALL ({other})) d"
                                            f" LIMIT {DIFFERENCES}"):
                wrong.append(f"{what}: {(before or '')[:600]} -> {(after or '')[:600]}")
        for what, one, other in (("in the checkpoint, not in the oracle", state, "SELECT jsons FROM e.now"),
                                 ("in the oracle, not in the checkpoint", "SELECT jsons FROM e.now", state)):
            for (row,) in self.query(f"SELECT to_json(d.*) FROM (({one}) EXCEPT ALL ({other})) d LIMIT {DIFFERENCES}"):
                wrong.append(f"{what}: {row[:800]}")
        counted = self.query(f"""SELECT rows, CASE seq WHEN 1 THEN 0 ELSE added END, updated, deleted, set_aside FROM retl.snapshot
                                   WHERE model = {self.id} AND seq = {seq}""")[0]
        true = self.query(f"""SELECT (SELECT count(*) FROM e.all), count(*) FILTER (WHERE before IS NULL),
              count(*) FILTER (WHERE before IS NOT NULL AND after IS NOT NULL), count(*) FILTER (WHERE after IS NULL),
              (SELECT count(*) FROM e.all) - (SELECT count(*) FROM (SELECT {listed} FROM e.all
                 WHERE {no_null} AND {' + '.join(f"octet_length(k{n}::text)" for n in keys)} <= {MOST_KEY_BYTES}
                 GROUP BY {listed} HAVING count(*) = 1) x)
            FROM ({expected}) d""")[0]
        if counted != true:
            wrong.append(f"rows, added, updated, deleted, set aside: {counted}, by the oracle {true}")
        self.query("DROP TABLE e.past, e.all; ALTER TABLE e.now RENAME TO past")
        return wrong, int(true[1]) + int(true[2]) + int(true[3])

    # ---- one case

    def settings(self):
        chosen = {**self.chance.choice(PLANS), **self.chance.choice(SESSIONS)}
        result = {}
        for name, value in chosen.items():
            if name == "force_parallel":
                name = "debug_parallel_query" if self.version >= 160000 else "force_parallel_mode"
            if name == "parallel":
                result.update({"min_parallel_table_scan_size": "0", "min_parallel_index_scan_size": "0", "parallel_setup_cost": "0",
                               "parallel_tuple_cost": "0"})
                continue
            result[name] = value
        return result

    def snapshot(self):
        settings = self.settings()
        for name, value in settings.items():
            self.query(f"SET {name} = {value}")
        self.query(f"SELECT retl.reset_mapping('{self.name}', baseline => true)")
        self.query("CALL retl.work()")
        self.query("RESET ALL")
        return settings

    def run(self):
        """Lines that say what is wrong, and how many changes were compared."""
        self.create()
        for _ in range(self.rows):
            self.insert(self.next_row)
            self.next_row += 1
        changes = 0
        for seq in range(1, self.chance.choice([3, 4, 5]) + 1):
            if seq > 1:
                for _ in range(self.chance.choice([0, 1, 3, 10, 40])):
                    self.change()
                if self.chance.random() < 0.3:
                    self.query("VACUUM ANALYZE e.t_0")
            settings = self.snapshot()
            if self.query(f"SELECT seq FROM retl.model_state WHERE model = {self.id}")[0][0] != str(seq):
                error = self.query(f"SELECT error FROM retl.runs WHERE mapping = '{self.name}' ORDER BY id DESC LIMIT 1")
                return [f"snapshot {seq} failed: {error}", self.describe()], changes
            wrong, count = self.check(seq)
            if wrong:
                return [*wrong, f"snapshot {seq}, {settings}", self.describe()], changes
            changes += count
        self.drop()
        return [], changes

    def describe(self):
        return f"key of {self.nkeys}, columns: " + ", ".join(f"c{n} {column.name}" for n, column in enumerate(self.columns[:120]))

    def drop(self):
        if self.label != "fine":
            self.query(f"ALTER TYPE e.mood RENAME VALUE '{self.label}' TO 'fine'")
        self.query(f"SELECT retl.drop_model('{self.name}', cascade => true)")
        self.query("DROP VIEW IF EXISTS e.v; DROP TABLE e.past, " + ", ".join(f"e.t_{t}" for t in range(len(self.tables))))


# Name, columns from and to, share of the time.
WIDTHS = [("1 to 12 columns", 1, 12, 0.6), ("13 to 140 columns", 13, 140, 0.2), ("141 to 1,200 columns", 141, 1200, 0.2)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--only", type=int, help="this case alone")
    args = parser.parse_args()
    session = Session(args.socket, args.port, settings="-c synchronous_commit=off -c client_min_messages=error -c timezone=UTC"
                      " -c lc_monetary=C -c jit=off")
    version = int(session.query("SHOW server_version_num")[0][0])
    print(f"# seed {args.seed}")
    failed = 0
    for test, (name, least, most, share) in enumerate(WIDTHS, 1):
        until = time.monotonic() + args.seconds * share
        cases, changes, wrong = 0, 0, []
        number = test * 1000000
        while not wrong and (cases == 0 or time.monotonic() < until):
            if args.only is not None:
                number = args.only
                if number // 1000000 != test:
                    break
            width = random.Random(f"{args.seed} {number} width").randint(least, most)
            if test == len(WIDTHS) and number == test * 1000000:
                width = most
            if cases == 0 or number % 200 == 0:
                session.query(SETUP)
            try:
                wrong, count = Case(session, args.seed, number, width, version).run()
                changes += count
            except SqlError as error:
                wrong = [str(error)]
            cases += 1
            if wrong:
                wrong.insert(0, f"exact.py --seed {args.seed} --only {number}")
            if args.only is not None:
                break
            number += 1
        ok = not wrong and (changes > 0 or args.only is not None)
        failed += not ok
        print(f"{'ok' if ok else 'not ok'} {test} - {name}: {cases} models, {changes} changes")
        for line in wrong:
            print("# " + line.replace("\n", "\n# "))
        sys.stdout.flush()
        if wrong:
            # What the case has left behind must not be in the way of the next.
            session.query("SELECT retl.drop_model(name, cascade => true) FROM retl.models")
    print(f"1..{len(WIDTHS)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
