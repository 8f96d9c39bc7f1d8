/*
 * snapshot.c
 *		The order of things in a snapshot; see snapshot.h.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/regproc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/owner.h"
#include "base/sql.h"
#include "model/checkpoint.h"
#include "model/reads.h"
#include "model/scan.h"
#include "model/snapshot.h"
#include "model/strategy.h"

static void
read_state(const RetlModel *model, RetlModelState *state)
{
	RetlArgs	args = {0};
	bool		isnull;
	Datum		types;

	retl_arg_int8(&args, model->id);
	if (retl_sql("SELECT seq, COALESCE(shape, 0), key_types, next_slot, log_generation, definition, writes,"
				 " COALESCE(read_at, '-infinity'), COALESCE(full_at, '-infinity'), COALESCE(watermark, '-infinity'),"
				 " COALESCE((SELECT n.set_aside FROM retl.snapshot n WHERE n.model OPERATOR(pg_catalog.=) $1"
				 "  AND n.seq OPERATOR(pg_catalog.=) st.full_seq), 0)"
				 " FROM retl.model_state st WHERE model OPERATOR(pg_catalog.=) $1", &args) != 1)
		elog(ERROR, "model \"%s\" has no state", model->name);
	state->seq = retl_result_int8(0, 1);
	state->shape = retl_result_int4(0, 2);
	state->nslots = retl_result_int8(0, 4);
	state->log_generation = retl_result_int4(0, 5);
	state->definition = retl_result_text(0, 6);
	state->writes = retl_result_text(0, 7);
	state->read_at = DatumGetTimestampTz(retl_result_datum(0, 8, &isnull));
	state->full_at = DatumGetTimestampTz(retl_result_datum(0, 9, &isnull));
	state->watermark = DatumGetTimestampTz(retl_result_datum(0, 10, &isnull));
	state->set_aside = retl_result_int8(0, 11);
	types = retl_result_datum(0, 3, &isnull);
	if (!isnull)
	{
		Datum	   *elements;
		int			count;

		deconstruct_array(DatumGetArrayTypeP(types), TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, NULL, &count);
		state->key_types = palloc(sizeof(char *) * count);
		for (int i = 0; i < count; i++)
			state->key_types[i] = TextDatumGetCString(elements[i]);
	}
}

static void
check_key_types(const RetlModel *model, const RetlModelState *state, const RetlModelColumns *columns)
{
	for (int k = 0; k < model->nkeys; k++)
		if (strcmp(state->key_types[k], columns->key_types[k]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("key column \"%s\" of model \"%s\" has changed its type from %s to %s",
							model->key[k], model->name, state->key_types[k], columns->key_types[k]),
					 errhint("Cast the column back to %s in the model's query, or create the model anew.",
							 state->key_types[k])));
}

/* The number of the current shape: the last one's, an older one's, or a new one. */
static int
find_shape(const RetlModel *model, const RetlModelState *state, const RetlModelColumns *columns)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, model->id);
	retl_arg_text(&args, columns->shape);
	retl_arg_int4(&args, state->shape);
	if (retl_sql("SELECT shape FROM retl.shape WHERE model OPERATOR(pg_catalog.=) $1"
				 " AND columns::pg_catalog.text OPERATOR(pg_catalog.=) $2"
				 " ORDER BY shape OPERATOR(pg_catalog.=) $3 DESC, shape DESC LIMIT 1", &args) == 1)
		return retl_result_int4(0, 1);
	args.count = 2;
	retl_sql("INSERT INTO retl.shape (model, shape, columns)"
			 " SELECT $1, COALESCE(pg_catalog.max(shape), 0) OPERATOR(pg_catalog.+) 1, $2::pg_catalog.json"
			 " FROM retl.shape WHERE model OPERATOR(pg_catalog.=) $1 RETURNING shape", &args);
	return retl_result_int4(0, 1);
}

static Relation
open_checkpoint(int64 model)
{
	List	   *name = stringToQualifiedNameList(retl_checkpoint_table(model)
#if PG_VERSION_NUM >= 160000
												 , NULL
#endif
		);

	return table_openrv(makeRangeVarFromNameList(name), RowExclusiveLock);
}

