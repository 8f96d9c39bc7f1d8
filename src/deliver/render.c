/*
 * render.c
 *		Secrets and encodings of bodies; see render.h.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "deliver/render.h"

/* What stands for a secret in a stored body. */
#define HOLE "\"\""
#define HOLE_LEN 2

static bool
is_string(RetlSlice value, const char *text)
{
	return value.data != NULL && value.len == strlen(text) + 2 &&
		memcmp(value.data + 1, text, value.len - 2) == 0;
}

const char *
retl_render_type(RetlSlice stored)
{
	RetlSlice	encode = retl_slice_member(stored, "encode", strlen("encode"));

	if (is_string(encode, "form"))
		return "application/x-www-form-urlencoded;charset=UTF-8";
	if (is_string(encode, "lines"))
		return "application/x-ndjson";
	if (is_string(encode, "csv"))
		return "text/csv";
	return "application/json";
}

/* ---- secrets ---- */

static int
slice_int(RetlSlice value)
{
	return value.data != NULL ? atoi(pnstrdup(value.data, value.len)) : 0;
}

/* Holes are in the order of their places. */
static bool
fill_holes(RetlSlice holes, const char *body, size_t len, const RetlSecrets *secrets, StringInfo out, char **error)
{
	RetlSliceIterator iterator;
	RetlSlice	key;
	RetlSlice	hole;
	size_t		done = 0;

	retl_slice_walk(&iterator, holes);
	while (retl_slice_next(&iterator, &key, &hole))
	{
		int			name_len;
		const char *name = retl_slice_text(retl_slice_item(hole, 0), &name_len);
		int64		place = slice_int(retl_slice_item(hole, 1));
		const char *fault;
		const char *value;

		name = pnstrdup(name, name_len);
		if (place < 0)
			place += len;
		if (place < (int64) done || place + HOLE_LEN > (int64) len || memcmp(body + place, HOLE, HOLE_LEN) != 0)
		{
			*error = pstrdup("The stored body has no room for its secrets.");
			return false;
		}
		value = retl_secrets_get(secrets, name, &fault);
		if (value == NULL)
		{
			*error = fault != NULL ?
				psprintf("Secret \"%s\" of the destination cannot be read: %s.", name, fault) :
				psprintf("Secret \"%s\" of the destination is not set.", name);
			return false;
		}
		appendBinaryStringInfo(out, body + done, place - done);
		retl_json_write_string(out, value, strlen(value));
		done = place + HOLE_LEN;
	}
	appendBinaryStringInfo(out, body + done, len - done);
	return true;
}

/* ---- encodings ---- */

static void
write_form_text(StringInfo out, const char *text, int len)
{
	for (int i = 0; i < len; i++)
	{
		unsigned char c = text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			(c != '\0' && strchr("*-._", c) != NULL))
			appendStringInfoChar(out, c);
		else if (c == ' ')
			appendStringInfoChar(out, '+');
		else
			appendStringInfo(out, "%%%02X", c);
	}
}

/* NAME=VALUE&..., a value that is no string as its JSON text. */
static void
write_form(StringInfo out, RetlSlice object)
{
	RetlSliceIterator iterator;
	RetlSlice	key;
	RetlSlice	value;
	bool		first = true;

	retl_slice_walk(&iterator, object);
	while (retl_slice_next(&iterator, &key, &value))
	{
		int			len;
		const char *text = retl_slice_text(key, &len);

		if (!first)
			appendStringInfoChar(out, '&');
		first = false;
		write_form_text(out, text, len);
		appendStringInfoChar(out, '=');
		if (retl_slice_type(value) == RETL_JSON_STRING)
			text = retl_slice_text(value, &len);
		else
		{
			text = value.data;
			len = value.len;
		}
		write_form_text(out, text, len);
	}
}

/* White space between tokens may hold line ends where values came from json columns. */
static void
write_line(StringInfo out, RetlSlice item)
{
	for (int i = 0; i < item.len; i++)
		appendStringInfoChar(out, item.data[i] == '\n' || item.data[i] == '\r' ? ' ' : item.data[i]);
	appendStringInfoChar(out, '\n');
}

