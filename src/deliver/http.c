/*
 * http.c
 *		HTTP requests over libcurl's multi interface; see http.h.
 *
 * Waiting. libcurl tells which sockets it waits for (watch_socket) and until
 * when (set_timer); poller.c does the waiting.
 *
 * Sending once. libcurl sends a request again, in silence, when a reused
 * connection breaks before an answer. It calls before_send each time: the
 * second call aborts, and the outcome is unknown to the caller, who repeats
 * the request with the same idempotency key and has it on record.
 *
 * Reaching only what may be reached. open_socket sees the address after name
 * resolution, whatever notation or name server it came from; before_send sees
 * the peer of a connection that is reused. Through a proxy that is the proxy's address; it is always
 * asked for a tunnel, so that it sees nothing of what is sent by TLS.
 *
 * Threads. libcurl resolves names in threads, which inherit the signal mask
 * of the moment they start; they must never run this process's handlers. So
 * every signal is blocked while libcurl works.
 */
#include "postgres.h"

#include <curl/curl.h>
#include <netdb.h>
#include <signal.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "deliver/address.h"
#include "deliver/http.h"
#include "deliver/poller.h"

/* The options and the functions used here; Debian 12 has 7.88. */
#define LOWEST_CURL 0x075500
#if LIBCURL_VERSION_NUM < LOWEST_CURL
#error "retl needs libcurl 7.85 or later"
#endif

#define CONNECT_TIMEOUT_MS 10000

/* Certificates and names change: no connection is kept for ever. */
#define CONNECTION_LIFETIME_S 300

/* Answers with more than this are broken or hostile. */
#define HEADER_BYTES_LIMIT (64 * 1024)
#define HEADER_COUNT_LIMIT 100

#define RETRY_AFTER_LIMIT 64

/* A buffer larger than this is not kept for the next answer. */
#define BODY_KEPT (16 * 1024)

#define EVENTS_AT_ONCE 64

/* For wait sets and the like. */
#define DESCRIPTORS_LEFT 32

/* Rounds of one retl_http_run(): the caller has latches to look at. */
#define ROUNDS_AT_ONCE 4

typedef struct Transfer
{
	CURL	   *easy;
	struct Transfer *next;		/* in the list of idle or of finished ones */
	void	   *owner;
	struct curl_slist *headers;
	int			nheaders;
	char	   *url;			/* as set, to spare setting it again */
	bool		url_secret;
	bool		header_secret[32];
	bool		proxied;		/* the handle has a proxy set */
	int			trust;			/* whom it trusts */
	CURLcode	code;

	/* what the callbacks saw */
	int			sends;
	int			sockets_opened;
	const char *address_refused;
	char		address[64];
	int			header_count;
	size_t		header_bytes;
	bool		headers_excessive;
	char		retry_after[RETRY_AFTER_LIMIT];
	char	   *body;
	size_t		body_len;
	size_t		body_size;
	bool		body_capped;
	bool		out_of_memory;
	TimestampTz dispatched_at;
	char		error[CURL_ERROR_SIZE];
} Transfer;

static CURLM *multi = NULL;

/* Whom new handles trust, and a number that grows when that changes. */
static char *trusted = NULL;
static int	trust = 0;

static Transfer *idle = NULL;
static Transfer *finished_first = NULL;
static Transfer *finished_last = NULL;
static Transfer *handed_out = NULL;
static int	active = 0;

static void
block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	sigprocmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	sigprocmask(SIG_SETMASK, saved, NULL);
}

/* Sockets and the timer */

/* libcurl's CURLMOPT_SOCKETFUNCTION */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *unused, void *unused_too)
{
	int			wanted = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		wanted |= RETL_POLLER_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		wanted |= RETL_POLLER_WRITE;
	return retl_poller_watch(fd, wanted) ? 0 : -1;
}

/* libcurl's CURLMOPT_TIMERFUNCTION */
static int
set_timer(CURLM *unused, long timeout_ms, void *unused_too)
{
	retl_poller_timer(timeout_ms);
	return 0;
}

