/*
 * compile.c
 *		From a mapping's JSON to nodes; see eval.h.
 *
 * What is the same for every row is computed here: raw JSON, paths into known
 * members of the root, conditions on them, templates made of them.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "map/node.h"

static RetlNode *compile(const RetlJson *mapping, RetlScope *scope);

static RetlNode *
new_node(RetlNodeKind kind)
{
	RetlNode   *node = palloc0(sizeof(RetlNode));

	node->kind = kind;
	return node;
}

/*
 * A constant, as a slice: it is written far more often than looked into. Raw
 * JSON is written without the members that are undefined.
 */
static RetlNode *
constant(RetlValue value)
{
	RetlNode   *node = new_node(NODE_CONSTANT);

	if (value.tree != NULL)
	{
		StringInfoData text;

		initStringInfo(&text);
		retl_json_write(&text, value.tree);
		value = retl_value_slice(retl_slice(text.data, text.len));
	}
	node->value = value;
	return node;
}

/* Fails the rows that come to it; retl_compile() tells of the first. */
static RetlNode *
error_node(RetlScope *scope, const char *message)
{
	RetlNode   *node = new_node(NODE_ERROR);

	node->text = message;
	if (*scope->error == NULL)
		*scope->error = pstrdup(message);
	return node;
}

static bool
is_constant(const RetlNode *node)
{
	return node->kind == NODE_CONSTANT;
}

/* Evaluates a node all of whose parts are constant. */
static RetlNode *
fold(RetlNode *node, RetlScope *scope)
{
	char	   *error = NULL;
	RetlValue	value = retl_evaluate(node, NULL, RETL_UNDEFINED, &error);

	return error != NULL ? error_node(scope, error) : constant(value);
}

/* The scope of what is evaluated on another root. */
static RetlScope
inner_scope(const RetlScope *scope)
{
	RetlScope	inner = *scope;

	inner.find = NULL;
	inner.constants = NULL;
	return inner;
}

/* ---- directives ---- */

RetlNode *
retl_compile_path(const char *text, int len, bool strip, RetlScope *scope)
{
	RetlNode   *node = new_node(NODE_PATH);
	int			used = 0;

	retl_path_parse(&node->path, text, len, strip);
	node->number = RETL_SLOT_ROOT;
	if (node->path.nsteps == 0)
		return node;
	if (scope->constants != NULL)
	{
		RetlJson   *known = retl_json_get(scope->constants, node->path.steps[0].key,
										  node->path.steps[0].len);

		if (known != NULL)
			return constant(retl_path_follow(retl_value_tree(known), node->path.steps + 1,
											 node->path.nsteps - 1));
	}
	if (scope->find != NULL)
	{
		node->number = scope->find(scope->arg, node->path.steps, node->path.nsteps, &used);
		if (node->number == RETL_SLOT_UNDEFINED)
			return constant(RETL_UNDEFINED);
		node->path.steps += used;
		node->path.nsteps -= used;
	}
	return node;
}

static RetlNode *
compile_path(const RetlJson *value, RetlScope *scope)
{
	RetlNode   *node;

	if (value->type == RETL_JSON_STRING)
		return retl_compile_path(value->text, value->len, true, scope);
	node = new_node(NODE_COMPUTED_PATH);
	node->arg = compile(value, scope);
	return node;
}

static RetlNode *
compile_template(const RetlJson *value, RetlScope *scope)
{
	RetlNode   *node;
	bool		same = true;

	if (value->type != RETL_JSON_STRING || retl_template_is_two_pass(value->text, value->len))
	{
		node = new_node(NODE_COMPUTED_TEMPLATE);
		node->arg = compile(value, scope);
		node->url = scope->url;
		return node;
	}
	node = new_node(NODE_TEMPLATE);
	node->parts = retl_template_parse(value->text, value->len, scope->url, scope, &node->number);
	for (int i = 0; i < node->number; i++)
		same &= node->parts[i].value == NULL || is_constant(node->parts[i].value);
	return same ? fold(node, scope) : node;
}

