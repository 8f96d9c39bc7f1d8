/*
 * sql.h
 *		Our own SQL: parameters and results of SPI without the ceremony.
 *
 * The caller has connected SPI and runs as a role that may touch retl's
 * tables. Texts of statements name everything with its schema. No state.
 */
#ifndef RETL_SQL_H
#define RETL_SQL_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define RETL_MAX_ARGS 24

typedef struct RetlArgs
{
	int			count;
	Oid			types[RETL_MAX_ARGS];
	Datum		values[RETL_MAX_ARGS];
	char		nulls[RETL_MAX_ARGS + 1];
} RetlArgs;

/* Each appends one parameter: $1, $2, ... in the order of the calls. */
extern void retl_arg_int8(RetlArgs *args, int64 value);
extern void retl_arg_int4(RetlArgs *args, int32 value);
extern void retl_arg_bool(RetlArgs *args, bool value);
extern void retl_arg_float8(RetlArgs *args, double value);
extern void retl_arg_text(RetlArgs *args, const char *value);	/* NULL allowed */
extern void retl_arg_timestamptz(RetlArgs *args, TimestampTz value);
extern void retl_arg_datum(RetlArgs *args, Oid type, Datum value, bool isnull);
extern void retl_arg_null(RetlArgs *args, Oid type);

/*
 * Executes one statement and returns the number of rows processed; rows of the
 * result are in SPI_tuptable until the next call. retl_sql_read uses the active
 * snapshot and sees nothing newer.
 */
extern int64 retl_sql(const char *statement, RetlArgs *args);
extern int64 retl_sql_read(const char *statement, RetlArgs *args);

/* Values of the last result; column numbers start at 1. Errors on NULL but for _text and _isnull. */
extern int64 retl_result_int8(int64 row, int column);
extern int32 retl_result_int4(int64 row, int column);
extern Oid	retl_result_oid(int64 row, int column);
extern bool retl_result_bool(int64 row, int column);
extern double retl_result_float8(int64 row, int column);
extern char *retl_result_text(int64 row, int column);	/* output form; NULL for NULL */
extern bool retl_result_isnull(int64 row, int column);
extern Datum retl_result_datum(int64 row, int column, bool *isnull);

#endif							/* RETL_SQL_H */
