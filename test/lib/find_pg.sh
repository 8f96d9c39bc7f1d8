#!/bin/sh
# Prints the pg_config to build and test with: $PG_CONFIG, else that of the
# newest PostgreSQL with a server, headers and pg_regress, else the one in PATH.
# Fails when there is none.

usable() {
	"$1" --version >/dev/null 2>&1 &&
		[ -x "$("$1" --bindir)/postgres" ] &&
		[ -f "$("$1" --includedir-server)/postgres.h" ] &&
		[ -x "$(dirname "$("$1" --pgxs)")/../test/regress/pg_regress" ]
}

if [ -n "${PG_CONFIG:-}" ]; then
	usable "$PG_CONFIG" || exit 1
	command -v "$PG_CONFIG"
	exit
fi
for version in $(ls /usr/lib/postgresql 2>/dev/null | grep -E '^[0-9]+$' | sort -rn); do
	[ "$version" -ge 15 ] || break
	if usable "/usr/lib/postgresql/$version/bin/pg_config"; then
		echo "/usr/lib/postgresql/$version/bin/pg_config"
		exit
	fi
done
usable pg_config || exit 1
command -v pg_config
