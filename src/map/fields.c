/*
 * fields.c
 *		Typed fields of an action; see fields.h.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"

#include "map/fields.h"
#include "map/format.h"

/* Where a value is, and what was found wrong so far. */
typedef struct Check
{
	const char *label;			/* of the field at the top */
	StringInfoData place;		/* "/field/0/member" */
	int			depth;
	List	  **errors;
} Check;

/* ---- declarations ---- */

static bool
is_true(const RetlJson *declaration, const char *name)
{
	RetlJson   *value = retl_json_member(declaration, name);

	return value != NULL && value->type == RETL_JSON_BOOL && value->boolean;
}

static const RetlJson *
number_member(const RetlJson *declaration, const char *name, const char *place)
{
	return retl_connector_member(declaration, name, RETL_JSON_NUMBER, false, place);
}

void
retl_field_compile(RetlFieldType *field, const char *name, int namelen, const RetlJson *declaration)
{
	RetlJson   *required = retl_json_member(declaration, "required");
	RetlJson   *properties;
	RetlJson   *text;
	char	   *place;

	check_stack_depth();
	memset(field, 0, sizeof(RetlFieldType));
	field->name = pnstrdup(name, namelen);
	field->namelen = namelen;
	place = psprintf("field \"%s\"", field->name);
	field->type = retl_connector_type(declaration, place);
	text = retl_connector_member(declaration, "label", RETL_JSON_STRING, false, place);
	field->label = text != NULL ? retl_json_cstring(text) : field->name;
	field->multiple = is_true(declaration, "multiple");
	field->allow_null = is_true(declaration, "allowNull");
	field->required = is_true(declaration, "required");
	if (required != NULL && required->type == RETL_JSON_OBJECT)
		field->condition = required;
	field->choices = retl_connector_member(declaration, "choices", RETL_JSON_ARRAY, false, place);
	if (field->type == RETL_TYPE_STRING || field->type == RETL_TYPE_NUMBER)
	{
		field->minimum = number_member(declaration, "minimum", place);
		field->maximum = number_member(declaration, "maximum", place);
	}
	text = retl_connector_member(declaration, "as", RETL_JSON_STRING, false, place);
	if (text != NULL && (!retl_time_form(text, &field->time) ||
						 (field->type != RETL_TYPE_DATETIME && field->type != RETL_TYPE_OBJECT)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition of the connector is not valid"),
				 errdetail("Member \"as\" of %s must be unix, unix_ms, unix_us, iso or date, of a datetime or an object.", place)));
	text = retl_connector_member(declaration, "format", RETL_JSON_STRING, false, place);
	if (text != NULL)
		field->format = retl_json_cstring(text);
	else if (field->type == RETL_TYPE_DATETIME && field->time == RETL_TIME_AS_IT_IS)
		field->format = "date-like";
	field->rename = retl_connector_member(declaration, "rename", RETL_JSON_OBJECT, false, place);
	field->additional = is_true(declaration, "additionalProperties");
	properties = retl_connector_member(declaration, "properties", RETL_JSON_OBJECT, false, place);
	field->nproperties = -1;
	if (properties != NULL)
	{
		field->nproperties = properties->len;
		field->properties = palloc(Max(properties->len, 1) * sizeof(RetlFieldType));
		for (int i = 0; i < properties->len; i++)
			retl_field_compile(&field->properties[i], properties->members[i].key,
							   properties->members[i].keylen, properties->members[i].value);
	}
	field->plain = !field->multiple && field->choices == NULL && field->minimum == NULL &&
		field->maximum == NULL && field->properties == NULL &&
		field->time == RETL_TIME_AS_IT_IS && field->rename == NULL &&
		(field->format == NULL || strcmp(field->format, "url") == 0);
}

