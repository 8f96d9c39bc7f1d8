/*
 * request.c
 *		What the connector adds to a stored request at each attempt; see
 *		request.h.
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "utils/timestamp.h"

#include "base/json.h"
#include "deliver/render.h"
#include "deliver/request.h"

typedef enum AuthType
{
	AUTH_BEARER,
	AUTH_BASIC,
	AUTH_HEADER,
	AUTH_QUERY,
	AUTH_HMAC,
	AUTH_OAUTH2,
	AUTH_STANDARD_WEBHOOKS
} AuthType;

typedef struct Auth
{
	AuthType	type;
	const char *secret;			/* basic: NULL for no password */
	bool		optional;
	pg_cryptohash_type algorithm;	/* hmac */
	bool		in_base64;		/* hmac: else hexadecimal */
	const char *username;		/* basic: as such */
	const char *username_secret;	/* basic: or from here */
	const char *name;			/* header, query: header or parameter */
	const char *prefix;			/* header */
	RetlOauth  *oauth;			/* oauth2 */
} Auth;

struct RetlAuthentication
{
	int			count;
	Auth	   *items;
	const char *idempotency_header; /* or NULL */
	const char *fault;			/* why nothing can be sent */
};

static const struct
{
	const char *name;
	AuthType	type;
}			auth_types[] = {
	{"bearer", AUTH_BEARER},
	{"basic", AUTH_BASIC},
	{"header", AUTH_HEADER},
	{"query", AUTH_QUERY},
	{"hmac", AUTH_HMAC},
	{"oauth2", AUTH_OAUTH2},
	{"standard_webhooks", AUTH_STANDARD_WEBHOOKS},
};

/* How a message is framed and where it goes is not for a stored header to say. */
static const char *const framing_headers[] = {
	"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "TE",
	"Trailer", "Expect", "Proxy-Authorization", "Proxy-Connection",
};

static const char *
string_member(const RetlJson *object, const char *name)
{
	RetlJson   *value = retl_json_member(object, name);

	return value != NULL && value->type == RETL_JSON_STRING ? retl_json_cstring(value) : NULL;
}

static bool
true_member(const RetlJson *object, const char *name)
{
	RetlJson   *value = retl_json_member(object, name);

	return value != NULL && value->type == RETL_JSON_BOOL && value->boolean;
}

static const char *
compile_hmac(const RetlJson *entry, Auth *auth)
{
	static const struct
	{
		const char *name;
		pg_cryptohash_type type;
	}			algorithms[] = {{"sha256", PG_SHA256}, {"sha1", PG_SHA1}, {"sha512", PG_SHA512}};
	const char *algorithm = string_member(entry, "algorithm");
	const char *digits = string_member(entry, "encoding");

	auth->algorithm = PG_SHA256;
	auth->in_base64 = digits != NULL && strcmp(digits, "base64") == 0;
	if (digits != NULL && !auth->in_base64 && strcmp(digits, "hex") != 0)
		return "The encoding of the connector's signature must be hex or base64.";
	for (int i = 0; algorithm != NULL && i < lengthof(algorithms); i++)
	{
		if (strcmp(algorithm, algorithms[i].name) == 0)
		{
			auth->algorithm = algorithms[i].type;
			return NULL;
		}
	}
	return algorithm == NULL ? NULL : "The algorithm of the connector's signature must be sha256, sha1 or sha512.";
}

/* Returns why the entry is not understood, or NULL. */
static const char *
compile_auth(const RetlJson *entry, const RetlJson *settings, Auth *auth)
{
	const char *type = string_member(entry, "type");
	const char *setting;
	int			i;

	for (i = 0; i < lengthof(auth_types); i++)
	{
		if (type != NULL && strcmp(type, auth_types[i].name) == 0)
			break;
	}
	if (i == lengthof(auth_types))
		return psprintf("The connector asks for authentication of an unknown type \"%s\".", type ? type : "");

	auth->type = auth_types[i].type;
	auth->secret = string_member(entry, "secret");
	auth->optional = true_member(entry, "optional");
	auth->prefix = string_member(entry, "prefix");
	auth->name = string_member(entry, auth->type == AUTH_QUERY ? "parameter" : "header");
	auth->username = string_member(entry, "username");
	auth->username_secret = string_member(entry, "username_secret");
	setting = string_member(entry, "username_setting");
	if (setting != NULL)
		auth->username = string_member(settings, setting);

	if (auth->secret == NULL && auth->type != AUTH_BASIC)
		return "The connector's authentication does not name a secret.";
	if ((auth->type == AUTH_HEADER || auth->type == AUTH_QUERY || auth->type == AUTH_HMAC) && auth->name == NULL)
		return "The connector's authentication does not name a header or parameter.";
	if (auth->type == AUTH_OAUTH2)
	{
		const char *fault;

		auth->oauth = retl_oauth_compile(entry, settings, &fault);
		return fault;
	}
	return auth->type == AUTH_HMAC ? compile_hmac(entry, auth) : NULL;
}

