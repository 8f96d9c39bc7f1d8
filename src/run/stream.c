/*
 * stream.c
 *		The kinds of stream; see stream.h.
 *
 * State at snapshot s = the checkpoint with the log after s undone: for a key
 * changed since, the row before its first change after s. Whether there is
 * such a change and the rows themselves are read under one MVCC snapshot.
 * Indexes give the order, so a plan that is cut into chunks by key costs what
 * one pass costs.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/owner.h"
#include "base/sql.h"
#include "model/checkpoint.h"
#include "run/stream.h"

#define FETCH_ROWS 500

struct RetlStream
{
	const RetlStreamSpec *spec;
	Portal		portal;
	RetlValueWriter **writers;
	MemoryContext context;		/* of one change */
	SPITupleTable *rows;		/* of the last fetch */
	uint64		row;			/* next in it */
	uint64		nrows;
	StringInfoData key;
	StringInfoData next_key;
};

/* --------------------------------------------------------------------------
 * Statements
 * -------------------------------------------------------------------------- */

char *
retl_stream_typed_key(const RetlModel *model, char *const *key_types, const char *key)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int k = 0; k < model->nkeys; k++)
	{
		if (model->nkeys == 1)
			appendStringInfo(&sql, "((%s)::pg_catalog.json OPERATOR(pg_catalog.#>>) '{}')", key);
		else
			appendStringInfo(&sql, "%s((%s)::pg_catalog.json OPERATOR(pg_catalog.->>) %s)",
							 k > 0 ? ", " : "", key, quote_literal_cstr(model->key[k]));
		appendStringInfo(&sql, "::%s", key_types[k]);
	}
	return sql.data;
}

static void
append_keys(StringInfo sql, int nkeys, const char *prefix)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%sk%d", k > 1 ? ", " : "", prefix, k);
}

static void
append_equal(StringInfo sql, int nkeys, const char *a, const char *b)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%s.k%d = %s.k%d", k > 1 ? " AND " : "", a, k, b, k);
}

/* " AND (a.k1, ...) > (position)", the position being parameter $1 */
static void
append_after(StringInfo sql, const RetlStreamSpec *spec, const char *prefix)
{
	if (spec->position == NULL)
		return;
	appendStringInfoString(sql, " AND ROW(");
	append_keys(sql, spec->model->nkeys, prefix);
	appendStringInfo(sql, ") > ROW(%s)",
					 retl_stream_typed_key(spec->model, spec->key_types, "$1"));
}

/* $2: to_seq */
static char *
state_statement(const RetlStreamSpec *spec, bool undo)
{
	int			nkeys = spec->model->nkeys;
	char	   *log = retl_log_table(spec->model->id, spec->log_generation);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_keys(&sql, nkeys, "c.");
	appendStringInfo(&sql, ", NULL::int4, NULL::json, c.shape, c.data FROM %s c"
					 " WHERE $2 IS NOT NULL",
					 retl_checkpoint_table(spec->model->id));
	append_after(&sql, spec, "c.");
	if (undo)
	{
		appendStringInfo(&sql, " AND NOT EXISTS (SELECT FROM %s l WHERE ", log);
		append_equal(&sql, nkeys, "l", "c");
		appendStringInfoString(&sql, " AND l.seq > $2) UNION ALL SELECT ");
		append_keys(&sql, nkeys, "u.");
		appendStringInfoString(&sql, ", NULL::int4, NULL::json, u.old_shape, u.old_data"
							   " FROM (SELECT DISTINCT ON (");
		append_keys(&sql, nkeys, "l.");
		appendStringInfo(&sql, ") l.* FROM %s l WHERE l.seq > $2", log);
		append_after(&sql, spec, "l.");
		appendStringInfoString(&sql, " ORDER BY ");
		append_keys(&sql, nkeys, "l.");
		appendStringInfoString(&sql, ", l.seq) u WHERE u.old_data IS NOT NULL");
	}
	appendStringInfoString(&sql, " ORDER BY ");
	append_keys(&sql, nkeys, "");
	return sql.data;
}

