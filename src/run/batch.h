/*
 * batch.h
 *		Writing the ledger: records gathered into batches, one HTTP request
 *		each, persisted with keys and idempotency key before anything is sent;
 *		and records that cannot be sent, as exceptions.
 *
 * The caller holds the mapping's lock and has connected SPI. Memory is bounded
 * by the few batches that are open and those waiting to be inserted.
 */
#ifndef RETL_BATCH_H
#define RETL_BATCH_H

#include "postgres.h"

#include "map/mapping.h"
#include "run/stream.h"

typedef struct RetlBatchWriter RetlBatchWriter;

/* "stage" as in retl.batch. The writer lives in the current memory context. */
extern RetlBatchWriter *retl_batch_writer(RetlMapping *mapping, int64 run, int64 mapping_id,
										  int mapping_version, int64 destination, int stage);

/* Makes the writer count without writing anything. */
extern void retl_batch_dry(RetlBatchWriter *writer);

/* Adds a record to an open batch of its group, closing batches that are full. */
extern void retl_batch_add(RetlBatchWriter *writer, RetlOperation operation, const char *key,
						   const char *group, const char *record, int record_len);

/* Adds an exception: "acked" is the row as last acknowledged; "maybe": it is to be sent whatever it is. */
extern void retl_batch_add_exception(RetlBatchWriter *writer, RetlOperation operation,
									 const char *key, const char *reason, const char *error,
									 const RetlStored *acked, bool maybe);

/* Closes and writes all that is open. */
extern void retl_batch_flush(RetlBatchWriter *writer);

/* Totals so far. */
extern int64 retl_batch_count(const RetlBatchWriter *writer);
extern int64 retl_batch_bytes(const RetlBatchWriter *writer);

#endif							/* RETL_BATCH_H */
