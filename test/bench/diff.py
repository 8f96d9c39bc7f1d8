"""make bench-diff: what a snapshot costs, as ratios to what PostgreSQL needs for the same table in the same run.

A table of ROWS rows (default 2,000,000) of 12 columns is churned (1 % updated, 0.1 % added, 0.1 % deleted) before each
of twenty snapshots; medians are of snapshots 11 to 20. Compared with: a scan that hashes every row, EXCEPT both ways on
full rows, and CREATE TABLE AS with its unique index.
"""
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench  # noqa: E402
from bench import harness  # noqa: E402

ROWS = int(os.environ.get("ROWS", 2_000_000))
ROUNDS = int(os.environ.get("ROUNDS", 20))

TABLE = """
CREATE TABLE wide (id bigint NOT NULL, email text, name text, balance numeric(12, 2), created_at timestamptz,
  updated_at timestamptz, attributes jsonb, tags text[], active boolean, score int, segment text, visits int);
INSERT INTO wide
SELECT i, 'user' || i || '@example.com', 'Name ' || i % 9973, (i % 1000000) / 7.0,
       '2020-01-01 00:00+00'::timestamptz + i * interval '17 seconds', '2024-01-01 00:00+00'::timestamptz + i * interval '1 second',
       jsonb_build_object('plan', (ARRAY['free', 'pro', 'team'])[1 + i % 3], 'seats', i % 50),
       ARRAY['t' || i % 7, 't' || i % 11], i % 3 = 0, i % 1000, 'segment ' || i % 20, i % 777
  FROM generate_series(1, :rows) i;
ALTER TABLE wide ADD PRIMARY KEY (id);
VACUUM (ANALYZE, FREEZE) wide;
"""

COLUMNS = "id, email, name, balance, created_at, updated_at, attributes, tags, active, score, segment, visits"
HASH_SCAN = f"SELECT sum(retl.row_hash({COLUMNS})) FROM wide"


def timed(server, sql):
    began = time.monotonic()
    server.psql(sql)
    return time.monotonic() - began


def snapshot(server, mapping="wide"):
    """Syncs, and returns the seconds of the snapshot that served it."""
    run = server.value(f"SELECT retl.sync('{mapping}')")
    while True:
        status, finished, seconds, error = server.value(
            "SELECT status, finished_at IS NOT NULL, snapshot_seconds, coalesce(error, '')"
            f" FROM retl.runs WHERE id = {run}").split("|", 3)
        if status in ("failed", "held", "canceled", "partial"):
            raise harness.Failure(f"run {run}: {status} {error}\n{server.tail()}")
        if finished == "t":
            return float(seconds)
        time.sleep(0.05)


def churn(server, number):
    server.psql(f"""
UPDATE wide SET visits = visits + 1 WHERE id % 100 = {number % 100};
DELETE FROM wide WHERE id % 1000 = {(number * 7) % 1000};
INSERT INTO wide SELECT i, 'new' || i, 'New', 1, now(), now(), '{{}}', '{{}}', true, 0, 'new', {number}
  FROM generate_series(10000000 + {number} * 1000000, 10000000 + {number} * 1000000 + {ROWS} / 1000 - 1) i;
""")


