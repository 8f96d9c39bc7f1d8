/*
 * retl.c
 *		Entry of the library: settings, and, when it is preloaded, shared
 *		memory, hooks and launcher.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "worker/launcher.h"
#include "worker/utility.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	retl_guc_define();

	/*
	 * Loaded by a session, the library has its functions and settings; what
	 * needs a worker says so when it is called. pg_upgrade must find databases
	 * without other connections.
	 */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	retl_shmem_install();
	retl_utility_install();
	retl_launcher_register();
}
