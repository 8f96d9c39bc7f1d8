/*
 * value.c
 *		Writing values as JSON; see row.h.
 *
 * What the catalogs say is looked up once for a type. Common types are written
 * in place; no cast is ever looked for, as casts may be a user's.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "model/row.h"
#include "model/type.h"

struct RetlValueWriter
{
	RetlType   *type;
};

static void write_value(RetlType *type, StringInfo out, Datum value);

/* ---- strings ---- */

#define EVERY_BYTE(b) (UINT64CONST(0x0101010101010101) * (b))
#define HIGH_BITS EVERY_BYTE(0x80)

/* Whether one of eight bytes is a control character, a quote or a backslash. */
static inline bool
needs_escape(uint64 word)
{
	uint64		quote = word ^ EVERY_BYTE('"');
	uint64		backslash = word ^ EVERY_BYTE('\\');

	return (((word - EVERY_BYTE(' ')) & ~word) |
			((quote - EVERY_BYTE(1)) & ~quote) |
			((backslash - EVERY_BYTE(1)) & ~backslash)) & HIGH_BITS;
}

static void
append_escaped(StringInfo out, unsigned char c)
{
	switch (c)
	{
		case '"':
			appendBinaryStringInfo(out, "\\\"", 2);
			break;
		case '\\':
			appendBinaryStringInfo(out, "\\\\", 2);
			break;
		case '\b':
			appendBinaryStringInfo(out, "\\b", 2);
			break;
		case '\f':
			appendBinaryStringInfo(out, "\\f", 2);
			break;
		case '\n':
			appendBinaryStringInfo(out, "\\n", 2);
			break;
		case '\r':
			appendBinaryStringInfo(out, "\\r", 2);
			break;
		case '\t':
			appendBinaryStringInfo(out, "\\t", 2);
			break;
		default:
			appendStringInfo(out, "\\u%04x", c);
	}
}

/* Bytes that need no escape are copied in runs. In server encodings no byte of a longer character is ASCII. */
void
retl_json_append_string(StringInfo out, const char *text, int len)
{
	const char *run = text;
	const char *at = text;
	const char *end = text + len;

	enlargeStringInfo(out, len + 2);
	out->data[out->len++] = '"';
	while (at < end)
	{
		unsigned char c;

		if (end - at >= sizeof(uint64))
		{
			uint64		word;

			memcpy(&word, at, sizeof(word));
			if (!needs_escape(word))
			{
				at += sizeof(word);
				continue;
			}
		}
		c = *at;
		if (c < ' ' || c == '"' || c == '\\')
		{
			appendBinaryStringInfo(out, run, at - run);
			append_escaped(out, c);
			run = at + 1;
		}
		at++;
	}
	enlargeStringInfo(out, end - run + 1);
	memcpy(out->data + out->len, run, end - run);
	out->len += end - run;
	out->data[out->len++] = '"';
	out->data[out->len] = '\0';
}

static void
append_text(StringInfo out, const char *text)
{
	retl_json_append_string(out, text, strlen(text));
}

/* ---- numbers ---- */

/* Room for any number written in place. */
#define NUMBER_ROOM 32

static void
write_integer(StringInfo out, int64 value)
{
	enlargeStringInfo(out, NUMBER_ROOM);
	out->len += pg_lltoa(value, out->data + out->len);
}

static void
write_float(StringInfo out, float8 value, bool single)
{
	if (isnan(value))
		append_text(out, "NaN");
	else if (isinf(value))
		append_text(out, value > 0 ? "Infinity" : "-Infinity");
	else
	{
		if (value == 0)
			value = 0;			/* not -0: it hashes as 0 */
		enlargeStringInfo(out, NUMBER_ROOM);
		out->len += single
			? float_to_shortest_decimal_bufn((float4) value, out->data + out->len)
			: double_to_shortest_decimal_bufn(value, out->data + out->len);
		out->data[out->len] = '\0';
	}
}

static void
write_numeric(StringInfo out, Datum value)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, value));

	/* NaN, Infinity, -Infinity */
	if (text[0] == 'N' || text[0] == 'I' || text[1] == 'I')
		append_text(out, text);
	else
		appendStringInfoString(out, text);
	pfree(text);
}

/* ---- dates and times ---- */

static char *
put_digits(char *at, int value, int width)
{
	for (int i = width - 1; i >= 0; i--)
	{
		at[i] = '0' + value % 10;
		value /= 10;
	}
	return at + width;
}

/* Years of four digits are written here, the others as PostgreSQL does. */
static bool
put_date(char **at, int julian)
{
	int			year;
	int			month;
	int			day;

	j2date(julian, &year, &month, &day);
	if (year < 1 || year > 9999)
		return false;
	*at = put_digits(*at, year, 4);
	*(*at)++ = '-';
	*at = put_digits(*at, month, 2);
	*(*at)++ = '-';
	*at = put_digits(*at, day, 2);
	return true;
}

