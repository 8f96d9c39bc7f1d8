/*
 * type.c
 *		Descriptions of types, and taking values of composed types apart; see
 *		type.h.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "model/type.h"

/* Kinds of built-in types; the others follow from pg_type. */
static bool
built_in_kind(Oid oid, RetlTypeKind *kind)
{
	switch (oid)
	{
		case BOOLOID:
			*kind = RETL_TYPE_BOOL;
			return true;
		case INT2OID:
			*kind = RETL_TYPE_INT2;
			return true;
		case INT4OID:
			*kind = RETL_TYPE_INT4;
			return true;
		case INT8OID:
			*kind = RETL_TYPE_INT8;
			return true;
		case FLOAT4OID:
			*kind = RETL_TYPE_FLOAT4;
			return true;
		case FLOAT8OID:
			*kind = RETL_TYPE_FLOAT8;
			return true;
		case NUMERICOID:
			*kind = RETL_TYPE_NUMERIC;
			return true;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			*kind = RETL_TYPE_TEXT;
			return true;
		case NAMEOID:
			*kind = RETL_TYPE_NAME;
			return true;
		case CSTRINGOID:
		case UNKNOWNOID:
			*kind = RETL_TYPE_CSTRING;
			return true;
		case BYTEAOID:
			*kind = RETL_TYPE_BYTEA;
			return true;
		case JSONOID:
			*kind = RETL_TYPE_JSON;
			return true;
		case JSONBOID:
			*kind = RETL_TYPE_JSONB;
			return true;
		case DATEOID:
			*kind = RETL_TYPE_DATE;
			return true;
		case TIMESTAMPOID:
			*kind = RETL_TYPE_TIMESTAMP;
			return true;
		case TIMESTAMPTZOID:
			*kind = RETL_TYPE_TIMESTAMPTZ;
			return true;
		case TIMEOID:
			*kind = RETL_TYPE_TIME;
			return true;
		case TIMETZOID:
			*kind = RETL_TYPE_TIMETZ;
			return true;
		case INTERVALOID:
			*kind = RETL_TYPE_INTERVAL;
			return true;
		case UUIDOID:
			*kind = RETL_TYPE_UUID;
			return true;
		case OIDOID:
			*kind = RETL_TYPE_OID;
			return true;
		case MONEYOID:
			*kind = RETL_TYPE_MONEY;
			return true;
		case RECORDOID:
			*kind = RETL_TYPE_COMPOSITE;
			return true;
		case ANYARRAYOID:		/* a column of pg_statistic */
			*kind = RETL_TYPE_ARRAY;
			return true;
		default:
			return false;
	}
}

RetlType *
retl_type_describe(Oid oid)
{
	RetlType   *type = palloc0(sizeof(RetlType));
	Oid			element;

	type->context = CurrentMemoryContext;
	type->oid = getBaseType(oid);
	get_typlenbyvalalign(type->oid, &type->len, &type->byval, &type->align);

	if (built_in_kind(type->oid, &type->kind))
		return type;
	if (OidIsValid(element = get_element_type(type->oid)))
	{
		type->kind = RETL_TYPE_ARRAY;
		type->element = retl_type_describe(element);
		return type;
	}
	switch (get_typtype(type->oid))
	{
		case TYPTYPE_ENUM:
			type->kind = RETL_TYPE_ENUM;
			break;
		case TYPTYPE_COMPOSITE:
			type->kind = RETL_TYPE_COMPOSITE;
			break;
		case TYPTYPE_RANGE:
			type->kind = RETL_TYPE_RANGE;
			type->range = lookup_type_cache(type->oid, TYPECACHE_RANGE_INFO);
			type->element = retl_type_describe(type->range->rngelemtype->type_id);
			break;
		case TYPTYPE_MULTIRANGE:
			type->kind = RETL_TYPE_MULTIRANGE;
			type->element = retl_type_describe(get_multirange_range(type->oid));
			break;
		default:
			type->kind = RETL_TYPE_OTHER;
	}
	return type;
}

