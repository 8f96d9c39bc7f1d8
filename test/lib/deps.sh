#!/bin/sh
# Installs what building, demo and tests need and what is not there yet, on
# Debian and Ubuntu. Usage: deps.sh [bench]
#
# A server package would create and start a cluster, nginx would start a web
# server: both are prevented for the time of the installation, by files that
# are removed again, beside those of the administrator.
set -eu
here=$(dirname "$0")

have_program() { command -v "$1" >/dev/null 2>&1; }
have_perl() { perl "-M$1" -e1 >/dev/null 2>&1; }
have_header() { echo "#include <$1>" | cc -E -x c - >/dev/null 2>&1; }
have_pg() { sh "$here/find_pg.sh" >/dev/null; }

want=
need() { want="$want $*"; }

have_program make || need make
have_program cc && have_header stdio.h || need gcc libc6-dev
have_program cc && have_header curl/curl.h || need libcurl4-openssl-dev
have_program cc && have_header zlib.h || need zlib1g-dev
have_program cc && have_header zstd.h || need libzstd-dev
have_program zstd || need zstd
[ -x /usr/bin/python3 ] || need python3
have_program openssl || need openssl
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
have_program perl && have_program prove || need perl
have_perl IPC::Run || need libipc-run-perl
have_perl IO::Pty || need libio-pty-perl
if [ "${1:-}" = bench ]; then
	[ -x /usr/sbin/nginx ] || need nginx-light
	[ -e /usr/lib/nginx/modules/ngx_http_echo_module.so ] || need libnginx-mod-http-echo
fi
# pg_cron, where the server is a package and there is one of it: else its test is skipped.
cron=
if have_pg; then
	case $(sh "$here/find_pg.sh") in
	/usr/lib/postgresql/*/bin/pg_config)
		version=$(sh "$here/find_pg.sh" | cut -d/ -f5)
		[ -e "/usr/share/postgresql/$version/extension/pg_cron.control" ] || cron="postgresql-$version-cron"
		;;
	esac
fi
if ! have_pg && [ -n "${PG_CONFIG:-}" ]; then
	echo "PG_CONFIG is \"$PG_CONFIG\", which has no server, headers and pg_regress beside it" >&2
	exit 1
fi
if have_pg && [ -z "$want$cron" ]; then
	exit 0
fi

have_program apt-get || [ -n "$want" ] || exit 0
have_program apt-get || {
	echo "missing:$want; without apt-get, please install it by hand (see README.md)" >&2
	exit 1
}
if [ "$(id -u)" = 0 ]; then
	as_root=
elif have_program sudo; then
	# Without a terminal sudo must not try to ask.
	if [ -t 1 ] && [ -e /dev/tty ] && (: </dev/tty) 2>/dev/null; then as_root=sudo; else as_root='sudo -n'; fi
else
	echo "missing:$want; please install it as root, or install sudo" >&2
	exit 1
fi
apt() {
	$as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
		apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

echo "installing what is missing (apt-get) ..."
apt update || echo "apt-get update failed; going on with the lists there are" >&2

new_server=
if ! have_pg; then
	# A server that is there decides the version, else the newest there is.
	version=
	for installed in $(ls /usr/lib/postgresql 2>/dev/null | grep -E '^[0-9]+$' | sort -rn); do
		if [ "$installed" -ge 15 ] && [ -x "/usr/lib/postgresql/$installed/bin/postgres" ]; then
			version=$installed
			break
		fi
	done
	if [ -z "$version" ]; then
		version=$(apt-cache search --names-only '^postgresql-server-dev-[0-9]+$' |
			sed -n 's/^postgresql-server-dev-\([0-9]*\) .*/\1/p' | sort -rn | head -n 1)
		new_server=yes
	fi
	if [ -z "$version" ] || [ "$version" -lt 15 ]; then
		echo "no PostgreSQL 15 or newer in the package lists; see README.md" >&2
		exit 1
	fi
	need "postgresql-$version" "postgresql-server-dev-$version"
	cron="postgresql-$version-cron"
fi
if [ -n "$cron" ] && apt-cache show "$cron" >/dev/null 2>&1; then
	need "$cron"
elif [ -z "$want" ]; then
	exit 0
fi

undo=
trap 'eval "$undo"' EXIT
trap 'exit 130' INT TERM HUP

place() { # file mode content: root's, removed again at the end
	undo="$undo $as_root rm -f '$1';"
	$as_root mkdir -p "$(dirname "$1")"
	printf '%b' "$3" | $as_root tee "$1" >/dev/null
	$as_root chmod "$2" "$1"
}

if [ -n "$new_server" ]; then
	conf=/etc/postgresql-common/createcluster.d
	new_dir=
	[ -d "$conf" ] || new_dir=yes
	place "$conf/zz-retl-deps.conf" 644 'create_main_cluster = false\n'
	[ -z "$new_dir" ] || undo="$undo $as_root rmdir --ignore-fail-on-non-empty $conf;"
	if have_program pg_conftool &&
		[ "$(pg_conftool -bs /etc/postgresql-common/createcluster.conf show create_main_cluster)" != off ]; then
		echo "installing postgresql-$version would create a cluster here: please install it and postgresql-server-dev-$version by hand" >&2
		exit 1
	fi
fi
if [ ! -e /usr/sbin/policy-rc.d ]; then
	place /usr/sbin/policy-rc.d 755 '#!/bin/sh\nexit 101\n'
fi
new_nginx=
case "$want" in *nginx-light*) new_nginx=yes ;; esac

said=$(mktemp)
undo="$undo rm -f '$said';"
# shellcheck disable=SC2086 # a list
apt install -y --no-install-recommends --no-upgrade $want >"$said" 2>&1 || {
	cat "$said" >&2
	exit 1
}

if [ -n "$new_nginx" ] && have_program systemctl; then
	$as_root systemctl disable --quiet nginx >/dev/null 2>&1 || true
fi
have_pg || {
	echo "installed$want, but found no usable PostgreSQL after it" >&2
	exit 1
}
