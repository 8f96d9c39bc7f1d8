/*
 * scan.c
 *		Executes a model once, joined with its checkpoint; see scan.h.
 *
 * Order matters. The model's text is analysed, and thereby its relations are
 * locked, before any MVCC snapshot that will read them is taken: a table that
 * was swapped or truncated by a transaction we waited for would read as empty
 * under an older snapshot. Views are expanded and partitions locked by
 * rewriting and planning; so the snapshot comes after those, too.
 *
 * The statement is written as SQL with a stand-in for the model, a subquery of
 * typed parameters, which is replaced by the model's own query after analysis:
 * the outer part is analysed as ourselves (the owner may not see retl_data),
 * the inner part as the owner. The checkpoint's range table entry is checked
 * as ourselves when the plan is executed as the owner.
 *
 * Updates and deletes of the checkpoint cannot be made while a parallel plan
 * runs, so the receiver only collects what differs. The first snapshot has
 * nothing to join with: its rows go straight into the new table.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/owner.h"
#include "base/progress.h"
#include "model/checkpoint.h"
#include "model/filter.h"
#include "model/row.h"
#include "model/scan.h"

/* Longer keys are set aside: an index entry holds less than a third of a page. */
#define MAX_KEY_BYTES 2000

/*
 * The key as one JSON text, in the index of exceptions. A byte of text takes six
 * in it at most, and a value of fixed length not more than 64.
 */
#define MAX_KEY_JSON_BYTES 2600
#define JSON_BYTES_PER_BYTE 6
#define JSON_BYTES_FIXED 64

/* A function takes at most FUNC_MAX_ARGS arguments; wider rows go as a record. */
#define MAX_SPREAD_COLUMNS 99

/* Rows buffered before they are written to a new checkpoint in one go. */
#define INSERT_BATCH 1000
#define INSERT_BATCH_BYTES 65536

/* Rows between two notes of how far a scan is; a power of two. */
#define PROGRESS_ROWS 1024

/* --------------------------------------------------------------------------
 * The model's columns
 * -------------------------------------------------------------------------- */

static void
describe_columns(RetlModelColumns *columns, const RetlModel *model)
{
	StringInfoData shape;
	ListCell   *lc;
	int			n = 0;

	initStringInfo(&shape);
	columns->types = palloc(sizeof(Oid) * list_length(columns->query->targetList));
	columns->names = palloc(sizeof(char *) * list_length(columns->query->targetList));
	appendStringInfoChar(&shape, '[');
	foreach(lc, columns->query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Oid			type = exprType((Node *) entry->expr);
		int32		typmod = exprTypmod((Node *) entry->expr);
		char	   *type_name;

		if (entry->resjunk)
			continue;
		columns->types[n] = type;
		columns->names[n] = entry->resname;
		type_name = format_type_extended(type, typmod,
										 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
		appendStringInfoString(&shape, n > 0 ? ", {\"name\": " : "{\"name\": ");
		retl_json_append_string(&shape, entry->resname, strlen(entry->resname));
		appendStringInfoString(&shape, ", \"type\": ");
		retl_json_append_string(&shape, type_name, strlen(type_name));
		appendStringInfoChar(&shape, '}');
		n++;
	}
	appendStringInfoChar(&shape, ']');
	columns->count = n;
	columns->shape = shape.data;

	columns->key = palloc(sizeof(int) * model->nkeys);
	columns->key_types = palloc(sizeof(char *) * model->nkeys);
	for (int k = 0; k < model->nkeys; k++)
	{
		bool		as_text;
		int			found = -1;

		for (int i = 0; i < n; i++)
			if (strcmp(columns->names[i], model->key[k]) == 0)
				found = i;
		if (found < 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("model \"%s\" has no column \"%s\", which is part of its key",
							model->name, model->key[k]),
					 errhint("Give the column back to the query, or create the model anew with another key.")));
		columns->key[k] = found;
		columns->key_types[k] = retl_model_key_type(columns->types[found], -1, &as_text);
	}
}

