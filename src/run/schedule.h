/*
 * schedule.h
 *		Schedules of mappings: what their text means, and when they come next.
 *
 * Local times are PostgreSQL's time zones'. A time that is skipped when clocks
 * go forward comes at the first instant after; one that occurs twice when they
 * go back comes once, at its first occurrence, unless the schedule is a cron
 * line that holds in every hour: that comes in each hour that there is. No
 * state, no locks.
 */
#ifndef RETL_SCHEDULE_H
#define RETL_SCHEDULE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

typedef enum RetlScheduleKind
{
	RETL_SCHEDULE_MANUAL,
	RETL_SCHEDULE_INTERVAL,		/* a cycle that begins when the mapping is enabled */
	RETL_SCHEDULE_TIMES			/* at times of days */
} RetlScheduleKind;

#define RETL_MINUTES_A_DAY (24 * 60)

typedef struct RetlSchedule
{
	RetlScheduleKind kind;
	int64		interval;		/* in microseconds */

	/* times; bits from 0, days of the month and months from 1 */
	uint8		minutes[RETL_MINUTES_A_DAY / 8];	/* of the day */
	uint32		month_days;
	uint16		months;
	uint8		week_days;		/* 0: Sunday */
	bool		either_day;		/* a day of the month or one of the week, not both */
	bool		every_hour;
	pg_tz	   *zone;
} RetlSchedule;

/* Errors with 22023 unless "text" is a schedule that will come. */
extern void retl_schedule_parse(const char *text, RetlSchedule *schedule);

/*
 * When it comes next after "after", DT_NOEND: not at all. "since" is when it
 * took effect: a cycle has its first turn then, times of days come after it.
 */
extern TimestampTz retl_schedule_next(const RetlSchedule *schedule, TimestampTz since, TimestampTz after);

#endif							/* RETL_SCHEDULE_H */
