/*
 * connector_check.c
 *		Checks of definitions of connectors; see connector_check.h.
 *
 * The format is described in sql/connectors/README.md. A member that is not
 * described there is an error here: it would be a misspelled one that does nothing.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "api/connector_check.h"
#include "base/compat.h"
#include "base/nearest.h"
#include "deliver/oauth.h"
#include "deliver/response.h"
#include "map/connector.h"
#include "map/convert.h"
#include "map/eval.h"
#include "map/fields.h"
#include "map/marks.h"
#include "map/mapping.h"

/* What is known while an action is checked. */
typedef struct Context
{
	const RetlJson *settings;
	const RetlJson *secrets;
	const RetlJson *fields;		/* NULL: outside of actions */
	RetlMarks	marks;
} Context;

pg_noreturn static void fail(const char *place, const char *format,...) pg_attribute_printf(2, 3);

static void
fail(const char *place, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	initStringInfo(&message);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("definition of the connector is not valid"),
			 errdetail("%s: %s.", place[0] != '\0' ? place : "/", message.data)));
}

/* ---- members ---- */

/* Members, and their types: s string, b boolean, n number, a array, o object, any: * */
typedef struct Member
{
	const char *name;
	char		type;
} Member;

static const Member top_members[] = {
	{"name", 's'}, {"title", 's'}, {"description", 's'}, {"settings", 'o'}, {"secrets", 'o'}, {"auth", 'a'}, {"base_url", '*'},
	{"idempotency", 'o'}, {"timeout", '*'}, {"concurrency", '*'}, {"rate", 'o'}, {"quota", 'o'}, {"retry", 'o'}, {"test", 'o'}, {"actions", 'o'}, {NULL, 0}
};
static const Member declaration_members[] = {
	{"type", 's'}, {"title", 's'}, {"label", 's'}, {"description", 's'}, {"required", '*'}, {"default", '*'}, {"choices", 'a'}, {"minimum", 'n'},
	{"maximum", 'n'}, {"format", 's'}, {"values", 's'}, {"multiple", 'b'}, {"properties", 'o'}, {"additionalProperties", 'b'},
	{"allowNull", 'b'}, {"as", 's'}, {"rename", 'o'}, {"alias", 'a'}, {NULL, 0}
};
static const Member secret_members[] = {{"title", 's'}, {"description", 's'}, {NULL, 0}};
static const Member auth_members[] = {
	{"type", 's'}, {"secret", 's'}, {"optional", 'b'}, {"username", 's'}, {"username_setting", 's'}, {"username_secret", 's'},
	{"header", 's'}, {"prefix", 's'}, {"parameter", 's'}, {"algorithm", 's'}, {"encoding", 's'}, {"grant", 's'}, {"token_url", 's'},
	{"client_id_secret", 's'}, {"refresh_secret", 's'}, {"scope", 's'}, {"credentials", 's'}, {NULL, 0}
};
static const Member idempotency_members[] = {{"header", 's'}, {NULL, 0}};
static const Member rate_members[] = {{"requests", 'n'}, {"rows", 'n'}, {"seconds", 'n'}, {NULL, 0}};
static const Member quota_members[] = {{"requests", 'n'}, {"rows", 'n'}, {NULL, 0}};
static const Member retry_members[] = {{"also", 'a'}, {"never", 'a'}, {NULL, 0}};
static const Member action_members[] = {
	{"title", 's'}, {"description", 's'}, {"operations", 'a'}, {"fields", 'o'}, {"identity", 'a'}, {"one_of", 'a'}, {"alias", 'a'},
	{"request", 'o'}, {"batch", 'o'}, {"response", '*'}, {NULL, 0}
};
static const Member request_members[] = {
	{"method", '*'}, {"url", '*'}, {"headers", '*'}, {"record", '*'}, {"body", '*'}, {"batch_body", '*'}, {"encode", 's'},
	{"added", 'o'}, {"updated", 'o'}, {"deleted", 'o'}, {"several", 'o'}, {NULL, 0}
};
static const Member batch_members[] = {{"records", '*'}, {"max_records", '*'}, {"bytes", '*'}, {"record_bytes", '*'}, {NULL, 0}};

static bool
has_type(const RetlJson *value, char type)
{
	switch (type)
	{
		case 's':
			return value->type == RETL_JSON_STRING;
		case 'b':
			return value->type == RETL_JSON_BOOL;
		case 'n':
			return value->type == RETL_JSON_NUMBER;
		case 'a':
			return value->type == RETL_JSON_ARRAY;
		case 'o':
			return value->type == RETL_JSON_OBJECT;
		default:
			return true;
	}
}

