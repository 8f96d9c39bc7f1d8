/*
 * bisect.c
 *		Batches in place of a batch; see bisect.h.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "base/json.h"
#include "deliver/bisect.h"

/* The array of records is not deeper than this in any request known. */
#define DEPTH_LIMIT 4

typedef struct Found
{
	RetlSlice	array;
	int			depth;
	bool		ambiguous;
} Found;

static int
count_items(RetlSlice array)
{
	RetlSliceIterator iterator;
	RetlSlice	key;
	RetlSlice	value;
	int			count = 0;

	retl_slice_walk(&iterator, array);
	while (retl_slice_next(&iterator, &key, &value))
		count++;
	return count;
}

/* Looks for the one array of "records" items that is least deep. */
static void
find_array(RetlSlice value, int records, int depth, Found *found)
{
	RetlSliceIterator iterator;
	RetlSlice	key;
	RetlSlice	member;

	if (retl_slice_type(value) == RETL_JSON_ARRAY)
	{
		if (depth > found->depth || count_items(value) != records)
			return;
		found->ambiguous = depth == found->depth;
		found->array = value;
		found->depth = depth;
	}
	else if (retl_slice_type(value) == RETL_JSON_OBJECT && depth < DEPTH_LIMIT)
	{
		retl_slice_walk(&iterator, value);
		while (retl_slice_next(&iterator, &key, &member))
			find_array(member, records, depth + 1, found);
	}
}

/* The array as the stored request has it: its bracket ends what stands before the records. */
static RetlSlice
stored_array(const char *stored, const char *body, size_t len, int records)
{
	const RetlSlice absent = {NULL, 0};
	RetlSlice	sides;
	RetlSlice	array;
	int			before;
	int			behind;

	if (stored == NULL)
		return absent;
	sides = retl_slice_member(retl_slice(stored, strlen(stored)), "body", strlen("body"));
	if (sides.data == NULL || retl_slice_type(sides) != RETL_JSON_ARRAY ||
		retl_slice_item(sides, 0).data == NULL || retl_slice_item(sides, 1).data == NULL)
		return absent;
	(void) retl_slice_text(retl_slice_item(sides, 0), &before);
	(void) retl_slice_text(retl_slice_item(sides, 1), &behind);
	if (before < 1 || behind < 1 || (size_t) before + behind > len ||
		body[before - 1] != '[' || body[len - behind] != ']')
		return absent;
	array.data = body + before - 1;
	array.len = len - behind + 1 - (before - 1);
	return count_items(array) == records ? array : absent;
}

/* Looks for the array of records; absent when it is not clear which it is. */
static RetlSlice
locate(const char *stored, const char *body, size_t len, int records)
{
	Found		found = {.depth = DEPTH_LIMIT + 1};

	found.array = stored_array(stored, body, len, records);
	if (found.array.data != NULL)
		return found.array;
	find_array(retl_slice(body, len), records, 0, &found);
	if (found.ambiguous)
		found.array.data = NULL;
	return found.array;
}

/* Where in "array" its items number "from" to "to" - 1 are. */
static RetlSlice
item_range(RetlSlice array, int from, int to)
{
	RetlSliceIterator iterator;
	RetlSlice	key;
	RetlSlice	value;
	RetlSlice	range = {NULL, 0};

	retl_slice_walk(&iterator, array);
	for (int i = 0; i < to && retl_slice_next(&iterator, &key, &value); i++)
	{
		if (i == from)
			range.data = value.data;
		if (i >= from)
			range.len = value.data + value.len - range.data;
	}
	return range;
}

/* A new key for other bytes, the same whenever this batch is halved. */
static void
derive_key(const char *parent, int half, char *key)
{
	char		text[RETL_IDEMPOTENCY_KEY_LIMIT + 16];
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

	snprintf(text, sizeof(text), "%s/%d", parent, half);
	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) text, strlen(text)) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(hash));
	pg_cryptohash_free(hash);
	key[hex_encode((const char *) digest, sizeof(digest), key)] = '\0';
}

/* Puts "part" into the place of "whole" within "body". */
static void
set_body(RetlHalf *half, const char *body, size_t len, RetlSlice whole, RetlSlice part)
{
	StringInfoData text;

	initStringInfo(&text);
	appendBinaryStringInfo(&text, body, whole.data - body);
	appendBinaryStringInfo(&text, part.data, part.len);
	appendBinaryStringInfo(&text, whole.data + whole.len, body + len - (whole.data + whole.len));
	half->body = text.data;
	half->body_len = text.len;
}

static bool
is_json(const char *text, int len)
{
	char	   *error;

	return retl_json_parse(text, len, &error) != NULL;
}

/* A line for each record: where line number "line" begins; NULL when there are not as many lines. */
static const char *
find_line(const char *body, size_t len, int records, int line)
{
	const char *at = body;
	const char *end = body + len;
	const char *found = NULL;
	int			lines = 0;

	while (at < end)
	{
		const char *newline = memchr(at, '\n', end - at);

		if (lines++ == line)
			found = at;
		at = newline != NULL ? newline + 1 : end;
	}
	return lines == records ? found : NULL;
}