/* libcurl's CURLOPT_OPENSOCKETFUNCTION */
static curl_socket_t
open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address)
{
	Transfer   *transfer = data;
	const char *reason;
	int			fd;

	reason = retl_address_refused(&address->addr, address->addrlen);
	if (reason != NULL)
	{
		if (transfer->address_refused == NULL)
		{
			transfer->address_refused = reason;
			transfer->address[0] = '\0';
			(void) getnameinfo(&address->addr, address->addrlen, transfer->address,
							   sizeof(transfer->address), NULL, 0, NI_NUMERICHOST);
		}
		return CURL_SOCKET_BAD;
	}

	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	if (!retl_poller_opened(fd))
	{
		close(fd);
		return CURL_SOCKET_BAD;
	}
	transfer->sockets_opened++;
	return fd;
}

/* libcurl's CURLOPT_CLOSESOCKETFUNCTION */
static int
close_socket(void *unused, curl_socket_t fd)
{
	retl_poller_closed(fd);
	return close(fd);
}

/* The other callbacks of a transfer */

/* libcurl's CURLOPT_PREREQFUNCTION */
static int
before_send(void *data, char *peer, char *local, int peer_port, int local_port)
{
	Transfer   *transfer = data;

	/* the list of networks may have changed since the connection was made */
	transfer->address_refused = retl_address_text_refused(peer);
	if (transfer->address_refused != NULL)
	{
		strlcpy(transfer->address, peer, sizeof(transfer->address));
		return CURL_PREREQFUNC_ABORT;
	}
	if (transfer->sends++ > 0)
		return CURL_PREREQFUNC_ABORT;
	return CURL_PREREQFUNC_OK;
}

/* libcurl's CURLOPT_HEADERFUNCTION */
static size_t
take_header(char *line, size_t one, size_t len, void *data)
{
	static const char retry_after[] = "retry-after:";
	Transfer   *transfer = data;

	/* each answer of several (100, then 200) starts anew */
	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
		transfer->retry_after[0] = '\0';

	transfer->header_bytes += len;
	if (++transfer->header_count > HEADER_COUNT_LIMIT || transfer->header_bytes > HEADER_BYTES_LIMIT)
	{
		transfer->headers_excessive = true;
		return 0;
	}

	if (len > sizeof(retry_after) - 1 && pg_strncasecmp(line, retry_after, sizeof(retry_after) - 1) == 0)
	{
		const char *value = line + sizeof(retry_after) - 1;
		const char *end = line + len;

		while (value < end && (*value == ' ' || *value == '\t'))
			value++;
		while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
			end--;
		if (end - value < sizeof(transfer->retry_after))
		{
			memcpy(transfer->retry_after, value, end - value);
			transfer->retry_after[end - value] = '\0';
		}
	}
	return len;
}

/* libcurl's CURLOPT_WRITEFUNCTION */
static size_t
take_body(char *data, size_t one, size_t len, void *arg)
{
	Transfer   *transfer = arg;
	size_t		take = Min(len, RETL_HTTP_ANSWER_LIMIT - transfer->body_len);

	if (transfer->body_len + take + 1 > transfer->body_size)
	{
		size_t		size = Max(transfer->body_size * 2, 1024);
		char	   *grown;

		while (size < transfer->body_len + take + 1)
			size *= 2;
		grown = realloc(transfer->body, size);
		if (grown == NULL)
		{
			transfer->out_of_memory = true;
			return 0;
		}
		transfer->body = grown;
		transfer->body_size = size;
	}
	memcpy(transfer->body + transfer->body_len, data, take);
	transfer->body_len += take;
	if (take < len)
		transfer->body_capped = true;
	return take;
}

/* Start-up */

void
retl_http_init(void)
{
	curl_version_info_data *version;
	sigset_t	saved;
	CURLcode	code;

	if (multi != NULL)
		return;

	retl_http_forget_environment();
	pqsignal(SIGPIPE, SIG_IGN);

	block_signals(&saved);
	code = curl_global_init(CURL_GLOBAL_DEFAULT);
	restore_signals(&saved);
	if (code != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not initialize libcurl: %s", curl_easy_strerror(code))));

	version = curl_version_info(CURLVERSION_NOW);
	if (version->version_num < LOWEST_CURL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s is too old", version->version),
				 errhint("retl needs libcurl 7.85 or later.")));
	if ((version->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl resolves names synchronously"),
				 errhint("retl needs a libcurl with the threaded resolver or c-ares.")));

	retl_poller_init();
	multi = curl_multi_init();
	if (multi == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));

	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) RETL_HTTP_MAX_TRANSFERS);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_MULTIPLEX);

	/* the files that PostgreSQL opens must leave room for the sockets, and these for others */
	for (int i = 0; i < RETL_HTTP_MAX_TRANSFERS; i++)
	{
		if (AcquireExternalFD())
			continue;
		for (int back = 0; back < Min(i, DESCRIPTORS_LEFT); back++)
			ReleaseExternalFD();
		break;
	}
}

