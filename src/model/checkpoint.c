/*
 * checkpoint.c
 *		Checkpoint and change log: making, filling, changing; see checkpoint.h.
 *
 * The delta of a scan is a tuplestore, shown to SQL as the relation "delta".
 * Keys that the model returned more than once are excluded from it: what they
 * should be is not known, so they stay as they were.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/fault.h"
#include "base/sql.h"
#include "model/checkpoint.h"

/* Slots of rows that are gone, to be used again by one snapshot. */
#define MOST_FREE_SLOTS 1000000

#define DUPLICATE_REASON "the key occurs more than once"

PG_FUNCTION_INFO_V1(retl_row_differs);

/* --------------------------------------------------------------------------
 * Names
 * -------------------------------------------------------------------------- */

char *
retl_checkpoint_table(int64 model)
{
	return psprintf("retl_data.checkpoint_" INT64_FORMAT, model);
}

char *
retl_log_table(int64 model, int generation)
{
	return psprintf("retl_data.log_" INT64_FORMAT "_%d", model, generation);
}

const char *
retl_checkpoint_key_collation(const char *type)
{
	if (strcmp(type, "pg_catalog.text") == 0 || strcmp(type, "pg_catalog.bpchar") == 0)
		return " COLLATE pg_catalog.\"C\"";
	return "";
}

void
retl_checkpoint_append_key(StringInfo out, const RetlModel *model,
						   RetlValueWriter *const *writers,
						   const Datum *values, const bool *nulls)
{
	if (model->nkeys == 1)
	{
		retl_value_write(writers[0], out, values[0], nulls[0]);
		return;
	}
	for (int k = 0; k < model->nkeys; k++)
	{
		appendStringInfoString(out, k == 0 ? "{" : ", ");
		retl_json_append_string(out, model->key[k], strlen(model->key[k]));
		appendStringInfoString(out, ": ");
		retl_value_write(writers[k], out, values[k], nulls[k]);
	}
	appendStringInfoChar(out, '}');
}

/* "PREFIXk1, PREFIXk2, ..." */
static void
append_keys(StringInfo sql, int nkeys, const char *prefix)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%sk%d", k > 1 ? ", " : "", prefix, k);
}

/* "a.k1 = b.k1 AND ..." */
static void
append_key_equality(StringInfo sql, int nkeys, const char *a, const char *b)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%s.k%d OPERATOR(pg_catalog.=) %s.k%d",
						 k > 1 ? " AND " : "", a, k, b, k);
}

/* --------------------------------------------------------------------------
 * Making
 * -------------------------------------------------------------------------- */

static void
append_key_columns(StringInfo sql, const RetlModel *model, char *const *key_types)
{
	for (int k = 0; k < model->nkeys; k++)
		appendStringInfo(sql, "k%d %s%s NOT NULL, ", k + 1, key_types[k],
						 retl_checkpoint_key_collation(key_types[k]));
}

