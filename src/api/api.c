/*
 * api.c
 *		What the SQL entry points share; see api.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "api/api.h"
#include "base/fault.h"
#include "base/nearest.h"
#include "base/shmem.h"
#include "base/sql.h"

/* Long enough for a sentence, short enough for an index and a screen. */
#define MAX_NAME_BYTES 200

/* Names offered in a hint, and names read to find the nearest one. */
#define MAX_CANDIDATES 1000

/* --------------------------------------------------------------------------
 * Arguments
 * -------------------------------------------------------------------------- */

static void
require_value(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

char *
retl_api_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	require_value(fcinfo, n, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

char *
retl_api_text_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

bool
retl_api_bool(FunctionCallInfo fcinfo, int n, const char *name)
{
	require_value(fcinfo, n, name);
	return PG_GETARG_BOOL(n);
}

int32
retl_api_int32(FunctionCallInfo fcinfo, int n, const char *name)
{
	require_value(fcinfo, n, name);
	return PG_GETARG_INT32(n);
}

int64
retl_api_int64(FunctionCallInfo fcinfo, int n, const char *name)
{
	require_value(fcinfo, n, name);
	return PG_GETARG_INT64(n);
}

char **
retl_api_text_array(FunctionCallInfo fcinfo, int n, const char *name, int *count)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	char	  **values;

	require_value(fcinfo, n, name);
	array = PG_GETARG_ARRAYTYPE_P(n);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("argument \"%s\" must be an array of one dimension", name)));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, count);
	values = palloc(sizeof(char *) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain nulls", name)));
		values[i] = TextDatumGetCString(elements[i]);
	}
	return values;
}

char *
retl_api_json(FunctionCallInfo fcinfo, int n, const char *name)
{
	/* json is stored as the text that it was given as */
	return retl_api_text(fcinfo, n, name);
}

char *
retl_api_jsonb(FunctionCallInfo fcinfo, int n, const char *name)
{
	Jsonb	   *value;

	require_value(fcinfo, n, name);
	value = PG_GETARG_JSONB_P(n);
	return JsonbToCString(NULL, &value->root, VARSIZE(value));
}

void
retl_api_check_name(const char *what, const char *name)
{
	bool		bad = name[0] == '\0' || strlen(name) > MAX_NAME_BYTES ||
		name[0] == ' ' || name[strlen(name) - 1] == ' ';

	for (const char *c = name; !bad && *c; c++)
		bad = (unsigned char) *c < ' ' || *c == 0x7f;
	if (bad)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name for a %s", what),
				 errhint("A name has 1 to %d bytes, no control characters, and no space at either end.",
						 MAX_NAME_BYTES)));
}

/* --------------------------------------------------------------------------
 * Calls
 * -------------------------------------------------------------------------- */

void
retl_api_begin(RetlCall *call, bool nonatomic)
{
	call->caller = GetUserId();
	if (SPI_connect_ext(nonatomic ? SPI_OPT_NONATOMIC : 0) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	retl_catalog_enter(&call->saved);
}

void
retl_api_end(RetlCall *call)
{
	RETL_FAULT("api_call_done");
	retl_catalog_leave(&call->saved);
	SPI_finish();
}

/* --------------------------------------------------------------------------
 * Objects
 * -------------------------------------------------------------------------- */

/* Table and view of each kind. */
static const struct
{
	const char *name;
	const char *view;
	const char *find;
	const char *lock;
	const char *names;
	const char *set_enabled;
	const char *set_owner;
}			kinds[] =
{
	[RETL_OBJECT_MODEL] = {
		"model", "retl.models",
		"SELECT id, owner::oid, enabled FROM retl.model WHERE name = $1",
		"SELECT id, owner::oid, enabled FROM retl.model WHERE name = $1 FOR NO KEY UPDATE",
		"SELECT name, owner::oid FROM retl.model ORDER BY name LIMIT $1",
		"UPDATE retl.model SET enabled = $2, altered_at = now() WHERE id = $1 AND enabled <> $2",
		"UPDATE retl.model SET owner = $2, altered_at = now() WHERE id = $1"
	},
	[RETL_OBJECT_DESTINATION] = {
		"destination", "retl.destinations",
		"SELECT id, owner::oid, enabled FROM retl.destination WHERE name = $1",
		"SELECT id, owner::oid, enabled FROM retl.destination WHERE name = $1 FOR NO KEY UPDATE",
		"SELECT name, owner::oid FROM retl.destination ORDER BY name LIMIT $1",
		"UPDATE retl.destination SET enabled = $2, altered_at = now() WHERE id = $1 AND enabled <> $2",
		"UPDATE retl.destination SET owner = $2, altered_at = now() WHERE id = $1"
	},
	[RETL_OBJECT_MAPPING] = {
		"mapping", "retl.mappings",
		"SELECT id, owner::oid, enabled FROM retl.mapping WHERE name = $1",
		"SELECT id, owner::oid, enabled FROM retl.mapping WHERE name = $1 FOR NO KEY UPDATE",
		"SELECT name, owner::oid FROM retl.mapping ORDER BY name LIMIT $1",
		"UPDATE retl.mapping SET enabled = $2, altered_at = now(),"
		" scheduled_since = CASE WHEN $2 THEN now() ELSE scheduled_since END WHERE id = $1 AND enabled <> $2",
		"UPDATE retl.mapping SET owner = $2, altered_at = now() WHERE id = $1"
	},
};

const char *
retl_api_kind(RetlObjectKind kind)
{
	return kinds[kind].name;
}

bool
retl_api_find(RetlObjectKind kind, const char *name, bool lock, RetlObject *object)
{
	RetlArgs	args = {0};

	retl_arg_text(&args, name);
	if (retl_sql(lock ? kinds[kind].lock : kinds[kind].find, &args) == 0)
		return false;
	object->kind = kind;
	object->id = retl_result_int8(0, 1);
	object->name = pstrdup(name);
	object->owner = retl_result_oid(0, 2);
	object->enabled = retl_result_bool(0, 3);
	return true;
}

void
retl_api_get(const RetlCall *call, RetlObjectKind kind, const char *name, bool lock,
			 RetlObject *object)
{
	RetlArgs	args = {0};
	int64		count;
	int			visible = 0;
	char	  **names;
	const char *nearest;

	if (retl_api_find(kind, name, lock, object))
		return;

	retl_arg_int8(&args, MAX_CANDIDATES);
	count = retl_sql_read(kinds[kind].names, &args);
	names = palloc(sizeof(char *) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
		if (retl_api_may(call, retl_result_oid(i, 2)))
			names[visible++] = retl_result_text(i, 1);
	nearest = retl_nearest(name, visible, (const char *const *) names);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" does not exist", kinds[kind].name, name),
			 nearest ?
			 errhint("Perhaps you meant \"%s\". View %s lists what there is.", nearest, kinds[kind].view) :
			 errhint("View %s lists what there is.", kinds[kind].view)));
}

