/*
 * statement.h
 *		Prepared statements whose parameters are arrays: a group of outcomes is a
 *		handful of statements whatever its size.
 *
 * A statement is prepared when it first runs and kept for the life of the process. Everything
 * expects SPI to be connected. No locks.
 */
#ifndef RETL_STATEMENT_H
#define RETL_STATEMENT_H

#include "postgres.h"

#include "executor/spi.h"

#include "base/sql.h"

typedef struct RetlStatement
{
	const char *text;
	SPIPlanPtr	plan;
} RetlStatement;

/* Returns the number of rows. */
extern int64 retl_statement_run(RetlStatement *statement, RetlArgs *args);

typedef struct RetlArrayBuilder
{
	int			count;
	Datum	   *values;
	bool	   *nulls;
} RetlArrayBuilder;

/* "size" is the most that will be added. */
extern void retl_array_start(RetlArrayBuilder *array, int size);
extern void retl_array_add(RetlArrayBuilder *array, Datum value, bool isnull);
extern void retl_array_add_text(RetlArrayBuilder *array, const char *text);	/* NULL allowed */

/* Parameters. */
extern void retl_arg_array(RetlArgs *args, RetlArrayBuilder *array, Oid array_type);
extern void retl_arg_int8_array(RetlArgs *args, int count, const int64 *values);

#endif							/* RETL_STATEMENT_H */
