/*
 * utility.h
 *		Keeps workers out of the way of statements that need a database, or the
 *		extension, to themselves. Holds databases in base/shmem.h.
 */
#ifndef RETL_UTILITY_H
#define RETL_UTILITY_H

#include "postgres.h"

/* Installs the hook; from _PG_init while preloading. */
extern void retl_utility_install(void);

#endif							/* RETL_UTILITY_H */
