"""Many sessions at once, for test/t/100_concurrency.pl.

    storm.py --host DIR --port N --url RECEIVER --seconds S --seed N [--sessions N] [--builders N]

Sessions create, alter, sync, cancel, enable, disable and drop models,
destinations and mappings at random; builders do as dbt does: build a table,
swap it in by renaming, enqueue a sync before they commit, and sometimes roll
back. In the middle a database is dropped, and the extension in another.
Prints one JSON object with what the test asserts.

Statements are drawn from generators that are seeded one by one from the seed:
each session's statements are the same in each run, their interleaving is not.
Speaks to the server through libpq itself, by ctypes: the test needs no driver.
"""
import argparse
import collections
import ctypes
import ctypes.util
import json
import random
import threading
import time

libpq = ctypes.CDLL("libpq.so.5")
for function, result in (("PQconnectdb", ctypes.c_void_p), ("PQexec", ctypes.c_void_p), ("PQgetvalue", ctypes.c_char_p),
                         ("PQresultErrorField", ctypes.c_char_p), ("PQerrorMessage", ctypes.c_char_p)):
    getattr(libpq, function).restype = result
NOTICES = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)(lambda arg, text: None)

MODELS, DESTINATIONS, MAPPINGS, TABLES = 10, 5, 20, 8

# What a statement may fail with: its object is absent, exists, is disabled, is in use by a mapping, or was dropped
# between two looks.
EXPECTED = {"42704", "42710", "55000", "2BP01", "22023", "0A000", "42P01", "40001", "42703"}


class Failure(Exception):
    def __init__(self, sqlstate, message):
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate


class Session:
    def __init__(self, options, database, user="storm"):
        text = f"host={options.host} port={options.port} dbname={database} user={user} application_name=storm"
        self.connection = ctypes.c_void_p(libpq.PQconnectdb(text.encode()))
        if libpq.PQstatus(self.connection) != 0:
            raise Failure("08006", libpq.PQerrorMessage(self.connection).decode())
        libpq.PQsetNoticeProcessor(self.connection, NOTICES, None)

    def run(self, sql):
        result = ctypes.c_void_p(libpq.PQexec(self.connection, sql.encode()))
        try:
            if libpq.PQresultStatus(result) not in (1, 2):
                state = libpq.PQresultErrorField(result, ord("C"))
                raise Failure(state.decode() if state else "08006", libpq.PQerrorMessage(self.connection).decode().strip())
            return [[libpq.PQgetvalue(result, r, c).decode() for c in range(libpq.PQnfields(result))]
                    for r in range(libpq.PQntuples(result))]
        finally:
            libpq.PQclear(result)

    def value(self, sql):
        return self.run(sql)[0][0]

    def close(self):
        libpq.PQfinish(self.connection)


