/*
 * work.c
 *		Finds and does the snapshot worker's work; see work.h.
 *
 * The same units run in a worker and, by CALL retl.work(), in a session. How a
 * transaction begins and ends is all that differs: "Frame".
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "commands/vacuum.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/lockdefs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/owner.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "model/changelog.h"
#include "model/model.h"
#include "model/snapshot.h"
#include "run/plan.h"
#include "run/retention.h"
#include "run/run.h"
#include "run/wanted.h"
#include "run/work.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(retl_work);

typedef struct Frame
{
	void		(*begin) (void);
	void		(*commit) (void);
	void		(*abort) (void);
	void		(*give_way) (void); /* as abort, of what waited for a lock too long; or NULL: waits */
	bool		can_vacuum;
} Frame;

/*
 * How long a unit waits for a lock that a session holds, on a run or on what a
 * model reads: shorter than deadlock_timeout, so that it is never the session
 * that is told of a deadlock. A unit that could not be done is tried again
 * after a delay, which doubles as long as nothing else can be done.
 */
#define LOCK_TIMEOUT "200ms"
#define FIRST_DELAY_MS 100
#define LAST_DELAY_MS 5000

/* Something could not be done in this step, for want of a lock. */
static bool passed_over = false;
static int	delay_ms = FIRST_DELAY_MS;

/* Models whose checkpoints this process has changed; allocated in TopMemoryContext. */
static List *changed_models = NIL;

/* --------------------------------------------------------------------------
 * Frames
 * -------------------------------------------------------------------------- */

static void
begin_in_worker(void)
{
	retl_worker_start_transaction();
	retl_pin_settings();
	retl_set_local("lock_timeout", LOCK_TIMEOUT);
}

static const Frame worker_frame = {
	begin_in_worker, retl_worker_commit, retl_worker_abort, retl_worker_abort_quietly, true
};

/*
 * In a session: a subtransaction, so that an error can be survived, as the
 * only thing in a transaction that SPI_commit has just begun.
 */
static RetlIdentity session_identity;

static void
begin_in_session(void)
{
	MemoryContext context = CurrentMemoryContext;

	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	GetUserIdAndSecContext(&session_identity.userid, &session_identity.sec_context);
	session_identity.guc_level = NewGUCNestLevel();
	retl_set_local("search_path", "pg_catalog, pg_temp");
	retl_pin_settings();
	SetUserIdAndSecContext(get_role_oid("retl_snapshot", false),
						   session_identity.sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

static void
commit_in_session(void)
{
	MemoryContext context = CurrentMemoryContext;

	AtEOXact_GUC(false, session_identity.guc_level);
	SetUserIdAndSecContext(session_identity.userid, session_identity.sec_context);
	ReleaseCurrentSubTransaction();
	SPI_commit();
	MemoryContextSwitchTo(context);
}

static void
abort_in_session(void)
{
	ErrorData  *error = CopyErrorData();

	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("%s", error->message),
			 error->hint ? errhint("%s", error->hint) : 0));
	SPI_commit();
}

static const Frame session_frame = {
	begin_in_session, commit_in_session, abort_in_session, NULL, false
};

/* --------------------------------------------------------------------------
 * Units
 * -------------------------------------------------------------------------- */

typedef bool (*Unit) (int64 id, void *arg);

/*
 * Whether the transaction whose error is caught was rolled back because it had
 * to wait for a lock.
 */
