/*
 * sqlexpr.h
 *		@sql: scalar SQL expressions over a row, checked when a mapping is
 *		created and evaluated as the model's owner.
 *
 * An expression sees the model's columns by name, "old" (json object of the
 * row before, NULL unless updated), "changed" (text[] of the changed columns'
 * names) and "operation" (text). No sub-query, aggregate, window or
 * set-returning function, no volatile function, no parameter.
 */
#ifndef RETL_SQLEXPR_H
#define RETL_SQLEXPR_H

#include "postgres.h"

#include "map/mapping.h"
#include "model/row.h"

typedef struct RetlSqlSet RetlSqlSet;

/*
 * Parses and checks "count" expressions against the columns of "shape", as
 * role "owner" in "search_path". Errors: 42601, 42703, 42804, 0A000 and what
 * analysis raises (with the expression's number and text in the detail). The
 * set lives in the current memory context, and uses "shape" as long; it must
 * be freed (or the transaction aborted) before the transaction ends.
 */
extern RetlSqlSet *retl_sql_prepare(const RetlShape *shape, int count, const char *const *expressions,
									Oid owner, const char *search_path);

/*
 * Evaluates all expressions for one row, each value as JSON text in values[i]
 * (NULL as "null"), allocated in the current memory context. A row whose
 * evaluation raises an error returns false and *error: its SQLSTATE and
 * message; the transaction goes on. Cancellation, deadlock, lack of resources
 * and the like are raised. It enters the owner's switch itself, and a
 * subtransaction. A row of another shape is read by column name; a column that
 * it lacks is NULL.
 */
extern bool retl_sql_eval(RetlSqlSet *set, const RetlEnvelope *envelope,
						  RetlSlice *values, char **error);

/*
 * The same for many rows, which share switch and subtransaction: several times
 * as fast. Row r has its values from values[r * expressions] on, and errors[r]
 * is NULL or what retl_sql_eval gives.
 */
extern void retl_sql_eval_rows(RetlSqlSet *set, int count, const RetlEnvelope *const *envelopes,
							   RetlSlice *values, char **errors);

extern void retl_sql_free(RetlSqlSet *set);

#endif							/* RETL_SQLEXPR_H */
