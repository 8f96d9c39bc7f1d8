/*
 * models.c
 *		create_model, alter_model, enable_model, disable_model, drop_model.
 *
 * drop_model takes the model's lock in AccessExclusive mode before it touches
 * the model's tables: no snapshot or planner is at work on them then.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "api/api.h"
#include "api/query.h"
#include "api/reading.h"
#include "base/sql.h"
#include "model/model.h"

/* PostgreSQL's limit for an index is 32 columns; one of retl's tables adds seq to the key. */
#define MAX_KEY_COLUMNS 31

PG_FUNCTION_INFO_V1(retl_create_model);
PG_FUNCTION_INFO_V1(retl_alter_model);
PG_FUNCTION_INFO_V1(retl_enable_model);
PG_FUNCTION_INFO_V1(retl_disable_model);
PG_FUNCTION_INFO_V1(retl_drop_model);

/* --------------------------------------------------------------------------
 * create_model
 * -------------------------------------------------------------------------- */

static void
check_source(const char *source)
{
	if (strcmp(source, "local") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("source \"%s\" does not exist", source),
				 errhint("The one source is \"local\": this database.")));
}

static void
check_key_list(int nkeys, char **key)
{
	if (nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a model needs a key"),
				 errhint("Name the columns that tell its rows apart: key => '{id}'.")));
	if (nkeys > MAX_KEY_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("a key cannot have more than %d columns", MAX_KEY_COLUMNS)));
	for (int i = 0; i < nkeys; i++)
		for (int j = 0; j < i; j++)
			if (strcmp(key[i], key[j]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("key column \"%s\" is named twice", key[i])));
}

/* SQL types in which the checkpoint will hold the key. */
static char **
check_key(const RetlQuery *query, int nkeys, char **key)
{
	char	  **held = palloc(sizeof(char *) * nkeys);

	for (int i = 0; i < nkeys; i++)
	{
		int			column = retl_query_column(query, key[i]);
		bool		as_text;

		if (column < 0)
			retl_query_no_column(query, "key column", key[i]);
		held[i] = retl_model_key_type(query->types[column], query->typmods[column], &as_text);
		if (as_text)
			ereport(NOTICE,
					(errmsg("key column \"%s\" of type %s is held as text", key[i],
							format_type_be(query->types[column])),
					 errdetail("Two values are one key if their text is the same.")));
	}
	return held;
}

static Datum
text_array(int count, char **values)
{
	Datum	   *elements = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
		elements[i] = CStringGetTextDatum(values[i]);
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* What exists and has been snapshot is known by its key; that cannot change on the way. */
static void
check_same_key(const RetlObject *model, int nkeys, char **key, char **held)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, model->id);
	retl_arg_datum(&args, TEXTARRAYOID, text_array(nkeys, key), false);
	retl_arg_datum(&args, TEXTARRAYOID, text_array(nkeys, held), false);
	(void) retl_sql("SELECT m.key = $2, coalesce(s.key_types = $3, true), m.key::text"
					" FROM retl.model m JOIN retl.model_state s ON s.model = m.id WHERE m.id = $1", &args);
	if (!retl_result_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the key of model \"%s\" cannot be changed", model->name),
				 errdetail("Its key is %s.", retl_result_text(0, 3)),
				 errhint("Drop the model and create it anew, or create another one.")));
	if (!retl_result_bool(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the types of the key columns of model \"%s\" cannot be changed", model->name),
				 errhint("Cast the key columns to the types they had, or drop the model and create it anew.")));
}

static int64
insert_model(const char *name, Oid owner, const char *source, const RetlQuery *query,
			 int nkeys, char **key, const char *description)
{
	RetlArgs	args = {0};
	int64		id;

	retl_arg_text(&args, name);
	retl_arg_datum(&args, REGROLEOID, ObjectIdGetDatum(owner), false);
	retl_arg_text(&args, source);
	retl_arg_text(&args, query->text);
	retl_arg_text(&args, query->relation);
	retl_arg_text(&args, query->search_path);
	retl_arg_datum(&args, TEXTARRAYOID, text_array(nkeys, key), false);
	retl_arg_text(&args, description);
	if (retl_sql("INSERT INTO retl.model (name, owner, source, query, relation, search_path, key, description)"
				 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
				 " ON CONFLICT DO NOTHING RETURNING id", &args) == 0)
		retl_api_exists(RETL_OBJECT_MODEL, name);
	id = retl_result_int8(0, 1);

	args.count = 0;
	retl_arg_int8(&args, id);
	(void) retl_sql("INSERT INTO retl.model_state (model) VALUES ($1)", &args);
	return id;
}

