/*
 * work.c
 *		What a snapshot worker does; see work.h.
 */
#include "postgres.h"

#include "run/work.h"

bool
retl_work_step(TimestampTz *next_due)
{
	return false;
}
