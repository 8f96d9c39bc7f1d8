/*
 * launcher.c
 *		Starts workers where work is wanted or due; see launcher.h.
 *
 * It is connected to no database: it reads shared catalogs only, so it stands
 * in nobody's way. Which databases have the extension it cannot see: a
 * snapshot worker is sent to each once, and leaves at once where there is
 * none. After that a database calls (base/wake.c), or what its last worker
 * said falls due, or retl.naptime has passed.
 *
 * A cycle: reload, list databases, look after workers that never attached,
 * start what can be started, sleep until the next of these. An error in a
 * cycle is logged and the launcher goes on. It ends with exit code 1, so that
 * the postmaster starts it again. Workers outlive it; the next one finds them
 * in their slots.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "worker/launcher.h"
#include "worker/roles.h"
#include "worker/worker.h"

/* Seconds after which the postmaster starts the launcher again. */
#define RESTART_SECONDS 3

/* A worker that did not attach within this time is given up. */
#define ATTACH_TIMEOUT_MS 15000

/* When to try again after max_worker_processes was reached, or a cycle failed. */
#define SLOTS_RETRY_MS 5000
#define ERROR_RETRY_MS 5000

/* Announced work that no worker has looked for after this time gets one more. */
#define HELP_AFTER_MS 500

/* datconnlimit of a database whose DROP was interrupted. */
#define CONNLIMIT_INVALID_DB (-2)

/* Work that could be started now. */
typedef struct Candidate
{
	Oid			database;
	RetlWorkerKind kind;
	bool		help;			/* one more beside those that run */
	TimestampTz started_at;		/* when its database had its last turn */
} Candidate;

static BackgroundWorkerHandle *handles[RETL_MAX_WORKERS];
static uint32 handle_generations[RETL_MAX_WORKERS];

/* Databases are listed, workers registered, not before these. */
static TimestampTz list_at = 0;
static TimestampTz register_at = 0;

/* Databases with retl, as of this cycle. */
static int	ndatabases = 0;

static bool overflow_logged = false;
static bool unsound_logged = false;

void
retl_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "retl");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "retl_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "retl launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "retl launcher");
	RegisterBackgroundWorker(&worker);
}

static void
detach(int code, Datum arg)
{
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	if (retl_shared->launcher == MyProc)
	{
		retl_shared->launcher = NULL;
		retl_shared->launcher_pid = 0;
	}
	LWLockRelease(retl_shared->lock);
}

static TimestampTz
later_ms(TimestampTz time, int64 ms)
{
	return TimestampTzPlusMilliseconds(time, ms);
}

/* Databases */

/*
 * Whether the snapshot worker could connect at all: a database that revoked
 * CONNECT from PUBLIC is not worth a refused probe. (The extension grants it.)
 */
static bool
may_connect(Relation rel, HeapTuple tuple, Oid role)
{
	bool		isnull;
	Datum		acl = heap_getattr(tuple, Anum_pg_database_datacl, RelationGetDescr(rel), &isnull);

	/* Toasted: its TOAST table is out of reach without a database. */
	if (isnull || VARATT_IS_EXTERNAL(DatumGetPointer(acl)))
		return true;
	return aclmask(DatumGetAclP(acl), role, ((Form_pg_database) GETSTRUCT(tuple))->datdba,
				   ACL_CONNECT, ACLMASK_ANY) != 0;
}

/*
 * Brings the table of databases up to date with pg_database. Entries whose
 * database is gone are freed; workers of one that may not be connected to any
 * more are asked to leave.
 */
