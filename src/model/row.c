/*
 * row.c
 *		Shapes, stored rows, and the SQL functions that make them; see row.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/json.h"
#include "model/row.h"
#include "model/type.h"

PG_FUNCTION_INFO_V1(retl_row_data);
PG_FUNCTION_INFO_V1(retl_row_data_record);
PG_FUNCTION_INFO_V1(retl_row_object);
PG_FUNCTION_INFO_V1(retl_key_data);

/* First room for a row; later ones get what the last one took. */
#define ROW_ROOM 256

/* ---- shapes ---- */

static char *
string_member(const RetlJson *column, const char *name)
{
	const RetlJson *value = retl_json_member(column, name);

	if (value == NULL || value->type != RETL_JSON_STRING)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a column of a shape has no \"%s\"", name)));
	return retl_json_cstring(value);
}

RetlShape *
retl_shape_parse(int number, const char *columns_json)
{
	RetlShape  *shape = palloc0(sizeof(RetlShape));
	char	   *error = NULL;
	RetlJson   *columns = retl_json_parse(columns_json, strlen(columns_json), &error);

	if (columns == NULL || columns->type != RETL_JSON_ARRAY)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a shape is not a JSON array of columns"),
				 error ? errdetail("%s.", error) : 0));
	shape->shape = number;
	shape->ncolumns = columns->len;
	shape->columns = palloc0(Max(1, columns->len) * sizeof(RetlColumn));
	for (int i = 0; i < columns->len; i++)
	{
		RetlColumn *column = &shape->columns[i];
		StringInfoData name_json;

		column->name = string_member(columns->items[i], "name");
		column->type = string_member(columns->items[i], "type");
		initStringInfo(&name_json);
		retl_json_append_string(&name_json, column->name, strlen(column->name));
		column->name_json = name_json.data;
	}
	return shape;
}

int
retl_shape_find(const RetlShape *shape, const char *name, int len)
{
	for (int i = 0; i < shape->ncolumns; i++)
		if (strncmp(shape->columns[i].name, name, len) == 0 && shape->columns[i].name[len] == '\0')
			return i;
	return -1;
}

/* ---- stored rows ---- */

void
retl_row_split(const char *row, int len, int ncolumns, RetlSlice *slices)
{
	RetlSlice	array = retl_slice(row, len);
	RetlSliceIterator walk;
	RetlSlice	key;
	RetlSlice	value;
	int			n = 0;

	if (array.len == 0 || array.data[0] != '[')
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a stored row is not a JSON array")));
	retl_slice_walk(&walk, array);
	while (retl_slice_next(&walk, &key, &value))
	{
		if (n < ncolumns)
			slices[n] = value;
		n++;
	}
	if (n != ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a stored row has %d values, and its shape %d columns", n, ncolumns)));
}

void
retl_row_append_object(StringInfo out, const RetlShape *shape, const RetlSlice *slices)
{
	appendStringInfoChar(out, '{');
	for (int i = 0; i < shape->ncolumns; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		appendStringInfoString(out, shape->columns[i].name_json);
		appendStringInfoChar(out, ':');
		appendBinaryStringInfo(out, slices[i].data, slices[i].len);
	}
	appendStringInfoChar(out, '}');
}

/* ---- SQL functions ---- */

/* A text datum is written in place: the header first, its length at the end. */
static void
begin_text(StringInfo out, int room)
{
	out->maxlen = Max(room, ROW_ROOM);
	out->data = palloc(out->maxlen);
	out->cursor = 0;
	memset(out->data, 0, VARHDRSZ);
	out->len = VARHDRSZ;
}

static Datum
end_text(StringInfo out)
{
	SET_VARSIZE(out->data, out->len);
	return PointerGetDatum(out->data);
}

Datum
retl_row_data(PG_FUNCTION_ARGS)
{
	RetlArguments *arguments = retl_type_arguments(fcinfo, 0);
	StringInfoData out;

	if (arguments->count < 0)
		PG_RETURN_NULL();
	begin_text(&out, 0);
	appendStringInfoChar(&out, '[');
	for (int i = 0; i < arguments->count; i++)
	{
		if (i > 0)
			appendStringInfoChar(&out, ',');
		retl_type_write(arguments->types[i], &out, arguments->values[i].value,
						arguments->values[i].isnull);
	}
	appendStringInfoChar(&out, ']');
	PG_RETURN_DATUM(end_text(&out));
}

Datum
retl_row_data_record(PG_FUNCTION_ARGS)
{
	RetlType   *row = retl_type_record_argument(fcinfo);
	StringInfoData out;
	bool		first = true;

	begin_text(&out, 0);
	appendStringInfoChar(&out, '[');
	for (int i = 0; i < row->tupdesc->natts; i++)
	{
		if (row->attributes[i] == NULL)
			continue;
		if (!first)
			appendStringInfoChar(&out, ',');
		first = false;
		retl_type_write(row->attributes[i], &out, row->values[i], row->nulls[i]);
	}
	appendStringInfoChar(&out, ']');
	PG_RETURN_DATUM(end_text(&out));
}

/* The shape of the last call, with the text it was made from. */
typedef struct ObjectCache
{
	MemoryContext context;
	char	   *columns;
	RetlShape  *shape;
	RetlSlice  *slices;
} ObjectCache;

static ObjectCache *
object_cache(FunctionCallInfo fcinfo, const text *columns)
{
	ObjectCache *cache = fcinfo->flinfo->fn_extra;
	const char *data = VARDATA_ANY(columns);
	int			len = VARSIZE_ANY_EXHDR(columns);
	MemoryContext caller;

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(ObjectCache));
		cache->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "retl row shape",
											   ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = cache;
	}
	else if (cache->columns != NULL && strlen(cache->columns) == len &&
			 memcmp(cache->columns, data, len) == 0)
		return cache;

	cache->columns = NULL;
	MemoryContextReset(cache->context);
	caller = MemoryContextSwitchTo(cache->context);
	cache->shape = retl_shape_parse(0, text_to_cstring(columns));
	cache->slices = palloc(Max(1, cache->shape->ncolumns) * sizeof(RetlSlice));
	cache->columns = pnstrdup(data, len);
	MemoryContextSwitchTo(caller);
	return cache;
}