class Storm:
    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.runs = set()           # of committed transactions
        self.recent = collections.deque(maxlen=30)
        self.counts = collections.Counter()
        self.unexpected = []
        self.until = 0
        self.slowest = 0

    def note_runs(self, ids):
        with self.lock:
            self.runs.update(ids)
            self.recent.extend(ids)

    def note_failure(self, failure, sql, expected):
        with self.lock:
            self.counts[failure.sqlstate] += 1
            if failure.sqlstate not in expected:
                self.unexpected.append(f"{failure} in: {sql}"[:600])

    def setup(self):
        admin = Session(self.options, "postgres", "postgres")
        admin.run("CREATE ROLE storm LOGIN; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO storm")
        admin.run("CREATE SCHEMA w AUTHORIZATION storm")
        admin.run("ALTER ROLE storm SET deadlock_timeout = '1s'")
        for database in ("gone", "bare"):
            admin.run(f"CREATE DATABASE {database}")
            other = Session(self.options, database, "postgres")
            other.run("CREATE EXTENSION retl")
            other.run("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 1000) i")
            other.run("SELECT retl.create_model('m', 't', '{id}')")
            other.run(f"SELECT retl.create_destination('d', 'webhook', '{{\"url\": \"{self.options.url}/{database}\"}}')")
            other.run("SELECT retl.create_mapping('x', 'm', 'd', 'send', '{\"data\": {\"@path\": \"$.properties\"}}', enabled => true, batch_size => 1)")
            other.run("SELECT retl.sync('x')")
            other.close()
        admin.close()
        app = Session(self.options, "postgres")
        for i in range(TABLES):
            app.run(f"CREATE TABLE w.src_{i} (id int PRIMARY KEY, v int NOT NULL, val text)")
            app.run(f"INSERT INTO w.src_{i} SELECT i, 1, 'r' || i FROM generate_series(1, 40) i")
        for i in range(MODELS):
            app.run(self.create_model(i, random.Random(i), ""))
        for i in range(DESTINATIONS):
            app.run(self.create_destination(i, ""))
        for i in range(MAPPINGS):
            app.run(self.create_mapping(i, random.Random(i), ""))
        app.close()

    # Mapping x reads model x % MODELS and sends to destination x % DESTINATIONS: what it is of never changes, so that
    # or_replace can alter it.
    def create_model(self, i, rng, more):
        table = f"w.src_{i % TABLES}"
        query = table if i % 2 else f"SELECT * FROM {table}"
        if rng.random() < 0.2:
            query = f"SELECT id, v, val FROM {table} WHERE id >= 0"
        return f"SELECT retl.create_model('m{i}', '{query}', '{{id}}'{more})"

    def create_destination(self, i, more):
        return f"SELECT retl.create_destination('d{i}', 'webhook', '{{\"url\": \"{self.options.url}/d{i}\"}}'{more})"

    def create_mapping(self, i, rng, more):
        fields = {"data": {"mapping": f"x{i}", "key": {"@path": "$.__segment_id"}, "op": {"@path": "$.event"},
                           "row": {"@path": "$.properties"}}}
        if rng.random() < 0.3:
            fields["data"]["loud"] = {"@sql": "upper(val)"}
        size = rng.choice([1, 7, 50])
        return (f"SELECT retl.create_mapping('x{i}', 'm{i % MODELS}', 'd{i % DESTINATIONS}', 'send', '{json.dumps(fields)}',"
                f" records => '{{added,updated,deleted}}', enabled => true, batch_size => {size}, max_delete_percent => 100,"
                f" max_change_percent => 100{more})")

    def statement(self, rng):
        model, destination, mapping = (rng.randrange(n) for n in (MODELS, DESTINATIONS, MAPPINGS))
        table, key = rng.randrange(TABLES), rng.randrange(1, 60)
        run = self.recent[rng.randrange(len(self.recent))] if self.recent else 1
        yes = rng.choice(["true", "false"])
        choices = [
            (30, f"SELECT retl.sync('x{mapping}')"),
            (8, f"SELECT retl.sync_model('m{model}')"),
            (3, f"SELECT retl.retry_failed('x{mapping}')"),
            (2, f"SELECT retl.reset_mapping('x{mapping}', baseline => false)"),
            (2, f"SELECT retl.resync_keys('x{mapping}', '[{key}]')"),
            (2, f"SELECT retl.replay_run({run})"),
            (8, f"SELECT retl.cancel_run({run})"),
            (2, f"SELECT retl.release_run({run})"),
            (20, f"INSERT INTO w.src_{table} VALUES ({key}, 1, 'n{key}') ON CONFLICT (id) DO UPDATE SET v = src_{table}.v + 1"),
            (5, f"DELETE FROM w.src_{table} WHERE id = {key}"),
            (6, self.create_model(model, rng, ", or_replace => true")),
            (1, self.create_model(model, rng, "")),
            (5, self.create_destination(destination, f", or_replace => true, enabled => {rng.choice(['true', 'true', 'false'])}")),
            (10, self.create_mapping(mapping, rng, ", or_replace => true")),
            (1, self.create_mapping(mapping, rng, "")),
            (3, f"SELECT retl.disable_mapping('x{mapping}')"),
            (5, f"SELECT retl.enable_mapping('x{mapping}')"),
            (1, f"SELECT retl.disable_destination('d{destination}')"),
            (4, f"SELECT retl.enable_destination('d{destination}')"),
            (1, f"SELECT retl.disable_model('m{model}')"),
            (4, f"SELECT retl.enable_model('m{model}')"),
            (2, f"SELECT retl.drop_mapping('x{mapping}', if_exists => {yes})"),
            (1, f"SELECT retl.drop_model('m{model}', cascade => {yes})"),
            (1, f"SELECT retl.drop_destination('d{destination}', cascade => {yes})"),
            (2, f"BEGIN; SELECT retl.disable_mapping('x{mapping}'); SELECT retl.drop_mapping('x{mapping}'); COMMIT"),
            (2, f"BEGIN; SELECT retl.disable_mapping('x{mapping}'); SELECT pg_sleep(0.3); ROLLBACK"),
            (2, f"BEGIN; SELECT retl.disable_mapping('x{mapping}'); SELECT retl.enable_mapping('x{mapping}'); COMMIT"),
            (2, f"SELECT count(*) FROM retl.runs, retl.mappings"),
            (2, f"SELECT retl.preview_model('m{model}')"),
        ]
        return rng.choices([sql for _, sql in choices], [weight for weight, _ in choices])[0]

    def session(self, number):
        rng = random.Random(f"{self.options.seed}/{number}")
        session = Session(self.options, "postgres")
        while time.monotonic() < self.until:
            sql = self.statement(rng)
            enqueues = sql.startswith(("SELECT retl.sync", "SELECT retl.retry", "SELECT retl.resync"))
            started = time.monotonic()
            try:
                session.run(f"SET lock_timeout = '{'500ms' if enqueues else '30s'}'")
                ids = [int(row[0]) for row in session.run(sql) if row]  if sql.startswith("SELECT retl.re") or enqueues else session.run(sql) and []
                if "release_run" not in sql:
                    self.note_runs(ids)
            except Failure as failure:
                if sql.startswith("BEGIN"):
                    session.run("ROLLBACK")
                self.note_failure(failure, sql, EXPECTED)
            with self.lock:
                self.counts["statements"] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
        session.close()

    def builder(self, number):
        """As dbt: a table of its own, swapped in by renaming; the sync is asked for before the commit."""
        rng = random.Random(f"{self.options.seed}/builder {number}")
        session = Session(self.options, "postgres")
        table = number % TABLES
        while time.monotonic() < self.until:
            sql = "?"
            try:
                for sql in ("BEGIN", f"DROP TABLE IF EXISTS w.src_{table}__new",
                            f"CREATE TABLE w.src_{table}__new AS SELECT id, v + 1 AS v, val FROM w.src_{table} WHERE random() < 0.9"
                            f" UNION SELECT i, 1, 'b' || i FROM generate_series(100, {100 + rng.randrange(40)}) i",
                            f"DELETE FROM w.src_{table}__new a USING w.src_{table}__new b WHERE a.id = b.id AND a.ctid < b.ctid",
                            f"ALTER TABLE w.src_{table}__new ADD PRIMARY KEY (id)",
                            f"ALTER TABLE w.src_{table} RENAME TO src_{table}__old",
                            f"ALTER TABLE w.src_{table}__new RENAME TO src_{table}"):
                    session.run(sql)
                sql = f"SELECT retl.sync_model('w.src_{table}', missing_ok => true)"
                session.run("SET LOCAL lock_timeout = '500ms'")
                ids = [int(row[0]) for row in session.run(sql)]
                session.run(f"SET LOCAL lock_timeout = 0; DROP TABLE w.src_{table}__old")
                if rng.random() < 0.2:
                    session.run("ROLLBACK")
                    with self.lock:
                        self.counts["rolled back"] += 1
                else:
                    session.run("COMMIT")
                    self.note_runs(ids)
                    with self.lock:
                        self.counts["built"] += 1
            except Failure as failure:
                session.run("ROLLBACK")
                # others drop models meanwhile; what must not be is a wait, a deadlock, or an internal error
                self.note_failure(failure, sql, EXPECTED)
        session.close()

    def drops(self):
        """In the midst: a database is dropped, and the extension in another."""
        took = {}
        time_left = self.until - time.monotonic()
        threading.Event().wait(time_left / 2)
        for name, database, sql in (("DROP DATABASE", "postgres", "DROP DATABASE gone"),
                                    ("DROP EXTENSION", "bare", "DROP EXTENSION retl CASCADE")):
            session = Session(self.options, database, "postgres")
            started = time.monotonic()
            try:
                session.run(sql)
                took[name] = time.monotonic() - started
            except Failure as failure:
                took[name] = str(failure)
            session.close()
        self.took = took

    def guarded(self, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            with self.lock:
                self.unexpected.append(f"{function.__name__} {arguments}: {error!r}")

    def run(self):
        self.setup()
        self.took = {}
        self.until = time.monotonic() + self.options.seconds
        threads = [threading.Thread(target=self.guarded, args=(self.session, n)) for n in range(self.options.sessions)]
        threads += [threading.Thread(target=self.guarded, args=(self.builder, n)) for n in range(self.options.builders)]
        threads.append(threading.Thread(target=self.guarded, args=(self.drops,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"runs": sorted(self.runs), "counts": self.counts, "unexpected": self.unexpected, "took": self.took,
                "slowest": round(self.slowest, 2)}


def main():
    parser = argparse.ArgumentParser()
    for name, kind, default in (("host", str, None), ("port", int, None), ("url", str, None), ("seconds", float, 25),
                                ("seed", int, 1), ("sessions", int, 50), ("builders", int, 8)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    print(json.dumps(Storm(parser.parse_args()).run()))


if __name__ == "__main__":
    main()
