/*
 * health.c
 *		What views progress and health ask beyond the tables: how far snapshots
 *		are, and whether this database may deliver.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "api/results.h"
#include "base/instance.h"
#include "base/progress.h"
#include "base/shmem.h"

PG_FUNCTION_INFO_V1(retl_scan_progress);
PG_FUNCTION_INFO_V1(retl_delivery_obstacle);

Datum
retl_scan_progress(PG_FUNCTION_ARGS)
{
	RetlProgress progress[RETL_MAX_WORKERS];
	RetlResult	result;
	int			count;

	retl_result_begin(&result, fcinfo);
	count = retl_progress_read(progress);
	for (int i = 0; i < count; i++)
	{
		Datum		values[4];
		bool		nulls[4] = {0};

		values[0] = Int64GetDatum(progress[i].model);
		values[1] = Int64GetDatum(progress[i].rows);
		values[2] = Int64GetDatum(progress[i].expected);
		values[3] = TimestampTzGetDatum(progress[i].started_at);
		retl_result_add_row(&result, values, nulls);
	}
	return (Datum) 0;
}

/* NULL: it may deliver. */
Datum
retl_delivery_obstacle(PG_FUNCTION_ARGS)
{
	RetlCall	call;
	char	   *why;
	Datum		result = (Datum) 0;
	bool		armed;

	retl_api_begin(&call, false);
	armed = retl_instance_armed(&why);
	if (!armed)
		result = SPI_datumTransfer(CStringGetTextDatum(why), false, -1);
	retl_api_end(&call);
	if (armed)
		PG_RETURN_NULL();
	return result;
}
