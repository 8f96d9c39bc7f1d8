/*
 * scope.c
 *		Scopes of scans; see scope.h.
 *
 * The bounds are parameters, and stay such in the plan: that is how a
 * condition is found there again. A key is compared twice, as the model has it,
 * for its indexes, and as the checkpoint has it, which decides.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "model/checkpoint.h"
#include "model/scan.h"
#include "model/scope.h"

/* Number of the scope's first parameter. */
static int
first_param(const RetlScan *scan)
{
	return scan->columns->count + 1;
}

static int
count_params(const RetlScan *scan)
{
	switch (scan->scope.kind)
	{
		case RETL_SCOPE_WATERMARK:
			return 1;
		case RETL_SCOPE_KEYS:
			return scan->model->nkeys;
		default:
			return 0;
	}
}

static Oid
watermark_type(const RetlScan *scan)
{
	return getBaseType(scan->columns->types[scan->scope.column]);
}

static Oid
param_type(const RetlScan *scan, int n)
{
	return scan->scope.kind == RETL_SCOPE_WATERMARK ? watermark_type(scan) : scan->scope.keys->types[n];
}

/* TimeZone is pinned. */
static Datum
watermark_value(const RetlScan *scan)
{
	Datum		from = TimestampTzGetDatum(scan->scope.from);

	switch (watermark_type(scan))
	{
		case DATEOID:
			return DirectFunctionCall1(timestamptz_date, from);
		case TIMESTAMPOID:
			return DirectFunctionCall1(timestamptz_timestamp, from);
		default:
			return from;
	}
}

int
retl_scope_param_types(const RetlScan *scan, Oid **types)
{
	int			count = scan->columns->count;
	int			more = count_params(scan);

	*types = palloc(sizeof(Oid) * (count + more));
	memcpy(*types, scan->columns->types, sizeof(Oid) * count);
	for (int i = 0; i < more; i++)
		(*types)[count + i] = param_type(scan, i);
	return count + more;
}

ParamListInfo
retl_scope_params(const RetlScan *scan)
{
	int			count = scan->columns->count;
	int			more = count_params(scan);
	ParamListInfo params;

	if (more == 0)
		return NULL;
	params = makeParamList(count + more);
	for (int i = 0; i < count; i++)
	{
		params->params[i].isnull = true;
		params->params[i].pflags = 0;
		params->params[i].ptype = InvalidOid;
	}
	for (int i = 0; i < more; i++)
	{
		ParamExternData *param = &params->params[count + i];

		param->value = scan->scope.kind == RETL_SCOPE_WATERMARK ?
			watermark_value(scan) : scan->scope.keys->values[i];
		param->isnull = false;
		param->pflags = 0;
		param->ptype = param_type(scan, i);
	}
	return params;
}

void
retl_scope_append_where(StringInfo sql, const RetlScan *scan)
{
	const RetlModelColumns *columns = scan->columns;

	if (scan->scope.kind == RETL_SCOPE_WATERMARK)
		appendStringInfo(sql, " WHERE s.c%d OPERATOR(pg_catalog.>=) $%d OR s.c%d IS NULL",
						 scan->scope.column + 1, first_param(scan), scan->scope.column + 1);
	else if (scan->scope.kind == RETL_SCOPE_KEYS)
	{
		for (int k = 0; k < scan->model->nkeys; k++)
		{
			const char *type = columns->key_types[k];
			bool		as_text;

			appendStringInfo(sql, "%s(s.c%d)::%s%s OPERATOR(pg_catalog.=) ANY ($%d)", k == 0 ? " WHERE " : " AND ",
							 columns->key[k] + 1, type, retl_checkpoint_key_collation(type), first_param(scan) + k);
			(void) retl_model_key_type(columns->types[columns->key[k]], -1, &as_text);
			if (!as_text)
				appendStringInfo(sql, " AND s.c%d OPERATOR(pg_catalog.=) ANY ($%d)",
								 columns->key[k] + 1, first_param(scan) + k);
		}
	}
}

