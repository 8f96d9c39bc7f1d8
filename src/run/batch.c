/*
 * batch.c
 *		Gathering records into batches; see batch.h.
 *
 * Batches are inserted many at a time: with one record a request, a statement
 * for each would cost more than all the rest of the plan.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/fault.h"
#include "base/sql.h"
#include "run/batch.h"

/* Groups (method, url, headers) that may be open at once; the oldest is closed for a new one. */
#define MAX_OPEN 32

/* Closed batches waiting to be inserted: so many, or so many bytes. */
#define INSERT_ROWS 1000
#define INSERT_BYTES (4 * 1024 * 1024)

#define KEY_BYTES 16

typedef struct OpenBatch
{
	char	   *group;
	int			records;
	int64		used;			/* when last added to */
	StringInfoData body;
	StringInfoData keys;
	StringInfoData operations;
} OpenBatch;

typedef struct Columns
{
	int			count;
	int			bytes;
	Datum		request[INSERT_ROWS];
	Datum		body[INSERT_ROWS];
	Datum		keys[INSERT_ROWS];
	Datum		operations[INSERT_ROWS];
	Datum		records[INSERT_ROWS];
	Datum		idempotency_key[INSERT_ROWS];
} Columns;

typedef struct ExceptionColumns
{
	int			count;
	Datum		key[INSERT_ROWS];
	Datum		operation[INSERT_ROWS];
	Datum		reason[INSERT_ROWS];
	Datum		error[INSERT_ROWS];
	Datum		acked[INSERT_ROWS];
	Datum		acked_shape[INSERT_ROWS];
	Datum		maybe[INSERT_ROWS];
	bool		no_error[INSERT_ROWS];
	bool		no_acked[INSERT_ROWS];
} ExceptionColumns;

struct RetlBatchWriter
{
	RetlMapping *mapping;
	int64		run;
	int64		mapping_id;
	int			mapping_version;
	int64		destination;
	int			stage;
	bool		dry;
	int64		clock;
	int64		count;
	int64		bytes;
	MemoryContext context;		/* the writer's own */
	MemoryContext pending;		/* of closed batches and exceptions */
	int			nopen;
	OpenBatch	open[MAX_OPEN];
	Columns		columns;
	ExceptionColumns exceptions;
};

RetlBatchWriter *
retl_batch_writer(RetlMapping *mapping, int64 run, int64 mapping_id, int mapping_version,
				  int64 destination, int stage)
{
	RetlBatchWriter *writer = palloc0(sizeof(RetlBatchWriter));

	writer->mapping = mapping;
	writer->run = run;
	writer->mapping_id = mapping_id;
	writer->mapping_version = mapping_version;
	writer->destination = destination;
	writer->stage = stage;
	writer->context = CurrentMemoryContext;
	writer->pending = AllocSetContextCreate(CurrentMemoryContext, "retl closed batches",
											ALLOCSET_DEFAULT_SIZES);
	return writer;
}

void
retl_batch_dry(RetlBatchWriter *writer)
{
	writer->dry = true;
}

int64
retl_batch_count(const RetlBatchWriter *writer)
{
	return writer->count;
}

int64
retl_batch_bytes(const RetlBatchWriter *writer)
{
	return writer->bytes;
}

static Datum
array_of(Datum *values, bool *nulls, int count, Oid type)
{
	int			dims[1] = {count};
	int			lbs[1] = {1};

	if (type == INT4OID)
		return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lbs, type,
												  sizeof(int32), true, TYPALIGN_INT));
	return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lbs, type,
											  -1, false, TYPALIGN_INT));
}

static void
add_array(RetlArgs *args, Datum *values, bool *nulls, int count, Oid type)
{
	retl_arg_datum(args, type == INT4OID ? INT4ARRAYOID : TEXTARRAYOID,
				   array_of(values, nulls, count, type), false);
}

