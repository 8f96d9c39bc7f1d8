/*
 * utility.c
 *		The ProcessUtility hook; see utility.h.
 *
 * DROP DATABASE, RENAME, SET TABLESPACE and use as a template fail while
 * anybody is connected, and a worker is somebody. So it is stopped, and kept
 * from coming back until the transaction has ended, whichever way. Whether the
 * statement is allowed is for PostgreSQL to say; what is asked here is only
 * whether the caller may stop workers.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/shmem.h"
#include "worker/utility.h"
#include "base/compat.h"

static ProcessUtility_hook_type previous_hook = NULL;

/* Databases held by this transaction, in TopMemoryContext. */
static List *held_databases = NIL;

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	if (may)
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

/* A database that the caller owns, by name. */
static Oid
owned_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && retl_owns_database(database, GetUserId()))
		return database;
	return InvalidOid;
}

static Oid
template_database(CreatedbStmt *stmt)
{
	const char *name = "template1";
	ListCell   *cell;

	foreach(cell, stmt->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			name = defGetString(option);
	}
	return owned_database(name);
}

static bool
sets_tablespace(AlterDatabaseStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
			return true;
	return false;
}

static bool
drops_retl(DropStmt *stmt)
{
	ListCell   *cell;
	Oid			extension;

	if (stmt->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, stmt->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "retl") != 0)
			continue;
		extension = get_extension_oid("retl", true);
		return OidIsValid(extension) && retl_owns_extension(extension, GetUserId());
	}
	return false;
}

/* The database whose workers are in the way of a statement, if any. */
static Oid
database_in_need(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return owned_database(((DropdbStmt *) statement)->dbname);
		case T_CreatedbStmt:
			return may_create_databases() ?
				template_database((CreatedbStmt *) statement) : InvalidOid;
		case T_AlterDatabaseStmt:
			return sets_tablespace((AlterDatabaseStmt *) statement) ?
				owned_database(((AlterDatabaseStmt *) statement)->dbname) : InvalidOid;
		case T_RenameStmt:
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE && may_create_databases() ?
				owned_database(((RenameStmt *) statement)->subname) : InvalidOid;
		case T_DropStmt:
			return drops_retl((DropStmt *) statement) ? MyDatabaseId : InvalidOid;
		default:
			return InvalidOid;
	}
}

static bool
commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
}

/* What was wished in a prepared transaction is not known any more: wake both, if there is retl. */
static void
wake_after_prepared(void)
{
	RetlDatabase *db;
	bool		present;

	LWLockAcquire(retl_shared->lock, LW_SHARED);
	db = retl_shmem_database(MyDatabaseId, false);
	present = db != NULL && db->presence == RETL_PRESENT;
	LWLockRelease(retl_shared->lock);
	if (!present)
		return;
	for (int kind = 0; kind < RETL_WORKER_KINDS; kind++)
		retl_wake(kind);
}

/* At its end the transaction's holds are released; FATAL passes here too. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	foreach(cell, held_databases)
		retl_shmem_release(lfirst_oid(cell));
	list_free(held_databases);
	held_databases = NIL;
}

static void
keep_workers_out(Oid database)
{
	static bool registered = false;
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
	held_databases = lappend_oid(held_databases, database);
	MemoryContextSwitchTo(before);

	retl_shmem_hold(database);
	retl_shmem_stop(database);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion)
{
	ProcessUtility_hook_type next = previous_hook ? previous_hook : standard_ProcessUtility;
	bool		prepared = commits_prepared(pstmt->utilityStmt);
	Oid			database = database_in_need(pstmt->utilityStmt);

	if (OidIsValid(database))
		keep_workers_out(database);
	next(pstmt, query, read_only_tree, context, params, environment, receiver, completion);
	if (prepared)
		wake_after_prepared();
}

void
retl_utility_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
