/*
 * delivery.c
 *		The delivery worker's loop; see delivery.h.
 *
 * One round: look who woke us; find what is to be sent (queue.c); start as
 * many requests as may be; let libcurl do what it can without waiting; take
 * the answers; record outcomes when there are enough of them or the oldest is
 * old enough; wait for the latch, libcurl's descriptor, or the time when something is due.
 *
 * No transaction is open while anything is under way or waited for: each step
 * that touches tables is a transaction of its own. What was sent and is not on
 * record when the process dies is sent again, with the same key and bytes:
 * that is why outcomes do not wait longer than GROUP_MS.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/fault.h"
#include "base/guc.h"
#include "base/instance.h"
#include "base/shmem.h"
#include "deliver/address.h"
#include "deliver/bisect.h"
#include "deliver/delivery.h"
#include "deliver/http.h"
#include "deliver/judge.h"
#include "deliver/outcome.h"
#include "deliver/probe.h"
#include "deliver/queue.h"
#include "worker/worker.h"

/* A group of outcomes is recorded when it is this old or this large. */
#define GROUP_MS 50
#define GROUP_SIZE 500

/* While requests go out, this often we look whether their run was stopped. */
#define DISCOVER_MS 1000

/* Time for answers that are under way when the server shuts down. */
#define SHUTDOWN_GRACE_MS 1000

/* Connections are idle for good: a wait without end still ends now and then. */
#define WAIT_MOST_MS 60000

/*
 * The statements look up keys and walk along indexes, whatever statistics say
 * of tables that are empty one minute and full the next.
 */
static const char *const plan_settings[][2] = {
	{"plan_cache_mode", "force_generic_plan"},
	{"enable_seqscan", "off"},
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"enable_bitmapscan", "off"},
	{"jit", "off"},
};

static MemoryContext delivery_context = NULL;
static MemoryContext request_context = NULL;
static WaitEventSet *wait_set = NULL;

/* Signatures are made outside of transactions, and want an owner all the same. */
static ResourceOwner signature_owner = NULL;

static dlist_head answered = DLIST_STATIC_INIT(answered);
static int	nanswered = 0;
static TimestampTz oldest_answer = 0;
static TimestampTz record_not_before = 0;

/* It is on record that we send. */
static bool sending = false;

static TimestampTz discovered_at = 0;
static bool refused_noted = false;

/* An order to end is being obeyed. */
static bool leaving = false;

/*
 * Transactions are short and wait for nothing. An order to end that comes
 * during one is obeyed after it, in order, so that what was answered is on record. Those at the end itself are
 * another matter: see leave_in_order().
 */
