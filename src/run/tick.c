/*
 * tick.c
 *		Which schedules are due; see tick.h.
 *
 * retl.schedule_state has the next turn of each mapping, due_at, and for which
 * scheduled_since that holds: where the mapping has another, it was enabled or
 * got another schedule, and its turns are counted anew. However many turns were
 * missed, one request is made. What is wrong with one mapping is written down
 * there, and the others go on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "base/sql.h"
#include "run/schedule.h"
#include "run/tick.h"

/* A clock that goes back by less repeats nothing; by more, it was wrong before. */
#define CLOCK_CHANGE (3 * USECS_PER_HOUR)

typedef struct Turn
{
	int64		mapping;
	int64		model;
	int32		version;
	char	   *name;
	char	   *schedule;
	Oid			owner;
	Oid			model_owner;
	Oid			destination_owner;
	TimestampTz since;
	TimestampTz due_at;
	bool		stale;			/* due_at is for another scheduled_since, or there is none yet */
	bool		future;			/* it was computed by a clock that was ahead */
	int64		unfinished;		/* run or request that has not ended; 0: none */
	bool		has_error;
} Turn;

static TimestampTz
result_time(int64 row, int column, TimestampTz otherwise)
{
	bool		isnull;
	Datum		value = retl_result_datum(row, column, &isnull);

	return isnull ? otherwise : DatumGetTimestampTz(value);
}

static void
require_rights(const Turn *turn)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(turn->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of mapping \"%s\" does not exist any more", turn->name),
				 errhint("Give it another: retl.alter_mapping(name, owner => ...).")));
	if (!has_privs_of_role(turn->owner, turn->model_owner) ||
		!has_privs_of_role(turn->owner, turn->destination_owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of mapping \"%s\" no longer has the privileges of the owners of its model and destination",
						turn->name),
				 errhint("Grant them, or give the mapping another owner.")));
}

static void
append_request(const Turn *turn)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, turn->mapping);
	retl_arg_int8(&args, turn->model);
	retl_arg_datum(&args, REGROLEOID, ObjectIdGetDatum(turn->owner), false);
	(void) retl_sql("INSERT INTO retl.request (mapping, model, trigger, requested_by)"
					" VALUES ($1, $2, 'schedule', $3)", &args);
}

static void
record_skipped(const Turn *turn)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, turn->mapping);
	retl_arg_int4(&args, turn->version);
	retl_arg_text(&args, psprintf("run " INT64_FORMAT " had not ended", turn->unfinished));
	(void) retl_sql("INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, requested_at, finished_at, error)"
					" VALUES (nextval('retl.request_id_seq'), $1, $2, 'skipped', 'schedule', clock_timestamp(),"
					"  clock_timestamp(), $3)", &args);
}

/* One mapping; true when a request was made. */
static bool
take_turn(const Turn *turn, TimestampTz now)
{
	RetlArgs	args = {0};
	RetlSchedule schedule;
	TimestampTz since = turn->since > now + CLOCK_CHANGE ? now : turn->since;
	TimestampTz due_at = turn->due_at;
	bool		due;
	bool		requested = false;

	if (!turn->stale && !turn->future && due_at > now && !turn->has_error)
		return false;

	retl_schedule_parse(turn->schedule, &schedule);
	require_rights(turn);
	if (turn->stale)
		due_at = retl_schedule_next(&schedule, since, since - 1);
	else if (turn->future)
		due_at = retl_schedule_next(&schedule, since, now);
	due = due_at <= now;
	if (due)
	{
		requested = turn->unfinished == 0;
		if (requested)
			append_request(turn);
		else
			record_skipped(turn);
		due_at = retl_schedule_next(&schedule, since, now);
	}

	retl_arg_int8(&args, turn->mapping);
	retl_arg_timestamptz(&args, turn->since);
	retl_arg_timestamptz(&args, due_at);
	retl_arg_timestamptz(&args, now);
	(void) retl_sql("UPDATE retl.schedule_state SET since = $2, due_at = $3, computed_at = $4, failed_since = NULL,"
					" error_code = NULL, error = NULL, hint = NULL WHERE mapping = $1", &args);
	return requested;
}

