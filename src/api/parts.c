/*
 * parts.c
 *		Checking and storing what a mapping is made of; see parts.h.
 *
 * A mapping is checked whole before it is stored: its fields are compiled
 * against the connector's action, its @sql expressions against the model's
 * columns.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/datum.h"
#include "utils/varlena.h"

#include "api/api.h"
#include "api/parts.h"
#include "api/query.h"
#include "base/nearest.h"
#include "base/sql.h"
#include "map/mapping.h"
#include "map/sqlexpr.h"
#include "model/model.h"
#include "run/schedule.h"

#define MAX_BATCH_SIZE 100000

/* Names in a hint. */
#define MAX_LISTED 10

/* --------------------------------------------------------------------------
 * Checks
 * -------------------------------------------------------------------------- */

static void
check_percent(Datum given, const char *name)
{
	double		value = DatumGetFloat8(DirectFunctionCall1(numeric_float8, given));

	if (!(value >= 0 && value <= 100))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 0 and 100", name),
				 errhint("100 never holds a run, 0 holds every one of brake_min_rows rows or more.")));
}

static double
interval_ms(const Interval *interval)
{
	return interval->time / 1000.0 + (interval->day + 30.0 * interval->month) * SECS_PER_DAY * 1000.0;
}

static void
check_values(const RetlParts *def)
{
	RetlSchedule schedule;

	retl_api_check_name("mapping", def->name);
	check_percent(def->max_delete_percent, "max_delete_percent");
	check_percent(def->max_change_percent, "max_change_percent");
	retl_schedule_parse(def->schedule, &schedule);
	if (def->batch_size < 0 || def->batch_size > MAX_BATCH_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be between 1 and %d", MAX_BATCH_SIZE),
				 errhint("Leave it out for what the destination is best at.")));
	if (def->max_attempts < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts must be 1 or more"),
				 errhint("Leave it out for the default: no limit while the destination cannot be reached.")));
	if (def->max_age != NULL && interval_ms(def->max_age) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_age must be longer than nothing"),
				 errhint("Leave it out for no limit.")));
	if (def->brake_min_rows < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("brake_min_rows must not be negative")));
}
static void
check_records(RetlParts *def, const RetlMapping *compiled)
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
check_update_when(RetlParts *def, const RetlQuery *query)
{
	List	   *columns;
	StringInfoData stored;
	ListCell   *lc;

	if (def->update_when_stored)
		return;
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

void
retl_parts_use(const RetlCall *call, RetlObjectKind kind, const char *name, RetlObject *object)
{
	/* locked, so that who drops it sees what uses it, or we that it is gone */
	retl_api_get(call, kind, name, true, object);
	if (!retl_api_may(call, object->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s \"%s\"", retl_api_kind(kind), object->name),
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

void
retl_parts_check(RetlParts *def)
{
	RetlArgs	args = {0};
	char	   *connector;
	char	   *settings;
	RetlModel  *model;
	RetlMapping *compiled;
	RetlQuery	query = {0};

	check_values(def);
	retl_arg_int8(&args, def->destination.id);
	(void) retl_sql("SELECT c.definition::text, d.settings::text"
					" FROM retl.destination d JOIN retl.connector c ON c.name = d.connector"
					" WHERE d.id = $1", &args);
	connector = retl_result_text(0, 1);
	settings = retl_result_text(0, 2);
	compiled = retl_mapping_compile(connector, def->action, def->fields, settings, def->batch_size);
	check_records(def, compiled);

	model = retl_model_get(def->model.id);
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
copy_numeric(int column)
{
	bool		isnull;

	return datumCopy(retl_result_datum(0, column, &isnull), false, -1);
}

void
retl_parts_load(int64 mapping, RetlParts *def)
{
	RetlArgs	args = {0};
	Datum	   *records;
	char	   *model;
	char	   *destination;
	Datum		max_age;
	bool		isnull;

	memset(def, 0, sizeof(*def));
	retl_arg_int8(&args, mapping);
	(void) retl_sql("SELECT m.name, m.action, v.fields::text, v.records, v.filter, m.schedule, coalesce(v.batch_size, 0),"
					" v.update_when, v.max_delete_percent, v.max_change_percent, v.brake_min_rows, v.allow_empty,"
					" o.name, d.name, coalesce(v.max_attempts, 0), v.max_age"
					" FROM retl.mapping m JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = m.version"
					" JOIN retl.model o ON o.id = m.model JOIN retl.destination d ON d.id = m.destination"
					" WHERE m.id = $1", &args);
	def->name = retl_result_text(0, 1);
	def->action = retl_result_text(0, 2);
	def->fields = retl_result_text(0, 3);
	deconstruct_array(DatumGetArrayTypeP(retl_result_datum(0, 4, &isnull)), TEXTOID, -1, false,
					  TYPALIGN_INT, &records, NULL, &def->nrecords);
	def->records = palloc(sizeof(char *) * Max(def->nrecords, 1));
	for (int i = 0; i < def->nrecords; i++)
		def->records[i] = TextDatumGetCString(records[i]);
	def->filter = retl_result_text(0, 5);
	def->schedule = retl_result_text(0, 6);
	def->batch_size = retl_result_int4(0, 7);
	def->update_when = retl_result_text(0, 8);
	def->update_when_stored = true;
	def->max_delete_percent = copy_numeric(9);
	def->max_change_percent = copy_numeric(10);
	def->brake_min_rows = retl_result_int4(0, 11);
	def->allow_empty = retl_result_bool(0, 12);
	def->resend = "none";
	def->max_attempts = retl_result_int4(0, 15);
	max_age = retl_result_datum(0, 16, &isnull);
	if (!isnull)
	{
		def->max_age = palloc(sizeof(Interval));
		memcpy(def->max_age, DatumGetIntervalP(max_age), sizeof(Interval));
	}
	model = retl_result_text(0, 13);
	destination = retl_result_text(0, 14);
	(void) retl_api_find(RETL_OBJECT_MODEL, model, false, &def->model);
	(void) retl_api_find(RETL_OBJECT_DESTINATION, destination, false, &def->destination);
}

static Datum
records_datum(const RetlParts *def)
{
	Datum		elements[RETL_DELETED + 1];

	for (int i = 0; i < def->nrecords; i++)
		elements[i] = CStringGetTextDatum(def->records[i]);
	return PointerGetDatum(construct_array(elements, def->nrecords, TEXTOID, -1, false, TYPALIGN_INT));
}

/* $1 mapping, $2 version, $3 caller, $4.. what a version holds */
static void
version_arguments(RetlArgs *args, const RetlParts *def, int64 mapping, int32 version, Oid caller)
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
	retl_arg_text(args, def->resend);
	retl_arg_datum(args, INT4OID, Int32GetDatum(def->max_attempts), def->max_attempts == 0);
	retl_arg_datum(args, INTERVALOID, IntervalPGetDatum(def->max_age), def->max_age == NULL);
}

static void
insert_version(const RetlParts *def, int64 mapping, int32 version, Oid caller)
{
	RetlArgs	args;

	version_arguments(&args, def, mapping, version, caller);
	(void) retl_sql("INSERT INTO retl.mapping_version (mapping, version, created_by, fields, records, batch_size,"
					" update_when, max_delete_percent, max_change_percent, brake_min_rows, allow_empty, filter, resend, max_attempts, max_age)"
					" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)", &args);
}

int64
retl_parts_insert(const RetlParts *def, Oid owner)
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
				 " ON CONFLICT DO NOTHING RETURNING id", &args) == 0)
		retl_api_exists(RETL_OBJECT_MAPPING, def->name);
	id = retl_result_int8(0, 1);

	insert_version(def, id, 1, owner);
	args.count = 0;
	retl_arg_int8(&args, id);
	(void) retl_sql("INSERT INTO retl.mapping_state (mapping) VALUES ($1)", &args);
	(void) retl_sql("INSERT INTO retl.schedule_state (mapping) VALUES ($1)", &args);
	return id;
}

void
retl_parts_replace(const RetlParts *def, int64 mapping, Oid caller)
{
	RetlArgs	args;
	int32		version;

	version_arguments(&args, def, mapping, 0, caller);
	(void) retl_sql("SELECT m.version, v.fields::text = $4::text AND v.records = $5 AND v.filter IS NOT DISTINCT FROM $12"
					" AND v.batch_size IS NOT DISTINCT FROM $6 AND v.update_when = $7"
					" AND v.max_delete_percent = $8 AND v.max_change_percent = $9"
					" AND v.brake_min_rows = $10 AND v.allow_empty = $11 AND $13 = 'none'"
					" AND v.max_attempts IS NOT DISTINCT FROM $14 AND v.max_age::text IS NOT DISTINCT FROM $15::text"
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
	(void) retl_sql("UPDATE retl.mapping SET version = $2, schedule = $3, enabled = enabled OR $4, altered_at = now(),"
					" scheduled_since = CASE WHEN schedule = $3 AND (enabled OR NOT $4) THEN scheduled_since ELSE now() END"
					" WHERE id = $1", &args);
}
