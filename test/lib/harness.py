"""Private builds, servers and receivers for check, demo and bench.

Nothing is installed: the library is staged below a temporary directory and the
servers are pointed there. Everything that was started ends and the directory
goes when the Workplace closes, also after ctrl-C or a failure.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIB = os.path.join(ROOT, "test", "lib")
PYTHON = "/usr/bin/python3"

PR_SET_CHILD_SUBREAPER = 36


class Failure(Exception):
    """Something that stops the whole program, said in one message."""


class Postgres:
    """The installation to build against."""

    def __init__(self):
        found = subprocess.run(["sh", os.path.join(LIB, "find_pg.sh")], stdout=subprocess.PIPE, text=True)
        if found.returncode != 0:
            raise Failure("no usable PostgreSQL 15 or newer found: try \"make deps\" or set PG_CONFIG")
        self.pg_config = found.stdout.strip()
        self.bindir = self.ask("--bindir")
        self.sharedir = self.ask("--sharedir")
        self.pkglibdir = self.ask("--pkglibdir")
        self.version_text = self.ask("--version")
        self.major = int(re.search(r"\d+", self.version_text).group())
        test = os.path.join(os.path.dirname(os.path.dirname(self.ask("--pgxs"))), "test")
        self.pg_regress = os.path.join(test, "regress", "pg_regress")
        self.pg_isolation_regress = os.path.join(test, "isolation", "pg_isolation_regress")
        self.perl = os.path.join(test, "perl")

    def ask(self, what):
        return subprocess.run([self.pg_config, what], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def program(self, name):
        return os.path.join(self.bindir, name)


def children_of(pid):
    """All descendants, from /proc."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
                parents.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def direct_children():
    """(pid, state, session) of our own children."""
    try:
        pids = [pid for task in os.listdir("/proc/self/task")
                for pid in open(f"/proc/self/task/{task}/children").read().split()]
    except OSError:
        # A kernel without that file.
        pids = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            if int(fields[1]) == os.getpid():
                yield int(pid), fields[0], int(fields[3])


def interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


