/*
 * channel.c
 *		Slots in shared memory for requests of sessions; see channel.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/shmem.h"

#define TRANCHE_NAME "retl_channel"

#define SLOTS 4
#define REQUEST_BYTES (128 * 1024)
#define ANSWER_BYTES (16 * 1024)

/* A session looks this often, in case a broadcast went by. */
#define RECHECK_MS 1000

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_ASKED,
	SLOT_TAKEN,
	SLOT_ANSWERED
} SlotState;

typedef struct Slot
{
	SlotState	state;
	bool		abandoned;		/* taken, and nobody waits for the answer */
	uint64		number;			/* of this use of the slot */
	Oid			database;
	pid_t		worker;			/* who took it */
	ConditionVariable changed;

	int64		destination;
	int			timeout_ms;
	char		key[RETL_CHANNEL_KEY_LIMIT];
	int			body_at;		/* where in "request" the body begins */
	char		request[REQUEST_BYTES]; /* request and body, each with a NUL behind it */

	int			http_status;
	double		seconds;
	bool		has_error;
	bool		has_body;
	char		error[ANSWER_BYTES];
	char		body[ANSWER_BYTES];
} Slot;

typedef struct Channel
{
	LWLock	   *lock;
	uint64		number;
	ConditionVariable freed;
	Slot		slots[SLOTS];
} Channel;

static Channel *channel = NULL;

void
retl_channel_request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Channel)));
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

/* The caller holds AddinShmemInitLock. */
void
retl_channel_init_shmem(void)
{
	bool		found;

	channel = ShmemInitStruct(TRANCHE_NAME, sizeof(Channel), &found);
	if (found)
		return;
	memset(channel, 0, sizeof(Channel));
	channel->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
	ConditionVariableInit(&channel->freed);
	for (int i = 0; i < SLOTS; i++)
		ConditionVariableInit(&channel->slots[i].changed);
}

/* --------------------------------------------------------------------------
 * Sessions
 * -------------------------------------------------------------------------- */

static void
too_late(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("no answer came in time"),
			 errdetail_internal("%s", detail),
			 errhint("View retl.health tells what is in the way of the workers; a longer timeout may help.")));
}

/* Waits on a condition variable, a little; errors after the deadline. */
static void
sleep_on(ConditionVariable *variable, TimestampTz deadline, const char *detail)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	if (left <= 0)
		too_late(detail);
	(void) ConditionVariableTimedSleep(variable, Min(left, RECHECK_MS), PG_WAIT_EXTENSION);
}

static Slot *
find_free(void)
{
	for (int i = 0; i < SLOTS; i++)
		if (channel->slots[i].state == SLOT_FREE)
			return &channel->slots[i];
	return NULL;
}

/* Fills a free slot with the request; NULL: all are in use. */
static Slot *
put(const RetlChannelRequest *request, uint64 *number)
{
	Slot	   *slot;

	LWLockAcquire(channel->lock, LW_EXCLUSIVE);
	slot = find_free();
	if (slot != NULL)
	{
		*number = slot->number = ++channel->number;
		slot->state = SLOT_ASKED;
		slot->abandoned = false;
		slot->database = MyDatabaseId;
		slot->destination = request->destination;
		slot->timeout_ms = request->timeout_ms;
		strlcpy(slot->key, request->key, sizeof(slot->key));
		slot->body_at = strlen(request->request) + 1;
		strcpy(slot->request, request->request);
		strcpy(slot->request + slot->body_at, request->body);
	}
	LWLockRelease(channel->lock);
	return slot;
}

/* The session goes, whatever the slot's state is. */
static void
give_up(int code, Datum arg)
{
	Slot	   *slot = (Slot *) DatumGetPointer(arg);

	LWLockAcquire(channel->lock, LW_EXCLUSIVE);
	if (slot->state == SLOT_TAKEN)
		slot->abandoned = true;
	else
		slot->state = SLOT_FREE;
	LWLockRelease(channel->lock);
	ConditionVariableBroadcast(&channel->freed);
}

static bool
get(Slot *slot, RetlChannelAnswer *answer, bool *taken)
{
	bool		answered;

	LWLockAcquire(channel->lock, LW_SHARED);
	answered = slot->state == SLOT_ANSWERED;
	*taken = slot->state == SLOT_TAKEN;
	if (answered)
	{
		answer->http_status = slot->http_status;
		answer->seconds = slot->seconds;
		answer->error = slot->has_error ? pstrdup(slot->error) : NULL;
		answer->body = slot->has_body ? pstrdup(slot->body) : NULL;
	}
	LWLockRelease(channel->lock);
	return answered;
}