void
retl_checkpoint_create(const RetlModel *model, char *const *key_types)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (", retl_checkpoint_table(model->id));
	append_key_columns(&sql, model, key_types);
	appendStringInfoString(&sql, "hash pg_catalog.int8 NOT NULL, slot pg_catalog.int8 NOT NULL,"
						   " shape pg_catalog.int4 NOT NULL, data pg_catalog.json NOT NULL)");
	retl_sql(sql.data, NULL);

	resetStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (", retl_log_table(model->id, 1));
	append_key_columns(&sql, model, key_types);
	appendStringInfoString(&sql, "seq pg_catalog.int8 NOT NULL,"
						   " old_shape pg_catalog.int4, old_data pg_catalog.json,"
						   " new_shape pg_catalog.int4, new_data pg_catalog.json,"
						   " PRIMARY KEY (");
	append_keys(&sql, model->nkeys, "");
	appendStringInfoString(&sql, ", seq))");
	retl_sql(sql.data, NULL);
}

static void
create_index(const RetlModel *model)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE UNIQUE INDEX ON %s (", retl_checkpoint_table(model->id));
	append_keys(&sql, model->nkeys, "");
	appendStringInfoString(&sql, ") INCLUDE (hash, slot)");
	retl_sql(sql.data, NULL);
}

/* True when the index could be made; false when there are duplicate keys. */
static bool
try_create_index(const RetlModel *model)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		create_index(model);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
			ReThrowError(error);
		FreeErrorData(error);
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

/* Keeps samples of keys in the last result, which starts with k1 .. kn. */
static void
sample_result(RetlScan *scan, int64 nrows)
{
	MemoryContext spi = MemoryContextSwitchTo(GetMemoryChunkContext(scan));
	RetlValueWriter **writers = palloc(sizeof(RetlValueWriter *) * scan->model->nkeys);

	for (int k = 0; k < scan->model->nkeys; k++)
		writers[k] = retl_value_writer(SPI_gettypeid(SPI_tuptable->tupdesc, k + 1));
	for (int64 row = 0; row < nrows && scan->nsamples < RETL_SAMPLE_SIZE; row++)
	{
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];
		StringInfoData json;

		for (int k = 0; k < scan->model->nkeys; k++)
			values[k] = retl_result_datum(row, k + 1, &nulls[k]);
		initStringInfo(&json);
		appendStringInfoString(&json, "{\"key\": ");
		retl_checkpoint_append_key(&json, scan->model, writers, values, nulls);
		appendStringInfoString(&json, ", \"reason\": \"" DUPLICATE_REASON "\"}");
		scan->samples[scan->nsamples++] = json.data;
	}
	MemoryContextSwitchTo(spi);
}

void
retl_checkpoint_finish_first(RetlScan *scan)
{
	const RetlModel *model = scan->model;
	const char *table = retl_checkpoint_table(model->id);
	StringInfoData duplicates;
	StringInfoData sql;
	int64		removed;

	if (try_create_index(model))
		return;

	initStringInfo(&duplicates);
	appendStringInfoString(&duplicates, "SELECT ");
	append_keys(&duplicates, model->nkeys, "");
	appendStringInfo(&duplicates, " FROM %s GROUP BY ", table);
	append_keys(&duplicates, model->nkeys, "");
	appendStringInfoString(&duplicates, " HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1");
	sample_result(scan, retl_sql(psprintf("%s LIMIT %d", duplicates.data, RETL_SAMPLE_SIZE), NULL));

	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s c USING (%s) d WHERE ", table, duplicates.data);
	append_key_equality(&sql, model->nkeys, "c", "d");
	removed = retl_sql(sql.data, NULL);
	scan->set_aside += removed;
	scan->added -= removed;
	create_index(model);
}

/* --------------------------------------------------------------------------
 * Applying a delta
 * -------------------------------------------------------------------------- */

/*
 * retl.row_differs(old_data, old_columns, new_data, new_columns): whether
 * anything is lost when the new row takes the old one's place: a value that is
 * another now, or a column that is gone or has another type. A column that
 * came is no difference.
 */
