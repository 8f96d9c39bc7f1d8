/*
 * lineage.c
 *		mapping_columns, model_columns: which columns of what a mapping and a
 *		model read.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "api/api.h"
#include "api/results.h"
#include "base/compat.h"
#include "base/sql.h"
#include "map/columns.h"
#include "model/model.h"

PG_FUNCTION_INFO_V1(retl_mapping_columns);
PG_FUNCTION_INFO_V1(retl_model_columns);

/* --------------------------------------------------------------------------
 * mapping_columns
 * -------------------------------------------------------------------------- */

/* Columns of update_when; errors with 22023 where it is no list of them. */
static void
columns_of_update_when(const char *update_when, List **columns)
{
	List	   *names;
	ListCell   *lc;

	if (strcmp(update_when, "payload") == 0 || strcmp(update_when, "any") == 0)
		return;
	if (!SplitIdentifierString(pstrdup(update_when), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("update_when is no list of columns: \"%s\"", update_when)));
	foreach(lc, names)
		*columns = lappend(*columns, lfirst(lc));
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

Datum
retl_mapping_columns(PG_FUNCTION_ARGS)
{
	char	   *fields = retl_api_json(fcinfo, 0, "fields");
	char	   *filter = retl_api_text_or_null(fcinfo, 1);
	char	   *update_when = retl_api_text_or_null(fcinfo, 2);
	List	   *columns = NIL;
	const char *last = NULL;
	ListCell   *lc;
	Datum	   *elements;
	int			count = 0;

	if (retl_columns_of_fields(fields, &columns))
		columns = lappend(columns, "*");
	if (filter != NULL)
		retl_columns_of_expression(filter, &columns);
	if (update_when != NULL)
		columns_of_update_when(update_when, &columns);

	list_sort(columns, compare_names);
	elements = palloc(sizeof(Datum) * Max(list_length(columns), 1));
	foreach(lc, columns)
	{
		if (last == NULL || strcmp(last, lfirst(lc)) != 0)
			elements[count++] = CStringGetTextDatum(lfirst(lc));
		last = lfirst(lc);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* --------------------------------------------------------------------------
 * model_columns
 * -------------------------------------------------------------------------- */

typedef struct Reads
{
	RetlResult *result;
	bool		all;			/* a relation as a whole: what is used is up to mappings */
} Reads;

static bool
is_used(const Bitmapset *columns, AttrNumber number)
{
	return bms_is_member(number - FirstLowInvalidHeapAttributeNumber, columns) ||
		bms_is_member(InvalidAttrNumber - FirstLowInvalidHeapAttributeNumber, columns);
}

/* Analysis has locked the relation, until the transaction's end. */
static void
add_relation(Reads *reads, Oid relid, const Bitmapset *used)
{
	Relation	relation = relation_open(relid, NoLock);
	TupleDesc	columns = RelationGetDescr(relation);
	char	   *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
												  RelationGetRelationName(relation));

	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(columns, i);
		Datum		values[4];
		bool		nulls[4] = {false, false, false, reads->all};

		if (column->attisdropped)
			continue;
		values[0] = CStringGetTextDatum(name);
		values[1] = CStringGetTextDatum(NameStr(column->attname));
		values[2] = CStringGetTextDatum(format_type_extended(column->atttypid, column->atttypmod,
															 FORMAT_TYPE_TYPEMOD_GIVEN));
		values[3] = BoolGetDatum(is_used(used, column->attnum));
		retl_result_add_row(reads->result, values, nulls);
	}
	relation_close(relation, NoLock);
}

static bool
find_relations(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		ListCell   *lc;

		foreach(lc, query->rtable)
		{
			RangeTblEntry *entry = lfirst_node(RangeTblEntry, lc);

			if (entry->rtekind == RTE_RELATION)
				add_relation(context, entry->relid, retl_selected_columns(query, entry));
		}
		return query_tree_walker(query, find_relations, context, 0);
	}
	return expression_tree_walker(node, find_relations, context);
}

static bool
is_whole_relation(int64 model)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, model);
	return retl_sql("SELECT FROM retl.model WHERE id = $1 AND relation IS NOT NULL", &args) > 0;
}

Datum
retl_model_columns(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "model");
	RetlResult	result;
	Reads		reads = {.result = &result};
	RetlCall	call;
	RetlIdentity saved;
	RetlObject	object;
	RetlModel  *model;

	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, name, false, &object);
	retl_api_require_owner(&call, &object);
	model = retl_model_get(object.id);
	reads.all = is_whole_relation(object.id);
	retl_owner_enter(&saved, model->owner, model->search_path);
	(void) find_relations((Node *) retl_model_analyze(model->query), &reads);
	retl_owner_leave(&saved);
	retl_api_end(&call);
	return (Datum) 0;
}
