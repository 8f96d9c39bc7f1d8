/*
 * delivery.h
 *		The delivery worker's loop. Owns the process's curl handles and all that
 *		is in memory of what is being sent; takes no lock but those of its short transactions.
 */
#ifndef RETL_DELIVERY_H
#define RETL_DELIVERY_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Serves the database until there is nothing to do for long enough, or others
 * wait for the worker's place. Returns when there will be something to do
 * (DT_NOEND: nothing that is known). In a worker that holds the lock of the
 * one delivery worker of the database; an error ends the process.
 */
extern TimestampTz retl_delivery_main_loop(void);

#endif							/* RETL_DELIVERY_H */
