/*
 * verdict.h
 *		From the verdicts on a request's records to the outcome of the request. No
 *		state.
 */
#ifndef RETL_VERDICT_H
#define RETL_VERDICT_H

#include "postgres.h"

#include "deliver/http.h"
#include "deliver/outcome.h"
#include "deliver/response.h"

/*
 * Reads an answer by the rule of its action. True: *outcome is what it makes of it, *reason
 * (in the current memory context, or NULL) why all records were refused or are to be sent
 * again, and, for RETL_PARTIAL, *verdicts (there, in one chunk) one for each record. False:
 * the rule says nothing of this answer.
 */
extern bool retl_verdict_decide(const RetlJson *rule, const RetlHttpAnswer *answer, int attempt,
								const RetlRetryPolicy *policy, const char *stored, const char *sent, size_t sent_len, int records,
								RetlOutcome *outcome, char **reason, RetlVerdict **verdicts);

/* A copy of verdicts, with their reasons, as one chunk in "context". */
extern RetlVerdict *retl_verdict_copy(const RetlVerdict *verdicts, int records, MemoryContext context);

#endif							/* RETL_VERDICT_H */
