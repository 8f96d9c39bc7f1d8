"""make bench: a first sync and syncs of 1 % changes of a million rows, to a packaged nginx.

Prints seconds for each phase, rows a second, peak memory of each worker and WAL for each row. The figures are this
machine's; the time of a COPY of the same rows, taken in the same run, is there to compare with.

A checkpoint that was just made is read faster than one that lived through changes: so the changes come in ROUNDS, and
what is printed is the round with the median time among the later half.
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
ROUNDS = int(os.environ.get("ROUNDS", 12))
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
                    kind = next((kind for kind in ("snapshot", "delivery") if kind in title), None)
                    if kind is None:
                        continue
                    kind += " worker"
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
    """Returns its URL, and one for HTTP/2 over TLS where the place has sink.pem and sink.key (or None)."""
    port, tls = free_port(), None
    directory = place.mkdir("nginx")
    secure = ""
    if os.path.exists(place.path("sink.pem")):
        tls = free_port()
        secure = (f"listen 127.0.0.1:{tls} ssl http2 backlog=4096; ssl_certificate {place.path('sink.pem')};"
                  f" ssl_certificate_key {place.path('sink.key')};")
    with open(os.path.join(BENCH, "nginx.conf")) as file:
        conf = file.read().replace("DIR", directory).replace("PORT", str(port)).replace("TLS", secure)
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
            return url, f"https://127.0.0.1:{tls}" if tls else None
        except OSError:
            if nginx.poll() is not None or time.monotonic() > until:
                raise harness.Failure("nginx does not start: " + open(os.path.join(directory, "nginx.err")).read())
            time.sleep(0.05)


def sync(server, what, changed):
    """One sync; returns its figures."""
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
        time.sleep(0.05)
    seconds = time.monotonic() - began
    memory.over = True
    memory.join()
    if status != "succeeded":
        raise harness.Failure(f"{what}: {status} {error}\n{server.tail()}")
    figures = dict(zip(("snapshot", "plan", "delivery", "sent", "requests"), map(float, server.value(
        "SELECT snapshot_seconds, plan_seconds, coalesce(delivery_seconds, 0), sent, "
        f"(SELECT count(*) FROM retl.batches b WHERE b.run = r.id) FROM retl.runs r WHERE id = {run}").split("|"))))
    figures.update(what=what, seconds=seconds, memory=memory.peak,
                   wal=int(server.value(f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')")))
    if figures["sent"] != changed:
        raise harness.Failure(f"{what}: {figures['sent']} records sent, should be {changed}")
    return figures


def report(figures):
    sent = int(figures["sent"])

    def per_second(number, seconds):
        return f"{number / max(seconds, 0.001):12,.0f}"

    print(f"\n{figures['what']}: {sent:,} records in {int(figures['requests']):,} requests")
    print(f"  seconds      {figures['seconds']:8.2f} {per_second(sent, figures['seconds'])} records/s")
    print(f"    snapshot   {figures['snapshot']:8.2f} {per_second(ROWS, figures['snapshot'])} rows of the model/s")
    if sent:
        print(f"    plan       {figures['plan']:8.2f} {per_second(sent, figures['plan'])} records/s")
        print(f"    delivery   {figures['delivery']:8.2f} {per_second(sent, figures['delivery'])} records/s,"
              " from the first request to the last answer, while planning goes on")
    print(f"  WAL          {figures['wal'] / 1e6:8.1f} MB" + (f"{figures['wal'] / sent:10,.0f} bytes a record" if sent else ""))
    for kind, (high, own) in sorted(figures["memory"].items()):
        print(f"  peak memory  {high / 1024:8.1f} MB (VmHWM, with shared buffers), {own / 1024:.1f} MB its own: {kind}")
    sys.stdout.flush()


def program():
    with harness.Workplace("bench", keep=bool(os.environ.get("KEEP"))) as place:
        place.build("demo")
        url, _ = start_nginx(place)
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
        report(sync(server, "first sync", ROWS))
        rounds = []
        for number in range(1, ROUNDS + 1):
            server.psql(f"UPDATE bench SET score = score + 1, note = left(note, 90) || {number} WHERE id % 100 = {number * 7 % 100}")
            rounds.append(sync(server, f"sync after 1 % of updates, the {number}. of {ROUNDS}", ROWS // 100))
        print("\nseconds of each: " + ", ".join(f"{figures['seconds']:.2f}" for figures in rounds))
        later = sorted(rounds[len(rounds) // 2:], key=lambda figures: figures["seconds"])
        report(later[len(later) // 2])
        report(sync(server, "sync without a change", 0))
        server.stop()
    return 0


if __name__ == "__main__":
    harness.main(program)
