/*
 * sqlexpr.c
 *		Evaluating @sql expressions; see sqlexpr.h.
 *
 * The columns that expressions refer to are turned from JSON into values of
 * their types, put into a virtual slot, and the expressions are evaluated over
 * it. All that calls a user's functions, input functions of types among it,
 * happens inside the owner's switch and inside a subtransaction. Rows share
 * both, until one raises an error: then the subtransaction is rolled back, what
 * earlier rows gave is kept, and the executor's state is thrown away, as
 * functions may have left theirs half done.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/json.h"
#include "base/owner.h"
#include "map/sqlexpr.h"
#include "map/sqlexpr_parse.h"

/* How one column comes from JSON to a value. */
typedef struct Conversion
{
	FmgrInfo	input;
	Oid			typioparam;
	int			composed;		/* number among those converted by json_to_record; -1: by "input" */
} Conversion;

/* All that may hold state of users' functions; made anew after an error. */
typedef struct Executor
{
	EState	   *estate;
	ExprContext *econtext;
	TupleTableSlot *slot;
	ExprState **expressions;
	RetlValueWriter **writers;
	Conversion *conversions;	/* by input */

	/* arrays and composites, all of a row at once */
	int			ncomposed;
	FmgrInfo	json_to_record;
	TupleDesc	composed_tupdesc;
	Datum	   *composed_values;
	bool	   *composed_nulls;
} Executor;

struct RetlSqlSet
{
	MemoryContext context;
	Oid			owner;
	char	   *search_path;
	int			count;
	Expr	  **expressions;
	RetlSqlInputs inputs;
	TupleDesc	tupdesc;		/* of the inputs */
	Executor   *executor;		/* NULL: to be made */
	StringInfoData json;		/* values of one row */

	/* where the inputs are in the shape of the last row */
	const RetlShape *located;
	int			located_number;
	int		   *locations;
};

/* ---- preparing ---- */

static bool
is_composed(Oid type)
{
	Oid			base = getBaseType(type);

	return OidIsValid(get_element_type(base)) || get_typtype(base) == TYPTYPE_COMPOSITE;
}

/* How each input is converted, and the row type of those that need json_to_record. */
static void
init_conversions(Executor *executor, const RetlSqlSet *set)
{
	int			count = set->inputs.count;

	executor->conversions = palloc0(Max(1, count) * sizeof(Conversion));
	for (int i = 0; i < count; i++)
	{
		const RetlSqlInput *input = &set->inputs.inputs[i];
		Conversion *conversion = &executor->conversions[i];
		Oid			function;

		conversion->composed = -1;
		if (input->kind != RETL_SQL_COLUMN)
			continue;
		if (is_composed(input->type))
			conversion->composed = executor->ncomposed++;
		else
		{
			getTypeInputInfo(input->type, &function, &conversion->typioparam);
			fmgr_info(function, &conversion->input);
		}
	}
	if (executor->ncomposed == 0)
		return;

	fmgr_info(F_JSON_TO_RECORD, &executor->json_to_record);
	executor->composed_tupdesc = CreateTemplateTupleDesc(executor->ncomposed);
	executor->composed_values = palloc(executor->ncomposed * sizeof(Datum));
	executor->composed_nulls = palloc(executor->ncomposed * sizeof(bool));
	for (int i = 0; i < count; i++)
	{
		const RetlSqlInput *input = &set->inputs.inputs[i];
		int			number = executor->conversions[i].composed;
		char		name[16];

		if (number < 0)
			continue;
		snprintf(name, sizeof(name), "%d", number);
		TupleDescInitEntry(executor->composed_tupdesc, number + 1, name, input->type,
						   input->typmod, 0);
	}
	BlessTupleDesc(executor->composed_tupdesc);
}