RetlAuthentication *
retl_request_compile(const char *connector, const char *settings)
{
	RetlAuthentication *result = palloc0(sizeof(RetlAuthentication));
	char	   *error;
	RetlJson   *definition = retl_json_parse(connector, strlen(connector), &error);
	RetlJson   *tree = retl_json_parse(settings, strlen(settings), &error);
	RetlJson   *list;
	RetlJson   *idempotency;

	if (definition == NULL || tree == NULL)
		elog(ERROR, "a connector's definition or settings are no JSON: %s", error);

	list = retl_json_member(definition, "auth");
	if (list != NULL && list->type == RETL_JSON_ARRAY)
	{
		result->items = palloc0(sizeof(Auth) * Max(1, list->len));
		for (int i = 0; i < list->len && result->fault == NULL; i++)
			result->fault = compile_auth(list->items[i], tree, &result->items[result->count++]);
	}
	idempotency = retl_json_member(definition, "idempotency");
	if (idempotency != NULL)
		result->idempotency_header = string_member(idempotency, "header");
	return result;
}

static bool
is_framing(const char *name)
{
	for (int i = 0; i < lengthof(framing_headers); i++)
	{
		if (pg_strcasecmp(name, framing_headers[i]) == 0)
			return true;
	}
	return false;
}

static bool
add(RetlHttpHeader *headers, RetlHttpRequest *request, const char *name, const char *value, bool secret)
{
	/* what we add replaces what was stored */
	for (int i = 0; i < request->nheaders; i++)
	{
		if (pg_strcasecmp(headers[i].name, name) == 0)
		{
			headers[i] = (RetlHttpHeader) {name, value, secret};
			return true;
		}
	}
	if (request->nheaders == RETL_REQUEST_HEADERS)
		return false;
	headers[request->nheaders++] = (RetlHttpHeader) {name, value, secret};
	return true;
}

/* A C string of a JSON string; NULL when it is none, or holds a NUL. */
static char *
slice_cstring(RetlSlice slice)
{
	const char *text;
	int			len;

	if (slice.data == NULL || retl_slice_type(slice) != RETL_JSON_STRING)
		return NULL;
	text = retl_slice_text(slice, &len);
	if (memchr(text, '\0', len) != NULL)
		return NULL;
	return pnstrdup(text, len);
}

/* Bytes are char in base64.h up to 17, uint8 from 18: void passes as both. */
static char *
base64(const uint8 *data, int len)
{
	int			size = pg_b64_enc_len(len) + 1;
	char	   *text = palloc(size);

	len = pg_b64_encode((const void *) data, len, text, size - 1);
	text[Max(len, 0)] = '\0';
	return text;
}

/* The key of a Standard Webhooks secret: base64 after "whsec_", else its bytes. */
static int
webhook_key(const char *secret, uint8 **key)
{
	static const char prefix[] = "whsec_";
	int			len = strlen(secret);

	if (strncmp(secret, prefix, sizeof(prefix) - 1) == 0)
	{
		const char *encoded = secret + sizeof(prefix) - 1;
		int			size = pg_b64_dec_len(strlen(encoded)) + 1;
		int			decoded;

		*key = palloc(size);
		decoded = pg_b64_decode(encoded, strlen(encoded), (void *) *key, size);
		if (decoded > 0)
			return decoded;
	}
	*key = (uint8 *) pstrdup(secret);
	return len;
}

static char *
webhook_signature(const char *secret, const char *id, const char *timestamp, const char *body, size_t body_len)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint8	   *key;
	int			key_len = webhook_key(secret, &key);
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);

	if (hmac == NULL || pg_hmac_init(hmac, key, key_len) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) id, strlen(id)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) ".", 1) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) timestamp, strlen(timestamp)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) ".", 1) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) body, body_len) < 0 ||
		pg_hmac_final(hmac, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a signature: %s", pg_hmac_error(hmac));
	pg_hmac_free(hmac);
	explicit_bzero(key, key_len);
	return psprintf("v1,%s", base64(digest, sizeof(digest)));
}

/* HMAC of the body, as it is sent. */
static char *
body_signature(const Auth *auth, const char *secret, const char *body, size_t body_len)
{
	static const int lengths[] = {
		[PG_SHA1] = 20, [PG_SHA256] = PG_SHA256_DIGEST_LENGTH, [PG_SHA512] = PG_SHA512_DIGEST_LENGTH
	};
	uint8		digest[PG_SHA512_DIGEST_LENGTH];
	int			len = lengths[auth->algorithm];
	char		hex[2 * PG_SHA512_DIGEST_LENGTH + 1];
	pg_hmac_ctx *hmac = pg_hmac_create(auth->algorithm);

	if (hmac == NULL || pg_hmac_init(hmac, (const uint8 *) secret, strlen(secret)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) body, body_len) < 0 ||
		pg_hmac_final(hmac, digest, len) < 0)
		elog(ERROR, "could not compute a signature: %s", pg_hmac_error(hmac));
	pg_hmac_free(hmac);
	if (auth->in_base64)
		return base64(digest, len);
	for (int i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return pstrdup(hex);
}

