/*
 * snapshot_worker.c
 *		The worker that takes snapshots and plans runs: role retl_snapshot. It
 *		evaluates users' SQL, as its owner, and never sees a secret.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "run/work.h"
#include "worker/worker.h"

void
retl_snapshot_worker_main(Datum arg)
{
	retl_worker_start(RETL_SNAPSHOT_WORKER);
	for (;;)
	{
		TimestampTz next_due = DT_NOEND;

		ResetLatch(MyLatch);
		retl_worker_interrupts();
		retl_worker_look();
		RETL_FAULT("snapshot_worker_loop");

		if (retl_work_step(&next_due))
		{
			retl_worker_busy();
			if (retl_worker_must_yield())
				retl_worker_leave(GetCurrentTimestamp());
			continue;
		}
		if (retl_worker_should_leave(next_due))
			retl_worker_leave(next_due);
		retl_worker_wait(next_due);
	}
}