static void
make_executor(RetlSqlSet *set)
{
	MemoryContext caller = MemoryContextSwitchTo(set->context);
	EState	   *estate = CreateExecutorState();
	Executor   *executor;

	MemoryContextSwitchTo(estate->es_query_cxt);
	executor = palloc0(sizeof(Executor));
	executor->estate = estate;
	executor->econtext = CreateExprContext(estate);
	set->executor = executor;
	executor->slot = MakeSingleTupleTableSlot(set->tupdesc, &TTSOpsVirtual);
	executor->econtext->ecxt_scantuple = executor->slot;
	executor->expressions = palloc(Max(1, set->count) * sizeof(ExprState *));
	executor->writers = palloc(Max(1, set->count) * sizeof(RetlValueWriter *));
	for (int i = 0; i < set->count; i++)
	{
		executor->expressions[i] = ExecInitExpr(set->expressions[i], NULL);
		executor->writers[i] = retl_value_writer(exprType((Node *) set->expressions[i]));
	}
	init_conversions(executor, set);
	MemoryContextSwitchTo(caller);
}

/* After an error: call nobody back, only forget. */
static void
discard_executor(RetlSqlSet *set)
{
	Executor   *executor = set->executor;

	if (executor == NULL)
		return;
	set->executor = NULL;
	FreeExprContext(executor->econtext, false);
	MemoryContextDelete(executor->estate->es_query_cxt);
}

static void
describe_inputs(RetlSqlSet *set)
{
	int			count = set->inputs.count;

	set->locations = palloc(Max(1, count) * sizeof(int));
	set->tupdesc = CreateTemplateTupleDesc(count);
	for (int i = 0; i < count; i++)
	{
		const RetlSqlInput *input = &set->inputs.inputs[i];

		TupleDescInitEntry(set->tupdesc, i + 1, NULL, input->type, input->typmod, 0);
		TupleDescInitEntryCollation(set->tupdesc, i + 1, input->collation);
	}
}

RetlSqlSet *
retl_sql_prepare(const RetlShape *shape, int count, const char *const *expressions,
				 Oid owner, const char *search_path)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "retl @sql",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	RetlSqlSet *set = palloc0(sizeof(RetlSqlSet));
	RetlIdentity saved;
	bool		pushed = !ActiveSnapshotSet();

	set->context = context;
	set->owner = owner;
	set->search_path = search_path ? pstrdup(search_path) : NULL;
	set->count = count;
	set->expressions = palloc(Max(1, count) * sizeof(Expr *));
	set->inputs.shape = shape;
	initStringInfo(&set->json);

	if (count > 0)
	{
		/* parsing looks up what the owner may use, planning calls immutable functions */
		retl_owner_enter(&saved, owner, search_path);
		if (pushed)
			PushActiveSnapshot(GetTransactionSnapshot());
		for (int i = 0; i < count; i++)
			set->expressions[i] = retl_sql_parse(&set->inputs, i + 1, expressions[i]);
		describe_inputs(set);
		make_executor(set);
		if (pushed)
			PopActiveSnapshot();
		retl_owner_leave(&saved);
	}
	MemoryContextSwitchTo(caller);
	return set;
}

void
retl_sql_free(RetlSqlSet *set)
{
	if (set->executor != NULL)
		FreeExecutorState(set->executor->estate);
	MemoryContextDelete(set->context);
}

/* ---- from JSON to values ---- */

static bool
is_null(RetlSlice value)
{
	return value.data == NULL || (value.len == 4 && value.data[0] == 'n');
}

/* By the type's input function: a string's text, everything else as it is written. */
static Datum
convert_plain(Conversion *conversion, const RetlSqlInput *input, RetlSlice value)
{
	const char *text = value.data;
	int			len = value.len;

	if (input->type == JSONOID)
		return PointerGetDatum(cstring_to_text_with_len(text, len));
	if (value.data[0] == '"' && input->type != JSONBOID)
	{
		text = retl_slice_text(value, &len);
		if (memchr(text, '\0', len) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
					 errmsg("\\u0000 cannot be converted to text")));
	}
	if (input->type == TEXTOID)
		return PointerGetDatum(cstring_to_text_with_len(text, len));
	return InputFunctionCall(&conversion->input, pnstrdup(text, len), conversion->typioparam,
							 input->typmod);
}

