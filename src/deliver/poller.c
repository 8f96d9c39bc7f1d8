/*
 * poller.c
 *		Many descriptors behind one; see poller.h.
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "datatype/timestamp.h"

#include "deliver/poller.h"

/* More descriptors than this need not be watched; bounds the table of them. */
#define DESCRIPTORS_MOST 65536

#define EVENTS_AT_ONCE 64

/* What is wanted of a descriptor, and what the kernel knows of it. */
typedef struct Watch
{
	uint32		wanted;
	uint32		applied;
	bool		announced;		/* its close will be seen */
	bool		queued;
} Watch;

static int	epoll_fd = -1;
static int	timer_fd = -1;

/* By descriptor. */
static Watch *watches = NULL;
static int	nwatches = 0;

/* Those whose wishes changed. */
static int *queue = NULL;
static int	nqueued = 0;

/* Monotonic microseconds; 0: none. */
static int64 timer_wanted = 0;
static int64 timer_armed = 0;

void
retl_poller_init(void)
{
	struct rlimit limit;
	struct epoll_event event = {.events = EPOLLIN};

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not read the limit of open files: %m")));
	nwatches = (int) Min(limit.rlim_cur, DESCRIPTORS_MOST);
	watches = calloc(nwatches, sizeof(Watch));
	queue = calloc(nwatches, sizeof(int));
	if (watches == NULL || queue == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	event.data.fd = timer_fd;
	if (epoll_fd < 0 || timer_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not create an epoll set with a timer: %m")));
}

int
retl_poller_fd(void)
{
	return epoll_fd;
}

/* Descriptors */

static void
tell_kernel(int fd)
{
	Watch	   *watch = &watches[fd];
	struct epoll_event event = {.events = watch->wanted, .data.fd = fd};

	if (watch->wanted == watch->applied)
		return;
	if (watch->wanted == 0)
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	else if (epoll_ctl(epoll_fd, watch->applied == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) < 0)
	{
		if (errno == ENOENT)
			(void) epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
		else if (errno == EEXIST)
			(void) epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
	}
	watch->applied = watch->wanted;
}

bool
retl_poller_opened(int fd)
{
	if (fd < 0 || fd >= nwatches)
		return false;
	watches[fd].announced = true;
	watches[fd].wanted = watches[fd].applied = 0;
	return true;
}

void
retl_poller_closed(int fd)
{
	if (fd < 0 || fd >= nwatches)
		return;
	/* the kernel takes a closed descriptor out of the set by itself */
	watches[fd].announced = false;
	watches[fd].wanted = watches[fd].applied = 0;
}

bool
retl_poller_watch(int fd, int what)
{
	Watch	   *watch;

	if (fd < 0 || fd >= nwatches)
		return false;
	watch = &watches[fd];
	watch->wanted = ((what & RETL_POLLER_READ) ? EPOLLIN : 0) | ((what & RETL_POLLER_WRITE) ? EPOLLOUT : 0);

	/* where the close is not seen, the same number may be another one later */
	if (!watch->announced)
		tell_kernel(fd);
	else if (!watch->queued)
	{
		watch->queued = true;
		queue[nqueued++] = fd;
	}
	return true;
}

bool
retl_poller_wanted(int fd)
{
	return watches[fd].wanted != 0;
}

/* The timer */

static int64
monotonic_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

void
retl_poller_timer(long ms)
{
	timer_wanted = ms < 0 ? 0 : monotonic_now() + ms * 1000L;
}

bool
retl_poller_timer_over(void)
{
	if (timer_wanted == 0 || timer_wanted > monotonic_now())
		return false;
	timer_wanted = 0;
	return true;
}

/* A timer that fires early does no harm, so it is only ever set earlier. */
static void
arm_timer(void)
{
	struct itimerspec spec = {0};

	if (timer_wanted == 0 || (timer_armed != 0 && timer_armed <= timer_wanted))
		return;
	spec.it_value.tv_sec = timer_wanted / USECS_PER_SEC;
	spec.it_value.tv_nsec = (timer_wanted % USECS_PER_SEC) * 1000;
	(void) timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
	timer_armed = timer_wanted;
}

/* Events */

static void
apply_watches(void)
{
	for (int i = 0; i < nqueued; i++)
	{
		watches[queue[i]].queued = false;
		tell_kernel(queue[i]);
	}
	nqueued = 0;
}

void
retl_poller_apply(void)
{
	apply_watches();
	arm_timer();
}

int
retl_poller_events(RetlPollerEvent *events, int size)
{
	struct epoll_event found[EVENTS_AT_ONCE];
	int			count = 0;
	int			n;

	apply_watches();
	n = epoll_wait(epoll_fd, found, Min(size, EVENTS_AT_ONCE), 0);
	for (int i = 0; i < n; i++)
	{
		int			what = 0;

		if (found[i].data.fd == timer_fd)
		{
			uint64		expirations;

			(void) !read(timer_fd, &expirations, sizeof(expirations));
			timer_armed = 0;
			continue;
		}
		if (found[i].events & EPOLLIN)
			what |= RETL_POLLER_READ;
		if (found[i].events & EPOLLOUT)
			what |= RETL_POLLER_WRITE;
		if (found[i].events & (EPOLLERR | EPOLLHUP))
			what |= RETL_POLLER_ERROR;
		events[count++] = (RetlPollerEvent) {found[i].data.fd, what};
	}
	return count;
}