void
retl_scope_append_checkpoint(StringInfo sql, const RetlScan *scan)
{
	const char *table = retl_checkpoint_table(scan->model->id);

	if (scan->scope.kind != RETL_SCOPE_KEYS)
	{
		appendStringInfo(sql, " %s JOIN %s c", scan->scope.kind == RETL_SCOPE_WATERMARK ? "LEFT" : "FULL", table);
		return;
	}
	appendStringInfoString(sql, " FULL JOIN (SELECT ");
	for (int k = 1; k <= scan->model->nkeys; k++)
		appendStringInfo(sql, "c.k%d, ", k);
	appendStringInfo(sql, "c.hash, c.slot FROM %s c WHERE ", table);
	for (int k = 1; k <= scan->model->nkeys; k++)
		appendStringInfo(sql, "%sc.k%d OPERATOR(pg_catalog.=) ANY ($%d)", k > 1 ? " AND " : "", k,
						 first_param(scan) + k - 1);
	appendStringInfoString(sql, ") c");
}

/* --------------------------------------------------------------------------
 * Plans
 * -------------------------------------------------------------------------- */

typedef struct Search
{
	int			first_param;
	Oid			checkpoint;
	List	   *rtable;
} Search;

static bool
mentions_scope(Node *node, void *context)
{
	const Search *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return castNode(Param, node)->paramkind == PARAM_EXTERN &&
			castNode(Param, node)->paramid >= search->first_param;
	return expression_tree_walker(node, mentions_scope, context);
}

static bool
scan_is_restricted(Plan *plan, Search *search)
{
	Scan	   *scan = (Scan *) plan;
	RangeTblEntry *rte;
	List	   *conditions;

	if (scan->scanrelid == 0)
		return false;
	rte = rt_fetch(scan->scanrelid, search->rtable);
	if (rte->rtekind != RTE_RELATION || rte->relid == search->checkpoint)
		return false;
	conditions = plan->qual;
	if (IsA(plan, IndexScan))
		conditions = list_concat_copy(conditions, ((IndexScan *) plan)->indexqualorig);
	else if (IsA(plan, IndexOnlyScan))
		conditions = list_concat_copy(conditions, ((IndexOnlyScan *) plan)->indexqual);
	else if (IsA(plan, BitmapHeapScan))
		conditions = list_concat_copy(conditions, ((BitmapHeapScan *) plan)->bitmapqualorig);
	else if (IsA(plan, ForeignScan))
		conditions = list_concat_copy(conditions, ((ForeignScan *) plan)->fdw_exprs);
	return mentions_scope((Node *) conditions, search);
}

static bool
is_restricted(Plan *plan, Search *search)
{
	List	   *children = NIL;
	ListCell   *lc;

	if (plan == NULL)
		return false;
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_ForeignScan:
			if (scan_is_restricted(plan, search))
				return true;
			break;
		case T_Append:
			children = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			children = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_SubqueryScan:
			children = list_make1(((SubqueryScan *) plan)->subplan);
			break;
		case T_CustomScan:
			children = ((CustomScan *) plan)->custom_plans;
			break;
		default:
			break;
	}
	foreach(lc, children)
		if (is_restricted(lfirst(lc), search))
			return true;
	return is_restricted(plan->lefttree, search) || is_restricted(plan->righttree, search);
}

bool
retl_scope_is_pushed_down(const RetlScan *scan, PlannedStmt *plan)
{
	Search		search;
	ListCell   *lc;

	search.first_param = first_param(scan);
	search.checkpoint = scan->checkpoint;
	search.rtable = plan->rtable;
	if (is_restricted(plan->planTree, &search))
		return true;
	foreach(lc, plan->subplans)
		if (is_restricted(lfirst(lc), &search))
			return true;
	return false;
}