static bool
gave_way(const Frame *frame)
{
	if (frame->give_way == NULL || geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	frame->give_way();
	passed_over = true;
	return true;
}

/*
 * Runs a unit in a transaction. On an error the transaction is rolled back,
 * the error logged, and *error set (in "context"): the caller records it in another transaction.
 */
static bool
run_unit(const Frame *frame, Unit unit, int64 id, void *arg, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = false;
	volatile bool rolled_back = false;

	*error = NULL;
	frame->begin();
	PG_TRY();
	{
		done = unit(id, arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (!gave_way(frame))
		{
			*error = CopyErrorData();
			frame->abort();
		}
		rolled_back = true;
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	if (!rolled_back)
	{
		frame->commit();
		passed_over |= !done;
	}
	return done || *error != NULL;
}

/*
 * Records a failure. An error while doing so is the worker's end, not the
 * unit's; where a lock is missing, the unit will be tried, and fail, again:
 * false.
 */
static bool
record_failure(const Frame *frame, bool (*record) (int64, const ErrorData *), int64 id,
			   ErrorData *error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool recorded = false;
	volatile bool rolled_back = false;

	frame->begin();
	PG_TRY();
	{
		recorded = record(id, error);
		RETL_FAULT("failure_recorded");
	}
	PG_CATCH();
	{
		if (!gave_way(frame))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		rolled_back = true;
	}
	PG_END_TRY();
	if (!rolled_back)
		frame->commit();
	passed_over |= !recorded;
	FreeErrorData(error);
	return recorded;
}

/* ---- snapshots ---- */

typedef struct SnapshotWork
{
	int64		model;
	int64	   *ids;			/* requests seen last: by the snapshot, or before it */
	int			count;
	RetlWanted	wanted;
	MemoryContext context;
} SnapshotWork;

/*
 * The model's requests. Under the snapshot that reads the model: which ones it
 * serves. Before it: to which ones a failure belongs. One that is committed
 * later may have brought what was missing, or ask for more than is being read:
 * it waits for the next snapshot.
 */
static void
see_requests(void *arg, RetlScopeKind scope)
{
	SnapshotWork *work = arg;
	RetlArgs	args = {0};
	int			count;

	if (scope == RETL_SCOPE_KEYS)
		return;
	SPI_connect();
	retl_arg_int8(&args, work->model);
	retl_arg_bool(&args, work->wanted.full);
	count = retl_sql_read("SELECT id FROM retl.request WHERE model = $1 AND (whole <= $2) ORDER BY id", &args);
	work->ids = MemoryContextAlloc(work->context, sizeof(int64) * Max(count, 1));
	for (int i = 0; i < count; i++)
		work->ids[i] = retl_result_int8(i, 1);
	work->count = count;
	SPI_finish();
	RETL_FAULT("requests_seen");
}

/*
 * A commit can be seen a moment before others are told of what it replaced,
 * functions among it, which no lock protects. It gives up its own lock after
 * that: so what the requests' transactions did is known from here on.
 */
static void
await_requesters(const SnapshotWork *work)
{
	RetlArgs	args = {0};
	int			count;
	TransactionId *xids;

	SPI_connect();
	retl_arg_int8(&args, work->model);
	count = retl_sql_read("SELECT DISTINCT xmin::pg_catalog.text::pg_catalog.int8 FROM retl.request WHERE model = $1", &args);
	xids = palloc(sizeof(TransactionId) * Max(count, 1));
	for (int i = 0; i < count; i++)
		xids[i] = (TransactionId) retl_result_int8(i, 1);
	for (int i = 0; i < count; i++)
		if (TransactionIdIsNormal(xids[i]) && !TransactionIdIsCurrentTransactionId(xids[i]))
			XactLockTableWait(xids[i], NULL, NULL, XLTW_None);
	SPI_finish();
	AcceptInvalidationMessages();
}

/* Of a model that was dropped. */
static void
forget_requests(int64 model)
{
	RetlArgs	args = {0};

	SPI_connect();
	retl_arg_int8(&args, model);
	retl_sql("DELETE FROM retl.request WHERE model = $1", &args);
	SPI_finish();
}

static bool
snapshot_unit(int64 id, void *arg)
{
	SnapshotWork *work = arg;
	RetlModel  *model;
	RetlSnapshot snapshot;
	bool		served;

	if (!retl_model_try_lock(id, ShareUpdateExclusiveLock))
		return false;
	RETL_FAULT("model_locked");
	work->wanted.full = true;
	see_requests(work, RETL_SCOPE_ALL);
	await_requesters(work);
	model = retl_model_load(id);
	if (model == NULL)
	{
		forget_requests(id);
		return true;
	}
	retl_wanted(model, work->ids, work->count, &work->wanted);
	if (!model->enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("model \"%s\" is disabled", model->name),
				 errhint("Run retl.enable_model.")));
	pgstat_report_activity(STATE_RUNNING, psprintf("retl: snapshot of model \"%s\"", model->name));
	retl_snapshot_take(model, &work->wanted, see_requests, work, &snapshot);
	served = retl_run_serve(work->ids, work->count, &snapshot);
	RETL_FAULT("requests_served");
	if (snapshot.added + snapshot.updated + snapshot.deleted > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		changed_models = list_append_unique_oid(changed_models, (Oid) id);
		MemoryContextSwitchTo(old);
	}
	return served;
}

static const SnapshotWork *failed_work;

static bool
record_failed_snapshot(int64 model, const ErrorData *error)
{
	return retl_run_fail_requests(failed_work->ids, failed_work->count, error);
}

static bool
do_snapshot(const Frame *frame, int64 model)
{
	SnapshotWork work = {0};
	ErrorData  *error;
	bool		done;

	work.model = model;
	work.context = CurrentMemoryContext;
	done = run_unit(frame, snapshot_unit, model, &work, &error);
	RETL_FAULT("snapshot_after_commit");
	if (error)
	{
		failed_work = &work;
		done = record_failure(frame, record_failed_snapshot, model, error);
	}
	return done;
}

/* ---- plans and ends ---- */

static bool
plan_unit(int64 id, void *arg)
{
	pgstat_report_activity(STATE_RUNNING, psprintf("retl: plan of run " INT64_FORMAT, id));
	return retl_plan_chunk(id);
}

static bool
end_unit(int64 id, void *arg)
{
	return retl_run_end(id);
}

static bool
do_plan(const Frame *frame, int64 run)
{
	ErrorData  *error;
	bool		done = run_unit(frame, plan_unit, run, NULL, &error);

	if (error)
		done = record_failure(frame, retl_run_fail_plan, run, error);
	RETL_FAULT("plan_after_commit");
	if (done)
		retl_wake(RETL_DELIVERY_WORKER);
	return done;
}

static bool
do_end(const Frame *frame, int64 run)
{
	ErrorData  *error;
	bool		done = run_unit(frame, end_unit, run, NULL, &error);

	RETL_FAULT("run_end_after_commit");

	/* nothing else could settle the run: leave, back off, try again */
	if (error)
		ReThrowError(error);
	return done;
}

/*
 * Who disables a mapping or destination stops the runs that are there. A run
 * that was being made meanwhile is found here.
 */
static bool
stop_unit(int64 run, void *arg)
{
	RetlArgs	args = {0};
	bool		stopped;

	SPI_connect();
	retl_arg_int8(&args, run);
	stopped = retl_sql("UPDATE retl.run SET stop_reason = 'disabled' WHERE id = $1"
					   " AND finished_at IS NULL AND stop_reason IS NULL", &args) > 0;
	SPI_finish();
	return stopped;
}

static bool
do_stop(const Frame *frame, int64 run)
{
	ErrorData  *error;
	bool		done = run_unit(frame, stop_unit, run, NULL, &error);

	if (error)
		ReThrowError(error);
	if (done)
		retl_wake(RETL_DELIVERY_WORKER);
	return done;
}

/* ---- housekeeping ---- */

static bool
tidy_log_unit(int64 model, void *arg)
{
	return retl_changelog_tidy(model);
}

/* When history is to be looked at again. */
static TimestampTz history_due = DT_NOBEGIN;

/* A look costs a little, and history need not go by the minute. */
#define HISTORY_INTERVAL_MS (10 * 60 * 1000)

static bool
trim_unit(int64 id, void *arg)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;

	if (!retl_retention_trim(now, &due))
		history_due = due == DT_NOEND ? due :
			Max(due, TimestampTzPlusMilliseconds(now, HISTORY_INTERVAL_MS));
	return true;
}

static bool
do_trim(const Frame *frame)
{
	ErrorData  *error;
	bool		done = run_unit(frame, trim_unit, 0, NULL, &error);

	if (error)
		ReThrowError(error);
	return done;
}

/* Whether the planner knows nothing of the checkpoint, or of one much smaller; false: it is gone. */
static bool
wants_analyze(const Frame *frame, int64 model, bool *exists)
{
	RetlArgs	args = {0};
	bool		wants = false;

	frame->begin();
	SPI_connect();
	retl_arg_int8(&args, model);
	*exists = retl_sql("SELECT c.reltuples < 0.5 * st.row_count FROM retl.model_state st, pg_catalog.pg_class c"
					   " WHERE st.model = $1 AND c.oid = pg_catalog.to_regclass('retl_data.checkpoint_' || $1)",
					   &args) == 1;
	if (*exists)
		wants = retl_result_bool(0, 1);
	SPI_finish();
	frame->commit();
	return wants;
}

/*
 * The join reads the checkpoint's index alone only where pages are known to be
 * visible to all, and an update of an included column is never HOT: so we
 * vacuum after each snapshot that wrote, rather than wait for autovacuum.
 */
static void
vacuum_checkpoint(const Frame *frame, int64 model)
{
	VacuumStmt *stmt = makeNode(VacuumStmt);
	RangeVar   *table = makeRangeVar("retl_data",
									 psprintf("checkpoint_" INT64_FORMAT, model), -1);
	bool		exists;

	if (wants_analyze(frame, model, &exists))
		stmt->options = list_make1(makeDefElem("analyze", NULL, -1));
	if (!exists)
		return;
	stmt->rels = list_make1(makeVacuumRelation(table, InvalidOid, NIL));
	stmt->is_vacuumcmd = true;
	RETL_FAULT("vacuum_begins");

	/* somebody may have dropped the model by now */
	frame->begin();
	PG_TRY();
	{
		ExecVacuum(make_parsestate(NULL), stmt, true);
		frame->commit();
	}
	PG_CATCH();
	{
		frame->abort();
	}
	PG_END_TRY();
}

/* --------------------------------------------------------------------------
 * Finding work
 * -------------------------------------------------------------------------- */

typedef struct Found
{
	int			count;
	int64		ids[32];
} Found;

static const char *const runs_to_end =
	"SELECT id FROM retl.run WHERE finished_at IS NULL AND served_by IS NULL AND planned"
	"  AND CASE WHEN stop_reason IS NULL THEN open_batches = 0 ELSE quiesced END"
	" ORDER BY id LIMIT 32";

static const char *const runs_to_stop =
	"SELECT r.id FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
	" JOIN retl.destination d ON d.id = m.destination"
	" WHERE r.finished_at IS NULL AND r.stop_reason IS NULL AND r.status IN ('planning', 'delivering')"
	"  AND NOT (m.enabled AND d.enabled) ORDER BY r.id LIMIT 32";

static const char *const runs_to_plan =
	"SELECT id FROM retl.run WHERE finished_at IS NULL AND served_by IS NULL AND status = 'planning'"
	"  AND NOT planned AND (stop_reason IS NOT NULL OR open_bytes < $1)"
	" ORDER BY id LIMIT 32";

static const char *const models_to_read =
	"SELECT q.model FROM retl.request q LEFT JOIN retl.mapping_state s ON s.mapping = q.mapping"
	" WHERE s.active_run IS NULL GROUP BY q.model ORDER BY pg_catalog.min(q.id) LIMIT 32";

static void
find(const Frame *frame, const char *sql, int64 parameter, Found *found)
{
	RetlArgs	args = {0};

	frame->begin();
	SPI_connect();
	if (parameter >= 0)
		retl_arg_int8(&args, parameter);
	found->count = retl_sql(sql, &args);
	for (int i = 0; i < found->count; i++)
		found->ids[i] = retl_result_int8(i, 1);
	SPI_finish();
	frame->commit();
}

/* Tries a unit on what was found until one can be done. */
static bool
try_each(const Frame *frame, const Found *found, bool (*unit) (const Frame *, int64))
{
	for (int i = 0; i < found->count; i++)
		if (unit(frame, found->ids[i]))
			return true;
	return false;
}

static bool
do_tidy_log(const Frame *frame, int64 model)
{
	ErrorData  *error;
	bool		done = run_unit(frame, tidy_log_unit, model, NULL, &error);

	if (error)
		ReThrowError(error);
	return done;
}

static bool
work_step(const Frame *frame)
{
	Found		found;

	find(frame, runs_to_stop, -1, &found);
	if (try_each(frame, &found, do_stop))
		return true;

	find(frame, runs_to_end, -1, &found);
	if (try_each(frame, &found, do_end))
		return true;

	find(frame, runs_to_plan,
		 RETL_FAULT_NUMBER("max_planned", (int64) retl_max_planned_kb * 1024), &found);
	if (try_each(frame, &found, do_plan))
		return true;

	find(frame, models_to_read, -1, &found);
	if (found.count > 1)
		retl_request_help();
	if (try_each(frame, &found, do_snapshot))
		return true;

	find(frame, retl_changelog_due, RETL_FAULT_NUMBER("log_tidy_rows", RETL_CHANGELOG_TIDY_ROWS), &found);
	if (try_each(frame, &found, do_tidy_log))
		return true;

	if (history_due <= GetCurrentTimestamp() && do_trim(frame))
		return true;

	if (frame->can_vacuum && changed_models != NIL)
	{
		int64		model = linitial_oid(changed_models);

		changed_models = list_delete_first(changed_models);
		vacuum_checkpoint(frame, model);
		return true;
	}
	return false;
}

bool
retl_work_step(TimestampTz *next_due)
{
	static MemoryContext context = NULL;
	MemoryContext old;
	bool		done;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "retl work", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	passed_over = false;
	done = work_step(&worker_frame);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
	*next_due = Min(*next_due, history_due);
	if (done)
		delay_ms = FIRST_DELAY_MS;
	else if (passed_over)
	{
		*next_due = Min(*next_due, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay_ms));
		delay_ms = Min(2 * delay_ms, LAST_DELAY_MS);
	}
	return done;
}

/* --------------------------------------------------------------------------
 * The foreground twin
 * -------------------------------------------------------------------------- */

Datum
retl_work(PG_FUNCTION_ARGS)
{
	bool		atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
						   !castNode(CallContext, fcinfo->context)->atomic);
	MemoryContext context;
	MemoryContext old;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to do the snapshot worker's work in a session")));
	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("retl.work cannot run inside a transaction block"),
				 errhint("Call it on its own, outside of BEGIN and of functions.")));

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	context = AllocSetContextCreate(TopMemoryContext, "retl work", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	history_due = DT_NOBEGIN;
	while (work_step(&session_frame))
	{
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	SPI_finish();
	PG_RETURN_VOID();
}
