/*
 * schedule.c
 *		Schedules of mappings; see schedule.h.
 */
#include "postgres.h"

#include <ctype.h>

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "run/schedule.h"

#define MAX_TOKENS 8
#define MAX_INTERVAL_DAYS 366

/* 29 February comes after eight years at most, whatever the weekday: days are either. */
#define MAX_DAYS_AHEAD (9 * 366)

#define ALL_MONTH_DAYS (((uint32) 0xFFFFFFFF) & ~(uint32) 1)
#define ALL_MONTHS 0x1FFE
#define ALL_WEEK_DAYS 0x7F

static const char *const week_day_names[] =
{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", NULL};
static const char *const month_names[] =
{"january", "february", "march", "april", "may", "june", "july", "august", "september",
"october", "november", "december", NULL};

/* --------------------------------------------------------------------------
 * Text
 * -------------------------------------------------------------------------- */

/* Errors; "detail" is palloc'd or constant. */
pg_noreturn static void
refuse(const char *text, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid schedule \"%s\"", text),
			 errdetail_internal("%s", detail),
			 errhint("A schedule is manual; an interval such as 15 minutes or 1 day;"
					 " days and times such as on mon,wed,fri at 09:30,17:00 Europe/Paris;"
					 " or a cron line such as */15 8-18 * * mon-fri, with a time zone after it or in UTC.")));
}

/* In lower case, cut at blanks, none of them around commas. */
static int
tokenize(const char *text, char **tokens)
{
	char	   *copy = pstrdup(text);
	char	   *out = copy;
	int			count = 0;
	bool		comma = true;

	for (const char *p = copy; *p; p++)
	{
		if (isspace((unsigned char) *p))
		{
			const char *next = p;

			while (isspace((unsigned char) *next))
				next++;
			if (comma || *next == ',' || *next == '\0')
			{
				p = next - 1;
				continue;
			}
			p = next - 1;
			*out++ = ' ';
			continue;
		}
		comma = *p == ',';
		*out++ = pg_tolower((unsigned char) *p);
	}
	*out = '\0';

	for (char *token = strtok_r(copy, " ", &out); token != NULL; token = strtok_r(NULL, " ", &out))
	{
		if (count == MAX_TOKENS)
			refuse(text, "It has too many parts.");
		tokens[count++] = token;
	}
	return count;
}

/* Digits from *p on; -1 where there are none or too many. */
static int
read_number(char **p)
{
	char	   *start = *p;
	int			value = 0;

	while (isdigit((unsigned char) **p) && *p - start < 6)
		value = 10 * value + (*(*p)++ - '0');
	return *p == start || isdigit((unsigned char) **p) ? -1 : value;
}

/*
 * Zones are files of the time zone database. pg_tzset also takes rules as POSIX
 * writes them, so that a misspelt name could pass for one: these have digits.
 */
static pg_tz *
find_zone(const char *text, const char *name)
{
	pg_tz	   *zone = NULL;

	if (strcspn(name, "0123456789+,<:") == strlen(name) || strncmp(name, "etc/gmt", 7) == 0)
		zone = pg_tzset(name);
	if (zone == NULL || !pg_tz_acceptable(zone))
		refuse(text, psprintf("There is no time zone \"%s\"; names are as in pg_timezone_names, Europe/Paris for one.", name));
	return zone;
}

/* A name, whole or its first three letters or more; the position, or -1. */
static int
find_name(const char *const *names, const char *name, size_t len)
{
	for (int i = 0; names[i] != NULL && len >= 3; i++)
		if (len <= strlen(names[i]) && strncmp(names[i], name, len) == 0)
			return i;
	return -1;
}

/* --------------------------------------------------------------------------
 * Intervals
 * -------------------------------------------------------------------------- */

static int64
unit_minutes(const char *unit, size_t len)
{
	static const struct
	{
		const char *name;
		int64		minutes;
	}			units[] =
	{
		{"m", 1}, {"min", 1}, {"mins", 1}, {"minute", 1}, {"minutes", 1},
		{"h", 60}, {"hr", 60}, {"hrs", 60}, {"hour", 60}, {"hours", 60},
		{"d", RETL_MINUTES_A_DAY}, {"day", RETL_MINUTES_A_DAY}, {"days", RETL_MINUTES_A_DAY},
		{"w", 7 * RETL_MINUTES_A_DAY}, {"week", 7 * RETL_MINUTES_A_DAY}, {"weeks", 7 * RETL_MINUTES_A_DAY}
	};

	for (int i = 0; i < lengthof(units); i++)
		if (strlen(units[i].name) == len && strncmp(units[i].name, unit, len) == 0)
			return units[i].minutes;
	return 0;
}