static void
replace_model(const RetlObject *model, const char *source, const RetlQuery *query)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, model->id);
	retl_arg_text(&args, source);
	retl_arg_text(&args, query->text);
	retl_arg_text(&args, query->relation);
	retl_arg_text(&args, query->search_path);
	(void) retl_sql("UPDATE retl.model SET source = coalesce($2, source), query = $3, relation = $4,"
					" search_path = $5, altered_at = now() WHERE id = $1", &args);
}

static void
set_description(const RetlObject *model, const char *description)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, model->id);
	retl_arg_text(&args, description);
	(void) retl_sql("UPDATE retl.model SET description = $2, altered_at = now() WHERE id = $1", &args);
}

static void
note_volatile(const char *name, const RetlQuery *query)
{
	if (query->is_volatile)
		ereport(NOTICE,
				(errmsg("model \"%s\" calls a volatile function", name),
				 errdetail("A row whose values differ from one execution to the next is updated at every snapshot."),
				 errhint("Leave such columns out, unless this is what you want.")));
}

Datum
retl_create_model(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *given = retl_api_text(fcinfo, 1, "query");
	int			nkeys;
	char	  **key = retl_api_text_array(fcinfo, 2, "key", &nkeys);
	char	   *source = retl_api_text(fcinfo, 3, "source");
	char	   *description = retl_api_text_or_null(fcinfo, 4);
	bool		or_replace = retl_api_bool(fcinfo, 5, "or_replace");
	RetlReading reading;
	RetlQuery	query;
	RetlCall	call;
	RetlObject	model;
	bool		exists;
	char	  **held;

	retl_api_check_name("model", name);
	check_source(source);
	check_key_list(nkeys, key);
	retl_reading_arguments(fcinfo, 6, &reading);
	retl_query_resolve(given, &query);

	retl_api_begin(&call, false);
	exists = retl_api_find(RETL_OBJECT_MODEL, name, true, &model);
	if (exists && !or_replace)
		retl_api_exists(RETL_OBJECT_MODEL, name);
	if (exists)
		retl_api_require_owner(&call, &model);

	retl_query_analyze(&query, exists ? model.owner : call.caller);
	held = check_key(&query, nkeys, key);
	note_volatile(name, &query);

	if (exists)
	{
		check_same_key(&model, nkeys, key, held);
		replace_model(&model, source, &query);
		if (description != NULL)
			set_description(&model, description);
	}
	else
		model.id = insert_model(name, call.caller, source, &query, nkeys, key, description);
	retl_reading_set(&reading, model.id, &query);
	retl_api_end(&call);
	PG_RETURN_INT64(model.id);
}

/* --------------------------------------------------------------------------
 * alter_model
 * -------------------------------------------------------------------------- */

/* Whether the description is to be cleared; what else is goes into "reading". */
static bool
reset_argument(FunctionCallInfo fcinfo, int n, const char *description, RetlReading *reading)
{
	bool		clear_description = false;
	int			count;
	char	  **names = retl_api_text_array(fcinfo, n, "reset", &count);

	for (int i = 0; i < count; i++)
	{
		bool		given;

		if (strcmp(names[i], "description") == 0)
		{
			given = description != NULL;
			clear_description = true;
		}
		else if (!retl_reading_reset(reading, names[i], &given))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be reset", names[i]),
					 errhint("Of a model, description, max_skip, watermark, watermark_overlap, full_every and timeout can be.")));
		if (given)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is both given and reset", names[i])));
	}
	return clear_description;
}

static void
stored_query(const RetlObject *object, RetlQuery *query, int *nkeys, char ***key)
{
	RetlModel  *model = retl_model_load(object->id);

	if (query->text == NULL)
	{
		query->text = model->query;
		query->search_path = model->search_path;
	}
	*nkeys = model->nkeys;
	*key = model->key;
}

