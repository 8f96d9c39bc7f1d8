/*
 * results.h
 *		The rows of a set-returning function of one column. No state.
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
extern void retl_result_add(RetlResult *result, Datum value);

#endif							/* RETL_RESULTS_H */
