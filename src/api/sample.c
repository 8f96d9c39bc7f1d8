/*
 * sample.c
 *		Live rows of a model, mapped; see sample.h.
 *
 * The model is executed as its owner inside the restricted switch, a fetch at
 * a time, and its rows are turned into their stored form there. All else works
 * on stored rows, as the planner does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "api/api.h"
#include "api/query.h"
#include "api/sample.h"
#include "base/json.h"
#include "base/sql.h"
#include "map/sqlexpr.h"
#include "model/checkpoint.h"
#include "model/model.h"

/* Rows fetched at a time: few, since one may be large. */
#define FETCH_ROWS 50

/* As in the checkpoint. */
#define MAX_KEY_BYTES 2000

typedef struct KeyColumn
{
	int			column;
	char	   *type;			/* in the checkpoint */
	bool		as_text;
	FmgrInfo	output;			/* as_text */
} KeyColumn;

struct RetlSample
{
	RetlModel  *model;
	RetlQuery	query;
	KeyColumn  *keys;
	char	   *key;			/* of the one row that is asked for, or NULL */
	RetlOperation operation;
	const char *message_id;
	char	   *timestamp;
	int64		destination;
	char	   *connector;
	char	   *settings;
	RetlMapping *mapping;
	RetlSqlSet *sql;			/* or NULL */
	RetlSqlSet *filter;			/* or NULL */

	Portal		portal;
	RetlValueWriter **writers;
	MemoryContext fetched;		/* of the texts below */
	int			nrows;
	int			next;
	char	  **rows;			/* stored form */
	char	  **row_keys;		/* NULL: without a usable one */
};

/* --------------------------------------------------------------------------
 * Opening
 * -------------------------------------------------------------------------- */

/* The first operation that the mapping takes: added, for most. */
static RetlOperation
first_operation(Datum records)
{
	Datum	   *elements;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(records), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &count);
	for (int operation = RETL_ADDED; operation <= RETL_DELETED; operation++)
		for (int i = 0; i < count; i++)
			if (strcmp(TextDatumGetCString(elements[i]), retl_operation_name(operation)) == 0)
				return operation;
	return RETL_ADDED;
}

static void
prepare_expressions(RetlSample *sample, const char *filter)
{
	int			count = retl_mapping_sql_count(sample->mapping);
	const char **expressions = palloc(sizeof(char *) * Max(count, 1));

	for (int i = 0; i < count; i++)
		expressions[i] = retl_mapping_sql(sample->mapping, i);
	if (count > 0)
		sample->sql = retl_sql_prepare(&sample->query.shape, count, expressions, sample->model->owner,
									   sample->model->search_path);
	if (filter != NULL)
		sample->filter = retl_sql_prepare(&sample->query.shape, 1, &filter, sample->model->owner,
										  sample->model->search_path);
}

static void
load(RetlSample *sample, int64 id)
{
	RetlArgs	args = {0};
	char	   *action;
	char	   *fields;
	char	   *filter;
	int32		batch_size;
	bool		isnull;

	retl_arg_int8(&args, id);
	(void) retl_sql("SELECT m.name, m.model, m.action, v.fields::text, coalesce(v.batch_size, 0),"
					" v.filter, v.records, d.id, c.definition::text, d.settings::text,"
					" to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),"
					" pg_has_role(m.owner, o.owner, 'USAGE') AND pg_has_role(m.owner, d.owner, 'USAGE')"
					" FROM retl.mapping m JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = m.version"
					" JOIN retl.model o ON o.id = m.model JOIN retl.destination d ON d.id = m.destination"
					" JOIN retl.connector c ON c.name = d.connector WHERE m.id = $1", &args);
	if (!retl_result_bool(0, 12))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of mapping \"%s\" does not have the privileges of the owners of its model and destination",
						retl_result_text(0, 1)),
				 errhint("Grant them, or give the mapping another owner with retl.alter_mapping().")));
	action = retl_result_text(0, 3);
	fields = retl_result_text(0, 4);
	batch_size = retl_result_int4(0, 5);
	filter = retl_result_text(0, 6);
	sample->operation = first_operation(retl_result_datum(0, 7, &isnull));
	sample->destination = retl_result_int8(0, 8);
	sample->connector = retl_result_text(0, 9);
	sample->settings = retl_result_text(0, 10);
	sample->timestamp = retl_result_text(0, 11);
	sample->model = retl_model_get(retl_result_int8(0, 2));

	sample->query.text = sample->model->query;
	sample->query.search_path = sample->model->search_path;
	retl_query_analyze(&sample->query, sample->model->owner);
	sample->mapping = retl_mapping_compile(sample->connector, action, fields, sample->settings, batch_size);
	prepare_expressions(sample, filter);
}

