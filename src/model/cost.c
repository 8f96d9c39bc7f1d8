/*
 * cost.c
 *		What hashing and writing a row costs, for the planner.
 *
 * It depends on the number of columns, and decides whether parallel workers
 * pay. Measured in calls of an operator: hashing a column takes 3 of them,
 * writing it as JSON 8.
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"

#define HASH_OPERATORS 3
#define DATA_OPERATORS 8

/* Columns of a row that comes as one argument because it has too many for a function. */
#define RECORD_COLUMNS 200

PG_FUNCTION_INFO_V1(retl_row_hash_support);
PG_FUNCTION_INFO_V1(retl_row_data_support);

static int
columns_of(Node *node)
{
	List	   *args = node != NULL && IsA(node, FuncExpr) ? ((FuncExpr *) node)->args : NIL;

	if (args == NIL || (list_length(args) == 1 && type_is_rowtype(exprType(linitial(args)))))
		return RECORD_COLUMNS;
	return list_length(args);
}

static Datum
answer(Node *node, int operators)
{
	SupportRequestCost *request = (SupportRequestCost *) node;

	if (!IsA(node, SupportRequestCost))
		PG_RETURN_POINTER(NULL);
	request->startup = 0;
	request->per_tuple = (columns_of(request->node) + 1) * operators * cpu_operator_cost;
	PG_RETURN_POINTER(request);
}

Datum
retl_row_hash_support(PG_FUNCTION_ARGS)
{
	return answer((Node *) PG_GETARG_POINTER(0), HASH_OPERATORS);
}

Datum
retl_row_data_support(PG_FUNCTION_ARGS)
{
	return answer((Node *) PG_GETARG_POINTER(0), DATA_OPERATORS);
}