RetlModelColumns *
retl_scan_columns(const RetlModel *model)
{
	RetlModelColumns *columns = palloc0(sizeof(RetlModelColumns));
	RetlIdentity saved;

	retl_owner_enter(&saved, model->owner, model->search_path);
	columns->query = retl_model_analyze(model->query);
	describe_columns(columns, model);
	retl_owner_leave(&saved);
	return columns;
}

/* --------------------------------------------------------------------------
 * The statement
 * -------------------------------------------------------------------------- */

/* ", the watermark", as one type, where there is one */
static void
append_watermark(StringInfo sql, const RetlScan *scan)
{
	if (scan->scope.column >= 0)
		appendStringInfo(sql, ", (s.c%d)::pg_catalog.timestamptz", scan->scope.column + 1);
}

static void
append_columns(StringInfo sql, int count)
{
	for (int i = 1; i <= count; i++)
		appendStringInfo(sql, "%ss.c%d", i > 1 ? ", " : "", i);
}

/* function(s.c1, s.c2, ...) or, where that is too much, function_record(record). */
static void
append_call(StringInfo sql, const char *function, int count, const char *record)
{
	if (count > MAX_SPREAD_COLUMNS)
		appendStringInfo(sql, "retl.%s_record(%s)", function, record);
	else
	{
		appendStringInfo(sql, "retl.%s(", function);
		append_columns(sql, count);
		appendStringInfoChar(sql, ')');
	}
}

static void
append_key(StringInfo sql, const RetlScan *scan, int k)
{
	const char *type = scan->columns->key_types[k];

	appendStringInfo(sql, "(s.c%d)::%s%s", scan->columns->key[k] + 1, type,
					 retl_checkpoint_key_collation(type));
}

static void
append_stand_in(StringInfo sql, int count)
{
	appendStringInfoString(sql, "(SELECT ");
	for (int i = 1; i <= count; i++)
		appendStringInfo(sql, "%s$%d AS c%d", i > 1 ? ", " : "", i, i);
	appendStringInfoString(sql, ") s");
}

/* First snapshot: k1 .. kn, hash, data, and the watermark. */
static char *
first_statement(const RetlScan *scan)
{
	StringInfoData sql;
	int			count = scan->columns->count;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int k = 0; k < scan->model->nkeys; k++)
	{
		append_key(&sql, scan, k);
		appendStringInfoString(&sql, ", ");
	}
	append_call(&sql, "row_hash", count, "s");
	appendStringInfoString(&sql, ", ");
	append_call(&sql, "row_data", count, "s");
	append_watermark(&sql, scan);
	appendStringInfoString(&sql, " FROM ");
	append_stand_in(&sql, count);
	return sql.data;
}

/* Later ones: k1 .. kn, hash (NULL: gone), slot (NULL: new), data. */
static char *
join_statement(const RetlScan *scan)
{
	StringInfoData sql;
	int			count = scan->columns->count;
	int			nkeys = scan->model->nkeys;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(&sql, "COALESCE(c.k%d, s.k%d), ", k, k);	/* 1.0 stays 1.0, whatever equals it */
	appendStringInfoString(&sql, "s.h, c.slot, CASE WHEN s.h IS NOT NULL THEN ");
	append_call(&sql, "row_data", count, "s.r");
	appendStringInfoString(&sql, " END FROM (SELECT ");
	if (count > MAX_SPREAD_COLUMNS)
		appendStringInfoString(&sql, "s AS r");
	else
		append_columns(&sql, count);
	appendStringInfoString(&sql, ", ");
	for (int k = 0; k < nkeys; k++)
	{
		append_key(&sql, scan, k);
		appendStringInfo(&sql, " AS k%d, ", k + 1);
	}
	append_call(&sql, "row_hash", count, "s");
	appendStringInfoString(&sql, " AS h");
	append_watermark(&sql, scan);
	if (scan->scope.column >= 0)
		appendStringInfoString(&sql, " AS w");
	appendStringInfoString(&sql, " FROM ");
	append_stand_in(&sql, count);
	retl_scope_append_where(&sql, scan);
	appendStringInfoString(&sql, ") s");
	retl_scope_append_checkpoint(&sql, scan);
	appendStringInfoString(&sql, " ON ");
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(&sql, "%ss.k%d OPERATOR(pg_catalog.=) c.k%d", k > 1 ? " AND " : "", k, k);
	retl_filter_append_where(&sql, scan->filter, "s.h", "c.hash", "c.slot", scan->scope.column >= 0 ? "s.w" : NULL);
	return sql.data;
}

