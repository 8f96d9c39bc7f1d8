/*
 * snapshot.h
 *		One snapshot of a model: execute it, diff it against the checkpoint,
 *		write checkpoint, change log and seq, all in the current transaction.
 *
 * The caller runs as retl_snapshot in a fresh READ COMMITTED transaction
 * without a snapshot, and holds the model's lock in ShareUpdateExclusive mode.
 */
#ifndef RETL_SNAPSHOT_H
#define RETL_SNAPSHOT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "model/model.h"
#include "model/strategy.h"

typedef struct RetlSnapshot
{
	int64		seq;			/* its number */
	int			shape;
	TimestampTz started_at;
	double		seconds;
	int64		rows;			/* rows the model returned */
	int64		added;
	int64		updated;
	int64		deleted;
	int64		set_aside;
	const char *strategy;		/* skipped, keys, watermark, full; skipped: seq is that of the last one */
	char	   *reason;
	double		plan_cost;		/* of the scan, as the planner has it */
	double		plan_rows;
} RetlSnapshot;

/*
 * Takes the snapshot, or finds that the model gives what it gave last.
 * "at_snapshot" is called under the MVCC snapshot that reads the model, before
 * the model is executed: what it reads with the active snapshot is as old as
 * what the model reads. It is told what will be read: of keys, nobody else is served.
 *
 * Locks on what the model reads are released when it has been read.
 *
 * Errors: whatever the model raises; 55000 when the type of a key column has
 * changed. Nothing of a failed snapshot remains once the caller has aborted.
 * "result" is filled in the caller's memory context.
 */
extern void retl_snapshot_take(const RetlModel *model, const RetlWanted *wanted,
							   void (*at_snapshot) (void *arg, RetlScopeKind scope), void *arg,
							   RetlSnapshot *result);

#endif							/* RETL_SNAPSHOT_H */
