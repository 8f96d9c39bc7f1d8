/*
 * ledger.h
 *		What the delivery worker reads from and writes to retl's tables: runs
 *		with work, batches, bodies, outcomes. All of its SQL but that for secrets
 *		is here.
 *
 * Every function expects a transaction with SPI connected, in the role
 * retl_delivery, and leaves no lock behind that outlives it.
 *
 * Locking: outcomes are recorded under the row lock of their run, which is
 * never waited for: outcomes of a run that somebody else has locked are left
 * for the next time. Then batches, exceptions, the run, and last the mapping's
 * state. Whoever else writes several of these takes them in the same order.
 */
#ifndef RETL_LEDGER_H
#define RETL_LEDGER_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "deliver/outcome.h"

/* Connectors' limits are lower, so keys are made of fewer characters. */
#define RETL_IDEMPOTENCY_KEY_LIMIT 100

typedef struct RetlLedgerRun
{
	int64		id;
	int64		mapping;
	int64		destination;
	bool		enabled;		/* mapping and destination */
	bool		stopped;
	bool		quiesced;
	bool		late;			/* stage 0 is planned completely */
	bool		planned;
	int64		open_batches;
	int64		open_bytes;
	uint32		destination_version;	/* these change when the rows do */
	uint32		connector_version;
	int			max_attempts;	/* of the mapping; 0: the default */
	int64		max_age_ms;		/* 0: no limit */
	TimestampTz since;			/* when there was something to deliver; DT_NOEND: not yet */
} RetlLedgerRun;

typedef struct RetlLedgerDestination
{
	int64		id;
	char	   *name;
	char	   *settings;
	char	   *connector;		/* definition */
} RetlLedgerDestination;

typedef struct RetlLedgerBatch
{
	int64		id;
	int			stage;
	int			records;
	int			bytes;
	int			attempts;
	TimestampTz first_attempt_at;	/* 0: there was none that failed */
	bool		half;			/* of one that was refused, whose other half is waiting for this one */
	bool		guilty;			/* the other half was accepted: what was refused is in here */
	char		key[RETL_IDEMPOTENCY_KEY_LIMIT + 1];
} RetlLedgerBatch;

/* An outcome to record. */
typedef struct RetlLedgerResult
{
	int64		batch;
	int64		run;
	int			records;
	int			bytes;
	int			attempt;
	RetlOutcomeKind kind;
	bool		maybe;
	int			http_status;	/* 0: none */
	const char *error;			/* or NULL */
	const char *answer;			/* its beginning, or NULL */
	int64		answer_bytes;	/* as many were read */
	int64		bytes_sent;		/* of the body */
	TimestampTz at;
	double		seconds;
	TimestampTz next_attempt_at;	/* RETL_RETRY, and what is to be sent later of RETL_PARTIAL */
	char	   *next_request;	/* RETL_REJECTED: the request that is to follow, or NULL */
	struct RetlVerdict *verdicts;	/* RETL_PARTIAL: of each record */
	struct RetlHalves *halves;	/* RETL_REJECTED, RETL_PARTIAL: what replaces it, or NULL */

	bool		recorded;		/* out: false when the run was locked */
} RetlLedgerResult;

/* What a run looks like after its outcomes were recorded. */
typedef struct RetlLedgerRunState
{
	int64		id;
	bool		gone;
	bool		stopped;
	bool		late;
	bool		planned;
	bool		finished;
	int64		open_batches;
	int64		open_bytes;
	int64		bytes_recorded; /* by this call */
} RetlLedgerRunState;

/* Active runs, in the current memory context. */
extern int	retl_ledger_runs(RetlLedgerRun **runs);

extern bool retl_ledger_destination(int64 id, RetlLedgerDestination *destination);

/*
 * Pending batches of one stage of a run that are due, of numbers above "after",
 * in their order.
 */
extern int	retl_ledger_batches(int64 run, int stage, int64 after, TimestampTz now, int limit,
								RetlLedgerBatch **batches);

/* Whether any batch of stage 0 of the run is pending. */
extern bool retl_ledger_early_pending(int64 run);

/* When the next pending batch of the run is due that is not due now; DT_NOEND: none. */
extern TimestampTz retl_ledger_next_due(int64 run, TimestampTz now);

/* Calls "take" for each body found; texts are valid during the call. */
typedef void (*RetlLedgerTakeBody) (void *arg, int64 batch, const char *request, size_t request_len,
									const char *body, size_t body_len);
extern void retl_ledger_bodies(int count, const int64 *batches, RetlLedgerTakeBody take, void *arg);

/*
 * Stops a run that fails: what is not delivered becomes exceptions. After
 * outcomes of it were recorded in this transaction, or where nobody has it locked; false: somebody has.
 */
extern bool retl_ledger_fail(int64 run, const char *error);

/*
 * A worker before us that noted that it sends, and never that all it sent is on
 * record, has died: what is pending may have been sent. Before anything else.
 */
extern void retl_ledger_inherit(void);

/* Notes that requests go out from here on; and that all that was sent is on record. */
extern void retl_ledger_begin_sending(void);
extern void retl_ledger_end_sending(void);

/* Notes that no request of these stopped runs is under way. */
extern void retl_ledger_quiesce(int count, const int64 *runs);

/*
 * Records outcomes; *states has one entry for each run whose outcomes were
 * recorded or that is gone.
 */
extern void retl_ledger_record(int count, RetlLedgerResult **results, int *nstates, RetlLedgerRunState **states);

#endif							/* RETL_LEDGER_H */
