/*
 * schedules.c
 *		next_ticks, tick, install_tick, uninstall_tick.
 *
 * A job of pg_cron calls tick every minute; retl's catalog is the schedule.
 * What is asked of pg_cron is asked as the caller, with the caller's rights.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "api/results.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "run/schedule.h"
#include "run/tick.h"

PG_FUNCTION_INFO_V1(retl_next_ticks);
PG_FUNCTION_INFO_V1(retl_tick);
PG_FUNCTION_INFO_V1(retl_install_tick);
PG_FUNCTION_INFO_V1(retl_uninstall_tick);

#define MAX_TICKS 10000

/* --------------------------------------------------------------------------
 * next_ticks
 * -------------------------------------------------------------------------- */

Datum
retl_next_ticks(PG_FUNCTION_ARGS)
{
	char	   *text = retl_api_text(fcinfo, 0, "schedule");
	int32		count = retl_api_int32(fcinfo, 1, "count");
	TimestampTz after = PG_ARGISNULL(2) ? GetCurrentTransactionStartTimestamp() : PG_GETARG_TIMESTAMPTZ(2);
	RetlSchedule schedule;
	RetlResult	result;
	TimestampTz tick;

	if (count < 0 || count > MAX_TICKS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("count must be between 0 and %d", MAX_TICKS)));
	if (TIMESTAMP_NOT_FINITE(after))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after must be finite")));
	retl_schedule_parse(text, &schedule);
	retl_result_begin(&result, fcinfo);
	tick = schedule.kind == RETL_SCHEDULE_INTERVAL ? after - 1 : after;
	for (int32 i = 0; i < count; i++)
	{
		tick = retl_schedule_next(&schedule, after, tick);
		if (tick == DT_NOEND || !IS_VALID_TIMESTAMP(tick))
			break;
		retl_result_add(&result, TimestampTzGetDatum(tick));
	}
	return (Datum) 0;
}

/* --------------------------------------------------------------------------
 * tick
 * -------------------------------------------------------------------------- */

Datum
retl_tick(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	RetlCall	call;
	int64		requests;

	if (!PG_ARGISNULL(0))
	{
		now = PG_GETARG_TIMESTAMPTZ(0);
		if (!superuser())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("must be superuser to say what time it is"),
					 errhint("Call retl.tick() without an argument.")));
		if (TIMESTAMP_NOT_FINITE(now))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("now must be finite")));
	}
	retl_require_workers();
	retl_api_begin(&call, false);
	requests = retl_tick_schedules(now);
	retl_api_end(&call);
	PG_RETURN_INT64(Max(requests, 0));
}

/* --------------------------------------------------------------------------
 * install_tick, uninstall_tick
 * -------------------------------------------------------------------------- */

static const char *const every_minute = "* * * * *";
static const char *const command = "SELECT retl.tick()";

/*
 * Where pg_cron is: true when in this database, and the caller may use it. Else
 * *database is where it is or would be, and *obstacle says what is wrong.
 */
static bool
find_cron(const char **database, const char **obstacle)
{
	const char *home = GetConfigOption("cron.database_name", true, false);
	const char *here = get_database_name(MyDatabaseId);
	Oid			schema = get_namespace_oid("cron", true);

	*database = home ? home : "postgres";
	if (home == NULL)
		*obstacle = "pg_cron is not loaded: shared_preload_libraries does not have it, or the server was not restarted";
	else if (strcmp(home, here) != 0)
		*obstacle = psprintf("pg_cron is in database \"%s\"", home);
	else if (!OidIsValid(get_extension_oid("pg_cron", true)))
		*obstacle = "extension pg_cron was not created";
	else if (!OidIsValid(schema) ||
			 !DatumGetBool(DirectFunctionCall2(has_schema_privilege_id, ObjectIdGetDatum(schema),
											   CStringGetTextDatum("USAGE"))))
		*obstacle = "the caller may not use schema cron";
	else
		return true;
	return false;
}

static char *
job_name(void)
{
	return psprintf("retl tick of %s", get_database_name(MyDatabaseId));
}

Datum
retl_install_tick(PG_FUNCTION_ARGS)
{
	const char *database;
	const char *obstacle;
	char	   *name = job_name();
	RetlArgs	args = {0};
	int64		job;

	if (!find_cron(&database, &obstacle))
		ereport(ERROR,
				(errcode(strstr(obstacle, "caller") ? ERRCODE_INSUFFICIENT_PRIVILEGE :
						 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot make the job that calls retl.tick(): %s", obstacle),
				 errhint("An administrator can, in database \"%s\": CREATE EXTENSION IF NOT EXISTS pg_cron;"
						 " SELECT cron.schedule_in_database(%s, %s, %s, %s);",
						 database, quote_literal_cstr(name), quote_literal_cstr(every_minute),
						 quote_literal_cstr(command), quote_literal_cstr(get_database_name(MyDatabaseId)))));

	SPI_connect();
	retl_arg_text(&args, name);
	retl_arg_text(&args, every_minute);
	retl_arg_text(&args, command);
	(void) retl_sql("SELECT cron.schedule($1, $2, $3)", &args);
	job = retl_result_int8(0, 1);
	SPI_finish();
	PG_RETURN_INT64(job);
}

Datum
retl_uninstall_tick(PG_FUNCTION_ARGS)
{
	const char *database;
	const char *obstacle;
	char	   *name = job_name();
	RetlArgs	args = {0};
	int64		count;

	if (!find_cron(&database, &obstacle))
		ereport(ERROR,
				(errcode(strstr(obstacle, "caller") ? ERRCODE_INSUFFICIENT_PRIVILEGE :
						 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot remove the job that calls retl.tick(): %s", obstacle),
				 errhint("Where there is one, an administrator can, in database \"%s\":"
						 " SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = %s;",
						 database, quote_literal_cstr(name))));

	SPI_connect();
	retl_arg_text(&args, name);
	/* the caller sees its own jobs, a superuser all */
	count = retl_sql("SELECT cron.unschedule(j.jobid) FROM cron.job j WHERE j.jobname OPERATOR(pg_catalog.=) $1", &args);
	SPI_finish();
	PG_RETURN_BOOL(count > 0);
}
