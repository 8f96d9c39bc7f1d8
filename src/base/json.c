/*
 * json.c
 *		Trees of JSON: parsing, building, looking up; see json.h.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"

#include "base/json.h"

/* Objects larger than this find their members by hash. */
#define INDEX_ABOVE 16

/* Deeper values are not looked into: trees are walked by recursion. */
#define MAX_DEPTH 1000

typedef struct Parser
{
	const char *start;
	const char *next;
	const char *end;
	int			depth;
	const char *problem;		/* set: parsing failed at "next" */
} Parser;

static RetlJson *parse_value(Parser *parser);

static RetlJson *
new_value(RetlJsonType type)
{
	RetlJson   *value = palloc0(sizeof(RetlJson));

	value->type = type;
	return value;
}

RetlJson *
retl_json_null(void)
{
	return new_value(RETL_JSON_NULL);
}

RetlJson *
retl_json_bool(bool value)
{
	RetlJson   *json = new_value(RETL_JSON_BOOL);

	json->boolean = value;
	return json;
}

RetlJson *
retl_json_number(const char *text, int len)
{
	RetlJson   *json = new_value(RETL_JSON_NUMBER);

	json->text = text;
	json->len = len;
	return json;
}

RetlJson *
retl_json_string(const char *text, int len)
{
	RetlJson   *json = new_value(RETL_JSON_STRING);

	json->text = text;
	json->len = len;
	return json;
}

RetlJson *
retl_json_array(void)
{
	return new_value(RETL_JSON_ARRAY);
}

RetlJson *
retl_json_object(void)
{
	return new_value(RETL_JSON_OBJECT);
}

void
retl_json_push(RetlJson *array, RetlJson *item)
{
	Assert(array->type == RETL_JSON_ARRAY);
	if (array->len == array->size)
	{
		array->size = array->size ? array->size * 2 : 4;
		if (array->items == NULL)
			array->items = palloc(array->size * sizeof(RetlJson *));
		else
			array->items = repalloc_huge(array->items, (Size) array->size * sizeof(RetlJson *));
	}
	array->items[array->len++] = item;
}

/* Slots of an index: twice the room for members, so that probes end. */
static int
index_mask(const RetlJson *object)
{
	return object->size * 2 - 1;
}

static void
index_add(RetlJson *object, int member)
{
	int			mask = index_mask(object);
	uint32		slot = hash_bytes((const unsigned char *) object->members[member].key,
								  object->members[member].keylen) & mask;

	while (object->index[slot] >= 0)
		slot = (slot + 1) & mask;
	object->index[slot] = member;
}

static void
index_build(RetlJson *object)
{
	Size		bytes = (Size) (index_mask(object) + 1) * sizeof(int);

	if (object->index != NULL)
		pfree(object->index);
	object->index = MemoryContextAllocHuge(CurrentMemoryContext, bytes);
	memset(object->index, 0xFF, bytes);
	for (int i = 0; i < object->len; i++)
		index_add(object, i);
}

static int
find_member(const RetlJson *object, const char *key, int keylen)
{
	if (object->index != NULL)
	{
		int			mask = index_mask(object);
		uint32		slot = hash_bytes((const unsigned char *) key, keylen) & mask;

		for (; object->index[slot] >= 0; slot = (slot + 1) & mask)
		{
			const RetlJsonMember *member = &object->members[object->index[slot]];

			if (member->keylen == keylen && memcmp(member->key, key, keylen) == 0)
				return object->index[slot];
		}
		return -1;
	}
	for (int i = 0; i < object->len; i++)
	{
		if (object->members[i].keylen == keylen &&
			memcmp(object->members[i].key, key, keylen) == 0)
			return i;
	}
	return -1;
}

void
retl_json_set(RetlJson *object, const char *key, int keylen, RetlJson *value)
{
	int			found = find_member(object, key, keylen);

	Assert(object->type == RETL_JSON_OBJECT);
	if (found >= 0)
	{
		object->members[found].value = value;
		return;
	}
	if (object->len == object->size)
	{
		object->size = object->size ? object->size * 2 : 4;
		if (object->members == NULL)
			object->members = palloc(object->size * sizeof(RetlJsonMember));
		else
			object->members = repalloc_huge(object->members,
											(Size) object->size * sizeof(RetlJsonMember));
		if (object->index != NULL)
			index_build(object);
	}
	object->members[object->len].key = key;
	object->members[object->len].keylen = keylen;
	object->members[object->len].value = value;
	object->len++;
	if (object->index != NULL)
		index_add(object, object->len - 1);
	else if (object->len > INDEX_ABOVE)
		index_build(object);
}

