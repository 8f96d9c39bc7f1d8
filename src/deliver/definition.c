/*
 * definition.c
 *		What connector and settings say about delivery; see definition.h.
 */
#include "postgres.h"

#include "base/json.h"
#include "deliver/definition.h"

#define CONCURRENCY_DEFAULT 8
#define CONCURRENCY_MOST 256
#define TIMEOUT_DEFAULT_S 30
#define TIMEOUT_LEAST_S 0.1
#define TIMEOUT_MOST_S 600
#define RATE_MOST 1e9

static double
number(const RetlJson *value, double initial, double least, double most)
{
	if (value == NULL || value->type != RETL_JSON_NUMBER)
		return initial;
	return Min(Max(retl_json_double(value->text, value->len), least), most);
}

/* A number that a connector gives as such or by the name of a setting. */
static double
connector_number(const RetlJson *connector, const RetlJson *settings, const char *name,
				 double initial, double least, double most)
{
	RetlJson   *value = retl_json_member(connector, name);
	RetlJson   *setting = value != NULL ? retl_json_member(value, "setting") : NULL;

	if (setting != NULL && setting->type == RETL_JSON_STRING)
		value = retl_json_member(settings, retl_json_cstring(setting));
	return number(value, initial, least, most);
}

static int
statuses(const RetlJson *list, int **result)
{
	int			count = 0;

	if (list == NULL || list->type != RETL_JSON_ARRAY)
		return 0;
	*result = palloc(sizeof(int) * Max(list->len, 1));
	for (int i = 0; i < list->len; i++)
	{
		if (list->items[i] != NULL && list->items[i]->type == RETL_JSON_NUMBER)
			(*result)[count++] = (int) number(list->items[i], 0, 0, 999);
	}
	return count;
}

RetlDefinition *
retl_definition_compile(const RetlLedgerDestination *destination)
{
	RetlDefinition *definition = palloc0(sizeof(RetlDefinition));
	char	   *error;
	char	   *text = pstrdup(destination->connector);	/* which the tree points into */
	RetlJson   *connector = retl_json_parse(text, strlen(text), &error);
	RetlJson   *settings = retl_json_parse(destination->settings, strlen(destination->settings), &error);
	RetlJson   *rate = retl_json_member(connector, "rate");
	RetlJson   *retry = retl_json_member(connector, "retry");

	definition->name = pstrdup(destination->name);
	definition->connector = connector;
	definition->authentication = retl_request_compile(destination->connector, destination->settings);
	definition->concurrency =
		(int) connector_number(connector, settings, "concurrency", CONCURRENCY_DEFAULT, 1, CONCURRENCY_MOST);
	definition->timeout_ms =
		(int) (connector_number(connector, settings, "timeout", TIMEOUT_DEFAULT_S, TIMEOUT_LEAST_S, TIMEOUT_MOST_S) * 1000);
	if (rate != NULL)
	{
		definition->rate_requests = number(retl_json_member(rate, "requests"), 0, 0, RATE_MOST);
		definition->rate_seconds = number(retl_json_member(rate, "seconds"), 1, 0.001, RATE_MOST);
	}
	definition->retry = retl_retry_default;
	if (retry != NULL)
	{
		definition->retry.nalso = statuses(retl_json_member(retry, "also"), &definition->retry.also);
		definition->retry.nnever = statuses(retl_json_member(retry, "never"), &definition->retry.never);
	}
	return definition;
}
