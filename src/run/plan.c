/*
 * plan.c
 *		One chunk of a run's plan; see plan.h.
 *
 * Brakes are evaluated before the first chunk writes anything. A run whose
 * stop was asked for is planned to its end all the same, but into exceptions:
 * what it would have sent is then known to be undelivered.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/sql.h"
#include "run/plan.h"
#include "run/plan_state.h"

/* A chunk ends after so many changes looked at, or so many bytes of bodies. */
#define CHUNK_CHANGES 50000
#define CHUNK_BYTES (16 * 1024 * 1024)

/* Rows between resets of the scratch context. */
#define SCRATCH_ROWS 64

/* --------------------------------------------------------------------------
 * Loading
 * -------------------------------------------------------------------------- */

static char **
text_array(Datum array, int *count)
{
	Datum	   *elements;
	char	  **result;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, count);
	result = palloc(sizeof(char *) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
		result[i] = TextDatumGetCString(elements[i]);
	return result;
}

static void
split_update_columns(RunPlan *plan)
{
	char	   *list = pstrdup(plan->update_when);

	if (strcmp(list, "payload") == 0 || strcmp(list, "any") == 0)
		return;
	for (char *name = strtok(list, ","); name != NULL; name = strtok(NULL, ","))
	{
		char	   *end;

		while (*name == ' ')
			name++;
		end = name + strlen(name);
		while (end > name && end[-1] == ' ')
			*--end = '\0';
		plan->update_columns = lappend(plan->update_columns, name);
	}
}

/*
 * A column that the mapping's paths name and the model has lost fails the
 * run, rather than blanking the field at the destination. One that never was
 * there is as in any JSON: absent.
 */
static void
check_columns(RunPlan *plan, const char *mapping_name)
{
	const RetlShape *shape = retl_plan_shape(plan, plan->shape);

	for (int i = 0; i < retl_mapping_column_count(plan->mapping); i++)
	{
		const char *column = retl_mapping_column(plan->mapping, i);
		RetlArgs	args = {0};

		if (retl_shape_find(shape, column, strlen(column)) >= 0)
			continue;
		retl_arg_int8(&args, plan->model->id);
		retl_arg_text(&args, column);
		if (retl_sql("SELECT FROM retl.shape s, pg_catalog.json_array_elements(s.columns) c (value)"
					 " WHERE s.model = $1 AND c.value ->> 'name' = $2 LIMIT 1", &args) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\", which mapping \"%s\" needs, is no longer in model \"%s\"",
							column, mapping_name, plan->model->name),
					 errhint("Give the column back to the model, or alter the mapping's fields.")));
	}
}

/*
 * @sql and filter are checked anew against the columns that the model has now.
 * Both run as the model's owner, who has no more rights than the mapping's: the
 * types of the columns, and the path in which names are looked up, are the
 * model's owner's choice, and with them what functions and operators are
 * called.
 */
static void
prepare_sql(RunPlan *plan)
{
	int			count = retl_mapping_sql_count(plan->mapping);
	const char **expressions = palloc(sizeof(char *) * Max(count, 1));
	const RetlShape *shape = retl_plan_shape(plan, plan->shape);

	for (int i = 0; i < count; i++)
		expressions[i] = retl_mapping_sql(plan->mapping, i);
	if (count > 0)
		plan->sql = retl_sql_prepare(shape, count, expressions, plan->model->owner,
									 plan->model->search_path);
}

static void
prepare_filter(RunPlan *plan, const char *filter)
{
	plan->filter = retl_sql_prepare(retl_plan_shape(plan, plan->shape), 1, &filter, plan->model->owner,
									plan->model->search_path);
}

/*
 * For a run that is stopped, whose undelivered keys are still to be those that
 * pass; but it must come to its end, with a filter that does not work, too.
 */
static void
try_prepare_filter(RunPlan *plan, const char *filter)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		prepare_filter(plan, filter);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		int			code;
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		code = ERRCODE_TO_CATEGORY(error->sqlerrcode);
		if (code == ERRCODE_OPERATOR_INTERVENTION || code == ERRCODE_INSUFFICIENT_RESOURCES ||
			code == ERRCODE_TRANSACTION_ROLLBACK)
			ReThrowError(error);
		FreeErrorData(error);
		plan->filter = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* Reads all that is about the run; false when it is not to be planned (any more). */
