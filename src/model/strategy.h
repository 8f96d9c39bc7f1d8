/*
 * strategy.h
 *		How much of a model a snapshot reads: nothing, where nothing can have
 *		changed; the rows of some keys; those from a watermark on; all of it.
 *
 * Saving is never the proof: a model is read as a whole from time to time,
 * whatever the evidence says. The caller holds the model's lock in
 * ShareUpdateExclusive mode. No state of its own.
 */
#ifndef RETL_STRATEGY_H
#define RETL_STRATEGY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "model/model.h"
#include "model/reads.h"
#include "model/scan.h"
#include "model/scope.h"

/* What those ask for whom the snapshot is to serve. */
typedef struct RetlWanted
{
	bool		full;			/* the whole model, whatever could be saved */
	const RetlScopeKeys *keys;	/* these keys and nothing else, or NULL */
} RetlWanted;

/* What is remembered of earlier snapshots; retl.model_state. */
typedef struct RetlModelState
{
	int64		seq;
	int			shape;			/* 0: none yet */
	char	  **key_types;
	int64		nslots;
	int			log_generation;
	char	   *definition;		/* evidence, or NULL */
	char	   *writes;
	TimestampTz read_at;		/* when the last snapshot began that was not one of keys */
	TimestampTz full_at;		/* when the last full one began */
	TimestampTz watermark;		/* DT_NOBEGIN: none */
	int64		set_aside;		/* by the last full one */
} RetlModelState;

typedef struct RetlStrategy
{
	/* in */
	const RetlWanted *wanted;
	const RetlModelState *state;
	RetlScan   *scan;
	RetlReads	reads;
	TimestampTz now;

	/* out */
	RetlEvidence evidence;		/* for what is read */
	const char *name;			/* skipped, keys, watermark, full */
	char	   *reason;
	char	   *not_skipped;	/* reason why not */
} RetlStrategy;

/*
 * Chooses the scan's scope, plans the scan, and has it ask, under the snapshot,
 * whether it is needless. "catalogs" is from before the model was analysed.
 */
extern void retl_strategy_choose(RetlStrategy *strategy, const RetlCatalogWrites *catalogs);

/* To be called after the scan: name and reason are final. */
extern void retl_strategy_finish(RetlStrategy *strategy);

#endif							/* RETL_STRATEGY_H */