static RetlNode *
compile_if(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *exists = retl_json_member(operands, "exists");
	RetlJson   *blank = retl_json_member(operands, "blank");
	RetlJson   *then = retl_json_member(operands, "then");
	RetlJson   *otherwise = retl_json_member(operands, "else");
	RetlNode   *node = new_node(NODE_IF);

	if (retl_value_is_falsy(retl_value_tree(exists)) && retl_value_is_falsy(retl_value_tree(blank)))
		return error_node(scope, "@if requires an \"exists\" key or a \"blank\" key");
	node->flag = exists == NULL;
	node->condition = compile(node->flag ? blank : exists, scope);
	if (then != NULL)
		node->then = compile(then, scope);
	if (!retl_value_is_falsy(retl_value_tree(otherwise)))
		node->otherwise = compile(otherwise, scope);
	if (is_constant(node->condition))
	{
		RetlNode   *branch = node->otherwise;
		RetlNode   *probe = new_node(NODE_IF);
		RetlValue	met;

		probe->flag = node->flag;
		probe->condition = node->condition;
		probe->then = constant(retl_value_tree(retl_json_bool(true)));
		(void) retl_is_constant(fold(probe, scope), &met);
		if (!retl_is_undefined(met))
			branch = node->then;
		return branch != NULL ? branch : constant(RETL_UNDEFINED);
	}
	return node;
}

/* Compiles operand "value"; NULL when it is missing or a falsy literal. */
static RetlNode *
compile_value(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *value = retl_json_member(operands, "value");

	return retl_value_is_falsy(retl_value_tree(value)) ? NULL : compile(value, scope);
}

static RetlNode *
compile_case(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *operator = retl_json_member(operands, "operator");
	RetlNode   *node = new_node(NODE_CASE);

	if (retl_value_is_falsy(retl_value_tree(operator)))
		return error_node(scope, "@case requires a \"operator\" key");
	node->arg = compile_value(operands, scope);
	if (node->arg == NULL)
		return constant(RETL_UNDEFINED);
	if (retl_json_is_string(operator, "upper"))
		node->flag = true;
	else if (!retl_json_is_string(operator, "lower"))
		node->text = "operator key should have a value of \"lower\" or \"upper\"";
	return node;
}

static bool
add_replacement(RetlNode *node, const RetlJson *pattern, const RetlJson *with)
{
	RetlReplacement *replacement = &node->replacements[node->number++];

	replacement->pattern = pattern->text;
	replacement->pattern_len = pattern->len;
	if (with != NULL)
	{
		if (with->type != RETL_JSON_STRING)
			return false;
		replacement->with = with->text;
		replacement->with_len = with->len;
	}
	return true;
}

static RetlNode *
compile_replace(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *pattern2 = retl_json_member(operands, "pattern2");
	RetlJson   *with2 = retl_json_member(operands, "replacement2");
	RetlJson   *ignore_case = retl_json_member(operands, "ignorecase");
	RetlJson   *global = retl_json_member(operands, "global");
	RetlNode   *node = new_node(NODE_REPLACE);

	node->arg = compile_value(operands, scope);
	if (node->arg == NULL)
		return constant(RETL_UNDEFINED);
	node->ignore_case = ignore_case != NULL && ignore_case->boolean;
	node->global = global == NULL || global->boolean;
	node->replacements = palloc0(2 * sizeof(RetlReplacement));
	(void) add_replacement(node, retl_json_member(operands, "pattern"),
						   retl_json_member(operands, "replacement"));
	if (!retl_value_is_falsy(retl_value_tree(pattern2)))
	{
		if (pattern2->type != RETL_JSON_STRING || retl_text_length(pattern2->text, pattern2->len) > 10)
			return error_node(scope, "@replace requires \"pattern2\" to be a string of length 10 or less");
		if (!add_replacement(node, pattern2, with2) ||
			(with2 != NULL && retl_text_length(with2->text, with2->len) > 10))
			return error_node(scope, "@replace requires \"replacement2\" to be a string of length 10 or less");
	}
	return node;
}

