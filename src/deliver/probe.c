/*
 * probe.c
 *		Sending what a session asks for; see probe.h.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/instance.h"
#include "deliver/answer.h"
#include "deliver/definition.h"
#include "deliver/probe.h"
#include "worker/worker.h"

/* As many as there are slots could be under way, and more that were given up. */
#define MAX_PROBES 32

typedef struct Probe
{
	MemoryContext context;		/* NULL: not in use */
	RetlChannelTicket ticket;
	RetlSecrets *secrets;
} Probe;

static Probe probes[MAX_PROBES];

static void
end(Probe *probe)
{
	retl_secrets_wipe(probe->secrets);
	MemoryContextDelete(probe->context);
	memset(probe, 0, sizeof(*probe));
}

static void
fail(Probe *probe, char *error)
{
	RetlChannelAnswer answer = {.error = error};

	retl_channel_answer(&probe->ticket, &answer);
	end(probe);
}

/* In a transaction: the request with all that is added to it; NULL: ready, else why not. */
static char *
prepare(Probe *probe, const RetlChannelRequest *asked, TimestampTz now,
		RetlHttpHeader *headers, RetlHttpRequest *request)
{
	RetlLedgerDestination ledger;
	RetlDefinition *definition;
	char	   *error;

	if (!retl_instance_armed(&error))
		return error;
	if (!retl_ledger_destination(asked->destination, &ledger))
		return pstrdup("the destination does not exist, or was not yet committed");
	MemoryContextSwitchTo(probe->context);
	definition = retl_definition_compile(&ledger);
	probe->secrets = retl_secrets_load(asked->destination, probe->context);
	MemoryContextSwitchTo(probe->context);
	if (!retl_request_build(definition->authentication, probe->secrets, asked->request, asked->body,
							strlen(asked->body), asked->key, now, headers, request, &error))
		return error;
	retl_request_compress(definition->compression, headers, request);
	request->timeout_ms = Min(definition->timeout_ms, asked->timeout_ms);
	request->proxy = definition->proxy;
	request->owner = probe;
	return NULL;
}

/* The transaction; NULL: the request is ready, else why not. */
static char *
prepare_in_transaction(Probe *probe, const RetlChannelRequest *asked, TimestampTz now,
					   RetlHttpHeader *headers, RetlHttpRequest *request)
{
	char	   *volatile error = NULL;

	retl_worker_start_transaction();
	pgstat_report_activity(STATE_RUNNING, "retl: test");
	PG_TRY();
	{
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		error = prepare(probe, asked, now, headers, request);
		if (error != NULL)
			error = MemoryContextStrdup(probe->context, error);
		PopActiveSnapshot();
		SPI_finish();
		retl_worker_commit();
	}
	PG_CATCH();
	{
		retl_worker_abort();
		error = MemoryContextStrdup(probe->context, "the request could not be made; see the server's log");
	}
	PG_END_TRY();
	return error;
}

static Probe *
unused(void)
{
	for (int i = 0; i < MAX_PROBES; i++)
		if (probes[i].context == NULL)
			return &probes[i];
	return NULL;
}

bool
retl_probe_start(TimestampTz now)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		any = false;
	Probe	   *probe;

	while (retl_channel_asked() && (probe = unused()) != NULL)
	{
		RetlHttpHeader headers[RETL_REQUEST_HEADERS];
		RetlHttpRequest request;
		RetlChannelRequest asked;
		const char *why;
		char	   *error;

		probe->context = AllocSetContextCreate(TopMemoryContext, "retl test request", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(probe->context);
		if (!retl_channel_take(&probe->ticket, &asked))
		{
			MemoryContextSwitchTo(caller);
			end(probe);
			break;
		}
		any = true;
		error = prepare_in_transaction(probe, &asked, now, headers, &request);
		MemoryContextSwitchTo(caller);
		if (error != NULL)
			fail(probe, error);
		else if (!retl_http_submit(&request, &why))
			fail(probe, unconstify(char *, why));
	}
	return any;
}

bool
retl_probe_answered(const RetlHttpAnswer *http)
{
	Probe	   *probe = http->owner;
	RetlChannelAnswer answer = {0};
	MemoryContext caller;

	if (probe < probes || probe >= probes + MAX_PROBES)
		return false;
	caller = MemoryContextSwitchTo(probe->context);
	answer.http_status = http->status;
	answer.seconds = http->seconds;
	if (http->class != RETL_HTTP_ANSWERED)
		answer.error = retl_answer_fault(probe->context, http);
	answer.body = retl_answer_excerpt(probe->context, http, probe->secrets, RETL_ANSWER_KEPT);
	retl_secrets_mask(probe->secrets, answer.error);
	MemoryContextSwitchTo(caller);
	retl_channel_answer(&probe->ticket, &answer);
	end(probe);
	return true;
}
