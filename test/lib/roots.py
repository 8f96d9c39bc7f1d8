"""Packaged PostgreSQL servers of other versions, each in a root directory of its own.

A newer Debian's server needs a newer C library than this machine has, so it cannot
stand beside ours: it comes with all it needs, compiler included, in a directory that
is entered with chroot. The packages are those of newer suites of the mirror that this
machine is configured with; apt and dpkg of this machine do the work on state of their
own, so nothing is installed here. A root is kept in the cache and may be deleted.
"""
import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess
import tempfile

import harness

# PostgreSQL version: the suites that may have it, the best first.
SUITES = {15: ["bookworm"], 17: ["trixie"], 18: ["testing", "sid"]}

# Dependencies come with them. postgresql-client has pg_regress and the modules for TAP.
PACKAGES = ["base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "diffutils", "findutils", "gcc",
            "grep", "libc-bin", "libc6-dev", "libcurl4-openssl-dev", "libio-pty-perl", "libipc-run-perl", "libzstd-dev", "make", "mawk",
            "netbase", "openssl", "perl", "procps", "python3", "sed", "tzdata", "zlib1g-dev", "zstd",
            "postgresql-{version}", "postgresql-client-{version}"]
# Without their dependencies, which would be clang and LLVM, or are there.
HEADERS = ["postgresql-server-dev-{version}", "postgresql-{version}-cron"]

PATIENCE = 900
USER = "postgres:x:64115:64115::/tmp:/bin/sh"


class Cannot(Exception):
    """This machine is not one for it."""


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "retl", "roots")


def os_release():
    fields = {}
    with contextlib.suppress(OSError), open("/etc/os-release") as file:
        for line in file:
            name, _, value = line.strip().partition("=")
            fields[name] = value.strip("\"'")
    return fields


def configured_sources():
    """What /etc/apt has: (URI, suites, components, key file or None)."""
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*.list"))]:
        with contextlib.suppress(OSError), open(path) as file:
            for line in file:
                found = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#\n]+)", line)
                if found:
                    options, uri, suite, components = found.groups()
                    key = re.search(r"signed-by=(\S+)", options or "", re.I)
                    yield uri, [suite], components.split(), key and key.group(1)
    for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")):
        with open(path) as file:
            text = "".join(line for line in file if not line.startswith("#"))
        for stanza in re.split(r"\n\s*\n", text):
            fields = {name.lower(): value.strip() for name, value in
                      re.findall(r"^([\w-]+):((?:[^\n]*)(?:\n[ \t][^\n]*)*)", stanza, re.M)}
            if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
                for uri in fields.get("uris", "").split():
                    yield uri, fields.get("suites", "").split(), fields.get("components", "").split(), fields.get("signed-by")


def mirror():
    """The Debian mirror of this machine: (URI, key file or None)."""
    release = os_release()
    ours = {release.get("VERSION_CODENAME"), "stable", "oldstable", "testing", "unstable", "sid"}
    for uri, suites, components, key in configured_sources():
        if release.get("ID") == "debian" and ours & set(suites) and "main" in components:
            newer = "/usr/share/keyrings/debian-archive-keyring.gpg"
            if os.path.exists(newer):
                key = newer
            return uri, key if key and key.startswith("/") else None
    raise Cannot("no Debian mirror is configured in /etc/apt")


