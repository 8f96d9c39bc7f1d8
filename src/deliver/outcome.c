/*
 * outcome.c
 *		What answers mean; see outcome.h.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "deliver/outcome.h"

/* Nobody may hold our requests back for longer. */
#define RETRY_AFTER_MOST_S 3600

/* Spread what was told to come back at the same time. */
#define RETRY_AFTER_JITTER_MS 500

/*
 * A destination that cannot be reached is waited for without limit: nothing
 * was refused, and the run can be canceled. One that answers "later" to the
 * same request 15 times over, for a quarter of an hour with these delays, has
 * something against this request.
 */
const RetlRetryPolicy retl_retry_default = {
	.base_ms = 1000,
	.cap_ms = 300 * 1000,
	.status_attempts = 15,
	.fault_attempts = 0,
};

int64
retl_outcome_backoff(int attempt, const RetlRetryPolicy *policy)
{
	int64		most = policy->cap_ms;

	if (attempt - 1 < 30)
		most = Min(policy->cap_ms, policy->base_ms << Max(attempt - 1, 0));
	return (int64) (pg_prng_double(&pg_global_prng_state) * most);
}

/* Two or four digits and so on: exactly "count" of them. */
static bool
digits(const char **at, int count, int *value)
{
	*value = 0;
	for (int i = 0; i < count; i++, (*at)++)
	{
		if (**at < '0' || **at > '9')
			return false;
		*value = *value * 10 + (**at - '0');
	}
	return true;
}

static bool
skip(const char **at, const char *text)
{
	size_t		len = strlen(text);

	if (strncmp(*at, text, len) != 0)
		return false;
	*at += len;
	return true;
}

static bool
month_name(const char **at, int *month)
{
	static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; i < 12; i++)
	{
		if (strncmp(*at, names + 3 * i, 3) == 0)
		{
			*month = i + 1;
			*at += 3;
			return true;
		}
	}
	return false;
}

static bool
time_of_day(const char **at, int *seconds)
{
	int			h,
				m,
				s;

	if (!digits(at, 2, &h) || !skip(at, ":") || !digits(at, 2, &m) || !skip(at, ":") || !digits(at, 2, &s) ||
		h > 23 || m > 59 || s > 60)
		return false;
	*seconds = (h * 60 + m) * 60 + s;
	return true;
}

/*
 * An HTTP date in one of its three forms:
 *		Sun, 06 Nov 1994 08:49:37 GMT
 *		Sunday, 06-Nov-94 08:49:37 GMT
 *		Sun Nov  6 08:49:37 1994
 */
static bool
http_date(const char *at, TimestampTz now, TimestampTz *when)
{
	int			year,
				month,
				day,
				seconds;
	const char *comma = strchr(at, ',');

	if (comma != NULL)
	{
		at = comma + 1;
		if (!skip(&at, " ") || !digits(&at, 2, &day))
			return false;
		if (skip(&at, " "))
		{
			if (!month_name(&at, &month) || !skip(&at, " ") || !digits(&at, 4, &year))
				return false;
		}
		else
		{
			if (!skip(&at, "-") || !month_name(&at, &month) || !skip(&at, "-") || !digits(&at, 2, &year))
				return false;
			/* in this form a delay is meant, never a year of the last century */
			year += 2000;
		}
		if (!skip(&at, " ") || !time_of_day(&at, &seconds) || !skip(&at, " GMT"))
			return false;
	}
	else
	{
		if (strlen(at) < 4)
			return false;
		at += 3;
		if (!skip(&at, " ") || !month_name(&at, &month) || !skip(&at, " "))
			return false;
		if (!(skip(&at, " ") ? digits(&at, 1, &day) : digits(&at, 2, &day)))
			return false;
		if (!skip(&at, " ") || !time_of_day(&at, &seconds) || !skip(&at, " ") || !digits(&at, 4, &year))
			return false;
	}
	if (*at != '\0' || day < 1 || day > 31 || year < 1970)
		return false;

	*when = ((int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY + seconds) * USECS_PER_SEC;
	return true;
}

int64
retl_outcome_retry_after(const char *value, TimestampTz now)
{
	TimestampTz when;

	if (value[0] >= '0' && value[0] <= '9')
	{
		int64		seconds = 0;

		for (; *value >= '0' && *value <= '9'; value++)
			seconds = Min(seconds * 10 + (*value - '0'), RETRY_AFTER_MOST_S);
		return *value == '\0' ? seconds * 1000 : -1;
	}
	if (!http_date(value, now, &when))
		return -1;
	return Min(Max((when - now) / 1000, 0), RETRY_AFTER_MOST_S * 1000L);
}

static void
later(const RetlHttpAnswer *answer, int attempt, int limit, const RetlRetryPolicy *policy, RetlOutcome *outcome)
{
	int64		asked = -1;

	if ((limit > 0 && attempt >= limit) || policy->expired)
	{
		outcome->kind = RETL_GAVE_UP;
		return;
	}
	outcome->kind = RETL_RETRY;
	if (answer->retry_after != NULL)
		asked = retl_outcome_retry_after(answer->retry_after, GetCurrentTimestamp());
	if (asked >= 0)
	{
		outcome->pause = answer->status == 429 || answer->status == 503;
		outcome->delay_ms = asked + (int64) (pg_prng_double(&pg_global_prng_state) * RETRY_AFTER_JITTER_MS);
	}
	else
		outcome->delay_ms = retl_outcome_backoff(attempt, policy);
}

static bool
among(int status, const int *list, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (list[i] == status)
			return true;
	}
	return false;
}

void
retl_outcome_later(const RetlHttpAnswer *answer, int attempt, const RetlRetryPolicy *policy, RetlOutcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	later(answer, attempt, policy->status_attempts, policy, outcome);
}

void
retl_outcome_decide(const RetlHttpAnswer *answer, int attempt, const RetlRetryPolicy *policy, RetlOutcome *outcome)
{
	int			status = answer->status;

	memset(outcome, 0, sizeof(*outcome));
	switch (answer->class)
	{
		case RETL_HTTP_REFUSED:
			outcome->kind = RETL_REJECTED;
			outcome->hopeless = true;
			return;
		case RETL_HTTP_UNKNOWN:
			outcome->maybe = true;
			later(answer, attempt, policy->fault_attempts, policy, outcome);
			return;
		case RETL_HTTP_NOT_SENT:
			later(answer, attempt, policy->fault_attempts, policy, outcome);
			return;
		case RETL_HTTP_ANSWERED:
			break;
	}

	if (status >= 200 && status < 300)
		outcome->kind = RETL_ACCEPTED;
	else if (among(status, policy->never, policy->nnever))
	{
		outcome->kind = RETL_REJECTED;
		outcome->maybe = status >= 500;
	}
	else if (status == 408 || status == 421 || status == 423 || status == 425 || status == 429 ||
			 (status < 500 && among(status, policy->also, policy->nalso)))
		later(answer, attempt, policy->status_attempts, policy, outcome);
	else if (status >= 500 && status < 600 &&
			 ((status != 501 && status != 505) || among(status, policy->also, policy->nalso)))
	{
		/* it may have failed after the deed, or on the way back */
		outcome->maybe = true;
		later(answer, attempt, policy->status_attempts, policy, outcome);
	}
	else
	{
		outcome->kind = RETL_REJECTED;
		outcome->by_record = status == 400 || status == 413 || status == 422;
		/* who we are, and where we are: not a matter of records, as 404 may be */
		outcome->hopeless = status == 401 || status == 403 || status == 407 || (status >= 300 && status < 400);
	}
}