Datum
retl_row_differs(PG_FUNCTION_ARGS)
{
	text	   *data[2] = {PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(2)};
	RetlShape  *shapes[2];
	RetlSlice  *slices[2];

	for (int i = 0; i < 2; i++)
	{
		shapes[i] = retl_shape_parse(0, text_to_cstring(PG_GETARG_TEXT_PP(2 * i + 1)));
		slices[i] = palloc(sizeof(RetlSlice) * Max(shapes[i]->ncolumns, 1));
		retl_row_split(VARDATA_ANY(data[i]), VARSIZE_ANY_EXHDR(data[i]),
					   shapes[i]->ncolumns, slices[i]);
	}
	for (int o = 0; o < shapes[0]->ncolumns; o++)
	{
		const RetlColumn *column = &shapes[0]->columns[o];
		int			n = retl_shape_find(shapes[1], column->name, strlen(column->name));

		if (n < 0 || strcmp(column->type, shapes[1]->columns[n].type) != 0)
			PG_RETURN_BOOL(true);
		if (slices[0][o].len != slices[1][n].len ||
			memcmp(slices[0][o].data, slices[1][n].data, slices[0][o].len) != 0)
			PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(false);
}

static void
register_delta(RetlScan *scan)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = "delta";
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = scan->delta_desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = tuplestore_tuple_count(scan->delta);
	enr->reldata = scan->delta;
	if (SPI_register_relation(enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the delta of model \"%s\"", scan->model->name);
}

/*
 * Counts keys that are new and came more than once, as set aside. Returns
 * whether there are any, or known ones that did, which the scan has counted.
 */
static bool
count_duplicates(RetlScan *scan)
{
	int			nkeys = scan->model->nkeys;
	int64		rows = 0;

	if (scan->added > 1)
	{
		StringInfoData groups;

		initStringInfo(&groups);
		appendStringInfoString(&groups, "SELECT ");
		append_keys(&groups, nkeys, "");
		appendStringInfoString(&groups, ", pg_catalog.count(*) AS n FROM delta"
							   " WHERE kind OPERATOR(pg_catalog.=) 'a' GROUP BY ");
		append_keys(&groups, nkeys, "");
		appendStringInfoString(&groups, " HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1");
		retl_sql(psprintf("SELECT COALESCE(pg_catalog.sum(n), 0)::pg_catalog.int8 FROM (%s) g",
						  groups.data), NULL);
		rows = retl_result_int8(0, 1);
		if (rows > 0)
			sample_result(scan, retl_sql(psprintf("%s LIMIT %d", groups.data, RETL_SAMPLE_SIZE), NULL));
		scan->set_aside += rows;
		scan->added -= rows;
	}
	return rows > 0 || scan->duplicates > 0;
}

/* WITH clause that defines d: the delta without duplicates. */
static void
append_delta(StringInfo sql, const RetlScan *scan, bool duplicates)
{
	int			nkeys = scan->model->nkeys;

	if (!duplicates)
	{
		appendStringInfoString(sql, "WITH d AS NOT MATERIALIZED (SELECT * FROM delta) ");
		return;
	}
	appendStringInfoString(sql, "WITH dup AS (SELECT ");
	append_keys(sql, nkeys, "");
	appendStringInfoString(sql, " FROM delta WHERE kind OPERATOR(pg_catalog.=) 'x' UNION ALL SELECT ");
	append_keys(sql, nkeys, "");
	appendStringInfoString(sql, " FROM delta WHERE kind OPERATOR(pg_catalog.=) 'a' GROUP BY ");
	append_keys(sql, nkeys, "");
	appendStringInfoString(sql, " HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1),"
						   " d AS (SELECT * FROM delta e WHERE NOT EXISTS (SELECT FROM dup WHERE ");
	append_key_equality(sql, nkeys, "dup", "e");
	appendStringInfoString(sql, ")) ");
}

static int64
write_log(RetlScan *scan, int64 seq, int generation, bool duplicates)
{
	int			nkeys = scan->model->nkeys;
	StringInfoData sql;
	RetlArgs	args = {0};
	int64		written;

	initStringInfo(&sql);
	append_delta(&sql, scan, duplicates);
	appendStringInfo(&sql, "INSERT INTO %s (", retl_log_table(scan->model->id, generation));
	append_keys(&sql, nkeys, "");
	appendStringInfoString(&sql, ", seq, old_shape, old_data, new_shape, new_data) SELECT ");
	append_keys(&sql, nkeys, "d.");
	appendStringInfo(&sql, ", $1, c.shape, c.data, CASE WHEN d.data IS NOT NULL THEN $2 END, d.data"
					 " FROM d LEFT JOIN %s c ON ", retl_checkpoint_table(scan->model->id));
	append_key_equality(&sql, nkeys, "c", "d");
	retl_arg_int8(&args, seq);
	retl_arg_int4(&args, scan->shape);
	if (scan->all)
	{
		appendStringInfoString(&sql,
							   " LEFT JOIN retl.shape o ON o.model OPERATOR(pg_catalog.=) $3"
							   " AND o.shape OPERATOR(pg_catalog.=) c.shape"
							   " WHERE d.kind OPERATOR(pg_catalog.<>) 'u'"
							   " OR retl.row_differs(c.data, o.columns, d.data, $4::pg_catalog.json)");
		retl_arg_int8(&args, scan->model->id);
		retl_arg_text(&args, scan->columns->shape);
	}
	written = retl_sql(sql.data, &args);
	return written;
}

/*
 * Adds the slots that new rows may take before any beyond the last, as an
 * array; returns how many. What a scan of a part did not meet is not free.
 */
static int64
free_slots(const RetlScan *scan, RetlArgs *args)
{
	int64		most = scan->scope.kind == RETL_SCOPE_ALL ? Min(scan->added, MOST_FREE_SLOTS) : 0;
	int64	   *slots = palloc(most * sizeof(int64));
	int64		count = retl_filter_free_slots(scan->filter, most, slots);
	Datum	   *elements = palloc(Max(count, 1) * sizeof(Datum));

	for (int64 i = 0; i < count; i++)
		elements[i] = Int64GetDatum(slots[i]);
	retl_arg_datum(args, INT8ARRAYOID,
				   PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
												   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)), false);
	return count;
}

