/*
 * connector.h
 *		Connector files: what a kind of destination can do, as data.
 *
 * The format is described in sql/connectors/README.md. Everything here works
 * on the text of a definition; nothing is cached, nothing is shared, no locks.
 */
#ifndef RETL_CONNECTOR_H
#define RETL_CONNECTOR_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "base/json.h"

/* What a value may be: of a setting or of a field. */
typedef enum RetlType
{
	RETL_TYPE_ANY,
	RETL_TYPE_STRING,
	RETL_TYPE_INTEGER,
	RETL_TYPE_NUMBER,
	RETL_TYPE_BOOLEAN,
	RETL_TYPE_DATETIME,
	RETL_TYPE_OBJECT
} RetlType;

/* Parses a definition as it is stored; errors with data_corrupted. */
extern RetlJson *retl_connector_parse(const char *definition);

/*
 * Checks the settings (a JSON object) of a destination and returns them with
 * defaults filled in. Errors with 22023 and a hint: unknown setting (the nearest
 * name), wrong type, value out of range, missing.
 */
extern char *retl_connector_settings(const char *definition, const char *settings);

/* Settings that every destination takes, about delivery: their declarations, as JSON. */
extern const char *retl_connector_delivery_settings(void);

/* These and the connector's own, which come first. */
extern RetlJson *retl_connector_declared(const RetlJson *connector);

/* Names of secrets, and whether there is one of this name. */
extern char **retl_connector_secrets(const char *definition, int *count);
extern bool retl_connector_has_secret(const char *definition, const char *name);

/* Names of actions. */
extern char **retl_connector_actions(const char *definition, int *count);

/* Member "name" of "object", which errors with data_corrupted are about ("place"). */
extern RetlJson *retl_connector_member(const RetlJson *object, const char *name,
									   RetlJsonType type, bool required, const char *place);

extern RetlType retl_connector_type(const RetlJson *declaration, const char *place);

/*
 * Why "value" is none that the declaration of a setting allows ("must be an
 * integer"), or NULL.
 */
extern const char *retl_connector_refuses(const RetlJson *declaration, const RetlJson *value);

/* Whether it is an absolute http or https URL without credentials; *problem says why not. */
extern bool retl_url_is_valid(const char *url, int len, const char **problem);

#endif							/* RETL_CONNECTOR_H */
