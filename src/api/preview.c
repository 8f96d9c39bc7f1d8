/*
 * preview.c
 *		preview_model, preview_query: the first rows as they are now, in the
 *		form in which they would be stored.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "api/api.h"
#include "api/query.h"
#include "api/results.h"
#include "model/model.h"
#include "model/row.h"

PG_FUNCTION_INFO_V1(retl_preview_model);
PG_FUNCTION_INFO_V1(retl_preview_query);

/* Rows fetched at a time: few, since one may be large. */
#define FETCH_ROWS 100

static int32
max_rows_argument(FunctionCallInfo fcinfo)
{
	int32		max_rows = retl_api_int32(fcinfo, 1, "max_rows");

	if (max_rows < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must not be negative")));
	return max_rows;
}

static void
write_row(StringInfo out, const RetlQuery *query, RetlValueWriter **writers,
		  HeapTuple tuple, TupleDesc descriptor)
{
	appendStringInfoChar(out, '{');
	for (int i = 0; i < query->shape.ncolumns; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(tuple, descriptor, i + 1, &isnull);

		appendStringInfo(out, "%s%s: ", i ? ", " : "", query->shape.columns[i].name_json);
		retl_value_write(writers[i], out, value, isnull);
	}
	appendStringInfoChar(out, '}');
}

/* Inside a call. */
static void
preview(RetlQuery *query, Oid owner, int32 max_rows, RetlResult *result)
{
	RetlIdentity saved;
	RetlValueWriter **writers;
	MemoryContext scratch;
	MemoryContext caller = CurrentMemoryContext;
	Portal		portal;

	retl_query_analyze(query, owner);

	scratch = AllocSetContextCreate(caller, "retl preview row", ALLOCSET_DEFAULT_SIZES);
	retl_owner_enter(&saved, owner, query->search_path);
	writers = palloc(sizeof(RetlValueWriter *) * query->shape.ncolumns);
	for (int i = 0; i < query->shape.ncolumns; i++)
		writers[i] = retl_value_writer(query->types[i]);
	portal = retl_query_open(query);
	while (max_rows > 0)
	{
		uint64		fetched;

		SPI_cursor_fetch(portal, true, Min(max_rows, FETCH_ROWS));
		fetched = SPI_processed;
		if (fetched == 0)
			break;
		for (uint64 i = 0; i < fetched; i++)
		{
			StringInfoData row;

			MemoryContextSwitchTo(scratch);
			initStringInfo(&row);
			write_row(&row, query, writers, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			retl_result_add(result, CStringGetTextDatum(row.data));
			MemoryContextSwitchTo(caller);
			MemoryContextReset(scratch);
			CHECK_FOR_INTERRUPTS();
		}
		SPI_freetuptable(SPI_tuptable);
		max_rows -= fetched;
	}
	SPI_cursor_close(portal);
	retl_owner_leave(&saved);
	MemoryContextDelete(scratch);
}

Datum
retl_preview_model(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "model");
	int32		max_rows = max_rows_argument(fcinfo);
	RetlCall	call;
	RetlObject	object;
	RetlResult	result;
	RetlQuery	query = {0};
	RetlModel  *model;

	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, name, false, &object);
	retl_api_require_owner(&call, &object);
	model = retl_model_get(object.id);
	query.text = model->query;
	query.search_path = model->search_path;
	preview(&query, model->owner, max_rows, &result);
	retl_api_end(&call);
	return (Datum) 0;
}

Datum
retl_preview_query(PG_FUNCTION_ARGS)
{
	char	   *given = retl_api_text(fcinfo, 0, "query");
	int32		max_rows = max_rows_argument(fcinfo);
	RetlCall	call;
	RetlResult	result;
	RetlQuery	query;

	retl_result_begin(&result, fcinfo);
	retl_query_resolve(given, &query);
	retl_api_begin(&call, false);
	preview(&query, call.caller, max_rows, &result);
	retl_api_end(&call);
	return (Datum) 0;
}