static RetlNode *
compile_array_path(const RetlJson *operands, RetlScope *scope)
{
	RetlNode   *node = new_node(NODE_ARRAY_PATH);
	RetlJson   *path = operands->len > 0 ? operands->items[0] : NULL;
	RetlJson   *shape = operands->len > 1 ? operands->items[1] : NULL;

	if (path == NULL)
		return constant(RETL_UNDEFINED);
	node->arg = path->type == RETL_JSON_STRING
		? retl_compile_path(path->text, path->len, true, scope) : compile(path, scope);
	if (shape != NULL && shape->type == RETL_JSON_OBJECT && shape->len > 0)
	{
		RetlScope	inner = inner_scope(scope);

		node->shape = compile(shape, &inner);
	}
	return node;
}

static RetlNode *
compile_json(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *mode = retl_json_member(operands, "mode");
	RetlNode   *node = new_node(NODE_JSON);

	node->arg = compile_value(operands, scope);
	if (node->arg == NULL)
		return error_node(scope, "@json requires a \"value\" key");
	if (retl_json_is_string(mode, "encode"))
		node->flag = true;
	else if (!retl_json_is_string(mode, "decode"))
		return constant(RETL_UNDEFINED);
	return node;
}

static RetlNode *
compile_flatten(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *separator = retl_json_member(operands, "separator");
	RetlJson   *value = retl_json_member(operands, "value");
	RetlNode   *node = new_node(NODE_FLATTEN);

	if (retl_value_is_falsy(retl_value_tree(separator)))
		return error_node(scope, "@flatten requires a \"separator\" key");
	node->text = separator->text;
	node->len = separator->len;
	node->flag = !retl_value_is_falsy(retl_value_tree(retl_json_member(operands, "omitArrays")));
	node->arg = compile(value, scope);
	return node;
}

static RetlNode *
compile_children(RetlNodeKind kind, const RetlJson *array, RetlScope *scope)
{
	RetlNode   *node = new_node(kind);
	RetlScope	inner = *scope;

	inner.unchecked = true;
	node->number = array->len;
	node->children = palloc(Max(array->len, 1) * sizeof(RetlNode *));
	for (int i = 0; i < array->len; i++)
		node->children[i] = compile(array->items[i], &inner);
	return node;
}

static RetlNode *
compile_merge(const RetlJson *operands, RetlScope *scope)
{
	RetlJson   *direction = retl_json_member(operands, "direction");
	RetlNode   *node;

	if (direction == NULL)
		return error_node(scope, "@merge requires a \"direction\" key");
	node = compile_children(NODE_MERGE, retl_json_member(operands, "objects"), scope);
	node->flag = retl_json_is_string(direction, "left");
	return node;
}

static RetlNode *
compile_transform(const RetlJson *operands, RetlScope *scope)
{
	RetlNode   *node = new_node(NODE_TRANSFORM);
	RetlScope	inner = inner_scope(scope);

	node->arg = compile(retl_json_member(operands, "apply"), scope);
	node->shape = compile(retl_json_member(operands, "mapping"), &inner);
	return node;
}

static RetlNode *
compile_sql(const RetlJson *value, RetlScope *scope)
{
	RetlNode   *node = new_node(NODE_SQL);

	if (scope->sql == NULL || value->type != RETL_JSON_STRING)
		return error_node(scope, scope->sql == NULL ? "@sql is not allowed here"
						  : "@sql: expected string");
	node->number = scope->sql(scope->arg, retl_json_cstring(value));
	return node;
}

/* Whether a directive's result depends on no row. */
static bool
is_foldable(const RetlNode *node)
{
	switch (node->kind)
	{
		case NODE_CASE:
		case NODE_REPLACE:
		case NODE_JSON:
		case NODE_FLATTEN:
		case NODE_EXCLUDE_NULL:
			return is_constant(node->arg);
		case NODE_MERGE:
			for (int i = 0; i < node->number; i++)
			{
				if (!is_constant(node->children[i]))
					return false;
			}
			return true;
		default:
			return false;
	}
}

static RetlNode *
compile_exclude_null(const RetlJson *value, RetlScope *scope)
{
	RetlNode   *node = new_node(NODE_EXCLUDE_NULL);

	node->arg = compile(value, scope);
	return node;
}