/* Replaces the stand-in "s" in the innermost FROM by the model's query. */
static void
put_model_in(Query *query, Query *model)
{
	RangeTblEntry *rte = linitial_node(RangeTblEntry, query->rtable);

	Assert(rte->rtekind == RTE_SUBQUERY);
	if (rte->subquery->rtable == NIL)
		rte->subquery = model;
	else
		put_model_in(rte->subquery, model);
}

/* Relations of the query, so far, are ours: check them as us, whoever executes. */
static void
check_as_ourselves(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY)
			check_as_ourselves(rte->subquery);
		if (rte->rtekind != RTE_RELATION)
			continue;
#if PG_VERSION_NUM >= 160000
		getRTEPermissionInfo(query->rteperminfos, rte)->checkAsUser = GetUserId();
#else
		rte->checkAsUser = GetUserId();
#endif
	}
}

static Query *
compose(const RetlScan *scan, const char *sql)
{
	List	   *statements = pg_parse_query(sql);
	Oid		   *types;
	int			count = retl_scope_param_types(scan, &types);
	Query	   *query = parse_analyze_fixedparams(linitial_node(RawStmt, statements), sql, types, count, NULL);

	check_as_ourselves(query);
	put_model_in(query, copyObject(scan->columns->query));
	return query;
}

static inline void
count_row(RetlScan *scan)
{
	if ((++scan->rows & (PROGRESS_ROWS - 1)) == 0)
		retl_progress_rows(scan->rows);
}

static inline void
note_watermark(RetlScan *scan, Datum value)
{
	TimestampTz watermark = DatumGetTimestampTz(value);

	if (watermark > scan->watermark && !TIMESTAMP_NOT_FINITE(watermark))
		scan->watermark = watermark;
}

/* --------------------------------------------------------------------------
 * Receiver
 * -------------------------------------------------------------------------- */

typedef struct ScanReceiver
{
	DestReceiver pub;
	RetlScan   *scan;
	RetlValueWriter **key_writers;
	StringInfoData key_json;	/* of one key */
	int			key_names_bytes;

	/* first snapshot */
	BulkInsertState bulk;
	TupleTableSlot **buffered;
	int			nbuffered;
	Size		buffered_bytes;
	MemoryContext batch_context;
	CommandId	command_id;
	int			options;
} ScanReceiver;

static void
sample(ScanReceiver *self, TupleTableSlot *slot, const char *reason)
{
	RetlScan   *scan = self->scan;
	MemoryContext old;
	StringInfoData json;

	if (scan->nsamples >= RETL_SAMPLE_SIZE)
		return;
	old = MemoryContextSwitchTo(GetMemoryChunkContext(scan));
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"key\": ");
	retl_checkpoint_append_key(&json, scan->model, self->key_writers,
							   slot->tts_values, slot->tts_isnull);
	appendStringInfo(&json, ", \"reason\": \"%s\"}", reason);
	/* a huge key would be a huge sample */
	if (json.len > MAX_KEY_BYTES)
	{
		resetStringInfo(&json);
		appendStringInfo(&json, "{\"key\": null, \"reason\": \"%s\"}", reason);
	}
	scan->samples[scan->nsamples++] = json.data;
	MemoryContextSwitchTo(old);
}

