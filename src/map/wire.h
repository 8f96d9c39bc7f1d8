/*
 * wire.h
 *		From a payload to the request that carries it: the connector's templates
 *		for method, URL, headers, record and body.
 *
 * Templates have the root {"fields", "settings", "operation", "key"}; settings
 * are known when they are compiled. No shared state, no locks.
 */
#ifndef RETL_WIRE_H
#define RETL_WIRE_H

#include "postgres.h"

#include "map/eval.h"
#include "map/mapping.h"

typedef struct RetlWire RetlWire;

/* A field as requests know it: its name, and whether a payload can have it. */
typedef struct RetlWireField
{
	const char *name;
	int			len;
	bool		present;
} RetlWireField;

/*
 * Compiles the request of an action. "fields" are in the order in which
 * payloads have them. Errors with 22023.
 */
extern RetlWire *retl_wire_compile(const RetlJson *connector, const RetlJson *action,
										 const RetlJson *settings,
										 const RetlWireField *fields, int nfields,
										 int batch_records);

extern bool retl_wire_record(RetlWire *wire, const RetlEnvelope *envelope,
								RetlSlice payload, StringInfo group, StringInfo record,
								char **error);

/* What stands before and behind the records of a request with this group. */
extern void retl_wire_body_begin(const RetlWire *wire, const char *group, StringInfo body);
extern void retl_wire_body_end(const RetlWire *wire, const char *group, StringInfo body);

#endif							/* RETL_WIRE_H */
