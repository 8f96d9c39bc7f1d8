/*
 * path.h
 *		Paths of the mapping language: a.b[0].c, a['b'].c, a.0.c.
 *
 * The rules are those of the language's origin, quirks included: a falsy value
 * on the way is the result; "length" and indexes work on arrays and strings;
 * a key with a dot, a quote or a bracketed digit in it cannot be reached.
 * No shared state, no locks.
 */
#ifndef RETL_PATH_H
#define RETL_PATH_H

#include "postgres.h"

#include "map/value.h"

typedef struct RetlStep
{
	const char *key;
	int			len;
	bool		is_index;		/* the key is an array index, in "index" */
	uint32		index;
} RetlStep;

typedef struct RetlPath
{
	int			nsteps;			/* 0: the root itself */
	RetlStep   *steps;
} RetlPath;

/*
 * Takes a path apart. "strip": the first "$." anywhere in it is dropped, as
 * @path does and @template does not. Any text is a path.
 */
extern void retl_path_parse(RetlPath *path, const char *text, int len, bool strip);

/* Follows steps from a value. */
extern RetlValue retl_path_follow(RetlValue from, const RetlStep *steps, int nsteps);

#endif							/* RETL_PATH_H */
