/*
 * outcome.h
 *		What an answer, or its absence, means for the records of a request, and
 *		when to try again. Owns no state.
 */
#ifndef RETL_OUTCOME_H
#define RETL_OUTCOME_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "deliver/http.h"

typedef enum RetlOutcomeKind
{
	RETL_ACCEPTED,
	RETL_RETRY,
	RETL_REJECTED,
	RETL_GAVE_UP,
	RETL_PARTIAL				/* the answer tells records apart: see their verdicts */
} RetlOutcomeKind;

typedef struct RetlOutcome
{
	RetlOutcomeKind kind;
	bool		maybe;			/* the destination may have acted on it */
	bool		by_record;		/* one record may be at fault for all: bisect */
	bool		hopeless;		/* it is not this request: others will fare no better */
	bool		pause;			/* the destination asked for a pause of delay_ms */
	int64		delay_ms;		/* RETL_RETRY: until the next attempt */
} RetlOutcome;

/* Limits of retrying; structure, so that it can come from a mapping. */
typedef struct RetlRetryPolicy
{
	int64		base_ms;		/* delays grow from here, doubling */
	int64		cap_ms;			/* to here */
	int			status_attempts;	/* answers that say "later"; 0: no limit */
	int			fault_attempts; /* requests that brought no answer; 0: no limit */
	bool		expired;		/* it was tried for long enough */
	int			nalso;			/* statuses that say "later" here, */
	int		   *also;
	int			nnever;			/* and those that do not */
	int		   *never;
} RetlRetryPolicy;

extern const RetlRetryPolicy retl_retry_default;

/* "attempt" is the number of the attempt that was answered, from 1. */
extern void retl_outcome_decide(const RetlHttpAnswer *answer, int attempt,
								const RetlRetryPolicy *policy, RetlOutcome *outcome);

/* The answer says "later" for what its status does not: kind, pause and delay. */
extern void retl_outcome_later(const RetlHttpAnswer *answer, int attempt,
							   const RetlRetryPolicy *policy, RetlOutcome *outcome);

/* A random time up to base * 2^(attempt - 1), capped. */
extern int64 retl_outcome_backoff(int attempt, const RetlRetryPolicy *policy);

/*
 * The delay in ms that a Retry-After header asks for at time "now", between 0
 * and an hour; -1 when it makes no sense.
 */
extern int64 retl_outcome_retry_after(const char *value, TimestampTz now);

#endif							/* RETL_OUTCOME_H */