RetlJson *
retl_json_get(const RetlJson *object, const char *key, int keylen)
{
	int			found;

	if (object == NULL || object->type != RETL_JSON_OBJECT)
		return NULL;
	found = find_member(object, key, keylen);
	return found < 0 ? NULL : object->members[found].value;
}

RetlJson *
retl_json_member(const RetlJson *object, const char *key)
{
	return retl_json_get(object, key, strlen(key));
}

bool
retl_json_is_string(const RetlJson *value, const char *text)
{
	return value != NULL && value->type == RETL_JSON_STRING &&
		value->len == strlen(text) && memcmp(value->text, text, value->len) == 0;
}

char *
retl_json_cstring(const RetlJson *string)
{
	return pnstrdup(string->text, string->len);
}

const char *
retl_json_type_name(const RetlJson *value)
{
	if (value == NULL)
		return "undefined";
	switch (value->type)
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
	}
	return "undefined";			/* keep the compiler quiet */
}

bool
retl_json_array_index(const char *key, int len, uint32 *index)
{
	uint64		value = 0;

	if (len == 0 || len > 10 || (key[0] == '0' && len > 1))
		return false;
	for (int i = 0; i < len; i++)
	{
		if (key[i] < '0' || key[i] > '9')
			return false;
		value = value * 10 + (key[i] - '0');
	}
	if (value >= PG_UINT32_MAX)
		return false;
	*index = (uint32) value;
	return true;
}

static int
compare_index_keys(const void *a, const void *b)
{
	uint32		left = 0,
				right = 0;

	(void) retl_json_array_index((*(const RetlJsonMember *) a).key,
								 (*(const RetlJsonMember *) a).keylen, &left);
	(void) retl_json_array_index((*(const RetlJsonMember *) b).key,
								 (*(const RetlJsonMember *) b).keylen, &right);
	return left < right ? -1 : left > right ? 1 : 0;
}

RetlJsonMember *
retl_json_js_order(const RetlJson *object)
{
	RetlJsonMember *ordered;
	int			indexed = 0;
	int			place = 0;
	uint32		index;

	for (int i = 0; i < object->len; i++)
	{
		if (retl_json_array_index(object->members[i].key, object->members[i].keylen, &index))
			indexed++;
	}
	if (indexed == 0)
		return object->members;

	ordered = MemoryContextAllocHuge(CurrentMemoryContext,
									 (Size) object->len * sizeof(RetlJsonMember));
	for (int i = 0; i < object->len; i++)
	{
		if (retl_json_array_index(object->members[i].key, object->members[i].keylen, &index))
			ordered[place++] = object->members[i];
		else
			ordered[indexed + i - place] = object->members[i];
	}
	qsort(ordered, indexed, sizeof(RetlJsonMember), compare_index_keys);
	return ordered;
}

/* ---- parsing ---- */

static bool
problem(Parser *parser, const char *what)
{
	if (parser->problem == NULL)
		parser->problem = what;
	return false;
}

static void
skip_space(Parser *parser)
{
	while (parser->next < parser->end &&
		   (*parser->next == ' ' || *parser->next == '\t' ||
			*parser->next == '\n' || *parser->next == '\r'))
		parser->next++;
}

static bool
take(Parser *parser, char c)
{
	if (parser->next < parser->end && *parser->next == c)
	{
		parser->next++;
		return true;
	}
	return false;
}

/* Finds the end of a string, checks it, and decodes what is between. */
static bool
parse_string(Parser *parser, const char **text, int *len)
{
	const char *start = parser->next;
	const char *p = start + 1;
	RetlSlice	slice;

	for (;; p++)
	{
		if (p >= parser->end)
			return problem(parser, "string without end");
		if (*p == '"')
			break;
		if ((unsigned char) *p < ' ')
		{
			parser->next = p;
			return problem(parser, "control character in a string");
		}
		if (*p != '\\')
			continue;
		p++;
		if (p >= parser->end)
			return problem(parser, "string without end");
		if (*p == 'u')
		{
			for (int i = 1; i <= 4; i++)
			{
				if (p + i >= parser->end || !isxdigit((unsigned char) p[i]))
				{
					parser->next = p;
					return problem(parser, "\\u without four hexadecimal digits");
				}
			}
			p += 4;
		}
		else if (*p == '\0' || strchr("\"\\/bfnrt", *p) == NULL)
		{
			parser->next = p;
			return problem(parser, "unknown escape in a string");
		}
	}
	parser->next = p + 1;
	slice.data = start;
	slice.len = parser->next - start;
	*text = retl_slice_text(slice, len);
	return true;
}

