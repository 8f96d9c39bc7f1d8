/*
 * ledger.c
 *		What the delivery worker writes; see ledger.h, and ledger_read.c for what it reads.
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

#include "base/fault.h"
#include "base/sql.h"
#include "deliver/bisect.h"
#include "deliver/ledger.h"
#include "deliver/statement.h"

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
	static RetlStatement lock = {
		"SELECT r.id FROM retl.run r WHERE r.id = ANY ($1) ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED"
	};
	RetlArgs	args = {0};
	int64	   *ids = palloc(sizeof(int64) * count);
	int64		locked;

	for (int i = 0; i < count; i++)
		ids[i] = sums[i].run;
	retl_arg_int8_array(&args, count, ids);
	locked = retl_statement_run(&lock, &args);
	for (int64 row = 0; row < locked; row++)
		find_run(sums, count, retl_result_int8(row, 1))->locked = true;
}

bool
retl_ledger_fail(int64 run, const char *error)
{
	static RetlStatement statement = {
		"UPDATE retl.run r SET stop_reason = $2, error_code = $3, error = $2,"
		" hint = 'Look at the destination''s settings and secrets; what was not delivered is tried again by the next sync.'"
		" WHERE r.id = (SELECT x.id FROM retl.run x WHERE x.id = $1 AND x.stop_reason IS NULL AND x.finished_at IS NULL"
		" FOR NO KEY UPDATE SKIP LOCKED)"
	};
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	retl_arg_text(&args, error);
	retl_arg_text(&args, unpack_sql_state(ERRCODE_CONNECTION_EXCEPTION));
	return retl_statement_run(&statement, &args) > 0;
}

void
retl_ledger_inherit(void)
{
	static RetlStatement statement = {
		"UPDATE retl.sending SET under_way = false, unsure_to = (SELECT max(b.id) FROM retl.batch b), died_at = clock_timestamp()"
		" WHERE under_way"
	};
	RetlArgs	args = {0};

	retl_statement_run(&statement, &args);
}

void
retl_ledger_begin_sending(void)
{
	static RetlStatement statement = {
		"INSERT INTO retl.sending (under_way) VALUES (true) ON CONFLICT (one) DO UPDATE SET under_way = true"
	};
	RetlArgs	args = {0};

	retl_statement_run(&statement, &args);
}

void
retl_ledger_end_sending(void)
{
	static RetlStatement statement = {"UPDATE retl.sending SET under_way = false"};
	RetlArgs	args = {0};

	retl_statement_run(&statement, &args);
}

void
retl_ledger_quiesce(int count, const int64 *runs)
{
	static RetlStatement statement = {
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
	retl_arg_int8_array(&args, nids, ids);
	retl_statement_run(&statement, &args);
	RETL_FAULT("run_quiesced");
}

static bool
run_exists(int64 run)
{
	static RetlStatement statement = {"SELECT FROM retl.run r WHERE r.id = $1"};
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	return retl_statement_run(&statement, &args) > 0;
}

/* Nearly all answers are alike: one statement for each status that occurs. */
static void
record_delivered(int count, RetlLedgerResult **results, TimestampTz now)
{
	static RetlStatement statement = {
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
		retl_arg_int8_array(&args, nids, ids);
		retl_arg_int4(&args, results[first]->http_status);
		retl_arg_timestamptz(&args, now);
		if (retl_statement_run(&statement, &args) != nids)
			elog(ERROR, "batches that were delivered are no longer pending");
	}
}

/* How many records of a batch with an outcome, other than a retry, have the verdict. */
static int
records_of(const RetlLedgerResult *result, RetlVerdictKind kind)
{
	int			count = 0;

	if (result->kind == RETL_ACCEPTED)
		return kind == RETL_VERDICT_ACCEPTED ? result->records : 0;
	if (result->kind != RETL_PARTIAL)
		return kind == RETL_VERDICT_REJECTED && result->kind != RETL_RETRY && result->halves == NULL ? result->records : 0;
	for (int i = 0; i < result->records; i++)
		count += result->verdicts[i].kind == kind;
	return count;
}

