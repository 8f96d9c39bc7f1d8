/*
 * destination.h
 *		Destinations that the delivery worker has something to send to: what they are like, how much may be sent
 *		to them now, and what is on record of that.
 *
 * retl.destination_state has a row for each destination. It is written when its breaker, its quota or a
 * pause changes, else once a second at most, and read when a destination comes to memory: its quota, its
 * breaker and what it had left of its rates outlive the worker. A row that somebody has locked is left for later.
 * State of the process, no locks.
 */
#ifndef RETL_DESTINATION_H
#define RETL_DESTINATION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"

#include "deliver/definition.h"
#include "deliver/ledger.h"
#include "deliver/limiter.h"
#include "deliver/secret.h"

typedef struct RetlDestination
{
	int64		id;				/* hash key */
	dlist_node	node;			/* in the list of destinations */
	dlist_head	runs;			/* queue.c's, as are the next three */
	dlist_head	ready;
	int			nready;
	int64		ready_bytes;
	RetlLimiter limiter;

	/* the definition, in a context of its own, replaced when it changes */
	MemoryContext context;
	uint32		destination_version;
	uint32		connector_version;
	RetlDefinition *definition;
	RetlSecrets *secrets;
	TimestampTz secrets_at;

	TimestampTz saved_at;
	TimestampTz load_at;		/* not before: what it counts could not be put on record */
	char		error[256];		/* the last failure */
} RetlDestination;

/* All of them, in the order in which they are served: queue.c takes from its head. */
extern dlist_head retl_destinations;

extern void retl_destination_init(MemoryContext context);

extern int	retl_destination_count(void);

/* One by its number; NULL when it is not in memory. */
extern RetlDestination *retl_destination_get(int64 id);

/* The same, brought to memory if need be. In a transaction with SPI connected, as all that follow. */
extern RetlDestination *retl_destination_find(int64 id);

/*
 * Reads its definition, when it is new or another one than we know; false: it is
 * gone.
 */
extern bool retl_destination_refresh(RetlDestination *destination, const RetlLedgerRun *run, TimestampTz now);

/* Reads its secrets, when they may be others by now. */
extern void retl_destination_load_secrets(RetlDestination *destination, TimestampTz now);

/* There is nothing to send to it. */
extern void retl_destination_forget(RetlDestination *destination);

/* Puts on record how they stand; "all": whatever the time. */
extern void retl_destination_save(TimestampTz now, bool all);

/*
 * Takes requests of so many records from the quota, and puts that on record before they are
 * sent. Returns how many of them may be loaded.
 */
extern int	retl_destination_charge(RetlDestination *destination, int count, const int *rows, TimestampTz now);

/* Wipes secrets of destinations without work. Needs no transaction. */
extern void retl_destination_wipe(void);

#endif							/* RETL_DESTINATION_H */
