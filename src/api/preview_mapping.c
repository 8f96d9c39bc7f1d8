/*
 * preview_mapping.c
 *		preview_mapping: what would be sent for the first rows of the model as
 *		they are now. It sends, stores and caches nothing.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "api/api.h"
#include "api/mask.h"
#include "api/results.h"
#include "api/sample.h"

PG_FUNCTION_INFO_V1(retl_preview_mapping);

#define COLUMNS 5

static void
add_row(RetlResult *result, const RetlMask *mask, RetlSampleRow *row)
{
	const char *texts[COLUMNS];
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS];

	texts[0] = row->key;
	texts[1] = retl_operation_name(row->operation);
	texts[2] = row->payload;
	texts[3] = row->request == NULL ? NULL :
		retl_mask_request(mask, row->request, row->body, "preview", &row->error);
	texts[4] = row->error;
	for (int i = 0; i < COLUMNS; i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	retl_result_add_row(result, values, nulls);
}

Datum
retl_preview_mapping(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	int32		max_rows = retl_api_int32(fcinfo, 1, "max_rows");
	RetlCall	call;
	RetlObject	mapping;
	RetlResult	result;
	RetlSample *sample;
	RetlSampleRow row;
	RetlMask   *mask;
	MemoryContext caller;
	MemoryContext scratch;

	if (max_rows < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must not be negative")));
	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);

	sample = retl_sample_open(mapping.id, NULL, "preview");
	mask = retl_mask_prepare(retl_sample_destination(sample), retl_sample_connector(sample),
							 retl_sample_settings(sample));
	scratch = AllocSetContextCreate(CurrentMemoryContext, "retl preview row", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(scratch);
	for (int n = 0; n < max_rows && retl_sample_next(sample, &row); n++)
	{
		add_row(&result, mask, &row);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	retl_sample_close(sample);
	retl_api_end(&call);
	return (Datum) 0;
}