def check_possible():
    """Raises Cannot where a root cannot be made or entered."""
    for program in ("apt-get", "dpkg-deb", "unshare", "chroot"):
        if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            raise Cannot(f"there is no {program}")
    if os.geteuid() != 0:
        raise Cannot("chroot needs root")
    if subprocess.run(["unshare", "--mount", "--ipc", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        raise Cannot("no mount namespace can be made, as in a container without CAP_SYS_ADMIN")
    mirror()


def call(args, **options):
    """Runs a program; a failure is a harness.Failure with what it said."""
    try:
        done = subprocess.run(["timeout", "--kill-after=10", str(PATIENCE), *args], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    except OSError as error:
        raise harness.Failure(str(error))
    if done.returncode != 0:
        said = done.stdout.splitlines()[-15:]
        why = f"no end after {PATIENCE} s" if done.returncode == 124 else f"status {done.returncode}"
        raise harness.Failure("\n".join([f"{args[0]}: {why}", *said]))
    return done.stdout


class Apt:
    """apt-get with state of its own, for which nothing is installed, and one suite."""

    def __init__(self, directory, suite):
        uri, key = mirror()
        for name in ("state/lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(directory, name))
        self.archives = os.path.join(directory, "cache/archives")
        with open(os.path.join(directory, "status"), "w"):
            pass
        with open(os.path.join(directory, "sources.list"), "w") as file:
            file.write(f"deb {f'[signed-by={key}] ' if key else ''}{uri} {suite} main\n")
        settings = {
            "Dir::State": f"{directory}/state", "Dir::State::status": f"{directory}/status", "Dir::Cache": f"{directory}/cache",
            "Dir::Etc::sourcelist": f"{directory}/sources.list", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Install-Recommends": "false", "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "3", "Acquire::http::Timeout": "30", "Acquire::https::Timeout": "30",
            "Acquire::Languages": "none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self.env = dict(os.environ, LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive")

    def run(self, *args, **options):
        return call(["apt-get", "-q", "-y", *self.options, *args], env=self.env, **options)

    def has(self, package):
        return package in call(["apt-cache", *self.options, "pkgnames", package], env=self.env).split()


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "w") as file:
        file.write(content)


def unpack(archives, root):
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(os.path.join(root, "usr", name))
        os.symlink(os.path.join("usr", name), os.path.join(root, name))
    for archive in archives:
        call(["dpkg-deb", "--extract", archive, root])
    # What the packages' own scripts would have done and is needed here.
    for name in ("dev", "proc", "tmp", "retl", "root", "var/tmp"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    for name, target in (("sh", "dash"), ("awk", "mawk")):
        if not os.path.lexists(os.path.join(root, "usr/bin", name)):
            os.symlink(target, os.path.join(root, "usr/bin", name))
    with open(os.path.join(root, "usr/share/base-passwd/passwd.master")) as users, \
            open(os.path.join(root, "usr/share/base-passwd/group.master")) as groups:
        write(os.path.join(root, "etc/passwd"), users.read().replace(":*:", ":x:") + USER + "\n")
        write(os.path.join(root, "etc/group"), groups.read().replace(":*:", ":x:") + "postgres:x:64115:\n")
    write(os.path.join(root, "etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")
    write(os.path.join(root, "etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")
    bundle = []
    for path in sorted(glob.glob(os.path.join(root, "usr/share/ca-certificates/*/*.crt"))):
        with open(path) as file:
            bundle.append(file.read())
    write(os.path.join(root, "etc/ssl/certs/ca-certificates.crt"), "".join(bundle))


def fetch(version, target):
    """Makes the root of a version."""
    missing = []
    for suite in SUITES[version]:
        with tempfile.TemporaryDirectory(prefix="apt-", dir=cache()) as directory:
            apt = Apt(directory, suite)
            apt.run("update")
            if not apt.has(f"postgresql-{version}"):
                missing.append(suite)
                continue
            apt.run("install", "--download-only", *[name.format(version=version) for name in PACKAGES])
            apt.run("download", *[name.format(version=version) for name in HEADERS], cwd=apt.archives)
            unpack(sorted(glob.glob(os.path.join(apt.archives, "*.deb"))), target)
            return
    raise harness.Failure(f"the mirror has no postgresql-{version} in {', '.join(missing)}")


def prepare(version):
    """The root of a version, made unless it is in the cache."""
    os.makedirs(cache(), exist_ok=True)
    root = os.path.join(cache(), f"postgresql-{version}")
    made_of = " ".join([*SUITES[version], *PACKAGES, *HEADERS, USER]) + "\n"
    with open(root + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError), open(os.path.join(root, "made-of")) as file:
            if file.read() == made_of:
                return root
        print(f"fetching packages of PostgreSQL {version} into {root} ...", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=cache()) as new:
            fetch(version, new)
            write(os.path.join(new, "made-of"), made_of)
            os.chmod(new, 0o755)
            os.rename(new, root)
            os.mkdir(new)
    return root


ENTER = """
set -e
root=$1 tree=$2 tmp=$3
shift 3
mount --bind "$tree" "$root/retl"
mount --bind "$tmp" "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec chroot "$root" "$@"
"""


def command(root, tree, tmp, args, env):
    """How to run a program in a root: the tree is /retl there and tmp is /tmp; the mounts go with it."""
    settings = dict({"PATH": "/usr/sbin:/usr/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}, **env)
    return ["unshare", "--mount", "--ipc", "--propagation", "private", "sh", "-c", ENTER, "enter", root, tree, tmp,
            "/usr/bin/env", "-i", *[f"{name}={value}" for name, value in settings.items()], *args]
