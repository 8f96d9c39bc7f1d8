/*
 * alter_mapping.c
 *		alter_mapping, copy_mapping.
 *
 * Both begin with the newest version of a mapping and end with a definition
 * that is checked whole, as that of a new mapping is.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "api/parts.h"
#include "base/shmem.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_alter_mapping);
PG_FUNCTION_INFO_V1(retl_copy_mapping);

/* Order of the arguments of alter_mapping. */
enum
{
	ARG_NAME,
	ARG_FIELDS,
	ARG_RECORDS,
	ARG_FILTER,
	ARG_SCHEDULE,
	ARG_BATCH_SIZE,
	ARG_UPDATE_WHEN,
	ARG_MAX_DELETE_PERCENT,
	ARG_MAX_CHANGE_PERCENT,
	ARG_BRAKE_MIN_ROWS,
	ARG_ALLOW_EMPTY,
	ARG_MAX_ATTEMPTS,
	ARG_MAX_AGE,
	ARG_OWNER,
	ARG_RESEND,
	ARG_RESET,
	ARG_MODEL,
	ARG_DESTINATION,
	ARG_ACTION
};

/* --------------------------------------------------------------------------
 * alter_mapping
 * -------------------------------------------------------------------------- */

/* What a mapping is of cannot change: its state is that of one model at one destination. */
static void
refuse_parents(FunctionCallInfo fcinfo, const char *name)
{
	static const char *const parents[] = {"model", "destination", "action"};

	for (int i = 0; i < lengthof(parents); i++)
		if (!PG_ARGISNULL(ARG_MODEL + i))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the %s of mapping \"%s\" cannot be changed", parents[i], name),
					 errhint("Make another mapping of it with retl.copy_mapping().")));
}

static const char *
resend_argument(FunctionCallInfo fcinfo)
{
	static const char *const values[] = {"none", "changed", "all"};
	char	   *given = retl_api_text(fcinfo, ARG_RESEND, "resend");

	for (int i = 0; i < lengthof(values); i++)
		if (strcmp(given, values[i]) == 0)
			return values[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("resend cannot be \"%s\"", given),
			 errhint("It is none; changed: rows of which something else is sent now than before; or all.")));
}

/* Clears what can be NULL; the number of attributes. */
static int
reset(FunctionCallInfo fcinfo, RetlParts *def)
{
	static const struct
	{
		const char *name;
		int			argument;
	}			clearable[] = {
		{"filter", ARG_FILTER},
		{"batch_size", ARG_BATCH_SIZE},
		{"max_attempts", ARG_MAX_ATTEMPTS},
		{"max_age", ARG_MAX_AGE},
	};
	int			count;
	char	  **names = retl_api_text_array(fcinfo, ARG_RESET, "reset", &count);

	for (int i = 0; i < count; i++)
	{
		int			n;

		for (n = 0; n < lengthof(clearable); n++)
			if (strcmp(names[i], clearable[n].name) == 0)
				break;
		if (n == lengthof(clearable))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be reset", names[i]),
					 errhint("Of a mapping, filter, batch_size, max_attempts and max_age can be.")));
		if (!PG_ARGISNULL(clearable[n].argument))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is both given and reset", names[i])));
		switch (clearable[n].argument)
		{
			case ARG_FILTER:
				def->filter = NULL;
				break;
			case ARG_BATCH_SIZE:
				def->batch_size = 0;
				break;
			case ARG_MAX_ATTEMPTS:
				def->max_attempts = 0;
				break;
			default:
				def->max_age = NULL;
				break;
		}
	}
	return count;
}

