/*
 * effect.c
 *		Reset, baseline, resync, replay; see effect.h.
 *
 * A reset is remembered until a run is planned, since any run may fail. Keys
 * that are to be sent again are exceptions whose outcome is not known, which
 * every run works off.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/sql.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "run/effect.h"
#include "run/stream.h"

typedef struct Effect
{
	int64		mapping;
	int64		cursor;			/* -1: nothing sent yet */
	int64		seq;
	RetlModel  *model;
	char	  **key_types;
	char	   *checkpoint;
	char	   *log;
} Effect;

static bool
load(Effect *effect)
{
	RetlArgs	args = {0};
	Datum	   *elements;
	int			nkeys;
	bool		isnull;
	int64		model;

	retl_arg_int8(&args, effect->mapping);
	if (retl_sql("SELECT COALESCE(s.cursor, -1), m.model, st.key_types, st.log_generation"
				 " FROM retl.mapping m JOIN retl.mapping_state s ON s.mapping = m.id"
				 " JOIN retl.model_state st ON st.model = m.model WHERE m.id = $1", &args) != 1)
		return false;
	effect->cursor = retl_result_int8(0, 1);
	model = retl_result_int8(0, 2);
	deconstruct_array(DatumGetArrayTypeP(retl_result_datum(0, 3, &isnull)), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &nkeys);
	effect->key_types = palloc(sizeof(char *) * nkeys);
	for (int k = 0; k < nkeys; k++)
		effect->key_types[k] = TextDatumGetCString(elements[k]);
	effect->checkpoint = retl_checkpoint_table(model);
	effect->log = retl_log_table(model, retl_result_int4(0, 4));
	effect->model = retl_model_get(model);
	return true;
}

/* "PREFIXk1, PREFIXk2, ..." */
static char *
keys(const Effect *effect, const char *prefix)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int k = 1; k <= effect->model->nkeys; k++)
		appendStringInfo(&sql, "%s%sk%d", k > 1 ? ", " : "", prefix, k);
	return sql.data;
}

/* The text of the key in columns PREFIXk1, ... */
static char *
key_text(const Effect *effect, const char *prefix)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int k = 0; k < effect->model->nkeys; k++)
		appendStringInfo(&names, "%s%s", k > 0 ? ", " : "",
						 quote_literal_cstr(effect->model->key[k]));
	return psprintf("retl.key_data(ARRAY[%s], %s)", names.data, keys(effect, prefix));
}

/*
 * The cursor stays: what was there at the cursor and is gone by the time of
 * the run is still to be deleted.
 */
static void
reset(const Effect *effect)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, effect->mapping);
	retl_sql("UPDATE retl.mapping_state SET reset = true WHERE mapping = $1 AND cursor IS NOT NULL", &args);
}

static void
baseline(const Effect *effect)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, effect->mapping);
	retl_sql("DELETE FROM retl.exception WHERE mapping = $1", &args);
	/* nor is anything to be sent again for having been edited */
	retl_arg_int8(&args, effect->seq);
	retl_sql("UPDATE retl.mapping_state s SET version = m.version, cursor = $2, reset = false"
			 " FROM retl.mapping m WHERE s.mapping = $1 AND m.id = s.mapping", &args);
}

/*
 * Marks keys (SQL text of a query that gives their texts as "key", with
 * parameter $2) as not known to be at the destination, unless nothing of them
 * was ever due.
 */
static void
mark(const Effect *effect, const char *reason, const char *query, const char *parameter)
{
	RetlArgs	args = {0};

	/* a mapping that has sent nothing sends everything anyway */
	if (effect->cursor < 0)
		return;
	retl_arg_int8(&args, effect->mapping);
	retl_arg_text(&args, parameter);
	retl_arg_text(&args, reason);
	retl_arg_int8(&args, effect->cursor);
	retl_sql(psprintf("INSERT INTO retl.exception AS x (mapping, key, run, operation, reason, maybe, resolved,"
					  "  acked, acked_shape)"
					  " SELECT DISTINCT ON (key) $1, %s AS key, 0, 'updated', $3, true, true,"
					  "  CASE WHEN l.seq IS NULL THEN c.data ELSE l.old_data END,"
					  "  CASE WHEN l.seq IS NULL THEN c.shape ELSE l.old_shape END"
					  " FROM (%s) q (key) CROSS JOIN LATERAL (VALUES (%s)) t (%s)"
					  " LEFT JOIN %s c ON ROW(%s) = ROW(%s)"
					  " LEFT JOIN LATERAL (SELECT * FROM %s l WHERE ROW(%s) = ROW(%s) AND l.seq > $4"
					  "   ORDER BY l.seq LIMIT 1) l ON true"
					  " WHERE c.data IS NOT NULL OR l.seq IS NOT NULL"
					  " ON CONFLICT (mapping, key) DO UPDATE SET maybe = true",
					  key_text(effect, "t."), query,
					  retl_stream_typed_key(effect->model, effect->key_types, "q.key"), keys(effect, ""),
					  effect->checkpoint, keys(effect, "c."), keys(effect, "t."),
					  effect->log, keys(effect, "l."), keys(effect, "t.")), &args);
}

void
retl_effect_apply(int64 mapping, const char *kind, const char *arguments, int64 seq)
{
	Effect		effect = {0};

	effect.mapping = mapping;
	effect.seq = seq;
	if (!load(&effect))
		return;
	if (strcmp(kind, "reset") == 0)
		reset(&effect);
	else if (strcmp(kind, "baseline") == 0)
		baseline(&effect);
	else if (strcmp(kind, "resync") == 0)
		mark(&effect, "resync",
			 "SELECT k.value::pg_catalog.text FROM pg_catalog.json_array_elements($2::pg_catalog.json) k (value)",
			 arguments);
	else if (strcmp(kind, "replay") == 0)
		mark(&effect, "replay",
			 "SELECT k.value::pg_catalog.text FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id"
			 " CROSS JOIN LATERAL pg_catalog.json_array_elements(y.keys) k (value)"
			 " WHERE b.run = $2::pg_catalog.int8", arguments);
	else
		elog(ERROR, "unknown kind of request \"%s\"", kind);
}
