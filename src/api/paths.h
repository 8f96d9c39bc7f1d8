/*
 * paths.h
 *		Finds misspelt columns in the fields of a mapping. No state.
 */
#ifndef RETL_PATHS_H
#define RETL_PATHS_H

#include "postgres.h"

#include "api/query.h"

/*
 * A NOTICE for each "@path" of "fields" that starts at something the model
 * does not have. Such a path is legal: it is absent, and a column of that name
 * may come.
 */
extern void retl_paths_check(const char *fields, const RetlQuery *query);

#endif							/* RETL_PATHS_H */
