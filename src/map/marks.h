/*
 * marks.h
 *		Places in a connector's templates that are filled later: by records when a
 *		body is put together, by secrets at each attempt to send it.
 *
 * {"@records": true}, {"@record": true} and {"@secret": NAME} are replaced by
 * strings before the templates are compiled, and these are looked for in what
 * the templates give. They have random digits in them, drawn for each
 * compilation, so that no row can name a secret and have it sent.
 *
 * A body is stored as its beginning, its records and its end, with an empty string
 * where a secret belongs. "holes" says where: [[NAME, PLACE], ...], PLACE the
 * offset of the empty string's first byte, or, behind the records, what is left from there
 * to the end of the body, negative.
 *
 * No shared state, no locks.
 */
#ifndef RETL_MARKS_H
#define RETL_MARKS_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/json.h"

#define RETL_MARK_DIGITS 16

typedef struct RetlMarks
{
	char		nonce[2 * RETL_MARK_DIGITS + 1];
} RetlMarks;

extern void retl_marks_init(RetlMarks *marks);

/* Replaces, in the tree itself. */
extern RetlJson *retl_marks_place(const RetlMarks *marks, RetlJson *template);

/* How many places for records a template has, several or one. */
extern void retl_marks_count(const RetlMarks *marks, const RetlJson *template, int *several, int *one);

/* Whether any place is left in a text. */
extern bool retl_marks_found(const RetlMarks *marks, const char *text, int len);

/*
 * Appends what stands before and behind the records in the text of a body, and
 * the holes, as the members of a JSON array. False: the text has no place for records.
 */
extern bool retl_marks_cut(const RetlMarks *marks, const char *text, int len,
						   StringInfo before, StringInfo behind, StringInfo holes);

/* The name of the secret that all of a text stands for, or NULL. */
extern char *retl_marks_secret(const RetlMarks *marks, const char *text, int len);

#endif							/* RETL_MARKS_H */