static const char *
type_name(char type)
{
	return type == 's' ? "a string" : type == 'b' ? "true or false" : type == 'n' ? "a number" :
		type == 'a' ? "an array" : "an object";
}

static char *
key_of(const RetlJsonMember *member)
{
	return pnstrdup(member->key, member->keylen);
}

/* An object with these members and no others. */
static void
check_members(const RetlJson *object, const Member *members, const char *place)
{
	const char *names[32];
	int			nnames = 0;

	if (object->type != RETL_JSON_OBJECT)
		fail(place, "it must be an object, not %s", retl_json_type_name(object));
	for (const Member *member = members; member->name != NULL; member++)
		names[nnames++] = member->name;
	for (int i = 0; i < object->len; i++)
	{
		char	   *name = key_of(&object->members[i]);
		const Member *member = members;

		while (member->name != NULL && strcmp(member->name, name) != 0)
			member++;
		if (member->name == NULL)
		{
			const char *nearest = retl_nearest(name, nnames, names);

			fail(psprintf("%s/%s", place, name), nearest ? "there is no such member; perhaps \"%s\" is meant" :
				 "there is no such member", nearest);
		}
		if (!has_type(object->members[i].value, member->type))
			fail(psprintf("%s/%s", place, name), "it must be %s, not %s", type_name(member->type),
				 retl_json_type_name(object->members[i].value));
	}
}

static RetlJson *
required_member(const RetlJson *object, const char *name, const char *place)
{
	RetlJson   *member = retl_json_member(object, name);

	if (member == NULL)
		fail(place, "it must have a member \"%s\"", name);
	return member;
}

/* A name that is told apart from everything else in templates and stored requests. */
static void
check_name(const char *name, const char *place)
{
	for (const char *c = name; *c != '\0'; c++)
	{
		if ((*c < 'a' || *c > 'z') && *c != '_' && (c == name || *c < '0' || *c > '9'))
			fail(place, "names have small letters, digits and underscores, and begin with a letter");
	}
	if (name[0] == '\0')
		fail(place, "it has no name");
}

/* That "name" is declared in "among". */
static void
check_declared(const RetlJson *among, const RetlJson *name, const char *what, const char *place)
{
	if (name != NULL && name->type != RETL_JSON_STRING)
		fail(place, "it must name a %s", what);
	if (name != NULL && retl_json_get(among, name->text, name->len) == NULL)
		fail(place, "there is no %s \"%s\"", what, retl_json_cstring(name));
}

static void
check_strings(const RetlJson *array, const char *place)
{
	for (int i = 0; array != NULL && i < array->len; i++)
	{
		if (array->items[i]->type != RETL_JSON_STRING)
			fail(psprintf("%s/%d", place, i), "it must be a string");
	}
}

/* A number, or the name of a setting that is one. */
static void
check_number_or_setting(const Context *context, const RetlJson *value, const char *place)
{
	RetlJson   *setting = retl_json_member(value, "setting");

	if (value == NULL || value->type == RETL_JSON_NUMBER)
		return;
	if (setting == NULL)
		fail(place, "it must be a number or {\"setting\": NAME}");
	check_declared(context->settings, setting, "setting", psprintf("%s/setting", place));
}

/* ---- templates ---- */

/* That a path leads to something: a declared field or setting, or a member of the root. */
static void
check_path(const Context *context, const char *text, int len, const char *place)
{
	RetlPath	path;
	char	   *first;

	retl_path_parse(&path, text, len, true);
	if (path.nsteps == 0)
		return;
	first = pnstrdup(path.steps[0].key, path.steps[0].len);
	if (strcmp(first, "settings") == 0)
	{
		if (path.nsteps > 1 && retl_json_get(context->settings, path.steps[1].key, path.steps[1].len) == NULL)
			fail(place, "there is no setting \"%.*s\"", path.steps[1].len, path.steps[1].key);
	}
	else if (strcmp(first, "fields") == 0 && context->fields != NULL)
	{
		if (path.nsteps > 1 && retl_json_get(context->fields, path.steps[1].key, path.steps[1].len) == NULL)
			fail(place, "there is no field \"%.*s\"", path.steps[1].len, path.steps[1].key);
	}
	else if (context->fields == NULL || (strcmp(first, "operation") != 0 && strcmp(first, "key") != 0))
		fail(place, "\"%s\" leads nowhere; paths begin with %s", first,
			 context->fields != NULL ? "fields, settings, operation or key" : "settings");
}

