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
#define RATE_LEAST 0.001
#define RATE_MOST 1e9
#define BURST_LEAST 0.01
#define BURST_MOST 3600
#define QUOTA_MOST 1e15

static double
number(const RetlJson *value, double initial, double least, double most)
{
	if (value == NULL || value->type != RETL_JSON_NUMBER)
		return initial;
	return Min(Max(retl_json_double(value->text, value->len), least), most);
}

/* A number that a setting gives, or the connector, as such or by the name of a setting. */
static double
connector_number(const RetlJson *connector, const RetlJson *settings, const char *name,
				 double initial, double least, double most)
{
	RetlJson   *value = retl_json_member(connector, name);
	RetlJson   *setting = value != NULL ? retl_json_member(value, "setting") : NULL;

	if (setting != NULL && setting->type == RETL_JSON_STRING)
		value = retl_json_member(settings, retl_json_cstring(setting));
	if (retl_json_member(settings, name) != NULL)
		value = retl_json_member(settings, name);
	return number(value, initial, least, most);
}

static const char *
setting_text(const RetlJson *settings, const char *name)
{
	RetlJson   *value = retl_json_member(settings, name);

	return value != NULL && value->type == RETL_JSON_STRING ? retl_json_cstring(value) : NULL;
}

/*
 * A rate. A setting says how many in a second, and "burst", as many seconds' worth, how many at once. A connector
 * says how many in a period, which is a limit of every period of that length: a part of it may come at
 * once, a tenth unless "burst" says otherwise, and the rest in its course.
 */
static RetlRate
rate_of(const RetlJson *connector, const RetlJson *settings, const char *setting, const char *member)
{
	RetlJson   *rate = retl_json_member(connector, "rate");
	double		wanted = number(retl_json_member(settings, setting), 0, RATE_LEAST, RATE_MOST);
	double		burst = number(retl_json_member(settings, "burst"), 0, BURST_LEAST, BURST_MOST);
	double		seconds = number(retl_json_member(rate, "seconds"), 1, RATE_LEAST, RATE_MOST);
	double		most = number(retl_json_member(rate, member), 0, 0, RATE_MOST);
	RetlRate	result = {0};

	if (wanted > 0)
	{
		result.rate = wanted;
		result.burst = wanted * (burst > 0 ? burst : 1);
	}
	else if (most > 0)
	{
		result.burst = Max(burst > 0 ? Min(most / seconds * burst, most * 0.9) : most * 0.1, 1);
		result.rate = (most >= 2 ? most - result.burst : most * 0.9) / seconds;
	}
	return result;
}

static int64
quota_of(const RetlJson *connector, const RetlJson *settings, const char *setting, const char *member)
{
	RetlJson   *quota = retl_json_member(connector, "quota");

	return (int64) number(retl_json_member(settings, setting),
						  number(retl_json_member(quota, member), 0, 1, QUOTA_MOST), 1, QUOTA_MOST);
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
	RetlJson   *retry = retl_json_member(connector, "retry");

	definition->name = pstrdup(destination->name);
	definition->connector = connector;
	definition->authentication = retl_request_compile(destination->connector, destination->settings);
	definition->limits.concurrency =
		(int) connector_number(connector, settings, "concurrency", CONCURRENCY_DEFAULT, 1, CONCURRENCY_MOST);
	definition->timeout_ms =
		(int) (connector_number(connector, settings, "timeout", TIMEOUT_DEFAULT_S, TIMEOUT_LEAST_S, TIMEOUT_MOST_S) * 1000);
	definition->compression = retl_compression_named(setting_text(settings, "compression"));
	definition->proxy = setting_text(settings, "proxy");
	definition->limits.requests = rate_of(connector, settings, "requests_per_second", "requests");
	definition->limits.rows = rate_of(connector, settings, "rows_per_second", "rows");
	definition->limits.requests_a_day = quota_of(connector, settings, "requests_per_day", "requests");
	definition->limits.rows_a_day = quota_of(connector, settings, "rows_per_day", "rows");
	definition->retry = retl_retry_default;
	if (retry != NULL)
	{
		definition->retry.nalso = statuses(retl_json_member(retry, "also"), &definition->retry.also);
		definition->retry.nnever = statuses(retl_json_member(retry, "never"), &definition->retry.never);
	}
	return definition;
}
