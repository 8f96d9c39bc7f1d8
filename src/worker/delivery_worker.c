/*
 * delivery_worker.c
 *		The worker that sends: role retl_delivery. It reads secrets and opens
 *		sockets, and never evaluates users' SQL.
 *
 * One per database: the launcher starts one, and a session-level lock keeps
 * another from serving beside it, whatever went wrong. The lock conflicts with
 * nothing else. It is one of the user method, advisory locks' that is: session
 * locks of the default method stay behind a process that ends outside of a
 * transaction.
 */
#include "postgres.h"

#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "deliver/delivery.h"
#include "worker/worker.h"

/* Sub-object number of the extension under which the one worker is locked. */
#define DELIVERY_LOCK_SUBID 1

/* How long a second worker stays away. */
#define SERVED_RETRY_MS 5000

static bool
lock_delivery(void)
{
	LOCKTAG		tag;
	bool		locked;

	retl_worker_start_transaction();
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId,
					   get_extension_oid("retl", false), DELIVERY_LOCK_SUBID);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	locked = LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
	retl_worker_commit();
	return locked;
}

void
retl_delivery_worker_main(Datum arg)
{
	retl_worker_start(RETL_DELIVERY_WORKER);
	if (!lock_delivery())
		retl_worker_leave(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SERVED_RETRY_MS));
	retl_worker_leave(retl_delivery_main_loop());
}
