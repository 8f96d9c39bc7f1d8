"""make soak: half an hour of changes, faults of destinations, crashes of workers and server. MINUTES=n SEED=n.

Every half minute all is left to settle, and what the receiver's own log says is compared with the tables: nothing lost, no
request repeated with other bytes, no version of a key before an earlier one. Memory of the workers and size of retl's tables are
taken at these moments; they must be flat from the first third to the last.
"""
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import harness  # noqa: E402

MINUTES = float(os.environ.get("MINUTES", 30))
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
ROWS = 5000
QUIET_EVERY = 30

SETTINGS = [
    "retl.allowed_private_networks = '127.0.0.0/8'",
    "retl.run_retention = 1min", "retl.attempt_retention = 1min", "retl.answer_retention = 1min", "retl.body_retention = 1min",
    "autovacuum_naptime = 5s", "max_wal_size = 256MB", "checkpoint_timeout = 1min", "max_worker_processes = 16",
]
# name: batch size, operations
MAPPINGS = {"big": (100, "{added,updated,deleted}"), "one": (1, "{added,updated,deleted}"), "upserts": (20, "{added,updated}")}

# In this order of how often: faults of the destination, by path of a mapping, for a number of requests.
FAULTS = [
    {"status": 503, "headers": {"Retry-After": "0"}}, {"status": 429, "headers": {"Retry-After": "1"}}, {"status": 500},
    {"close": "read"}, {"close": "read", "reset": True}, {"close": "headers"}, {"close": "answer"}, {"cut": 3},
    {"raw": "garbage\r\n\r\n"}, {"delay": 0.5}, {"hang": True}, {"slow": 0.05}, {"huge": 5_000_000}, {"status": 422, "match": '"v":[0-9]*7[,}]'},
]


class Oracle:
    """What each mapping's destination holds, of the requests that it took, and what must never be."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.log = open(receiver.log)
        self.state = {name: {} for name in MAPPINGS}
        self.bodies = {}
        self.versions = {name: {} for name in MAPPINGS}
        self.requests = self.repeated = self.records = 0
        self.problems = []

    def read(self):
        for line in self.log:
            event = json.loads(line)
            if event["event"] != "request" or not event["complete"]:
                continue
            name = event["path"].strip("/")
            key = next(value for header, value in event["headers"] if header.lower() == "idempotency-key")
            self.requests += 1
            body = hash(event["body"])
            seen = key in self.bodies
            self.repeated += seen
            if seen and self.bodies[key] != body:
                self.problems.append(f"{name}: key {key} came with two bodies")
            self.bodies[key] = body
            if event["status"] is not None and not 200 <= event["status"] < 300:
                continue
            records = json.loads(event["body"])
            for record in records if isinstance(records, list) else [records]:
                row, version = record["row"], record["row"]["v"]
                if not seen and self.versions[name].get(row["id"], 0) > version:
                    self.problems.append(f"{name}: {row['id']}: version {version} after {self.versions[name][row['id']]}")
                self.versions[name][row["id"]] = max(version, self.versions[name].get(row["id"], 0))
                self.records += 1
                if record["op"] == "deleted":
                    self.state[name].pop(row["id"], None)
                else:
                    self.state[name][row["id"]] = version

    def check(self, rows):
        self.read()
        for name in MAPPINGS:
            held = self.state[name]
            wrong = [key for key in rows if held.get(key) != rows[key]]
            if "deleted" in MAPPINGS[name][1]:
                wrong += [key for key in held if key not in rows]
            if wrong:
                self.problems.append(f"{name}: {len(wrong)} keys are not as in the model, such as {wrong[:5]}")
        # all is delivered: no request of before comes again
        self.bodies.clear()
        self.receiver.ask("/_control", {"clear_log": True, "rules": []})
        self.log.seek(0)


class Soak:
    def __init__(self, place):
        self.place = place
        self.random = random.Random(SEED)
        place.build("soak", ["RETL_TESTING=1"])
        self.receiver = harness.Receiver(place)
        self.server = harness.Server(place, "data", SETTINGS, durable=True).start()
        self.server.psql(f"""SET client_min_messages = warning;
