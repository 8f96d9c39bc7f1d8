/*
 * render.h
 *		From a stored body to the bytes on the wire: secrets into their holes, then
 *		the encoding that the destination wants. The same input gives the same bytes at
 *		every attempt. No state.
 */
#ifndef RETL_RENDER_H
#define RETL_RENDER_H

#include "postgres.h"

#include "base/json.h"
#include "deliver/secret.h"

/*
 * "stored" is {"encode", "holes", ...} of the request: encode "form" makes
 * application/x-www-form-urlencoded of an object, "lines" a line of each item of
 * an array, "csv" a table of an array of objects. "holes" is described in map/marks.h.
 *
 * Returns the body itself where there is nothing to do, else a new one in the
 * current memory context; *rendered_len is its length, *secret tells whether there is a
 * secret in it. NULL and *error (palloc'd, a sentence) when it cannot be made.
 */
extern const char *retl_render_body(RetlSlice stored, const char *body, size_t body_len,
									const RetlSecrets *secrets, size_t *rendered_len, bool *secret,
									char **error);

/* The Content-Type of what retl_render_body() makes. */
extern const char *retl_render_type(RetlSlice stored);

#endif							/* RETL_RENDER_H */
