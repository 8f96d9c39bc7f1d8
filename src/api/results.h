/*
 * results.h
 *		The rows of a set-returning function. No state.
 */
#ifndef RETL_RESULTS_H
#define RETL_RESULTS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/tuplestore.h"

typedef struct RetlResult
{
	Tuplestorestate *store;
	TupleDesc	descriptor;
} RetlResult;

/* Before a call begins: makes the function return what is added. */
extern void retl_result_begin(RetlResult *result, FunctionCallInfo fcinfo);

/* Adds a row: of one column that is not null, or of any. */
extern void retl_result_add(RetlResult *result, Datum value);
extern void retl_result_add_row(RetlResult *result, const Datum *values, const bool *nulls);

#endif							/* RETL_RESULTS_H */
