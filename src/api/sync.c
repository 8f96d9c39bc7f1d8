/*
 * sync.c
 *		sync, sync_model: asking for runs; skip_model: saying why there is none.
 *
 * A request is a row that is appended and a wake-up at commit. Nothing here
 * takes a lock that another transaction could hold: a caller never waits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "api/api.h"
#include "api/query.h"
#include "api/results.h"
#include "base/fault.h"
#include "base/shmem.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_sync);
PG_FUNCTION_INFO_V1(retl_sync_model);
PG_FUNCTION_INFO_V1(retl_skip_model);

static int64
append_request(const RetlCall *call, int64 mapping, int64 model, const char *trigger,
			   const char *invocation)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, mapping);
	retl_arg_int8(&args, model);
	retl_arg_text(&args, trigger);
	retl_arg_text(&args, invocation);
	retl_arg_datum(&args, REGROLEOID, ObjectIdGetDatum(call->caller), false);
	(void) retl_sql("INSERT INTO retl.request (mapping, model, trigger, invocation, requested_by)"
					" VALUES ($1, $2, $3, $4, $5) RETURNING id", &args);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	RETL_FAULT("request_appended");
	return retl_result_int8(0, 1);
}

static void
refuse_disabled(RetlObjectKind kind, const char *name)
{
	const char *what = retl_api_kind(kind);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s \"%s\" is disabled", what, name),
			 errhint("Run SELECT retl.enable_%s(%s), then sync again.", what, quote_literal_cstr(name))));
}

int64
retl_api_request(const RetlCall *call, const char *name)
{
	RetlObject	mapping;
	RetlArgs	args = {0};
	int64		model;

	retl_api_get(call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(call, &mapping);
	if (!mapping.enabled)
		refuse_disabled(RETL_OBJECT_MAPPING, name);

	retl_arg_int8(&args, mapping.id);
	(void) retl_sql("SELECT o.id, o.name, o.enabled, d.name, d.enabled FROM retl.mapping m"
					" JOIN retl.model o ON o.id = m.model JOIN retl.destination d ON d.id = m.destination"
					" WHERE m.id = $1", &args);
	model = retl_result_int8(0, 1);
	if (!retl_result_bool(0, 3))
		refuse_disabled(RETL_OBJECT_MODEL, retl_result_text(0, 2));
	if (!retl_result_bool(0, 5))
		refuse_disabled(RETL_OBJECT_DESTINATION, retl_result_text(0, 4));
	return append_request(call, mapping.id, model, "manual", NULL);
}

Datum
retl_sync(PG_FUNCTION_ARGS)
{
	char	   *mapping = retl_api_text(fcinfo, 0, "mapping");
	bool		full = retl_api_bool(fcinfo, 1, "full");
	RetlCall	call;
	int64		run;

	retl_require_workers();
	retl_api_begin(&call, false);
	run = retl_api_request(&call, mapping);
	if (full)
	{
		RetlArgs	args = {0};

		retl_arg_int8(&args, run);
		(void) retl_sql("UPDATE retl.request SET whole = true WHERE id = $1", &args);
	}
	retl_api_end(&call);
	PG_RETURN_INT64(run);
}

/* --------------------------------------------------------------------------
 * sync_model
 * -------------------------------------------------------------------------- */

/*
 * The models called "name", or else those that were given as relation
 * "relation"; of these the ones whose owner's privileges the caller has.
 */
static int
find_models(const RetlCall *call, const char *name, const char *relation, bool missing_ok, int64 **ids)
{
	RetlArgs	args = {0};
	RetlObject	model;
	int64		count;
	int			found = 0;

	*ids = palloc(sizeof(int64));
	if (retl_api_find(RETL_OBJECT_MODEL, name, false, &model))
	{
		retl_api_require_owner(call, &model);
		if (!model.enabled)
		{
			ereport(NOTICE, (errmsg("model \"%s\" is disabled, skipping", name)));
			return 0;
		}
		(*ids)[0] = model.id;
		return 1;
	}

	retl_arg_text(&args, relation);
	count = relation == NULL ? 0 :
		retl_sql("SELECT id, owner::oid, enabled, name FROM retl.model WHERE relation = $1 ORDER BY id", &args);
	if (count == 0)
	{
		if (!missing_ok)
		{
			if (relation == NULL)
				retl_api_get(call, RETL_OBJECT_MODEL, name, false, &model);
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("no model has the name \"%s\" or reads relation %s as a whole", name, relation),
					 errhint("View retl.models lists what there is; missing_ok => true passes over it.")));
		}
		return 0;
	}

	*ids = palloc(sizeof(int64) * count);
	for (int64 i = 0; i < count; i++)
	{
		if (!retl_api_may(call, retl_result_oid(i, 2)))
			continue;
		if (retl_result_bool(i, 3))
			(*ids)[found++] = retl_result_int8(i, 1);
		else
			ereport(NOTICE, (errmsg("model \"%s\" is disabled, skipping", retl_result_text(i, 4))));
	}
	for (int64 i = 0; i < count && found == 0; i++)
		if (retl_api_may(call, retl_result_oid(i, 2)))
			return 0;			/* disabled, all that are the caller's */
	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of a model on relation %s", relation),
				 errhint("Act as the owner of the model, or be granted that role's privileges.")));
	return found;
}

