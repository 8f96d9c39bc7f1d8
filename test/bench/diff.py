"""make bench-diff: what a snapshot costs, as ratios to what PostgreSQL needs for the same table in the same run.

A table (CASE=narrow: 2,000,000 rows of 12 columns; CASE=wide: 200,000 rows of 60 columns with 2 kB of jsonb; ROWS=n for
another number) is churned (1 % updated, 0.1 % added, 0.1 % deleted) before each of twenty snapshots; medians are of
snapshots 11 to 20. Compared with: a scan that hashes every row, EXCEPT both ways on full rows, and CREATE TABLE AS with
its unique index. Each figure that has a goal says whether it is met.
"""
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402

CASE = os.environ.get("CASE", "narrow")
ROWS = int(os.environ.get("ROWS", 2_000_000 if CASE == "narrow" else 200_000))
ROUNDS = int(os.environ.get("ROUNDS", 20))

WORK_MEM = 32                   # MB
SETTINGS = [
    "retl.allowed_private_networks = '127.0.0.0/8'",
    "shared_buffers = 1GB",
    "maintenance_work_mem = 256MB",
    f"work_mem = {WORK_MEM}MB",
    "max_wal_size = 8GB",
    "checkpoint_timeout = 15min",
    "jit = off",
]

NARROW = """
CREATE TABLE wide (id bigint NOT NULL, email text, name text, balance numeric(12, 2), created_at timestamptz,
  updated_at timestamptz, attributes jsonb, tags text[], active boolean, score int, segment text, visits int);
INSERT INTO wide
SELECT i, 'user' || i || '@example.com', 'Name ' || i % 9973, (i % 1000000) / 7.0,
       '2020-01-01 00:00+00'::timestamptz + i * interval '17 seconds', '2024-01-01 00:00+00'::timestamptz + i * interval '1 second',
       jsonb_build_object('plan', (ARRAY['free', 'pro', 'team'])[1 + i % 3], 'seats', i % 50),
       ARRAY['t' || i % 7, 't' || i % 11], i % 3 = 0, i % 1000, 'segment ' || i % 20, i % 777
  FROM generate_series(1, :rows) i;
"""
# What the columns c1 to c56 hold, in turn.
KINDS = [("text", "'value ' || i % {n}97"), ("int", "i % {n}7"), ("numeric(14, 4)", "i / {n}.0"), ("boolean", "i % {n} = 0"),
         ("timestamptz", "'2020-01-01 00:00+00'::timestamptz + i * interval '{n} seconds'"), ("date", "'2020-01-01'::date + i % {n}000"),
         ("double precision", "sqrt(i * {n})")]


def table():
    """SQL that makes and fills the table, and the names of its columns."""
    finish = "ALTER TABLE wide ADD PRIMARY KEY (id);\nVACUUM (ANALYZE, FREEZE) wide;\n"
    if CASE == "narrow":
        return NARROW + finish, ["id", "email", "name", "balance", "created_at", "updated_at", "attributes", "tags", "active", "score",
                                 "segment", "visits"]
    if CASE != "wide":
        raise harness.Failure(f"CASE is narrow or wide, not {CASE}")
    columns = [(f"c{n}", *KINDS[n % len(KINDS)]) for n in range(1, 57)]
    document = "(SELECT jsonb_object_agg('key' || k, md5((i * k)::text)) FROM generate_series(1, 45) k)"
    create = ", ".join(f"{name} {kind}" for name, kind, _ in columns)
    values = ", ".join(value.format(n=int(name[1:])) for name, _, value in columns)
    return (f"CREATE TABLE wide (id bigint NOT NULL, {create}, attributes jsonb, score int, visits int);\n"
            f"INSERT INTO wide SELECT i, {values}, {document}, i % 1000, i % 777 FROM generate_series(1, :rows) i;\n{finish}",
            ["id", *[name for name, _, _ in columns], "attributes", "score", "visits"])


