/*
 * rowhash.c
 *		The row hash; see rowhash.h.
 *
 * Every value becomes a 64-bit word, and a state is mixed with the words one
 * by one, after their number. What fits a word is that word; longer and
 * composed values are hashed to one the same way. Each step is a bijection of
 * the state and of the word: two rows that differ in one number never collide.
 * No value's word depends on another value, so that the processor works on
 * several at a time.
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

static uint64 value_word(RetlType *type, Datum value);

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
read_8(const char *bytes)
{
	uint64		word;

	memcpy(&word, bytes, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

static inline uint64
read_4(const char *bytes)
{
	uint32		word;

	memcpy(&word, bytes, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap32(word);
#endif
	return word;
}

/* Up to seven bytes, and their number plus one in the eighth: no two are equal. */
static inline uint64
short_word(const char *bytes, size_t len)
{
	uint64		word = (uint64) (len + 1) << 56;

	if (len >= 4)
		return word | read_4(bytes) | read_4(bytes + len - 4) << (8 * (len - 4));
	if (len > 0)
		return word | (uint8) bytes[0] | (uint64) (uint8) bytes[len / 2] << (8 * (len / 2)) |
			(uint64) (uint8) bytes[len - 1] << (8 * (len - 1));
	return word;
}

static inline uint64
bytes_word(const char *bytes, size_t len)
{
	uint64		state;

	if (len < 8)
		return short_word(bytes, len);
	state = mix(K3, len);
	if (len >= LANES_FROM)
	{
		uint64		lane1 = state ^ K1;
		uint64		lane2 = state ^ K2;
		uint64		lane3 = state ^ K3;

		do
		{
			state = mix(state, read_8(bytes));
			lane1 = mix(lane1, read_8(bytes + 8));
			lane2 = mix(lane2, read_8(bytes + 16));
			lane3 = mix(lane3, read_8(bytes + 24));
			bytes += 32;
			len -= 32;
		} while (len >= 32);
		state = mix(mix(mix(state, lane1), lane2), lane3);
	}
	for (; len >= 8; bytes += 8, len -= 8)
		state = mix(state, read_8(bytes));
	if (len > 0)				/* there are eight bytes before the end */
		state = mix(state, read_8(bytes + len - 8) >> (64 - 8 * len));
	return state;
}

static uint64
float_word(float8 value)
{
	uint64		bits;

	if (isnan(value))
		return UINT64CONST(0x7FF8000000000000);
	if (value == 0)
		return 0;				/* -0 too */
	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

/*
 * Servers before 9.1 wrote long headers where today's would write a short one,
 * and pg_upgrade keeps them.
 */
static pg_noinline uint64
long_numeric_word(const char *bytes, int len)
{
	uint16		header;
	int16		weight;
	char	   *shortened;
	uint64		word;

	memcpy(&header, bytes, sizeof(header));
	memcpy(&weight, bytes + 2, sizeof(weight));
	if (NUMERIC_LONG_SCALE(header) > NUMERIC_SHORT_MAX_SCALE ||
		weight < NUMERIC_SHORT_MIN_WEIGHT || weight > NUMERIC_SHORT_MAX_WEIGHT)
		return bytes_word(bytes, len);

	shortened = palloc(len);
	header = 0x8000 | ((header & NUMERIC_FORM) == NUMERIC_LONG_NEGATIVE ? 0x2000 : 0) |
		NUMERIC_LONG_SCALE(header) << 7 | (weight < 0 ? 0x40 : 0) | (weight & 0x3F);
	memcpy(shortened, &header, sizeof(header));
	memcpy(shortened + 2, bytes + 4, len - 4);
	word = bytes_word(shortened, len - 2);
	pfree(shortened);
	return word;
}

/* Equal numerics of equal scale have equal bytes. */
static inline uint64
numeric_word(const char *bytes, int len)
{
	uint16		header;

	memcpy(&header, bytes, sizeof(header));
	return NUMERIC_IS_LONG(header) ? long_numeric_word(bytes, len) : bytes_word(bytes, len);
}

static inline uint64
plain_varlena_word(RetlType *type, struct varlena *varlena)
{
	if (type->kind == RETL_TYPE_NUMERIC)
		return numeric_word(VARDATA_ANY(varlena), VARSIZE_ANY_EXHDR(varlena));
	return bytes_word(VARDATA_ANY(varlena), VARSIZE_ANY_EXHDR(varlena));
}

static pg_noinline uint64
toasted_word(RetlType *type, struct varlena *toasted)
{
	struct varlena *varlena = pg_detoast_datum_packed(toasted);
	uint64		word = plain_varlena_word(type, varlena);

	if (varlena != toasted)
		pfree(varlena);
	return word;
}

static inline uint64
varlena_word(RetlType *type, Datum value)
{
	struct varlena *varlena = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_EXTERNAL(varlena) || VARATT_IS_COMPRESSED(varlena))
		return toasted_word(type, varlena);
	return plain_varlena_word(type, varlena);
}

static uint64
array_word(RetlType *type, Datum value)
{
	RetlRoom	room;
	struct varlena *array = retl_type_detoast(value, &room);
	RetlArrayWalk walk;
	Datum		element;
	bool		isnull;
	uint64		state;

	retl_type_array_begin(&walk, type, array);
	state = mix(K1, walk.ndim);
	for (int i = 0; i < walk.ndim; i++)
		state = mix(state, walk.dims[i]);
	while (retl_type_array_next(&walk, &element, &isnull))
		state = mix(state, isnull ? NULL_WORD : value_word(walk.element, element));
	if ((Pointer) array != DatumGetPointer(value) && (char *) array != room.data)
		pfree(array);
	return state;
}

