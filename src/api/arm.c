/*
 * arm.c
 *		arm: says that this database, on this host, is the one that delivers.
 *
 * A database is armed by its first destination. A copy of it has the row of
 * the original, which does not fit it, until somebody calls arm() there.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "api/arm.h"
#include "base/instance.h"
#include "base/shmem.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_arm);

/* $1 system identifier, $2 database, $3 hosts */
static void
identity_arguments(RetlArgs *args, int nalso, char **also)
{
	char	   *host = retl_instance_host_identity();
	Datum	   *hosts = palloc(sizeof(Datum) * (nalso + 1));

	hosts[0] = CStringGetTextDatum(host);
	for (int i = 0; i < nalso; i++)
		hosts[i + 1] = CStringGetTextDatum(also[i]);
	args->count = 0;
	retl_arg_int8(args, (int64) GetSystemIdentifier());
	retl_arg_datum(args, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	retl_arg_datum(args, TEXTARRAYOID,
				   PointerGetDatum(construct_array(hosts, nalso + 1, TEXTOID, -1, false, TYPALIGN_INT)), false);
}

void
retl_arm_first(void)
{
	RetlArgs	args;

	if (retl_sql("SELECT FROM retl.instance", NULL) > 0)
		return;
	identity_arguments(&args, 0, NULL);
	(void) retl_sql("INSERT INTO retl.instance (id, system_identifier, database, hosts)"
					" VALUES (gen_random_uuid(), $1, $2, $3) ON CONFLICT DO NOTHING", &args);
}

Datum
retl_arm(PG_FUNCTION_ARGS)
{
	int			nalso;
	char	  **also = retl_api_text_array(fcinfo, 0, "also", &nalso);
	RetlArgs	args;
	RetlCall	call;

	for (int i = 0; i < nalso; i++)
		if (also[i][0] == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the identity of a host must not be empty"),
					 errhint("It is what retl.host_identity is set to on that host.")));

	retl_api_begin(&call, false);
	/* inside a call the current user is the extension's owner */
	if (!has_privs_of_role(call.caller, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to arm this database"),
				 errhint("The extension's owner or a superuser decides which copy of a database delivers.")));

	identity_arguments(&args, nalso, also);
	if (retl_sql("UPDATE retl.instance SET hosts = $3, armed_at = now()"
				 " WHERE system_identifier = $1 AND database = $2 AND hosts && $3[1:1]", &args) == 0)
	{
		/*
		 * Armed for another: this is a copy. Its requests get keys of their own,
		 * and what was planned before it was made is not sent by it.
		 */
		if (retl_sql("UPDATE retl.instance SET id = gen_random_uuid(), system_identifier = $1, database = $2,"
					 " hosts = $3, armed_at = now()", &args) > 0)
		{
			int64		stopped;

			/* the original may have sent it since */
			(void) retl_sql("INSERT INTO retl.sending (under_way, unsure_to)"
							" VALUES (false, (SELECT max(id) FROM retl.batch)) ON CONFLICT (one) DO UPDATE"
							" SET under_way = false, unsure_to = excluded.unsure_to", NULL);
			stopped = retl_sql("UPDATE retl.run SET stop_reason = 'copied'"
										   " WHERE finished_at IS NULL AND stop_reason IS NULL", NULL);

			ereport(NOTICE,
					(errmsg("this database was armed as another one and has a new identity now"),
					 stopped > 0 ?
					 errdetail_plural("%lld run planned before is canceled; what it had not delivered is synced by the next run.",
									  "%lld runs planned before are canceled; what they had not delivered is synced by the next runs.",
									  stopped, (long long) stopped) : 0));
		}
		else
			(void) retl_sql("INSERT INTO retl.instance (id, system_identifier, database, hosts)"
							" VALUES (gen_random_uuid(), $1, $2, $3)", &args);
	}
	retl_wake_at_commit(RETL_SNAPSHOT_WORKER);
	retl_wake_at_commit(RETL_DELIVERY_WORKER);
	retl_api_end(&call);
	PG_RETURN_VOID();
}
