"""Every short history of a key, at once: a key for each.

looks()     a key for each sequence of LENGTH states (absent, or one of two values), a mapping for each set of moments
            at which it looks and each set of records that it asks for.
outcomes()  a key for each sequence of states and of what the destination answers, a mapping for each set of records,
            which looks at every moment.

Both state the rules anew, in a few lines.
"""
import itertools
import json

from oracle_history import EVENT, OPERATION, Wrong, literal, text
from oracle_pg import SqlError

LENGTH = 5
STATES = (None, "A", "B")
RECORDS = [list(some) for n in (1, 2, 3) for some in itertools.combinations(["added", "updated", "deleted"], n)]


def net(before, now):
    """What happened to a row, in the eyes of somebody who has not looked meanwhile."""
    if before == now:
        return None
    return "added" if before is None else "deleted" if now is None else "updated"


class Short:
    def __init__(self, server, name, batch_size):
        self.session = server.session
        self.server = server
        self.name = name
        self.batch_size = batch_size
        self.mappings = {}      # id -> what it is to the caller
        self.names = {}

    def sql(self, *statements):
        results = self.session.many(list(statements))
        for statement, result in zip(statements, results):
            if isinstance(result, SqlError):
                raise Wrong(f"{statement}\n  says {result}")
        return results

    def begin(self):
        self.server.set_chunks(None, None)
        self.sql(f"CREATE TABLE o.{self.name} (k text, value text)",
                 f"SELECT retl.create_destination(name => '{self.name}', connector => 'webhook', "
                 "settings => '{\"url\": \"http://127.0.0.1:9/\"}')",
                 f"SELECT retl.create_model(name => '{self.name}', query => 'o.{self.name}', key => '{{k}}')")

    def mapping(self, what, records):
        data = {"data": {"op": {"@path": "$.event"}, "row": {"@path": "$.properties"}}}
        name = f"{self.name}_{len(self.mappings)}"
        id = self.sql(f"SELECT retl.create_mapping(name => '{name}', model => '{self.name}', destination => '{self.name}', "
                      f"action => 'send', fields => {literal(text(data))}, records => '{{{','.join(records)}}}', "
                      f"enabled => true, batch_size => {self.batch_size}, max_change_percent => 100, "
                      "max_delete_percent => 100, allow_empty => true)")[0][0][0]
        self.mappings[id] = what
        self.names[id] = name

    def become(self, states):
        """states: key -> value or None."""
        values = ", ".join(f"({literal(key)}, {literal(value)})" for key, value in states.items() if value is not None)
        self.sql(f"BEGIN; TRUNCATE o.{self.name};" + (f"INSERT INTO o.{self.name} VALUES {values};" if values else "")
                 + "COMMIT")

    def sync(self, ids):
        self.sql(*[f"SELECT retl.sync('{self.names[id]}')" for id in ids])
        error = self.server.work()
        if isinstance(error, SqlError):
            raise Wrong(f"work: {error}")

    def pending(self):
        """(mapping, batch, {key: (operation, value in the payload)}) of each request, upserts first."""
        rows = self.sql("SELECT b.mapping, b.id, y.keys, y.operations, y.body, b.stage FROM retl.batch b"
                        " JOIN retl.batch_body y ON y.batch = b.id"
                        f" WHERE b.mapping IN ({','.join(self.mappings)}) AND b.status = 'pending' ORDER BY b.stage, b.id")[0]
        for mapping, batch, keys, operations, body, stage in rows:
            keys, records = json.loads(keys), json.loads(body)
            records = records if isinstance(records, list) else [records]
            if not len(keys) == len(operations) == len(records):
                raise Wrong(f"batch {batch}: {keys} {operations} {records}")
            if any(EVENT[record["op"]] != OPERATION[operation] or (operation == "d") != (stage == "1")
                   for operation, record in zip(operations, records)):
                raise Wrong(f"batch {batch}: {operations} {records} in stage {stage}")
            yield mapping, batch, {key: (OPERATION[operation], record["row"]["value"])
                                   for key, operation, record in zip(keys, operations, records)}

    def record(self, outcomes):
        self.sql(*[f"SELECT o.record({batch}, '{kind}', {maybe}, 200, NULL)" for batch, kind, maybe in outcomes])

    def end(self):
        self.session.many([f"SELECT retl.drop_model('{self.name}', cascade => true)",
                           f"SELECT retl.drop_destination('{self.name}')", f"DROP TABLE o.{self.name}"])


