/*
 * eval.c
 *		Evaluation of the mapping language: values, objects, arrays, paths and
 *		templates; see eval.h. The other directives are in directive.c.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "map/node.h"

static bool emit(RetlEval *eval, const RetlNode *node, StringInfo out);

void
retl_eval_problem(RetlEval *eval, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	if (*eval->error != NULL)
		return;
	initStringInfo(&message);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	*eval->error = message.data;
}

RetlJson *
retl_eval_tree(RetlEval *eval, RetlValue value)
{
	return retl_value_as_tree(value, eval->error);
}

/* ---- paths ---- */

static RetlValue
root(RetlEval *eval)
{
	return eval->plain ? eval->root : retl_value_slice(eval->input->root(eval->input));
}

static inline RetlValue
eval_path(RetlEval *eval, const RetlNode *node)
{
	RetlValue	from;

	if (node->number >= 0)
		from = retl_value_slice(eval->input->fetch(eval->input, node->number));
	else
		from = root(eval);
	return node->path.nsteps > 0 ? retl_path_follow(from, node->path.steps, node->path.nsteps) : from;
}

RetlValue
retl_eval_path(RetlEval *eval, const char *text, int len, bool strip)
{
	RetlPath	path;
	int			used = 0;
	RetlValue	from;

	retl_path_parse(&path, text, len, strip);
	if (eval->plain || path.nsteps == 0)
		from = root(eval);
	else
		from = retl_value_slice(eval->input->lookup(eval->input, path.steps, path.nsteps, &used));
	return retl_path_follow(from, path.steps + used, path.nsteps - used);
}

/* A string that a nested directive must give. */
static const char *
computed_text(RetlEval *eval, const RetlNode *node, const char *directive, int *len)
{
	RetlValue	value = retl_eval_node(eval, node->arg);

	if (retl_is_undefined(value) || retl_value_type(value) != RETL_JSON_STRING)
	{
		retl_eval_problem(eval, "%s: expected string, got %s", directive, retl_value_type_name(value));
		return NULL;
	}
	return retl_value_text(value, len);
}

static RetlValue
eval_computed(RetlEval *eval, const RetlNode *node)
{
	bool		is_path = node->kind == NODE_COMPUTED_PATH;
	int			len;
	const char *text = computed_text(eval, node, is_path ? "@path" : "@template", &len);

	if (text == NULL)
		return RETL_UNDEFINED;
	return is_path ? retl_eval_path(eval, text, len, true)
		: retl_template_render(eval, text, len, node->url);
}

/* ---- templates ---- */

/* Appends the inside of a JSON string: what String(value) is, escaped. */
static void
emit_text(RetlEval *eval, RetlValue value, bool encode, StringInfo out)
{
	StringInfoData plain;

	if (retl_is_undefined(value))
		return;
	if (value.tree == NULL && !encode)
	{
		switch (retl_slice_type(value.slice))
		{
			case RETL_JSON_STRING:
				appendBinaryStringInfo(out, value.slice.data + 1, value.slice.len - 2);
				return;
			case RETL_JSON_NULL:
			case RETL_JSON_BOOL:
			case RETL_JSON_NUMBER:
				retl_value_write_text(out, value, eval->error);
				return;
			default:
				break;
		}
	}
	initStringInfo(&plain);
	retl_value_write_text(&plain, value, eval->error);
	if (encode)
		retl_text_write_percent(out, plain.data, plain.len);
	else
	{
		/* write it as a string, then take the quotes off */
		int			start = out->len;

		retl_json_write_string(out, plain.data, plain.len);
		memmove(out->data + start, out->data + start + 1, out->len - start - 2);
		out->len -= 2;
		out->data[out->len] = '\0';
	}
	pfree(plain.data);
}

static void
emit_template(RetlEval *eval, const RetlNode *node, StringInfo out)
{
	appendStringInfoCharMacro(out, '"');
	for (int i = 0; i < node->number; i++)
	{
		const RetlTemplatePart *part = &node->parts[i];

		appendBinaryStringInfo(out, part->json, part->json_len);
		if (part->value != NULL)
			emit_text(eval, retl_eval_node(eval, part->value), part->encode, out);
	}
	appendStringInfoCharMacro(out, '"');
}

/* ---- conditions ---- */

/* value == '' as JavaScript's loose comparison has it. */
static bool
is_loosely_empty(RetlEval *eval, RetlValue value)
{
	StringInfoData text;

	if (retl_value_type(value) == RETL_JSON_OBJECT)
		return false;
	if (retl_value_type(value) != RETL_JSON_ARRAY)
		return retl_value_is_falsy(value);
	initStringInfo(&text);
	retl_value_write_text(&text, value, eval->error);
	return text.len == 0;
}

