/*
 * verdict.c
 *		Verdicts on records, taken together; see verdict.h.
 */
#include "postgres.h"

#include "deliver/verdict.h"

/* Whether all that were refused were so for one reason. */
static bool
one_reason(const RetlVerdict *verdicts, int records)
{
	const char *first = verdicts[0].reason;

	for (int i = 1; i < records; i++)
	{
		const char *reason = verdicts[i].reason;

		if ((first == NULL) != (reason == NULL) || (first != NULL && strcmp(first, reason) != 0))
			return false;
	}
	return true;
}

bool
retl_verdict_decide(const RetlJson *rule, const RetlHttpAnswer *answer, int attempt,
					const RetlRetryPolicy *policy, const char *stored, const char *sent, size_t sent_len, int records,
					RetlOutcome *outcome, char **reason, RetlVerdict **verdicts)
{
	RetlVerdict *read = palloc0(records * sizeof(RetlVerdict));
	RetlOutcome later;
	bool		unreadable;
	int			counts[RETL_VERDICT_AGAIN + 1] = {0};

	*reason = NULL;
	*verdicts = NULL;
	if (answer->class != RETL_HTTP_ANSWERED)
		return false;
	if (!retl_response_read(rule, answer->status, answer->body, answer->body_len,
							stored, sent, sent_len, records, read, &unreadable))
	{
		if (!unreadable || answer->status >= 300)
			return false;

		/* cut short, or not theirs: some may have been refused, so nobody was accepted */
		retl_outcome_later(answer, attempt, policy, outcome);
		outcome->maybe = true;
		*reason = psprintf("the destination answered with status %d and something that is not JSON, which was to say what became of each record",
						   answer->status);
		return true;
	}
	for (int i = 0; i < records; i++)
		counts[read[i].kind]++;

	memset(outcome, 0, sizeof(*outcome));
	if (counts[RETL_VERDICT_ACCEPTED] == records)
	{
		outcome->kind = RETL_ACCEPTED;
		return true;
	}
	*reason = read[0].reason;
	if (counts[RETL_VERDICT_RETRY] == records)
	{
		retl_outcome_later(answer, attempt, policy, outcome);
		return true;
	}
	if (counts[RETL_VERDICT_AGAIN] == records ||
		(counts[RETL_VERDICT_REJECTED] == records && one_reason(read, records)))
	{
		outcome->kind = RETL_REJECTED;
		outcome->by_record = counts[RETL_VERDICT_AGAIN] > 0;
		return true;
	}

	*reason = NULL;
	*verdicts = read;
	retl_outcome_later(answer, attempt, policy, &later);
	if (later.kind == RETL_GAVE_UP)
	{
		for (int i = 0; i < records; i++)
		{
			if (read[i].kind == RETL_VERDICT_RETRY)
				read[i].kind = RETL_VERDICT_REJECTED;
		}
	}
	outcome->kind = RETL_PARTIAL;
	outcome->pause = later.pause && counts[RETL_VERDICT_RETRY] > 0;
	outcome->delay_ms = later.delay_ms;
	return true;
}

RetlVerdict *
retl_verdict_copy(const RetlVerdict *verdicts, int records, MemoryContext context)
{
	Size		size = records * sizeof(RetlVerdict);
	RetlVerdict *copy;
	char	   *text;

	for (int i = 0; i < records; i++)
		size += verdicts[i].reason != NULL ? strlen(verdicts[i].reason) + 1 : 0;
	copy = MemoryContextAllocHuge(context, size);
	text = (char *) (copy + records);
	for (int i = 0; i < records; i++)
	{
		copy[i] = verdicts[i];
		if (verdicts[i].reason == NULL)
			continue;
		strcpy(text, verdicts[i].reason);
		copy[i].reason = text;
		text += strlen(text) + 1;
	}
	return copy;
}
