"""The state model against an oracle: random histories, and all short ones.

    oracle.py --socket DIR --port N [--data DIR] [--histories N] [--seed N] [--flavour NAME] [--steps] [--no-shrink]

Each history has its own table, model, destination and mappings on one server, on which no worker runs (retl.enabled
= off): the snapshot worker's work is done by CALL retl.work(), and deliveries by o.record(), which records outcomes
as the delivery worker does. Many histories are driven side by side. What differs from the model (oracle_model.py) is
shrunk and printed with its seed. One line of TAP for each part.
"""
import argparse
import os
import random
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import oracle_history  # noqa: E402
import oracle_short  # noqa: E402
from oracle_pg import Session, SqlError  # noqa: E402

SIDE_BY_SIDE = 25
FLAVOURS = ["plain", "brakes", "columns", "chunks", "faults", "twice"]

SETUP = r"""
CREATE SCHEMA IF NOT EXISTS o;
CREATE OR REPLACE FUNCTION o.record(p_batch bigint, p_kind text, p_maybe boolean, p_http int, p_halves json)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
  b retl.batch;
  half json;
  halves json[] := '{}';
  new_batch bigint;
  half_bytes bigint := 0;
  r retl.run;
BEGIN
  SELECT * INTO b FROM retl.batch WHERE id = p_batch;
  PERFORM FROM retl.run WHERE id = b.run FOR NO KEY UPDATE;
  UPDATE retl.batch SET attempts = attempts + 1, http_status = p_http, maybe = maybe OR p_maybe,
      status = CASE p_kind WHEN 'accepted' THEN 'delivered' WHEN 'retry' THEN 'pending'
        ELSE CASE WHEN p_halves IS NULL THEN 'failed' ELSE 'split' END END,
      finished_at = CASE WHEN p_kind <> 'retry' THEN clock_timestamp() END,
      failed = CASE WHEN p_kind IN ('rejected', 'gave_up') AND p_halves IS NULL THEN records ELSE 0 END
    WHERE id = p_batch AND finished_at IS NULL RETURNING * INTO STRICT b;
  IF p_kind IN ('rejected', 'gave_up') AND p_halves IS NULL THEN
    INSERT INTO retl.exception AS e
        (mapping, key, run, batch, operation, reason, http_status, error, maybe, resolved, failed_at)
      SELECT b.mapping, k.value::text, b.run, b.id,
          CASE substr(y.operations, k.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,
          p_kind, p_http, 'no', b.maybe, false, clock_timestamp()
        FROM retl.batch_body y CROSS JOIN json_array_elements(y.keys) WITH ORDINALITY k (value, n) WHERE y.batch = b.id
      ON CONFLICT (mapping, key) DO UPDATE SET run = excluded.run, batch = excluded.batch,
        operation = excluded.operation, reason = excluded.reason, http_status = excluded.http_status,
        error = excluded.error, maybe = e.maybe OR excluded.maybe, attempts = e.attempts + 1,
        failed_at = excluded.failed_at;
  END IF;
  FOR half IN SELECT * FROM json_array_elements(p_halves) LOOP
    INSERT INTO retl.batch (run, mapping, mapping_version, destination, stage, records, bytes, idempotency_key, maybe)
      VALUES (b.run, b.mapping, b.mapping_version, b.destination, b.stage, (half ->> 'records')::int,
        octet_length(half ->> 'body'), b.idempotency_key || '/' || cardinality(halves), b.maybe)
      RETURNING id INTO new_batch;
    INSERT INTO retl.batch_body (batch, request, body, keys, operations)
      SELECT new_batch, y.request, half ->> 'body', (half ->> 'keys')::json, half ->> 'operations'
        FROM retl.batch_body y WHERE y.batch = b.id;
    halves := halves || to_json(new_batch);
    half_bytes := half_bytes + octet_length(half ->> 'body');
  END LOOP;
  UPDATE retl.run SET
      sent = sent + CASE WHEN p_kind = 'accepted' THEN b.records ELSE 0 END,
      failed = failed + CASE WHEN p_kind IN ('rejected', 'gave_up') AND p_halves IS NULL THEN b.records ELSE 0 END,
      retried = retried + (b.attempts > 1)::int,
      open_batches = open_batches - CASE WHEN p_kind = 'retry' THEN 0 ELSE 1 - cardinality(halves) END,
      open_bytes = open_bytes - CASE WHEN p_kind = 'retry' THEN 0 ELSE b.bytes - half_bytes END
    WHERE id = b.run RETURNING * INTO r;
  IF r.planned AND r.finished_at IS NULL AND r.stop_reason IS NULL AND r.open_batches = 0 AND r.failed = 0
     AND NOT EXISTS (SELECT FROM retl.exception e WHERE e.mapping = r.mapping) THEN
    UPDATE retl.run SET status = 'succeeded', finished_at = clock_timestamp() WHERE id = r.id;
    UPDATE retl.mapping_state SET active_run = NULL WHERE mapping = r.mapping AND active_run = r.id;
  END IF;
  RETURN array_to_json(halves);
END
$$;
"""


