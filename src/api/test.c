/*
 * test.c
 *		test_mapping, test_destination: one request, sent by the delivery worker
 *		like any other, whose answer comes back to the caller. Nothing is stored
 *		of it, here or there: no run, no batch, no state of a mapping.
 *
 * What is sent is made here; the worker adds authentication, which never comes
 * to this side.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "api/mask.h"
#include "api/sample.h"
#include "base/channel.h"
#include "base/json.h"
#include "base/shmem.h"
#include "base/sql.h"
#include "map/connector.h"
#include "map/wire.h"

PG_FUNCTION_INFO_V1(retl_test_mapping);
PG_FUNCTION_INFO_V1(retl_test_destination);

#define KEY_BYTES 8

/* A request goes on so long after its caller gave up. */
#define GRACE_MS 1000

#define MAPPING_COLUMNS 8
#define DESTINATION_COLUMNS 6

/* What a test of a destination sends. */
typedef struct TestRequest
{
	char	   *stored;			/* {"method", "url", "headers"} */
	char	   *body;
	bool		declared;		/* by the connector; else it tells only whether there is an answer */
} TestRequest;

/* --------------------------------------------------------------------------
 * Asking
 * -------------------------------------------------------------------------- */

static TimestampTz
deadline_argument(FunctionCallInfo fcinfo, int n)
{
	Interval   *timeout;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "timeout")));
	timeout = PG_GETARG_INTERVAL_P(n);
	if (timeout->time < 0 || timeout->day < 0 || timeout->month < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   PointerGetDatum(timeout)));
}

/* Other than any key of a batch, so that no destination takes a test for a repetition. */
static char *
test_key(void)
{
	uint8		bytes[KEY_BYTES];
	StringInfoData key;

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate an idempotency key")));
	initStringInfo(&key);
	appendStringInfoString(&key, "test-");
	for (int i = 0; i < KEY_BYTES; i++)
		appendStringInfo(&key, "%02x", bytes[i]);
	return key.data;
}

static void
ask(int64 destination, const char *stored, const char *body, const char *key, TimestampTz deadline,
	RetlChannelAnswer *answer)
{
	RetlChannelRequest request = {.destination = destination, .request = stored, .body = body, .key = key};
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	/* the worker gives up a little later, so that it is always the caller who does */
	request.timeout_ms = (int) Min(Max(left, 1) + GRACE_MS, PG_INT32_MAX);
	retl_channel_ask(&request, deadline, answer);
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	values[column] = text == NULL ? (Datum) 0 : SPI_datumTransfer(CStringGetTextDatum(text), false, -1);
}

static void
set_answer(Datum *values, bool *nulls, int status, int seconds, const RetlChannelAnswer *answer)
{
	nulls[status] = answer->http_status == 0;
	values[status] = Int32GetDatum(answer->http_status);
	nulls[seconds] = answer->http_status == 0;
	values[seconds] = SPI_datumTransfer(Float8GetDatum(answer->seconds), FLOAT8PASSBYVAL, sizeof(float8));
}

static TupleDesc
result_type(FunctionCallInfo fcinfo)
{
	TupleDesc	descriptor;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return BlessTupleDesc(descriptor);
}

/* --------------------------------------------------------------------------
 * test_mapping
 * -------------------------------------------------------------------------- */

Datum
retl_test_mapping(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	char	   *key = PG_ARGISNULL(1) ? NULL : retl_api_json(fcinfo, 1, "key");
	bool		send = retl_api_bool(fcinfo, 2, "send");
	TimestampTz deadline = deadline_argument(fcinfo, 3);
	TupleDesc	descriptor = result_type(fcinfo);
	char	   *idempotency_key = test_key();
	Datum		values[MAPPING_COLUMNS] = {0};
	bool		nulls[MAPPING_COLUMNS];
	RetlChannelAnswer answer = {0};
	RetlCall	call;
	RetlObject	mapping;
	RetlSample *sample;
	RetlSampleRow row = {0};
	char	   *request = NULL;
	int64		destination;
	bool		found;

	if (send)
		retl_require_workers();
	memset(nulls, true, sizeof(nulls));
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);

	sample = retl_sample_open(mapping.id, key, idempotency_key);
	destination = retl_sample_destination(sample);
	found = retl_sample_next(sample, &row);
	if (!found)
		row.error = key != NULL ? "the model has no row of this key" :
			"the model has no row that the mapping's filter lets through";
	else if (row.request != NULL)
		request = retl_mask_request(retl_mask_prepare(destination, retl_sample_connector(sample),
													  retl_sample_settings(sample)),
									row.request, row.body, idempotency_key, &row.error);
	retl_sample_close(sample);
	if (send && request != NULL)
	{
		ask(destination, row.request, row.body, idempotency_key, deadline, &answer);
		row.error = answer.error;
	}

	set_text(values, nulls, 0, row.key);
	set_text(values, nulls, 1, found ? retl_operation_name(row.operation) : NULL);
	set_text(values, nulls, 2, row.payload);
	set_text(values, nulls, 3, request);
	set_answer(values, nulls, 4, 5, &answer);
	set_text(values, nulls, 6, answer.body);
	set_text(values, nulls, 7, row.error);
	retl_api_end(&call);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
}

/* --------------------------------------------------------------------------
 * test_destination
 * -------------------------------------------------------------------------- */