static const RetlNode *
branch(RetlEval *eval, const RetlNode *node)
{
	RetlValue	value = retl_eval_node(eval, node->condition);
	bool		met = !retl_is_undefined(value) && !retl_value_is_null(value);

	if (met && node->flag)
		met = !is_loosely_empty(eval, value);
	return met ? node->then : node->otherwise;
}

/* ---- evaluation to text ---- */

static bool
emit_object(RetlEval *eval, const RetlNode *node, StringInfo out)
{
	bool		first = true;

	appendStringInfoCharMacro(out, '{');
	for (int i = 0; i < node->number; i++)
	{
		const RetlNodeMember *member = &node->members[i];
		int			mark = out->len;

		if (!first)
			appendStringInfoCharMacro(out, ',');
		appendBinaryStringInfo(out, member->prefix, member->prefix_len);
		if (emit(eval, member->value, out))
			first = false;
		else
		{
			out->len = mark;
			out->data[mark] = '\0';
		}
	}
	appendStringInfoCharMacro(out, '}');
	return true;
}

static bool
emit(RetlEval *eval, const RetlNode *node, StringInfo out)
{
	RetlValue	value;

	switch (node->kind)
	{
		case NODE_PATH:
			value = eval_path(eval, node);
			break;
		case NODE_CONSTANT:
			value = node->value;
			break;
		case NODE_OBJECT:
			check_stack_depth();
			return emit_object(eval, node, out);
		case NODE_ARRAY:
			check_stack_depth();
			appendStringInfoCharMacro(out, '[');
			for (int i = 0; i < node->number; i++)
			{
				if (i > 0)
					appendStringInfoCharMacro(out, ',');
				if (!emit(eval, node->children[i], out))
					appendStringInfoString(out, "null");
			}
			appendStringInfoCharMacro(out, ']');
			return true;
		case NODE_TEMPLATE:
			emit_template(eval, node, out);
			return true;
		case NODE_IF:
			check_stack_depth();
			node = branch(eval, node);
			return node != NULL && emit(eval, node, out);
		default:
			value = retl_eval_node(eval, node);
			break;
	}
	return retl_value_write_json(out, value);
}

/* ---- evaluation to values ---- */

static RetlValue
eval_object(RetlEval *eval, const RetlNode *node)
{
	RetlJson   *object = retl_json_object();

	for (int i = 0; i < node->number; i++)
		retl_json_set(object, node->members[i].key, node->members[i].keylen,
					  retl_eval_tree(eval, retl_eval_node(eval, node->members[i].value)));
	return retl_value_tree(object);
}

static RetlValue
eval_array(RetlEval *eval, const RetlNode *node)
{
	RetlJson   *array = retl_json_array();

	for (int i = 0; i < node->number; i++)
		retl_json_push(array, retl_eval_tree(eval, retl_eval_node(eval, node->children[i])));
	return retl_value_tree(array);
}

RetlValue
retl_eval_node(RetlEval *eval, const RetlNode *node)
{
	StringInfoData text;

	check_stack_depth();
	switch (node->kind)
	{
		case NODE_CONSTANT:
			return node->value;
		case NODE_PATH:
			return eval_path(eval, node);
		case NODE_COMPUTED_PATH:
		case NODE_COMPUTED_TEMPLATE:
			return eval_computed(eval, node);
		case NODE_TEMPLATE:
			initStringInfo(&text);
			emit_template(eval, node, &text);
			return retl_value_slice(retl_slice(text.data, text.len));
		case NODE_OBJECT:
			return eval_object(eval, node);
		case NODE_ARRAY:
			return eval_array(eval, node);
		case NODE_IF:
			node = branch(eval, node);
			return node != NULL ? retl_eval_node(eval, node) : RETL_UNDEFINED;
		case NODE_SQL:
			return retl_value_slice(eval->input->sql[node->number]);
		case NODE_ERROR:
			retl_eval_problem(eval, "%s", node->text);
			return RETL_UNDEFINED;
		default:
			return retl_eval_directive(eval, node);
	}
}

bool
retl_emit(const RetlNode *node, RetlInput *input, RetlValue root, StringInfo out, char **error)
{
	RetlEval	eval = {input, input == NULL, root, error};

	return emit(&eval, node, out);
}

RetlValue
retl_evaluate(const RetlNode *node, RetlInput *input, RetlValue root, char **error)
{
	RetlEval	eval = {input, input == NULL, root, error};

	return retl_eval_node(&eval, node);
}