class Server:
    def __init__(self, args):
        self.args = args
        self.faults = os.path.join(args.data, "retl_fault") if args.data else None
        self.session = Session(args.socket, args.port,
                               settings="-c synchronous_commit=off -c client_min_messages=error")
        self.session.query(SETUP)
        self.chunked = None
        self.calls = 0
        self.seconds = 0

    def write(self, name, content):
        path = os.path.join(self.faults, name)
        with open(path + ".new", "w") as file:
            file.write(content + "\n")
        os.chmod(path + ".new", 0o666)
        os.rename(path + ".new", path)

    def set_chunks(self, changes, planned_bytes):
        """Plans are made in chunks of so many changes, and wait when so many bytes are planned; None: as usual."""
        if (changes, planned_bytes) == self.chunked or self.faults is None:
            return
        self.chunked = (changes, planned_bytes)
        for name, value in (("plan_chunk_changes", changes), ("max_planned", planned_bytes)):
            if value is None:
                if os.path.exists(os.path.join(self.faults, name)):
                    os.unlink(os.path.join(self.faults, name))
            else:
                self.write(name, str(value))

    def work(self):
        self.calls += 1
        began = time.monotonic()
        result = self.session.many(["CALL retl.work()"])[0]
        self.seconds += time.monotonic() - began
        return result

    def fault(self, point, statements):
        self.work()
        results = self.session.many(statements)
        self.write(point, "error")
        self.work()
        path = os.path.join(self.faults, point)
        if os.path.exists(path):
            os.unlink(path)
        return results


