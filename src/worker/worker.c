/*
 * worker.c
 *		The scaffold of both kinds of worker; see worker.h.
 *
 * Workers are never restarted by the postmaster: the launcher decides. Exit
 * code 0 says "nothing to do until the next due time", anything else is a
 * failure, after which the launcher backs off. An error that nobody caught
 * ends the process with code 1.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "worker/worker.h"

StaticAssertDecl(sizeof(RetlWorkerParams) <= BGW_EXTRALEN,
				 "parameters of a worker must fit into bgw_extra");

/* A busy worker that was asked to make room does so after this time. */
#define TURN_MS 1000

/*
 * What ALTER ROLE or ALTER DATABASE may have set, and our code depends on.
 * Memory, parallelism and JIT are left to them.
 */
static const char *const session_settings[][2] = {
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
	{"transaction_timeout", "0"},
#endif
	{"row_security", "on"},
	{"session_replication_role", "origin"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	{"exit_on_error", "off"},
};

static RetlWorkerKind my_kind;
static Oid	extension_oid = InvalidOid;
static MemoryContext context_before = NULL;
static TimestampTz started_at;
static TimestampTz idle_since;

/* Started for announced work, or found some: it waits for more before it leaves. */
static bool lingers = false;

bool
retl_worker_is_worker(void)
{
	return retl_shmem_my_worker() != NULL;
}

static void
set_session(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/* The extension is not installed here, or not any more. */
static void
leave_absent(void)
{
	RetlDatabase *db;
	bool		announced = false;

	AbortOutOfAnyTransaction();
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(MyDatabaseId, false);
	if (db != NULL)
	{
		/* Announced since we looked: it may be there by now. */
		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
			announced |= db->kind[kind].wanted;
		db->presence = announced ? RETL_UNKNOWN : RETL_ABSENT;
	}
	LWLockRelease(retl_shared->lock);
	retl_worker_leave(DT_NOEND);
}

/* The first worker that finds the extension asks for one of the other kind. */
static void
note_present(void)
{
	RetlDatabase *db;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(MyDatabaseId, false);
	if (db != NULL && db->presence != RETL_PRESENT)
	{
		db->presence = RETL_PRESENT;
		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
			if (kind != my_kind)
				db->kind[kind].wanted = true;
		if (retl_shared->launcher != NULL)
			SetLatch(&retl_shared->launcher->procLatch);
	}
	LWLockRelease(retl_shared->lock);
}

void
retl_worker_start(RetlWorkerKind kind)
{
	RetlWorkerParams params;

	my_kind = kind;
	memcpy(&params, MyBgworkerEntry->bgw_extra, sizeof(params));

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(retl_shmem_detach, (Datum) 0);
	if (!retl_shmem_attach(params.slot, params.generation))
		proc_exit(0);

	RETL_FAULT("worker_attached");
	BackgroundWorkerInitializeConnectionByOid(params.database, params.role, 0);

	/* A reload may have come before we listened. */
	ProcessConfigFile(PGC_SIGHUP);

	for (int i = 0; i < lengthof(session_settings); i++)
		set_session(session_settings[i][0], session_settings[i][1]);
	set_session("application_name", kind == RETL_SNAPSHOT_WORKER ?
				"retl snapshot worker" : "retl delivery worker");
	if (GetUserId() != params.role || GetSessionUserId() != params.role)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("retl worker did not become the role that it was started for"),
				 errhint("Look for settings of the database or role in pg_db_role_setting.")));

	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "retl worker",
												ALLOCSET_DEFAULT_SIZES));
	started_at = idle_since = GetCurrentTimestamp();
	retl_worker_look();
	retl_worker_start_transaction();
	retl_worker_commit();
	note_present();
	RETL_FAULT("worker_started");
}

/*
 * Locks the extension for the transaction. Its OID is looked up again once the
 * lock is held: who held it before us may have dropped it.
 */
static void
lock_extension(void)
{
	Oid			oid = get_extension_oid("retl", true);

	if (!OidIsValid(oid))
		leave_absent();
	LockDatabaseObject(ExtensionRelationId, oid, 0, AccessShareLock);
	if (get_extension_oid("retl", true) != oid)
		leave_absent();

	if (!OidIsValid(extension_oid))
		extension_oid = oid;
	else if (extension_oid != oid)
	{
		/* Another one by now: what this process has cached is of no use. */
		AbortOutOfAnyTransaction();
		retl_worker_leave(GetCurrentTimestamp());
	}
}