static void
check_placeholders(const Context *context, const RetlJson *text, const char *place)
{
	const char *at = retl_json_cstring(text);
	const char *end;

	while ((at = strstr(at, "{{")) != NULL && (end = strstr(at, "}}")) != NULL)
	{
		int			len;
		const char *path;

		at += strspn(at, "{");
		path = retl_text_trim(at, end - at, &len);
		check_path(context, path, len, place);
		at = end;
	}
}

static void
check_paths(const Context *context, const RetlJson *template, const char *place)
{
	check_stack_depth();
	if (template->type == RETL_JSON_ARRAY)
	{
		for (int i = 0; i < template->len; i++)
			check_paths(context, template->items[i], psprintf("%s/%d", place, i));
		return;
	}
	if (template->type != RETL_JSON_OBJECT)
		return;
	for (int i = 0; i < template->len; i++)
	{
		char	   *name = key_of(&template->members[i]);
		const RetlJson *value = template->members[i].value;
		char	   *inner = psprintf("%s/%s", place, name);

		if (strcmp(name, "@path") == 0 && value->type == RETL_JSON_STRING)
			check_path(context, value->text, value->len, inner);
		else if (strcmp(name, "@template") == 0 && value->type == RETL_JSON_STRING)
			check_placeholders(context, value, inner);
		else if (strcmp(name, "@literal") == 0)
			continue;
		else if (strcmp(name, "@arrayPath") == 0 && value->type == RETL_JSON_ARRAY && value->len > 0)
		{
			/* in the shape, paths begin at an item */
			if (value->items[0]->type == RETL_JSON_STRING)
				check_path(context, value->items[0]->text, value->items[0]->len, inner);
			else
				check_paths(context, value->items[0], inner);
		}
		else if (strcmp(name, "@transform") == 0)
			check_paths(context, retl_json_member(value, "apply") ? retl_json_member(value, "apply") : retl_json_null(), inner);
		else
			check_paths(context, value, inner);
	}
}

/* Names of the secrets that a template asks for. */
static void
check_secrets_of(const Context *context, const RetlJson *template, const char *place)
{
	RetlJson   *secret = retl_json_member(template, "@secret");

	if (template->type == RETL_JSON_OBJECT && secret != NULL)
		check_declared(context->secrets, secret, "secret", psprintf("%s/@secret", place));
	for (int i = 0; template->type == RETL_JSON_OBJECT && i < template->len; i++)
		check_secrets_of(context, template->members[i].value, psprintf("%s/%s", place, key_of(&template->members[i])));
	for (int i = 0; template->type == RETL_JSON_ARRAY && i < template->len; i++)
		check_secrets_of(context, template->items[i], psprintf("%s/%d", place, i));
}

static bool
asks_for_secret(const RetlJson *template)
{
	bool		found = template->type == RETL_JSON_OBJECT && retl_json_member(template, "@secret") != NULL;

	for (int i = 0; template->type == RETL_JSON_OBJECT && i < template->len; i++)
		found |= asks_for_secret(template->members[i].value);
	for (int i = 0; template->type == RETL_JSON_ARRAY && i < template->len; i++)
		found |= asks_for_secret(template->items[i]);
	return found;
}

static void
check_template(const Context *context, RetlJson *template, const char *place)
{
	List	   *messages;

	check_secrets_of(context, template, place);
	check_paths(context, template, place);
	template = retl_marks_place(&context->marks, template);
	messages = retl_validate(template);
	if (messages != NIL)
		fail(place, "%s", pnstrdup(linitial(messages), strcspn(linitial(messages), ".")));
}

/* ---- parts ---- */

static void
check_declaration(const Context *context, const RetlJson *declaration, const char *place, bool field)
{
	RetlFieldType type;
	RetlJson   *value = retl_json_member(declaration, "default");
	RetlJson   *properties = retl_json_member(declaration, "properties");
	const char *problem;

	check_members(declaration, declaration_members, place);
	(void) required_member(declaration, "type", place);
	(void) retl_connector_type(declaration, place);
	check_strings(retl_json_member(declaration, "alias"), psprintf("%s/alias", place));
	for (int i = 0; properties != NULL && i < properties->len; i++)
		check_declaration(context, properties->members[i].value,
						  psprintf("%s/properties/%s", place, key_of(&properties->members[i])), field);
	if (field)
	{
		retl_field_compile(&type, "field", strlen("field"), declaration);
		if (value != NULL && retl_validate(value) != NIL)
			fail(psprintf("%s/default", place), "it is no mapping");
	}
	else if (value != NULL && (problem = retl_connector_refuses(declaration, value)) != NULL)
		fail(psprintf("%s/default", place), "it %s", problem);
}

