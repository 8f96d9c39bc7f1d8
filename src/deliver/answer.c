/*
 * answer.c
 *		What is kept of an answer; see answer.h.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "deliver/answer.h"

/* What is read of a body beyond what is kept; base64 among it. */
#define LONGEST_SECRET (96 * 1024)

char *
retl_answer_clean(MemoryContext context, const char *text, size_t len, size_t most)
{
	char	   *copy;

	len = Min(len, most);
	if (pg_verifymbstr(text, len, true))
		copy = MemoryContextStrdup(context, pnstrdup(text, len));
	else
	{
		len = pg_mbcliplen(text, len, len);
		copy = MemoryContextAlloc(context, len + 1);
		memcpy(copy, text, len);
		copy[len] = '\0';
		if (!pg_verifymbstr(copy, len, true))
		{
			for (char *c = copy; c < copy + len; c++)
			{
				if (*c == '\0' || IS_HIGHBIT_SET(*c))
					*c = '?';
			}
		}
	}
	return copy;
}

char *
retl_answer_excerpt(MemoryContext context, const RetlHttpAnswer *answer, const RetlSecrets *secrets, size_t most)
{
	char	   *text;
	size_t		len;

	if (answer->body_len == 0)
		return NULL;
	/* cut after masking: of a secret that is cut through, nothing would be recognized */
	text = retl_answer_clean(context, answer->body, answer->body_len, most + LONGEST_SECRET);
	retl_secrets_mask(secrets, text);
	len = strlen(text);
	if (len > most)
		text[pg_mbcliplen(text, len, most)] = '\0';
	return text;
}

char *
retl_answer_fault(MemoryContext context, const RetlHttpAnswer *answer)
{
	char	   *text = answer->hint != NULL ? psprintf("%s (%s)", answer->error, answer->hint) : pstrdup(answer->error);

	return retl_answer_clean(context, text, strlen(text), RETL_ANSWER_KEPT);
}