static char *
put_time(char *at, int64 time)
{
	int			seconds = time / USECS_PER_SEC;
	int			fraction = time % USECS_PER_SEC;

	at = put_digits(at, seconds / SECS_PER_HOUR, 2);
	*at++ = ':';
	at = put_digits(at, seconds / SECS_PER_MINUTE % MINS_PER_HOUR, 2);
	*at++ = ':';
	at = put_digits(at, seconds % SECS_PER_MINUTE, 2);
	if (fraction != 0)
	{
		*at++ = '.';
		at = put_digits(at, fraction, 6);
		while (at[-1] == '0')
			at--;
	}
	return at;
}

static void
write_datetime(StringInfo out, Datum value, Oid type)
{
	char	   *start;
	char	   *at;
	bool		written;
	int			utc = 0;

	enlargeStringInfo(out, MAXDATELEN + 3);
	start = at = out->data + out->len;
	*at++ = '"';
	if (type == DATEOID)
	{
		DateADT		date = DatumGetDateADT(value);

		written = !DATE_NOT_FINITE(date) && put_date(&at, date + POSTGRES_EPOCH_JDATE);
	}
	else
	{
		Timestamp	timestamp = DatumGetTimestamp(value);
		int64		days = timestamp / USECS_PER_DAY;
		int64		time = timestamp % USECS_PER_DAY;

		if (time < 0)
		{
			time += USECS_PER_DAY;
			days--;
		}
		written = !TIMESTAMP_NOT_FINITE(timestamp) && put_date(&at, days + POSTGRES_EPOCH_JDATE);
		if (written)
		{
			*at++ = 'T';
			at = put_time(at, time);
			if (type == TIMESTAMPTZOID)
			{
				memcpy(at, "+00:00", 6);
				at += 6;
			}
		}
	}
	if (!written)
	{
		JsonEncodeDateTime(start + 1, value, type, &utc);
		at = start + 1 + strlen(start + 1);
	}
	*at++ = '"';
	*at = '\0';
	out->len += at - start;
}

/* ---- what holds other values ---- */

static void
write_array(RetlType *type, StringInfo out, Datum value)
{
	RetlRoom	room;
	struct varlena *array = retl_type_detoast(value, &room);
	RetlArrayWalk walk;
	int			sizes[MAXDIM];	/* elements of a slice, by dimension */
	int			count;
	Datum		element;
	bool		isnull;

	retl_type_array_begin(&walk, type, array);
	if (walk.left == 0)
	{
		appendBinaryStringInfo(out, "[]", 2);
		return;
	}
	count = 1;
	for (int i = walk.ndim - 1; i >= 0; i--)
		sizes[i] = count *= walk.dims[i];

	for (int number = 0; retl_type_array_next(&walk, &element, &isnull); number++)
	{
		if (number > 0)
			appendStringInfoChar(out, ',');
		for (int i = 0; i < walk.ndim; i++)
			if (number % sizes[i] == 0)
				appendStringInfoChar(out, '[');
		if (isnull)
			appendBinaryStringInfo(out, "null", 4);
		else
			write_value(walk.element, out, element);
		for (int i = walk.ndim - 1; i >= 0; i--)
			if ((number + 1) % sizes[i] == 0)
				appendStringInfoChar(out, ']');
	}
	if ((Pointer) array != DatumGetPointer(value) && (char *) array != room.data)
		pfree(array);
}

static void
name_attributes(RetlType *type)
{
	MemoryContext caller = MemoryContextSwitchTo(type->tupdesc_context);
	const char **names = palloc0(type->tupdesc->natts * sizeof(char *));

	for (int i = 0; i < type->tupdesc->natts; i++)
	{
		StringInfoData name;

		initStringInfo(&name);
		append_text(&name, NameStr(TupleDescAttr(type->tupdesc, i)->attname));
		appendStringInfoChar(&name, ':');
		names[i] = name.data;
	}
	type->names_json = names;
	MemoryContextSwitchTo(caller);
}

static void
write_composite(RetlType *type, StringInfo out, Datum value)
{
	bool		first = true;

	retl_type_deform(type, DatumGetHeapTupleHeader(value));
	if (type->names_json == NULL)
		name_attributes(type);
	appendStringInfoChar(out, '{');
	for (int i = 0; i < type->tupdesc->natts; i++)
	{
		if (type->attributes[i] == NULL)
			continue;
		if (!first)
			appendStringInfoChar(out, ',');
		first = false;
		appendStringInfoString(out, type->names_json[i]);
		if (type->nulls[i])
			appendBinaryStringInfo(out, "null", 4);
		else
			write_value(type->attributes[i], out, type->values[i]);
	}
	appendStringInfoChar(out, '}');
}

