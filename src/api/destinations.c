/*
 * destinations.c
 *		create_destination, alter_destination, enable_destination,
 *		disable_destination, drop_destination.
 *
 * A secret belongs to the origin for which it was set: whoever points a
 * destination elsewhere does not take its secrets along.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "api/arm.h"
#include "api/connectors.h"
#include "api/secrets.h"
#include "base/json.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "map/connector.h"

PG_FUNCTION_INFO_V1(retl_create_destination);
PG_FUNCTION_INFO_V1(retl_alter_destination);
PG_FUNCTION_INFO_V1(retl_enable_destination);
PG_FUNCTION_INFO_V1(retl_disable_destination);
PG_FUNCTION_INFO_V1(retl_drop_destination);

/* --------------------------------------------------------------------------
 * Origins
 * -------------------------------------------------------------------------- */

/* Scheme, host and port of a URL in lower case, or NULL if it is none. */
static char *
origin(const char *url)
{
	const char *host = strstr(url, "://");
	const char *end;
	const char *at;
	StringInfoData out;

	if (host == NULL)
		return NULL;
	host += 3;
	end = host + strcspn(host, "/?#\\");
	at = end;
	while (at > host && at[-1] != '@')
		at--;					/* user and password are no part of it */
	initStringInfo(&out);
	appendBinaryStringInfo(&out, url, host - url);
	appendBinaryStringInfo(&out, at, end - at);
	for (int i = 0; i < out.len; i++)
		out.data[i] = pg_tolower((unsigned char) out.data[i]);
	return out.data;
}

static bool
same_value(const RetlJson *a, const RetlJson *b)
{
	StringInfoData texts[2];

	if (a == NULL || b == NULL)
		return a == b;
	initStringInfo(&texts[0]);
	initStringInfo(&texts[1]);
	retl_json_write(&texts[0], a);
	retl_json_write(&texts[1], b);
	return strcmp(texts[0].data, texts[1].data) == 0;
}

/*
 * Whether one setting's change may send requests, and secrets with them, to
 * somebody else: a URL of another origin, or anything that the connector puts
 * into an origin itself.
 */
static bool
moves(const char *definition, const char *name, const RetlJson *before, const RetlJson *after)
{
	char	   *origins[2] = {NULL, NULL};

	if (same_value(before, after))
		return false;
	if (retl_connectors_in_origin(definition, name))
		return true;
	if (before != NULL && before->type == RETL_JSON_STRING)
		origins[0] = origin(retl_json_cstring(before));
	if (after != NULL && after->type == RETL_JSON_STRING)
		origins[1] = origin(retl_json_cstring(after));
	if (origins[0] == NULL && origins[1] == NULL)
		return false;
	return origins[0] == NULL || origins[1] == NULL || strcmp(origins[0], origins[1]) != 0;
}

static bool
origin_changed(const char *definition, const char *before_text, const char *after_text)
{
	char	   *error;
	RetlJson   *before = retl_json_parse(before_text, strlen(before_text), &error);
	RetlJson   *after = retl_json_parse(after_text, strlen(after_text), &error);

	if (before == NULL || after == NULL)
		return true;
	for (int i = 0; i < after->len; i++)
	{
		RetlJsonMember *member = &after->members[i];

		if (moves(definition, member->key,
				  retl_json_get(before, member->key, member->keylen), member->value))
			return true;
	}
	for (int i = 0; i < before->len; i++)
	{
		RetlJsonMember *member = &before->members[i];

		if (retl_json_get(after, member->key, member->keylen) == NULL &&
			moves(definition, member->key, member->value, NULL))
			return true;
	}
	return false;
}

/* --------------------------------------------------------------------------
 * create_destination
 * -------------------------------------------------------------------------- */

static int64
insert_destination(const RetlCall *call, const char *name, const char *connector,
				   const char *settings, bool enabled)
{
	RetlArgs	args = {0};
	RetlArgs	state = {0};
	int64		id;

	retl_arg_text(&args, name);
	retl_arg_datum(&args, REGROLEOID, ObjectIdGetDatum(call->caller), false);
	retl_arg_text(&args, connector);
	retl_arg_text(&args, settings);
	retl_arg_bool(&args, enabled);
	if (retl_sql("INSERT INTO retl.destination (name, owner, connector, settings, enabled)"
				 " VALUES ($1, $2, $3, $4::jsonb, $5)"
				 " ON CONFLICT DO NOTHING RETURNING id", &args) == 0)
		retl_api_exists(RETL_OBJECT_DESTINATION, name);
	id = retl_result_int8(0, 1);
	retl_arg_int8(&state, id);
	(void) retl_sql("INSERT INTO retl.destination_state (destination) VALUES ($1)", &state);
	return id;
}

