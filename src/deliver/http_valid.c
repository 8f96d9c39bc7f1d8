/*
 * http_valid.c
 *		What is done before libcurl sees anything: of requests, what can be told of them; and of the
 *		environment, what it must not see. See http.h.
 */
#include "postgres.h"

#include "deliver/http.h"

static bool
is_token(const char *name)
{
	if (*name == '\0')
		return false;
	for (; *name != '\0'; name++)
	{
		if (!((*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
			  (*name >= '0' && *name <= '9') || strchr("!#$%&'*+-.^_`|~", *name) != NULL))
			return false;
	}
	return true;
}

bool
retl_http_header_valid(const char *name, const char *value)
{
	if (!is_token(name))
		return false;
	for (const unsigned char *c = (const unsigned char *) value; *c != '\0'; c++)
	{
		if ((*c < ' ' && *c != '\t') || *c == 0x7f)
			return false;
	}
	return true;
}

const char *
retl_http_request_fault(const RetlHttpRequest *request)
{
	if (!is_token(request->method))
		return "the request's method is not valid";
	if (pg_strncasecmp(request->url, "http://", 7) != 0 && pg_strncasecmp(request->url, "https://", 8) != 0)
		return "the request's URL does not begin with http:// or https://";
	for (const unsigned char *c = (const unsigned char *) request->url; *c != '\0'; c++)
	{
		if (*c <= ' ' || *c == 0x7f)
			return "the request's URL contains a space or a control character";
	}
	for (int i = 0; i < request->nheaders; i++)
	{
		if (!retl_http_header_valid(request->headers[i].name, request->headers[i].value))
			return "a header of the request contains a character that is not allowed";
	}
	return NULL;
}

void
retl_http_forget_environment(void)
{
	static const char *const names[] = {
		"SSLKEYLOGFILE", "CURL_SSL_BACKEND", "CURL_CA_BUNDLE", "CURL_HOME", "CURL_ENTROPY",
		"NETRC", "QLOGDIR", "http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY",
		"all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
	};

	for (int i = 0; i < lengthof(names); i++)
		unsetenv(names[i]);
}