char *
retl_type_text(RetlType *type, Datum value)
{
	if (type->output.fn_oid == InvalidOid)
	{
		Oid			function;
		bool		is_varlena;

		getTypeOutputInfo(type->oid, &function, &is_varlena);
		fmgr_info_cxt(function, &type->output, type->context);
	}
	return OutputFunctionCall(&type->output, value);
}

const RetlEnumLabel *
retl_type_enum_label(RetlType *type, Oid value)
{
	int			low = 0;
	int			high = type->nlabels;
	HeapTuple	tuple;
	MemoryContext caller;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (type->labels[middle].oid == value)
			return &type->labels[middle];
		if (type->labels[middle].oid < value)
			low = middle + 1;
		else
			high = middle;
	}

	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid internal value for enum: %u", value)));
	caller = MemoryContextSwitchTo(type->context);
	if (type->nlabels == type->labels_size)
	{
		type->labels_size = Max(8, type->labels_size * 2);
		type->labels = type->labels == NULL
			? palloc(type->labels_size * sizeof(RetlEnumLabel))
			: repalloc(type->labels, type->labels_size * sizeof(RetlEnumLabel));
	}
	memmove(&type->labels[low + 1], &type->labels[low],
			(type->nlabels - low) * sizeof(RetlEnumLabel));
	type->nlabels++;
	type->labels[low].oid = value;
	type->labels[low].label = pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	type->labels[low].len = strlen(type->labels[low].label);
	MemoryContextSwitchTo(caller);
	ReleaseSysCache(tuple);
	return &type->labels[low];
}

/* ---- composites ---- */

static void
set_tupdesc(RetlType *type, Oid tuple_type, int32 tuple_typmod)
{
	MemoryContext caller;
	TupleDesc	tupdesc;

	type->tupdesc = NULL;
	if (type->tupdesc_context != NULL)
		MemoryContextReset(type->tupdesc_context);
	else
		type->tupdesc_context = AllocSetContextCreate(type->context, "retl composite type",
													  ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(type->tupdesc_context);
	tupdesc = lookup_rowtype_tupdesc_copy(tuple_type, tuple_typmod);
	tupdesc->tdtypeid = tuple_type;
	tupdesc->tdtypmod = tuple_typmod;
	type->names_json = NULL;
	type->attributes = palloc0(tupdesc->natts * sizeof(RetlType *));
	type->values = palloc(tupdesc->natts * sizeof(Datum));
	type->nulls = palloc(tupdesc->natts * sizeof(bool));
	type->nattributes = 0;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		if (TupleDescAttr(tupdesc, i)->attisdropped)
			continue;
		type->attributes[i] = retl_type_describe(TupleDescAttr(tupdesc, i)->atttypid);
		type->nattributes++;
	}
	MemoryContextSwitchTo(caller);
	type->tupdesc = tupdesc;
}

void
retl_type_deform(RetlType *type, HeapTupleHeader tuple)
{
	Oid			tuple_type = HeapTupleHeaderGetTypeId(tuple);
	int32		tuple_typmod = HeapTupleHeaderGetTypMod(tuple);
	HeapTupleData wrapped;

	if (type->tupdesc == NULL || type->tupdesc->tdtypeid != tuple_type ||
		type->tupdesc->tdtypmod != tuple_typmod)
		set_tupdesc(type, tuple_type, tuple_typmod);

	wrapped.t_len = HeapTupleHeaderGetDatumLength(tuple);
	ItemPointerSetInvalid(&wrapped.t_self);
	wrapped.t_tableOid = InvalidOid;
	wrapped.t_data = tuple;
	heap_deform_tuple(&wrapped, type->tupdesc, type->values, type->nulls);
}

/* ---- arrays ---- */

struct varlena *
retl_type_detoast(Datum value, RetlRoom *room)
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(value);

	/* a pointer to a toasted value has a short header too */
	if (VARATT_IS_SHORT(stored) && !VARATT_IS_EXTERNAL(stored))
	{
		int			len = VARSIZE_SHORT(stored) - VARHDRSZ_SHORT;

		SET_VARSIZE(room->data, len + VARHDRSZ);
		memcpy(room->data + VARHDRSZ, VARDATA_SHORT(stored), len);
		return (struct varlena *) room->data;
	}
	return pg_detoast_datum(stored);
}

