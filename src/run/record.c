/*
 * record.c
 *		One change of one key: what it is to the mapping, and what is sent.
 *
 * A row that cannot be mapped fails alone, as an exception; a mapping that
 * cannot be evaluated at all fails its run.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/sql.h"
#include "run/plan_state.h"

const RetlShape *
retl_plan_shape(RunPlan *plan, int number)
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

static bool
same_row(const RetlStored *a, const RetlStored *b)
{
	return a->shape == b->shape && a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static const RetlSlice *
split(const RetlShape *shape, const RetlStored *stored)
{
	RetlSlice  *slices = palloc(sizeof(RetlSlice) * Max(shape->ncolumns, 1));

	retl_row_split(stored->data, stored->len, shape->ncolumns, slices);
	return slices;
}

/* The values of a mapping's @sql expressions for this envelope. */
static bool
eval_sql(const RetlMapping *mapping, RetlSqlSet *sql, RetlEnvelope *envelope, char **error)
{
	int			count = retl_mapping_sql_count(mapping);
	RetlSlice  *values;

	if (count == 0)
		return true;
	values = palloc(sizeof(RetlSlice) * count);
	envelope->sql = values;
	return retl_sql_eval(sql, envelope, values, error);
}

/* An old shape without the columns that a newer one lacks, and where they stand in the old. */
typedef struct Projection
{
	const RetlShape *old;
	const RetlShape *new;
	RetlShape  *shape;
	int		   *columns;
} Projection;

static const Projection *
find_projection(RunPlan *plan, const RetlShape *old, const RetlShape *new)
{
	MemoryContext caller;
	Projection *projection;
	ListCell   *lc;

	foreach(lc, plan->projections)
	{
		projection = lfirst(lc);
		if (projection->old == old && projection->new == new)
			return projection;
	}
	caller = MemoryContextSwitchTo(plan->context);
	projection = palloc0(sizeof(Projection));
	projection->old = old;
	projection->new = new;
	projection->shape = palloc0(sizeof(RetlShape));
	projection->shape->columns = palloc(sizeof(RetlColumn) * Max(old->ncolumns, 1));
	projection->columns = palloc(sizeof(int) * Max(old->ncolumns, 1));
	for (int i = 0; i < old->ncolumns; i++)
	{
		if (retl_shape_find(new, old->columns[i].name, strlen(old->columns[i].name)) < 0)
			continue;
		projection->columns[projection->shape->ncolumns] = i;
		projection->shape->columns[projection->shape->ncolumns++] = old->columns[i];
	}
	plan->projections = lappend(plan->projections, projection);
	MemoryContextSwitchTo(caller);
	return projection;
}

/* A column that went is no change to a row: the row as it was, without what its successor lacks. */
static void
drop_lost_columns(RunPlan *plan, RetlEnvelope *before, const RetlShape *new)
{
	const Projection *projection;
	RetlSlice  *row;

	if (before->shape == new)
		return;
	projection = find_projection(plan, before->shape, new);
	if (projection->shape->ncolumns == before->shape->ncolumns)
		return;
	row = palloc(sizeof(RetlSlice) * Max(projection->shape->ncolumns, 1));
	for (int i = 0; i < projection->shape->ncolumns; i++)
		row[i] = before->row[projection->columns[i]];
	before->shape = projection->shape;
	before->row = row;
}

