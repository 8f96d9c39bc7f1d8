/*
 * run.c
 *		The life of a run; see run.h.
 *
 * Exceptions of earlier runs are part of the work of every run (phases 1 and 3
 * of its plan). Those that failed again carry the run's number when it ends;
 * all others of the mapping are settled: accepted, or nothing was left to do.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/fault.h"
#include "base/sql.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "run/effect.h"
#include "run/run.h"
#include "run/stream.h"

/* --------------------------------------------------------------------------
 * Making
 * -------------------------------------------------------------------------- */

static Datum
id_array(const int64 *ids, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* The first column of the last result. */
static int64 *
result_ids(int64 count)
{
	int64	   *ids = palloc(sizeof(int64) * Max(count, 1));

	for (int64 i = 0; i < count; i++)
		ids[i] = retl_result_int8(i, 1);
	return ids;
}

/*
 * Of these requests the ones that are ours: nobody has canceled them, nor are
 * their mappings being dropped, or held runs of theirs released, by
 * transactions that we would have to wait for. The others stay. Requests of
 * mappings that are gone come along. What is looked at afterwards, by
 * statements of their own, stays as it is until we commit.
 */
static Datum
lock_requests(const int64 *ids, int count, int *nlocked)
{
	RetlArgs	args = {0};
	int64	   *mappings;
	int64		nmappings;
	int			nfree = 0;

	retl_arg_datum(&args, INT8ARRAYOID, id_array(ids, count), false);
	nmappings = retl_sql("SELECT DISTINCT q.mapping FROM retl.request q WHERE q.id = ANY ($1) ORDER BY 1", &args);
	mappings = result_ids(nmappings);
	for (int64 i = 0; i < nmappings; i++)
		if (retl_mapping_try_lock(mappings[i], ExclusiveLock))
			mappings[nfree++] = mappings[i];

	args.count = 0;
	retl_arg_datum(&args, INT8ARRAYOID, id_array(mappings, nfree), false);
	(void) retl_sql("SELECT s.mapping FROM retl.mapping_state s WHERE s.mapping = ANY ($1)"
					" ORDER BY s.mapping FOR NO KEY UPDATE SKIP LOCKED", &args);
	retl_arg_datum(&args, INT8ARRAYOID, id_array(result_ids(SPI_processed), SPI_processed), false);
	(void) retl_sql("SELECT r.id FROM retl.run r WHERE r.mapping = ANY ($2) AND r.finished_at IS NULL"
					" AND r.status = 'held' ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED", &args);
	retl_arg_datum(&args, INT8ARRAYOID, id_array(result_ids(SPI_processed), SPI_processed), false);
	retl_arg_datum(&args, INT8ARRAYOID, id_array(ids, count), false);
	(void) retl_sql("SELECT q.id FROM retl.request q WHERE q.id = ANY ($4) AND q.mapping = ANY ($1)"
					" AND (q.mapping = ANY ($2) OR NOT EXISTS (SELECT FROM retl.mapping m WHERE m.id = q.mapping))"
					" AND NOT EXISTS (SELECT FROM retl.run r WHERE r.mapping = q.mapping AND r.finished_at IS NULL"
					"  AND r.status = 'held' AND r.id <> ALL ($3))"
					" ORDER BY q.id FOR UPDATE SKIP LOCKED", &args);
	*nlocked = (int) SPI_processed;
	return id_array(result_ids(*nlocked), *nlocked);
}

/* Does to the mappings' states what the requests ask for, in their order. */
static void
apply_effects(const RetlArgs *ids, int64 seq)
{
	RetlArgs	args = *ids;
	int			count;
	int64	   *mappings;
	char	  **kinds;
	char	  **arguments;

	count = retl_sql("SELECT q.mapping, q.kind, q.arguments FROM retl.request q"
					 " JOIN retl.mapping_state s ON s.mapping = q.mapping"
					 " WHERE q.id = ANY ($1) AND q.kind <> 'sync' AND s.active_run IS NULL"
					 " ORDER BY q.id", &args);
	mappings = palloc(sizeof(int64) * Max(count, 1));
	kinds = palloc(sizeof(char *) * Max(count, 1));
	arguments = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		mappings[i] = retl_result_int8(i, 1);
		kinds[i] = retl_result_text(i, 2);
		arguments[i] = retl_result_text(i, 3);
	}
	for (int i = 0; i < count; i++)
		retl_effect_apply(mappings[i], kinds[i], arguments[i], seq);
}