static void
record_error(const Turn *turn, const ErrorData *error, TimestampTz now)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, turn->mapping);
	retl_arg_text(&args, unpack_sql_state(error->sqlerrcode));
	retl_arg_text(&args, error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message);
	retl_arg_text(&args, error->hint);
	retl_arg_timestamptz(&args, now);
	(void) retl_sql("UPDATE retl.schedule_state SET failed_since = COALESCE(failed_since, $5), error_code = $2, error = $3, hint = $4"
					" WHERE mapping = $1 AND error IS DISTINCT FROM $3", &args);
}

/* In a subtransaction of its own, so that its error is its own. */
static bool
try_turn(const Turn *turn, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	volatile bool requested = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		requested = take_turn(turn, now);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	if (error == NULL)
		return requested;
	/* not of this mapping, but of this statement */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		ReThrowError(error);
	record_error(turn, error, now);
	return false;
}

int64
retl_tick_schedules(TimestampTz now)
{
	RetlArgs	args = {0};
	int64		count;
	int64		requests = 0;
	Turn	   *turns;

	if (retl_sql("SELECT FROM retl.clock WHERE name = 'tick' FOR NO KEY UPDATE SKIP LOCKED", &args) == 0)
		return -1;
	retl_arg_timestamptz(&args, now);
	(void) retl_sql("UPDATE retl.clock SET at = $1 WHERE name = 'tick'", &args);

	args.count = 0;
	retl_arg_timestamptz(&args, now + CLOCK_CHANGE);
	count = retl_sql("SELECT m.id, m.model, m.version, m.name, m.schedule, m.owner::oid, o.owner::oid, d.owner::oid,"
					 " m.scheduled_since, s.due_at, s.since IS DISTINCT FROM m.scheduled_since,"
					 " COALESCE(s.computed_at > $1, false), s.error IS NOT NULL"
					 " FROM retl.mapping m JOIN retl.schedule_state s ON s.mapping = m.id"
					 "  JOIN retl.model o ON o.id = m.model JOIN retl.destination d ON d.id = m.destination"
					 " WHERE m.enabled AND m.schedule <> 'manual' AND o.enabled AND d.enabled"
					 " ORDER BY m.id FOR KEY SHARE OF m SKIP LOCKED FOR NO KEY UPDATE OF s SKIP LOCKED", &args);
	turns = palloc0(sizeof(Turn) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
	{
		Turn	   *turn = &turns[i];

		turn->mapping = retl_result_int8(i, 1);
		turn->model = retl_result_int8(i, 2);
		turn->version = retl_result_int4(i, 3);
		turn->name = retl_result_text(i, 4);
		turn->schedule = retl_result_text(i, 5);
		turn->owner = retl_result_oid(i, 6);
		turn->model_owner = retl_result_oid(i, 7);
		turn->destination_owner = retl_result_oid(i, 8);
		turn->since = result_time(i, 9, now);
		turn->due_at = result_time(i, 10, DT_NOEND);
		turn->stale = retl_result_bool(i, 11);
		turn->future = retl_result_bool(i, 12);
		turn->has_error = retl_result_bool(i, 13);
	}

	/* looked at once the mappings are ours: an earlier tick's requests are seen */
	for (int64 i = 0; i < count; i++)
	{
		args.count = 0;
		retl_arg_int8(&args, turns[i].mapping);
		(void) retl_sql("SELECT COALESCE((SELECT s.active_run FROM retl.mapping_state s WHERE s.mapping = $1),"
						" (SELECT min(q.id) FROM retl.request q WHERE q.mapping = $1), 0)", &args);
		turns[i].unfinished = retl_result_int8(0, 1);
		if (try_turn(&turns[i], now))
			requests++;
	}
	if (requests > 0)
		retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	return requests;
}