static void
parse_interval(const char *text, char **tokens, int count, RetlSchedule *schedule)
{
	StringInfoData joined;
	int64		minutes = 0;
	char	   *p;

	initStringInfo(&joined);
	for (int i = 0; i < count; i++)
		appendStringInfoString(&joined, tokens[i]);
	for (p = joined.data; *p;)
	{
		int			number = read_number(&p);
		size_t		len = strcspn(p, "0123456789");
		int64		unit = unit_minutes(p, len);

		if (number < 0)
			refuse(text, "It is none of the forms there are.");
		if (unit == 0)
			refuse(text, "An interval is a number of minutes, hours, days or weeks.");
		minutes += number * unit;
		p += len;
	}
	if (minutes < 1 || minutes > MAX_INTERVAL_DAYS * (int64) RETL_MINUTES_A_DAY)
		refuse(text, psprintf("An interval is between 1 minute and %d days.", MAX_INTERVAL_DAYS));
	schedule->kind = RETL_SCHEDULE_INTERVAL;
	schedule->interval = minutes * USECS_PER_MINUTE;
}

/* --------------------------------------------------------------------------
 * Lists: of cron's fields and of days
 * -------------------------------------------------------------------------- */

typedef struct Field
{
	const char *what;
	int			min;
	int			max;
	const char *const *names;	/* or NULL */
} Field;

/* A number or a name. */
static int
read_value(const char *text, const Field *field, char **p)
{
	size_t		len = strspn(*p, "abcdefghijklmnopqrstuvwxyz");
	int			value;

	if (len > 0)
	{
		value = field->names ? find_name(field->names, *p, len) : -1;
		if (value < 0)
			refuse(text, psprintf("There is no %s \"%.*s\".", field->what, (int) len, *p));
		*p += len;
		return value + field->min;
	}
	value = read_number(p);
	if (value < field->min || value > field->max)
		refuse(text, psprintf("The %s is between %d and %d%s.", field->what, field->min, field->max,
							  field->names ? ", or a name" : ""));
	return value;
}

/* Bits of one field. */
static uint64
read_field(const char *text, const Field *field, char *list)
{
	uint64		bits = 0;
	char	   *p = list;

	for (;;)
	{
		int			from = field->min;
		int			to = field->max;
		int			step = 1;
		bool		range = true;

		if (*p == '*')
		{
			p++;
			if (field->names == week_day_names)
				to = 6;
		}
		else
		{
			from = to = read_value(text, field, &p);
			range = *p == '-';
			if (range)
			{
				p++;
				to = read_value(text, field, &p);
				/* up to Sunday, by its name */
				if (to == 0 && from > 0 && field->names == week_day_names)
					to = 7;
				if (to < from)
					refuse(text, psprintf("Range \"%s\" runs backwards.", list));
			}
		}
		if (*p == '/')
		{
			p++;
			if (!range)
				refuse(text, psprintf("A step follows * or a range; \"%s\" has neither.", list));
			step = read_number(&p);
			if (step < 1 || step > field->max)
				refuse(text, psprintf("A step of the %s is between 1 and %d.", field->what, field->max));
		}
		for (int value = from; value <= to; value += step)
			bits |= UINT64CONST(1) << value;
		if (*p == '\0')
			return bits;
		if (*p++ != ',')
			refuse(text, psprintf("\"%s\" is no list of values, ranges and steps.", list));
	}
}

static uint8
week_day_bits(uint64 bits)
{
	return (uint8) ((bits | bits >> 7) & ALL_WEEK_DAYS);
}

static void
set_minute(RetlSchedule *schedule, int minute)
{
	schedule->minutes[minute / 8] |= 1 << minute % 8;
}

