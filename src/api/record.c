/*
 * record.c
 *		One record by its key: what a destination has of it (status_of), and
 *		taking out everything that is stored of it (erase).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "api/results.h"
#include "base/sql.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "run/stream.h"

PG_FUNCTION_INFO_V1(retl_status_of);
PG_FUNCTION_INFO_V1(retl_erase);

#define STATUS_COLUMNS 11
#define ERASE_COLUMNS 8

/* A key of a model, and where its rows are. */
typedef struct Record
{
	RetlModel  *model;
	char	   *key;			/* as one text, the way it is stored */
	char	   *typed;			/* SQL: its columns, of parameter $1, which is that text */
	char	   *checkpoint;
	char	   *log;
} Record;

/* --------------------------------------------------------------------------
 * Finding it
 * -------------------------------------------------------------------------- */

/* "AND PREFIXk1 = ..." without the AND */
static char *
is_key(const Record *record, const char *prefix)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "ROW(");
	for (int k = 1; k <= record->model->nkeys; k++)
		appendStringInfo(&sql, "%s%sk%d", k > 1 ? ", " : "", prefix, k);
	appendStringInfo(&sql, ") = ROW(%s)", record->typed);
	return sql.data;
}

/* False where the model was never read. Errors with 22023 where "key" is none of the model's. */
static bool
find_record(int64 model_id, const char *key, Record *record)
{
	RetlArgs	args = {0};
	StringInfoData sql;
	Datum	   *elements;
	char	  **types;
	int			ntypes;
	int			generation;
	bool		isnull;

	record->model = retl_model_get(model_id);
	retl_arg_int8(&args, model_id);
	if (retl_sql("SELECT key_types, log_generation FROM retl.model_state WHERE model = $1 AND key_types IS NOT NULL",
				 &args) == 0)
		return false;
	deconstruct_array(DatumGetArrayTypeP(retl_result_datum(0, 1, &isnull)), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &ntypes);
	types = palloc(sizeof(char *) * ntypes);
	for (int k = 0; k < ntypes; k++)
		types[k] = TextDatumGetCString(elements[k]);
	generation = retl_result_int4(0, 2);
	record->typed = retl_stream_typed_key(record->model, types, "$1");
	record->checkpoint = retl_checkpoint_table(model_id);
	record->log = retl_log_table(model_id, generation);

	memset(&args, 0, sizeof(args));
	retl_arg_text(&args, key);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT CASE WHEN ROW(%s) IS NOT NULL THEN retl.key_data(ARRAY[", record->typed);
	for (int k = 0; k < record->model->nkeys; k++)
		appendStringInfo(&sql, "%s%s", k > 0 ? ", " : "", quote_literal_cstr(record->model->key[k]));
	appendStringInfo(&sql, "], %s) END", record->typed);
	(void) retl_sql(sql.data, &args);
	record->key = retl_result_text(0, 1);
	if (record->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a key of model \"%s\"", record->model->name),
				 record->model->nkeys == 1 ?
				 errhint("A key is the value of column \"%s\".", record->model->key[0]) :
				 errhint("A key is an object with a member for each of its columns.")));
	return true;
}

/* --------------------------------------------------------------------------
 * What a destination has of it
 * -------------------------------------------------------------------------- */

/*
 * The acknowledged row is the one at the mapping's cursor (of a run under way:
 * of before it, unless it was delivered), or what the exception says; pending
 * is what lies between it and the checkpoint, whether it was planned or not.
 */
