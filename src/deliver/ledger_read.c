/*
 * ledger_read.c
 *		What the delivery worker reads: runs, destinations, batches, bodies; see ledger.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/timestamp.h"

#include "base/sql.h"
#include "deliver/ledger.h"
#include "deliver/statement.h"

int
retl_ledger_runs(RetlLedgerRun **runs)
{
	static RetlStatement statement = {
		"SELECT r.id, r.mapping, m.destination, d.enabled AND m.enabled, r.stop_reason IS NOT NULL, r.quiesced,"
		" r.planned OR r.phase >= 2, r.planned, r.open_batches, r.open_bytes, d.xmin, c.xmin,"
		" coalesce(v.max_attempts, 0), coalesce(extract(epoch FROM v.max_age) * 1000, 0)::bigint,"
		" coalesce(r.delivering_since, 'infinity')"
		" FROM retl.run r"
		" JOIN retl.mapping m ON m.id = r.mapping"
		" JOIN retl.destination d ON d.id = m.destination"
		" JOIN retl.connector c ON c.name = d.connector"
		" JOIN retl.mapping_version v ON v.mapping = r.mapping AND v.version = r.mapping_version"
		" WHERE r.finished_at IS NULL AND r.status IN ('planning', 'delivering')"
		" ORDER BY r.id"
	};
	RetlArgs	args = {0};
	int			count = (int) retl_statement_run(&statement, &args);

	*runs = palloc0(sizeof(RetlLedgerRun) * Max(count, 1));
	for (int row = 0; row < count; row++)
	{
		RetlLedgerRun *run = &(*runs)[row];
		bool		isnull;

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
		run->max_attempts = retl_result_int4(row, 13);
		run->max_age_ms = retl_result_int8(row, 14);
		run->since = DatumGetTimestampTz(retl_result_datum(row, 15, &isnull));
	}
	return count;
}

bool
retl_ledger_destination(int64 id, RetlLedgerDestination *destination)
{
	static RetlStatement statement = {
		"SELECT d.name, d.settings, c.definition FROM retl.destination d"
		" JOIN retl.connector c ON c.name = d.connector WHERE d.id = $1"
	};
	RetlArgs	args = {0};

	retl_arg_int8(&args, id);
	if (retl_statement_run(&statement, &args) == 0)
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
	static RetlStatement statement = {
		"SELECT b.id, b.records, b.bytes, b.attempts, b.idempotency_key,"
		" b.first_attempt_at, b.half_of IS NOT NULL, b.half_of IS NOT NULL AND"
		/* what was too large is not in one half alone */
		" EXISTS (SELECT FROM retl.batch a JOIN retl.batch p ON p.id = a.half_of WHERE a.half_of = b.half_of"
		" AND a.id < b.id AND a.status = 'delivered' AND p.http_status IS DISTINCT FROM 413)"
		" FROM retl.batch b"
		" WHERE b.run = $1 AND b.stage = $2 AND b.id > $3 AND b.status = 'pending'"
		" AND (b.half_of IS NULL OR NOT EXISTS (SELECT FROM retl.batch a WHERE a.half_of = b.half_of AND a.id < b.id"
		" AND a.status = 'pending'))"
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
	count = (int) retl_statement_run(&statement, &args);

	*batches = palloc(sizeof(RetlLedgerBatch) * Max(count, 1));
	for (int row = 0; row < count; row++)
	{
		RetlLedgerBatch *batch = &(*batches)[row];
		char	   *key = retl_result_text(row, 5);
		bool		isnull;
		Datum		first;

		batch->id = retl_result_int8(row, 1);
		batch->stage = stage;
		batch->records = retl_result_int4(row, 2);
		batch->bytes = retl_result_int4(row, 3);
		batch->attempts = retl_result_int4(row, 4);
		first = retl_result_datum(row, 6, &isnull);
		batch->half = retl_result_bool(row, 7);
		batch->guilty = retl_result_bool(row, 8);
		batch->first_attempt_at = isnull ? 0 : DatumGetTimestampTz(first);
		if (strlcpy(batch->key, key, sizeof(batch->key)) >= sizeof(batch->key))
			elog(ERROR, "idempotency key of batch " INT64_FORMAT " is too long", batch->id);
		pfree(key);
	}
	return count;
}

bool
retl_ledger_early_pending(int64 run)
{
	static RetlStatement statement = {
		"SELECT FROM retl.batch b WHERE b.run = $1 AND b.stage = 0 AND b.status = 'pending' LIMIT 1"
	};
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	return retl_statement_run(&statement, &args) > 0;
}

TimestampTz
retl_ledger_next_due(int64 run, TimestampTz now)
{
	static RetlStatement statement = {
		"SELECT min(b.next_attempt_at) FROM retl.batch b"
		" WHERE b.run = $1 AND b.status = 'pending' AND b.next_attempt_at > $2"
	};
	RetlArgs	args = {0};
	bool		isnull;
	Datum		value;

	retl_arg_int8(&args, run);
	retl_arg_timestamptz(&args, now);
	retl_statement_run(&statement, &args);
	value = retl_result_datum(0, 1, &isnull);
	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

void
retl_ledger_bodies(int count, const int64 *batches, RetlLedgerTakeBody take, void *arg)
{
	static RetlStatement statement = {
		"SELECT bb.batch, bb.request, bb.body FROM retl.batch_body bb WHERE bb.batch = ANY ($1)"
	};
	RetlArgs	args = {0};
	int64		found;

	retl_arg_int8_array(&args, count, batches);
	found = retl_statement_run(&statement, &args);
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
