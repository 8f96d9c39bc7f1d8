/*
 * plan.h
 *		Planning a run, a chunk a transaction: from changes to batches.
 *
 * Phases, in order: 0 changes that are present, 1 exceptions that are present
 * (stage 0 of the batches), 2 changes that are gone, 3 exceptions that are
 * gone (stage 1: sent when stage 0 is done). The run's row holds phase and
 * position; with the last chunk the mapping's cursor moves.
 */
#ifndef RETL_PLAN_H
#define RETL_PLAN_H

#include "postgres.h"

/*
 * Plans one chunk of a run in the current fresh transaction. Takes the locks
 * it needs without waiting; false when it could not have them, or there was
 * nothing to plan. Errors fail the run, not the caller's business.
 */
extern bool retl_plan_chunk(int64 run);

/*
 * The same for a run that is only tried: writes no batch and no exception, just
 * the run's row and at the end the cursor. The caller rolls it all back.
 */
extern bool retl_plan_chunk_dry(int64 run);

#endif							/* RETL_PLAN_H */
