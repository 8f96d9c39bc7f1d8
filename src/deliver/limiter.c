/*
 * limiter.c
 *		How much may be sent to one destination now; see limiter.h.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "deliver/limiter.h"

#define FAILURES_IN_A_ROW 5

/* The breaker's pauses double from here to here: recovery is noticed within a minute. */
#define PAUSE_FIRST_MS 1000
#define PAUSE_MOST_MS 60000

/*
 * What arrives is counted by the destination's clock, after connections were made
 * and packets have queued: as much of a limit is left unused.
 */
#define MARGIN 0.02

/* Answers that take longer than (usual * this + this) are a sign of too much to do. */
#define LATENCY_GROWTH 2.0
#define LATENCY_SLACK_S 0.25

/* The part that one answer has in what is usual: quicker ones count at once, slower ones slowly. */
#define QUICKER_WEIGHT 0.2
#define SLOWER_WEIGHT 0.005

/* Rates */

static void
configure_bucket(RetlBucket *bucket, const RetlRate *limit, TimestampTz now)
{
	bucket->limit.rate = limit->rate * (1 - MARGIN);
	/* one that holds less than a request lets none pass */
	bucket->limit.burst = Max(limit->burst * (1 - MARGIN), 1);
	bucket->tokens = Min(bucket->tokens, bucket->limit.burst);
	if (bucket->filled_at == 0)
		bucket->filled_at = now;
}

double
retl_bucket_tokens(const RetlBucket *bucket, TimestampTz now)
{
	double		seconds = (double) (now - bucket->filled_at) / USECS_PER_SEC;

	return Min(bucket->tokens + Max(seconds, 0) * bucket->limit.rate, bucket->limit.burst);
}

/* When the bucket has what a request of "wanted" takes. */
static TimestampTz
bucket_next(const RetlBucket *bucket, double wanted, TimestampTz now)
{
	double		lacking;

	if (bucket->limit.rate == 0)
		return now;
	lacking = Min(wanted, bucket->limit.burst) - retl_bucket_tokens(bucket, now);
	/* a microsecond later, so that it is not a fraction too early */
	return lacking <= 0 ? now : now + (TimestampTz) (lacking / bucket->limit.rate * USECS_PER_SEC) + 1;
}

static void
bucket_take(RetlBucket *bucket, double taken, TimestampTz now)
{
	if (bucket->limit.rate == 0)
		return;
	bucket->tokens = retl_bucket_tokens(bucket, now) - taken;
	bucket->filled_at = now;
}

static void
bucket_give_back(RetlBucket *bucket, double taken)
{
	if (bucket->limit.rate > 0)
		bucket->tokens = Min(bucket->tokens + taken, bucket->limit.burst);
}

void
retl_limiter_configure(RetlLimiter *limiter, const RetlLimits *limits, TimestampTz now)
{
	bool		known = limiter->limits.concurrency > 0;

	limiter->limits = *limits;
	limiter->full_day = -1;
	configure_bucket(&limiter->requests, &limits->requests, now);
	configure_bucket(&limiter->rows, &limits->rows, now);
	limiter->window = limits->concurrency;
	if (known)
	{
		/* perhaps that is what was wrong */
		limiter->failures = limiter->pauses = 0;
		limiter->opened_at = limiter->retry_at = limiter->paused_until = 0;
	}
	limiter->changed = true;
}

/* Sending */

static int
free_places(const RetlLimiter *limiter)
{
	return (limiter->pauses > 0 ? 1 : (int) limiter->window) - limiter->in_flight;
}

TimestampTz
retl_limiter_pause_end(const RetlLimiter *limiter)
{
	return Max(limiter->paused_until, limiter->retry_at);
}

TimestampTz
retl_limiter_next(const RetlLimiter *limiter, int rows, TimestampTz now)
{
	TimestampTz next = Max(now, retl_limiter_pause_end(limiter));

	if (free_places(limiter) <= 0)
		return DT_NOEND;
	next = Max(next, bucket_next(&limiter->requests, 1, now));
	return Max(next, bucket_next(&limiter->rows, rows, now));
}

bool
retl_limiter_ready(const RetlLimiter *limiter, int rows, TimestampTz now)
{
	return retl_limiter_next(limiter, rows, now) <= now;
}

void
retl_limiter_take(RetlLimiter *limiter, int rows, TimestampTz now)
{
	limiter->in_flight++;
	limiter->touched = true;
	bucket_take(&limiter->requests, 1, now);
	bucket_take(&limiter->rows, rows, now);
}

void
retl_limiter_give_back(RetlLimiter *limiter, int rows)
{
	bucket_give_back(&limiter->requests, 1);
	bucket_give_back(&limiter->rows, rows);
}

void
retl_limiter_pause(RetlLimiter *limiter, TimestampTz until)
{
	if (until <= limiter->paused_until)
		return;
	limiter->paused_until = until;
	limiter->changed = true;
}

void
retl_limiter_resume(RetlLimiter *limiter, TimestampTz at)
{
	limiter->paused_until = Min(limiter->paused_until, at);
}

/* Answers */