bool
retl_run_serve(const int64 *ids, int count, const RetlSnapshot *snapshot)
{
	RetlArgs	args = {0};
	int			nlocked;

	SPI_connect();
	retl_arg_datum(&args, INT8ARRAYOID, lock_requests(ids, count, &nlocked), false);
	apply_effects(&args, snapshot->seq);
	RETL_FAULT("effects_applied");
	retl_arg_int8(&args, snapshot->seq);
	retl_arg_timestamptz(&args, snapshot->started_at);
	retl_arg_float8(&args, snapshot->seconds);
	retl_arg_int8(&args, snapshot->set_aside);
	retl_arg_text(&args, snapshot->strategy);
	retl_arg_text(&args, snapshot->reason);
	retl_sql("WITH asked AS ("
			 "  SELECT q.*, m.version, s.cursor, s.reset, m.enabled AND d.enabled AND md.enabled AS live,"
			 "    pg_catalog.min(q.id) OVER w AS server,"
			 "    pg_catalog.first_value(q.trigger) OVER (w ORDER BY q.kind = 'sync', q.id) AS main_trigger"
			 "  FROM retl.request q JOIN retl.mapping m ON m.id = q.mapping"
			 "    JOIN retl.destination d ON d.id = m.destination JOIN retl.model md ON md.id = m.model"
			 "    JOIN retl.mapping_state s ON s.mapping = m.id"
			 "  WHERE q.id = ANY ($1) AND s.active_run IS NULL"
			 "  WINDOW w AS (PARTITION BY q.mapping)),"
			 " made AS ("
			 "  INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, invocation, served_by,"
			 "    requested_at, started_at, finished_at, from_seq, to_seq, reset, snapshot_seconds, set_aside,"
			 "    strategy, strategy_reason, error_code, error, hint)"
			 "  SELECT id, mapping, version, CASE WHEN live THEN 'planning' ELSE 'canceled' END,"
			 "    CASE WHEN id = server THEN main_trigger ELSE trigger END, invocation,"
			 "    NULLIF(server, id), requested_at, $3, CASE WHEN NOT live THEN pg_catalog.now() END,"
			 "    cursor, $2, reset, $4, $5, $6, $7,"
			 "    CASE WHEN NOT live THEN '55000' END,"
			 "    CASE WHEN NOT live THEN 'the mapping, its model or its destination was disabled' END,"
			 "    CASE WHEN NOT live THEN 'Enable it and sync again.' END"
			 "  FROM asked),"
			 " activated AS ("
			 "  UPDATE retl.mapping_state s SET active_run = a.id FROM asked a"
			 "  WHERE a.id = a.server AND a.live AND s.mapping = a.mapping),"
			 " replaced AS ("
			 "  UPDATE retl.run r SET status = 'replaced', served_by = a.id, finished_at = pg_catalog.now()"
			 "  FROM asked a WHERE a.id = a.server AND a.live AND r.mapping = a.mapping AND r.status = 'held')"
			 " DELETE FROM retl.request q WHERE q.id = ANY ($1)"
			 "  AND (q.id IN (SELECT id FROM asked)"
			 "       OR NOT EXISTS (SELECT FROM retl.mapping m WHERE m.id = q.mapping))",
			 &args);
	SPI_finish();
	return nlocked > 0;
}

static const char *
error_code(const ErrorData *error)
{
	return unpack_sql_state(error->sqlerrcode);
}

bool
retl_run_fail_requests(const int64 *ids, int count, const ErrorData *error)
{
	RetlArgs	args = {0};
	int			nlocked;

	SPI_connect();
	retl_arg_datum(&args, INT8ARRAYOID, lock_requests(ids, count, &nlocked), false);
	retl_arg_text(&args, error_code(error));
	retl_arg_text(&args, error->message);
	retl_arg_text(&args, error->hint);
	retl_sql("WITH gone AS ("
			 "  DELETE FROM retl.request q WHERE q.id = ANY ($1) AND NOT EXISTS"
			 "   (SELECT FROM retl.mapping_state s WHERE s.mapping = q.mapping AND s.active_run IS NOT NULL)"
			 "  RETURNING q.*)"
			 " INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, invocation,"
			 "  requested_at, started_at, finished_at, error_code, error, hint)"
			 " SELECT g.id, g.mapping, m.version, 'failed', g.trigger, g.invocation, g.requested_at,"
			 "  pg_catalog.now(), pg_catalog.now(), $2, $3, $4"
			 " FROM gone g JOIN retl.mapping m ON m.id = g.mapping", &args);
	SPI_finish();
	return nlocked > 0;
}

