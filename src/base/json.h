/*
 * json.h
 *		JSON as retl needs it: slices of JSON text that are copied without being
 *		understood, and trees for what has to be understood.
 *
 * A slice is a piece of valid JSON text (a value that went through the json
 * type or a writer of ours); walking one never allocates and never recurses.
 * A tree keeps the order of members; of duplicate keys the last value wins at
 * the place of the first, as in JavaScript. Numbers keep their source text, so
 * no digit of a bigint or numeric is ever lost.
 *
 * Text is UTF-8. Strings of a tree may hold NUL, and surrogates that lack
 * their other half (three bytes each, as UTF-8 would encode them): both have an
 * escape in JSON and are written as such. Trees live in the memory context that
 * was current. No shared state, no locks.
 */
#ifndef RETL_JSON_H
#define RETL_JSON_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* A piece of JSON text, not NUL-terminated. data == NULL: the value is absent. */
typedef struct RetlSlice
{
	const char *data;
	int			len;
} RetlSlice;

typedef enum RetlJsonType
{
	RETL_JSON_NULL,
	RETL_JSON_BOOL,
	RETL_JSON_NUMBER,
	RETL_JSON_STRING,
	RETL_JSON_ARRAY,
	RETL_JSON_OBJECT
} RetlJsonType;

typedef struct RetlJson RetlJson;

typedef struct RetlJsonMember
{
	const char *key;
	int			keylen;
	RetlJson   *value;			/* NULL: undefined, not written */
} RetlJsonMember;

struct RetlJson
{
	RetlJsonType type;
	bool		boolean;
	int			len;			/* bytes of text; number of items or members */
	int			size;			/* room for items or members */
	union
	{
		const char *text;		/* string: decoded; number: as in the source */
		RetlJson  **items;		/* NULL items are undefined, written as null */
		RetlJsonMember *members;
	};
	int		   *index;			/* hash of members by key, of large objects */
};

/* ---- trees ---- */

/*
 * Parses exactly one JSON value. NULL and *error (palloc'd: what and where)
 * when the text is no JSON or nested too deep for the stack.
 */
extern RetlJson *retl_json_parse(const char *text, int len, char **error);

extern RetlJson *retl_json_null(void);
extern RetlJson *retl_json_bool(bool value);
extern RetlJson *retl_json_number(const char *text, int len);
extern RetlJson *retl_json_string(const char *text, int len);
extern RetlJson *retl_json_array(void);
extern RetlJson *retl_json_object(void);

extern void retl_json_push(RetlJson *array, RetlJson *item);
extern void retl_json_set(RetlJson *object, const char *key, int keylen, RetlJson *value);

/* The value of a member; NULL when there is none or "object" is no object. */
extern RetlJson *retl_json_get(const RetlJson *object, const char *key, int keylen);
extern RetlJson *retl_json_member(const RetlJson *object, const char *key);

/* Whether "value" is a string equal to "text". */
extern bool retl_json_is_string(const RetlJson *value, const char *text);

/* A string's text as a C string (a NUL in it ends it). */
extern char *retl_json_cstring(const RetlJson *string);

/* "null", "boolean", "number", "string", "array", "object"; "undefined" for NULL */
extern const char *retl_json_type_name(const RetlJson *value);

/* The same members in JavaScript's order: integer-like keys first, ascending. */
extern RetlJsonMember *retl_json_js_order(const RetlJson *object);

/* Whether "key" is written as a non-negative 32-bit array index; *index is it. */
extern bool retl_json_array_index(const char *key, int len, uint32 *index);

/* ---- writing ---- */

/* Appends the value as JSON: numbers by their source text, members in their order. */
extern void retl_json_write(StringInfo out, const RetlJson *value);

/* Appends it as JSON.stringify would: numbers and order in JavaScript's form. */
extern void retl_json_stringify(StringInfo out, const RetlJson *value);

/* Appends a string, quoted and escaped. */
extern void retl_json_write_string(StringInfo out, const char *text, int len);

/*
 * Appends a number as JavaScript's String() does: 1e21 is "1e+21", 1.50 is
 * "1.5", -0 is "0". A number of more digits than a double can tell apart keeps
 * them all.
 */
extern void retl_json_write_number(StringInfo out, const char *text, int len);

extern double retl_json_double(const char *text, int len);

/* ---- slices ---- */

/* A slice of the value without white space around it. */
extern RetlSlice retl_slice(const char *text, int len);

extern RetlJsonType retl_slice_type(RetlSlice value);

/* Decodes a string; points into the slice where nothing is escaped. */
extern const char *retl_slice_text(RetlSlice string, int *len);

typedef struct RetlSliceIterator
{
	const char *next;
	const char *end;
	bool		object;
} RetlSliceIterator;

/*
 * Walks the members of an object or the items of an array. "key" is the key as
 * it is written, with its quotes; absent for arrays.
 */
extern void retl_slice_walk(RetlSliceIterator *iterator, RetlSlice container);
extern bool retl_slice_next(RetlSliceIterator *iterator, RetlSlice *key, RetlSlice *value);

/* Whether a key as written equals "key". */
extern bool retl_slice_key_equals(RetlSlice written, const char *key, int keylen);

/* One member (the last of its name) or one item; absent when there is none. */
extern RetlSlice retl_slice_member(RetlSlice object, const char *key, int keylen);
extern RetlSlice retl_slice_item(RetlSlice array, uint32 index);

#endif							/* RETL_JSON_H */