static void
cut_window(RetlLimiter *limiter, double factor, double least, TimestampTz dispatched_at, TimestampTz now)
{
	/* what was dispatched before the last cut says nothing of what came of it */
	if (dispatched_at <= limiter->cut_at || limiter->window <= least)
		return;
	limiter->window = Max(limiter->window * factor, least);
	limiter->cut_at = now;
}

/*
 * Whether answers take much longer than they did. One moment in which all of
 * them came late, which may be ours as well, is none: requests that were dispatched after it must be late, too.
 */
static bool
latency_grows(RetlLimiter *limiter, TimestampTz dispatched_at, double seconds, TimestampTz now)
{
	bool		late;

	if (limiter->usual_latency == 0)
		limiter->usual_latency = seconds;
	late = seconds > limiter->usual_latency * LATENCY_GROWTH + LATENCY_SLACK_S;
	limiter->usual_latency += (seconds - limiter->usual_latency) *
		(seconds < limiter->usual_latency ? QUICKER_WEIGHT : SLOWER_WEIGHT);
	if (!late)
		limiter->late_at = 0;
	else if (limiter->late_at == 0)
		limiter->late_at = now;
	else if (dispatched_at > limiter->late_at)
	{
		limiter->late_at = 0;
		return true;
	}
	return false;
}

static void
count_failure(RetlLimiter *limiter, TimestampTz now)
{
	int64		most;

	limiter->failures++;
	/* what was under way when a pause began says nothing new */
	if (limiter->failures < FAILURES_IN_A_ROW || now < retl_limiter_pause_end(limiter))
		return;
	most = Min((int64) PAUSE_FIRST_MS << Min(limiter->pauses, 16), PAUSE_MOST_MS);
	if (limiter->pauses++ == 0)
		limiter->opened_at = now;
	limiter->retry_at = TimestampTzPlusMilliseconds(now,
													most / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * most / 2));
	limiter->changed = true;
}

static void
count_success(RetlLimiter *limiter)
{
	limiter->failures = 0;
	if (limiter->pauses == 0)
		return;
	limiter->pauses = 0;
	limiter->opened_at = limiter->retry_at = 0;
	limiter->changed = true;
}

void
retl_limiter_answered(RetlLimiter *limiter, RetlLimiterEvent event, TimestampTz dispatched_at, double seconds,
					  TimestampTz now)
{
	bool		slow = false;

	limiter->touched = true;
	/* refusals are quick, whatever work would take; a failure tells of time if it took long */
	if (event == RETL_LIMITER_SUCCESS || (event == RETL_LIMITER_FAILURE && seconds > limiter->usual_latency))
		slow = latency_grows(limiter, dispatched_at, seconds, now);
	if (event == RETL_LIMITER_SUCCESS)
		count_success(limiter);
	else
		count_failure(limiter, now);

	if (event == RETL_LIMITER_OVERLOAD)
		cut_window(limiter, 0.5, 1, dispatched_at, now);
	else if (slow)
		cut_window(limiter, 0.75, Max(limiter->limits.concurrency / 4.0, 1), dispatched_at, now);
	else if (event == RETL_LIMITER_SUCCESS)
		limiter->window = Min(limiter->window + 1 / limiter->window, limiter->limits.concurrency);
}

/* The quota */

static int32
day_of(TimestampTz at)
{
	return (int32) (at >= 0 ? at / USECS_PER_DAY : -1);
}

bool
retl_limiter_has_quota(const RetlLimiter *limiter)
{
	return limiter->limits.requests_a_day > 0 || limiter->limits.rows_a_day > 0;
}

bool
retl_limiter_new_day(const RetlLimiter *limiter, TimestampTz now)
{
	return day_of(now) > limiter->day;
}

static bool
within_quota(const RetlLimiter *limiter, int rows, TimestampTz now)
{
	const RetlLimits *limits = &limiter->limits;

	if (retl_limiter_new_day(limiter, now))
		return true;
	if (limiter->full_day == limiter->day)
		return false;
	if (limits->requests_a_day > 0 && limiter->requests_used >= limits->requests_a_day)
		return false;
	return limits->rows_a_day == 0 || limiter->rows_used == 0 || limiter->rows_used + rows <= limits->rows_a_day;
}

bool
retl_limiter_charge(RetlLimiter *limiter, int rows, TimestampTz now)
{
	if (retl_limiter_new_day(limiter, now))
	{
		limiter->day = day_of(now);
		limiter->requests_used = limiter->rows_used = 0;
	}
	if (!within_quota(limiter, rows, now))
	{
		/* no smaller one overtakes it */
		limiter->changed |= limiter->full_day != limiter->day;
		limiter->full_day = limiter->day;
		return false;
	}
	limiter->requests_used++;
	limiter->rows_used += rows;
	return true;
}

void
retl_limiter_refund(RetlLimiter *limiter, int rows)
{
	limiter->requests_used = Max(limiter->requests_used - 1, 0);
	limiter->rows_used = Max(limiter->rows_used - rows, 0);
}

TimestampTz
retl_limiter_quota_from(const RetlLimiter *limiter, TimestampTz now)
{
	if (within_quota(limiter, 1, now))
		return now;
	return ((TimestampTz) limiter->day + 1) * USECS_PER_DAY;
}
