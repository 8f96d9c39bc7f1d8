/*
 * roles.c
 *		The roles of the workers; see roles.h.
 *
 * A member could read every secret and every checkpoint, and a role that is a
 * member of another has rights that the separation of the two kinds denies
 * it. In PostgreSQL 15 whoever has CREATEROLE can bring that about, so it is
 * looked at before every start.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_auth_members.h"
#include "catalog/pg_authid.h"

#include "worker/roles.h"

static const char *const role_names[RETL_WORKER_KINDS] = {"retl_snapshot", "retl_delivery"};

static char *
wrong_attribute(Form_pg_authid role)
{
	const char *attribute =
		role->rolsuper ? "SUPERUSER" :
		role->rolcreaterole ? "CREATEROLE" :
		role->rolcreatedb ? "CREATEDB" :
		role->rolreplication ? "REPLICATION" :
		role->rolbypassrls ? "BYPASSRLS" :
		!role->rolcanlogin ? "NOLOGIN" : NULL;

	if (attribute == NULL)
		return NULL;
	return psprintf("role \"%s\" has attribute %s", NameStr(role->rolname), attribute);
}

char *
retl_roles_check(Oid roles[RETL_WORKER_KINDS])
{
	char	   *wrong = NULL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		roles[kind] = InvalidOid;

	/* Sequential scans: not every index of these is usable without a database. */
	rel = table_open(AuthIdRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_authid role = (Form_pg_authid) GETSTRUCT(tuple);

		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		{
			if (strcmp(NameStr(role->rolname), role_names[kind]) != 0)
				continue;
			roles[kind] = role->oid;
			if (wrong == NULL)
				wrong = wrong_attribute(role);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);

	rel = table_open(AuthMemRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (wrong == NULL && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_auth_members membership = (Form_pg_auth_members) GETSTRUCT(tuple);

		for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		{
			if (!OidIsValid(roles[kind]))
				continue;
			if (membership->roleid == roles[kind])
				wrong = psprintf("role \"%s\" has a member", role_names[kind]);
			else if (membership->member == roles[kind])
				wrong = psprintf("role \"%s\" is a member of another role", role_names[kind]);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return wrong;
}
