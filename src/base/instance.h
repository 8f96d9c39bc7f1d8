/*
 * instance.h
 *		The guard against copied databases: a database delivers only from the
 *		cluster and host for which it was armed. Owns no state but the row in
 *		retl.instance, which retl.arm() writes.
 */
#ifndef RETL_INSTANCE_H
#define RETL_INSTANCE_H

#include "postgres.h"

/*
 * What this host is called: retl.host_identity, or a hash of the machine's
 * identifier (of its name, where it has none). palloc'd.
 */
extern char *retl_instance_host_identity(void);

/*
 * Whether this database may deliver here; if not, *why is a sentence (palloc'd).
 * In a transaction with SPI connected, as a role that may read retl.instance.
 */
extern bool retl_instance_armed(char **why);

#endif							/* RETL_INSTANCE_H */