bool
retl_run_fail_plan(int64 run, const ErrorData *error)
{
	RetlArgs	args = {0};
	bool		changed = true;

	SPI_connect();
	retl_arg_int8(&args, run);
	retl_arg_text(&args, error_code(error));
	retl_arg_text(&args, error->message);
	retl_arg_text(&args, error->hint);
	if (retl_sql("UPDATE retl.run SET error_code = $2, error = $3, hint = $4, status = 'failed',"
				 " finished_at = pg_catalog.now()"
				 " WHERE id = $1 AND finished_at IS NULL AND phase = 0 AND position IS NULL"
				 " AND stop_reason IS NULL RETURNING mapping", &args) == 1)
	{
		int64		mapping = retl_result_int8(0, 1);

		memset(&args, 0, sizeof(args));
		retl_arg_int8(&args, mapping);
		retl_sql("UPDATE retl.mapping_state SET active_run = NULL WHERE mapping = $1", &args);
	}
	else if (retl_sql("UPDATE retl.run SET error_code = $2, error = $3, hint = $4, stop_reason = 'failed'"
					  " WHERE id = $1 AND finished_at IS NULL AND stop_reason IS NULL", &args) == 0)
	{
		/* it fails even while it is being stopped: that takes time, not turns */
		changed = false;
		retl_sql("UPDATE retl.run SET error_code = $2, error = $3, hint = $4"
				 " WHERE id = $1 AND finished_at IS NULL AND error IS DISTINCT FROM $3", &args);
	}
	SPI_finish();
	return changed;
}

/* --------------------------------------------------------------------------
 * Ending
 * -------------------------------------------------------------------------- */

/*
 * Batches that were never answered become exceptions, a key each. In doubt are
 * those of which an attempt's outcome is, and those that a worker may have sent
 * that died before it could say so.
 */
static void
cancel_pending(int64 run)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, run);
	retl_sql("INSERT INTO retl.exception AS x (mapping, key, run, batch, operation, reason, maybe, resolved)"
			 " SELECT b.mapping, k.value::pg_catalog.text, b.run, b.id,"
			 "  CASE pg_catalog.substr(y.operations, k.n::pg_catalog.int4, 1)"
			 "   WHEN 'a' THEN 'added' WHEN 'u' THEN 'updated' ELSE 'deleted' END,"
			 "  'canceled', b.maybe OR b.id <= COALESCE((SELECT s.unsure_to FROM retl.sending s), 0), false"
			 " FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id"
			 "  CROSS JOIN LATERAL pg_catalog.json_array_elements(y.keys) WITH ORDINALITY k (value, n)"
			 " WHERE b.run = $1 AND b.status = 'pending'"
			 " ON CONFLICT (mapping, key) DO UPDATE SET run = EXCLUDED.run, batch = EXCLUDED.batch,"
			 "  operation = EXCLUDED.operation, reason = EXCLUDED.reason, http_status = NULL, error = NULL,"
			 "  maybe = x.maybe OR EXCLUDED.maybe, attempts = x.attempts + 1, failed_at = EXCLUDED.failed_at",
			 &args);
	retl_sql("UPDATE retl.batch SET status = 'canceled', finished_at = pg_catalog.now()"
			 " WHERE run = $1 AND status = 'pending'", &args);
}

static void
append_keys(StringInfo sql, int nkeys, const char *prefix)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%sk%d", k > 1 ? ", " : "", prefix, k);
}

/*
 * What the destination had acknowledged of new exceptions: the row at the
 * cursor of then, which is the one before the first change after it. One that
 * has not changed since was sent again because somebody asked for that; it is
 * to be sent again though it is as acknowledged. What is sent as added, if not
 * for being sent again, was not there as far as the mapping's filter let it see.
 */
