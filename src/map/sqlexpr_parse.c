/*
 * sqlexpr_parse.c
 *		From the text of an @sql expression to a checked, planned expression;
 *		see sqlexpr.h for what is allowed.
 *
 * There is no range table: the names of columns are resolved by a parser hook,
 * to Vars that are numbered in the order in which they are met. So only the
 * columns that are used need a value at run time, and a model may have as many
 * columns as a query can return.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "map/sqlexpr_parse.h"
#include "base/compat.h"

/* The expression that is being parsed, for messages. */
typedef struct Subject
{
	int			number;
	const char *text;
	const char *source;			/* what the parser sees: "text" behind a prefix */
	int			prefix;			/* characters of it */
} Subject;

/* ---- errors ---- */

/* Says which expression it was, and points into its text rather than the client's query. */
static void
name_expression(void *arg)
{
	const Subject *subject = arg;
	int			position = geterrposition();

	if (position > subject->prefix)
	{
		errposition(0);
		internalerrposition(position - subject->prefix);
		internalerrquery(subject->text);
	}
	errdetail("Expression %d is: %s", subject->number, subject->text);
}

static void
refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s are not allowed in @sql expressions", what),
			 errhint("Compute the value in the model's query.")));
}

/* ---- text to raw tree ---- */

static Node *
parse_as(Subject *subject, const char *before, const char *after)
{
	List	   *statements;
	SelectStmt *select;
	ResTarget  *target;

	subject->prefix = strlen(before);
	subject->source = psprintf("%s%s%s", before, subject->text, after);
	statements = raw_parser(subject->source, RAW_PARSE_DEFAULT);
	if (list_length(statements) != 1 ||
		!IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
		return NULL;
	select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;
	if (select->op != SETOP_NONE || select->valuesLists != NIL ||
		select->distinctClause != NIL || select->intoClause != NULL ||
		select->fromClause != NIL || select->whereClause != NULL ||
		select->groupClause != NIL || select->havingClause != NULL ||
		select->windowClause != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL ||
		select->lockingClause != NIL || select->withClause != NULL ||
		list_length(select->targetList) != 1)
		return NULL;
	target = linitial_node(ResTarget, select->targetList);
	return target->name == NULL && target->indirection == NIL ? target->val : NULL;
}

/*
 * The text must be one expression both with parentheses around it and without:
 * that leaves no way to close ours, and no clause or second column.
 */
static Node *
parse_expression(Subject *subject)
{
	Node	   *node = parse_as(subject, "SELECT ", "\n");

	if (node != NULL)
		node = parse_as(subject, "SELECT (", "\n)");
	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("@sql is not one scalar expression")));
	return node;
}

/* Refused before names are looked up: analysis of these would open relations. */
static bool
refuse_raw(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		refuse("sub-queries");
	if (IsA(node, ParamRef))
		refuse("parameters");
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over != NULL)
		refuse("window functions");
	return raw_expression_tree_walker(node, refuse_raw, context);
}

/* ---- names ---- */

static void
column_type(RetlSqlInput *input, const RetlColumn *column)
{
	retl_parse_type(column->type, &input->type, &input->typmod);

	/* a record without a type of its own can only be looked at as JSON */
	if (get_typtype(input->type) == TYPTYPE_PSEUDO)
	{
		input->type = JSONOID;
		input->typmod = -1;
	}
}

