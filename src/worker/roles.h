/*
 * roles.h
 *		As whom workers connect, and whether those roles are what they must be.
 *		Reads shared catalogs only, so it works in the launcher. No state.
 */
#ifndef RETL_ROLES_H
#define RETL_ROLES_H

#include "postgres.h"

#include "base/shmem.h"

/*
 * Finds the roles of both kinds; InvalidOid for one that does not exist.
 * Returns NULL when they are sound, else what is wrong, a sentence's end that
 * names the role. Needs a transaction.
 */
extern char *retl_roles_check(Oid roles[RETL_WORKER_KINDS]);

#endif							/* RETL_ROLES_H */
