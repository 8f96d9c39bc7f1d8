/*
 * shmem.c
 *		The shared area and the transitions of its entries; see shmem.h.
 *
 * A worker's slot: free -> reserved (launcher) -> attached (worker) -> free
 * (worker, in retl_shmem_detach; or the launcher, where the process never
 * attached). The generation keeps a process that comes late from taking a slot
 * that was handed out again, and everybody from signalling a wrong process: a
 * slot's pid is valid while the lock is held, since the process clears it
 * before it ends.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/fault.h"
#include "base/progress.h"
#include "base/shmem.h"
#include "base/writes.h"

#define TRANCHE_NAME "retl"

/* Back-off of failing workers: doubles from the first to the last. */
#define FIRST_RETRY_MS 1000
#define LAST_RETRY_MS 60000

/* A worker that ran so long before it failed starts a new streak. */
#define STREAK_MS 60000

/* How long we wait for workers to leave a database; core then waits 5 s itself. */
#define STOP_TIMEOUT_MS 5000

RetlShared *retl_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* This process's slot; local, so that an exit before attaching touches nothing. */
static int	my_slot = -1;
static TimestampTz my_attached_at;
static TimestampTz my_next_due = DT_NOEND;

bool
retl_shmem_available(void)
{
	return retl_shared != NULL;
}

const char *
retl_worker_kind_name(RetlWorkerKind kind)
{
	return kind == RETL_SNAPSHOT_WORKER ? "snapshot" : "delivery";
}

static void
request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(RetlShared)));
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
	retl_channel_request_shmem();
	retl_progress_request_shmem();
	retl_writes_request_shmem();
}

static void
startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	retl_shared = ShmemInitStruct("retl", sizeof(RetlShared), &found);
	if (!found)
	{
		memset(retl_shared, 0, sizeof(RetlShared));
		retl_shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
		ConditionVariableInit(&retl_shared->left);
	}
	retl_channel_init_shmem();
	retl_progress_init_shmem();
	retl_writes_init_shmem();
	LWLockRelease(AddinShmemInitLock);
}

void
retl_shmem_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
	retl_writes_install();
}

/* Databases */

static bool
dispensable(const RetlDatabase *db)
{
	if (db->held > 0 || (db->listed && db->presence != RETL_ABSENT))
		return false;
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		if (db->kind[kind].wanted || retl_shmem_count(db->oid, kind) > 0)
			return false;
	return true;
}

RetlDatabase *
retl_shmem_database(Oid database, bool create)
{
	RetlDatabase *vacant = NULL;
	RetlDatabase *evicted = NULL;

	Assert(OidIsValid(database));
	Assert(LWLockHeldByMe(retl_shared->lock));
	for (int i = 0; i < RETL_MAX_DATABASES; i++)
	{
		RetlDatabase *db = &retl_shared->databases[i];

		if (db->oid == database)
			return db;
		if (vacant == NULL && !OidIsValid(db->oid))
			vacant = db;
	}
	if (!create)
		return NULL;

	Assert(LWLockHeldByMeInMode(retl_shared->lock, LW_EXCLUSIVE));
	for (int i = 0; vacant == NULL && i < RETL_MAX_DATABASES; i++)
	{
		RetlDatabase *db = &retl_shared->databases[i];

		if (dispensable(db) &&
			(evicted == NULL || db->kind[0].looked_at < evicted->kind[0].looked_at))
			evicted = db;
	}
	if (vacant == NULL)
		vacant = evicted;
	if (vacant == NULL)
	{
		retl_shared->overflowed = true;
		return NULL;
	}

	memset(vacant, 0, sizeof(*vacant));
	vacant->oid = database;
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		vacant->kind[kind].due_at = DT_NOEND;
	return vacant;
}

int
retl_shmem_count(Oid database, RetlWorkerKind kind)
{
	int			count = 0;

	Assert(LWLockHeldByMe(retl_shared->lock));
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];

		if (worker->in_use && worker->database == database && worker->kind == kind)
			count++;
	}
	return count;
}

void
retl_shmem_failed(RetlDatabase *db, RetlWorkerKind kind)
{
	RetlKindState *state = &db->kind[kind];
	int64		first_ms = RETL_FAULT_NUMBER("first_retry_ms", FIRST_RETRY_MS);
	int64		delay_ms = LAST_RETRY_MS;

	Assert(LWLockHeldByMeInMode(retl_shared->lock, LW_EXCLUSIVE));
	if (state->failures < 16)
		delay_ms = Min(LAST_RETRY_MS, first_ms << state->failures);
	state->failures++;
	state->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay_ms);
	state->wanted = true;
	state->wanted_at = state->retry_at;
}