static void
parse_cron(const char *text, char **tokens, int count, RetlSchedule *schedule)
{
	static const Field minute_field = {"minute", 0, 59, NULL};
	static const Field hour_field = {"hour", 0, 23, NULL};
	static const Field month_day_field = {"day of the month", 1, 31, NULL};
	static const Field month_field = {"month", 1, 12, month_names};
	static const Field week_day_field = {"day of the week", 0, 7, week_day_names};
	uint64		minutes;
	uint64		hours;

	if (count != 5 && count != 6)
		refuse(text, "A cron line has five fields and may have a time zone after them.");
	minutes = read_field(text, &minute_field, tokens[0]);
	hours = read_field(text, &hour_field, tokens[1]);
	schedule->kind = RETL_SCHEDULE_TIMES;
	schedule->month_days = (uint32) read_field(text, &month_day_field, tokens[2]);
	schedule->months = (uint16) read_field(text, &month_field, tokens[3]);
	schedule->week_days = week_day_bits(read_field(text, &week_day_field, tokens[4]));
	/* as cron has it: one of the two days is enough unless one of the fields begins with a star */
	schedule->either_day = tokens[2][0] != '*' && tokens[4][0] != '*';
	schedule->every_hour = hours == 0xFFFFFF;
	schedule->zone = find_zone(text, count == 6 ? tokens[5] : "utc");
	for (int hour = 0; hour < 24; hour++)
		for (int minute = 0; minute < 60; minute++)
			if (hours >> hour & 1 && minutes >> minute & 1)
				set_minute(schedule, 60 * hour + minute);
}

/* on DAYS at TIMES [ZONE] */
static void
parse_days(const char *text, char **tokens, int count, RetlSchedule *schedule)
{
	static const Field day_field = {"day", 0, 6, week_day_names};
	char	   *p;

	if (count < 4 || count > 5 || strcmp(tokens[2], "at") != 0)
		refuse(text, "Days and times are: on, days, at, times, and perhaps a time zone.");
	if (strcspn(tokens[1], "0123456789*/") != strlen(tokens[1]))
		refuse(text, "Days are names, mon or monday, and ranges of them, mon-fri.");
	schedule->kind = RETL_SCHEDULE_TIMES;
	schedule->week_days = week_day_bits(read_field(text, &day_field, tokens[1]));
	schedule->month_days = ALL_MONTH_DAYS;
	schedule->months = ALL_MONTHS;
	schedule->zone = find_zone(text, count == 5 ? tokens[4] : "utc");
	for (p = tokens[3];; p++)
	{
		int			hour = read_number(&p);
		int			minute = -1;

		if (*p == ':' && isdigit((unsigned char) p[1]) && isdigit((unsigned char) p[2]))
		{
			p++;
			minute = read_number(&p);
		}
		if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || (*p != '\0' && *p != ','))
			refuse(text, "Times are hours and minutes from 00:00 to 23:59.");
		set_minute(schedule, 60 * hour + minute);
		if (*p == '\0')
			break;
	}
}

void
retl_schedule_parse(const char *text, RetlSchedule *schedule)
{
	char	   *tokens[MAX_TOKENS];
	int			count = tokenize(text, tokens);

	memset(schedule, 0, sizeof(*schedule));
	if (count == 0)
		refuse(text, "It is empty.");
	if (strcmp(tokens[0], "manual") == 0 && count == 1)
		schedule->kind = RETL_SCHEDULE_MANUAL;
	else if (strcmp(tokens[0], "on") == 0)
		parse_days(text, tokens, count, schedule);
	else if (tokens[0][0] == '*' || (count > 1 && count != 2 && count != 4) || strpbrk(tokens[0], ",-/") != NULL)
		parse_cron(text, tokens, count, schedule);
	else
		parse_interval(text, tokens, count, schedule);

	if (schedule->kind == RETL_SCHEDULE_TIMES &&
		retl_schedule_next(schedule, 0, 0) == DT_NOEND)
		refuse(text, "There is no such day in any year.");
}

/* --------------------------------------------------------------------------
 * Time
 * -------------------------------------------------------------------------- */

/* A stretch of time with one offset from UTC: [from, to), in seconds of UTC. */
typedef struct Stretch
{
	pg_time_t	from;
	pg_time_t	to;
	int64		offset;
} Stretch;

#define MAX_STRETCHES 8

