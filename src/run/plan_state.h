/*
 * plan_state.h
 *		What the parts of the planner share: the run being planned. Private to
 *		plan.c, brake.c and record.c; it lives for one chunk.
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
	List	   *shapes;			/* of RetlShape, as they come up */
	RetlSqlSet *sql;			/* the mapping's @sql expressions, or NULL */
	RetlSqlSet *filter;			/* its filter, or NULL */

	/* work */
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
extern bool retl_plan_brake(const RunPlan *plan);

/* record.c: one change, into a batch, among the exceptions, or nowhere. */
extern void retl_plan_change(RunPlan *plan, RetlChange *change);

/* record.c: a shape of the model by its number; cached for the chunk. */
extern const RetlShape *retl_plan_shape(RunPlan *plan, int number);

#endif							/* RETL_PLAN_STATE_H */