static ArrayType *
key_type_array(const RetlModel *model, const RetlModelColumns *columns)
{
	Datum	   *elements = palloc(sizeof(Datum) * model->nkeys);

	for (int k = 0; k < model->nkeys; k++)
		elements[k] = CStringGetTextDatum(columns->key_types[k]);
	return construct_array(elements, model->nkeys, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Of a part, what is greatest may have gone; what lies in the future keeps nothing from being read. */
static TimestampTz
next_watermark(const RetlStrategy *strategy)
{
	TimestampTz found = strategy->scan->watermark;

	if (strategy->scan->scope.kind != RETL_SCOPE_ALL)
		found = Max(found, strategy->state->watermark);
	return Min(found, strategy->now);
}

static void
write_state(const RetlStrategy *strategy, int64 seq, int64 log_rows)
{
	const RetlScan *scan = strategy->scan;
	RetlArgs	args = {0};

	retl_arg_int8(&args, scan->model->id);
	retl_arg_int8(&args, seq);
	retl_arg_int4(&args, scan->shape);
	retl_arg_datum(&args, TEXTARRAYOID,
				   PointerGetDatum(key_type_array(scan->model, scan->columns)), false);
	retl_arg_int8(&args, scan->added - scan->deleted);
	retl_arg_int8(&args, scan->nslots);
	retl_arg_int8(&args, log_rows);
	retl_arg_timestamptz(&args, strategy->now);
	retl_sql("UPDATE retl.model_state SET seq = $2, shape = $3, key_types = $4,"
			 " row_count = row_count OPERATOR(pg_catalog.+) $5, next_slot = $6,"
			 " log_rows = log_rows OPERATOR(pg_catalog.+) $7, snapshot_at = $8"
			 " WHERE model OPERATOR(pg_catalog.=) $1", &args);

	/* what some keys look like says nothing of the others */
	if (scan->scope.kind == RETL_SCOPE_KEYS)
		return;
	memset(&args, 0, sizeof(args));
	retl_arg_int8(&args, scan->model->id);
	retl_arg_text(&args, strategy->evidence.definition);
	retl_arg_text(&args, strategy->evidence.writes);
	retl_arg_timestamptz(&args, strategy->now);
	retl_arg_timestamptz(&args, next_watermark(strategy));
	retl_arg_bool(&args, scan->scope.kind == RETL_SCOPE_ALL);
	retl_arg_int8(&args, seq);
	retl_sql("UPDATE retl.model_state SET definition = $2, writes = $3, read_at = $4,"
			 " watermark = NULLIF($5, '-infinity'),"
			 " full_at = CASE WHEN $6 THEN $4 ELSE full_at END,"
			 " full_seq = CASE WHEN $6 THEN $7 ELSE full_seq END"
			 " WHERE model OPERATOR(pg_catalog.=) $1", &args);
}

static void
write_history(const RetlStrategy *strategy, int64 seq)
{
	const RetlScan *scan = strategy->scan;
	RetlArgs	args = {0};
	StringInfoData samples;

	initStringInfo(&samples);
	for (int i = 0; i < scan->nsamples; i++)
		appendStringInfo(&samples, "%s%s", i > 0 ? ", " : "[", scan->samples[i]);
	if (scan->nsamples > 0)
		appendStringInfoChar(&samples, ']');

	retl_arg_int8(&args, scan->model->id);
	retl_arg_int8(&args, seq);
	retl_arg_int4(&args, scan->shape);
	retl_arg_timestamptz(&args, strategy->now);
	retl_arg_timestamptz(&args, GetCurrentTimestamp());
	retl_arg_int8(&args, scan->rows);
	retl_arg_int8(&args, scan->added);
	retl_arg_int8(&args, scan->updated);
	retl_arg_int8(&args, scan->deleted);
	retl_arg_int8(&args, scan->set_aside);
	retl_arg_text(&args, scan->nsamples > 0 ? samples.data : NULL);
	retl_arg_text(&args, strategy->name);
	retl_arg_text(&args, strategy->reason);
	retl_sql("INSERT INTO retl.snapshot (model, seq, shape, started_at, finished_at, rows,"
			 " added, updated, deleted, set_aside, set_aside_sample, strategy, strategy_reason, row_count)"
			 " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::pg_catalog.json, $12, $13, st.row_count"
			 " FROM retl.model_state st WHERE st.model OPERATOR(pg_catalog.=) $1", &args);
}

/* --------------------------------------------------------------------------
 * Snapshots
 * -------------------------------------------------------------------------- */

/* As the owner: what the model's query, whole, depends on. */
static void
examine(const RetlModel *model, const RetlModelColumns *columns, RetlReads *reads)
{
	RetlIdentity saved;

	retl_owner_enter(&saved, model->owner, NULL);
	PushActiveSnapshot(GetTransactionSnapshot());
	retl_reads_examine(model, columns->query, reads);
	PopActiveSnapshot();
	retl_owner_leave(&saved);
}

/* Analyses, plans and executes the model. */
static void
read_model(RetlScan *scan, RetlStrategy *strategy)
{
	const RetlModel *model = scan->model;
	const RetlModelState *state = strategy->state;
	RetlCatalogWrites catalogs;
	RetlModelColumns *columns;

	retl_reads_catalogs(&catalogs);
	columns = retl_scan_columns(model);
	if (state->key_types)
		check_key_types(model, state, columns);
	scan->columns = columns;
	scan->shape = find_shape(model, state, columns);
	scan->nslots = state->nslots;
	scan->all = scan->shape != state->shape && state->seq > 0;
	scan->watermark = DT_NOBEGIN;
	if (state->seq == 0)
	{
		retl_checkpoint_create(model, columns->key_types);
		scan->into = open_checkpoint(model->id);
	}
	examine(model, columns, &strategy->reads);
	retl_strategy_choose(strategy, &catalogs);
	retl_scan_run(scan);
	retl_strategy_finish(strategy);
	if (scan->into)
		table_close(scan->into, NoLock);
}

/* The same within the model's time-out, which is no concern of a session that has one under way. */
static void
read_in_time(RetlScan *scan, RetlStrategy *strategy)
{
	double		limit = scan->model->timeout * 1000;
	bool		limited = limit > 0 && !get_timeout_active(STATEMENT_TIMEOUT);

	if (limited)
		enable_timeout_after(STATEMENT_TIMEOUT, (int) Min(Max(limit, 1), INT_MAX));
	PG_TRY();
	{
		read_model(scan, strategy);
	}
	PG_FINALLY();
	{
		if (limited)
			disable_timeout(STATEMENT_TIMEOUT, false);
	}
	PG_END_TRY();
}

/*
 * The same, under a resource owner of its own, which is how what the model
 * reads is unlocked when it has been read: it is not ours to keep from others
 * while we write.
 */
static void
read_and_unlock(RetlScan *scan, RetlStrategy *strategy)
{
	ResourceOwner owner;

	scan->lasting = CurrentResourceOwner;
	owner = ResourceOwnerCreate(scan->lasting, "retl scan");
	CurrentResourceOwner = owner;
	read_in_time(scan, strategy);
	CurrentResourceOwner = scan->lasting;
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_BEFORE_LOCKS, true, false);
	/* as if it were rolled back: else they would become our transaction's */
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_LOCKS, false, false);
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_AFTER_LOCKS, true, false);
	ResourceOwnerDelete(owner);
	CurrentResourceOwner = scan->lasting;
	RETL_FAULT("scan_done");
}

