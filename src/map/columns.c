/*
 * columns.c
 *		Columns that a mapping's texts name; see columns.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"

#include "base/compat.h"
#include "map/columns.h"
#include "map/envelope.h"
#include "map/eval.h"

typedef struct Found
{
	List	   *columns;
	List	   *expressions;
	bool		whole_row;
} Found;

static void
add(List **columns, const char *name, int len)
{
	ListCell   *lc;

	foreach(lc, *columns)
	{
		const char *known = lfirst(lc);

		if (strlen(known) == len && memcmp(known, name, len) == 0)
			return;
	}
	*columns = lappend(*columns, pnstrdup(name, len));
}

/* ---- fields ---- */

static int
find(void *arg, const RetlStep *steps, int nsteps, int *used)
{
	Found	   *found = arg;
	RetlEnvelopeInput input;
	int			slot;

	retl_envelope_init(&input);
	slot = retl_envelope_find(&input, steps, nsteps, used);
	for (int i = 0; i < input.ncolumns; i++)
		add(&found->columns, input.columns[i].name, input.columns[i].len);
	found->whole_row |= retl_envelope_is_row(slot);
	return slot;
}

static int
add_expression(void *arg, const char *text)
{
	Found	   *found = arg;

	found->expressions = lappend(found->expressions, pstrdup(text));
	return list_length(found->expressions) - 1;
}

/* A path without steps is the root, and is looked for by nobody. */
static bool
takes_root(const RetlJson *json)
{
	check_stack_depth();
	if (json->type == RETL_JSON_OBJECT)
	{
		RetlJson   *path = retl_json_member(json, "@path");

		if (path != NULL && path->type == RETL_JSON_STRING)
		{
			const char *text = retl_json_cstring(path);

			if (strcmp(text, "$") == 0 || strcmp(text, "$.") == 0 || text[0] == '\0')
				return true;
		}
		for (int i = 0; i < json->len; i++)
			if (takes_root(json->members[i].value))
				return true;
	}
	else if (json->type == RETL_JSON_ARRAY)
	{
		for (int i = 0; i < json->len; i++)
			if (takes_root(json->items[i]))
				return true;
	}
	return false;
}

static void
invalid(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("fields of the mapping are not valid"),
			 errdetail("%s", why)));
}

bool
retl_columns_of_fields(const char *fields, List **columns)
{
	Found		found = {.columns = *columns};
	RetlScope	scope = {.find = find, .sql = add_expression, .arg = &found};
	char	   *error = NULL;
	RetlJson   *json = retl_json_parse(fields, strlen(fields), &error);
	List	   *messages;
	ListCell   *lc;

	if (json == NULL)
		invalid(error);
	error = NULL;
	json = retl_root_directive(json, &error);
	if (error != NULL)
		invalid(error);
	messages = retl_validate(json);
	if (messages != NIL)
		invalid(linitial(messages));
	found.whole_row = takes_root(json);
	(void) retl_compile(json, &scope, &error);
	if (error != NULL)
		invalid(error);
	foreach(lc, found.expressions)
		retl_columns_of_expression(lfirst(lc), &found.columns);
	*columns = found.columns;
	return found.whole_row;
}

/* ---- expressions ---- */

static bool
find_references(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		Node	   *field = linitial(((ColumnRef *) node)->fields);

		if (IsA(field, String))
		{
			const char *name = strVal(field);

			/* what an expression sees beside the columns */
			if (strcmp(name, "old") != 0 && strcmp(name, "changed") != 0 && strcmp(name, "operation") != 0)
				add(context, name, strlen(name));
		}
		return false;
	}
	return raw_expression_tree_walker(node, find_references, context);
}

void
retl_columns_of_expression(const char *text, List **columns)
{
	List	   *statements = raw_parser(psprintf("SELECT (%s\n)", text), RAW_PARSE_DEFAULT);
	ListCell   *lc;

	foreach(lc, statements)
		(void) find_references(lfirst_node(RawStmt, lc)->stmt, columns);
}
