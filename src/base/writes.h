/*
 * writes.h
 *		Counters of committed writes, for each table of the cluster, in shared
 *		memory: proof that a table has not been written.
 *
 * The cumulative statistics reach shared memory up to a minute after the
 * commit, and those of the very transaction that asks for a sync arrive after
 * it was asked. So every backend counts here, in two steps: just before its
 * commit, and when the commit is visible. Of a table of which both counts are
 * equal, whoever then takes a snapshot sees every write that is counted; and
 * whoever sees a write finds it counted.
 *
 * Tables share counters by hash: one that moves tells that a table may have
 * been written, one that stands that none was. Counters begin anew, in another
 * epoch, when the server starts. No locks: atomics, added to by any backend.
 */
#ifndef RETL_WRITES_H
#define RETL_WRITES_H

#include "postgres.h"

/* For shmem.c's hooks, and the transaction callback; while preloading. */
extern void retl_writes_request_shmem(void);
extern void retl_writes_init_shmem(void);
extern void retl_writes_install(void);

/* The second step, for who is about to tell others of the commit; later it is done anyway. */
extern void retl_writes_committed(void);

/* Which run of the server the counters belong to; 0: there are none. */
extern uint64 retl_writes_epoch(void);

/*
 * Transactions that have written a table and have begun to commit. Sets
 * *settled to false if one of them may not be visible to a snapshot that is
 * taken now, or this transaction has written the table, and leaves it else. "database" is InvalidOid for shared catalogs;
 * "relation" is InvalidOid for what was written uncounted (track_counts off).
 */
extern uint64 retl_writes_count(Oid database, Oid relation, bool *settled);

#endif							/* RETL_WRITES_H */
