/*
 * mappings.c
 *		create_mapping, enable_mapping, disable_mapping, drop_mapping.
 *
 * A mapping is checked whole before it is stored: its fields are compiled
 * against the connector's action, its @sql expressions against the model's
 * columns. What is edited becomes a new version; batches keep theirs.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "api/api.h"
#include "api/query.h"
#include "base/nearest.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "map/mapping.h"
#include "map/sqlexpr.h"
#include "model/model.h"

PG_FUNCTION_INFO_V1(retl_create_mapping);
PG_FUNCTION_INFO_V1(retl_enable_mapping);
PG_FUNCTION_INFO_V1(retl_disable_mapping);
PG_FUNCTION_INFO_V1(retl_drop_mapping);

#define MAX_BATCH_SIZE 100000

/* Time between two attempts at a mapping's lock. */
#define LOCK_RETRY_MS 10

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
	ARG_OR_REPLACE
};

typedef struct Definition
{
	char	   *name;
	char	   *model_name;
	char	   *destination_name;
	char	   *action;
	char	   *fields;
	char	  **records;
	int			nrecords;
	char	   *filter;			/* or NULL */
	char	   *schedule;
	bool		enabled;
	int32		batch_size;		/* 0: NULL */
	char	   *update_when;
	Datum		max_delete_percent;
	Datum		max_change_percent;
	int32		brake_min_rows;
	bool		allow_empty;
	bool		or_replace;

	RetlObject	model;
	RetlObject	destination;
} Definition;

/* --------------------------------------------------------------------------
 * Arguments
 * -------------------------------------------------------------------------- */

static Datum
percent_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	double		value;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
	value = DatumGetFloat8(DirectFunctionCall1(numeric_float8, PG_GETARG_DATUM(n)));
	if (!(value >= 0 && value <= 100))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 0 and 100", name),
				 errhint("100 never holds a run, 0 holds every one of brake_min_rows rows or more.")));
	return PG_GETARG_DATUM(n);
}

static void
read_arguments(FunctionCallInfo fcinfo, Definition *def)
{
	def->name = retl_api_text_or_null(fcinfo, ARG_NAME);
	def->model_name = retl_api_text(fcinfo, ARG_MODEL, "model");
	def->destination_name = retl_api_text(fcinfo, ARG_DESTINATION, "destination");
	def->action = retl_api_text(fcinfo, ARG_ACTION, "action");
	def->fields = retl_api_json(fcinfo, ARG_FIELDS, "fields");
	def->records = retl_api_text_array(fcinfo, ARG_RECORDS, "records", &def->nrecords);
	def->filter = retl_api_text_or_null(fcinfo, ARG_FILTER);
	def->schedule = retl_api_text(fcinfo, ARG_SCHEDULE, "schedule");
	def->enabled = retl_api_bool(fcinfo, ARG_ENABLED, "enabled");
	def->batch_size = PG_ARGISNULL(ARG_BATCH_SIZE) ? 0 : PG_GETARG_INT32(ARG_BATCH_SIZE);
	def->update_when = retl_api_text(fcinfo, ARG_UPDATE_WHEN, "update_when");
	def->max_delete_percent = percent_argument(fcinfo, ARG_MAX_DELETE_PERCENT, "max_delete_percent");
	def->max_change_percent = percent_argument(fcinfo, ARG_MAX_CHANGE_PERCENT, "max_change_percent");
	def->brake_min_rows = retl_api_int32(fcinfo, ARG_BRAKE_MIN_ROWS, "brake_min_rows");
	def->allow_empty = retl_api_bool(fcinfo, ARG_ALLOW_EMPTY, "allow_empty");
	def->or_replace = retl_api_bool(fcinfo, ARG_OR_REPLACE, "or_replace");

	if (def->name == NULL)
		def->name = def->action;
	retl_api_check_name("mapping", def->name);
	if (strcmp(def->schedule, "manual") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schedules other than \"manual\" are not supported yet"),
				 errhint("Call retl.sync() from a scheduler, or retl.sync_model() after the model's data change.")));
	if (!PG_ARGISNULL(ARG_BATCH_SIZE) && (def->batch_size < 1 || def->batch_size > MAX_BATCH_SIZE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be between 1 and %d", MAX_BATCH_SIZE),
				 errhint("Leave it out for what the destination is best at.")));
	if (def->brake_min_rows < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("brake_min_rows must not be negative")));
}

