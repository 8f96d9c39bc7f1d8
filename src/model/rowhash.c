/*
 * rowhash.c
 *		The row hash; see rowhash.h.
 *
 * A row is turned into a sequence of 64-bit words, which are mixed into a state
 * one by one. Each step is a bijection of the state and of the word, so that
 * two rows that differ in one word never collide. Values of fixed width are one
 * word or two; what has a length is its length, then its bytes in words, zeros
 * at the end; NULL is a word of its own. Composed types are their number of
 * elements, then the elements: no boundary is ambiguous.
 *
 * Bytes are taken as stored only where equal values have equal bytes on every
 * server of one byte order. OIDs never enter: an enum is its label.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "model/rowhash.h"

/* Odd constants: 2^64 / golden ratio, and two with half their bits set. */
#define K1 UINT64CONST(0x9E3779B97F4A7C15)
#define K2 UINT64CONST(0xBF58476D1CE4E5B9)
#define K3 UINT64CONST(0x94D049BB133111EB)

#define NULL_WORD UINT64CONST(0x6E756C6CD1B54A33)

/* From here on bytes are mixed in four lanes, as one waits for its multiplication. */
#define LANES_FROM 64

/* numeric as stored: see numeric.c; the format is fixed by pg_upgrade. */
#define NUMERIC_FORM 0xC000		/* of the header: which form it is */
#define NUMERIC_LONG_NEGATIVE 0x4000
#define NUMERIC_IS_LONG(header) (((header) & 0x8000) == 0)
#define NUMERIC_LONG_SCALE(header) ((header) & 0x3FFF)
#define NUMERIC_SHORT_MAX_SCALE 63
#define NUMERIC_SHORT_MIN_WEIGHT (-64)
#define NUMERIC_SHORT_MAX_WEIGHT 63

PG_FUNCTION_INFO_V1(retl_row_hash);
PG_FUNCTION_INFO_V1(retl_row_hash_record);

static uint64 mix_value(uint64 state, RetlType *type, Datum value);

static inline uint64
rotate(uint64 word, int bits)
{
	return (word << bits) | (word >> (64 - bits));
}

static inline uint64
mix(uint64 state, uint64 word)
{
	state ^= rotate(word * K2, 31) * K1;
	return rotate(state, 27) * K1 + K3;
}

