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
#include "nodes/pg_list.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/sql.h"
#include "common/hashfn.h"
#include "map/mapping.h"
#include "map/sqlexpr.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "run/batch.h"
#include "run/plan.h"
#include "run/stream.h"

/* A chunk ends after so many changes looked at, or so many bytes of bodies. */
#define CHUNK_CHANGES 50000
#define CHUNK_BYTES (16 * 1024 * 1024)

#define PHASES 4
#define PHASE_IS_EXCEPTIONS(phase) ((phase) % 2 == 1)
#define PHASE_IS_GONE(phase) ((phase) >= 2)

/* Rows between resets of the scratch context. */
#define SCRATCH_ROWS 64

typedef struct RunPlan
{
	/* the run */
	int64		run;
	int64		from_seq;		/* -1: nothing sent yet */
	int64		to_seq;
	int			phase;
	char	   *position;
	bool		stopping;
	bool		release;
	char	   *timestamp;		/* of the snapshot, ISO 8601 */

	/* its mapping */
	int64		mapping_id;
	int			version;
	int64		destination;
	Oid			owner;
	bool		wants[3];		/* by RetlOperation */
	char	   *update_when;
	List	   *update_columns; /* names, when update_when lists them */
	RetlMapping *mapping;
	char	   *instance;

	/* its model */
	RetlModel  *model;
	char	  **key_types;
	int			log_generation;
	List	   *shapes;			/* of RetlShape, as they come up */
	List	   *sql_sets;		/* of RetlSqlSet, parallel to sql_shapes */
	List	   *sql_shapes;

	/* work */
	RetlBatchWriter *writer;
	bool		has_exceptions;
	SPIPlanPtr	is_exception;
	int64		added;
	int64		updated;
	int64		deleted;
	int64		unmapped;
	MemoryContext scratch;
	MemoryContext context;
} RunPlan;

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

/* Reads all that is about the run; false when it is not to be planned (any more). */
static bool
load(RunPlan *plan)
{
	RetlArgs	args = {0};
	char	   *connector;
	char	   *action;
	char	   *fields;
	char	   *settings;
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
				 "  m.id, v.version, m.destination, m.owner::pg_catalog.oid, v.records, v.update_when,"
				 "  v.fields::pg_catalog.text, COALESCE(v.batch_size, 0), m.action,"
				 "  c.definition::pg_catalog.text, d.settings::pg_catalog.text, m.model,"
				 "  st.key_types, st.log_generation, i.id::pg_catalog.text,"
				 "  pg_catalog.pg_has_role(m.owner, md.owner, 'USAGE')"
				 "    AND pg_catalog.pg_has_role(m.owner, d.owner, 'USAGE'), m.name"
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
	plan->owner = retl_result_oid(0, 11);
	records = text_array(retl_result_datum(0, 12, &isnull), &nrecords);
	plan->update_when = retl_result_text(0, 13);
	fields = retl_result_text(0, 14);
	batch_size = retl_result_int4(0, 15);
	action = retl_result_text(0, 16);
	connector = retl_result_text(0, 17);
	settings = retl_result_text(0, 18);
	model = retl_result_int8(0, 19);
	plan->key_types = text_array(retl_result_datum(0, 20, &isnull), &nkeys);
	plan->log_generation = retl_result_int4(0, 21);
	plan->instance = retl_result_text(0, 22);
	if (!retl_result_bool(0, 23))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of mapping \"%s\" no longer has the privileges of the owners of its model and destination",
						retl_result_text(0, 24)),
				 errhint("Grant them again, or let another role create the mapping.")));

	for (int i = 0; i < nrecords; i++)
		for (int op = RETL_ADDED; op <= RETL_DELETED; op++)
			if (strcmp(records[i], retl_operation_name(op)) == 0)
				plan->wants[op] = true;
	split_update_columns(plan);
	plan->model = retl_model_load(model);
	if (!plan->stopping)
		plan->mapping = retl_mapping_compile(connector, action, fields, settings, batch_size);
	return true;
}

static const RetlShape *
find_shape(RunPlan *plan, int number)
{
	MemoryContext old;
	RetlArgs	args = {0};
	RetlShape  *shape;
	char	   *columns;
	ListCell   *lc;

	foreach(lc, plan->shapes)
		if (((RetlShape *) lfirst(lc))->shape == number)
			return lfirst(lc);

	retl_arg_int8(&args, plan->model->id);
	retl_arg_int4(&args, number);
	if (retl_sql("SELECT columns FROM retl.shape WHERE model = $1 AND shape = $2", &args) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("shape %d of model \"%s\" is unknown", number, plan->model->name)));
	old = MemoryContextSwitchTo(plan->context);
	columns = retl_result_text(0, 1);
	shape = retl_shape_parse(number, columns);
	plan->shapes = lappend(plan->shapes, shape);
	MemoryContextSwitchTo(old);
	return shape;
}