static void
list_databases(Oid snapshot_role)
{
	Oid		   *found = palloc(sizeof(Oid) * 64);
	int			nfound = 0;
	int			size = 64;
	bool		overflowed;
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datistemplate || !database->datallowconn ||
			database->datconnlimit == CONNLIMIT_INVALID_DB)
			continue;
		if (OidIsValid(snapshot_role) && !may_connect(rel, tuple, snapshot_role))
			continue;
		if (nfound == size)
			found = repalloc(found, sizeof(Oid) * (size *= 2));
		found[nfound++] = database->oid;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	retl_shared->overflowed = false;
	for (int i = 0; i < RETL_MAX_DATABASES; i++)
		retl_shared->databases[i].listed = false;
	for (int i = 0; i < nfound; i++)
	{
		RetlDatabase *db = retl_shmem_database(found[i], false);

		if (db != NULL)
			db->listed = true;
	}
	for (int i = 0; i < RETL_MAX_DATABASES; i++)
	{
		RetlDatabase *db = &retl_shared->databases[i];

		if (!OidIsValid(db->oid) || db->listed || db->held > 0)
			continue;
		if (retl_shmem_count(db->oid, RETL_SNAPSHOT_WORKER) == 0 &&
			retl_shmem_count(db->oid, RETL_DELIVERY_WORKER) == 0)
			db->oid = InvalidOid;
	}
	for (int i = 0; i < nfound; i++)
	{
		RetlDatabase *db = retl_shmem_database(found[i], true);

		if (db != NULL)
			db->listed = true;
	}
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];
		RetlDatabase *db;

		if (!worker->in_use)
			continue;
		db = retl_shmem_database(worker->database, false);
		if ((db == NULL || !db->listed) && !worker->yield)
		{
			worker->yield = true;
			if (worker->proc != NULL)
				SetLatch(&worker->proc->procLatch);
		}
	}
	overflowed = retl_shared->overflowed;
	LWLockRelease(retl_shared->lock);

	if (overflowed && !overflow_logged)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("retl can serve %d databases, and this cluster has more", RETL_MAX_DATABASES),
				 errhint("Disallow connections to databases that are not in use.")));
	overflow_logged = overflowed;
}

/* Workers */

/* Forgets workers that ended, or never began, before they could say so. */
static void
look_after_workers(TimestampTz now, TimestampTz *wake_at)
{
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];
		bool		stopped = false;
		bool		given_up = false;
		pid_t		pid;

		if (handles[i] != NULL)
			stopped = GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED;

		LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
		if (worker->in_use && worker->pid == 0)
		{
			TimestampTz deadline = later_ms(worker->reserved_at, ATTACH_TIMEOUT_MS);

			given_up = deadline <= now ||
				(stopped && handle_generations[i] == worker->generation);
			if (given_up)
			{
				RetlDatabase *db = retl_shmem_database(worker->database, false);

				worker->in_use = false;
				if (db != NULL)
					retl_shmem_failed(db, worker->kind);
			}
			else
				*wake_at = Min(*wake_at, deadline);
		}
		LWLockRelease(retl_shared->lock);

		if (stopped)
		{
			pfree(handles[i]);
			handles[i] = NULL;
			register_at = 0;	/* a process was freed */
		}
		if (given_up)
			ereport(LOG,
					(errmsg("a worker of retl did not start")));
	}
}

/*
 * When a database wants a worker of a kind: a time that has passed means now.
 * Caller holds the lock.
 */
static TimestampTz
wants_at(const RetlDatabase *db, RetlWorkerKind kind)
{
	const RetlKindState *state = &db->kind[kind];
	TimestampTz at;

	if (!OidIsValid(db->oid) || !db->listed || db->held > 0 || db->presence == RETL_ABSENT)
		return DT_NOEND;
	if (db->presence == RETL_UNKNOWN)
	{
		if (kind != RETL_SNAPSHOT_WORKER)
			return DT_NOEND;
		at = 0;
	}
	else if (state->wanted)
		at = 0;
	else
		at = Min(state->due_at, later_ms(state->looked_at, (int64) retl_naptime * 1000));
	return Max(at, state->retry_at);
}

/*
 * When a database that is served wants one more worker: one asked for it, or
 * those that are there do not come to what was announced.
 */
static TimestampTz
wants_help_at(const RetlDatabase *db, RetlWorkerKind kind)
{
	const RetlKindState *state = &db->kind[kind];

	if (kind != RETL_SNAPSHOT_WORKER || state->retry_at > GetCurrentTimestamp())
		return DT_NOEND;
	if (state->help)
		return 0;
	return state->wanted ? later_ms(state->wanted_at, HELP_AFTER_MS) : DT_NOEND;
}

static int
compare_candidates(const void *a, const void *b)
{
	const Candidate *one = a;
	const Candidate *two = b;

	if (one->help != two->help)
		return one->help ? 1 : -1;
	if (one->started_at != two->started_at)
		return one->started_at < two->started_at ? -1 : 1;
	return 0;
}

/* What could be started now, in turn; *wake_at is lowered to when more could be. */
static int
find_candidates(Candidate *candidates, TimestampTz now, TimestampTz *wake_at)
{
	int			count = 0;

	ndatabases = 0;
	LWLockAcquire(retl_shared->lock, LW_SHARED);
	for (int i = 0; i < RETL_MAX_DATABASES; i++)
	{
		RetlDatabase *db = &retl_shared->databases[i];

		if (OidIsValid(db->oid) && db->listed && db->presence == RETL_PRESENT)
			ndatabases++;
		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		{
			TimestampTz at = wants_at(db, kind);
			int			running;
			bool		help;

			if (at == DT_NOEND)
				continue;
			running = retl_shmem_count(db->oid, kind);
			help = running > 0;
			if (help)
				at = wants_help_at(db, kind);
			if (at > now)
			{
				*wake_at = Min(*wake_at, at);
				continue;
			}
			candidates[count].database = db->oid;
			candidates[count].kind = kind;
			candidates[count].help = help;
			candidates[count].started_at = db->kind[kind].started_at;
			count++;
		}
	}
	LWLockRelease(retl_shared->lock);

	qsort(candidates, count, sizeof(Candidate), compare_candidates);
	return count;
}