def program():
    with harness.Workplace("bench-diff", keep=bool(os.environ.get("KEEP"))) as place:
        place.build("demo")
        url = bench.start_nginx(place)
        server = harness.Server(place, "data", bench.SETTINGS, durable=True).start()
        print(f"{place.pg.version_text}; {ROWS:,} rows of 12 columns", flush=True)
        server.psql(TABLE, variables={"rows": ROWS})
        print("table: " + server.value("SELECT pg_size_pretty(pg_table_size('wide'))"))
        server.psql(f"""
SET client_min_messages = warning;
CREATE EXTENSION retl;
SELECT retl.create_model('wide', 'wide', '{{id}}');
SELECT retl.create_destination('sink', 'webhook', '{{"url": "{url}/read"}}');
SELECT retl.create_mapping('wide', 'wide', 'sink', 'send', '{{}}', records => '{{deleted}}', batch_size => 1000,
  enabled => true, max_delete_percent => 100);
""")
        serial = "SET max_parallel_workers_per_gather = 0; "
        hash_scan = statistics.median(timed(server, serial + HASH_SCAN) for _ in range(5))
        hash_parallel = statistics.median(timed(server, HASH_SCAN) for _ in range(5))
        ctas = timed(server, "CREATE TABLE copy AS SELECT * FROM wide; CREATE UNIQUE INDEX ON copy (id)")
        first = snapshot(server)
        print(f"hash scan                     {hash_scan:7.2f} s   ({hash_parallel:.2f} s with parallel workers)")
        print(f"CREATE TABLE AS, unique index {ctas:7.2f} s")
        print(f"first snapshot                {first:7.2f} s   {first / ctas:5.2f} x CREATE TABLE AS (goal: 1.5 at most)", flush=True)

        steady = []
        for number in range(1, ROUNDS + 1):
            churn(server, number)
            steady.append(snapshot(server))
        churn(server, ROUNDS + 1)
        steady_median = statistics.median(steady[len(steady) // 2:])
        except_both = timed(server, serial + """SELECT count(*) FROM ((TABLE wide EXCEPT TABLE copy) UNION ALL
          (TABLE copy EXCEPT TABLE wide)) d""")
        snapshot(server)
        nothing = statistics.median(snapshot(server) for _ in range(5))
        hash_now = statistics.median(timed(server, serial + HASH_SCAN) for _ in range(5))
        print(f"hash scan, churned            {hash_now:7.2f} s")
        print(f"EXCEPT both ways              {except_both:7.2f} s")
        print(f"steady snapshot, median       {steady_median:7.2f} s   {steady_median / hash_now:5.2f} x hash scan (goal: 5 at most), "
              f"{except_both / steady_median:.1f} x faster than EXCEPT (goal: 8 at least)")
        print(f"nothing changed, median       {nothing:7.2f} s   {nothing / hash_now:5.2f} x hash scan (goal: 4 at most)", flush=True)
        print(f"vacuum of the checkpoint      {timed(server, 'VACUUM retl_data.checkpoint_1'):7.2f} s")

        for number in range(2, 11):
            server.psql(f"SELECT retl.create_mapping('wide {number}', 'wide', 'sink', 'send', '{{}}', records => '{{deleted}}',"
                        " batch_size => 1000, enabled => true, max_delete_percent => 100)")
        server.psql("SELECT retl.sync_model('wide')")
        while server.value("SELECT count(*) FROM retl.runs WHERE finished_at IS NULL") != "0":
            time.sleep(0.1)
        many = []
        executed = int(server.value("SELECT max(seq) FROM retl.snapshot"))
        for number in range(ROUNDS + 2, ROUNDS + 7):
            churn(server, number)
            server.psql("SELECT retl.sync_model('wide')")
            while server.value("SELECT count(*) FROM retl.runs WHERE finished_at IS NULL") != "0":
                time.sleep(0.05)
            many.append(float(server.value("SELECT snapshot_seconds FROM retl.runs ORDER BY id DESC LIMIT 1")))
        executed = int(server.value("SELECT max(seq) FROM retl.snapshot")) - executed
        print(f"ten mappings, median          {statistics.median(many):7.2f} s   {statistics.median(many) / steady_median:5.2f} x one mapping"
              f" (goal: 1.2 at most); {executed} executions of the model for 5 rounds of 10 syncs")

        server.psql("""SELECT retl.create_model('sums', 'SELECT segment, score % 100 AS band, count(*), sum(balance), max(updated_at),'
          ' count(DISTINCT name) AS names FROM wide WHERE attributes->>''plan'' <> ''none'' GROUP BY 1, 2', '{segment,band}')""")
        server.psql("SELECT retl.create_mapping('sums', 'sums', 'sink', 'send', '{}', records => '{deleted}', enabled => true,"
                    " max_delete_percent => 100)")
        parallel = {}
        for workers in (0, 2):
            server.psql(f"ALTER SYSTEM SET max_parallel_workers_per_gather = {workers}; SELECT pg_reload_conf()")
            snapshot(server, "sums")
            parallel[workers] = statistics.median(snapshot(server, "sums") for _ in range(5))
        print(f"a grouping model              {parallel[0]:7.2f} s   {parallel[2]:.2f} s with two parallel workers:"
              f" {parallel[0] / parallel[2]:.2f} x as fast")
        server.stop()
    return 0


if __name__ == "__main__":
    harness.main(program)