static void
begin(const char *activity)
{
	if (!leaving)
		HOLD_INTERRUPTS();
	retl_worker_start_transaction();
	pgstat_report_activity(STATE_RUNNING, activity);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
finish(void)
{
	PopActiveSnapshot();
	SPI_finish();
	retl_worker_commit();
	if (!leaving)
		RESUME_INTERRUPTS();
}

static void
start(void)
{
	MemoryContext old;

	delivery_context = AllocSetContextCreate(TopMemoryContext, "retl delivery", ALLOCSET_DEFAULT_SIZES);
	request_context = AllocSetContextCreate(delivery_context, "retl delivery request", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(delivery_context);
	for (int i = 0; i < lengthof(plan_settings); i++)
		SetConfigOption(plan_settings[i][0], plan_settings[i][1], PGC_USERSET, PGC_S_SESSION);
	signature_owner = ResourceOwnerCreate(NULL, "retl delivery");
	retl_queue_init(delivery_context);
	retl_http_init();

	wait_set = retl_create_wait_event_set(delivery_context, 3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, retl_http_fd(), NULL, NULL);
	MemoryContextSwitchTo(old);
}

/* Finding work */

/* Whether this database may deliver here; says so once if not. */
static bool
may_deliver(void)
{
	char	   *why;

	if (retl_instance_armed(&why))
	{
		refused_noted = false;
		return true;
	}
	if (!refused_noted)
		ereport(LOG,
				(errmsg("retl does not deliver from database \"%s\"", get_database_name(MyDatabaseId)),
				 errdetail_internal("%s", why),
				 errhint("If this is the database that is to deliver, run retl.arm() in it.")));
	refused_noted = true;
	return false;
}

static void
discover(TimestampTz now, bool woken)
{
	static bool inherited = false;
	bool		wake = false;

	begin("looking for work");
	if (!inherited)
	{
		retl_ledger_inherit();
		RETL_FAULT("sending_inherited");
	}
	if (may_deliver())
		wake = retl_queue_discover(now, woken);
	else
		retl_queue_clear();
	finish();
	inherited = true;
	discovered_at = now;
	RETL_FAULT("delivery_discovered");
	if (wake)
		retl_wake(RETL_SNAPSHOT_WORKER);
}

/* Outcomes */

static void
add_outcome(RetlQueueBatch *batch, TimestampTz now)
{
	retl_queue_answered(batch);
	if (nanswered++ == 0)
		oldest_answer = now;
	dlist_push_tail(&answered, &batch->node);
}

static void
take_answer(const RetlHttpAnswer *answer, TimestampTz now)
{
	RetlQueueBatch *batch = answer->owner;
	MemoryContext old = MemoryContextSwitchTo(request_context);

	retl_judge_answer(batch, answer, now, delivery_context);
	MemoryContextSwitchTo(old);
	MemoryContextReset(request_context);
	if (!batch->by_record && batch->result.kind != RETL_PARTIAL && batch->result.next_request == NULL)
		retl_queue_unload(batch);
	add_outcome(batch, now);
}

static bool
take_answers(TimestampTz now)
{
	RetlHttpAnswer answer;
	bool		any = false;

	while (retl_http_next(&answer))
	{
		int64		destination;
		TimestampTz until;

		any = true;
		if (retl_probe_answered(&answer))
			continue;
		if (retl_oauth_answered(&answer, now, &destination, &until))
		{
			RETL_FAULT("token_answered");
			retl_queue_token_answered(destination, until);
			continue;
		}
		RETL_FAULT("answer_received");
		take_answer(&answer, now);
	}
	return any;
}

/* Sending */

/* It cannot be sent as it is: fails without having been tried. */
static void
refuse(RetlQueueBatch *batch, const char *why, TimestampTz now)
{
	batch->result.kind = RETL_REJECTED;
	batch->result.at = now;
	batch->result.error = MemoryContextStrdup(delivery_context, why);
	retl_queue_unload(batch);
	add_outcome(batch, now);
}

/*
 * It was refused together with its other half, which was accepted by itself: no
 * need to ask whether it is refused. A single record is sent all the same, as nothing fails untried.
 */
static void
split_unsent(RetlQueueBatch *batch, TimestampTz now)
{
	RetlLimiter *limiter = &batch->run->destination->limiter;

	batch->result.attempt = 0;
	batch->result.kind = RETL_REJECTED;
	batch->result.at = now;
	batch->by_record = true;
	add_outcome(batch, now);
	retl_limiter_give_back(limiter, batch->ledger.records);
	if (retl_limiter_has_quota(limiter))
		retl_limiter_refund(limiter, batch->ledger.records);
}

static bool
may_split_unsent(const RetlQueueBatch *batch)
{
	return batch->ledger.guilty && batch->ledger.records > 1 && batch->ledger.attempts == 0 &&
		retl_bisect_body(batch->request, batch->body, batch->body_len, batch->ledger.records, batch->ledger.key) != NULL;
}

/* A body that was made for this attempt stays with its batch. */
static void
keep_rendered(RetlQueueBatch *batch, RetlHttpRequest *request)
{
	batch->rendered = MemoryContextAllocHuge(delivery_context, request->body_len);
	batch->rendered_len = request->body_len;
	memcpy(batch->rendered, request->body, request->body_len);
	if (request->body_secret)
		explicit_bzero(unconstify(char *, request->body), request->body_len);
	request->body = batch->rendered;
}

/* Whether there is the access token that requests to the destination need; else the batch is dealt with. */
static bool
have_token(RetlQueueBatch *batch, TimestampTz now)
{
	RetlDestination *destination = batch->run->destination;
	const RetlOauth *oauth = retl_request_oauth(destination->definition->authentication, destination->secrets);
	RetlOauthOwner owner = {destination->id, destination->destination_version, destination->connector_version};
	TimestampTz until;
	char	   *error;

	if (oauth == NULL || destination->secrets == NULL)
		return true;
	destination->secrets->token = NULL;
	switch (retl_oauth_token(oauth, &owner, destination->secrets, now, &destination->secrets->token, &until, &error))
	{
		case RETL_OAUTH_READY:
			return true;
		case RETL_OAUTH_WAIT:
			retl_queue_put_back(batch, until);
			return false;
		case RETL_OAUTH_REFUSED:
			refuse(batch, error, now);
			return false;
	}
	return false;
}

static void
send_batch(RetlQueueBatch *batch, TimestampTz now)
{
	RetlDestination *destination = batch->run->destination;
	RetlLedgerResult *result = &batch->result;
	RetlHttpHeader headers[RETL_REQUEST_HEADERS];
	RetlHttpRequest request;
	MemoryContext old;
	const char *why;
	char	   *error;

	result->batch = batch->id;
	result->run = batch->run->id;
	result->records = batch->ledger.records;
	result->bytes = batch->ledger.bytes;
	result->attempt = batch->ledger.attempts + 1;

	if (batch->request == NULL)
	{
		refuse(batch, "the batch has no body", now);
		return;
	}

	RETL_FAULT("request_before_send");
	old = MemoryContextSwitchTo(request_context);
	CurrentResourceOwner = signature_owner;
	if (may_split_unsent(batch))
		split_unsent(batch, now);
	else if (!have_token(batch, now))
		 /* it waits, or has failed */ ;
	else if (!retl_request_build(destination->definition->authentication, destination->secrets, batch->request, batch->body,
							batch->body_len, batch->ledger.key, now, headers, &request, &error))
		refuse(batch, error, now);
	else
	{
		retl_request_compress(destination->definition->compression, headers, &request);
		if (request.body != NULL && request.body != batch->body)
			keep_rendered(batch, &request);
		request.timeout_ms = destination->definition->timeout_ms;
		request.proxy = destination->definition->proxy;
		request.owner = batch;
		result->bytes_sent = request.body_len;
		if (!retl_http_submit(&request, &why))
			refuse(batch, why, now);
		RETL_FAULT("request_sent");
	}
	CurrentResourceOwner = NULL;
	MemoryContextSwitchTo(old);
	MemoryContextReset(request_context);
}

static bool
send_some(TimestampTz now)
{
	RetlQueueBatch *batch;
	bool		any = false;

	while ((batch = retl_queue_next(now)) != NULL)
	{
		send_batch(batch, now);
		any = true;
	}
	return any;
}

/* Recording */

/* Whether the planner of a run should go on: it waits for bytes to be delivered. */
static bool
planner_waits(const RetlLedgerRunState *state)
{
	int64		half = (int64) retl_max_planned_kb * 1024 / 2;

	return !state->planned && !state->gone &&
		state->open_bytes < half && state->open_bytes + state->bytes_recorded >= half;
}

/* Whether a run has had so many refusals that no more of it should be sent. */
static bool
give_run_up(const RetlLedgerRunState *state)
{
	RetlQueueRun *run = retl_queue_run(state->id);

	return run != NULL && !state->gone && !state->stopped && !state->finished && run->nhopeless >= RETL_QUEUE_HOPELESS_MOST;
}

/* What replaces a batch of which only a part has an outcome, and what it must be for that. */
static void
replace_rest(RetlQueueBatch *batch)
{
	RetlLedgerResult *result = &batch->result;

	result->halves = retl_bisect_rest(batch->request, batch->body, batch->body_len, result->records, result->verdicts,
									  batch->ledger.key);
	if (result->halves != NULL)
		return;
	for (int i = 0; i < result->records; i++)
	{
		if (result->verdicts[i].kind == RETL_VERDICT_RETRY || result->verdicts[i].kind == RETL_VERDICT_AGAIN)
			result->verdicts[i].kind = RETL_VERDICT_REJECTED;
	}
}

static void
record(TimestampTz now)
{
	RetlLedgerResult **results;
	RetlLedgerRunState *states;
	dlist_mutable_iter i;
	int			nstates;
	int			count = 0;
	bool		wake = false;

	begin("recording outcomes");
	results = palloc(sizeof(RetlLedgerResult *) * nanswered);
	dlist_foreach_modify(i, &answered)
	{
		RetlQueueBatch *batch = dlist_container(RetlQueueBatch, node, i.cur);

		if (batch->by_record)
			batch->result.halves = retl_bisect_body(batch->request, batch->body, batch->body_len, batch->ledger.records,
													batch->ledger.key);
		else if (batch->result.kind == RETL_PARTIAL)
			replace_rest(batch);
		else if (batch->result.next_request != NULL)
			batch->result.halves = retl_bisect_next(batch->body, batch->body_len, batch->ledger.records,
													batch->result.next_request, batch->ledger.key);
		results[count++] = &batch->result;
	}
	retl_ledger_record(count, results, &nstates, &states);
	retl_destination_save(now, false);
	RETL_FAULT("outcomes_before_commit");

	for (int n = 0; n < nstates; n++)
	{
		RetlLedgerRunState *state = &states[n];

		if (give_run_up(state))
		{
			retl_ledger_fail(state->id, psprintf("the destination refused %d requests in a row, whatever was in them",
												 RETL_QUEUE_HOPELESS_MOST));
			state->stopped = true;
		}
		/* ended, or to be ended by the snapshot worker */
		wake |= state->finished || (state->planned && state->open_batches == 0) || planner_waits(state);
		if (state->stopped)
			discovered_at = 0;
		retl_queue_run_state(state);
		if (!state->gone)
			continue;
		dlist_foreach_modify(i, &answered)
		{
			RetlQueueBatch *batch = dlist_container(RetlQueueBatch, node, i.cur);

			if (batch->result.run == state->id)
				batch->result.recorded = true;
		}
	}
	finish();
	RETL_FAULT("outcomes_after_commit");

	dlist_foreach_modify(i, &answered)
	{
		RetlQueueBatch *batch = dlist_container(RetlQueueBatch, node, i.cur);

		if (!batch->result.recorded)
			continue;
		dlist_delete(&batch->node);
		nanswered--;
		if (batch->result.halves != NULL)
			batch->run->exhausted = false;
		if (batch->ledger.half)
			batch->run->rescan = true;
		if (batch->result.kind == RETL_PARTIAL)
			batch->run->next_due = Min(batch->run->next_due, batch->result.next_attempt_at);
		if (batch->result.kind == RETL_RETRY)
			retl_queue_retry(batch);
		else
			retl_queue_forget(batch);
	}
	/* what is left belongs to runs that somebody has locked */
	if (nanswered > 0)
		record_not_before = TimestampTzPlusMilliseconds(now, GROUP_MS);
	oldest_answer = now;
	if (wake)
		retl_wake(RETL_SNAPSHOT_WORKER);
}

/* When the outcomes at hand are to be recorded. */
static TimestampTz
record_due(TimestampTz now, bool idle)
{
	TimestampTz due;

	if (nanswered == 0)
		return DT_NOEND;
	if (nanswered >= GROUP_SIZE || idle)
		due = now;
	else
		due = TimestampTzPlusMilliseconds(oldest_answer, GROUP_MS);
	return Max(due, record_not_before);
}

/* Waiting and leaving */

/*
 * Waits for the latch, for libcurl, or until some time. Returns whether the
 * latch was set.
 */
static bool
wait_until(TimestampTz until)
{
	WaitEvent	events[3];
	long		timeout = WAIT_MOST_MS;
	bool		latch = false;
	int			n;

	if (until != DT_NOEND)
		timeout = Min(timeout, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until));
	retl_http_before_wait();
	n = WaitEventSetWait(wait_set, timeout, events, lengthof(events), PG_WAIT_EXTENSION);
	for (int i = 0; i < n; i++)
		latch |= (events[i].events & WL_LATCH_SET) != 0;
	return latch;
}

/* What a wait would tell, where there is no time to wait. */
static bool
latch_is_set(void)
{
	if (!PostmasterIsAlive())
		proc_exit(1);
	pg_memory_barrier();
	return MyLatch->is_set;
}

/* All that was sent is on record: who finds it pending knows that it was not sent. */
static void
end_sending(void)
{
	if (!sending)
		return;
	begin("leaving");
	retl_ledger_end_sending();
	RETL_FAULT("sending_ended");
	retl_destination_save(GetCurrentTimestamp(), true);
	finish();
	sending = false;
}

/*
 * The server shuts down, or somebody ends this process: give answers that are
 * under way a moment to come, and record them, so that an orderly end repeats
 * no request that was answered. Nothing here may hold up the end: it waits
 * neither for a lock nor for a standby.
 */
static void
leave_in_order(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SHUTDOWN_GRACE_MS);
	TimestampTz now;

	while (retl_http_active() > 0 && (now = GetCurrentTimestamp()) < until)
	{
		if (wait_until(until))
			ResetLatch(MyLatch);
		retl_http_run();
		take_answers(now);
	}
	if (nanswered == 0 && !sending)
		return;

	leaving = true;
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("lock_timeout", "500ms", PGC_USERSET, PGC_S_SESSION);
	/* the transaction must not end at its first check: this process ends after it */
	ProcDiePending = false;
	PG_TRY();
	{
		if (nanswered > 0)
			record(GetCurrentTimestamp());
		if (nanswered == 0 && retl_http_active() == 0)
			end_sending();
	}
	PG_CATCH();
	{
		retl_worker_abort();
	}
	PG_END_TRY();
	ProcDiePending = true;
}