/* --------------------------------------------------------------------------
 * Checks
 * -------------------------------------------------------------------------- */

static void
check_records(Definition *def, const RetlMapping *compiled)
{
	bool		given[RETL_DELETED + 1] = {0};
	int			count = 0;

	for (int i = 0; i < def->nrecords; i++)
	{
		int			operation = RETL_ADDED;

		while (operation <= RETL_DELETED &&
			   strcmp(def->records[i], retl_operation_name(operation)) != 0)
			operation++;
		if (operation > RETL_DELETED)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is no kind of record", def->records[i]),
					 errhint("records is any of added, updated and deleted.")));
		if (!retl_mapping_takes(compiled, operation))
		{
			char	   *takes[RETL_DELETED + 1];
			int			ntakes = 0;

			for (int other = RETL_ADDED; other <= RETL_DELETED; other++)
				if (retl_mapping_takes(compiled, other))
					takes[ntakes++] = unconstify(char *, retl_operation_name(other));
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("action \"%s\" does not take %s records", def->action, def->records[i]),
					 errhint("It takes %s.", retl_api_list(ntakes, takes, MAX_LISTED))));
		}
		given[operation] = true;
	}

	/* each once, in one order, so that equal definitions are equal */
	for (int operation = RETL_ADDED; operation <= RETL_DELETED; operation++)
		if (given[operation])
			def->records[count++] = unconstify(char *, retl_operation_name(operation));
	def->nrecords = count;
	if (count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("records must not be empty"),
				 errhint("records is any of added, updated and deleted.")));
}

/*
 * payload, any, or the columns that count, given as SQL writes identifiers.
 * Stored are their bare names, separated by commas; one column called payload
 * or any is stored with a comma behind it.
 */
static void
check_update_when(Definition *def, const RetlQuery *query)
{
	List	   *columns;
	StringInfoData stored;
	ListCell   *lc;

	if (strcmp(def->update_when, "payload") == 0 || strcmp(def->update_when, "any") == 0)
		return;
	if (!SplitIdentifierString(pstrdup(def->update_when), ',', &columns) || columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("update_when is no list of columns: \"%s\"", def->update_when),
				 errhint("It is payload, any, or the names of the columns that count, separated by commas; names that are not in lower case stand in double quotes.")));
	initStringInfo(&stored);
	foreach(lc, columns)
	{
		const char *column = lfirst(lc);

		if (retl_query_column(query, column) < 0)
			retl_query_no_column(query, "update_when column", column);
		if (strchr(column, ',') != NULL || column[0] == ' ' || column[strlen(column) - 1] == ' ')
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("update_when cannot name column \"%s\"", column),
					 errhint("Give the column a name without commas, and without a space at either end.")));
		appendStringInfo(&stored, "%s%s", stored.len ? "," : "", column);
	}
	if (strcmp(stored.data, "payload") == 0 || strcmp(stored.data, "any") == 0)
		appendStringInfoChar(&stored, ',');
	def->update_when = stored.data;
}

/* An object of another owner that the mapping is to use. */
static void
require_usage(const RetlCall *call, const RetlObject *object)
{
	if (!retl_api_may(call, object->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s \"%s\"", retl_api_kind(object->kind), object->name),
				 errhint("A mapping needs the privileges of the owners of its model and its destination.")));
}

/*
 * A path that the model does not have is legal: it is absent, and a column of
 * that name may come. Mostly it is a misspelling.
 */
static void
check_paths(const RetlMapping *compiled, const RetlQuery *query)
{
	char	  **names = palloc(sizeof(char *) * query->shape.ncolumns);

	for (int i = 0; i < query->shape.ncolumns; i++)
		names[i] = query->shape.columns[i].name;
	for (int i = 0; i < retl_mapping_column_count(compiled); i++)
	{
		const char *column = retl_mapping_column(compiled, i);
		const char *nearest;

		if (retl_query_column(query, column) >= 0)
			continue;
		nearest = retl_nearest(column, query->shape.ncolumns, (const char *const *) names);
		ereport(NOTICE,
				(errmsg("the fields use column \"%s\", which the model does not have", column),
				 nearest ? errhint("Perhaps you meant \"%s\".", nearest) :
				 errhint("What is computed from it is absent.")));
	}
}