/* Compiles a request of the connector's, as that of an action without fields, and makes it. */
static void
make_request(const char *connector_text, const char *settings_text, RetlJson *definition, TestRequest *test)
{
	RetlJson   *connector = retl_connector_parse(connector_text);
	RetlJson   *settings = retl_connector_parse(settings_text);
	RetlJson   *action = retl_json_object();
	RetlEnvelope envelope = {.operation = RETL_ADDED, .key = "null", .message_id = "test", .timestamp = ""};
	bool		has_body = retl_json_member(definition, "record") != NULL ||
		retl_json_member(definition, "body") != NULL;
	RetlWire   *wire;
	StringInfoData group;
	StringInfoData record;
	StringInfoData body;
	char	   *error = NULL;

	retl_json_set(action, "request", strlen("request"), definition);
	wire = retl_wire_compile(connector, action, settings, NULL, 0, 1);
	initStringInfo(&group);
	initStringInfo(&record);
	initStringInfo(&body);
	if (!retl_wire_record(wire, &envelope, retl_slice("{}", 2), &group, &record, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no request can be made with these settings"),
				 errdetail("The %s.", error)));
	if (has_body)
	{
		retl_wire_body_begin(wire, group.data, &body);
		appendBinaryStringInfo(&body, record.data, record.len);
		retl_wire_body_end(wire, group.data, &body);
	}
	test->stored = group.data;
	test->body = body.data;
}

/* The first setting that is a URL, where the connector has no address of its own. */
static RetlJson *
url_setting(const RetlJson *connector, const char *settings_text)
{
	RetlJson   *declared = retl_json_member(connector, "settings");
	RetlJson   *settings = retl_connector_parse(settings_text);

	for (int i = 0; declared != NULL && i < declared->len; i++)
	{
		RetlJsonMember *member = &declared->members[i];
		RetlJson   *value = retl_json_get(settings, member->key, member->keylen);

		if (retl_json_is_string(retl_json_member(member->value, "format"), "url") &&
			value != NULL && value->type == RETL_JSON_STRING)
			return value;
	}
	return NULL;
}

/*
 * The connector's own test; else OPTIONS at its address, which by its nature
 * changes nothing there: that name, connection, TLS and secrets are in order.
 */
static void
choose_request(const char *connector_text, const char *settings_text, TestRequest *test)
{
	RetlJson   *connector = retl_connector_parse(connector_text);
	RetlJson   *definition = retl_json_member(connector, "test");
	RetlJson   *url;
	RetlJson   *request;
	StringInfoData stored;

	test->declared = definition != NULL;
	if (definition != NULL)
	{
		make_request(connector_text, settings_text, definition, test);
		return;
	}

	request = retl_json_object();
	url = retl_json_member(connector, "base_url") != NULL ? retl_json_string("/", 1) :
		url_setting(connector, settings_text);
	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the connector declares neither a test nor an address"),
				 errhint("Test a mapping to the destination instead: retl.test_mapping(..., send => true).")));
	retl_json_set(request, "url", strlen("url"), url);
	make_request(connector_text, settings_text, request, test);
	request = retl_connector_parse(test->stored);
	initStringInfo(&stored);
	appendStringInfoString(&stored, "{\"method\":\"OPTIONS\",\"url\":");
	retl_json_write(&stored, retl_json_member(request, "url"));
	appendStringInfoString(&stored, ",\"headers\":{}}");
	test->stored = stored.data;
	test->body = "";
}

Datum
retl_test_destination(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "name");
	TimestampTz deadline = deadline_argument(fcinfo, 1);
	TupleDesc	descriptor = result_type(fcinfo);
	char	   *idempotency_key = test_key();
	Datum		values[DESTINATION_COLUMNS] = {0};
	bool		nulls[DESTINATION_COLUMNS];
	RetlChannelAnswer answer = {0};
	TestRequest test = {0};
	RetlArgs	args = {0};
	RetlCall	call;
	RetlObject	destination;
	char	   *connector;
	char	   *settings;
	char	   *request;
	char	   *error = NULL;
	bool		good;

	retl_require_workers();
	memset(nulls, true, sizeof(nulls));
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_DESTINATION, name, false, &destination);
	retl_api_require_owner(&call, &destination);
	retl_arg_int8(&args, destination.id);
	(void) retl_sql("SELECT c.definition::text, d.settings::text FROM retl.destination d"
					" JOIN retl.connector c ON c.name = d.connector WHERE d.id = $1", &args);
	connector = retl_result_text(0, 1);
	settings = retl_result_text(0, 2);
	choose_request(connector, settings, &test);
	request = retl_mask_request(retl_mask_prepare(destination.id, connector, settings),
								test.stored, test.body, idempotency_key, &error);
	if (request != NULL)
	{
		ask(destination.id, test.stored, test.body, idempotency_key, deadline, &answer);
		error = answer.error;
	}

	/* without a test of its own, that there is an answer at all is what can be told */
	good = error == NULL && (test.declared ? answer.http_status >= 200 && answer.http_status < 300 :
							 answer.http_status > 0 && answer.http_status < 500 &&
							 answer.http_status != 401 && answer.http_status != 403 && answer.http_status != 407);
	values[0] = BoolGetDatum(good);
	nulls[0] = false;
	set_text(values, nulls, 1, request);
	set_answer(values, nulls, 2, 3, &answer);
	set_text(values, nulls, 4, answer.body);
	set_text(values, nulls, 5, error);
	retl_api_end(&call);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
}
