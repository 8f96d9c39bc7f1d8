/*
 * queue.h
 *		What the delivery worker has in memory of what is to be sent: for each
 *		run a window of its pending batches, for each destination what is loaded
 *		and ready to go.
 *
 * Batches are claimed by being here, which is safe since there is one delivery
 * worker in a database. A batch is
 *		WAITING		known, in its run's window
 *		READY		loaded, in its destination's queue
 *		IN_FLIGHT	sent
 *		ANSWERED	its outcome known, not yet on record
 *		LATER		to be tried again, and on record as such
 * and leaves memory when its last outcome is on record. Of a run with very many retries the table
 * keeps track, where they are found again when they are due. So memory is bounded by windows and by the
 * bytes that are loaded ahead, whatever waits in the table.
 *
 * Order: a run's batches are taken by number, a destination's runs in turn,
 * so that a small run is not stuck behind a large one. State of the process, no locks.
 */
#ifndef RETL_QUEUE_H
#define RETL_QUEUE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"

#include "deliver/destination.h"
#include "deliver/ledger.h"

/* After so many refusals in a row that are not for a record's sake, no more of a run is sent. */
#define RETL_QUEUE_HOPELESS_MOST 100

typedef struct RetlQueueRun
{
	int64		id;				/* hash key */
	dlist_node	node;			/* in its destination's list */
	RetlDestination *destination;
	dlist_head	waiting;
	int			nwaiting;
	dlist_head	later;
	int			nlater;
	TimestampTz next_later;		/* when the first of them is due */
	int			nknown;			/* batches in memory, in any state */
	int			nin_flight;
	int			nanswered;
	int			nfruitless;		/* refusals of batches since something was accepted */
	int			nhopeless;		/* refusals in a row that had nothing to do with records */
	dlist_node *chosen;			/* last one taken, while choosing what to load */

	bool		seen;			/* by the discovery under way */
	bool		enabled;
	bool		stopped;
	bool		quiesced;
	bool		late;
	int64		open_batches;
	int			max_attempts;	/* as in the ledger */
	int64		max_age_ms;
	TimestampTz since;

	int			stage;
	int64		high_water;		/* batches up to here were seen */
	bool		exhausted;		/* there were none beyond it */
	bool		rescan;			/* look at all of them again */
	TimestampTz next_due;		/* then, at the latest */
} RetlQueueRun;

typedef enum RetlQueueState
{
	RETL_BATCH_WAITING,
	RETL_BATCH_READY,
	RETL_BATCH_IN_FLIGHT,
	RETL_BATCH_ANSWERED,
	RETL_BATCH_LATER
} RetlQueueState;

typedef struct RetlQueueBatch
{
	int64		id;				/* hash key */
	dlist_node	node;			/* in the list that its state says, if any */
	RetlQueueRun *run;
	RetlQueueState state;
	RetlLedgerBatch ledger;
	char	   *request;		/* one chunk for request and body */
	char	   *body;
	size_t		body_len;
	char	   *rendered;		/* the body as it is sent, where that is another, in a chunk of its own */
	size_t		rendered_len;
	bool		by_record;		/* may be bisected */
	TimestampTz due;			/* LATER: not before this */
	RetlLedgerResult result;
} RetlQueueBatch;

extern void retl_queue_init(MemoryContext context);

/*
 * Looks which runs there are and whether they may go on. "thorough": also for
 * batches that were passed over. Returns whether the snapshot worker should be
 * woken. In a transaction with SPI connected.
 */
extern bool retl_queue_discover(TimestampTz now, bool thorough);

/* Forgets everything that is not under way: nothing may be sent. */
extern void retl_queue_clear(void);

/* Whether retl_queue_load would find something to do. */
extern bool retl_queue_wants_load(TimestampTz now);

/* Fills windows and loads bodies and secrets. In a transaction with SPI connected. */
extern void retl_queue_load(TimestampTz now);

/*
 * The next batch to send, taking destinations in turn, which is then IN_FLIGHT;
 * NULL: none may be sent now.
 */
extern RetlQueueBatch *retl_queue_next(TimestampTz now);

/* It cannot be sent now, after all: it is the next one again. */
extern void retl_queue_put_back(RetlQueueBatch *batch, TimestampTz not_before);

/* A destination that was waiting for its access token need not wait any longer than this. */
extern void retl_queue_token_answered(int64 destination, TimestampTz at);

/* It is answered: no more in flight. Its outcome is the caller's. */
extern void retl_queue_answered(RetlQueueBatch *batch);

/* Gives back the memory for the bytes of a batch. */
extern void retl_queue_unload(RetlQueueBatch *batch);

/* It is on record that it will be tried again. */
extern void retl_queue_retry(RetlQueueBatch *batch);

/* Its outcome is on record, or it is of no use. */
extern void retl_queue_forget(RetlQueueBatch *batch);

/* A run by its number; NULL when it is not in memory. */
extern RetlQueueRun *retl_queue_run(int64 id);

/* What its run looks like now that outcomes were recorded. */
extern void retl_queue_run_state(const RetlLedgerRunState *state);

/* When there is something to do next that is not under way: DT_NOEND: never, as far as is known. */
extern TimestampTz retl_queue_next_due(TimestampTz now);

#endif							/* RETL_QUEUE_H */
