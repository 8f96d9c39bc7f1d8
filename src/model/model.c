/*
 * model.c
 *		Definitions of models and the analysis of their queries; see model.h.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/sql.h"
#include "model/model.h"

/* --------------------------------------------------------------------------
 * Definitions
 * -------------------------------------------------------------------------- */

RetlModel *
retl_model_load(int64 id)
{
	MemoryContext caller = CurrentMemoryContext;
	RetlModel  *model = NULL;
	RetlArgs	args = {0};

	SPI_connect();
	retl_arg_int8(&args, id);
	if (retl_sql("SELECT name, owner::pg_catalog.oid, query, search_path, key, enabled,"
				 " pg_catalog.date_part('epoch', max_skip), watermark,"
				 " pg_catalog.date_part('epoch', watermark_overlap), pg_catalog.date_part('epoch', full_every),"
				 " COALESCE(pg_catalog.date_part('epoch', timeout), 0)"
				 " FROM retl.model WHERE id OPERATOR(pg_catalog.=) $1", &args) == 1)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);
		bool		isnull;
		Datum	   *elements;

		model = palloc0(sizeof(RetlModel));
		model->id = id;
		model->name = pstrdup(retl_result_text(0, 1));
		model->owner = retl_result_oid(0, 2);
		model->query = pstrdup(retl_result_text(0, 3));
		model->search_path = pstrdup(retl_result_text(0, 4));
		deconstruct_array(DatumGetArrayTypeP(retl_result_datum(0, 5, &isnull)),
						  TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, NULL, &model->nkeys);
		model->key = palloc(sizeof(char *) * model->nkeys);
		for (int i = 0; i < model->nkeys; i++)
			model->key[i] = TextDatumGetCString(elements[i]);
		model->enabled = retl_result_bool(0, 6);
		model->max_skip = retl_result_float8(0, 7);
		if (!retl_result_isnull(0, 8))
			model->watermark = pstrdup(retl_result_text(0, 8));
		model->watermark_overlap = retl_result_float8(0, 9);
		model->full_every = retl_result_float8(0, 10);
		model->timeout = retl_result_float8(0, 11);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return model;
}

RetlModel *
retl_model_get(int64 id)
{
	RetlModel  *model = retl_model_load(id);

	if (model == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the model was dropped in the meantime")));
	return model;
}

/* --------------------------------------------------------------------------
 * Analysis
 * -------------------------------------------------------------------------- */

static void
check_columns(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		ListCell   *other;

		if (entry->resjunk)
			continue;
		if (entry->resname == NULL || strcmp(entry->resname, "?column?") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column %d of the model has no name", entry->resno),
					 errhint("Give it one with AS.")));
		if (get_typtype(exprType((Node *) entry->expr)) == TYPTYPE_PSEUDO &&
			exprType((Node *) entry->expr) != RECORDOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of the model has pseudo-type %s",
							entry->resname, format_type_be(exprType((Node *) entry->expr))),
					 errhint("Cast it to a type that a table could hold.")));
		for_each_cell(other, query->targetList, lnext(query->targetList, lc))
		{
			TargetEntry *later = lfirst_node(TargetEntry, other);

			if (!later->resjunk && later->resname != NULL &&
				strcmp(entry->resname, later->resname) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("the model has two columns named \"%s\"", entry->resname),
						 errhint("Name one of them otherwise with AS.")));
		}
	}
}

Query *
retl_model_analyze(const char *text)
{
	List	   *statements = pg_parse_query(text);
	RawStmt    *raw;
	SelectStmt *select;
	Query	   *query;

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a model is exactly one SELECT, but the text has %d statements",
						list_length(statements)),
				 errhint("Give one SELECT without a semicolon, or the name of a table or view.")));

	raw = linitial_node(RawStmt, statements);
	if (!IsA(raw->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("a model is a SELECT, not %s",
						GetCommandTagName(CreateCommandTag(raw->stmt))),
				 errhint("A model only reads. Give one SELECT, or the name of a table or view.")));

	select = castNode(SelectStmt, raw->stmt);
	while (select->larg != NULL)
		select = select->larg;
	if (select->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a model cannot be SELECT INTO"),
				 errhint("Remove the INTO clause: a model only reads.")));

	query = parse_analyze_fixedparams(raw, text, NULL, 0, NULL);
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a model cannot contain data-modifying statements in WITH"),
				 errhint("A model only reads.")));
	if (query->hasForUpdate)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a model cannot lock rows with FOR UPDATE or FOR SHARE"),
				 errhint("A model only reads.")));
	check_columns(query);
	return query;
}

/* --------------------------------------------------------------------------
 * Keys
 * -------------------------------------------------------------------------- */

char *
retl_model_key_type(Oid type, int32 typmod, bool *as_text)
{
	type = getBaseType(type);
	*as_text = false;
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case BOOLOID:
		case UUIDOID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case BYTEAOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case BPCHAROID:
			/* without the flag bpchar would be "character", which is one of one character */
			return format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
		case TEXTOID:
		case VARCHAROID:
		case NAMEOID:
		case CHAROID:
			return pstrdup("pg_catalog.text");
		default:
			*as_text = true;
			return pstrdup("pg_catalog.text");
	}
}

/* --------------------------------------------------------------------------
 * The model's lock
 * -------------------------------------------------------------------------- */

static bool
lock_object(const char *table, int64 id, LOCKMODE mode, bool wait)
{
	Oid			class = get_relname_relid(table, get_namespace_oid("retl", false));
	LOCKTAG		tag;

	if (!OidIsValid(class))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"retl.%s\" does not exist", table)));
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, class, (uint32) id, 0);
	if (LockAcquire(&tag, mode, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

void
retl_model_lock(int64 id, LOCKMODE mode)
{
	(void) lock_object("model", id, mode, true);
}

bool
retl_model_try_lock(int64 id, LOCKMODE mode)
{
	return lock_object("model", id, mode, false);
}

void
retl_mapping_lock(int64 id, LOCKMODE mode)
{
	(void) lock_object("mapping", id, mode, true);
}

bool
retl_mapping_try_lock(int64 id, LOCKMODE mode)
{
	return lock_object("mapping", id, mode, false);
}