bool
retl_field_fits(const RetlFieldType *field, RetlSlice value)
{
	char		first = value.len > 0 ? value.data[0] : 'n';

	if (field->type == RETL_TYPE_ANY)
		return first != 'n' || !field->required;
	if (!field->plain)
		return false;
	switch (field->type)
	{
		case RETL_TYPE_STRING:
			return first == '"' && value.len > 2;
		case RETL_TYPE_NUMBER:
			return first == '-' || (first >= '0' && first <= '9');
		case RETL_TYPE_INTEGER:
			for (int i = first == '-'; i < value.len; i++)
			{
				if (value.data[i] < '0' || value.data[i] > '9')
					return false;
			}
			return true;
		case RETL_TYPE_BOOLEAN:
			return first == 't' || first == 'f';
		case RETL_TYPE_OBJECT:
			return first == '{';
		default:
			return false;
	}
}

/* ---- what is wrong ---- */

static void complain(Check *check, const char *format,...) pg_attribute_printf(2, 3);

static void
complain(Check *check, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	initStringInfo(&message);
	if (check->depth == 0)
		appendStringInfo(&message, "%s ", check->label);
	else
		appendStringInfo(&message, "The value at %s ", check->place.data);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	appendStringInfoChar(&message, '.');
	*check->errors = lappend(*check->errors, message.data);
}

static const char *
type_title(RetlType type)
{
	switch (type)
	{
		case RETL_TYPE_STRING:
			return "a string";
		case RETL_TYPE_INTEGER:
			return "an integer";
		case RETL_TYPE_NUMBER:
			return "a number";
		case RETL_TYPE_BOOLEAN:
			return "a boolean";
		case RETL_TYPE_DATETIME:
			return "a string or number";
		case RETL_TYPE_OBJECT:
			return "an object";
		default:
			return "a value";
	}
}

static void
wrong_type(Check *check, const RetlFieldType *field, const RetlJson *value)
{
	const char *is = retl_json_type_name(value);

	complain(check, "must be %s but it was %s %s", type_title(field->type),
			 strchr("aeiou", is[0]) != NULL ? "an" : "a", is);
}

/* ---- coercion of scalars ---- */

static RetlJson *
text_of(const RetlJson *value)
{
	StringInfoData text;
	char	   *ignored = NULL;

	initStringInfo(&text);
	retl_value_write_text(&text, retl_value_tree(unconstify(RetlJson *, value)), &ignored);
	return retl_json_string(text.data, text.len);
}

/*
 * The number that a text is for JavaScript's Number(): white space around it,
 * no digit before or after the point, a plus sign and leading zeros are fine.
 */
static RetlJson *
number_of_text(const RetlJson *value)
{
	int			len;
	const char *text = retl_text_trim(value->text, value->len, &len);
	StringInfoData number;
	StringInfoData json;
	char	   *error = NULL;
	int			i = 0;

	if (value->len == 0)
		return NULL;
	if (len == 0)
		return retl_json_number("0", 1);
	initStringInfo(&number);
	if (text[i] == '-' || text[i] == '+')
	{
		if (text[i++] == '-')
			appendStringInfoChar(&number, '-');
	}
	while (i + 1 < len && text[i] == '0' && text[i + 1] >= '0' && text[i + 1] <= '9')
		i++;
	if (i + 1 < len && text[i] == '.' && text[i + 1] >= '0' && text[i + 1] <= '9')
		appendStringInfoChar(&number, '0');
	for (; i < len; i++)
	{
		bool		bare_point = text[i] == '.' && number.len > 0 &&
			(i + 1 == len || text[i + 1] == 'e' || text[i + 1] == 'E');

		if (!bare_point)
			appendStringInfoChar(&number, text[i]);
	}
	value = retl_json_parse(number.data, number.len, &error);
	if (value == NULL || value->type != RETL_JSON_NUMBER ||
		isinf(retl_json_double(value->text, value->len)))
		return NULL;
	initStringInfo(&json);
	retl_json_write_number(&json, value->text, value->len);
	return retl_json_number(json.data, json.len);
}

static bool
is_whole(const RetlJson *number)
{
	double		value = retl_json_double(number->text, number->len);

	return value == floor(value);
}

