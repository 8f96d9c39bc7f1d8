/*
 * text.c
 *		Strings as JavaScript sees them: counted in UTF-16 units, with full
 *		Unicode case mappings; see value.h.
 *
 * PostgreSQL's own str_toupper() maps through ICU when it is given an ICU
 * collation; "und-x-icu", the root locale, is what toUpperCase() uses. A server
 * without ICU falls back on the database's default collation.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/syscache.h"

#include "map/value.h"

/* Bytes of the character at "p"; broken ones count as one byte. */
static inline int
width(const char *p, const char *end)
{
	int			len = pg_utf_mblen((const unsigned char *) p);

	return len <= end - p ? len : 1;
}

int
retl_text_length(const char *text, int len)
{
	const char *end = text + len;
	int			units = 0;

	while (text < end)
	{
		int			w = width(text, end);

		units += w == 4 ? 2 : 1;
		text += w;
	}
	return units;
}

bool
retl_text_unit(const char *text, int len, uint32 index, const char **unit, int *unit_len)
{
	const char *end = text + len;

	while (text < end)
	{
		int			w = width(text, end);

		if (w < 4)
		{
			if (index-- == 0)
			{
				*unit = text;
				*unit_len = w;
				return true;
			}
		}
		else if (index < 2)
		{
			/* half of a pair */
			pg_wchar	code = utf8_to_unicode((const unsigned char *) text) - 0x10000;
			char	   *half = palloc(4);

			unicode_to_utf8(index == 0 ? 0xD800 + (code >> 10) : 0xDC00 + (code & 0x3FF),
							(unsigned char *) half);
			half[3] = '\0';
			*unit = half;
			*unit_len = 3;
			return true;
		}
		else
			index -= 2;
		text += w;
	}
	return false;
}

/* The collation to map case by: looked up once a process, while in a transaction. */
static Oid
case_collation(void)
{
	static Oid	collation = InvalidOid;

	if (!OidIsValid(collation))
	{
		collation = GetSysCacheOid3(COLLNAMEENCNSP, Anum_pg_collation_oid,
									CStringGetDatum("und-x-icu"), Int32GetDatum(-1),
									ObjectIdGetDatum(PG_CATALOG_NAMESPACE));
		if (!OidIsValid(collation))
			collation = DEFAULT_COLLATION_OID;
	}
	return collation;
}

/* Whether a byte starts something that the server's functions cannot take. */
static inline bool
is_foreign(const char *p, const char *end)
{
	return *p == '\0' ||
		((unsigned char) p[0] == 0xED && end - p >= 3 && (unsigned char) p[1] >= 0xA0);
}

const char *
retl_text_case(const char *text, int len, bool upper, int *result_len)
{
	const char *end = text + len;
	StringInfoData out;
	bool		ascii = true;

	initStringInfo(&out);
	for (int i = 0; i < len && ascii; i++)
		ascii = !IS_HIGHBIT_SET(text[i]);
	if (ascii)
	{
		enlargeStringInfo(&out, len);
		for (int i = 0; i < len; i++)
			appendStringInfoCharMacro(&out, upper ? pg_ascii_toupper((unsigned char) text[i])
									  : pg_ascii_tolower((unsigned char) text[i]));
	}
	while (!ascii && text < end)
	{
		const char *stop = text;
		char	   *mapped;

		while (stop < end && !is_foreign(stop, end))
			stop++;
		if (stop > text)
		{
			mapped = upper ? str_toupper(text, stop - text, case_collation())
				: str_tolower(text, stop - text, case_collation());
			appendStringInfoString(&out, mapped);
			pfree(mapped);
		}
		for (; stop < end && is_foreign(stop, end); stop += *stop == '\0' ? 1 : 3)
			appendBinaryStringInfo(&out, stop, *stop == '\0' ? 1 : 3);
		text = stop;
	}
	*result_len = out.len;
	return out.data;
}

/* The one upper-case unit of a letter, or the letter itself where it has none. */
static pg_wchar
canonical(const char *letter, int len)
{
	pg_wchar	code = utf8_to_unicode((const unsigned char *) letter);
	pg_wchar	upper_code;
	const char *upper;
	int			upper_len;

	if (len == 1)
		return pg_ascii_toupper(*letter);
	if (len == 4 || is_foreign(letter, letter + len))
		return code;
	upper = retl_text_case(letter, len, true, &upper_len);
	if (retl_text_length(upper, upper_len) != 1)
		return code;
	upper_code = utf8_to_unicode((const unsigned char *) upper);
	return upper_code < 0x80 ? code : upper_code;
}

bool
retl_text_same_letter(const char *a, int alen, const char *b, int blen)
{
	if (alen == blen && memcmp(a, b, alen) == 0)
		return true;
	if (alen == 1 && blen == 1)
		return pg_ascii_toupper(*a) == pg_ascii_toupper(*b);
	if (alen == 1 || blen == 1)
		return false;
	return canonical(a, alen) == canonical(b, blen);
}

/* White space and line ends of ECMAScript. */
static bool
is_blank(const char *p, int len)
{
	pg_wchar	code = utf8_to_unicode((const unsigned char *) p);

	if (len == 1)
		return (code >= 9 && code <= 13) || code == ' ';
	return code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
		code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
		code == 0x3000 || code == 0xFEFF;
}

const char *
retl_text_trim(const char *text, int len, int *trimmed_len)
{
	const char *end = text + len;
	const char *stop;

	while (text < end && is_blank(text, width(text, end)))
		text += width(text, end);
	stop = text;
	for (const char *p = text; p < end; p += width(p, end))
	{
		if (!is_blank(p, width(p, end)))
			stop = p + width(p, end);
	}
	*trimmed_len = stop - text;
	return text;
}

void
retl_text_write_percent(StringInfo out, const char *text, int len)
{
	static const char hex[] = "0123456789ABCDEF";

	for (int i = 0; i < len; i++)
	{
		unsigned char c = text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			(c != '\0' && strchr("-_.!~*'()", c) != NULL))
			appendStringInfoChar(out, c);
		else
		{
			appendStringInfoChar(out, '%');
			appendStringInfoChar(out, hex[c >> 4]);
			appendStringInfoChar(out, hex[c & 15]);
		}
	}
}