/* A slot for the candidate, or -1. */
static int
reserve(const Candidate *candidate, TimestampTz now, uint32 *generation)
{
	int			limit = candidate->kind == RETL_SNAPSHOT_WORKER ?
		retl_snapshot_workers : retl_delivery_workers;
	int			running = 0;
	int			vacant = -1;
	RetlDatabase *db;

	/* However long its models take, one database does not take all workers from others. */
	if (candidate->help && ndatabases > 1)
		limit--;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];

		if (!worker->in_use)
			vacant = i;
		else if (worker->kind == candidate->kind)
			running++;
	}
	db = retl_shmem_database(candidate->database, false);
	if (running >= limit || db == NULL || db->held > 0)
		vacant = -1;
	if (vacant >= 0)
	{
		RetlWorker *worker = &retl_shared->workers[vacant];

		memset(worker, 0, sizeof(*worker));
		worker->in_use = true;
		worker->generation = *generation = ++retl_shared->generation;
		worker->kind = candidate->kind;
		worker->database = candidate->database;
		worker->reserved_at = now;
		db->kind[candidate->kind].started_at = now;
		db->kind[candidate->kind].help = false;
	}
	LWLockRelease(retl_shared->lock);
	return vacant;
}

/* Registers a worker for a reserved slot; false when there is no process to be had. */
static bool
start_worker(const Candidate *candidate, int slot, uint32 generation, Oid role)
{
	BackgroundWorker worker;
	RetlWorkerParams params;
	BackgroundWorkerHandle *handle;
	MemoryContext before;
	bool		started;
	const char *kind = retl_worker_kind_name(candidate->kind);

	memset(&params, 0, sizeof(params));
	params.slot = slot;
	params.generation = generation;
	params.database = candidate->database;
	params.role = role;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "retl");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "retl_%s_worker_main", kind);
	snprintf(worker.bgw_name, BGW_MAXLEN, "retl %s worker for database %u", kind, candidate->database);
	snprintf(worker.bgw_type, BGW_MAXLEN, "retl %s worker", kind);
	memcpy(worker.bgw_extra, &params, sizeof(params));

	before = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(before);

	if (started)
	{
		if (handles[slot] != NULL)
			pfree(handles[slot]);
		handles[slot] = handle;
		handle_generations[slot] = generation;
	}
	else
	{
		LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
		retl_shared->workers[slot].in_use = false;
		LWLockRelease(retl_shared->lock);
	}
	return started;
}

/*
 * Asks as many workers to make room as there are candidates waiting, the
 * longest-serving first: those of the candidates' kind, or of any kind when
 * processes are short. Those that are asked already count.
 */
static void
ask_for_room(const Candidate *waiting, int count, bool any_kind)
{
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
	{
		int			missing = 0;

		for (int i = 0; i < count; i++)
			if (!waiting[i].help && (any_kind || waiting[i].kind == kind))
				missing++;
		for (int i = 0; i < RETL_MAX_WORKERS; i++)
		{
			RetlWorker *worker = &retl_shared->workers[i];

			if (worker->in_use && worker->kind == kind && worker->yield)
				missing--;
		}
		for (; missing > 0; missing--)
		{
			RetlWorker *oldest = NULL;

			for (int i = 0; i < RETL_MAX_WORKERS; i++)
			{
				RetlWorker *worker = &retl_shared->workers[i];

				if (worker->in_use && worker->kind == kind && !worker->yield && worker->proc != NULL &&
					(oldest == NULL || worker->reserved_at < oldest->reserved_at))
					oldest = worker;
			}
			if (oldest == NULL)
				break;
			oldest->yield = true;
			SetLatch(&oldest->proc->procLatch);
		}
	}
	LWLockRelease(retl_shared->lock);
}

/* Notes in shared memory what keeps workers from starting, for those who ask. */
static void
note_obstacles(bool slots_short, bool roles_unsound)
{
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	retl_shared->slots_short = slots_short;
	retl_shared->roles_unsound = roles_unsound;
	LWLockRelease(retl_shared->lock);
}

