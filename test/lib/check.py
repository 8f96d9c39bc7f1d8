"""make check: the whole suite, on private servers.

One result a regress file, an isolation spec and a TAP test. Closes with
"N passed, N failed" and, where something was skipped, ", N skipped".
"""
import concurrent.futures
import os
import re
import shlex
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import dbt_env  # noqa: E402
import harness  # noqa: E402

TEST_TIMEOUT = 600

# A TAP test with this line is long and the same for every PostgreSQL: check-all runs it once.
ONE_VERSION = "\n# check-all: one version\n"

# One with this line runs dbt.
NEEDS_DBT = "\n# needs: dbt\n"

# Tests that need no worker must not meet one.
WITHOUT_WORKERS = ["retl.enabled = off"]
WITH_WORKERS = ["retl.allowed_private_networks = '127.0.0.0/8'"]


class Results:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, name, passed, failed, skipped, seconds, details=""):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        count = f", {passed} passed, {failed} failed" if passed + failed > 1 else ""
        if skipped:
            count += f", {skipped} SKIPPED"
        print(f"{'FAILED' if failed else 'ok':6} {name}  {seconds:.1f} s{count}", flush=True)
        if details:
            print("       | " + details.rstrip().replace("\n", "\n       | "), flush=True)


def shorten(text, lines=150):
    every = text.splitlines()
    if len(every) <= lines:
        return text
    return "\n".join(every[:lines]) + f"\n... {len(every) - lines} more lines"


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def basenames(tree, kind, ending):
    directory = os.path.join(tree, *kind)
    if not os.path.isdir(directory):
        return []
    return sorted(name[:-len(ending)] for name in os.listdir(directory) if name.endswith(ending))


def compare(place, server, results, tree, kind, name, accept, env):
    """One regress file or isolation spec, in a database of its own."""
    isolation = kind == "isolation"
    database = re.sub(r"\W", "_", f"{kind}_{name}")
    inputs = os.path.join(tree, "test", "isolation") if isolation else os.path.join(tree, "test")
    expected_parent = inputs if isolation else tree
    output = place.mkdir("out", kind, name)
    # Up to 15 the output directory is searched, from 16 --expecteddir.
    os.symlink(os.path.join(expected_parent, "expected"), os.path.join(output, "expected"))
    args = [place.pg.pg_isolation_regress if isolation else place.pg.pg_regress,
            f"--inputdir={inputs}", f"--outputdir={output}", f"--bindir={place.pg.bindir}",
            f"--host={server.socket}", "--port=5432", "--user=postgres", f"--dbname={database}",
            "--load-extension=retl", *([f"--expecteddir={expected_parent}"] if place.pg.major >= 16 else []), name]
    began = time.monotonic()
    log_from = os.path.getsize(server.log)
    status, said = place.run(args, timeout=TEST_TIMEOUT, check=False, cwd=output, env=env)
    result = os.path.join(output, "results", name + ".out")
    wanted = os.path.join(expected_parent, "expected", name + ".out")
    taken = ""
    if status != 0 and accept and os.path.exists(result):
        home = os.path.join(harness.ROOT, "test/isolation/expected" if isolation else "expected")
        os.makedirs(home, exist_ok=True)
        shutil.copyfile(result, os.path.join(home, name + ".out"))
        taken = "the output was taken as expected"
        status = 0
    details = taken
    if status != 0:
        details = read(os.path.join(output, "regression.diffs")) or said
        if not os.path.exists(wanted):
            details = f"there is no expected output; this is the actual one:\n{read(result)}"
        with open(server.log, errors="replace") as log:
            log.seek(log_from)
            bad = [line for line in log if re.search(r"PANIC|FATAL|TRAP|was terminated by signal", line)]
        details = shorten(details) + ("\nserver log:\n" + "".join(bad[:20]) if bad else "")
    results.add(f"{kind}/{name}", int(status == 0), int(status != 0), 0, time.monotonic() - began, details)
    place.run([place.pg.program("dropdb"), "--if-exists", "--force", "-h", server.socket, "-U", "postgres", database],
              check=False, timeout=60)


