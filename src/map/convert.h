/*
 * convert.h
 *		Values in the form that a destination wants them in: points in time as
 *		Unix seconds, milliseconds or ISO 8601, and members of objects under the names
 *		it knows. No state.
 */
#ifndef RETL_CONVERT_H
#define RETL_CONVERT_H

#include "postgres.h"

#include "base/json.h"

typedef enum RetlTimeForm
{
	RETL_TIME_AS_IT_IS,
	RETL_TIME_UNIX,				/* whole seconds */
	RETL_TIME_UNIX_MS,
	RETL_TIME_UNIX_US,
	RETL_TIME_ISO,				/* 2023-04-05T06:07:08.000Z; ISO 8601 with a zone stays as it is */
	RETL_TIME_DATE				/* 2023-04-05, in UTC */
} RetlTimeForm;

/* The form of this name ("unix", "unix_ms", "unix_us", "iso", "date"); false: there is none. */
extern bool retl_time_form(const RetlJson *name, RetlTimeForm *form);

/*
 * A date, a date and time (UTC where it has no zone), or a number of Unix seconds,
 * milliseconds or microseconds, in another form; NULL: it is none of these.
 */
extern RetlJson *retl_convert_time(RetlJson *value, RetlTimeForm form);

/* Strings at any depth that are a date with a time of day, in another form. */
extern RetlJson *retl_convert_times(RetlJson *value, RetlTimeForm form);

/* The same object, its members renamed as "names" ({FROM: TO}) has it. */
extern RetlJson *retl_convert_names(const RetlJson *object, const RetlJson *names);

#endif							/* RETL_CONVERT_H */
