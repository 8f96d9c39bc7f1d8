/*
 * mask.c
 *		Requests with their secrets masked; see mask.h.
 *
 * The request is built by the code that builds it for delivery, from secrets
 * that are all asterisks; so it shows what will be sent, and nothing here ever
 * holds a secret.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/timestamp.h"

#include "api/mask.h"
#include "base/json.h"
#include "base/sql.h"
#include "deliver/request.h"
#include "deliver/secret.h"

#define MASKED "***"
#define MASKED_IN_URL "%2A%2A%2A"

struct RetlMask
{
	RetlAuthentication *authentication;
	RetlSecrets secrets;
};

RetlMask *
retl_mask_prepare(int64 destination, const char *connector, const char *settings)
{
	RetlMask   *mask = palloc0(sizeof(RetlMask));
	RetlArgs	args = {0};
	int64		count;

	mask->authentication = retl_request_compile(connector, settings);
	retl_arg_int8(&args, destination);
	count = retl_sql("SELECT name FROM retl.secret WHERE destination = $1", &args);
	mask->secrets.items = palloc0(sizeof(RetlSecret) * Max(count, 1));
	mask->secrets.count = count;
	mask->secrets.token = MASKED;
	for (int64 i = 0; i < count; i++)
	{
		mask->secrets.items[i].name = retl_result_text(i, 1);
		mask->secrets.items[i].value = pstrdup(MASKED);
	}
	return mask;
}

/* What is made of a secret shows as little of it as the secret itself. */
static const char *
shown(const RetlHttpHeader *header)
{
	if (pg_strcasecmp(header->name, "webhook-signature") == 0)
		return "v1," MASKED;
	if (header->secret && strncmp(header->value, "Basic ", 6) == 0)
		return "Basic " MASKED;
	return header->secret && strstr(header->value, MASKED) == NULL ? MASKED : header->value;
}

static void
append_string(StringInfo out, const char *text)
{
	retl_json_write_string(out, text, strlen(text));
}

/* The URL with a masked parameter legible again. */
static void
append_url(StringInfo out, const RetlHttpRequest *request)
{
	const char *from = request->url;
	const char *found;
	StringInfoData url;

	initStringInfo(&url);
	while (request->url_secret && (found = strstr(from, MASKED_IN_URL)) != NULL)
	{
		appendBinaryStringInfo(&url, from, found - from);
		appendStringInfoString(&url, MASKED);
		from = found + strlen(MASKED_IN_URL);
	}
	appendStringInfoString(&url, from);
	append_string(out, url.data);
}

char *
retl_mask_request(const RetlMask *mask, const char *stored, const char *body,
				  const char *idempotency_key, char **error)
{
	RetlHttpHeader headers[RETL_REQUEST_HEADERS];
	RetlHttpRequest request;
	StringInfoData out;
	char	   *problem;

	if (!retl_request_build(mask->authentication, &mask->secrets, stored, body, strlen(body),
							idempotency_key, GetCurrentTimestamp(), headers, &request, error))
		return NULL;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"method\": ");
	append_string(&out, request.method);
	appendStringInfoString(&out, ", \"url\": ");
	append_url(&out, &request);
	appendStringInfoString(&out, ", \"headers\": {");
	for (int i = 0; i < request.nheaders; i++)
	{
		if (i > 0)
			appendStringInfoString(&out, ", ");
		append_string(&out, headers[i].name);
		appendStringInfoString(&out, ": ");
		append_string(&out, shown(&headers[i]));
	}
	appendStringInfoString(&out, "}, \"body\": ");
	if (request.body == NULL)
		appendStringInfoString(&out, "null");
	else if (retl_json_parse(request.body, request.body_len, &problem) != NULL)
		appendStringInfoString(&out, request.body);
	else
		append_string(&out, request.body);
	appendStringInfoChar(&out, '}');
	return out.data;
}
