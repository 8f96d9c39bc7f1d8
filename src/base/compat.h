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

#endif							/* RETL_COMPAT_H */
