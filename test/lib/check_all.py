"""make check-all: the suite on this machine's PostgreSQL, then on packaged servers of the other versions.

Closes with one "N passed, N failed" over all. A version whose packages do not come, or on
which the sources do not build, counts as failed; where roots cannot be made at all the
other versions count as skipped, and the reason is said.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import roots  # noqa: E402

CHECK = os.path.join("test", "lib", "check.py")
TOTALS = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")


def interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def check(args, env=None):
    """Runs check.py, in a session of its own; returns what it counted."""
    counted = None
    child = subprocess.Popen(args, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, errors="replace", start_new_session=True)
    try:
        for line in child.stdout:
            found = TOTALS.match(line.rstrip("\n"))
            if found:
                # There is one closing line over all.
                counted = [int(number or 0) for number in found.groups()]
            else:
                print(line, end="", flush=True)
        status = child.wait()
    except BaseException:
        # It ends its servers first.
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    if counted is None or (status != 0 and counted[1] == 0):
        raise harness.Failure(f"ended with status {status}")
    return counted


def check_version(version):
    if version is None:
        return check([sys.executable, "-B", os.path.join(harness.ROOT, CHECK)], {"RETL_STORM_SECONDS": "120", "RETL_SWEEP_ALL": "1", "EXACT_SECONDS": "120", **os.environ})
    root = roots.prepare(version)
    env = {name: os.environ[name] for name in ("TESTS", "JOBS", "KEEP", "RETL_STORM_SEED", "EXACT_SEED") if name in os.environ}
    tmp = tempfile.mkdtemp(prefix=f"retl-{version}-")
    try:
        os.chmod(tmp, 0o1777)
        env["OTHER_VERSION"] = "yes"
        env["PG_CONFIG"] = f"/usr/lib/postgresql/{version}/bin/pg_config"
        return check(roots.command(root, harness.ROOT, tmp, ["/usr/bin/python3", "-B", os.path.join("/retl", CHECK)], env))
    finally:
        if os.environ.get("KEEP"):
            print(f"the directory above is {tmp} here")
        else:
            subprocess.run(["rm", "-rf", tmp])


def program():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    if os.environ.get("ACCEPT"):
        raise harness.Failure("ACCEPT is for make check: expected output is that of one version")
    ours = harness.Postgres().major
    others = [version for version in roots.SUITES if version != ours]
    totals = [0, 0, 0]
    summary = []
    impossible = None
    try:
        roots.check_possible()
    except roots.Cannot as error:
        impossible = str(error)
    for version in [None, *others]:
        name = f"PostgreSQL {version or ours}"
        print(f"== {name}", flush=True)
        began = time.monotonic()
        if version and impossible:
            counted, why = [0, 0, 1], f"SKIPPED: {impossible}"
            print(why, flush=True)
        else:
            try:
                counted = check_version(version)
                why = "{} passed, {} failed, {} skipped".format(*counted)
            except harness.Failure as error:
                print(f"FAILED {name}: {error}", flush=True)
                counted, why = [0, 1, 0], "FAILED: " + str(error).splitlines()[0]
        totals = [before + more for before, more in zip(totals, counted)]
        summary.append(f"{name}: {why}; {time.monotonic() - began:.0f} s")
    print("== all", *summary, sep="\n")
    print(f"{totals[0]} passed, {totals[1]} failed" + (f", {totals[2]} skipped" if totals[2] else ""), flush=True)
    return 1 if totals[1] or not totals[0] else 0


if __name__ == "__main__":
    harness.main(program)
