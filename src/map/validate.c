/*
 * validate.c
 *		The form of a mapping: which directives there are and what each takes.
 *
 * Messages name the place and are those that users of the language know from
 * its origin. Arrays are not looked into, as there: an invalid directive in one
 * is met when the mapping is compiled.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "map/eval.h"

/* Limits of the language, in UTF-16 units. */
#define MAX_LITERAL 10
#define MAX_LIQUID 1000

#define ROOT_DIRECTIVE "__segment_internal_directive"

typedef struct Checker
{
	List	   *messages;
	StringInfoData place;
} Checker;

static void check_any(Checker *checker, const RetlJson *value);

/* ---- places and messages ---- */

static int
enter(Checker *checker, const char *name, int len)
{
	int			mark = checker->place.len;

	appendStringInfoChar(&checker->place, '/');
	appendBinaryStringInfo(&checker->place, name, len);
	return mark;
}

static void
leave(Checker *checker, int mark)
{
	checker->place.len = mark;
	checker->place.data[mark] = '\0';
}

static void complain(Checker *checker, const char *format,...) pg_attribute_printf(2, 3);

static void
complain(Checker *checker, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	initStringInfo(&message);
	appendStringInfo(&message, "%s ", checker->place.len ? checker->place.data : "/");
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
	checker->messages = lappend(checker->messages, message.data);
}

static const RetlJsonMember *
directive_key(const RetlJson *value)
{
	for (int i = 0; i < value->len; i++)
	{
		if (value->members[i].keylen > 0 && value->members[i].key[0] == '@')
			return &value->members[i];
	}
	return NULL;
}

static bool
is_directive(const RetlJson *value)
{
	return value != NULL && value->type == RETL_JSON_OBJECT && directive_key(value) != NULL;
}

static const char *
kind(const RetlJson *value)
{
	return is_directive(value) ? "directive" : retl_json_type_name(value);
}

static const char *
article(const char *noun)
{
	return strchr("aeiou", noun[0]) != NULL ? "an" : "a";
}

static void
expected(Checker *checker, const char *what, const RetlJson *value)
{
	complain(checker, "should be %s but it is %s %s", what, article(kind(value)), kind(value));
}

/* ---- what a directive may be given ---- */

static void check_directive(Checker *checker, const RetlJson *value);

static void
check_raw(Checker *checker, const RetlJson *value)
{
	if (is_directive(value))
		check_directive(checker, value);
}

static void
check_string(Checker *checker, const RetlJson *value)
{
	if (value->type != RETL_JSON_STRING)
		expected(checker, "a string", value);
}

static void
check_boolean(Checker *checker, const RetlJson *value)
{
	if (value->type != RETL_JSON_BOOL)
		expected(checker, "a boolean", value);
}

static void
check_directive_or_string(Checker *checker, const RetlJson *value)
{
	if (is_directive(value))
		check_directive(checker, value);
	else if (value == NULL || value->type != RETL_JSON_STRING)
		expected(checker, "a string or a mapping directive", value);
}

static void
check_directive_or_object(Checker *checker, const RetlJson *value)
{
	if (is_directive(value))
		check_directive(checker, value);
	else if (value->type != RETL_JSON_OBJECT)
		expected(checker, "a object or a mapping directive", value);
}

static void
check_array(Checker *checker, const RetlJson *value)
{
	if (value->type != RETL_JSON_ARRAY)
		expected(checker, "an array", value);
}

static void
check_length(Checker *checker, const RetlJson *value, int minimum, int maximum)
{
	int			length;

	check_string(checker, value);
	if (value->type != RETL_JSON_STRING)
		return;
	length = retl_text_length(value->text, value->len);
	if (length < minimum)
		complain(checker, "should be a string of length %d or greater", minimum);
	else if (length > maximum)
		complain(checker, "should be a string of length %d or less", maximum);
}

static void
check_pattern(Checker *checker, const RetlJson *value)
{
	check_length(checker, value, 1, MAX_LITERAL);
}

static void
check_replacement(Checker *checker, const RetlJson *value)
{
	check_length(checker, value, 0, MAX_LITERAL);
}

static void
check_one_of(Checker *checker, const RetlJson *value, const char *one, const char *other)
{
	check_string(checker, value);
	if (value->type == RETL_JSON_STRING)
	{
		char	   *text = retl_json_cstring(value);

		if (pg_strcasecmp(text, one) != 0 && pg_strcasecmp(text, other) != 0)
			complain(checker, "should be one of %s, %s but it is \"%s\"", one, other, text);
	}
}

static void
check_mode(Checker *checker, const RetlJson *value)
{
	check_one_of(checker, value, "encode", "decode");
}

static void
check_direction(Checker *checker, const RetlJson *value)
{
	check_one_of(checker, value, "left", "right");
}

/* ---- the directives ---- */

typedef struct Operand
{
	const char *name;
	bool		required;
	void		(*check) (Checker *checker, const RetlJson *value);
} Operand;

typedef struct Directive
{
	const char *name;
	void		(*check) (Checker *checker, const RetlJson *value);
	Operand		operands[6];	/* if set: an object of these */
} Directive;

static void
check_path(Checker *checker, const RetlJson *value)
{
	if (value->type != RETL_JSON_ARRAY)
		check_directive_or_string(checker, value);
}

static void
check_array_path(Checker *checker, const RetlJson *value)
{
	check_array(checker, value);
	if (value->type != RETL_JSON_ARRAY)
		return;
	check_directive_or_string(checker, value->len > 0 ? value->items[0] : NULL);
	if (value->len > 1)
		check_any(checker, value->items[1]);
}