def looks(server):
    histories = {str(n): states for n, states in enumerate(itertools.product(STATES, repeat=LENGTH))}
    short = Short(server, "looks", len(histories))
    short.begin()
    for moments in itertools.product([False, True], repeat=LENGTH):
        if any(moments):
            for records in RECORDS:
                short.mapping((moments, records), records)
    seen = {id: {key: None for key in histories} for id in short.mappings}
    compared = 0
    for step in range(LENGTH):
        now = {key: states[step] for key, states in histories.items()}
        short.become(now)
        looking = [id for id, (moments, _) in short.mappings.items() if moments[step]]
        short.sync(looking)
        sent = {id: {} for id in looking}
        done = []
        for id, batch, records in short.pending():
            if set(sent[id]) & set(records):
                raise Wrong(f"{short.mappings[id]} step {step}: a key twice")
            sent[id].update(records)
            done.append((batch, "accepted", False))
        for id in looking:
            moments, records = short.mappings[id]
            for key, states in histories.items():
                before, want = seen[id][key], net(seen[id][key], now[key])
                want = (want, now[key] if now[key] is not None else before) if want in records else None
                if sent[id].get(key) != want:
                    raise Wrong(f"states {states}, looked at {moments} for {records}: at step {step} "
                                f"{sent[id].get(key)} is sent, should be {want}")
                seen[id][key] = now[key]
                compared += 1
        short.record(done)
    short.end()
    return f"{len(histories)} histories of {LENGTH} states, {len(short.mappings)} mappings: {compared} decisions"


def outcomes(server, length=3):
    answers = ("ok", "refused", "unknown")
    histories = {}
    for states in itertools.product(STATES, repeat=length):
        for said in itertools.product(answers, repeat=length):
            histories[str(len(histories))] = (states, said)
    short = Short(server, "outcomes", 1)
    short.begin()
    for records in RECORDS:
        short.mapping(records, records)
    # what is known of the destination: the state acknowledged, and whether it is in doubt
    known = {id: {key: (None, False) for key in histories} for id in short.mappings}
    compared = 0
    for step in range(length + 2):
        now = {key: states[min(step, length - 1)] for key, (states, _) in histories.items()}
        short.become(now)
        short.sync(short.mappings)
        sent = {id: {} for id in short.mappings}
        done = []
        for id, batch, records in short.pending():
            for key, record in records.items():
                if key in sent[id]:
                    raise Wrong(f"{histories[key]} step {step}: sent twice")
                sent[id][key] = record
                said = histories[key][1][step] if step < length else "ok"
                done.append((batch, {"ok": "accepted", "refused": "rejected", "unknown": "gave_up"}[said], said == "unknown"))
        for id, records in short.mappings.items():
            for key, (states, all_said) in histories.items():
                acked, doubt = known[id][key]
                said = all_said[step] if step < length else "ok"
                if doubt:
                    operation = "deleted" if now[key] is None else "updated" if "updated" in records else "added"
                else:
                    operation = net(acked, now[key])
                want = operation if operation in records else None
                got = sent[id].get(key, (None, None))
                if got[0] != want or want not in (None, "deleted") and got[1] != now[key]:
                    raise Wrong(f"states {states}, answers {all_said}, records {records}: at step {step} {got} is sent, "
                                f"should be {want} of {now[key]}, known was {(acked, doubt)}")
                if want == "deleted" and not doubt and got[1] != acked:
                    raise Wrong(f"states {states}, answers {all_said}: the delete carries {got[1]}, not {acked}")
                if want is None or said == "ok":
                    # what a mapping did not ask for counts as acknowledged
                    known[id][key] = (now[key], False)
                else:
                    known[id][key] = (acked, doubt or said == "unknown")
                compared += 1
        short.record(done)
    short.server.work()
    rows = short.sql(f"SELECT count(*) FROM retl.exception WHERE mapping IN ({','.join(short.mappings)})")
    if rows[0][0][0] != "0":
        raise Wrong(f"{rows[0][0][0]} exceptions are left, though everything was accepted at last")
    short.end()
    return f"{len(histories)} histories of {length} states and answers, {len(short.mappings)} mappings: {compared} decisions"
