/*
 * run.h
 *		The life of a run: from requests that a snapshot saw, to its end.
 *
 * A run is made and ended by the snapshot worker; the delivery worker ends it
 * too where every record was accepted and nothing is left to settle. The
 * caller is in a transaction of its own and runs as retl_snapshot.
 */
#ifndef RETL_RUN_H
#define RETL_RUN_H

#include "postgres.h"

#include "model/snapshot.h"

/*
 * Turns the requests in ids[] into runs of the snapshot: one for each mapping
 * that has no active run, further requests of the mapping merged into it. The
 * caller holds the model's lock in ShareUpdateExclusive mode. Requests and
 * mappings that a session has locked are left for a later snapshot; false when
 * that is all of them.
 */
extern bool retl_run_serve(const int64 *ids, int count, const RetlSnapshot *snapshot);

/*
 * Their model could not be read: those of mappings without an active run become
 * failed runs. False when none could be had.
 */
extern bool retl_run_fail_requests(const int64 *ids, int count, const ErrorData *error);

/*
 * A chunk could not be planned. A run of which nothing was sent fails at once;
 * else it is stopped: what is left of it becomes exceptions, then it fails. False
 * when it was being stopped already: that cannot be done either, for now.
 */
extern bool retl_run_fail_plan(int64 run, const ErrorData *error);

/*
 * Ends a run that is planned and has no open batch, or that is stopped and has
 * none in flight: fills in what its exceptions had acknowledged before, frees
 * the mapping. False when it could not have the locks or the run is not ready.
 */
extern bool retl_run_end(int64 run);

#endif							/* RETL_RUN_H */