/*
 * The default of "enabled" leaves a disabled destination disabled: running a
 * script of definitions again starts nothing.
 */
static void
replace_destination(const RetlObject *destination, const char *connector, const char *definition,
					const char *settings, bool enabled)
{
	RetlArgs	args = {0};
	char	   *before;

	retl_arg_int8(&args, destination->id);
	(void) retl_sql("SELECT connector, settings::text FROM retl.destination WHERE id = $1", &args);
	if (strcmp(retl_result_text(0, 1), connector) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the connector of destination \"%s\" cannot be changed", destination->name),
				 errdetail("It is \"%s\".", retl_result_text(0, 1)),
				 errhint("Create another destination under another name.")));
	before = retl_result_text(0, 2);

	retl_arg_text(&args, settings);
	(void) retl_sql("UPDATE retl.destination SET settings = $2::jsonb, altered_at = now() WHERE id = $1", &args);
	if (origin_changed(definition, before, settings))
	{
		int64		dropped = retl_api_secrets_drop(destination->id);

		if (dropped > 0)
			ereport(WARNING,
					(errmsg_plural("%lld secret of destination \"%s\" was dropped, because requests go elsewhere now",
								   "%lld secrets of destination \"%s\" were dropped, because requests go elsewhere now",
								   dropped, (long long) dropped, destination->name),
					 errhint("Set them for the new address with retl.set_secret().")));
	}
	if (!enabled)
	{
		(void) retl_api_set_enabled(destination, false);
		retl_api_stop_runs(RETL_OBJECT_DESTINATION, destination->id, "disabled");
	}
}

Datum
retl_create_destination(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *connector = retl_api_text(fcinfo, 1, "connector");
	char	   *settings = retl_api_jsonb(fcinfo, 2, "settings");
	char	   *secrets = retl_api_jsonb(fcinfo, 3, "secrets");
	bool		enabled = retl_api_bool(fcinfo, 4, "enabled");
	bool		or_replace = retl_api_bool(fcinfo, 5, "or_replace");
	ErrorContextCallback callback;
	RetlCall	call;
	RetlObject	destination;
	char	   *definition;

	/* whoever gives a secret where it does not belong has it in the statement */
	retl_api_secrets_hide(&callback);
	retl_api_check_name("destination", name);
	retl_api_begin(&call, false);
	definition = retl_connectors_get(connector);
	settings = retl_connector_settings(definition, settings);

	if (retl_api_find(RETL_OBJECT_DESTINATION, name, true, &destination))
	{
		if (!or_replace)
			retl_api_exists(RETL_OBJECT_DESTINATION, name);
		retl_api_require_owner(&call, &destination);
		replace_destination(&destination, connector, definition, settings, enabled);
	}
	else
		destination.id = insert_destination(&call, name, connector, settings, enabled);
	retl_api_secrets_refer(&call, destination.id, connector, definition, secrets);
	retl_arm_first();
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
	retl_api_end(&call);
	error_context_stack = callback.previous;
	PG_RETURN_INT64(destination.id);
}

/* --------------------------------------------------------------------------
 * alter_destination
 * -------------------------------------------------------------------------- */

static RetlJson *
parse_settings(const char *text)
{
	char	   *error;
	RetlJson   *settings = retl_json_parse(text, strlen(text), &error);

	if (settings == NULL || settings->type != RETL_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("settings must be a JSON object")));
	return settings;
}

static bool
is_reset(const RetlJsonMember *member, int nreset, char **reset)
{
	for (int i = 0; i < nreset; i++)
		if (strlen(reset[i]) == member->keylen && memcmp(reset[i], member->key, member->keylen) == 0)
			return true;
	return false;
}

/* What is there, without what is reset, and with what is given in place of it. */
static char *
merge_settings(const char *before, const char *given, int nreset, char **reset)
{
	RetlJson   *old = parse_settings(before);
	RetlJson   *new = parse_settings(given);
	RetlJson   *merged = retl_json_object();
	StringInfoData text;

	for (int i = 0; i < old->len; i++)
		if (!is_reset(&old->members[i], nreset, reset) &&
			retl_json_get(new, old->members[i].key, old->members[i].keylen) == NULL)
			retl_json_set(merged, old->members[i].key, old->members[i].keylen, old->members[i].value);
	for (int i = 0; i < new->len; i++)
		retl_json_set(merged, new->members[i].key, new->members[i].keylen, new->members[i].value);
	initStringInfo(&text);
	retl_json_write(&text, merged);
	return text.data;
}

