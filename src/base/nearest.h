/*
 * nearest.h
 *		The name that a user may have meant. No state.
 */
#ifndef RETL_NEAREST_H
#define RETL_NEAREST_H

#include "postgres.h"

/* The candidate nearest to "name", or NULL when none is near. */
extern const char *retl_nearest(const char *name, int count, const char *const *candidates);

#endif							/* RETL_NEAREST_H */
