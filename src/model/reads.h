/*
 * reads.h
 *		What the result of a model depends on: its query with all views
 *		expanded, the tables it reads, types, functions and settings; and
 *		whether any of that has changed.
 *
 * The caller holds the model's lock in ShareUpdateExclusive mode and locks on
 * the model's relations, which analysis and planning take. No state.
 */
#ifndef RETL_READS_H
#define RETL_READS_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

#include "model/model.h"

/* Counts of writes of catalogs that a model depends on beside its tables. */
typedef struct RetlCatalogWrites
{
	uint64		counts[2];
	bool		settled;
} RetlCatalogWrites;

typedef struct RetlReads
{
	char	   *refusal;		/* why it cannot be proven that nothing changed; NULL: it can */
	char	   *query;			/* query, types, functions, settings: all but the tables themselves */
	List	   *relations;		/* OIDs of tables, as the query names them */
	bool		functions;		/* calls functions that are not PostgreSQL's own */
} RetlReads;

/*
 * Evidence: equal texts stand for equal results. "definition" is what is read
 * and how, "writes" what was written; writes is NULL where that cannot be
 * proven (now, or ever: see refusal).
 */
typedef struct RetlEvidence
{
	char	   *definition;
	char	   *writes;
	const char *refusal;
} RetlEvidence;

/* To be called before the model is analysed. */
extern void retl_reads_catalogs(RetlCatalogWrites *catalogs);

/* Examines the analysed query of a model; as its owner, with a snapshot at hand. Leaves the query alone. */
extern void retl_reads_examine(const RetlModel *model, const Query *query, RetlReads *reads);

/*
 * The evidence as of now. Taken before a snapshot, with the counts of catalogs
 * from before analysis, it holds for what that snapshot reads; taken after it,
 * without them, every write that the snapshot sees is in it.
 */
extern void retl_reads_evidence(const RetlReads *reads, const RetlCatalogWrites *catalogs,
								RetlEvidence *evidence);

#endif							/* RETL_READS_H */