int
retl_http_fd(void)
{
	return retl_poller_fd();
}

int
retl_http_active(void)
{
	return active;
}

/* Requests */

#define SET(option, value) \
	do { \
		if (curl_easy_setopt(easy, option, value) != CURLE_OK) \
			goto fail; \
	} while (0)

static Transfer *
transfer_create(void)
{
	Transfer   *transfer = calloc(1, sizeof(Transfer));
	CURL	   *easy;

	if (transfer == NULL)
		return NULL;
	easy = transfer->easy = curl_easy_init();
	if (easy == NULL)
		goto fail;

	SET(CURLOPT_PRIVATE, transfer);
	SET(CURLOPT_ERRORBUFFER, transfer->error);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_NOPROGRESS, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_ACCEPT_ENCODING, NULL);
	SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	transfer->trust = trust;
	if (trusted != NULL)
	{
		SET(CURLOPT_CAINFO, trusted);
		SET(CURLOPT_CAPATH, NULL);
		SET(CURLOPT_PROXY_CAINFO, trusted);
		SET(CURLOPT_PROXY_CAPATH, NULL);
	}
	/* where the server's environment names other authorities, as OpenSSL has it */
	else if (getenv("SSL_CERT_FILE") != NULL)
		SET(CURLOPT_CAINFO, getenv("SSL_CERT_FILE"));
	if (trusted == NULL && getenv("SSL_CERT_DIR") != NULL)
		SET(CURLOPT_CAPATH, getenv("SSL_CERT_DIR"));
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_MAXLIFETIME_CONN, (long) CONNECTION_LIFETIME_S);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) CONNECT_TIMEOUT_MS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_USERAGENT, "retl");
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, transfer);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	SET(CURLOPT_PREREQFUNCTION, before_send);
	SET(CURLOPT_PREREQDATA, transfer);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, transfer);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, transfer);
#if LIBCURL_VERSION_NUM >= 0x075700
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	return transfer;

fail:
	if (easy != NULL)
		curl_easy_cleanup(easy);
	free(transfer);
	return NULL;
}

/* Makes a transfer fit for the next request. */
static void
transfer_clear(Transfer *transfer)
{
	int			i = 0;

	for (struct curl_slist *header = transfer->headers; header != NULL; header = header->next, i++)
	{
		if (i < lengthof(transfer->header_secret) && transfer->header_secret[i])
			explicit_bzero(header->data, strlen(header->data));
	}
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	transfer->nheaders = 0;
	memset(transfer->header_secret, 0, sizeof(transfer->header_secret));

	if (transfer->url_secret)
	{
		explicit_bzero(transfer->url, strlen(transfer->url));
		transfer->url[0] = '\0';
		transfer->url_secret = false;
	}
	if (transfer->body_size > BODY_KEPT)
	{
		free(transfer->body);
		transfer->body = NULL;
		transfer->body_size = 0;
	}

	transfer->owner = NULL;
	transfer->sends = 0;
	transfer->sockets_opened = 0;
	transfer->address_refused = NULL;
	transfer->address[0] = '\0';
	transfer->header_count = 0;
	transfer->header_bytes = 0;
	transfer->headers_excessive = false;
	transfer->retry_after[0] = '\0';
	transfer->body_len = 0;
	transfer->body_capped = false;
	transfer->out_of_memory = false;
	transfer->error[0] = '\0';
}

static bool
add_header(Transfer *transfer, const char *name, const char *value, bool secret)
{
	size_t		name_len = strlen(name);
	size_t		value_len = strlen(value);
	char		fixed[512];
	char	   *line = fixed;
	struct curl_slist *list;

	if (transfer->nheaders == lengthof(transfer->header_secret))
		return false;
	if (name_len + value_len + 3 > sizeof(fixed))
		line = malloc(name_len + value_len + 3);
	if (line == NULL)
		return false;
	memcpy(line, name, name_len);
	if (value_len == 0)
		/* so a header without a value is written in a list of libcurl */
		memcpy(line + name_len, ";", 2);
	else
	{
		memcpy(line + name_len, ": ", 2);
		memcpy(line + name_len + 2, value, value_len + 1);
	}

	list = curl_slist_append(transfer->headers, line);
	if (secret)
		explicit_bzero(line, name_len + value_len + 3);
	if (line != fixed)
		free(line);
	if (list == NULL)
		return false;
	transfer->headers = list;
	transfer->header_secret[transfer->nheaders++] = secret;
	return true;
}