/* --------------------------------------------------------------------------
 * Brakes
 * -------------------------------------------------------------------------- */

static void
hold(const RunPlan *plan, int64 added, int64 updated, int64 deleted, char *reason, const char *hint)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, plan->run);
	retl_arg_text(&args, reason);
	retl_arg_text(&args, hint);
	retl_arg_int8(&args, added);
	retl_arg_int8(&args, updated);
	retl_arg_int8(&args, deleted);
	retl_sql("UPDATE retl.run SET status = 'held', error_code = '55000', error = $2, hint = $3,"
			 " added = $4, updated = $5, deleted = $6 WHERE id = $1", &args);

	memset(&args, 0, sizeof(args));
	retl_arg_int8(&args, plan->mapping_id);
	retl_sql("UPDATE retl.mapping_state SET active_run = NULL WHERE mapping = $1", &args);
}

/* Whether a brake holds the run, which is then recorded. */
static bool
brake(const RunPlan *plan)
{
	RetlArgs	args = {0};
	StringInfoData sql;
	int			nkeys = plan->model->nkeys;
	int64		added;
	int64		updated;
	int64		deleted;
	int64		before;
	int64		after;
	const char *hint = "Look at what changed. If it is right, release the run with retl.release_run, "
		"or raise the mapping's limits; if not, mend the model and sync again.";

	if (plan->from_seq < 0 || plan->release || plan->stopping)
		return false;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.count(*) FILTER (WHERE NOT was AND is_there),"
						   " pg_catalog.count(*) FILTER (WHERE was AND is_there),"
						   " pg_catalog.count(*) FILTER (WHERE was AND NOT is_there)"
						   " FROM (SELECT (pg_catalog.array_agg(old_data IS NOT NULL ORDER BY seq))[1] AS was,"
						   " (pg_catalog.array_agg(new_data IS NOT NULL ORDER BY seq DESC))[1] AS is_there"
						   " FROM ");
	appendStringInfo(&sql, "%s WHERE seq > $1 AND seq <= $2 GROUP BY ",
					 retl_log_table(plan->model->id, plan->log_generation));
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(&sql, "%sk%d", k > 1 ? ", " : "", k);
	appendStringInfoString(&sql, ") n");
	retl_arg_int8(&args, plan->from_seq);
	retl_arg_int8(&args, plan->to_seq);
	retl_sql(sql.data, &args);
	added = retl_result_int8(0, 1);
	updated = retl_result_int8(0, 2);
	deleted = retl_result_int8(0, 3);

	memset(&args, 0, sizeof(args));
	retl_arg_int8(&args, plan->model->id);
	retl_arg_int8(&args, plan->to_seq);
	retl_arg_int8(&args, plan->mapping_id);
	retl_arg_int4(&args, plan->version);
	retl_sql("SELECT s.rows - s.set_aside, v.max_delete_percent::pg_catalog.float8,"
			 " v.max_change_percent::pg_catalog.float8, v.brake_min_rows, v.allow_empty, s.rows"
			 " FROM retl.snapshot s, retl.mapping_version v"
			 " WHERE s.model = $1 AND s.seq = $2 AND v.mapping = $3 AND v.version = $4", &args);
	after = retl_result_int8(0, 1);
	before = Max(after - added + deleted, 1);

	if (plan->wants[RETL_DELETED] && deleted > 0 && retl_result_int8(0, 6) == 0 &&
		!retl_result_bool(0, 5))
	{
		hold(plan, added, updated, deleted,
			 psprintf("the model returned no rows; " INT64_FORMAT " records would be deleted", deleted),
			 hint);
		return true;
	}
	if (plan->wants[RETL_DELETED] && deleted >= retl_result_int4(0, 4) &&
		100.0 * deleted / before > retl_result_float8(0, 2))
	{
		hold(plan, added, updated, deleted,
			 psprintf(INT64_FORMAT " of " INT64_FORMAT " records would be deleted, more than %g %%",
					  deleted, before, retl_result_float8(0, 2)), hint);
		return true;
	}
	if (plan->wants[RETL_UPDATED] && updated >= retl_result_int4(0, 4) &&
		100.0 * updated / before > retl_result_float8(0, 3))
	{
		hold(plan, added, updated, deleted,
			 psprintf(INT64_FORMAT " of " INT64_FORMAT " records would be updated, more than %g %%",
					  updated, before, retl_result_float8(0, 3)), hint);
		return true;
	}
	return false;
}

