/*
 * testing.c
 *		Functions by which a regression test reaches rules of delivery that are
 *		hard to reach from outside. Compiled only with RETL_TESTING; the test declares them.
 */
#include "postgres.h"

#ifdef RETL_TESTING

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "deliver/address.h"
#include "deliver/bisect.h"
#include "deliver/http.h"
#include "deliver/limiter.h"
#include "deliver/outcome.h"
#include "deliver/response.h"

PG_FUNCTION_INFO_V1(retl_test_address);
PG_FUNCTION_INFO_V1(retl_test_url_address);
PG_FUNCTION_INFO_V1(retl_test_retry_after);
PG_FUNCTION_INFO_V1(retl_test_outcome);
PG_FUNCTION_INFO_V1(retl_test_bisect);
PG_FUNCTION_INFO_V1(retl_test_response);
PG_FUNCTION_INFO_V1(retl_test_limiter);
PG_FUNCTION_INFO_V1(retl_test_limiter_windows);

/* (address text, allowed text) -> why it is refused */
Datum
retl_test_address(PG_FUNCTION_ARGS)
{
	const char *reason;

	retl_address_allow(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	reason = retl_address_text_refused(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (reason == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(reason));
}

/* (url text, allowed text) -> why the address in it is refused */
Datum
retl_test_url_address(PG_FUNCTION_ARGS)
{
	const char *reason;

	retl_address_allow(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	reason = retl_address_url_refused(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (reason == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(reason));
}

/* (value text, now timestamptz) -> ms */
Datum
retl_test_retry_after(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(retl_outcome_retry_after(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_TIMESTAMPTZ(1)));
}

/* (status int, class int, attempt int, retry_after text) -> kind, and what goes with it */
Datum
retl_test_outcome(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"accepted", "retry", "rejected", "gave up"};
	RetlHttpAnswer answer = {0};
	RetlOutcome outcome;
	int			attempt = PG_GETARG_INT32(2);
	int64		most = Min((int64) 1000 << Min(attempt - 1, 20), 300 * 1000);
	const char *delay = "";

	answer.status = PG_GETARG_INT32(0);
	answer.class = PG_GETARG_INT32(1);
	if (!PG_ARGISNULL(3))
		answer.retry_after = text_to_cstring(PG_GETARG_TEXT_PP(3));
	retl_outcome_decide(&answer, attempt, &retl_retry_default, &outcome);
	if (outcome.kind == RETL_RETRY && answer.retry_after == NULL)
		delay = outcome.delay_ms >= 0 && outcome.delay_ms <= most ? " in time" : " at a wrong time";
	else if (outcome.kind == RETL_RETRY)
		delay = psprintf(" after " INT64_FORMAT " s", outcome.delay_ms / 1000);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s%s%s%s%s", kinds[outcome.kind], delay,
											  outcome.maybe ? ", maybe" : "",
											  outcome.by_record ? ", by record" : "",
											  outcome.pause ? ", pause" : "")));
}

/* (body text, records int, keys json, operations text) -> of each half: body, keys, operations; NULL: no halves */
Datum
retl_test_bisect(PG_FUNCTION_ARGS)
{
	char	   *body = text_to_cstring(PG_GETARG_TEXT_PP(0));
	RetlHalves *halves = retl_bisect_body(NULL, body, strlen(body), PG_GETARG_INT32(1), "parent");
	Datum		texts[6];

	if (halves == NULL)
		PG_RETURN_NULL();
	retl_bisect_keys(halves, text_to_cstring(PG_GETARG_TEXT_PP(2)), text_to_cstring(PG_GETARG_TEXT_PP(3)));
	for (int i = 0; i < 2; i++)
	{
		RetlHalf   *half = &halves->half[i];

		texts[i * 3] = PointerGetDatum(cstring_to_text_with_len(half->body, half->body_len));
		texts[i * 3 + 1] = CStringGetTextDatum(half->keys);
		texts[i * 3 + 2] = CStringGetTextDatum(half->operations);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(texts, 6, TEXTOID, -1, false, TYPALIGN_INT));
}

/* (rule text, status int, answer text, sent text, records int) -> a verdict for each record; NULL: the rule says nothing */
Datum
retl_test_response(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"accepted", "rejected", "retry", "again"};
	char	   *rule_text = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *answer = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *sent = text_to_cstring(PG_GETARG_TEXT_PP(3));
	int			records = PG_GETARG_INT32(4);
	RetlVerdict *verdicts = palloc0(sizeof(RetlVerdict) * records);
	Datum	   *texts = palloc(sizeof(Datum) * records);
	bool		unreadable;
	char	   *error;
	RetlJson   *rule = retl_json_parse(rule_text, strlen(rule_text), &error);
	char	   *problem = rule != NULL ? retl_response_check(rule) : error;

	if (problem != NULL)
		elog(ERROR, "%s", problem);
	if (!retl_response_read(rule, PG_GETARG_INT32(1), answer, strlen(answer), NULL, sent, strlen(sent), records, verdicts, &unreadable))
		PG_RETURN_NULL();
	for (int i = 0; i < records; i++)
		texts[i] = CStringGetTextDatum(psprintf("%s%s%s", kinds[verdicts[i].kind], verdicts[i].reason ? ": " : "",
												verdicts[i].reason ? verdicts[i].reason : ""));
	PG_RETURN_ARRAYTYPE_P(construct_array(texts, records, TEXTOID, -1, false, TYPALIGN_INT));
}

static double
limit_of(ArrayType *limits, int n)
{
	return ((float8 *) ARR_DATA_PTR(limits))[n];
}

