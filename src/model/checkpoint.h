/*
 * checkpoint.h
 *		Writing a model's state: its checkpoint and change log in retl_data.
 *		The one module that does; everything it does is SQL, as retl_snapshot.
 *
 * The caller holds the model's lock in ShareUpdateExclusive mode (or stronger,
 * where a function says so) and has connected SPI.
 */
#ifndef RETL_CHECKPOINT_H
#define RETL_CHECKPOINT_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "model/model.h"
#include "model/row.h"
#include "model/scan.h"

/* Qualified names of the tables, palloc'd. */
extern char *retl_checkpoint_table(int64 model);
extern char *retl_log_table(int64 model, int generation);

/* " COLLATE ..." for key columns that have a collation, else "". */
extern const char *retl_checkpoint_key_collation(const char *type);

/* Appends a key as one text: a JSON scalar, or an object by column; the same as retl.key_data(). */
extern void retl_checkpoint_append_key(StringInfo out, const RetlModel *model,
									   RetlValueWriter *const *writers,
									   const Datum *values, const bool *nulls);

/* Makes the two tables, without the checkpoint's index. */
extern void retl_checkpoint_create(const RetlModel *model, char *const *key_types);

/*
 * After the first scan: the unique index. Rows of duplicate keys are taken out
 * before and counted as set aside.
 */
extern void retl_checkpoint_finish_first(RetlScan *scan);

/*
 * Applies the delta of a scan: change log rows with the row before and after
 * under number "seq", then the checkpoint. Rows to which columns
 * came and nothing else happened change the checkpoint and write no log; a
 * column that goes is a change, so that the row as it was can be had again. Adjusts the scan's counts to
 * what was applied; returns the number of log rows.
 */
extern int64 retl_checkpoint_apply(RetlScan *scan, int64 seq, int generation);

#endif							/* RETL_CHECKPOINT_H */