/* Appends "name=value", percent-encoded, to the query of a URL. */
static char *
with_parameter(const char *url, const char *name, const char *value)
{
	StringInfoData result;
	const char *fragment = strchr(url, '#');
	int			len = fragment != NULL ? fragment - url : strlen(url);

	initStringInfo(&result);
	appendBinaryStringInfo(&result, url, len);
	appendStringInfoChar(&result, memchr(url, '?', len) != NULL ? '&' : '?');
	for (int part = 0; part < 2; part++)
	{
		for (const unsigned char *c = (const unsigned char *) (part == 0 ? name : value); *c != '\0'; c++)
		{
			if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
				strchr("-._~", *c) != NULL)
				appendStringInfoChar(&result, *c);
			else
				appendStringInfo(&result, "%%%02X", *c);
		}
		if (part == 0)
			appendStringInfoChar(&result, '=');
	}
	return result.data;
}

/* Adds one kind of authentication; returns false and *error when it cannot. */
static bool
authenticate(const Auth *auth, const RetlSecrets *secrets, const char *idempotency_key, TimestampTz now,
			 RetlHttpHeader *headers, RetlHttpRequest *request, char **error)
{
	const char *fault = NULL;
	const char *secret = auth->secret != NULL ? retl_secrets_get(secrets, auth->secret, &fault) : "";
	const char *username = auth->username;
	bool		fits = true;

	if (secret == NULL)
	{
		if (fault != NULL)
			*error = psprintf("Secret \"%s\" of the destination cannot be read: %s.", auth->secret, fault);
		else if (auth->optional)
			return true;
		else
			*error = psprintf("Secret \"%s\" of the destination is not set.", auth->secret);
		return false;
	}

	switch (auth->type)
	{
		case AUTH_BEARER:
			fits = add(headers, request, "Authorization", psprintf("Bearer %s", secret), true);
			break;
		case AUTH_BASIC:
			{
				char	   *pair;

				if (auth->username_secret != NULL)
					username = retl_secrets_get(secrets, auth->username_secret, &fault);
				if (username == NULL && fault != NULL)
					*error = psprintf("Secret \"%s\" of the destination cannot be read: %s.",
									  auth->username_secret, fault);
				else if (username == NULL && auth->optional)
					return true;
				else if (username == NULL && auth->username_secret != NULL)
					*error = psprintf("Secret \"%s\" of the destination is not set.", auth->username_secret);
				else if (username == NULL)
					*error = pstrdup("The user name for basic authentication is not set.");
				if (username == NULL)
					return false;
				pair = psprintf("%s:%s", username, secret);
				fits = add(headers, request, "Authorization",
						   psprintf("Basic %s", base64((const uint8 *) pair, strlen(pair))), true);
				explicit_bzero(pair, strlen(pair));
				break;
			}
		case AUTH_HEADER:
			fits = add(headers, request, auth->name,
					   psprintf("%s%s", auth->prefix ? auth->prefix : "", secret), true);
			break;
		case AUTH_QUERY:
			request->url = with_parameter(request->url, auth->name, secret);
			request->url_secret = true;
			break;
		case AUTH_OAUTH2:
			if (secrets->token == NULL)
			{
				*error = pstrdup("There is no access token yet: it is fetched when something is synced.");
				return false;
			}
			fits = add(headers, request, "Authorization", psprintf("Bearer %s", secrets->token), true);
			break;
		case AUTH_HMAC:
			fits = add(headers, request, auth->name,
					   psprintf("%s%s", auth->prefix ? auth->prefix : "",
								body_signature(auth, secret, request->body ? request->body : "",
											   request->body_len)), true);
			break;
		case AUTH_STANDARD_WEBHOOKS:
			{
				int64		unix_time = (now / USECS_PER_SEC) +
					(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
				char	   *timestamp = psprintf(INT64_FORMAT, unix_time);

				fits = add(headers, request, "webhook-id", idempotency_key, false) &&
					add(headers, request, "webhook-timestamp", timestamp, false) &&
					add(headers, request, "webhook-signature",
						webhook_signature(secret, idempotency_key, timestamp,
										  request->body ? request->body : "", request->body_len), false);
				break;
			}
	}
	if (!fits)
		*error = pstrdup("The request has too many headers.");
	return fits;
}

const RetlOauth *
retl_request_oauth(const RetlAuthentication *authentication, const RetlSecrets *secrets)
{
	for (int i = 0; i < authentication->count; i++)
	{
		const Auth *auth = &authentication->items[i];
		const char *fault;

		if (auth->oauth != NULL &&
			(!auth->optional || retl_secrets_get(secrets, auth->secret, &fault) != NULL || fault != NULL))
			return auth->oauth;
	}
	return NULL;
}

/* A URL that is a secret as a whole. */
static bool
take_url(RetlSlice stored, const RetlSecrets *secrets, RetlHttpRequest *request, char **error)
{
	char	   *name = slice_cstring(retl_slice_member(stored, "url_secret", strlen("url_secret")));
	const char *fault;

	if (name == NULL)
		return true;
	request->url = retl_secrets_get(secrets, name, &fault);
	request->url_secret = true;
	if (request->url == NULL && fault != NULL)
		*error = psprintf("Secret \"%s\" of the destination cannot be read: %s.", name, fault);
	else if (request->url == NULL)
		*error = psprintf("Secret \"%s\" of the destination is not set.", name);
	return request->url != NULL;
}

/* Whether a secret as such is part of the request; a signature is none. */
static bool
carries_secret(const RetlHttpRequest *request)
{
	bool		carries = request->body_secret || request->url_secret;

	for (int i = 0; i < request->nheaders; i++)
		carries |= request->headers[i].secret;
	return carries;
}

bool
retl_request_build(const RetlAuthentication *authentication, const RetlSecrets *secrets,
				   const char *stored, const char *body, size_t body_len,
				   const char *idempotency_key, TimestampTz now,
				   RetlHttpHeader *headers, RetlHttpRequest *request, char **error)
{
	RetlSlice	slice = retl_slice(stored, strlen(stored));
	RetlSlice	list = retl_slice_member(slice, "headers", strlen("headers"));
	bool		has_type = false;

	memset(request, 0, sizeof(*request));
	request->headers = headers;
	request->method = slice_cstring(retl_slice_member(slice, "method", strlen("method")));
	request->url = slice_cstring(retl_slice_member(slice, "url", strlen("url")));
	body = retl_render_body(slice, body, body_len, secrets, &body_len, &request->body_secret, error);
	if (body == NULL || !take_url(slice, secrets, request, error))
		return false;
	if (body_len > 0)
	{
		request->body = body;
		request->body_len = body_len;
	}

	if (authentication->fault != NULL)
	{
		*error = pstrdup(authentication->fault);
		return false;
	}
	if (request->method == NULL || request->url == NULL)
	{
		*error = pstrdup("The stored request has no method or no URL.");
		return false;
	}

	if (list.data != NULL && retl_slice_type(list) == RETL_JSON_OBJECT)
	{
		RetlSliceIterator iterator;
		RetlSlice	key;
		RetlSlice	value;

		retl_slice_walk(&iterator, list);
		while (retl_slice_next(&iterator, &key, &value))
		{
			char	   *name = slice_cstring(key);
			char	   *text = slice_cstring(value);

			if (name == NULL || text == NULL || !retl_http_header_valid(name, text) || is_framing(name))
			{
				*error = psprintf("Header \"%s\" of the request cannot be sent.", name ? name : "");
				return false;
			}
			has_type |= pg_strcasecmp(name, "Content-Type") == 0;
			if (!add(headers, request, name, text, false))
			{
				*error = pstrdup("The request has too many headers.");
				return false;
			}
		}
	}
	if (request->body != NULL && !has_type)
		add(headers, request, "Content-Type", retl_render_type(slice), false);
	if (authentication->idempotency_header != NULL)
		add(headers, request, authentication->idempotency_header, idempotency_key, false);

	for (int i = 0; i < authentication->count; i++)
	{
		if (!authenticate(&authentication->items[i], secrets, idempotency_key, now, headers, request, error))
			return false;
	}
	if (retl_slice_member(slice, "elsewhere", strlen("elsewhere")).data != NULL && carries_secret(request))
	{
		*error = pstrdup("The request goes to another origin than the settings of the destination name, and its secrets are not for that.");
		return false;
	}
	return true;
}

void
retl_request_compress(RetlCompression compression, RetlHttpHeader *headers, RetlHttpRequest *request)
{
	size_t		len;
	char	   *compressed;

	for (int i = 0; i < request->nheaders; i++)
	{
		if (pg_strcasecmp(headers[i].name, "Content-Encoding") == 0)
			return;
	}
	compressed = request->body != NULL ? retl_compress(compression, request->body, request->body_len, &len) : NULL;
	if (compressed == NULL || !add(headers, request, "Content-Encoding", retl_compression_name(compression), false))
		return;
	if (request->body_secret)
		explicit_bzero(unconstify(char *, request->body), request->body_len);
	request->body = compressed;
	request->body_len = len;
}
