/*
 * mappings.c
 *		create_mapping, enable_mapping, disable_mapping, drop_mapping.
 *
 * What a mapping is made of is checked and stored by parts.c.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "api/parts.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "model/model.h"

PG_FUNCTION_INFO_V1(retl_create_mapping);
PG_FUNCTION_INFO_V1(retl_enable_mapping);
PG_FUNCTION_INFO_V1(retl_disable_mapping);
PG_FUNCTION_INFO_V1(retl_drop_mapping);

/* Names in a detail. */
#define MAX_LISTED 10

/* Order of the arguments of create_mapping. */
enum
{
	ARG_NAME,
	ARG_MODEL,
	ARG_DESTINATION,
	ARG_ACTION,
	ARG_FIELDS,
	ARG_RECORDS,
	ARG_FILTER,
	ARG_SCHEDULE,
	ARG_ENABLED,
	ARG_BATCH_SIZE,
	ARG_UPDATE_WHEN,
	ARG_MAX_DELETE_PERCENT,
	ARG_MAX_CHANGE_PERCENT,
	ARG_BRAKE_MIN_ROWS,
	ARG_ALLOW_EMPTY,
	ARG_MAX_ATTEMPTS,
	ARG_MAX_AGE,
	ARG_OR_REPLACE
};

/* --------------------------------------------------------------------------
 * Arguments
 * -------------------------------------------------------------------------- */

static Datum
numeric_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
	return PG_GETARG_DATUM(n);
}

static void
read_arguments(FunctionCallInfo fcinfo, RetlParts *def)
{
	def->name = retl_api_text_or_null(fcinfo, ARG_NAME);
	def->action = retl_api_text(fcinfo, ARG_ACTION, "action");
	def->fields = retl_api_json(fcinfo, ARG_FIELDS, "fields");
	def->records = retl_api_text_array(fcinfo, ARG_RECORDS, "records", &def->nrecords);
	def->filter = retl_api_text_or_null(fcinfo, ARG_FILTER);
	def->schedule = retl_api_text(fcinfo, ARG_SCHEDULE, "schedule");
	def->enabled = retl_api_bool(fcinfo, ARG_ENABLED, "enabled");
	def->batch_size = PG_ARGISNULL(ARG_BATCH_SIZE) ? 0 : PG_GETARG_INT32(ARG_BATCH_SIZE);
	def->update_when = retl_api_text(fcinfo, ARG_UPDATE_WHEN, "update_when");
	def->max_delete_percent = numeric_argument(fcinfo, ARG_MAX_DELETE_PERCENT, "max_delete_percent");
	def->max_change_percent = numeric_argument(fcinfo, ARG_MAX_CHANGE_PERCENT, "max_change_percent");
	def->brake_min_rows = retl_api_int32(fcinfo, ARG_BRAKE_MIN_ROWS, "brake_min_rows");
	def->allow_empty = retl_api_bool(fcinfo, ARG_ALLOW_EMPTY, "allow_empty");

	if (!PG_ARGISNULL(ARG_MAX_ATTEMPTS))
		def->max_attempts = PG_GETARG_INT32(ARG_MAX_ATTEMPTS) > 0 ? PG_GETARG_INT32(ARG_MAX_ATTEMPTS) : -1;
	def->max_age = PG_ARGISNULL(ARG_MAX_AGE) ? NULL : PG_GETARG_INTERVAL_P(ARG_MAX_AGE);
	def->resend = "none";

	if (def->name == NULL)
		def->name = def->action;
	if (!PG_ARGISNULL(ARG_BATCH_SIZE) && def->batch_size == 0)
		def->batch_size = -1;	/* which is none either */
}

/* What a mapping is of cannot change: its state is that of one model at one destination. */
static void
require_same_parents(const RetlParts *def, int64 mapping)
{
	RetlArgs	args = {0};
	const char *differs = NULL;

	retl_arg_int8(&args, mapping);
	(void) retl_sql("SELECT model, destination, action FROM retl.mapping WHERE id = $1", &args);
	if (retl_result_int8(0, 1) != def->model.id)
		differs = "model";
	else if (retl_result_int8(0, 2) != def->destination.id)
		differs = "destination";
	else if (strcmp(retl_result_text(0, 3), def->action) != 0)
		differs = "action";
	if (differs != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the %s of mapping \"%s\" cannot be changed", differs, def->name),
				 errhint("Make another mapping of it with retl.copy_mapping().")));
}

