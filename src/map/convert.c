/*
 * convert.c
 *		Points in time and names in the form that a destination wants; see
 *		convert.h.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "map/convert.h"

#define US_PER_MS INT64CONST(1000)

/* Numbers below count seconds (to the year 5138), then milliseconds, then microseconds. */
#define LIMIT_SECONDS 1e11
#define LIMIT_MS 1e14

/* What a text says: microseconds since 1970, and what of it was written. */
typedef struct Moment
{
	int64		us;
	bool		has_time;
	bool		has_zone;
	bool		has_t;
} Moment;

bool
retl_time_form(const RetlJson *name, RetlTimeForm *form)
{
	static const char *const names[] = {
		[RETL_TIME_UNIX] = "unix",
		[RETL_TIME_UNIX_MS] = "unix_ms",
		[RETL_TIME_UNIX_US] = "unix_us",
		[RETL_TIME_ISO] = "iso",
		[RETL_TIME_DATE] = "date",
	};

	for (int i = RETL_TIME_UNIX; i < lengthof(names); i++)
	{
		if (retl_json_is_string(name, names[i]))
		{
			*form = (RetlTimeForm) i;
			return true;
		}
	}
	return false;
}

/* Exactly "count" digits at the cursor; -1: there are fewer. */
static int
digits(const char **at, const char *end, int count)
{
	int			value = 0;

	if (end - *at < count)
		return -1;
	for (int i = 0; i < count; i++, (*at)++)
	{
		if (**at < '0' || **at > '9')
			return -1;
		value = value * 10 + (**at - '0');
	}
	return value;
}

static bool
take(const char **at, const char *end, const char *any)
{
	if (*at == end || **at == '\0' || strchr(any, **at) == NULL)
		return false;
	(*at)++;
	return true;
}

/* Fraction of a second in microseconds; further digits are dropped. */
static bool
fraction(const char **at, const char *end, int64 *us)
{
	int64		unit = USECS_PER_SEC / 10;
	const char *start = *at;

	for (; *at < end && **at >= '0' && **at <= '9'; (*at)++, unit /= 10)
		*us += (**at - '0') * unit;
	return *at > start;
}

static bool
zone(const char **at, const char *end, Moment *moment)
{
	int			sign;
	int			hours;
	int			minutes = 0;

	if (take(at, end, "Zz"))
	{
		moment->has_zone = true;
		return true;
	}
	if (!take(at, end, "+-"))
		return true;
	sign = (*at)[-1] == '-' ? -1 : 1;
	hours = digits(at, end, 2);
	if (hours < 0)
		return false;
	if (take(at, end, ":") || *at < end)
		minutes = digits(at, end, 2);
	if (minutes < 0)
		return false;
	moment->has_zone = true;
	moment->us -= sign * (hours * 60 + minutes) * INT64CONST(60) * USECS_PER_SEC;
	return true;
}