Datum
retl_row_object(PG_FUNCTION_ARGS)
{
	text	   *data = PG_GETARG_TEXT_PP(0);
	ObjectCache *cache = object_cache(fcinfo, PG_GETARG_TEXT_PP(1));
	StringInfoData out;

	retl_row_split(VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), cache->shape->ncolumns,
				   cache->slices);
	begin_text(&out, VARSIZE_ANY(data) * 2);
	retl_row_append_object(&out, cache->shape, cache->slices);
	PG_RETURN_DATUM(end_text(&out));
}

/* Names of the key's columns as JSON strings, kept where the argument cannot change. */
static char **
key_names(FunctionCallInfo fcinfo, RetlArguments *arguments)
{
	bool		keep = get_fn_expr_arg_stable(fcinfo->flinfo, 0);
	MemoryContext caller;
	Datum	   *names;
	bool	   *nulls;
	int			count;
	char	  **result;

	if (arguments->extra != NULL)
		return arguments->extra;
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("names of key columns must not be NULL")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, &nulls, &count);
	if (count != arguments->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a key of %d columns has %d names", arguments->count, count)));

	caller = MemoryContextSwitchTo(keep ? fcinfo->flinfo->fn_mcxt : CurrentMemoryContext);
	result = palloc(count * sizeof(char *));
	for (int i = 0; i < count; i++)
	{
		StringInfoData name;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("names of key columns must not be NULL")));
		initStringInfo(&name);
		retl_json_append_string(&name, VARDATA_ANY(DatumGetPointer(names[i])),
								VARSIZE_ANY_EXHDR(DatumGetPointer(names[i])));
		result[i] = name.data;
	}
	MemoryContextSwitchTo(caller);
	if (keep)
		arguments->extra = result;
	return result;
}

Datum
retl_key_data(PG_FUNCTION_ARGS)
{
	RetlArguments *arguments = retl_type_arguments(fcinfo, 1);
	char	  **names;
	StringInfoData out;

	if (arguments->count < 0)
		PG_RETURN_NULL();
	names = key_names(fcinfo, arguments);
	begin_text(&out, 0);
	for (int i = 0; i < arguments->count; i++)
	{
		if (arguments->count > 1)
		{
			appendStringInfoString(&out, i > 0 ? ", " : "{");
			appendStringInfoString(&out, names[i]);
			appendStringInfoString(&out, ": ");
		}
		retl_type_write(arguments->types[i], &out, arguments->values[i].value,
						arguments->values[i].isnull);
	}
	if (arguments->count > 1)
		appendStringInfoChar(&out, '}');
	PG_RETURN_DATUM(end_text(&out));
}