/* Writes what the scan found: the delta, unless it went straight into a new checkpoint; and the state. */
static void
write_snapshot(RetlScan *scan, const RetlStrategy *strategy)
{
	const RetlModelState *state = strategy->state;
	int64		log_rows = 0;

	if (scan->into)
		retl_checkpoint_finish_first(scan);
	else
	{
		log_rows = retl_checkpoint_apply(scan, state->seq + 1, state->log_generation);
		tuplestore_end(scan->delta);
	}
	write_state(strategy, state->seq + 1, log_rows);
	write_history(strategy, state->seq + 1);
	RETL_FAULT("snapshot_before_commit");
}

void
retl_snapshot_take(const RetlModel *model, const RetlWanted *wanted,
				   void (*at_snapshot) (void *, RetlScopeKind), void *arg, RetlSnapshot *result)
{
	MemoryContext caller = CurrentMemoryContext;
	RetlModelState state = {0};
	RetlStrategy strategy = {0};
	RetlScan   *scan;

	SPI_connect();
	scan = palloc0(sizeof(RetlScan));
	scan->model = model;
	scan->at_snapshot = at_snapshot;
	scan->arg = arg;
	strategy.wanted = wanted;
	strategy.state = &state;
	strategy.scan = scan;
	strategy.now = GetCurrentTimestamp();
	read_state(model, &state);
	read_and_unlock(scan, &strategy);
	if (scan->executed)
		write_snapshot(scan, &strategy);
	if (scan->filter)
		retl_filter_end(scan->filter);

	memset(result, 0, sizeof(*result));
	result->seq = scan->executed ? state.seq + 1 : state.seq;
	result->shape = scan->shape;
	result->started_at = strategy.now;
	result->seconds = (GetCurrentTimestamp() - strategy.now) / 1e6;
	result->rows = scan->rows;
	result->added = scan->added;
	result->updated = scan->updated;
	result->deleted = scan->deleted;
	result->set_aside = scan->executed ? scan->set_aside : state.set_aside;
	result->strategy = strategy.name;
	result->reason = MemoryContextStrdup(caller, strategy.reason);
	result->plan_cost = scan->plan->planTree->total_cost;
	result->plan_rows = scan->plan->planTree->plan_rows;
	SPI_finish();
}