bool
retl_api_may(const RetlCall *call, Oid owner)
{
	return has_privs_of_role(call->caller, owner);
}

void
retl_api_require_owner(const RetlCall *call, const RetlObject *object)
{
	char	   *owner;

	if (retl_api_may(call, object->owner))
		return;
	owner = GetUserNameFromId(object->owner, true);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of %s \"%s\"", kinds[object->kind].name, object->name),
			 owner ?
			 errhint("It belongs to role \"%s\": act as that role, or be granted its privileges.", owner) :
			 errhint("Its owner was dropped: a superuser must act.")));
}

void
retl_api_exists(RetlObjectKind kind, const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("%s \"%s\" already exists", kinds[kind].name, name),
			 errhint("Choose another name, or give or_replace => true to change the one there is.")));
}

void
retl_api_nothing_to_alter(const RetlObject *object)
{
	const char *kind = kinds[object->kind].name;

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("nothing to alter is given for %s \"%s\"", kind, object->name),
			 errhint("Give what is to change by name; \\df retl.alter_%s lists what can.", kind)));
}

Oid
retl_api_new_owner(FunctionCallInfo fcinfo, int n)
{
	Oid			owner;

	if (PG_ARGISNULL(n))
		return InvalidOid;
	owner = PG_GETARG_OID(n);
	if (GetUserNameFromId(owner, true) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
#if PG_VERSION_NUM >= 160000
	check_can_set_role(GetUserId(), owner);
#else
	check_is_member_of_role(GetUserId(), owner);
#endif
	return owner;
}

void
retl_api_set_owner(RetlObject *object, Oid owner)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, object->id);
	retl_arg_datum(&args, REGROLEOID, ObjectIdGetDatum(owner), false);
	(void) retl_sql(kinds[object->kind].set_owner, &args);
	object->owner = owner;
}

bool
retl_api_set_enabled(const RetlObject *object, bool enabled)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, object->id);
	retl_arg_bool(&args, enabled);
	return retl_sql(kinds[object->kind].set_enabled, &args) > 0;
}

/* --------------------------------------------------------------------------
 * Runs of mappings
 * -------------------------------------------------------------------------- */

void
retl_api_stop_runs(RetlObjectKind kind, int64 id, const char *reason)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, id);
	/* several: in the order in which mappings are dropped */
	if (kind == RETL_OBJECT_DESTINATION)
		(void) retl_sql("SELECT FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
						" WHERE m.destination = $1 AND r.finished_at IS NULL"
						" ORDER BY m.name, r.id FOR NO KEY UPDATE OF r", &args);
	retl_arg_text(&args, reason);
	(void) retl_sql(kind == RETL_OBJECT_MAPPING ?
					"UPDATE retl.run SET stop_reason = $2"
					" WHERE mapping = $1 AND finished_at IS NULL AND stop_reason IS NULL" :
					"UPDATE retl.run SET stop_reason = $2"
					" WHERE mapping IN (SELECT m.id FROM retl.mapping m WHERE m.destination = $1)"
					" AND finished_at IS NULL AND stop_reason IS NULL", &args);
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
}

/* --------------------------------------------------------------------------
 * Hints
 * -------------------------------------------------------------------------- */

char *
retl_api_list(int count, char **names, int limit)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < Min(count, limit); i++)
		appendStringInfo(&list, "%s\"%s\"", i ? ", " : "", names[i]);
	if (count > limit)
		appendStringInfoString(&list, ", ...");
	return list.data;
}
