/*
 * secret.h
 *		Secrets of destinations: read when needed, wiped after use.
 *
 * A secret is a value in retl.secret, or a reference that is resolved here: {"file":
 * absolute path} or {"env": name}. Values are in no error, log or view; where
 * an answer repeats one, it is masked before the answer is stored. No shared
 * state, no locks.
 */
#ifndef RETL_SECRET_H
#define RETL_SECRET_H

#include "postgres.h"

typedef struct RetlSecret
{
	char	   *name;
	char	   *value;			/* NULL: could not be read */
	const char *fault;			/* why */
} RetlSecret;

typedef struct RetlSecrets
{
	int			count;
	RetlSecret *items;
	const char *token;			/* access token of OAuth 2, or NULL; not ours */
} RetlSecrets;

/*
 * Reads the secrets of a destination, in a transaction with SPI connected. The
 * result is in "context".
 */
extern RetlSecrets *retl_secrets_load(int64 destination, MemoryContext context);

/* NULL when there is none of this name, or it could not be read (*fault says why). */
extern const char *retl_secrets_get(const RetlSecrets *secrets, const char *name, const char **fault);

/* Overwrites every occurrence of a secret in "text", as it is or in base64, with asterisks. */
extern void retl_secrets_mask(const RetlSecrets *secrets, char *text);

/* Wipes and frees; NULL is fine. */
extern void retl_secrets_wipe(RetlSecrets *secrets);

#endif							/* RETL_SECRET_H */
