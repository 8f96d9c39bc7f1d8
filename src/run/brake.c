/*
 * brake.c
 *		Brakes: what keeps a run from sending a flood that nobody meant.
 *
 * Evaluated before the first chunk of a run writes anything. A held run has no
 * batches and has moved no cursor; the next sync plans again and replaces it.
 *
 * What counts is what the mapping would send. The log tells how many rows the
 * model has changed, which is cheap and enough to see that nothing is near a
 * limit. Only where it could be, or a filter makes other things of changes, is
 * each change evaluated as the plan will do it.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/sql.h"
#include "model/checkpoint.h"
#include "run/plan_state.h"

/* Rows between resets of the scratch context. */
#define SCRATCH_ROWS 64

typedef struct Limits
{
	int64		rows;			/* that the model has, with a usable key */
	bool		empty;			/* it returned no row at all */
	double		max_delete;		/* percent */
	double		max_change;
	int64		min_rows;
	bool		allow_empty;
} Limits;

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

static void
append_equal(StringInfo sql, int nkeys, const char *a, const char *b)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%s.k%d = %s.k%d", k > 1 ? " AND " : "", a, k, b, k);
}

/*
 * Net changes in the log: the row before a key's first change against the one
 * after its last. A table that is emptied and filled again has none.
 */
static void
count_log(RunPlan *plan)
{
	RetlArgs	args = {0};
	char	   *log = retl_log_table(plan->model->id, plan->log_generation);
	int			nkeys = plan->model->nkeys;
	StringInfoData keys;
	StringInfoData sql;

	initStringInfo(&keys);
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(&keys, "k%d, ", k);

	initStringInfo(&sql);
	appendStringInfo(&sql, "WITH n AS MATERIALIZED (SELECT %s pg_catalog.count(*) AS changes,"
					 "  pg_catalog.min(seq) AS first, pg_catalog.max(seq) AS last,"
					 "  pg_catalog.bool_or(old_shape IS NOT NULL) AS was, pg_catalog.bool_or(new_shape IS NOT NULL) AS is_there"
					 "  FROM %s WHERE seq > $1 AND seq <= $2 GROUP BY %.*s)"
					 " SELECT pg_catalog.count(*) FILTER (WHERE NOT was AND is_there),"
					 "  pg_catalog.count(*) FILTER (WHERE was AND is_there AND differs),"
					 "  pg_catalog.count(*) FILTER (WHERE was AND NOT is_there)"
					 " FROM (SELECT was, is_there, true AS differs FROM n WHERE changes = 1"
					 "  UNION ALL SELECT a.old_shape IS NOT NULL, z.new_shape IS NOT NULL,"
					 "   a.old_shape <> z.new_shape OR a.old_data::pg_catalog.text <> z.new_data::pg_catalog.text"
					 "  FROM n JOIN %s a ON ",
					 keys.data, log, keys.len - 2, keys.data, log);
	append_equal(&sql, nkeys, "a", "n");
	appendStringInfo(&sql, " AND a.seq = n.first JOIN %s z ON ", log);
	append_equal(&sql, nkeys, "z", "n");
	appendStringInfoString(&sql, " AND z.seq = n.last WHERE n.changes > 1) c");
	retl_arg_int8(&args, plan->from_seq);
	retl_arg_int8(&args, plan->to_seq);
	retl_sql(sql.data, &args);
	plan->added = retl_result_int8(0, 1);
	plan->updated = retl_result_int8(0, 2);
	plan->deleted = retl_result_int8(0, 3);
}

static void
read_limits(const RunPlan *plan, Limits *limits)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, plan->model->id);
	retl_arg_int8(&args, plan->to_seq);
	retl_arg_int8(&args, plan->mapping_id);
	retl_arg_int4(&args, plan->version);
	retl_sql("SELECT s.row_count, s.rows = 0 AND s.strategy = 'full', v.max_delete_percent::pg_catalog.float8,"
			 " v.max_change_percent::pg_catalog.float8, v.brake_min_rows, v.allow_empty"
			 " FROM retl.snapshot s, retl.mapping_version v"
			 " WHERE s.model = $1 AND s.seq = $2 AND v.mapping = $3 AND v.version = $4", &args);
	limits->rows = retl_result_int8(0, 1);
	limits->empty = retl_result_bool(0, 2);
	limits->max_delete = retl_result_float8(0, 3);
	limits->max_change = retl_result_float8(0, 4);
	limits->min_rows = retl_result_int4(0, 5);
	limits->allow_empty = retl_result_bool(0, 6);
}

typedef void (*Visit) (RunPlan *plan, RetlChange *change, int64 *count);