static char *
status_query(const Record *record)
{
	return psprintf(
		"SELECT $1::pg_catalog.json,"
		"  CASE WHEN f.seq IS NULL THEN NULL WHEN x.key IS NOT NULL THEN"
		"    (SELECT retl.row_object(x.acked, h.columns) FROM retl.shape h WHERE h.model = $3 AND h.shape = x.acked_shape)"
		"   WHEN l.seq IS NOT NULL THEN"
		"    (SELECT retl.row_object(l.old_data, h.columns) FROM retl.shape h WHERE h.model = $3 AND h.shape = l.old_shape)"
		"   ELSE (SELECT retl.row_object(c.data, h.columns) FROM retl.shape h WHERE h.model = $3 AND h.shape = c.shape) END,"
		"  d.operation, d.run, d.at,"
		"  CASE WHEN p.operation IS NOT NULL THEN p.operation"
		"   WHEN f.seq IS NULL THEN CASE WHEN c.data IS NOT NULL THEN 'added' END"
		"   WHEN x.key IS NOT NULL THEN CASE WHEN c.data IS NULL THEN CASE WHEN x.acked IS NOT NULL OR x.maybe THEN 'deleted' END"
		"     WHEN x.acked IS NULL AND NOT x.maybe THEN 'added' ELSE 'updated' END"
		"   WHEN l.seq IS NOT NULL THEN CASE WHEN c.data IS NULL THEN CASE WHEN l.old_data IS NOT NULL THEN 'deleted' END"
		"     WHEN l.old_data IS NULL THEN 'added' ELSE 'updated' END END,"
		"  p.run, x.reason, x.error, x.failed_at,"
		"  CASE WHEN x.key IS NULL THEN NULL ELSE x.maybe END"
		" FROM retl.mapping_state s"
		" LEFT JOIN %s c ON %s"
		" LEFT JOIN retl.exception x ON x.mapping = s.mapping AND x.key = $1"
		/* the last request that was accepted with it */
		" LEFT JOIN LATERAL (SELECT k.operation, b.run, b.finished_at AS at FROM retl.batch b"
		"   JOIN retl.batch_body y ON y.batch = b.id"
		"   CROSS JOIN LATERAL (SELECT CASE pg_catalog.substr(y.operations, n.n::int4, 1) WHEN 'a' THEN 'added'"
		"      WHEN 'u' THEN 'updated' ELSE 'deleted' END AS operation"
		"     FROM pg_catalog.json_array_elements(y.keys) WITH ORDINALITY n (value, n) WHERE n.value::text = $1 LIMIT 1) k"
		"   WHERE b.mapping = $2 AND b.status = 'delivered' AND (x.batch IS NULL OR b.id <> x.batch)"
		"    AND pg_catalog.strpos(y.keys::text, $1) > 0 ORDER BY b.id DESC LIMIT 1) d ON true"
		" LEFT JOIN retl.run r ON r.id = s.active_run"
		" CROSS JOIN LATERAL (VALUES (CASE WHEN r.id IS NULL OR d.run = r.id THEN s.cursor ELSE r.from_seq END)) f (seq)"
		" LEFT JOIN LATERAL (SELECT * FROM %s l WHERE %s AND l.seq > f.seq ORDER BY l.seq LIMIT 1) l ON true"
		/* the request that is under way with it */
		" LEFT JOIN LATERAL (SELECT k.operation, b.run FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id"
		"   CROSS JOIN LATERAL (SELECT CASE pg_catalog.substr(y.operations, n.n::int4, 1) WHEN 'a' THEN 'added'"
		"      WHEN 'u' THEN 'updated' ELSE 'deleted' END AS operation"
		"     FROM pg_catalog.json_array_elements(y.keys) WITH ORDINALITY n (value, n) WHERE n.value::text = $1 LIMIT 1) k"
		"   WHERE b.run = s.active_run AND b.status = 'pending' AND pg_catalog.strpos(y.keys::text, $1) > 0 LIMIT 1) p ON true"
		" WHERE s.mapping = $2",
		record->checkpoint, is_key(record, "c."), record->log, is_key(record, "l."));
}

Datum
retl_status_of(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	char	   *key = retl_api_json(fcinfo, 1, "key");
	RetlArgs	args = {0};
	RetlResult	result;
	RetlCall	call;
	RetlObject	mapping;
	Record		record;
	int64		model;

	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);
	retl_arg_int8(&args, mapping.id);
	(void) retl_sql("SELECT model FROM retl.mapping WHERE id = $1", &args);
	model = retl_result_int8(0, 1);
	/* neither log nor checkpoint is emptied while we read them */
	retl_model_lock(model, AccessShareLock);
	if (find_record(model, key, &record))
	{
		memset(&args, 0, sizeof(args));
		retl_arg_text(&args, record.key);
		retl_arg_int8(&args, mapping.id);
		retl_arg_int8(&args, model);
		if (retl_sql(status_query(&record), &args) == 1)
		{
			Datum		values[STATUS_COLUMNS];
			bool		nulls[STATUS_COLUMNS];

			for (int i = 0; i < STATUS_COLUMNS; i++)
				values[i] = retl_result_datum(0, i + 1, &nulls[i]);
			retl_result_add_row(&result, values, nulls);
		}
	}
	retl_api_end(&call);
	return (Datum) 0;
}

