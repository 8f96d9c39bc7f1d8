/*
 * progress.h
 *		How far the snapshots that are going on have come, in shared memory.
 *
 * One entry for each worker slot (base/shmem.h), written by the slot's process
 * alone and read by anybody without a lock: numbers that are looked at, not
 * relied on.
 */
#ifndef RETL_PROGRESS_H
#define RETL_PROGRESS_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct RetlProgress
{
	int64		model;
	int64		rows;			/* read so far */
	int64		expected;		/* as the planner has it */
	TimestampTz started_at;
} RetlProgress;

/* For shmem.c's hooks. */
extern void retl_progress_request_shmem(void);
extern void retl_progress_init_shmem(void);

/* For a worker; without effect in any other process. */
extern void retl_progress_begin(int64 model, double expected);
extern void retl_progress_rows(int64 rows);
extern void retl_progress_end(void);

/* Snapshots of the current database that are going on; room for RETL_MAX_WORKERS. */
extern int	retl_progress_read(RetlProgress *progress);

#endif							/* RETL_PROGRESS_H */
