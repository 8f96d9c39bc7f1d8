/*
 * work.h
 *		What a snapshot worker does, one unit at a time: end runs, plan them,
 *		take snapshots, keep house.
 *
 * Work is found by query, so that it does not matter which wake-up was lost. A
 * unit takes its locks without waiting; what another worker is at is skipped.
 */
#ifndef RETL_WORK_H
#define RETL_WORK_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Does one unit of work in transactions that it starts and commits itself
 * (worker/worker.h), recording the errors of the unit. Returns false when
 * there is nothing to do now, and lowers *next_due to when there will be.
 */
extern bool retl_work_step(TimestampTz *next_due);

#endif							/* RETL_WORK_H */
