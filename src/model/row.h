/*
 * row.h
 *		The stored form of a row: a JSON array of column values, beside the
 *		number of a shape that names the columns.
 *
 * A value is written once, inside the owner's switch, by code that runs no
 * user-defined cast: numbers and booleans as such, json and jsonb as they are,
 * arrays and composites by element, dates and times as ISO 8601 (timestamptz
 * in UTC), everything else as a string of its text form. From then on no
 * user's code is needed to read it. No shared state, no locks.
 */
#ifndef RETL_ROW_H
#define RETL_ROW_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/json.h"

typedef struct RetlColumn
{
	char	   *name;			/* as the model calls it */
	char	   *name_json;		/* the same as a JSON string, quoted and escaped */
	char	   *type;			/* format_type with typmod, schema-qualified */
} RetlColumn;

typedef struct RetlShape
{
	int			shape;
	int			ncolumns;
	RetlColumn *columns;
} RetlShape;

/* Builds a shape from retl.shape.columns, in the current memory context. */
extern RetlShape *retl_shape_parse(int shape, const char *columns_json);

/* Column number of "name" in "shape", or -1. */
extern int	retl_shape_find(const RetlShape *shape, const char *name, int len);

/*
 * Splits a stored row into its values: slices[i] points into "row". Errors
 * with data_corrupted when the array has not ncolumns elements.
 */
extern void retl_row_split(const char *row, int len, int ncolumns, RetlSlice *slices);

/* Appends {"col": value, ...} of a split row. */
extern void retl_row_append_object(StringInfo out, const RetlShape *shape, const RetlSlice *slices);

/*
 * Writes values of one type as JSON. The state caches what the catalogs say of
 * the type; it lives in the memory context in which it was made.
 */
typedef struct RetlValueWriter RetlValueWriter;

extern RetlValueWriter *retl_value_writer(Oid type);
extern void retl_value_write(RetlValueWriter *writer, StringInfo out, Datum value, bool isnull);

/* Appends "text" (server encoding) as a JSON string. */
extern void retl_json_append_string(StringInfo out, const char *text, int len);

#endif							/* RETL_ROW_H */