/* --------------------------------------------------------------------------
 * Taking it out
 * -------------------------------------------------------------------------- */

/* The requests that the key was in, as an array; and how many of them are under way. */
static Datum
find_batches(const Record *record, int64 *under_way)
{
	RetlArgs	args = {0};
	bool		isnull;
	Datum		batches;

	retl_arg_text(&args, record->key);
	retl_arg_int8(&args, record->model->id);
	(void) retl_sql("SELECT COALESCE(pg_catalog.array_agg(b.id ORDER BY b.id), '{}'), pg_catalog.count(*) FILTER (WHERE b.status = 'pending')"
					" FROM retl.mapping m JOIN retl.batch b ON b.mapping = m.id JOIN retl.batch_body y ON y.batch = b.id"
					" WHERE m.model = $2 AND pg_catalog.strpos(y.keys::text, $1) > 0"
					"  AND EXISTS (SELECT FROM pg_catalog.json_array_elements(y.keys) k (value) WHERE k.value::text = $1)",
					&args);
	*under_way = retl_result_int8(0, 2);
	batches = retl_result_datum(0, 1, &isnull);
	return PointerGetDatum(DatumGetArrayTypePCopy(batches));
}

/* A mapping whose destination is still to be told of the key; NULL: none. */
static char *
owing(const Record *record)
{
	RetlArgs	args = {0};

	retl_arg_text(&args, record->key);
	retl_arg_int8(&args, record->model->id);
	if (retl_sql(psprintf("SELECT m.name FROM retl.mapping m JOIN retl.mapping_state s ON s.mapping = m.id"
						  " JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = m.version"
						  " WHERE m.model = $2 AND 'deleted' = ANY (v.records)"
						  "  AND (EXISTS (SELECT FROM %s l WHERE %s AND l.seq > s.cursor)"
						  "   OR EXISTS (SELECT FROM retl.exception x WHERE x.mapping = m.id AND x.key = $1))"
						  " ORDER BY m.name LIMIT 1",
						  record->log, is_key(record, "l.")), &args) == 0)
		return NULL;
	return retl_result_text(0, 1);
}

static void
check_erasable(const Record *record, int64 under_way, bool force)
{
	RetlArgs	args = {0};
	char	   *mapping;

	if (under_way > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the record is in a request that is under way"),
				 errhint("Wait for the run's end, or run retl.cancel_run, then erase it.")));
	if (force)
		return;
	retl_arg_text(&args, record->key);
	if (retl_sql(psprintf("SELECT FROM %s c WHERE %s", record->checkpoint, is_key(record, "c.")), &args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the record is in model \"%s\", as of its last snapshot", record->model->name),
				 errhint("Delete it where the model reads it and sync, so that destinations are told; then erase it."
						 " With force => true it is erased now, and sent as added if the model still returns it.")));
	if ((mapping = owing(record)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the destination of mapping \"%s\" was not told yet that the record is gone", mapping),
				 errhint("Sync the mapping, then erase it. With force => true it is erased now, and nobody is told.")));
}

