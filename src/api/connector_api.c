/*
 * connector_api.c
 *		create_connector, alter_connector, drop_connector, describe_connector.
 *
 * A definition says where requests go and what is sent with them, secrets
 * included: whoever may write one may read what its destinations hold. So these are for
 * those to whom the extension's owner grants them, and a definition that
 * destinations use, for those who have the privileges of their owners.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "api/connector_check.h"
#include "api/connectors.h"
#include "api/results.h"
#include "base/json.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "map/connector.h"
#include "map/mapping.h"

PG_FUNCTION_INFO_V1(retl_create_connector);
PG_FUNCTION_INFO_V1(retl_alter_connector);
PG_FUNCTION_INFO_V1(retl_drop_connector);
PG_FUNCTION_INFO_V1(retl_describe_connector);

static RetlJson *
parse(const char *definition)
{
	char	   *error;
	RetlJson   *tree = retl_json_parse(definition, strlen(definition), &error);

	if (tree == NULL || tree->type != RETL_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition of a connector must be a JSON object"),
				 tree == NULL ? errdetail("%s.", error) : 0));
	return tree;
}

/* Whether there is one; *built_in: it comes with the extension. */
static bool
find(const char *name, bool *built_in)
{
	RetlArgs	args = {0};

	retl_arg_text(&args, name);
	if (retl_sql("SELECT built_in FROM retl.connector WHERE name = $1 FOR NO KEY UPDATE", &args) == 0)
		return false;
	*built_in = retl_result_bool(0, 1);
	return true;
}

static void
refuse_built_in(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("connector \"%s\" comes with the extension and stays as it is", name),
			 errhint("Create one of your own under another name, from the definition in view retl.connectors.")));
}

/* ---- what depends on a definition ---- */

/*
 * Who gives a connector another definition decides where its destinations'
 * secrets go: that is for those who may set them.
 */
static void
require_destinations(const RetlCall *call, const char *name)
{
	RetlArgs	args = {0};
	int64		count;

	retl_arg_text(&args, name);
	count = retl_sql("SELECT d.name, d.owner::oid FROM retl.destination d WHERE d.connector = $1 ORDER BY d.name", &args);
	for (int64 i = 0; i < count; i++)
		if (!retl_api_may(call, retl_result_oid(i, 2)))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for connector \"%s\"", name),
					 errdetail("Destinations of other owners use it."),
					 errhint("Create a connector of your own under another name, or be granted the privileges of their owners.")));
}

typedef struct Dependent
{
	const char *kind;
	char	   *name;
} Dependent;

static void
add_context(void *arg)
{
	const Dependent *dependent = arg;

	if (dependent->name != NULL)
		errcontext("%s \"%s\" under the new definition", dependent->kind, dependent->name);
}

