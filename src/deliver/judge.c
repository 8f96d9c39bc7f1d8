/*
 * judge.c
 *		What an answer means for a batch, its run and its destination; see judge.h.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "deliver/answer.h"
#include "deliver/judge.h"
#include "deliver/outcome.h"
#include "deliver/response.h"
#include "deliver/verdict.h"

/*
 * Refused batches of a run are halved until this many refusals brought no
 * acceptance: enough to find a hundred bad records in a batch, and an end where all are.
 */
#define FRUITLESS_MOST 256

/* What is shown of an answer in an error. */
#define ANSWER_SHOWN 300

static char *
describe(const RetlHttpAnswer *answer, const char *excerpt, MemoryContext kept)
{
	char	   *text;

	if (answer->class != RETL_HTTP_ANSWERED)
		return retl_answer_fault(kept, answer);
	text = psprintf("the destination answered with status %d%s", answer->status,
					answer->status >= 300 && answer->status < 400 ? ", and redirects are not followed" : "");
	if (excerpt != NULL && excerpt[0] != '\0')
		text = psprintf("%s: %.*s", text, pg_mbcliplen(excerpt, strlen(excerpt), ANSWER_SHOWN), excerpt);
	return MemoryContextStrdup(kept, text);
}

/* How often and how long it is tried: the connector's exceptions, the mapping's limits, the server's delays. */
static void
retry_policy(const RetlQueueBatch *batch, const RetlHttpAnswer *answer, RetlRetryPolicy *policy)
{
	const RetlQueueRun *run = batch->run;
	TimestampTz first = batch->ledger.first_attempt_at != 0 ? batch->ledger.first_attempt_at : answer->dispatched_at;

	*policy = run->destination->definition->retry;
	policy->base_ms = retl_retry_delay;
	policy->cap_ms = retl_max_retry_delay;
	if (run->max_attempts > 0)
		policy->status_attempts = policy->fault_attempts = run->max_attempts;
	policy->expired = run->max_age_ms > 0 &&
		answer->dispatched_at + (TimestampTz) (answer->seconds * USECS_PER_SEC) >= TimestampTzPlusMilliseconds(first, run->max_age_ms);
}

/*
 * What the connector's rule makes of an answer, in place of what its status
 * means. *reason is in the current memory context.
 */
static void
apply_rule(RetlQueueBatch *batch, const RetlHttpAnswer *answer, const RetlRetryPolicy *policy, RetlOutcome *outcome,
		   char **reason, MemoryContext kept)
{
	RetlDestination *destination = batch->run->destination;
	const RetlJson *rule = batch->request != NULL ?
		retl_response_rule(destination->definition->connector, batch->request) : NULL;
	RetlVerdict *verdicts;
	RetlOutcome ruled;
	int			records = batch->ledger.records;

	*reason = NULL;
	if (rule != NULL && records == 1 && answer->class == RETL_HTTP_ANSWERED)
	{
		char	   *next = retl_response_next(rule, answer->status, answer->body, answer->body_len, batch->request);

		if (next != NULL)
		{
			memset(outcome, 0, sizeof(*outcome));
			outcome->kind = RETL_REJECTED;
			batch->result.next_request = MemoryContextStrdup(kept, next);
			return;
		}
	}
	if (rule == NULL ||
		!retl_verdict_decide(rule, answer, batch->ledger.attempts + 1, policy, batch->request, batch->body,
							 batch->body_len, records, &ruled, reason, &verdicts))
		return;
	*outcome = ruled;
	if (*reason != NULL)
		retl_secrets_mask(destination->secrets, *reason);
	if (verdicts == NULL)
		return;
	for (int i = 0; i < records; i++)
	{
		if (verdicts[i].reason != NULL)
			retl_secrets_mask(destination->secrets, verdicts[i].reason);
	}
	batch->result.verdicts = retl_verdict_copy(verdicts, records, kept);
}

/* What an answer says of how much its destination can take. */
static void
note_answer(RetlDestination *destination, const RetlHttpAnswer *answer, const RetlOutcome *outcome, const char *error,
			TimestampTz now)
{
	RetlLimiterEvent event = RETL_LIMITER_SUCCESS;

	if (answer->class == RETL_HTTP_ANSWERED && (answer->status == 429 || answer->status == 503))
		event = RETL_LIMITER_OVERLOAD;
	else if (outcome->kind == RETL_RETRY || outcome->kind == RETL_GAVE_UP)
		event = RETL_LIMITER_FAILURE;
	if (event != RETL_LIMITER_SUCCESS && error != NULL)
		strlcpy(destination->error, error, sizeof(destination->error));
	retl_limiter_answered(&destination->limiter, event, answer->dispatched_at, answer->seconds, now);
}

void
retl_judge_answer(RetlQueueBatch *batch, const RetlHttpAnswer *answer, TimestampTz now, MemoryContext kept)
{
	RetlQueueRun *run = batch->run;
	RetlLedgerResult *result = &batch->result;
	RetlRetryPolicy policy;
	RetlOutcome outcome;
	char	   *reason;

	retry_policy(batch, answer, &policy);
	retl_outcome_decide(answer, batch->ledger.attempts + 1, &policy, &outcome);
	apply_rule(batch, answer, &policy, &outcome, &reason, kept);
	if (answer->class == RETL_HTTP_ANSWERED && answer->status == 401 && run->destination->secrets != NULL &&
		retl_request_oauth(run->destination->definition->authentication, run->destination->secrets) != NULL)
	{
		/* it may have been withdrawn: once more with another one */
		retl_oauth_forget(run->destination->id);
		run->destination->secrets->token = NULL;
		if (batch->ledger.attempts == 0)
			outcome = (RetlOutcome) {.kind = RETL_RETRY};
	}
	result->kind = outcome.kind;
	result->maybe = outcome.maybe;
	result->http_status = answer->status;
	result->at = answer->dispatched_at;
	result->seconds = answer->seconds;
	result->answer_bytes = answer->body_len;
	result->answer = retl_answer_excerpt(kept, answer, run->destination->secrets,
										 outcome.kind == RETL_ACCEPTED ? RETL_ANSWER_KEPT_ACCEPTED : RETL_ANSWER_KEPT);
	if (outcome.kind != RETL_ACCEPTED)
	{
		result->error = reason != NULL ? MemoryContextStrdup(kept, reason) : describe(answer, result->answer, kept);
		retl_secrets_mask(run->destination->secrets, unconstify(char *, result->error));
	}
	if (outcome.kind == RETL_RETRY || outcome.kind == RETL_PARTIAL)
		result->next_attempt_at = TimestampTzPlusMilliseconds(now, outcome.delay_ms);
	run->nhopeless = outcome.hopeless ? run->nhopeless + 1 : 0;
	if (outcome.kind == RETL_ACCEPTED)
		run->nfruitless = 0;
	else if (outcome.by_record)
		run->nfruitless++;
	batch->by_record = outcome.by_record && batch->ledger.records > 1 && run->nfruitless <= FRUITLESS_MOST;

	note_answer(run->destination, answer, &outcome, result->error, now);
	if (outcome.pause)
		retl_limiter_pause(&run->destination->limiter, result->next_attempt_at);
}