static void
find_keys(RetlSample *sample)
{
	RetlQuery  *query = &sample->query;

	sample->keys = palloc0(sizeof(KeyColumn) * sample->model->nkeys);
	for (int k = 0; k < sample->model->nkeys; k++)
	{
		KeyColumn  *key = &sample->keys[k];

		key->column = retl_query_column(query, sample->model->key[k]);
		if (key->column < 0)
			retl_query_no_column(query, "key column", sample->model->key[k]);
		key->type = retl_model_key_type(query->types[key->column], query->typmods[key->column],
										&key->as_text);
		if (key->as_text)
		{
			Oid			function;
			bool		is_varlena;

			getTypeOutputInfo(query->types[key->column], &function, &is_varlena);
			fmgr_info(function, &key->output);
		}
	}
}

/* The text of the model's one statement, without what may follow it. */
static char *
bare_statement(const char *text)
{
	RawStmt    *statement = linitial_node(RawStmt, raw_parser(text, RAW_PARSE_DEFAULT));

	if (statement->stmt_len == 0)
		return pstrdup(text + statement->stmt_location);
	return pnstrdup(text + statement->stmt_location, statement->stmt_len);
}

/* Member k of the key that is asked for, as text; NULL: it is no key of this model. */
static char *
key_member(const RetlSample *sample, const RetlJson *key, int k)
{
	const RetlJson *value = sample->model->nkeys == 1 && key->type != RETL_JSON_OBJECT ? key :
		retl_json_member(key, sample->model->key[k]);
	StringInfoData text;

	if (value == NULL || value->type == RETL_JSON_NULL)
		return NULL;
	if (value->type == RETL_JSON_STRING)
		return retl_json_cstring(value);
	initStringInfo(&text);
	retl_json_write(&text, value);
	return text.data;
}

/* Inside the owner's switch: the one row of the key. */
static Portal
open_by_key(RetlSample *sample)
{
	const RetlModel *model = sample->model;
	char	   *problem;
	RetlJson   *key = retl_json_parse(sample->key, strlen(sample->key), &problem);
	RetlArgs	args = {0};
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM (%s\n) retl_model WHERE ", bare_statement(model->query));
	for (int k = 0; k < model->nkeys; k++)
	{
		const KeyColumn *column = &sample->keys[k];
		char	   *text = key != NULL ? key_member(sample, key, k) : NULL;

		if (text == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("this is no key of model \"%s\"", model->name),
					 model->nkeys == 1 ?
					 errhint("A key is the value of column \"%s\".", model->key[0]) :
					 errhint("A key is an object with a member for each of its columns.")));
		retl_arg_text(&args, text);
		appendStringInfo(&sql, "%sretl_model.%s::%s%s OPERATOR(pg_catalog.=) $%d::%s", k > 0 ? " AND " : "",
						 quote_identifier(model->key[k]), column->type,
						 retl_checkpoint_key_collation(column->type), k + 1, column->type);
	}
	return SPI_cursor_open_with_args(NULL, sql.data, args.count, args.types, args.values, args.nulls,
									 true, CURSOR_OPT_NO_SCROLL);
}

RetlSample *
retl_sample_open(int64 mapping, const char *key, const char *message_id)
{
	RetlSample *sample = palloc0(sizeof(RetlSample));
	RetlIdentity saved;

	sample->key = key != NULL ? pstrdup(key) : NULL;
	sample->message_id = pstrdup(message_id);
	load(sample, mapping);
	find_keys(sample);
	sample->fetched = AllocSetContextCreate(CurrentMemoryContext, "retl sample rows",
											ALLOCSET_DEFAULT_SIZES);

	retl_owner_enter(&saved, sample->model->owner, sample->query.search_path);
	sample->writers = palloc(sizeof(RetlValueWriter *) * sample->query.shape.ncolumns);
	for (int i = 0; i < sample->query.shape.ncolumns; i++)
		sample->writers[i] = retl_value_writer(sample->query.types[i]);
	sample->portal = sample->key != NULL ? open_by_key(sample) : retl_query_open(&sample->query);
	retl_owner_leave(&saved);
	return sample;
}

void
retl_sample_close(RetlSample *sample)
{
	SPI_cursor_close(sample->portal);
	if (sample->sql)
		retl_sql_free(sample->sql);
	if (sample->filter)
		retl_sql_free(sample->filter);
	MemoryContextDelete(sample->fetched);
}

int64
retl_sample_destination(const RetlSample *sample)
{
	return sample->destination;
}

const char *
retl_sample_connector(const RetlSample *sample)
{
	return sample->connector;
}

const char *
retl_sample_settings(const RetlSample *sample)
{
	return sample->settings;
}

/* --------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------- */

/* The key as one text, or NULL when a part of it is. */
static char *
write_key(RetlSample *sample, HeapTuple tuple, TupleDesc descriptor)
{
	const RetlModel *model = sample->model;
	StringInfoData out;

	initStringInfo(&out);
	for (int k = 0; k < model->nkeys; k++)
	{
		KeyColumn  *key = &sample->keys[k];
		bool		isnull;
		Datum		value = SPI_getbinval(tuple, descriptor, key->column + 1, &isnull);

		if (isnull)
			return NULL;
		if (model->nkeys > 1)
		{
			appendStringInfoString(&out, k == 0 ? "{" : ", ");
			retl_json_append_string(&out, model->key[k], strlen(model->key[k]));
			appendStringInfoString(&out, ": ");
		}
		if (key->as_text)
		{
			char	   *text = OutputFunctionCall(&key->output, value);

			retl_json_append_string(&out, text, strlen(text));
		}
		else
			retl_value_write(sample->writers[key->column], &out, value, false);
	}
	if (model->nkeys > 1)
		appendStringInfoChar(&out, '}');
	return out.data;
}

