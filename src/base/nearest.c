/*
 * nearest.c
 *		The name that a user may have meant; see nearest.h.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/varlena.h"

#include "base/nearest.h"

/* Longer names are not compared: the distance takes time by their product. */
#define MAX_COMPARED 200

const char *
retl_nearest(const char *name, int count, const char *const *candidates)
{
	int			len = strlen(name);
	int			best_distance = len / 2 + 1;
	const char *best = NULL;

	if (len > MAX_COMPARED)
		return NULL;
	for (int i = 0; i < count; i++)
	{
		int			candidate_len = strlen(candidates[i]);
		int			distance;

		if (candidate_len > MAX_COMPARED)
			continue;
		if (pg_strcasecmp(name, candidates[i]) == 0)
			return candidates[i];
		distance = varstr_levenshtein_less_equal(name, len, candidates[i], candidate_len,
												 1, 1, 1, best_distance, true);
		if (distance < best_distance)
		{
			best_distance = distance;
			best = candidates[i];
		}
	}
	return best;
}
