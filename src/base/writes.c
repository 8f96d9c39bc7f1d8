/*
 * writes.c
 *		Counting writes; see writes.h.
 *
 * What a transaction wrote is taken from its pending statistics, which hold
 * every table by the time of commit: also COPY, TRUNCATE, triggers and foreign
 * keys, and the apply workers of logical replication; not what a subtransaction
 * wrote that was rolled back. A prepared transaction is counted, in both steps,
 * when it is prepared; that it is not visible yet is for the reader to find in
 * pg_prepared_xacts.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/pgstat_internal.h"

#include "base/compat.h"
#include "base/writes.h"

#define COUNTERS 8192			/* a power of two */

typedef struct Counter
{
	pg_atomic_uint64 begun;		/* commits that write a table of this counter, from before they are visible */
	pg_atomic_uint64 ended;		/* the same, from after they are visible, or have failed */
} Counter;

typedef struct Writes
{
	uint64		epoch;			/* set once */
	Counter		counters[COUNTERS];
} Writes;

static Writes *writes = NULL;

/* Counters of this process's transaction, between the two steps; in TopTransactionContext. */
static uint16 *pending = NULL;
static int	npending = 0;

void
retl_writes_request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Writes)));
}

/* The caller holds AddinShmemInitLock. */
void
retl_writes_init_shmem(void)
{
	bool		found;

	writes = ShmemInitStruct("retl writes", sizeof(Writes), &found);
	if (found)
		return;
	do
	{
		if (!pg_strong_random(&writes->epoch, sizeof(writes->epoch)))
			elog(ERROR, "could not generate a random number");
	} while (writes->epoch == 0);
	for (int i = 0; i < COUNTERS; i++)
	{
		pg_atomic_init_u64(&writes->counters[i].begun, 0);
		pg_atomic_init_u64(&writes->counters[i].ended, 0);
	}
}

uint64
retl_writes_epoch(void)
{
	return writes == NULL ? 0 : writes->epoch;
}

static uint16
counter_of(Oid database, Oid relation)
{
	return hash_combine(murmurhash32(database), murmurhash32(relation)) & (COUNTERS - 1);
}

/* Whether this transaction has written the table, which its snapshots see and nothing has counted yet. */
static bool
is_mine(Oid relation)
{
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	for (PgStat_SubXactStatus *state = pgstat_get_xact_stack_level(GetCurrentTransactionNestLevel());
		 state != NULL; state = state->prev)
		for (PgStat_TableXactStatus *table = state->first; table != NULL; table = table->next)
			if (table->parent->retl_pgstat_id == relation)
				return true;
	return false;
}

uint64
retl_writes_count(Oid database, Oid relation, bool *settled)
{
	Counter    *counter = &writes->counters[counter_of(database, relation)];
	uint64		ended;
	uint64		begun;

	/* in this order: if they are equal, they were so when the first was read */
	pg_memory_barrier();
	ended = pg_atomic_read_u64(&counter->ended);
	pg_memory_barrier();
	begun = pg_atomic_read_u64(&counter->begun);
	if (ended != begun || is_mine(relation))
		*settled = false;
	return begun;
}

/* The first step. Errors are still the transaction's: nothing is counted yet. */
static void
begin_commit(void)
{
	PgStat_SubXactStatus *state;
	int			count = 0;

	pending = NULL;
	npending = 0;
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) || !OidIsValid(MyDatabaseId))
		return;
	state = pgstat_get_xact_stack_level(1);
	for (PgStat_TableXactStatus *table = state->first; table != NULL; table = table->next)
		count++;
	pending = MemoryContextAlloc(TopTransactionContext, sizeof(uint16) * (count + 1));
	for (PgStat_TableXactStatus *table = state->first; table != NULL; table = table->next)
		pending[npending++] = counter_of(table->parent->retl_pgstat_shared ? InvalidOid : MyDatabaseId,
										 table->parent->retl_pgstat_id);
	if (!pgstat_track_counts)
		pending[npending++] = counter_of(MyDatabaseId, InvalidOid);
	for (int i = 0; i < npending; i++)
		pg_atomic_fetch_add_u64(&writes->counters[pending[i]].begun, 1);
}

void
retl_writes_committed(void)
{
	for (int i = 0; i < npending; i++)
		pg_atomic_fetch_add_u64(&writes->counters[pending[i]].ended, 1);
	pending = NULL;
	npending = 0;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (writes == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			begin_commit();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			retl_writes_committed();
			break;
		default:
			break;
	}
}

void
retl_writes_install(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
}
