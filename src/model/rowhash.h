/*
 * rowhash.h
 *		64 bits that stand for the columns of a row.
 *
 * Rows of the same column types hash equal when their values have the same
 * text form under the settings pinned by retl_owner_enter(), and nearly surely
 * only then. -0 is 0; lower bounds of arrays do not count, as they are not in
 * stored rows. Checkpoints hold these numbers, so they never change: not with
 * a restart, a release, a dump and restore on a machine of the same byte
 * order, or a type that was dropped and created anew. Frozen by
 * test/sql/row_hash.sql.
 *
 * A hash is compared only with the one that the same key had in the snapshot
 * before. So what can be missed is a row that did change and hashes as before:
 * a chance of 2^-64 for each changed row, whatever the number of rows. Where
 * all of 100 million rows change in every snapshot, one change is missed in
 * 1.8 * 10^11 snapshots; where 1 % do, in 1.8 * 10^13. (That some two of the
 * rows hash alike, which has a chance of 1 in 3,700, does no harm.)
 *
 * The hash has no key: somebody who chooses values may make two rows collide,
 * and then loses changes of these rows.
 */
#ifndef RETL_ROWHASH_H
#define RETL_ROWHASH_H

#include "postgres.h"

#include "model/type.h"

/* Hashes "count" columns; the types as retl_type_describe() made them. */
extern int64 retl_rowhash(int count, RetlType *const *types, const NullableDatum *values);

#endif							/* RETL_ROWHASH_H */