CREATE EXTENSION retl;
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1, note text);
CREATE SEQUENCE version START 100;
CREATE SEQUENCE id START {ROWS + 1};
INSERT INTO t SELECT i, 1, repeat(md5(i::text), 5) FROM generate_series(1, {ROWS}) i;
SELECT retl.create_model('t', 't', '{{id}}');""")
        fields = json.dumps({"data": {"op": {"@path": "$.event"}, "row": {"@path": "$.properties"}}})
        for name, (batch, records) in MAPPINGS.items():
            settings = json.dumps({"url": f"{self.receiver.url}/{name}", "timeout": 2, "concurrency": 8})
            self.server.psql(f"""SELECT retl.create_destination('{name}', 'webhook', '{settings}');
SELECT retl.create_mapping('{name}', 't', '{name}', 'send', '{fields}', records => '{records}', batch_size => {batch}, enabled => true,
  max_change_percent => 100, max_delete_percent => 100);""")
        self.oracle = Oracle(self.receiver)
        self.counts = {}
        self.samples = []

    def up(self):
        until = time.monotonic() + 60
        while True:
            try:
                if self.server.value("SELECT 1") == "1":
                    return
            except harness.Failure:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def restart(self, how):
        process = self.server.process
        process.send_signal(how)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            _, said = self.place.run(["ps", "-eo", "pid,ppid,stat,wchan:20,args"])
            raise harness.Failure("the server does not stop:\n" + "".join(
                line + "\n" for line in said.splitlines() if "postgres" in line) + self.server.tail())
        # its children hold the shared memory until they notice
        until = time.monotonic() + 30
        while True:
            try:
                self.server.start()
                return
            except harness.Failure:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    def worker(self):
        pids = self.server.value("SELECT pid FROM pg_stat_activity WHERE usename ~ '^retl_' OR backend_type = 'retl launcher'").split()
        return int(self.random.choice(pids)) if pids else None

    def churn(self):
        # versions grow over the whole of the table
        n = self.random.randrange(100)
        self.server.psql(f"""BEGIN;
