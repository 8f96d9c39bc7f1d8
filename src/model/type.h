/*
 * type.h
 *		What hashing and writing values need to know of a type, looked up once
 *		for each place that handles values of it.
 *
 * Domains are described as their base type. A description belongs to one place
 * in one statement: it holds scratch space and is not told of ALTER TYPE. It
 * lives in the memory context in which it was made. No shared state, no locks.
 */
#ifndef RETL_TYPE_H
#define RETL_TYPE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "access/tupmacs.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/typcache.h"

#include "base/compat.h"

typedef enum RetlTypeKind
{
	RETL_TYPE_OTHER,			/* known by its text form only */
	RETL_TYPE_BOOL,
	RETL_TYPE_INT2,
	RETL_TYPE_INT4,
	RETL_TYPE_INT8,
	RETL_TYPE_FLOAT4,
	RETL_TYPE_FLOAT8,
	RETL_TYPE_NUMERIC,
	RETL_TYPE_TEXT,				/* varlena whose bytes are its text form */
	RETL_TYPE_NAME,
	RETL_TYPE_CSTRING,
	RETL_TYPE_BYTEA,
	RETL_TYPE_JSON,
	RETL_TYPE_JSONB,
	RETL_TYPE_DATE,
	RETL_TYPE_TIMESTAMP,
	RETL_TYPE_TIMESTAMPTZ,
	RETL_TYPE_TIME,
	RETL_TYPE_TIMETZ,
	RETL_TYPE_INTERVAL,
	RETL_TYPE_UUID,
	RETL_TYPE_OID,
	RETL_TYPE_MONEY,
	RETL_TYPE_ENUM,
	RETL_TYPE_ARRAY,
	RETL_TYPE_COMPOSITE,
	RETL_TYPE_RANGE,
	RETL_TYPE_MULTIRANGE
} RetlTypeKind;

typedef struct RetlType RetlType;

typedef struct RetlEnumLabel
{
	Oid			oid;
	const char *label;
	int			len;
} RetlEnumLabel;

struct RetlType
{
	RetlTypeKind kind;
	Oid			oid;			/* of the base type */
	int16		len;
	bool		byval;
	char		align;
	FmgrInfo	output;			/* set when first needed */

	RetlType   *element;		/* of an array, range, multirange (the range) */
	TypeCacheEntry *range;		/* of a range */

	RetlEnumLabel *labels;		/* those met so far, by OID */
	int			nlabels;
	int			labels_size;

	/* Of the composite type whose value was met last */
	TupleDesc	tupdesc;
	MemoryContext tupdesc_context;	/* holds it and what follows */
	RetlType  **attributes;		/* NULL for dropped ones */
	const char **names_json;	/* set by the writer: "name": of each */
	Datum	   *values;
	bool	   *nulls;
	int			nattributes;	/* without dropped ones */

	MemoryContext context;
};

/* Describes a type in the current memory context. */
extern RetlType *retl_type_describe(Oid oid);

/* The text form by the type's output function. */
extern char *retl_type_text(RetlType *type, Datum value);

/* Appends a value as JSON; the same as retl_value_write(), see row.h. */
extern void retl_type_write(RetlType *type, StringInfo out, Datum value, bool isnull);

/* The label of an enum value; lives as long as the description. */
extern const RetlEnumLabel *retl_type_enum_label(RetlType *type, Oid value);

/*
 * Takes a composite value apart into type->values and type->nulls, by
 * type->tupdesc.
 */
extern void retl_type_deform(RetlType *type, HeapTupleHeader tuple);

/*
 * Detoasts a value whose alignment matters. Small ones, as they lie in tuples,
 * are copied to "room", which spares an allocation; the result may point there.
 */
typedef union RetlRoom
{
	char		data[VARATT_SHORT_MAX + VARHDRSZ];
	int64		align;
} RetlRoom;

extern struct varlena *retl_type_detoast(Datum value, RetlRoom *room);

/* A walk through the elements of an array, in storage order. */
typedef struct RetlArrayWalk
{
	RetlType   *element;
	int			ndim;
	const int  *dims;
	int			left;			/* elements still to come */
	char	   *at;
	const bits8 *nulls;			/* NULL: there are none */
	int			bit;
} RetlArrayWalk;

extern void retl_type_array_begin(RetlArrayWalk *walk, RetlType *type, struct varlena *array);

static inline bool
retl_type_array_next(RetlArrayWalk *walk, Datum *value, bool *isnull)
{
	const RetlType *element = walk->element;

	if (walk->left == 0)
		return false;
	walk->left--;
	*isnull = false;
	if (walk->nulls != NULL)
	{
		*isnull = (walk->nulls[walk->bit / 8] & (1 << (walk->bit % 8))) == 0;
		walk->bit++;
		if (*isnull)
			return true;
	}
	*value = fetch_att(walk->at, element->byval, element->len);
	walk->at = att_addlength_pointer(walk->at, element->len, walk->at);
	walk->at = (char *) att_align_nominal(walk->at, element->align);
	return true;
}

/*
 * The arguments of a function call from number "first" on, for functions of
 * VARIADIC "any": their values and described types, the latter kept at the
 * call site. A call with VARIADIC has the array's elements for arguments;
 * count is -1 when that array is NULL.
 */
typedef struct RetlArguments
{
	int			count;
	RetlType  **types;
	NullableDatum *values;
	void	   *extra;			/* the function's own, NULL at first */
} RetlArguments;

extern RetlArguments *retl_type_arguments(FunctionCallInfo fcinfo, int first);

/* The one composite argument of a function, taken apart (see retl_type_deform). */
extern RetlType *retl_type_record_argument(FunctionCallInfo fcinfo);

#endif							/* RETL_TYPE_H */
