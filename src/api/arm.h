/*
 * arm.h
 *		The clone guard's row. Written here alone, read by the delivery worker.
 */
#ifndef RETL_ARM_H
#define RETL_ARM_H

/* Inside a call: arms this database, if it never was. */
extern void retl_arm_first(void);

#endif							/* RETL_ARM_H */
