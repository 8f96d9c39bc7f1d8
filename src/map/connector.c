/*
 * connector.c
 *		Connector files: settings, secrets and actions; see connector.h.
 */
#include "postgres.h"

#include <math.h>

#include "base/nearest.h"
#include "map/connector.h"
#include "map/value.h"

static const struct
{
	const char *name;
	RetlType	type;
}			type_names[] =
{
	{"any", RETL_TYPE_ANY},
	{"string", RETL_TYPE_STRING},
	{"integer", RETL_TYPE_INTEGER},
	{"number", RETL_TYPE_NUMBER},
	{"boolean", RETL_TYPE_BOOLEAN},
	{"datetime", RETL_TYPE_DATETIME},
	{"object", RETL_TYPE_OBJECT},
};

RetlJson *
retl_connector_parse(const char *definition)
{
	char	   *error;
	RetlJson   *connector = retl_json_parse(definition, strlen(definition), &error);

	if (connector == NULL || connector->type != RETL_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("definition of a connector is not a JSON object"),
				 connector == NULL ? errdetail("%s.", error) : 0));
	return connector;
}

RetlJson *
retl_connector_member(const RetlJson *object, const char *name, RetlJsonType type, bool required,
					  const char *place)
{
	RetlJson   *member = retl_json_member(object, name);

	if ((member == NULL && required) || (member != NULL && member->type != type))
	{
		RetlJson	wanted = {.type = type};

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition of the connector is not valid"),
				 errdetail("Member \"%s\" of %s must be of type %s.", name, place,
						   retl_json_type_name(&wanted))));
	}
	return member;
}

RetlType
retl_connector_type(const RetlJson *declaration, const char *place)
{
	RetlJson   *type = retl_connector_member(declaration, "type", RETL_JSON_STRING, true, place);

	for (int i = 0; i < lengthof(type_names); i++)
	{
		if (retl_json_is_string(type, type_names[i].name))
			return type_names[i].type;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("definition of the connector is not valid"),
			 errdetail("%s has the unknown type \"%s\".", place, retl_json_cstring(type)),
			 errhint("Types are any, string, integer, number, boolean, datetime and object.")));
}

/* ---- URLs ---- */

bool
retl_url_is_valid(const char *url, int len, const char **problem)
{
	const char *end = url + len;
	const char *host;
	const char *host_end;

	if (len >= 8 && pg_strncasecmp(url, "https://", 8) == 0)
		host = url + 8;
	else if (len >= 7 && pg_strncasecmp(url, "http://", 7) == 0)
		host = url + 7;
	else
	{
		*problem = "must start with http:// or https://";
		return false;
	}
	for (const char *p = url; p < end; p++)
	{
		if ((unsigned char) *p <= ' ' || (unsigned char) *p >= 0x7F || strchr("\\\"<>^`{|}", *p) != NULL)
		{
			*problem = "has a character in it that must be percent-encoded";
			return false;
		}
	}
	for (host_end = host; host_end < end && strchr("/?#", *host_end) == NULL; host_end++)
	{
		if (*host_end == '@')
		{
			*problem = "must not have a user or password in it";
			return false;
		}
	}
	if (host_end == host || *host == ':')
	{
		*problem = "has no host";
		return false;
	}
	return true;
}

/* ---- settings ---- */

/* What every destination takes beside its connector's settings, which may declare one of them itself. */
static const char delivery_settings[] =
"{"
"\"concurrency\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 256,"
" \"description\": \"Most requests under way at once\"},"
"\"timeout\": {\"type\": \"number\", \"minimum\": 0.1, \"maximum\": 600,"
" \"description\": \"Seconds that a request may take, from its dispatch to the end of its answer\"},"
"\"compression\": {\"type\": \"string\", \"choices\": [\"none\", \"gzip\", \"zstd\"],"
" \"description\": \"How bodies are compressed\"},"
"\"proxy\": {\"type\": \"string\", \"format\": \"url\","
" \"description\": \"HTTP proxy through which requests go\"},"
"\"requests_per_second\": {\"type\": \"number\", \"minimum\": 0.001, \"maximum\": 1000000,"
" \"description\": \"Most requests a second, over all mappings\"},"
"\"rows_per_second\": {\"type\": \"number\", \"minimum\": 0.001, \"maximum\": 1000000000,"
" \"description\": \"Most records a second, over all mappings\"},"
"\"burst\": {\"type\": \"number\", \"minimum\": 0.01, \"maximum\": 3600,"
" \"description\": \"Seconds' worth of these rates that may be sent at once after a rest\"},"
"\"requests_per_day\": {\"type\": \"number\", \"minimum\": 1, \"maximum\": 1000000000000,"
" \"description\": \"Most requests a day, which begins at midnight UTC\"},"
"\"rows_per_day\": {\"type\": \"number\", \"minimum\": 1, \"maximum\": 1000000000000,"
" \"description\": \"Most records a day, which begins at midnight UTC\"}"
"}";

