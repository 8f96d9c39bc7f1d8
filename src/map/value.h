/*
 * value.h
 *		Values of the mapping language, and what JavaScript makes of them.
 *
 * A value is undefined, a slice that nobody has looked into, or a tree. Most
 * values go from row to payload as slices; only a directive that has to look
 * inside makes a tree. The language is JavaScript's in what is falsy, in the
 * text form of a value and in counting characters as UTF-16 does.
 * No shared state, no locks.
 */
#ifndef RETL_VALUE_H
#define RETL_VALUE_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/json.h"

typedef struct RetlValue
{
	RetlSlice	slice;			/* absent: undefined, or a tree */
	RetlJson   *tree;
} RetlValue;

#define RETL_UNDEFINED ((RetlValue) {{NULL, 0}, NULL})

static inline bool
retl_is_undefined(RetlValue value)
{
	return value.slice.data == NULL && value.tree == NULL;
}

static inline RetlValue
retl_value_slice(RetlSlice slice)
{
	RetlValue	value = {slice, NULL};

	return value;
}

static inline RetlValue
retl_value_tree(RetlJson *tree)
{
	RetlValue	value = {{NULL, 0}, tree};

	return value;
}

static inline RetlJsonType
retl_value_type(RetlValue value)
{
	return value.tree != NULL ? value.tree->type : retl_slice_type(value.slice);
}

/* "undefined", "null", "string", ... */
extern const char *retl_value_type_name(RetlValue value);

extern bool retl_value_is_null(RetlValue value);

/* undefined, null, false, 0, "" */
extern bool retl_value_is_falsy(RetlValue value);

/* The value as a tree; NULL and *error when it is nested too deep. NULL for undefined. */
extern RetlJson *retl_value_as_tree(RetlValue value, char **error);

/* Text of a string value. */
extern const char *retl_value_text(RetlValue value, int *len);

/* Appends JavaScript's String(value); nothing for undefined and null. */
extern void retl_value_write_text(StringInfo out, RetlValue value, char **error);

/* Appends the value as JSON; false when it is undefined. */
extern bool retl_value_write_json(StringInfo out, RetlValue value);

/* Length in UTF-16 units, and the unit (as a string) at an index; false: none there. */
extern int	retl_text_length(const char *text, int len);
extern bool retl_text_unit(const char *text, int len, uint32 index, const char **unit, int *unit_len);

/* toUpperCase() or toLowerCase(), full Unicode mappings where the server has ICU. */
extern const char *retl_text_case(const char *text, int len, bool upper, int *result_len);

/* Whether "a" and "b" (one character each) are equal but for case, as /i has it. */
extern bool retl_text_same_letter(const char *a, int alen, const char *b, int blen);

/* Text without white space on both sides, as trim() does it. */
extern const char *retl_text_trim(const char *text, int len, int *trimmed_len);

/* Appends text as encodeURIComponent does. */
extern void retl_text_write_percent(StringInfo out, const char *text, int len);

#endif							/* RETL_VALUE_H */
