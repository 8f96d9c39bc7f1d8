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

void
retl_limiter_configure(RetlLimiter *limiter, int concurrency, double requests, double seconds, TimestampTz now)
{
	limiter->concurrency = concurrency;
	limiter->burst = Max(requests * 0.1, 1);
	limiter->rate = (requests >= 2 ? requests - limiter->burst : requests * 0.9) / seconds;
	limiter->tokens = Min(limiter->tokens, limiter->burst);
	if (limiter->filled_at == 0)
		limiter->filled_at = now;
}

static double
tokens(const RetlLimiter *limiter, TimestampTz now)
{
	double		seconds = (double) (now - limiter->filled_at) / USECS_PER_SEC;

	return Min(limiter->tokens + Max(seconds, 0) * limiter->rate, limiter->burst);
}

static int
free_places(const RetlLimiter *limiter)
{
	return (limiter->pauses > 0 ? 1 : limiter->concurrency) - limiter->in_flight;
}

int
retl_limiter_room(const RetlLimiter *limiter, TimestampTz now)
{
	int			room;

	if (now < limiter->paused_until)
		return 0;
	room = free_places(limiter);
	if (limiter->rate > 0)
		room = Min(room, (int) tokens(limiter, now));
	return room;
}

TimestampTz
retl_limiter_next(const RetlLimiter *limiter, TimestampTz now)
{
	TimestampTz next = Max(now, limiter->paused_until);

	if (free_places(limiter) <= 0)
		return DT_NOEND;
	if (limiter->rate > 0)
	{
		double		lacking = 1 - tokens(limiter, now);

		/* a microsecond later, so that it is not a fraction too early */
		if (lacking > 0)
			next = Max(next, now + (TimestampTz) (lacking / limiter->rate * USECS_PER_SEC) + 1);
	}
	return next;
}

void
retl_limiter_take(RetlLimiter *limiter, TimestampTz now)
{
	limiter->in_flight++;
	if (limiter->rate > 0)
	{
		limiter->tokens = tokens(limiter, now) - 1;
		limiter->filled_at = now;
	}
}

void
retl_limiter_success(RetlLimiter *limiter)
{
	limiter->failures = 0;
	limiter->pauses = 0;
}

void
retl_limiter_failure(RetlLimiter *limiter, TimestampTz now)
{
	int64		most;

	limiter->failures++;
	/* what was under way when a pause began says nothing new */
	if (limiter->failures < FAILURES_IN_A_ROW || now < limiter->paused_until)
		return;
	most = Min((int64) PAUSE_FIRST_MS << Min(limiter->pauses, 16), PAUSE_MOST_MS);
	limiter->pauses++;
	retl_limiter_pause(limiter, TimestampTzPlusMilliseconds(now,
															most / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * most / 2)));
}

void
retl_limiter_pause(RetlLimiter *limiter, TimestampTz until)
{
	limiter->paused_until = Max(limiter->paused_until, until);
}