static inline uint64
read_word(const char *bytes)
{
	uint64		word;

	memcpy(&word, bytes, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

static inline uint64
mix_bytes(uint64 state, const char *bytes, size_t len)
{
	state = mix(state, len);
	if (len >= LANES_FROM)
	{
		uint64		lanes[4] = {state, state ^ K1, state ^ K2, state ^ K3};

		while (len >= 32)
		{
			for (int i = 0; i < 4; i++)
				lanes[i] = mix(lanes[i], read_word(bytes + 8 * i));
			bytes += 32;
			len -= 32;
		}
		state = lanes[0];
		for (int i = 1; i < 4; i++)
			state = mix(state, lanes[i]);
	}
	for (; len >= 8; bytes += 8, len -= 8)
		state = mix(state, read_word(bytes));
	if (len > 0)
	{
		char		last[8] = {0};

		/* not memcpy(.., len): a call for each value costs more than the rest */
		for (size_t i = 0; i < len; i++)
			last[i] = bytes[i];
		state = mix(state, read_word(last));
	}
	return state;
}

static uint64
mix_float(uint64 state, float8 value)
{
	uint64		bits;

	if (isnan(value))
		return mix(state, UINT64CONST(0x7FF8000000000000));
	if (value == 0)
		return mix(state, 0);
	memcpy(&bits, &value, sizeof(bits));
	return mix(state, bits);
}

/*
 * Equal numerics of equal scale have equal bytes, but for long headers that
 * servers before 9.1 wrote where today's would write a short one.
 */
static uint64
mix_numeric(uint64 state, const char *bytes, int len)
{
	uint16		header;
	int16		weight;

	memcpy(&header, bytes, sizeof(header));
	if (!NUMERIC_IS_LONG(header) || len < 4)
		return mix_bytes(state, bytes, len);

	memcpy(&weight, bytes + 2, sizeof(weight));
	if (NUMERIC_LONG_SCALE(header) > NUMERIC_SHORT_MAX_SCALE ||
		weight < NUMERIC_SHORT_MIN_WEIGHT || weight > NUMERIC_SHORT_MAX_WEIGHT)
		return mix_bytes(state, bytes, len);
	else
	{
		char	   *shortened = palloc(len);

		header = 0x8000 | ((header & NUMERIC_FORM) == NUMERIC_LONG_NEGATIVE ? 0x2000 : 0) |
			NUMERIC_LONG_SCALE(header) << 7 | (weight < 0 ? 0x40 : 0) | (weight & 0x3F);
		memcpy(shortened, &header, sizeof(header));
		memcpy(shortened + 2, bytes + 4, len - 4);
		state = mix_bytes(state, shortened, len - 2);
		pfree(shortened);
		return state;
	}
}

/* Bytes of a varlena, which is freed if it had to be detoasted. */
static uint64
mix_varlena(uint64 state, RetlType *type, Datum value)
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(value);
	struct varlena *varlena = pg_detoast_datum_packed(stored);

	if (type->kind == RETL_TYPE_NUMERIC)
		state = mix_numeric(state, VARDATA_ANY(varlena), VARSIZE_ANY_EXHDR(varlena));
	else
		state = mix_bytes(state, VARDATA_ANY(varlena), VARSIZE_ANY_EXHDR(varlena));
	if (varlena != stored)
		pfree(varlena);
	return state;
}

static uint64
mix_array(uint64 state, RetlType *type, Datum value)
{
	RetlRoom	room;
	struct varlena *array = retl_type_detoast(value, &room);
	RetlArrayWalk walk;
	Datum		element;
	bool		isnull;

	retl_type_array_begin(&walk, type, array);
	state = mix(state, walk.ndim);
	for (int i = 0; i < walk.ndim; i++)
		state = mix(state, walk.dims[i]);
	while (retl_type_array_next(&walk, &element, &isnull))
		state = isnull ? mix(state, NULL_WORD) : mix_value(state, walk.element, element);
	if ((Pointer) array != DatumGetPointer(value) && (char *) array != room.data)
		pfree(array);
	return state;
}

/* The attributes of type->values. */
static uint64
mix_attributes(uint64 state, RetlType *type)
{
	state = mix(state, type->nattributes);
	for (int i = 0; i < type->tupdesc->natts; i++)
	{
		if (type->attributes[i] == NULL)
			continue;
		state = type->nulls[i] ? mix(state, NULL_WORD)
			: mix_value(state, type->attributes[i], type->values[i]);
	}
	return state;
}

static uint64
mix_bound(uint64 state, RetlType *element, const RangeBound *bound)
{
	state = mix(state, (bound->infinite ? 2 : 0) | (bound->inclusive ? 1 : 0));
	return bound->infinite ? state : mix_value(state, element, bound->val);
}

static uint64
mix_range(uint64 state, RetlType *type, Datum value)
{
	RangeType  *range = DatumGetRangeTypeP(value);
	RangeBound	lower;
	RangeBound	upper;
	bool		empty;

	range_deserialize(type->range, range, &lower, &upper, &empty);
	state = mix(state, empty ? 0 : 1);
	if (empty)
		return state;
	state = mix_bound(state, type->element, &lower);
	return mix_bound(state, type->element, &upper);
}

static uint64
mix_multirange(uint64 state, RetlType *type, Datum value)
{
	MultirangeType *multirange = DatumGetMultirangeTypeP(value);
	RetlType   *range = type->element;

	state = mix(state, multirange->rangeCount);
	for (uint32 i = 0; i < multirange->rangeCount; i++)
	{
		RangeBound	lower;
		RangeBound	upper;

		multirange_get_bounds(range->range, multirange, i, &lower, &upper);
		state = mix_bound(state, range->element, &lower);
		state = mix_bound(state, range->element, &upper);
	}
	return state;
}

static uint64
mix_value(uint64 state, RetlType *type, Datum value)
{
	char	   *text;

	switch (type->kind)
	{
		case RETL_TYPE_BOOL:
			return mix(state, DatumGetBool(value) ? 1 : 0);
		case RETL_TYPE_INT2:
			return mix(state, (int64) DatumGetInt16(value));
		case RETL_TYPE_INT4:
		case RETL_TYPE_DATE:
			return mix(state, (int64) DatumGetInt32(value));
		case RETL_TYPE_INT8:
		case RETL_TYPE_TIMESTAMP:
		case RETL_TYPE_TIMESTAMPTZ:
		case RETL_TYPE_TIME:
		case RETL_TYPE_MONEY:
			return mix(state, DatumGetInt64(value));
		case RETL_TYPE_OID:
			return mix(state, DatumGetObjectId(value));
		case RETL_TYPE_FLOAT4:
			return mix_float(state, DatumGetFloat4(value));
		case RETL_TYPE_FLOAT8:
			return mix_float(state, DatumGetFloat8(value));
		case RETL_TYPE_TIMETZ:
			state = mix(state, DatumGetTimeTzADTP(value)->time);
			return mix(state, (int64) DatumGetTimeTzADTP(value)->zone);
		case RETL_TYPE_INTERVAL:
			state = mix(state, DatumGetIntervalP(value)->time);
			return mix(state, (uint64) (uint32) DatumGetIntervalP(value)->month << 32 |
					   (uint32) DatumGetIntervalP(value)->day);
		case RETL_TYPE_UUID:
			state = mix(state, read_word((char *) DatumGetUUIDP(value)->data));
			return mix(state, read_word((char *) DatumGetUUIDP(value)->data + 8));
		case RETL_TYPE_NUMERIC:
		case RETL_TYPE_TEXT:
		case RETL_TYPE_BYTEA:
		case RETL_TYPE_JSON:
		case RETL_TYPE_JSONB:
			return mix_varlena(state, type, value);
		case RETL_TYPE_NAME:
			return mix_bytes(state, NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
		case RETL_TYPE_CSTRING:
			return mix_bytes(state, DatumGetCString(value), strlen(DatumGetCString(value)));
		case RETL_TYPE_ENUM:
			{
				const RetlEnumLabel *label = retl_type_enum_label(type, DatumGetObjectId(value));

				return mix_bytes(state, label->label, label->len);
			}
		case RETL_TYPE_ARRAY:
			check_stack_depth();
			return mix_array(state, type, value);
		case RETL_TYPE_COMPOSITE:
			check_stack_depth();
			retl_type_deform(type, DatumGetHeapTupleHeader(value));
			return mix_attributes(state, type);
		case RETL_TYPE_RANGE:
			return mix_range(state, type, value);
		case RETL_TYPE_MULTIRANGE:
			return mix_multirange(state, type, value);
		case RETL_TYPE_OTHER:
			break;
	}

	text = retl_type_text(type, value);
	state = mix_bytes(state, text, strlen(text));
	pfree(text);
	return state;
}

/* Spreads every bit of the state over the result. */
static int64
finish(uint64 state)
{
	state ^= state >> 32;
	state *= K2;
	state ^= state >> 29;
	state *= K3;
	state ^= state >> 32;
	return (int64) state;
}

int64
retl_rowhash(int count, RetlType *const *types, const NullableDatum *values)
{
	uint64		state = mix(0, count);

	for (int i = 0; i < count; i++)
		state = values[i].isnull ? mix(state, NULL_WORD)
			: mix_value(state, types[i], values[i].value);
	return finish(state);
}

Datum
retl_row_hash(PG_FUNCTION_ARGS)
{
	RetlArguments *arguments = retl_type_arguments(fcinfo, 0);

	if (arguments->count < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(retl_rowhash(arguments->count, arguments->types, arguments->values));
}

Datum
retl_row_hash_record(PG_FUNCTION_ARGS)
{
	RetlType   *row = retl_type_record_argument(fcinfo);

	PG_RETURN_INT64(finish(mix_attributes(0, row)));
}
