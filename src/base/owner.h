/*
 * owner.h
 *		Who we are while we work: the restricted switch to the owner of a model
 *		or mapping, and the switch to the extension's owner for our catalog.
 *
 * Both switches nest as transactions do: an error inside unwinds them, since
 * PostgreSQL restores user, security context and GUC nest level on abort.
 * No locks, no shared state.
 */
#ifndef RETL_OWNER_H
#define RETL_OWNER_H

#include "postgres.h"

typedef struct RetlIdentity
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} RetlIdentity;

/*
 * Becomes "role" inside a security-restricted operation, read only, with
 * search_path "search_path" (NULL: pg_catalog, pg_temp), and with every
 * setting pinned that the text form of a value depends on. User-written SQL
 * is planned, executed and turned into built-in types only between enter and
 * leave.
 */
extern void retl_owner_enter(RetlIdentity *saved, Oid role, const char *search_path);
extern void retl_owner_leave(const RetlIdentity *saved);

/*
 * Becomes the extension's owner with search_path pg_catalog, pg_temp, to read
 * and write retl's tables on behalf of a caller whose rights were checked.
 */
extern void retl_catalog_enter(RetlIdentity *saved);
extern void retl_catalog_leave(const RetlIdentity *saved);

/* Pins what the text form of a value depends on, until the transaction or nest level ends. */
extern void retl_pin_settings(void);

/* Sets a GUC until the current nest level or transaction ends. */
extern void retl_set_local(const char *name, const char *value);

#endif							/* RETL_OWNER_H */
