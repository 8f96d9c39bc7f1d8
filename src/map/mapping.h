/*
 * mapping.h
 *		A mapping, compiled: from one changed row to the JSON payload of its
 *		action, and from payloads to the bytes of a request.
 *
 * One evaluator runs both the user's fields (root: the envelope below) and the
 * connector's templates (root: {"fields": payload, "settings": settings,
 * "operation": .., "key": ..}). Compiled once per plan, evaluated per row
 * without catalog access. No shared state, no locks. Everything compiled lives
 * in the memory context that was current; evaluation leaves nothing behind
 * beyond what it appends to the caller's buffers, but for garbage in the
 * current context, which the caller resets every few rows.
 */
#ifndef RETL_MAPPING_H
#define RETL_MAPPING_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "model/row.h"

typedef enum RetlOperation
{
	RETL_ADDED,
	RETL_UPDATED,
	RETL_DELETED
} RetlOperation;

/* "added", "updated", "deleted" */
extern const char *retl_operation_name(RetlOperation operation);

/* What a row's fields are computed from. */
typedef struct RetlEnvelope
{
	RetlOperation operation;
	const RetlShape *shape;
	const RetlSlice *row;		/* values by column; for deleted: the last-known row */
	const RetlShape *old_shape;
	const RetlSlice *old;		/* the row before, for updated; else NULL */
	const char *key;			/* JSON text: scalar, or object by column */
	const char *message_id;		/* plain text */
	const char *timestamp;		/* plain text, ISO 8601 */
	const RetlSlice *sql;		/* values of the mapping's @sql expressions, by number */
} RetlEnvelope;

typedef struct RetlMapping RetlMapping;

/*
 * Compiles "fields" (JSON, member order kept) for one action of a connector,
 * with the destination's settings. batch_size 0: the settings' or connector's
 * default. Errors with 22023 and a hint: unknown action, unknown field (hint:
 * the nearest name), missing required field, directive that does not parse
 * (detail: path into the mapping).
 */
extern RetlMapping *retl_mapping_compile(const char *connector, const char *action,
										 const char *fields, const char *settings,
										 int batch_size);

/* The texts of the mapping's @sql expressions; their values come in by number. */
extern int	retl_mapping_sql_count(const RetlMapping *mapping);
extern const char *retl_mapping_sql(const RetlMapping *mapping, int number);

/* Names of the columns that paths of the mapping address, of old rows too. */
extern int	retl_mapping_column_count(const RetlMapping *mapping);
extern const char *retl_mapping_column(const RetlMapping *mapping, int number);

/* Whether the action takes the operation. */
extern bool retl_mapping_takes(const RetlMapping *mapping, RetlOperation operation);

/* Limits of one request: records, and bytes of body (0: none). */
extern int	retl_mapping_batch_records(const RetlMapping *mapping);
extern int	retl_mapping_batch_bytes(const RetlMapping *mapping);

/*
 * Appends the payload: a JSON object of the action's fields. Returns false and
 * sets *error (palloc'd, one sentence, no values of the row) when this row
 * cannot be mapped: it fails alone.
 */
extern bool retl_mapping_payload(RetlMapping *mapping, const RetlEnvelope *envelope,
								 StringInfo payload, char **error);

/*
 * The same payload with messageId, timestamp, event, old and changed held
 * constant: what decides whether an update changes anything for the destination.
 */
extern bool retl_mapping_comparable(RetlMapping *mapping, const RetlEnvelope *envelope,
									StringInfo payload, char **error);

/*
 * From a payload: "group", JSON text {"method", "url", "headers", ...} (records
 * with equal text may share a request), and "record", the JSON text of this
 * record in the body. False and *error as above. What else a group may have in it:
 *		"action"		its name, where it has a rule for answers
 *		"url_secret"	name of the secret that is the URL, then "url" is empty
 *		"encode"		what is made of the body when it is sent
 *		"body"			what stands before and behind the records
 *		"holes"			where secrets belong in the body, see marks.h
 */
extern bool retl_mapping_record(RetlMapping *mapping, const RetlEnvelope *envelope,
								const char *payload, int payload_len,
								StringInfo group, StringInfo record, char **error);

/* The body of a request: begin, then add each record of the group, then end. */
extern void retl_mapping_body_begin(const RetlMapping *mapping, const char *group, StringInfo body);
extern void retl_mapping_body_add(const RetlMapping *mapping, StringInfo body,
								  const char *record, int record_len, bool first);
extern void retl_mapping_body_end(const RetlMapping *mapping, const char *group, StringInfo body);

#endif							/* RETL_MAPPING_H */