/* Whether the key can stand in a checkpoint; sets the row aside when not. */
static bool
usable_key(ScanReceiver *self, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Size		bytes = 0;
	Size		json_bytes = self->key_names_bytes;

	for (int k = 0; k < self->scan->model->nkeys; k++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, k);

		if (slot->tts_isnull[k])
		{
			sample(self, slot, "the key is NULL");
			return false;
		}
		if (att->attlen == -1)
		{
			Size		size = toast_raw_datum_size(slot->tts_values[k]) - VARHDRSZ;

			bytes += size;
			/* 1e1000 has few bytes and many digits */
			json_bytes += att->atttypid == NUMERICOID ? MAX_KEY_JSON_BYTES + 1 : size * JSON_BYTES_PER_BYTE;
		}
		else
		{
			bytes += att->attlen > 0 ? att->attlen : NAMEDATALEN;
			json_bytes += JSON_BYTES_FIXED;
		}
	}
	if (bytes > MAX_KEY_BYTES)
	{
		sample(self, slot, "the key is longer than 2000 bytes");
		return false;
	}
	if (json_bytes > MAX_KEY_JSON_BYTES)
	{
		resetStringInfo(&self->key_json);
		retl_checkpoint_append_key(&self->key_json, self->scan->model, self->key_writers,
								   slot->tts_values, slot->tts_isnull);
		if (self->key_json.len > MAX_KEY_JSON_BYTES)
		{
			sample(self, slot, "the key is longer than 2600 bytes as JSON");
			return false;
		}
	}
	return true;
}

static bool
receive_joined(TupleTableSlot *slot, DestReceiver *dest)
{
	ScanReceiver *self = (ScanReceiver *) dest;
	RetlScan   *scan = self->scan;
	int			nkeys = scan->model->nkeys;
	Datum		values[INDEX_MAX_KEYS + 3];
	bool		nulls[INDEX_MAX_KEYS + 3];
	char		kind;

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(Datum) * nkeys);
	memcpy(nulls, slot->tts_isnull, sizeof(bool) * nkeys);

	if (slot->tts_isnull[nkeys])
	{
		kind = 'd';
		scan->deleted++;
	}
	else if (slot->tts_isnull[nkeys + 1])
	{
		scan->rows++;
		if (!usable_key(self, slot))
		{
			scan->set_aside++;
			return true;
		}
		kind = 'a';
		scan->added++;
	}
	else
	{
		int64		number = DatumGetInt64(slot->tts_values[nkeys + 1]);

		if (retl_filter_twice(scan->filter, number))
		{
			sample(self, slot, "the key occurs more than once");
			kind = 'x';
		}
		else
		{
			kind = 'u';
			scan->updated++;
		}
	}
	values[nkeys] = CharGetDatum(kind);
	nulls[nkeys] = false;
	values[nkeys + 1] = slot->tts_values[nkeys];
	nulls[nkeys + 1] = slot->tts_isnull[nkeys];
	values[nkeys + 2] = slot->tts_values[nkeys + 2];
	nulls[nkeys + 2] = slot->tts_isnull[nkeys + 2];
	tuplestore_putvalues(scan->delta, scan->delta_desc, values, nulls);
	return true;
}

static void
flush(ScanReceiver *self)
{
	if (self->nbuffered == 0)
		return;
	table_multi_insert(self->scan->into, self->buffered, self->nbuffered,
					   self->command_id, self->options, self->bulk);
	for (int i = 0; i < self->nbuffered; i++)
		ExecClearTuple(self->buffered[i]);
	self->nbuffered = 0;
	self->buffered_bytes = 0;
	MemoryContextReset(self->batch_context);
}

