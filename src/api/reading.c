/*
 * reading.c
 *		How much of a model is read; see reading.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "api/reading.h"
#include "base/sql.h"

static const char *const names[RETL_READING_INTERVALS] = {
	"max_skip", "watermark_overlap", "full_every", "timeout"
};

static void
take_interval(FunctionCallInfo fcinfo, int argument, int n, RetlReading *reading)
{
	reading->is_null[n] = PG_ARGISNULL(argument);
	if (reading->is_null[n])
		return;
	reading->intervals[n] = PG_GETARG_DATUM(argument);
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, reading->intervals[n],
										  DirectFunctionCall3(interval_in, CStringGetDatum("0"),
															  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)))) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be negative", names[n])));
}

void
retl_reading_arguments(FunctionCallInfo fcinfo, int n, RetlReading *reading)
{
	memset(reading, 0, sizeof(*reading));
	take_interval(fcinfo, n, 0, reading);
	reading->watermark = retl_api_text_or_null(fcinfo, n + 1);
	take_interval(fcinfo, n + 2, 1, reading);
	take_interval(fcinfo, n + 3, 2, reading);
	take_interval(fcinfo, n + 4, 3, reading);
}

bool
retl_reading_is_given(const RetlReading *reading)
{
	for (int i = 0; i < RETL_READING_INTERVALS; i++)
		if (!reading->is_null[i] || reading->clear[i])
			return true;
	return reading->watermark != NULL || reading->clear_watermark;
}

bool
retl_reading_reset(RetlReading *reading, const char *name, bool *given)
{
	if (strcmp(name, "watermark") == 0)
	{
		*given = reading->watermark != NULL;
		reading->clear_watermark = true;
		return true;
	}
	for (int i = 0; i < RETL_READING_INTERVALS; i++)
		if (strcmp(name, names[i]) == 0)
		{
			*given = !reading->is_null[i];
			reading->clear[i] = true;
			return true;
		}
	return false;
}

static void
check_watermark(const RetlQuery *query, const char *name)
{
	int			column = retl_query_column(query, name);
	Oid			type;

	if (column < 0)
		retl_query_no_column(query, "watermark", name);
	type = getBaseType(query->types[column]);
	if (type != DATEOID && type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("watermark \"%s\" has type %s", name, format_type_be(query->types[column])),
				 errhint("A watermark is a column of type date, timestamp or timestamp with time zone"
						 " that tells when its row was written last.")));
}

void
retl_reading_set(const RetlReading *reading, int64 model, const RetlQuery *query)
{
	RetlArgs	args = {0};

	if (reading->watermark != NULL)
		check_watermark(query, reading->watermark);
	if (!retl_reading_is_given(reading))
		return;
	retl_arg_int8(&args, model);
	retl_arg_text(&args, reading->watermark);
	for (int i = 0; i < RETL_READING_INTERVALS; i++)
		retl_arg_datum(&args, INTERVALOID, reading->intervals[i], reading->is_null[i]);
	retl_arg_bool(&args, reading->clear_watermark);
	for (int i = 0; i < RETL_READING_INTERVALS; i++)
		retl_arg_bool(&args, reading->clear[i]);
	/* another watermark is known from when the model is read as a whole */
	(void) retl_sql("UPDATE retl.model_state s SET watermark = NULL FROM retl.model m WHERE s.model = $1 AND m.id = $1"
					" AND ($7 OR $2 IS DISTINCT FROM m.watermark) AND ($7 OR $2 IS NOT NULL)", &args);
	(void) retl_sql("UPDATE retl.model SET watermark = CASE WHEN NOT $7 THEN coalesce($2, watermark) END,"
					" max_skip = CASE WHEN $8 THEN '0' ELSE coalesce($3, max_skip) END,"
					" watermark_overlap = CASE WHEN $9 THEN '1 hour' ELSE coalesce($4, watermark_overlap) END,"
					" full_every = CASE WHEN $10 THEN '1 day' ELSE coalesce($5, full_every) END,"
					" timeout = CASE WHEN NOT $11 THEN nullif(coalesce($6, timeout), '0') END, altered_at = now()"
					" WHERE id = $1", &args);
}
