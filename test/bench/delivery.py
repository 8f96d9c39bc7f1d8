"""make bench-delivery: how fast requests go out, as ratios to libcurl alone (bare_multi.c) against the same sink in the same run.

PARTS="batches rows http2 delay latency hanging" selects. Each line says what was measured, the goal and whether it is met.
Figures of a machine that does other work at the same time say little: its load is printed beside them.
"""
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench  # noqa: E402
from bench import harness  # noqa: E402

ROWS = int(os.environ.get("ROWS", 500_000))
PARTS = os.environ.get("PARTS", "batches rows http2 delay latency hanging").split()
# Bodies of a batch are some 14 KB, of a row 1 KB.
SMALL, LARGE = 100, 980


def line(what, figure, goal, met):
    load = os.getloadavg()[0]
    print(f"{what:58} {figure:34} {goal:30} {'ok' if met else 'MISSED'}   (load {load:.1f})", flush=True)
    return met


class Session:
    """psql that stays connected."""

    def __init__(self, place, server):
        self.child = place.spawn([place.pg.program("psql"), "-X", "-q", "-A", "-t", "-h", server.socket, "-U", "postgres", "-d",
                                  "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)

    def value(self, sql):
        self.child.stdin.write(sql + ";\n\\echo ===\n")
        self.child.stdin.flush()
        said = []
        while True:
            got = self.child.stdout.readline()
            if got == "===\n":
                return "".join(said).rstrip("\n")
            if got == "" or "ERROR" in got:
                raise harness.Failure(f"psql: {sql}: {''.join(said)}{got}")
            said.append(got)


class Bench:
    def __init__(self, place):
        self.place = place
        self.good = True
        place.build("demo")
        self.certificate = place.path("sink.pem")
        place.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                   "/CN=sink", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", place.path("sink.key"), "-out", self.certificate])
        os.environ["SSL_CERT_FILE"] = place.env["SSL_CERT_FILE"] = self.certificate
        self.url, self.tls = bench.start_nginx(place)
        self.server = harness.Server(place, "data", [*bench.SETTINGS, "retl.host_identity = 'here'", "retl.max_planned_bytes = 4GB"],
                                     durable=True).start()
        self.server.psql("SET client_min_messages = warning; CREATE EXTENSION retl;")
        self.session = Session(place, self.server)
        self.bare_program = place.path("bare_multi")
        subprocess.run(["cc", "-O2", "-o", self.bare_program, os.path.join(bench.BENCH, "bare_multi.c"), "-lcurl"], check=True)
        os.chmod(self.bare_program, 0o755)

    def line(self, *args):
        self.good &= line(*args)

    def bare(self, url, body, requests, concurrency):
        """Requests a second of libcurl alone."""
        path = self.place.path("body.json")
        with open(path, "w") as file:
            file.write(body)
        _, said = self.place.run([self.bare_program, url, path, str(requests), str(concurrency)])
        return float(re.search(r": (\d+) a second", said).group(1))

    def mapping(self, name, url, rows, size, batch, concurrency):
        self.session.value(f"""CREATE TABLE {name} AS SELECT i AS id, 0 AS v, left(repeat(md5(i::text), 40), {size}) AS note FROM generate_series(1, {rows}) i;
ALTER TABLE {name} ADD PRIMARY KEY (id); VACUUM ANALYZE {name};
SELECT retl.create_model('{name}', '{name}', '{{id}}');
SELECT retl.create_destination('{name}', 'webhook', '{{"url": "{url}", "concurrency": {concurrency}, "timeout": 600}}');
SELECT retl.create_mapping('{name}', '{name}', '{name}', 'send',
  '{{"data": {{"id": {{"@path": "$.id"}}, "v": {{"@path": "$.v"}}, "note": {{"@path": "$.note"}}}}}}', batch_size => {batch}, enabled => true)""")

    def set(self, name, value):
        self.session.value(f"ALTER SYSTEM SET {name} = '{value}'")
        self.session.value("SELECT pg_reload_conf()")

    def wait(self, sql, patience=120):
        until = time.monotonic() + patience
        while self.session.value(sql) != "t":
            if time.monotonic() > until:
                raise harness.Failure(f"in vain: {sql}\n{self.server.tail()}")
            time.sleep(0.01)

    def prepared(self, name):
        """Plans a run while this host is another, so that nothing is sent; then delivers it. Returns seconds, requests, body, run."""
        self.set("retl.host_identity", "elsewhere")
        fresh = self.session.value(f"SELECT count(*) = 0 FROM retl.runs WHERE mapping::text = '{name}'") == "t"
        run = self.session.value(f"SELECT retl.{'sync' if fresh else 'reset_mapping'}('{name}')")
        self.wait(f"SELECT planned FROM retl.run WHERE id = {run}")
        body = self.session.value(f"SELECT body FROM retl.batch_body JOIN retl.batch b ON b.id = batch WHERE b.run = {run} LIMIT 1")
        self.session.value("CHECKPOINT")
        memory = bench.Memory(self.server.process.pid)
        memory.start()
        began = time.monotonic()
        self.set("retl.host_identity", "here")
        self.wait(f"SELECT finished_at IS NOT NULL FROM retl.runs WHERE id = {run}")
        seconds = time.monotonic() - began
        memory.over = True
        memory.join()
        status, requests, delivered = self.session.value(
            f"SELECT status, (SELECT count(*) FROM retl.batches b WHERE b.run = r.id),"
            f" (SELECT count(*) FROM retl.batches b WHERE b.run = r.id AND status = 'delivered') FROM retl.runs r WHERE id = {run}").split("|")
        if status != "succeeded" or requests != delivered:
            raise harness.Failure(f"{name}: {status}, {delivered} of {requests} delivered")
        return seconds, int(requests), body, memory.peak["delivery worker"][1] / 1024

    def throughput(self, what, name, url, rows, size, batch, concurrency, goal_rows, goal_ratio):
        self.mapping(name, url, rows, size, batch, concurrency)
        bare = [self.bare(url, "[" + ",".join(["{" + "x" * (size + 30) + "}"] * batch) + "]", max(rows // batch, 2000), concurrency)]
        seconds, requests, body, memory = self.prepared(name)
        bare.append(self.bare(url, body, requests, concurrency))
        rate, bare = requests / seconds, statistics.mean(bare)
        if goal_rows:
            self.line(f"{what}, rows/s", f"{rows / seconds:,.0f}", f">= {goal_rows:,}", rows / seconds >= goal_rows)
        if goal_ratio:
            self.line(f"{what}, of libcurl alone", f"{rate / bare:.2f} ({rate:,.0f} of {bare:,.0f}/s)", f">= {goal_ratio}", rate / bare >= goal_ratio)
        else:
            print(f"{'':58} {rate / bare:.2f} of libcurl alone ({bare:,.0f}/s)")
        self.line(f"{what}, worker's own memory", f"{memory:.0f} MB", "<= 256 MB", memory <= 256)

    def batches(self):
        self.throughput("batches of 100 (14 KB), HTTP/1.1, 16 connections", "batches", self.url + "/read", ROWS, SMALL, 100, 16, 200_000, 0.25)

    def rows(self):
        self.throughput("a row a request (1 KB), outcomes on record", "rows", self.url + "/read", ROWS // 5, LARGE, 1, 16, 12_000, None)

    def http2(self):
        self.throughput("batches of 100, HTTP/2 over TLS", "http2", self.tls + "/read", ROWS, SMALL, 100, 16, None, 0.25)

    def delay(self):
        for concurrency in (16, 64):
            limit = concurrency / 0.05
            name = f"delay{concurrency}"
            self.mapping(name, self.url + "/sleep50", int(limit * 5), LARGE, 1, concurrency)
            seconds, requests, _, memory = self.prepared(name)
            rate = requests / seconds
            self.line(f"50 ms of round trip, {concurrency} at a time, requests/s", f"{rate:,.0f} of {limit:,.0f} ({rate / limit:.2f})", ">= 0.80",
                      rate / limit >= 0.8)

    def latency(self):
        receiver = harness.Receiver(self.place)
        self.mapping("quick", receiver.url + "/quick", 10_000, SMALL, 100, 8)
        with open(receiver.log) as log:
            def sample(number):
                """Milliseconds from the end of COMMIT to the request's arrival."""
                self.session.value(f"BEGIN; UPDATE quick SET v = v + 1 WHERE id = {random.randint(1, 10_000)}; SELECT retl.sync('quick')")
                self.session.value("COMMIT")
                committed = time.time()
                while True:
                    got = log.readline()
                    if not got:
                        time.sleep(0.001)
                        if time.time() > committed + 30:
                            raise harness.Failure(f"no request within 30 s\n{self.server.tail()}")
                        continue
                    event = json.loads(got)
                    if event["event"] == "request":
                        break
                # the log of the receiver has one request for each sample
                self.wait("SELECT count(*) = 0 FROM retl.runs WHERE finished_at IS NULL")
                return (event["at"] - committed) * 1000

            run = self.session.value("SELECT retl.sync('quick')")
            self.wait(f"SELECT finished_at IS NOT NULL FROM retl.runs WHERE id = {run}")
            log.seek(0, os.SEEK_END)
            for _ in range(10):
                sample(0)
            warm = []
            for number in range(300):
                time.sleep(random.random() * 0.15)
                warm.append(sample(number))
            warm.sort()
            median, p99 = statistics.median(warm), warm[int(len(warm) * 0.99) - 1]
            self.line("commit to arrival, warm, median", f"{median:.1f} ms", "<= 50 ms", median <= 50)
            self.line("commit to arrival, warm, p99", f"{p99:.1f} ms (most {warm[-1]:.1f})", "<= 150 ms", p99 <= 150)
            self.set("retl.worker_idle_timeout", 0)
            cold = []
            for number in range(20):
                self.wait("SELECT count(*) = 0 FROM pg_stat_activity WHERE usename ~ '^retl_'")
                cold.append(sample(number))
            self.set("retl.worker_idle_timeout", 60)
            self.line("commit to arrival, no worker there, most of 20", f"{max(cold):.1f} ms (median {statistics.median(cold):.1f})", "<= 500 ms",
                      max(cold) <= 500)

    def hanging(self):
        self.mapping("healthy", self.url + "/read", ROWS // 10, LARGE, 1, 16)
        self.mapping("hung", self.url + "/hang", 6400, SMALL, 100, 64)
        self.prepared("healthy")
        alone = [self.prepared("healthy")[0] for _ in range(3)]
        self.session.value("SELECT retl.sync('hung')")
        # of 64 batches none comes back
        self.wait("SELECT count(*) = 1 FROM retl.runs WHERE mapping::text = 'hung' AND status = 'delivering'", 30)
        beside = [self.prepared("healthy")[0] for _ in range(3)]
        if self.session.value("SELECT sum(attempts) FROM retl.batches b JOIN retl.runs r ON r.id = b.run WHERE r.mapping::text = 'hung'") != "0":
            raise harness.Failure("the one that was to hang does not")
        alone, beside = min(alone), min(beside)
        self.line("throughput beside one that hangs with 64 requests", f"{alone / beside:.2f} of that alone", ">= 0.90", alone / beside >= 0.9)


def program():
    with harness.Workplace("bench-delivery", keep=bool(os.environ.get("KEEP"))) as place:
        b = Bench(place)
        print(f"{place.pg.version_text}, {os.cpu_count()} cores", flush=True)
        for part in PARTS:
            getattr(b, part)()
        b.server.stop()
    return 0 if b.good else 1


if __name__ == "__main__":
    harness.main(program)
