/*
 * shmem.h
 *		What backends, launcher and workers know of each other: which databases
 *		have work due, and which worker serves it. Wake-ups make work quick,
 *		never right: workers find work by query.
 */
#ifndef RETL_SHMEM_H
#define RETL_SHMEM_H

#include "postgres.h"

typedef enum RetlWorkerKind
{
	RETL_SNAPSHOT_WORKER,
	RETL_DELIVERY_WORKER
} RetlWorkerKind;

#define RETL_WORKER_KINDS 2

/* Whether the library was preloaded, so that launcher and workers exist. */
extern bool retl_shmem_available(void);

/*
 * Errors with 55000 and a hint about shared_preload_libraries when it was not,
 * and in recovery. For calls that need a worker.
 */
extern void retl_require_workers(void);

/*
 * Makes a worker of this kind look for work in the current database: at once
 * (for workers, after their own commit), or when the current top-level
 * transaction commits (for sessions).
 */
extern void retl_wake(RetlWorkerKind kind);
extern void retl_wake_at_commit(RetlWorkerKind kind);

#endif							/* RETL_SHMEM_H */