/* Puts what is given in place of what is there; how much that was. */
static int
overlay(FunctionCallInfo fcinfo, RetlParts *def)
{
	int			given = 0;

#define GIVEN(n) (!PG_ARGISNULL(n) && ++given)
	if (GIVEN(ARG_FIELDS))
		def->fields = retl_api_json(fcinfo, ARG_FIELDS, "fields");
	if (GIVEN(ARG_RECORDS))
		def->records = retl_api_text_array(fcinfo, ARG_RECORDS, "records", &def->nrecords);
	if (GIVEN(ARG_FILTER))
		def->filter = retl_api_text(fcinfo, ARG_FILTER, "filter");
	if (GIVEN(ARG_SCHEDULE))
		def->schedule = retl_api_text(fcinfo, ARG_SCHEDULE, "schedule");
	if (GIVEN(ARG_BATCH_SIZE))
		def->batch_size = PG_GETARG_INT32(ARG_BATCH_SIZE) > 0 ? PG_GETARG_INT32(ARG_BATCH_SIZE) : -1;
	if (GIVEN(ARG_UPDATE_WHEN))
	{
		def->update_when = retl_api_text(fcinfo, ARG_UPDATE_WHEN, "update_when");
		def->update_when_stored = false;
	}
	if (GIVEN(ARG_MAX_DELETE_PERCENT))
		def->max_delete_percent = PG_GETARG_DATUM(ARG_MAX_DELETE_PERCENT);
	if (GIVEN(ARG_MAX_CHANGE_PERCENT))
		def->max_change_percent = PG_GETARG_DATUM(ARG_MAX_CHANGE_PERCENT);
	if (GIVEN(ARG_BRAKE_MIN_ROWS))
		def->brake_min_rows = PG_GETARG_INT32(ARG_BRAKE_MIN_ROWS);
	if (GIVEN(ARG_ALLOW_EMPTY))
		def->allow_empty = PG_GETARG_BOOL(ARG_ALLOW_EMPTY);
	if (GIVEN(ARG_MAX_ATTEMPTS))
		def->max_attempts = PG_GETARG_INT32(ARG_MAX_ATTEMPTS) > 0 ? PG_GETARG_INT32(ARG_MAX_ATTEMPTS) : -1;
	if (GIVEN(ARG_MAX_AGE))
		def->max_age = PG_GETARG_INTERVAL_P(ARG_MAX_AGE);
#undef GIVEN
	return given + reset(fcinfo, def);
}

/* The role that is to own the mapping must be able to use what it is made of. */
static void
check_owner(const RetlParts *def, Oid owner)
{
	const RetlObject *parents[] = {&def->model, &def->destination};

	for (int i = 0; i < lengthof(parents); i++)
		if (!has_privs_of_role(owner, parents[i]->owner))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\" does not have the privileges of the owner of %s \"%s\"",
							GetUserNameFromId(owner, false), retl_api_kind(parents[i]->kind), parents[i]->name),
					 errhint("A mapping's owner needs the privileges of the owners of its model and its destination.")));
}

Datum
retl_alter_mapping(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, ARG_NAME, "name");
	const char *resend = resend_argument(fcinfo);
	Oid			owner = retl_api_new_owner(fcinfo, ARG_OWNER);
	RetlCall	call;
	RetlObject	mapping;
	RetlParts def;
	int			changes;

	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, true, &mapping);
	retl_api_require_owner(&call, &mapping);
	refuse_parents(fcinfo, name);
	retl_parts_load(mapping.id, &def);
	changes = overlay(fcinfo, &def);
	def.resend = resend;
	if (changes == 0 && strcmp(resend, "none") == 0 && !OidIsValid(owner))
		retl_api_nothing_to_alter(&mapping);

	if (OidIsValid(owner))
	{
		check_owner(&def, owner);
		retl_api_set_owner(&mapping, owner);
	}
	retl_parts_check(&def);
	retl_parts_replace(&def, mapping.id, call.caller);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_api_end(&call);
	PG_RETURN_VOID();
}

/* --------------------------------------------------------------------------
 * copy_mapping
 * -------------------------------------------------------------------------- */

Datum
retl_copy_mapping(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *new_name = retl_api_text(fcinfo, 1, "new_name");
	char	   *model = retl_api_text_or_null(fcinfo, 2);
	char	   *destination = retl_api_text_or_null(fcinfo, 3);
	RetlCall	call;
	RetlObject	mapping;
	RetlParts def;
	int64		id;

	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);
	retl_parts_load(mapping.id, &def);
	def.name = new_name;
	retl_parts_use(&call, RETL_OBJECT_MODEL, model ? model : def.model.name, &def.model);
	retl_parts_use(&call, RETL_OBJECT_DESTINATION, destination ? destination : def.destination.name,
						&def.destination);
	retl_parts_check(&def);
	id = retl_parts_insert(&def, call.caller);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_api_end(&call);
	PG_RETURN_INT64(id);
}
