/*
 * control.c
 *		What a user does to runs and to what a mapping remembers: cancel_run,
 *		release_run, replay_run, reset_mapping, resync_keys, retry_failed.
 *
 * Nothing here sends or plans: each call leaves a mark or a request that the
 * snapshot worker takes up, so that one active run per mapping stays the rule.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "model/model.h"
#include "run/stream.h"

PG_FUNCTION_INFO_V1(retl_cancel_run);
PG_FUNCTION_INFO_V1(retl_release_run);
PG_FUNCTION_INFO_V1(retl_replay_run);
PG_FUNCTION_INFO_V1(retl_reset_mapping);
PG_FUNCTION_INFO_V1(retl_resync_keys);
PG_FUNCTION_INFO_V1(retl_retry_failed);

typedef struct RunRow
{
	int64		id;
	int64		mapping;
	char	   *mapping_name;
	char	   *status;
	bool		finished;
	int64		served_by;		/* 0: nobody */
} RunRow;

/* The run, or the queued request of that number; errors with 42704, and 42501 where it is another's. */
static void
get_run(const RetlCall *call, int64 id, RunRow *run)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, id);
	if (retl_sql("SELECT r.mapping, m.name, r.status, r.finished_at IS NOT NULL, COALESCE(r.served_by, 0), m.owner::oid"
				 " FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping WHERE r.id = $1"
				 " UNION ALL SELECT q.mapping, m.name, 'queued', false, 0, m.owner::oid"
				 " FROM retl.request q JOIN retl.mapping m ON m.id = q.mapping WHERE q.id = $1", &args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("run " INT64_FORMAT " does not exist", id),
				 errhint("View retl.runs lists the runs that you may see.")));
	run->id = id;
	run->mapping = retl_result_int8(0, 1);
	run->mapping_name = retl_result_text(0, 2);
	run->status = retl_result_text(0, 3);
	run->finished = retl_result_bool(0, 4);
	run->served_by = retl_result_int8(0, 5);
	if (!retl_api_may(call, retl_result_oid(0, 6)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of mapping \"%s\"", run->mapping_name)));
}

/* --------------------------------------------------------------------------
 * Runs
 * -------------------------------------------------------------------------- */

/*
 * Keeps who alters or drops the mapping out, in their order: the mapping's row
 * first, then its runs and requests. False when the mapping is gone.
 */
static bool
lock_mapping_of(const RunRow *run)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, run->mapping);
	return retl_sql("SELECT FROM retl.mapping WHERE id = $1 FOR NO KEY UPDATE", &args) > 0;
}

/* Cancels a run that is as it was when it was looked at; else returns 0. $1 run, $2 reason */
static int64
cancel(const RunRow *run, RetlArgs *args)
{
	if (strcmp(run->status, "queued") == 0)
		return retl_sql("WITH gone AS (DELETE FROM retl.request WHERE id = $1 RETURNING *)"
						" INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, invocation, requested_at,"
						"  finished_at, error)"
						" SELECT g.id, g.mapping, m.version, 'canceled', g.trigger, g.invocation, g.requested_at,"
						"  pg_catalog.clock_timestamp(), $2 FROM gone g JOIN retl.mapping m ON m.id = g.mapping", args);
	if (strcmp(run->status, "held") == 0)
		return retl_sql("UPDATE retl.run SET status = 'canceled', finished_at = pg_catalog.clock_timestamp(), error = $2"
						" WHERE id = $1 AND status = 'held'", args);
	return retl_sql("UPDATE retl.run SET stop_reason = COALESCE(stop_reason, $2)"
					" WHERE id = $1 AND finished_at IS NULL AND status <> 'held'", args);
}

Datum
retl_cancel_run(PG_FUNCTION_ARGS)
{
	int64		id = retl_api_int64(fcinfo, 0, "run");
	char	   *reason = retl_api_text_or_null(fcinfo, 1);
	RetlArgs	args = {0};
	RetlCall	call;
	RunRow		run;

	retl_arg_int8(&args, id);
	retl_arg_text(&args, reason ? reason : "canceled");
	retl_api_begin(&call, false);

	/* the worker may take it a step further while we look: then look again */
	do
	{
		CHECK_FOR_INTERRUPTS();
		get_run(&call, id, &run);
		if (run.finished)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("run " INT64_FORMAT " has ended as %s", id, run.status),
					 errhint("Only a run that has not ended can be canceled.")));
		if (run.served_by != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("run " INT64_FORMAT " was merged into run " INT64_FORMAT, id, run.served_by),
					 errhint("Cancel run " INT64_FORMAT ".", run.served_by)));
	} while (!lock_mapping_of(&run) || cancel(&run, &args) == 0);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
	retl_api_end(&call);
	PG_RETURN_VOID();
}

