/*
 * bisect.h
 *		Halves of a batch: where a destination refuses a batch and does not say
 *		for which record's sake, the halves are sent as requests of their own,
 *		until only what is at fault stands as failed. Owns no state.
 */
#ifndef RETL_BISECT_H
#define RETL_BISECT_H

#include "postgres.h"

#include "deliver/ledger.h"

typedef struct RetlHalf
{
	int			records;
	char	   *body;
	int			body_len;
	char		idempotency_key[RETL_IDEMPOTENCY_KEY_LIMIT + 1];
	char	   *keys;			/* JSON array */
	char	   *operations;
} RetlHalf;

typedef struct RetlHalves
{
	RetlHalf	half[2];
} RetlHalves;

/*
 * Halves of a body in the current memory context, without keys and operations.
 * NULL when it is not clear where in the body its records are: it must hold one
 * array of as many items (the body itself or a member of it), or be a line for each.
 */
extern RetlHalves *retl_bisect_body(const char *body, size_t len, int records, const char *idempotency_key);

/* Adds the keys and operations. */
extern void retl_bisect_keys(RetlHalves *halves, const char *keys, const char *operations);

#endif							/* RETL_BISECT_H */