static void
check_auth(const Context *context, const RetlJson *auth, const char *place)
{
	static const char *const types[] = {"bearer", "basic", "header", "query", "hmac", "oauth2", "standard_webhooks"};

	for (int i = 0; auth != NULL && i < auth->len; i++)
	{
		const RetlJson *entry = auth->items[i];
		char	   *inner = psprintf("%s/%d", place, i);
		RetlJson   *type;
		bool		known = false;
		bool		basic;

		check_members(entry, auth_members, inner);
		type = required_member(entry, "type", inner);
		for (int t = 0; t < lengthof(types); t++)
			known |= retl_json_is_string(type, types[t]);
		if (!known)
			fail(psprintf("%s/type", inner), "it must be bearer, basic, header, query, hmac, oauth2 or standard_webhooks");
		basic = retl_json_is_string(type, "basic");
		if (!basic)
			(void) required_member(entry, "secret", inner);
		else if (retl_json_member(entry, "username") == NULL && retl_json_member(entry, "username_setting") == NULL)
			(void) required_member(entry, "username_secret", inner);
		if (retl_json_is_string(type, "header") || retl_json_is_string(type, "hmac"))
			(void) required_member(entry, "header", inner);
		if (retl_json_is_string(type, "query"))
			(void) required_member(entry, "parameter", inner);
		check_declared(context->secrets, retl_json_member(entry, "secret"), "secret", psprintf("%s/secret", inner));
		check_declared(context->secrets, retl_json_member(entry, "username_secret"), "secret",
					   psprintf("%s/username_secret", inner));
		check_declared(context->secrets, retl_json_member(entry, "client_id_secret"), "secret",
					   psprintf("%s/client_id_secret", inner));
		check_declared(context->secrets, retl_json_member(entry, "refresh_secret"), "secret",
					   psprintf("%s/refresh_secret", inner));
		if (retl_json_is_string(type, "oauth2"))
		{
			const char *problem;

			(void) retl_oauth_compile(entry, context->settings, &problem);
			if (problem != NULL)
				fail(inner, "it must have token_url, client_id_secret, secret and, for refresh_token, refresh_secret");
			check_placeholders(context, required_member(entry, "token_url", inner), psprintf("%s/token_url", inner));
		}
		check_declared(context->settings, retl_json_member(entry, "username_setting"), "setting",
					   psprintf("%s/username_setting", inner));
	}
}

/* {"setting": name, "values": {value: template}, "override": name} */
static void
check_choice(const Context *context, const RetlJson *choice, const char *place)
{
	static const Member members[] = {{"setting", 's'}, {"values", 'o'}, {"override", 's'}, {NULL, 0}};
	RetlJson   *values = retl_json_member(choice, "values");

	check_members(choice, members, place);
	check_declared(context->settings, retl_json_member(choice, "setting"), "setting", psprintf("%s/setting", place));
	check_declared(context->settings, retl_json_member(choice, "override"), "setting", psprintf("%s/override", place));
	for (int i = 0; values != NULL && i < values->len; i++)
		check_template(context, values->members[i].value, psprintf("%s/values/%s", place, key_of(&values->members[i])));
}

static void
check_base_url(const Context *context, RetlJson *base_url)
{
	const char *problem;

	if (base_url == NULL)
		return;
	if (retl_json_member(base_url, "setting") == NULL)
	{
		if (base_url->type == RETL_JSON_STRING && !retl_url_is_valid(base_url->text, base_url->len, &problem))
			fail("/base_url", "it %s", problem);
		check_template(context, base_url, "/base_url");
		return;
	}
	check_choice(context, base_url, "/base_url");
}

static void
check_request(const Context *context, RetlJson *request, const char *place)
{
	static const char *const templates[] = {"method", "url", "headers", "record", "body", "batch_body"};
	static const char *const variants[] = {"added", "updated", "deleted", "several"};

	check_members(request, request_members, place);
	for (int i = 0; i < lengthof(variants); i++)
	{
		RetlJson   *variant = retl_json_member(request, variants[i]);

		if (variant != NULL)
			check_request(context, variant, psprintf("%s/%s", place, variants[i]));
	}
	for (int i = 0; i < lengthof(templates); i++)
	{
		RetlJson   *template = retl_json_member(request, templates[i]);
		char	   *inner = psprintf("%s/%s", place, templates[i]);

		if (template == NULL)
			continue;
		if (asks_for_secret(template) && strcmp(templates[i], "url") != 0 && strcmp(templates[i], "body") != 0)
			fail(inner, "a secret cannot be here, only in \"body\" and \"url\"");
		if (strcmp(templates[i], "url") == 0 && retl_json_member(template, "setting") != NULL)
			check_choice(context, template, inner);
		else
			check_template(context, template, inner);
	}
}