/* That the destinations of a connector and their mappings are valid under another definition. */
static void
check_dependents(const char *name, const char *definition)
{
	Dependent	dependent = {0};
	ErrorContextCallback callback = {error_context_stack, add_context, &dependent};
	RetlArgs	args = {0};
	int64		count;
	char	 ***rows;

	error_context_stack = &callback;
	retl_arg_text(&args, name);
	count = retl_sql("SELECT d.name, d.settings::text, m.name, m.action, v.fields::text, coalesce(v.batch_size, 0)::text"
					 " FROM retl.destination d LEFT JOIN retl.mapping m ON m.destination = d.id"
					 " LEFT JOIN retl.mapping_version v ON v.mapping = m.id AND v.version = m.version"
					 " WHERE d.connector = $1 ORDER BY d.id, m.id", &args);
	rows = palloc(sizeof(char **) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
	{
		rows[i] = palloc(sizeof(char *) * 6);
		for (int column = 0; column < 6; column++)
			rows[i][column] = retl_result_text(i, column + 1);
	}
	for (int64 i = 0; i < count; i++)
	{
		char	   *settings;

		dependent = (Dependent) {"destination", rows[i][0]};
		settings = retl_connector_settings(definition, rows[i][1]);
		if (rows[i][2] == NULL)
			continue;
		dependent = (Dependent) {"mapping", rows[i][2]};
		(void) retl_mapping_compile(definition, rows[i][3], rows[i][4], settings, atoi(rows[i][5]));
	}
	error_context_stack = callback.previous;
}

static void
replace(const RetlCall *call, const char *name, const char *definition)
{
	RetlArgs	args = {0};

	require_destinations(call, name);
	check_dependents(name, definition);
	retl_arg_text(&args, name);
	retl_arg_text(&args, definition);
	(void) retl_sql("UPDATE retl.connector SET definition = $2::json WHERE name = $1", &args);
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
}

/* ---- entry points ---- */

Datum
retl_create_connector(PG_FUNCTION_ARGS)
{
	char	   *definition = retl_api_json(fcinfo, 0, "definition");
	bool		or_replace = retl_api_bool(fcinfo, 1, "or_replace");
	RetlJson   *tree = parse(definition);
	RetlJson   *member = retl_json_member(tree, "name");
	char	   *name;
	bool		built_in;
	RetlCall	call;
	RetlArgs	args = {0};

	if (member == NULL || member->type != RETL_JSON_STRING)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition of the connector is not valid"),
				 errdetail("/: it must have a member \"name\", a string.")));
	name = retl_json_cstring(member);
	retl_api_check_name("connector", name);
	retl_connector_check(tree);
	retl_api_begin(&call, false);
	if (find(name, &built_in))
	{
		if (built_in)
			refuse_built_in(name);
		if (!or_replace)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("connector \"%s\" already exists", name),
					 errhint("Choose another name, or give or_replace => true to change the one there is.")));
		replace(&call, name, definition);
	}
	else
	{
		retl_arg_text(&args, name);
		retl_arg_text(&args, definition);
		(void) retl_sql("INSERT INTO retl.connector (name, definition) VALUES ($1, $2::json)", &args);
	}
	retl_api_end(&call);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

Datum
retl_alter_connector(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *definition = retl_api_json(fcinfo, 1, "definition");
	RetlJson   *tree = parse(definition);
	RetlJson   *member = retl_json_member(tree, "name");
	bool		built_in;
	RetlCall	call;

	if (member != NULL && !retl_json_is_string(member, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a connector cannot be renamed"),
				 errhint("Let the definition's \"name\" be \"%s\", or leave it out.", name)));
	retl_connector_check(tree);
	retl_api_begin(&call, false);
	if (!find(name, &built_in))
		(void) retl_connectors_get(name);	/* which names the nearest */
	if (built_in)
		refuse_built_in(name);
	replace(&call, name, definition);
	retl_api_end(&call);
	PG_RETURN_VOID();
}

static void
drop_destinations(const char *name, bool cascade)
{
	RetlArgs	args = {0};
	int64		count;
	char	  **names;

	retl_arg_text(&args, name);
	count = retl_sql("SELECT name FROM retl.destination WHERE connector = $1 ORDER BY name", &args);
	names = palloc(sizeof(char *) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
		names[i] = retl_result_text(i, 1);
	if (count > 0 && !cascade)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("connector \"%s\" has destinations", name),
				 errdetail("They are %s.", retl_api_list(count, names, 5)),
				 errhint("Drop them first, or give cascade => true to drop them and their mappings, too.")));
	for (int64 i = 0; i < count; i++)
	{
		RetlObject	destination;
		RetlArgs	id = {0};

		if (!retl_api_find(RETL_OBJECT_DESTINATION, names[i], true, &destination))
			continue;
		retl_api_drop_mappings(&destination, true);
		retl_arg_int8(&id, destination.id);
		(void) retl_sql("DELETE FROM retl.destination WHERE id = $1", &id);
	}
}

