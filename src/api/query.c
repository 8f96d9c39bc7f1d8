/*
 * query.c
 *		One SELECT or the name of a relation; see query.h.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "api/api.h"
#include "api/query.h"
#include "base/nearest.h"
#include "base/owner.h"
#include "model/model.h"

/* Columns listed in a hint. */
#define MAX_LISTED 12

/* --------------------------------------------------------------------------
 * Names
 * -------------------------------------------------------------------------- */

/*
 * The identifiers of "given", or NIL unless it is one to three of them. A
 * SELECT never is: something follows its first word.
 */
static List *
split_name(const char *given)
{
	List	   *parts;

	if (given[strspn(given, " \t\r\n")] == '\0' ||
		!SplitIdentifierString(pstrdup(given), '.', &parts) ||
		list_length(parts) > 3)
		return NIL;
	return parts;
}

static RangeVar *
range_var(List *parts)
{
	RangeVar   *relation = makeRangeVar(NULL, llast(parts), -1);

	if (list_length(parts) > 1)
		relation->schemaname = list_nth(parts, list_length(parts) - 2);
	if (list_length(parts) > 2)
		relation->catalogname = linitial(parts);
	return relation;
}

static void
require_this_database(const RangeVar *relation)
{
	const char *database = get_database_name(MyDatabaseId);

	if (relation->catalogname != NULL && strcmp(relation->catalogname, database) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("relation \"%s\" is in database \"%s\", not in this one",
						relation->relname, relation->catalogname),
				 errhint("A model reads database \"%s\", where retl is installed. Foreign tables reach others.",
						 database)));
}

/*
 * The caller's search path as it works now, without what is implied: "$user"
 * is replaced, absent schemas are left out. Temporary tables, which no worker
 * sees, come last, so that none hides a table of the same name.
 */
static char *
current_search_path(void)
{
	StringInfoData path;
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, fetch_search_path(false))
	{
		Oid			namespace = lfirst_oid(lc);
		char	   *name = get_namespace_name(namespace);

		if (name != NULL && !isAnyTempNamespace(namespace))
			appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

static void
refuse_temporary(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a model cannot read temporary relation \"%s\"", name),
			 errdetail("Snapshots are taken by a background worker, which does not see it."),
			 errhint("Make it a table or a view of a schema.")));
}

static void
resolve_relation(List *parts, RetlQuery *query)
{
	RangeVar   *name = range_var(parts);
	char	   *qualified;
	Oid			relation;

	require_this_database(name);
	relation = RangeVarGetRelid(name, AccessShareLock, true);
	if (!OidIsValid(relation))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 name->schemaname ?
				 errmsg("relation \"%s.%s\" does not exist", name->schemaname, name->relname) :
				 errmsg("relation \"%s\" does not exist", name->relname),
				 errhint("A model's query is one SELECT, or the name of a table or view, looked up in search path %s.",
						 query->search_path)));

	switch (get_rel_relkind(relation))
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
		case RELKIND_FOREIGN_TABLE:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is neither a table nor a view", name->relname),
					 errhint("A model's query is one SELECT, or the name of a table or view.")));
	}
	if (get_rel_persistence(relation) == RELPERSISTENCE_TEMP)
		refuse_temporary(name->relname);

	qualified = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
										   get_rel_name(relation));
	query->relation = qualified;
	query->text = psprintf("SELECT * FROM %s", qualified);
}

void
retl_query_resolve(const char *given, RetlQuery *query)
{
	List	   *parts = split_name(given);

	memset(query, 0, sizeof(RetlQuery));
	query->search_path = current_search_path();
	if (parts != NIL)
		resolve_relation(parts, query);
	else
		query->text = pstrdup(given);
}

char *
retl_query_relation_name(const char *given)
{
	List	   *parts = split_name(given);
	RangeVar   *name;
	Oid			relation;

	if (parts == NIL)
		return NULL;
	name = range_var(parts);
	if (name->catalogname != NULL && strcmp(name->catalogname, get_database_name(MyDatabaseId)) != 0)
		return NULL;

	/*
	 * As it is found now, without a lock: it may be being rebuilt. What is not
	 * there is taken by the name that was given.
	 */
	name->catalogname = NULL;
	if (name->schemaname == NULL)
	{
		relation = RelnameGetRelid(name->relname);
		if (!OidIsValid(relation))
			return NULL;
		name->schemaname = get_namespace_name(get_rel_namespace(relation));
	}
	return quote_qualified_identifier(name->schemaname, name->relname);
}

