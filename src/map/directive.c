/*
 * directive.c
 *		The directives that look inside values: @case, @replace, @arrayPath,
 *		@json, @flatten, @merge, @transform, @excludeWhenNull; see eval.h.
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "map/node.h"

static bool
is_type(RetlValue value, RetlJsonType type)
{
	return !retl_is_undefined(value) && retl_value_type(value) == type;
}

/* Evaluates a node on another root. */
static RetlValue
eval_on(RetlEval *eval, const RetlNode *node, RetlValue new_root)
{
	RetlEval	inner = *eval;

	inner.plain = true;
	inner.root = new_root;
	return retl_eval_node(&inner, node);
}

/* ---- @case, @replace ---- */

static RetlValue
eval_case(RetlEval *eval, const RetlNode *node)
{
	RetlValue	value = retl_eval_node(eval, node->arg);
	const char *text;
	int			len;

	if (!is_type(value, RETL_JSON_STRING))
		return value;
	if (node->text != NULL)
	{
		retl_eval_problem(eval, "%s", node->text);
		return RETL_UNDEFINED;
	}
	text = retl_value_text(value, &len);
	text = retl_text_case(text, len, node->flag, &len);
	return retl_value_tree(retl_json_string(text, len));
}

/* Length of the match of "pattern" at "p"; -1: none. */
static int
match_at(const char *p, const char *end, const RetlReplacement *replacement, bool ignore_case)
{
	const char *pattern = replacement->pattern;
	const char *pattern_end = pattern + replacement->pattern_len;
	const char *start = p;

	if (!ignore_case)
		return end - p >= replacement->pattern_len &&
			memcmp(p, pattern, replacement->pattern_len) == 0 ? replacement->pattern_len : -1;
	while (pattern < pattern_end)
	{
		int			plen,
					len;

		if (p >= end)
			return -1;
		plen = Min(pg_utf_mblen((const unsigned char *) pattern), pattern_end - pattern);
		len = Min(pg_utf_mblen((const unsigned char *) p), end - p);
		if (!retl_text_same_letter(p, len, pattern, plen))
			return -1;
		p += len;
		pattern += plen;
	}
	return p - start;
}

/* Appends a replacement, in which $$, $&, $` and $' have their meaning. */
static void
append_replacement(StringInfo out, const RetlReplacement *replacement, const char *text,
				   const char *match, int match_len, const char *end)
{
	const char *p = replacement->with;
	const char *stop = p + replacement->with_len;

	for (; p < stop; p++)
	{
		if (*p != '$' || p + 1 >= stop)
		{
			appendStringInfoChar(out, *p);
			continue;
		}
		switch (*++p)
		{
			case '$':
				appendStringInfoChar(out, '$');
				break;
			case '&':
				appendBinaryStringInfo(out, match, match_len);
				break;
			case '`':
				appendBinaryStringInfo(out, text, match - text);
				break;
			case '\'':
				appendBinaryStringInfo(out, match + match_len, end - match - match_len);
				break;
			default:
				appendStringInfoChar(out, '$');
				p--;
				break;
		}
	}
}

static void
replace(StringInfo out, const char *text, int len, const RetlReplacement *replacement,
		bool ignore_case, bool global)
{
	const char *end = text + len;
	const char *p = text;
	bool		done = false;

	while (p < end)
	{
		int			match = done ? -1 : match_at(p, end, replacement, ignore_case);

		if (match < 0)
		{
			int			width = Min(pg_utf_mblen((const unsigned char *) p), end - p);

			appendBinaryStringInfo(out, p, width);
			p += width;
			continue;
		}
		append_replacement(out, replacement, text, p, match, end);
		p += match;
		done = !global;
	}
}

static RetlValue
eval_replace(RetlEval *eval, const RetlNode *node)
{
	RetlValue	value = retl_eval_node(eval, node->arg);
	StringInfoData text;

	initStringInfo(&text);
	if (is_type(value, RETL_JSON_STRING) || is_type(value, RETL_JSON_NUMBER) ||
		is_type(value, RETL_JSON_BOOL))
		retl_value_write_text(&text, value, eval->error);
	for (int i = 0; i < node->number; i++)
	{
		StringInfoData result;

		initStringInfo(&result);
		replace(&result, text.data, text.len, &node->replacements[i], node->ignore_case, node->global);
		text = result;
	}
	return retl_value_tree(retl_json_string(text.data, text.len));
}

