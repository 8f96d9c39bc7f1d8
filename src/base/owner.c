/*
 * owner.c
 *		The two switches of identity; see owner.h.
 *
 * SECURITY_RESTRICTED_OPERATION is what keeps a function in a view from
 * planting a deferred trigger, a temporary table or a prepared statement that
 * would outlive the switch; SECURITY_LOCAL_USERID_CHANGE keeps it from RESET
 * ROLE. transaction_read_only inside the GUC nest level refuses writes, as a
 * model must not have any.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "base/owner.h"

#define SAFE_SEARCH_PATH "pg_catalog, pg_temp"

/* What the text form of a value depends on; a stored row must not. */
static const char *const pinned_settings[][2] = {
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"lc_monetary", "C"},
	{"row_security", "on"},
	{"check_function_bodies", "on"},
};

void
retl_set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
retl_pin_settings(void)
{
	for (int i = 0; i < lengthof(pinned_settings); i++)
		retl_set_local(pinned_settings[i][0], pinned_settings[i][1]);
}

static void
save(RetlIdentity *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	saved->guc_level = NewGUCNestLevel();
}

static void
restore(const RetlIdentity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}

void
retl_owner_enter(RetlIdentity *saved, Oid role, const char *search_path)
{
	/* a role that is gone would still have what PUBLIC has */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u, which owns the model, does not exist", role),
				 errhint("It was dropped. Drop the model, or have a superuser give it another owner.")));
	save(saved);
	retl_set_local("search_path", search_path ? search_path : SAFE_SEARCH_PATH);
	retl_pin_settings();
	/* Not by retl_set_local(): 16 and later refuse GUC_ACTION_SAVE here. restore() undoes both. */
	(void) set_config_option("transaction_read_only", "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	SetUserIdAndSecContext(role, saved->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

void
retl_owner_leave(const RetlIdentity *saved)
{
	restore(saved);
}

/* The extension's owner, read afresh: ALTER ... OWNER is not possible, REASSIGN OWNED is. */
static Oid
extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("retl"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"retl\" does not exist in this database"),
				 errhint("Run CREATE EXTENSION retl.")));
	return owner;
}

void
retl_catalog_enter(RetlIdentity *saved)
{
	Oid			owner = extension_owner();

	save(saved);
	retl_set_local("search_path", SAFE_SEARCH_PATH);
	SetUserIdAndSecContext(owner, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
retl_catalog_leave(const RetlIdentity *saved)
{
	restore(saved);
}