/* The latch was set: signals, settings, news. */
static void
look(void)
{
	ResetLatch(MyLatch);
	if (ProcDiePending)
		leave_in_order();
	retl_worker_interrupts();
	retl_worker_look();
	retl_address_allow(retl_allowed_private_networks);
	retl_http_trust(retl_ca_file);
}

TimestampTz
retl_delivery_main_loop(void)
{
	bool		woken = true;

	start();
	RETL_FAULT("delivery_started");

	for (;;)
	{
		TimestampTz now;
		TimestampTz until;
		bool		yield = retl_worker_must_yield();
		bool		busy = false;

		if (woken)
			look();
		now = GetCurrentTimestamp();

		if (woken || TimestampDifferenceExceeds(discovered_at, now, DISCOVER_MS))
			discover(now, woken);
		woken = false;
		if (!yield)
		{
			busy |= retl_probe_start(now);
			if (retl_queue_wants_load(now))
			{
				begin("loading requests");
				if (!sending)
					retl_ledger_begin_sending();
				retl_queue_load(now);
				finish();
				RETL_FAULT("sending_begun");
				sending = true;
			}
			busy |= send_some(now);
		}
		retl_http_run();
		busy |= take_answers(GetCurrentTimestamp());

		now = GetCurrentTimestamp();
		until = record_due(now, retl_http_active() == 0 && !busy);
		if (until <= now)
		{
			record(now);
			busy = true;
			until = record_due(now, false);
		}

		if (busy)
			retl_worker_busy();
		else if (retl_http_active() == 0 && nanswered == 0)
		{
			TimestampTz due = retl_queue_next_due(now);

			retl_destination_wipe();
			if (yield || retl_worker_should_leave(due))
			{
				end_sending();
				return due;
			}
			until = TimestampTzPlusMilliseconds(now, retl_worker_wait_ms(due));
		}
		else if (!yield)
			until = Min(until, retl_queue_next_due(now));
		woken = busy ? latch_is_set() : wait_until(until);
	}
}
