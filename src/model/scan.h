/*
 * scan.h
 *		One execution of a model: the statement that joins it with its
 *		checkpoint, run as the model's owner into a receiver of our own.
 *
 * The caller holds the model's lock in ShareUpdateExclusive mode and no MVCC
 * snapshot. No shared state but the filter's (filter.h), no locks.
 */
#ifndef RETL_SCAN_H
#define RETL_SCAN_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "nodes/plannodes.h"

#include "model/filter.h"
#include "model/model.h"
#include "model/scope.h"

/* How the model's columns look now; read before the checkpoint is touched. */
typedef struct RetlModelColumns
{
	Query	   *query;			/* analysed, relations locked */
	int			count;
	Oid		   *types;
	char	  **names;
	int		   *key;			/* column numbers of the key, from 0 */
	char	  **key_types;		/* SQL types in the checkpoint */
	char	   *shape;			/* JSON: [{"name", "type"}, ...] */
} RetlModelColumns;

#define RETL_SAMPLE_SIZE 5

/* What to scan and what was found; palloc it on its own, samples are put beside it. Kinds in the delta: a(dded), u(pdated), d(eleted), x (duplicate of a known key). */
typedef struct RetlScan
{
	/* in */
	const RetlModel *model;
	const RetlModelColumns *columns;
	Relation	into;			/* first snapshot: the empty checkpoint, else NULL */
	int			shape;			/* number of the rows' shape */
	int64		nslots;			/* slots in use in the checkpoint */
	bool		all;			/* pass every matched row: the shape has changed */
	RetlScope	scope;
	ResourceOwner lasting;		/* owns the delta, which outlives the scan's locks */
	void		(*at_snapshot) (void *arg, RetlScopeKind scope); /* called under the MVCC snapshot, before execution */
	void	   *arg;
	bool		(*is_needless) (void *needless_arg);	/* called after that, if not NULL: true: do not execute */
	void	   *needless_arg;

	/* from planning */
	Oid			checkpoint;
	char	   *sql;
	PlannedStmt *plan;

	/* out */
	bool		executed;
	Tuplestorestate *delta;		/* k1 .. kn, kind "char", hash int8, data json */
	TupleDesc	delta_desc;
	int64		rows;			/* rows the model returned */
	int64		matched;		/* keys found in the checkpoint */
	int64		added;
	int64		updated;
	int64		deleted;
	int64		duplicates;		/* further rows of keys found in the checkpoint */
	TimestampTz watermark;		/* greatest that is finite; DT_NOBEGIN: none */
	int64		set_aside;		/* rows with NULL or too long keys, and of known keys that come twice */
	int			nsamples;
	char	   *samples[RETL_SAMPLE_SIZE];	/* JSON {"key", "reason"} */
	RetlFilter *filter;			/* not in a first snapshot; the caller ends it */
} RetlScan;

/*
 * Analyses the model as its owner. Errors: what analysis raises; 42703 when a
 * key column is gone.
 */
extern RetlModelColumns *retl_scan_columns(const RetlModel *model);

/*
 * Plans the statement for the scan's scope. False: the scope is not all of the
 * model, and the planner cannot push it down to what the model reads; the model
 * had better be read as a whole.
 */
extern bool retl_scan_plan(RetlScan *scan);

/* Takes the one MVCC snapshot, and executes what was planned. Results in *scan. */
extern void retl_scan_run(RetlScan *scan);

#endif							/* RETL_SCAN_H */
