/*
 * limiter.h
 *		How much may be sent to one destination now: its concurrency, pauses it
 *		asked for, and a circuit breaker.
 *
 * After FAILURES_IN_A_ROW requests without a success, nothing is sent for a
 * while; then one request probes, and either closes the breaker or makes the
 * next pause longer. So a dead destination costs a request now and then, and
 * takes nothing away from others. In memory only: after a restart the first
 * requests find out anew.
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
} RetlLimiter;

/* How many more requests may be started now. */
extern int	retl_limiter_room(const RetlLimiter *limiter, TimestampTz now);

/* A request ended: the destination did its part, or it did not. */
extern void retl_limiter_success(RetlLimiter *limiter);
extern void retl_limiter_failure(RetlLimiter *limiter, TimestampTz now);

/* The destination asked to be left alone. */
extern void retl_limiter_pause(RetlLimiter *limiter, TimestampTz until);

#endif							/* RETL_LIMITER_H */