static void
check_sql(const RetlMapping *compiled, const RetlQuery *query, Oid owner)
{
	int			count = retl_mapping_sql_count(compiled);
	const char **expressions;

	if (count == 0)
		return;
	expressions = palloc(sizeof(char *) * count);
	for (int i = 0; i < count; i++)
		expressions[i] = retl_mapping_sql(compiled, i);
	retl_sql_free(retl_sql_prepare(&query->shape, count, expressions, owner, query->search_path));
}

typedef struct FilterCheck
{
	const char *filter;
	bool		parsed;			/* it is one expression: what is left is its type */
} FilterCheck;

static void
filter_callback(void *arg)
{
	const FilterCheck *check = arg;

	if (check->parsed)
		errmsg("the filter of a mapping must be a condition");
	errdetail("The filter is: %s", check->filter);
}

/* First by itself, so that it is one expression; then as what has to be boolean. */
static void
check_filter(const char *filter, const RetlQuery *query, Oid owner)
{
	FilterCheck check = {.filter = filter};
	ErrorContextCallback callback = {.callback = filter_callback, .arg = &check};
	const char *boolean;

	if (filter == NULL)
		return;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	retl_sql_free(retl_sql_prepare(&query->shape, 1, &filter, owner, query->search_path));
	check.parsed = true;
	boolean = psprintf("(%s\n) IS TRUE", filter);
	retl_sql_free(retl_sql_prepare(&query->shape, 1, &boolean, owner, query->search_path));
	error_context_stack = callback.previous;
}

/*
 * Compiles the mapping and checks it against the model as it is now. @sql and
 * filter run as the model's owner: see run/plan.c.
 */
static void
check_definition(Definition *def)
{
	RetlArgs	args = {0};
	char	   *connector;
	char	   *settings;
	RetlModel  *model;
	RetlMapping *compiled;
	RetlQuery	query = {0};

	retl_arg_int8(&args, def->destination.id);
	(void) retl_sql("SELECT c.definition::text, d.settings::text"
					" FROM retl.destination d JOIN retl.connector c ON c.name = d.connector"
					" WHERE d.id = $1", &args);
	connector = retl_result_text(0, 1);
	settings = retl_result_text(0, 2);
	compiled = retl_mapping_compile(connector, def->action, def->fields, settings, def->batch_size);
	check_records(def, compiled);

	model = retl_model_load(def->model.id);
	query.text = model->query;
	query.search_path = model->search_path;
	retl_query_analyze(&query, model->owner);
	check_update_when(def, &query);
	check_sql(compiled, &query, model->owner);
	check_filter(def->filter, &query, model->owner);
	check_paths(compiled, &query);
}

/* --------------------------------------------------------------------------
 * Storing
 * -------------------------------------------------------------------------- */

static Datum
records_datum(const Definition *def)
{
	Datum		elements[RETL_DELETED + 1];

	for (int i = 0; i < def->nrecords; i++)
		elements[i] = CStringGetTextDatum(def->records[i]);
	return PointerGetDatum(construct_array(elements, def->nrecords, TEXTOID, -1, false, TYPALIGN_INT));
}

/* $1 mapping, $2 version, $3 caller, $4.. what a version holds */
static void
version_arguments(RetlArgs *args, const Definition *def, int64 mapping, int32 version, Oid caller)
{
	args->count = 0;
	retl_arg_int8(args, mapping);
	retl_arg_int4(args, version);
	retl_arg_datum(args, REGROLEOID, ObjectIdGetDatum(caller), false);
	retl_arg_datum(args, JSONOID, CStringGetTextDatum(def->fields), false);
	retl_arg_datum(args, TEXTARRAYOID, records_datum(def), false);
	retl_arg_datum(args, INT4OID, Int32GetDatum(def->batch_size), def->batch_size == 0);
	retl_arg_text(args, def->update_when);
	retl_arg_datum(args, NUMERICOID, def->max_delete_percent, false);
	retl_arg_datum(args, NUMERICOID, def->max_change_percent, false);
	retl_arg_int4(args, def->brake_min_rows);
	retl_arg_bool(args, def->allow_empty);
	retl_arg_text(args, def->filter);
}

static void
insert_version(const Definition *def, int64 mapping, int32 version, Oid caller)
{
	RetlArgs	args;

	version_arguments(&args, def, mapping, version, caller);
	(void) retl_sql("INSERT INTO retl.mapping_version (mapping, version, created_by, fields, records, batch_size,"
					" update_when, max_delete_percent, max_change_percent, brake_min_rows, allow_empty, filter)"
					" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)", &args);
}