void
retl_channel_ask(const RetlChannelRequest *request, TimestampTz deadline, RetlChannelAnswer *answer)
{
	Slot	   *slot;
	uint64		number;
	bool		taken = false;

	retl_require_workers();
	if (strlen(request->request) + strlen(request->body) + 2 > REQUEST_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the request is too long to be tested"),
				 errdetail("It has %zu bytes; %d can be handed to the delivery worker.",
						   strlen(request->request) + strlen(request->body), REQUEST_BYTES - 2),
				 errhint("Test with a record that is smaller.")));

	ConditionVariablePrepareToSleep(&channel->freed);
	while ((slot = put(request, &number)) == NULL)
		sleep_on(&channel->freed, deadline, "Other tests are under way.");
	ConditionVariableCancelSleep();

	PG_ENSURE_ERROR_CLEANUP(give_up, PointerGetDatum(slot));
	{
		retl_wake(RETL_DELIVERY_WORKER);
		ConditionVariablePrepareToSleep(&slot->changed);
		while (!get(slot, answer, &taken))
			sleep_on(&slot->changed, deadline,
					 taken ? "The request was sent." : "The delivery worker did not take the request.");
		ConditionVariableCancelSleep();
	}
	PG_END_ENSURE_ERROR_CLEANUP(give_up, PointerGetDatum(slot));
	give_up(0, PointerGetDatum(slot));
}

/* --------------------------------------------------------------------------
 * The delivery worker
 * -------------------------------------------------------------------------- */

/* The answer is in the slot, or nobody wants it. The caller holds the lock. */
static void
finish(Slot *slot)
{
	slot->state = slot->abandoned ? SLOT_FREE : SLOT_ANSWERED;
	slot->worker = 0;
}

static void
answer_all_at_exit(int code, Datum arg)
{
	LWLockAcquire(channel->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS; i++)
	{
		Slot	   *slot = &channel->slots[i];

		if (slot->state != SLOT_TAKEN || slot->worker != MyProcPid)
			continue;
		slot->http_status = 0;
		slot->seconds = 0;
		slot->has_error = true;
		slot->has_body = false;
		strlcpy(slot->error, "the delivery worker ended before there was an answer", sizeof(slot->error));
		finish(slot);
	}
	LWLockRelease(channel->lock);
	for (int i = 0; i < SLOTS; i++)
		ConditionVariableBroadcast(&channel->slots[i].changed);
	ConditionVariableBroadcast(&channel->freed);
}

/* Without the lock: who asks sets the latch of the worker, which then sees it. */
bool
retl_channel_asked(void)
{
	if (channel == NULL)
		return false;
	for (int i = 0; i < SLOTS; i++)
		if (channel->slots[i].state == SLOT_ASKED && channel->slots[i].database == MyDatabaseId)
			return true;
	return false;
}

bool
retl_channel_take(RetlChannelTicket *ticket, RetlChannelRequest *request)
{
	static bool registered = false;
	char	   *texts;
	char	   *key;
	bool		found = false;

	if (!registered)
	{
		before_shmem_exit(answer_all_at_exit, (Datum) 0);
		registered = true;
	}

	texts = palloc(REQUEST_BYTES);
	key = palloc(RETL_CHANNEL_KEY_LIMIT);
	LWLockAcquire(channel->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS && !found; i++)
	{
		Slot	   *slot = &channel->slots[i];

		if (slot->state != SLOT_ASKED || slot->database != MyDatabaseId)
			continue;
		slot->state = SLOT_TAKEN;
		slot->worker = MyProcPid;
		memcpy(texts, slot->request, REQUEST_BYTES);
		memcpy(key, slot->key, RETL_CHANNEL_KEY_LIMIT);
		*ticket = (RetlChannelTicket) {i, slot->number};
		request->destination = slot->destination;
		request->timeout_ms = slot->timeout_ms;
		request->request = texts;
		request->body = texts + slot->body_at;
		request->key = key;
		found = true;
	}
	LWLockRelease(channel->lock);
	return found;
}

void
retl_channel_answer(const RetlChannelTicket *ticket, const RetlChannelAnswer *answer)
{
	Slot	   *slot = &channel->slots[ticket->slot];

	LWLockAcquire(channel->lock, LW_EXCLUSIVE);
	if (slot->number == ticket->number && slot->state == SLOT_TAKEN)
	{
		slot->http_status = answer->http_status;
		slot->seconds = answer->seconds;
		slot->has_error = answer->error != NULL;
		slot->has_body = answer->body != NULL;
		strlcpy(slot->error, answer->error ? answer->error : "", sizeof(slot->error));
		strlcpy(slot->body, answer->body ? answer->body : "", sizeof(slot->body));
		finish(slot);
	}
	LWLockRelease(channel->lock);
	ConditionVariableBroadcast(&slot->changed);
	ConditionVariableBroadcast(&channel->freed);
}