/*
 * json is embedded as it is, but for line ends and tabs: inside strings they
 * are escaped, outside they mean nothing, and a stored value is one line.
 */
static void
write_json(StringInfo out, const char *text, int len)
{
	const char *end = text + len;

	enlargeStringInfo(out, len);
	for (const char *run = text; run < end;)
	{
		const char *stop = run;

		while (stop < end && (unsigned char) *stop >= ' ')
			stop++;
		appendBinaryStringInfo(out, run, stop - run);
		run = stop + 1;
	}
}

static void
write_bytea(StringInfo out, const char *bytes, int len)
{
	enlargeStringInfo(out, len * 2 + 5);
	appendBinaryStringInfo(out, "\"\\\\x", 4);
	out->len += hex_encode(bytes, len, out->data + out->len);
	appendStringInfoChar(out, '"');
}

static void
write_varlena(RetlType *type, StringInfo out, Datum value)
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(value);
	struct varlena *varlena = pg_detoast_datum_packed(stored);
	const char *data = VARDATA_ANY(varlena);
	int			len = VARSIZE_ANY_EXHDR(varlena);

	if (type->kind == RETL_TYPE_JSON)
		write_json(out, data, len);
	else if (type->kind == RETL_TYPE_BYTEA)
		write_bytea(out, data, len);
	else
		retl_json_append_string(out, data, len);
	if (varlena != stored)
		pfree(varlena);
}

static void
write_jsonb(StringInfo out, Datum value)
{
	RetlRoom	room;
	Jsonb	   *jsonb = (Jsonb *) retl_type_detoast(value, &room);

	(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
}

static void
write_value(RetlType *type, StringInfo out, Datum value)
{
	char	   *text;

	switch (type->kind)
	{
		case RETL_TYPE_BOOL:
			if (DatumGetBool(value))
				appendBinaryStringInfo(out, "true", 4);
			else
				appendBinaryStringInfo(out, "false", 5);
			return;
		case RETL_TYPE_INT2:
			write_integer(out, DatumGetInt16(value));
			return;
		case RETL_TYPE_INT4:
			write_integer(out, DatumGetInt32(value));
			return;
		case RETL_TYPE_INT8:
			write_integer(out, DatumGetInt64(value));
			return;
		case RETL_TYPE_FLOAT4:
			write_float(out, DatumGetFloat4(value), true);
			return;
		case RETL_TYPE_FLOAT8:
			write_float(out, DatumGetFloat8(value), false);
			return;
		case RETL_TYPE_NUMERIC:
			write_numeric(out, value);
			return;
		case RETL_TYPE_DATE:
			write_datetime(out, value, DATEOID);
			return;
		case RETL_TYPE_TIMESTAMP:
			write_datetime(out, value, TIMESTAMPOID);
			return;
		case RETL_TYPE_TIMESTAMPTZ:
			write_datetime(out, value, TIMESTAMPTZOID);
			return;
		case RETL_TYPE_TEXT:
		case RETL_TYPE_JSON:
		case RETL_TYPE_BYTEA:
			write_varlena(type, out, value);
			return;
		case RETL_TYPE_JSONB:
			write_jsonb(out, value);
			return;
		case RETL_TYPE_NAME:
			append_text(out, NameStr(*DatumGetName(value)));
			return;
		case RETL_TYPE_CSTRING:
			append_text(out, DatumGetCString(value));
			return;
		case RETL_TYPE_ENUM:
			{
				const RetlEnumLabel *label = retl_type_enum_label(type, DatumGetObjectId(value));

				retl_json_append_string(out, label->label, label->len);
				return;
			}
		case RETL_TYPE_ARRAY:
			check_stack_depth();
			write_array(type, out, value);
			return;
		case RETL_TYPE_COMPOSITE:
			check_stack_depth();
			write_composite(type, out, value);
			return;
		case RETL_TYPE_TIME:
		case RETL_TYPE_TIMETZ:
		case RETL_TYPE_INTERVAL:
		case RETL_TYPE_UUID:
		case RETL_TYPE_OID:
		case RETL_TYPE_MONEY:
		case RETL_TYPE_RANGE:
		case RETL_TYPE_MULTIRANGE:
		case RETL_TYPE_OTHER:
			break;
	}

	text = retl_type_text(type, value);
	append_text(out, text);
	pfree(text);
}

RetlValueWriter *
retl_value_writer(Oid type)
{
	RetlValueWriter *writer = palloc(sizeof(RetlValueWriter));

	writer->type = retl_type_describe(type);
	return writer;
}

void
retl_value_write(RetlValueWriter *writer, StringInfo out, Datum value, bool isnull)
{
	retl_type_write(writer->type, out, value, isnull);
}

void
retl_type_write(RetlType *type, StringInfo out, Datum value, bool isnull)
{
	if (isnull)
		appendBinaryStringInfo(out, "null", 4);
	else
		write_value(type, out, value);
}