/* The attributes in type->values. */
static uint64
attributes_word(RetlType *type)
{
	uint64		state = mix(0, type->nattributes);

	for (int i = 0; i < type->tupdesc->natts; i++)
	{
		if (type->attributes[i] == NULL)
			continue;
		state = mix(state, type->nulls[i] ? NULL_WORD
					: value_word(type->attributes[i], type->values[i]));
	}
	return state;
}

static uint64
mix_bound(uint64 state, RetlType *element, const RangeBound *bound)
{
	state = mix(state, (bound->infinite ? 2 : 0) | (bound->inclusive ? 1 : 0));
	return bound->infinite ? state : mix(state, value_word(element, bound->val));
}

static uint64
range_word(RetlType *type, Datum value)
{
	RangeType  *range = DatumGetRangeTypeP(value);
	RangeBound	lower;
	RangeBound	upper;
	bool		empty;
	uint64		state;

	range_deserialize(type->range, range, &lower, &upper, &empty);
	state = mix(K2, empty ? 0 : 1);
	if (empty)
		return state;
	return mix_bound(mix_bound(state, type->element, &lower), type->element, &upper);
}

static uint64
multirange_word(RetlType *type, Datum value)
{
	MultirangeType *multirange = DatumGetMultirangeTypeP(value);
	RetlType   *range = type->element;
	uint64		state = mix(K3, multirange->rangeCount);

	for (uint32 i = 0; i < multirange->rangeCount; i++)
	{
		RangeBound	lower;
		RangeBound	upper;

		multirange_get_bounds(range->range, multirange, i, &lower, &upper);
		state = mix_bound(mix_bound(state, range->element, &lower), range->element, &upper);
	}
	return state;
}

static uint64
text_word(RetlType *type, Datum value)
{
	char	   *text = retl_type_text(type, value);
	uint64		word = bytes_word(text, strlen(text));

	pfree(text);
	return word;
}

/* Types that are rare, or need more than their bytes. */
static pg_noinline uint64
other_word(RetlType *type, Datum value)
{
	switch (type->kind)
	{
		case RETL_TYPE_TIMETZ:
			return mix(mix(0, DatumGetTimeTzADTP(value)->time),
					   (int64) DatumGetTimeTzADTP(value)->zone);
		case RETL_TYPE_INTERVAL:
			return mix(mix(0, DatumGetIntervalP(value)->time),
					   (uint64) (uint32) DatumGetIntervalP(value)->month << 32 |
					   (uint32) DatumGetIntervalP(value)->day);
		case RETL_TYPE_UUID:
			return mix(mix(0, read_8((char *) DatumGetUUIDP(value)->data)),
					   read_8((char *) DatumGetUUIDP(value)->data + 8));
		case RETL_TYPE_NAME:
			return bytes_word(NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
		case RETL_TYPE_CSTRING:
			return bytes_word(DatumGetCString(value), strlen(DatumGetCString(value)));
		case RETL_TYPE_ENUM:
			{
				const RetlEnumLabel *label = retl_type_enum_label(type, DatumGetObjectId(value));

				return bytes_word(label->label, label->len);
			}
		case RETL_TYPE_ARRAY:
			check_stack_depth();
			return array_word(type, value);
		case RETL_TYPE_COMPOSITE:
			check_stack_depth();
			retl_type_deform(type, DatumGetHeapTupleHeader(value));
			return attributes_word(type);
		case RETL_TYPE_RANGE:
			return range_word(type, value);
		case RETL_TYPE_MULTIRANGE:
			return multirange_word(type, value);
		default:
			return text_word(type, value);
	}
}

static uint64
value_word(RetlType *type, Datum value)
{
	switch (type->kind)
	{
		case RETL_TYPE_BOOL:
			return DatumGetBool(value) ? 1 : 0;
		case RETL_TYPE_INT2:
			return (int64) DatumGetInt16(value);
		case RETL_TYPE_INT4:
		case RETL_TYPE_DATE:
			return (int64) DatumGetInt32(value);
		case RETL_TYPE_INT8:
		case RETL_TYPE_TIMESTAMP:
		case RETL_TYPE_TIMESTAMPTZ:
		case RETL_TYPE_TIME:
		case RETL_TYPE_MONEY:
			return DatumGetInt64(value);
		case RETL_TYPE_OID:
			return DatumGetObjectId(value);
		case RETL_TYPE_FLOAT4:
			return float_word(DatumGetFloat4(value));
		case RETL_TYPE_FLOAT8:
			return float_word(DatumGetFloat8(value));
		case RETL_TYPE_NUMERIC:
		case RETL_TYPE_TEXT:
		case RETL_TYPE_BYTEA:
		case RETL_TYPE_JSON:
		case RETL_TYPE_JSONB:
			return varlena_word(type, value);
		default:
			return other_word(type, value);
	}
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
		state = mix(state, values[i].isnull ? NULL_WORD : value_word(types[i], values[i].value));
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

	PG_RETURN_INT64(finish(attributes_word(row)));
}
