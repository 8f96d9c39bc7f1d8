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
} RetlSnapshot;

/*
 * Takes the snapshot. "at_snapshot" is called under the MVCC snapshot that
 * reads the model, before the model is executed: what it reads with the active
 * snapshot is as old as what the model reads.
 *
 * Errors: whatever the model raises; 55000 when the type of a key column has
 * changed. Nothing of a failed snapshot remains once the caller has aborted.
 */
extern void retl_snapshot_take(const RetlModel *model, void (*at_snapshot) (void *), void *arg,
							   RetlSnapshot *result);

#endif							/* RETL_SNAPSHOT_H */
