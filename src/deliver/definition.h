/*
 * definition.h
 *		What a destination's connector and settings say about delivery. Owns no
 *		state; compiled into the current memory context.
 *
 * Reads of a connector, beside what request.h names:
 *		"timeout", "concurrency"	a number, or {"setting": NAME}
 *		"rate"						{"requests": N, "rows": N, "seconds": N}
 *		"quota"						{"requests": N, "rows": N}, a day
 *		"retry"						{"also": [STATUS, ...], "never": [STATUS, ...]}
 * The settings that every destination takes (retl_connector_settings) come before what the connector says.
 */
#ifndef RETL_DEFINITION_H
#define RETL_DEFINITION_H

#include "postgres.h"

#include "base/json.h"
#include "deliver/compress.h"
#include "deliver/ledger.h"
#include "deliver/limiter.h"
#include "deliver/outcome.h"
#include "deliver/request.h"

typedef struct RetlDefinition
{
	char	   *name;
	int			timeout_ms;
	RetlLimits	limits;
	RetlCompression compression;
	const char *proxy;			/* or NULL */
	RetlRetryPolicy retry;
	const RetlJson *connector;	/* all of it, for rules for answers */
	RetlAuthentication *authentication;
} RetlDefinition;

extern RetlDefinition *retl_definition_compile(const RetlLedgerDestination *destination);

#endif							/* RETL_DEFINITION_H */