/* $2: to_seq, $3: from_seq */
static char *
log_statement(const RetlStreamSpec *spec)
{
	int			nkeys = spec->model->nkeys;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_keys(&sql, nkeys, "l.");
	appendStringInfo(&sql, ", l.old_shape, l.old_data, l.new_shape, l.new_data FROM %s l"
					 " WHERE l.seq > $3 AND l.seq <= $2",
					 retl_log_table(spec->model->id, spec->log_generation));
	append_after(&sql, spec, "l.");
	appendStringInfoString(&sql, " ORDER BY ");
	append_keys(&sql, nkeys, "l.");
	appendStringInfoString(&sql, ", l.seq");
	return sql.data;
}

/*
 * $2: to_seq, $3: from_seq. Keys that are not in the log since from_seq are the
 * same in both; for the others, the row at s is the one before the first change after s.
 */
static char *
both_statement(const RetlStreamSpec *spec)
{
	int			nkeys = spec->model->nkeys;
	char	   *log = retl_log_table(spec->model->id, spec->log_generation);
	char	   *checkpoint = retl_checkpoint_table(spec->model->id);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_keys(&sql, nkeys, "c.");
	appendStringInfo(&sql, ", c.shape, c.data, c.shape, c.data FROM %s c WHERE $2 IS NOT NULL", checkpoint);
	append_after(&sql, spec, "c.");
	appendStringInfo(&sql, " AND NOT EXISTS (SELECT FROM %s l WHERE ", log);
	append_equal(&sql, nkeys, "l", "c");
	appendStringInfoString(&sql, " AND l.seq > $3) UNION ALL SELECT ");
	append_keys(&sql, nkeys, "u.");
	appendStringInfoString(&sql, ", u.old_shape, u.old_data,"
						   " CASE WHEN f.seq IS NULL THEN c.shape ELSE f.old_shape END,"
						   " CASE WHEN f.seq IS NULL THEN c.data ELSE f.old_data END"
						   " FROM (SELECT DISTINCT ON (");
	append_keys(&sql, nkeys, "l.");
	appendStringInfo(&sql, ") l.* FROM %s l WHERE l.seq > $3", log);
	append_after(&sql, spec, "l.");
	appendStringInfoString(&sql, " ORDER BY ");
	append_keys(&sql, nkeys, "l.");
	appendStringInfo(&sql, ", l.seq) u LEFT JOIN LATERAL (SELECT l.seq, l.old_shape, l.old_data FROM %s l WHERE ", log);
	append_equal(&sql, nkeys, "l", "u");
	appendStringInfo(&sql, " AND l.seq > $2 ORDER BY l.seq LIMIT 1) f ON true LEFT JOIN %s c ON ", checkpoint);
	append_equal(&sql, nkeys, "c", "u");
	appendStringInfoString(&sql, " ORDER BY ");
	append_keys(&sql, nkeys, "");
	return sql.data;
}

/*
 * $2: to_seq, $3: mapping, $4: run. Columns as above, then key, maybe, and the
 * last row there was. Keys are in the order of their texts here.
 */
static char *
exception_statement(const RetlStreamSpec *spec)
{
	int			nkeys = spec->model->nkeys;
	char	   *log = retl_log_table(spec->model->id, spec->log_generation);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_keys(&sql, nkeys, "t.");
	appendStringInfo(&sql, ", e.acked_shape, e.acked,"
					 " CASE WHEN f.seq IS NULL THEN c.shape ELSE f.old_shape END,"
					 " CASE WHEN f.seq IS NULL THEN c.data ELSE f.old_data END,"
					 " e.key, e.maybe, g.old_shape, g.old_data"
					 " FROM retl.exception e CROSS JOIN LATERAL (VALUES (%s)) t (",
					 retl_stream_typed_key(spec->model, spec->key_types, "e.key"));
	append_keys(&sql, nkeys, "");
	appendStringInfo(&sql, ") LEFT JOIN LATERAL (SELECT l.seq, l.old_shape, l.old_data"
					 " FROM %s l WHERE ", log);
	append_equal(&sql, nkeys, "l", "t");
	appendStringInfo(&sql, " AND l.seq > $2 ORDER BY l.seq LIMIT 1) f ON true"
					 " LEFT JOIN %s c ON ", retl_checkpoint_table(spec->model->id));
	append_equal(&sql, nkeys, "c", "t");
	appendStringInfo(&sql, " LEFT JOIN LATERAL (SELECT l.old_shape, l.old_data FROM %s l WHERE ", log);
	append_equal(&sql, nkeys, "l", "t");
	appendStringInfoString(&sql, " AND l.seq <= $2 AND l.new_data IS NULL"
						   " ORDER BY l.seq DESC LIMIT 1) g ON true"
						   " WHERE e.mapping = $3 AND e.run <> $4");
	if (spec->position)
		appendStringInfoString(&sql, " AND e.key > $1");
	appendStringInfoString(&sql, " ORDER BY e.key");
	return sql.data;
}

