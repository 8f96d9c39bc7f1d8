/*
 * tick.h
 *		Which schedules are due, and the requests that this makes.
 *
 * The caller has connected SPI and works as the extension's owner in READ
 * COMMITTED or above. One tick at a time: it holds the row "tick" of
 * retl.clock. No lock is waited for; what somebody else has in hand is left for
 * the next tick. Sessions write retl.mapping (scheduled_since), ticks write
 * retl.schedule_state: neither is in the other's way.
 */
#ifndef RETL_TICK_H
#define RETL_TICK_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* What is due at "now"; returns the requests made, -1 when another tick is under way. */
extern int64 retl_tick_schedules(TimestampTz now);

#endif							/* RETL_TICK_H */
