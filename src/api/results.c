/*
 * results.c
 *		The rows of a set-returning function; see results.h.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"

#include "api/results.h"

void
retl_result_begin(RetlResult *result, FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext caller;

	if (info == NULL || !IsA(info, ReturnSetInfo) ||
		!(info->allowedModes & SFRM_Materialize) || info->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	caller = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	result->descriptor = CreateTupleDescCopy(info->expectedDesc);
	result->store = tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0,
										  false, work_mem);
	info->returnMode = SFRM_Materialize;
	info->setResult = result->store;
	info->setDesc = result->descriptor;
	MemoryContextSwitchTo(caller);
}

void
retl_result_add(RetlResult *result, Datum value)
{
	bool		isnull = false;

	tuplestore_putvalues(result->store, result->descriptor, &value, &isnull);
}

void
retl_result_add_row(RetlResult *result, const Datum *values, const bool *nulls)
{
	tuplestore_putvalues(result->store, result->descriptor, unconstify(Datum *, values),
						 unconstify(bool *, nulls));
}
