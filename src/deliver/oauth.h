/*
 * oauth.h
 *		Access tokens of OAuth 2: fetched with a destination's credentials when they
 *		are needed, kept in memory until they expire or are refused.
 *
 * Of a connector's "auth" an entry
 *		{"type": "oauth2", "grant": "client_credentials" or "refresh_token", "token_url": URL with {{settings.NAME}} in it,
 *		 "client_id_secret": name, "secret": name of the client secret, "refresh_secret": name, "scope": text,
 *		 "credentials": "body" or "basic", "optional": bool}
 *
 * A token belongs to one version of a destination and its connector: where requests
 * go elsewhere, it does not go along. State of the process, no locks.
 */
#ifndef RETL_OAUTH_H
#define RETL_OAUTH_H

#include "postgres.h"

#include "base/json.h"
#include "deliver/http.h"
#include "deliver/secret.h"

typedef struct RetlOauth
{
	const char *token_url;
	const char *proxy;			/* or NULL */
	const char *client_id_secret;	/* names of secrets */
	const char *client_secret;
	const char *refresh_secret; /* NULL: client credentials */
	const char *scope;			/* or NULL */
	bool		basic;			/* credentials in a header, not in the body */
	bool		optional;
} RetlOauth;

/* Whose token: a destination, as it is defined now. */
typedef struct RetlOauthOwner
{
	int64		destination;
	uint32		destination_version;
	uint32		connector_version;
} RetlOauthOwner;

/* NULL and *fault (a sentence) when the entry is not understood. */
extern RetlOauth *retl_oauth_compile(const RetlJson *entry, const RetlJson *settings, const char **fault);

typedef enum RetlOauthState
{
	RETL_OAUTH_READY,			/* *token is it */
	RETL_OAUTH_WAIT,			/* it is being fetched, or will be: ask again at *until, or when there was an answer */
	RETL_OAUTH_REFUSED			/* *error says why there is none */
} RetlOauthState;

/* Starts to fetch a token if there is none. */
extern RetlOauthState retl_oauth_token(const RetlOauth *oauth, const RetlOauthOwner *owner, const RetlSecrets *secrets,
									   TimestampTz now, const char **token, TimestampTz *until, char **error);

/* The token was refused. */
extern void retl_oauth_forget(int64 destination);

/* Takes the answer, if it is to a request of ours; *destination is whose, *until when to go on. */
extern bool retl_oauth_answered(const RetlHttpAnswer *answer, TimestampTz now, int64 *destination, TimestampTz *until);

#endif							/* RETL_OAUTH_H */
