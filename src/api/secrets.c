/*
 * secrets.c
 *		set_secret, and references to secrets; see secrets.h.
 *
 * PostgreSQL logs statements and their parameters in many ways, and a secret
 * is in one of the two. What can be hidden from here is: the statement of an
 * error. Where the statement would be logged all the same, set_secret refuses.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "api/api.h"
#include "api/secrets.h"
#include "base/json.h"
#include "base/nearest.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "map/connector.h"

PG_FUNCTION_INFO_V1(retl_set_secret);

/* --------------------------------------------------------------------------
 * Hiding
 * -------------------------------------------------------------------------- */

static void
hide_callback(void *arg)
{
	errhidestmt(true);
	errhidecontext(true);
}

void
retl_api_secrets_hide(ErrorContextCallback *callback)
{
	callback->callback = hide_callback;
	callback->arg = NULL;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

/* The setting that would put the caller's statement into the log, or NULL. */
static const char *
logging_setting(void)
{
	const char *auto_explain = GetConfigOption("auto_explain.log_min_duration", true, false);

	if (log_statement == LOGSTMT_ALL)
		return "log_statement";
	if (log_min_duration_statement == 0)
		return "log_min_duration_statement";
	if (log_min_duration_sample == 0 && log_statement_sample_rate > 0)
		return "log_min_duration_sample";
	if (xact_is_sampled)
		return "log_transaction_sample_rate";
	if (Debug_print_parse)
		return "debug_print_parse";
	if (Debug_print_rewritten)
		return "debug_print_rewritten";
	if (Debug_print_plan)
		return "debug_print_plan";
	if (auto_explain != NULL && strtol(auto_explain, NULL, 10) == 0)
		return "auto_explain.log_min_duration";
	return NULL;
}

static void
refuse_logged(void)
{
	const char *setting = logging_setting();

	if (setting == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a secret cannot be set while %s puts statements into the server's log", setting),
			 errdetail("What this call gave as the secret may be in the log already."),
			 errhint("Switch %s off for this transaction (SET LOCAL, as a superuser), or let the secret be read from a file: create_destination(secrets => '{\"name\": {\"file\": \"/path\"}}').",
					 setting)));
}

/* --------------------------------------------------------------------------
 * Names
 * -------------------------------------------------------------------------- */

static void
require_secret_name(const char *connector, const char *definition, const char *name)
{
	int			count;
	char	  **names = retl_connector_secrets(definition, &count);
	const char *nearest;

	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return;
	nearest = retl_nearest(name, count, (const char *const *) names);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("connector \"%s\" has no secret \"%s\"", connector, name),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) :
			 count == 0 ? errhint("It has no secrets at all.") :
			 errhint("Its secrets are %s.", retl_api_list(count, names, count))));
}

/* --------------------------------------------------------------------------
 * set_secret
 * -------------------------------------------------------------------------- */

Datum
retl_set_secret(PG_FUNCTION_ARGS)
{
	ErrorContextCallback callback;
	char	   *destination_name;
	char	   *name;
	char	   *value;
	RetlCall	call;
	RetlObject	destination;
	RetlArgs	args = {0};
	char	   *connector;
	char	   *definition;

	retl_api_secrets_hide(&callback);
	destination_name = retl_api_text(fcinfo, 0, "destination");
	name = retl_api_text(fcinfo, 1, "name");
	value = retl_api_text_or_null(fcinfo, 2);
	if (value != NULL)
		refuse_logged();
	if (value != NULL && value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a secret must not be empty"),
				 errhint("NULL removes it.")));

	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_DESTINATION, destination_name, false, &destination);
	retl_api_require_owner(&call, &destination);
	retl_arg_int8(&args, destination.id);
	(void) retl_sql("SELECT c.name, c.definition::text FROM retl.destination d"
					" JOIN retl.connector c ON c.name = d.connector WHERE d.id = $1", &args);
	connector = retl_result_text(0, 1);
	definition = retl_result_text(0, 2);
	require_secret_name(connector, definition, name);

	retl_arg_text(&args, name);
	if (value == NULL)
	{
		if (retl_sql("DELETE FROM retl.secret WHERE destination = $1 AND name = $2", &args) == 0)
			ereport(NOTICE, (errmsg("secret \"%s\" of destination \"%s\" is not set", name, destination_name)));
	}
	else
	{
		retl_arg_text(&args, value);
		(void) retl_sql("INSERT INTO retl.secret (destination, name, value) VALUES ($1, $2, $3)"
						" ON CONFLICT (destination, name) DO UPDATE"
						" SET value = excluded.value, reference = NULL, altered_at = now()", &args);
		explicit_bzero(value, strlen(value));
	}
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
	retl_api_end(&call);
	error_context_stack = callback.previous;
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * References
 * -------------------------------------------------------------------------- */

