/*
 * brake.c
 *		Brakes: what keeps a run from sending a flood that nobody meant.
 *
 * Evaluated before the first chunk of a run writes anything. A held run has no
 * batches and has moved no cursor; the next sync plans again and replaces it.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "base/sql.h"
#include "model/checkpoint.h"
#include "run/plan_state.h"

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

bool
retl_plan_brake(RunPlan *plan)
{
	RetlArgs	args = {0};
	int64		added;
	int64		updated;
	int64		deleted;
	int64		before;
	int64		after;
	const char *hint = "Look at what changed. If it is right, release the run with retl.release_run, "
		"or raise the mapping's limits; if not, mend the model and sync again.";

	if (plan->from_seq < 0 || plan->release || plan->stopping)
		return false;

	if (plan->resend != RETL_RESEND_NONE)
		retl_plan_count(plan);
	else
		count_log(plan);
	added = plan->added;
	updated = plan->updated;
	deleted = plan->deleted;
	plan->added = plan->updated = plan->deleted = 0;

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
	/* who resets a mapping wants all of it sent */
	if (plan->wants[RETL_UPDATED] && !plan->reset && updated >= retl_result_int4(0, 4) &&
		100.0 * updated / before > retl_result_float8(0, 3))
	{
		hold(plan, added, updated, deleted,
			 psprintf(INT64_FORMAT " of " INT64_FORMAT " records would be updated, more than %g %%",
					  updated, before, retl_result_float8(0, 3)), hint);
		return true;
	}
	return false;
}