/* Where it was sent: to the result. */
static void
report(RetlResult *result, const Record *record, Datum batches)
{
	RetlArgs	args = {0};
	int64		count;

	retl_arg_text(&args, record->key);
	retl_arg_datum(&args, INT8ARRAYOID, batches, false);
	count = retl_sql("SELECT m.name, d.name, d.connector, b.run, b.id,"
					 "  CASE pg_catalog.substr(y.operations, k.n::int4, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,"
					 "  b.finished_at, b.status"
					 " FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id"
					 " JOIN retl.mapping m ON m.id = b.mapping JOIN retl.destination d ON d.id = b.destination"
					 " CROSS JOIN LATERAL pg_catalog.json_array_elements(y.keys) WITH ORDINALITY k (value, n)"
					 " WHERE b.id = ANY ($2) AND k.value::text = $1 AND b.attempts > 0 ORDER BY b.id", &args);
	for (int64 row = 0; row < count; row++)
	{
		Datum		values[ERASE_COLUMNS];
		bool		nulls[ERASE_COLUMNS];

		for (int i = 0; i < ERASE_COLUMNS; i++)
			values[i] = retl_result_datum(row, i + 1, &nulls[i]);
		retl_result_add_row(result, values, nulls);
	}
}

/* Bytes and answers go with all that was in the same request. */
static void
erase(const Record *record, Datum batches)
{
	static const char *const of_batches[] = {
		/* in the order in which whoever writes several takes them: runs, then batches */
		"SELECT FROM retl.run WHERE id IN (SELECT b.run FROM retl.batch b WHERE b.id = ANY ($1)) ORDER BY mapping, id FOR NO KEY UPDATE",
		"DELETE FROM retl.batch_body WHERE batch = ANY ($1)",
		"UPDATE retl.attempt SET answer = NULL, error = NULL WHERE batch = ANY ($1)",
		"UPDATE retl.run SET error = 'removed by retl.erase' WHERE error IS NOT NULL AND error_code IS NULL AND stop_reason IS NULL"
		" AND id IN (SELECT b.run FROM retl.batch b WHERE b.id = ANY ($1) AND b.error IS NOT NULL)",
		"UPDATE retl.batch SET error = NULL WHERE id = ANY ($1) AND error IS NOT NULL",
	};
	RetlArgs	args = {0};
	int64		rows;

	retl_arg_datum(&args, INT8ARRAYOID, batches, false);
	for (int i = 0; i < lengthof(of_batches); i++)
		(void) retl_sql(of_batches[i], &args);

	memset(&args, 0, sizeof(args));
	retl_arg_text(&args, record->key);
	rows = retl_sql(psprintf("DELETE FROM %s c WHERE %s", record->checkpoint, is_key(record, "c.")), &args);
	(void) retl_sql(psprintf("DELETE FROM %s l WHERE %s", record->log, is_key(record, "l.")), &args);
	retl_arg_int8(&args, record->model->id);
	(void) retl_sql("DELETE FROM retl.exception x USING retl.mapping m"
					" WHERE m.id = x.mapping AND m.model = $2 AND x.key = $1", &args);
	(void) retl_sql("UPDATE retl.run r SET position = NULL FROM retl.mapping m"
					" WHERE m.id = r.mapping AND m.model = $2 AND r.finished_at IS NOT NULL"
					"  AND pg_catalog.strpos(r.position::text, $1) > 0", &args);
	(void) retl_sql("UPDATE retl.snapshot SET set_aside_sample = NULL"
					" WHERE model = $2 AND pg_catalog.strpos(set_aside_sample::text, $1) > 0", &args);

	/* what is there no more is not as it was read: the next snapshot reads everything */
	memset(&args, 0, sizeof(args));
	retl_arg_int8(&args, record->model->id);
	retl_arg_int8(&args, rows);
	(void) retl_sql("UPDATE retl.model_state SET row_count = row_count - $2, read_at = NULL, full_at = NULL WHERE model = $1", &args);
}

Datum
retl_erase(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "model");
	char	   *key = retl_api_json(fcinfo, 1, "key");
	bool		force = retl_api_bool(fcinfo, 2, "force");
	RetlResult	result;
	RetlCall	call;
	RetlObject	model;
	Record		record;

	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, name, true, &model);
	retl_api_require_owner(&call, &model);
	/* no snapshot, no plan, no end of a run meanwhile */
	retl_model_lock(model.id, AccessExclusiveLock);
	if (find_record(model.id, key, &record))
	{
		int64		under_way;
		Datum		batches = find_batches(&record, &under_way);

		check_erasable(&record, under_way, force);
		report(&result, &record, batches);
		erase(&record, batches);
	}
	retl_api_end(&call);
	return (Datum) 0;
}
