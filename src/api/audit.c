/*
 * audit.c
 *		The trail of changes to what users configure: a trigger on each table of
 *		definitions writes who changed what, without secrets, into retl.audit.
 *
 * A row that is inserted by hand is not recorded: that is how a dump is
 * restored, which brings the trail along. What is changed or deleted by hand
 * is.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/owner.h"
#include "base/sql.h"

PG_FUNCTION_INFO_V1(retl_audit_change);

/* "new" and "old" are the row as jsonb, NULL where there is none; "row" is what there is of them. */
#define NAME_OF(table, member) \
	"(SELECT o.name FROM " table " o WHERE o.id = (q.row ->> '" member "')::pg_catalog.int8)"

static const struct
{
	const char *table;
	const char *kind;
	const char *name;			/* SQL; where it is NULL the change is part of another that is recorded */
	const char *owner;			/* SQL */
	const char *action;			/* SQL, or NULL: by the operation */
	const char *hidden;			/* members that are not shown */
}			tables[] =
{
	{"model", "model", "q.row ->> 'name'", "q.row ->> 'owner'", NULL, "{altered_at,created_at}"},
	{"destination", "destination", "q.row ->> 'name'", "q.row ->> 'owner'", NULL, "{altered_at,created_at}"},
	/* its versions say what it sends */
	{"mapping", "mapping", "q.row ->> 'name'", "q.row ->> 'owner'", NULL, "{altered_at,created_at,version,scheduled_since}"},
	{"mapping_version", "mapping", NAME_OF("retl.mapping", "mapping"),
		"(SELECT m.owner::pg_catalog.text FROM retl.mapping m WHERE m.id = (q.row ->> 'mapping')::pg_catalog.int8)",
	"'send'", "{created_at,created_by,mapping}"},
	{"secret", "secret",
		"(SELECT d.name || '/' || (q.row ->> 'name') FROM retl.destination d WHERE d.id = (q.row ->> 'destination')::pg_catalog.int8)",
		"(SELECT d.owner::pg_catalog.text FROM retl.destination d WHERE d.id = (q.row ->> 'destination')::pg_catalog.int8)",
	"CASE WHEN q.new IS NULL THEN 'drop' ELSE 'set' END", "{altered_at,value,reference,destination,name}"},
	{"connector", "connector", "q.row ->> 'name'", "NULL::pg_catalog.text", NULL, "{}"},
	{"instance", "instance", "q.row ->> 'id'", "NULL::pg_catalog.text", "'arm'", "{one,armed_at}"},
};

/* As session code of ours, or as a foreign key's action. */
static bool
by_function(void)
{
	Oid			userid;
	int			sec_context;

	GetUserIdAndSecContext(&userid, &sec_context);
	return (sec_context & SECURITY_LOCAL_USERID_CHANGE) != 0;
}

static void
arg_row(RetlArgs *args, HeapTuple tuple, Relation rel)
{
	if (tuple == NULL)
		retl_arg_null(args, rel->rd_rel->reltype);
	else
		retl_arg_datum(args, rel->rd_rel->reltype, heap_copy_tuple_as_datum(tuple, RelationGetDescr(rel)), false);
}

Datum
retl_audit_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	old = NULL;
	HeapTuple	new = NULL;
	RetlArgs	args = {0};
	RetlIdentity saved;
	const char *table;
	int			i;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("retl.audit_change is called by triggers alone")));
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		if (!by_function())
			return PointerGetDatum(NULL);
		new = trigger->tg_trigtuple;
	}
	else
	{
		old = trigger->tg_trigtuple;
		if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
			new = trigger->tg_newtuple;
	}
	table = RelationGetRelationName(trigger->tg_relation);
	for (i = 0; strcmp(tables[i].table, table) != 0; i++)
		if (i + 1 == lengthof(tables))
			elog(ERROR, "nothing is known of changes to table \"%s\"", table);

	SPI_connect();
	retl_catalog_enter(&saved);
	arg_row(&args, new, trigger->tg_relation);
	arg_row(&args, old, trigger->tg_relation);
	/* SET ROLE, but not what a function runs as */
	retl_arg_datum(&args, OIDOID, ObjectIdGetDatum(GetSessionUserId()), false);
	retl_arg_datum(&args, OIDOID, ObjectIdGetDatum(GetOuterUserId()), false);
	retl_arg_text(&args, tables[i].kind);
	retl_arg_text(&args, tables[i].hidden);
	(void) retl_sql(
		psprintf("INSERT INTO retl.audit (session_role, role, kind, action, name, owner, detail)"
				 " SELECT pg_catalog.pg_get_userbyid($3), pg_catalog.pg_get_userbyid($4), $5, t.action, t.name, t.owner::pg_catalog.regrole, t.detail"
				 " FROM (SELECT %s AS action, %s AS name, %s AS owner,"
				 "   (SELECT pg_catalog.jsonb_object_agg(key, CASE WHEN q.new IS NULL OR q.old IS NULL THEN COALESCE(n.value, o.value)"
				 "      ELSE pg_catalog.jsonb_build_object('old', o.value, 'new', n.value) END)"
				 "     FROM pg_catalog.jsonb_each(q.new) n FULL JOIN pg_catalog.jsonb_each(q.old) o USING (key)"
				 "    WHERE n.value IS DISTINCT FROM o.value AND key <> ALL ($6::pg_catalog.text[])) AS detail"
				 "  FROM (SELECT r.new, r.old, COALESCE(r.new, r.old) AS row"
				 "    FROM (SELECT pg_catalog.to_jsonb($1) AS new, pg_catalog.to_jsonb($2) AS old) r) q) t"
				 " WHERE t.name IS NOT NULL AND (t.action <> 'alter' OR t.detail IS NOT NULL)",
				 tables[i].action ? tables[i].action :
				 "CASE WHEN q.old IS NULL THEN 'create' WHEN q.new IS NULL THEN 'drop'"
				 " WHEN q.new ->> 'enabled' <> q.old ->> 'enabled' THEN CASE q.new ->> 'enabled' WHEN 'true' THEN 'enable' ELSE 'disable' END"
				 " ELSE 'alter' END",
				 tables[i].name, tables[i].owner), &args);
	retl_catalog_leave(&saved);
	SPI_finish();
	return PointerGetDatum(NULL);
}