static void
resolve(int64 run, int64 mapping, int64 model_id, int generation, char **key_types, bool first)
{
	RetlArgs	args = {0};
	RetlModel  *model = retl_model_get(model_id);
	char	   *key = retl_stream_typed_key(model, key_types, "e.key");
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "UPDATE retl.exception e SET resolved = true");
	retl_arg_int8(&args, run);
	retl_arg_int8(&args, mapping);
	if (!first)
	{
		appendStringInfo(&sql, ", (acked, acked_shape, maybe) = (SELECT"
						 " CASE WHEN n.one THEN NULL WHEN l.seq IS NULL THEN c.data ELSE l.old_data END,"
						 " CASE WHEN n.one THEN NULL WHEN l.seq IS NULL THEN c.shape ELSE l.old_shape END,"
						 " e.maybe OR (NOT n.one AND (l.seq IS NULL AND c.data IS NOT NULL"
						 "  OR l.seq > r.to_seq AND l.old_data IS NOT NULL))"
						 " FROM (VALUES (e.operation = 'added' AND NOT r.reset AND NOT r.resend)) n (one)"
						 " LEFT JOIN LATERAL (SELECT l.seq, l.old_data, l.old_shape FROM %s l WHERE ROW(",
						 retl_log_table(model_id, generation));
		append_keys(&sql, model->nkeys, "l.");
		appendStringInfo(&sql, ") = ROW(%s) AND l.seq > r.from_seq ORDER BY l.seq LIMIT 1) l ON true"
						 " LEFT JOIN %s c ON ROW(", key, retl_checkpoint_table(model_id));
		append_keys(&sql, model->nkeys, "c.");
		appendStringInfo(&sql, ") = ROW(%s))", key);
	}
	appendStringInfoString(&sql, " FROM retl.run r WHERE r.id = $1 AND e.mapping = $2"
						   " AND e.run = $1 AND NOT e.resolved");
	retl_sql(sql.data, &args);

	/* a reset was to send what had been acknowledged all the same */
	retl_sql("UPDATE retl.exception e SET maybe = true FROM retl.run r"
			 " WHERE r.id = $1 AND r.reset AND e.mapping = $2 AND e.run = $1"
			 "  AND e.operation <> 'deleted' AND e.acked IS NOT NULL AND NOT e.maybe", &args);

	retl_sql("DELETE FROM retl.exception WHERE mapping = $2 AND run <> $1", &args);
}

bool
retl_run_end(int64 run)
{
	RetlArgs	args = {0};
	int64		mapping;
	int64		model;
	int			generation;
	bool		first;
	bool		stopped;
	char	  **key_types;
	Datum	   *elements;
	int			nkeys;
	bool		isnull;

	SPI_connect();
	retl_arg_int8(&args, run);
	if (retl_sql("SELECT m.id, m.model FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
				 " WHERE r.id = $1", &args) != 1 ||
		!retl_mapping_try_lock(mapping = retl_result_int8(0, 1), ExclusiveLock) ||
		!retl_model_try_lock(model = retl_result_int8(0, 2), AccessShareLock) ||
		retl_sql("SELECT r.from_seq IS NULL, r.stop_reason IS NOT NULL, st.log_generation, st.key_types"
				 " FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
				 "  JOIN retl.model_state st ON st.model = m.model"
				 " WHERE r.id = $1 AND r.finished_at IS NULL AND r.planned"
				 "  AND CASE WHEN r.stop_reason IS NULL THEN r.open_batches = 0 ELSE r.quiesced END",
				 &args) != 1)
	{
		SPI_finish();
		return false;
	}
	first = retl_result_bool(0, 1);
	stopped = retl_result_bool(0, 2);
	generation = retl_result_int4(0, 3);
	deconstruct_array(DatumGetArrayTypeP(retl_result_datum(0, 4, &isnull)), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &nkeys);
	key_types = palloc(sizeof(char *) * nkeys);
	for (int k = 0; k < nkeys; k++)
		key_types[k] = TextDatumGetCString(elements[k]);

	if (stopped)
	{
		cancel_pending(run);
		RETL_FAULT("pending_canceled");
	}
	resolve(run, mapping, model, generation, key_types, first);
	RETL_FAULT("run_resolved");

	retl_sql("UPDATE retl.run r SET finished_at = pg_catalog.clock_timestamp(), open_batches = 0, open_bytes = 0,"
			 " delivery_seconds = pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - delivering_since),"
			 " status = CASE WHEN error_code IS NOT NULL THEN 'failed'"
			 "   WHEN stop_reason IS NOT NULL THEN 'canceled'"
			 "   WHEN failed = 0 THEN 'succeeded' WHEN sent > 0 THEN 'partial' ELSE 'failed' END,"
			 " error = COALESCE(error, CASE WHEN stop_reason IS NOT NULL THEN stop_reason ELSE"
			 "   (SELECT e.error FROM retl.exception e WHERE e.mapping = r.mapping AND e.run = r.id"
			 "    ORDER BY e.failed_at LIMIT 1) END),"
			 " hint = COALESCE(hint, CASE WHEN failed > 0 AND stop_reason IS NULL"
			 "   THEN 'See retl.failed_rows; failed records are tried again by the next sync.' END)"
			 " WHERE id = $1", &args);
	memset(&args, 0, sizeof(args));
	retl_arg_int8(&args, mapping);
	retl_sql("UPDATE retl.mapping_state SET active_run = NULL WHERE mapping = $1", &args);
	SPI_finish();
	RETL_FAULT("run_end_before_commit");
	return true;
}
