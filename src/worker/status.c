/*
 * status.c
 *		SQL: retl.worker_state(), what shared memory says of this database's
 *		workers. A snapshot under the lock of base/shmem.h; no state.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/shmem.h"

#define COLUMNS 8

/* Why work of this kind does not begin; NULL: nothing is in its way. Caller holds the lock. */
static const char *
obstacle(const RetlDatabase *db, RetlWorkerKind kind, bool running)
{
	const RetlKindState *state = &db->kind[kind];
	TimestampTz now = GetCurrentTimestamp();
	int			limit = kind == RETL_SNAPSHOT_WORKER ? retl_snapshot_workers : retl_delivery_workers;
	int			count = 0;

	if (!retl_enabled)
		return "retl.enabled is off";
	if (retl_shared->launcher == NULL)
		return "the launcher does not run";
	if (retl_shared->roles_unsound)
		return "the workers' roles have attributes or members that they must not have";
	if (!db->listed)
		return "workers may not connect to this database";
	if (db->held > 0)
		return "a statement keeps workers out of this database";
	if (running || !(state->wanted || state->due_at <= now))
		return NULL;
	if (state->retry_at > now)
		return "the last worker failed";
	if (retl_shared->slots_short)
		return "out of background worker slots";
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
		if (retl_shared->workers[i].in_use && retl_shared->workers[i].kind == kind)
			count++;
	if (count >= limit)
		return "other databases are served first";
	return NULL;
}

PG_FUNCTION_INFO_V1(retl_worker_state);

Datum
retl_worker_state(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RetlDatabase db;
	RetlDatabase *found;
	pid_t		pids[RETL_WORKER_KINDS] = {0};
	const char *obstacles[RETL_WORKER_KINDS] = {0};

	InitMaterializedSRF(fcinfo, 0);
	memset(&db, 0, sizeof(db));
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		db.kind[kind].due_at = DT_NOEND;

	if (!retl_shmem_available())
	{
		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
			obstacles[kind] = "retl is not in shared_preload_libraries";
	}
	else if (RecoveryInProgress())
	{
		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
			obstacles[kind] = "the server is in recovery";
	}
	else
	{
		LWLockAcquire(retl_shared->lock, LW_SHARED);
		found = retl_shmem_database(MyDatabaseId, false);
		if (found != NULL)
			db = *found;
		for (int i = 0; i < RETL_MAX_WORKERS; i++)
		{
			RetlWorker *worker = &retl_shared->workers[i];

			if (worker->in_use && worker->database == MyDatabaseId && worker->pid != 0)
				pids[worker->kind] = worker->pid;
		}
		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
			obstacles[kind] = obstacle(&db, kind, retl_shmem_count(MyDatabaseId, kind) > 0);
		LWLockRelease(retl_shared->lock);
	}

	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
	{
		RetlKindState *state = &db.kind[kind];
		Datum		values[COLUMNS];
		bool		nulls[COLUMNS] = {0};

		values[0] = CStringGetTextDatum(retl_worker_kind_name(kind));
		values[1] = BoolGetDatum(db.presence == RETL_PRESENT);
		values[2] = Int32GetDatum(pids[kind]);
		nulls[2] = pids[kind] == 0;
		values[3] = BoolGetDatum(state->wanted);
		values[4] = TimestampTzGetDatum(state->due_at);
		nulls[4] = state->due_at == DT_NOEND;
		values[5] = Int32GetDatum(state->failures);
		values[6] = TimestampTzGetDatum(state->retry_at);
		nulls[6] = state->failures == 0;
		if (obstacles[kind] != NULL)
			values[7] = CStringGetTextDatum(obstacles[kind]);
		nulls[7] = obstacles[kind] == NULL;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
