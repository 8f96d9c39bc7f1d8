/*
 * oauth.c
 *		Access tokens of OAuth 2; see oauth.h.
 */
#include "postgres.h"

#include "common/base64.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "deliver/oauth.h"
#include "deliver/outcome.h"

#define FETCH_TIMEOUT_MS 30000

/* A token of which nobody says how long it lasts. */
#define LASTS_S 1800

/* It is not used in its last minute, which a request may take. */
#define MARGIN_S 60

/* Credentials that were refused are not tried again before. */
#define REFUSED_MS 60000

typedef struct Token
{
	RetlOauthOwner owner;
	char	   *value;			/* NULL: none */
	TimestampTz expires_at;
	bool		fetching;
	int			failures;		/* in a row */
	TimestampTz not_before;		/* of the next fetch */
	char	   *refused;		/* why, or NULL */
	char	   *body;			/* of the request under way */
	size_t		body_len;
} Token;

static List *tokens = NIL;

/* ---- the entry of the connector ---- */

static const char *
string_member(const RetlJson *object, const char *name)
{
	RetlJson   *value = retl_json_member(object, name);

	return value != NULL && value->type == RETL_JSON_STRING ? retl_json_cstring(value) : NULL;
}

/* The text with {{settings.NAME}} replaced. */
static char *
fill_in(const char *text, const RetlJson *settings)
{
	static const char open[] = "{{settings.";
	StringInfoData out;
	const char *at = text;
	const char *found;
	const char *end;

	initStringInfo(&out);
	while ((found = strstr(at, open)) != NULL && (end = strstr(found, "}}")) != NULL)
	{
		const char *name = found + strlen(open);
		const char *value = string_member(settings, pnstrdup(name, end - name));

		appendBinaryStringInfo(&out, at, found - at);
		appendStringInfoString(&out, value != NULL ? value : "");
		at = end + 2;
	}
	appendStringInfoString(&out, at);
	return out.data;
}

RetlOauth *
retl_oauth_compile(const RetlJson *entry, const RetlJson *settings, const char **fault)
{
	RetlOauth  *oauth = palloc0(sizeof(RetlOauth));
	const char *url = string_member(entry, "token_url");
	const char *grant = string_member(entry, "grant");
	const char *credentials = string_member(entry, "credentials");
	RetlJson   *optional = retl_json_member(entry, "optional");

	*fault = "The connector's OAuth 2 needs token_url, client_id_secret and secret, and refresh_secret for refresh_token.";
	oauth->client_id_secret = string_member(entry, "client_id_secret");
	oauth->client_secret = string_member(entry, "secret");
	oauth->refresh_secret = string_member(entry, "refresh_secret");
	oauth->scope = string_member(entry, "scope");
	oauth->basic = credentials != NULL && strcmp(credentials, "basic") == 0;
	oauth->optional = optional != NULL && optional->type == RETL_JSON_BOOL && optional->boolean;
	if (url == NULL || oauth->client_id_secret == NULL || oauth->client_secret == NULL)
		return NULL;
	if (grant == NULL || strcmp(grant, "client_credentials") == 0)
		oauth->refresh_secret = NULL;
	else if (strcmp(grant, "refresh_token") != 0 || oauth->refresh_secret == NULL)
		return NULL;
	oauth->token_url = fill_in(url, settings);
	oauth->proxy = string_member(settings, "proxy");
	*fault = NULL;
	return oauth;
}

/* ---- fetching ---- */

static void
wipe(char **text)
{
	if (*text == NULL)
		return;
	explicit_bzero(*text, strlen(*text));
	pfree(*text);
	*text = NULL;
}

static Token *
find(int64 destination)
{
	for (int i = 0; i < list_length(tokens); i++)
	{
		Token	   *token = list_nth(tokens, i);

		if (token->owner.destination == destination)
			return token;
	}
	return NULL;
}

static void
append_parameter(StringInfo out, const char *name, const char *value)
{
	appendStringInfo(out, "%s%s=", out->len > 0 ? "&" : "", name);
	for (const unsigned char *c = (const unsigned char *) value; *c != '\0'; c++)
	{
		if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
			strchr("-._~", *c) != NULL)
			appendStringInfoChar(out, *c);
		else
			appendStringInfo(out, "%%%02X", *c);
	}
}

/* A secret that must be there. */
static const char *
need(const RetlSecrets *secrets, const char *name, char **error)
{
	const char *fault;
	const char *value = retl_secrets_get(secrets, name, &fault);

	if (value == NULL && *error == NULL)
		*error = fault != NULL ? psprintf("Secret \"%s\" of the destination cannot be read: %s.", name, fault) :
			psprintf("Secret \"%s\" of the destination is not set.", name);
	return value != NULL ? value : "";
}

static char *
basic_header(const char *id, const char *secret)
{
	char	   *pair = psprintf("%s:%s", id, secret);
	int			size = pg_b64_enc_len(strlen(pair)) + 1;
	char	   *text = palloc(size);
	int			len = pg_b64_encode((const void *) pair, strlen(pair), text, size - 1);

	text[Max(len, 0)] = '\0';
	explicit_bzero(pair, strlen(pair));
	return psprintf("Basic %s", text);
}

