/*
 * dry.h
 *		A run that is tried: snapshot and plan as the worker does them, counted
 *		and rolled back.
 */
#ifndef RETL_DRY_H
#define RETL_DRY_H

#include "postgres.h"

typedef struct RetlDryRun
{
	int64		added;
	int64		updated;
	int64		deleted;
	int64		unchanged;
	int64		set_aside;
	int64		failed_to_retry;	/* exceptions that it works off */
	int64		unmapped;		/* records that cannot be mapped */
	int64		requests;
	int64		bytes;
	char	   *strategy;		/* how much of the model it reads, and why */
	char	   *strategy_reason;
	double		plan_cost;
	double		plan_rows;
	char	   *brake;			/* what would hold it, or NULL */
} RetlDryRun;

/*
 * Does with the mapping what a sync would do now, with the effects of requests
 * that wait, but writes no batches. The caller has begun a subtransaction, runs
 * as retl_snapshot with the settings pinned, holds the locks of mapping
 * (ExclusiveLock) and model (ShareUpdateExclusiveLock), and rolls back. Errors:
 * what the sync would fail with, and 55006 while the mapping has an active run.
 */
extern void retl_dry_run(int64 mapping, RetlDryRun *result);

#endif							/* RETL_DRY_H */
