/*
 * value.c
 *		Values of the mapping language; see value.h.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "map/value.h"

const char *
retl_value_type_name(RetlValue value)
{
	switch (retl_is_undefined(value) ? -1 : (int) retl_value_type(value))
	{
		case RETL_JSON_NULL:
			return "null";
		case RETL_JSON_BOOL:
			return "boolean";
		case RETL_JSON_NUMBER:
			return "number";
		case RETL_JSON_STRING:
			return "string";
		case RETL_JSON_ARRAY:
			return "array";
		case RETL_JSON_OBJECT:
			return "object";
		default:
			return "undefined";
	}
}

bool
retl_value_is_null(RetlValue value)
{
	return !retl_is_undefined(value) && retl_value_type(value) == RETL_JSON_NULL;
}

/* Whether every digit before the exponent is 0. */
static bool
is_zero(const char *text, int len)
{
	for (int i = 0; i < len && text[i] != 'e' && text[i] != 'E'; i++)
	{
		if (text[i] >= '1' && text[i] <= '9')
			return false;
	}
	return true;
}

bool
retl_value_is_falsy(RetlValue value)
{
	if (retl_is_undefined(value))
		return true;
	switch (retl_value_type(value))
	{
		case RETL_JSON_NULL:
			return true;
		case RETL_JSON_BOOL:
			return value.tree ? !value.tree->boolean : value.slice.data[0] == 'f';
		case RETL_JSON_NUMBER:
			return value.tree ? is_zero(value.tree->text, value.tree->len)
				: is_zero(value.slice.data, value.slice.len);
		case RETL_JSON_STRING:
			return value.tree ? value.tree->len == 0 : value.slice.len <= 2;
		default:
			return false;
	}
}

RetlJson *
retl_value_as_tree(RetlValue value, char **error)
{
	RetlJson   *tree;
	char	   *problem;

	if (value.tree != NULL || value.slice.data == NULL)
		return value.tree;
	tree = retl_json_parse(value.slice.data, value.slice.len, &problem);
	if (tree == NULL && *error == NULL)
		*error = psprintf("value cannot be read as JSON: %s", problem);
	return tree;
}

const char *
retl_value_text(RetlValue value, int *len)
{
	if (value.tree == NULL)
		return retl_slice_text(value.slice, len);
	*len = value.tree->len;
	return value.tree->text;
}

static void
write_text(StringInfo out, const RetlJson *tree)
{
	if (tree == NULL)
		return;
	switch (tree->type)
	{
		case RETL_JSON_NULL:
			break;
		case RETL_JSON_BOOL:
			appendStringInfoString(out, tree->boolean ? "true" : "false");
			break;
		case RETL_JSON_NUMBER:
			retl_json_write_number(out, tree->text, tree->len);
			break;
		case RETL_JSON_STRING:
			appendBinaryStringInfo(out, tree->text, tree->len);
			break;
		case RETL_JSON_ARRAY:
			check_stack_depth();
			for (int i = 0; i < tree->len; i++)
			{
				if (i > 0)
					appendStringInfoChar(out, ',');
				write_text(out, tree->items[i]);
			}
			break;
		case RETL_JSON_OBJECT:
			appendStringInfoString(out, "[object Object]");
			break;
	}
}

void
retl_value_write_text(StringInfo out, RetlValue value, char **error)
{
	const char *text;
	int			len;

	if (retl_is_undefined(value))
		return;
	if (value.tree == NULL)
	{
		switch (retl_slice_type(value.slice))
		{
			case RETL_JSON_NULL:
				return;
			case RETL_JSON_BOOL:
				appendBinaryStringInfo(out, value.slice.data, value.slice.len);
				return;
			case RETL_JSON_NUMBER:
				retl_json_write_number(out, value.slice.data, value.slice.len);
				return;
			case RETL_JSON_STRING:
				text = retl_slice_text(value.slice, &len);
				appendBinaryStringInfo(out, text, len);
				return;
			case RETL_JSON_OBJECT:
				appendStringInfoString(out, "[object Object]");
				return;
			case RETL_JSON_ARRAY:
				break;
		}
	}
	write_text(out, retl_value_as_tree(value, error));
}

bool
retl_value_write_json(StringInfo out, RetlValue value)
{
	if (value.tree != NULL)
		retl_json_write(out, value.tree);
	else if (value.slice.data != NULL)
		appendBinaryStringInfo(out, value.slice.data, value.slice.len);
	else
		return false;
	return true;
}
