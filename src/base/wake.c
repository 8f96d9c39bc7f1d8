/*
 * wake.c
 *		The session's side of shmem.h: announcing work, at once or at commit.
 *
 * What a transaction wishes is kept with the nesting level at which it was
 * first wished, so that a savepoint's rollback takes it back. Callbacks are
 * registered once per process.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "base/writes.h"

/* Nesting level of the wish for each kind; 0: none. */
static int	wished_level[RETL_WORKER_KINDS];

void
retl_require_workers(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("retl does not work during recovery"),
				 errhint("Call this on the primary server, or after promotion.")));
	if (!retl_shmem_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("retl is not loaded at server start"),
				 errhint("Add retl to shared_preload_libraries and restart the server.")));
}

void
retl_wake(RetlWorkerKind kind)
{
	RetlDatabase *db;
	bool		announced;

	if (retl_shared == NULL || !OidIsValid(MyDatabaseId))
		return;

	/*
	 * Work announced already and not yet looked for: whoever looks will clear
	 * that first, and then see ours too.
	 */
	LWLockAcquire(retl_shared->lock, LW_SHARED);
	db = retl_shmem_database(MyDatabaseId, false);
	announced = db != NULL && db->kind[kind].wanted && db->presence != RETL_ABSENT;
	LWLockRelease(retl_shared->lock);
	if (announced)
		return;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(MyDatabaseId, true);
	if (db != NULL)
	{
		bool		served = false;

		if (db->presence == RETL_ABSENT)
			db->presence = RETL_UNKNOWN;
		if (!db->listed)
			retl_shared->list_databases = true;
		db->kind[kind].wanted = true;
		db->kind[kind].wanted_at = GetCurrentTimestamp();
		for (int i = 0; i < RETL_MAX_WORKERS; i++)
		{
			RetlWorker *worker = &retl_shared->workers[i];

			if (worker->in_use && worker->proc != NULL &&
				worker->database == MyDatabaseId && worker->kind == kind)
			{
				SetLatch(&worker->proc->procLatch);
				served = true;
			}
		}
		/* A worker that is there may be long in what it does: the launcher waits and sees. */
		if ((!served || kind == RETL_SNAPSHOT_WORKER) && retl_shared->launcher != NULL)
			SetLatch(&retl_shared->launcher->procLatch);
	}
	LWLockRelease(retl_shared->lock);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			/* else who is woken might find a write that is not done */
			retl_writes_committed();
			for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
			{
				if (wished_level[kind] == 0)
					continue;
				wished_level[kind] = 0;
				retl_wake(kind);
			}
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			memset(wished_level, 0, sizeof(wished_level));
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
	{
		if (wished_level[kind] < level)
			continue;
		wished_level[kind] = event == SUBXACT_EVENT_COMMIT_SUB ? level - 1 : 0;
	}
}

void
retl_wake_at_commit(RetlWorkerKind kind)
{
	static bool registered = false;
	int			level = GetCurrentTransactionNestLevel();

	if (retl_shared == NULL)
		return;
	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		registered = true;
	}
	if (wished_level[kind] == 0 || level < wished_level[kind])
		wished_level[kind] = level;
}

/* SQL: retl.wake_workers(). Without preloading there is nobody to wake. */
PG_FUNCTION_INFO_V1(retl_wake_workers);

Datum
retl_wake_workers(PG_FUNCTION_ARGS)
{
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		retl_wake_at_commit(kind);
	PG_RETURN_VOID();
}
