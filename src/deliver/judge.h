/*
 * judge.h
 *		From an answer to an outcome: status, the connector's rule, the mapping's limits; and what it says of
 *		how much the destination can take. Owns no state, takes no locks.
 */
#ifndef RETL_JUDGE_H
#define RETL_JUDGE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "deliver/queue.h"

/*
 * Fills in the batch's result, the texts of it in "kept", and whether it may be bisected; counts
 * refusals of its run; tells the limiter of its destination. Leaves garbage in the current memory context.
 */
extern void retl_judge_answer(RetlQueueBatch *batch, const RetlHttpAnswer *answer, TimestampTz now, MemoryContext kept);

#endif							/* RETL_JUDGE_H */