/* The stretches that can hold local times of a day that begins at "midnight", in local seconds. */
static int
find_stretches(const pg_tz *zone, pg_time_t midnight, Stretch *stretches)
{
	/* no offset is as much as a day */
	pg_time_t	from = midnight - SECS_PER_DAY;
	pg_time_t	to = midnight + 2 * SECS_PER_DAY;
	int			count = 0;

	while (from < to && count < MAX_STRETCHES)
	{
		pg_time_t	boundary;
		long		before;
		long		after;
		int			isdst;
		int			found = pg_next_dst_boundary(&from, &before, &isdst, &boundary, &after, &isdst, zone);

		if (found < 0)
			elog(ERROR, "no offset of time zone \"%s\"", pg_get_timezone_name((pg_tz *) zone));
		stretches[count].from = from;
		stretches[count].to = found > 0 ? Min(boundary, to) : to;
		stretches[count].offset = before;
		from = stretches[count].to;
		count++;
	}
	return count;
}

/* When it is "local", up to two instants; in a gap the first one after it. */
static int
find_instants(const Stretch *stretches, int count, pg_time_t local, pg_time_t *instants)
{
	int			found = 0;

	for (int i = 0; i < count && found < 2; i++)
	{
		pg_time_t	instant = local - stretches[i].offset;

		if (instant >= stretches[i].from && instant < stretches[i].to)
			instants[found++] = instant;
	}
	for (int i = 1; i < count && found == 0; i++)
		if (local >= stretches[i].from + stretches[i - 1].offset &&
			local < stretches[i].from + stretches[i].offset)
			instants[found++] = stretches[i].from;
	return found;
}

static bool
is_day(const RetlSchedule *schedule, int julian)
{
	int			year;
	int			month;
	int			day;
	bool		of_month;
	bool		of_week = schedule->week_days >> j2day(julian) & 1;

	j2date(julian, &year, &month, &day);
	of_month = schedule->month_days >> day & 1;
	return schedule->months >> month & 1 &&
		(schedule->either_day ? of_month || of_week : of_month && of_week);
}

/* The first time of a day after "after", or DT_NOEND. */
static TimestampTz
next_of_day(const RetlSchedule *schedule, int julian, TimestampTz after)
{
	pg_time_t	midnight = (pg_time_t) (julian - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	Stretch		stretches[MAX_STRETCHES];
	int			nstretches = find_stretches(schedule->zone, midnight, stretches);
	TimestampTz next = DT_NOEND;

	for (int minute = 0; minute < RETL_MINUTES_A_DAY; minute++)
	{
		pg_time_t	instants[2];
		int			count;

		if (!(schedule->minutes[minute / 8] >> minute % 8 & 1))
			continue;
		count = find_instants(stretches, nstretches, midnight + minute * SECS_PER_MINUTE, instants);
		for (int i = 0; i < (schedule->every_hour ? count : Min(count, 1)); i++)
		{
			TimestampTz instant = time_t_to_timestamptz(instants[i]);

			if (instant > after && instant < next)
				next = instant;
		}
	}
	return next;
}

static TimestampTz
next_time(const RetlSchedule *schedule, TimestampTz after)
{
	pg_time_t	seconds = timestamptz_to_time_t(after);
	struct pg_tm *local = pg_localtime(&seconds, schedule->zone);
	TimestampTz next = DT_NOEND;
	int			today;

	if (local == NULL)
		return DT_NOEND;
	today = date2j(local->tm_year + 1900, local->tm_mon + 1, local->tm_mday);

	/* where clocks change at midnight, days meet: the three days around are looked at together */
	for (int day = -1; day <= MAX_DAYS_AHEAD && (day <= 1 || next == DT_NOEND); day++)
		if (is_day(schedule, today + day))
			next = Min(next, next_of_day(schedule, today + day, after));
	return next;
}

TimestampTz
retl_schedule_next(const RetlSchedule *schedule, TimestampTz since, TimestampTz after)
{
	switch (schedule->kind)
	{
		case RETL_SCHEDULE_MANUAL:
			return DT_NOEND;
		case RETL_SCHEDULE_INTERVAL:
			if (after < since)
				return since;
			return since + ((after - since) / schedule->interval + 1) * schedule->interval;
		case RETL_SCHEDULE_TIMES:
			return next_time(schedule, Max(since, after));
	}
	return DT_NOEND;
}
