/*
 * filter.h
 *		What a scan passes all joined rows through: it finds the rows that
 *		differ, counts the others, and notices keys that come twice.
 *
 * Owns a dynamic shared memory segment for each scan, made by the process that
 * runs the scan and written, without locks, by it and its parallel workers: two
 * bits for each slot of the checkpoint, and counters.
 */
#ifndef RETL_FILTER_H
#define RETL_FILTER_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

typedef struct RetlFilter RetlFilter;

/*
 * For a checkpoint of "nslots" slots; with "all" every matched row passes. The
 * segment goes with the current resource owner, or by retl_filter_end().
 */
extern RetlFilter *retl_filter_begin(int64 nslots, bool all);
extern void retl_filter_end(RetlFilter *filter);

/*
 * " WHERE ..." of the statement, over these columns: hash of the row, hash and
 * slot of the checkpoint, and the watermark of the row or NULL.
 */
extern void retl_filter_append_where(StringInfo sql, const RetlFilter *filter, const char *hash,
									 const char *checkpoint_hash, const char *slot, const char *watermark);

/* From begin to end of the execution; one at a time in a process. */
extern void retl_filter_activate(RetlFilter *filter);

/* Rows with keys known to the checkpoint that were read so far, roughly. */
extern int64 retl_filter_rows(const RetlFilter *filter);

/* After the execution: the greatest watermark that is finite; DT_NOBEGIN: none. */
extern TimestampTz retl_filter_watermark(const RetlFilter *filter);

/* Whether the key in a slot came more than once, as far as is known yet. */
extern bool retl_filter_twice(const RetlFilter *filter, int64 slot);

/* After the execution: slots met, slots met more than once, and rows beyond the first of a slot. */
extern void retl_filter_count(const RetlFilter *filter, int64 *matched, int64 *twice, int64 *duplicates);

/*
 * After an execution that read the whole model: up to "count" slots that were
 * not met. Rows in them are to be deleted, so the slots are free. Returns how
 * many there are.
 */
extern int64 retl_filter_free_slots(const RetlFilter *filter, int64 count, int64 *slots);

#endif							/* RETL_FILTER_H */
