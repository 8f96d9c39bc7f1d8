/*
 * preview_sync.c
 *		preview_sync: what a sync would do now, by doing it in a subtransaction
 *		that is rolled back.
 *
 * The model's lock is taken by trying, never by waiting in line: whoever calls
 * this inside a transaction may hold locks that a snapshot waits for.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lockdefs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "base/sql.h"
#include "model/model.h"
#include "run/dry.h"

PG_FUNCTION_INFO_V1(retl_preview_sync);

#define COLUMNS 14

/* Time between two attempts at the locks, and for all of them. */
#define LOCK_RETRY_MS 20
#define LOCK_TIMEOUT_MS 60000

static void
require_fresh_snapshots(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("retl.preview_sync needs isolation level READ COMMITTED"),
				 errdetail("The snapshot of this transaction may be older than tables that the model reads."),
				 errhint("Call it in another transaction.")));
}

/* In the order in which the workers take them. */
static void
lock(const RetlObject *mapping, int64 model)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCK_TIMEOUT_MS);
	bool		mine = false;

	while (!(mine = mine || retl_mapping_try_lock(mapping->id, ExclusiveLock)) ||
		   !retl_model_try_lock(model, ShareUpdateExclusiveLock))
	{
		if (GetCurrentTimestamp() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("the model of mapping \"%s\" is being read", mapping->name),
					 errhint("Try again when its snapshot is done: view retl.progress shows how far it is.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_RETRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static int64
model_of(int64 mapping)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, mapping);
	(void) retl_sql("SELECT model FROM retl.mapping WHERE id = $1", &args);
	return retl_result_int8(0, 1);
}

/* As the snapshot worker would; in a subtransaction, whose end undoes it. */
static void
work(const RetlObject *mapping, int64 model, RetlDryRun *result)
{
	Oid			user;
	int			sec_context;

	(void) NewGUCNestLevel();
	retl_set_local("search_path", "pg_catalog, pg_temp");
	retl_pin_settings();
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(get_role_oid("retl_snapshot", false), sec_context | SECURITY_LOCAL_USERID_CHANGE);
	lock(mapping, model);
	retl_dry_run(mapping->id, result);
}

static void
try_run(const RetlObject *mapping, RetlDryRun *result)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int64		model = model_of(mapping->id);
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(mapping, model, result);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL)
	{
		error->cursorpos = 0;	/* it is one in the model's text */
		ReThrowError(error);
	}
}

Datum
retl_preview_sync(PG_FUNCTION_ARGS)
{
	char	   *name = retl_api_text(fcinfo, 0, "mapping");
	TupleDesc	descriptor;
	RetlCall	call;
	RetlObject	mapping;
	RetlDryRun	dry;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {0};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	require_fresh_snapshots();
	retl_api_begin(&call, false);
	retl_api_get(&call, RETL_OBJECT_MAPPING, name, false, &mapping);
	retl_api_require_owner(&call, &mapping);
	try_run(&mapping, &dry);
	/* what SPI gave goes with it */
	nulls[9] = dry.brake == NULL;
	if (!nulls[9])
		values[9] = SPI_datumTransfer(CStringGetTextDatum(dry.brake), false, -1);
	values[10] = SPI_datumTransfer(CStringGetTextDatum(dry.strategy), false, -1);
	values[11] = SPI_datumTransfer(CStringGetTextDatum(dry.strategy_reason), false, -1);
	values[12] = Float8GetDatum(dry.plan_cost);
	values[13] = Float8GetDatum(dry.plan_rows);
	retl_api_end(&call);

	values[0] = Int64GetDatum(dry.added);
	values[1] = Int64GetDatum(dry.updated);
	values[2] = Int64GetDatum(dry.deleted);
	values[3] = Int64GetDatum(dry.unchanged);
	values[4] = Int64GetDatum(dry.set_aside);
	values[5] = Int64GetDatum(dry.failed_to_retry);
	values[6] = Int64GetDatum(dry.unmapped);
	values[7] = Int64GetDatum(dry.requests);
	values[8] = Int64GetDatum(dry.bytes);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
