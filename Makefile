# retl: Reverse ETL as a PostgreSQL extension.
#
#   make demo     install what is missing, build, and watch a first sync
#   make check    the whole test suite, on private servers
#   make check-all  the same on every version of PostgreSQL that is supported
#   make bench    a million rows to a packaged web server
#   make bench-diff   what snapshots cost, as ratios; make soak-diff: that a thousand of them leave nothing behind
#   make && make install   for use, with PGXS

EXTENSION = retl
EXTVERSION = 1.0
MODULE_big = retl

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

PG_CPPFLAGS = -I$(srcdir)/src
# PostgreSQL's own headers warn under -Wunused-parameter and -Wsign-compare.
PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -lz -lzstd

# Assertions of our own code and the named fault points that the tests drive.
ifdef RETL_TESTING
PG_CPPFLAGS += -DRETL_TESTING -DUSE_ASSERT_CHECKING
endif

SQL_PARTS = $(sort $(wildcard sql/parts/*.sql))
CONNECTORS = $(sort $(wildcard sql/connectors/*.json))
DATA_built = sql/retl--$(EXTVERSION).sql
EXTRA_CLEAN = sql/retl--$(EXTVERSION).sql $(wildcard src/*.bc src/*/*.bc)

# These work on private servers and on a copy of the sources under build/, and
# need no PostgreSQL to begin with: PGXS stays out of it.
PRIVATE_GOALS = deps check check-all demo bench bench-diff bench-delivery soak soak-diff
.DEFAULT_GOAL = all

ifneq (,$(filter $(PRIVATE_GOALS),$(MAKECMDGOALS)))

ifneq (,$(filter-out $(PRIVATE_GOALS),$(MAKECMDGOALS)))
$(error "$(MAKECMDGOALS)": ask for $(PRIVATE_GOALS) in a call of their own)
endif

.PHONY: $(PRIVATE_GOALS)
.NOTPARALLEL:

deps:
	@sh test/lib/deps.sh

# TESTS='regress/NAME isolation/NAME t/NAME' selects, ACCEPT=1 takes the output
# of the selected tests as expected, KEEP=1 leaves the temporary directory.
check: deps
	@/usr/bin/python3 -B test/lib/check.py

# The same on this PostgreSQL and on packaged ones of the other versions, which
# are unpacked below ~/.cache/retl. Needs root, and Debian's packages.
check-all: deps
	@/usr/bin/python3 -B test/lib/check_all.py

demo: deps
	@/usr/bin/python3 -B test/demo/demo.py

# ROWS=n for another size than a million.
bench:
	@sh test/lib/deps.sh bench
	@/usr/bin/python3 -B test/bench/bench.py

# CASE=wide, ROWS=n; see test/bench/diff.py.
bench-diff: deps
	@/usr/bin/python3 -B test/bench/diff.py

soak-diff: deps
	@/usr/bin/python3 -B test/bench/soak.py

# PARTS='latency batches' for some of it.
bench-delivery:
	@sh test/lib/deps.sh bench
	@/usr/bin/python3 -B test/bench/delivery.py

# Half an hour of changes, faults and crashes; MINUTES=n for another time.
soak: deps
	@/usr/bin/python3 -B test/soak/soak.py

else

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq (,$(PGXS))
$(error no pg_config: install the server development package, "make deps", or set PG_CONFIG)
endif
include $(PGXS)

# The headers of src know each other; rebuild all objects when one changes.
$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h)

# The install script is the parts in the order of their names, then one row
# for each connector file.
sql/retl--$(EXTVERSION).sql: $(SQL_PARTS) $(CONNECTORS) sql/build.sh
	sh sql/build.sh '$(SQL_PARTS)' '$(CONNECTORS)' > $@

endif