Datum
retl_release_run(PG_FUNCTION_ARGS)
{
	int64		id = retl_api_int64(fcinfo, 0, "run");
	RetlArgs	args = {0};
	RetlCall	call;
	RunRow		run;

	retl_require_workers();
	retl_api_begin(&call, false);
	get_run(&call, id, &run);
	if (strcmp(run.status, "replaced") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " was replaced by run " INT64_FORMAT, id, run.served_by),
				 errhint("Look at run " INT64_FORMAT "; release that one if it is held.", run.served_by)));
	if (strcmp(run.status, "held") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " is %s, not held", id, run.status),
				 errhint("Only a run that a brake holds can be released.")));

	retl_arg_int8(&args, id);
	/* neither replaced nor canceled from here on */
	if (!lock_mapping_of(&run) ||
		retl_sql("SELECT FROM retl.run WHERE id = $1 AND status = 'held' FOR NO KEY UPDATE", &args) == 0 ||
		retl_sql("WITH free AS ("
				 "  UPDATE retl.mapping_state s SET active_run = r.id FROM retl.run r, retl.mapping m, retl.destination d"
				 "  WHERE r.id = $1 AND s.mapping = r.mapping AND s.active_run IS NULL"
				 "    AND s.cursor IS NOT DISTINCT FROM r.from_seq"
				 "    AND m.id = r.mapping AND m.enabled AND d.id = m.destination AND d.enabled"
				 "  RETURNING r.id)"
				 " UPDATE retl.run r SET status = 'planning', release = true, stop_reason = NULL, error_code = NULL,"
				 "  error = NULL, hint = NULL, added = 0, updated = 0, deleted = 0"
				 " FROM free WHERE r.id = free.id", &args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " cannot be released: mapping \"%s\" is disabled or has another active run",
						id, run.mapping_name),
				 errhint("Enable the mapping and its destination, and wait for the active run to end.")));
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_api_end(&call);
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * Requests of other kinds
 * -------------------------------------------------------------------------- */

/* Turns the request just made for a sync into one of another kind. */
static int64
request_of_kind(const RetlCall *call, const char *mapping, const char *trigger, const char *kind,
				const char *arguments)
{
	int64		id = retl_api_request(call, mapping);
	RetlArgs	args = {0};

	retl_arg_int8(&args, id);
	retl_arg_text(&args, trigger);
	retl_arg_text(&args, kind);
	retl_arg_text(&args, arguments);
	retl_sql("UPDATE retl.request SET trigger = $2, kind = $3, arguments = $4::pg_catalog.json WHERE id = $1",
			 &args);
	return id;
}

Datum
retl_replay_run(PG_FUNCTION_ARGS)
{
	int64		id = retl_api_int64(fcinfo, 0, "run");
	RetlCall	call;
	RunRow		run;
	int64		result;

	retl_require_workers();
	retl_api_begin(&call, false);
	get_run(&call, id, &run);
	if (!run.finished)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " has not ended", id),
				 errhint("Replay it when it has: CALL retl.wait_for_run(" INT64_FORMAT ").", id)));
	if (run.served_by != 0)
		id = run.served_by;
	result = request_of_kind(&call, run.mapping_name, "replay", "replay",
							 psprintf(INT64_FORMAT, id));
	retl_api_end(&call);
	PG_RETURN_INT64(result);
}

Datum
retl_reset_mapping(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	bool		baseline = retl_api_bool(fcinfo, 1, "baseline");
	RetlCall	call;
	RetlObject	mapping;
	int64		result;

	retl_require_workers();
	retl_api_begin(&call, false);
	result = request_of_kind(&call, name, baseline ? "baseline" : "reset",
							 baseline ? "baseline" : "reset", NULL);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_stop_runs(RETL_OBJECT_MAPPING, mapping.id, baseline ? "baseline" : "reset");
	retl_api_end(&call);
	PG_RETURN_INT64(result);
}

Datum
retl_retry_failed(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	RetlCall	call;
	int64		result;

	retl_require_workers();
	retl_api_begin(&call, false);
	result = request_of_kind(&call, name, "retry", "sync", NULL);
	retl_api_end(&call);
	PG_RETURN_INT64(result);
}

/* Evaluates every key as the types of the checkpoint: what cannot be one is an error now. */
static void
check_keys(const RetlObject *mapping, const char *keys)
{
	RetlArgs	args = {0};
	RetlModel  *model;
	char	  **types;
	Datum	   *elements;
	int			ntypes;
	bool		isnull;
	StringInfoData sql;

	retl_arg_int8(&args, mapping->id);
	if (retl_sql("SELECT m.model, st.key_types FROM retl.mapping m JOIN retl.model_state st ON st.model = m.model"
				 " WHERE m.id = $1 AND st.key_types IS NOT NULL", &args) != 1)
		return;					/* never read: everything is sent anyway */
	deconstruct_array(DatumGetArrayTypeP(retl_result_datum(0, 2, &isnull)), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &ntypes);
	types = palloc(sizeof(char *) * ntypes);
	for (int k = 0; k < ntypes; k++)
		types[k] = TextDatumGetCString(elements[k]);
	model = retl_model_get(retl_result_int8(0, 1));

	memset(&args, 0, sizeof(args));
	retl_arg_text(&args, keys);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT pg_catalog.count(*) FILTER (WHERE NOT ROW(%s) IS NOT NULL),"
					 " pg_catalog.count(*)"
					 " FROM pg_catalog.json_array_elements($1::pg_catalog.json) k (value)"
					 " WHERE ROW(%s) IS NOT NULL OR true",
					 retl_stream_typed_key(model, types, "k.value::pg_catalog.text"),
					 retl_stream_typed_key(model, types, "k.value::pg_catalog.text"));
	retl_sql(sql.data, &args);
	if (retl_result_int8(0, 1) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(INT64_FORMAT " of " INT64_FORMAT " keys are not keys of model \"%s\"",
						retl_result_int8(0, 1), retl_result_int8(0, 2), model->name),
				 model->nkeys == 1 ?
				 errhint("A key is the value of column \"%s\".", model->key[0]) :
				 errhint("A key is an object with a member for each of its columns.")));
}

Datum
retl_resync_keys(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	char	   *keys = retl_api_json(fcinfo, 1, "keys");
	const char *start = keys + strspn(keys, " \t\r\n");
	RetlCall	call;
	RetlObject	mapping;
	int64		result;

	retl_require_workers();
	if (*start != '[')
		keys = psprintf("[%s]", keys);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);
	check_keys(&mapping, keys);
	result = request_of_kind(&call, name, "resync", "resync", keys);
	retl_api_end(&call);
	PG_RETURN_INT64(result);
}
