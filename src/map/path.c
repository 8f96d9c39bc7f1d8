/*
 * path.c
 *		Paths of the mapping language; see path.h.
 */
#include "postgres.h"

#include "map/path.h"

static inline bool
is_quote_or_digit(char c)
{
	return c == '\'' || c == '"' || (c >= '0' && c <= '9');
}

static void
add_step(RetlPath *path, const char *text, int len)
{
	RetlStep   *step = &path->steps[path->nsteps];
	char	   *key;
	int			keylen = 0;

	if (len == 0)
		return;
	key = palloc(len + 1);
	for (int i = 0; i < len; i++)
	{
		if (text[i] != '\'' && text[i] != '"')
			key[keylen++] = text[i];
	}
	key[keylen] = '\0';
	step->key = key;
	step->len = keylen;
	step->is_index = retl_json_array_index(key, keylen, &step->index);
	path->nsteps++;
}

void
retl_path_parse(RetlPath *path, const char *text, int len, bool strip)
{
	const char *start;
	const char *end;
	int			separators = 0;

	if (strip)
	{
		for (int i = 0; i + 1 < len; i++)
		{
			if (text[i] == '$' && text[i + 1] == '.')
			{
				char	   *stripped = palloc(len);

				memcpy(stripped, text, i);
				memcpy(stripped + i, text + i + 2, len - i - 2);
				text = stripped;
				len -= 2;
				break;
			}
		}
	}
	for (int i = 0; i < len; i++)
		separators += text[i] == '.' || text[i] == '[' || text[i] == ']';
	path->nsteps = 0;
	path->steps = palloc((separators + 1) * sizeof(RetlStep));
	if (len == 1 && text[0] == '.')
		return;

	start = text;
	end = text + len;
	for (const char *p = text; p < end; p++)
	{
		if (*p == '.' ||
			(*p == '[' && p + 1 < end && is_quote_or_digit(p[1])) ||
			(*p == ']' && p > text && is_quote_or_digit(p[-1])))
		{
			add_step(path, start, p - start);
			start = p + 1;
		}
	}
	add_step(path, start, end - start);
}

static RetlValue
number_value(int number)
{
	char	   *text = psprintf("%d", number);

	return retl_value_slice(retl_slice(text, strlen(text)));
}

static RetlValue
text_step(RetlValue from, const RetlStep *step, bool length)
{
	int			len;
	const char *text = retl_value_text(from, &len);
	const char *unit;
	int			unit_len;

	if (length)
		return number_value(retl_text_length(text, len));
	if (step->is_index && retl_text_unit(text, len, step->index, &unit, &unit_len))
		return retl_value_tree(retl_json_string(unit, unit_len));
	return RETL_UNDEFINED;
}

static RetlValue
array_step(RetlValue from, const RetlStep *step, bool length)
{
	RetlSliceIterator iterator;
	RetlSlice	key,
				item;
	int			count = 0;

	if (from.tree != NULL)
	{
		if (length)
			return number_value(from.tree->len);
		if (step->is_index && step->index < from.tree->len)
			return retl_value_tree(from.tree->items[step->index]);
		return RETL_UNDEFINED;
	}
	if (step->is_index)
		return retl_value_slice(retl_slice_item(from.slice, step->index));
	if (!length)
		return RETL_UNDEFINED;
	retl_slice_walk(&iterator, from.slice);
	while (retl_slice_next(&iterator, &key, &item))
		count++;
	return number_value(count);
}

RetlValue
retl_path_follow(RetlValue from, const RetlStep *steps, int nsteps)
{
	for (int i = 0; i < nsteps && !retl_value_is_falsy(from); i++)
	{
		const RetlStep *step = &steps[i];
		bool		length = step->len == 6 && memcmp(step->key, "length", 6) == 0;

		switch (retl_value_type(from))
		{
			case RETL_JSON_OBJECT:
				if (from.tree != NULL)
					from = retl_value_tree(retl_json_get(from.tree, step->key, step->len));
				else
					from = retl_value_slice(retl_slice_member(from.slice, step->key, step->len));
				break;
			case RETL_JSON_ARRAY:
				from = array_step(from, step, length);
				break;
			case RETL_JSON_STRING:
				from = text_step(from, step, length);
				break;
			default:
				return RETL_UNDEFINED;
		}
	}
	return from;
}