static void
add_member(RetlHalf *half, int record, int records)
{
	if (half->members == NULL)
		half->members = palloc(sizeof(int) * records);
	half->members[half->records++] = record;
}

RetlSlice *
retl_bisect_records(const char *stored, const char *body, size_t len, int records)
{
	RetlSlice  *slices = palloc(sizeof(RetlSlice) * records);
	RetlSlice	array;
	RetlSliceIterator iterator;
	RetlSlice	key;

	if (!is_json(body, len))
		return NULL;
	array = locate(stored, body, len, records);
	if (array.data == NULL && records > 1)
		return NULL;
	if (array.data == NULL)
	{
		slices[0] = retl_slice(body, len);
		return slices;
	}
	retl_slice_walk(&iterator, array);
	for (int i = 0; i < records; i++)
		(void) retl_slice_next(&iterator, &key, &slices[i]);
	return slices;
}

RetlHalves *
retl_bisect_rest(const char *stored, const char *body, size_t len, int records,
				 const RetlVerdict *verdicts, const char *idempotency_key)
{
	static const RetlVerdictKind kinds[] = {RETL_VERDICT_AGAIN, RETL_VERDICT_RETRY};
	RetlHalves *rest = palloc0(sizeof(RetlHalves));
	RetlSlice  *slices = records > 1 ? retl_bisect_records(stored, body, len, records) : NULL;
	RetlSlice	all;

	if (slices == NULL)
		return NULL;
	all.data = slices[0].data;
	all.len = slices[records - 1].data + slices[records - 1].len - all.data;
	for (int kind = 0; kind < lengthof(kinds); kind++)
	{
		RetlHalf   *part = &rest->half[rest->count];
		StringInfoData items;

		initStringInfo(&items);
		for (int i = 0; i < records; i++)
		{
			if (verdicts[i].kind != kinds[kind])
				continue;
			if (items.len > 0)
				appendStringInfoChar(&items, ',');
			appendBinaryStringInfo(&items, slices[i].data, slices[i].len);
			add_member(part, i, records);
		}
		if (part->records == 0)
			continue;
		part->later = kinds[kind] == RETL_VERDICT_RETRY;
		set_body(part, body, len, all, (RetlSlice) {items.data, items.len});
		derive_key(idempotency_key, 2 + kind, part->idempotency_key);
		rest->count++;
	}
	return rest;
}

RetlHalves *
retl_bisect_next(char *body, size_t len, int records, const char *request, const char *idempotency_key)
{
	RetlHalves *next = palloc0(sizeof(RetlHalves));

	next->count = 1;
	for (int i = 0; i < records; i++)
		add_member(&next->half[0], i, records);
	next->half[0].body = body;
	next->half[0].body_len = len;
	next->half[0].request = request;
	derive_key(idempotency_key, 4, next->half[0].idempotency_key);
	return next;
}

RetlHalves *
retl_bisect_body(const char *stored, const char *body, size_t len, int records, const char *idempotency_key)
{
	RetlHalves *halves = palloc0(sizeof(RetlHalves));
	int			middle = records / 2;

	halves->count = 2;
	for (int i = 0; i < records; i++)
		add_member(&halves->half[i < middle ? 0 : 1], i, records);
	for (int i = 0; i < 2; i++)
		derive_key(idempotency_key, i, halves->half[i].idempotency_key);

	if (is_json(body, len))
	{
		RetlSlice	array = locate(stored, body, len, records);
		RetlSlice	all;

		if (array.data == NULL)
			return NULL;
		all = item_range(array, 0, records);
		set_body(&halves->half[0], body, len, all, item_range(array, 0, middle));
		set_body(&halves->half[1], body, len, all, item_range(array, middle, records));
	}
	else
	{
		const char *cut = find_line(body, len, records, middle);

		if (cut == NULL || !is_json(body, strcspn(body, "\n")))
			return NULL;
		halves->half[0].body_len = cut - body;
		halves->half[1].body_len = body + len - cut;
		halves->half[0].body = pnstrdup(body, cut - body);
		halves->half[1].body = pnstrdup(cut, body + len - cut);
	}
	return halves;
}

void
retl_bisect_keys(RetlHalves *halves, const char *keys, const char *operations)
{
	RetlSlice	array = retl_slice(keys, strlen(keys));

	for (int i = 0; i < halves->count; i++)
	{
		RetlHalf   *half = &halves->half[i];
		StringInfoData text;
		RetlSliceIterator iterator;
		RetlSlice	key;
		RetlSlice	value;
		int			next = 0;

		initStringInfo(&text);
		half->operations = palloc0(half->records + 1);
		retl_slice_walk(&iterator, array);
		for (int n = 0; next < half->records && retl_slice_next(&iterator, &key, &value); n++)
		{
			if (half->members[next] != n)
				continue;
			appendStringInfoChar(&text, next == 0 ? '[' : ',');
			appendBinaryStringInfo(&text, value.data, value.len);
			half->operations[next++] = operations[n];
		}
		appendStringInfoChar(&text, ']');
		half->keys = text.data;
	}
}