/* --------------------------------------------------------------------------
 * One record
 * -------------------------------------------------------------------------- */

static RetlSqlSet *
sql_set(RunPlan *plan, const RetlShape *shape)
{
	int			count = retl_mapping_sql_count(plan->mapping);
	const char **expressions;
	ListCell   *lc;
	ListCell   *lc2;
	MemoryContext old;
	RetlSqlSet *set;

	forboth(lc, plan->sql_sets, lc2, plan->sql_shapes)
		if (lfirst(lc2) == shape)
			return lfirst(lc);

	old = MemoryContextSwitchTo(plan->context);
	expressions = palloc(sizeof(char *) * count);
	for (int i = 0; i < count; i++)
		expressions[i] = retl_mapping_sql(plan->mapping, i);
	set = retl_sql_prepare(shape, count, expressions, plan->owner, plan->model->search_path);
	plan->sql_sets = lappend(plan->sql_sets, set);
	plan->sql_shapes = lappend(plan->sql_shapes, unconstify(RetlShape *, shape));
	MemoryContextSwitchTo(old);
	return set;
}

static const RetlSlice *
split(const RetlShape *shape, const RetlStored *stored)
{
	RetlSlice  *slices = palloc(sizeof(RetlSlice) * Max(shape->ncolumns, 1));

	retl_row_split(stored->data, stored->len, shape->ncolumns, slices);
	return slices;
}

/* The values of the mapping's @sql expressions for this envelope. */
static bool
eval_sql(RunPlan *plan, RetlEnvelope *envelope, char **error)
{
	int			count = retl_mapping_sql_count(plan->mapping);
	RetlSlice  *values;

	if (count == 0)
		return true;
	values = palloc(sizeof(RetlSlice) * count);
	envelope->sql = values;
	return retl_sql_eval(sql_set(plan, envelope->shape), envelope, values, error);
}

/* Whether one of the named columns differs between the rows. */
static bool
columns_differ(RunPlan *plan, const RetlEnvelope *envelope)
{
	ListCell   *lc;

	foreach(lc, plan->update_columns)
	{
		const char *name = lfirst(lc);
		int			o = retl_shape_find(envelope->old_shape, name, strlen(name));
		int			n = retl_shape_find(envelope->shape, name, strlen(name));

		if ((o < 0) != (n < 0))
			return true;
		if (n >= 0 && (envelope->old[o].len != envelope->row[n].len ||
					   memcmp(envelope->old[o].data, envelope->row[n].data, envelope->row[n].len) != 0))
			return true;
	}
	return false;
}

/* Whether an update changes anything for the destination. */
static bool
update_matters(RunPlan *plan, RetlEnvelope *envelope, char **error)
{
	RetlEnvelope before = *envelope;
	StringInfoData old_payload;
	StringInfoData new_payload;
	char	   *old_error = NULL;

	if (envelope->old == NULL || strcmp(plan->update_when, "any") == 0)
		return true;
	if (plan->update_columns)
		return columns_differ(plan, envelope);

	before.shape = envelope->old_shape;
	before.row = envelope->old;
	before.sql = NULL;
	initStringInfo(&old_payload);
	initStringInfo(&new_payload);
	/* a row that could not be mapped before can have changed for the better */
	if (!eval_sql(plan, &before, &old_error) ||
		!retl_mapping_comparable(plan->mapping, &before, &old_payload, &old_error))
		return true;
	if (!retl_mapping_comparable(plan->mapping, envelope, &new_payload, error))
		return true;
	return old_payload.len != new_payload.len ||
		memcmp(old_payload.data, new_payload.data, new_payload.len) != 0;
}

/* Same for the same version of the same row, at most 100 characters. */
static char *
message_id(RunPlan *plan, const char *key)
{
	int			len = strlen(key);

	return psprintf("retl-%.8s-" INT64_FORMAT "-" INT64_FORMAT "-%016llx%016llx",
					plan->instance ? plan->instance : "", plan->mapping_id, plan->to_seq,
					(unsigned long long) hash_bytes_extended((const unsigned char *) key, len, 1),
					(unsigned long long) hash_bytes_extended((const unsigned char *) key, len, 2));
}

static void
count_record(RunPlan *plan, RetlOperation operation)
{
	if (operation == RETL_ADDED)
		plan->added++;
	else if (operation == RETL_UPDATED)
		plan->updated++;
	else
		plan->deleted++;
}

