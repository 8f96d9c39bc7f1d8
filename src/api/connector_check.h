/*
 * connector_check.h
 *		Whether a definition of a connector is complete and consistent, before
 *		anybody uses it. No state.
 */
#ifndef RETL_CONNECTOR_CHECK_H
#define RETL_CONNECTOR_CHECK_H

#include "postgres.h"

#include "base/json.h"

/*
 * Errors with 22023 and the place in the definition that is wrong
 * ("/actions/send/fields/id/type"). The definition is the caller's no more.
 */
extern void retl_connector_check(RetlJson *definition);

#endif							/* RETL_CONNECTOR_CHECK_H */