/* The value in the field's type; NULL when it cannot be. */
static RetlJson *
coerce_scalar(const RetlFieldType *field, RetlJson *value)
{
	RetlJson   *number = value;

	switch (field->type)
	{
		case RETL_TYPE_STRING:
			if (value->type == RETL_JSON_NUMBER || value->type == RETL_JSON_BOOL)
				return text_of(value);
			return value->type == RETL_JSON_STRING ? value : NULL;
		case RETL_TYPE_DATETIME:
			if (value->type == RETL_JSON_BOOL)
				return text_of(value);
			return value->type == RETL_JSON_STRING || value->type == RETL_JSON_NUMBER ? value : NULL;
		case RETL_TYPE_NUMBER:
		case RETL_TYPE_INTEGER:
			if (value->type == RETL_JSON_BOOL)
				return retl_json_number(value->boolean ? "1" : "0", 1);
			if (value->type == RETL_JSON_STRING)
				number = number_of_text(value);
			if (number == NULL || number->type != RETL_JSON_NUMBER ||
				(field->type == RETL_TYPE_INTEGER && !is_whole(number)))
				return NULL;
			return number;
		case RETL_TYPE_BOOLEAN:
			if (value->type == RETL_JSON_BOOL)
				return value;
			if (value->type == RETL_JSON_STRING && retl_json_is_string(value, "true"))
				return retl_json_bool(true);
			if (value->type == RETL_JSON_STRING && retl_json_is_string(value, "false"))
				return retl_json_bool(false);
			if (value->type == RETL_JSON_NUMBER)
			{
				double		is = retl_json_double(value->text, value->len);

				return is == 0 || is == 1 ? retl_json_bool(is == 1) : NULL;
			}
			return NULL;
		default:
			return value;
	}
}

/* ---- limits ---- */

static const RetlJson *
choice_value(const RetlJson *choice)
{
	RetlJson   *value = retl_json_member(choice, "value");

	return value != NULL ? value : choice;
}

static bool
same_json(const RetlJson *a, const RetlJson *b)
{
	StringInfoData left,
				right;

	initStringInfo(&left);
	initStringInfo(&right);
	retl_json_stringify(&left, a);
	retl_json_stringify(&right, b);
	return strcmp(left.data, right.data) == 0;
}

static void
check_choices(Check *check, const RetlFieldType *field, const RetlJson *value)
{
	StringInfoData list;

	for (int i = 0; i < field->choices->len; i++)
	{
		if (same_json(choice_value(field->choices->items[i]), value))
			return;
	}
	initStringInfo(&list);
	for (int i = 0; i < field->choices->len; i++)
	{
		appendStringInfoString(&list, i == 0 ? "" : i == field->choices->len - 1 ? " or " : ", ");
		retl_json_stringify(&list, choice_value(field->choices->items[i]));
	}
	complain(check, "must be one of: %s", list.data);
}

static void
check_length(Check *check, const RetlFieldType *field, const RetlJson *value)
{
	int			length = retl_text_length(value->text, value->len);
	const char *noun = length == 1 ? "character" : "characters";

	if (field->minimum != NULL && length < retl_json_double(field->minimum->text, field->minimum->len))
		complain(check, "must be %.*s characters or more but it was %d %s",
				 field->minimum->len, field->minimum->text, length, noun);
	if (field->maximum != NULL && length > retl_json_double(field->maximum->text, field->maximum->len))
		complain(check, "must be %.*s characters or fewer but it was %d %s",
				 field->maximum->len, field->maximum->text, length, noun);
}

static void
check_range(Check *check, const RetlFieldType *field, const RetlJson *value)
{
	double		is = retl_json_double(value->text, value->len);

	if (field->minimum != NULL && is < retl_json_double(field->minimum->text, field->minimum->len))
		complain(check, "must be equal to or greater than %.*s",
				 field->minimum->len, field->minimum->text);
	if (field->maximum != NULL && is > retl_json_double(field->maximum->text, field->maximum->len))
		complain(check, "must be equal to or less than %.*s",
				 field->maximum->len, field->maximum->text);
}

