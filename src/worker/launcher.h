/*
 * launcher.h
 *		The static worker that starts all others. Works on retl_shared under
 *		its lock (base/shmem.h).
 */
#ifndef RETL_LAUNCHER_H
#define RETL_LAUNCHER_H

#include "postgres.h"

/* Registers the launcher; from _PG_init while preloading. */
extern void retl_launcher_register(void);

extern PGDLLEXPORT void retl_launcher_main(Datum arg);

#endif							/* RETL_LAUNCHER_H */
