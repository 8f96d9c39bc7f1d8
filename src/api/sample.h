/*
 * sample.h
 *		Rows of a model as they are now, mapped as the planner would map them:
 *		what preview_mapping and test_mapping show. Nothing is stored or cached.
 */
#ifndef RETL_SAMPLE_H
#define RETL_SAMPLE_H

#include "postgres.h"

#include "map/mapping.h"

typedef struct RetlSample RetlSample;

typedef struct RetlSampleRow
{
	char	   *key;			/* JSON text */
	RetlOperation operation;
	char	   *payload;		/* JSON text; NULL: see error */
	char	   *request;		/* {"method", "url", "headers"}, as batches store it; NULL: see error */
	char	   *body;
	char	   *error;			/* why it would not be sent, or NULL */
} RetlSampleRow;

/*
 * Inside a call, after the caller's rights were checked: begins to read the
 * mapping's model, or the one row that has "key" (JSON text) where that is not
 * NULL. Rows that the filter rejects are passed over, unless asked for by key. Errors:
 * what the mapping's next run would fail with; 22023 for what is no key.
 */
extern RetlSample *retl_sample_open(int64 mapping, const char *key, const char *message_id);

/* The next row, in the current memory context; false when there is none. */
extern bool retl_sample_next(RetlSample *sample, RetlSampleRow *row);

extern void retl_sample_close(RetlSample *sample);

/* Of the mapping's destination. */
extern int64 retl_sample_destination(const RetlSample *sample);
extern const char *retl_sample_connector(const RetlSample *sample);
extern const char *retl_sample_settings(const RetlSample *sample);

#endif							/* RETL_SAMPLE_H */
