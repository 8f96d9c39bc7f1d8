/*
 * retention.h
 *		How long history is kept: runs, requests, their bytes, attempts, answers,
 *		snapshots, failed rows, the trail of changes. Owns nothing; deletes what no run needs.
 *
 * The caller is the snapshot worker, in a transaction of its own, with SPI not
 * connected. It deletes of runs that have ended only, so that it meets no other
 * worker; a row that a session has locked is waited for as any.
 */
#ifndef RETL_RETENTION_H
#define RETL_RETENTION_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Removes a portion of what is older than the settings retl.*_retention allow
 * at "now". False when there was nothing; then *due is when there will be, or
 * DT_NOEND.
 */
extern bool retl_retention_trim(TimestampTz now, TimestampTz *due);

#endif							/* RETL_RETENTION_H */