void
retl_http_trust(const char *ca_file)
{
	if (ca_file != NULL && ca_file[0] == '\0')
		ca_file = NULL;
	if (trusted == NULL ? ca_file == NULL : ca_file != NULL && strcmp(ca_file, trusted) == 0)
		return;
	free(trusted);
	trusted = ca_file != NULL ? strdup(ca_file) : NULL;
	trust++;
}

/* A handle that trusts whom it should. */
static Transfer *
transfer_take(void)
{
	Transfer   *transfer;

	while ((transfer = idle) != NULL)
	{
		idle = transfer->next;
		if (transfer->trust == trust)
			return transfer;
		curl_easy_cleanup(transfer->easy);
		free(transfer->url);
		free(transfer->body);
		free(transfer);
	}
	return transfer_create();
}

bool
retl_http_submit(const RetlHttpRequest *request, const char **why)
{
	Transfer   *transfer;
	CURL	   *easy;
	sigset_t	saved;
	bool		has_body;

	*why = retl_http_request_fault(request);
	if (*why != NULL)
		return false;
	if (request->proxy != NULL && retl_address_url_refused(request->url) != NULL)
	{
		*why = "the address in the URL is not allowed, through a proxy either; a superuser can allow its network in retl.allowed_private_networks";
		return false;
	}
	/* a method that expects a body is told that it is empty */
	has_body = request->body != NULL || strcmp(request->method, "POST") == 0 ||
		strcmp(request->method, "PUT") == 0 || strcmp(request->method, "PATCH") == 0;

	block_signals(&saved);
	*why = "out of memory";

	transfer = transfer_take();
	if (transfer == NULL)
	{
		restore_signals(&saved);
		return false;
	}
	easy = transfer->easy;

	for (int i = 0; i < request->nheaders; i++)
	{
		const RetlHttpHeader *header = &request->headers[i];

		if (!add_header(transfer, header->name, header->value, header->secret))
			goto fail;
	}
	/* ask for no permission to send a body: it costs a round trip */
	{
		struct curl_slist *list = curl_slist_append(transfer->headers, "Expect:");

		if (list == NULL)
			goto fail;
		transfer->headers = list;
	}

	if (transfer->url == NULL || strcmp(transfer->url, request->url) != 0)
	{
		free(transfer->url);
		transfer->url = strdup(request->url);
		if (transfer->url == NULL)
			goto fail;
		SET(CURLOPT_URL, request->url);
	}
	transfer->url_secret = request->url_secret;
	if (transfer->proxied || request->proxy != NULL)
	{
		transfer->proxied = request->proxy != NULL;
		SET(CURLOPT_PROXY, request->proxy != NULL ? request->proxy : "");
		SET(CURLOPT_NOPROXY, request->proxy != NULL ? "" : "*");
		SET(CURLOPT_HTTPPROXYTUNNEL, request->proxy != NULL ? 1L : 0L);
	}
	if (has_body)
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDS, request->body != NULL ? request->body : "");
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
	}
	else
		SET(CURLOPT_HTTPGET, 1L);
	SET(CURLOPT_CUSTOMREQUEST, strcmp(request->method, has_body ? "POST" : "GET") == 0 ? NULL : request->method);
	SET(CURLOPT_NOBODY, strcmp(request->method, "HEAD") == 0 ? 1L : 0L);
	SET(CURLOPT_HTTPHEADER, transfer->headers);
	SET(CURLOPT_TIMEOUT_MS, (long) request->timeout_ms);

	transfer->owner = request->owner;
	transfer->dispatched_at = GetCurrentTimestamp();
	if (curl_multi_add_handle(multi, easy) != CURLM_OK)
		goto fail;
	active++;
	restore_signals(&saved);
	return true;

fail:
	transfer_clear(transfer);
	transfer->next = idle;
	idle = transfer;
	restore_signals(&saved);
	return false;
}

static void
collect_finished(void)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		Transfer   *transfer;
		CURL	   *easy = message->easy_handle;
		CURLcode	code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
		transfer->code = code;
		curl_multi_remove_handle(multi, easy);
		active--;

		transfer->next = NULL;
		if (finished_last != NULL)
			finished_last->next = transfer;
		else
			finished_first = transfer;
		finished_last = transfer;
	}
}