/* ---- @arrayPath ---- */

static RetlValue
eval_array_path(RetlEval *eval, const RetlNode *node)
{
	RetlValue	list = retl_eval_node(eval, node->arg);
	RetlJson   *result;
	RetlSliceIterator iterator;
	RetlSlice	key,
				item;

	if (node->shape == NULL || (!is_type(list, RETL_JSON_ARRAY) && !is_type(list, RETL_JSON_OBJECT)))
		return list;
	result = retl_json_array();
	if (is_type(list, RETL_JSON_OBJECT))
		retl_json_push(result, retl_eval_tree(eval, eval_on(eval, node->shape, list)));
	else if (list.tree != NULL)
	{
		for (int i = 0; i < list.tree->len; i++)
			retl_json_push(result, retl_eval_tree(eval, eval_on(eval, node->shape,
																retl_value_tree(list.tree->items[i]))));
	}
	else
	{
		retl_slice_walk(&iterator, list.slice);
		while (retl_slice_next(&iterator, &key, &item))
			retl_json_push(result, retl_eval_tree(eval, eval_on(eval, node->shape,
																retl_value_slice(item))));
	}
	return retl_value_tree(result);
}

/* ---- @json ---- */

/* A double tells fewer digits apart. */
#define EXACT_DIGITS 15

/*
 * What is decoded from a string has JavaScript's numbers: doubles. (Numbers of
 * a row keep all their digits.)
 */
static void
numbers_to_doubles(RetlJson *value)
{
	char		shortest[DOUBLE_SHORTEST_DECIMAL_LEN];
	double		number;
	StringInfoData text;

	check_stack_depth();
	switch (value->type)
	{
		case RETL_JSON_NUMBER:
			if (value->len <= EXACT_DIGITS)
				return;
			number = retl_json_double(value->text, value->len);
			if (isinf(number))
			{
				value->type = RETL_JSON_NULL;
				return;
			}
			double_to_shortest_decimal_buf(number, shortest);
			initStringInfo(&text);
			retl_json_write_number(&text, shortest, strlen(shortest));
			value->text = text.data;
			value->len = text.len;
			break;
		case RETL_JSON_ARRAY:
			for (int i = 0; i < value->len; i++)
				numbers_to_doubles(value->items[i]);
			break;
		case RETL_JSON_OBJECT:
			for (int i = 0; i < value->len; i++)
				numbers_to_doubles(value->members[i].value);
			break;
		default:
			break;
	}
}

static RetlValue
eval_json(RetlEval *eval, const RetlNode *node)
{
	RetlValue	value = retl_eval_node(eval, node->arg);
	RetlJson   *tree;
	StringInfoData text;

	if (node->flag)
	{
		tree = retl_eval_tree(eval, value);
		if (tree == NULL)
			return RETL_UNDEFINED;
		initStringInfo(&text);
		retl_json_stringify(&text, tree);
		return retl_value_tree(retl_json_string(text.data, text.len));
	}
	if (is_type(value, RETL_JSON_STRING))
	{
		int			len;
		const char *source = retl_value_text(value, &len);

		tree = retl_json_parse(source, len, NULL);
		if (tree != NULL)
		{
			numbers_to_doubles(tree);
			return retl_value_tree(tree);
		}
	}
	return value;
}

/* ---- @flatten ---- */

static void
flatten(RetlJson *result, RetlJson *value, const char *name, int len, const RetlNode *node)
{
	const RetlJsonMember *members;

	check_stack_depth();
	if (value == NULL || (value->type != RETL_JSON_OBJECT && value->type != RETL_JSON_ARRAY) ||
		(value->type == RETL_JSON_ARRAY && node->flag))
	{
		retl_json_set(result, name, len, value);
		return;
	}
	members = value->type == RETL_JSON_OBJECT ? retl_json_js_order(value) : NULL;
	for (int i = 0; i < value->len; i++)
	{
		StringInfoData inner;

		initStringInfo(&inner);
		if (len > 0)
		{
			appendBinaryStringInfo(&inner, name, len);
			appendBinaryStringInfo(&inner, node->text, node->len);
		}
		if (members != NULL)
			appendBinaryStringInfo(&inner, members[i].key, members[i].keylen);
		else
			appendStringInfo(&inner, "%d", i);
		flatten(result, members ? members[i].value : value->items[i], inner.data, inner.len, node);
	}
}