/* Maps one change and puts it into a batch, or among the exceptions. */
static void
plan_record(RunPlan *plan, RetlOperation operation, const char *key,
			const RetlStored *row, const RetlStored *old, const RetlStored *acked)
{
	RetlEnvelope envelope = {0};
	StringInfoData payload;
	StringInfoData group;
	StringInfoData record;
	char	   *error = NULL;

	if (plan->stopping)
	{
		retl_batch_add_exception(plan->writer, operation, key, "canceled", NULL, acked);
		return;
	}

	envelope.operation = operation;
	envelope.shape = find_shape(plan, row->shape);
	envelope.row = split(envelope.shape, row);
	if (operation == RETL_UPDATED && old->shape != 0)
	{
		envelope.old_shape = find_shape(plan, old->shape);
		envelope.old = split(envelope.old_shape, old);
	}
	envelope.key = key;
	envelope.message_id = message_id(plan, key);
	envelope.timestamp = plan->timestamp;

	initStringInfo(&payload);
	initStringInfo(&group);
	initStringInfo(&record);
	if (eval_sql(plan, &envelope, &error))
	{
		if (operation == RETL_UPDATED && !update_matters(plan, &envelope, &error))
			return;
		if (error == NULL &&
			retl_mapping_payload(plan->mapping, &envelope, &payload, &error) &&
			retl_mapping_record(plan->mapping, &envelope, payload.data, payload.len,
								&group, &record, &error))
		{
			retl_batch_add(plan->writer, operation, key, group.data, record.data, record.len);
			count_record(plan, operation);
			return;
		}
	}
	retl_batch_add_exception(plan->writer, operation, key, "unmapped",
							 error ? error : "the row could not be mapped", acked);
	count_record(plan, operation);
	plan->unmapped++;
}

/* --------------------------------------------------------------------------
 * One change
 * -------------------------------------------------------------------------- */