static int64
insert_mapping(const Definition *def, Oid owner)
{
	RetlArgs	args = {0};
	int64		id;

	retl_arg_text(&args, def->name);
	retl_arg_datum(&args, REGROLEOID, ObjectIdGetDatum(owner), false);
	retl_arg_int8(&args, def->model.id);
	retl_arg_int8(&args, def->destination.id);
	retl_arg_text(&args, def->action);
	retl_arg_text(&args, def->schedule);
	retl_arg_bool(&args, def->enabled);
	if (retl_sql("INSERT INTO retl.mapping (name, owner, model, destination, action, schedule, enabled)"
				 " VALUES ($1, $2, $3, $4, $5, $6, $7)"
				 " ON CONFLICT (name) DO NOTHING RETURNING id", &args) == 0)
		retl_api_exists(RETL_OBJECT_MAPPING, def->name);
	id = retl_result_int8(0, 1);

	insert_version(def, id, 1, owner);
	args.count = 0;
	retl_arg_int8(&args, id);
	(void) retl_sql("INSERT INTO retl.mapping_state (mapping) VALUES ($1)", &args);
	return id;
}

/* What a mapping is of cannot change: its state is that of one model at one destination. */
static void
require_same_parents(const Definition *def, int64 mapping)
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
				 errhint("Create another mapping under another name.")));
}

/*
 * A new version, if anything in it is new. The default of "enabled" leaves an
 * enabled mapping enabled: running a script of definitions again stops nothing.
 */
static void
replace_mapping(const Definition *def, int64 mapping, Oid caller)
{
	RetlArgs	args;
	int32		version;

	version_arguments(&args, def, mapping, 0, caller);
	(void) retl_sql("SELECT m.version, v.fields::text = $4::text AND v.records = $5 AND v.filter IS NOT DISTINCT FROM $12"
					" AND v.batch_size IS NOT DISTINCT FROM $6 AND v.update_when = $7"
					" AND v.max_delete_percent = $8 AND v.max_change_percent = $9"
					" AND v.brake_min_rows = $10 AND v.allow_empty = $11"
					" FROM retl.mapping m JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = m.version"
					" WHERE m.id = $1 AND $2 = 0 AND $3 IS NOT NULL", &args);
	version = retl_result_int4(0, 1);
	if (!retl_result_bool(0, 2))
		insert_version(def, mapping, ++version, caller);

	args.count = 0;
	retl_arg_int8(&args, mapping);
	retl_arg_int4(&args, version);
	retl_arg_text(&args, def->schedule);
	retl_arg_bool(&args, def->enabled);
	(void) retl_sql("UPDATE retl.mapping SET version = $2, schedule = $3, enabled = enabled OR $4, altered_at = now()"
					" WHERE id = $1", &args);
}

Datum
retl_create_mapping(PG_FUNCTION_ARGS)
{
	Definition	def = {0};
	RetlCall	call;
	RetlObject	mapping;
	bool		exists;

	read_arguments(fcinfo, &def);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, def.model_name, false, &def.model);
	require_usage(&call, &def.model);
	retl_api_get(&call, RETL_OBJECT_DESTINATION, def.destination_name, false, &def.destination);
	require_usage(&call, &def.destination);

	exists = retl_api_find(RETL_OBJECT_MAPPING, def.name, true, &mapping);
	if (exists && !def.or_replace)
		retl_api_exists(RETL_OBJECT_MAPPING, def.name);
	if (exists)
	{
		retl_api_require_owner(&call, &mapping);
		require_same_parents(&def, mapping.id);
	}

	check_definition(&def);
	if (exists)
		replace_mapping(&def, mapping.id, call.caller);
	else
		mapping.id = insert_mapping(&def, call.caller);
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
 * The mapping's lock keeps its runs from being planned or ended meanwhile. It
 * is taken before any row is locked. Who holds it does so for one chunk.
 */
static void
lock_mapping(int64 id)
{
	while (!retl_mapping_try_lock(id, AccessExclusiveLock))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_RETRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Versions, state, runs, batches and exceptions go with it by their foreign keys. */
static void
drop_mapping(int64 id)
{
	RetlArgs	args = {0};

	lock_mapping(id);
	retl_arg_int8(&args, id);
	(void) retl_sql("DELETE FROM retl.mapping WHERE id = $1", &args);
	(void) retl_sql("DELETE FROM retl.request WHERE mapping = $1", &args);
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
