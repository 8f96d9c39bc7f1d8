/*
 * statement.c
 *		Prepared statements whose parameters are arrays; see statement.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "deliver/statement.h"

int64
retl_statement_run(RetlStatement *statement, RetlArgs *args)
{
	int			code;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->text, args->count, args->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", statement->text);
		statement->plan = plan;
	}
	args->nulls[args->count] = '\0';
	code = SPI_execute_plan(statement->plan, args->values, args->nulls, false, 0);
	if (code < 0)
		elog(ERROR, "SPI returned %s for: %s", SPI_result_code_string(code), statement->text);
	return (int64) SPI_processed;
}

/* Parameters that are arrays */

void
retl_arg_int8_array(RetlArgs *args, int count, const int64 *values)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		datums[i] = Int64GetDatum(values[i]);
	retl_arg_datum(args, INT8ARRAYOID,
				   PointerGetDatum(construct_array(datums, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
				   false);
}

void
retl_array_start(RetlArrayBuilder *array, int size)
{
	array->count = 0;
	array->values = palloc(sizeof(Datum) * Max(size, 1));
	array->nulls = palloc(sizeof(bool) * Max(size, 1));
}

void
retl_array_add(RetlArrayBuilder *array, Datum value, bool isnull)
{
	array->values[array->count] = value;
	array->nulls[array->count++] = isnull;
}

void
retl_array_add_text(RetlArrayBuilder *array, const char *text)
{
	retl_array_add(array, text != NULL ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

void
retl_arg_array(RetlArgs *args, RetlArrayBuilder *array, Oid array_type)
{
	static const struct
	{
		Oid			array;
		Oid			element;
		int			len;
		bool		byval;
		char		align;
	}			types[] = {
		{INT8ARRAYOID, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{INT4ARRAYOID, INT4OID, 4, true, TYPALIGN_INT},
		{BOOLARRAYOID, BOOLOID, 1, true, TYPALIGN_CHAR},
		{FLOAT8ARRAYOID, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TEXTARRAYOID, TEXTOID, -1, false, TYPALIGN_INT},
	};
	int			low = 1;

	for (int i = 0; i < lengthof(types); i++)
	{
		if (types[i].array == array_type)
		{
			retl_arg_datum(args, array_type,
						   PointerGetDatum(construct_md_array(array->values, array->nulls, 1, &array->count, &low,
															  types[i].element, types[i].len, types[i].byval,
															  types[i].align)),
						   false);
			return;
		}
	}
	elog(ERROR, "no array type %u", array_type);
}