Datum
retl_drop_connector(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	bool		cascade = retl_api_bool(fcinfo, 1, "cascade");
	bool		if_exists = retl_api_bool(fcinfo, 2, "if_exists");
	bool		built_in = false;
	RetlCall	call;
	RetlArgs	args = {0};

	retl_api_begin(&call, false);
	if (!find(name, &built_in))
	{
		if (!if_exists)
			(void) retl_connectors_get(name);
		ereport(NOTICE, (errmsg("connector \"%s\" does not exist, skipping", name)));
	}
	else
	{
		if (built_in)
			refuse_built_in(name);
		if (cascade)
			require_destinations(&call, name);
		drop_destinations(name, cascade);
		retl_arg_text(&args, name);
		(void) retl_sql("DELETE FROM retl.connector WHERE name = $1", &args);
		retl_wake_at_commit(RETL_DELIVERY_WORKER);
	}
	retl_api_end(&call);
	PG_RETURN_VOID();
}

Datum
retl_describe_connector(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	RetlResult	result;
	RetlCall	call;
	RetlArgs	args = {0};
	int64		count;

	retl_result_begin(&result, fcinfo);
	retl_api_begin(&call, false);
	retl_arg_text(&args, retl_connectors_get(name));
	retl_arg_text(&args, retl_connector_delivery_settings());
	count = retl_sql_read("WITH c AS MATERIALIZED (SELECT $1::json AS d),"
					 " a AS MATERIALIZED (SELECT x.key, x.value, x.n FROM c, json_each(c.d -> 'actions') WITH ORDINALITY x (key, value, n)),"
					 " part (action, kind, name, value, a, b, n) AS ("
					 "  SELECT NULL::text, 'setting', x.key, x.value, 0::bigint, 0, x.n"
					 "   FROM c, json_each(c.d -> 'settings') WITH ORDINALITY x (key, value, n)"
					 "  UNION ALL SELECT NULL, 'setting', x.key, x.value, 0, 0, 1000 + x.n"
					 "   FROM c, json_each($2::json) WITH ORDINALITY x (key, value, n) WHERE (c.d -> 'settings' -> x.key) IS NULL"
					 "  UNION ALL SELECT NULL, 'secret', x.key, x.value, 0, 1, x.n"
					 "   FROM c, json_each(c.d -> 'secrets') WITH ORDINALITY x (key, value, n)"
					 "  UNION ALL SELECT a.key, 'action', a.key, a.value, a.n, 2, 0 FROM a"
					 "  UNION ALL SELECT a.key, 'field', x.key, x.value, a.n, 3, x.n"
					 "   FROM a, json_each(a.value -> 'fields') WITH ORDINALITY x (key, value, n))"
					 " SELECT action, kind, name,"
					 " CASE WHEN (value ->> 'multiple')::boolean THEN (value ->> 'type') || '[]' ELSE value ->> 'type' END,"
					 " CASE WHEN json_typeof(value -> 'required') = 'boolean' THEN (value ->> 'required')::boolean"
					 "  WHEN kind IN ('setting', 'field') THEN false END,"
					 " value -> 'default', value -> 'choices',"
					 " CASE kind WHEN 'action' THEN json_strip_nulls(json_build_object('operations', value -> 'operations',"
					 "   'one_of', value -> 'one_of', 'identity', value -> 'identity', 'records', value #> '{batch,records}',"
					 "   'max_records', value #> '{batch,max_records}', 'bytes', value #> '{batch,bytes}',"
					 "   'record_bytes', value #> '{batch,record_bytes}'))"
					 "  WHEN 'secret' THEN NULL ELSE nullif(json_strip_nulls(json_build_object('minimum', value -> 'minimum',"
					 "   'maximum', value -> 'maximum', 'format', value -> 'format', 'as', value -> 'as',"
					 "   'required', CASE WHEN json_typeof(value -> 'required') = 'object' THEN value -> 'required' END,"
					 "   'properties', value -> 'properties'))::text, '{}')::json END,"
					 " coalesce(value ->> 'description', value ->> 'title')"
					 " FROM part ORDER BY a, b, n", &args);
	for (int64 row = 0; row < count; row++)
	{
		Datum		values[9];
		bool		nulls[9];

		for (int column = 0; column < 9; column++)
			values[column] = retl_result_datum(row, column + 1, &nulls[column]);
		retl_result_add_row(&result, values, nulls);
	}
	retl_api_end(&call);
	return (Datum) 0;
}
