/*
 * wait.c
 *		sync_and_wait, wait_for_run: procedures that wait for a run to end.
 *
 * While waiting, this session holds no lock and no snapshot: the request is
 * committed first, and each look at the run is a transaction of its own. Hence
 * neither works inside a transaction block.
 *
 * How a run ended is how the call ends: succeeded returns, partial warns,
 * failed raises the run's error, held and canceled raise 55000 and 57000.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "base/shmem.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_sync_and_wait);
PG_FUNCTION_INFO_V1(retl_wait_for_run);

/* Time between two looks: short for what is quick, at most a tenth of a second. */
#define FIRST_DELAY_MS 2
#define LAST_DELAY_MS 100

/* Counts are reported this often, a new status at once. */
#define REPORT_MS 1000

typedef struct RunState
{
	int64		id;
	char		mapping[256];	/* name, cut if need be */
	char		status[32];
	bool		ended;
	int64		served_by;		/* 0: none */
	int64		planned;
	int64		sent;
	int64		failed;
	int64		added;
	int64		updated;
	int64		deleted;
	double		seconds;
	char	   *error_code;		/* these three only when it has ended or is held */
	char	   *error;
	char	   *hint;
} RunState;

/* --------------------------------------------------------------------------
 * Committing
 * -------------------------------------------------------------------------- */

static void
require_nonatomic(FunctionCallInfo fcinfo, const char *name)
{
	bool		nonatomic = fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic;

	if (!nonatomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot wait inside a transaction block", name),
				 errdetail("What it waits for begins when this transaction has committed."),
				 errhint("Call it outside of BEGIN and COMMIT, functions and exception blocks; or run retl.sync(), commit, and then CALL retl.wait_for_run().")));
}

/* --------------------------------------------------------------------------
 * Looking
 * -------------------------------------------------------------------------- */

static void
set_text(char *field, size_t size, const char *value)
{
	strlcpy(field, value ? value : "", size);
}