const char *
retl_connector_delivery_settings(void)
{
	return delivery_settings;
}

RetlJson *
retl_connector_declared(const RetlJson *connector)
{
	RetlJson   *own = retl_json_member(connector, "settings");
	RetlJson   *common = retl_connector_parse(delivery_settings);
	RetlJson   *declared = retl_json_object();

	for (int i = 0; own != NULL && i < own->len; i++)
		retl_json_set(declared, own->members[i].key, own->members[i].keylen, own->members[i].value);
	for (int i = 0; i < common->len; i++)
	{
		if (retl_json_get(declared, common->members[i].key, common->members[i].keylen) == NULL)
			retl_json_set(declared, common->members[i].key, common->members[i].keylen, common->members[i].value);
	}
	return declared;
}

static bool
is_integer(const RetlJson *number)
{
	double		value = retl_json_double(number->text, number->len);

	return value == floor(value) && fabs(value) <= PG_INT32_MAX;
}

/* "a, b or c" of an array of choices. */
static char *
list_choices(const RetlJson *choices)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < choices->len; i++)
	{
		appendStringInfoString(&text, i == 0 ? "" : i == choices->len - 1 ? " or " : ", ");
		retl_value_write_text(&text, retl_value_tree(choices->items[i]), NULL);
	}
	return text.data;
}

static bool
is_choice(const RetlJson *choices, const RetlJson *value)
{
	StringInfoData text;
	StringInfoData choice;

	initStringInfo(&text);
	initStringInfo(&choice);
	retl_json_stringify(&text, value);
	for (int i = 0; i < choices->len; i++)
	{
		resetStringInfo(&choice);
		retl_json_stringify(&choice, choices->items[i]);
		if (strcmp(text.data, choice.data) == 0)
			return true;
	}
	return false;
}

static const char *
out_of_range(const RetlJson *declaration, double value, const char *unit)
{
	RetlJson   *minimum = retl_json_member(declaration, "minimum");
	RetlJson   *maximum = retl_json_member(declaration, "maximum");

	if (minimum != NULL && value < retl_json_double(minimum->text, minimum->len))
		return psprintf("must be at least %.*s%s", minimum->len, minimum->text, unit);
	if (maximum != NULL && value > retl_json_double(maximum->text, maximum->len))
		return psprintf("must be at most %.*s%s", maximum->len, maximum->text, unit);
	return NULL;
}

static const char *
refuses_string(const RetlJson *declaration, const RetlJson *value)
{
	const char *problem;

	if (memchr(value->text, '\0', value->len) != NULL)
		return "must not have a NUL in it";
	if (retl_json_is_string(retl_json_member(declaration, "format"), "url") &&
		!retl_url_is_valid(value->text, value->len, &problem))
		return problem;
	return out_of_range(declaration, retl_text_length(value->text, value->len), " characters long");
}

