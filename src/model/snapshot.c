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
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/sql.h"
#include "model/checkpoint.h"
#include "model/scan.h"
#include "model/snapshot.h"

typedef struct ModelState
{
	int64		seq;
	int			shape;			/* 0: none yet */
	char	  **key_types;
	int64		nslots;
	int			log_generation;
} ModelState;

static void
read_state(const RetlModel *model, ModelState *state)
{
	RetlArgs	args = {0};
	bool		isnull;
	Datum		types;

	retl_arg_int8(&args, model->id);
	if (retl_sql("SELECT seq, COALESCE(shape, 0), key_types, next_slot, log_generation"
				 " FROM retl.model_state WHERE model OPERATOR(pg_catalog.=) $1", &args) != 1)
		elog(ERROR, "model \"%s\" has no state", model->name);
	state->seq = retl_result_int8(0, 1);
	state->shape = retl_result_int4(0, 2);
	state->nslots = retl_result_int8(0, 4);
	state->log_generation = retl_result_int4(0, 5);
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
check_key_types(const RetlModel *model, const ModelState *state, const RetlModelColumns *columns)
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
find_shape(const RetlModel *model, const ModelState *state, const RetlModelColumns *columns)
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

static void
write_state(const RetlScan *scan, int64 seq, int64 log_rows, TimestampTz started_at)
{
	RetlArgs	args = {0};
	StringInfoData samples;

	retl_arg_int8(&args, scan->model->id);
	retl_arg_int8(&args, seq);
	retl_arg_int4(&args, scan->shape);
	retl_arg_datum(&args, TEXTARRAYOID,
				   PointerGetDatum(key_type_array(scan->model, scan->columns)), false);
	retl_arg_int8(&args, scan->added - scan->deleted);
	retl_arg_int8(&args, scan->nslots);
	retl_arg_int8(&args, log_rows);
	retl_arg_timestamptz(&args, started_at);
	retl_sql("UPDATE retl.model_state SET seq = $2, shape = $3, key_types = $4,"
			 " row_count = row_count OPERATOR(pg_catalog.+) $5, next_slot = $6,"
			 " log_rows = log_rows OPERATOR(pg_catalog.+) $7, snapshot_at = $8"
			 " WHERE model OPERATOR(pg_catalog.=) $1", &args);

	initStringInfo(&samples);
	for (int i = 0; i < scan->nsamples; i++)
		appendStringInfo(&samples, "%s%s", i > 0 ? ", " : "[", scan->samples[i]);
	if (scan->nsamples > 0)
		appendStringInfoChar(&samples, ']');

	memset(&args, 0, sizeof(args));
	retl_arg_int8(&args, scan->model->id);
	retl_arg_int8(&args, seq);
	retl_arg_int4(&args, scan->shape);
	retl_arg_timestamptz(&args, started_at);
	retl_arg_timestamptz(&args, GetCurrentTimestamp());
	retl_arg_int8(&args, scan->rows);
	retl_arg_int8(&args, scan->added);
	retl_arg_int8(&args, scan->updated);
	retl_arg_int8(&args, scan->deleted);
	retl_arg_int8(&args, scan->set_aside);
	retl_arg_text(&args, scan->nsamples > 0 ? samples.data : NULL);
	retl_sql("INSERT INTO retl.snapshot (model, seq, shape, started_at, finished_at, rows,"
			 " added, updated, deleted, set_aside, set_aside_sample)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::pg_catalog.json)", &args);
}

void
retl_snapshot_take(const RetlModel *model, void (*at_snapshot) (void *), void *arg,
				   RetlSnapshot *result)
{
	TimestampTz started_at = GetCurrentTimestamp();
	ModelState	state = {0};
	RetlScan   *scan;
	RetlModelColumns *columns;
	int64		log_rows = 0;

	SPI_connect();
	scan = palloc0(sizeof(RetlScan));
	read_state(model, &state);
	columns = retl_scan_columns(model);
	if (state.key_types)
		check_key_types(model, &state, columns);

	scan->model = model;
	scan->columns = columns;
	scan->shape = find_shape(model, &state, columns);
	scan->nslots = state.nslots;
	scan->all = scan->shape != state.shape;
	scan->at_snapshot = at_snapshot;
	scan->arg = arg;
	if (state.seq == 0)
	{
		retl_checkpoint_create(model, columns->key_types);
		scan->into = open_checkpoint(model->id);
		scan->all = false;
	}

	retl_scan_run(scan);

	if (scan->into)
	{
		table_close(scan->into, NoLock);
		retl_checkpoint_finish_first(scan);
	}
	else
	{
		log_rows = retl_checkpoint_apply(scan, state.seq + 1, state.log_generation);
		tuplestore_end(scan->delta);
		retl_filter_end(scan->filter);
	}
	write_state(scan, state.seq + 1, log_rows, started_at);
	RETL_FAULT("snapshot_before_commit");

	result->seq = state.seq + 1;
	result->shape = scan->shape;
	result->started_at = started_at;
	result->seconds = (GetCurrentTimestamp() - started_at) / 1e6;
	result->rows = scan->rows;
	result->added = scan->added;
	result->updated = scan->updated;
	result->deleted = scan->deleted;
	result->set_aside = scan->set_aside;
	SPI_finish();
}