static bool
same_value(const RetlSlice *a, const RetlSlice *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* Whether a column that both rows have differs. */
static bool
rows_differ(const RetlEnvelope *envelope)
{
	for (int n = 0; n < envelope->shape->ncolumns; n++)
	{
		const char *name = envelope->shape->columns[n].name;
		int			o = envelope->shape == envelope->old_shape ? n :
			retl_shape_find(envelope->old_shape, name, strlen(name));

		if (o >= 0 && !same_value(&envelope->old[o], &envelope->row[n]))
			return true;
	}
	return false;
}

/* Whether one of the named columns differs between the rows; one that went does not. */
static bool
columns_differ(RunPlan *plan, const RetlEnvelope *envelope)
{
	ListCell   *lc;

	foreach(lc, plan->update_columns)
	{
		const char *name = lfirst(lc);
		int			o = retl_shape_find(envelope->old_shape, name, strlen(name));
		int			n = retl_shape_find(envelope->shape, name, strlen(name));

		if (n >= 0 && (o < 0 || !same_value(&envelope->old[o], &envelope->row[n])))
			return true;
	}
	return false;
}

/* Whether what "mapping" makes of the old row is other than what is made of the new one now. */
static bool
payloads_differ(RunPlan *plan, RetlMapping *mapping, RetlSqlSet *sql, RetlEnvelope *envelope, char **error)
{
	RetlEnvelope before = *envelope;
	StringInfoData old_payload;
	StringInfoData new_payload;
	char	   *old_error = NULL;

	before.shape = envelope->old_shape;
	before.row = envelope->old;
	before.sql = NULL;
	drop_lost_columns(plan, &before, envelope->shape);
	initStringInfo(&old_payload);
	initStringInfo(&new_payload);
	/* a row that could not be mapped before can have changed for the better */
	if (!eval_sql(mapping, sql, &before, &old_error) ||
		!retl_mapping_comparable(mapping, &before, &old_payload, &old_error))
		return true;
	if (!retl_mapping_comparable(plan->mapping, envelope, &new_payload, error))
		return true;
	return old_payload.len != new_payload.len ||
		memcmp(old_payload.data, new_payload.data, new_payload.len) != 0;
}

/* Whether an update changes anything for the destination; "same": the row itself is as it was. */
static bool
update_matters(RunPlan *plan, RetlEnvelope *envelope, bool same, char **error)
{
	if (envelope->old == NULL || plan->resend == RETL_RESEND_ALL)
		return true;
	if (plan->resend == RETL_RESEND_CHANGED)
	{
		if (plan->before == NULL ||
			payloads_differ(plan, plan->before, plan->before_sql, envelope, error))
			return true;
		/* what is sent now is what was sent of it */
		if (same || strcmp(plan->update_when, "payload") == 0)
			return false;
	}
	if (strcmp(plan->update_when, "any") == 0)
		return rows_differ(envelope);
	if (plan->update_columns)
		return columns_differ(plan, envelope);
	return payloads_differ(plan, plan->mapping, plan->sql, envelope, error);
}

/*
 * Same for the same version of the same row. Letters and digits, 36 of them: no
 * destination takes less for what it tells events apart by.
 */
static char *
message_id(RunPlan *plan, const char *key)
{
	char	   *name = psprintf("%s/" INT64_FORMAT "/" INT64_FORMAT "/%s", plan->instance ? plan->instance : "",
								plan->mapping_id, plan->to_seq, key);
	int			len = strlen(name);

	return psprintf("retl%016llx%016llx",
					(unsigned long long) hash_bytes_extended((const unsigned char *) name, len, 1),
					(unsigned long long) hash_bytes_extended((const unsigned char *) name, len, 2));
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
	bool		same = operation == RETL_UPDATED && same_row(row, old);

	if (plan->stopping)
	{
		retl_batch_add_exception(plan->writer, operation, key, "canceled", NULL, acked, false);
		return;
	}

	envelope.operation = operation;
	envelope.shape = retl_plan_shape(plan, row->shape);
	envelope.row = split(envelope.shape, row);
	if (operation == RETL_UPDATED && old->shape != 0)
	{
		envelope.old_shape = retl_plan_shape(plan, old->shape);
		envelope.old = split(envelope.old_shape, old);
	}
	envelope.key = key;
	envelope.message_id = message_id(plan, key);
	envelope.timestamp = plan->timestamp;

	initStringInfo(&payload);
	initStringInfo(&group);
	initStringInfo(&record);
	if (eval_sql(plan->mapping, plan->sql, &envelope, &error))
	{
		if (operation == RETL_UPDATED && !update_matters(plan, &envelope, same, &error))
			return;
		if (plan->counting)
		{
			count_record(plan, operation);
			return;
		}
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
	count_record(plan, operation);
	if (plan->counting)
		return;
	/* one that is sent again though it is as acknowledged must not count as done */
	retl_batch_add_exception(plan->writer, operation, key, "unmapped",
							 error ? error : "the row could not be mapped", acked, same);
	plan->unmapped++;
}

/* --------------------------------------------------------------------------
 * One change
 * -------------------------------------------------------------------------- */

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
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_plan(plan->is_exception, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up an exception");
	PopActiveSnapshot();
	return SPI_processed > 0;
}

/* Whether a filter lets a stored row through; a row on which it fails is an error of that row. */
static bool
passes(RunPlan *plan, RetlSqlSet *filter, RetlOperation operation, const char *key, const RetlStored *stored,
	   char **error)
{
	RetlEnvelope envelope = {0};
	RetlSlice	result;

	if (stored->shape == 0)
		return false;
	if (filter == NULL)
		return true;
	envelope.operation = operation;
	envelope.shape = retl_plan_shape(plan, stored->shape);
	envelope.row = split(envelope.shape, stored);
	envelope.key = key;
	return retl_sql_eval(filter, &envelope, &result, error) &&
		result.len == 4 && memcmp(result.data, "true", 4) == 0;
}

bool
retl_plan_passes(RunPlan *plan, const char *key, const RetlStored *stored)
{
	char	   *error = NULL;

	return passes(plan, plan->filter, RETL_ADDED, key, stored, &error);
}

/*
 * What the mapping sees of a change: a row that begins to pass its filter is
 * new to it, one that ceases to is gone. What a destination acknowledged did
 * pass. An earlier version, where it is compared with, had a filter of its own.
 */
static bool
apply_filter(RunPlan *plan, RetlChange *change, char **error)
{
	static const RetlStored none = {0};
	RetlSqlSet *old_filter = plan->before != NULL ? plan->before_filter : plan->filter;

	if (plan->filter == NULL && old_filter == NULL)
		return true;
	if (!PHASE_IS_EXCEPTIONS(plan->phase) &&
		!passes(plan, old_filter, RETL_DELETED, change->key, &change->old, error))
	{
		/* on error as well: it was not sent, and that is known */
		*error = NULL;
		change->old = none;
	}
	if (!passes(plan, plan->filter, RETL_ADDED, change->key, &change->new, error))
	{
		if (*error != NULL)
			return false;
		if (change->new.shape != 0)
			change->last = change->new;
		change->new = none;
	}
	return true;
}

/*
 * The log holds a row as of its last change, and a column that came since is
 * no change: what is sent is the row as it was at the snapshot.
 */
static void
bring_up_to_date(RunPlan *plan, RetlChange *change)
{
	if (plan->shapes_vary && !PHASE_IS_EXCEPTIONS(plan->phase) && change->new.shape != 0)
		retl_stream_state_of(plan->model, plan->key_types, plan->log_generation, plan->to_seq,
							 change->key, &change->new);
}

/* The last row there was goes with every attempt to delete it: the log will not have it for ever. */
static void
keep_last(RunPlan *plan, const RetlChange *change)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, plan->mapping_id);
	retl_arg_text(&args, change->key);
	retl_arg_datum(&args, TEXTOID,
				   PointerGetDatum(cstring_to_text_with_len(change->last.data, change->last.len)), false);
	retl_arg_int4(&args, change->last.shape);
	retl_sql("UPDATE retl.exception SET acked = $3::pg_catalog.json, acked_shape = $4"
			 " WHERE mapping = $1 AND key = $2 AND maybe", &args);
}

