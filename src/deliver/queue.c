/*
 * queue.c
 *		What is to be sent, in memory; see queue.h.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "deliver/queue.h"

/* Batches of a run that are known ahead of sending. */
#define WINDOW 256

/* What is loaded ahead for one destination: enough to keep it busy while outcomes are recorded. */
#define READY_BATCHES 256
#define READY_BYTES (4 * 1024 * 1024)

/* Bodies loaded by one transaction. */
#define LOAD_BATCHES 512

/* All loaded bytes; beyond it a destination may have one batch loaded. */
#define LOADED_BYTES (64 * 1024 * 1024)

/* Outcomes of one run that wait to be recorded; beyond it nothing more of the run is sent. */
#define ANSWERED_MOST 1000

/* Retries of one run that are kept in memory; the table knows of all. */
#define LATER_MOST 1000

/* A run that has open batches, none of which was found, is looked at again. */
#define RECHECK_MS 10000

static MemoryContext queue_context = NULL;
static HTAB *runs = NULL;
static HTAB *batches = NULL;
static int64 loaded_bytes = 0;
static int	in_flight = 0;

static HTAB *
create_table(const char *name, Size entry)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(int64);
	control.entrysize = entry;
	control.hcxt = queue_context;
	return hash_create(name, 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
retl_queue_init(MemoryContext context)
{
	if (queue_context != NULL)
		return;
	queue_context = context;
	retl_destination_init(context);
	runs = create_table("retl runs", sizeof(RetlQueueRun));
	batches = create_table("retl batches", sizeof(RetlQueueBatch));
}

/* Batches */

void
retl_queue_unload(RetlQueueBatch *batch)
{
	if (batch->request == NULL)
		return;
	loaded_bytes -= batch->body_len;
	pfree(batch->request);
	batch->request = batch->body = NULL;
	if (batch->rendered != NULL)
	{
		explicit_bzero(batch->rendered, batch->rendered_len);
		pfree(batch->rendered);
		batch->rendered = NULL;
	}
}

static void
free_result(RetlQueueBatch *batch)
{
	if (batch->result.error != NULL)
		pfree(unconstify(char *, batch->result.error));
	if (batch->result.answer != NULL)
		pfree(unconstify(char *, batch->result.answer));
	if (batch->result.verdicts != NULL)
		pfree(batch->result.verdicts);
	if (batch->result.next_request != NULL)
		pfree(batch->result.next_request);
	memset(&batch->result, 0, sizeof(batch->result));
}

void
retl_queue_forget(RetlQueueBatch *batch)
{
	RetlQueueRun *run = batch->run;
	RetlDestination *destination = run->destination;

	switch (batch->state)
	{
		case RETL_BATCH_WAITING:
			dlist_delete(&batch->node);
			run->nwaiting--;
			break;
		case RETL_BATCH_READY:
			dlist_delete(&batch->node);
			destination->nready--;
			destination->ready_bytes -= batch->body_len;
			if (retl_limiter_has_quota(&destination->limiter))
				retl_limiter_refund(&destination->limiter, batch->ledger.records);
			break;
		case RETL_BATCH_IN_FLIGHT:
			run->nin_flight--;
			destination->limiter.in_flight--;
			in_flight--;
			break;
		case RETL_BATCH_ANSWERED:
			run->nanswered--;
			break;
		case RETL_BATCH_LATER:
			dlist_delete(&batch->node);
			run->nlater--;
			break;
	}
	retl_queue_unload(batch);
	free_result(batch);

	/* all that was known is done with: see what else there is */
	if (--run->nknown == 0 && run->open_batches > 0)
		run->rescan = true;
	hash_search(batches, &batch->id, HASH_REMOVE, NULL);
}

void
retl_queue_answered(RetlQueueBatch *batch)
{
	Assert(batch->state == RETL_BATCH_IN_FLIGHT);
	batch->state = RETL_BATCH_ANSWERED;
	batch->run->nin_flight--;
	batch->run->nanswered++;
	batch->run->destination->limiter.in_flight--;
	in_flight--;
}

void
retl_queue_retry(RetlQueueBatch *batch)
{
	RetlQueueRun *run = batch->run;
	TimestampTz due = batch->result.next_attempt_at;
	TimestampTz first = batch->result.at;

	Assert(batch->state == RETL_BATCH_ANSWERED);
	if (run->stopped || !run->enabled || run->nlater >= LATER_MOST)
	{
		run->next_due = Min(run->next_due, due);
		retl_queue_forget(batch);
		return;
	}
	retl_queue_unload(batch);
	free_result(batch);
	batch->ledger.attempts++;
	if (batch->ledger.first_attempt_at == 0)
		batch->ledger.first_attempt_at = first;
	batch->by_record = false;
	batch->due = due;
	batch->state = RETL_BATCH_LATER;
	dlist_push_tail(&run->later, &batch->node);
	run->nanswered--;
	run->nlater++;
	run->next_later = Min(run->next_later, due);
}

/* The time has come: it is the next one of its run. */
static void
wait_no_longer(RetlQueueBatch *batch)
{
	RetlQueueRun *run = batch->run;

	Assert(batch->state == RETL_BATCH_LATER);
	dlist_delete(&batch->node);
	run->nlater--;
	batch->state = RETL_BATCH_WAITING;
	dlist_push_head(&run->waiting, &batch->node);
	run->nwaiting++;
}

static void
take_later(RetlQueueRun *run, TimestampTz now)
{
	dlist_mutable_iter i;

	run->next_later = DT_NOEND;
	dlist_foreach_modify(i, &run->later)
	{
		RetlQueueBatch *batch = dlist_container(RetlQueueBatch, node, i.cur);

		if (batch->due <= now)
			wait_no_longer(batch);
		else
			run->next_later = Min(run->next_later, batch->due);
	}
}

static void
add_batch(RetlQueueRun *run, const RetlLedgerBatch *ledger)
{
	bool		found;
	RetlQueueBatch *batch = hash_search(batches, &ledger->id, HASH_ENTER, &found);

	if (found)
	{
		/* somebody does not want to wait as long as we do */
		if (batch->state == RETL_BATCH_LATER)
			wait_no_longer(batch);
		return;
	}
	memset(batch, 0, sizeof(*batch));
	batch->id = ledger->id;
	batch->run = run;
	batch->ledger = *ledger;
	batch->state = RETL_BATCH_WAITING;
	dlist_push_tail(&run->waiting, &batch->node);
	run->nwaiting++;
	run->nknown++;
}

/* Forgets those of a run's batches that are not under way. */
static void
drop_unsent(RetlQueueRun *run)
{
	dlist_mutable_iter i;

	dlist_foreach_modify(i, &run->waiting)
		retl_queue_forget(dlist_container(RetlQueueBatch, node, i.cur));
	dlist_foreach_modify(i, &run->later)
		retl_queue_forget(dlist_container(RetlQueueBatch, node, i.cur));
	dlist_foreach_modify(i, &run->destination->ready)
	{
		RetlQueueBatch *batch = dlist_container(RetlQueueBatch, node, i.cur);

		if (batch->run == run)
			retl_queue_forget(batch);
	}
	run->rescan = true;
}

/* What was counted yesterday is not sent today: it is loaded, and counted, again. */
static void
drop_ready(RetlDestination *destination)
{
	dlist_mutable_iter i;

	dlist_foreach_modify(i, &destination->ready)
	{
		RetlQueueBatch *batch = dlist_container(RetlQueueBatch, node, i.cur);

		batch->run->rescan = true;
		retl_queue_forget(batch);
	}
}

/* Runs */

static void
forget_run(RetlQueueRun *run)
{
	RetlDestination *destination = run->destination;

	Assert(run->nknown == 0);
	dlist_delete(&run->node);
	hash_search(runs, &run->id, HASH_REMOVE, NULL);
	if (dlist_is_empty(&destination->runs))
		retl_destination_forget(destination);
}

static RetlQueueRun *
find_run(const RetlLedgerRun *ledger)
{
	bool		found;
	RetlQueueRun *run = hash_search(runs, &ledger->id, HASH_ENTER, &found);

	if (!found)
	{
		memset(run, 0, sizeof(*run));
		run->id = ledger->id;
		run->destination = retl_destination_find(ledger->destination);
		run->next_due = DT_NOEND;
		run->next_later = DT_NOEND;
		run->rescan = true;
		dlist_init(&run->waiting);
		dlist_init(&run->later);
		dlist_push_tail(&run->destination->runs, &run->node);
	}
	return run;
}

/* When the destination will have accepted nothing for longer than the mapping wants to wait. */
static TimestampTz
patience_end(const RetlQueueRun *run)
{
	TimestampTz opened_at = run->destination->limiter.opened_at;

	if (run->max_age_ms == 0 || opened_at == 0 || run->open_batches == 0 || run->since == DT_NOEND)
		return DT_NOEND;
	return TimestampTzPlusMilliseconds(Max(opened_at, run->since), run->max_age_ms);
}

bool
retl_queue_discover(TimestampTz now, bool thorough)
{
	RetlLedgerRun *ledger;
	int			count = retl_ledger_runs(&ledger);
	int64	   *quiet = palloc(sizeof(int64) * Max(count, 1));
	int			nquiet = 0;
	bool		wake = false;
	HASH_SEQ_STATUS scan;
	RetlQueueRun *run;

	hash_seq_init(&scan, runs);
	while ((run = hash_seq_search(&scan)) != NULL)
		run->seen = false;

	for (int i = 0; i < count; i++)
	{
		run = find_run(&ledger[i]);
		run->seen = true;
		run->enabled = ledger[i].enabled && retl_destination_refresh(run->destination, &ledger[i], now);
		run->stopped = ledger[i].stopped;
		run->quiesced = ledger[i].quiesced;
		run->late = ledger[i].late;
		run->open_batches = ledger[i].open_batches;
		run->max_attempts = ledger[i].max_attempts;
		run->max_age_ms = ledger[i].max_age_ms;
		run->since = ledger[i].since;
		if (!run->stopped && run->enabled && patience_end(run) <= now &&
			retl_ledger_fail(run->id, psprintf("the destination accepted nothing for as long as max_age says: %s",
											   run->destination->error)))
			run->stopped = true;

		if (run->stopped || !run->enabled)
			drop_unsent(run);
		else if (thorough)
		{
			run->exhausted = false;
			if (run->nknown == 0 || run->nlater > 0 || run->next_due != DT_NOEND)
				run->rescan = true;
		}
		if (run->stopped && !run->quiesced && run->nknown == 0)
			quiet[nquiet++] = run->id;
		/* complete, and not noticed: somebody was interrupted */
		if (!run->stopped && ledger[i].planned && run->open_batches == 0)
			wake = true;
	}

	hash_seq_init(&scan, runs);
	while ((run = hash_seq_search(&scan)) != NULL)
	{
		if (run->seen)
			continue;
		run->stopped = true;
		drop_unsent(run);
		if (run->nknown == 0)
			forget_run(run);
	}

	if (nquiet > 0)
	{
		retl_ledger_quiesce(nquiet, quiet);
		wake = true;
	}
	return wake;
}

void
retl_queue_clear(void)
{
	HASH_SEQ_STATUS scan;
	RetlQueueRun *run;

	hash_seq_init(&scan, runs);
	while ((run = hash_seq_search(&scan)) != NULL)
	{
		drop_unsent(run);
		if (run->nknown == 0)
			forget_run(run);
	}
}

RetlQueueRun *
retl_queue_run(int64 id)
{
	return hash_search(runs, &id, HASH_FIND, NULL);
}

void
retl_queue_run_state(const RetlLedgerRunState *state)
{
	RetlQueueRun *run = retl_queue_run(state->id);

	if (run == NULL)
		return;
	run->stopped = state->gone || state->stopped || state->finished;
	run->late = state->late;
	run->open_batches = state->open_batches;
	if (run->stopped)
		drop_unsent(run);
}

/* Loading */

static bool
may_send(const RetlQueueRun *run)
{
	return run->enabled && !run->stopped && run->nanswered < ANSWERED_MOST &&
		run->nhopeless < RETL_QUEUE_HOPELESS_MOST;
}

static bool
wants_batches(const RetlQueueRun *run, TimestampTz now)
{
	if (!may_send(run) || run->open_batches == 0)
		return false;
	return run->rescan || run->next_due <= now || run->next_later <= now ||
		(!run->exhausted && run->nwaiting < WINDOW / 2);
}

/* When more may be loaded for a destination. */
static TimestampTz
load_from(const RetlDestination *destination, TimestampTz now)
{
	TimestampTz from = Max(retl_limiter_pause_end(&destination->limiter), destination->load_at);

	return Max(from, retl_limiter_quota_from(&destination->limiter, now));
}

/* Whether a destination has so little loaded that it should have more. */
static bool
wants_bodies(const RetlDestination *destination, TimestampTz now)
{
	if (now < load_from(destination, now))
		return false;
	if (destination->nready == 0)
		return true;
	return destination->nready < READY_BATCHES / 2 && destination->ready_bytes < READY_BYTES / 2 &&
		loaded_bytes < LOADED_BYTES;
}

bool
retl_queue_wants_load(TimestampTz now)
{
	dlist_iter	d;
	dlist_iter	r;

	dlist_foreach(d, &retl_destinations)
	{
		RetlDestination *destination = dlist_container(RetlDestination, node, d.cur);

		if (!wants_bodies(destination, now))
			continue;
		dlist_foreach(r, &destination->runs)
		{
			RetlQueueRun *run = dlist_container(RetlQueueRun, node, r.cur);

			if (may_send(run) && (run->nwaiting > 0 || wants_batches(run, now)))
				return true;
		}
	}
	return false;
}

static void
fill_window(RetlQueueRun *run, TimestampTz now)
{
	RetlLedgerBatch *ledger;
	int			limit;
	int			count;

	if (run->next_later <= now)
		take_later(run, now);
	if (run->next_due <= now)
		run->rescan = true;
	if (!run->rescan && (run->exhausted || run->nwaiting >= WINDOW / 2))
		return;

	for (;;)
	{
		bool		all = run->rescan;

		limit = WINDOW + (all ? run->nknown : 0);
		if (all)
			run->high_water = 0;
		count = retl_ledger_batches(run->id, run->stage, run->high_water, now, limit, &ledger);
		for (int i = 0; i < count; i++)
			add_batch(run, &ledger[i]);
		if (count > 0)
			run->high_water = Max(run->high_water, ledger[count - 1].id);
		run->exhausted = count < limit;
		run->rescan = false;
		pfree(ledger);

		if (!all)
			return;
		run->next_due = DT_NOEND;
		if (!run->exhausted || run->nknown > 0)
			break;

		/* deletes go out when nothing else is left */
		if (run->stage == 0 && run->late && !retl_ledger_early_pending(run->id))
		{
			run->stage = 1;
			run->rescan = true;
			continue;
		}
		break;
	}

	run->next_due = retl_ledger_next_due(run->id, now);
	if (run->nknown == 0 && run->next_due == DT_NOEND)
		run->next_due = TimestampTzPlusMilliseconds(now, RECHECK_MS);
}

static void
make_ready(RetlQueueBatch *batch)
{
	RetlDestination *destination = batch->run->destination;

	dlist_delete(&batch->node);
	batch->run->nwaiting--;
	batch->state = RETL_BATCH_READY;
	dlist_push_tail(&destination->ready, &batch->node);
	destination->nready++;
	destination->ready_bytes += batch->body_len;
}

static void
take_body(void *arg, int64 id, const char *request, size_t request_len, const char *body, size_t body_len)
{
	RetlQueueBatch *batch = hash_search(batches, &id, HASH_FIND, NULL);
	char	   *utf8_request = pg_server_to_any(request, request_len, PG_UTF8);
	char	   *utf8_body = pg_server_to_any(body, body_len, PG_UTF8);

	if (batch == NULL || batch->state != RETL_BATCH_WAITING)
		return;
	if (utf8_request != request)
		request_len = strlen(utf8_request);
	if (utf8_body != body)
		body_len = strlen(utf8_body);

	batch->rendered = NULL;
	batch->request = MemoryContextAllocHuge(queue_context, request_len + body_len + 2);
	memcpy(batch->request, utf8_request, request_len);
	batch->request[request_len] = '\0';
	batch->body = batch->request + request_len + 1;
	memcpy(batch->body, utf8_body, body_len);
	batch->body[body_len] = '\0';
	batch->body_len = body_len;
	loaded_bytes += body_len;
	make_ready(batch);
}

/* Chooses what to load for a destination: its runs in turn. */
static int
choose(RetlDestination *destination, int64 *ids, int *rows, int room)
{
	int			count = 0;
	int64		bytes = 0;
	bool		any = true;
	dlist_iter	r;

	/* batches stay in their lists until their bodies are there: note how far we are */
	dlist_foreach(r, &destination->runs)
		dlist_container(RetlQueueRun, node, r.cur)->chosen = NULL;

	for (int turn = 0; any; turn++)
	{
		any = false;
		dlist_foreach(r, &destination->runs)
		{
			RetlQueueRun *run = dlist_container(RetlQueueRun, node, r.cur);
			RetlQueueBatch *batch;
			dlist_node *node;

			if (!may_send(run) || run->nwaiting <= turn)
				continue;
			if (count == room || destination->nready + count >= READY_BATCHES)
				return count;

			/* each run's batches in their order: the one after the last chosen */
			node = run->chosen == NULL ? dlist_head_node(&run->waiting) : dlist_next_node(&run->waiting, run->chosen);
			batch = dlist_container(RetlQueueBatch, node, node);
			if ((count > 0 || destination->nready > 0) &&
				(destination->ready_bytes + bytes >= READY_BYTES || loaded_bytes + bytes >= LOADED_BYTES))
				return count;
			run->chosen = node;
			rows[count] = batch->ledger.records;
			ids[count++] = batch->id;
			bytes += batch->ledger.bytes;
			any = true;
		}
	}
	return count;
}

void
retl_queue_load(TimestampTz now)
{
	int64	   *ids = palloc(sizeof(int64) * LOAD_BATCHES);
	int		   *rows = palloc(sizeof(int) * LOAD_BATCHES);
	int			count = 0;
	dlist_iter	d;
	dlist_iter	r;

	dlist_foreach(d, &retl_destinations)
	{
		RetlDestination *destination = dlist_container(RetlDestination, node, d.cur);
		int			chosen;

		if (!wants_bodies(destination, now))
			continue;
		dlist_foreach(r, &destination->runs)
		{
			RetlQueueRun *run = dlist_container(RetlQueueRun, node, r.cur);

			if (wants_batches(run, now))
				fill_window(run, now);
		}
		chosen = choose(destination, ids + count, rows, LOAD_BATCHES - count);
		chosen = retl_destination_charge(destination, chosen, rows, now);
		if (chosen == 0)
			continue;
		count += chosen;
		retl_destination_load_secrets(destination, now);
	}
	if (count == 0)
		return;
	retl_ledger_bodies(count, ids, take_body, NULL);
	for (int i = 0; i < count; i++)
	{
		RetlQueueBatch *batch = hash_search(batches, &ids[i], HASH_FIND, NULL);

		/* without a body: it is ready to fail */
		if (batch != NULL && batch->state == RETL_BATCH_WAITING)
			make_ready(batch);
	}
	RETL_FAULT("batch_loaded");
}

/* Sending */

/*
 * Half of all room is for destinations that are within their share of it, so
 * that many slow ones leave room for the others.
 */
static bool
has_room(const RetlDestination *destination, int ndestinations)
{
	int			share = Max(RETL_HTTP_MAX_TRANSFERS / 2 / ndestinations, 1);

	if (in_flight >= RETL_HTTP_MAX_TRANSFERS)
		return false;
	return in_flight < RETL_HTTP_MAX_TRANSFERS / 2 || destination->limiter.in_flight < share;
}

RetlQueueBatch *
retl_queue_next(TimestampTz now)
{
	int			ndestinations = Max(retl_destination_count(), 1);

	for (int i = 0; i < ndestinations && !dlist_is_empty(&retl_destinations); i++)
	{
		dlist_node *node = dlist_pop_head_node(&retl_destinations);
		RetlDestination *destination = dlist_container(RetlDestination, node, node);
		RetlQueueBatch *batch;

		dlist_push_tail(&retl_destinations, node);
		if (destination->nready == 0 || !has_room(destination, ndestinations))
			continue;
		if (retl_limiter_has_quota(&destination->limiter) && retl_limiter_new_day(&destination->limiter, now))
		{
			drop_ready(destination);
			continue;
		}

		batch = dlist_head_element(RetlQueueBatch, node, &destination->ready);
		if (!retl_limiter_ready(&destination->limiter, batch->ledger.records, now))
			continue;
		if (batch->run->nhopeless >= RETL_QUEUE_HOPELESS_MOST)
		{
			drop_unsent(batch->run);
			continue;
		}
		dlist_delete(&batch->node);
		destination->nready--;
		destination->ready_bytes -= batch->body_len;
		retl_limiter_take(&destination->limiter, batch->ledger.records, now);
		batch->run->nin_flight++;
		in_flight++;
		batch->state = RETL_BATCH_IN_FLIGHT;
		return batch;
	}
	return NULL;
}

void
retl_queue_put_back(RetlQueueBatch *batch, TimestampTz not_before)
{
	RetlDestination *destination = batch->run->destination;

	Assert(batch->state == RETL_BATCH_IN_FLIGHT);
	batch->state = RETL_BATCH_READY;
	dlist_push_head(&destination->ready, &batch->node);
	destination->nready++;
	destination->ready_bytes += batch->body_len;
	retl_limiter_give_back(&destination->limiter, batch->ledger.records);
	destination->limiter.in_flight--;
	batch->run->nin_flight--;
	in_flight--;
	retl_limiter_pause(&destination->limiter, not_before);
}

void
retl_queue_token_answered(int64 id, TimestampTz at)
{
	RetlDestination *destination = retl_destination_get(id);

	if (destination != NULL)
		retl_limiter_resume(&destination->limiter, at);
	if (destination != NULL && destination->secrets != NULL)
		destination->secrets->token = NULL; /* what it points to may be another one now */
}

TimestampTz
retl_queue_next_due(TimestampTz now)
{
	TimestampTz due = DT_NOEND;
	int			ndestinations = Max(retl_destination_count(), 1);
	dlist_iter	d;
	dlist_iter	r;

	dlist_foreach(d, &retl_destinations)
	{
		RetlDestination *destination = dlist_container(RetlDestination, node, d.cur);
		bool		paused = now < retl_limiter_pause_end(&destination->limiter);
		TimestampTz from = load_from(destination, now);

		/* where a request must end first, its end is what we wait for */
		if (destination->nready > 0 && (paused || has_room(destination, ndestinations)))
			due = Min(due, retl_limiter_next(&destination->limiter,
											 dlist_head_element(RetlQueueBatch, node, &destination->ready)->ledger.records,
											 now));
		dlist_foreach(r, &destination->runs)
		{
			RetlQueueRun *run = dlist_container(RetlQueueRun, node, r.cur);
			TimestampTz soonest = Min(run->next_due, run->next_later);

			if (may_send(run))
				due = Min(due, patience_end(run));
			if (!may_send(run) || (from <= now && !wants_bodies(destination, now)))
				continue;
			if (run->nwaiting > 0 || wants_batches(run, now))
				soonest = now;
			if (soonest != DT_NOEND)
				due = Min(due, Max(soonest, from));
		}
	}
	return due;
}