static const char *
status_of(const RetlLedgerResult *result)
{
	if (result->kind == RETL_RETRY)
		return "pending";
	if (result->kind != RETL_PARTIAL)
		return result->halves != NULL ? "split" : "failed";
	if (records_of(result, RETL_VERDICT_REJECTED) == result->records)
		return "failed";
	if (records_of(result, RETL_VERDICT_ACCEPTED) + records_of(result, RETL_VERDICT_REJECTED) == 0)
		return "split";
	return "partial";
}

static void
record_others(int count, RetlLedgerResult **results, TimestampTz now)
{
	static RetlStatement statement = {
		"UPDATE retl.batch b SET status = ($2)[array_position($1, b.id)], attempts = b.attempts + ($10)[array_position($1, b.id)],"
		" http_status = ($3)[array_position($1, b.id)], error = ($4)[array_position($1, b.id)],"
		" next_attempt_at = ($5)[array_position($1, b.id)], maybe = b.maybe OR ($6)[array_position($1, b.id)],"
		" finished_at = CASE WHEN ($2)[array_position($1, b.id)] <> 'pending' THEN $7 END,"
		" failed = ($8)[array_position($1, b.id)],"
		" first_attempt_at = coalesce(b.first_attempt_at, ($9)[array_position($1, b.id)])"
		" WHERE b.id = ANY ($1) AND b.finished_at IS NULL"
	};
	RetlArgs	args = {0};
	RetlArrayBuilder ids;
	RetlArrayBuilder statuses;
	RetlArrayBuilder http;
	RetlArrayBuilder errors;
	RetlArrayBuilder next;
	RetlArrayBuilder maybe;
	RetlArrayBuilder failed;
	RetlArrayBuilder at;
	RetlArrayBuilder tried;

	retl_array_start(&ids, count);
	retl_array_start(&statuses, count);
	retl_array_start(&http, count);
	retl_array_start(&errors, count);
	retl_array_start(&next, count);
	retl_array_start(&maybe, count);
	retl_array_start(&failed, count);
	retl_array_start(&at, count);
	retl_array_start(&tried, count);
	for (int i = 0; i < count; i++)
	{
		RetlLedgerResult *result = results[i];

		if (result->kind == RETL_ACCEPTED)
			continue;
		retl_array_add(&ids, Int64GetDatum(result->batch), false);
		retl_array_add_text(&statuses, status_of(result));
		retl_array_add(&failed, Int32GetDatum(records_of(result, RETL_VERDICT_REJECTED)), false);
		retl_array_add(&http, Int32GetDatum(result->http_status), result->http_status == 0);
		retl_array_add_text(&errors, result->error);
		retl_array_add(&next, TimestampTzGetDatum(result->next_attempt_at), result->kind != RETL_RETRY);
		retl_array_add(&maybe, BoolGetDatum(result->maybe), false);
		retl_array_add(&at, TimestampTzGetDatum(result->at), false);
		retl_array_add(&tried, Int32GetDatum(result->attempt > 0 ? 1 : 0), false);
	}
	if (ids.count == 0)
		return;
	retl_arg_array(&args, &ids, INT8ARRAYOID);
	retl_arg_array(&args, &statuses, TEXTARRAYOID);
	retl_arg_array(&args, &http, INT4ARRAYOID);
	retl_arg_array(&args, &errors, TEXTARRAYOID);
	retl_arg_array(&args, &next, TIMESTAMPTZARRAYOID);
	retl_arg_array(&args, &maybe, BOOLARRAYOID);
	retl_arg_timestamptz(&args, now);
	retl_arg_array(&args, &failed, INT4ARRAYOID);
	retl_arg_array(&args, &at, TIMESTAMPTZARRAYOID);
	retl_arg_array(&args, &tried, INT4ARRAYOID);
	if (retl_statement_run(&statement, &args) != ids.count)
		elog(ERROR, "batches whose outcome is known are no longer pending");
}

