/*
 * limiter.h
 *		How much may be sent to one destination now: its concurrency, its rate,
 *		pauses it asked for, and a circuit breaker.
 *
 * After FAILURES_IN_A_ROW requests without a success, nothing is sent for a
 * while; then one request probes, and either closes the breaker or makes the
 * next pause longer. So a dead destination costs a request now and then, and
 * takes nothing away from others. In memory only: after a restart the first
 * requests find out anew.
 *
 * The rate is kept by a bucket of tokens that holds a tenth of what is allowed
 * and is filled with the other nine tenths, so that no period of that length
 * sees more than is allowed. It starts empty.
 */
#ifndef RETL_LIMITER_H
#define RETL_LIMITER_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct RetlLimiter
{
	int			concurrency;	/* requests at a time */
	int			in_flight;
	int			failures;		/* in a row */
	int			pauses;			/* by the breaker, in a row; 0: it is closed */
	TimestampTz paused_until;	/* 0: not paused */
	double		rate;			/* tokens a second; 0: no limit */
	double		burst;			/* tokens that the bucket holds */
	double		tokens;			/* in it at this time: */
	TimestampTz filled_at;
} RetlLimiter;

/* Limits, which may be others than before. "requests" 0: no rate. */
extern void retl_limiter_configure(RetlLimiter *limiter, int concurrency,
								   double requests, double seconds, TimestampTz now);

/* How many more requests may be started now. */
extern int	retl_limiter_room(const RetlLimiter *limiter, TimestampTz now);

/* When one may be started, if none had to end first; DT_NOEND: one has to. */
extern TimestampTz retl_limiter_next(const RetlLimiter *limiter, TimestampTz now);

/* A request is started. */
extern void retl_limiter_take(RetlLimiter *limiter, TimestampTz now);

/* A request ended: the destination did its part, or it did not. */
extern void retl_limiter_success(RetlLimiter *limiter);
extern void retl_limiter_failure(RetlLimiter *limiter, TimestampTz now);

/* The destination asked to be left alone. */
extern void retl_limiter_pause(RetlLimiter *limiter, TimestampTz until);

#endif							/* RETL_LIMITER_H */