void
retl_plan_change(RunPlan *plan, RetlChange *change)
{
	bool		present;
	RetlOperation operation;
	char	   *error = NULL;

	bring_up_to_date(plan, change);
	if (!PHASE_IS_EXCEPTIONS(plan->phase) && plan->resend == RETL_RESEND_NONE && !plan->reset &&
		change->old.shape != 0 && change->new.shape != 0 && same_row(&change->old, &change->new))
		return;					/* changed and changed back */
	if (!apply_filter(plan, change, &error))
	{
		if (!PHASE_IS_GONE(plan->phase) && !plan->counting &&
			(PHASE_IS_EXCEPTIONS(plan->phase) || plan->reset || !is_exception(plan, change->key)))
		{
			retl_batch_add_exception(plan->writer,
									 change->old.shape ? RETL_UPDATED : RETL_ADDED,
									 change->key, "unmapped", error, &change->old, false);
			plan->unmapped++;
		}
		return;
	}
	present = change->new.shape != 0;

	if (present == PHASE_IS_GONE(plan->phase))
		return;
	if (PHASE_IS_EXCEPTIONS(plan->phase))
	{
		if (present)
		{
			/* a mapping that takes no updates must not lose it for that */
			if (change->maybe)
				operation = plan->wants[RETL_UPDATED] ? RETL_UPDATED : RETL_ADDED;
			else if (change->old.shape != 0 &&
					 (plan->resend != RETL_RESEND_NONE || !same_row(&change->old, &change->new)))
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
		if (!(plan->reset && present) && is_exception(plan, change->key))
			return;
		if (!present)
			operation = RETL_DELETED;
		else if (change->old.shape == 0 || plan->reset)
			operation = RETL_ADDED;
		else
			operation = RETL_UPDATED;
	}

	if (operation == RETL_UPDATED && !plan->wants[operation] && plan->resend == RETL_RESEND_ALL)
		operation = RETL_ADDED;
	if (!plan->wants[operation])
		return;
	if (operation == RETL_DELETED)
	{
		const RetlStored *last = change->old.shape != 0 ? &change->old : &change->last;

		if (last->shape == 0)
			return;
		if (PHASE_IS_EXCEPTIONS(plan->phase) && last == &change->last)
			keep_last(plan, change);
		plan_record(plan, operation, change->key, last, NULL, &change->old);
	}
	else
	{
		/* what is not known to have arrived is sent even if it looks unchanged */
		static const RetlStored unknown = {0};

		plan_record(plan, operation, change->key, &change->new,
					change->maybe ? &unknown : &change->old, &change->old);
	}
}