static void
check_action(Context *context, const RetlJsonMember *member)
{
	RetlJson   *action = member->value;
	char	   *place = psprintf("/actions/%s", key_of(member));
	RetlJson   *list;
	char	   *problem;

	check_members(action, action_members, place);
	list = required_member(action, "operations", place);
	for (int i = 0; i < list->len; i++)
	{
		bool		known = false;

		for (int operation = RETL_ADDED; operation <= RETL_DELETED; operation++)
			known |= retl_json_is_string(list->items[i], retl_operation_name(operation));
		if (!known)
			fail(psprintf("%s/operations/%d", place, i), "it must be added, updated or deleted");
	}
	context->fields = required_member(action, "fields", place);
	for (int i = 0; i < context->fields->len; i++)
		check_declaration(context, context->fields->members[i].value,
						  psprintf("%s/fields/%s", place, key_of(&context->fields->members[i])), true);
	check_strings(retl_json_member(action, "alias"), psprintf("%s/alias", place));
	list = retl_json_member(action, "identity");
	for (int i = 0; list != NULL && i < list->len; i++)
		check_declared(context->fields, list->items[i], "field", psprintf("%s/identity/%d", place, i));
	list = retl_json_member(action, "one_of");
	for (int i = 0; list != NULL && i < list->len; i++)
	{
		if (list->items[i]->type != RETL_JSON_ARRAY || list->items[i]->len == 0)
			fail(psprintf("%s/one_of/%d", place, i), "it must be an array of names of fields");
		for (int j = 0; j < list->items[i]->len; j++)
			check_declared(context->fields, list->items[i]->items[j], "field", psprintf("%s/one_of/%d/%d", place, i, j));
	}
	list = retl_json_member(action, "batch");
	if (list != NULL)
		check_members(list, batch_members, psprintf("%s/batch", place));
	for (int i = 0; list != NULL && i < list->len; i++)
		check_number_or_setting(context, list->members[i].value, psprintf("%s/batch/%s", place, key_of(&list->members[i])));
	list = retl_json_member(action, "response");
	if (list != NULL && (problem = retl_response_check(list)) != NULL)
	{
		/* "/listed/at: it must be ..." */
		char	   *text = strstr(problem, ": ");

		fail(psprintf("%s/response%.*s", place, (int) (text - problem), problem), "%.*s",
			 (int) strcspn(text + 2, "."), text + 2);
	}
	check_request(context, required_member(action, "request", place), psprintf("%s/request", place));
	context->fields = NULL;
}

void
retl_connector_check(RetlJson *definition)
{
	Context		context = {0};
	RetlJson   *actions;
	RetlJson   *part;

	check_members(definition, top_members, "");
	context.settings = retl_json_member(definition, "settings");
	context.secrets = retl_json_member(definition, "secrets");
	retl_marks_init(&context.marks);
	for (int i = 0; context.settings != NULL && i < context.settings->len; i++)
	{
		char	   *place = psprintf("/settings/%s", key_of(&context.settings->members[i]));

		check_name(key_of(&context.settings->members[i]), place);
		check_declaration(&context, context.settings->members[i].value, place, false);
	}
	for (int i = 0; context.secrets != NULL && i < context.secrets->len; i++)
	{
		char	   *place = psprintf("/secrets/%s", key_of(&context.secrets->members[i]));

		check_name(key_of(&context.secrets->members[i]), place);
		check_members(context.secrets->members[i].value, secret_members, place);
	}
	check_auth(&context, retl_json_member(definition, "auth"), "/auth");
	check_base_url(&context, retl_json_member(definition, "base_url"));
	if ((part = retl_json_member(definition, "idempotency")) != NULL)
		check_members(part, idempotency_members, "/idempotency");
	if ((part = retl_json_member(definition, "rate")) != NULL)
		check_members(part, rate_members, "/rate");
	if ((part = retl_json_member(definition, "quota")) != NULL)
		check_members(part, quota_members, "/quota");
	if ((part = retl_json_member(definition, "retry")) != NULL)
		check_members(part, retry_members, "/retry");
	check_number_or_setting(&context, retl_json_member(definition, "timeout"), "/timeout");
	check_number_or_setting(&context, retl_json_member(definition, "concurrency"), "/concurrency");
	actions = required_member(definition, "actions", "");
	if (actions->len == 0)
		fail("/actions", "a connector has one action at least");
	for (int i = 0; i < actions->len; i++)
	{
		if (actions->members[i].keylen == 0)
			fail("/actions", "an action has no name");
		check_action(&context, &actions->members[i]);
	}
}