static void
check_reset(const char *definition, const char *connector, const char *given, int nreset, char **reset)
{
	RetlJson   *declared = retl_connector_declared(retl_connector_parse(definition));
	RetlJson   *new = parse_settings(given);

	for (int i = 0; i < nreset; i++)
	{
		if (retl_json_member(declared, reset[i]) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be reset", reset[i]),
					 errhint("Of a destination, settings of its connector \"%s\" can be.", connector)));
		if (retl_json_member(new, reset[i]) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("setting \"%s\" is both given and reset", reset[i])));
	}
}

static void
alter_settings(const RetlObject *destination, const char *connector, const char *definition,
			   const char *given, int nreset, char **reset)
{
	RetlArgs	args = {0};
	char	   *settings;

	if (given == NULL)
		given = "{}";
	check_reset(definition, connector, given, nreset, reset);
	retl_arg_int8(&args, destination->id);
	(void) retl_sql("SELECT settings::text FROM retl.destination WHERE id = $1", &args);
	settings = merge_settings(retl_result_text(0, 1), given, nreset, reset);
	replace_destination(destination, connector, definition, retl_connector_settings(definition, settings), true);
}

static char *
connector_of(const RetlObject *destination)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, destination->id);
	(void) retl_sql("SELECT connector FROM retl.destination WHERE id = $1", &args);
	return retl_result_text(0, 1);
}

Datum
retl_alter_destination(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *settings = PG_ARGISNULL(1) ? NULL : retl_api_jsonb(fcinfo, 1, "settings");
	char	   *secrets = PG_ARGISNULL(2) ? NULL : retl_api_jsonb(fcinfo, 2, "secrets");
	Oid			owner = retl_api_new_owner(fcinfo, 3);
	int			nreset;
	char	  **reset = retl_api_text_array(fcinfo, 4, "reset", &nreset);
	ErrorContextCallback callback;
	RetlCall	call;
	RetlObject	destination;
	char	   *connector;
	char	   *definition;

	retl_api_secrets_hide(&callback);
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_DESTINATION, name, true, &destination);
	retl_api_require_owner(&call, &destination);
	if (settings == NULL && secrets == NULL && nreset == 0 && !OidIsValid(owner))
		retl_api_nothing_to_alter(&destination);

	connector = connector_of(&destination);
	definition = retl_connectors_get(connector);
	if (settings != NULL || nreset > 0)
		alter_settings(&destination, connector, definition, settings, nreset, reset);
	if (secrets != NULL)
		retl_api_secrets_refer(&call, destination.id, connector, definition, secrets);
	if (OidIsValid(owner))
		retl_api_set_owner(&destination, owner);
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
	retl_api_end(&call);
	error_context_stack = callback.previous;
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * enable_destination, disable_destination
 * -------------------------------------------------------------------------- */

static void
set_enabled(FunctionCallInfo fcinfo, bool enabled)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	RetlCall	call;
	RetlObject	destination;

	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_DESTINATION, name, false, &destination);
	retl_api_require_owner(&call, &destination);
	if (retl_api_set_enabled(&destination, enabled) && enabled)
	{
		retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
		retl_wake_at_commit(RETL_DELIVERY_WORKER);
	}
	if (!enabled)
		retl_api_stop_runs(RETL_OBJECT_DESTINATION, destination.id, "disabled");
	retl_api_end(&call);
}

Datum
retl_enable_destination(PG_FUNCTION_ARGS)
{
	set_enabled(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
retl_disable_destination(PG_FUNCTION_ARGS)
{
	set_enabled(fcinfo, false);
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * drop_destination
 * -------------------------------------------------------------------------- */

Datum
retl_drop_destination(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	bool		cascade = retl_api_bool(fcinfo, 1, "cascade");
	bool		if_exists = retl_api_bool(fcinfo, 2, "if_exists");
	RetlCall	call;
	RetlObject	destination;

	retl_api_begin(&call, false);
	if (if_exists && !retl_api_find(RETL_OBJECT_DESTINATION, name, false, &destination))
		ereport(NOTICE, (errmsg("destination \"%s\" does not exist, skipping", name)));
	else
	{
		RetlArgs	args = {0};

		retl_api_get(&call, RETL_OBJECT_DESTINATION, name, true, &destination);
		retl_api_require_owner(&call, &destination);
		retl_api_drop_mappings(&destination, cascade);
		retl_arg_int8(&args, destination.id);
		(void) retl_sql("DELETE FROM retl.destination WHERE id = $1", &args);
		retl_wake_at_commit(RETL_DELIVERY_WORKER);
	}
	retl_api_end(&call);
	PG_RETURN_VOID();
}
