# retl: Reverse ETL as a PostgreSQL extension.
#
#   make demo     install what is missing, build, and watch a first sync
#   make check    the whole test suite, on private servers
#   make && make install   for use, with PGXS

EXTENSION = retl
EXTVERSION = 1.0
MODULE_big = retl

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl

# Assertions of our own code and the named fault points that the tests drive.
ifdef RETL_TESTING
PG_CPPFLAGS += -DRETL_TESTING -DUSE_ASSERT_CHECKING
endif

SQL_PARTS = $(sort $(wildcard sql/parts/*.sql))
CONNECTORS = $(sort $(wildcard sql/connectors/*.json))
DATA_built = sql/retl--$(EXTVERSION).sql
EXTRA_CLEAN = sql/retl--$(EXTVERSION).sql $(wildcard src/*.bc src/*/*.bc)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# The headers of src know each other; rebuild all objects when one changes.
$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h)

# The install script is the parts in the order of their names, then one row
# for each connector file.
sql/retl--$(EXTVERSION).sql: $(SQL_PARTS) $(CONNECTORS) sql/build.sh
	sh sql/build.sh '$(SQL_PARTS)' '$(CONNECTORS)' > $@
