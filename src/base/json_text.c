/*
 * json_text.c
 *		JSON as text: writing values, and walking slices without building a
 *		tree; see json.h.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "base/json.h"

/* A double tells no more decimal digits apart. */
#define DOUBLE_DIGITS 17

/* Beyond these powers of ten JavaScript writes an exponent. */
#define PLAIN_ABOVE (-6)
#define PLAIN_UP_TO 21

/* ---- writing ---- */

/* Length of a surrogate without its other half at "p", else 0. */
static int
lone_surrogate(const unsigned char *p, const unsigned char *end)
{
	return p[0] == 0xED && end - p >= 3 && p[1] >= 0xA0 ? 3 : 0;
}

void
retl_json_write_string(StringInfo out, const char *text, int len)
{
	const unsigned char *p = (const unsigned char *) text;
	const unsigned char *end = p + len;
	const unsigned char *plain = p;

	enlargeStringInfo(out, len + 2);
	appendStringInfoCharMacro(out, '"');
	while (p < end)
	{
		const char *escape = NULL;
		char		buffer[8];
		int			width = 1;

		if (*p >= ' ' && *p != '"' && *p != '\\' && *p != 0xED)
		{
			p++;
			continue;
		}
		switch (*p)
		{
			case '"':
				escape = "\\\"";
				break;
			case '\\':
				escape = "\\\\";
				break;
			case '\b':
				escape = "\\b";
				break;
			case '\f':
				escape = "\\f";
				break;
			case '\n':
				escape = "\\n";
				break;
			case '\r':
				escape = "\\r";
				break;
			case '\t':
				escape = "\\t";
				break;
			case 0xED:
				width = lone_surrogate(p, end);
				if (width == 0)
				{
					p++;
					continue;
				}
				snprintf(buffer, sizeof(buffer), "\\u%04x",
						 0xD000 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F));
				escape = buffer;
				break;
			default:
				snprintf(buffer, sizeof(buffer), "\\u%04x", *p);
				escape = buffer;
				break;
		}
		appendBinaryStringInfo(out, (const char *) plain, p - plain);
		appendStringInfoString(out, escape);
		p += width;
		plain = p;
	}
	appendBinaryStringInfo(out, (const char *) plain, p - plain);
	appendStringInfoCharMacro(out, '"');
}

void
retl_json_write_number(StringInfo out, const char *text, int len)
{
	const char *end = text + len;
	bool		negative = text < end && *text == '-';
	const char *p = negative ? text + 1 : text;
	char	   *digits = palloc(len + 1);
	int			count = 0;		/* digits, without zeros before and after */
	int64		point = 0;		/* the value is 0.DIGITS * 10^point */
	bool		fraction = false;

	for (; p < end && *p != 'e' && *p != 'E'; p++)
	{
		if (*p == '.')
			fraction = true;
		else if (count == 0 && *p == '0')
			point -= fraction ? 1 : 0;
		else
		{
			digits[count++] = *p;
			point += fraction ? 0 : 1;
		}
	}
	if (p < end)
	{
		char	   *exponent = pnstrdup(p + 1, end - p - 1);

		/* clamped: such numbers are beyond any type of ours */
		point += strtol(exponent, NULL, 10);
		pfree(exponent);
	}
	while (count > 0 && digits[count - 1] == '0')
		count--;

	if (count == 0)
		appendStringInfoChar(out, '0');
	else
	{
		bool		plain = point > PLAIN_ABOVE && point <= PLAIN_UP_TO;

		/* more digits than a double has: leave them as they were written */
		if (count > DOUBLE_DIGITS && p == end && !plain)
			plain = true;
		if (negative)
			appendStringInfoChar(out, '-');
		if (!plain)
		{
			appendStringInfoChar(out, digits[0]);
			if (count > 1)
			{
				appendStringInfoChar(out, '.');
				appendBinaryStringInfo(out, digits + 1, count - 1);
			}
			appendStringInfo(out, "e%c" INT64_FORMAT, point > 0 ? '+' : '-',
							 point > 0 ? point - 1 : 1 - point);
		}
		else if (point <= 0)
		{
			appendStringInfoString(out, "0.");
			for (int64 i = point; i < 0; i++)
				appendStringInfoChar(out, '0');
			appendBinaryStringInfo(out, digits, count);
		}
		else
		{
			for (int64 i = 0; i < point; i++)
				appendStringInfoChar(out, i < count ? digits[i] : '0');
			if (count > point)
			{
				appendStringInfoChar(out, '.');
				appendBinaryStringInfo(out, digits + point, count - point);
			}
		}
	}
	pfree(digits);
}