/* --------------------------------------------------------------------------
 * Analysis
 * -------------------------------------------------------------------------- */

/* Positions are in the model's text, not in the statement that the caller sent. */
static void
model_text_callback(void *arg)
{
	const RetlQuery *query = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(query->text);
	}
}

static bool
refuse_temporary_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *entry = (RangeTblEntry *) node;

		if (entry->rtekind == RTE_RELATION &&
			get_rel_persistence(entry->relid) == RELPERSISTENCE_TEMP)
			refuse_temporary(get_rel_name(entry->relid));
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, refuse_temporary_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, refuse_temporary_walker, context);
}

static void
describe_columns(RetlQuery *query, const Query *parsed)
{
	int			count = list_length(parsed->targetList);
	ListCell   *lc;

	query->shape.columns = palloc0(sizeof(RetlColumn) * Max(count, 1));
	query->types = palloc(sizeof(Oid) * Max(count, 1));
	query->typmods = palloc(sizeof(int32) * Max(count, 1));
	query->shape.ncolumns = 0;
	foreach(lc, parsed->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Oid			type = exprType((Node *) entry->expr);
		int32		typmod = exprTypmod((Node *) entry->expr);
		RetlColumn *column = &query->shape.columns[query->shape.ncolumns];
		StringInfoData json;

		if (entry->resjunk)
			continue;
		initStringInfo(&json);
		retl_json_append_string(&json, entry->resname, strlen(entry->resname));
		column->name = pstrdup(entry->resname);
		column->name_json = json.data;
		column->type = format_type_extended(type, typmod,
											FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
		query->types[query->shape.ncolumns] = type;
		query->typmods[query->shape.ncolumns] = typmod;
		query->shape.ncolumns++;
	}
}

void
retl_query_analyze(RetlQuery *query, Oid owner)
{
	ErrorContextCallback callback;
	RetlIdentity saved;
	Query	   *parsed;

	retl_owner_enter(&saved, owner, query->search_path);
	callback.callback = model_text_callback;
	callback.arg = query;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	parsed = retl_model_analyze(query->text);
	(void) refuse_temporary_walker((Node *) parsed, NULL);
	query->is_volatile = contain_volatile_functions((Node *) parsed);
	describe_columns(query, parsed);
	error_context_stack = callback.previous;

	if (query->shape.ncolumns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("the model has no columns")));

	/* starting the executor is what checks rights on everything it reads */
	SPI_cursor_close(retl_query_open(query));
	retl_owner_leave(&saved);
}

Portal
retl_query_open(const RetlQuery *query)
{
	return SPI_cursor_open_with_args(NULL, query->text, 0, NULL, NULL, NULL,
									 true, CURSOR_OPT_NO_SCROLL);
}

/* --------------------------------------------------------------------------
 * Columns
 * -------------------------------------------------------------------------- */

int
retl_query_column(const RetlQuery *query, const char *name)
{
	for (int i = 0; i < query->shape.ncolumns; i++)
		if (strcmp(query->shape.columns[i].name, name) == 0)
			return i;
	return -1;
}

void
retl_query_no_column(const RetlQuery *query, const char *what, const char *name)
{
	int			count = query->shape.ncolumns;
	char	  **names = palloc(sizeof(char *) * count);
	const char *nearest;

	for (int i = 0; i < count; i++)
		names[i] = query->shape.columns[i].name;
	nearest = retl_nearest(name, count, (const char *const *) names);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("%s \"%s\" is not a column of the model", what, name),
			 nearest ?
			 errhint("Perhaps you meant \"%s\". The model's columns are %s.", nearest,
					 retl_api_list(count, names, MAX_LISTED)) :
			 errhint("The model's columns are %s.", retl_api_list(count, names, MAX_LISTED))));
}
