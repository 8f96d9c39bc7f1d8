/*
 * paths.c
 *		Finds misspelt columns in the fields of a mapping; see paths.h.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "api/api.h"
#include "api/paths.h"
#include "base/json.h"
#include "base/nearest.h"

/* What a path may start with besides a column, and what holds columns itself. */
static const char *const envelope[] = {
	"type", "event", "__segment_id", "messageId", "timestamp", "changed", "operation"
};
static const char *const rows[] = {"properties", "old"};

static bool
is_one_of(const char *name, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/*
 * The step at *path, which moves behind it; NULL at the end, and where the
 * path is more than names.
 */
static char *
next_step(const char **path)
{
	const char *start;
	const char *end;

	if (strncmp(*path, "['", 2) == 0 || strncmp(*path, "[\"", 2) == 0)
	{
		start = *path + 2;
		end = strchr(start, start[-1]);
		if (end == NULL || end[1] != ']' || memchr(start, '\\', end - start) != NULL)
			return NULL;
		*path = end + 2;
	}
	else
	{
		start = **path == '.' ? *path + 1 : *path;
		end = start + strcspn(start, ".[ ");
		if (end == start)
			return NULL;
		*path = end;
	}
	return pnstrdup(start, end - start);
}

static void
check_path(const char *path, const RetlQuery *query)
{
	const char *rest = path[0] == '$' ? path + 1 : path;
	char	   *step = next_step(&rest);
	int			count = query->shape.ncolumns;
	char	  **names;
	const char *nearest;

	/* a column of the name hides nothing: the envelope comes first */
	if (step != NULL && is_one_of(step, rows, lengthof(rows)))
		step = next_step(&rest);
	else if (step != NULL && is_one_of(step, envelope, lengthof(envelope)))
		return;
	if (step == NULL || retl_query_column(query, step) >= 0)
		return;

	names = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
		names[i] = query->shape.columns[i].name;
	nearest = retl_nearest(step, count, (const char *const *) names);
	ereport(NOTICE,
			(errmsg("path \"%s\" is not in the model: it has no column \"%s\"", path, step),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) :
			 errhint("The field is absent as long as there is no such column.")));
}

static void
check_value(const RetlJson *value, const RetlQuery *query)
{
	RetlJson   *path;

	check_stack_depth();
	if (value == NULL)
		return;
	if (value->type == RETL_JSON_ARRAY)
		for (int i = 0; i < value->len; i++)
			check_value(value->items[i], query);
	if (value->type != RETL_JSON_OBJECT)
		return;

	/* below @arrayPath, paths are those of an element */
	if (retl_json_member(value, "@arrayPath") != NULL)
		return;
	path = retl_json_member(value, "@path");
	if (path != NULL && path->type == RETL_JSON_STRING)
		check_path(retl_json_cstring(path), query);
	for (int i = 0; i < value->len; i++)
		check_value(value->members[i].value, query);
}

void
retl_paths_check(const char *fields, const RetlQuery *query)
{
	char	   *error;

	check_value(retl_json_parse(fields, strlen(fields), &error), query);
}
