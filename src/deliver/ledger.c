/*
 * ledger.c
 *		The delivery worker's SQL; see ledger.h.
 *
 * Statements are prepared once per process. They take sets as arrays, so that
 * a group of outcomes is a handful of statements whatever its size. Rows are
 * found by id = ANY (array), and what belongs to a row by its place in that
 * array. A join with unnest() would say the same, but leaves it to the planner
 * to walk along the table and search the array for each row; which it did,
 * with statistics from a time when the table was empty.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/sql.h"
#include "deliver/bisect.h"
#include "deliver/ledger.h"

typedef struct Statement
{
	const char *text;
	SPIPlanPtr	plan;
} Statement;

static int64
run_statement(Statement *statement, RetlArgs *args)
{
	int			code;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->text, args->count, args->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", statement->text);
		statement->plan = plan;
	}
	args->nulls[args->count] = '\0';
	code = SPI_execute_plan(statement->plan, args->values, args->nulls, false, 0);
	if (code < 0)
		elog(ERROR, "SPI returned %s for: %s", SPI_result_code_string(code), statement->text);
	return (int64) SPI_processed;
}

/* Parameters that are arrays */

static void
arg_int8_array(RetlArgs *args, int count, const int64 *values)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		datums[i] = Int64GetDatum(values[i]);
	retl_arg_datum(args, INT8ARRAYOID,
				   PointerGetDatum(construct_array(datums, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
				   false);
}

typedef struct ArrayBuilder
{
	int			count;
	Datum	   *values;
	bool	   *nulls;
} ArrayBuilder;

static void
array_start(ArrayBuilder *array, int size)
{
	array->count = 0;
	array->values = palloc(sizeof(Datum) * Max(size, 1));
	array->nulls = palloc(sizeof(bool) * Max(size, 1));
}

static void
array_add(ArrayBuilder *array, Datum value, bool isnull)
{
	array->values[array->count] = value;
	array->nulls[array->count++] = isnull;
}

static void
array_add_text(ArrayBuilder *array, const char *text)
{
	array_add(array, text != NULL ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static void
arg_array(RetlArgs *args, ArrayBuilder *array, Oid array_type)
{
	static const struct
	{
		Oid			array;
		Oid			element;
		int			len;
		bool		byval;
		char		align;
	}			types[] = {
		{INT8ARRAYOID, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{INT4ARRAYOID, INT4OID, 4, true, TYPALIGN_INT},
		{BOOLARRAYOID, BOOLOID, 1, true, TYPALIGN_CHAR},
		{FLOAT8ARRAYOID, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TEXTARRAYOID, TEXTOID, -1, false, TYPALIGN_INT},
	};
	int			low = 1;

	for (int i = 0; i < lengthof(types); i++)
	{
		if (types[i].array == array_type)
		{
			retl_arg_datum(args, array_type,
						   PointerGetDatum(construct_md_array(array->values, array->nulls, 1, &array->count, &low,
															  types[i].element, types[i].len, types[i].byval,
															  types[i].align)),
						   false);
			return;
		}
	}
	elog(ERROR, "no array type %u", array_type);
}

/* Reading */

int
retl_ledger_runs(RetlLedgerRun **runs)
{
	static Statement statement = {
		"SELECT r.id, r.mapping, m.destination, d.enabled AND m.enabled, r.stop_reason IS NOT NULL, r.quiesced,"
		" r.planned OR r.phase >= 2, r.planned, r.open_batches, r.open_bytes, d.xmin, c.xmin"
		" FROM retl.run r"
		" JOIN retl.mapping m ON m.id = r.mapping"
		" JOIN retl.destination d ON d.id = m.destination"
		" JOIN retl.connector c ON c.name = d.connector"
		" WHERE r.finished_at IS NULL AND r.status IN ('planning', 'delivering')"
		" ORDER BY r.id"
	};
	RetlArgs	args = {0};
	int			count = (int) run_statement(&statement, &args);

	*runs = palloc0(sizeof(RetlLedgerRun) * Max(count, 1));
	for (int row = 0; row < count; row++)
	{
		RetlLedgerRun *run = &(*runs)[row];

		run->id = retl_result_int8(row, 1);
		run->mapping = retl_result_int8(row, 2);
		run->destination = retl_result_int8(row, 3);
		run->enabled = retl_result_bool(row, 4);
		run->stopped = retl_result_bool(row, 5);
		run->quiesced = retl_result_bool(row, 6);
		run->late = retl_result_bool(row, 7);
		run->planned = retl_result_bool(row, 8);
		run->open_batches = retl_result_int8(row, 9);
		run->open_bytes = retl_result_int8(row, 10);
		run->destination_version = retl_result_oid(row, 11);
		run->connector_version = retl_result_oid(row, 12);
	}
	return count;
}

bool
retl_ledger_destination(int64 id, RetlLedgerDestination *destination)
{
	static Statement statement = {
		"SELECT d.name, d.settings, c.definition FROM retl.destination d"
		" JOIN retl.connector c ON c.name = d.connector WHERE d.id = $1"
	};
	RetlArgs	args = {0};

	retl_arg_int8(&args, id);
	if (run_statement(&statement, &args) == 0)
		return false;
	destination->id = id;
	destination->name = retl_result_text(0, 1);
	destination->settings = retl_result_text(0, 2);
	destination->connector = retl_result_text(0, 3);
	return true;
}

int
retl_ledger_batches(int64 run, int stage, int64 after, TimestampTz now, int limit, RetlLedgerBatch **batches)
{
	static Statement statement = {
		"SELECT b.id, b.records, b.bytes, b.attempts, b.idempotency_key"
		" FROM retl.batch b"
		" WHERE b.run = $1 AND b.stage = $2 AND b.id > $3 AND b.status = 'pending'"
		" AND (b.next_attempt_at IS NULL OR b.next_attempt_at <= $4)"
		" ORDER BY b.run, b.stage, b.id LIMIT $5"
	};
	RetlArgs	args = {0};
	int			count;

	retl_arg_int8(&args, run);
	retl_arg_datum(&args, INT2OID, Int16GetDatum(stage), false);
	retl_arg_int8(&args, after);
	retl_arg_timestamptz(&args, now);
	retl_arg_int8(&args, limit);
	count = (int) run_statement(&statement, &args);

	*batches = palloc(sizeof(RetlLedgerBatch) * Max(count, 1));
	for (int row = 0; row < count; row++)
	{
		RetlLedgerBatch *batch = &(*batches)[row];
		char	   *key = retl_result_text(row, 5);

		batch->id = retl_result_int8(row, 1);
		batch->stage = stage;
		batch->records = retl_result_int4(row, 2);
		batch->bytes = retl_result_int4(row, 3);
		batch->attempts = retl_result_int4(row, 4);
		if (strlcpy(batch->key, key, sizeof(batch->key)) >= sizeof(batch->key))
			elog(ERROR, "idempotency key of batch " INT64_FORMAT " is too long", batch->id);
		pfree(key);
	}
	return count;
}

bool
retl_ledger_early_pending(int64 run)
{
	static Statement statement = {
		"SELECT FROM retl.batch b WHERE b.run = $1 AND b.stage = 0 AND b.status = 'pending' LIMIT 1"
	};
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	return run_statement(&statement, &args) > 0;
}

TimestampTz
retl_ledger_next_due(int64 run, TimestampTz now)
{
	static Statement statement = {
		"SELECT min(b.next_attempt_at) FROM retl.batch b"
		" WHERE b.run = $1 AND b.status = 'pending' AND b.next_attempt_at > $2"
	};
	RetlArgs	args = {0};
	bool		isnull;
	Datum		value;

	retl_arg_int8(&args, run);
	retl_arg_timestamptz(&args, now);
	run_statement(&statement, &args);
	value = retl_result_datum(0, 1, &isnull);
	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

void
retl_ledger_bodies(int count, const int64 *batches, RetlLedgerTakeBody take, void *arg)
{
	static Statement statement = {
		"SELECT bb.batch, bb.request, bb.body FROM retl.batch_body bb WHERE bb.batch = ANY ($1)"
	};
	RetlArgs	args = {0};
	int64		found;

	arg_int8_array(&args, count, batches);
	found = run_statement(&statement, &args);
	for (int64 row = 0; row < found; row++)
	{
		bool		isnull;
		Datum		request = retl_result_datum(row, 2, &isnull);
		Datum		body = retl_result_datum(row, 3, &isnull);
		struct varlena *request_text = PG_DETOAST_DATUM_PACKED(request);
		struct varlena *body_text = PG_DETOAST_DATUM_PACKED(body);

		take(arg, retl_result_int8(row, 1),
			 VARDATA_ANY(request_text), VARSIZE_ANY_EXHDR(request_text),
			 VARDATA_ANY(body_text), VARSIZE_ANY_EXHDR(body_text));
		if ((Pointer) body_text != DatumGetPointer(body))
			pfree(body_text);
		if ((Pointer) request_text != DatumGetPointer(request))
			pfree(request_text);
	}
}

/* Writing */

/* What a group of outcomes adds up to for one run. */
typedef struct RunSum
{
	int64		run;
	bool		locked;
	int64		sent;
	int64		failed;
	int64		retried;
	int64		closed;
	int64		bytes;
} RunSum;

static int
compare_runs(const void *a, const void *b)
{
	int64		left = ((const RunSum *) a)->run;
	int64		right = ((const RunSum *) b)->run;

	return (left > right) - (left < right);
}

static RunSum *
find_run(RunSum *sums, int count, int64 run)
{
	RunSum		key = {.run = run};

	return bsearch(&key, sums, count, sizeof(RunSum), compare_runs);
}

/* One entry for each run that occurs, in the order of their numbers. */
static int
distinct_runs(int count, RetlLedgerResult **results, RunSum **sums)
{
	int			nsums = 0;

	*sums = palloc0(sizeof(RunSum) * count);
	for (int i = 0; i < count; i++)
		(*sums)[i].run = results[i]->run;
	qsort(*sums, count, sizeof(RunSum), compare_runs);
	for (int i = 0; i < count; i++)
	{
		if (i == 0 || (*sums)[i].run != (*sums)[nsums - 1].run)
			(*sums)[nsums++].run = (*sums)[i].run;
	}
	return nsums;
}

/* Locks the runs that nobody else has locked. */
static void
lock_runs(int count, RunSum *sums)
{
	static Statement lock = {
		"SELECT r.id FROM retl.run r WHERE r.id = ANY ($1) ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED"
	};
	RetlArgs	args = {0};
	int64	   *ids = palloc(sizeof(int64) * count);
	int64		locked;

	for (int i = 0; i < count; i++)
		ids[i] = sums[i].run;
	arg_int8_array(&args, count, ids);
	locked = run_statement(&lock, &args);
	for (int64 row = 0; row < locked; row++)
		find_run(sums, count, retl_result_int8(row, 1))->locked = true;
}

void
retl_ledger_fail(int64 run, const char *error)
{
	static Statement statement = {
		"UPDATE retl.run r SET stop_reason = $2, error_code = $3, error = $2,"
		" hint = 'Look at the destination''s settings and secrets; what was not delivered is tried again by the next sync.'"
		" WHERE r.id = $1 AND r.stop_reason IS NULL AND r.finished_at IS NULL"
	};
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	retl_arg_text(&args, error);
	retl_arg_text(&args, unpack_sql_state(ERRCODE_CONNECTION_EXCEPTION));
	run_statement(&statement, &args);
}

void
retl_ledger_quiesce(int count, const int64 *runs)
{
	static Statement statement = {
		"UPDATE retl.run r SET quiesced = true"
		" WHERE r.id = ANY ($1) AND r.stop_reason IS NOT NULL AND r.finished_at IS NULL"
	};
	RetlArgs	args = {0};
	RunSum	   *sums = palloc0(sizeof(RunSum) * count);
	int64	   *ids = palloc(sizeof(int64) * count);
	int			nids = 0;

	for (int i = 0; i < count; i++)
		sums[i].run = runs[i];
	qsort(sums, count, sizeof(RunSum), compare_runs);
	lock_runs(count, sums);
	for (int i = 0; i < count; i++)
	{
		if (sums[i].locked)
			ids[nids++] = sums[i].run;
	}
	arg_int8_array(&args, nids, ids);
	run_statement(&statement, &args);
}

static bool
run_exists(int64 run)
{
	static Statement statement = {"SELECT FROM retl.run r WHERE r.id = $1"};
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	return run_statement(&statement, &args) > 0;
}

/* Nearly all answers are alike: one statement for each status that occurs. */
static void
record_delivered(int count, RetlLedgerResult **results, TimestampTz now)
{
	static Statement statement = {
		"UPDATE retl.batch b SET status = 'delivered', attempts = b.attempts + 1, http_status = $2,"
		" error = NULL, next_attempt_at = NULL, finished_at = $3"
		" WHERE b.id = ANY ($1) AND b.finished_at IS NULL"
	};
	int64	   *ids = palloc(sizeof(int64) * count);
	bool	   *done = palloc0(sizeof(bool) * count);

	for (int first = 0; first < count; first++)
	{
		RetlArgs	args = {0};
		int			nids = 0;

		if (done[first] || results[first]->kind != RETL_ACCEPTED)
			continue;
		for (int i = first; i < count; i++)
		{
			if (results[i]->kind != RETL_ACCEPTED || results[i]->http_status != results[first]->http_status)
				continue;
			ids[nids++] = results[i]->batch;
			done[i] = true;
		}
		arg_int8_array(&args, nids, ids);
		retl_arg_int4(&args, results[first]->http_status);
		retl_arg_timestamptz(&args, now);
		if (run_statement(&statement, &args) != nids)
			elog(ERROR, "batches that were delivered are no longer pending");
	}
}

static void
record_others(int count, RetlLedgerResult **results, TimestampTz now)
{
	static Statement statement = {
		"UPDATE retl.batch b SET status = ($2)[array_position($1, b.id)], attempts = b.attempts + 1,"
		" http_status = ($3)[array_position($1, b.id)], error = ($4)[array_position($1, b.id)],"
		" next_attempt_at = ($5)[array_position($1, b.id)], maybe = b.maybe OR ($6)[array_position($1, b.id)],"
		" finished_at = CASE WHEN ($2)[array_position($1, b.id)] <> 'pending' THEN $7 END,"
		" failed = CASE WHEN ($2)[array_position($1, b.id)] = 'failed' THEN b.records ELSE 0 END"
		" WHERE b.id = ANY ($1) AND b.finished_at IS NULL"
	};
	RetlArgs	args = {0};
	ArrayBuilder ids;
	ArrayBuilder statuses;
	ArrayBuilder http;
	ArrayBuilder errors;
	ArrayBuilder next;
	ArrayBuilder maybe;

	array_start(&ids, count);
	array_start(&statuses, count);
	array_start(&http, count);
	array_start(&errors, count);
	array_start(&next, count);
	array_start(&maybe, count);
	for (int i = 0; i < count; i++)
	{
		RetlLedgerResult *result = results[i];

		if (result->kind == RETL_ACCEPTED)
			continue;
		array_add(&ids, Int64GetDatum(result->batch), false);
		array_add_text(&statuses, result->kind == RETL_RETRY ? "pending" :
					   result->halves != NULL ? "split" : "failed");
		array_add(&http, Int32GetDatum(result->http_status), result->http_status == 0);
		array_add_text(&errors, result->error);
		array_add(&next, TimestampTzGetDatum(result->next_attempt_at), result->kind != RETL_RETRY);
		array_add(&maybe, BoolGetDatum(result->maybe), false);
	}
	if (ids.count == 0)
		return;
	arg_array(&args, &ids, INT8ARRAYOID);
	arg_array(&args, &statuses, TEXTARRAYOID);
	arg_array(&args, &http, INT4ARRAYOID);
	arg_array(&args, &errors, TEXTARRAYOID);
	arg_array(&args, &next, TIMESTAMPTZARRAYOID);
	arg_array(&args, &maybe, BOOLARRAYOID);
	retl_arg_timestamptz(&args, now);
	if (run_statement(&statement, &args) != ids.count)
		elog(ERROR, "batches whose outcome is known are no longer pending");
}

static void
record_attempts(int count, RetlLedgerResult **results)
{
	static Statement statement = {
		"INSERT INTO retl.attempt (batch, attempt, at, seconds, http_status, error, answer)"
		" SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)"
	};
	RetlArgs	args = {0};
	ArrayBuilder batches;
	ArrayBuilder attempts;
	ArrayBuilder at;
	ArrayBuilder seconds;
	ArrayBuilder http;
	ArrayBuilder errors;
	ArrayBuilder answers;

	array_start(&batches, count);
	array_start(&attempts, count);
	array_start(&at, count);
	array_start(&seconds, count);
	array_start(&http, count);
	array_start(&errors, count);
	array_start(&answers, count);
	for (int i = 0; i < count; i++)
	{
		RetlLedgerResult *result = results[i];

		array_add(&batches, Int64GetDatum(result->batch), false);
		array_add(&attempts, Int32GetDatum(result->attempt), false);
		array_add(&at, TimestampTzGetDatum(result->at), false);
		array_add(&seconds, Float8GetDatum(result->seconds), false);
		array_add(&http, Int32GetDatum(result->http_status), result->http_status == 0);
		array_add_text(&errors, result->error);
		array_add_text(&answers, result->answer);
	}
	arg_array(&args, &batches, INT8ARRAYOID);
	arg_array(&args, &attempts, INT4ARRAYOID);
	arg_array(&args, &at, TIMESTAMPTZARRAYOID);
	arg_array(&args, &seconds, FLOAT8ARRAYOID);
	arg_array(&args, &http, INT4ARRAYOID);
	arg_array(&args, &errors, TEXTARRAYOID);
	arg_array(&args, &answers, TEXTARRAYOID);
	run_statement(&statement, &args);
}

/*
 * Every record of a batch that failed becomes an exception. One that stands
 * already keeps what it knows of the acknowledged row: nothing was acknowledged since.
 */
static void
record_exceptions(int count, RetlLedgerResult **results, TimestampTz now)
{
	static Statement statement = {
		"INSERT INTO retl.exception AS e"
		" (mapping, key, run, batch, operation, reason, http_status, error, maybe, resolved, failed_at)"
		" SELECT DISTINCT ON (b.mapping, k.value::text) b.mapping, k.value::text, b.run, b.id,"
		" CASE substr(bb.operations, k.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,"
		" ($2)[array_position($1, b.id)], b.http_status, b.error, b.maybe, false, $3"
		" FROM retl.batch b JOIN retl.batch_body bb ON bb.batch = b.id"
		" CROSS JOIN LATERAL json_array_elements(bb.keys) WITH ORDINALITY AS k (value, n)"
		" WHERE b.id = ANY ($1) AND bb.batch = ANY ($1)"
		" ORDER BY b.mapping, k.value::text, b.id DESC"
		" ON CONFLICT (mapping, key) DO UPDATE SET run = excluded.run, batch = excluded.batch,"
		" operation = excluded.operation, reason = excluded.reason, http_status = excluded.http_status,"
		" error = excluded.error, maybe = e.maybe OR excluded.maybe, attempts = e.attempts + 1,"
		" failed_at = excluded.failed_at"
	};
	RetlArgs	args = {0};
	ArrayBuilder ids;
	ArrayBuilder reasons;

	array_start(&ids, count);
	array_start(&reasons, count);
	for (int i = 0; i < count; i++)
	{
		RetlLedgerResult *result = results[i];

		if (result->halves != NULL || (result->kind != RETL_REJECTED && result->kind != RETL_GAVE_UP))
			continue;
		array_add(&ids, Int64GetDatum(result->batch), false);
		array_add_text(&reasons, result->kind == RETL_REJECTED ? "rejected" : "gave_up");
	}
	if (ids.count == 0)
		return;
	arg_array(&args, &ids, INT8ARRAYOID);
	arg_array(&args, &reasons, TEXTARRAYOID);
	retl_arg_timestamptz(&args, now);
	run_statement(&statement, &args);
}

/* Inserts the two halves of a batch; returns their bytes. */
static int64
insert_halves(RetlLedgerResult *result, TimestampTz now)
{
	static Statement keys = {"SELECT bb.keys, bb.operations FROM retl.batch_body bb WHERE bb.batch = $1"};
	static Statement insert = {
		"WITH half AS ("
		" INSERT INTO retl.batch (run, mapping, mapping_version, destination, stage, records, bytes,"
		" idempotency_key, maybe, created_at)"
		" SELECT b.run, b.mapping, b.mapping_version, b.destination, b.stage, $2, $3, $4, b.maybe, $5"
		" FROM retl.batch b WHERE b.id = $1 RETURNING id)"
		" INSERT INTO retl.batch_body (batch, request, body, keys, operations)"
		" SELECT half.id, bb.request, $6, $7::json, $8 FROM half, retl.batch_body bb WHERE bb.batch = $1"
	};
	RetlArgs	args = {0};
	int64		bytes = 0;

	retl_arg_int8(&args, result->batch);
	if (run_statement(&keys, &args) != 1)
		elog(ERROR, "batch " INT64_FORMAT " has no body", result->batch);
	retl_bisect_keys(result->halves, retl_result_text(0, 1), retl_result_text(0, 2));

	for (int i = 0; i < 2; i++)
	{
		RetlHalf   *half = &result->halves->half[i];
		RetlArgs	values = {0};

		retl_arg_int8(&values, result->batch);
		retl_arg_int4(&values, half->records);
		retl_arg_int4(&values, half->body_len);
		retl_arg_text(&values, half->idempotency_key);
		retl_arg_timestamptz(&values, now);
		retl_arg_datum(&values, TEXTOID, PointerGetDatum(cstring_to_text_with_len(half->body, half->body_len)), false);
		retl_arg_text(&values, half->keys);
		retl_arg_text(&values, half->operations);
		run_statement(&insert, &values);
		bytes += half->body_len;
	}
	return bytes;
}

/*
 * Counts, and ends the runs that are complete and leave nothing to clear up:
 * where there are exceptions, of this run or before it, the snapshot worker ends the run.
 */
static void
record_runs(int nsums, RunSum *sums, TimestampTz now, RetlLedgerRunState **states, int *nstates)
{
	static Statement update = {
		"UPDATE retl.run r SET sent = r.sent + ($2)[array_position($1, r.id)],"
		" failed = r.failed + ($3)[array_position($1, r.id)],"
		" retried = r.retried + ($4)[array_position($1, r.id)],"
		" open_batches = r.open_batches - ($5)[array_position($1, r.id)],"
		" open_bytes = r.open_bytes - ($6)[array_position($1, r.id)],"
		" delivery_seconds = extract(epoch FROM $7 - coalesce(r.delivering_since, r.started_at, $7))::float8"
		" WHERE r.id = ANY ($1)"
		" RETURNING r.id, r.stop_reason IS NOT NULL, r.planned OR r.phase >= 2, r.planned, r.finished_at IS NOT NULL,"
		" r.open_batches, r.open_bytes, r.mapping, r.planned AND r.finished_at IS NULL AND r.stop_reason IS NULL"
		" AND r.open_batches = 0 AND r.failed = 0"
	};
	static Statement end = {
		"UPDATE retl.run r SET status = 'succeeded', finished_at = $2 WHERE r.id = ANY ($1)"
		" AND NOT EXISTS (SELECT FROM retl.exception e WHERE e.mapping = r.mapping)"
		" RETURNING r.id, r.mapping"
	};
	static Statement release = {
		"UPDATE retl.mapping_state s SET active_run = NULL"
		" WHERE s.mapping = ANY ($1) AND s.active_run = ($2)[array_position($1, s.mapping)]"
	};
	RetlArgs	args = {0};
	RetlArgs	complete = {0};
	RetlArgs	ended = {0};
	ArrayBuilder columns[6];
	int64	   *runs = palloc(sizeof(int64) * nsums);
	int64	   *mappings = palloc(sizeof(int64) * nsums);
	int			ncomplete = 0;
	int64		updated;

	for (int i = 0; i < lengthof(columns); i++)
		array_start(&columns[i], nsums);
	for (int i = 0; i < nsums; i++)
	{
		if (!sums[i].locked)
			continue;
		array_add(&columns[0], Int64GetDatum(sums[i].run), false);
		array_add(&columns[1], Int64GetDatum(sums[i].sent), false);
		array_add(&columns[2], Int64GetDatum(sums[i].failed), false);
		array_add(&columns[3], Int64GetDatum(sums[i].retried), false);
		array_add(&columns[4], Int64GetDatum(sums[i].closed), false);
		array_add(&columns[5], Int64GetDatum(sums[i].bytes), false);
	}
	for (int i = 0; i < lengthof(columns); i++)
		arg_array(&args, &columns[i], INT8ARRAYOID);
	retl_arg_timestamptz(&args, now);
	updated = run_statement(&update, &args);

	for (int64 row = 0; row < updated; row++)
	{
		RetlLedgerRunState *state = &(*states)[(*nstates)++];

		memset(state, 0, sizeof(*state));
		state->id = retl_result_int8(row, 1);
		state->stopped = retl_result_bool(row, 2);
		state->late = retl_result_bool(row, 3);
		state->planned = retl_result_bool(row, 4);
		state->finished = retl_result_bool(row, 5);
		state->open_batches = retl_result_int8(row, 6);
		state->open_bytes = retl_result_int8(row, 7);
		state->bytes_recorded = find_run(sums, nsums, state->id)->bytes;
		if (retl_result_bool(row, 9))
			runs[ncomplete++] = state->id;
	}
	if (ncomplete == 0)
		return;

	arg_int8_array(&complete, ncomplete, runs);
	retl_arg_timestamptz(&complete, now);
	updated = run_statement(&end, &complete);
	for (int64 row = 0; row < updated; row++)
	{
		runs[row] = retl_result_int8(row, 1);
		mappings[row] = retl_result_int8(row, 2);
		for (int i = 0; i < *nstates; i++)
		{
			if ((*states)[i].id == runs[row])
				(*states)[i].finished = true;
		}
	}
	arg_int8_array(&ended, (int) updated, mappings);
	arg_int8_array(&ended, (int) updated, runs);
	run_statement(&release, &ended);
}

void
retl_ledger_record(int count, RetlLedgerResult **results, int *nstates, RetlLedgerRunState **states)
{
	TimestampTz now = GetCurrentTimestamp();
	RetlLedgerResult **group = palloc(sizeof(RetlLedgerResult *) * Max(count, 1));
	RunSum	   *sums;
	int			nsums;
	int			ngroup = 0;

	*nstates = 0;
	nsums = distinct_runs(count, results, &sums);
	*states = palloc0(sizeof(RetlLedgerRunState) * Max(nsums, 1));
	lock_runs(nsums, sums);
	for (int i = 0; i < nsums; i++)
	{
		if (!sums[i].locked && !run_exists(sums[i].run))
		{
			(*states)[*nstates].id = sums[i].run;
			(*states)[(*nstates)++].gone = true;
		}
	}
	for (int i = 0; i < count; i++)
	{
		results[i]->recorded = find_run(sums, nsums, results[i]->run)->locked;
		if (results[i]->recorded)
			group[ngroup++] = results[i];
	}
	if (ngroup == 0)
		return;

	record_delivered(ngroup, group, now);
	record_others(ngroup, group, now);
	record_attempts(ngroup, group);
	record_exceptions(ngroup, group, now);
	for (int i = 0; i < ngroup; i++)
	{
		RetlLedgerResult *result = group[i];
		RunSum	   *sum = find_run(sums, nsums, result->run);

		sum->retried += result->attempt > 1;
		if (result->kind == RETL_RETRY)
			continue;
		sum->closed++;
		sum->bytes += result->bytes;
		if (result->kind == RETL_ACCEPTED)
			sum->sent += result->records;
		else if (result->halves == NULL)
			sum->failed += result->records;
		else
		{
			sum->closed -= 2;
			sum->bytes -= insert_halves(result, now);
		}
	}
	record_runs(nsums, sums, now, states, nstates);
}