static void
check_scalar(Check *check, const RetlFieldType *field, const RetlJson *value)
{
	const char *title;

	if (field->format != NULL && value->type == RETL_JSON_STRING &&
		!retl_format_matches(field->format, value->text, value->len, &title))
		complain(check, "must be a valid %s string but it was not", title);
	if (value->type == RETL_JSON_STRING)
		check_length(check, field, value);
	else if (value->type == RETL_JSON_NUMBER)
		check_range(check, field, value);
	if (field->choices != NULL)
		check_choices(check, field, value);
}

/* ---- values ---- */

static RetlJson *coerce(Check *check, const RetlFieldType *field, RetlJson *value);

static int
enter(Check *check, const char *name, int len)
{
	int			mark = check->place.len;

	appendStringInfoChar(&check->place, '/');
	appendBinaryStringInfo(&check->place, name, len);
	check->depth++;
	return mark;
}

static void
leave(Check *check, int mark)
{
	check->place.len = mark;
	check->place.data[mark] = '\0';
	check->depth--;
}

/* null, and what is empty where emptiness is no value of the type */
static bool
is_absent(const RetlFieldType *field, const RetlJson *value)
{
	if (value == NULL)
		return true;
	if (value->type == RETL_JSON_NULL)
		return !field->allow_null;
	return value->type == RETL_JSON_STRING && value->len == 0 &&
		field->type != RETL_TYPE_STRING && field->type != RETL_TYPE_ANY;
}

static RetlJson *
coerce_object(Check *check, const RetlFieldType *field, RetlJson *value)
{
	RetlJson   *result;

	if (field->nproperties < 0)
		return value;
	result = retl_json_object();
	for (int i = 0; i < value->len; i++)
	{
		const RetlJsonMember *member = &value->members[i];
		const RetlFieldType *declared = NULL;

		for (int j = 0; j < field->nproperties && declared == NULL; j++)
		{
			if (field->properties[j].namelen == member->keylen &&
				memcmp(field->properties[j].name, member->key, member->keylen) == 0)
				declared = &field->properties[j];
		}
		if (declared != NULL)
		{
			int			mark = enter(check, member->key, member->keylen);
			RetlJson   *coerced = coerce(check, declared, member->value);

			leave(check, mark);
			if (coerced != NULL)
				retl_json_set(result, member->key, member->keylen, coerced);
		}
		else if (field->additional)
			retl_json_set(result, member->key, member->keylen, member->value);
	}
	for (int i = 0; i < field->nproperties; i++)
	{
		if (field->properties[i].required &&
			retl_json_get(result, field->properties[i].name, field->properties[i].namelen) == NULL)
			complain(check, "is missing the required field '%s'", field->properties[i].name);
	}
	return result;
}

/* One value, not the array of a field of several. */
static RetlJson *
coerce_one(Check *check, const RetlFieldType *field, RetlJson *value)
{
	RetlJson   *coerced;

	if (field->type == RETL_TYPE_ANY || (value->type == RETL_JSON_NULL && field->allow_null))
		return value;
	if (field->type == RETL_TYPE_OBJECT)
	{
		if (value->type == RETL_JSON_OBJECT)
		{
			value = coerce_object(check, field, value);
			if (field->time != RETL_TIME_AS_IT_IS)
				value = retl_convert_times(value, field->time);
			return field->rename != NULL ? retl_convert_names(value, field->rename) : value;
		}
		wrong_type(check, field, value);
		return NULL;
	}
	if (value->type == RETL_JSON_ARRAY && value->len == 1 && value->items[0] != NULL)
	{
		value = value->items[0];
		if (field->type == RETL_TYPE_DATETIME)
		{
			wrong_type(check, field, value);
			check_scalar(check, field, value);
			return NULL;
		}
	}
	coerced = coerce_scalar(field, value);
	if (coerced == NULL)
		wrong_type(check, field, value);
	else
		check_scalar(check, field, coerced);
	if (coerced != NULL && field->type == RETL_TYPE_DATETIME && field->time != RETL_TIME_AS_IT_IS)
	{
		coerced = retl_convert_time(coerced, field->time);
		if (coerced == NULL)
			complain(check, "must be a date, a date and time, or a Unix time but it was not");
	}
	return coerced;
}

