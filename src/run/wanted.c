/*
 * wanted.c
 *		What requests ask for; see wanted.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/sql.h"
#include "run/stream.h"
#include "run/wanted.h"

/* More keys than this are no longer looked up one by one. */
#define MAX_KEYS 10000

static char **
key_types(Datum types)
{
	Datum	   *elements;
	int			count;
	char	  **result;

	deconstruct_array(DatumGetArrayTypeP(types), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	result = palloc(sizeof(char *) * count);
	for (int k = 0; k < count; k++)
		result[k] = TextDatumGetCString(elements[k]);
	return result;
}

/* Args hold the requests. The arrays of keys, or NULL where there are too many, or none. */
static const RetlScopeKeys *
read_keys(const RetlModel *model, char **types, RetlArgs *args, MemoryContext context)
{
	RetlScopeKeys *keys;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.count(*)");
	for (int k = 1; k <= model->nkeys; k++)
		appendStringInfo(&sql, ", pg_catalog.array_agg(DISTINCT t.k%d)", k);
	appendStringInfo(&sql, " FROM retl.request q CROSS JOIN LATERAL pg_catalog.json_array_elements(q.arguments) k (value)"
					 " CROSS JOIN LATERAL (VALUES (%s)) t (",
					 retl_stream_typed_key(model, types, "k.value::pg_catalog.text"));
	for (int k = 1; k <= model->nkeys; k++)
		appendStringInfo(&sql, "%sk%d", k > 1 ? ", " : "", k);
	appendStringInfoString(&sql, ") WHERE q.id = ANY ($1)");
	retl_sql(sql.data, args);
	if (retl_result_int8(0, 1) == 0 || retl_result_int8(0, 1) > MAX_KEYS)
		return NULL;

	keys = MemoryContextAlloc(context, sizeof(RetlScopeKeys));
	keys->count = (int) retl_result_int8(0, 1);
	keys->ncolumns = model->nkeys;
	keys->types = MemoryContextAlloc(context, sizeof(Oid) * model->nkeys);
	keys->values = MemoryContextAlloc(context, sizeof(Datum) * model->nkeys);
	for (int k = 0; k < model->nkeys; k++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		keys->types[k] = SPI_gettypeid(SPI_tuptable->tupdesc, k + 2);
		keys->values[k] = PointerGetDatum(DatumGetArrayTypePCopy(retl_result_datum(0, k + 2, &isnull)));
		MemoryContextSwitchTo(old);
	}
	return keys;
}

void
retl_wanted(const RetlModel *model, const int64 *ids, int count, RetlWanted *wanted)
{
	MemoryContext context = CurrentMemoryContext;
	RetlArgs	args = {0};
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));
	bool		isnull;

	wanted->keys = NULL;
	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	SPI_connect();
	retl_arg_datum(&args, INT8ARRAYOID,
				   PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
				   false);
	retl_arg_int8(&args, model->id);
	retl_sql("SELECT COALESCE(pg_catalog.bool_or(q.whole), false),"
			 " COALESCE(pg_catalog.bool_and(q.kind = 'resync' AND s.cursor IS NOT NULL), false),"
			 " (SELECT st.key_types FROM retl.model_state st WHERE st.model = $2)"
			 " FROM retl.request q LEFT JOIN retl.mapping_state s ON s.mapping = q.mapping WHERE q.id = ANY ($1)", &args);
	wanted->full = retl_result_bool(0, 1);
	/* who wants a model read in any case means all of it */
	if (!wanted->full && model->max_skip > 0 && retl_result_bool(0, 2) && !retl_result_isnull(0, 3))
	{
		char	  **types = key_types(retl_result_datum(0, 3, &isnull));

		args.count = 1;
		wanted->keys = read_keys(model, types, &args, context);
	}
	SPI_finish();
}
