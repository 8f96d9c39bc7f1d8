"""What must be at a destination: the rules of a mapping's state, written once more, as simply as can be.

Nothing is taken from the extension but its words. Whole states are kept, not differences; a log is a list; every rule
is a line. Rows are dicts by column, keys are their JSON texts.
"""
ADDED, UPDATED, DELETED = "added", "updated", "deleted"


class Unmappable(Exception):
    """The row cannot be mapped, or the filter cannot be evaluated on it."""


def divide(a, b):
    if b == 0:
        raise Unmappable("division by zero")
    return a // b


# What a mapping may send, and the same in its language. "c" comes and goes.
FIELDS = {
    "whole": ({"@path": "$.properties"}, lambda row: dict(row)),
    "a": ({"a": {"@path": "$.a"}}, lambda row: {"a": row["a"]}),
    "sql": ({"a": {"@path": "$.a"}, "q": {"@sql": "100 / v"}}, lambda row: {"a": row["a"], "q": divide(100, row["v"])}),
    "c": ({"a": {"@path": "$.a"}, "c": {"@path": "$.c"}}, lambda row: {name: row[name] for name in ("a", "c") if name in row}),
}
FILTERS = {
    "a > 1": lambda row: row["a"] > 1,
    "v > 0 AND a <> 2": lambda row: row["v"] > 0 and row["a"] != 2,
    "12 / v > 4": lambda row: divide(12, row["v"]) > 4,
}
# What counts as an update, beside the payload.
UPDATE_WHEN = {"payload": None, "any": None, "v, b": ("v", "b")}


class Definition:
    def __init__(self, records, fields="whole", filter=None, update_when="payload", max_delete=100, max_change=100,
                 min_rows=100, allow_empty=True, batch_size=1):
        self.records = records
        self.fields = fields
        self.filter = filter
        self.update_when = update_when
        self.max_delete = max_delete
        self.max_change = max_change
        self.min_rows = min_rows
        self.allow_empty = allow_empty
        self.batch_size = batch_size

    def payload(self, row):
        return FIELDS[self.fields][1](row)

    def passes(self, row):
        return row is not None and (self.filter is None or FILTERS[self.filter](row))

    def passed(self, row):
        """The row as far as the mapping saw it."""
        try:
            return row if self.passes(row) else None
        except Unmappable:
            return None

    def matters(self, old, new):
        columns = UPDATE_WHEN[self.update_when]
        # A column that went is no change.
        old = {column: value for column, value in old.items() if column in new}
        if self.update_when == "any":
            return any(new[column] != value for column, value in old.items())
        if columns:
            return any(old.get(column) != new[column] for column in columns if column in new)
        try:
            before = self.payload(old)
        except Unmappable:
            return True
        return before != self.payload(new)


class Model:
    """Rows as of the last snapshot, and what each snapshot changed."""

    def __init__(self):
        self.seq = 0
        self.rows = {}
        self.columns = None
        self.ever = set()
        self.log = []           # (seq, key, old, new)
        self.usable = {}        # seq -> rows of the snapshot
        self.returned = {}

    def snapshot(self, table, columns):
        """table: key -> list of rows; a key that comes twice stays as it was."""
        self.seq += 1
        new = {}
        for key, rows in table.items():
            if len(rows) == 1:
                new[key] = rows[0]
            elif len(rows) > 1 and key in self.rows and self.seq > 1:
                new[key] = self.rows[key]
        for key in set(new) | set(self.rows):
            old, now = self.rows.get(key), new.get(key)
            if self.seq > 1 and old != now:
                # A column that comes is no change; one that goes is, so that the row can be had as it was.
                same = old and now and all(column in now and now[column] == value for column, value in old.items())
                if not same:
                    self.log.append((self.seq, key, old, now))
        self.rows = new
        self.columns = list(columns)
        self.ever |= set(columns)
        self.usable[self.seq] = sum(len(rows) for rows in table.values() if len(rows) == 1)
        self.returned[self.seq] = sum(len(rows) for rows in table.values())

    def unchanged(self, to):
        for seq in range(self.seq + 1, to + 1):
            self.usable[seq] = self.usable[self.seq]
            self.returned[seq] = self.returned[self.seq]
        self.seq = to

    def state(self, seq):
        rows = dict(self.rows)
        for number, key, old, _ in reversed(self.log):
            if number > seq:
                if old is None:
                    rows.pop(key, None)
                else:
                    rows[key] = old
        return rows

    def touched(self, start, end):
        return {key for seq, key, _, _ in self.log if start < seq <= end}


class Exception_:
    """What is not known to be at the destination as it is: the row last acknowledged, and whether that is in doubt."""

    def __init__(self, acked, maybe):
        self.acked = acked
        self.maybe = maybe

    def __repr__(self):
        return f"(acked {self.acked}{', maybe' if self.maybe else ''})"


class Run:
    def __init__(self, id, definition, start, end, resend=False):
        self.id = id
        self.definition = definition
        self.start = start
        self.end = end
        self.resend = resend
        self.released = False
        self.planned = False
        self.stopped = False
        self.want = {}          # key -> (operation, payload or None: any)
        self.trouble = {}       # key -> Exception_: could not be mapped
        self.before = {}        # key -> Exception_: what holds if it is not delivered
        self.sent = 0
        self.failed = 0
        self.batches = {}       # id -> keys, as long as they are open
        self.keys = {}          # key -> batch, all that were put into batches
        self.failures = {}      # key -> Exception_
        self.early = []         # failed before all was planned: (key, maybe)


