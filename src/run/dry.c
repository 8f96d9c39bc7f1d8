/*
 * dry.c
 *		Trying a run; see dry.h.
 *
 * The run's number is one that no request can have, so that no sequence
 * advances: that alone would not be rolled back.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/sql.h"
#include "model/model.h"
#include "model/snapshot.h"
#include "run/dry.h"
#include "run/effect.h"
#include "run/plan.h"

#define DRY_RUN INT64CONST(-1)

typedef struct Waiting
{
	int64		mapping;
	int64		last;			/* newest request that the snapshot sees */
} Waiting;

/* Under the snapshot that reads the model. */
static void
see_requests(void *arg, RetlScopeKind scope)
{
	Waiting    *waiting = arg;
	RetlArgs	args = {0};

	SPI_connect();
	retl_arg_int8(&args, waiting->mapping);
	retl_sql_read("SELECT COALESCE(pg_catalog.max(id), 0) FROM retl.request WHERE mapping = $1", &args);
	waiting->last = retl_result_int8(0, 1);
	SPI_finish();
}

/* What requests that wait will have done to the mapping's state by then. */
static void
apply_effects(const Waiting *waiting, int64 seq)
{
	RetlArgs	args = {0};
	int64		count;
	char	  **kinds;
	char	  **arguments;

	retl_arg_int8(&args, waiting->mapping);
	retl_arg_int8(&args, waiting->last);
	count = retl_sql("SELECT kind, arguments FROM retl.request WHERE mapping = $1 AND id <= $2"
					 " AND kind <> 'sync' ORDER BY id", &args);
	kinds = palloc(sizeof(char *) * Max(count, 1));
	arguments = palloc(sizeof(char *) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
	{
		kinds[i] = retl_result_text(i, 1);
		arguments[i] = retl_result_text(i, 2);
	}
	for (int64 i = 0; i < count; i++)
		retl_effect_apply(waiting->mapping, kinds[i], arguments[i], seq);
}

static void
make_run(int64 mapping, const RetlSnapshot *snapshot)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, DRY_RUN);
	retl_arg_int8(&args, mapping);
	retl_arg_int8(&args, snapshot->seq);
	retl_arg_timestamptz(&args, snapshot->started_at);
	retl_arg_int8(&args, snapshot->set_aside);
	retl_sql("INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, requested_at, started_at,"
			 "  from_seq, to_seq, reset, set_aside)"
			 " SELECT $1, m.id, m.version, 'planning', 'preview', $4, $4, s.cursor, $3, s.reset, $5"
			 " FROM retl.mapping m JOIN retl.mapping_state s ON s.mapping = m.id WHERE m.id = $2", &args);
}

static int64
count_exceptions(int64 mapping)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, mapping);
	retl_sql("SELECT pg_catalog.count(*) FROM retl.exception WHERE mapping = $1", &args);
	return retl_result_int8(0, 1);
}

/* Where a brake holds the run, *brake is why, and it goes on as if released. */
static void
pass_brake(MemoryContext context, char **brake)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, DRY_RUN);
	if (retl_sql("SELECT error FROM retl.run WHERE id = $1 AND status = 'held'", &args) == 0)
		return;
	*brake = MemoryContextStrdup(context, retl_result_text(0, 1));
	retl_sql("UPDATE retl.run SET status = 'planning', release = true, error_code = NULL, error = NULL,"
			 " hint = NULL, added = 0, updated = 0, deleted = 0 WHERE id = $1", &args);
}

/* Whether there is nothing left to plan. */
static bool
is_planned(void)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, DRY_RUN);
	retl_sql("SELECT planned FROM retl.run WHERE id = $1", &args);
	return retl_result_bool(0, 1);
}

static void
read_result(RetlDryRun *result)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, DRY_RUN);
	retl_sql("SELECT added, updated, deleted, unchanged, set_aside, failed, open_batches, open_bytes"
			 " FROM retl.run WHERE id = $1", &args);
	result->added = retl_result_int8(0, 1);
	result->updated = retl_result_int8(0, 2);
	result->deleted = retl_result_int8(0, 3);
	result->unchanged = retl_result_int8(0, 4);
	result->set_aside = retl_result_int8(0, 5);
	result->unmapped = retl_result_int8(0, 6);
	result->requests = retl_result_int8(0, 7);
	result->bytes = retl_result_int8(0, 8);
}

void
retl_dry_run(int64 mapping, RetlDryRun *result)
{
	MemoryContext context = CurrentMemoryContext;
	RetlArgs	args = {0};
	RetlModel  *model;
	RetlSnapshot snapshot;
	RetlWanted	wanted = {0};
	Waiting		waiting = {.mapping = mapping};

	memset(result, 0, sizeof(*result));
	SPI_connect();
	retl_arg_int8(&args, mapping);
	retl_sql("SELECT m.model, m.name, s.active_run FROM retl.mapping m JOIN retl.mapping_state s"
			 " ON s.mapping = m.id WHERE m.id = $1", &args);
	if (!retl_result_isnull(0, 3))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("run " INT64_FORMAT " of mapping \"%s\" is under way", retl_result_int8(0, 3),
						retl_result_text(0, 2)),
				 errdetail("What the next sync does depends on how it ends."),
				 errhint("Wait for it: CALL retl.wait_for_run(" INT64_FORMAT ").", retl_result_int8(0, 3))));
	model = retl_model_get(retl_result_int8(0, 1));

	retl_snapshot_take(model, &wanted, see_requests, &waiting, &snapshot);
	result->strategy = MemoryContextStrdup(context, snapshot.strategy);
	result->strategy_reason = MemoryContextStrdup(context, snapshot.reason);
	result->plan_cost = snapshot.plan_cost;
	result->plan_rows = snapshot.plan_rows;
	apply_effects(&waiting, snapshot.seq);
	make_run(mapping, &snapshot);
	result->failed_to_retry = count_exceptions(mapping);
	while (!is_planned())
	{
		CHECK_FOR_INTERRUPTS();
		if (!retl_plan_chunk_dry(DRY_RUN))
			elog(ERROR, "the run that is tried cannot be planned");
		pass_brake(context, &result->brake);
	}
	read_result(result);
	SPI_finish();
}