class Memory(threading.Thread):
    """Peak of what the snapshot worker and its parallel workers have for their own."""

    def __init__(self, postmaster):
        super().__init__(daemon=True)
        self.postmaster = postmaster
        self.peak = 0
        self.workers = 0
        self.start()

    def run(self):
        while True:
            total, workers = 0, 0
            for pid in harness.children_of(self.postmaster):
                try:
                    with open(f"/proc/{pid}/cmdline") as file:
                        title = file.read().replace("\0", " ")
                    if "retl snapshot worker" not in title and "parallel worker" not in title:
                        continue
                    workers += "parallel worker" in title
                    with open(f"/proc/{pid}/status") as file:
                        # Shared buffers that it touched are not its own.
                        total += next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
                except (OSError, StopIteration):
                    continue
            self.peak = max(self.peak, total // 1024)
            self.workers = max(self.workers, workers)
            time.sleep(0.02)


def figure(what, value, goal=None, at_least=False, unit="s", more=""):
    """One line; a goal is a number and what the value is relative to, or None."""
    line = f"{what:<34}{value:9.2f} {unit}"
    if goal is not None:
        ratio, limit, relative = goal
        met = ratio >= limit if at_least else ratio <= limit
        line += f"   {ratio:6.2f} {relative} (goal: {limit} at {'least' if at_least else 'most'}): {'ok' if met else 'OVER'}"
    print(line + more, flush=True)


class Bench:
    def __init__(self, place):
        self.server = harness.Server(place, "data", SETTINGS, durable=True).start()
        self.create, self.columns = table()
        self.hash_sql = f"SELECT sum(retl.row_hash({', '.join(self.columns)})) FROM wide"
        self.new_rows = 0
        self.round = 0

    def set(self, name, value):
        self.server.psql(f"ALTER SYSTEM SET {name} = {value}; SELECT pg_reload_conf()")

    def timed(self, sql, settings="SET max_parallel_workers_per_gather = 0; "):
        began = time.monotonic()
        self.server.psql(settings + sql)
        return time.monotonic() - began

    def hash_scan(self, settings="SET max_parallel_workers_per_gather = 0; "):
        return statistics.median(self.timed(self.hash_sql, settings) for _ in range(5))

    def wait(self):
        while self.server.value("SELECT count(*) FROM retl.runs WHERE finished_at IS NULL") != "0":
            time.sleep(0.02)
        wrong = self.server.value("SELECT string_agg(DISTINCT status || coalesce(' ' || error, ''), ', ') FROM retl.runs"
                                  " WHERE status NOT IN ('succeeded')")
        if wrong:
            raise harness.Failure(f"runs: {wrong}\n{self.server.tail()}")

    def snapshot(self, model="wide", mapping=None):
        """Syncs all mappings of a model, or one, and returns the seconds of the snapshot that served them."""
        self.server.psql(f"SELECT retl.sync('{mapping}')" if mapping else f"SELECT retl.sync_model('{model}')")
        self.wait()
        return float(self.server.value("SELECT snapshot_seconds FROM retl.runs ORDER BY id DESC LIMIT 1"))

    def mapping(self, name, model="wide"):
        self.server.psql(f"SELECT retl.create_mapping('{name}', '{model}', 'sink', 'send', '{{}}', records => '{{deleted}}',"
                         " batch_size => 1000, enabled => true, max_delete_percent => 100)")

    def churn(self):
        self.round += 1
        others = ", ".join("NULL" for _ in self.columns[1:-1])
        self.server.psql(f"""
UPDATE wide SET visits = visits + 1 WHERE id % 100 = {self.round % 100};
DELETE FROM wide WHERE id % 1000 = {(self.round * 7) % 1000};
INSERT INTO wide SELECT i, {others}, {self.round} FROM generate_series(1000000000 + {self.new_rows}, 1000000000 + {self.new_rows + ROWS // 1000 - 1}) i;
""")
        self.new_rows += ROWS // 1000

    def first(self):
        """First snapshots, each of a new model, and as often what they are compared with."""
        copies, firsts = [], []
        for number in range(3):
            self.server.psql("DROP TABLE IF EXISTS copy; CHECKPOINT")
            copies.append(self.timed("CREATE TABLE copy AS SELECT * FROM wide; CREATE UNIQUE INDEX ON copy (id)", ""))
            self.server.psql("SELECT retl.drop_model(name, cascade => true) FROM retl.models; CHECKPOINT;"
                             f" SELECT retl.create_model('wide', 'wide', '{{id}}', max_skip => '0')")
            self.mapping("wide")
            firsts.append(self.snapshot())
        self.table = "retl_data.checkpoint_" + self.server.value("SELECT id FROM retl.model")
        return statistics.median(copies), statistics.median(firsts)

    def run(self):
        server = self.server
        server.psql(self.create, variables={"rows": ROWS})
        print("table: " + server.value("SELECT pg_size_pretty(pg_table_size('wide'))"), flush=True)
        server.psql("SET client_min_messages = warning; CREATE EXTENSION retl")
        server.psql(f"SELECT retl.create_destination('sink', 'webhook', '{{\"url\": \"{self.url}/read\"}}')")
        memory = Memory(server.process.pid)

        figure("hash scan", self.hash_scan())
        copy, first = self.first()
        figure("CREATE TABLE AS, unique index", copy)
        figure("first snapshot", first, (first / copy, 1.5, "x CREATE TABLE AS"))

        steady, vacuums = [], []
        for _ in range(ROUNDS):
            self.churn()
            steady.append(self.snapshot())
        self.churn()
        steady = statistics.median(steady[len(steady) // 2:])
        both = self.timed("SELECT count(*) FROM ((TABLE wide EXCEPT TABLE copy) UNION ALL (TABLE copy EXCEPT TABLE wide)) d") \
            if CASE == "narrow" and ROWS <= 2_000_000 else None
        self.snapshot()
        vacuums.append(self.timed(f"VACUUM {self.table}"))
        nothing = statistics.median(self.snapshot() for _ in range(5))
        scan = self.hash_scan()
        figure("hash scan, churned", scan)
        figure("steady snapshot, median", steady, (steady / scan, 5, "x hash scan"))
        if both is not None:
            figure("EXCEPT both ways", both, (both / steady, 8, "x steady snapshot"), at_least=True)
        figure("nothing changed, median", nothing, (nothing / scan, 4, "x hash scan"))
        figure("vacuum of the checkpoint", vacuums[0])
        limit = 256 + WORK_MEM * 2 * (1 + memory.workers)
        figure("memory of the worker, peak", memory.peak, (memory.peak, limit, "MB"), unit="MB", more=f"; {memory.workers} parallel workers")
        self.parallel()
        self.many()

    def parallel(self):
        """What parallel workers are worth: the same snapshots with and without."""
        for what, model, sql in (("nothing changed", "wide", None), ("a grouping model", "sums",
                                 "SELECT score % 100 AS band, visits, count(*), sum(id), max(attributes::text) AS most FROM wide GROUP BY 1, 2")):
            if sql:
                self.server.psql(f"SELECT retl.create_model('{model}', '{sql}', '{{band,visits}}', max_skip => '0')")
                self.mapping(model, model)
            seconds = {0: [], 2: []}
            for _ in range(5):
                for workers in seconds:
                    self.set("max_parallel_workers_per_gather", workers)
                    seconds[workers].append(self.snapshot(model))
            none, two = (statistics.median(seconds[workers]) for workers in (0, 2))
            figure(f"{what}, no parallel workers", none)
            figure(f"{what}, two", two, more=f"   {none / two:6.2f} x as fast")
        self.server.psql("SELECT retl.drop_model('sums', cascade => true)")

    def many(self):
        """One mapping due and ten in turn, as other work on the machine changes what a second is worth."""
        for number in range(2, 11):
            self.mapping(f"wide {number}")
        self.snapshot()
        seconds = {1: [], 10: []}
        executed = 0
        for _ in range(7):
            for mappings in seconds:
                before = int(self.server.value("SELECT max(seq) FROM retl.snapshot"))
                self.churn()
                seconds[mappings].append(self.snapshot(mapping="wide" if mappings == 1 else None))
                if mappings == 10:
                    executed += int(self.server.value("SELECT max(seq) FROM retl.snapshot")) - before
        one, ten = (statistics.median(seconds[mappings]) for mappings in (1, 10))
        figure("one mapping of ten due, median", one)
        figure("ten mappings due, median", ten, (ten / one, 1.2, "x one mapping"))
        figure("executions for 7 x 10 syncs", executed, (executed, 7, "executions"), unit=" ")


def program():
    with harness.Workplace("bench-diff", keep=bool(os.environ.get("KEEP"))) as place:
        place.build("demo")
        bench = Bench(place)
        bench.url = harness.Receiver(place).url
        print(f"{place.pg.version_text}; {CASE}, {ROWS:,} rows of {len(bench.columns)} columns; load {os.getloadavg()[0]:.2f}", flush=True)
        bench.run()
        print(f"load {os.getloadavg()[0]:.2f}")
        bench.server.stop()
    return 0


if __name__ == "__main__":
    harness.main(program)