/* Arrays and composites of a row, by PostgreSQL's own conversion. */
static void
convert_composed(Executor *executor, const RetlSlice *values)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo result = {.type = T_ReturnSetInfo, .econtext = executor->econtext,
	.expectedDesc = executor->composed_tupdesc};
	StringInfoData object;
	Datum		record;
	HeapTupleData tuple;

	initStringInfo(&object);
	for (int i = 0; i < executor->ncomposed; i++)
	{
		appendStringInfo(&object, "%s\"%d\":", i > 0 ? "," : "{", i);
		if (is_null(values[i]))
			appendStringInfoString(&object, "null");
		else
			appendBinaryStringInfo(&object, values[i].data, values[i].len);
	}
	appendStringInfoChar(&object, '}');

	InitFunctionCallInfoData(*fcinfo, &executor->json_to_record, 1, InvalidOid, NULL,
							 (Node *) &result);
	fcinfo->args[0].value = PointerGetDatum(cstring_to_text_with_len(object.data, object.len));
	fcinfo->args[0].isnull = false;
	record = FunctionCallInvoke(fcinfo);

	tuple.t_data = DatumGetHeapTupleHeader(record);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	heap_deform_tuple(&tuple, executor->composed_tupdesc, executor->composed_values,
					  executor->composed_nulls);
}

static Datum
changed_columns(const RetlEnvelope *envelope)
{
	Datum	   *names = palloc(Max(1, envelope->shape->ncolumns) * sizeof(Datum));
	int			count = 0;

	for (int i = 0; i < envelope->shape->ncolumns; i++)
	{
		const char *name = envelope->shape->columns[i].name;
		const RetlSlice *value = &envelope->row[i];
		int			old = envelope->shape == envelope->old_shape ? i :
			retl_shape_find(envelope->old_shape, name, strlen(name));

		if (old < 0 || (envelope->old[old].len == value->len &&
						memcmp(envelope->old[old].data, value->data, value->len) == 0))
			continue;
		names[count++] = CStringGetTextDatum(name);
	}
	return PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
}

static Datum
old_object(const RetlEnvelope *envelope)
{
	StringInfoData object;

	initStringInfo(&object);
	retl_row_append_object(&object, envelope->old_shape, envelope->old);
	return PointerGetDatum(cstring_to_text_with_len(object.data, object.len));
}

/* Rows of another shape than the expressions' are read by column name. */
static void
locate_inputs(RetlSqlSet *set, const RetlShape *shape)
{
	if (shape == set->located && shape->shape == set->located_number)
		return;
	for (int i = 0; i < set->inputs.count; i++)
	{
		int			column = set->inputs.inputs[i].column;
		const char *name;

		if (column >= 0 && shape != set->inputs.shape)
		{
			name = set->inputs.shape->columns[column].name;
			column = retl_shape_find(shape, name, strlen(name));
		}
		set->locations[i] = column;
	}
	set->located = shape;
	set->located_number = shape->shape;
}