void
retl_http_run(void)
{
	RetlPollerEvent events[EVENTS_AT_ONCE];
	sigset_t	saved;
	int			running;

	block_signals(&saved);
	for (int round = 0; round < ROUNDS_AT_ONCE && finished_first == NULL; round++)
	{
		int			n;

		if (retl_poller_timer_over())
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		n = retl_poller_events(events, EVENTS_AT_ONCE);
		if (n == 0)
			break;
		for (int i = 0; i < n; i++)
		{
			int			what = 0;

			if (!retl_poller_wanted(events[i].fd))
				continue;
			if (events[i].what & RETL_POLLER_READ)
				what |= CURL_CSELECT_IN;
			if (events[i].what & RETL_POLLER_WRITE)
				what |= CURL_CSELECT_OUT;
			if (events[i].what & RETL_POLLER_ERROR)
				what |= CURL_CSELECT_ERR;
			curl_multi_socket_action(multi, events[i].fd, what, &running);
		}
		collect_finished();
	}
	collect_finished();
	restore_signals(&saved);
}

void
retl_http_before_wait(void)
{
	retl_poller_apply();
}

/* Answers */

static void
classify(Transfer *transfer, RetlHttpAnswer *answer)
{
	static char error[CURL_ERROR_SIZE + 128];
	CURLcode	code = transfer->code;

	/* what we did not want to read does not change what was answered */
	if (code == CURLE_WRITE_ERROR && transfer->body_capped && answer->status != 0)
		code = CURLE_OK;

	if (code == CURLE_OK && answer->status != 0)
	{
		answer->class = RETL_HTTP_ANSWERED;
		return;
	}

	strlcpy(error, transfer->error[0] != '\0' ? transfer->error : curl_easy_strerror(code), sizeof(error));
	answer->error = error;

	if (transfer->address_refused != NULL && transfer->sends == 0 &&
		(transfer->sockets_opened == 0 || code == CURLE_ABORTED_BY_CALLBACK))
	{
		answer->class = RETL_HTTP_REFUSED;
		snprintf(error, sizeof(error), "address %s is not allowed: %s",
				 transfer->address, transfer->address_refused);
		answer->hint = "A superuser can allow its network in retl.allowed_private_networks.";
		return;
	}
	if (transfer->headers_excessive)
		snprintf(error, sizeof(error), "the answer has more headers than are read");
	else if (transfer->sends > 1)
		snprintf(error, sizeof(error), "the connection was closed before an answer came");

	switch (code)
	{
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_URL_MALFORMAT:
		case CURLE_LOGIN_DENIED:
		case CURLE_NOT_BUILT_IN:
			answer->class = transfer->sends == 0 ? RETL_HTTP_REFUSED : RETL_HTTP_UNKNOWN;
			break;
		default:
			answer->class = transfer->sends == 0 ? RETL_HTTP_NOT_SENT : RETL_HTTP_UNKNOWN;
			break;
	}
	if (code == CURLE_LOGIN_DENIED && transfer->sends == 0)
		snprintf(error, sizeof(error), "the URL contains a user name or password");
}

bool
retl_http_next(RetlHttpAnswer *answer)
{
	Transfer   *transfer = finished_first;
	long		status = 0;
	curl_off_t	time = 0;

	if (handed_out != NULL)
	{
		transfer_clear(handed_out);
		handed_out->next = idle;
		idle = handed_out;
		handed_out = NULL;
	}
	if (transfer == NULL)
		return false;
	finished_first = transfer->next;
	if (finished_first == NULL)
		finished_last = NULL;
	handed_out = transfer;

	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(transfer->easy, CURLINFO_TOTAL_TIME_T, &time);

	memset(answer, 0, sizeof(*answer));
	answer->owner = transfer->owner;
	answer->status = (int) status;
	answer->retry_after = transfer->retry_after[0] != '\0' ? transfer->retry_after : NULL;
	answer->body = "";
	if (transfer->body_len > 0)
	{
		transfer->body[transfer->body_len] = '\0';
		answer->body = transfer->body;
	}
	answer->body_len = transfer->body_len;
	answer->body_capped = transfer->body_capped;
	answer->dispatched_at = transfer->dispatched_at;
	answer->seconds = time / 1000000.0;
	classify(transfer, answer);
	return true;
}
