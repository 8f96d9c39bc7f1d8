/*
 * compat.h
 *		Differences between PostgreSQL 15 and later, in one place. Include
 *		it after what it renames. Owns no state.
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

/* 18 has it as the first word of a declaration, where GCC's attribute may stand as well. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* A set for the rest of the session; from 17 it would belong to a resource owner. */
#if PG_VERSION_NUM < 170000
#define retl_create_wait_event_set(context, count) CreateWaitEventSet(context, count)
#else
#define retl_create_wait_event_set(context, count) CreateWaitEventSet(NULL, count)
#endif

#if PG_VERSION_NUM < 160000
#define retl_owns_database(database, role) pg_database_ownercheck(database, role)
#define retl_owns_extension(extension, role) pg_extension_ownercheck(extension, role)
#define retl_parse_type(text, type, typmod) parseTypeString(text, type, typmod, false)
#define retl_selected_columns(query, entry) ((entry)->selectedCols)
#define retl_pgstat_id t_id
#define retl_pgstat_shared t_shared
#else
#define retl_owns_database(database, role) object_ownercheck(DatabaseRelationId, database, role)
#define retl_owns_extension(extension, role) object_ownercheck(ExtensionRelationId, extension, role)
#define retl_parse_type(text, type, typmod) parseTypeString(text, type, typmod, NULL)
#define retl_selected_columns(query, entry) (getRTEPermissionInfo((query)->rteperminfos, entry)->selectedCols)
#define retl_pgstat_id id
#define retl_pgstat_shared shared
#endif

#endif							/* RETL_COMPAT_H */
