/*
 * reading.h
 *		Arguments of create_model and alter_model that say how much of a model
 *		its snapshots read, and for how long. No state.
 */
#ifndef RETL_READING_H
#define RETL_READING_H

#include "postgres.h"

#include "fmgr.h"

#include "api/api.h"
#include "api/query.h"

#define RETL_READING_INTERVALS 4

typedef struct RetlReading
{
	char	   *watermark;		/* NULL: as it is; as the others */
	Datum		intervals[RETL_READING_INTERVALS];
	bool		is_null[RETL_READING_INTERVALS];
	bool		clear[RETL_READING_INTERVALS];
	bool		clear_watermark;
} RetlReading;

/* Arguments n (max_skip) to n + 4 (timeout); as the caller, outside a call. Errors with 22023. */
extern void retl_reading_arguments(FunctionCallInfo fcinfo, int n, RetlReading *reading);

/* Takes a name out of "reset"; false: it is none of these. *given: the argument is given, too. */
extern bool retl_reading_reset(RetlReading *reading, const char *name, bool *given);

extern bool retl_reading_is_given(const RetlReading *reading);

/* Checks the watermark against the model's query, which is analysed, and writes what is given. */
extern void retl_reading_set(const RetlReading *reading, int64 model, const RetlQuery *query);

#endif							/* RETL_READING_H */