static bool
same_row(const RetlStored *a, const RetlStored *b)
{
	return a->shape == b->shape && a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* Whether the key is an exception from an earlier run: those have phases of their own. */
static bool
is_exception(RunPlan *plan, const char *key)
{
	Oid			types[3] = {INT8OID, TEXTOID, INT8OID};
	Datum		values[3];

	if (!plan->has_exceptions)
		return false;
	if (plan->is_exception == NULL)
		plan->is_exception = SPI_prepare("SELECT FROM retl.exception WHERE mapping = $1"
										 " AND key = $2 AND run <> $3", 3, types);
	values[0] = Int64GetDatum(plan->mapping_id);
	values[1] = CStringGetTextDatum(key);
	values[2] = Int64GetDatum(plan->run);
	if (SPI_execute_plan(plan->is_exception, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up an exception");
	return SPI_processed > 0;
}

static void
plan_change(RunPlan *plan, const RetlChange *change)
{
	bool		present = change->new.shape != 0;
	RetlOperation operation;

	if (present == PHASE_IS_GONE(plan->phase))
		return;
	if (PHASE_IS_EXCEPTIONS(plan->phase))
	{
		if (present)
		{
			if (change->maybe || (change->old.shape != 0 && !same_row(&change->old, &change->new)))
				operation = RETL_UPDATED;
			else if (change->old.shape == 0)
				operation = RETL_ADDED;
			else
				return;			/* it is again what was acknowledged */
		}
		else
		{
			if (change->old.shape == 0 && !change->maybe)
				return;			/* it never arrived and is gone */
			operation = RETL_DELETED;
		}
	}
	else
	{
		if (!present && change->old.shape == 0)
			return;				/* came and went */
		if (is_exception(plan, change->key))
			return;
		if (!present)
			operation = RETL_DELETED;
		else if (change->old.shape == 0)
			operation = RETL_ADDED;
		else if (same_row(&change->old, &change->new))
			return;				/* changed and changed back */
		else
			operation = RETL_UPDATED;
	}

	if (!plan->wants[operation])
		return;
	if (operation == RETL_DELETED)
	{
		const RetlStored *last = change->old.shape != 0 ? &change->old : &change->last;

		if (last->shape == 0)
			return;
		plan_record(plan, operation, change->key, last, NULL, &change->old);
	}
	else
		plan_record(plan, operation, change->key, &change->new, &change->old, &change->old);
}

/* --------------------------------------------------------------------------
 * One chunk
 * -------------------------------------------------------------------------- */

/* Nothing that is gone can come from a first sync without exceptions, and so on. */
static bool
phase_has_work(const RunPlan *plan)
{
	if (PHASE_IS_EXCEPTIONS(plan->phase))
		return plan->has_exceptions;
	if (PHASE_IS_GONE(plan->phase))
		return plan->from_seq >= 0 && plan->wants[RETL_DELETED];
	return plan->from_seq < 0 ? plan->wants[RETL_ADDED] :
		plan->wants[RETL_ADDED] || plan->wants[RETL_UPDATED];
}

/* Plans until the phase or the chunk ends; true when the phase has. */
static bool
plan_phase(RunPlan *plan)
{
	RetlStreamSpec spec = {0};
	RetlStream *stream;
	RetlChange	change;
	int64		seen = 0;
	bool		ended = true;

	if (!phase_has_work(plan))
		return true;

	spec.model = plan->model;
	spec.key_types = plan->key_types;
	spec.log_generation = plan->log_generation;
	spec.kind = PHASE_IS_EXCEPTIONS(plan->phase) ? RETL_STREAM_EXCEPTIONS :
		plan->from_seq < 0 ? RETL_STREAM_STATE : RETL_STREAM_LOG;
	spec.mapping = plan->mapping_id;
	spec.run = plan->run;
	spec.from_seq = plan->from_seq;
	spec.to_seq = plan->to_seq;
	spec.position = plan->position;

	plan->writer = retl_batch_writer(plan->mapping, plan->run, plan->mapping_id, plan->version,
									 plan->destination, plan->phase / 2);
	stream = retl_stream_open(&spec);
	while (retl_stream_next(stream, &change))
	{
		MemoryContext old = MemoryContextSwitchTo(plan->scratch);

		plan_change(plan, &change);
		MemoryContextSwitchTo(old);
		if (++seen % SCRATCH_ROWS == 0)
		{
			MemoryContextReset(plan->scratch);
			CHECK_FOR_INTERRUPTS();
		}
		if (seen >= CHUNK_CHANGES || retl_batch_bytes(plan->writer) >= CHUNK_BYTES)
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
	retl_sql("UPDATE retl.run r SET phase = $2, position = $3::pg_catalog.json, planned = $4,"
			 " status = CASE WHEN $4 THEN 'delivering' ELSE 'planning' END,"
			 " open_batches = open_batches + $5, open_bytes = open_bytes + $6,"
			 " plan_seconds = plan_seconds + $7, added = added + $8, updated = updated + $9,"
			 " deleted = deleted + $10, failed = failed + $11,"
			 " delivering_since = CASE WHEN $5 > 0 THEN COALESCE(delivering_since, pg_catalog.clock_timestamp())"
			 "   ELSE delivering_since END,"
			 " unchanged = CASE WHEN $4 THEN GREATEST((SELECT s.rows - s.set_aside FROM retl.snapshot s"
			 "    JOIN retl.mapping m ON m.model = s.model WHERE m.id = r.mapping AND s.seq = r.to_seq)"
			 "   - added - $8 - updated - $9, 0) ELSE 0 END"
			 " WHERE id = $1", &args);

	if (planned)
	{
		memset(&args, 0, sizeof(args));
		retl_arg_int8(&args, plan->mapping_id);
		retl_arg_int8(&args, plan->to_seq);
		retl_sql("UPDATE retl.mapping_state SET cursor = $2 WHERE mapping = $1", &args);
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

bool
retl_plan_chunk(int64 run)
{
	instr_time	start;
	instr_time	duration;
	RunPlan    *plan;
	int64		batches = 0;
	int64		bytes = 0;
	bool		ended = true;
	ListCell   *lc;

	INSTR_TIME_SET_CURRENT(start);
	SPI_connect();
	if (!lock_for_plan(run))
	{
		SPI_finish();
		return false;
	}
	plan = palloc0(sizeof(RunPlan));
	plan->run = run;
	plan->context = CurrentMemoryContext;
	plan->scratch = AllocSetContextCreate(CurrentMemoryContext, "retl plan scratch",
										  ALLOCSET_DEFAULT_SIZES);
	if (!load(plan))
	{
		SPI_finish();
		return false;
	}
	if (plan->phase == 0 && plan->position == NULL && brake(plan))
	{
		SPI_finish();
		return true;
	}
	plan->has_exceptions = find_exceptions(plan);

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
	foreach(lc, plan->sql_sets)
		retl_sql_free(lfirst(lc));

	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);
	record_chunk(plan, plan->phase >= PHASES, batches, bytes, INSTR_TIME_GET_DOUBLE(duration));
	RETL_FAULT("plan_before_commit");
	SPI_finish();
	return true;
}
