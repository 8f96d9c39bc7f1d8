"""make bench: a first sync and a sync of 1 % changes of a million rows, to a packaged nginx.

Prints seconds for each phase, rows a second, peak memory of each worker and WAL for each row. The figures are this
machine's; the time of a COPY of the same rows, taken in the same run, is there to compare with.
"""
import os
import socket
import sys
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import harness  # noqa: E402

BENCH = os.path.dirname(os.path.abspath(__file__))
ROWS = int(os.environ.get("ROWS", 1_000_000))
BATCH = int(os.environ.get("BATCH", 100))
PATH = os.environ.get("SINK", "/read")

SETTINGS = [
    "retl.allowed_private_networks = '127.0.0.0/8'",
    "shared_buffers = 1GB",
    "maintenance_work_mem = 256MB",
    "work_mem = 32MB",
    "max_wal_size = 8GB",
    "checkpoint_timeout = 15min",
    "wal_compression = on",
    "jit = off",
]

COLUMNS = ("id", "email", "name", "balance", "created_at", "updated_at", "attributes", "tags", "active", "score", "segment",
           "note")


class Memory(threading.Thread):
    """Peak resident memory of the workers, by kind."""

    def __init__(self, postmaster):
        super().__init__(daemon=True)
        self.postmaster = postmaster
        self.peak = {}
        self.over = False

    def run(self):
        while not self.over:
            for pid in harness.children_of(self.postmaster):
                try:
                    with open(f"/proc/{pid}/cmdline") as file:
                        title = file.read().replace("\0", " ")
                    if "retl" not in title:
                        continue
                    kind = next((kind for kind in ("snapshot", "delivery", "launcher") if kind in title), "other")
                    with open(f"/proc/{pid}/status") as file:
                        status = dict(line.split(":", 1) for line in file)
                    # Shared buffers that it touched are not its own.
                    own = int(status["RssAnon"].split()[0])
                    high = int(status["VmHWM"].split()[0])
                    seen = self.peak.get(kind, (0, 0))
                    self.peak[kind] = (max(seen[0], high), max(seen[1], own))
                except (OSError, KeyError, ValueError):
                    continue
            time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_nginx(place):
    port = free_port()
    directory = place.mkdir("nginx")
    with open(os.path.join(BENCH, "nginx.conf")) as file:
        conf = file.read().replace("DIR", directory).replace("PORT", str(port))
    with open(os.path.join(directory, "nginx.conf"), "w") as file:
        file.write(conf)
    nginx = place.spawn(["/usr/sbin/nginx", "-p", directory + "/", "-c", os.path.join(directory, "nginx.conf"),
                         "-e", os.path.join(directory, "nginx.err")])
    url = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + 10
    while True:
        try:
            opener.open(url + "/read", data=b"{}", timeout=5).read()
            return url
        except OSError:
            if nginx.poll() is not None or time.monotonic() > until:
                raise harness.Failure("nginx does not start: " + open(os.path.join(directory, "nginx.err")).read())
            time.sleep(0.05)


def sync(server, what, changed):
    before = server.value("SELECT pg_current_wal_lsn()")
    memory = Memory(server.process.pid)
    memory.start()
    began = time.monotonic()
    run = server.value("SELECT retl.sync('bench')")
    while True:
        status, finished, error = server.value(
            "SELECT status, finished_at IS NOT NULL, coalesce(error, '') FROM retl.runs WHERE id = " + run).split("|", 2)
        if finished == "t" or status == "held":
            break
        time.sleep(0.1)
    seconds = time.monotonic() - began
    memory.over = True
    memory.join()
    if status != "succeeded":
        raise harness.Failure(f"{what}: {status} {error}\n{server.tail()}")
    wal = int(server.value(f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')"))
    snapshot, plan, delivery, sent, requests = server.value(
        "SELECT round(snapshot_seconds::numeric, 2), round(plan_seconds::numeric, 2), round(delivery_seconds::numeric, 2), sent, "
        f"(SELECT count(*) FROM retl.batches b WHERE b.run = r.id) FROM retl.runs r WHERE id = {run}").split("|")
    if int(sent) != changed:
        raise harness.Failure(f"{what}: {sent} records sent, should be {changed}")
    print(f"\n{what}: {int(sent):,} records in {int(requests):,} requests")
    print(f"  seconds            {seconds:8.2f}   ({int(sent) / seconds:,.0f} records/s)")
    print(f"    snapshot         {float(snapshot):8.2f}   ({ROWS / max(float(snapshot), 0.01):,.0f} rows/s)")
    print(f"    plan             {float(plan):8.2f}   ({int(sent) / max(float(plan), 0.01):,.0f} records/s)")
    print(f"    delivery         {float(delivery or 0):8.2f}   (from the first request to the last answer; planning goes on meanwhile)")
    print(f"  WAL, bytes         {wal:8,d}   ({wal / max(int(sent), 1):,.0f} a record)")
    for kind, (high, own) in sorted(memory.peak.items()):
        print(f"  peak memory, {kind:9} {high / 1024:7.1f} MB (VmHWM, with shared buffers), {own / 1024:.1f} MB its own")
    sys.stdout.flush()


def program():
    with harness.Workplace("bench", keep=bool(os.environ.get("KEEP"))) as place:
        place.build("demo")
        url = start_nginx(place)
        server = harness.Server(place, "data", SETTINGS, durable=True).start()
        print(f"{place.pg.version_text}; {ROWS:,} rows of {len(COLUMNS)} columns, batches of {BATCH}, nginx{PATH}", flush=True)
        with open(os.path.join(BENCH, "table.sql")) as file:
            server.psql(file.read(), variables={"rows": ROWS})
        size = server.value("SELECT pg_size_pretty(pg_table_size('bench'))")
        began = time.monotonic()
        server.psql("COPY bench TO '/dev/null'")
        print(f"table: {size}; COPY of it: {time.monotonic() - began:.2f} s")

        fields = ", ".join(f'"{name}": {{"@path": "$.{name}"}}' for name in COLUMNS)
        server.psql(f"""
SET client_min_messages = warning;
CREATE EXTENSION retl;
SELECT retl.create_model('bench', 'bench', '{{id}}');
SELECT retl.create_destination('sink', 'webhook', settings => '{{"url": "{url}{PATH}"}}');
SELECT retl.create_mapping('bench', model => 'bench', destination => 'sink', action => 'send',
  fields => '{{"data": {{{fields}}}}}', batch_size => {BATCH}, enabled => true);
""")
        sync(server, "first sync", ROWS)
        changed = ROWS // 100
        server.psql(f"UPDATE bench SET score = score + 1, note = note || '.' WHERE id % 100 = 7; CHECKPOINT;")
        sync(server, "sync after 1 % of updates", changed)
        sync(server, "sync without a change", 0)
        server.stop()
    return 0


if __name__ == "__main__":
    harness.main(program)