static void
insert_batches(RetlBatchWriter *writer)
{
	Columns    *columns = &writer->columns;
	int			n = columns->count;
	RetlArgs	args = {0};

	if (n == 0)
		return;
	retl_arg_int8(&args, writer->run);
	retl_arg_int8(&args, writer->mapping_id);
	retl_arg_int4(&args, writer->mapping_version);
	retl_arg_int8(&args, writer->destination);
	retl_arg_int4(&args, writer->stage);
	add_array(&args, columns->records, NULL, n, INT4OID);
	add_array(&args, columns->idempotency_key, NULL, n, TEXTOID);
	add_array(&args, columns->request, NULL, n, TEXTOID);
	add_array(&args, columns->body, NULL, n, TEXTOID);
	add_array(&args, columns->keys, NULL, n, TEXTOID);
	add_array(&args, columns->operations, NULL, n, TEXTOID);
	retl_sql("WITH given AS MATERIALIZED ("
			 "  SELECT pg_catalog.nextval('retl.batch_id_seq') AS id, u.*"
			 "  FROM ROWS FROM (pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),"
			 "    pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11))"
			 "    AS u (records, idempotency_key, request, body, keys, operations)),"
			 " ledger AS ("
			 "  INSERT INTO retl.batch (id, run, mapping, mapping_version, destination, stage,"
			 "    records, bytes, idempotency_key)"
			 "  OVERRIDING SYSTEM VALUE"
			 "  SELECT id, $1, $2, $3, $4, $5::pg_catalog.int2, records, pg_catalog.octet_length(body),"
			 "    idempotency_key FROM given)"
			 " INSERT INTO retl.batch_body (batch, request, body, keys, operations)"
			 " SELECT id, request::pg_catalog.json, body, keys::pg_catalog.json, operations FROM given",
			 &args);
	columns->count = 0;
	columns->bytes = 0;
}

static void
insert_exceptions(RetlBatchWriter *writer)
{
	ExceptionColumns *e = &writer->exceptions;
	int			n = e->count;
	RetlArgs	args = {0};

	if (n == 0)
		return;
	retl_arg_int8(&args, writer->run);
	retl_arg_int8(&args, writer->mapping_id);
	add_array(&args, e->key, NULL, n, TEXTOID);
	add_array(&args, e->operation, NULL, n, TEXTOID);
	add_array(&args, e->reason, NULL, n, TEXTOID);
	add_array(&args, e->error, e->no_error, n, TEXTOID);
	add_array(&args, e->acked, e->no_acked, n, TEXTOID);
	add_array(&args, e->acked_shape, e->no_acked, n, INT4OID);
	add_array(&args, e->maybe, NULL, n, TEXTOID);
	/* what an older exception says was acknowledged stands */
	retl_sql("INSERT INTO retl.exception AS x (mapping, key, run, operation, reason, error, maybe,"
			 "  resolved, acked, acked_shape)"
			 " SELECT $2, u.key, $1, u.operation, u.reason, u.error, u.maybe::pg_catalog.bool, true,"
			 "  u.acked::pg_catalog.json, u.acked_shape"
			 " FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),"
			 "  pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9))"
			 "  AS u (key, operation, reason, error, acked, acked_shape, maybe)"
			 " ON CONFLICT (mapping, key) DO UPDATE SET run = EXCLUDED.run, batch = NULL,"
			 "  operation = EXCLUDED.operation, reason = EXCLUDED.reason, http_status = NULL,"
			 "  error = EXCLUDED.error, maybe = x.maybe OR EXCLUDED.maybe,"
			 "  attempts = x.attempts + 1, failed_at = EXCLUDED.failed_at",
			 &args);
	e->count = 0;
}

static void
insert_pending(RetlBatchWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->pending);

	if (writer->dry)
		writer->columns.count = writer->columns.bytes = writer->exceptions.count = 0;
	else
	{
		insert_batches(writer);
		RETL_FAULT("batches_inserted");
		insert_exceptions(writer);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(writer->pending);
}