/* The input of this name, added when it is new; -1: there is nothing of that name. */
static int
find_input(RetlSqlInputs *inputs, const char *name)
{
	RetlSqlInput new = {.column = retl_shape_find(inputs->shape, name, strlen(name)), .typmod = -1};

	if (new.column >= 0)
		new.kind = RETL_SQL_COLUMN;
	else if (strcmp(name, "old") == 0)
	{
		new.kind = RETL_SQL_OLD;
		new.type = JSONOID;
	}
	else if (strcmp(name, "changed") == 0)
	{
		new.kind = RETL_SQL_CHANGED;
		new.type = TEXTARRAYOID;
	}
	else if (strcmp(name, "operation") == 0)
	{
		new.kind = RETL_SQL_OPERATION;
		new.type = TEXTOID;
	}
	else
		return -1;

	for (int i = 0; i < inputs->count; i++)
		if (inputs->inputs[i].kind == new.kind && inputs->inputs[i].column == new.column)
			return i;

	if (new.kind == RETL_SQL_COLUMN)
		column_type(&new, &inputs->shape->columns[new.column]);
	new.collation = get_typcollation(new.type);
	if (inputs->count == inputs->size)
	{
		inputs->size = Max(8, inputs->size * 2);
		inputs->inputs = inputs->inputs == NULL
			? palloc(inputs->size * sizeof(RetlSqlInput))
			: repalloc(inputs->inputs, inputs->size * sizeof(RetlSqlInput));
	}
	inputs->inputs[inputs->count] = new;
	return inputs->count++;
}

/* Parser hook: PostgreSQL itself found nothing of this name. */
static Node *
resolve_column(ParseState *pstate, ColumnRef *reference, Node *found)
{
	RetlSqlInputs *inputs = pstate->p_ref_hook_state;
	const char *name;
	int			number;
	RetlSqlInput *input;
	Var		   *var;

	if (found != NULL || list_length(reference->fields) != 1)
		return NULL;
	name = strVal(linitial(reference->fields));
	number = find_input(inputs, name);
	if (number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" does not exist", name),
				 errhint("Expressions see the model's columns, old, changed and operation."),
				 parser_errposition(pstate, reference->location)));
	input = &inputs->inputs[number];
	var = makeVar(1, number + 1, input->type, input->typmod, input->collation, 0);
	var->location = reference->location;
	return (Node *) var;
}

/* ---- checks ---- */

static bool
refuse_analyzed(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) || IsA(node, GroupingFunc))
		refuse("aggregate functions");
	if (IsA(node, WindowFunc))
		refuse("window functions");
	if (IsA(node, SubLink))
		refuse("sub-queries");
	if (IsA(node, Param))
		refuse("parameters");
	return expression_tree_walker(node, refuse_analyzed, context);
}

static void
refuse_volatile(Node *node)
{
	if (contain_volatile_functions(node))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("volatile functions are not allowed in @sql expressions"),
				 errhint("Every sync would see another value. Use a function that is marked STABLE or IMMUTABLE.")));
}

static void
check_result(Node *node)
{
	Oid			type = exprType(node);

	if (get_typtype(type) == TYPTYPE_PSEUDO && type != RECORDOID && type != RECORDARRAYOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("an @sql expression must not have pseudo-type %s", format_type_be(type))));
}

static Expr *
analyze(RetlSqlInputs *inputs, const Subject *subject, Node *raw)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *node;
	Expr	   *planned;

	pstate->p_sourcetext = subject->source;
	pstate->p_post_columnref_hook = resolve_column;
	pstate->p_ref_hook_state = inputs;

	node = transformExpr(pstate, raw, EXPR_KIND_OTHER);
	if (exprType(node) == UNKNOWNOID)
		node = coerce_type(pstate, node, UNKNOWNOID, TEXTOID, -1,
						   COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1);
	assign_expr_collations(pstate, node);
	(void) refuse_analyzed(node, NULL);
	if (expression_returns_set(node))
		refuse("set-returning functions");
	check_result(node);
	refuse_volatile(node);
	free_parsestate(pstate);

	/* planning adds the defaults of arguments */
	planned = expression_planner((Expr *) node);
	refuse_volatile((Node *) planned);
	return planned;
}

Expr *
retl_sql_parse(RetlSqlInputs *inputs, int number, const char *text)
{
	Subject		subject = {.number = number, .text = text};
	ErrorContextCallback callback = {.callback = name_expression, .arg = &subject};
	Node	   *raw;
	Expr	   *planned;

	callback.previous = error_context_stack;
	error_context_stack = &callback;
	raw = parse_expression(&subject);
	(void) refuse_raw(raw, NULL);
	planned = analyze(inputs, &subject, raw);
	error_context_stack = callback.previous;
	return planned;
}