/* False and *error: it cannot be asked for. */
static bool
fetch(Token *token, const RetlOauth *oauth, const RetlSecrets *secrets, char **error)
{
	const char *id = need(secrets, oauth->client_id_secret, error);
	const char *secret = need(secrets, oauth->client_secret, error);
	const char *refresh = oauth->refresh_secret != NULL ? need(secrets, oauth->refresh_secret, error) : NULL;
	RetlHttpHeader headers[3] = {
		{"Content-Type", "application/x-www-form-urlencoded", false},
		{"Accept", "application/json", false},
	};
	RetlHttpRequest request = {.method = "POST", .url = oauth->token_url, .headers = headers, .nheaders = 2};
	StringInfoData body;
	const char *why;

	if (*error != NULL)
		return false;
	initStringInfo(&body);
	append_parameter(&body, "grant_type", refresh != NULL ? "refresh_token" : "client_credentials");
	if (refresh != NULL)
		append_parameter(&body, "refresh_token", refresh);
	if (oauth->scope != NULL)
		append_parameter(&body, "scope", oauth->scope);
	if (oauth->basic)
		headers[request.nheaders++] = (RetlHttpHeader) {"Authorization", basic_header(id, secret), true};
	else
	{
		append_parameter(&body, "client_id", id);
		append_parameter(&body, "client_secret", secret);
	}
	token->body = MemoryContextStrdup(TopMemoryContext, body.data);
	token->body_len = body.len;
	explicit_bzero(body.data, body.len);
	request.body = token->body;
	request.body_len = token->body_len;
	request.body_secret = true;
	request.proxy = oauth->proxy;
	request.timeout_ms = FETCH_TIMEOUT_MS;
	request.owner = token;
	if (!retl_http_submit(&request, &why))
	{
		wipe(&token->body);
		*error = psprintf("No access token can be asked for: %s.", why);
		return false;
	}
	token->fetching = true;
	return true;
}

RetlOauthState
retl_oauth_token(const RetlOauth *oauth, const RetlOauthOwner *owner, const RetlSecrets *secrets,
				 TimestampTz now, const char **value, TimestampTz *until, char **error)
{
	Token	   *token = find(owner->destination);

	*error = NULL;
	if (token == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		token = palloc0(sizeof(Token));
		token->owner = *owner;
		tokens = lappend(tokens, token);
		MemoryContextSwitchTo(old);
	}
	if (token->owner.destination_version != owner->destination_version ||
		token->owner.connector_version != owner->connector_version)
	{
		wipe(&token->value);
		wipe(&token->refused);
		token->failures = 0;
		token->not_before = 0;
		/* what is under way was asked for by another definition: its answer is dropped */
		token->owner = *owner;
	}
	if (token->value != NULL && now < token->expires_at)
	{
		*value = token->value;
		return RETL_OAUTH_READY;
	}
	*until = Max(token->not_before, TimestampTzPlusMilliseconds(now, FETCH_TIMEOUT_MS));
	if (token->fetching)
		return RETL_OAUTH_WAIT;
	if (now < token->not_before)
	{
		*until = token->not_before;
		if (token->refused == NULL)
			return RETL_OAUTH_WAIT;
		*error = pstrdup(token->refused);
		return RETL_OAUTH_REFUSED;
	}
	wipe(&token->refused);
	RETL_FAULT("token_fetched");
	return fetch(token, oauth, secrets, error) ? RETL_OAUTH_WAIT : RETL_OAUTH_REFUSED;
}

void
retl_oauth_forget(int64 destination)
{
	Token	   *token = find(destination);

	if (token != NULL)
		wipe(&token->value);
}

static bool
is_ours(const Token *owner)
{
	for (int i = 0; i < list_length(tokens); i++)
	{
		if (list_nth(tokens, i) == owner)
			return true;
	}
	return false;
}

/* What the answer to a request for a token has in it. */
static bool
take(Token *token, const RetlHttpAnswer *answer, TimestampTz now)
{
	char	   *error;
	RetlJson   *tree = retl_json_parse(answer->body, answer->body_len, &error);
	RetlJson   *value = retl_json_member(tree, "access_token");
	RetlJson   *lasts = retl_json_member(tree, "expires_in");
	double		seconds = LASTS_S;

	if (value == NULL || value->type != RETL_JSON_STRING || value->len == 0)
		return false;
	if (lasts != NULL && (lasts->type == RETL_JSON_NUMBER || lasts->type == RETL_JSON_STRING))
		seconds = Min(retl_json_double(lasts->text, lasts->len), 86400);
	wipe(&token->value);
	token->value = MemoryContextStrdup(TopMemoryContext, retl_json_cstring(value));
	token->expires_at = TimestampTzPlusMilliseconds(now, (int64) (Max(seconds - MARGIN_S, seconds / 2) * 1000));
	return true;
}

bool
retl_oauth_answered(const RetlHttpAnswer *answer, TimestampTz now, int64 *destination, TimestampTz *until)
{
	Token	   *token = answer->owner;

	if (!is_ours(token))
		return false;
	token->fetching = false;
	wipe(&token->body);
	*destination = token->owner.destination;
	*until = now;
	if (answer->class == RETL_HTTP_ANSWERED && answer->status == 200 && take(token, answer, now))
	{
		token->failures = 0;
		token->not_before = 0;
		return true;
	}
	if (answer->class == RETL_HTTP_REFUSED ||
		(answer->class == RETL_HTTP_ANSWERED && answer->status < 500 && answer->status != 408 && answer->status != 429))
	{
		/* the body may repeat credentials, and says little */
		token->refused = MemoryContextStrdup(TopMemoryContext,
											 answer->class == RETL_HTTP_REFUSED ? psprintf("No access token can be asked for: %s.", answer->error) :
											 psprintf("No access token was given: the token endpoint answered with status %d.", answer->status));
		token->not_before = TimestampTzPlusMilliseconds(now, REFUSED_MS);
		return true;
	}
	token->failures++;
	token->not_before = TimestampTzPlusMilliseconds(now, retl_outcome_backoff(token->failures, &retl_retry_default));
	*until = token->not_before;
	return true;
}
