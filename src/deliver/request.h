/*
 * request.h
 *		From stored bytes to a request on the wire: what the connector adds at
 *		each attempt, that is authentication, signature and idempotency key.
 *
 * Reads of a connector definition, all of it optional:
 *		"auth": [{"type": ..., "secret": name, "optional": bool}, ...]
 *			bearer				Authorization: Bearer SECRET
 *			basic				Authorization: Basic base64(USER:SECRET), the password empty where no secret is
 *								named; the user's name is "username", or the setting or secret that
 *								"username_setting" or "username_secret" names
 *			header				"header": name, "prefix": text before the secret
 *			query				"parameter": name
 *			hmac				"header": name, "prefix", "algorithm": sha256, sha1 or sha512, "encoding": hex or
 *								base64: HMAC of the body
 *			oauth2				Authorization: Bearer TOKEN, see oauth.h
 *			standard_webhooks	webhook-id, webhook-timestamp, webhook-signature
 *		"idempotency": {"header": name}
 *
 * No shared state, no locks.
 */
#ifndef RETL_REQUEST_H
#define RETL_REQUEST_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "deliver/compress.h"
#include "deliver/http.h"
#include "deliver/oauth.h"
#include "deliver/secret.h"

/* As many headers can be sent. */
#define RETL_REQUEST_HEADERS 30

typedef struct RetlAuthentication RetlAuthentication;

/*
 * Compiles what a connector says about authentication, with a destination's
 * settings, into the current memory context. What is not understood is
 * reported by retl_request_build(): a destination fails alone.
 */
extern RetlAuthentication *retl_request_compile(const char *connector, const char *settings);

/* How to get the access token that requests need, or NULL; it goes into secrets->token. */
extern const RetlOauth *retl_request_oauth(const RetlAuthentication *authentication, const RetlSecrets *secrets);

/*
 * Fills in "request", but for timeout and owner. Header values are made in the current
 * memory context, which the caller resets or deletes after submitting; "headers" has
 * room for RETL_REQUEST_HEADERS. "stored" is {"method", "url", "headers", ...} as
 * map/mapping.h has it. The request's body is the stored one, or a rendered one
 * in the current memory context, which has to be kept until the answer is there.
 *
 * Returns false and *error (palloc'd, a sentence without a secret in it) when
 * the request cannot be sent.
 */
extern bool retl_request_build(const RetlAuthentication *authentication, const RetlSecrets *secrets,
							   const char *stored, const char *body, size_t body_len,
							   const char *idempotency_key, TimestampTz now,
							   RetlHttpHeader *headers, RetlHttpRequest *request, char **error);

/*
 * Compresses the body of a request that was built, where that makes it shorter and it is
 * not encoded already, in the current memory context.
 */
extern void retl_request_compress(RetlCompression compression, RetlHttpHeader *headers, RetlHttpRequest *request);

#endif							/* RETL_REQUEST_H */