static const struct
{
	const char *name;
	RetlNode   *(*compile) (const RetlJson *value, RetlScope *scope);
}			directives[] =
{
	{"@path", compile_path},
	{"@template", compile_template},
	{"@literal", compile},
	{"@if", compile_if},
	{"@case", compile_case},
	{"@replace", compile_replace},
	{"@arrayPath", compile_array_path},
	{"@json", compile_json},
	{"@flatten", compile_flatten},
	{"@merge", compile_merge},
	{"@transform", compile_transform},
	{"@excludeWhenNull", compile_exclude_null},
	{"@sql", compile_sql},
};

static RetlNode *
compile_directive(const RetlJson *mapping, const char *name, const RetlJson *value, RetlScope *scope)
{
	/* operands of the wrong type must not be touched */
	if (scope->unchecked)
	{
		List	   *messages = retl_validate(mapping);
		RetlScope	checked = *scope;

		if (messages != NIL)
			return error_node(scope, strstr(linitial(messages), "has an invalid directive")
							  ? psprintf("%s is not a valid directive, got undefined", name)
							  : linitial(messages));
		checked.unchecked = false;
		return compile_directive(mapping, name, value, &checked);
	}
	for (int i = 0; i < lengthof(directives); i++)
	{
		if (strcmp(directives[i].name, name) == 0)
		{
			RetlNode   *node = directives[i].compile(value, scope);

			return is_foldable(node) ? fold(node, scope) : node;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported", name),
			 errhint("Use @template, @if, @case and @replace, or @sql.")));
}

/* ---- raw JSON ---- */

static RetlNode *
compile_object(const RetlJson *mapping, RetlScope *scope)
{
	RetlNode   *node = new_node(NODE_OBJECT);
	bool		same = true;

	node->members = palloc0(Max(mapping->len, 1) * sizeof(RetlNodeMember));
	node->number = mapping->len;
	for (int i = 0; i < mapping->len; i++)
	{
		RetlNodeMember *member = &node->members[i];
		StringInfoData prefix;

		initStringInfo(&prefix);
		retl_json_write_string(&prefix, mapping->members[i].key, mapping->members[i].keylen);
		appendStringInfoChar(&prefix, ':');
		member->key = mapping->members[i].key;
		member->keylen = mapping->members[i].keylen;
		member->prefix = prefix.data;
		member->prefix_len = prefix.len;
		member->value = compile(mapping->members[i].value, scope);
		same &= is_constant(member->value);
	}
	return same ? fold(node, scope) : node;
}

static RetlNode *
compile_array(const RetlJson *mapping, RetlScope *scope)
{
	RetlNode   *node = compile_children(NODE_ARRAY, mapping, scope);
	bool		same = true;

	for (int i = 0; i < node->number; i++)
		same &= is_constant(node->children[i]);
	return same ? fold(node, scope) : node;
}

/*
 * The key of a directive: an object whose keys all start with "@", but for
 * "_metadata".
 */
static const RetlJsonMember *
find_directive(const RetlJson *mapping)
{
	const RetlJsonMember *found = NULL;

	for (int i = 0; i < mapping->len; i++)
	{
		const RetlJsonMember *member = &mapping->members[i];

		if (member->keylen > 0 && member->key[0] == '@')
			found = found ? found : member;
		else if (member->keylen != 9 || memcmp(member->key, "_metadata", 9) != 0)
			return NULL;
	}
	return found;
}

static RetlNode *
compile(const RetlJson *mapping, RetlScope *scope)
{
	const RetlJsonMember *directive;

	check_stack_depth();
	switch (mapping->type)
	{
		case RETL_JSON_OBJECT:
			directive = find_directive(mapping);
			if (directive != NULL)
				return compile_directive(mapping, pnstrdup(directive->key, directive->keylen),
										 directive->value, scope);
			return compile_object(mapping, scope);
		case RETL_JSON_ARRAY:
			return compile_array(mapping, scope);
		default:
			return constant(retl_value_tree(unconstify(RetlJson *, mapping)));
	}
}

RetlNode *
retl_compile(const RetlJson *mapping, RetlScope *scope, char **error)
{
	scope->error = error;
	return compile(mapping, scope);
}

bool
retl_is_constant(const RetlNode *node, RetlValue *value)
{
	if (!is_constant(node))
		return false;
	*value = node->value;
	return true;
}