void
retl_type_array_begin(RetlArrayWalk *walk, RetlType *type, struct varlena *varlena)
{
	ArrayType  *array = (ArrayType *) varlena;

	if (type->element == NULL ||
		(type->oid == ANYARRAYOID && type->element->oid != ARR_ELEMTYPE(array)))
	{
		MemoryContext caller = MemoryContextSwitchTo(type->context);

		type->element = retl_type_describe(ARR_ELEMTYPE(array));
		MemoryContextSwitchTo(caller);
	}
	walk->element = type->element;
	walk->ndim = ARR_NDIM(array);
	walk->dims = ARR_DIMS(array);
	walk->left = ArrayGetNItems(walk->ndim, walk->dims);
	walk->at = ARR_DATA_PTR(array);
	walk->nulls = ARR_NULLBITMAP(array);
	walk->bit = 0;
}

/* ---- arguments ---- */

typedef struct CallSite
{
	RetlArguments arguments;
	bool		spread;			/* called with VARIADIC */
	RetlType   *array;			/* then: type of the array */
	int			size;			/* and room in the arguments' arrays */
} CallSite;

static RetlType *
describe_argument(FunctionCallInfo fcinfo, int number)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, number);

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not determine data type of argument %d", number + 1)));
	return retl_type_describe(type);
}

static CallSite *
call_site(FunctionCallInfo fcinfo, int first)
{
	MemoryContext caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	CallSite   *site = palloc0(sizeof(CallSite));
	RetlArguments *arguments = &site->arguments;

	site->spread = get_fn_expr_variadic(fcinfo->flinfo);
	if (site->spread)
		site->array = describe_argument(fcinfo, first);
	else
	{
		arguments->count = PG_NARGS() - first;
		arguments->types = palloc(arguments->count * sizeof(RetlType *));
		for (int i = 0; i < arguments->count; i++)
			arguments->types[i] = describe_argument(fcinfo, first + i);
	}
	MemoryContextSwitchTo(caller);
	fcinfo->flinfo->fn_extra = site;
	return site;
}

static void
spread_array(CallSite *site, FunctionCallInfo fcinfo, int first)
{
	RetlArguments *arguments = &site->arguments;
	RetlArrayWalk walk;

	arguments->count = -1;
	if (PG_ARGISNULL(first))
		return;
	retl_type_array_begin(&walk, site->array, PG_DETOAST_DATUM(PG_GETARG_DATUM(first)));
	arguments->count = walk.left;
	if (walk.left > site->size)
	{
		MemoryContext caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		site->size = walk.left * 2;
		arguments->types = palloc(site->size * sizeof(RetlType *));
		arguments->values = palloc(site->size * sizeof(NullableDatum));
		for (int i = 0; i < site->size; i++)
			arguments->types[i] = walk.element;
		MemoryContextSwitchTo(caller);
	}
	for (int i = 0; i < arguments->count; i++)
		retl_type_array_next(&walk, &arguments->values[i].value, &arguments->values[i].isnull);
}

RetlArguments *
retl_type_arguments(FunctionCallInfo fcinfo, int first)
{
	CallSite   *site = fcinfo->flinfo->fn_extra;

	if (site == NULL)
		site = call_site(fcinfo, first);
	if (site->spread)
		spread_array(site, fcinfo, first);
	else
		site->arguments.values = &fcinfo->args[first];
	return &site->arguments;
}

RetlType *
retl_type_record_argument(FunctionCallInfo fcinfo)
{
	RetlType   *type = fcinfo->flinfo->fn_extra;

	if (type == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		type = retl_type_describe(RECORDOID);
		MemoryContextSwitchTo(caller);
		fcinfo->flinfo->fn_extra = type;
	}
	retl_type_deform(type, PG_GETARG_HEAPTUPLEHEADER(0));
	return type;
}