static bool
load(RunPlan *plan)
{
	RetlArgs	args = {0};
	char	   *connector;
	char	   *action;
	char	   *fields;
	char	   *settings;
	char	   *filter;
	char	   *mapping_name;
	char	  **records;
	int			nrecords;
	int			nkeys;
	int			batch_size;
	bool		isnull;
	int64		model;

	retl_arg_int8(&args, plan->run);
	if (retl_sql("SELECT COALESCE(r.from_seq, -1), r.to_seq, r.phase, r.position::pg_catalog.text,"
				 "  r.stop_reason IS NOT NULL, r.release,"
				 "  pg_catalog.to_char(s.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),"
				 "  m.id, v.version, m.destination, v.records, v.update_when,"
				 "  v.fields::pg_catalog.text, COALESCE(v.batch_size, 0), m.action,"
				 "  c.definition::pg_catalog.text, d.settings::pg_catalog.text, m.model,"
				 "  st.key_types, st.log_generation, i.id::pg_catalog.text,"
				 "  pg_catalog.pg_has_role(m.owner, md.owner, 'USAGE')"
				 "    AND pg_catalog.pg_has_role(m.owner, d.owner, 'USAGE'), m.name, s.shape, v.filter, r.reset,"
				 "  (SELECT pg_catalog.min(x.shape) <> pg_catalog.max(x.shape) FROM retl.snapshot x"
				 "    WHERE x.model = m.model AND x.seq BETWEEN COALESCE(r.from_seq, r.to_seq) AND r.to_seq)"
				 " FROM retl.run r"
				 "  JOIN retl.mapping m ON m.id = r.mapping"
				 "  JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = r.mapping_version"
				 "  JOIN retl.destination d ON d.id = m.destination"
				 "  JOIN retl.connector c ON c.name = d.connector"
				 "  JOIN retl.model md ON md.id = m.model"
				 "  JOIN retl.model_state st ON st.model = m.model"
				 "  JOIN retl.snapshot s ON s.model = m.model AND s.seq = r.to_seq"
				 "  LEFT JOIN retl.instance i ON true"
				 " WHERE r.id = $1 AND r.finished_at IS NULL AND NOT r.planned AND r.status = 'planning'",
				 &args) != 1)
		return false;

	plan->from_seq = retl_result_int8(0, 1);
	plan->to_seq = retl_result_int8(0, 2);
	plan->phase = retl_result_int4(0, 3);
	plan->position = retl_result_text(0, 4);
	plan->stopping = retl_result_bool(0, 5);
	plan->release = retl_result_bool(0, 6);
	plan->timestamp = retl_result_text(0, 7);
	plan->mapping_id = retl_result_int8(0, 8);
	plan->version = retl_result_int4(0, 9);
	plan->destination = retl_result_int8(0, 10);
	records = text_array(retl_result_datum(0, 11, &isnull), &nrecords);
	plan->update_when = retl_result_text(0, 12);
	fields = retl_result_text(0, 13);
	batch_size = retl_result_int4(0, 14);
	action = retl_result_text(0, 15);
	connector = retl_result_text(0, 16);
	settings = retl_result_text(0, 17);
	model = retl_result_int8(0, 18);
	plan->key_types = text_array(retl_result_datum(0, 19, &isnull), &nkeys);
	plan->log_generation = retl_result_int4(0, 20);
	plan->instance = retl_result_text(0, 21);
	/* a run that is being stopped sends nothing, and must come to its end */
	if (!plan->stopping && !retl_result_bool(0, 22))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of mapping \"%s\" no longer has the privileges of the owners of its model and destination",
						retl_result_text(0, 23)),
				 errhint("Grant them again, or let another role create the mapping.")));

	plan->shape = retl_result_int4(0, 24);
	filter = retl_result_text(0, 25);
	mapping_name = retl_result_text(0, 23);
	plan->reset = retl_result_bool(0, 26);
	plan->shapes_vary = retl_result_bool(0, 27);
	for (int i = 0; i < nrecords; i++)
		for (int op = RETL_ADDED; op <= RETL_DELETED; op++)
			if (strcmp(records[i], retl_operation_name(op)) == 0)
				plan->wants[op] = true;
	split_update_columns(plan);
	plan->model = retl_model_get(model);
	if (!plan->stopping)
	{
		plan->mapping = retl_mapping_compile(connector, action, fields, settings, batch_size);
		check_columns(plan, mapping_name);
		prepare_sql(plan);
		if (filter)
			prepare_filter(plan, filter);
	}
	else if (filter)
		try_prepare_filter(plan, filter);
	retl_plan_load_resend(plan, connector, action, settings);
	return true;
}

