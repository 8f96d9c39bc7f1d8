/*
 * fault.h
 *		Named fault points, compiled only with RETL_TESTING.
 *
 * A test arms a point by writing DATADIR/retl_fault/NAME, whose content is one
 * word, optionally followed by a count n (fire at the n-th passage): "kill" (this process, SIGKILL),
 * "kill_postmaster", "error", "term" (SIGTERM to this process). The file is removed before the
 * fault happens, so each arming fires once. Owns no state but the files.
 */
#ifndef RETL_FAULT_H
#define RETL_FAULT_H

#ifdef RETL_TESTING
extern void retl_fault(const char *name);
#define RETL_FAULT(name) retl_fault(name)
#else
#define RETL_FAULT(name) ((void) 0)
#endif

#endif							/* RETL_FAULT_H */
