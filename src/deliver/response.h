/*
 * response.h
 *		What an answer says of each record of a request, by the rule of the connector's
 *		action ("response", described in sql/connectors/README.md).
 *
 * Rules are read from the definition as they are needed; what of a rule is not
 * understood says nothing. Owns no state.
 */
#ifndef RETL_RESPONSE_H
#define RETL_RESPONSE_H

#include "postgres.h"

#include "base/json.h"

typedef enum RetlVerdictKind
{
	RETL_VERDICT_ACCEPTED,
	RETL_VERDICT_REJECTED,
	RETL_VERDICT_RETRY,			/* later, as it is */
	RETL_VERDICT_AGAIN			/* not at fault: at once, without those that are */
} RetlVerdictKind;

typedef struct RetlVerdict
{
	RetlVerdictKind kind;
	char	   *reason;			/* or NULL */
} RetlVerdict;

/* The rule for a stored request among a connector's actions; NULL: the status says it all. */
extern const RetlJson *retl_response_rule(const RetlJson *connector, const char *stored);

/*
 * Fills in a verdict for each record. "stored" is the request, or NULL, "sent" its stored body, in which records
 * are looked up that the answer names by a value of theirs. False: the rule does not
 * say anything about this answer. *unreadable: it would have, but what came is no JSON.
 */
extern bool retl_response_read(const RetlJson *rule, int status, const char *answer, size_t answer_len,
							   const char *stored, const char *sent, size_t sent_len, int records, RetlVerdict *verdicts,
							   bool *unreadable);

/*
 * The request that is to follow on this answer, in place of an outcome: the stored
 * one with another method and URL; NULL: none. For requests of one record, once.
 */
extern char *retl_response_next(const RetlJson *rule, int status, const char *answer, size_t answer_len,
								const char *stored);

/* Why a rule is not valid, with its place in the rule ("/listed/0/at: ..."); NULL: it is. */
extern char *retl_response_check(const RetlJson *rule);

#endif							/* RETL_RESPONSE_H */
