/*
 * eval.h
 *		The mapping language: compiled once, evaluated per row.
 *
 * Language: JSON in which an object with one "@name" key is a directive. What a
 * path means is the business of a scope (when compiling) and of an input (when
 * evaluating): a scope gives each path it knows a slot, an input fetches the
 * slot's value as a slice. Inside @arrayPath and @transform the root is another
 * value, and paths are followed from it.
 *
 * Evaluation never raises an error for what a row holds: the first problem is
 * kept, the rest of the row evaluates to undefined, and the caller hears of it.
 * Everything compiled lives in the memory context that was current.
 * No shared state, no locks.
 */
#ifndef RETL_EVAL_H
#define RETL_EVAL_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "map/path.h"
#include "map/value.h"

/* Slots that no input knows. */
#define RETL_SLOT_ROOT		(-1)	/* follow the path from the root */
#define RETL_SLOT_UNDEFINED (-2)	/* known to be undefined */

typedef struct RetlScope
{
	/*
	 * Slot for a path of at least one step; *used: steps it takes in. NULL: every
	 * path is followed from the root.
	 */
	int			(*find) (void *arg, const RetlStep *steps, int nsteps, int *used);

	/* Number for the text of an @sql expression. NULL: @sql is not allowed. */
	int			(*sql) (void *arg, const char *text);

	void	   *arg;			/* for both */
	const RetlJson *constants;	/* members of the root that are known now */
	bool		url;			/* encode what templates insert */
	bool		unchecked;		/* not validated: inside an array */
	char	  **error;			/* set by retl_compile() */
} RetlScope;

typedef struct RetlInput RetlInput;

struct RetlInput
{
	RetlSlice	(*fetch) (RetlInput *input, int slot);

	/* The same for a path that was computed; *used: steps taken in. */
	RetlSlice	(*lookup) (RetlInput *input, const RetlStep *steps, int nsteps, int *used);

	/* The root itself. */
	RetlSlice	(*root) (RetlInput *input);

	const RetlSlice *sql;		/* values of @sql expressions */
};

typedef struct RetlNode RetlNode;

/*
 * Checks the form of a mapping without compiling it: a list of messages
 * (char *), each "/place/in/the/mapping what is wrong."; NIL: none.
 */
extern List *retl_validate(const RetlJson *mapping);

/*
 * A mapping with a directive for all of it ("__segment_internal_directive") as
 * that directive, with the rest as its "mapping"; other mappings as they are.
 */
extern RetlJson *retl_root_directive(RetlJson *mapping, char **error);

/*
 * Compiles a mapping that has passed retl_validate(). *error, NULL before, is
 * set when the mapping has a directive that could never be evaluated: it
 * compiles all the same, and fails the rows that come to it.
 */
extern RetlNode *retl_compile(const RetlJson *mapping, RetlScope *scope, char **error);

/* Whether it is the same for every row; *value is it (undefined: absent). */
extern bool retl_is_constant(const RetlNode *node, RetlValue *value);

/*
 * Evaluates on an input, or on a plain root value (input NULL). Appends the
 * value as JSON to "out"; false when it is undefined. A problem of the row is
 * put into *error, which must be NULL before; what was appended is then void.
 */
extern bool retl_emit(const RetlNode *node, RetlInput *input, RetlValue root,
					  StringInfo out, char **error);

/* The same, as a value. */
extern RetlValue retl_evaluate(const RetlNode *node, RetlInput *input, RetlValue root,
							   char **error);

#endif							/* RETL_EVAL_H */