double
retl_json_double(const char *text, int len)
{
	char		buffer[64];
	char	   *copy = buffer;
	double		value;

	if (len >= sizeof(buffer))
		copy = palloc(len + 1);
	memcpy(copy, text, len);
	copy[len] = '\0';
	value = strtod(copy, NULL);
	if (copy != buffer)
		pfree(copy);
	return value;
}

static void
write_value(StringInfo out, const RetlJson *value, bool javascript)
{
	const RetlJsonMember *members;
	bool		first = true;

	check_stack_depth();
	if (value == NULL)
	{
		appendStringInfoString(out, "null");
		return;
	}
	switch (value->type)
	{
		case RETL_JSON_NULL:
			appendStringInfoString(out, "null");
			break;
		case RETL_JSON_BOOL:
			appendStringInfoString(out, value->boolean ? "true" : "false");
			break;
		case RETL_JSON_NUMBER:
			if (javascript)
				retl_json_write_number(out, value->text, value->len);
			else
				appendBinaryStringInfo(out, value->text, value->len);
			break;
		case RETL_JSON_STRING:
			retl_json_write_string(out, value->text, value->len);
			break;
		case RETL_JSON_ARRAY:
			appendStringInfoChar(out, '[');
			for (int i = 0; i < value->len; i++)
			{
				if (i > 0)
					appendStringInfoChar(out, ',');
				write_value(out, value->items[i], javascript);
			}
			appendStringInfoChar(out, ']');
			break;
		case RETL_JSON_OBJECT:
			members = javascript ? retl_json_js_order(value) : value->members;
			appendStringInfoChar(out, '{');
			for (int i = 0; i < value->len; i++)
			{
				if (members[i].value == NULL)
					continue;
				if (!first)
					appendStringInfoChar(out, ',');
				first = false;
				retl_json_write_string(out, members[i].key, members[i].keylen);
				appendStringInfoChar(out, ':');
				write_value(out, members[i].value, javascript);
			}
			appendStringInfoChar(out, '}');
			break;
	}
}

void
retl_json_write(StringInfo out, const RetlJson *value)
{
	write_value(out, value, false);
}

void
retl_json_stringify(StringInfo out, const RetlJson *value)
{
	write_value(out, value, true);
}

/* ---- slices ---- */

static inline bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && is_space(*p))
		p++;
	return p;
}

/* The end of the string that starts at "p". */
static const char *
skip_string(const char *p, const char *end)
{
	for (p++; p < end; p++)
	{
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p++;
	}
	return end;
}

/* The end of the value that starts at "p", however deep it is nested. */
static const char *
skip_value(const char *p, const char *end)
{
	int			depth = 0;

	while (p < end)
	{
		switch (*p)
		{
			case '"':
				p = skip_string(p, end);
				break;
			case '{':
			case '[':
				depth++;
				p++;
				break;
			case '}':
			case ']':
				if (depth == 0)
					return p;
				depth--;
				p++;
				break;
			case ',':
				if (depth == 0)
					return p;
				p++;
				break;
			default:
				if (depth == 0)
				{
					while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_space(*p))
						p++;
					return p;
				}
				p++;
				break;
		}
		if (depth == 0)
			return p;
	}
	return end;
}

RetlSlice
retl_slice(const char *text, int len)
{
	RetlSlice	slice;
	const char *end = text + len;

	text = skip_space(text, end);
	while (end > text && is_space(end[-1]))
		end--;
	slice.data = text;
	slice.len = end - text;
	return slice;
}

RetlJsonType
retl_slice_type(RetlSlice value)
{
	switch (value.len > 0 ? value.data[0] : 'n')
	{
		case '{':
			return RETL_JSON_OBJECT;
		case '[':
			return RETL_JSON_ARRAY;
		case '"':
			return RETL_JSON_STRING;
		case 't':
		case 'f':
			return RETL_JSON_BOOL;
		case 'n':
			return RETL_JSON_NULL;
		default:
			return RETL_JSON_NUMBER;
	}
}

