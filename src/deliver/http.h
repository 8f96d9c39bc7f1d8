/*
 * http.h
 *		HTTP requests, many at a time, over one file descriptor to wait for.
 *
 * http.c is the only file that includes curl. It owns a multi handle, a pool
 * of easy handles, and an epoll set of curl's sockets and one timer, whose
 * descriptor goes into the caller's WaitEventSet. Below libcurl nothing
 * raises errors or allocates from memory contexts; answers are in malloc'd
 * buffers of bounded size.
 *
 * The state is the process's: retl_http_init() once, in a worker, never in the
 * postmaster. No locks.
 */
#ifndef RETL_HTTP_H
#define RETL_HTTP_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* As many requests can be under way at a time. */
#define RETL_HTTP_MAX_TRANSFERS 512

/* As much of an answer's body is read; the outcome is its status all the same. */
#define RETL_HTTP_ANSWER_LIMIT (1024 * 1024)

typedef struct RetlHttpHeader
{
	const char *name;
	const char *value;
	bool		secret;			/* wipe the copy after use */
} RetlHttpHeader;

typedef struct RetlHttpRequest
{
	const char *method;
	const char *url;
	bool		url_secret;		/* wipe the copy after use */
	const RetlHttpHeader *headers;
	int			nheaders;
	const char *body;			/* NULL: none. Must stay until the answer is there */
	size_t		body_len;
	bool		body_secret;	/* there is a secret in it: the owner wipes it */
	const char *proxy;			/* NULL: none. An http or https URL */
	int			timeout_ms;		/* from dispatch to the end of the answer */
	void	   *owner;			/* comes back with the answer */
} RetlHttpRequest;

typedef enum RetlHttpClass
{
	RETL_HTTP_ANSWERED,			/* there is a complete answer: see its status */
	RETL_HTTP_NOT_SENT,			/* name resolution, connection or TLS failed */
	RETL_HTTP_UNKNOWN,			/* broke off later: may have been processed */
	RETL_HTTP_REFUSED			/* we refused to send it: configuration */
} RetlHttpClass;

typedef struct RetlHttpAnswer
{
	void	   *owner;
	RetlHttpClass class;
	int			status;			/* 0: none seen; may be set though class is not ANSWERED */
	const char *error;			/* NULL when ANSWERED */
	const char *hint;			/* or NULL */
	const char *retry_after;	/* the header's value, or NULL */
	const char *body;			/* NUL-terminated */
	size_t		body_len;
	bool		body_capped;	/* there was more */
	TimestampTz dispatched_at;
	double		seconds;
} RetlHttpAnswer;

/* Errors with 08006 or 53000 when libcurl is unfit or cannot start. */
extern void retl_http_init(void);

/*
 * The file with the authorities that are trusted from the next request on; NULL or empty: the
 * system's, or those that the server's environment names.
 */
extern void retl_http_trust(const char *ca_file);

/*
 * Readable when retl_http_run() has something to do; retl_http_before_wait()
 * makes it so, after whatever else was done here.
 */
extern int	retl_http_fd(void);
extern void retl_http_before_wait(void);

/* Requests under way. */
extern int	retl_http_active(void);

/*
 * Starts a request. false when it cannot be sent as it is: *why says so, in
 * static storage.
 */
extern bool retl_http_submit(const RetlHttpRequest *request, const char **why);

/* Does what can be done without waiting. */
extern void retl_http_run(void);

/*
 * The next answer, valid until the next call of any function here; false when
 * there is none.
 */
extern bool retl_http_next(RetlHttpAnswer *answer);

/* Whether a header may be sent: its name a token, no control bytes in its value. */
extern bool retl_http_header_valid(const char *name, const char *value);

/* Takes from the environment what libcurl and its libraries would obey. */
extern void retl_http_forget_environment(void);

/* Why a request cannot be sent, in static storage, or NULL. */
extern const char *retl_http_request_fault(const RetlHttpRequest *request);

#endif							/* RETL_HTTP_H */
