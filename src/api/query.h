/*
 * query.h
 *		What a model is made of: one SELECT, or the name of a relation.
 *
 * Resolved as the caller, then analysed and opened as the model's owner inside
 * the restricted switch. No state.
 */
#ifndef RETL_QUERY_H
#define RETL_QUERY_H

#include "postgres.h"

#include "executor/spi.h"

#include "base/compat.h"
#include "model/row.h"

typedef struct RetlQuery
{
	char	   *text;			/* one SELECT */
	char	   *relation;		/* qualified name, where given as a relation; or NULL */
	char	   *search_path;	/* in which its names are looked up */
	bool		is_volatile;	/* calls a volatile function by itself */
	RetlShape	shape;			/* names and types of its columns */
	Oid		   *types;
	int32	   *typmods;
} RetlQuery;

/*
 * As the caller, outside a call: takes "given" for the name of a relation if it
 * is one to three identifiers, else for a SELECT, and fills in text, relation
 * and search_path. Errors: 22023, 42P01, 42809, and 0A000 for another database
 * or a temporary relation.
 */
extern void retl_query_resolve(const char *given, RetlQuery *query);

/* The qualified name of "given", where it is the name of a relation, existing or not; else NULL. */
extern char *retl_query_relation_name(const char *given);

/*
 * Inside a call: analyses, plans and starts the query as "owner", without
 * fetching a row, and fills in the rest: what this lets pass, "owner" may read.
 */
extern void retl_query_analyze(RetlQuery *query, Oid owner);

/*
 * Inside the owner's switch, with SPI connected: the query's result, to be
 * fetched from and closed.
 */
extern Portal retl_query_open(const RetlQuery *query);

/* Number of the column called "name", or -1. */
extern int	retl_query_column(const RetlQuery *query, const char *name);

/* Errors with 42703: there is no such column; the hint names the nearest or all. */
pg_noreturn extern void retl_query_no_column(const RetlQuery *query, const char *what, const char *name);

#endif							/* RETL_QUERY_H */
