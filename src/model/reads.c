/*
 * reads.c
 *		What a model depends on; see reads.h.
 *
 * What is not understood is refused: a model that is executed once too often
 * costs time, one that is not executed loses a change.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/tupdesc.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "base/sql.h"
#include "base/writes.h"
#include "model/reads.h"

typedef struct Examine
{
	RetlReads  *reads;
	StringInfoData facts;		/* of types and functions */
	List	   *types;			/* OIDs seen */
	List	   *functions;
} Examine;

/*
 * PostgreSQL's functions that are marked stable for what they take from
 * settings that are pinned while a model runs (base/owner.c), or that are
 * among the facts. Not here: whatever tells the time or reads the catalogs,
 * and input of dates and times, to which 'now' is a value.
 */
static const char *const steady_functions[] = {
	"anytextcat", "array_in", "array_out", "array_to_json", "array_to_string",
	"bpcharrecv", "cash_in", "cash_out", "concat", "concat_ws", "convert", "convert_from", "convert_to",
	"date", "date_cmp_timestamptz", "date_eq_timestamptz", "date_ge_timestamptz", "date_gt_timestamptz",
	"date_le_timestamptz", "date_lt_timestamptz", "date_ne_timestamptz", "date_out", "date_part", "date_trunc",
	"domain_in", "enum_first", "enum_in", "enum_last", "enum_out", "enum_range", "extract", "format",
	"generate_series", "getdatabaseencoding", "interval_in", "interval_out", "interval_pl_timestamptz",
	"json_agg", "json_agg_finalfn", "json_agg_transfn", "json_build_array", "json_build_object",
	"json_object_agg", "json_object_agg_transfn", "jsonb_agg", "jsonb_agg_finalfn", "jsonb_agg_transfn",
	"jsonb_build_array", "jsonb_build_object", "jsonb_object_agg", "jsonb_object_agg_finalfn",
	"jsonb_object_agg_transfn", "length", "make_timestamptz", "money", "multirange_in", "multirange_out",
	"numeric", "overlaps", "quote_literal", "quote_nullable", "range_in", "range_out", "record_in", "record_out",
	"row_to_json", "textanycat", "timestamp", "timestamp_cmp_timestamptz", "timestamp_eq_timestamptz",
	"timestamp_ge_timestamptz", "timestamp_gt_timestamptz", "timestamp_le_timestamptz",
	"timestamp_lt_timestamptz", "timestamp_ne_timestamptz", "timestamp_out", "timestamptz",
	"timestamptz_cmp_date", "timestamptz_cmp_timestamp", "timestamptz_eq_date", "timestamptz_eq_timestamp",
	"timestamptz_ge_date", "timestamptz_ge_timestamp", "timestamptz_gt_date", "timestamptz_gt_timestamp",
	"timestamptz_le_date", "timestamptz_le_timestamp", "timestamptz_lt_date", "timestamptz_lt_timestamp",
	"timestamptz_mi_interval", "timestamptz_ne_date", "timestamptz_ne_timestamp", "timestamptz_out",
	"timestamptz_pl_interval", "timetz", "timetz_out", "timezone", "to_char", "to_date", "to_json", "to_jsonb",
	"to_number", "to_timestamp",
};

/* Settings that are not pinned and that results can depend on. */
static const char *const settings[] = {
	"lc_numeric", "lc_time", "xmloption", "default_text_search_config", "array_nulls",
};

static char *
digest(const char *data, int len)
{
	return psprintf("%016llx%016llx",
					(unsigned long long) hash_bytes_extended((const unsigned char *) data, len, 0),
					(unsigned long long) hash_bytes_extended((const unsigned char *) data, len, 1));
}

static void pg_attribute_printf(2, 3)
refuse(RetlReads *reads, const char *format,...)
{
	va_list		args;
	StringInfoData reason;

	if (reads->refusal != NULL)
		return;
	initStringInfo(&reason);
	for (;;)
	{
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&reason, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&reason, needed);
	}
	reads->refusal = reason.data;
}

/* --------------------------------------------------------------------------
 * The query
 * -------------------------------------------------------------------------- */

