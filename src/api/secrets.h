/*
 * secrets.h
 *		Secrets of destinations, as users set them. No state.
 *
 * The value of a secret reaches the table and nothing else: no error, no
 * notice, no log line of ours carries it.
 */
#ifndef RETL_SECRETS_H
#define RETL_SECRETS_H

#include "postgres.h"

#include "api/api.h"

/*
 * Inside a call: stores the references of {"name": {"file": path} or {"env":
 * variable}, ...}; others that the destination has stay. Errors: 22023 for what
 * is no reference and for a secret that the connector does not have, 42501 for
 * a caller who may not read the server's files.
 */
extern void retl_api_secrets_refer(const RetlCall *call, int64 destination, const char *connector,
							   const char *definition, const char *secrets);

/* Inside a call: how many secrets were dropped. */
extern int64 retl_api_secrets_drop(int64 destination);

/*
 * Keeps the texts of statements out of the server's log, whatever fails, until
 * the previous callback is put back.
 */
extern void retl_api_secrets_hide(ErrorContextCallback *callback);

#endif							/* RETL_SECRETS_H */
