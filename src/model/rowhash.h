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
