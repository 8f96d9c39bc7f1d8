/*
 * wanted.h
 *		How much of a model its requests ask for: all of it at any cost, or some
 *		keys and nothing else. No state; reads requests.
 */
#ifndef RETL_WANTED_H
#define RETL_WANTED_H

#include "postgres.h"

#include "model/strategy.h"

/*
 * What the requests in ids[], all of one model, ask for together, in the
 * current memory context. Keys only where every request is one for keys, of a
 * mapping that has been synced: any other needs to know the rest, too.
 */
extern void retl_wanted(const RetlModel *model, const int64 *ids, int count, RetlWanted *wanted);

#endif							/* RETL_WANTED_H */