static void
write_lines(StringInfo out, RetlSlice array)
{
	RetlSliceIterator iterator;
	RetlSlice	key;
	RetlSlice	item;

	retl_slice_walk(&iterator, array);
	while (retl_slice_next(&iterator, &key, &item))
		write_line(out, item);
}

static void
write_cell(StringInfo out, const char *text, int len)
{
	appendStringInfoChar(out, '"');
	for (int i = 0; i < len; i++)
	{
		if (text[i] == '"')
			appendStringInfoChar(out, '"');
		appendStringInfoChar(out, text[i]);
	}
	appendStringInfoChar(out, '"');
}

/* A column for each member of any item, by first occurrence; null and absent are empty cells. */
static void
write_csv(StringInfo out, RetlSlice array)
{
	RetlJson   *columns = retl_json_object();
	RetlSliceIterator items;
	RetlSliceIterator members;
	RetlSlice	key;
	RetlSlice	item;
	RetlSlice	value;

	retl_slice_walk(&items, array);
	while (retl_slice_next(&items, &key, &item))
	{
		retl_slice_walk(&members, item);
		while (retl_slice_next(&members, &key, &value))
		{
			int			len;
			const char *name = retl_slice_text(key, &len);

			if (retl_json_get(columns, name, len) == NULL)
				retl_json_set(columns, name, len, retl_json_null());
		}
	}
	for (int i = 0; i < columns->len; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		write_cell(out, columns->members[i].key, columns->members[i].keylen);
	}
	appendStringInfoChar(out, '\n');

	retl_slice_walk(&items, array);
	while (retl_slice_next(&items, &key, &item))
	{
		for (int i = 0; i < columns->len; i++)
		{
			int			len;
			const char *text;

			if (i > 0)
				appendStringInfoChar(out, ',');
			value = retl_slice_member(item, columns->members[i].key, columns->members[i].keylen);
			if (value.data == NULL || retl_slice_type(value) == RETL_JSON_NULL)
				continue;
			if (retl_slice_type(value) == RETL_JSON_STRING)
				text = retl_slice_text(value, &len);
			else
			{
				text = value.data;
				len = value.len;
			}
			write_cell(out, text, len);
		}
		appendStringInfoChar(out, '\n');
	}
}

const char *
retl_render_body(RetlSlice stored, const char *body, size_t body_len, const RetlSecrets *secrets,
				 size_t *rendered_len, bool *secret, char **error)
{
	RetlSlice	holes = retl_slice_member(stored, "holes", strlen("holes"));
	RetlSlice	encode = retl_slice_member(stored, "encode", strlen("encode"));
	StringInfoData filled = {0};
	StringInfoData encoded;
	RetlSlice	value;

	*secret = false;
	*rendered_len = body_len;
	if (body_len == 0)
		return body;
	if (holes.data != NULL)
	{
		initStringInfo(&filled);
		enlargeStringInfo(&filled, body_len + 256);
		if (!fill_holes(holes, body, body_len, secrets, &filled, error))
			return NULL;
		*secret = true;
		body = filled.data;
		*rendered_len = body_len = filled.len;
	}
	if (encode.data == NULL)
		return body;

	value = retl_slice(body, body_len);
	if (retl_slice_type(value) != (is_string(encode, "form") ? RETL_JSON_OBJECT : RETL_JSON_ARRAY))
	{
		*error = pstrdup("The stored body does not have the form that its encoding needs.");
		return NULL;
	}
	initStringInfo(&encoded);
	if (is_string(encode, "form"))
		write_form(&encoded, value);
	else if (is_string(encode, "lines"))
		write_lines(&encoded, value);
	else
		write_csv(&encoded, value);
	if (filled.data != NULL)
		explicit_bzero(filled.data, filled.len);
	*rendered_len = encoded.len;
	return encoded.data;
}
