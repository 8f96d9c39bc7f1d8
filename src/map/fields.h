/*
 * fields.h
 *		Typed fields of an action: values are coerced to the declared type, and
 *		what cannot be is refused.
 *
 * The rules are those that mappings are written for: a number for a string
 * field becomes its text, "42" for a number field becomes 42, one value for a
 * field of several becomes an array of one, null is absent unless the field
 * allows it. There is one rule for a record alone and in a batch: an empty
 * string at the top counts as absent. No shared state, no locks.
 */
#ifndef RETL_FIELDS_H
#define RETL_FIELDS_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "map/connector.h"
#include "map/convert.h"
#include "map/value.h"

typedef struct RetlFieldType RetlFieldType;

struct RetlFieldType
{
	const char *name;
	int			namelen;
	const char *label;
	RetlType	type;
	bool		multiple;		/* an array of it */
	bool		allow_null;
	bool		required;
	const RetlJson *condition;	/* required if it holds of the payload */
	const RetlJson *choices;
	const RetlJson *minimum;
	const RetlJson *maximum;
	char	   *format;
	RetlTimeForm time;			/* of a datetime, or of those in an object */
	const RetlJson *rename;		/* of an object's members, or NULL */
	bool		additional;		/* keep undeclared members */
	int			nproperties;	/* declared members; -1: any */
	RetlFieldType *properties;
	bool		plain;			/* nothing but the type to check */
};

/* "declaration" outlives the result. Errors with 22023. */
extern void retl_field_compile(RetlFieldType *field, const char *name, int namelen,
							   const RetlJson *declaration);

/* Whether a value needs no look: it has the type, and nothing else is asked. */
extern bool retl_field_fits(const RetlFieldType *field, RetlSlice value);

/*
 * The value as the field has it; NULL: absent. What is wrong is appended to
 * *errors (char *, sentences without values of the row).
 */
extern RetlJson *retl_field_coerce(const RetlFieldType *field, RetlJson *value, List **errors);

/*
 * Appends to *errors what a payload lacks. "get" finds a field's value; absent
 * when the payload has none.
 */
extern void retl_fields_require(const RetlFieldType *const *fields, int nfields,
								RetlSlice (*get) (void *arg, const char *name, int len), void *arg,
								List **errors);

#endif							/* RETL_FIELDS_H */
