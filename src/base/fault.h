/*
 * fault.h
 *		Named fault points, compiled only with RETL_TESTING.
 *
 * A test arms a point by writing DATADIR/retl_fault/NAME, whose content is one
 * word, optionally followed by a count n (fire at the n-th passage): "kill" (this process, SIGKILL),
 * "kill_postmaster", "immediate" (shutdown of the server), "error", "term" (SIGTERM to this process). The file is removed before the
 * fault happens, so each arming fires once. Owns no state but the files.
 *
 * RETL_FAULT_NUMBER is a number that a test may replace: by a file of that
 * name that holds another, for as long as it is there.
 */
#ifndef RETL_FAULT_H
#define RETL_FAULT_H

#ifdef RETL_TESTING
extern void retl_fault(const char *name);
extern int64 retl_fault_number(const char *name, int64 number);
#define RETL_FAULT(name) retl_fault(name)
#define RETL_FAULT_NUMBER(name, number) retl_fault_number(name, number)
#else
#define RETL_FAULT(name) ((void) 0)
#define RETL_FAULT_NUMBER(name, number) (number)
#endif

#endif							/* RETL_FAULT_H */