/* The key stays; another query must have its columns, and whoever owns the model must be able to run it. */
static void
check_query(const RetlObject *model, RetlQuery *query)
{
	int			nkeys;
	char	  **key;

	stored_query(model, query, &nkeys, &key);
	retl_query_analyze(query, model->owner);
	check_same_key(model, nkeys, key, check_key(query, nkeys, key));
}

Datum
retl_alter_model(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *given = retl_api_text_or_null(fcinfo, 1);
	char	   *description = retl_api_text_or_null(fcinfo, 2);
	Oid			owner = retl_api_new_owner(fcinfo, 3);
	RetlReading reading;
	bool		clear;
	RetlQuery	query = {0};
	RetlCall	call;
	RetlObject	model;

	retl_reading_arguments(fcinfo, 5, &reading);
	clear = reset_argument(fcinfo, 4, description, &reading);
	if (given != NULL)
		retl_query_resolve(given, &query);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, name, true, &model);
	retl_api_require_owner(&call, &model);
	if (given == NULL && description == NULL && !clear && !OidIsValid(owner) && !retl_reading_is_given(&reading))
		retl_api_nothing_to_alter(&model);

	if (OidIsValid(owner))
		retl_api_set_owner(&model, owner);
	if (given != NULL || OidIsValid(owner) || reading.watermark != NULL)
		check_query(&model, &query);
	if (given != NULL)
	{
		note_volatile(name, &query);
		replace_model(&model, NULL, &query);
	}
	if (description != NULL || clear)
		set_description(&model, description);
	retl_reading_set(&reading, model.id, &query);
	retl_api_end(&call);
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * enable_model, disable_model
 * -------------------------------------------------------------------------- */

static void
set_enabled(FunctionCallInfo fcinfo, bool enabled)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	RetlCall	call;
	RetlObject	model;

	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MODEL, name, false, &model);
	retl_api_require_owner(&call, &model);
	(void) retl_api_set_enabled(&model, enabled);
	retl_api_end(&call);
}

Datum
retl_enable_model(PG_FUNCTION_ARGS)
{
	set_enabled(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
retl_disable_model(PG_FUNCTION_ARGS)
{
	set_enabled(fcinfo, false);
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * drop_model
 * -------------------------------------------------------------------------- */

static void
drop_tables(int64 id)
{
	RetlArgs	args = {0};
	int64		count;
	char	  **tables;

	/* these names, whole: model 1 must not take what is model 11's */
	retl_arg_text(&args, psprintf("^(checkpoint_" INT64_FORMAT "|log_" INT64_FORMAT "_[0-9]+)$", id, id));
	count = retl_sql("SELECT c.relname FROM pg_class c"
					 " WHERE c.relnamespace = 'retl_data'::regnamespace AND c.relkind = 'r'"
					 " AND c.relname ~ $1", &args);
	tables = palloc(sizeof(char *) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
		tables[i] = retl_result_text(i, 1);
	for (int64 i = 0; i < count; i++)
		(void) retl_sql(psprintf("DROP TABLE %s", quote_qualified_identifier("retl_data", tables[i])), NULL);
}

Datum
retl_drop_model(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	bool		cascade = retl_api_bool(fcinfo, 1, "cascade");
	bool		if_exists = retl_api_bool(fcinfo, 2, "if_exists");
	RetlCall	call;
	RetlObject	model;

	retl_api_begin(&call, false);
	if (if_exists && !retl_api_find(RETL_OBJECT_MODEL, name, false, &model))
		ereport(NOTICE, (errmsg("model \"%s\" does not exist, skipping", name)));
	else
	{
		RetlArgs	args = {0};

		retl_api_get(&call, RETL_OBJECT_MODEL, name, false, &model);
		retl_api_require_owner(&call, &model);

		/* before any row lock: the workers take it first, too */
		retl_model_lock(model.id, AccessExclusiveLock);
		retl_api_get(&call, RETL_OBJECT_MODEL, name, true, &model);
		retl_api_drop_mappings(&model, cascade);
		drop_tables(model.id);
		retl_arg_int8(&args, model.id);
		(void) retl_sql("DELETE FROM retl.model WHERE id = $1", &args);
	}
	retl_api_end(&call);
	PG_RETURN_VOID();
}