def tap(place, tree, name, more):
    """One TAP file; returns what Results.add takes."""
    began = time.monotonic()
    directory = place.mkdir("out", "t", name)
    env = {
        "TESTDIR": directory,
        "TESTDATADIR": place.mkdir("out", "t", name, "tmp_check"),
        "TESTLOGDIR": place.mkdir("out", "t", name, "tmp_check", "log"),
        "PG_CONFIG": place.pg.pg_config,
        "PG_REGRESS": place.pg.pg_regress,
        "PG_TEST_PORT_DIR": place.mkdir("portlock"),
        "PG_TEST_TIMEOUT_DEFAULT": "60",
        "PERL5LIB": f"{place.pg.perl}:{os.path.join(tree, 'test', 'lib')}",
        "RETL_TREE": tree,
        "RETL_CONF": place.path("tap.conf"),
        "PGDATABASE": "postgres",
        **more,
        # length and seed of what is drawn at random
        **{key: value for key, value in os.environ.items() if key.startswith(("RETL_STORM_", "RETL_SCHEDULE_", "RETL_SWEEP_"))},
    }
    status, said = place.run(["prove", "-v", "--merge", os.path.join(tree, "test", "t", name + ".pl")],
                             timeout=TEST_TIMEOUT, check=False, cwd=directory, env=env)
    lines = said.splitlines()
    good = [line for line in lines if re.match(r"ok \d", line)]
    bad = [line for line in lines if re.match(r"not ok\b", line) and not re.search(r"#\s*TODO", line, re.I)]
    skipped = [line for line in lines
               if re.match(r"(ok\b.*|1\.\.0\s*)#\s*skip", line, re.I)]
    passed = len(good) - sum(line.startswith("ok") for line in skipped)
    failed = len(bad)
    if status != 0 and failed == 0:
        # It died, or it ran another number of tests than it planned.
        failed = 1
    known = [line for line in lines if re.match(r"not ok \d.*#\s*TODO", line, re.I)]
    details = "\n".join(known + skipped[:10] + ([f"... {len(skipped) - 10} more skipped"] if len(skipped) > 10 else []))
    if failed:
        # What prove repeats at its end says less than the lines themselves.
        interesting = [line for line in lines if not re.match(r"\s*(ok\b|# Subtest)", line)]
        details = shorten("\n".join(interesting), 80)
        logs = os.path.join(directory, "tmp_check", "log")
        for log in sorted(os.listdir(logs)) if os.path.isdir(logs) else []:
            if log.startswith("regress_log") or log.endswith(".log"):
                tail = read(os.path.join(logs, log)).splitlines()[-10 if log.startswith("regress_log") else -40:]
                details += f"\n{log}:\n" + "\n".join(tail)
    return f"t/{name}", passed, failed, len(skipped), time.monotonic() - began, details


def program():
    selected = shlex.split(os.environ.get("TESTS", ""))
    accept = bool(os.environ.get("ACCEPT"))
    began = time.monotonic()
    results = Results()
    known = set()

    def wanted(kind, names):
        known.update(f"{kind}/{name}" for name in names)
        return [name for name in names if not selected or f"{kind}/{name}" in selected or kind in selected]

    with harness.Workplace("check", keep=bool(os.environ.get("KEEP"))) as place:
        print(f"{place.pg.version_text}, as {place.home_owner.pw_name}", flush=True)
        place.build(f"check-{place.pg.major}", ["RETL_TESTING=1"])
        tree = place.path("tree")
        place.copy(["test", "expected", "sql"], tree)
        with open(place.path("tap.conf"), "w") as conf:
            conf.write("\n".join([*place.conf, "shared_preload_libraries = 'retl'", ""]))

        every = basenames(tree, ["test", "sql"], ".sql")
        regress = wanted("regress", [name for name in every if not name.startswith("live_")])
        live = wanted("regress", [name for name in every if name.startswith("live_")])
        isolation = wanted("isolation", basenames(tree, ["test", "isolation", "specs"], ".spec"))
        taps = wanted("t", basenames(tree, ["test", "t"], ".pl"))
        if os.environ.get("OTHER_VERSION"):
            once = [name for name in taps if ONE_VERSION in read(os.path.join(tree, "test", "t", name + ".pl"))]
            taps = [name for name in taps if name not in once]
            if once:
                print(f"on one version only, so not here: {' '.join('t/' + name for name in once)}", flush=True)
        more = {}
        if any(NEEDS_DBT in read(os.path.join(tree, "test", "t", name + ".pl")) for name in taps):
            try:
                more["RETL_DBT"] = dbt_env.python(place)
            except dbt_env.Cannot as error:
                more["RETL_NO_DBT"] = str(error)
        unknown = [name for name in selected if name not in known and name not in ("regress", "isolation", "t")]
        if unknown:
            raise harness.Failure(f"no such test: {' '.join(unknown)}")

        if regress or isolation:
            server = harness.Server(place, "regress", WITHOUT_WORKERS).start()
            # Else the first test would see the notices about the new roles.
            server.psql("CREATE EXTENSION retl; DROP EXTENSION retl CASCADE;", options=["-v", "VERBOSITY=terse"])
            for name in regress:
                compare(place, server, results, tree, "regress", name, accept, {})
            for name in isolation:
                compare(place, server, results, tree, "isolation", name, accept, {})
            server.stop()
        if live:
            receiver = harness.Receiver(place)
            server = harness.Server(place, "live", WITH_WORKERS).start()
            server.psql("CREATE EXTENSION retl; DROP EXTENSION retl CASCADE;", options=["-v", "VERBOSITY=terse"])
            for name in live:
                compare(place, server, results, tree, "regress", name, accept, {"RECEIVER": receiver.url})
            server.stop()
        if taps:
            jobs = int(os.environ.get("JOBS") or os.cpu_count())
            with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
                running = [pool.submit(tap, place, tree, name, more) for name in taps]
                try:
                    for done in concurrent.futures.as_completed(running):
                        results.add(*done.result())
                except BaseException:
                    for future in running:
                        future.cancel()
                    # Their programs end first, so that the threads can.
                    place.close()
                    raise

    print(f"{time.monotonic() - began:.0f} s")
    print(f"{results.passed} passed, {results.failed} failed"
          + (f", {results.skipped} skipped" if results.skipped else ""), flush=True)
    if results.passed + results.failed == 0:
        return 1
    return 1 if results.failed else 0


if __name__ == "__main__":
    harness.main(program)
