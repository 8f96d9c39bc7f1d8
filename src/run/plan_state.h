/*
 * plan_state.h
 *		What the parts of the planner share: the run being planned. Private to
 *		plan.c, brake.c, resend.c and record.c; it lives for one chunk.
 */
#ifndef RETL_PLAN_STATE_H
#define RETL_PLAN_STATE_H

#include "postgres.h"

#include "executor/spi.h"
#include "nodes/pg_list.h"

#include "map/mapping.h"
#include "map/sqlexpr.h"
#include "model/model.h"
#include "run/batch.h"
#include "run/stream.h"

#define PHASES 4
#define PHASE_IS_EXCEPTIONS(phase) ((phase) % 2 == 1)
#define PHASE_IS_GONE(phase) ((phase) >= 2)

/* What is sent again because the mapping was edited. */
typedef enum RetlResend
{
	RETL_RESEND_NONE,
	RETL_RESEND_CHANGED,		/* rows of which something else is sent than before */
	RETL_RESEND_ALL
} RetlResend;

typedef struct RunPlan
{
	/* the run */
	int64		run;
	bool		dry;			/* only counted */
	int64		from_seq;		/* -1: nothing sent yet */
	int64		to_seq;
	int			phase;
	char	   *position;
	bool		stopping;
	bool		release;
	bool		reset;			/* every row is sent, as added */
	char	   *timestamp;		/* of the snapshot, ISO 8601 */

	/* its mapping */
	int64		mapping_id;
	int			version;
	int64		destination;
	bool		wants[3];		/* by RetlOperation */
	char	   *update_when;
	List	   *update_columns; /* names, when update_when lists them */
	RetlMapping *mapping;
	char	   *instance;

	/* its model */
	RetlModel  *model;
	char	  **key_types;
	int			log_generation;
	int			shape;			/* of the snapshot */
	bool		shapes_vary;	/* between the two snapshots of the run */
	List	   *shapes;			/* of RetlShape, as they come up */
	List	   *projections;	/* of Projection (record.c), as they come up */
	RetlSqlSet *sql;			/* the mapping's @sql expressions, or NULL */
	RetlSqlSet *filter;			/* its filter, or NULL */

	/* the version that planned last, where something is to be sent again */
	RetlResend	resend;
	RetlMapping *before;		/* NULL: unknown, everything counts as changed */
	RetlSqlSet *before_sql;		/* or NULL */
	RetlSqlSet *before_filter;	/* or NULL */
	bool		keep_version;	/* what is to be sent again is left to another run */

	/* work */
	bool		counting;		/* for a brake: nothing is written */
	RetlBatchWriter *writer;
	bool		has_exceptions;
	SPIPlanPtr	is_exception;
	int64		added;
	int64		updated;
	int64		deleted;
	int64		unmapped;
	MemoryContext scratch;
	MemoryContext context;
} RunPlan;

/* brake.c: whether a brake holds the run, which is then recorded. */
extern bool retl_plan_brake(RunPlan *plan);

/* resend.c: what the run sends again, and the earlier version. */
extern void retl_plan_load_resend(RunPlan *plan, const char *connector, const char *action,
								  const char *settings);

/*
 * brake.c: counts what the run would send of its changes, or of all rows where
 * rows are sent again, into added, updated and deleted.
 */
extern void retl_plan_count(RunPlan *plan);

/* record.c: whether the mapping's filter lets the row through; never on an error. */
extern bool retl_plan_passes(RunPlan *plan, const char *key, const RetlStored *stored);

/* record.c: one change, into a batch, among the exceptions, or nowhere. */
extern void retl_plan_change(RunPlan *plan, RetlChange *change);

/* record.c: a shape of the model by its number; cached for the chunk. */
extern const RetlShape *retl_plan_shape(RunPlan *plan, int number);

#endif							/* RETL_PLAN_STATE_H */