static bool
log_after(const RetlStreamSpec *spec)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, spec->to_seq);
	return retl_sql_read(psprintf("SELECT FROM %s WHERE seq > $1 LIMIT 1",
								  retl_log_table(spec->model->id, spec->log_generation)),
						 &args) > 0;
}

/* --------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------- */

RetlStream *
retl_stream_open(const RetlStreamSpec *spec)
{
	RetlStream *stream = palloc0(sizeof(RetlStream));
	RetlArgs	args = {0};
	char	   *sql = NULL;
	int			level;

	stream->spec = spec;
	stream->context = AllocSetContextCreate(CurrentMemoryContext, "retl change",
											ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&stream->key);
	initStringInfo(&stream->next_key);

	retl_arg_text(&args, spec->position);
	retl_arg_int8(&args, spec->to_seq);

	/* order comes from the indexes; a sort for each chunk would square the cost */
	level = NewGUCNestLevel();
	retl_set_local("enable_sort", "off");
	retl_set_local("enable_seqscan", "off");
	retl_set_local("enable_bitmapscan", "off");
	/* what is left costs "infinitely" much, and is not worth compiling for that */
	retl_set_local("jit", "off");

	PushActiveSnapshot(GetTransactionSnapshot());
	switch (spec->kind)
	{
		case RETL_STREAM_STATE:
			sql = state_statement(spec, log_after(spec));
			break;
		case RETL_STREAM_LOG:
			sql = log_statement(spec);
			retl_arg_int8(&args, spec->from_seq);
			break;
		case RETL_STREAM_BOTH:
			sql = both_statement(spec);
			retl_arg_int8(&args, spec->from_seq);
			break;
		case RETL_STREAM_EXCEPTIONS:
			sql = exception_statement(spec);
			retl_arg_int8(&args, spec->mapping);
			retl_arg_int8(&args, spec->run);
			break;
	}
	stream->portal = SPI_cursor_open_with_args(NULL, sql, args.count, args.types, args.values,
											   args.nulls, true, CURSOR_OPT_NO_SCROLL);
	PopActiveSnapshot();
	AtEOXact_GUC(false, level);

	stream->writers = palloc(sizeof(RetlValueWriter *) * spec->model->nkeys);
	for (int k = 0; k < spec->model->nkeys; k++)
		stream->writers[k] =
			retl_value_writer(TupleDescAttr(stream->portal->tupDesc, k)->atttypid);
	return stream;
}

/* Makes stream->row point at a row; false when there is none left. */
static bool
have_row(RetlStream *stream)
{
	if (stream->row < stream->nrows)
		return true;
	if (stream->rows)
	{
		bool		ended = stream->nrows < FETCH_ROWS;

		SPI_freetuptable(stream->rows);
		stream->rows = NULL;
		stream->nrows = stream->row = 0;
		if (ended)
			return false;
	}
	SPI_cursor_fetch(stream->portal, true, FETCH_ROWS);
	stream->rows = SPI_tuptable;
	stream->nrows = SPI_processed;
	stream->row = 0;
	return stream->nrows > 0;
}

static Datum
value(RetlStream *stream, int column, bool *isnull)
{
	return SPI_getbinval(stream->rows->vals[stream->row], stream->rows->tupdesc, column, isnull);
}

static void
read_key(RetlStream *stream, StringInfo out)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	resetStringInfo(out);
	for (int k = 0; k < stream->spec->model->nkeys; k++)
		values[k] = value(stream, k + 1, &nulls[k]);
	retl_checkpoint_append_key(out, stream->spec->model, stream->writers, values, nulls);
}

