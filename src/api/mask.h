/*
 * mask.h
 *		Requests as they would go on the wire, to be looked at: with what the
 *		connector adds at each attempt, secrets shown as asterisks. Reads the
 *		names of a destination's secrets, never a value. No state.
 */
#ifndef RETL_MASK_H
#define RETL_MASK_H

#include "postgres.h"

typedef struct RetlMask RetlMask;

/* Inside a call. It lives in the current memory context. */
extern RetlMask *retl_mask_prepare(int64 destination, const char *connector, const char *settings);

/*
 * JSON text {"method", "url", "headers", "body"} of a stored request and its
 * body ("": none). NULL and *error, a sentence, when it could not be sent.
 */
extern char *retl_mask_request(const RetlMask *mask, const char *stored, const char *body,
							   const char *idempotency_key, char **error);

#endif							/* RETL_MASK_H */
