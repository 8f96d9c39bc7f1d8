/*
 * sqlexpr_test.c
 *		Lets a test evaluate @sql expressions over rows given as JSON. Compiled
 *		only with RETL_TESTING; the install script knows nothing of it. A test
 *		creates
 *
 *		FUNCTION (columns json, rows json[], old json[], expressions text[],
 *				  owner regrole, search_path text) RETURNS text[]
 *
 *		whose result has, by row, the values or the error.
 */
#include "postgres.h"

#ifdef RETL_TESTING

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "map/sqlexpr.h"

PG_FUNCTION_INFO_V1(retl_test_sql);

static const RetlSlice *
split(Datum row, const RetlShape *shape)
{
	RetlSlice  *slices = palloc(shape->ncolumns * sizeof(RetlSlice));
	text	   *data = DatumGetTextPP(row);

	retl_row_split(VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), shape->ncolumns, slices);
	return slices;
}

Datum
retl_test_sql(PG_FUNCTION_ARGS)
{
	RetlShape  *shape = retl_shape_parse(1, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Datum	   *rows;
	Datum	   *olds;
	bool	   *old_nulls;
	Datum	   *texts;
	Datum	   *results;
	int			nrows;
	int			nolds;
	int			ntexts;
	const char **expressions;
	RetlSqlSet *set;
	const RetlEnvelope **envelopes;
	RetlSlice  *values;
	char	  **errors;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), JSONOID, -1, false, TYPALIGN_INT,
					  &rows, NULL, &nrows);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), JSONOID, -1, false, TYPALIGN_INT,
					  &olds, &old_nulls, &nolds);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), TEXTOID, -1, false, TYPALIGN_INT,
					  &texts, NULL, &ntexts);
	expressions = palloc(ntexts * sizeof(char *));
	for (int i = 0; i < ntexts; i++)
		expressions[i] = TextDatumGetCString(texts[i]);

	set = retl_sql_prepare(shape, ntexts, expressions, PG_GETARG_OID(4),
						   text_to_cstring(PG_GETARG_TEXT_PP(5)));

	envelopes = palloc(nrows * sizeof(RetlEnvelope *));
	for (int i = 0; i < nrows; i++)
	{
		RetlEnvelope *envelope = palloc0(sizeof(RetlEnvelope));
		bool		has_old = i < nolds && !old_nulls[i];

		envelope->operation = has_old ? RETL_UPDATED : RETL_ADDED;
		envelope->shape = envelope->old_shape = shape;
		envelope->row = split(rows[i], shape);
		envelope->old = has_old ? split(olds[i], shape) : NULL;
		envelopes[i] = envelope;
	}
	values = palloc(sizeof(RetlSlice) * nrows * ntexts);
	errors = palloc(sizeof(char *) * nrows);
	if (nrows == 1)
		(void) retl_sql_eval(set, envelopes[0], values, &errors[0]);
	else
		retl_sql_eval_rows(set, nrows, envelopes, values, errors);
	retl_sql_free(set);

	results = palloc(sizeof(Datum) * nrows);
	for (int i = 0; i < nrows; i++)
	{
		StringInfoData line;

		initStringInfo(&line);
		if (errors[i] != NULL)
			appendStringInfo(&line, "error %s", errors[i]);
		for (int e = 0; errors[i] == NULL && e < ntexts; e++)
		{
			appendStringInfoString(&line, e > 0 ? " | " : "");
			appendBinaryStringInfo(&line, values[i * ntexts + e].data, values[i * ntexts + e].len);
		}
		results[i] = CStringGetTextDatum(line.data);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(results, nrows, TEXTOID, -1, false, TYPALIGN_INT));
}

#endif							/* RETL_TESTING */
