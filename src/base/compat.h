/*
 * compat.h
 *		Differences between PostgreSQL 15 and later, in one place. Include it
 *		last. Owns no state.
 */
#ifndef RETL_COMPAT_H
#define RETL_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "retl needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 160000
#define retl_owns_database(database, role) pg_database_ownercheck(database, role)
#define retl_owns_extension(extension, role) pg_extension_ownercheck(extension, role)
#define retl_parse_type(text, type, typmod) parseTypeString(text, type, typmod, false)
#else
#define retl_owns_database(database, role) object_ownercheck(DatabaseRelationId, database, role)
#define retl_owns_extension(extension, role) object_ownercheck(ExtensionRelationId, extension, role)
#define retl_parse_type(text, type, typmod) parseTypeString(text, type, typmod, NULL)
#endif

#endif							/* RETL_COMPAT_H */