static void
walk(RunPlan *plan, RetlStreamKind kind, int64 to_seq, Visit visit, int64 *count)
{
	RetlStreamSpec spec = {0};
	RetlStream *stream;
	RetlChange	change;
	int64		seen = 0;

	spec.model = plan->model;
	spec.key_types = plan->key_types;
	spec.log_generation = plan->log_generation;
	spec.kind = kind;
	spec.mapping = plan->mapping_id;
	spec.run = plan->run;
	spec.from_seq = plan->from_seq;
	spec.to_seq = to_seq;
	stream = retl_stream_open(&spec);
	while (retl_stream_next(stream, &change))
	{
		MemoryContext old = MemoryContextSwitchTo(plan->scratch);

		visit(plan, &change, count);
		MemoryContextSwitchTo(old);
		if (++seen % SCRATCH_ROWS == 0)
		{
			MemoryContextReset(plan->scratch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	retl_stream_close(stream);
}

static void
count_change(RunPlan *plan, RetlChange *change, int64 *count)
{
	retl_plan_change(plan, change);
}

void
retl_plan_count(RunPlan *plan)
{
	int			phase = plan->phase;

	plan->added = plan->updated = plan->deleted = 0;
	plan->counting = true;
	for (plan->phase = 0; plan->phase < PHASES; plan->phase += 2)
		walk(plan, plan->resend != RETL_RESEND_NONE ? RETL_STREAM_BOTH : RETL_STREAM_LOG,
			 plan->to_seq, count_change, NULL);
	plan->counting = false;
	plan->phase = phase;
}

static void
count_passing(RunPlan *plan, RetlChange *change, int64 *count)
{
	if (retl_plan_passes(plan, change->key, &change->new))
		(*count)++;
}

/* Rows that the mapping's filter let through when it planned last. */
static int64
passed_before(RunPlan *plan)
{
	int64		rows = 0;

	walk(plan, RETL_STREAM_STATE, plan->from_seq, count_passing, &rows);
	return rows;
}

static bool
too_many(int64 count, int64 before, double percent, const Limits *limits)
{
	return count >= limits->min_rows && 100.0 * count / before > percent;
}

/* What would hold the run with the counts as they are, or NULL. */
static char *
find_brake(const RunPlan *plan, const Limits *limits, int64 before)
{
	if (plan->wants[RETL_DELETED] && plan->deleted > 0 && limits->empty && !limits->allow_empty)
		return psprintf("the model returned no rows; " INT64_FORMAT " records would be deleted", plan->deleted);
	if (plan->wants[RETL_DELETED] && too_many(plan->deleted, before, limits->max_delete, limits))
		return psprintf(INT64_FORMAT " of " INT64_FORMAT " records would be deleted, more than %g %%",
						plan->deleted, before, limits->max_delete);
	/* who resets a mapping wants all of it sent */
	if (plan->wants[RETL_UPDATED] && !plan->reset && too_many(plan->updated, before, limits->max_change, limits))
		return psprintf(INT64_FORMAT " of " INT64_FORMAT " records would be updated, more than %g %%",
						plan->updated, before, limits->max_change);
	return NULL;
}

bool
retl_plan_brake(RunPlan *plan)
{
	Limits		limits;
	int64		before;
	char	   *reason;

	if (plan->from_seq < 0 || plan->release || plan->stopping)
		return false;

	read_limits(plan, &limits);
	count_log(plan);
	before = Max(limits.rows - plan->added + plan->deleted, 1);
	if (plan->filter != NULL)
	{
		/* an update can take a row out of the filter */
		bool		near = plan->updated + plan->deleted >= limits.min_rows || limits.empty;

		if (near || plan->resend != RETL_RESEND_NONE)
			retl_plan_count(plan);
		/* costs a pass over the model, so only where the share matters */
		if (plan->updated >= limits.min_rows || plan->deleted >= limits.min_rows)
			before = Max(passed_before(plan), 1);
	}
	/* a reset sends what did not change, too; its deletes are those of the log */
	else if (plan->resend != RETL_RESEND_NONE ||
			 (!plan->reset && find_brake(plan, &limits, before) != NULL))
		retl_plan_count(plan);

	reason = find_brake(plan, &limits, before);
	if (reason != NULL)
		hold(plan, plan->added, plan->updated, plan->deleted, reason,
			 "Look at what changed. If it is right, release the run with retl.release_run, "
			 "or raise the mapping's limits; if not, mend the model and sync again.");
	plan->added = plan->updated = plan->deleted = 0;
	return reason != NULL;
}
