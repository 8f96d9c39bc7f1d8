"""dbt with its adapter for PostgreSQL, from PyPI, in a virtual environment below the cache.

Kept below ~/.cache/retl ($XDG_CACHE_HOME) and made once; delete it to fetch a newer one.
"""
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile

import harness

# 1.12 needs a package that, when it is installed, fetches a program from elsewhere than PyPI.
REQUIREMENTS = ["dbt-core>=1.11,<1.12", "dbt-postgres>=1.10,<1.12"]

UNREACHABLE = re.compile(r"from versions: none|NewConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded")
PATIENCE = 600


class Cannot(Exception):
    """There is no dbt to be had here; the reason."""


def call(args):
    try:
        done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Cannot(f"{args[0]} does not end within {PATIENCE} s")
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["it says nothing"])[-1]
        if UNREACHABLE.search(done.stdout):
            raise Cannot(f"PyPI cannot be reached: {last}")
        raise harness.Failure("\n".join([f"{' '.join(args)}: status {done.returncode}", *done.stdout.splitlines()[-15:]]))


def cached():
    """The environment, made unless it is in the cache."""
    base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "retl")
    os.makedirs(base, exist_ok=True)
    home = os.path.join(base, "dbt")
    version = subprocess.run([harness.PYTHON, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    made_of = " ".join([*REQUIREMENTS, version])
    with open(home + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError), open(os.path.join(home, "made-of")) as file:
            if file.read() == made_of:
                return home
        print(f"fetching dbt into {home} ...", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=base) as new:
            call([harness.PYTHON, "-m", "venv", new])
            call([os.path.join(new, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                  "--retries", "1", "--timeout", "20", *REQUIREMENTS])
            with open(os.path.join(new, "made-of"), "w") as file:
                file.write(made_of)
            os.chmod(new, 0o755)
            # It is called as python FILE, which does not mind where it is.
            os.rename(new, home)
            os.mkdir(new)
    return home


def python(place):
    """A Python that has dbt, for the user that the tests run as."""
    home = cached()
    if not place.user:
        return os.path.join(home, "bin", "python")
    # Root's cache is root's.
    copy = place.path("dbt")
    subprocess.run(["cp", "-a", "--reflink=auto", home, copy], check=True)
    return os.path.join(copy, "bin", "python")