static void
record_attempts(int count, RetlLedgerResult **results)
{
	static RetlStatement statement = {
		"INSERT INTO retl.attempt (batch, attempt, at, seconds, http_status, error, answer, bytes, answer_bytes)"
		" SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)"
	};
	RetlArgs	args = {0};
	RetlArrayBuilder batches;
	RetlArrayBuilder attempts;
	RetlArrayBuilder at;
	RetlArrayBuilder seconds;
	RetlArrayBuilder http;
	RetlArrayBuilder errors;
	RetlArrayBuilder answers;
	RetlArrayBuilder bytes;
	RetlArrayBuilder answer_bytes;

	retl_array_start(&batches, count);
	retl_array_start(&attempts, count);
	retl_array_start(&at, count);
	retl_array_start(&seconds, count);
	retl_array_start(&http, count);
	retl_array_start(&errors, count);
	retl_array_start(&answers, count);
	retl_array_start(&bytes, count);
	retl_array_start(&answer_bytes, count);
	for (int i = 0; i < count; i++)
	{
		RetlLedgerResult *result = results[i];

		/* it was split without having been sent */
		if (result->attempt == 0)
			continue;
		retl_array_add(&batches, Int64GetDatum(result->batch), false);
		retl_array_add(&attempts, Int32GetDatum(result->attempt), false);
		retl_array_add(&at, TimestampTzGetDatum(result->at), false);
		retl_array_add(&seconds, Float8GetDatum(result->seconds), false);
		retl_array_add(&http, Int32GetDatum(result->http_status), result->http_status == 0);
		retl_array_add_text(&errors, result->error);
		retl_array_add_text(&answers, result->answer);
		retl_array_add(&bytes, Int32GetDatum(result->bytes_sent), false);
		retl_array_add(&answer_bytes, Int32GetDatum(result->answer_bytes), false);
	}
	if (batches.count == 0)
		return;
	retl_arg_array(&args, &batches, INT8ARRAYOID);
	retl_arg_array(&args, &attempts, INT4ARRAYOID);
	retl_arg_array(&args, &at, TIMESTAMPTZARRAYOID);
	retl_arg_array(&args, &seconds, FLOAT8ARRAYOID);
	retl_arg_array(&args, &http, INT4ARRAYOID);
	retl_arg_array(&args, &errors, TEXTARRAYOID);
	retl_arg_array(&args, &answers, TEXTARRAYOID);
	retl_arg_array(&args, &bytes, INT4ARRAYOID);
	retl_arg_array(&args, &answer_bytes, INT4ARRAYOID);
	retl_statement_run(&statement, &args);
}

/*
 * Every record of a batch that failed becomes an exception. One that stands
 * already keeps what it knows of the acknowledged row: nothing was acknowledged since.
 */
