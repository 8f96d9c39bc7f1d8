/*
 * managed.c
 *		set_managed: which objects are kept up to date by something that is no
 *		person. It alters nothing about what an object does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "api/api.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_set_managed);

static const char *const statements[] = {
	[RETL_OBJECT_MODEL] = "UPDATE retl.model SET managed_by = $2 WHERE id = $1",
	[RETL_OBJECT_DESTINATION] = "UPDATE retl.destination SET managed_by = $2 WHERE id = $1",
	[RETL_OBJECT_MAPPING] = "UPDATE retl.mapping SET managed_by = $2 WHERE id = $1",
};

static RetlObjectKind
kind_argument(const char *given)
{
	for (int kind = 0; kind < lengthof(statements); kind++)
		if (strcmp(given, retl_api_kind(kind)) == 0)
			return kind;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is no kind of object", given),
			 errhint("It is model, destination or mapping.")));
}

Datum
retl_set_managed(PG_FUNCTION_ARGS)
{
	RetlObjectKind kind = kind_argument(retl_api_text(fcinfo, 0, "kind"));
	char	   *name = retl_api_text(fcinfo, 1, "name");
	bool		clear = PG_ARGISNULL(2);
	RetlArgs	args = {0};
	RetlCall	call;
	RetlObject	object;

	if (!clear && !JB_ROOT_IS_OBJECT(PG_GETARG_JSONB_P(2)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("managed_by must be a JSON object")));
	retl_api_begin(&call, false);
	retl_api_get(&call, kind, name, true, &object);
	retl_api_require_owner(&call, &object);
	retl_arg_int8(&args, object.id);
	retl_arg_datum(&args, JSONBOID, clear ? (Datum) 0 : PG_GETARG_DATUM(2), clear);
	(void) retl_sql(statements[kind], &args);
	retl_api_end(&call);
	PG_RETURN_VOID();
}