/* Names and types of what a type is made of: they are in texts that are made of its values. */
static void
add_type(Examine *examine, Oid type)
{
	HeapTuple	tuple;
	Form_pg_type form;

	if (type < FirstNormalObjectId && !type_is_array(type))
		return;
	if (list_member_oid(examine->types, type))
		return;
	examine->types = lappend_oid(examine->types, type);
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_type) GETSTRUCT(tuple);
	appendStringInfo(&examine->facts, "type %u %s %u %u;", type, NameStr(form->typname), form->typinput, form->typoutput);
	if (OidIsValid(form->typbasetype))
		add_type(examine, form->typbasetype);
	if (OidIsValid(form->typelem))
		add_type(examine, form->typelem);
	if (form->typtype == TYPTYPE_RANGE)
		add_type(examine, get_range_subtype(type));
	else if (form->typtype == TYPTYPE_MULTIRANGE)
		add_type(examine, get_multirange_range(type));
	else if (form->typtype == TYPTYPE_COMPOSITE)
	{
		TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);

		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i);

			if (att->attisdropped)
				continue;
			appendStringInfo(&examine->facts, "%d %s %u;", i, NameStr(att->attname), att->atttypid);
			add_type(examine, att->atttypid);
		}
		ReleaseTupleDesc(desc);
	}
	ReleaseSysCache(tuple);
}

static bool
is_steady(Oid function)
{
	char	   *name;

	if (function >= FirstNormalObjectId || (name = get_func_name(function)) == NULL)
		return false;
	for (int i = 0; i < lengthof(steady_functions); i++)
		if (strcmp(name, steady_functions[i]) == 0)
			return true;
	return false;
}

/* For check_functions_in_node(): never true, so that all are seen. */
static bool
examine_function(Oid function, void *context)
{
	Examine    *examine = context;
	char		volatility = func_volatile(function);

	if (function >= FirstNormalObjectId && !list_member_oid(examine->functions, function))
	{
		HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));

		examine->functions = lappend_oid(examine->functions, function);
		examine->reads->functions = true;
		if (HeapTupleIsValid(tuple))
		{
			appendStringInfo(&examine->facts, "function %u %u;", function,
							 HeapTupleHeaderGetRawXmin(tuple->t_data));
			ReleaseSysCache(tuple);
		}
	}
	if (volatility == PROVOLATILE_VOLATILE)
		refuse(examine->reads, "function %s is volatile", format_procedure(function));
	else if (volatility == PROVOLATILE_STABLE && !is_steady(function))
		refuse(examine->reads, "function %s can give another result at another time", format_procedure(function));
	return false;
}

static void
examine_relation(Examine *examine, const RangeTblEntry *rte)
{
	if (rte->tablesample != NULL)
		refuse(examine->reads, "it reads a sample of a table");
	if (rte->relkind != RELKIND_VIEW)
		examine->reads->relations = list_append_unique_oid(examine->reads->relations, rte->relid);
}

static bool
examine_node(Node *node, void *context)
{
	Examine    *examine = context;

	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, examine_function, examine);
	switch (nodeTag(node))
	{
		case T_Query:
			{
				Query	   *query = (Query *) node;
				ListCell   *lc;

				foreach(lc, query->rtable)
				{
					RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

					if (rte->rtekind == RTE_RELATION)
						examine_relation(examine, rte);
					else if (rte->rtekind == RTE_NAMEDTUPLESTORE)
						refuse(examine->reads, "it reads a transition table");
				}
				return query_tree_walker(query, examine_node, context, 0);
			}
		case T_SQLValueFunction:
			{
				SQLValueFunctionOp op = ((SQLValueFunction *) node)->op;

				if (op != SVFOP_CURRENT_ROLE && op != SVFOP_CURRENT_USER && op != SVFOP_USER)
					refuse(examine->reads, "it asks for the current time, session or schema");
				break;
			}
		case T_NextValueExpr:
			refuse(examine->reads, "it draws from a sequence");
			break;
		case T_Var:
		case T_Const:
		case T_FuncExpr:
		case T_OpExpr:
		case T_Aggref:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_RelabelType:
		case T_CoerceToDomain:
		case T_RowExpr:
		case T_ArrayExpr:
		case T_FieldSelect:
		case T_SubscriptingRef:
			add_type(examine, exprType(node));
			break;
		default:
			break;
	}
	return expression_tree_walker(node, examine_node, context);
}

void
retl_reads_examine(const RetlModel *model, const Query *query, RetlReads *reads)
{
	List	   *rewritten = QueryRewrite(copyObject(unconstify(Query *, query)));
	Query	   *whole = linitial_node(Query, rewritten);
	Examine		examine = {0};
	char	   *tree = nodeToString(whole);

	memset(reads, 0, sizeof(*reads));
	examine.reads = reads;
	initStringInfo(&examine.facts);
	(void) examine_node((Node *) whole, &examine);
	appendStringInfo(&examine.facts, "owner %u;", model->owner);
	for (int i = 0; i < lengthof(settings); i++)
		appendStringInfo(&examine.facts, "%s %s;", settings[i], GetConfigOption(settings[i], true, false));
	list_sort(reads->relations, list_oid_cmp);
	reads->query = psprintf("%s%s", digest(tree, strlen(tree)), digest(examine.facts.data, examine.facts.len));
	pfree(tree);
	if (retl_writes_epoch() == 0)
		refuse(reads, "retl is not loaded at server start");
}