UPDATE t SET v = nextval('version') WHERE id % 100 = {n};
DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY random() LIMIT 10);
INSERT INTO t SELECT nextval('id'), nextval('version'), 'new' FROM generate_series(1, 10);
SELECT retl.sync_model('t');
COMMIT;""")

    def crash(self):
        kind = self.random.choice(["kill worker", "kill worker", "terminate worker", "stop worker", "kill server", "immediate stop", "fast stop",
                                   "fault point"])
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind.endswith("worker"):
            pid = self.worker()
            if pid is None:
                return
            try:
                os.kill(pid, {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "stop": signal.SIGSTOP}[kind.split()[0]])
                if kind.startswith("stop"):
                    time.sleep(1)
                    os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        elif kind == "fault point":
            points = ["snapshot_before_commit", "plan_before_commit", "answer_received", "outcomes_before_commit", "outcomes_after_commit",
                      "half_written", "run_resolved", "log_tidied", "batch_loaded", "request_sent"]
            os.makedirs(os.path.join(self.server.data, "retl_fault"), exist_ok=True)
            self.place.own(os.path.join(self.server.data, "retl_fault"))
            path = os.path.join(self.server.data, "retl_fault", self.random.choice(points))
            with open(path + ".new", "w") as file:
                file.write(self.random.choice(["kill", "error", "term", "kill 5"]) + "\n")
            self.place.own(path + ".new")
            os.rename(path + ".new", path)
        else:
            self.restart({"kill server": signal.SIGKILL, "immediate stop": signal.SIGQUIT, "fast stop": signal.SIGINT}[kind])

    def fault(self):
        what = dict(self.random.choice(FAULTS), path="/" + self.random.choice(list(MAPPINGS)) + "$", times=self.random.randrange(1, 6))
        name = next(key for key in what if key not in ("headers", "path", "times"))
        self.counts[name] = self.counts.get(name, 0) + 1
        self.receiver.ask("/_control", {"rules": [what], "add": True})

    def quiet(self):
        """Until everything is delivered; then compares and measures."""
        self.receiver.ask("/_control", {"rules": []})
        self.receiver.ask("/_release", {})
        faults = os.path.join(self.server.data, "retl_fault")
        for name in os.listdir(faults) if os.path.isdir(faults) else []:
            os.unlink(os.path.join(faults, name))
        self.up()
        until = time.monotonic() + 120
        while True:
            try:
                self.server.psql("SELECT retl.sync_model('t')")
                while self.server.value("SELECT (SELECT count(*) FROM retl.runs WHERE finished_at IS NULL) + (SELECT count(*) FROM retl.request)") != "0":
                    if time.monotonic() > until:
                        raise harness.Failure("runs do not end: " + self.server.value(
                            "SELECT json_agg(r) FROM retl.runs r WHERE finished_at IS NULL") + self.server.tail())
                    time.sleep(0.2)
                break
            except harness.Failure:
                # a fault that had been armed
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        failed = self.server.value("SELECT count(*) FROM retl.failed_rows")
        if failed != "0":
            self.oracle.problems.append(f"{failed} failed rows after a sync that was taken")
        self.oracle.check({int(key): int(v) for key, v in (line.split("|") for line in self.server.value("SELECT id, v FROM t").splitlines())})
        memory = {}
        for pid, user in (line.split("|") for line in self.server.value(
                "SELECT pid, usename FROM pg_stat_activity WHERE usename ~ '^retl_'").splitlines()):
            with open(f"/proc/{pid}/status") as file:
                memory[user] = int(dict(line.split(":", 1) for line in file)["RssAnon"].split()[0]) / 1024
        tables = int(self.server.value("SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                                       " WHERE n.nspname IN ('retl', 'retl_data') AND c.relkind = 'r'")) / 1e6
        largest = self.server.value("SELECT string_agg(relname || ' ' || pg_size_pretty(size), ', ') FROM (SELECT relname, pg_total_relation_size(c.oid)"
                                    " AS size FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('retl', 'retl_data')"
                                    " AND c.relkind = 'r' ORDER BY 2 DESC LIMIT 4) x")
        self.samples.append((memory, tables))
        print(f"{(time.monotonic() - self.began) / 60:5.1f} min  {self.oracle.requests:8,} requests {self.oracle.repeated:6,} repeated"
              f" {self.oracle.records:9,} records  tables {tables:6.1f} MB ({largest})  "
              + ", ".join(f"{name[5:]} {mb:.1f} MB" for name, mb in sorted(memory.items())), flush=True)

    def run(self):
        self.began = time.monotonic()
        print(f"{self.place.pg.version_text}, seed {SEED}, {MINUTES:g} minutes", flush=True)
        self.quiet()
        while time.monotonic() - self.began < MINUTES * 60 and not self.oracle.problems:
            until = time.monotonic() + QUIET_EVERY
            while time.monotonic() < until:
                try:
                    self.random.choice([self.churn, self.churn, self.churn, self.fault, self.fault, self.crash])()
                except harness.Failure:
                    # the server is being crashed
                    self.up()
                time.sleep(self.random.random())
            self.quiet()
        third = max(len(self.samples) // 3, 1)
        good = not self.oracle.problems
        for problem in self.oracle.problems[:20]:
            print("LOST OR WRONG: " + problem)
        if not self.oracle.problems:
            print("nothing lost, nothing repeated with other bytes, every key in order")
        for what, take in [("tables", lambda sample: sample[1])] + [
                (role, lambda sample, role=role: sample[0].get(role, 0)) for role in ("retl_delivery", "retl_snapshot")]:
            # the first third is warming up
            before = max(map(take, self.samples[third:2 * third] or self.samples))
            after = statistics.median(map(take, self.samples[-third:]))
            flat = after <= before * 1.2 + 2
            good &= flat
            print(f"{what:14} {before:7.1f} MB at most in the second third, {after:7.1f} MB in the last, median: {'flat' if flat else 'GROWS'}")
        print("faults and crashes: " + ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())))
        self.server.stop()
        return 0 if good else 1


def program():
    with harness.Workplace("soak", keep=bool(os.environ.get("KEEP"))) as place:
        return Soak(place).run()


if __name__ == "__main__":
    harness.main(program)
