/*
 * mapping_test.c
 *		For tests only: a mapping compiled and run on one row from SQL.
 */
#include "postgres.h"

#ifdef RETL_TESTING

#include "fmgr.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "map/fields.h"
#include "map/mapping.h"

PG_FUNCTION_INFO_V1(retl_test_map);
PG_FUNCTION_INFO_V1(retl_test_fields);

#define ARG(n) (PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n)))

/* A row as an object of columns. */
static RetlShape *
read_row(int number, const char *text, RetlSlice **values)
{
	RetlShape  *shape = palloc0(sizeof(RetlShape));
	RetlSliceIterator iterator;
	RetlSlice	key,
				value;

	shape->shape = number;
	shape->columns = palloc0(1000 * sizeof(RetlColumn));
	*values = palloc0(1000 * sizeof(RetlSlice));
	retl_slice_walk(&iterator, retl_slice(text, strlen(text)));
	while (retl_slice_next(&iterator, &key, &value) && shape->ncolumns < 1000)
	{
		int			len;
		const char *name = retl_slice_text(key, &len);

		shape->columns[shape->ncolumns].name = pnstrdup(name, len);
		shape->columns[shape->ncolumns].name_json = pnstrdup(key.data, key.len);
		(*values)[shape->ncolumns++] = value;
	}
	return shape;
}

static void
report(StringInfo out, const char *what, bool ok, StringInfo text, const char *error)
{
	appendStringInfo(out, "%s%s: %s", out->len ? "\n" : "", ok ? what : "error", ok ? text->data : error);
}

/* (connector, action, fields, settings, batch_size int, operation, key, row, old, repeat int) */
Datum
retl_test_map(PG_FUNCTION_ARGS)
{
	RetlMapping *mapping = retl_mapping_compile(ARG(0), ARG(1), ARG(2), ARG(3), PG_GETARG_INT32(4));
	char	   *operation = ARG(5);
	RetlEnvelope envelope = {0};
	StringInfoData out,
				payload,
				group,
				record,
				body;
	char	   *error;
	bool		ok;
	int			repeat = PG_GETARG_INT32(9);

	envelope.operation = operation[0] == 'a' ? RETL_ADDED : operation[0] == 'u' ? RETL_UPDATED : RETL_DELETED;
	envelope.key = ARG(6);
	envelope.shape = read_row(1, ARG(7), (RetlSlice **) &envelope.row);
	if (!PG_ARGISNULL(8))
		envelope.old_shape = read_row(2, ARG(8), (RetlSlice **) &envelope.old);
	envelope.message_id = "m-1";
	envelope.timestamp = "2024-01-15T12:00:00.000Z";
	envelope.sql = palloc0((retl_mapping_sql_count(mapping) + 1) * sizeof(RetlSlice));
	for (int i = 0; i < retl_mapping_sql_count(mapping); i++)
	{
		char	   *value = psprintf("\"sql %d: %s\"", i, retl_mapping_sql(mapping, i));

		((RetlSlice *) envelope.sql)[i] = retl_slice(value, strlen(value));
	}

	initStringInfo(&out);
	initStringInfo(&payload);
	initStringInfo(&group);
	initStringInfo(&record);
	initStringInfo(&body);
	ok = retl_mapping_comparable(mapping, &envelope, &payload, &error);
	report(&out, "comparable", ok, &payload, error);
	resetStringInfo(&payload);
	ok = retl_mapping_payload(mapping, &envelope, &payload, &error);
	report(&out, "payload", ok, &payload, error);
	if (ok)
	{
		ok = retl_mapping_record(mapping, &envelope, payload.data, payload.len, &group, &record, &error);
		report(&out, "group", ok, &group, error);
		if (ok)
		{
			report(&out, "record", true, &record, NULL);
			retl_mapping_body_begin(mapping, group.data, &body);
			retl_mapping_body_add(mapping, &body, record.data, record.len, true);
			if (retl_mapping_batch_records(mapping) > 1)
				retl_mapping_body_add(mapping, &body, record.data, record.len, false);
			retl_mapping_body_end(mapping, group.data, &body);
			report(&out, "body", true, &body, NULL);
		}
	}
	if (repeat > 0)
	{
		instr_time	start,
					end;
		MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "row", ALLOCSET_DEFAULT_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(scratch);

		for (int pass = 0; pass < 2; pass++)
		{
			INSTR_TIME_SET_CURRENT(start);
			for (int i = 0; i < repeat; i++)
			{
				resetStringInfo(&payload);
				(void) retl_mapping_payload(mapping, &envelope, &payload, &error);
				if (pass == 1)
				{
					resetStringInfo(&group);
					resetStringInfo(&record);
					(void) retl_mapping_record(mapping, &envelope, payload.data, payload.len, &group, &record, &error);
				}
				if (i % 64 == 0)
					MemoryContextReset(scratch);
			}
			INSTR_TIME_SET_CURRENT(end);
			INSTR_TIME_SUBTRACT(end, start);
			appendStringInfo(&out, "\n%s: %.0f ns", pass ? "payload and record" : "payload",
							 INSTR_TIME_GET_DOUBLE(end) * 1e9 / repeat);
		}
		MemoryContextSwitchTo(caller);
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}

static RetlSlice
get_field(void *arg, const char *name, int len)
{
	RetlJson   *value = retl_json_get(arg, name, len);
	StringInfoData text;
	RetlSlice	slice = {NULL, 0};

	if (value != NULL)
	{
		initStringInfo(&text);
		retl_json_write(&text, value);
		slice = retl_slice(text.data, text.len);
	}
	return slice;
}

/* (declarations of fields, payload): {"payload": ...} or {"errors": [...]} */
Datum
retl_test_fields(PG_FUNCTION_ARGS)
{
	char	   *error;
	char	   *declarations_text = ARG(0);
	char	   *payload_text = ARG(1);
	RetlJson   *declarations = retl_json_parse(declarations_text, strlen(declarations_text), &error);
	RetlJson   *payload = retl_json_parse(payload_text, strlen(payload_text), &error);
	RetlJson   *result = retl_json_object();
	RetlJson   *report = retl_json_object();
	RetlFieldType *fields = palloc0(declarations->len * sizeof(RetlFieldType));
	const RetlFieldType **pointers = palloc0(declarations->len * sizeof(RetlFieldType *));
	List	   *errors = NIL;
	StringInfoData out;

	for (int i = 0; i < declarations->len; i++)
	{
		const RetlJsonMember *member = &declarations->members[i];
		RetlJson   *value;

		retl_field_compile(&fields[i], member->key, member->keylen, member->value);
		pointers[i] = &fields[i];
		value = retl_json_get(payload, member->key, member->keylen);
		value = value != NULL ? retl_field_coerce(&fields[i], value, &errors) : NULL;
		if (value != NULL)
			retl_json_set(result, member->key, member->keylen, value);
	}
	if (errors == NIL)
		retl_fields_require(pointers, declarations->len, get_field, result, &errors);
	if (errors == NIL)
		retl_json_set(report, "payload", 7, result);
	else
	{
		RetlJson   *list = retl_json_array();

		for (int i = 0; i < list_length(errors); i++)
			retl_json_push(list, retl_json_string(list_nth(errors, i), strlen(list_nth(errors, i))));
		retl_json_set(report, "errors", 6, list);
	}
	initStringInfo(&out);
	retl_json_write(&out, report);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}

#endif							/* RETL_TESTING */