static void
configure(RetlLimiter *limiter, ArrayType *limits)
{
	RetlLimits	configured = {
		.concurrency = (int) limit_of(limits, 0),
		.requests = {limit_of(limits, 1), limit_of(limits, 2)},
		.rows = {limit_of(limits, 3), limit_of(limits, 4)},
		.requests_a_day = (int64) limit_of(limits, 5),
		.rows_a_day = (int64) limit_of(limits, 6),
	};

	retl_limiter_configure(limiter, &configured, 1);
}

/*
 * (limits float8[] {concurrency, requests a second, burst, rows a second, burst, requests a day, rows a day}, script text[])
 * -> what each line of the script comes to. A line is a time in seconds, what happens, and a number:
 *		send ROWS			"sent", or when it might be
 *		ok, fail, busy SECONDS	an answer after that time; how it stands then
 *		load ROWS			takes it from the quota: "loaded", or when it might be
 *		stand 0				how it stands
 */
Datum
retl_test_limiter(PG_FUNCTION_ARGS)
{
	RetlLimiter limiter = {0};
	Datum	   *lines;
	Datum	   *results;
	int			count;

	configure(&limiter, PG_GETARG_ARRAYTYPE_P(0));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &lines, NULL, &count);
	results = palloc(sizeof(Datum) * count);
	for (int i = 0; i < count; i++)
	{
		char		what[16];
		double		at;
		double		value;
		TimestampTz now;
		TimestampTz next;
		const char *said;

		if (sscanf(TextDatumGetCString(lines[i]), "%lf %15s %lf", &at, what, &value) != 3)
			elog(ERROR, "line %d is none", i + 1);
		now = (TimestampTz) (at * USECS_PER_SEC);
		if (strcmp(what, "send") == 0)
		{
			next = retl_limiter_next(&limiter, (int) value, now);
			said = next <= now ? "sent" : next == DT_NOEND ? "when another ends" :
				psprintf("at %.3f", (double) next / USECS_PER_SEC);
			if (next <= now)
				retl_limiter_take(&limiter, (int) value, now);
		}
		else if (strcmp(what, "load") == 0)
		{
			next = retl_limiter_quota_from(&limiter, now);
			said = next > now ? psprintf("at %.0f", (double) next / USECS_PER_SEC) :
				retl_limiter_charge(&limiter, (int) value, now) ? "loaded" : "not today";
		}
		else
		{
			if (strcmp(what, "stand") != 0)
			{
				retl_limiter_answered(&limiter, strcmp(what, "ok") == 0 ? RETL_LIMITER_SUCCESS :
									  strcmp(what, "busy") == 0 ? RETL_LIMITER_OVERLOAD : RETL_LIMITER_FAILURE,
									  now - (TimestampTz) (value * USECS_PER_SEC), value, now);
				if (limiter.in_flight > 0)
					limiter.in_flight--;
			}
			said = psprintf("%d at a time, %s%s", limiter.pauses > 0 ? 1 : (int) limiter.window,
							limiter.pauses == 0 ? "closed" : now < limiter.retry_at ? "open" : "half-open",
							limiter.pauses > 0 && limiter.retry_at > now + 60 * USECS_PER_SEC ? " for too long" : "");
		}
		results[i] = CStringGetTextDatum(said);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(results, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * (limits float8[] as above, rows int, seconds float8, pause float8) -> the most that was sent of what is allowed, over
 * all windows of one second or more, where requests of so many records are sent whenever they may be, but
 * for a rest in the middle; and the share of what the rates allow that was made use of.
 */
Datum
retl_test_limiter_windows(PG_FUNCTION_ARGS)
{
	ArrayType  *limits = PG_GETARG_ARRAYTYPE_P(0);
	int			rows = PG_GETARG_INT32(1);
	double		seconds = PG_GETARG_FLOAT8(2);
	double		pause = PG_GETARG_FLOAT8(3);
	RetlLimiter limiter = {0};
	double	   *sent = palloc(sizeof(double) * 1000000);
	int			count = 0;
	double		most = 0;
	TimestampTz now = 1;
	TimestampTz end = (TimestampTz) (seconds * USECS_PER_SEC);
	Datum		results[2];

	configure(&limiter, limits);
	while (now < end && count < 1000000)
	{
		TimestampTz next = retl_limiter_next(&limiter, rows, now);

		if (pause > 0 && now > end / 2)
		{
			now += (TimestampTz) (pause * USECS_PER_SEC);
			end += (TimestampTz) (pause * USECS_PER_SEC);
			pause = 0;
			continue;
		}
		if (next > now)
		{
			now = next;
			continue;
		}
		retl_limiter_take(&limiter, rows, now);
		limiter.in_flight--;
		sent[count++] = (double) now / USECS_PER_SEC;
	}
	for (int from = 0; from < count; from++)
	{
		for (int to = from; to < count; to++)
		{
			double		width = Max(sent[to] - sent[from], 1);

			for (int kind = 0; kind < 2; kind++)
			{
				double		rate = limit_of(limits, 1 + 2 * kind);
				double		number = (to - from + 1) * (kind == 0 ? 1.0 : rows);

				if (rate > 0)
					most = Max(most, number / (rate * width + limit_of(limits, 2 + 2 * kind)));
			}
		}
	}
	results[0] = Float8GetDatum(most);
	results[1] = Float8GetDatum(count / seconds /
								Min(limit_of(limits, 1) > 0 ? limit_of(limits, 1) : 1e9,
									limit_of(limits, 3) > 0 ? limit_of(limits, 3) / rows : 1e9));
	PG_RETURN_ARRAYTYPE_P(construct_array(results, 2, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

#endif							/* RETL_TESTING */
