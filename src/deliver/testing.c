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
#include "deliver/outcome.h"
#include "deliver/response.h"

PG_FUNCTION_INFO_V1(retl_test_address);
PG_FUNCTION_INFO_V1(retl_test_retry_after);
PG_FUNCTION_INFO_V1(retl_test_outcome);
PG_FUNCTION_INFO_V1(retl_test_bisect);
PG_FUNCTION_INFO_V1(retl_test_response);

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
	char	   *error;
	RetlJson   *rule = retl_json_parse(rule_text, strlen(rule_text), &error);
	char	   *problem = rule != NULL ? retl_response_check(rule) : error;

	if (problem != NULL)
		elog(ERROR, "%s", problem);
	if (!retl_response_read(rule, PG_GETARG_INT32(1), answer, strlen(answer), NULL, sent, strlen(sent), records, verdicts))
		PG_RETURN_NULL();
	for (int i = 0; i < records; i++)
		texts[i] = CStringGetTextDatum(psprintf("%s%s%s", kinds[verdicts[i].kind], verdicts[i].reason ? ": " : "",
												verdicts[i].reason ? verdicts[i].reason : ""));
	PG_RETURN_ARRAYTYPE_P(construct_array(texts, records, TEXTOID, -1, false, TYPALIGN_INT));
}

#endif							/* RETL_TESTING */