static RetlJson *
coerce(Check *check, const RetlFieldType *field, RetlJson *value)
{
	RetlJson   *array;

	check_stack_depth();
	if (is_absent(field, value))
		return NULL;
	if (!field->multiple || value->type == RETL_JSON_NULL)
		return coerce_one(check, field, value);

	if (value->type != RETL_JSON_ARRAY)
	{
		array = retl_json_array();
		retl_json_push(array, value);
		value = array;
	}
	array = retl_json_array();
	for (int i = 0; i < value->len; i++)
	{
		char	   *index = psprintf("%d", i);
		int			mark;

		if (is_absent(field, value->items[i]))
			continue;
		mark = enter(check, index, strlen(index));
		retl_json_push(array, coerce_one(check, field, value->items[i]));
		leave(check, mark);
	}
	return array;
}

RetlJson *
retl_field_coerce(const RetlFieldType *field, RetlJson *value, List **errors)
{
	Check		check = {.label = field->label, .errors = errors};

	/* at the top an empty string is no value, whatever the type */
	if (value != NULL && value->type == RETL_JSON_STRING && value->len == 0 &&
		field->type != RETL_TYPE_ANY)
		return NULL;
	initStringInfo(&check.place);
	appendStringInfo(&check.place, "/%s", field->name);
	return coerce(&check, field, value);
}

/* ---- required fields ---- */

static bool
condition_holds(const RetlJson *condition, RetlSlice (*get) (void *arg, const char *name, int len), void *arg)
{
	RetlJson   *key = retl_json_member(condition, "fieldKey");
	RetlJson   *expected = retl_json_member(condition, "value");
	bool		is_not = retl_json_is_string(retl_json_member(condition, "operator"), "is_not");
	const char *dot;
	RetlSlice	value;
	bool		equal;
	char	   *error;

	if (key == NULL || key->type != RETL_JSON_STRING)
		return false;
	dot = memchr(key->text, '.', key->len);
	value = get(arg, key->text, dot != NULL ? dot - key->text : key->len);
	if (dot != NULL && value.data != NULL)
		value = retl_slice_member(value, dot + 1, key->text + key->len - dot - 1);
	if (expected == NULL)
		return is_not == (value.data != NULL);
	if (value.data == NULL)
		return false;
	equal = same_json(retl_json_parse(value.data, value.len, &error), expected);
	return equal != is_not;
}

static bool
is_required_now(const RetlFieldType *field, RetlSlice (*get) (void *arg, const char *name, int len), void *arg)
{
	RetlJson   *conditions = retl_json_member(field->condition, "conditions");
	bool		any = retl_json_is_string(retl_json_member(field->condition, "match"), "any");

	if (conditions == NULL || conditions->type != RETL_JSON_ARRAY || conditions->len == 0)
		return false;
	for (int i = 0; i < conditions->len; i++)
	{
		if (condition_holds(conditions->items[i], get, arg) == any)
			return any;
	}
	return !any;
}

void
retl_fields_require(const RetlFieldType *const *fields, int nfields,
					RetlSlice (*get) (void *arg, const char *name, int len), void *arg, List **errors)
{
	for (int i = 0; i < nfields; i++)
	{
		const RetlFieldType *field = fields[i];

		if (!field->required && field->condition == NULL)
			continue;
		if (get(arg, field->name, field->namelen).data != NULL)
			continue;
		if (field->required || is_required_now(field, get, arg))
			*errors = lappend(*errors, psprintf("The root value is missing the required field '%s'.",
												field->name));
	}
}