static int
hex4(const char *p)
{
	int			value = 0;

	for (int i = 0; i < 4; i++)
	{
		char		c = p[i];

		value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return value;
}

const char *
retl_slice_text(RetlSlice string, int *len)
{
	const char *p = string.data + 1;
	const char *end = string.data + string.len - 1;
	char	   *text;
	char	   *to;

	if (string.len < 2)
	{
		*len = 0;
		return "";
	}
	if (memchr(p, '\\', end - p) == NULL)
	{
		*len = end - p;
		return p;
	}
	to = text = palloc(end - p + 1);	/* decoded text is never longer */
	while (p < end)
	{
		pg_wchar	code;

		if (*p != '\\' || end - p < 2)
		{
			*to++ = *p++;
			continue;
		}
		p++;
		switch (*p++)
		{
			case 'b':
				*to++ = '\b';
				break;
			case 'f':
				*to++ = '\f';
				break;
			case 'n':
				*to++ = '\n';
				break;
			case 'r':
				*to++ = '\r';
				break;
			case 't':
				*to++ = '\t';
				break;
			case 'u':
				if (end - p < 4)
					break;
				code = hex4(p);
				p += 4;
				if (is_utf16_surrogate_first(code) && end - p >= 6 && p[0] == '\\' && p[1] == 'u' &&
					is_utf16_surrogate_second(hex4(p + 2)))
				{
					code = surrogate_pair_to_codepoint(code, hex4(p + 2));
					p += 6;
				}
				unicode_to_utf8(code, (unsigned char *) to);
				to += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
				break;
			default:
				*to++ = p[-1];
				break;
		}
	}
	*to = '\0';
	*len = to - text;
	return text;
}

void
retl_slice_walk(RetlSliceIterator *iterator, RetlSlice container)
{
	iterator->object = container.len > 0 && container.data[0] == '{';
	if (iterator->object || (container.len > 0 && container.data[0] == '['))
	{
		iterator->next = container.data + 1;
		iterator->end = container.data + container.len - 1;
	}
	else
		iterator->next = iterator->end = NULL;
}

bool
retl_slice_next(RetlSliceIterator *iterator, RetlSlice *key, RetlSlice *value)
{
	const char *end = iterator->end;
	const char *p = skip_space(iterator->next, end);

	if (p < end && *p == ',')
		p = skip_space(p + 1, end);
	if (p >= end)
		return false;
	key->data = NULL;
	key->len = 0;
	if (iterator->object)
	{
		key->data = p;
		p = skip_string(p, end);
		key->len = p - key->data;
		p = skip_space(p, end);
		if (p < end && *p == ':')
			p = skip_space(p + 1, end);
	}
	value->data = p;
	p = skip_value(p, end);
	value->len = p - value->data;
	iterator->next = p;
	return value->len > 0;
}

bool
retl_slice_key_equals(RetlSlice written, const char *key, int keylen)
{
	const char *text;
	int			len;

	if (memchr(written.data, '\\', written.len) == NULL)
		return written.len - 2 == keylen && memcmp(written.data + 1, key, keylen) == 0;
	text = retl_slice_text(written, &len);
	return len == keylen && memcmp(text, key, len) == 0;
}

RetlSlice
retl_slice_member(RetlSlice object, const char *key, int keylen)
{
	RetlSliceIterator iterator;
	RetlSlice	found = {NULL, 0};
	RetlSlice	name,
				value;

	retl_slice_walk(&iterator, object);
	while (iterator.object && retl_slice_next(&iterator, &name, &value))
	{
		if (retl_slice_key_equals(name, key, keylen))
			found = value;
	}
	return found;
}

RetlSlice
retl_slice_item(RetlSlice array, uint32 index)
{
	RetlSliceIterator iterator;
	RetlSlice	name,
				value;
	const RetlSlice absent = {NULL, 0};

	retl_slice_walk(&iterator, array);
	while (!iterator.object && retl_slice_next(&iterator, &name, &value))
	{
		if (index-- == 0)
			return value;
	}
	return absent;
}