/* --------------------------------------------------------------------------
 * One chunk
 * -------------------------------------------------------------------------- */

/* Nothing that is gone can come from a first sync without exceptions, and so on. */
static bool
phase_has_work(const RunPlan *plan)
{
	bool		all = plan->from_seq < 0 || plan->reset;

	/* where everything is sent, exceptions are sent with it */
	if (PHASE_IS_EXCEPTIONS(plan->phase))
		return plan->has_exceptions && (PHASE_IS_GONE(plan->phase) || !plan->reset);
	if (PHASE_IS_GONE(plan->phase))
		return plan->from_seq >= 0 && plan->wants[RETL_DELETED];
	/* rows on which the filter fails are put down, whatever is wanted */
	return plan->wants[RETL_ADDED] || plan->filter != NULL || (!all && plan->wants[RETL_UPDATED]);
}

/* Plans until the phase or the chunk ends; true when the phase has. */
static bool
plan_phase(RunPlan *plan)
{
	RetlStreamSpec spec = {0};
	RetlStream *stream;
	RetlChange	change;
	int64		seen = 0;
	int64		most = RETL_FAULT_NUMBER("plan_chunk_changes", CHUNK_CHANGES);
	bool		ended = true;

	if (!phase_has_work(plan))
		return true;

	spec.model = plan->model;
	spec.key_types = plan->key_types;
	spec.log_generation = plan->log_generation;
	spec.kind = PHASE_IS_EXCEPTIONS(plan->phase) ? RETL_STREAM_EXCEPTIONS :
		plan->from_seq < 0 ? RETL_STREAM_STATE :
		plan->resend != RETL_RESEND_NONE || (plan->reset && !PHASE_IS_GONE(plan->phase)) ? RETL_STREAM_BOTH : RETL_STREAM_LOG;
	spec.mapping = plan->mapping_id;
	spec.run = plan->run;
	spec.from_seq = plan->from_seq;
	spec.to_seq = plan->to_seq;
	spec.position = plan->position;

	plan->writer = retl_batch_writer(plan->mapping, plan->run, plan->mapping_id, plan->version,
									 plan->destination, plan->phase / 2);
	if (plan->dry)
		retl_batch_dry(plan->writer);
	stream = retl_stream_open(&spec);
	while (retl_stream_next(stream, &change))
	{
		MemoryContext old = MemoryContextSwitchTo(plan->scratch);

		retl_plan_change(plan, &change);
		MemoryContextSwitchTo(old);
		if (++seen % SCRATCH_ROWS == 0)
		{
			MemoryContextReset(plan->scratch);
			CHECK_FOR_INTERRUPTS();
		}
		if (seen >= most || retl_batch_bytes(plan->writer) >= CHUNK_BYTES)
		{
			plan->position = MemoryContextStrdup(plan->context, change.key);
			ended = false;
			break;
		}
	}
	retl_stream_close(stream);
	retl_batch_flush(plan->writer);
	return ended;
}

static void
record_chunk(RunPlan *plan, bool planned, int64 batches, int64 bytes, double seconds)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, plan->run);
	retl_arg_int4(&args, plan->phase);
	retl_arg_text(&args, plan->position);
	retl_arg_bool(&args, planned);
	retl_arg_int8(&args, batches);
	retl_arg_int8(&args, bytes);
	retl_arg_float8(&args, seconds);
	retl_arg_int8(&args, plan->added);
	retl_arg_int8(&args, plan->updated);
	retl_arg_int8(&args, plan->deleted);
	retl_arg_int8(&args, plan->unmapped);
	retl_arg_bool(&args, plan->resend != RETL_RESEND_NONE);
	retl_sql("UPDATE retl.run r SET phase = $2, position = $3::pg_catalog.json, planned = $4,"
			 " status = CASE WHEN $4 THEN 'delivering' ELSE 'planning' END,"
			 " open_batches = open_batches + $5, open_bytes = open_bytes + $6,"
			 " plan_seconds = plan_seconds + $7, added = added + $8, updated = updated + $9,"
			 " deleted = deleted + $10, failed = failed + $11,"
			 " delivering_since = CASE WHEN $5 > 0 THEN COALESCE(delivering_since, pg_catalog.clock_timestamp())"
			 "   ELSE delivering_since END,"
			 " unchanged = CASE WHEN $4 THEN GREATEST((SELECT s.rows - s.set_aside FROM retl.snapshot s"
			 "    JOIN retl.mapping m ON m.model = s.model WHERE m.id = r.mapping AND s.seq = r.to_seq)"
			 "   - added - $8 - updated - $9, 0) ELSE 0 END,"
			 " resend = resend OR $12"
			 " WHERE id = $1", &args);

	if (planned)
	{
		memset(&args, 0, sizeof(args));
		retl_arg_int8(&args, plan->mapping_id);
		retl_arg_int8(&args, plan->to_seq);
		retl_arg_int4(&args, plan->version);
		retl_arg_bool(&args, plan->keep_version);
		retl_sql("UPDATE retl.mapping_state SET cursor = $2, reset = false,"
				 " version = CASE WHEN $4 THEN version ELSE $3 END"
				 " WHERE mapping = $1", &args);
	}
}

