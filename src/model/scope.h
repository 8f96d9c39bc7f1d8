/*
 * scope.h
 *		Which part of a model a scan reads: all of it, the rows from a watermark
 *		on, or those of some keys; as conditions in the one statement of
 *		scan.c, and as seen in its plan. No state, no locks.
 */
#ifndef RETL_SCOPE_H
#define RETL_SCOPE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "nodes/params.h"
#include "nodes/plannodes.h"

#include "model/model.h"

typedef enum RetlScopeKind
{
	RETL_SCOPE_ALL,
	RETL_SCOPE_WATERMARK,		/* no deletes: a row that is not read need not be gone */
	RETL_SCOPE_KEYS				/* model and checkpoint, both */
} RetlScopeKind;

/* Keys to read: for each key column an array of its values, in the checkpoint's type. */
typedef struct RetlScopeKeys
{
	int			count;
	int			ncolumns;
	Oid		   *types;			/* of the arrays */
	Datum	   *values;
} RetlScopeKeys;

typedef struct RetlScope
{
	RetlScopeKind kind;
	int			column;			/* the watermark, from 0; -1: the model has none */
	TimestampTz from;			/* WATERMARK: rows from here on, and those without */
	const RetlScopeKeys *keys;	/* KEYS. Every combination of the columns' values is read */
} RetlScope;

struct RetlScan;

/* Adds the types of the scope's parameters, which follow those of the model's columns; returns how many. */
extern int	retl_scope_param_types(const struct RetlScan *scan, Oid **types);

/* Their values, for planning and execution. */
extern ParamListInfo retl_scope_params(const struct RetlScan *scan);

/* " WHERE ..." over the model's columns s.c1 .. s.cn, or nothing. */
extern void retl_scope_append_where(StringInfo sql, const struct RetlScan *scan);

/* The checkpoint as an item of FROM, named c, behind the kind of join that the scope needs. */
extern void retl_scope_append_checkpoint(StringInfo sql, const struct RetlScan *scan);

/* Whether the scope's condition restricts what is read of a table or index of the model. */
extern bool retl_scope_is_pushed_down(const struct RetlScan *scan, PlannedStmt *plan);

#endif							/* RETL_SCOPE_H */
