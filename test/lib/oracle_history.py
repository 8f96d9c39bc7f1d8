"""A history: steps drawn from a seed, done to a server and to the model of oracle_model.py, compared after each.

A history is a generator. It yields what it needs of the server and is sent the answers, so that many of them can be
driven side by side (see oracle.py):
    ("sql", [statement, ..])            -> a list of rows or an SqlError for each
    ("work",)                           the snapshot worker's work, in the foreground
    ("fault", point, [statement, ..])   the same after statements, an error raised at the point; nobody else meets it
"""
import copy
import json
import random

from oracle_model import (ADDED, DELETED, FIELDS, UPDATED, Definition, Mapping, Model, Run, Unmappable)
from oracle_pg import SqlError

OPERATION = {"a": ADDED, "u": UPDATED, "d": DELETED}
EVENT = {"new": ADDED, "updated": UPDATED, "deleted": DELETED}
KEYS = {
    "int": [(1,), (2,), (3,), (-40,)],
    "text": [("a",), ('b"\\',), ("\u00e9 ",), ("",)],
    "both": [(1, "x"), (1, "y"), (2, "x"), (10, 'q"')],
}
KEY_COLUMNS = {"int": [("k", "int")], "text": [("k", "text")], "both": [("k", "int"), ("l", "text")]}


class Wrong(Exception):
    """The server and the model differ."""


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"


def text(value):
    return json.dumps(value, ensure_ascii=False)


def key_text(kind, key):
    if len(key) == 1:
        return text(key[0])
    return "{" + ", ".join(f"{text(name)}: {text(value)}" for (name, _), value in zip(KEY_COLUMNS[kind], key)) + "}"


# --------------------------------------------------------------------------
# Drawing
# --------------------------------------------------------------------------

def draw_definition(random, flavour):
    records = random.choice([[ADDED, UPDATED, DELETED]] * 5 + [[ADDED], [UPDATED], [DELETED], [ADDED, UPDATED],
                                                               [ADDED, DELETED], [UPDATED, DELETED]])
    definition = {"records": records,
                  "fields": random.choice(["whole", "whole", "a", "sql"]),
                  "filter": random.choice([None, None, None, "a > 1", "v > 0 AND a <> 2", "12 / v > 4"]),
                  "update_when": random.choice(["payload"] * 4 + ["any", "v, b"]),
                  "batch_size": random.choice([1, 1, 2, 3])}
    if flavour == "brakes" and random.random() < 0.7:
        definition.update(max_delete=random.choice([0, 30, 60]), max_change=random.choice([30, 60, 100]),
                          min_rows=random.choice([1, 2]), allow_empty=random.random() < 0.5)
    return definition


def draw_rows(random):
    rows = []
    for _ in range(random.choice([1, 1, 2, 3])):
        key = random.randrange(4)
        if random.random() < 0.3:
            rows.append(("delete", key))
        else:
            rows.append(("put", key, random.randrange(4), random.choice([0, 1, 2, 3, 6]), random.choice([None, "x", "y"])))
    return rows


def draw(seed, flavour):
    """The set-up and the steps. Flavours: plain; brakes; columns; chunks (planned bit by bit); faults; twice (duplicate keys)."""
    rng = random.Random(seed)
    setup = {"key": rng.choice(["int", "int", "text", "both"]),
             "mappings": [draw_definition(rng, flavour) for _ in range(rng.choice([1, 2, 2, 3]))],
             "rows": [row for row in draw_rows(rng) + draw_rows(rng) if row[0] == "put"]}
    count = len(setup["mappings"])
    steps = []
    for _ in range(rng.randrange(4, 14)):
        m = rng.randrange(count)
        kinds = ["rows"] * 5 + ["sync"] * 6 + ["deliver"] * 5 + [
            "model", "cancel", "disable", "enable", "off", "on", "reset", "reset", "baseline", "resync", "replay", "retry",
            "edit", "drop", "swap", "reload", "tidy", "behind", "behind", "break", "queue", "mess"]
        kinds += {"brakes": ["release"] * 3 + ["empty"] * 2, "columns": ["column"] * 5, "faults": ["fault"] * 5,
                  "twice": ["twice"] * 4, "chunks": ["cancel", "disable", "enable"]}.get(flavour, [])
        kind = rng.choice(kinds)
        if kind == "rows":
            step = ("rows", draw_rows(rng))
        elif kind in ("sync", "queue"):
            step = (kind, sorted({m, rng.randrange(count)}))
        elif kind in ("deliver", "mess"):
            step = ("deliver", rng.choice(["ok", "mixed", "mixed"]), rng.random() < 0.8, rng.randrange(1 << 30))
        elif kind == "cancel":
            step = ("cancel", m, rng.randrange(1 << 30))
        elif kind == "disable":
            step = ("disable", m, rng.randrange(1 << 30))
        elif kind == "off":
            step = ("off", rng.randrange(1 << 30))
        elif kind == "resync":
            step = ("resync", m, rng.sample(range(4), rng.choice([1, 2])))
        elif kind == "replay":
            step = ("replay", m, rng.randrange(4))
        elif kind in ("edit", "drop"):
            step = (kind, m, draw_definition(rng, flavour))
            if kind == "edit" and flavour == "columns" and rng.random() < 0.5:
                step[2]["fields"] = "c"
        elif kind == "reload":
            step = ("reload", rng.random() < 0.5)
        elif kind == "behind":
            step = ("behind", m, [draw_rows(rng) for _ in range(rng.choice([2, 3]))], rng.randrange(1 << 30))
        elif kind == "column":
            step = ("column", rng.choice([None, "u", "w"]))
        elif kind == "fault":
            step = ("fault", m, rng.choice(["model_locked", "log_written", "checkpoint_written", "snapshot_before_commit",
                                            "plan_phase_done", "plan_before_commit", "run_resolved"]))
        elif kind == "twice":
            step = ("twice", rng.randrange(4))
        elif kind in ("enable", "reset", "baseline", "retry", "release"):
            step = (kind, m)
        else:
            step = (kind,)
        steps.append(step)
    return setup, steps


