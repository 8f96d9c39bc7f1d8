/*
 * api.h
 *		What the SQL entry points share: arguments, the switch to the catalog,
 *		looking objects up by name, and the caller's rights.
 *
 * An entry point reads its arguments as the caller, begins a call, works as
 * the extension's owner with search_path pg_catalog, pg_temp and SPI connected,
 * and ends the call. No shared state; locks are those of the statements.
 */
#ifndef RETL_API_H
#define RETL_API_H

#include "postgres.h"

#include "fmgr.h"

#include "base/compat.h"
#include "base/owner.h"

/* --------------------------------------------------------------------------
 * Arguments
 * -------------------------------------------------------------------------- */

/* Values of argument "n", called "name". Errors with 22004 where NULL has no meaning. */
extern char *retl_api_text(FunctionCallInfo fcinfo, int n, const char *name);
extern bool retl_api_bool(FunctionCallInfo fcinfo, int n, const char *name);
extern int32 retl_api_int32(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 retl_api_int64(FunctionCallInfo fcinfo, int n, const char *name);
extern char **retl_api_text_array(FunctionCallInfo fcinfo, int n, const char *name, int *count);

extern char *retl_api_text_or_null(FunctionCallInfo fcinfo, int n);

/* Text form of a json or jsonb argument. */
extern char *retl_api_json(FunctionCallInfo fcinfo, int n, const char *name);
extern char *retl_api_jsonb(FunctionCallInfo fcinfo, int n, const char *name);

/* Errors with 22023 unless "name" can be the name of a "what". */
extern void retl_api_check_name(const char *what, const char *name);

/* --------------------------------------------------------------------------
 * Calls
 * -------------------------------------------------------------------------- */

typedef struct RetlCall
{
	Oid			caller;			/* whose rights count */
	RetlIdentity saved;
} RetlCall;

/* nonatomic: a procedure that will commit. */
extern void retl_api_begin(RetlCall *call, bool nonatomic);
extern void retl_api_end(RetlCall *call);

/* --------------------------------------------------------------------------
 * Objects; inside a call
 * -------------------------------------------------------------------------- */

typedef enum RetlObjectKind
{
	RETL_OBJECT_MODEL,
	RETL_OBJECT_DESTINATION,
	RETL_OBJECT_MAPPING
} RetlObjectKind;

typedef struct RetlObject
{
	RetlObjectKind kind;
	int64		id;
	char	   *name;
	Oid			owner;
	bool		enabled;
} RetlObject;

/* "model", "destination", "mapping" */
extern const char *retl_api_kind(RetlObjectKind kind);

/*
 * Finds by name. lock: FOR NO KEY UPDATE, so that the definition stays as it is
 * until the end of the transaction, and no worker that adds a row about the
 * object waits for it. retl_api_get errors with 42704 and names the nearest
 * that the caller may see.
 */
extern bool retl_api_find(RetlObjectKind kind, const char *name, bool lock, RetlObject *object);
extern void retl_api_get(const RetlCall *call, RetlObjectKind kind, const char *name, bool lock,
						 RetlObject *object);

/* Whether the caller has the privileges of the object's owner; errors with 42501. */
extern bool retl_api_may(const RetlCall *call, Oid owner);
extern void retl_api_require_owner(const RetlCall *call, const RetlObject *object);

/* Errors with 42710: there is one of this name already. */
pg_noreturn extern void retl_api_exists(RetlObjectKind kind, const char *name);

/* Errors with 22023: an alter_... that names nothing to alter. */
pg_noreturn extern void retl_api_nothing_to_alter(const RetlObject *object);

/*
 * As the caller, outside a call: argument "n", a role to which the caller may
 * give an object; InvalidOid for NULL. Errors with 42704, and 42501.
 */
extern Oid	retl_api_new_owner(FunctionCallInfo fcinfo, int n);

/* Inside a call, for the caller's own object. */
extern void retl_api_set_owner(RetlObject *object, Oid owner);

/* Sets or clears "enabled"; true when that changed anything. */
extern bool retl_api_set_enabled(const RetlObject *object, bool enabled);

/* --------------------------------------------------------------------------
 * Runs of mappings; inside a call
 * -------------------------------------------------------------------------- */

/* Asks the workers to stop the active runs of a mapping, or of all mappings of a destination. */
extern void retl_api_stop_runs(RetlObjectKind kind, int64 id, const char *reason);

/*
 * Drops the mappings of a model or destination, or errors with 2BP01 unless
 * "cascade". Defined by mappings.c.
 */
extern void retl_api_drop_mappings(const RetlObject *parent, bool cascade);

/* Appends a request for a sync and returns its number. Defined by sync.c. */
extern int64 retl_api_request(const RetlCall *call, const char *mapping);

/* --------------------------------------------------------------------------
 * Hints
 * -------------------------------------------------------------------------- */

/* "a", "b", "c", ...: at most "limit" of them. */
extern char *retl_api_list(int count, char **names, int limit);

#endif							/* RETL_API_H */
