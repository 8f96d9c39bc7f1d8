/*
 * bisect.h
 *		Batches in place of a batch. Where a destination refuses a batch and does not
 *		say for which record's sake, its halves are sent as requests of their own, one after the other,
 *		until only what is at fault stands as failed. Where the first one is accepted, the second one, which is not the smaller,
 *		is halved without being sent; so that one bad record of n takes no more than 2 log n + 1 requests. Where it says so, those records
 *		that are neither accepted nor refused are sent again without the others. Owns no
 *		state.
 */
#ifndef RETL_BISECT_H
#define RETL_BISECT_H

#include "postgres.h"

#include "base/json.h"
#include "deliver/ledger.h"
#include "deliver/response.h"

typedef struct RetlHalf
{
	int			records;
	int		   *members;		/* which ones of the batch, ascending */
	char	   *body;
	int			body_len;
	char		idempotency_key[RETL_IDEMPOTENCY_KEY_LIMIT + 1];
	const char *request;		/* NULL: that of the batch */
	char	   *keys;			/* JSON array */
	char	   *operations;
	bool		later;			/* not at once; it keeps the count of attempts */
} RetlHalf;

typedef struct RetlHalves
{
	int			count;
	RetlHalf	half[2];
} RetlHalves;

/*
 * Halves of a body in the current memory context, without keys and operations.
 * "stored" is its request, or NULL; where it does not say what surrounds the records, the
 * body must hold one array of as many items (the body itself or a member of it), or be a
 * line for each. NULL when it is not clear where in the body its records are.
 */
extern RetlHalves *retl_bisect_body(const char *stored, const char *body, size_t len, int records,
									const char *idempotency_key);

/*
 * The same of the records that are to be sent again: those of RETL_VERDICT_AGAIN, and those of
 * RETL_VERDICT_RETRY.
 */
extern RetlHalves *retl_bisect_rest(const char *stored, const char *body, size_t len, int records,
									const RetlVerdict *verdicts, const char *idempotency_key);

/* All of it again, by another request: the next step. */
extern RetlHalves *retl_bisect_next(char *body, size_t len, int records, const char *request, const char *idempotency_key);

/* Each record of a body; NULL when it is not clear where they are. */
extern RetlSlice *retl_bisect_records(const char *stored, const char *body, size_t len, int records);

/* Adds the keys and operations. */
extern void retl_bisect_keys(RetlHalves *halves, const char *keys, const char *operations);

#endif							/* RETL_BISECT_H */
