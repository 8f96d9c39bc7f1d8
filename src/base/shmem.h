/*
 * shmem.h
 *		What backends, launcher and workers know of each other: which databases
 *		have work due, and which worker serves it. Wake-ups make work quick,
 *		never right: workers find work by query.
 *
 * Locking: one LWLock, retl_shared->lock, protects everything in RetlShared;
 * each field says who writes it. It is held for a walk through these arrays at
 * most, never across catalog access, waiting or forking.
 */
#ifndef RETL_SHMEM_H
#define RETL_SHMEM_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

typedef enum RetlWorkerKind
{
	RETL_SNAPSHOT_WORKER,
	RETL_DELIVERY_WORKER
} RetlWorkerKind;

#define RETL_WORKER_KINDS 2

/*
 * For everybody.
 */

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
 * transaction commits (for sessions). Neither raises an error, nor does
 * anything without preloading. PREPARE TRANSACTION drops the wish; COMMIT
 * PREPARED wakes both kinds.
 */
extern void retl_wake(RetlWorkerKind kind);
extern void retl_wake_at_commit(RetlWorkerKind kind);

/*
 * For a snapshot worker: more models wait than it can serve soon. The launcher
 * may start one more for this database, within retl.snapshot_workers.
 */
extern void retl_request_help(void);

/*
 * For launcher, workers and the utility hook.
 */

/*
 * Databases that are kept in mind, and workers that may run. A database beyond
 * the limit is probed in turn with those that turned out to be without retl.
 */
#define RETL_MAX_DATABASES 512
#define RETL_MAX_WORKERS 64

typedef enum RetlPresence
{
	RETL_UNKNOWN,				/* to be probed */
	RETL_ABSENT,				/* the extension is not installed there */
	RETL_PRESENT
} RetlPresence;

/* What is known of one kind of work in one database. */
typedef struct RetlKindState
{
	bool		wanted;			/* somebody announced work; set by anybody, cleared by the worker before
								 * it looks */
	TimestampTz wanted_at;		/* since when; written as wanted */
	bool		help;			/* a worker asks for one more; cleared by the launcher */
	int			failures;		/* workers in a row that failed; written by leaving workers, and the
								 * launcher */
	TimestampTz retry_at;		/* no worker before this, after failures; written as failures */
	TimestampTz due_at;			/* work known to be due then; DT_NOEND: none. Written by leaving
								 * workers */
	TimestampTz looked_at;		/* when a worker last left; written by leaving workers */
	TimestampTz started_at;		/* when one was last started, for taking turns; written by the
								 * launcher */
} RetlKindState;

typedef struct RetlDatabase
{
	Oid			oid;			/* InvalidOid: the entry is free */
	bool		listed;			/* found in pg_database as one to connect to; written by the launcher */
	int			held;			/* statements during which no worker may be here; written by backends */
	RetlPresence presence;		/* written by workers, reset to unknown by anybody */
	RetlKindState kind[RETL_WORKER_KINDS];
} RetlDatabase;

/* A worker: reserved by the launcher, then attached (proc set) until it leaves. */
typedef struct RetlWorker
{
	bool		in_use;			/* set by the launcher; cleared by the worker, or by the launcher for
								 * one that never attached */
	uint32		generation;		/* of this use of the slot; written by the launcher */
	RetlWorkerKind kind;		/* written by the launcher, as the next two */
	Oid			database;
	TimestampTz reserved_at;
	pid_t		pid;			/* 0: not attached yet; written by the worker, as proc */
	PGPROC	   *proc;
	bool		yield;			/* the launcher asks it to leave soon */
	bool		stopped;		/* it was sent SIGTERM by us: no failure; written by backends */
} RetlWorker;

typedef struct RetlShared
{
	LWLock	   *lock;			/* set once, at start-up */
	ConditionVariable left;		/* broadcast when a worker leaves; has its own lock */
	PGPROC	   *launcher;		/* NULL: it does not run; written by the launcher */
	pid_t		launcher_pid;	/* written by the launcher */
	bool		list_databases; /* an unknown database called; cleared by the launcher */
	bool		overflowed;		/* a database found no room; cleared by the launcher */
	uint32		generation;		/* of the last slot handed out; written by the launcher */
	bool		slots_short;	/* max_worker_processes kept a worker from starting; written by the
								 * launcher */
	bool		roles_unsound;	/* as whom workers connect has attributes or members that it must not;
								 * written by the launcher */
	RetlDatabase databases[RETL_MAX_DATABASES];
	RetlWorker	workers[RETL_MAX_WORKERS];
} RetlShared;

/* NULL without preloading. */
extern RetlShared *retl_shared;

/* Installs the hooks that make the area; from _PG_init while preloading. */
extern void retl_shmem_install(void);

extern const char *retl_worker_kind_name(RetlWorkerKind kind);

/*
 * The entry of a database; NULL where there is none and, with "create", no
 * room for one. The caller holds the lock, exclusively to create.
 */
extern RetlDatabase *retl_shmem_database(Oid database, bool create);

/* Attached or reserved workers; the caller holds the lock. */
extern int	retl_shmem_count(Oid database, RetlWorkerKind kind);

/*
 * Takes over a slot that the launcher reserved. False: it was given up, or its
 * database is held; the process must leave at once. The process must have
 * registered retl_shmem_detach with before_shmem_exit first.
 */
extern bool retl_shmem_attach(int slot, uint32 generation);

/* The slot of this process, NULL when not attached. */
extern RetlWorker *retl_shmem_my_worker(void);

/* What a leaving worker tells: exit code 0 with the next due time, or a failure. */
extern void retl_shmem_set_next_due(TimestampTz next_due);
extern void retl_shmem_detach(int code, Datum arg);

/* Notes a failure of a kind in a database, and when to try again; the caller holds the lock. */
extern void retl_shmem_failed(RetlDatabase *db, RetlWorkerKind kind);

/*
 * Keeps workers out of a database, from retl_shmem_hold to retl_shmem_release.
 * Hold stops those that are there: it sends SIGTERM and waits a few seconds.
 */
extern void retl_shmem_hold(Oid database);
extern void retl_shmem_stop(Oid database);
extern void retl_shmem_release(Oid database);

#endif							/* RETL_SHMEM_H */
