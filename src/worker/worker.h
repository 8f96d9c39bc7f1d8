/*
 * worker.h
 *		What both kinds of worker are made of: joining the launcher, session
 *		settings, transactions, waiting and leaving. Owns the process's slot in
 *		shared memory (base/shmem.h) and no lock of its own.
 *
 * A worker's main is a loop:
 *
 *		retl_worker_start(kind);
 *		for (;;)
 *		{
 *			ResetLatch(MyLatch);
 *			retl_worker_interrupts();
 *			retl_worker_look();
 *			... find work by query and do it, in transactions ...
 *			... did something: retl_worker_busy(), and go round ...
 *			if (retl_worker_should_leave(next_due))
 *				retl_worker_leave(next_due);
 *			retl_worker_wait(next_due);
 *		}
 */
#ifndef RETL_WORKER_H
#define RETL_WORKER_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/compat.h"
#include "base/shmem.h"

/* What the launcher hands to a worker in bgw_extra. */
typedef struct RetlWorkerParams
{
	int			slot;
	uint32		generation;
	Oid			database;
	Oid			role;
} RetlWorkerParams;

extern PGDLLEXPORT void retl_snapshot_worker_main(Datum arg);
extern PGDLLEXPORT void retl_delivery_worker_main(Datum arg);

/*
 * Attaches, connects, and makes the session's settings ours. Returns only
 * where the extension is installed; a worker of a database without it leaves.
 */
extern void retl_worker_start(RetlWorkerKind kind);

/*
 * A transaction of a worker: READ COMMITTED, read-write, with the extension
 * locked against DROP EXTENSION; no snapshot is taken. Where the extension is
 * gone the process exits. Commit goes back to the memory context that was
 * current at the start.
 */
extern void retl_worker_start_transaction(void);
extern void retl_worker_commit(void);

/*
 * In a PG_CATCH block: logs the error, rolls back, and goes back to the memory
 * context that was current when the transaction was started. The worker may
 * go on.
 */
extern void retl_worker_abort(void);

/* The same without a word in the log: for what is tried again. */
extern void retl_worker_abort_quietly(void);

/* Whether this process is a worker. */
extern bool retl_worker_is_worker(void);

/*
 * Between two steps, outside of transactions: ends the process after SIGTERM,
 * reloads the configuration after SIGHUP, forgets a cancel that came too late.
 */
extern void retl_worker_interrupts(void);

/*
 * Takes note of what was announced so far; what is announced from here on sets
 * the latch. Call it after ResetLatch and before looking for work.
 */
extern void retl_worker_look(void);

/* Something was done: the idle time begins anew. */
extern void retl_worker_busy(void);

/*
 * Whether a worker that has work must leave, since other databases wait for
 * its place or workers were disabled. It finishes the step it is in (a
 * delivery worker: requests in flight, starting none) and leaves.
 */
extern bool retl_worker_must_yield(void);

/*
 * Whether a worker without work should leave now; "next_due" is when it knows
 * of work next, DT_NOEND for none.
 */
extern bool retl_worker_should_leave(TimestampTz next_due);

/* Leaves, telling when work is due in this database. */
pg_noreturn extern void retl_worker_leave(TimestampTz next_due);

/* Waits for the latch, for "next_due", or until it is time to leave. */
extern void retl_worker_wait(TimestampTz next_due);

/* How long retl_worker_wait would wait, in ms, -1 for ever; for waits of another kind. */
extern long retl_worker_wait_ms(TimestampTz next_due);

#endif							/* RETL_WORKER_H */