static RetlValue
eval_flatten(RetlEval *eval, const RetlNode *node)
{
	RetlJson   *result = retl_json_object();

	flatten(result, retl_eval_tree(eval, retl_eval_node(eval, node->arg)), "", 0, node);
	return retl_value_tree(result);
}

/* ---- @merge ---- */

static void
assign(RetlJson *result, const RetlJson *from)
{
	const char *unit;
	int			unit_len;
	char	   *key;

	if (from == NULL)
		return;
	switch (from->type)
	{
		case RETL_JSON_OBJECT:
			for (int i = 0; i < from->len; i++)
				retl_json_set(result, from->members[i].key, from->members[i].keylen,
							  from->members[i].value);
			break;
		case RETL_JSON_ARRAY:
			for (int i = 0; i < from->len; i++)
			{
				key = psprintf("%d", i);
				retl_json_set(result, key, strlen(key), from->items[i]);
			}
			break;
		case RETL_JSON_STRING:
			for (uint32 i = 0; retl_text_unit(from->text, from->len, i, &unit, &unit_len); i++)
			{
				CHECK_FOR_INTERRUPTS();
				key = psprintf("%u", i);
				retl_json_set(result, key, strlen(key), retl_json_string(unit, unit_len));
			}
			break;
		default:
			break;
	}
}

static RetlValue
eval_merge(RetlEval *eval, const RetlNode *node)
{
	RetlJson   *result = retl_json_object();
	RetlJson  **operands = palloc(Max(node->number, 1) * sizeof(RetlJson *));

	for (int i = 0; i < node->number; i++)
		operands[i] = retl_eval_tree(eval, retl_eval_node(eval, node->children[i]));
	for (int i = 0; i < node->number; i++)
		assign(result, operands[node->flag ? node->number - 1 - i : i]);
	return retl_value_tree(result);
}

/* ---- @excludeWhenNull ---- */

static RetlJson *
without_nulls(RetlJson *value)
{
	RetlJson   *result;

	if (value == NULL || value->type == RETL_JSON_NULL)
		return NULL;
	if (value->type != RETL_JSON_OBJECT)
		return value;
	check_stack_depth();
	result = retl_json_object();
	for (int i = 0; i < value->len; i++)
	{
		RetlJson   *member = without_nulls(value->members[i].value);

		if (member != NULL)
			retl_json_set(result, value->members[i].key, value->members[i].keylen, member);
	}
	return result;
}

/* ---- all of them ---- */

/*
 * @transform hands on what its first stage gives without undefined members, so
 * that they are not there for the second.
 */
static RetlValue
eval_transform(RetlEval *eval, const RetlNode *node)
{
	StringInfoData text;
	RetlValue	value = retl_eval_node(eval, node->arg);

	if (value.tree != NULL)
	{
		initStringInfo(&text);
		retl_json_write(&text, value.tree);
		value = retl_value_slice(retl_slice(text.data, text.len));
	}
	return eval_on(eval, node->shape, value);
}

RetlValue
retl_eval_directive(RetlEval *eval, const RetlNode *node)
{
	RetlValue	value;

	switch (node->kind)
	{
		case NODE_CASE:
			return eval_case(eval, node);
		case NODE_REPLACE:
			return eval_replace(eval, node);
		case NODE_ARRAY_PATH:
			return eval_array_path(eval, node);
		case NODE_JSON:
			return eval_json(eval, node);
		case NODE_FLATTEN:
			return eval_flatten(eval, node);
		case NODE_MERGE:
			return eval_merge(eval, node);
		case NODE_TRANSFORM:
			return eval_transform(eval, node);
		case NODE_EXCLUDE_NULL:
			value = retl_eval_node(eval, node->arg);
			if (is_type(value, RETL_JSON_OBJECT))
				return retl_value_tree(without_nulls(retl_eval_tree(eval, value)));
			return retl_value_is_null(value) ? RETL_UNDEFINED : value;
		default:
			elog(ERROR, "unexpected kind of mapping node: %d", (int) node->kind);
	}
}
