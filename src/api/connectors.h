/*
 * connectors.h
 *		What the API asks about connectors, beyond map/connector.h. Inside a call;
 *		no state.
 */
#ifndef RETL_CONNECTORS_H
#define RETL_CONNECTORS_H

#include "postgres.h"

/* The definition of a connector; errors with 42704 and names the nearest. */
extern char *retl_connectors_get(const char *name);

/*
 * Whether a setting can make the origin (scheme, host, port) of a request
 * another one, beyond the origins that the connector itself lists.
 */
extern bool retl_connectors_in_origin(const char *definition, const char *setting);

#endif							/* RETL_CONNECTORS_H */