/* Workers */

bool
retl_shmem_attach(int slot, uint32 generation)
{
	RetlWorker *worker = &retl_shared->workers[slot];
	RetlDatabase *db;
	bool		attached = false;

	Assert(my_slot < 0);
	Assert(slot >= 0 && slot < RETL_MAX_WORKERS);
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	if (worker->in_use && worker->generation == generation && worker->pid == 0)
	{
		db = retl_shmem_database(worker->database, false);
		if (db == NULL || db->held > 0)
		{
			worker->in_use = false;
			if (db != NULL)
				db->kind[worker->kind].wanted = true;
		}
		else
		{
			worker->pid = MyProcPid;
			worker->proc = MyProc;
			my_slot = slot;
			attached = true;
		}
	}
	LWLockRelease(retl_shared->lock);
	my_attached_at = GetCurrentTimestamp();
	return attached;
}

RetlWorker *
retl_shmem_my_worker(void)
{
	return my_slot < 0 ? NULL : &retl_shared->workers[my_slot];
}

void
retl_shmem_set_next_due(TimestampTz next_due)
{
	my_next_due = next_due;
}

/*
 * An exit hook: no catalog access, no waiting but for the lock, and nothing at
 * all for a process that did not attach.
 */
void
retl_shmem_detach(int code, Datum arg)
{
	RetlWorker *worker = retl_shmem_my_worker();
	RetlDatabase *db;

	if (worker == NULL)
		return;
	my_slot = -1;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(worker->database, false);
	if (db != NULL)
	{
		RetlKindState *state = &db->kind[worker->kind];

		state->looked_at = GetCurrentTimestamp();
		if (worker->stopped)
		{
			state->wanted = true;
			state->wanted_at = state->looked_at;
		}
		else if (code == 0)
		{
			state->failures = 0;
			state->due_at = my_next_due;
		}
		else
		{
			if (TimestampDifferenceExceeds(my_attached_at, state->looked_at, STREAK_MS))
				state->failures = 0;
			retl_shmem_failed(db, worker->kind);
		}
	}
	worker->in_use = false;
	worker->pid = 0;
	worker->proc = NULL;
	if (retl_shared->launcher != NULL)
		SetLatch(&retl_shared->launcher->procLatch);
	LWLockRelease(retl_shared->lock);

	ConditionVariableBroadcast(&retl_shared->left);
}

void
retl_request_help(void)
{
	RetlDatabase *db;

	if (retl_shared == NULL)
		return;
	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(MyDatabaseId, false);
	if (db != NULL && !db->kind[RETL_SNAPSHOT_WORKER].help)
	{
		db->kind[RETL_SNAPSHOT_WORKER].help = true;
		if (retl_shared->launcher != NULL)
			SetLatch(&retl_shared->launcher->procLatch);
	}
	LWLockRelease(retl_shared->lock);
}

/* Keeping workers out */

/* Sends SIGTERM to the workers of a database; returns how many there are. */
static int
signal_workers(Oid database)
{
	int			count = 0;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];

		/* One that did not attach yet will find the database held. */
		if (!worker->in_use || worker->database != database || worker->pid == 0)
			continue;
		count++;
		if (!worker->stopped)
		{
			worker->stopped = true;
			(void) kill(worker->pid, SIGTERM);
		}
	}
	LWLockRelease(retl_shared->lock);
	return count;
}

void
retl_shmem_hold(Oid database)
{
	RetlDatabase *db;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(database, true);
	if (db != NULL)
		db->held++;
	LWLockRelease(retl_shared->lock);
}

void
retl_shmem_stop(Oid database)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STOP_TIMEOUT_MS);

	ConditionVariablePrepareToSleep(&retl_shared->left);
	while (signal_workers(database) > 0)
	{
		long		left_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (left_ms <= 0)
			break;
		(void) ConditionVariableTimedSleep(&retl_shared->left, left_ms, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

void
retl_shmem_release(Oid database)
{
	RetlDatabase *db;

	LWLockAcquire(retl_shared->lock, LW_EXCLUSIVE);
	db = retl_shmem_database(database, false);
	if (db != NULL && db->held > 0)
	{
		db->held--;
		retl_shared->list_databases = true;
	}
	if (retl_shared->launcher != NULL)
		SetLatch(&retl_shared->launcher->procLatch);
	LWLockRelease(retl_shared->lock);
}
