/*
 * model.h
 *		Definitions of models: loading them, and turning a query's text into a
 *		checked Query.
 *
 * Locking: the model's lock is a heavyweight lock on (retl.model, id), taken
 * before any MVCC snapshot of the work it protects:
 *		AccessShareLock			planners: read checkpoint and log
 *		ShareUpdateExclusiveLock	the one snapshot at a time
 *		AccessExclusiveLock		truncating, replacing or dropping tables
 */
#ifndef RETL_MODEL_H
#define RETL_MODEL_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "storage/lockdefs.h"

typedef struct RetlModel
{
	int64		id;
	char	   *name;
	Oid			owner;
	char	   *query;
	char	   *search_path;
	int			nkeys;
	char	  **key;
	bool		enabled;
	double		max_skip;		/* seconds, as the next three */
	char	   *watermark;		/* column, or NULL */
	double		watermark_overlap;
	double		full_every;
	double		timeout;		/* 0: none */
} RetlModel;

/*
 * Reads a definition by id, in the current memory context; the caller may read
 * retl.model (a worker, or inside retl_catalog_enter). NULL when there is none.
 */
extern RetlModel *retl_model_load(int64 id);

/* The same, but errors with 42704: for who has just seen it, and did not lock it. */
extern RetlModel *retl_model_get(int64 id);

/*
 * Parses, analyses and checks "query" as the current user, in the search_path
 * in force: call it inside retl_owner_enter(.., owner, search_path). Takes
 * AccessShareLock on every relation named in the text. The result is not yet
 * rewritten.
 *
 * Errors: 42601 (does not parse; not exactly one statement), 42809 (no SELECT),
 * 0A000 (SELECT INTO, FOR UPDATE, data-modifying WITH, parameters), 42701 (two columns of
 * one name), 42703 (a column without a name), and what analysis raises.
 */
extern Query *retl_model_analyze(const char *query);

/* Takes (or tries to take) the model's lock until the end of the transaction. */
extern void retl_model_lock(int64 id, LOCKMODE mode);
extern bool retl_model_try_lock(int64 id, LOCKMODE mode);

/* The same for a mapping: whoever plans or ends one of its runs holds it in ExclusiveLock. */
extern void retl_mapping_lock(int64 id, LOCKMODE mode);
extern bool retl_mapping_try_lock(int64 id, LOCKMODE mode);

/*
 * SQL type in which the checkpoint holds a key column of type "type": the type
 * itself where it is built in and has a stable order, else text. *as_text says
 * which. The result is schema-qualified and palloc'd.
 */
extern char *retl_model_key_type(Oid type, int32 typmod, bool *as_text);

#endif							/* RETL_MODEL_H */