static char *
write_row(RetlSample *sample, HeapTuple tuple, TupleDesc descriptor)
{
	StringInfoData out;

	initStringInfo(&out);
	for (int i = 0; i < sample->query.shape.ncolumns; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(tuple, descriptor, i + 1, &isnull);

		appendStringInfoChar(&out, i == 0 ? '[' : ',');
		retl_value_write(sample->writers[i], &out, value, isnull);
	}
	appendStringInfoChar(&out, ']');
	return out.data;
}

static bool
fetch(RetlSample *sample)
{
	RetlIdentity saved;
	MemoryContext caller = MemoryContextSwitchTo(sample->fetched);	/* which SPI does not keep */

	MemoryContextReset(sample->fetched);
	sample->next = 0;
	retl_owner_enter(&saved, sample->model->owner, sample->query.search_path);
	SPI_cursor_fetch(sample->portal, true, FETCH_ROWS);
	sample->nrows = SPI_processed;
	MemoryContextSwitchTo(sample->fetched);
	sample->rows = palloc(sizeof(char *) * Max(sample->nrows, 1));
	sample->row_keys = palloc(sizeof(char *) * Max(sample->nrows, 1));
	for (int i = 0; i < sample->nrows; i++)
	{
		sample->rows[i] = write_row(sample, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		sample->row_keys[i] = write_key(sample, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	}
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	retl_owner_leave(&saved);
	CHECK_FOR_INTERRUPTS();
	return sample->nrows > 0;
}

/* Whether the filter lets the row through; a row on which it fails has an error. */
static bool
passes(RetlSample *sample, RetlEnvelope *envelope, char **error)
{
	RetlSlice	result;

	if (sample->filter == NULL)
		return true;
	return retl_sql_eval(sample->filter, envelope, &result, error) &&
		result.len == 4 && memcmp(result.data, "true", 4) == 0;
}

static void
map(RetlSample *sample, RetlEnvelope *envelope, RetlSampleRow *row)
{
	int			nsql = retl_mapping_sql_count(sample->mapping);
	RetlSlice  *values = palloc(sizeof(RetlSlice) * Max(nsql, 1));
	StringInfoData payload;
	StringInfoData group;
	StringInfoData record;
	StringInfoData body;

	initStringInfo(&payload);
	initStringInfo(&group);
	initStringInfo(&record);
	initStringInfo(&body);
	envelope->sql = values;
	if (nsql > 0 && !retl_sql_eval(sample->sql, envelope, values, &row->error))
		return;
	if (!retl_mapping_payload(sample->mapping, envelope, &payload, &row->error))
		return;
	row->payload = payload.data;
	if (!retl_mapping_record(sample->mapping, envelope, payload.data, payload.len,
							 &group, &record, &row->error))
		return;
	row->request = group.data;
	retl_mapping_body_begin(sample->mapping, group.data, &body);
	retl_mapping_body_add(sample->mapping, &body, record.data, record.len, true);
	retl_mapping_body_end(sample->mapping, group.data, &body);
	row->body = body.data;
}

bool
retl_sample_next(RetlSample *sample, RetlSampleRow *row)
{
	const RetlShape *shape = &sample->query.shape;

	for (;;)
	{
		RetlEnvelope envelope = {0};
		RetlSlice  *slices = palloc(sizeof(RetlSlice) * Max(shape->ncolumns, 1));
		int			n = sample->next;

		memset(row, 0, sizeof(*row));
		if (n >= sample->nrows)
		{
			if (!fetch(sample))
				return false;
			n = 0;
		}
		sample->next = n + 1;

		retl_row_split(sample->rows[n], strlen(sample->rows[n]), shape->ncolumns, slices);
		row->operation = sample->operation;
		envelope.operation = sample->operation;
		envelope.shape = shape;
		envelope.row = slices;
		envelope.key = sample->row_keys[n] != NULL ? sample->row_keys[n] : "null";
		envelope.message_id = sample->message_id;
		envelope.timestamp = sample->timestamp;
		row->key = pstrdup(envelope.key);

		if (sample->row_keys[n] == NULL)
			row->error = pstrdup("the key is NULL: the row is set aside");
		else if (strlen(sample->row_keys[n]) > MAX_KEY_BYTES)
			row->error = psprintf("the key is longer than %d bytes: the row is set aside", MAX_KEY_BYTES);
		else if (!passes(sample, &envelope, &row->error))
		{
			if (row->error == NULL && sample->key == NULL)
				continue;
			if (row->error == NULL)
				row->error = pstrdup("the mapping's filter does not let the row through");
		}
		else
			map(sample, &envelope, row);
		return true;
	}
}
