/*
 * template.c
 *		@template: text with placeholders.
 *
 * {{{x}}} is replaced first, then {{x}} in what came of it: text that three
 * braces insert is scanned again, text that two insert is not. In a URL there
 * is one pass: two braces insert a value percent-encoded, three insert it as it
 * is, and nothing inserted is scanned, since it may come from a row.
 */
#include "postgres.h"

#include "map/node.h"

/*
 * Whether a placeholder with this many braces starts at "p"; *inner is what
 * stands between them.
 */
static bool
placeholder_at(const char *p, const char *end, int braces, const char **inner, int *inner_len)
{
	const char *q;

	if (end - p < 2 * braces + 1)
		return false;
	for (int i = 0; i < braces; i++)
	{
		if (p[i] != '{')
			return false;
	}
	q = memchr(p + braces, '}', end - p - braces);
	if (q == NULL || q == p + braces || end - q < braces)
		return false;
	for (int i = 0; i < braces; i++)
	{
		if (q[i] != '}')
			return false;
	}
	*inner = p + braces;
	*inner_len = q - *inner;
	return true;
}

/* The next placeholder from "p": where it starts and its braces; NULL: none. */
static const char *
next_placeholder(const char *p, const char *end, bool two, bool three, int *braces,
				 const char **inner, int *inner_len)
{
	for (; (p = memchr(p, '{', end - p)) != NULL; p++)
	{
		*braces = 3;
		if (three && placeholder_at(p, end, 3, inner, inner_len))
			return p;
		*braces = 2;
		if (two && placeholder_at(p, end, 2, inner, inner_len))
			return p;
	}
	return NULL;
}

bool
retl_template_is_two_pass(const char *text, int len)
{
	int			braces;
	const char *inner;
	int			inner_len;

	return next_placeholder(text, text + len, false, true, &braces, &inner, &inner_len) != NULL;
}

static void
set_text(RetlTemplatePart *part, const char *text, int len)
{
	StringInfoData json;

	initStringInfo(&json);
	retl_json_write_string(&json, text, len);
	part->text = text;
	part->len = len;
	part->json = json.data + 1;
	part->json_len = json.len - 2;
}

RetlTemplatePart *
retl_template_parse(const char *text, int len, bool url, RetlScope *scope, int *count)
{
	const char *end = text + len;
	const char *p;
	const char *inner;
	int			inner_len;
	int			braces;
	int			size = 4;
	RetlTemplatePart *parts = palloc0(size * sizeof(RetlTemplatePart));

	*count = 0;
	while ((p = next_placeholder(text, end, true, url, &braces, &inner, &inner_len)) != NULL)
	{
		RetlTemplatePart *part;
		const char *path = retl_text_trim(inner, inner_len, &inner_len);

		if (*count + 1 == size)
		{
			size *= 2;
			parts = repalloc(parts, size * sizeof(RetlTemplatePart));
			memset(parts + *count, 0, (size - *count) * sizeof(RetlTemplatePart));
		}
		part = &parts[(*count)++];
		set_text(part, text, p - text);
		part->value = retl_compile_path(path, inner_len, false, scope);
		part->encode = url && braces == 2;
		text = inner;
		while (*text != '}')
			text++;
		text += braces;
	}
	set_text(&parts[(*count)++], text, end - text);
	return parts;
}

static void
insert_value(RetlEval *eval, StringInfo out, const char *path, int len, bool encode)
{
	RetlValue	value;

	path = retl_text_trim(path, len, &len);
	value = retl_eval_path(eval, path, len, false);
	if (encode)
	{
		StringInfoData plain;

		initStringInfo(&plain);
		retl_value_write_text(&plain, value, eval->error);
		retl_text_write_percent(out, plain.data, plain.len);
	}
	else
		retl_value_write_text(out, value, eval->error);
}

static void
render_pass(RetlEval *eval, StringInfo out, const char *text, int len, bool two, bool three, bool url)
{
	const char *end = text + len;
	const char *p;
	const char *inner;
	int			inner_len;
	int			braces;

	while ((p = next_placeholder(text, end, two, three, &braces, &inner, &inner_len)) != NULL)
	{
		appendBinaryStringInfo(out, text, p - text);
		insert_value(eval, out, inner, inner_len, url && braces == 2);
		text = inner + inner_len + braces;
	}
	appendBinaryStringInfo(out, text, end - text);
}

RetlValue
retl_template_render(RetlEval *eval, const char *text, int len, bool url)
{
	StringInfoData first;
	StringInfoData second;

	initStringInfo(&first);
	render_pass(eval, &first, text, len, url, true, url);
	if (url)
		return retl_value_tree(retl_json_string(first.data, first.len));
	initStringInfo(&second);
	render_pass(eval, &second, first.data, first.len, true, false, false);
	return retl_value_tree(retl_json_string(second.data, second.len));
}
