/*
 * poller.h
 *		Many descriptors and one timer, behind one descriptor to wait for.
 *
 * An epoll set, whose own descriptor is readable when one of its members is:
 * a WaitEventSet takes that one for good, however its members come and go.
 * What is wanted of a descriptor is only noted; the difference to what the
 * kernel knows is applied before waiting. libcurl stops and starts to wait for the same
 * socket between two requests, so there is mostly none.
 *
 * Nothing here raises errors or allocates memory but retl_poller_init(). State of
 * the process, no locks.
 */
#ifndef RETL_POLLER_H
#define RETL_POLLER_H

#include "postgres.h"

#define RETL_POLLER_READ 1
#define RETL_POLLER_WRITE 2
#define RETL_POLLER_ERROR 4		/* as a result only */

typedef struct RetlPollerEvent
{
	int			fd;
	int			what;
} RetlPollerEvent;

/* Errors with 58000 or 53200. Once in a process. */
extern void retl_poller_init(void);

/* The descriptor to wait for. */
extern int	retl_poller_fd(void);

/*
 * A descriptor was opened that is announced by retl_poller_closed() before it
 * is closed; false when its number is too high.
 */
extern bool retl_poller_opened(int fd);
extern void retl_poller_closed(int fd);

/* What is wanted of a descriptor from now on, 0: nothing. false: its number is too high. */
extern bool retl_poller_watch(int fd, int what);

/* Wakes after so many ms; negative: never. */
extern void retl_poller_timer(long ms);

/* Whether the time has come; then the timer is off. */
extern bool retl_poller_timer_over(void);

/*
 * What happened, without waiting. An event of a list may concern a descriptor
 * that an earlier one made unwanted: ask retl_poller_wanted().
 */
extern int	retl_poller_events(RetlPollerEvent *events, int size);
extern bool retl_poller_wanted(int fd);

/* Tells the kernel everything that was noted, before somebody waits. */
extern void retl_poller_apply(void);

#endif							/* RETL_POLLER_H */