/* Straight into the new checkpoint: k1 .. kn, hash, slot, shape, data. The watermark is last. */
static bool
receive_first(TupleTableSlot *slot, DestReceiver *dest)
{
	ScanReceiver *self = (ScanReceiver *) dest;
	RetlScan   *scan = self->scan;
	int			nkeys = scan->model->nkeys;
	TupleDesc	desc = RelationGetDescr(scan->into);
	TupleTableSlot *row;
	MemoryContext old;

	count_row(scan);
	slot_getallattrs(slot);
	if (scan->scope.column >= 0 && !slot->tts_isnull[nkeys + 2])
		note_watermark(scan, slot->tts_values[nkeys + 2]);
	if (!usable_key(self, slot))
	{
		scan->set_aside++;
		return true;
	}

	if (self->buffered[self->nbuffered] == NULL)
	{
		old = MemoryContextSwitchTo(GetMemoryChunkContext(self));
		self->buffered[self->nbuffered] = table_slot_create(scan->into, NULL);
		MemoryContextSwitchTo(old);
	}
	row = self->buffered[self->nbuffered++];
	ExecClearTuple(row);
	old = MemoryContextSwitchTo(self->batch_context);
	for (int i = 0; i <= nkeys + 3; i++)
	{
		int			from = i <= nkeys ? i : nkeys + 1;	/* data comes next */
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (i == nkeys + 1)
			row->tts_values[i] = Int64GetDatum(scan->nslots++);
		else if (i == nkeys + 2)
			row->tts_values[i] = Int32GetDatum(scan->shape);
		else
		{
			Datum		given = slot->tts_values[from];
			Datum		value = given;

			if (att->attlen == -1)
			{
				value = PointerGetDatum(PG_DETOAST_DATUM(given));
				self->buffered_bytes += VARSIZE_ANY(DatumGetPointer(value));
			}
			if (value == given)
				value = datumCopy(value, att->attbyval, att->attlen);
			row->tts_values[i] = value;
		}
		row->tts_isnull[i] = false;
	}
	MemoryContextSwitchTo(old);
	ExecStoreVirtualTuple(row);
	scan->added++;

	if (self->nbuffered >= INSERT_BATCH || self->buffered_bytes >= INSERT_BATCH_BYTES)
		flush(self);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
receiver_shutdown(DestReceiver *self)
{
}

static ScanReceiver *
make_receiver(RetlScan *scan)
{
	ScanReceiver *self = palloc0(sizeof(ScanReceiver));

	self->pub.receiveSlot = scan->into ? receive_first : receive_joined;
	self->pub.rStartup = receiver_startup;
	self->pub.rShutdown = receiver_shutdown;
	self->pub.rDestroy = receiver_shutdown;
	self->pub.mydest = DestNone;
	self->scan = scan;
	self->key_writers = palloc(sizeof(RetlValueWriter *) * scan->model->nkeys);
	initStringInfo(&self->key_json);
	for (int k = 0; k < scan->model->nkeys; k++)
		self->key_names_bytes += JSON_BYTES_PER_BYTE * strlen(scan->model->key[k]) + 8;
	return self;
}

/* --------------------------------------------------------------------------
 * Execution
 * -------------------------------------------------------------------------- */

static void
prepare_delta(RetlScan *scan, TupleDesc result)
{
	int			nkeys = scan->model->nkeys;
	ResourceOwner owner = CurrentResourceOwner;
	char		name[NAMEDATALEN];

	scan->delta_desc = CreateTemplateTupleDesc(nkeys + 3);
	for (int k = 1; k <= nkeys; k++)
	{
		Form_pg_attribute att = TupleDescAttr(result, k - 1);

		snprintf(name, sizeof(name), "k%d", k);
		TupleDescInitEntry(scan->delta_desc, k, name, att->atttypid, att->atttypmod, 0);
		TupleDescInitEntryCollation(scan->delta_desc, k, att->attcollation);
	}
	TupleDescInitEntry(scan->delta_desc, nkeys + 1, "kind", CHAROID, -1, 0);
	TupleDescInitEntry(scan->delta_desc, nkeys + 2, "hash", INT8OID, -1, 0);
	TupleDescInitEntry(scan->delta_desc, nkeys + 3, "data", JSONOID, -1, 0);
	CurrentResourceOwner = scan->lasting;
	scan->delta = tuplestore_begin_heap(false, false, work_mem);
	CurrentResourceOwner = owner;
}

static void
prepare_first(ScanReceiver *self)
{
	self->bulk = GetBulkInsertState();
	self->buffered = palloc0(sizeof(TupleTableSlot *) * INSERT_BATCH);
	self->batch_context = AllocSetContextCreate(CurrentMemoryContext, "retl first snapshot",
												ALLOCSET_DEFAULT_SIZES);
	/* in parallel mode neither could be had */
	(void) GetCurrentTransactionId();
	self->command_id = GetCurrentCommandId(true);
	/* The table was made by this transaction: nobody can have seen it. */
	self->options = TABLE_INSERT_SKIP_FSM | TABLE_INSERT_FROZEN;
}

static void
finish_first(ScanReceiver *self)
{
	flush(self);
	for (int i = 0; i < INSERT_BATCH && self->buffered[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(self->buffered[i]);
	FreeBulkInsertState(self->bulk);
	table_finish_bulk_insert(self->scan->into, self->options);
}

/* Counts what the filter has seen. */
static void
finish_joined(RetlScan *scan)
{
	int64		twice;

	scan->watermark = retl_filter_watermark(scan->filter);
	retl_filter_count(scan->filter, &scan->matched, &twice, &scan->duplicates);
	scan->rows += scan->matched + scan->duplicates;
	scan->set_aside += twice + scan->duplicates;
}

bool
retl_scan_plan(RetlScan *scan)
{
	Query	   *query;
	List	   *rewritten;
	RetlIdentity saved;

	if (!scan->into && scan->filter == NULL)
	{
		ResourceOwner owner = CurrentResourceOwner;

		CurrentResourceOwner = scan->lasting;
		scan->filter = retl_filter_begin(scan->nslots, scan->all);
		CurrentResourceOwner = owner;
	}
	if (scan->scope.kind != RETL_SCOPE_ALL)
		scan->checkpoint = RangeVarGetRelid(makeRangeVarFromNameList(
												list_make2(makeString("retl_data"),
														   makeString(strchr(retl_checkpoint_table(scan->model->id), '.') + 1))),
											NoLock, false);
	scan->sql = scan->into ? first_statement(scan) : join_statement(scan);
	query = compose(scan, scan->sql);
	RETL_FAULT("scan_composed");

	/* Rewrite and plan as the owner, under a snapshot of its own. */
	retl_owner_enter(&saved, scan->model->owner, NULL);
	PushActiveSnapshot(GetTransactionSnapshot());
	rewritten = QueryRewrite(query);
	if (list_length(rewritten) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a rule turns the query of model \"%s\" into %d statements",
						scan->model->name, list_length(rewritten))));
	scan->plan = pg_plan_query(linitial_node(Query, rewritten), scan->sql, CURSOR_OPT_PARALLEL_OK,
							   retl_scope_params(scan));
	PopActiveSnapshot();
	retl_owner_leave(&saved);

	RETL_FAULT("scan_planned");
	return scan->scope.kind == RETL_SCOPE_ALL || retl_scope_is_pushed_down(scan, scan->plan);
}

static void
execute(RetlScan *scan, QueryDesc *desc)
{
	retl_filter_activate(scan->filter);
	retl_progress_begin(scan->model->id, scan->plan->planTree->plan_rows);
	PG_TRY();
	{
		RETL_FAULT("scan_executing");
#if PG_VERSION_NUM >= 180000
		ExecutorRun(desc, ForwardScanDirection, 0);
#else
		ExecutorRun(desc, ForwardScanDirection, 0, true);
#endif
	}
	PG_FINALLY();
	{
		retl_filter_activate(NULL);
		retl_progress_end();
	}
	PG_END_TRY();
}

void
retl_scan_run(RetlScan *scan)
{
	ScanReceiver *receiver = make_receiver(scan);
	QueryDesc  *desc;
	RetlIdentity saved;

	/* Everything is locked: only now the snapshot that will read it. */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (scan->at_snapshot)
		scan->at_snapshot(scan->arg, scan->scope.kind);
	if (scan->into)
		prepare_first(receiver);

	retl_owner_enter(&saved, scan->model->owner, NULL);
	desc = CreateQueryDesc(scan->plan, scan->sql, GetActiveSnapshot(), InvalidSnapshot,
						   &receiver->pub, retl_scope_params(scan), NULL, 0);
	/* checks the owner's rights: also to what need not be executed */
	ExecutorStart(desc, 0);
	retl_owner_leave(&saved);

	scan->executed = scan->is_needless == NULL || !scan->is_needless(scan->needless_arg);

	retl_owner_enter(&saved, scan->model->owner, NULL);
	if (scan->executed)
	{
		for (int k = 0; k < scan->model->nkeys; k++)
			receiver->key_writers[k] =
				retl_value_writer(TupleDescAttr(desc->tupDesc, k)->atttypid);
		if (!scan->into)
			prepare_delta(scan, desc->tupDesc);
		execute(scan, desc);
	}
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	retl_owner_leave(&saved);
	if (scan->into)
		finish_first(receiver);
	else if (scan->executed)
		finish_joined(scan);
	PopActiveSnapshot();
}