class Driver:
    """Some histories side by side."""

    def __init__(self, server):
        self.server = server
        self.number = 0
        self.steps = 0
        self.records = 0

    def run(self, histories, chunks=None):
        """Drives all to their ends; returns those that went wrong, with what was wrong."""
        waiting = {}
        wrong = []
        rng = random.Random(1)
        self.server.set_chunks(None, None)
        for history in histories:
            self.advance(waiting, wrong, history, history.run(), None)
        while waiting:
            sql = [(history, generator, wish[1]) for history, (generator, wish) in waiting.items() if wish[0] == "sql"]
            if sql:
                results = self.server.session.many([statement for _, _, some in sql for statement in some])
                for history, generator, statements in sql:
                    answer, results = results[:len(statements)], results[len(statements):]
                    self.advance(waiting, wrong, history, generator, answer)
                continue
            work = [(history, generator) for history, (generator, wish) in waiting.items() if wish[0] == "work"]
            if work:
                if chunks:
                    paused = not any(history.ending for history, _ in work)
                    self.server.set_chunks(rng.choice([1, 2]), rng.choice([0, 1, 1, 1 << 30]) if paused else 1 << 30)
                error = self.server.work()
                for history, generator in work:
                    self.advance(waiting, wrong, history, generator, error if isinstance(error, SqlError) else None)
                continue
            for history, (generator, wish) in list(waiting.items()):
                self.advance(waiting, wrong, history, generator, self.server.fault(wish[1], wish[2]))
        return wrong

    def advance(self, waiting, wrong, history, generator, answer):
        waiting.pop(history, None)
        try:
            if isinstance(answer, SqlError):
                raise oracle_history.Wrong(f"work: {answer.code}: {answer}")
            waiting[history] = (generator, generator.send(answer))
        except StopIteration:
            self.steps += history.done
            self.records += history.records
        except (oracle_history.Wrong, AssertionError, LookupError, ValueError, TypeError, AttributeError,
                ArithmeticError) as error:
            if not isinstance(error, oracle_history.Wrong):
                error = oracle_history.Wrong("".join(traceback.format_exception(error)[-4:]))
                error.ours = True
            wrong.append((history, error))
            self.server.session.many([f"SELECT retl.drop_model('h{history.number}', cascade => true)",
                                      f"SELECT retl.drop_destination('h{history.number}')",
                                      f"DROP TABLE IF EXISTS {history.table}, {history.table}_away"])

    def history(self, seed, flavour, drawn=None):
        self.number += 1
        return oracle_history.make(self.number, seed, flavour, drawn)

    def alone(self, history, drawn):
        """What goes wrong in a history alone, or None."""
        wrong = self.run([self.history(history.seed, history.flavour, drawn)], history.flavour == "chunks")
        return wrong[0] if wrong and not hasattr(wrong[0][1], "ours") else None

    def shrink(self, history, budget=40):
        """The shortest form that still goes wrong, and how."""
        setup, steps = history.setup, history.steps[:history.done + 1]
        until = time.monotonic() + budget
        best = self.alone(history, (setup, steps))
        if best is None:
            return None
        size = max(len(steps) // 2, 1)
        while time.monotonic() < until:
            smaller = False
            for at in range(len(steps) - 1, -1, -size):
                fewer = steps[:max(at - size + 1, 0)] + steps[at + 1:]
                if len(fewer) < len(steps):
                    found = self.alone(history, (setup, fewer))
                    if found:
                        steps, best, smaller = fewer, found, True
                        break
                if time.monotonic() > until:
                    break
            if not smaller and size == 1:
                break
            if not smaller:
                size = max(size // 2, 1)
        for variant in self.smaller_setups(setup):
            if time.monotonic() > until:
                break
            found = self.alone(history, (variant(setup), steps))
            if found:
                setup, best = variant(setup), found
        return setup, steps, best

    @staticmethod
    def smaller_setups(setup):
        for at in range(len(setup["rows"]) - 1, -1, -1):
            yield lambda s, at=at: dict(s, rows=s["rows"][:at] + s["rows"][at + 1:])
        yield lambda s: dict(s, key="int")
        if len(setup["mappings"]) > 1:
            yield lambda s: dict(s, mappings=s["mappings"][:1])
            yield lambda s: dict(s, mappings=s["mappings"][:2])


def say(ok, number, name, details=""):
    print(f"{'ok' if ok else 'not ok'} {number} - {name}")
    for line in details.splitlines():
        print(f"# {line}")
    sys.stdout.flush()


def describe(setup, steps, wrong):
    history, error = wrong
    lines = [f"seed {history.seed}, flavour {history.flavour}, key {setup['key']}, rows {setup['rows']}"]
    lines += [f"  mapping {m}: {definition}" for m, definition in enumerate(setup["mappings"])]
    lines += [f"  {step}" for step in steps]
    lines += [f"at {history.trail}: {error}"]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--data")
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--one", type=int, default=None)
    parser.add_argument("--flavour", action="append")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="every short history, too")
    args = parser.parse_args()
    server = Server(args)
    driver = Driver(server)
    driver.number = int(server.session.query("SELECT coalesce(max(substr(name, 2)::int), 0) FROM retl.model"
                                             " WHERE name ~ '^h[0-9]+$'")[0][0])
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 30)
    flavours = args.flavour or [flavour for flavour in FLAVOURS if server.faults or flavour not in ("chunks", "faults")]
    failed = 0
    for number, flavour in enumerate(flavours, 1):
        began = time.monotonic()
        count = args.histories // len(flavours)
        wrong = []
        seeds = [args.one] if args.one is not None else [seed + i for i in range(count)]
        done = 0
        for first in range(0, len(seeds), SIDE_BY_SIDE):
            if args.seconds and time.monotonic() - began > args.seconds / len(flavours):
                break           # of a slow machine not as many are asked
            some = [driver.history(s, flavour) for s in seeds[first:first + SIDE_BY_SIDE]]
            wrong += driver.run(some, flavour == "chunks")
            done += len(some)
            if len(wrong) >= args.most:
                break
        seconds = time.monotonic() - began
        details = []
        for history, error in wrong[:args.most]:
            shrunk = None if args.no_shrink else driver.shrink(history)
            details.append(describe(*shrunk) if shrunk else
                           describe(history.setup, history.steps[:history.done + 1], (history, error)))
        failed += bool(wrong)
        say(not wrong, number, f"{done} {flavour} histories from seed {seeds[0]}: {driver.steps} steps, "
            f"{driver.records} records, {done / seconds:.1f} a second", "\n".join(details))
    number = len(flavours)
    for part in (oracle_short.looks, oracle_short.outcomes) if args.short else ():
        number += 1
        began = time.monotonic()
        wrong = None
        try:
            name = part(server)
        except oracle_history.Wrong as error:
            name, wrong = f"every short history: {part.__name__}", str(error)
            failed += 1
        say(wrong is None, number, f"{name}, {time.monotonic() - began:.1f} s", wrong or "")
    print(f"# {server.calls} calls of retl.work took {server.seconds:.1f} s")
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
