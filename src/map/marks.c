/*
 * marks.c
 *		Places for records and secrets in templates; see marks.h.
 */
#include "postgres.h"

#include "common/string.h"
#include "miscadmin.h"

#include "map/marks.h"

/* A mark is "@", the digits, and one of these; a secret's name follows. */
#define SEVERAL 'r'
#define ONE 'o'
#define SECRET 's'

#define MARK_LEN (1 + 2 * RETL_MARK_DIGITS + 1)

void
retl_marks_init(RetlMarks *marks)
{
	uint8		bytes[RETL_MARK_DIGITS];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random value")));
	for (int i = 0; i < RETL_MARK_DIGITS; i++)
		snprintf(marks->nonce + 2 * i, 3, "%02x", bytes[i]);
}

static RetlJson *
mark(const RetlMarks *marks, char kind, const char *name)
{
	char	   *text = psprintf("@%s%c%s", marks->nonce, kind, name);

	return retl_json_string(text, strlen(text));
}

RetlJson *
retl_marks_place(const RetlMarks *marks, RetlJson *template)
{
	check_stack_depth();
	if (template == NULL)
		return NULL;
	if (template->type == RETL_JSON_OBJECT)
	{
		RetlJson   *secret = retl_json_member(template, "@secret");

		if (template->len == 1 && retl_json_member(template, "@records") != NULL)
			return mark(marks, SEVERAL, "");
		if (template->len == 1 && retl_json_member(template, "@record") != NULL)
			return mark(marks, ONE, "");
		if (template->len == 1 && secret != NULL && secret->type == RETL_JSON_STRING)
			return mark(marks, SECRET, retl_json_cstring(secret));
		for (int i = 0; i < template->len; i++)
			template->members[i].value = retl_marks_place(marks, template->members[i].value);
	}
	else if (template->type == RETL_JSON_ARRAY)
	{
		for (int i = 0; i < template->len; i++)
			template->items[i] = retl_marks_place(marks, template->items[i]);
	}
	return template;
}

/* The kind of mark that "text" begins with; 0: none. */
static char
kind_of(const RetlMarks *marks, const char *text, int len)
{
	if (len < MARK_LEN || text[0] != '@' || memcmp(text + 1, marks->nonce, 2 * RETL_MARK_DIGITS) != 0)
		return '\0';
	return text[MARK_LEN - 1];
}

void
retl_marks_count(const RetlMarks *marks, const RetlJson *template, int *several, int *one)
{
	if (template == NULL)
		return;
	if (template->type == RETL_JSON_STRING)
	{
		char		kind = kind_of(marks, template->text, template->len);

		*several += kind == SEVERAL;
		*one += kind == ONE;
	}
	else if (template->type == RETL_JSON_OBJECT)
	{
		for (int i = 0; i < template->len; i++)
			retl_marks_count(marks, template->members[i].value, several, one);
	}
	else if (template->type == RETL_JSON_ARRAY)
	{
		for (int i = 0; i < template->len; i++)
			retl_marks_count(marks, template->items[i], several, one);
	}
}

bool
retl_marks_found(const RetlMarks *marks, const char *text, int len)
{
	for (const char *at = text; (at = memchr(at, '@', text + len - at)) != NULL; at++)
	{
		if (kind_of(marks, at, text + len - at) != '\0')
			return true;
	}
	return false;
}

/* The next mark from "at" that is a string by itself, at its quote; *end is behind it. */
static const char *
next_mark(const RetlMarks *marks, const char *at, const char *limit, char *kind, const char **end)
{
	for (; (at = memchr(at, '"', limit - at)) != NULL; at++)
	{
		*kind = kind_of(marks, at + 1, limit - at - 1);
		if (*kind == '\0')
			continue;
		*end = memchr(at + 1, '"', limit - at - 1);
		if (*end == NULL)
			return NULL;
		(*end)++;
		return at;
	}
	return NULL;
}

static void
add_hole(StringInfo holes, const char *mark, const char *end, int place)
{
	appendStringInfo(holes, "%s[", holes->len > 0 ? "," : "");
	appendStringInfoChar(holes, '"');
	appendBinaryStringInfo(holes, mark + 1 + MARK_LEN, end - 1 - (mark + 1 + MARK_LEN));
	appendStringInfo(holes, "\",%d]", place);
}

bool
retl_marks_cut(const RetlMarks *marks, const char *text, int len,
			   StringInfo before, StringInfo behind, StringInfo holes)
{
	const char *limit = text + len;
	const char *at;
	const char *end;
	char		kind;
	bool		found = false;
	int			rest;

	/* names of secrets need no escape: they are checked when a connector is created */
	while ((at = next_mark(marks, text, limit, &kind, &end)) != NULL)
	{
		StringInfo	out = found ? behind : before;

		appendBinaryStringInfo(out, text, at - text);
		text = end;
		if (kind == SECRET)
		{
			appendStringInfoString(out, "\"\"");
			if (!found)
				add_hole(holes, at, end, before->len - 2);
		}
		else
			found = true;
		if (kind == SEVERAL)
		{
			appendStringInfoChar(before, '[');
			appendStringInfoChar(behind, ']');
		}
	}
	appendBinaryStringInfo(found ? behind : before, text, limit - text);
	if (!found)
		return false;

	/* once more, to know how far from the end they are */
	rest = behind->len;
	text = limit - len;
	found = false;
	while ((at = next_mark(marks, text, limit, &kind, &end)) != NULL)
	{
		if (found)
		{
			rest -= at - text;
			if (kind == SECRET)
			{
				add_hole(holes, at, end, -rest);
				rest -= 2;
			}
		}
		else if (kind != SECRET)
		{
			found = true;
			rest -= kind == SEVERAL;
		}
		text = end;
	}
	return true;
}

char *
retl_marks_secret(const RetlMarks *marks, const char *text, int len)
{
	return kind_of(marks, text, len) == SECRET ? pnstrdup(text + MARK_LEN, len - MARK_LEN) : NULL;
}