static void
fill_slot(RetlSqlSet *set, const RetlEnvelope *envelope)
{
	Executor   *executor = set->executor;
	TupleTableSlot *slot = executor->slot;
	bool		has_old = envelope->operation == RETL_UPDATED && envelope->old != NULL;
	RetlSlice  *composed = NULL;

	ExecClearTuple(slot);
	locate_inputs(set, envelope->shape);
	if (executor->ncomposed > 0)
		composed = palloc0(executor->ncomposed * sizeof(RetlSlice));

	for (int i = 0; i < set->inputs.count; i++)
	{
		const RetlSqlInput *input = &set->inputs.inputs[i];
		Conversion *conversion = &executor->conversions[i];
		RetlSlice	value = {NULL, 0};

		slot->tts_values[i] = (Datum) 0;
		slot->tts_isnull[i] = true;
		switch (input->kind)
		{
			case RETL_SQL_COLUMN:
				if (set->locations[i] >= 0)
					value = envelope->row[set->locations[i]];
				if (conversion->composed >= 0)
					composed[conversion->composed] = value;
				else if (!is_null(value))
				{
					slot->tts_values[i] = convert_plain(conversion, input, value);
					slot->tts_isnull[i] = false;
				}
				break;
			case RETL_SQL_OLD:
				if (has_old)
					slot->tts_values[i] = old_object(envelope);
				slot->tts_isnull[i] = !has_old;
				break;
			case RETL_SQL_CHANGED:
				if (has_old)
					slot->tts_values[i] = changed_columns(envelope);
				slot->tts_isnull[i] = !has_old;
				break;
			case RETL_SQL_OPERATION:
				slot->tts_values[i] =
					CStringGetTextDatum(retl_operation_name(envelope->operation));
				slot->tts_isnull[i] = false;
				break;
		}
	}

	if (composed != NULL)
	{
		convert_composed(executor, composed);
		for (int i = 0; i < set->inputs.count; i++)
		{
			int			number = executor->conversions[i].composed;

			if (number < 0)
				continue;
			slot->tts_values[i] = executor->composed_values[number];
			slot->tts_isnull[i] = executor->composed_nulls[number];
		}
	}
	ExecStoreVirtualTuple(slot);
}

/* ---- evaluating ---- */

/* Values of one row; the texts are allocated in "result". */
static void
eval_row(RetlSqlSet *set, const RetlEnvelope *envelope, RetlSlice *values, MemoryContext result)
{
	Executor   *executor = set->executor;
	ExprContext *econtext = executor->econtext;
	MemoryContext caller;
	char	   *texts;

	CHECK_FOR_INTERRUPTS();
	ResetExprContext(econtext);
	caller = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	fill_slot(set, envelope);
	resetStringInfo(&set->json);
	for (int i = 0; i < set->count; i++)
	{
		bool		isnull;
		int			start = set->json.len;
		Datum		value = ExecEvalExpr(executor->expressions[i], econtext, &isnull);

		retl_value_write(executor->writers[i], &set->json, value, isnull);
		values[i].len = set->json.len - start;
	}
	MemoryContextSwitchTo(caller);

	texts = MemoryContextAlloc(result, set->json.len);
	memcpy(texts, set->json.data, set->json.len);
	for (int i = 0; i < set->count; i++)
	{
		values[i].data = texts;
		texts += values[i].len;
	}
}

/* Errors that are not the row's: the same row may well succeed another time. */
static bool
is_fatal(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/* Evaluates rows from "first" on in one subtransaction; returns the first one not done. */
static int
eval_until_error(RetlSqlSet *set, int first, int count, const RetlEnvelope *const *envelopes,
				 RetlSlice *values, char **errors)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int row = first;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		RetlIdentity saved;
		bool		pushed = !ActiveSnapshotSet();

		retl_owner_enter(&saved, set->owner, set->search_path);
		if (pushed)
			PushActiveSnapshot(GetTransactionSnapshot());
		if (set->executor == NULL)
			make_executor(set);
		for (; row < count; row++)
		{
			eval_row(set, envelopes[row], values + (size_t) row * set->count, caller);
			errors[row] = NULL;
		}
		if (pushed)
			PopActiveSnapshot();
		retl_owner_leave(&saved);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		discard_executor(set);
		if (is_fatal(error))
			ReThrowError(error);
		errors[row] = psprintf("%s: %s", unpack_sql_state(error->sqlerrcode), error->message);
		FreeErrorData(error);
		row++;
	}
	PG_END_TRY();
	return row;
}

void
retl_sql_eval_rows(RetlSqlSet *set, int count, const RetlEnvelope *const *envelopes,
				   RetlSlice *values, char **errors)
{
	int			row = 0;

	if (set->count == 0)
	{
		memset(errors, 0, count * sizeof(char *));
		return;
	}
	while (row < count)
		row = eval_until_error(set, row, count, envelopes, values, errors);
}

bool
retl_sql_eval(RetlSqlSet *set, const RetlEnvelope *envelope, RetlSlice *values, char **error)
{
	retl_sql_eval_rows(set, 1, &envelope, values, error);
	return *error == NULL;
}
