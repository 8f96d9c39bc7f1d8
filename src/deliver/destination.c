/*
 * destination.c
 *		Destinations of the delivery worker; see destination.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/date.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "deliver/destination.h"
#include "deliver/statement.h"

/* Secrets are read anew after this time. */
#define SECRETS_MS 1000

/* How often is put on record what changes all the time. */
#define SAVE_MS 1000

/* After this time a row that was locked is tried again. */
#define LOCKED_MS 200

dlist_head	retl_destinations = DLIST_STATIC_INIT(retl_destinations);

static MemoryContext destination_context = NULL;
static HTAB *destinations = NULL;

void
retl_destination_init(MemoryContext context)
{
	HASHCTL		control = {0};

	destination_context = context;
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(RetlDestination);
	control.hcxt = context;
	destinations = hash_create("retl destinations", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

int
retl_destination_count(void)
{
	return (int) hash_get_num_entries(destinations);
}

RetlDestination *
retl_destination_get(int64 id)
{
	return hash_search(destinations, &id, HASH_FIND, NULL);
}

/* What is on record */

static TimestampTz
result_time(int column)
{
	bool		isnull;
	Datum		value = retl_result_datum(0, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

/*
 * How it stood. After a worker that died while it sent, nothing is left of
 * the rates: nobody knows what it sent last.
 */
static void
recall(RetlDestination *destination)
{
	static RetlStatement statement = {
		"SELECT s.day, s.requests_today, s.rows_today, s.failures, s.pauses, s.breaker_since, s.retry_at,"
		" s.paused_until, coalesce(s.requests_left, 0), coalesce(s.rows_left, 0), s.saved_at, s.error,"
		" s.saved_at <= coalesce((SELECT x.died_at FROM retl.sending x), '-infinity'),"
		" coalesce(d.altered_at > s.saved_at, true)"
		" FROM retl.destination_state s JOIN retl.destination d ON d.id = s.destination WHERE s.destination = $1"
	};
	RetlLimiter *limiter = &destination->limiter;
	RetlArgs	args = {0};
	char	   *error;

	retl_arg_int8(&args, destination->id);
	if (retl_statement_run(&statement, &args) == 0)
		return;
	if (!retl_result_isnull(0, 1))
	{
		bool		isnull;

		limiter->day = DatumGetDateADT(retl_result_datum(0, 1, &isnull));
		limiter->requests_used = retl_result_int8(0, 2);
		limiter->rows_used = retl_result_int8(0, 3);
	}
	/* not where it was altered since: perhaps that is what was wrong */
	if (!retl_result_bool(0, 14))
	{
		limiter->failures = retl_result_int4(0, 4);
		limiter->pauses = retl_result_int4(0, 5);
		limiter->opened_at = result_time(6);
		limiter->retry_at = result_time(7);
		limiter->paused_until = result_time(8);
		error = retl_result_text(0, 12);
		if (error != NULL)
			strlcpy(destination->error, error, sizeof(destination->error));
	}
	if (retl_result_isnull(0, 11) || retl_result_bool(0, 13))
		return;
	limiter->requests.tokens = retl_result_float8(0, 9);
	limiter->rows.tokens = retl_result_float8(0, 10);
	limiter->requests.filled_at = limiter->rows.filled_at = result_time(11);
}

static void
arg_time(RetlArgs *args, TimestampTz at)
{
	retl_arg_datum(args, TIMESTAMPTZOID, TimestampTzGetDatum(at), at == 0);
}

static void
arg_tokens(RetlArgs *args, const RetlBucket *bucket, TimestampTz now)
{
	if (bucket->limit.rate > 0)
		retl_arg_float8(args, retl_bucket_tokens(bucket, now));
	else
		retl_arg_null(args, FLOAT8OID);
}

/* False: somebody has locked it. */
static bool
save(RetlDestination *destination, TimestampTz now)
{
	static RetlStatement statement = {
		"UPDATE retl.destination_state SET day = $2, requests_today = $3, rows_today = $4, failures = $5, pauses = $6,"
		" breaker_since = $7, retry_at = $8, paused_until = $9, concurrency = $10, requests_left = $11, rows_left = $12,"
		" saved_at = $13, error = $14, quota_full = $15"
		" WHERE destination = (SELECT s.destination FROM retl.destination_state s WHERE s.destination = $1"
		" FOR NO KEY UPDATE SKIP LOCKED)"
	};
	RetlLimiter *limiter = &destination->limiter;
	RetlArgs	args = {0};

	retl_arg_int8(&args, destination->id);
	retl_arg_datum(&args, DATEOID, DateADTGetDatum(limiter->day), limiter->day == 0);
	retl_arg_int8(&args, limiter->requests_used);
	retl_arg_int8(&args, limiter->rows_used);
	retl_arg_int4(&args, limiter->failures);
	retl_arg_int4(&args, limiter->pauses);
	arg_time(&args, limiter->opened_at);
	arg_time(&args, limiter->retry_at);
	arg_time(&args, limiter->paused_until);
	retl_arg_int4(&args, limiter->pauses > 0 ? 1 : (int) limiter->window);
	arg_tokens(&args, &limiter->requests, now);
	arg_tokens(&args, &limiter->rows, now);
	arg_time(&args, now);
	retl_arg_text(&args, limiter->failures > 0 ? destination->error : NULL);
	retl_arg_bool(&args, retl_limiter_quota_from(limiter, now) > now);
	destination->saved_at = now;
	if (retl_statement_run(&statement, &args) == 0)
		return false;
	limiter->changed = limiter->touched = false;
	return true;
}

void
retl_destination_save(TimestampTz now, bool all)
{
	dlist_iter	i;

	dlist_foreach(i, &retl_destinations)
	{
		RetlDestination *destination = dlist_container(RetlDestination, node, i.cur);

		if (destination->context != NULL &&
			(destination->limiter.changed || (all && destination->limiter.touched) ||
			 (destination->limiter.touched && now >= TimestampTzPlusMilliseconds(destination->saved_at, SAVE_MS))))
			(void) save(destination, now);
	}
}

int
retl_destination_charge(RetlDestination *destination, int count, const int *rows, TimestampTz now)
{
	RetlLimiter *limiter = &destination->limiter;
	int			charged = 0;

	if (!retl_limiter_has_quota(limiter))
		return count;
	while (charged < count && retl_limiter_charge(limiter, rows[charged], now))
		charged++;
	if ((charged == 0 && !limiter->changed) || save(destination, now))
		return charged;
	destination->load_at = TimestampTzPlusMilliseconds(now, LOCKED_MS);
	for (int i = 0; i < charged; i++)
		retl_limiter_refund(limiter, rows[i]);
	return 0;
}

/* What they are like */

RetlDestination *
retl_destination_find(int64 id)
{
	bool		found;
	RetlDestination *destination = hash_search(destinations, &id, HASH_ENTER, &found);

	if (!found)
	{
		memset(destination, 0, sizeof(*destination));
		destination->id = id;
		dlist_init(&destination->runs);
		dlist_init(&destination->ready);
		dlist_push_tail(&retl_destinations, &destination->node);
		recall(destination);
	}
	return destination;
}

bool
retl_destination_refresh(RetlDestination *destination, const RetlLedgerRun *run, TimestampTz now)
{
	RetlLedgerDestination ledger;
	MemoryContext old;

	if (destination->context != NULL && destination->destination_version == run->destination_version &&
		destination->connector_version == run->connector_version)
		return true;
	if (!retl_ledger_destination(destination->id, &ledger))
		return false;

	if (destination->context != NULL)
		MemoryContextDelete(destination->context);
	destination->context = AllocSetContextCreate(destination_context, "retl destination", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(destination->context);
	destination->definition = retl_definition_compile(&ledger);
	MemoryContextSwitchTo(old);
	retl_limiter_configure(&destination->limiter, &destination->definition->limits, now);
	destination->secrets_at = 0;
	destination->destination_version = run->destination_version;
	destination->connector_version = run->connector_version;
	return true;
}

void
retl_destination_load_secrets(RetlDestination *destination, TimestampTz now)
{
	if (destination->secrets != NULL && destination->secrets_at + SECRETS_MS * 1000L > now)
		return;
	retl_secrets_wipe(destination->secrets);
	destination->secrets = NULL;
	destination->secrets = retl_secrets_load(destination->id, destination_context);
	destination->secrets_at = now;
}

void
retl_destination_forget(RetlDestination *destination)
{
	Assert(dlist_is_empty(&destination->runs) && dlist_is_empty(&destination->ready));
	if (destination->context != NULL && (destination->limiter.touched || destination->limiter.changed))
		(void) save(destination, GetCurrentTimestamp());
	retl_secrets_wipe(destination->secrets);
	if (destination->context != NULL)
		MemoryContextDelete(destination->context);
	dlist_delete(&destination->node);
	hash_search(destinations, &destination->id, HASH_REMOVE, NULL);
}

void
retl_destination_wipe(void)
{
	dlist_iter	i;

	dlist_foreach(i, &retl_destinations)
	{
		RetlDestination *destination = dlist_container(RetlDestination, node, i.cur);

		if (destination->nready == 0)
		{
			retl_secrets_wipe(destination->secrets);
			destination->secrets = NULL;
		}
	}
}