/* --------------------------------------------------------------------------
 * The evidence
 * -------------------------------------------------------------------------- */

void
retl_reads_catalogs(RetlCatalogWrites *catalogs)
{
	static const Oid relations[] = {EnumRelationId, ProcedureRelationId};

	memset(catalogs, 0, sizeof(*catalogs));
	catalogs->settled = true;
	if (retl_writes_epoch() == 0)
		return;
	for (int i = 0; i < lengthof(relations); i++)
		catalogs->counts[i] = retl_writes_count(MyDatabaseId, relations[i], &catalogs->settled);
}

static void
check_relation(Form_pg_class form, RetlEvidence *evidence)
{
	const char *what = NULL;

	if (form->oid < FirstNormalObjectId)
		what = "is a system catalog";
	else if (form->relkind == RELKIND_FOREIGN_TABLE)
		what = "is a foreign table";
	else if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_MATVIEW &&
			 form->relkind != RELKIND_PARTITIONED_TABLE)
		what = "is no table";
	else if (form->relpersistence == RELPERSISTENCE_UNLOGGED)
		what = "is unlogged";
	else if (form->relpersistence == RELPERSISTENCE_TEMP)
		what = "is temporary";
	else if (form->relkind != RELKIND_PARTITIONED_TABLE && form->relam != HEAP_TABLE_AM_OID)
		what = "has an access method whose writes are not counted";
	if (what != NULL && evidence->refusal == NULL)
		evidence->refusal = psprintf("relation %s %s", NameStr(form->relname), what);
}

/* Appends what identifies a table to "definition" and its writes to "writes". */
static void
look_at(Oid relation, StringInfo definition, StringInfo writes, bool *settled, RetlEvidence *evidence)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
	{
		*settled = false;
		return;
	}
	form = (Form_pg_class) GETSTRUCT(tuple);
	check_relation(form, evidence);
	appendStringInfo(definition, "%u %u %c;", relation, form->relfilenode, form->relkind);
	if (retl_writes_epoch() != 0)
		appendStringInfo(writes, UINT64_FORMAT ";", retl_writes_count(MyDatabaseId, relation, settled));
	ReleaseSysCache(tuple);
}

/* Those of this database, which the next snapshot may not see although they are counted. */
static bool
any_prepared(void)
{
	RetlArgs	args = {0};

	if (max_prepared_xacts == 0)
		return false;
	return retl_sql("SELECT FROM pg_catalog.pg_prepared_xact() x"
					" WHERE x.dbid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d"
					"  WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) LIMIT 1", &args) > 0;
}

void
retl_reads_evidence(const RetlReads *reads, const RetlCatalogWrites *catalogs, RetlEvidence *evidence)
{
	StringInfoData definition;
	StringInfoData writes;
	RetlCatalogWrites now;
	bool		settled = true;
	ListCell   *lc;

	evidence->refusal = reads->refusal;
	if (catalogs == NULL)
	{
		retl_reads_catalogs(&now);
		catalogs = &now;
	}
	initStringInfo(&definition);
	initStringInfo(&writes);
	appendStringInfoString(&definition, reads->query);
	foreach(lc, reads->relations)
	{
		List	   *all = find_all_inheritors(lfirst_oid(lc), NoLock, NULL);
		ListCell   *child;

		foreach(child, all)
			look_at(lfirst_oid(child), &definition, &writes, &settled, evidence);
		list_free(all);
	}
	evidence->definition = digest(definition.data, definition.len);
	evidence->writes = NULL;
	if (evidence->refusal != NULL)
		return;

	appendStringInfo(&writes, "enum " UINT64_FORMAT ";", catalogs->counts[0]);
	if (reads->functions)
		appendStringInfo(&writes, "functions " UINT64_FORMAT ";", catalogs->counts[1]);
	appendStringInfo(&writes, "uncounted " UINT64_FORMAT ";", retl_writes_count(MyDatabaseId, InvalidOid, &settled));
	if (settled && catalogs->settled && !any_prepared())
		evidence->writes = psprintf("%016llx %s", (unsigned long long) retl_writes_epoch(),
									digest(writes.data, writes.len));
}
