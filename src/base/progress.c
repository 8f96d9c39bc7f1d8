/*
 * progress.c
 *		Progress of snapshots; see progress.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/progress.h"
#include "base/shmem.h"

typedef struct Entry
{
	pg_atomic_uint32 pid;		/* who writes it; a slot may have got another process meanwhile */
	pg_atomic_uint64 model;		/* 0: none */
	pg_atomic_uint64 rows;
	pg_atomic_uint64 expected;
	pg_atomic_uint64 started_at;
} Entry;

static Entry *entries = NULL;

void
retl_progress_request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Entry) * RETL_MAX_WORKERS));
}

/* The caller holds AddinShmemInitLock. */
void
retl_progress_init_shmem(void)
{
	bool		found;

	entries = ShmemInitStruct("retl progress", sizeof(Entry) * RETL_MAX_WORKERS, &found);
	if (found)
		return;
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		pg_atomic_init_u32(&entries[i].pid, 0);
		pg_atomic_init_u64(&entries[i].model, 0);
		pg_atomic_init_u64(&entries[i].rows, 0);
		pg_atomic_init_u64(&entries[i].expected, 0);
		pg_atomic_init_u64(&entries[i].started_at, 0);
	}
}

static Entry *
my_entry(void)
{
	RetlWorker *worker = entries != NULL ? retl_shmem_my_worker() : NULL;

	return worker == NULL ? NULL : &entries[worker - retl_shared->workers];
}

void
retl_progress_begin(int64 model, double expected)
{
	Entry	   *entry = my_entry();

	if (entry == NULL)
		return;
	pg_atomic_write_u64(&entry->model, 0);
	pg_atomic_write_u64(&entry->rows, 0);
	pg_atomic_write_u64(&entry->expected, (uint64) Max(expected, 0));
	pg_atomic_write_u64(&entry->started_at, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u32(&entry->pid, MyProcPid);
	pg_write_barrier();
	pg_atomic_write_u64(&entry->model, (uint64) model);
}

void
retl_progress_rows(int64 rows)
{
	Entry	   *entry = my_entry();

	if (entry != NULL)
		pg_atomic_write_u64(&entry->rows, (uint64) rows);
}

void
retl_progress_end(void)
{
	Entry	   *entry = my_entry();

	if (entry != NULL)
		pg_atomic_write_u64(&entry->model, 0);
}

int
retl_progress_read(RetlProgress *progress)
{
	int			count = 0;

	if (entries == NULL)
		return 0;
	LWLockAcquire(retl_shared->lock, LW_SHARED);
	for (int i = 0; i < RETL_MAX_WORKERS; i++)
	{
		RetlWorker *worker = &retl_shared->workers[i];
		Entry	   *entry = &entries[i];

		if (!worker->in_use || worker->database != MyDatabaseId || worker->pid == 0 ||
			worker->pid != (pid_t) pg_atomic_read_u32(&entry->pid) || pg_atomic_read_u64(&entry->model) == 0)
			continue;
		progress[count].model = (int64) pg_atomic_read_u64(&entry->model);
		pg_read_barrier();
		progress[count].rows = (int64) pg_atomic_read_u64(&entry->rows);
		progress[count].expected = (int64) pg_atomic_read_u64(&entry->expected);
		progress[count].started_at = (TimestampTz) pg_atomic_read_u64(&entry->started_at);
		count++;
	}
	LWLockRelease(retl_shared->lock);
	return count;
}