static void
check_liquid(Checker *checker, const RetlJson *value)
{
	check_length(checker, value, 0, MAX_LIQUID);
}

static void
check_sql(Checker *checker, const RetlJson *value)
{
	check_length(checker, value, 1, PG_INT32_MAX);
}

static const Directive directives[] = {
	{"@path", check_path},
	{"@template", check_directive_or_string},
	{"@literal", check_raw},
	{"@if", NULL, {{"exists", false, check_raw}, {"then", false, check_raw}, {"else", false, check_raw}}},
	{"@case", NULL, {{"operator", false, check_string}, {"value", false, check_directive_or_string}}},
	{"@replace", NULL, {{"pattern", true, check_pattern}, {"replacement", false, check_replacement},
	{"value", true, check_directive_or_string}, {"ignorecase", false, check_boolean},
	{"global", false, check_boolean}}},
	{"@arrayPath", check_array_path},
	{"@json", NULL, {{"mode", true, check_mode}, {"value", true, check_raw}}},
	{"@flatten", NULL, {{"separator", false, check_string}, {"value", true, check_raw}}},
	{"@merge", NULL, {{"objects", true, check_array}, {"direction", false, check_direction}}},
	{"@transform", NULL, {{"apply", true, check_directive_or_object}, {"mapping", true, check_directive_or_object}}},
	{"@excludeWhenNull", check_raw},
	{"@liquid", check_liquid},
	{"@sql", check_sql},
};

static void
check_members(Checker *checker, const RetlJson *object)
{
	for (int i = 0; i < object->len; i++)
	{
		int			mark = enter(checker, object->members[i].key, object->members[i].keylen);

		check_any(checker, object->members[i].value);
		leave(checker, mark);
	}
}

/* An object of operands, each of which may hold directives. */
static void
check_operands(Checker *checker, const Operand *operands, const RetlJson *value)
{
	int			complaints = list_length(checker->messages);

	if (value->type != RETL_JSON_OBJECT || is_directive(value))
	{
		expected(checker, "an object", value);
		return;
	}
	check_members(checker, value);
	if (list_length(checker->messages) > complaints)
		return;
	for (const Operand *operand = operands; operand->name != NULL; operand++)
	{
		RetlJson   *given = retl_json_member(value, operand->name);
		int			mark;

		if (given == NULL)
		{
			if (operand->required)
				complain(checker, "should have field \"%s\" but it doesn't", operand->name);
			continue;
		}
		mark = enter(checker, operand->name, strlen(operand->name));
		operand->check(checker, given);
		leave(checker, mark);
	}
}

static void
check_directive(Checker *checker, const RetlJson *value)
{
	const RetlJsonMember *key = directive_key(value);
	int			prefixed = 0;
	int			others = 0;
	int			mark;

	for (int i = 0; i < value->len; i++)
	{
		const RetlJsonMember *member = &value->members[i];

		if (member->keylen > 0 && member->key[0] == '@')
			prefixed++;
		else if (member->keylen != 9 || memcmp(member->key, "_metadata", 9) != 0)
			others++;
	}
	if (prefixed > 1 || others > 0)
	{
		complain(checker, "should only have one @-prefixed key but it has %d keys",
				 prefixed > 1 ? prefixed : value->len);
		return;
	}
	for (int i = 0; i < lengthof(directives); i++)
	{
		const Directive *directive = &directives[i];

		if (strlen(directive->name) != key->keylen ||
			memcmp(directive->name, key->key, key->keylen) != 0)
			continue;
		mark = enter(checker, key->key, key->keylen);
		if (directive->check != NULL)
			directive->check(checker, key->value);
		else
			check_operands(checker, directive->operands, key->value);
		leave(checker, mark);
		return;
	}
	complain(checker, "has an invalid directive: %.*s", key->keylen, key->key);
}

static void
check_any(Checker *checker, const RetlJson *value)
{
	check_stack_depth();
	if (is_directive(value))
		check_directive(checker, value);
	else if (value != NULL && value->type == RETL_JSON_OBJECT)
		check_members(checker, value);
}

List *
retl_validate(const RetlJson *mapping)
{
	Checker		checker = {NIL};

	initStringInfo(&checker.place);
	check_any(&checker, mapping);
	return checker.messages;
}

RetlJson *
retl_root_directive(RetlJson *mapping, char **error)
{
	RetlJson   *directive = retl_json_member(mapping, ROOT_DIRECTIVE);
	RetlJson   *rest;
	RetlJson   *operands;
	RetlJson   *result;

	if (directive == NULL)
		return mapping;
	if (directive->type != RETL_JSON_OBJECT || directive->len != 1 || !is_directive(directive))
	{
		*error = "The root mapping must only have a single directive object";
		return mapping;
	}
	if (directive->members[0].value->type != RETL_JSON_OBJECT)
	{
		*error = "The root directive must be an object";
		return mapping;
	}
	rest = retl_json_object();
	for (int i = 0; i < mapping->len; i++)
	{
		if (mapping->members[i].value != directive)
			retl_json_set(rest, mapping->members[i].key, mapping->members[i].keylen,
						  mapping->members[i].value);
	}
	operands = retl_json_object();
	for (int i = 0; i < directive->members[0].value->len; i++)
	{
		const RetlJsonMember *operand = &directive->members[0].value->members[i];

		retl_json_set(operands, operand->key, operand->keylen, operand->value);
	}
	retl_json_set(operands, "mapping", strlen("mapping"), rest);
	result = retl_json_object();
	retl_json_set(result, directive->members[0].key, directive->members[0].keylen, operands);
	return result;
}