const char *
retl_connector_refuses(const RetlJson *declaration, const RetlJson *value)
{
	RetlType	type = retl_connector_type(declaration, "a setting");
	RetlJson   *choices = retl_json_member(declaration, "choices");
	RetlJson   *values = retl_json_member(declaration, "values");
	const char *problem = NULL;

	switch (type)
	{
		case RETL_TYPE_ANY:
			break;
		case RETL_TYPE_STRING:
		case RETL_TYPE_DATETIME:
			if (value->type != RETL_JSON_STRING)
				return "must be a string";
			problem = refuses_string(declaration, value);
			break;
		case RETL_TYPE_INTEGER:
			if (value->type != RETL_JSON_NUMBER || !is_integer(value))
				return "must be an integer";
			problem = out_of_range(declaration, retl_json_double(value->text, value->len), "");
			break;
		case RETL_TYPE_NUMBER:
			if (value->type != RETL_JSON_NUMBER)
				return "must be a number";
			problem = out_of_range(declaration, retl_json_double(value->text, value->len), "");
			break;
		case RETL_TYPE_BOOLEAN:
			if (value->type != RETL_JSON_BOOL)
				return "must be true or false";
			break;
		case RETL_TYPE_OBJECT:
			if (value->type != RETL_JSON_OBJECT)
				return "must be an object";
			for (int i = 0; i < value->len && retl_json_is_string(values, "string"); i++)
			{
				if (value->members[i].value->type != RETL_JSON_STRING)
					return psprintf("must be an object of strings, but its member \"%.*s\" is none",
									value->members[i].keylen, value->members[i].key);
			}
			break;
	}
	if (problem == NULL && choices != NULL && !is_choice(choices, value))
		return psprintf("must be one of %s", list_choices(choices));
	return problem;
}

/* Names of an object's members as C strings. */
static char **
member_names(const RetlJson *object, int *count)
{
	char	  **names;

	*count = object != NULL ? object->len : 0;
	names = palloc(Max(*count, 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
		names[i] = pnstrdup(object->members[i].key, object->members[i].keylen);
	return names;
}

static void
unknown_setting(const RetlJson *declared, const char *name)
{
	int			count;
	char	  **names = member_names(declared, &count);
	const char *nearest = retl_nearest(name, count, (const char *const *) names);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < count; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("setting \"%s\" does not exist", name),
			 nearest != NULL ? errhint("Perhaps you meant the setting \"%s\".", nearest) :
			 errhint("Settings of this connector are: %s.", list.data)));
}

char *
retl_connector_settings(const char *definition, const char *settings)
{
	RetlJson   *connector = retl_connector_parse(definition);
	RetlJson   *declared = retl_connector_declared(connector);
	char	   *error;
	RetlJson   *given = retl_json_parse(settings, strlen(settings), &error);
	RetlJson   *result = retl_json_object();
	StringInfoData text;

	if (given == NULL || given->type != RETL_JSON_OBJECT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("settings must be a JSON object"),
				 given == NULL ? errdetail("%s.", error) : 0));
	for (int i = 0; i < given->len; i++)
	{
		if (retl_json_get(declared, given->members[i].key, given->members[i].keylen) == NULL)
			unknown_setting(declared, pnstrdup(given->members[i].key, given->members[i].keylen));
	}
	for (int i = 0; i < declared->len; i++)
	{
		const RetlJsonMember *setting = &declared->members[i];
		char	   *name = pnstrdup(setting->key, setting->keylen);
		RetlJson   *value = retl_json_get(given, setting->key, setting->keylen);
		RetlJson   *required = retl_json_member(setting->value, "required");
		RetlJson   *description = retl_json_member(setting->value, "description");
		char	   *what = description ? retl_json_cstring(description) : NULL;
		const char *problem;

		if (value == NULL || value->type == RETL_JSON_NULL)
			value = retl_json_member(setting->value, "default");
		if (value == NULL)
		{
			if (required != NULL && required->boolean)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("setting \"%s\" is required", name),
						 errhint("Give it in settings%s%s.", what ? ": " : "", what ? what : "")));
			continue;
		}
		problem = retl_connector_refuses(setting->value, value);
		if (problem != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("setting \"%s\" %s", name, problem),
					 what ? errhint("It is: %s.", what) : 0));
		retl_json_set(result, setting->key, setting->keylen, value);
	}
	initStringInfo(&text);
	retl_json_write(&text, result);
	return text.data;
}

/* ---- secrets and actions ---- */

char **
retl_connector_secrets(const char *definition, int *count)
{
	return member_names(retl_json_member(retl_connector_parse(definition), "secrets"), count);
}

bool
retl_connector_has_secret(const char *definition, const char *name)
{
	return retl_json_member(retl_json_member(retl_connector_parse(definition), "secrets"), name) != NULL;
}

char **
retl_connector_actions(const char *definition, int *count)
{
	return member_names(retl_json_member(retl_connector_parse(definition), "actions"), count);
}