class Mapping:
    def __init__(self, definition):
        self.definition = definition
        self.enabled = True
        self.cursor = None
        self.resend = False
        self.exceptions = {}
        self.active = None
        self.held = None
        self.sent_keys = {}     # run -> keys of its batches

    # ---- what requests do first

    def reset(self):
        if self.cursor is not None:
            self.resend = True

    def baseline(self, seq):
        self.exceptions = {}
        self.cursor = seq
        self.resend = False

    def mark(self, model, keys):
        """Keys whose state is not known: unless they never were."""
        if self.cursor is None:
            return
        before = model.state(self.cursor)
        for key in keys:
            if key in model.rows or key in model.touched(self.cursor, model.seq):
                if key in self.exceptions:
                    self.exceptions[key].maybe = True
                else:
                    self.exceptions[key] = Exception_(before.get(key), True)

    # ---- planning

    def would_send(self, model, run, before, after):
        """How many records the run's changes are: added, updated, deleted. Earlier exceptions are not changes."""
        d = run.definition
        counts = {ADDED: 0, UPDATED: 0, DELETED: 0}
        for key in model.touched(run.start, run.end):
            old, new = d.passed(before.get(key)), after.get(key)
            try:
                new = new if d.passes(new) else None
            except Unmappable:
                continue
            if key in self.exceptions and not (run.resend and new):
                continue
            if old and new and not run.resend:
                try:
                    if old != new and d.matters(old, new):
                        counts[UPDATED] += 1
                except Unmappable:
                    counts[UPDATED] += 1
            elif new:
                counts[ADDED] += 1
            elif old:
                counts[DELETED] += 1
        return counts[ADDED], counts[UPDATED], counts[DELETED]

    def brake(self, model, run):
        """Whether the run is held."""
        d = run.definition
        if run.start is None or run.released:
            return False
        before, after = model.state(run.start), model.state(run.end)
        added = sum(1 for key in after if key not in before)
        updated = sum(1 for key in after if key in before and before[key] != after[key])
        deleted = sum(1 for key in before if key not in after)
        rows = max(model.usable[run.end] - added + deleted, 1)
        if d.filter is not None:
            rows = max(sum(1 for row in before.values() if d.passed(row)), 1)
        if d.filter is not None or not run.resend:
            added, updated, deleted = self.would_send(model, run, before, after)
        return (DELETED in d.records and deleted > 0 and model.returned[run.end] == 0 and not d.allow_empty
                or DELETED in d.records and deleted >= d.min_rows and 100 * deleted / rows > d.max_delete
                or UPDATED in d.records and not run.resend and updated >= d.min_rows
                and 100 * updated / rows > d.max_change)

    @staticmethod
    def log_of(model, key):
        return [entry for entry in model.log if entry[1] == key]

    def lost_column(self, model, run):
        return run.definition.fields == "c" and "c" not in model.columns and "c" in model.ever

    def plan(self, model, run):
        """Fills in run.want, run.trouble and run.before."""
        d = run.definition
        rows = model.state(run.end)
        base = model.state(run.start) if run.start is not None else {}
        for key in set(rows) | set(base) | set(self.exceptions):
            known = self.exceptions.get(key)
            old = known.acked if known else d.passed(base.get(key))
            maybe = known.maybe if known else False
            # sent as added, what was there before is in doubt
            again = run.resend and key in rows
            keep = Exception_(old, maybe or again and old is not None)
            try:
                new = rows.get(key) if d.passes(rows.get(key)) else None
            except Unmappable:
                if known or run.resend or rows.get(key) != base.get(key):
                    run.trouble[key] = keep
                continue

            if run.resend and new is not None:
                operation = ADDED
            elif maybe:
                keep = Exception_(old, maybe)
                operation = DELETED if new is None else UPDATED if UPDATED in d.records else ADDED
            elif old is None and new is None:
                continue
            elif old is None:
                operation = ADDED
            elif new is None:
                operation = DELETED
            elif old == new:
                continue
            else:
                operation = UPDATED
            if operation not in d.records:
                continue
            if operation == DELETED and known and known.acked is None:
                # in doubt; the last row there was goes with it
                last = [row for seq, k, row, now in self.log_of(model, key) if seq <= run.end and now is None]
                known.acked = keep.acked = old = rows.get(key) or last[-1]
            run.before[key] = keep
            if again and operation != DELETED:
                was = known.acked if known else base.get(key)
                run.before[key] = Exception_(was, maybe or was is not None)
            if run.stopped and not run.planned and key not in run.keys:
                run.trouble[key] = keep
                continue
            try:
                if operation == DELETED:
                    payload = d.payload(old)
                    if maybe:
                        payload = None
                elif operation == UPDATED and not maybe and not d.matters(old, new):
                    # it is checked first whether the row can be mapped at all
                    d.payload(new)
                    continue
                else:
                    payload = d.payload(new)
            except Unmappable:
                run.trouble[key] = keep
                continue
            run.want[key] = (operation, payload)

    def planned(self, run):
        run.planned = True
        self.cursor = run.end
        self.resend = False

    # ---- outcomes

    def failed(self, run, key, maybe):
        before = run.before[key]
        run.failures[key] = Exception_(before.acked, before.maybe or maybe)

    def ended(self, run):
        """What is not in doubt after the run is settled."""
        self.exceptions = {**run.trouble, **run.failures}
        self.active = None