/* YYYY-MM-DD, and perhaps a time of day and a zone, as PostgreSQL and ISO 8601 write them. */
static bool
read_text(const char *text, int len, Moment *moment)
{
	const char *at = text;
	const char *end = text + len;
	int			year = digits(&at, end, 4);
	int			month = take(&at, end, "-") ? digits(&at, end, 2) : -1;
	int			day = take(&at, end, "-") ? digits(&at, end, 2) : -1;
	int			hour,
				minute,
				second = 0;

	memset(moment, 0, sizeof(*moment));
	if (year < 0 || month < 1 || month > 12 || day < 1 || day > day_tab[isleap(year)][month - 1])
		return false;
	moment->us = (int64) (date2j(year, month, day) - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	if (at == end)
		return true;

	if (!take(&at, end, "Tt "))
		return false;
	moment->has_t = at[-1] == 'T';
	hour = digits(&at, end, 2);
	minute = take(&at, end, ":") ? digits(&at, end, 2) : -1;
	if (take(&at, end, ":"))
		second = digits(&at, end, 2);
	if (hour < 0 || hour > 24 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return false;
	moment->us += ((hour * 60 + minute) * 60 + second) * USECS_PER_SEC;
	moment->has_time = true;
	if (take(&at, end, ".,") && !fraction(&at, end, &moment->us))
		return false;
	(void) take(&at, end, " ");
	return zone(&at, end, moment) && at == end;
}

static bool
read_number(const RetlJson *value, Moment *moment)
{
	double		number = retl_json_double(value->text, value->len);

	memset(moment, 0, sizeof(*moment));
	moment->has_time = true;
	if (fabs(number) < LIMIT_SECONDS)
		number *= USECS_PER_SEC;
	else if (fabs(number) < LIMIT_MS)
		number *= US_PER_MS;
	if (isnan(number) || fabs(number) > LIMIT_SECONDS * USECS_PER_SEC)
		return false;
	moment->us = (int64) rint(number);
	return true;
}

/* A text of digits counts as the number. */
static bool
read_moment(const RetlJson *value, Moment *moment)
{
	int			i = 0;

	if (value->type == RETL_JSON_NUMBER)
		return read_number(value, moment);
	if (value->type != RETL_JSON_STRING)
		return false;
	while (i < value->len && value->text[i] >= '0' && value->text[i] <= '9')
		i++;
	if (i == value->len && i >= 8 && i <= 16)
		return read_number(value, moment);
	return read_text(value->text, value->len, moment);
}

static int64
floor_div(int64 value, int64 by)
{
	return value >= 0 ? value / by : -((-value + by - 1) / by);
}

static RetlJson *
string(char *text)
{
	return retl_json_string(text, strlen(text));
}

static RetlJson *
write_moment(const Moment *moment, RetlTimeForm form)
{
	int64		days = floor_div(moment->us, USECS_PER_DAY);
	int64		us = moment->us - days * USECS_PER_DAY;
	int			year,
				month,
				day;
	char	   *text;

	switch (form)
	{
		case RETL_TIME_UNIX:
			text = psprintf(INT64_FORMAT, floor_div(moment->us, USECS_PER_SEC));
			return retl_json_number(text, strlen(text));
		case RETL_TIME_UNIX_MS:
			text = psprintf(INT64_FORMAT, floor_div(moment->us, US_PER_MS));
			return retl_json_number(text, strlen(text));
		case RETL_TIME_UNIX_US:
			text = psprintf(INT64_FORMAT, moment->us);
			return retl_json_number(text, strlen(text));
		default:
			break;
	}
	j2date((int) (days + UNIX_EPOCH_JDATE), &year, &month, &day);
	if (form == RETL_TIME_DATE)
		return string(psprintf("%04d-%02d-%02d", year, month, day));
	return string(psprintf("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", year, month, day,
						   (int) (us / USECS_PER_HOUR), (int) (us / USECS_PER_MINUTE % 60),
						   (int) (us / USECS_PER_SEC % 60), (int) (us / US_PER_MS % 1000)));
}

RetlJson *
retl_convert_time(RetlJson *value, RetlTimeForm form)
{
	Moment		moment;

	if (!read_moment(value, &moment))
		return NULL;
	if (form == RETL_TIME_AS_IT_IS || (form == RETL_TIME_ISO && moment.has_zone && moment.has_t))
		return value;
	if (form == RETL_TIME_DATE && !moment.has_time)
		return value;
	return write_moment(&moment, form);
}

RetlJson *
retl_convert_times(RetlJson *value, RetlTimeForm form)
{
	RetlJson   *result;
	Moment		moment;

	check_stack_depth();
	if (value == NULL)
		return NULL;
	switch (value->type)
	{
		case RETL_JSON_STRING:
			return read_text(value->text, value->len, &moment) && moment.has_time ?
				write_moment(&moment, form) : value;
		case RETL_JSON_ARRAY:
			result = retl_json_array();
			for (int i = 0; i < value->len; i++)
				retl_json_push(result, retl_convert_times(value->items[i], form));
			return result;
		case RETL_JSON_OBJECT:
			result = retl_json_object();
			for (int i = 0; i < value->len; i++)
				retl_json_set(result, value->members[i].key, value->members[i].keylen,
							  retl_convert_times(value->members[i].value, form));
			return result;
		default:
			return value;
	}
}

RetlJson *
retl_convert_names(const RetlJson *object, const RetlJson *names)
{
	RetlJson   *result = retl_json_object();

	for (int i = 0; i < object->len; i++)
	{
		const RetlJsonMember *member = &object->members[i];
		RetlJson   *name = retl_json_get(names, member->key, member->keylen);

		if (name != NULL && name->type == RETL_JSON_STRING)
			retl_json_set(result, name->text, name->len, member->value);
		else
			retl_json_set(result, member->key, member->keylen, member->value);
	}
	return result;
}
