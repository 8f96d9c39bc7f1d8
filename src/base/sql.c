/*
 * sql.c
 *		Parameters and results of SPI; see sql.h.
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/sql.h"

void
retl_arg_datum(RetlArgs *args, Oid type, Datum value, bool isnull)
{
	Assert(args->count < RETL_MAX_ARGS);
	args->types[args->count] = type;
	args->values[args->count] = value;
	args->nulls[args->count] = isnull ? 'n' : ' ';
	args->count++;
}

void
retl_arg_int8(RetlArgs *args, int64 value)
{
	retl_arg_datum(args, INT8OID, Int64GetDatum(value), false);
}

void
retl_arg_int4(RetlArgs *args, int32 value)
{
	retl_arg_datum(args, INT4OID, Int32GetDatum(value), false);
}

void
retl_arg_bool(RetlArgs *args, bool value)
{
	retl_arg_datum(args, BOOLOID, BoolGetDatum(value), false);
}

void
retl_arg_float8(RetlArgs *args, double value)
{
	retl_arg_datum(args, FLOAT8OID, Float8GetDatum(value), false);
}

void
retl_arg_text(RetlArgs *args, const char *value)
{
	retl_arg_datum(args, TEXTOID,
				   value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

void
retl_arg_timestamptz(RetlArgs *args, TimestampTz value)
{
	retl_arg_datum(args, TIMESTAMPTZOID, TimestampTzGetDatum(value), false);
}

void
retl_arg_null(RetlArgs *args, Oid type)
{
	retl_arg_datum(args, type, (Datum) 0, true);
}

/*
 * Fetches values that are stored apart, which takes a snapshot: the result may
 * be read when there is none any more.
 */
static void
fetch_values(SPITupleTable *result)
{
	MemoryContext old = MemoryContextSwitchTo(result->tuptabcxt);

	for (uint64 i = 0; i < result->numvals; i++)
		if (HeapTupleHasExternal(result->vals[i]))
			result->vals[i] = toast_flatten_tuple(result->vals[i], result->tupdesc);
	MemoryContextSwitchTo(old);
}

static int64
execute(const char *statement, RetlArgs *args, bool read_only)
{
	bool		push = !ActiveSnapshotSet();
	int			code;

	/* a worker has no portal that would hold one */
	if (push)
		PushActiveSnapshot(GetTransactionSnapshot());
	if (args != NULL)
		code = SPI_execute_with_args(statement, args->count, args->types,
									 args->values, args->nulls, read_only, 0);
	else
		code = SPI_execute(statement, read_only, 0);
	if (code >= 0 && SPI_tuptable != NULL)
		fetch_values(SPI_tuptable);
	if (push)
		PopActiveSnapshot();
	if (code < 0)
		elog(ERROR, "SPI returned %s for: %s", SPI_result_code_string(code), statement);
	return (int64) SPI_processed;
}

int64
retl_sql(const char *statement, RetlArgs *args)
{
	return execute(statement, args, false);
}

int64
retl_sql_read(const char *statement, RetlArgs *args)
{
	return execute(statement, args, true);
}

/* What was found a statement ago may be gone: another transaction has dropped it. */
static void
require_row(int64 row)
{
	if (SPI_tuptable != NULL && row < (int64) SPI_tuptable->numvals)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("what retl works on was dropped by another transaction in the meantime"),
			 errdetail_internal("There is no row " INT64_FORMAT " in the result.", row)));
}

Datum
retl_result_datum(int64 row, int column, bool *isnull)
{
	require_row(row);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

static Datum
not_null(int64 row, int column)
{
	bool		isnull;
	Datum		value = retl_result_datum(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d of the result", column);
	return value;
}

int64
retl_result_int8(int64 row, int column)
{
	return DatumGetInt64(not_null(row, column));
}

int32
retl_result_int4(int64 row, int column)
{
	return DatumGetInt32(not_null(row, column));
}

Oid
retl_result_oid(int64 row, int column)
{
	return DatumGetObjectId(not_null(row, column));
}

bool
retl_result_bool(int64 row, int column)
{
	return DatumGetBool(not_null(row, column));
}

double
retl_result_float8(int64 row, int column)
{
	return DatumGetFloat8(not_null(row, column));
}

char *
retl_result_text(int64 row, int column)
{
	require_row(row);
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

bool
retl_result_isnull(int64 row, int column)
{
	bool		isnull;

	(void) retl_result_datum(row, column, &isnull);
	return isnull;
}
