/*
 * changelog.h
 *		Keeping a model's change log small: emptied when nobody needs it,
 *		compacted when a mapping that lags pins it.
 *
 * The log is compacted, never cut: between two neighbouring cursors at most
 * one net row a key remains. So a mapping that is disabled, held or failing
 * loses nothing and costs at most one row a key.
 */
#ifndef RETL_CHANGELOG_H
#define RETL_CHANGELOG_H

#include "postgres.h"

/* SQL text: models whose log is worth tidying. */
#define RETL_CHANGELOG_TIDY_ROWS 10000

extern const char *const retl_changelog_due;

/*
 * Empties or compacts the log of a model, in the current transaction. Takes
 * the model's lock in AccessExclusiveLock mode without waiting; false when it
 * could not have it, or there was nothing to do.
 */
extern bool retl_changelog_tidy(int64 model);

#endif							/* RETL_CHANGELOG_H */