class Workplace:
    """A temporary directory and the processes that work in it."""

    def __init__(self, name, keep=False):
        os.umask(0o022)
        self.keep = keep
        self.children = []
        self.pg = Postgres()
        self.user = {}
        self.home_owner = pwd.getpwuid(os.geteuid())
        if os.geteuid() == 0:
            # initdb refuses root.
            try:
                self.home_owner = pwd.getpwnam("postgres")
            except KeyError:
                raise Failure("run as root, this needs the user \"postgres\", which the server package creates")
            self.user = {"user": self.home_owner.pw_uid, "group": self.home_owner.pw_gid, "extra_groups": []}
        # What we lose track of becomes our child when its parent ends. Such a child must be reaped soon when it ends, as
        # no server starts anew while its predecessor's pid is taken.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.lock = threading.Lock()
        threading.Thread(target=self.reap, daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        # Sockets live below it, whose paths must be short.
        where = tempfile.gettempdir()
        self.dir = tempfile.mkdtemp(prefix=f"retl-{name}-", dir=where if len(where) < 24 else "/tmp")
        os.chmod(self.dir, 0o755)
        self.own(self.dir)
        self.env = {
            "PATH": self.pg.bindir + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": self.dir,
            "TMPDIR": self.mkdir("tmp"),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def __enter__(self):
        return self

    def __exit__(self, *args):
        # A second ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.close()

    def own(self, path):
        if self.user:
            os.chown(path, self.home_owner.pw_uid, self.home_owner.pw_gid)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def mkdir(self, *names):
        path = self.path(*names)
        os.makedirs(path, exist_ok=True)
        self.own(path)
        return path

    def spawn(self, args, **options):
        """Starts a program as the servers' user, in a session of its own: ctrl-C reaches us alone."""
        env = dict(self.env, **options.pop("env", {}))
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("cwd", self.dir)
        with self.lock:
            child = subprocess.Popen(args, env=env, start_new_session=True, **self.user, **options)
            self.children.append(child)
        return child

    def reap(self):
        while True:
            time.sleep(0.05)
            with self.lock:
                ours = {child.pid for child in self.children}
                for pid, state, session in direct_children():
                    # What shares our session is waited for where it was started.
                    if state == "Z" and pid not in ours and session != os.getsid(0):
                        with contextlib.suppress(ChildProcessError):
                            os.waitpid(pid, os.WNOHANG)

    def run(self, args, timeout=None, check=True, **options):
        """Runs a program as the servers' user; returns (exit status, output)."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.STDOUT)
        child = self.spawn(args, text=True, errors="replace", **options)
        try:
            output, _ = child.communicate(timeout=timeout)
            status = child.returncode
        except subprocess.TimeoutExpired:
            self.end_group(child)
            output, _ = child.communicate()
            output = (output or "") + f"\ntimed out after {timeout} s\n"
            status = -1
        with self.lock:
            self.children.remove(child)
        if check and status != 0:
            raise Failure(f"{' '.join(args)} failed ({status}):\n{output}")
        return status, output

    def end_group(self, child):
        for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
                return

    def postmasters(self):
        for directory, _, names in os.walk(self.dir):
            if "postmaster.pid" in names:
                with contextlib.suppress(OSError, ValueError):
                    with open(os.path.join(directory, "postmaster.pid")) as file:
                        yield int(file.readline())

    def end_strays(self):
        """Ends every process that we started and that is still there."""
        for pid in self.postmasters():
            if pid in children_of(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)
        for number, patience in ((None, 3), (signal.SIGTERM, 3), (signal.SIGKILL, 5)):
            left = children_of(os.getpid())
            for pid in left:
                if number is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            until = time.monotonic() + patience
            while time.monotonic() < until:
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                if not children_of(os.getpid()):
                    return
                time.sleep(0.02)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGTERM)
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
        self.end_strays()
        if self.keep:
            print(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def copy(self, names, target):
        """Copies files and trees, readable by everyone, times kept, what vanished removed."""
        wanted = set()
        for name in names:
            source = os.path.join(ROOT, name)
            files = [source] if os.path.isfile(source) else [
                os.path.join(directory, file) for directory, _, files in os.walk(source) for file in files]
            for file in files:
                if re.search(r"\.(o|so|bc|pyc)$|/retl--[^/]*\.sql$", file) and "/upgrade/" not in file \
                        and "/fixtures/" not in file:
                    continue
                relative = os.path.relpath(file, ROOT)
                to = os.path.join(target, relative)
                wanted.add(relative)
                before = os.stat(file)
                with contextlib.suppress(OSError):
                    after = os.stat(to)
                    if (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size):
                        continue
                os.makedirs(os.path.dirname(to), exist_ok=True)
                shutil.copyfile(file, to)
                os.chmod(to, 0o755 if before.st_mode & 0o100 else 0o644)
                os.utime(to, ns=(before.st_atime_ns, before.st_mtime_ns))
        for directory, _, files in os.walk(target):
            for file in files:
                relative = os.path.relpath(os.path.join(directory, file), target)
                if relative.split(os.sep)[0] in names and relative not in wanted \
                        and not re.search(r"\.(o|so|bc)$|/retl--[^/]*\.sql$", relative):
                    os.unlink(os.path.join(target, relative))

    def build(self, name, make_options=()):
        """Builds a copy of the sources under build/NAME and stages it; a build in the tree is left alone."""
        target = os.path.join(ROOT, "build", name)
        try:
            os.makedirs(target, exist_ok=True)
            if os.stat(target).st_uid != os.geteuid():
                raise PermissionError
            lock = open(target + ".lock", "w")
        except OSError:
            # Another user's, who must be able to build there again.
            target = self.path("build", name)
            os.makedirs(target, exist_ok=True)
            lock = open(target + ".lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = f"{self.pg.version_text} {self.pg.pg_config} {sorted(make_options)}\n"
        stamp_file = os.path.join(target, ".built-for")
        with contextlib.suppress(OSError):
            with open(stamp_file) as file:
                if file.read() != stamp:
                    shutil.rmtree(target)
                    os.makedirs(target)
        with open(stamp_file, "w") as file:
            file.write(stamp)
        self.copy(["src", "sql", "Makefile", "retl.control"], target)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PG"))}
        self.stage = self.path("stage")
        make = ["make", "-s", f"PG_CONFIG={self.pg.pg_config}", "with_llvm=no", *make_options]
        for step in ([f"-j{os.cpu_count()}", "all"], ["install", f"DESTDIR={self.stage}"]):
            done = subprocess.run([*make, *step], cwd=target, env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            if done.returncode != 0:
                raise Failure(f"the build failed:\n{done.stdout}")
        self.conf = [
            f"dynamic_library_path = '{self.stage}{self.pg.pkglibdir}:$libdir'",
            # Debian's servers before 18 have a setting of their own.
            f"extension_control_path = '{self.stage}{self.pg.sharedir}:$system'" if self.pg.major >= 18
            else f"extension_destdir = '{self.stage}'",
        ]
        lock.close()


class Server:
    """A private cluster, reached by a socket in its directory."""

    def __init__(self, place, name, settings=(), durable=False):
        self.place = place
        self.data = place.path(name)
        self.socket = place.mkdir(name + ".s")
        self.log = place.path(name + ".log")
        self.process = None
        place.run([place.pg.program("initdb"), "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
                   "--locale=C.UTF-8", "--no-sync"])
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.write("\n".join([
                "", *place.conf,
                "shared_preload_libraries = 'retl'",
                "listen_addresses = ''",
                f"unix_socket_directories = '{self.socket}'",
                "log_line_prefix = '%m [%p] %b %q%u@%d '",
                "timezone = 'UTC'",
                *([] if durable else ["fsync = off"]),
                *settings, ""]))

    def start(self):
        log = open(self.log, "a")
        self.process = self.place.spawn([self.place.pg.program("postgres"), "-D", self.data], stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            status, _ = self.place.run([self.place.pg.program("pg_isready"), "-q", "-h", self.socket], check=False)
            if status == 0:
                return self
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failure(f"the server does not start:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self, how=signal.SIGINT, timeout=60):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"the server does not stop:\n{self.tail()}")

    def tail(self, lines=40):
        try:
            with open(self.log, errors="replace") as log:
                return "".join(log.readlines()[-lines:])
        except OSError:
            return ""

    def psql(self, sql, database="postgres", options=(), variables=None, check=True, timeout=None, **more):
        args = [self.place.pg.program("psql"), "-X", "-q", "-h", self.socket, "-U", "postgres", "-d", database,
                "-v", "ON_ERROR_STOP=1", *options]
        for name, value in (variables or {}).items():
            args += ["-v", f"{name}={value}"]
        file = tempfile.NamedTemporaryFile("w", suffix=".sql", dir=self.place.path("tmp"), delete=False)
        with file:
            file.write(sql)
        os.chmod(file.name, 0o644)
        try:
            status, output = self.place.run([*args, "-f", file.name], check=False, timeout=timeout, **more)
        finally:
            os.unlink(file.name)
        output = output.replace(f"psql:{file.name}:", "psql:")
        if check and status != 0:
            raise Failure(f"psql failed:\n{output}\nserver log:\n{self.tail()}")
        return output.rstrip("\n")

    def value(self, sql, database="postgres", **options):
        return self.psql(sql, database, ["-A", "-t"], **options)


class Receiver:
    """The HTTP receiver of test/lib/receiver.py."""

    def __init__(self, place, name="receiver", options=()):
        self.log = place.path(name + ".jsonl")
        # A copy, because the servers' user may be unable to read the tree.
        program = place.path("receiver.py")
        shutil.copyfile(os.path.join(LIB, "receiver.py"), program)
        self.process = place.spawn([PYTHON, "-B", program, "--log", self.log, *options],
                                   stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            raise Failure("the receiver does not start")
        self.port = int(line)
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, path, body=None, timeout=120):
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.url + path, data=data), timeout=timeout) as answer:
            return json.loads(answer.read())

    def requests(self):
        return [line for line in map(json.loads, open(self.log)) if line["event"] == "request"]


def main(program):
    """Runs a program's main function: one message for what stops it, and status 130 after ctrl-C."""
    try:
        sys.exit(program())
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