/* For them to see that they may not run. */
static void
wake_all_workers(void)
{
	LWLockAcquire(retl_shared->lock, LW_SHARED);
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];

		if (worker->in_use && worker->proc != NULL)
			SetLatch(&worker->proc->procLatch);
	}
	LWLockRelease(retl_shared->lock);
}

static void
check_roles(Oid roles[RETL_WORKER_KINDS])
{
	char	   *wrong = retl_roles_check(roles);

	note_obstacles(retl_shared->slots_short, wrong != NULL);
	if (wrong != NULL)
		wake_all_workers();
	if (wrong != NULL && !unsound_logged)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("retl starts no workers: %s", wrong),
				 errdetail("The roles of the workers must have no attributes beyond LOGIN, no members, and no memberships."),
				 errhint("Use ALTER ROLE and REVOKE to take them away.")));
	unsound_logged = wrong != NULL;
}

static void
start_workers(const Candidate *candidates, int count, const Oid roles[RETL_WORKER_KINDS],
			  TimestampTz now)
{
	Candidate  *waiting = palloc(sizeof(Candidate) * count);
	int			nwaiting = 0;
	bool		slots_short = false;

	for (int i = 0; i < count; i++)
	{
		const Candidate *candidate = &candidates[i];
		uint32		generation = 0;
		int			slot;

		if (!OidIsValid(roles[candidate->kind]))
			continue;
		slot = slots_short ? -1 : reserve(candidate, now, &generation);
		if (slot < 0)
			waiting[nwaiting++] = *candidate;
		else if (!start_worker(candidate, slot, generation, roles[candidate->kind]))
		{
			slots_short = true;
			waiting[nwaiting++] = *candidate;
		}
	}
	if (nwaiting > 0)
		ask_for_room(waiting, nwaiting, slots_short);

	if (slots_short)
	{
		register_at = later_ms(now, SLOTS_RETRY_MS);
		if (!retl_shared->slots_short)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("out of background worker slots: workers of retl have to wait"),
					 errhint("You might need to increase max_worker_processes.")));
	}
	note_obstacles(slots_short, retl_shared->roles_unsound);
}

/* One cycle; returns when to do the next, unless the latch is set before. */
static TimestampTz
cycle(Candidate *candidates)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz wake_at;
	Oid			roles[RETL_WORKER_KINDS];
	bool		list;
	int			count;

	RETL_FAULT("launcher_loop");

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	list = retl_shared->list_databases || list_at <= now;
	retl_shared->list_databases = false;
	LWLockRelease(retl_shared->lock);
	if (list)
	{
		list_at = later_ms(now, (int64) retl_naptime * 1000);
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		(void) GetTransactionSnapshot();
		check_roles(roles);
		list_databases(roles[RETL_SNAPSHOT_WORKER]);
		CommitTransactionCommand();
	}

	wake_at = list_at;
	look_after_workers(now, &wake_at);
	if (!retl_enabled)
		return wake_at;

	count = find_candidates(candidates, now, &wake_at);
	if (count == 0)
		return wake_at;
	if (register_at > now)
		return Min(wake_at, register_at);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	check_roles(roles);
	if (!unsound_logged)
		start_workers(candidates, count, roles, now);
	CommitTransactionCommand();
	return register_at > now ? Min(wake_at, register_at) : wake_at;
}

void
retl_launcher_main(Datum arg)
{
	MemoryContext cycle_context;
	Candidate  *candidates;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	ProcessConfigFile(PGC_SIGHUP);

	before_shmem_exit(detach, (Datum) 0);
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	retl_shared->launcher = MyProc;
	retl_shared->launcher_pid = MyProcPid;
	LWLockRelease(retl_shared->lock);

	cycle_context = AllocSetContextCreate(TopMemoryContext, "retl launcher cycle",
										  ALLOCSET_DEFAULT_SIZES);
	candidates = MemoryContextAlloc(TopMemoryContext, sizeof(Candidate) *
									RETL_MAX_DATABASES * RETL_WORKER_KINDS);
	for (;;)
	{
		volatile TimestampTz wake_at = 0;

		ResetLatch(MyLatch);
		if (ProcDiePending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		MemoryContextSwitchTo(cycle_context);
		PG_TRY();
		{
			wake_at = cycle(candidates);
		}
		PG_CATCH();
		{
			HOLD_INTERRUPTS();
			EmitErrorReport();
			AbortOutOfAnyTransaction();
			LWLockReleaseAll();
			FlushErrorState();
			wake_at = later_ms(GetCurrentTimestamp(), ERROR_RETRY_MS);
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(cycle_context);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at),
						 PG_WAIT_EXTENSION);
	}
}