static bool
take_digits(Parser *parser)
{
	const char *start = parser->next;

	while (parser->next < parser->end && *parser->next >= '0' && *parser->next <= '9')
		parser->next++;
	return parser->next > start;
}

static RetlJson *
parse_number(Parser *parser)
{
	const char *start = parser->next;

	(void) take(parser, '-');
	if (!take(parser, '0') && !take_digits(parser))
	{
		problem(parser, "unexpected character");
		return NULL;
	}
	if (take(parser, '.') && !take_digits(parser))
	{
		problem(parser, "number without digits after its point");
		return NULL;
	}
	if (take(parser, 'e') || take(parser, 'E'))
	{
		if (!take(parser, '+'))
			(void) take(parser, '-');
		if (!take_digits(parser))
		{
			problem(parser, "number without digits in its exponent");
			return NULL;
		}
	}
	return retl_json_number(start, parser->next - start);
}

static RetlJson *
parse_word(Parser *parser, const char *word, RetlJson *value)
{
	int			len = strlen(word);

	if (parser->end - parser->next < len || memcmp(parser->next, word, len) != 0)
	{
		problem(parser, "unexpected character");
		return NULL;
	}
	parser->next += len;
	return value;
}

static RetlJson *
parse_array(Parser *parser)
{
	RetlJson   *array = retl_json_array();

	parser->next++;
	skip_space(parser);
	if (take(parser, ']'))
		return array;
	do
	{
		RetlJson   *item = parse_value(parser);

		if (item == NULL)
			return NULL;
		retl_json_push(array, item);
	} while (take(parser, ','));
	if (take(parser, ']'))
		return array;
	problem(parser, "\",\" or \"]\" expected");
	return NULL;
}

static RetlJson *
parse_object(Parser *parser)
{
	RetlJson   *object = retl_json_object();

	parser->next++;
	skip_space(parser);
	if (take(parser, '}'))
		return object;
	do
	{
		const char *key;
		int			keylen;
		RetlJson   *value;

		skip_space(parser);
		if (parser->next >= parser->end || *parser->next != '"')
		{
			problem(parser, "key in double quotes expected");
			return NULL;
		}
		if (!parse_string(parser, &key, &keylen))
			return NULL;
		skip_space(parser);
		if (!take(parser, ':'))
		{
			problem(parser, "\":\" expected");
			return NULL;
		}
		value = parse_value(parser);
		if (value == NULL)
			return NULL;
		retl_json_set(object, key, keylen, value);
	} while (take(parser, ','));
	if (take(parser, '}'))
		return object;
	problem(parser, "\",\" or \"}\" expected");
	return NULL;
}

/* A value and the white space on both its sides. */
static RetlJson *
parse_value(Parser *parser)
{
	RetlJson   *value = NULL;
	const char *text;
	int			len;

	if (parser->depth >= MAX_DEPTH || stack_is_too_deep())
	{
		problem(parser, "nested too deep");
		return NULL;
	}
	skip_space(parser);
	if (parser->next >= parser->end)
	{
		problem(parser, "value expected");
		return NULL;
	}
	switch (*parser->next)
	{
		case '{':
			parser->depth++;
			value = parse_object(parser);
			parser->depth--;
			break;
		case '[':
			parser->depth++;
			value = parse_array(parser);
			parser->depth--;
			break;
		case '"':
			if (parse_string(parser, &text, &len))
				value = retl_json_string(text, len);
			break;
		case 't':
			value = parse_word(parser, "true", retl_json_bool(true));
			break;
		case 'f':
			value = parse_word(parser, "false", retl_json_bool(false));
			break;
		case 'n':
			value = parse_word(parser, "null", retl_json_null());
			break;
		default:
			value = parse_number(parser);
			break;
	}
	if (value != NULL)
		skip_space(parser);
	return value;
}

RetlJson *
retl_json_parse(const char *text, int len, char **error)
{
	Parser		parser = {.start = text, .next = text, .end = text + len};
	RetlJson   *value = parse_value(&parser);

	if (value != NULL && parser.next < parser.end)
	{
		problem(&parser, "text after the value");
		value = NULL;
	}
	if (value == NULL && error != NULL)
		*error = psprintf("%s at byte %d", parser.problem,
						  (int) (parser.next - parser.start) + 1);
	return value;
}
