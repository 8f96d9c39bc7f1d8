/*
 * rename.c
 *		rename_model, rename_destination, rename_mapping. Everything refers to an
 *		object by its number, so that a name is nothing but a name.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_rename_model);
PG_FUNCTION_INFO_V1(retl_rename_destination);
PG_FUNCTION_INFO_V1(retl_rename_mapping);

static const char *const statements[] = {
	[RETL_OBJECT_MODEL] = "UPDATE retl.model SET name = $2, altered_at = now() WHERE id = $1",
	[RETL_OBJECT_DESTINATION] = "UPDATE retl.destination SET name = $2, altered_at = now() WHERE id = $1",
	[RETL_OBJECT_MAPPING] = "UPDATE retl.mapping SET name = $2, altered_at = now() WHERE id = $1",
};

static void
rename_object(FunctionCallInfo fcinfo, RetlObjectKind kind)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	char	   *new_name = retl_api_text(fcinfo, 1, "new_name");
	RetlArgs	args = {0};
	RetlCall	call;
	RetlObject	object;
	RetlObject	other;

	retl_api_check_name(retl_api_kind(kind), new_name);
	retl_api_begin(&call, false);
	retl_api_get(&call, kind, name, true, &object);
	retl_api_require_owner(&call, &object);
	if (retl_api_find(kind, new_name, false, &other))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s \"%s\" already exists", retl_api_kind(kind), new_name),
				 errhint("Choose another name.")));
	retl_arg_int8(&args, object.id);
	retl_arg_text(&args, new_name);
	(void) retl_sql(statements[kind], &args);
	retl_api_end(&call);
}

Datum
retl_rename_model(PG_FUNCTION_ARGS)
{
	rename_object(fcinfo, RETL_OBJECT_MODEL);
	PG_RETURN_VOID();
}

Datum
retl_rename_destination(PG_FUNCTION_ARGS)
{
	rename_object(fcinfo, RETL_OBJECT_DESTINATION);
	PG_RETURN_VOID();
}

Datum
retl_rename_mapping(PG_FUNCTION_ARGS)
{
	rename_object(fcinfo, RETL_OBJECT_MAPPING);
	PG_RETURN_VOID();
}