static bool
find_exceptions(const RunPlan *plan)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, plan->mapping_id);
	retl_arg_int8(&args, plan->run);
	return retl_sql("SELECT FROM retl.exception WHERE mapping = $1 AND run <> $2 LIMIT 1", &args) > 0;
}

/* Locks first: the mapping's, then the model's, before any snapshot reads the log. */
static bool
lock_for_plan(int64 run)
{
	RetlArgs	args = {0};
	int64		mapping;
	int64		model;

	retl_arg_int8(&args, run);
	if (retl_sql("SELECT m.id, m.model FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
				 " WHERE r.id = $1", &args) != 1)
		return false;
	mapping = retl_result_int8(0, 1);
	model = retl_result_int8(0, 2);
	return retl_mapping_try_lock(mapping, ExclusiveLock) &&
		retl_model_try_lock(model, AccessShareLock);
}

static void
free_expressions(const RunPlan *plan)
{
	RetlSqlSet *sets[] = {plan->sql, plan->filter, plan->before_sql, plan->before_filter};

	for (int i = 0; i < lengthof(sets); i++)
		if (sets[i] != NULL)
			retl_sql_free(sets[i]);
}

static bool
plan_chunk(int64 run, bool dry)
{
	instr_time	start;
	instr_time	duration;
	RunPlan    *plan;
	int64		batches = 0;
	int64		bytes = 0;
	bool		ended = true;

	INSTR_TIME_SET_CURRENT(start);
	SPI_connect();
	if (!lock_for_plan(run))
	{
		SPI_finish();
		return false;
	}
	plan = palloc0(sizeof(RunPlan));
	plan->run = run;
	plan->dry = dry;
	plan->context = CurrentMemoryContext;
	plan->scratch = AllocSetContextCreate(CurrentMemoryContext, "retl plan scratch",
										  ALLOCSET_DEFAULT_SIZES);
	if (!load(plan))
	{
		SPI_finish();
		return false;
	}
	plan->has_exceptions = find_exceptions(plan);
	RETL_FAULT("plan_loaded");
	if (plan->phase == 0 && plan->position == NULL && retl_plan_brake(plan))
	{
		RETL_FAULT("run_held");
		free_expressions(plan);
		SPI_finish();
		return true;
	}

	while (plan->phase < PHASES)
	{
		plan->writer = NULL;
		ended = plan_phase(plan);
		if (plan->writer)
		{
			batches += retl_batch_count(plan->writer);
			bytes += retl_batch_bytes(plan->writer);
		}
		if (!ended)
			break;
		plan->phase++;
		plan->position = NULL;
		RETL_FAULT("plan_phase_done");
		/* stage 1 in a chunk of its own: stage 0 can go out meanwhile */
		if (batches > 0 && plan->phase < PHASES && bytes >= CHUNK_BYTES)
			break;
	}
	free_expressions(plan);

	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);
	record_chunk(plan, plan->phase >= PHASES, batches, bytes, INSTR_TIME_GET_DOUBLE(duration));
	RETL_FAULT("plan_before_commit");
	SPI_finish();
	return true;
}

bool
retl_plan_chunk(int64 run)
{
	return plan_chunk(run, false);
}

bool
retl_plan_chunk_dry(int64 run)
{
	return plan_chunk(run, true);
}