/*
 * The run that this invocation asked for already, or 0. What another
 * transaction has not committed is not seen: two requests are merged later.
 */
static int64
earlier_request(int64 mapping, const char *invocation)
{
	RetlArgs	args = {0};

	if (invocation == NULL)
		return 0;
	retl_arg_int8(&args, mapping);
	retl_arg_text(&args, invocation);
	if (retl_sql("SELECT id FROM retl.request WHERE mapping = $1 AND invocation = $2"
				 " UNION ALL SELECT id FROM retl.run WHERE mapping = $1 AND invocation = $2"
				 " ORDER BY id LIMIT 1", &args) == 0)
		return 0;
	return retl_result_int8(0, 1);
}

/* A run that ended before it began: nothing is asked of the workers. */
static int64
append_skipped(int64 mapping, const char *invocation, const char *reason, const char *hint)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, mapping);
	retl_arg_text(&args, invocation);
	retl_arg_text(&args, reason);
	retl_arg_text(&args, hint);
	(void) retl_sql("INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, invocation, requested_at,"
					"  finished_at, error_code, error, hint)"
					" SELECT nextval('retl.request_id_seq'), id, version, 'skipped', 'model', $2, clock_timestamp(),"
					"  clock_timestamp(), '55000', $3, $4 FROM retl.mapping WHERE id = $1 RETURNING id", &args);
	return retl_result_int8(0, 1);
}

/* A request, or with a reason a skipped run, for each enabled mapping: once for an invocation. */
static void
each_mapping(const RetlCall *call, int64 model, const char *invocation, const char *reason, const char *hint,
			 RetlResult *result)
{
	RetlArgs	args = {0};
	int64		count;
	int64	   *mappings;

	retl_arg_int8(&args, model);
	count = retl_sql("SELECT m.id FROM retl.mapping m JOIN retl.destination d ON d.id = m.destination"
					 " WHERE m.model = $1 AND m.enabled AND d.enabled ORDER BY m.id", &args);
	mappings = palloc(sizeof(int64) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
		mappings[i] = retl_result_int8(i, 1);
	for (int64 i = 0; i < count; i++)
	{
		int64		run = earlier_request(mappings[i], invocation);

		if (run == 0)
			run = reason == NULL ? append_request(call, mappings[i], model, "model", invocation) :
				append_skipped(mappings[i], invocation, reason, hint);
		retl_result_add(result, Int64GetDatum(run));
	}
}

Datum
retl_sync_model(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "model");
	char	   *invocation = retl_api_text_or_null(fcinfo, 1);
	bool		missing_ok = retl_api_bool(fcinfo, 2, "missing_ok");
	char	   *relation = retl_query_relation_name(name);
	RetlResult	result;
	RetlCall	call;
	int64	   *models;
	int			nmodels;

	retl_require_workers();
	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	nmodels = find_models(&call, name, relation, missing_ok, &models);
	for (int i = 0; i < nmodels; i++)
		each_mapping(&call, models[i], invocation, NULL, NULL, &result);
	retl_api_end(&call);
	return (Datum) 0;
}

Datum
retl_skip_model(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "model");
	char	   *reason = retl_api_text(fcinfo, 1, "reason");
	char	   *hint = retl_api_text_or_null(fcinfo, 2);
	char	   *invocation = retl_api_text_or_null(fcinfo, 3);
	RetlResult	result;
	RetlCall	call;
	RetlObject	model;

	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, name, false, &model);
	retl_api_require_owner(&call, &model);
	each_mapping(&call, model.id, invocation, reason, hint, &result);
	retl_api_end(&call);
	return (Datum) 0;
}