static char *
keep_text(MemoryContext context, int column)
{
	char	   *value = retl_result_text(0, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

/* One transaction: how run "id" is. Errors with 42704, and 42501. */
static void
look(int64 id, RunState *state, MemoryContext context)
{
	RetlArgs	args = {0};
	RetlCall	call;

	retl_api_begin(&call, true);
	memset(state, 0, sizeof(RunState));
	state->id = id;
	retl_arg_int8(&args, id);
	if (retl_sql("SELECT m.name, m.owner::oid, o.owner::oid, coalesce(r.status, 'queued'),"
				 " r.finished_at IS NOT NULL, coalesce(r.served_by, 0),"
				 " coalesce(r.added + r.updated + r.deleted, 0), coalesce(r.sent, 0), coalesce(r.failed, 0),"
				 " coalesce(r.added, 0), coalesce(r.updated, 0), coalesce(r.deleted, 0),"
				 " coalesce(extract(epoch FROM r.finished_at - r.requested_at), 0)::float8,"
				 " r.error_code, left(r.error, 4000), left(r.hint, 4000)"
				 " FROM (SELECT $1 AS id) n"
				 " LEFT JOIN retl.run r ON r.id = n.id LEFT JOIN retl.request q ON q.id = n.id"
				 " JOIN retl.mapping m ON m.id = coalesce(r.mapping, q.mapping)"
				 " JOIN retl.model o ON o.id = m.model", &args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("run %lld does not exist", (long long) id),
				 errhint("View retl.runs lists what there is. A run goes with its mapping, and when its history is cleared.")));
	if (!retl_api_may(&call, retl_result_oid(0, 2)) && !retl_api_may(&call, retl_result_oid(0, 3)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for run %lld", (long long) id),
				 errhint("It is a run of mapping \"%s\": act as the owner of the mapping or of its model, or be granted their privileges.",
						 retl_result_text(0, 1))));
	set_text(state->mapping, sizeof(state->mapping), retl_result_text(0, 1));
	set_text(state->status, sizeof(state->status), retl_result_text(0, 4));
	state->ended = retl_result_bool(0, 5) || strcmp(state->status, "held") == 0;
	state->served_by = retl_result_int8(0, 6);
	state->planned = retl_result_int8(0, 7);
	state->sent = retl_result_int8(0, 8);
	state->failed = retl_result_int8(0, 9);
	state->added = retl_result_int8(0, 10);
	state->updated = retl_result_int8(0, 11);
	state->deleted = retl_result_int8(0, 12);
	state->seconds = retl_result_float8(0, 13);
	if (state->ended)
	{
		state->error_code = keep_text(context, 14);
		state->error = keep_text(context, 15);
		state->hint = keep_text(context, 16);
	}
	retl_catalog_leave(&call.saved);
	SPI_commit();				/* gives up locks and snapshot */
	SPI_finish();
}

/* --------------------------------------------------------------------------
 * Reporting
 * -------------------------------------------------------------------------- */

static void
report_progress(const RunState *state)
{
	if (strcmp(state->status, "queued") == 0)
		ereport(NOTICE, (errmsg("run %lld of mapping \"%s\": queued", (long long) state->id, state->mapping)));
	else
		ereport(NOTICE,
				(errmsg("run %lld of mapping \"%s\": %s, %lld records planned, %lld sent, %lld failed",
						(long long) state->id, state->mapping, state->status,
						(long long) state->planned, (long long) state->sent, (long long) state->failed)));
}

/* SQLSTATE of a run's error as a number; a code of our own where it has none. */
static int
run_sqlstate(const RunState *state)
{
	const char *code = state->error_code;

	if (code != NULL && strlen(code) == 5 && strspn(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
		return MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
	return ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

static void
report_end(const RunState *state)
{
	long long	id = state->id;
	const char *why = state->error ? state->error : "no reason is on record";

	if (strcmp(state->status, "succeeded") == 0)
		ereport(NOTICE,
				(errmsg("run %lld of mapping \"%s\" succeeded: %lld added, %lld updated, %lld deleted, %.2f s",
						id, state->mapping, (long long) state->added, (long long) state->updated,
						(long long) state->deleted, state->seconds)));
	else if (strcmp(state->status, "partial") == 0)
		ereport(WARNING,
				(errmsg("run %lld of mapping \"%s\" ended partial: %lld records were sent and %lld failed",
						id, state->mapping, (long long) state->sent, (long long) state->failed),
				 errhint("View retl.failed_rows tells why each failed. They are tried again by the next run.")));
	else if (strcmp(state->status, "failed") == 0)
		ereport(ERROR,
				(errcode(run_sqlstate(state)),
				 errmsg("run %lld of mapping \"%s\" failed: %s", id, state->mapping, why),
				 state->hint ? errhint("%s", state->hint) :
				 errhint("View retl.runs has the details.")));
	else if (strcmp(state->status, "held") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run %lld of mapping \"%s\" is held: %s", id, state->mapping, why),
				 state->hint ? errhint("%s", state->hint) :
				 errhint("Nothing was sent. Look at the model's rows; if they are right, release the run.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("run %lld of mapping \"%s\" was %s: %s", id, state->mapping, state->status, why),
				 state->hint ? errhint("%s", state->hint) :
				 errhint("What it did not deliver is synced by the next run.")));
}

/* --------------------------------------------------------------------------
 * Waiting
 * -------------------------------------------------------------------------- */

/* deadline 0: none. The session is in a fresh transaction without snapshot, here and after. */
static void
wait_until_ended(int64 id, TimestampTz deadline)
{
	MemoryContext context = CurrentMemoryContext;
	long		delay = FIRST_DELAY_MS;
	TimestampTz reported_at = 0;
	RunState	reported = {0};
	RunState	state;

	for (;;)
	{
		TimestampTz now;

		look(id, &state, context);
		MemoryContextSwitchTo(context);

		/* merged into another run, or replaced by it: that one decides */
		if (state.served_by != 0 && state.served_by != id)
		{
			ereport(NOTICE,
					(errmsg("run %lld of mapping \"%s\" is served by run %lld", (long long) id,
							state.mapping, (long long) state.served_by)));
			id = state.served_by;
			continue;
		}
		if (state.ended)
			break;

		now = GetCurrentTimestamp();
		if (strcmp(state.status, reported.status) != 0 ||
			((state.planned != reported.planned || state.sent != reported.sent ||
			  state.failed != reported.failed) &&
			 TimestampDifferenceExceeds(reported_at, now, REPORT_MS)))
		{
			report_progress(&state);
			reported = state;
			reported_at = now;
		}
		if (deadline != 0)
		{
			if (now >= deadline)
				ereport(ERROR,
						(errcode(ERRCODE_QUERY_CANCELED),
						 errmsg("run %lld of mapping \"%s\" has not ended in time: it is %s",
								(long long) id, state.mapping, state.status),
						 errhint("The run goes on. Wait for it again, or look at view retl.runs.")));
			delay = Min(delay, (deadline - now) / 1000 + 1);
		}

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 delay, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		delay = Min(delay * 2, LAST_DELAY_MS);
	}
	report_end(&state);
}

Datum
retl_sync_and_wait(PG_FUNCTION_ARGS)
{
	char	   *mapping = retl_api_text(fcinfo, 0, "mapping");
	RetlCall	call;
	int64		run;

	require_nonatomic(fcinfo, "retl.sync_and_wait");
	retl_require_workers();
	retl_api_begin(&call, true);
	run = retl_api_request(&call, mapping);
	retl_catalog_leave(&call.saved);
	SPI_commit();
	SPI_finish();

	wait_until_ended(run, 0);
	PG_RETURN_VOID();
}

Datum
retl_wait_for_run(PG_FUNCTION_ARGS)
{
	int64		run = retl_api_int64(fcinfo, 0, "run");
	Interval   *timeout;
	TimestampTz deadline;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "timeout")));
	timeout = PG_GETARG_INTERVAL_P(1);
	if (timeout->time < 0 || timeout->day < 0 || timeout->month < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	require_nonatomic(fcinfo, "retl.wait_for_run");

	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   PointerGetDatum(timeout)));
	wait_until_ended(run, deadline);
	PG_RETURN_VOID();
}