Datum
retl_create_mapping(PG_FUNCTION_ARGS)
{
	char	   *model = retl_api_text(fcinfo, ARG_MODEL, "model");
	char	   *destination = retl_api_text(fcinfo, ARG_DESTINATION, "destination");
	bool		or_replace = retl_api_bool(fcinfo, ARG_OR_REPLACE, "or_replace");
	RetlParts def = {0};
	RetlCall	call;
	RetlObject	mapping;
	bool		exists;

	read_arguments(fcinfo, &def);
	retl_api_begin(&call, false);
	retl_parts_use(&call, RETL_OBJECT_MODEL, model, &def.model);
	retl_parts_use(&call, RETL_OBJECT_DESTINATION, destination, &def.destination);

	exists = retl_api_find(RETL_OBJECT_MAPPING, def.name, true, &mapping);
	if (exists && !or_replace)
		retl_api_exists(RETL_OBJECT_MAPPING, def.name);
	if (exists)
	{
		retl_api_require_owner(&call, &mapping);
		require_same_parents(&def, mapping.id);
	}

	retl_parts_check(&def);
	if (exists)
		retl_parts_replace(&def, mapping.id, call.caller);
	else
		mapping.id = retl_parts_insert(&def, call.caller);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_api_end(&call);
	PG_RETURN_INT64(mapping.id);
}

/* --------------------------------------------------------------------------
 * enable_mapping, disable_mapping
 * -------------------------------------------------------------------------- */

static void
set_enabled(FunctionCallInfo fcinfo, bool enabled)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	RetlCall	call;
	RetlObject	mapping;

	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);
	if (retl_api_set_enabled(&mapping, enabled) && enabled)
		retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	if (!enabled)
		retl_api_stop_runs(RETL_OBJECT_MAPPING, mapping.id, "disabled");
	retl_api_end(&call);
}

Datum
retl_enable_mapping(PG_FUNCTION_ARGS)
{
	set_enabled(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
retl_disable_mapping(PG_FUNCTION_ARGS)
{
	set_enabled(fcinfo, false);
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * drop_mapping
 * -------------------------------------------------------------------------- */

/*
 * Versions, state, runs, batches and exceptions go with it by their foreign
 * keys. Row first, as everybody who alters the mapping; then the mapping's
 * lock, which keeps its runs from being planned or ended meanwhile, and which
 * the worker holds for one chunk and never waits for; then its active runs,
 * under whose locks outcomes are recorded.
 */
static void
drop_mapping(int64 id)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, id);
	(void) retl_sql("SELECT FROM retl.mapping WHERE id = $1 FOR NO KEY UPDATE", &args);
	retl_mapping_lock(id, AccessExclusiveLock);
	(void) retl_sql("SELECT FROM retl.run WHERE mapping = $1 AND finished_at IS NULL ORDER BY id FOR UPDATE", &args);
	(void) retl_sql("DELETE FROM retl.mapping WHERE id = $1", &args);
	/* those that somebody else has in hand are the worker's to forget */
	(void) retl_sql("DELETE FROM retl.request WHERE id IN"
					" (SELECT id FROM retl.request WHERE mapping = $1 FOR UPDATE SKIP LOCKED)", &args);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
}

void
retl_api_drop_mappings(const RetlObject *parent, bool cascade)
{
	RetlArgs	args = {0};
	int64		count;
	int64	   *ids;
	char	  **names;

	retl_arg_int8(&args, parent->id);
	count = retl_sql(parent->kind == RETL_OBJECT_MODEL ?
					 "SELECT id, name FROM retl.mapping WHERE model = $1 ORDER BY name" :
					 "SELECT id, name FROM retl.mapping WHERE destination = $1 ORDER BY name", &args);
	if (count == 0)
		return;
	ids = palloc(sizeof(int64) * count);
	names = palloc(sizeof(char *) * count);
	for (int64 i = 0; i < count; i++)
	{
		ids[i] = retl_result_int8(i, 1);
		names[i] = retl_result_text(i, 2);
	}
	if (!cascade)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop %s \"%s\" because mappings use it",
						retl_api_kind(parent->kind), parent->name),
				 errdetail_plural("It is used by mapping %s.", "It is used by mappings %s.", count,
								  retl_api_list(count, names, MAX_LISTED)),
				 errhint("Drop them first, or give cascade => true. Nothing is deleted at a destination.")));
	for (int64 i = 0; i < count; i++)
	{
		ereport(NOTICE, (errmsg("drop cascades to mapping \"%s\"", names[i])));
		drop_mapping(ids[i]);
	}
}

Datum
retl_drop_mapping(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	bool		if_exists;
	RetlCall	call;
	RetlObject	mapping;

	/* nothing depends on a mapping: cascade is there to have one form for all */
	(void) retl_api_bool(fcinfo, 1, "cascade");
	if_exists = retl_api_bool(fcinfo, 2, "if_exists");

	retl_api_begin(&call, false);
	if (if_exists && !retl_api_find(RETL_OBJECT_MAPPING, name, false, &mapping))
		ereport(NOTICE, (errmsg("mapping \"%s\" does not exist, skipping", name)));
	else
	{
		retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
		retl_api_require_owner(&call, &mapping);
		drop_mapping(mapping.id);
	}
	retl_api_end(&call);
	PG_RETURN_VOID();
}