/* Random, since it is persisted before it is used: nobody can guess or collide. */
static Datum
idempotency_key(void)
{
	uint8		bytes[KEY_BYTES];
	char		hex[KEY_BYTES * 2 + 1];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate an idempotency key")));
	for (int i = 0; i < KEY_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	return CStringGetTextDatum(hex);
}

static void
close_batch(RetlBatchWriter *writer, OpenBatch *batch)
{
	Columns    *columns = &writer->columns;
	MemoryContext old;
	int			n;

	if (batch->records == 0)
		return;
	retl_mapping_body_end(writer->mapping, batch->group, &batch->body);
	appendStringInfoChar(&batch->keys, ']');

	old = MemoryContextSwitchTo(writer->pending);
	n = columns->count++;
	columns->request[n] = CStringGetTextDatum(batch->group);
	columns->body[n] = PointerGetDatum(cstring_to_text_with_len(batch->body.data, batch->body.len));
	columns->keys[n] = PointerGetDatum(cstring_to_text_with_len(batch->keys.data, batch->keys.len));
	columns->operations[n] = CStringGetTextDatum(batch->operations.data);
	columns->records[n] = Int32GetDatum(batch->records);
	columns->idempotency_key[n] = idempotency_key();
	columns->bytes += batch->body.len + batch->keys.len;
	MemoryContextSwitchTo(old);

	writer->count++;
	writer->bytes += batch->body.len;
	batch->records = 0;
	if (columns->count >= INSERT_ROWS || columns->bytes >= INSERT_BYTES)
		insert_pending(writer);
}

static OpenBatch *
find_open(RetlBatchWriter *writer, const char *group)
{
	OpenBatch  *oldest = NULL;
	MemoryContext old;

	for (int i = 0; i < writer->nopen; i++)
	{
		if (strcmp(writer->open[i].group, group) == 0)
			return &writer->open[i];
		if (oldest == NULL || writer->open[i].used < oldest->used)
			oldest = &writer->open[i];
	}

	old = MemoryContextSwitchTo(writer->context);
	if (writer->nopen < MAX_OPEN)
	{
		oldest = &writer->open[writer->nopen++];
		initStringInfo(&oldest->body);
		initStringInfo(&oldest->keys);
		initStringInfo(&oldest->operations);
	}
	else
	{
		close_batch(writer, oldest);
		pfree(oldest->group);
	}
	oldest->group = pstrdup(group);
	oldest->records = 0;
	MemoryContextSwitchTo(old);
	return oldest;
}

void
retl_batch_add(RetlBatchWriter *writer, RetlOperation operation, const char *key,
			   const char *group, const char *record, int record_len)
{
	OpenBatch  *batch = find_open(writer, group);
	int			max_bytes = retl_mapping_batch_bytes(writer->mapping);

	if (batch->records > 0 && max_bytes > 0 && batch->body.len + record_len + 2 > max_bytes)
		close_batch(writer, batch);
	if (batch->records == 0)
	{
		resetStringInfo(&batch->body);
		resetStringInfo(&batch->keys);
		resetStringInfo(&batch->operations);
		retl_mapping_body_begin(writer->mapping, group, &batch->body);
	}
	retl_mapping_body_add(writer->mapping, &batch->body, record, record_len, batch->records == 0);
	appendStringInfoChar(&batch->keys, batch->records == 0 ? '[' : ',');
	appendStringInfoString(&batch->keys, key);
	appendStringInfoChar(&batch->operations, retl_operation_name(operation)[0]);
	batch->records++;
	batch->used = ++writer->clock;
	if (batch->records >= retl_mapping_batch_records(writer->mapping))
		close_batch(writer, batch);
}

void
retl_batch_add_exception(RetlBatchWriter *writer, RetlOperation operation, const char *key,
						 const char *reason, const char *error, const RetlStored *acked, bool maybe)
{
	ExceptionColumns *e = &writer->exceptions;
	MemoryContext old = MemoryContextSwitchTo(writer->pending);
	int			n = e->count++;

	e->key[n] = CStringGetTextDatum(key);
	e->operation[n] = CStringGetTextDatum(retl_operation_name(operation));
	e->reason[n] = CStringGetTextDatum(reason);
	e->no_error[n] = error == NULL;
	e->error[n] = error ? CStringGetTextDatum(error) : (Datum) 0;
	e->no_acked[n] = acked->shape == 0;
	e->acked[n] = acked->shape == 0 ? (Datum) 0 :
		PointerGetDatum(cstring_to_text_with_len(acked->data, acked->len));
	e->acked_shape[n] = Int32GetDatum(acked->shape);
	e->maybe[n] = CStringGetTextDatum(maybe ? "true" : "false");
	MemoryContextSwitchTo(old);
	if (e->count >= INSERT_ROWS)
		insert_pending(writer);
}

void
retl_batch_flush(RetlBatchWriter *writer)
{
	for (int i = 0; i < writer->nopen; i++)
		close_batch(writer, &writer->open[i]);
	insert_pending(writer);
}
