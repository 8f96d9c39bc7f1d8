/*
 * parts.h
 *		The parts of a mapping, as create_mapping, alter_mapping and
 *		copy_mapping take it: checked whole, then stored as a new version. What
 *		is edited becomes a new version; batches keep theirs. Inside a call.
 */
#ifndef RETL_PARTS_H
#define RETL_PARTS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "api/api.h"

typedef struct RetlParts
{
	char	   *name;
	char	   *action;
	char	   *fields;
	char	  **records;
	int			nrecords;
	char	   *filter;			/* or NULL */
	char	   *schedule;
	bool		enabled;
	int32		batch_size;		/* 0: NULL */
	char	   *update_when;
	bool		update_when_stored; /* it is as we store it, not as users write it */
	Datum		max_delete_percent;
	Datum		max_change_percent;
	int32		brake_min_rows;
	bool		allow_empty;
	int32		max_attempts;	/* 0: NULL */
	Interval   *max_age;		/* or NULL */
	const char *resend;			/* none, changed, all: what a new version sends again */

	RetlObject	model;
	RetlObject	destination;
} RetlParts;

/* The newest version of a mapping. */
extern void retl_parts_load(int64 mapping, RetlParts *def);

/*
 * Finds model and destination by name, as what a mapping of the caller's may
 * use; errors with 42704, and 42501.
 */
extern void retl_parts_use(const RetlCall *call, RetlObjectKind kind, const char *name, RetlObject *object);

/*
 * Checks values, then compiles the mapping against the connector's action and
 * the model as it is now. @sql and filter run as the model's owner: see
 * run/plan.c. Brings lists into the form in which they are stored.
 */
extern void retl_parts_check(RetlParts *def);

/* Stores a new mapping and returns its id; errors with 42710. */
extern int64 retl_parts_insert(const RetlParts *def, Oid owner);

/*
 * Stores a new version, if anything in it is new or is to be sent again.
 * "enabled" enables; it does not disable: running a script of definitions
 * again stops nothing.
 */
extern void retl_parts_replace(const RetlParts *def, int64 mapping, Oid caller);

#endif							/* RETL_PARTS_H */
