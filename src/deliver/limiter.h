/*
 * limiter.h
 *		How much may be sent to one destination now: its rates, its daily quota,
 *		its concurrency, pauses it asked for, and a circuit breaker.
 *
 * Rates. A bucket of tokens for requests and one for records. A bucket holds the
 * burst and is filled at the rate, so that no period of w seconds sees more than
 * rate * w + burst. A request of more records than the bucket holds waits until it is full.
 *
 * Quota. Counted by days in UTC, when a request is loaded: that is in a transaction, so the
 * count is on record before the request is sent, and a crash counts too much, never too little.
 *
 * Concurrency. "window" is what is made use of now, between 1 and the limit. It
 * is halved when the destination says that it is overloaded (429, 503), cut by a quarter, down to a quarter of
 * the limit, when answers keep taking more than twice as long as they did; both at most once for all that was
 * under way at a time. Each window of good answers adds one.
 *
 * Breaker. After FAILURES_IN_A_ROW requests without a success, nothing is sent for a
 * while; then one request probes, and either closes the breaker or makes the
 * next pause longer. So a dead destination costs a request now and then, and
 * takes nothing away from others.
 *
 * No function here reads a clock. In the delivery worker's memory; standing.h has what is on record of it.
 */
#ifndef RETL_LIMITER_H
#define RETL_LIMITER_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct RetlRate
{
	double		rate;			/* a second; 0: no limit */
	double		burst;			/* at once */
} RetlRate;

typedef struct RetlLimits
{
	int			concurrency;	/* requests at a time */
	RetlRate	requests;
	RetlRate	rows;
	int64		requests_a_day; /* 0: no limit */
	int64		rows_a_day;
} RetlLimits;

typedef struct RetlBucket
{
	RetlRate	limit;
	double		tokens;			/* in it at this time: */
	TimestampTz filled_at;
} RetlBucket;

typedef enum RetlLimiterEvent
{
	RETL_LIMITER_SUCCESS,		/* the destination did its part */
	RETL_LIMITER_FAILURE,		/* it did not */
	RETL_LIMITER_OVERLOAD		/* it did not, as it has too much to do */
} RetlLimiterEvent;

typedef struct RetlLimiter
{
	RetlLimits	limits;
	RetlBucket	requests;
	RetlBucket	rows;

	/* the quota */
	int32		day;			/* to which these belong, in days since 2000 */
	int64		requests_used;
	int64		rows_used;
	int32		full_day;		/* on which a request did not fit */

	/* concurrency */
	int			in_flight;
	double		window;
	TimestampTz cut_at;			/* last time that it was cut */
	double		usual_latency;	/* in seconds; 0: not known */
	TimestampTz late_at;		/* when an answer first took much longer; 0: none does */

	/* the breaker */
	int			failures;		/* in a row */
	int			pauses;			/* in a row; 0: it is closed */
	TimestampTz opened_at;		/* when the first of them began; 0: it is closed */
	TimestampTz retry_at;		/* when this one is over */

	TimestampTz paused_until;	/* the destination asked for it; 0: it did not */

	bool		changed;		/* something that is worth having on record at once */
	bool		touched;		/* anything */
} RetlLimiter;

/* Limits, which may be others than before: breaker and pauses are forgotten then. */
extern void retl_limiter_configure(RetlLimiter *limiter, const RetlLimits *limits, TimestampTz now);

/* How much there is of what a bucket holds. */
extern double retl_bucket_tokens(const RetlBucket *bucket, TimestampTz now);

/* Whether a request of so many records may be started now. */
extern bool retl_limiter_ready(const RetlLimiter *limiter, int rows, TimestampTz now);

/* When, if no other had to end first; DT_NOEND: one has to. */
extern TimestampTz retl_limiter_next(const RetlLimiter *limiter, int rows, TimestampTz now);

/* It is started, and one more in flight; what it took of the rates is given back when it is not sent, after all. */
extern void retl_limiter_take(RetlLimiter *limiter, int rows, TimestampTz now);
extern void retl_limiter_give_back(RetlLimiter *limiter, int rows);

/* Until when nothing is sent, whatever there is: the breaker is open, or the destination asked for a pause. */
extern TimestampTz retl_limiter_pause_end(const RetlLimiter *limiter);

/* The destination asked to be left alone; or need not be, after all. */
extern void retl_limiter_pause(RetlLimiter *limiter, TimestampTz until);
extern void retl_limiter_resume(RetlLimiter *limiter, TimestampTz at);

/* A request that was dispatched then has an outcome. */
extern void retl_limiter_answered(RetlLimiter *limiter, RetlLimiterEvent event,
								  TimestampTz dispatched_at, double seconds, TimestampTz now);

/*
 * Takes a request from today's quota: false when it is used up. One of more records
 * than a day allows gets a day of its own. Given back when it was not sent.
 */
extern bool retl_limiter_charge(RetlLimiter *limiter, int rows, TimestampTz now);
extern void retl_limiter_refund(RetlLimiter *limiter, int rows);
extern bool retl_limiter_has_quota(const RetlLimiter *limiter);

/* Whether the quota was counted on an earlier day. */
extern bool retl_limiter_new_day(const RetlLimiter *limiter, TimestampTz now);

/* When a request may be loaded: today, or at the beginning of the next day. */
extern TimestampTz retl_limiter_quota_from(const RetlLimiter *limiter, TimestampTz now);

#endif							/* RETL_LIMITER_H */
