/*
 * probe.h
 *		Requests that sessions hand to the delivery worker (base/channel.h): sent
 *		like any other, with the destination's authentication, and answered to the session.
 *		They touch no table, no limiter and no queue. State of the process.
 */
#ifndef RETL_PROBE_H
#define RETL_PROBE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "deliver/http.h"

/* Sends what sessions of this database ask for; outside of transactions. Whether there was anything. */
extern bool retl_probe_start(TimestampTz now);

/* Takes the answer, if it is to a probe. */
extern bool retl_probe_answered(const RetlHttpAnswer *answer);

#endif							/* RETL_PROBE_H */