int64
retl_checkpoint_apply(RetlScan *scan, int64 seq, int generation)
{
	int			nkeys = scan->model->nkeys;
	const char *table = retl_checkpoint_table(scan->model->id);
	bool		duplicates;
	StringInfoData sql;
	int64		logged;
	int64		updated;
	int64		reused;

	if (scan->added + scan->updated + scan->deleted + scan->duplicates == 0)
		return 0;

	register_delta(scan);
	duplicates = count_duplicates(scan);
	logged = write_log(scan, seq, generation, duplicates);
	RETL_FAULT("log_written");

	initStringInfo(&sql);
	if (scan->updated > 0)
	{
		RetlArgs	args = {0};

		append_delta(&sql, scan, duplicates);
		appendStringInfo(&sql, "UPDATE %s c SET hash = d.hash, shape = $1, data = d.data"
						 " FROM d WHERE d.kind OPERATOR(pg_catalog.=) 'u' AND ", table);
		append_key_equality(&sql, nkeys, "c", "d");
		retl_arg_int4(&args, scan->shape);
		updated = retl_sql(sql.data, &args);
		scan->updated = updated;
	}
	if (scan->deleted > 0)
	{
		resetStringInfo(&sql);
		append_delta(&sql, scan, duplicates);
		appendStringInfo(&sql, "DELETE FROM %s c USING d WHERE d.kind OPERATOR(pg_catalog.=) 'd' AND ",
						 table);
		append_key_equality(&sql, nkeys, "c", "d");
		scan->deleted = retl_sql(sql.data, NULL);
	}
	if (scan->added > 0)
	{
		RetlArgs	args = {0};

		resetStringInfo(&sql);
		append_delta(&sql, scan, duplicates);
		appendStringInfo(&sql, "INSERT INTO %s (", table);
		append_keys(&sql, nkeys, "");
		appendStringInfoString(&sql, ", hash, slot, shape, data) SELECT ");
		append_keys(&sql, nkeys, "d.");
		appendStringInfoString(&sql, ", d.hash, COALESCE(($1)[d.n], $2 OPERATOR(pg_catalog.+) d.n), $3, d.data"
							   " FROM (SELECT *, pg_catalog.row_number() OVER () AS n"
							   "  FROM d WHERE kind OPERATOR(pg_catalog.=) 'a') d");
		reused = free_slots(scan, &args);
		retl_arg_int8(&args, scan->nslots - reused - 1);
		retl_arg_int4(&args, scan->shape);
		scan->added = retl_sql(sql.data, &args);
		scan->nslots += Max(scan->added - reused, 0);
	}
	/* a row whose shape alone changed is not an update to anybody */
	if (scan->all)
		scan->updated = logged - scan->added - scan->deleted;
	RETL_FAULT("checkpoint_written");
	return logged;
}