# --------------------------------------------------------------------------
# Doing
# --------------------------------------------------------------------------

class History:
    def __init__(self, number, seed, flavour, drawn=None):
        self.number = number
        self.seed = seed
        self.flavour = flavour
        self.setup, self.steps = drawn or draw(seed, flavour)
        self.done = 0
        self.table = f"o.h{number}"
        self.kind = self.setup["key"]
        self.columns = [name for name, _ in KEY_COLUMNS[self.kind]] + ["a", "v", "b"]
        self.rows = {}          # key number -> list of rows
        self.model = Model()
        self.mappings = []
        self.ids = []
        self.requests = []      # (id, mapping number, kind, arguments)
        self.runs = {}          # id -> (mapping number, Run)
        self.seen_batches = set()
        self.at_destination = []
        self.edited = []
        self.broken = False
        self.on = True
        self.fault = False
        self.shapes = {}
        self.records = 0
        self.trail = []

    # ---- words

    def name(self, m):
        return f"h{self.number}m{m}"

    def key(self, number):
        return key_text(self.kind, KEYS[self.kind][number])

    def where(self, number):
        return " AND ".join(f"{name} = {literal(value)}"
                            for (name, _), value in zip(KEY_COLUMNS[self.kind], KEYS[self.kind][number]))

    def create_mapping(self, m, definition, replace):
        d = definition
        fields, _ = FIELDS[d.fields]
        data = {"data": {"op": {"@path": "$.event"}, "row": fields}}
        return (f"SELECT retl.create_mapping(name => '{self.name(m)}', model => 'h{self.number}', destination => "
                f"'h{self.number}', action => 'send', fields => {literal(text(data))}, "
                f"records => '{{{','.join(d.records)}}}', filter => {literal(d.filter)}, enabled => {not replace}, "
                f"update_when => {literal(d.update_when)}, max_delete_percent => {d.max_delete}, "
                f"max_change_percent => {d.max_change}, brake_min_rows => {d.min_rows}, allow_empty => {d.allow_empty}, "
                f"batch_size => {d.batch_size}, or_replace => {replace})")

    def sql(self, *statements):
        """Statements that must succeed."""
        results = yield ("sql", list(statements))
        for statement, result in zip(statements, results):
            if isinstance(result, SqlError):
                raise Wrong(f"{statement}\n  says {result.code}: {result}")
        return results

    def refused(self, statement, code):
        results = yield ("sql", [statement])
        if not isinstance(results[0], SqlError) or results[0].code != code:
            raise Wrong(f"{statement}\n  should be refused with {code}, says {results[0]}")

    def put_sql(self, number, row):
        columns = [column for column in self.columns]
        return (f"DELETE FROM {self.table} WHERE {self.where(number)};"
                f"INSERT INTO {self.table} ({', '.join(columns)}) VALUES ({', '.join(literal(row[c]) for c in columns)})")

    def row(self, number, a, v, b):
        row = {name: value for (name, _), value in zip(KEY_COLUMNS[self.kind], KEYS[self.kind][number])}
        row.update(a=a, v=v, b=b)
        if "c" in self.columns:
            row["c"] = b
        return row

    # ---- the whole

    def start(self):
        columns = ", ".join(f"{name} {type}" for name, type in KEY_COLUMNS[self.kind])
        key = ", ".join(name for name, _ in KEY_COLUMNS[self.kind])
        statements = [f"CREATE TABLE {self.table} ({columns}, a int, v int, b text)",
                      f"SELECT retl.create_destination(name => 'h{self.number}', connector => 'webhook', "
                      f"settings => '{{\"url\": \"{self.url()}\"}}')",
                      f"SELECT retl.create_model(name => 'h{self.number}', query => '{self.table}', key => '{{{key}}}')"]
        for definition in self.setup["mappings"]:
            self.mappings.append(Mapping(Definition(**definition)))
            self.at_destination.append({})
            self.edited.append(False)
            statements.append(self.create_mapping(len(self.mappings) - 1, self.mappings[-1].definition, False))
        results = yield from self.sql(*statements)
        self.model_id = results[2][0][0]
        self.ids = [int(result[0][0]) for result in results[3:]]
        yield from self.rows_step(self.setup["rows"])

    def url(self):
        return "http://127.0.0.1:9/"

    def run(self):
        yield from self.start()
        for step in self.steps:
            self.trail = [step]
            yield from self.step(step)
            self.done += 1
        self.trail = ["the end"]
        yield from self.finish()
        yield from self.sql(f"SELECT retl.drop_model('h{self.number}', cascade => true)",
                            f"SELECT retl.drop_destination('h{self.number}')", f"DROP TABLE {self.table}")

    def step(self, step):
        kind, *arguments = step
        count = len(self.mappings)
        if kind in ("sync", "queue"):
            arguments = [sorted({m % count for m in arguments[0]})]
        elif kind in ("cancel", "disable", "resync", "replay", "edit", "drop", "fault", "enable", "reset", "baseline",
                      "retry", "release", "behind"):
            arguments[0] %= count
        yield from getattr(self, kind + "_step")(*arguments)

    # ---- looking

    def observe(self):
        mappings = ",".join(map(str, self.ids))
        results = yield from self.sql(
            "SELECT id, mapping, status, served_by, finished_at IS NOT NULL, from_seq, to_seq, planned, error_code,"
            f" added, updated, deleted, sent, failed FROM retl.run WHERE mapping IN ({mappings}) ORDER BY id",
            "SELECT b.id, b.run, b.stage, b.attempts, y.keys, y.operations, y.body, b.status, b.idempotency_key"
            " FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id"
            f" WHERE b.mapping IN ({mappings}) AND b.status = 'pending' ORDER BY b.id",
            "SELECT mapping, key, maybe, acked, acked_shape, resolved, run FROM retl.exception"
            f" WHERE mapping IN ({mappings})",
            f"SELECT seq FROM retl.model_state WHERE model = {self.model_id}",
            f"SELECT shape, columns FROM retl.shape WHERE model = {self.model_id}",
            f"SELECT mapping, cursor, active_run FROM retl.mapping_state WHERE mapping IN ({mappings})")
        runs, batches, exceptions, state, shapes, cursors = results
        self.shapes = {shape: [column["name"] for column in json.loads(columns)] for shape, columns in shapes}
        ended = {int(row[0]) for row in runs if row[4] == "t"}
        self.look_at_snapshots(int(state[0][0]), ended)
        for row in batches:
            self.look_at_batch(row)
        for row in runs:
            self.look_at_run(row)
        left = {request[0] for request in self.requests}
        if left & {int(row[0]) for row in runs}:
            raise Wrong("a request is a run and still a request")
        self.look_at_mappings(cursors, exceptions)
        return batches

    def readable(self):
        return not self.broken and not self.fault

    def look_at_snapshots(self, seq, ended):
        waiting = [request for request in self.requests
                   if self.mappings[request[1]].active is None or self.mappings[request[1]].active.id in ended]
        if seq > self.model.seq:
            if not waiting or self.broken:
                raise Wrong(f"snapshot {seq} was taken for nobody")
            table = {self.key(number): rows for number, rows in self.rows.items() if rows}
            self.model.snapshot(table, self.columns)
            self.model.unchanged(seq)
        elif waiting and self.worked and self.readable():
            raise Wrong(f"no snapshot was taken for requests {waiting}")

    def look_at_batch(self, row):
        batch, run = int(row[0]), int(row[1])
        if batch in self.seen_batches:
            return
        self.seen_batches.add(batch)
        self.new_batches.setdefault(run, []).append(row)

    def look_at_run(self, row):
        id, mapping, status, served_by, finished, start, end, planned, error, *counts = row
        id, finished, planned = int(id), finished == "t", planned == "t"
        counts = dict(zip(("added", "updated", "deleted", "sent", "failed"), map(int, counts)))
        if id not in self.runs:
            self.look_at_new_run(id, self.ids.index(int(mapping)), status, served_by, finished, start, end)
        m, run = self.runs[id]
        if run is None:
            return
        mapping = self.mappings[m]
        for batch in self.new_batches.pop(id, []):
            self.take_batch(run, batch)
        if status in ("held", "replaced") and run is not mapping.active:
            return
        if not run.planned and (planned or status == "held"):
            self.look_at_plan(m, run, status, counts)
        elif not run.planned and status == "failed" and finished:
            if not (self.fault or mapping.lost_column(self.model, run)):
                raise Wrong(f"the plan of run {id} failed")
            if run.keys:
                raise Wrong(f"run {id} failed, but has batches")
            mapping.active = None
            self.runs[id] = (m, None)
            return
        if finished and run.planned:
            self.look_at_end(m, run, status, counts)

    def look_at_new_run(self, id, m, status, served_by, finished, start, end):
        mapping = self.mappings[m]
        known = [request for request in self.requests if request[0] == id]
        if not known or known[0][1] != m:
            raise Wrong(f"run {id} of nobody's request")
        if served_by is not None and status != "replaced":
            self.runs[id] = (m, None)
            self.requests.remove(known[0])
            return
        served = [request for request in self.requests if request[1] == m and request[0] >= id]
        self.requests.remove(known[0])
        self.runs[id] = (m, None)
        if status == "failed" and end is None:
            if self.readable():
                raise Wrong(f"the snapshot of run {id} failed")
            return
        if status == "canceled" and end is None:
            return              # before it was a run
        if mapping.active is not None:
            raise Wrong(f"run {id} while run {mapping.active.id} is active")
        for request in served:
            if request[2] == "reset":
                mapping.reset()
            elif request[2] == "baseline":
                mapping.baseline(self.model.seq)
                self.at_destination[m] = None
            elif request[2] in ("resync", "replay"):
                mapping.mark(self.model, request[3])
        start = None if start is None else int(start)
        if start != mapping.cursor:
            raise Wrong(f"run {id} is from {start}, the mapping was at {mapping.cursor}")
        if status == "canceled":
            if mapping.enabled and self.on:
                raise Wrong(f"run {id} was canceled by nobody")
            return
        if not (mapping.enabled and self.on):
            raise Wrong(f"run {id} of something disabled")
        if mapping.held is not None:
            self.replaced = mapping.held.id
            mapping.held = None
        run = Run(id, mapping.definition, start, int(end), mapping.resend)
        mapping.active = run
        self.runs[id] = (m, run)

    def take_batch(self, run, row):
        batch, _, stage, _, keys, operations, body, *_ = row
        keys = [key_text(self.kind, tuple(key.values()) if isinstance(key, dict) else (key,)) for key in json.loads(keys)]
        if keys and self.halves.get(int(batch)) is None:
            records = json.loads(body)
            if not isinstance(records, list):
                records = [records]
            if len(records) != len(keys) or len(operations) != len(keys):
                raise Wrong(f"batch {batch}: {len(keys)} keys, {len(operations)} operations, {len(records)} records")
            for key, operation, record in zip(keys, operations, records):
                if key in run.keys:
                    raise Wrong(f"run {run.id} has key {key} twice")
                if EVENT[record["op"]] != OPERATION[operation] or (operation == "d") != (stage == "1"):
                    raise Wrong(f"run {run.id}: {key} is {operation} in stage {stage}, record {record}")
                run.keys[key] = (OPERATION[operation], record["row"])
        run.batches[int(batch)] = keys

    def look_at_plan(self, m, run, status, counts):
        mapping = self.mappings[m]
        brake = mapping.brake(self.model, run) and not run.stopped
        if status == "held":
            if not brake:
                raise Wrong(f"run {run.id} is held for no reason")
            if run.keys:
                raise Wrong(f"run {run.id} is held and has batches")
            mapping.active = None
            mapping.held = run
            return
        if brake:
            raise Wrong(f"run {run.id} should be held")
        if mapping.lost_column(self.model, run) and not run.stopped:
            raise Wrong(f"run {run.id} should have failed: its column is gone")
        mapping.plan(self.model, run)
        lax = run.released and run.end < self.model.seq and self.flavour == "columns"
        for key in set(run.want) | set(run.keys):
            want, got = run.want.get(key), run.keys.get(key)
            same = want is not None and got is not None and want[0] == got[0] and (
                want[1] is None or lax or want[1] == got[1])
            if not same:
                raise Wrong(f"run {run.id} of mapping {m} ({run.start}, {run.end}]{' resend' if run.resend else ''}: {key} "
                            f"should be {want}, is {got}\n  definition {vars(run.definition)}\n"
                            f"  before {self.model.state(run.start or 0).get(key)} after {self.model.state(run.end).get(key)}"
                            f" exception {mapping.exceptions.get(key)}")
        self.records += len(run.want)
        mapping.planned(run)
        mapping.sent_keys[run.id] = list(run.keys)
        for key, maybe in run.early:
            mapping.failed(run, key, maybe)
        run.failed = counts["failed"] if run.stopped else len(run.trouble)
        if not run.stopped and self.flavour != "chunks":
            for operation in (ADDED, UPDATED, DELETED):
                n = sum(1 for want in run.want.values() if want[0] == operation)
                if not n <= counts[operation] <= n + len(run.trouble):
                    raise Wrong(f"run {run.id} counts {counts[operation]} {operation}, should be {n}")
        run.planned = True

    def look_at_end(self, m, run, status, counts):
        mapping = self.mappings[m]
        if run.stopped:
            for batch, keys in run.batches.items():
                for key in keys:
                    mapping.failed(run, key, self.maybe.get(batch, False))
            run.batches = {}
            good = ("canceled",)
        else:
            good = ("succeeded",) if counts["failed"] == 0 else ("partial", "failed")
        if run.batches:
            raise Wrong(f"run {run.id} has ended with open batches {run.batches}")
        if status not in good:
            raise Wrong(f"run {run.id} ended as {status}, should be {good}")
        if not run.stopped and (counts["sent"], counts["failed"]) != (run.sent, run.failed):
            raise Wrong(f"run {run.id} counts {counts}, should be {run.sent} sent, {run.failed} failed")
        mapping.ended(run)
        self.runs[run.id] = (m, None)

    def look_at_mappings(self, cursors, exceptions):
        for id, cursor, active in cursors:
            m = self.ids.index(int(id))
            mapping = self.mappings[m]
            if (None if cursor is None else int(cursor)) != mapping.cursor:
                raise Wrong(f"the cursor of mapping {m} is {cursor}, should be {mapping.cursor}")
            if (None if active is None else int(active)) != (mapping.active.id if mapping.active else None):
                raise Wrong(f"the active run of mapping {m} is {active}, should be "
                            f"{mapping.active.id if mapping.active else None}")
            if mapping.active is not None:
                continue
            have = {key: (maybe == "t", self.unpack(acked, shape)) for mapping_id, key, maybe, acked, shape, _, _ in exceptions
                    if mapping_id == id}
            want = {key: (e.maybe, e.acked) for key, e in mapping.exceptions.items()}
            for key in set(have) | set(want):
                h, w = have.get(key), want.get(key)
                if h is None or w is None or h[0] != w[0] or not h[0] and h[1] != w[1]:
                    raise Wrong(f"exception {key} of mapping {m} (maybe, acknowledged) is {h}, should be {w}\n"
                                f"  definition {vars(mapping.definition)}")

    def unpack(self, data, shape):
        if data is None:
            return None
        return dict(zip(self.shapes[shape], json.loads(data)))

    def settle(self):
        """Lets the worker work and compares."""
        yield ("work",)
        self.worked = True
        yield from self.observe()
        self.worked = False

    worked = False
    new_batches = None
    halves = None
    maybe = None
    replaced = None

    # ---- steps

    def rows_step(self, rows):
        statements = ["BEGIN"]
        for kind, number, *values in rows:
            if self.broken:
                continue
            if kind == "delete":
                statements.append(f"DELETE FROM {self.table} WHERE {self.where(number)}")
                self.rows[number] = []
            else:
                row = self.row(number, *values)
                statements.append(self.put_sql(number, row))
                self.rows[number] = [row]
        yield from self.sql(";".join(statements) + ";COMMIT")

    def ask(self, m, kind, statement, arguments=None):
        """A request for a mapping; refused when it, or its destination, is disabled."""
        if not (self.mappings[m].enabled and self.on):
            yield from self.refused(statement, "55000")
            return None
        results = yield from self.sql(statement)
        id = int(results[0][0][0])
        self.requests.append((id, m, kind, arguments))
        return id

    def queue_step(self, ms):
        for m in ms:
            yield from self.ask(m, "sync", f"SELECT retl.sync('{self.name(m)}')")

    def sync_step(self, ms):
        yield from self.queue_step(ms)
        yield from self.settle()

    def model_step(self):
        results = yield from self.sql(f"SELECT retl.sync_model('{self.table}')")
        ids = [int(row[0]) for row in results[0]]
        live = [mapping for mapping in self.mappings if mapping.enabled and self.on]
        if len(ids) != len(live):
            raise Wrong(f"sync_model made {len(ids)} requests, {len(live)} mappings are enabled")
        rows = yield from self.sql(f"SELECT id, mapping FROM retl.request WHERE id IN ({','.join(map(str, ids)) or 0})")
        for id, mapping in sorted((int(id), int(mapping)) for id, mapping in rows[0]):
            self.requests.append((id, self.ids.index(mapping), "sync", None))
        yield from self.settle()

    def retry_step(self, m):
        yield from self.ask(m, "sync", f"SELECT retl.retry_failed('{self.name(m)}')")
        yield from self.settle()

    def stop(self, m, seed):
        """What the delivery worker does once a run is stopped: late answers, then it is quiet."""
        mapping = self.mappings[m]
        if mapping.active is not None:
            mapping.active.stopped = True
        yield from self.quiesce(m, seed)

    def quiesce(self, m, seed):
        run = self.mappings[m].active
        if run is None:
            return
        rng = random.Random(seed)
        rows = yield from self.observe()
        for row in rows:
            if int(row[1]) == run.id and (row[2] == "0" or self.stage_1(run, rows)) and rng.random() < 0.4:
                yield from self.attempt(m, run, row, rng, rng.choice(["ok", "reject", "fault", "lost"]))
        yield from self.sql(f"UPDATE retl.run SET quiesced = true WHERE id = {run.id} AND stop_reason IS NOT NULL")

    def cancel_step(self, m, seed):
        mapping = self.mappings[m]
        if mapping.active is not None:
            yield from self.sql(f"SELECT retl.cancel_run({mapping.active.id})")
            yield from self.stop(m, seed)
        elif mapping.held is not None:
            yield from self.sql(f"SELECT retl.cancel_run({mapping.held.id})")
            mapping.held = None
        else:
            waiting = [request for request in self.requests if request[1] == m]
            if waiting:
                yield from self.sql(f"SELECT retl.cancel_run({waiting[0][0]})")
                self.requests.remove(waiting[0])
                self.runs[waiting[0][0]] = (m, None)
        yield from self.settle()

    def disable_step(self, m, seed):
        yield from self.sql(f"SELECT retl.disable_mapping('{self.name(m)}')")
        self.mappings[m].enabled = False
        yield from self.stop(m, seed)
        yield from self.settle()

    def enable_step(self, m):
        yield from self.sql(f"SELECT retl.enable_mapping('{self.name(m)}')")
        self.mappings[m].enabled = True

    def off_step(self, seed):
        yield from self.sql(f"SELECT retl.disable_destination('h{self.number}')")
        self.on = False
        for m in range(len(self.mappings)):
            yield from self.stop(m, seed)
        yield from self.settle()

    def on_step(self):
        yield from self.sql(f"SELECT retl.enable_destination('h{self.number}')")
        self.on = True

    def reset_step(self, m, baseline=False):
        kind = "baseline" if baseline else "reset"
        asked = yield from self.ask(m, kind, f"SELECT retl.reset_mapping('{self.name(m)}', baseline => {baseline})")
        if asked:
            yield from self.stop(m, asked)
        yield from self.settle()

    def baseline_step(self, m):
        yield from self.reset_step(m, True)

    def resync_step(self, m, numbers):
        keys = [self.key(number) for number in numbers]
        yield from self.ask(m, "resync", f"SELECT retl.resync_keys('{self.name(m)}', '[{','.join(keys)}]')", keys)
        yield from self.settle()

    def replay_step(self, m, n):
        runs = sorted(self.mappings[m].sent_keys)
        if not runs:
            return
        run = runs[n % len(runs)]
        if self.runs[run][1] is not None:
            yield from self.refused(f"SELECT retl.replay_run({run})", "55000")
        else:
            yield from self.ask(m, "replay", f"SELECT retl.replay_run({run})", list(self.mappings[m].sent_keys[run]))
        yield from self.settle()

    def edit_step(self, m, definition):
        if definition["fields"] == "c" and "c" not in self.columns:
            return
        definition = Definition(**definition)
        results = yield ("sql", [self.create_mapping(m, definition, True)])
        if isinstance(results[0], SqlError):
            if self.broken:
                return
            raise Wrong(f"edit: {results[0].code}: {results[0]}")
        old = self.mappings[m].definition
        self.edited[m] |= (old.filter, old.fields, old.records) != (definition.filter, definition.fields, definition.records)
        self.mappings[m].definition = definition

    def drop_step(self, m, definition):
        if self.broken:
            return
        definition = Definition(**definition)
        results = yield from self.sql(f"SELECT retl.drop_mapping('{self.name(m)}')", self.create_mapping(m, definition, False))
        self.requests = [request for request in self.requests if request[1] != m]
        self.runs = {id: (-1, None) if pair[0] == m else pair for id, pair in self.runs.items()}
        self.mappings[m] = Mapping(definition)
        self.ids[m] = int(results[1][0][0])
        self.at_destination[m] = {}
        self.edited[m] = False
        yield from self.settle()

    def swap_step(self):
        if not self.broken:
            yield from self.sql(f"BEGIN; CREATE TABLE {self.table}_new AS SELECT * FROM {self.table};"
                                f"ALTER TABLE {self.table} RENAME TO h{self.number}_old;"
                                f"ALTER TABLE {self.table}_new RENAME TO h{self.number};"
                                f"DROP TABLE {self.table}_old; COMMIT")

    def reload_step(self, apart):
        """As a loader does: TRUNCATE and INSERT, in one transaction, or in two with a look between them."""
        if self.broken:
            return
        rows = {number: list(rows) for number, rows in self.rows.items()}
        values = [f"({', '.join(literal(row[c]) for c in self.columns)})" for some in rows.values() for row in some]
        insert = f"INSERT INTO {self.table} ({', '.join(self.columns)}) VALUES {', '.join(values)}" if values else "SELECT"
        if apart:
            yield from self.sql(f"TRUNCATE {self.table}")
            self.rows = {}
            yield from self.model_step()
            yield from self.sql(insert)
        else:
            yield from self.sql(f"BEGIN; TRUNCATE {self.table}; {insert}; COMMIT")
        self.rows = rows

    def empty_step(self):
        if not self.broken:
            yield from self.sql(f"DELETE FROM {self.table}")
            self.rows = {}
            yield from self.model_step()

    def tidy_step(self):
        yield from self.sql(f"UPDATE retl.model_state SET log_rows = 1000000000 WHERE model = {self.model_id} AND seq > 0")
        yield from self.settle()

    def behind_step(self, m, changes, seed):
        """One mapping stays behind while others go on, and the log is compacted."""
        for rows in changes:
            yield from self.rows_step(rows)
            yield from self.sync_step([other for other in range(len(self.mappings)) if other != m])
            yield from self.deliver_step("ok", True, seed)
        yield from self.tidy_step()

    def break_step(self):
        """The model cannot be read for a while."""
        if self.broken:
            return
        yield from self.sql(f"ALTER TABLE {self.table} RENAME TO h{self.number}_away")
        self.broken = True
        results = yield from self.sql(f"SELECT retl.sync_model('h{self.number}')")
        for id, mapping in sorted((int(row[0]), None) for row in results[0]):
            rows = yield from self.sql(f"SELECT mapping FROM retl.request WHERE id = {id}")
            self.requests.append((id, self.ids.index(int(rows[0][0][0])), "sync", None))
        yield from self.settle()
        yield from self.sql(f"ALTER TABLE {self.table}_away RENAME TO h{self.number}")
        self.broken = False

    def column_step(self, value):
        """The column c comes, with a value for all, or goes."""
        if self.broken:
            return
        if "c" in self.columns:
            yield from self.sql(f"ALTER TABLE {self.table} DROP COLUMN c")
            self.columns.remove("c")
            self.rows = {number: [{c: v for c, v in row.items() if c != "c"} for row in rows]
                         for number, rows in self.rows.items()}
        else:
            yield from self.sql(f"ALTER TABLE {self.table} ADD COLUMN c text DEFAULT {literal(value)}")
            self.columns.append("c")
            self.rows = {number: [dict(row, c=value) for row in rows] for number, rows in self.rows.items()}
        yield from self.settle()

    def twice_step(self, number):
        """A key comes twice, or once again."""
        rows = self.rows.get(number)
        if not rows or self.broken:
            return
        if len(rows) == 1:
            row = dict(rows[0], a=(rows[0]["a"] + 1) % 4)
            columns = ", ".join(self.columns)
            yield from self.sql(f"INSERT INTO {self.table} ({columns}) VALUES ({', '.join(literal(row[c]) for c in self.columns)})")
            self.rows[number] = [rows[0], row]
        else:
            yield from self.sql(self.put_sql(number, rows[1]).join(("BEGIN;", ";COMMIT")))
            self.rows[number] = [rows[1]]

    def release_step(self, m):
        held = self.mappings[m].held
        if held is not None:
            statement = f"SELECT retl.release_run({held.id})"
            if not (self.mappings[m].enabled and self.on):
                yield from self.refused(statement, "55000")
                return
            yield from self.sql(statement)
            held.released = True
            self.mappings[m].held = None
            self.mappings[m].active = held
        yield from self.settle()

    def fault_step(self, m, point):
        if not (self.mappings[m].enabled and self.on):
            return
        results = yield ("fault", point, [f"SELECT retl.sync('{self.name(m)}')"])
        if isinstance(results[0], SqlError):
            raise Wrong(f"sync: {results[0]}")
        self.requests.append((int(results[0][0][0]), m, "sync", None))
        self.fault = True
        yield from self.observe()
        self.fault = False
        yield from self.settle()

    # ---- delivery, as the delivery worker records it

    def stage_1(self, run, rows):
        return run.planned and not any(int(row[1]) == run.id and row[2] == "0" for row in rows)

    def deliver_step(self, mode, all, seed):
        rng = random.Random(seed)
        for _ in range(60):
            rows = yield from self.observe()
            due = []
            for row in rows:
                m, run = self.runs[int(row[1])]
                if run is not None and not run.stopped and (row[2] == "0" or self.stage_1(run, rows)):
                    due.append((m, run, row))
            if not due:
                break
            m, run, row = rng.choice(due)
            how = "ok" if mode == "ok" else rng.choice(["ok"] * 5 + ["reject"] * 2 + ["fault", "lost", "later", "give up"])
            yield from self.attempt(m, run, row, rng, how)
            if not all and rng.random() < 0.4:
                break
        yield from self.settle()

    def attempt(self, m, run, row, rng, how):
        """One answer of the destination to one request, and its record."""
        batch, operations, body = int(row[0]), row[5], row[6]
        records = json.loads(body)
        records = records if isinstance(records, list) else [records]
        keys = run.batches[batch]
        http, maybe, kind, halves = 200, False, "accepted", None
        arrives = how == "ok"
        if how == "reject":
            http, kind = 422, "rejected"
            if len(keys) > 1:
                middle = len(keys) // 2
                listed = json.loads(row[4])
                halves = [{"records": len(part[0]), "keys": text(part[0]), "operations": part[1], "body": text(part[2])}
                          for part in ((listed[:middle], operations[:middle], records[:middle]),
                                       (listed[middle:], operations[middle:], records[middle:]))]
        elif how == "fault":
            http, kind, maybe = 503, "retry", True
            arrives = rng.random() < 0.5
        elif how == "lost":
            http, kind, maybe = None, "retry", True
            arrives = rng.random() < 0.7
        elif how == "later":
            http, kind = 429, "retry"
        elif how == "give up":
            http, kind, maybe = 503, "gave_up", True
            arrives = rng.random() < 0.5
        if arrives and self.at_destination[m] is not None:
            for key, operation, record in zip(keys, operations, records):
                if operation == "d":
                    self.at_destination[m].pop(key, None)
                else:
                    self.at_destination[m][key] = record["row"]
        results = yield from self.sql(
            f"SELECT o.record({batch}, '{kind}', {maybe}, {literal(http)}, {literal(text(halves)) if halves else 'NULL'})")
        self.maybe[batch] = self.maybe.get(batch, False) or maybe
        if kind == "retry":
            return
        del run.batches[batch]
        if halves:
            for half, id in zip((keys[:len(keys) // 2], keys[len(keys) // 2:]), json.loads(results[0][0][0])):
                self.seen_batches.add(id)
                run.batches[id] = half
                self.maybe[id] = self.maybe[batch]
        elif kind == "accepted":
            run.sent += len(keys)
        else:
            run.failed += len(keys)
            for key in keys:
                if run.planned:
                    self.mappings[m].failed(run, key, self.maybe[batch])
                else:
                    run.early.append((key, self.maybe[batch]))

    # ---- the end

    def finish(self):
        """Everything is let through; then the destination has what the model has, and nothing is sent any more."""
        self.ending = True
        yield from self.on_step()
        for m in range(len(self.mappings)):
            yield from self.enable_step(m)
        for _ in range(4):
            before = self.records
            for _ in range(2):
                yield from self.deliver_step("ok", True, 1)
                for m in range(len(self.mappings)):
                    if self.mappings[m].held is not None:
                        yield from self.release_step(m)
            if before == self.records and self.requests == [] and self.full:
                break
            yield from self.model_step()
            self.full = True
        else:
            raise Wrong("it does not come to rest")
        rows = yield from self.sql(f"SELECT id, status FROM retl.runs WHERE finished_at IS NULL AND mapping ~ '^h{self.number}m'")
        if rows[0]:
            raise Wrong(f"runs that have not ended: {rows[0]}")
        for m, mapping in enumerate(self.mappings):
            if mapping.active or mapping.held:
                raise Wrong(f"mapping {m} does not come to rest")
            self.compare_destination(m, mapping)

    full = False
    ending = False              # plans are not to wait for deliveries any more

    def compare_destination(self, m, mapping):
        d = mapping.definition
        if (self.edited[m] or self.at_destination[m] is None or d.records != [ADDED, UPDATED, DELETED]
                or d.update_when not in ("payload", "any")):
            return
        if mapping.lost_column(self.model, Run(0, d, None, 0)):
            return
        if mapping.cursor is None:
            return
        have = self.at_destination[m]
        want = {key: d.payload(row) for key, row in self.model.rows.items()
                if key not in mapping.exceptions and d.passed(row)}
        for key in set(have) | set(want):
            if key in mapping.exceptions:
                continue
            h, w = ({k: v for k, v in some[key].items() if k != "c"} if key in some else None for some in (have, want))
            if h != w:
                raise Wrong(f"mapping {m}: the destination has {h} for {key}, should have {w}; definition {vars(d)}")
        for key in mapping.exceptions:
            row = self.model.rows.get(key)
            try:
                # a delete is mapped from the row as it was
                d.payload(row if d.passes(row) else mapping.exceptions[key].acked)
                raise Wrong(f"mapping {m}: {key} can be sent, but is an exception still: {mapping.exceptions[key]}")
            except Unmappable:
                pass


def make(number, seed, flavour, drawn=None):
    history = History(number, seed, flavour, copy.deepcopy(drawn))
    history.new_batches = {}
    history.halves = {}
    history.maybe = {}
    return history