/* Reads shape and data from two columns; copies the data when it must outlive the fetch. */
static void
read_stored(RetlStream *stream, int column, RetlStored *stored, bool copy)
{
	bool		isnull;
	Datum		shape = value(stream, column, &isnull);
	Datum		data;
	text	   *stored_text;

	memset(stored, 0, sizeof(*stored));
	if (isnull)
		return;
	data = value(stream, column + 1, &isnull);
	if (isnull)
		return;
	stored_text = DatumGetTextPP(data);
	stored->shape = DatumGetInt32(shape);
	stored->len = VARSIZE_ANY_EXHDR(stored_text);
	stored->data = VARDATA_ANY(stored_text);
	if (copy)
		stored->data = pnstrdup(stored->data, stored->len);
}

bool
retl_stream_next(RetlStream *stream, RetlChange *change)
{
	int			first = stream->spec->model->nkeys + 1;
	MemoryContext caller;
	bool		isnull;

	memset(change, 0, sizeof(*change));
	if (!have_row(stream))
		return false;

	MemoryContextReset(stream->context);
	caller = MemoryContextSwitchTo(stream->context);
	switch (stream->spec->kind)
	{
		case RETL_STREAM_STATE:
			read_key(stream, &stream->key);
			read_stored(stream, first + 2, &change->new, false);
			stream->row++;
			break;

		case RETL_STREAM_BOTH:
			read_key(stream, &stream->key);
			read_stored(stream, first, &change->old, false);
			read_stored(stream, first + 2, &change->new, false);
			stream->row++;
			break;

		case RETL_STREAM_LOG:
			read_key(stream, &stream->key);
			read_stored(stream, first, &change->old, true);
			for (;;)
			{
				read_stored(stream, first + 2, &change->new, true);
				stream->row++;
				if (!have_row(stream))
					break;
				read_key(stream, &stream->next_key);
				if (strcmp(stream->key.data, stream->next_key.data) != 0)
					break;
			}
			break;

		case RETL_STREAM_EXCEPTIONS:
			resetStringInfo(&stream->key);
			appendStringInfoString(&stream->key,
								   TextDatumGetCString(value(stream, first + 4, &isnull)));
			read_stored(stream, first, &change->old, false);
			read_stored(stream, first + 2, &change->new, false);
			change->maybe = DatumGetBool(value(stream, first + 5, &isnull));
			if (change->new.shape == 0)
				read_stored(stream, first + 6, &change->last, false);
			stream->row++;
			break;
	}
	MemoryContextSwitchTo(caller);
	change->key = stream->key.data;
	return true;
}

void
retl_stream_state_of(const RetlModel *model, char **key_types, int log_generation, int64 seq,
					 const char *key, RetlStored *stored)
{
	RetlArgs	args = {0};
	StringInfoData sql;
	char	   *typed_key = retl_stream_typed_key(model, key_types, "$1");

	retl_arg_text(&args, key);
	retl_arg_int8(&args, seq);
	initStringInfo(&sql);
	appendStringInfo(&sql, "(SELECT s.old_shape, s.old_data::pg_catalog.text FROM %s s WHERE ROW(",
					 retl_log_table(model->id, log_generation));
	append_keys(&sql, model->nkeys, "s.");
	appendStringInfo(&sql, ") = ROW(%s) AND s.seq > $2 ORDER BY s.seq LIMIT 1)"
					 " UNION ALL SELECT c.shape, c.data::pg_catalog.text FROM %s c WHERE ROW(",
					 typed_key, retl_checkpoint_table(model->id));
	append_keys(&sql, model->nkeys, "c.");
	appendStringInfo(&sql, ") = ROW(%s) LIMIT 1", typed_key);

	memset(stored, 0, sizeof(*stored));
	if (retl_sql(sql.data, &args) == 1 && retl_result_text(0, 2) != NULL)
	{
		stored->shape = retl_result_int4(0, 1);
		stored->data = retl_result_text(0, 2);
		stored->len = strlen(stored->data);
	}
}

void
retl_stream_close(RetlStream *stream)
{
	if (stream->rows)
		SPI_freetuptable(stream->rows);
	SPI_cursor_close(stream->portal);
	MemoryContextDelete(stream->context);
	pfree(stream);
}
