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

int
retl_limiter_room(const RetlLimiter *limiter, TimestampTz now)
{
	if (now < limiter->paused_until)
		return 0;
	return (limiter->pauses > 0 ? 1 : limiter->concurrency) - limiter->in_flight;
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
