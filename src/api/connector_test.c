/*
 * connector_test.c
 *		For tests only: the requests that a mapping makes of rows, as they go on the
 *		wire.
 */
#include "postgres.h"

#ifdef RETL_TESTING

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "deliver/request.h"
#include "map/connector.h"
#include "map/mapping.h"

PG_FUNCTION_INFO_V1(retl_test_requests);

#define COLUMNS_MOST 1000

typedef struct Request
{
	char	   *group;
	StringInfoData body;
	int			records;
} Request;

static RetlShape *
read_row(int number, RetlSlice row, RetlSlice **values)
{
	RetlShape  *shape = palloc0(sizeof(RetlShape));
	RetlSliceIterator iterator;
	RetlSlice	key,
				value;

	shape->shape = number;
	shape->columns = palloc0(COLUMNS_MOST * sizeof(RetlColumn));
	*values = palloc0(COLUMNS_MOST * sizeof(RetlSlice));
	retl_slice_walk(&iterator, row);
	while (retl_slice_next(&iterator, &key, &value) && shape->ncolumns < COLUMNS_MOST)
	{
		int			len;
		const char *name = retl_slice_text(key, &len);

		shape->columns[shape->ncolumns].name = pnstrdup(name, len);
		shape->columns[shape->ncolumns].name_json = pnstrdup(key.data, key.len);
		(*values)[shape->ncolumns++] = value;
	}
	return shape;
}

static RetlSecrets *
read_secrets(char *text)
{
	RetlSecrets *secrets = palloc0(sizeof(RetlSecrets));
	RetlSliceIterator iterator;
	RetlSlice	key,
				value;

	secrets->items = palloc0(20 * sizeof(RetlSecret));
	retl_slice_walk(&iterator, retl_slice(text, strlen(text)));
	while (retl_slice_next(&iterator, &key, &value))
	{
		int			len;
		const char *name = retl_slice_text(key, &len);

		secrets->items[secrets->count].name = pnstrdup(name, len);
		name = retl_slice_text(value, &len);
		secrets->items[secrets->count++].value = pnstrdup(name, len);
	}
	return secrets;
}

static void
write_request(StringInfo out, const Request *request, const RetlAuthentication *authentication,
			  const RetlSecrets *secrets)
{
	RetlHttpHeader headers[RETL_REQUEST_HEADERS];
	RetlHttpRequest built;
	char	   *error;

	if (!retl_request_build(authentication, secrets, request->group, request->body.data, request->body.len,
							"key-1", GetCurrentTimestamp(), headers, &built, &error))
	{
		appendStringInfoString(out, "{\"error\":");
		retl_json_write_string(out, error, strlen(error));
		appendStringInfoChar(out, '}');
		return;
	}
	appendStringInfo(out, "{\"records\":%d,\"method\":\"%s\",\"url\":", request->records, built.method);
	retl_json_write_string(out, built.url, strlen(built.url));
	appendStringInfoString(out, ",\"headers\":{");
	for (int i = 0; i < built.nheaders; i++)
	{
		appendStringInfoString(out, i > 0 ? "," : "");
		retl_json_write_string(out, headers[i].name, strlen(headers[i].name));
		appendStringInfoChar(out, ':');
		retl_json_write_string(out, headers[i].value, strlen(headers[i].value));
	}
	appendStringInfoString(out, "},\"stored\":");
	retl_json_write_string(out, request->body.data, request->body.len);
	appendStringInfoString(out, ",\"body\":");
	if (built.body != NULL)
		retl_json_write_string(out, built.body, built.body_len);
	else
		appendStringInfoString(out, "null");
	appendStringInfoChar(out, '}');
}

/*
 * (connector, action, fields, settings, secrets, batch_size int, operation, rows)
 * -> {"requests": [...], "rows": [null or what is wrong with it, ...]}
 */
Datum
retl_test_requests(PG_FUNCTION_ARGS)
{
	char	   *args[8];
	RetlMapping *mapping;
	RetlAuthentication *authentication;
	RetlSecrets *secrets;
	RetlSliceIterator iterator;
	RetlSlice	key,
				row;
	Request    *requests = palloc0(100 * sizeof(Request));
	int			nrequests = 0;
	int			nrows = 0;
	StringInfoData out;
	StringInfoData rows;

	for (int i = 0; i < lengthof(args); i++)
		args[i] = i == 5 ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
	args[3] = retl_connector_settings(args[0], args[3]);
	mapping = retl_mapping_compile(args[0], args[1], args[2], args[3], PG_GETARG_INT32(5));
	authentication = retl_request_compile(args[0], args[3]);
	secrets = read_secrets(args[4]);
	initStringInfo(&out);
	initStringInfo(&rows);

	retl_slice_walk(&iterator, retl_slice(args[7], strlen(args[7])));
	while (retl_slice_next(&iterator, &key, &row))
	{
		RetlEnvelope envelope = {0};
		StringInfoData payload,
					group,
					record;
		Request    *request = nrequests > 0 ? &requests[nrequests - 1] : NULL;
		char	   *error;

		envelope.operation = args[6][0] == 'a' ? RETL_ADDED : args[6][0] == 'u' ? RETL_UPDATED : RETL_DELETED;
		envelope.key = psprintf("\"k%d\"", nrows);
		envelope.shape = read_row(nrows + 1, row, (RetlSlice **) &envelope.row);
		envelope.message_id = psprintf("retl-%04d", nrows + 1);
		envelope.timestamp = "2024-01-15T12:00:00.000Z";
		initStringInfo(&payload);
		initStringInfo(&group);
		initStringInfo(&record);
		appendStringInfoString(&rows, nrows++ > 0 ? "," : "");
		if (!retl_mapping_payload(mapping, &envelope, &payload, &error) ||
			!retl_mapping_record(mapping, &envelope, payload.data, payload.len, &group, &record, &error))
		{
			retl_json_write_string(&rows, error, strlen(error));
			continue;
		}
		appendStringInfoString(&rows, "null");
		if (request == NULL || request->records >= retl_mapping_batch_records(mapping) ||
			strcmp(request->group, group.data) != 0)
		{
			if (nrequests == 100)
				elog(ERROR, "too many requests for a test");
			request = &requests[nrequests++];
			request->group = pstrdup(group.data);
			initStringInfo(&request->body);
			retl_mapping_body_begin(mapping, group.data, &request->body);
		}
		retl_mapping_body_add(mapping, &request->body, record.data, record.len, request->records++ == 0);
	}

	appendStringInfoString(&out, "{\"requests\":[");
	for (int i = 0; i < nrequests; i++)
	{
		retl_mapping_body_end(mapping, requests[i].group, &requests[i].body);
		appendStringInfoString(&out, i > 0 ? "," : "");
		write_request(&out, &requests[i], authentication, secrets);
	}
	appendStringInfo(&out, "],\"rows\":[%s]}", rows.data);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}

#endif							/* RETL_TESTING */
