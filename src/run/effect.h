/*
 * effect.h
 *		What a request does to a mapping's state before its run is planned:
 *		reset, baseline, resync, replay.
 *
 * Applied in the snapshot's transaction, under the model's lock, when the
 * mapping has no active run: checkpoint and log stand at "seq".
 */
#ifndef RETL_EFFECT_H
#define RETL_EFFECT_H

#include "postgres.h"

/*
 * reset		everything present is sent as added, with every outstanding delete
 * baseline		what is present counts as acknowledged; exceptions are dropped
 * resync		arguments: JSON array of keys; their state now is sent
 * replay		arguments: number of a run; the keys that it sent are sent as they are now
 */
extern void retl_effect_apply(int64 mapping, const char *kind, const char *arguments, int64 seq);

#endif							/* RETL_EFFECT_H */
