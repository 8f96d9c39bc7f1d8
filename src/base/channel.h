/*
 * channel.h
 *		One request of a session, carried to the delivery worker of its database
 *		and the answer back, through shared memory: what a test sends. Nothing of
 *		it is stored.
 *
 * Locking: retl_channel's own LWLock protects its slots; it is held for copying
 * in and out, never while waiting. A slot is free, asked (by a session), taken
 * (by a worker), answered, and free again. A session that gives up leaves a
 * taken slot to its worker.
 */
#ifndef RETL_CHANNEL_H
#define RETL_CHANNEL_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define RETL_CHANNEL_KEY_LIMIT 64

typedef struct RetlChannelRequest
{
	int64		destination;
	const char *request;		/* {"method", "url", "headers"}, as batches store it */
	const char *body;			/* "": none */
	const char *key;			/* the idempotency key */
	int			timeout_ms;		/* of the request itself */
} RetlChannelRequest;

typedef struct RetlChannelAnswer
{
	int			http_status;	/* 0: none */
	double		seconds;
	char	   *error;			/* why there is no answer, or NULL */
	char	   *body;			/* start of the answer's body, or NULL */
} RetlChannelAnswer;

/* For shmem.c's hooks. */
extern void retl_channel_request_shmem(void);
extern void retl_channel_init_shmem(void);

/*
 * For a session: hands the request over and waits for the answer, in the
 * current memory context. Errors: 54000 for one that is too long, 57014 when
 * there is none until "deadline".
 */
extern void retl_channel_ask(const RetlChannelRequest *request, TimestampTz deadline,
							 RetlChannelAnswer *answer);

/* For the delivery worker. */
typedef struct RetlChannelTicket
{
	int			slot;
	uint64		number;
} RetlChannelTicket;

/* Whether there is a request of this database; cheap. */
extern bool retl_channel_asked(void);

/* The next request of this database, copied into the current memory context; false: none. */
extern bool retl_channel_take(RetlChannelTicket *ticket, RetlChannelRequest *request);
extern void retl_channel_answer(const RetlChannelTicket *ticket, const RetlChannelAnswer *answer);

#endif							/* RETL_CHANNEL_H */