void
retl_worker_start_transaction(void)
{
	Assert(retl_worker_is_worker());
	context_before = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
	lock_extension();
	pgstat_report_activity(STATE_RUNNING, NULL);
}

void
retl_worker_commit(void)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(context_before);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
abort_transaction(bool report)
{
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context_before);
	if (report)
		EmitErrorReport();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context_before);
	FlushErrorState();
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();
}

void
retl_worker_abort(void)
{
	abort_transaction(true);
}

void
retl_worker_abort_quietly(void)
{
	abort_transaction(false);
}

void
retl_worker_interrupts(void)
{
	Assert(!IsTransactionState());
	if (ProcDiePending)
		proc_exit(retl_shmem_my_worker()->stopped ? 0 : 1);
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Whether work was announced since we looked. */
static bool
announced(void)
{
	RetlDatabase *db;
	bool		wanted;

	LWLockAcquire(retl_shared->lock, LW_SHARED);
	db = retl_shmem_database(MyDatabaseId, false);
	wanted = db != NULL && db->kind[my_kind].wanted;
	LWLockRelease(retl_shared->lock);
	return wanted;
}

void
retl_worker_look(void)
{
	RetlDatabase *db;

	if (!announced())
		return;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(MyDatabaseId, false);
	if (db != NULL)
		db->kind[my_kind].wanted = false;
	LWLockRelease(retl_shared->lock);
	retl_worker_busy();
}

void
retl_worker_busy(void)
{
	lingers = true;
	idle_since = GetCurrentTimestamp();
}

/* Whether we were asked to make room, or may not run at all. */
static bool
asked_to_leave(void)
{
	bool		asked;

	if (!retl_enabled)
		return true;
	LWLockAcquire(retl_shared->lock, LW_SHARED);
	asked = retl_shmem_my_worker()->yield || retl_shared->roles_unsound;
	LWLockRelease(retl_shared->lock);
	return asked;
}

bool
retl_worker_must_yield(void)
{
	return asked_to_leave() &&
		TimestampDifferenceExceeds(started_at, GetCurrentTimestamp(), TURN_MS);
}

/* When an idle worker leaves, unless work is due soon. */
static TimestampTz
leave_at(void)
{
	if (!lingers)
		return idle_since;
	return TimestampTzPlusMilliseconds(idle_since, (int64) retl_worker_idle_timeout * 1000);
}

/* Leaving is not worth it for work that is due sooner than we would leave. */
static bool
due_soon(TimestampTz next_due, TimestampTz now)
{
	return next_due != DT_NOEND &&
		next_due < TimestampTzPlusMilliseconds(now, (int64) retl_worker_idle_timeout * 1000);
}

/* A worker that found nothing more to do has come through all there was: no failure any more. */
static void
end_streak(void)
{
	static bool ended = false;
	RetlDatabase *db;

	if (ended)
		return;
	ended = true;
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(MyDatabaseId, false);
	if (db != NULL)
		db->kind[my_kind].failures = 0;
	LWLockRelease(retl_shared->lock);
}

bool
retl_worker_should_leave(TimestampTz next_due)
{
	TimestampTz now = GetCurrentTimestamp();

	end_streak();
	if (asked_to_leave())
		return true;
	return now >= leave_at() && !due_soon(next_due, now);
}

void
retl_worker_leave(TimestampTz next_due)
{
	RETL_FAULT("worker_leaving");
	retl_shmem_set_next_due(next_due);
	proc_exit(0);
}

long
retl_worker_wait_ms(TimestampTz next_due)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = due_soon(next_due, now) ? next_due : leave_at();

	return TimestampDifferenceMilliseconds(now, Max(now, until));
}

void
retl_worker_wait(TimestampTz next_due)
{
	/* a query that waits for a lock or for parallel workers resets the latch, too */
	if (announced())
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 retl_worker_wait_ms(next_due), PG_WAIT_EXTENSION);
}