static void
record_exceptions(int count, RetlLedgerResult **results, TimestampTz now)
{
	static RetlStatement statement = {
		"INSERT INTO retl.exception AS e"
		" (mapping, key, run, batch, operation, reason, http_status, error, maybe, resolved, failed_at)"
		" SELECT DISTINCT ON (b.mapping, k.value::text) b.mapping, k.value::text, b.run, b.id,"
		" CASE substr(bb.operations, k.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,"
		" ($2)[array_position($1, b.id)], b.http_status, b.error,"
		" b.maybe OR b.id <= coalesce((SELECT s.unsure_to FROM retl.sending s), 0), false, $3"
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
	RetlArrayBuilder ids;
	RetlArrayBuilder reasons;

	retl_array_start(&ids, count);
	retl_array_start(&reasons, count);
	for (int i = 0; i < count; i++)
	{
		RetlLedgerResult *result = results[i];

		if (result->halves != NULL || (result->kind != RETL_REJECTED && result->kind != RETL_GAVE_UP))
			continue;
		retl_array_add(&ids, Int64GetDatum(result->batch), false);
		retl_array_add_text(&reasons, result->kind == RETL_REJECTED ? "rejected" : "gave_up");
	}
	if (ids.count == 0)
		return;
	retl_arg_array(&args, &ids, INT8ARRAYOID);
	retl_arg_array(&args, &reasons, TEXTARRAYOID);
	retl_arg_timestamptz(&args, now);
	retl_statement_run(&statement, &args);
}

/* Of a batch that tells records apart, those that were refused, each with its own error. */
static void
record_refused(const RetlLedgerResult *result, TimestampTz now)
{
	static RetlStatement statement = {
		"INSERT INTO retl.exception AS e"
		" (mapping, key, run, batch, operation, reason, http_status, error, maybe, resolved, failed_at)"
		" SELECT DISTINCT ON (k.value::text) b.mapping, k.value::text, b.run, b.id,"
		" CASE substr(bb.operations, k.n::int, 1) WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,"
		" 'rejected', b.http_status, ($3)[array_position($2, k.n)], b.maybe, false, $4"
		" FROM retl.batch b JOIN retl.batch_body bb ON bb.batch = b.id"
		" CROSS JOIN LATERAL json_array_elements(bb.keys) WITH ORDINALITY AS k (value, n)"
		" WHERE b.id = $1 AND bb.batch = $1 AND k.n = ANY ($2)"
		" ORDER BY k.value::text"
		" ON CONFLICT (mapping, key) DO UPDATE SET run = excluded.run, batch = excluded.batch,"
		" operation = excluded.operation, reason = excluded.reason, http_status = excluded.http_status,"
		" error = excluded.error, maybe = e.maybe OR excluded.maybe, attempts = e.attempts + 1,"
		" failed_at = excluded.failed_at"
	};
	RetlArgs	args = {0};
	RetlArrayBuilder numbers;
	RetlArrayBuilder errors;

	retl_array_start(&numbers, result->records);
	retl_array_start(&errors, result->records);
	for (int i = 0; i < result->records; i++)
	{
		const RetlVerdict *verdict = &result->verdicts[i];

		if (verdict->kind != RETL_VERDICT_REJECTED)
			continue;
		retl_array_add(&numbers, Int64GetDatum((int64) i + 1), false);
		retl_array_add_text(&errors, verdict->reason != NULL ? verdict->reason : result->error);
	}
	if (numbers.count == 0)
		return;
	retl_arg_int8(&args, result->batch);
	retl_arg_array(&args, &numbers, INT8ARRAYOID);
	retl_arg_array(&args, &errors, TEXTARRAYOID);
	retl_arg_timestamptz(&args, now);
	retl_statement_run(&statement, &args);
}

/* Inserts what replaces a batch; returns its bytes. */
static int64
insert_halves(RetlLedgerResult *result, TimestampTz now)
{
	static RetlStatement keys = {"SELECT bb.keys, bb.operations FROM retl.batch_body bb WHERE bb.batch = $1"};
	static RetlStatement insert = {
		"WITH half AS ("
		" INSERT INTO retl.batch (run, mapping, mapping_version, destination, stage, records, bytes,"
		" idempotency_key, maybe, created_at, attempts, next_attempt_at, first_attempt_at, half_of)"
		" SELECT b.run, b.mapping, b.mapping_version, b.destination, b.stage, $2, $3, $4, b.maybe, $5,"
		" CASE WHEN $9 IS NULL THEN 0 ELSE b.attempts END, $9, CASE WHEN $9 IS NOT NULL THEN b.first_attempt_at END,"
		" CASE WHEN $11 THEN b.id END"
		" FROM retl.batch b WHERE b.id = $1 RETURNING id)"
		" INSERT INTO retl.batch_body (batch, request, body, keys, operations)"
		" SELECT half.id, coalesce($10::json, bb.request), $6, $7::json, $8 FROM half, retl.batch_body bb WHERE bb.batch = $1"
	};
	RetlArgs	args = {0};
	int64		bytes = 0;

	retl_arg_int8(&args, result->batch);
	if (retl_statement_run(&keys, &args) != 1)
		elog(ERROR, "batch " INT64_FORMAT " has no body", result->batch);
	retl_bisect_keys(result->halves, retl_result_text(0, 1), retl_result_text(0, 2));

	for (int i = 0; i < result->halves->count; i++)
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
		if (half->later)
			retl_arg_timestamptz(&values, result->next_attempt_at);
		else
			retl_arg_null(&values, TIMESTAMPTZOID);
		retl_arg_text(&values, half->request);
		retl_arg_bool(&values, result->kind == RETL_REJECTED && result->halves->count == 2);
		retl_statement_run(&insert, &values);
		bytes += half->body_len;
		RETL_FAULT("half_written");
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
	static RetlStatement update = {
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
	static RetlStatement end = {
		"UPDATE retl.run r SET status = 'succeeded', finished_at = $2 WHERE r.id = ANY ($1)"
		" AND NOT EXISTS (SELECT FROM retl.exception e WHERE e.mapping = r.mapping)"
		" RETURNING r.id, r.mapping"
	};
	static RetlStatement release = {
		"UPDATE retl.mapping_state s SET active_run = NULL"
		" WHERE s.mapping = ANY ($1) AND s.active_run = ($2)[array_position($1, s.mapping)]"
	};
	RetlArgs	args = {0};
	RetlArgs	complete = {0};
	RetlArgs	ended = {0};
	RetlArrayBuilder columns[6];
	int64	   *runs = palloc(sizeof(int64) * nsums);
	int64	   *mappings = palloc(sizeof(int64) * nsums);
	int			ncomplete = 0;
	int64		updated;

	for (int i = 0; i < lengthof(columns); i++)
		retl_array_start(&columns[i], nsums);
	for (int i = 0; i < nsums; i++)
	{
		if (!sums[i].locked)
			continue;
		retl_array_add(&columns[0], Int64GetDatum(sums[i].run), false);
		retl_array_add(&columns[1], Int64GetDatum(sums[i].sent), false);
		retl_array_add(&columns[2], Int64GetDatum(sums[i].failed), false);
		retl_array_add(&columns[3], Int64GetDatum(sums[i].retried), false);
		retl_array_add(&columns[4], Int64GetDatum(sums[i].closed), false);
		retl_array_add(&columns[5], Int64GetDatum(sums[i].bytes), false);
	}
	for (int i = 0; i < lengthof(columns); i++)
		retl_arg_array(&args, &columns[i], INT8ARRAYOID);
	retl_arg_timestamptz(&args, now);
	updated = retl_statement_run(&update, &args);

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

	retl_arg_int8_array(&complete, ncomplete, runs);
	retl_arg_timestamptz(&complete, now);
	updated = retl_statement_run(&end, &complete);
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
	RETL_FAULT("run_ended_early");
	retl_arg_int8_array(&ended, (int) updated, mappings);
	retl_arg_int8_array(&ended, (int) updated, runs);
	retl_statement_run(&release, &ended);
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

	RETL_FAULT("outcomes_locked");
	record_delivered(ngroup, group, now);
	RETL_FAULT("outcomes_delivered");
	record_others(ngroup, group, now);
	record_attempts(ngroup, group);
	record_exceptions(ngroup, group, now);
	RETL_FAULT("outcomes_exceptions");
	for (int i = 0; i < ngroup; i++)
	{
		RetlLedgerResult *result = group[i];
		RunSum	   *sum = find_run(sums, nsums, result->run);

		sum->retried += result->attempt > 1;
		if (result->kind == RETL_RETRY)
			continue;
		sum->closed++;
		sum->bytes += result->bytes;
		sum->sent += records_of(result, RETL_VERDICT_ACCEPTED);
		sum->failed += records_of(result, RETL_VERDICT_REJECTED);
		if (result->kind == RETL_PARTIAL)
			record_refused(result, now);
		if (result->halves != NULL)
		{
			sum->closed -= result->halves->count;
			sum->bytes -= insert_halves(result, now);
		}
	}
	record_runs(nsums, sums, now, states, nstates);
}
