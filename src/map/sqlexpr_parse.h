/*
 * sqlexpr_parse.h
 *		From the text of an @sql expression to a checked, planned expression.
 *		Internal to sqlexpr.c and sqlexpr_parse.c. No shared state, no locks.
 */
#ifndef RETL_SQLEXPR_PARSE_H
#define RETL_SQLEXPR_PARSE_H

#include "postgres.h"

#include "nodes/primnodes.h"

#include "model/row.h"

/* What an expression may refer to. */
typedef enum RetlSqlInputKind
{
	RETL_SQL_COLUMN,
	RETL_SQL_OLD,
	RETL_SQL_CHANGED,
	RETL_SQL_OPERATION
} RetlSqlInputKind;

/* One thing that an expression does refer to: Var (1, number + 1). */
typedef struct RetlSqlInput
{
	RetlSqlInputKind kind;
	int			column;			/* in the shape; -1 unless RETL_SQL_COLUMN */
	Oid			type;
	int32		typmod;
	Oid			collation;
} RetlSqlInput;

/* The inputs of all expressions of a set, in the order in which they were met. */
typedef struct RetlSqlInputs
{
	const RetlShape *shape;
	int			count;
	int			size;
	RetlSqlInput *inputs;
} RetlSqlInputs;

/*
 * Parses, checks and plans one expression; number (from 1) is for messages.
 * Adds to "inputs" what it refers to. Call it inside retl_owner_enter().
 */
extern Expr *retl_sql_parse(RetlSqlInputs *inputs, int number, const char *text);

#endif							/* RETL_SQLEXPR_PARSE_H */
