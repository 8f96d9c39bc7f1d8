/*
 * connectors.c
 *		What the API asks about connectors; see connectors.h.
 */
#include "postgres.h"

#include <ctype.h>

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "api/connectors.h"
#include "base/json.h"
#include "base/nearest.h"
#include "base/sql.h"
#include "map/connector.h"

char *
retl_connectors_get(const char *name)
{
	RetlArgs	args = {0};
	int64		count;
	char	  **names;
	const char *nearest;

	retl_arg_text(&args, name);
	if (retl_sql("SELECT definition::text FROM retl.connector WHERE name = $1", &args) == 1)
		return retl_result_text(0, 1);

	count = retl_sql("SELECT name FROM retl.connector ORDER BY name", NULL);
	names = palloc(sizeof(char *) * Max(count, 1));
	for (int64 i = 0; i < count; i++)
		names[i] = retl_result_text(i, 1);
	nearest = retl_nearest(name, count, (const char *const *) names);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("connector \"%s\" does not exist", name),
			 nearest ? errhint("Perhaps you meant \"%s\". View retl.connectors lists what there is.", nearest) :
			 errhint("View retl.connectors lists what there is.")));
}

/* Whether "text" names setting "name" within its scheme, host and port. */
static bool
names_in_origin(const RetlJson *string, const char *name)
{
	char	   *text = retl_json_cstring(string);
	char	   *reference = psprintf("settings.%s", name);
	char	   *start = strstr(text, "://");

	if (start == NULL)
		return false;
	start[3 + strcspn(start + 3, "/?#")] = '\0';
	for (char *found = text; (found = strstr(found, reference)) != NULL; found++)
	{
		unsigned char next = found[strlen(reference)];

		if (!isalnum(next) && next != '_')
			return true;
	}
	return false;
}

static bool
any_names_in_origin(const RetlJson *value, const char *name)
{
	check_stack_depth();
	if (value == NULL)
		return false;
	if (value->type == RETL_JSON_STRING)
		return names_in_origin(value, name);
	if (value->type == RETL_JSON_ARRAY)
		for (int i = 0; i < value->len; i++)
			if (any_names_in_origin(value->items[i], name))
				return true;
	if (value->type == RETL_JSON_OBJECT)
		for (int i = 0; i < value->len; i++)
			if (any_names_in_origin(value->members[i].value, name))
				return true;
	return false;
}

bool
retl_connectors_in_origin(const char *definition, const char *setting)
{
	RetlJson   *connector = retl_connector_parse(definition);
	RetlJson   *declared = retl_json_member(retl_json_member(connector, "settings"), setting);

	/* a choice is among the connector's own hosts */
	return retl_json_member(declared, "choices") == NULL && any_names_in_origin(connector, setting);
}
