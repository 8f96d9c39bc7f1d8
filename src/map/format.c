/*
 * format.c
 *		Formats of strings that fields may ask for; see format.h.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>

#include "map/format.h"

/* A text being taken apart from its start. */
typedef struct Cursor
{
	const char *next;
	const char *end;
} Cursor;

/* Takes "minimum" to "maximum" digits; -1 when there are fewer. */
static int
take_number(Cursor *cursor, int minimum, int maximum)
{
	int			value = 0;
	int			digits = 0;

	while (digits < maximum && cursor->next < cursor->end && isdigit((unsigned char) *cursor->next))
	{
		value = value * 10 + (*cursor->next++ - '0');
		digits++;
	}
	return digits < minimum ? -1 : value;
}

static bool
take_any(Cursor *cursor, const char *characters)
{
	if (cursor->next < cursor->end && *cursor->next != '\0' && strchr(characters, *cursor->next) != NULL)
	{
		cursor->next++;
		return true;
	}
	return false;
}

static bool
at_end(const Cursor *cursor)
{
	return cursor->next == cursor->end;
}

/* ---- dates and times ---- */

static bool
take_date(Cursor *cursor, const char *separators)
{
	static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year = take_number(cursor, 4, 4);
	int			month,
				day;

	if (year < 0 || !take_any(cursor, separators))
		return false;
	month = take_number(cursor, 1, 2);
	if (month < 1 || month > 12 || !take_any(cursor, separators))
		return false;
	day = take_number(cursor, 1, 2);
	if (month == 2 && day == 29)
		return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return day >= 1 && day <= days[month - 1];
}

static bool
take_zone(Cursor *cursor)
{
	if (take_any(cursor, "Zz"))
		return true;
	if (!take_any(cursor, "+-") || take_number(cursor, 2, 2) < 0)
		return false;
	(void) take_any(cursor, ":");
	return at_end(cursor) || take_number(cursor, 2, 2) >= 0;
}

static bool
take_time(Cursor *cursor)
{
	int			hour = take_number(cursor, 1, 2);
	int			minute,
				second = 0;

	if (hour < 0 || hour > 24 || !take_any(cursor, ":"))
		return false;
	minute = take_number(cursor, 2, 2);
	if (minute < 0 || minute > 59)
		return false;
	if (take_any(cursor, ":"))
		second = take_number(cursor, 2, 2);
	if (second < 0 || second > 60)
		return false;
	if (take_any(cursor, ".") && take_number(cursor, 1, 9) < 0)
		return false;
	while (!at_end(cursor) && isdigit((unsigned char) *cursor->next))
		cursor->next++;
	while (take_any(cursor, " "))
		;
	return at_end(cursor) || take_zone(cursor);
}

static bool
is_date(const char *text, int len)
{
	Cursor		cursor = {text, text + len};

	return len == 10 && take_date(&cursor, "-") && at_end(&cursor);
}

static bool
is_date_time(const char *text, int len)
{
	Cursor		cursor = {text, text + len};

	return take_date(&cursor, "-") && take_any(&cursor, "Tt ") && take_time(&cursor) && at_end(&cursor);
}

/* Day, month's name and year in any order, as in mail headers and JavaScript's Date. */
static bool
is_written_date(const char *text, int len)
{
	static const char *const months[] = {
		"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"
	};
	bool		month = false;
	bool		year = false;

	for (int i = 0; i + 3 <= len && !month; i++)
	{
		if (i > 0 && isalpha((unsigned char) text[i - 1]))
			continue;
		for (int m = 0; m < lengthof(months); m++)
			month |= pg_strncasecmp(text + i, months[m], 3) == 0;
	}
	for (int i = 0; i + 4 <= len && !year; i++)
		year = isdigit((unsigned char) text[i]) && isdigit((unsigned char) text[i + 1]) &&
			isdigit((unsigned char) text[i + 2]) && isdigit((unsigned char) text[i + 3]);
	return month && year;
}

