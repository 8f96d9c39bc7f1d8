"""make soak-diff: a thousand snapshots of a model that churns (SNAPSHOTS=n, ROWS=n), to see that nothing grows.

Before each snapshot 1 % of the rows are updated, 1 % deleted and 1 % added. One mapping follows; another is disabled early on, so that
the change log is kept, and compacted, for it. Sizes and the workers' memory are taken 20 times. What should be flat is compared between the
first and the second half of the run. Histories (runs, batches, attempts, snapshots) grow with what happens: their growth is shown.
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402

SNAPSHOTS = int(os.environ.get("SNAPSHOTS", 1000))
ROWS = int(os.environ.get("ROWS", 20_000))
SAMPLES = 20
MOST_GROWTH = 1.1

FLAT = {
    "checkpoint": "SELECT pg_table_size('retl_data.checkpoint_1')",
    "its index": "SELECT pg_indexes_size('retl_data.checkpoint_1')",
    "change log": "SELECT pg_total_relation_size(('retl_data.log_1_' || log_generation)::regclass) FROM retl.model_state",
    "numbers of rows": "SELECT next_slot FROM retl.model_state",
    "state tables": "SELECT sum(pg_total_relation_size(c)) FROM unnest('{retl.model_state,retl.mapping_state,retl.request,retl.sending,retl.exception}'"
                    "::regclass[]) c",
    "catalogs": "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'",
}
HISTORIES = ["run", "batch", "batch_body", "attempt", "snapshot"]


def memory(server):
    """Private memory of the workers in kB, by kind; one that comes and goes does not count."""
    result = {}
    for pid in harness.children_of(server.process.pid):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                title = file.read().replace("\0", " ")
            for kind in ("snapshot", "delivery"):
                if f"retl {kind} worker" in title:
                    with open(f"/proc/{pid}/status") as file:
                        result[kind] = (pid, next(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
        except (OSError, StopIteration):
            continue
    return result


def program():
    with harness.Workplace("soak", keep=bool(os.environ.get("KEEP"))) as place:
        place.build("demo")
        url = harness.Receiver(place).url
        server = harness.Server(place, "data", ["retl.allowed_private_networks = '127.0.0.0/8'", "autovacuum_naptime = 5s", "jit = off"]).start()
        server.psql(f"""
SET client_min_messages = warning;
CREATE EXTENSION retl;
CREATE TABLE churning AS SELECT id, md5(id::text) AS name, 0 AS version, repeat('x', (id % 200)::int) AS filler FROM generate_series(1, {ROWS}::bigint) id;
ALTER TABLE churning ADD PRIMARY KEY (id);
SELECT retl.create_model('churning', 'churning', '{{id}}');
SELECT retl.create_destination('sink', 'webhook', '{{"url": "{url}/"}}');
SELECT retl.create_mapping(name, 'churning', 'sink', 'send', '{{"data": {{"id": {{"@path": "$.id"}}}}}}', records => '{{added,deleted}}',
  batch_size => 1000, enabled => true, max_delete_percent => 100) FROM unnest('{{follows,lags}}'::text[]) name;
CALL retl.sync_and_wait('follows');
CALL retl.sync_and_wait('lags');
""")
        print(f"{place.pg.version_text}; {ROWS:,} rows, {SNAPSHOTS} snapshots; load {os.getloadavg()[0]:.2f}", flush=True)
        names = [*FLAT, "snapshot worker kB", "delivery worker kB"]
        print("snapshot " + " ".join(f"{name:>16}" for name in names))
        samples, pids, began, next_id = [], [], time.monotonic(), ROWS + 1
        each = max(SNAPSHOTS // SAMPLES, 1)
        for number in range(1, SNAPSHOTS + 1, each):
            script = ""
            for n in range(number, number + each):
                script += f"""
UPDATE churning SET version = version + 1 WHERE id % 100 = {n * 37 % 100};
DELETE FROM churning WHERE id IN (SELECT id FROM churning ORDER BY hashint8(id + {n}) LIMIT {ROWS // 100});
INSERT INTO churning SELECT id, md5(id::text), 0, repeat('x', (id % 200)::int) FROM generate_series({next_id}, {next_id + ROWS // 100 - 1}) id;
CALL retl.sync_and_wait('follows');
"""
                next_id += ROWS // 100
                if n == 1:
                    script += "SELECT retl.disable_mapping('lags');\n"
            server.psql(script)
            sample = {name: int(server.value(sql)) for name, sql in FLAT.items()}
            workers = memory(server)
            for kind in ("snapshot", "delivery"):
                sample[f"{kind} worker kB"] = workers.get(kind, (0, 0))[1]
            pids.append({kind: pid for kind, (pid, _) in workers.items()})
            samples.append(sample)
            print(f"{number + each - 1:8} " + " ".join(f"{sample[name]:16,}" for name in names), flush=True)
        seconds = time.monotonic() - began
        over = []
        for name in names:
            half = len(samples) // 2
            # The change log fills and is emptied: its peaks are compared.
            before, after = (max(sample[name] for sample in part) for part in (samples[half // 2:half], samples[half:]))
            met = after <= before * MOST_GROWTH
            if not met:
                over.append(name)
            print(f"{name:<20} {before:14,} -> {after:14,}  (goal: {MOST_GROWTH} x at most): {'ok' if met else 'OVER'}")
        print(f"the same workers throughout: {all(pid == pids[0] for pid in pids)}; {seconds / SNAPSHOTS * 1000:.0f} ms a round")
        for name in HISTORIES:
            print(f"history retl.{name}: " + server.value(
                f"SELECT count(*) || ' rows, ' || pg_size_pretty(pg_total_relation_size('retl.{name}')) FROM retl.{name}"))
        wrong = server.value("SELECT string_agg(DISTINCT status || coalesce(' ' || error, ''), ', ') FROM retl.runs WHERE status <> 'succeeded'")
        if wrong:
            raise harness.Failure(f"runs: {wrong}\n{server.tail()}")
        server.stop()
    return 1 if over else 0


if __name__ == "__main__":
    harness.main(program)