static void
refuse_reference(const char *name, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("secret \"%s\" is not given by a reference: %s", name, why),
			 errhint("Give {\"file\": \"/absolute/path\"} or {\"env\": \"VARIABLE\"}; set a value with retl.set_secret().")));
}

static void
check_file(const char *name, const char *given)
{
	char		path[MAXPGPATH];

	if (!is_absolute_path(given) || strlcpy(path, given, sizeof(path)) >= sizeof(path))
		refuse_reference(name, "its path is not absolute");
	canonicalize_path(path);
	if (path_is_prefix_of_path(DataDir, path))
		refuse_reference(name, "its path is inside the data directory");
}

static void
check_variable(const char *name, const char *given)
{
	bool		good = given[0] != '\0' && !(given[0] >= '0' && given[0] <= '9');

	for (const char *c = given; good && *c; c++)
		good = *c == '_' || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
	if (!good)
		refuse_reference(name, "that is no name of an environment variable");
}

/*
 * The delivery worker reads the reference with the server's rights. Who may
 * read the server's files may: they show the environment, too.
 */
static void
require_server_files(const RetlCall *call)
{
	if (has_privs_of_role(call->caller, ROLE_PG_READ_SERVER_FILES))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to refer to files or environment variables of the server"),
			 errhint("Only roles with privileges of \"pg_read_server_files\" may. Set the secret with retl.set_secret() instead.")));
}

void
retl_api_secrets_refer(const RetlCall *call, int64 destination, const char *connector,
				   const char *definition, const char *secrets)
{
	char	   *error;
	RetlJson   *given = retl_json_parse(secrets, strlen(secrets), &error);

	if (given == NULL || given->type != RETL_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("secrets must be a JSON object"),
				 errhint("Give {\"name\": {\"file\": \"/absolute/path\"}} or {\"name\": {\"env\": \"VARIABLE\"}}.")));

	for (int i = 0; i < given->len; i++)
	{
		const char *name = pnstrdup(given->members[i].key, given->members[i].keylen);
		RetlJson   *reference = given->members[i].value;
		RetlJson   *file = retl_json_member(reference, "file");
		RetlJson   *env = retl_json_member(reference, "env");
		RetlJson   *target = file ? file : env;
		StringInfoData stored;
		RetlArgs	args = {0};

		require_secret_name(connector, definition, name);
		if (target == NULL || reference->len != 1 || target->type != RETL_JSON_STRING)
			refuse_reference(name, "it is no object of one such member");
		if (file != NULL)
			check_file(name, retl_json_cstring(file));
		else
			check_variable(name, retl_json_cstring(env));
		require_server_files(call);

		initStringInfo(&stored);
		retl_json_write(&stored, reference);
		retl_arg_int8(&args, destination);
		retl_arg_text(&args, name);
		retl_arg_text(&args, stored.data);
		(void) retl_sql("INSERT INTO retl.secret (destination, name, reference) VALUES ($1, $2, $3::jsonb)"
						" ON CONFLICT (destination, name) DO UPDATE"
						" SET value = NULL, reference = excluded.reference, altered_at = now()", &args);
	}
}

int64
retl_api_secrets_drop(int64 destination)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, destination);
	return retl_sql("DELETE FROM retl.secret WHERE destination = $1", &args);
}