/* What tools take for a point in time: ISO 8601 and near it, seconds or milliseconds. */
static bool
is_date_like(const char *text, int len)
{
	Cursor		cursor = {text, text + len};

	while (take_any(&cursor, "0123456789"))
		;
	if (at_end(&cursor))
		return len > 0;
	cursor.next = text;
	if (take_date(&cursor, "-/"))
	{
		if (at_end(&cursor))
			return true;
		return take_any(&cursor, "Tt ") && take_time(&cursor) && at_end(&cursor);
	}
	cursor.next = text;
	if (take_number(&cursor, 4, 4) >= 0 && take_any(&cursor, "-/") &&
		take_number(&cursor, 1, 2) > 0 && at_end(&cursor))
		return true;
	return is_written_date(text, len);
}

static bool
is_time(const char *text, int len)
{
	Cursor		cursor = {text, text + len};

	return take_time(&cursor) && at_end(&cursor);
}

/* ---- addresses ---- */

static bool
is_host(const char *text, int len)
{
	int			label = 0;

	if (len == 0 || len > 253)
		return false;
	for (int i = 0; i < len; i++)
	{
		bool		last = i + 1 == len || text[i + 1] == '.';

		if (text[i] == '.')
		{
			if (label == 0 || i + 1 == len)
				return false;
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char) text[i]) && (text[i] != '-' || label == 0 || last))
			return false;
		if (++label > 63)
			return false;
	}
	return label > 0;
}

static bool
is_email(const char *text, int len)
{
	const char *at = memchr(text, '@', len);
	int			local;

	if (at == NULL || at == text || memchr(at, '.', text + len - at) == NULL)
		return false;
	local = at - text;
	for (int i = 0; i < local; i++)
	{
		if (text[i] == '.' && (i == 0 || i + 1 == local || text[i + 1] == '.'))
			return false;
		if (!isalnum((unsigned char) text[i]) &&
			(text[i] == '\0' || strchr("!#$%&'*+/=?^_`{|}~-.", text[i]) == NULL))
			return false;
	}
	return is_host(at + 1, len - local - 1);
}

static bool
is_uri(const char *text, int len)
{
	int			i = 0;

	if (len == 0 || !isalpha((unsigned char) text[0]))
		return false;
	while (i < len && (isalnum((unsigned char) text[i]) || strchr("+-.", text[i]) != NULL) && text[i] != '\0')
		i++;
	if (i + 1 >= len || text[i] != ':')
		return false;
	for (; i < len; i++)
	{
		if ((unsigned char) text[i] <= ' ' || strchr("\"<>\\^`{|}", text[i]) != NULL)
			return false;
	}
	return true;
}

static bool
is_address(const char *text, int len, int family)
{
	char		buffer[64];
	struct in6_addr address;

	if (len >= sizeof(buffer) || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(buffer, text, len);
	buffer[len] = '\0';
	return inet_pton(family, buffer, &address) == 1;
}

static bool
is_ipv4(const char *text, int len)
{
	return is_address(text, len, AF_INET);
}

static bool
is_ipv6(const char *text, int len)
{
	return is_address(text, len, AF_INET6);
}

static bool
is_uuid(const char *text, int len)
{
	if (len != 36)
		return false;
	for (int i = 0; i < len; i++)
	{
		bool		dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			return false;
	}
	return true;
}

static const struct
{
	const char *name;
	const char *title;
	bool		(*matches) (const char *text, int len);
}			formats[] =
{
	{"date-like", "date-like", is_date_like},
	{"date-time", "date and time", is_date_time},
	{"date", "date", is_date},
	{"time", "time", is_time},
	{"email", "email address", is_email},
	{"uri", "URI", is_uri},
	{"hostname", "hostname", is_host},
	{"ipv4", "IPv4 address", is_ipv4},
	{"ipv6", "IPv6 address", is_ipv6},
	{"uuid", "UUID", is_uuid},
};

bool
retl_format_matches(const char *format, const char *text, int len, const char **title)
{
	for (int i = 0; i < lengthof(formats); i++)
	{
		if (strcmp(formats[i].name, format) == 0)
		{
			*title = formats[i].title;
			return formats[i].matches(text, len);
		}
	}
	return true;
}
