/*
 * wire.c
 *		From a payload to the request that carries it; see wire.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"

#include "map/connector.h"
#include "map/marks.h"
#include "map/wire.h"

typedef enum Slot
{
	SLOT_OPERATION,
	SLOT_KEY,
	SLOT_FIELDS,
	FIRST_FIELD
} Slot;

#define OPERATIONS 3

typedef struct Templates
{
	RetlNode   *method;
	RetlNode   *url;
	RetlNode   *headers;
	RetlNode   *record;
	RetlNode   *body;			/* with marks; NULL: the record itself, or none */
	bool		no_body;
	char	   *tail;			/* members of the group that are the same for all records */
	char	   *group;			/* if all of it is */
	int			group_len;
} Templates;

struct RetlWire
{
	RetlInput	base;
	const RetlWireField *fields;
	int			nfields;
	char	   *base_url;		/* for URLs that start with "/"; NULL: none */
	List	   *origins;		/* URLs, whose origins are those of the destination's settings */
	Templates	templates[OPERATIONS];
	RetlMarks	marks;
	bool		several;		/* requests carry more than one record */
	bool		has_bodies;		/* some body is more than its records */

	/* of the record in work */
	RetlSlice	payload;
	RetlSlice  *values;			/* by field */
	const RetlEnvelope *envelope;
};

/* Members of the root that vary; "settings" is a constant. */
static const char *const root_members[FIRST_FIELD] = {
	[SLOT_OPERATION] = "operation",
	[SLOT_KEY] = "key",
	[SLOT_FIELDS] = "fields",
};

/* ---- the root of templates ---- */

static bool
step_is(const RetlStep *step, const char *name)
{
	return strlen(name) == step->len && memcmp(name, step->key, step->len) == 0;
}

static int
find(void *arg, const RetlStep *steps, int nsteps, int *used)
{
	RetlWire *wire = arg;

	*used = 1;
	for (int i = 0; i < FIRST_FIELD; i++)
	{
		if (!step_is(&steps[0], root_members[i]))
			continue;
		if (i != SLOT_FIELDS || nsteps == 1)
			return i;
		*used = 2;
		for (int j = 0; j < wire->nfields; j++)
		{
			if (step_is(&steps[1], wire->fields[j].name))
				return wire->fields[j].present ? FIRST_FIELD + j : RETL_SLOT_UNDEFINED;
		}
	}
	return RETL_SLOT_UNDEFINED;
}

static RetlSlice
fetch(RetlInput *base, int slot)
{
	RetlWire *wire = (RetlWire *) base;
	const char *name;

	switch (slot)
	{
		case SLOT_OPERATION:
			name = psprintf("\"%s\"", retl_operation_name(wire->envelope->operation));
			return retl_slice(name, strlen(name));
		case SLOT_KEY:
			return retl_slice(wire->envelope->key, strlen(wire->envelope->key));
		case SLOT_FIELDS:
			return wire->payload;
		default:
			return wire->values[slot - FIRST_FIELD];
	}
}

static RetlSlice
lookup(RetlInput *base, const RetlStep *steps, int nsteps, int *used)
{
	const RetlSlice absent = {NULL, 0};
	int			slot = find(base, steps, nsteps, used);

	return slot < 0 ? absent : fetch(base, slot);
}

static RetlSlice
root(RetlInput *base)
{
	const RetlSlice empty = {"{}", 2};

	return empty;
}

/* Finds the fields in a payload. They are in the order that we know them in. */
static void
split_payload(RetlWire *wire, RetlSlice payload)
{
	RetlSliceIterator iterator;
	RetlSlice	key,
				value;
	int			expected = 0;

	wire->payload = payload;
	memset(wire->values, 0, wire->nfields * sizeof(RetlSlice));
	retl_slice_walk(&iterator, payload);
	while (retl_slice_next(&iterator, &key, &value))
	{
		for (int i = 0; i < wire->nfields; i++)
		{
			int			field = (expected + i) % wire->nfields;

			if (retl_slice_key_equals(key, wire->fields[field].name, wire->fields[field].len))
			{
				wire->values[field] = value;
				expected = field + 1;
				break;
			}
		}
	}
}

/* ---- method, URL, headers ---- */

static const char *
template_text(RetlWire *wire, const RetlNode *node, const char *what, int *len, char **error)
{
	RetlValue	value = retl_evaluate(node, &wire->base, RETL_UNDEFINED, error);

	if (*error != NULL)
		return NULL;
	if (retl_is_undefined(value) || retl_value_type(value) != RETL_JSON_STRING)
	{
		*error = psprintf("%s of the request is no string but %s", what, retl_value_type_name(value));
		return NULL;
	}
	return retl_value_text(value, len);
}

static bool
write_method(RetlWire *wire, const RetlNode *node, StringInfo out, char **error)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
	int			len;
	const char *method = template_text(wire, node, "method", &len, error);

	if (method == NULL)
		return false;
	for (int i = 0; i < lengthof(methods); i++)
	{
		if (strlen(methods[i]) == len && memcmp(method, methods[i], len) == 0)
		{
			retl_json_write_string(out, method, len);
			return true;
		}
	}
	*error = pstrdup("method of the request must be GET, POST, PUT, PATCH or DELETE");
	return false;
}

/* Scheme, host and port of a URL. */
static int
origin_length(const char *url)
{
	const char *host = strstr(url, "://");

	return host == NULL ? 0 : (int) (host - url) + 3 + (int) strcspn(host + 3, "/?#\\");
}

/* Whether a URL is of an origin that the destination's settings or its connector name. */
static bool
own_origin(const RetlWire *wire, const char *url)
{
	int			len = origin_length(url);
	ListCell   *lc;

	foreach(lc, wire->origins)
	{
		const char *other = lfirst(lc);

		if (origin_length(other) == len && pg_strncasecmp(other, url, len) == 0)
			return true;
	}
	return false;
}

/* Absolute URLs that the connector itself writes, in any branch of a URL. */
static void
collect_literals(RetlWire *wire, const RetlJson *value)
{
	check_stack_depth();
	if (value == NULL)
		return;
	if (value->type == RETL_JSON_STRING)
	{
		char	   *text = retl_json_cstring(value);

		if (memchr(text, '{', origin_length(text)) == NULL && origin_length(text) > 0)
			wire->origins = lappend(wire->origins, text);
	}
	else if (value->type == RETL_JSON_ARRAY)
	{
		for (int i = 0; i < value->len; i++)
			collect_literals(wire, value->items[i]);
	}
	else if (value->type == RETL_JSON_OBJECT)
	{
		for (int i = 0; i < value->len; i++)
			collect_literals(wire, value->members[i].value);
	}
}

static void
collect_origins(RetlWire *wire, const RetlJson *request, const RetlJson *settings)
{
	collect_literals(wire, retl_json_member(request, "url"));
	if (wire->base_url != NULL)
		wire->origins = lappend(wire->origins, wire->base_url);
	if (settings == NULL || settings->type != RETL_JSON_OBJECT)
		return;
	for (int i = 0; i < settings->len; i++)
	{
		const RetlJson *value = settings->members[i].value;

		if (value != NULL && value->type == RETL_JSON_STRING && strstr(retl_json_cstring(value), "://") != NULL)
			wire->origins = lappend(wire->origins, retl_json_cstring(value));
	}
}

/*
 * Writes a URL: relative ones after the base URL, and what a path or query
 * cannot hold as such percent-encoded.
 */
static bool
write_url(RetlWire *wire, const RetlNode *node, StringInfo out, char **error)
{
	StringInfoData url;
	int			len;
	const char *text = template_text(wire, node, "URL", &len, error);
	const char *problem;
	char	   *secret;
	int			slashes = 0;

	if (text == NULL)
		return false;
	secret = retl_marks_secret(&wire->marks, text, len);
	if (secret != NULL)
	{
		appendStringInfoString(out, "\"\",\"url_secret\":");
		retl_json_write_string(out, secret, strlen(secret));
		return true;
	}
	initStringInfo(&url);
	if (len > 0 && text[0] == '/' && wire->base_url != NULL)
		appendStringInfoString(&url, wire->base_url);
	for (int i = 0; i < url.len; i++)
		slashes += url.data[i] == '/';
	for (int i = 0; i < len; i++)
	{
		unsigned char c = text[i];

		slashes += c == '/';
		if (slashes > 2 && ((c >= 0x80) || (c != '\0' && strchr(" \"<>^`{|}", c) != NULL)))
			appendStringInfo(&url, "%%%02X", c);
		else
			appendStringInfoChar(&url, c);
	}
	if (!retl_url_is_valid(url.data, url.len, &problem))
	{
		*error = psprintf("URL of the request %s", problem);
		return false;
	}
	retl_json_write_string(out, url.data, url.len);
	/* the mapping or, through it, a row says where: no secret goes there */
	if (!own_origin(wire, url.data))
		appendStringInfoString(out, ",\"elsewhere\":true");
	return true;
}

/* Headers that are HTTP's own business, or that would undo ours. */
static const char *const reserved_headers[] = {
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authorization",
	"Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"
};

static bool
check_header(const char *name, int name_len, const char *value, int value_len, char **error)
{
	if (name_len == 0)
	{
		*error = pstrdup("a header of the request has no name");
		return false;
	}
	for (int i = 0; i < name_len; i++)
	{
		unsigned char c = name[i];

		if (c <= ' ' || c >= 0x7F || strchr("\"(),/:;<=>?@[\\]{}", c) != NULL)
		{
			*error = pstrdup("the name of a header of the request has a character that none may have");
			return false;
		}
	}
	for (int i = 0; i < lengthof(reserved_headers); i++)
	{
		if (strlen(reserved_headers[i]) == name_len &&
			pg_strncasecmp(reserved_headers[i], name, name_len) == 0)
		{
			*error = psprintf("header %s of the request cannot be set", reserved_headers[i]);
			return false;
		}
	}
	for (int i = 0; i < value_len; i++)
	{
		unsigned char c = value[i];

		if ((c < ' ' && c != '\t') || c == 0x7F)
		{
			*error = psprintf("header %.*s of the request has a control character in its value",
							  name_len, name);
			return false;
		}
	}
	return true;
}

/* Of headers that differ in case only, the last wins. */
static bool
is_overridden(const RetlJson *headers, int header)
{
	for (int i = header + 1; i < headers->len; i++)
	{
		if (headers->members[i].keylen == headers->members[header].keylen &&
			headers->members[i].value != NULL && headers->members[i].value->type != RETL_JSON_NULL &&
			pg_strncasecmp(headers->members[i].key, headers->members[header].key,
						   headers->members[i].keylen) == 0)
			return true;
	}
	return false;
}

static bool
write_headers(RetlWire *wire, const RetlNode *node, StringInfo out, char **error)
{
	RetlJson   *headers = retl_value_as_tree(retl_evaluate(node, &wire->base, RETL_UNDEFINED, error),
											 error);
	bool		first = true;

	if (*error != NULL)
		return false;
	if (headers == NULL || headers->type != RETL_JSON_OBJECT)
	{
		*error = psprintf("headers of the request are no object but %s", retl_json_type_name(headers));
		return false;
	}
	appendStringInfoChar(out, '{');
	for (int i = 0; i < headers->len; i++)
	{
		const RetlJsonMember *header = &headers->members[i];
		StringInfoData text;

		if (header->value == NULL || header->value->type == RETL_JSON_NULL ||
			is_overridden(headers, i))
			continue;
		if (header->value->type == RETL_JSON_ARRAY || header->value->type == RETL_JSON_OBJECT)
		{
			*error = psprintf("a header of the request is no string but %s",
							  retl_json_type_name(header->value));
			return false;
		}
		initStringInfo(&text);
		retl_value_write_text(&text, retl_value_tree(header->value), error);
		if (!check_header(header->key, header->keylen, text.data, text.len, error))
			return false;
		if (!first)
			appendStringInfoChar(out, ',');
		first = false;
		retl_json_write_string(out, header->key, header->keylen);
		appendStringInfoChar(out, ':');
		retl_json_write_string(out, text.data, text.len);
	}
	appendStringInfoChar(out, '}');
	return true;
}

/* What stands around the records in the body, and where secrets belong. */
static bool
write_body(RetlWire *wire, const RetlNode *node, StringInfo out, char **error)
{
	StringInfoData text;
	StringInfoData before;
	StringInfoData behind;
	StringInfoData holes;

	initStringInfo(&text);
	initStringInfo(&before);
	initStringInfo(&behind);
	initStringInfo(&holes);
	(void) retl_emit(node, &wire->base, RETL_UNDEFINED, &text, error);
	if (*error != NULL)
		return false;
	if (!retl_marks_cut(&wire->marks, text.data, text.len, &before, &behind, &holes))
	{
		*error = pstrdup("body of the request has no place for its records");
		return false;
	}
	appendStringInfoString(out, ",\"body\":[");
	retl_json_write_string(out, before.data, before.len);
	appendStringInfoChar(out, ',');
	retl_json_write_string(out, behind.data, behind.len);
	appendStringInfoChar(out, ']');
	if (holes.len > 0)
		appendStringInfo(out, ",\"holes\":[%s]", holes.data);
	return true;
}

static bool
write_group(RetlWire *wire, const Templates *templates, StringInfo out, char **error)
{
	appendStringInfoString(out, "{\"method\":");
	if (!write_method(wire, templates->method, out, error))
		return false;
	appendStringInfoString(out, ",\"url\":");
	if (!write_url(wire, templates->url, out, error))
		return false;
	appendStringInfoString(out, ",\"headers\":");
	if (!write_headers(wire, templates->headers, out, error))
		return false;
	appendStringInfoString(out, templates->tail);
	if (templates->body != NULL && !write_body(wire, templates->body, out, error))
		return false;
	appendStringInfoChar(out, '}');
	return true;
}

bool
retl_wire_record(RetlWire *wire, const RetlEnvelope *envelope, RetlSlice payload,
					StringInfo group, StringInfo record, char **error)
{
	const Templates *templates = &wire->templates[envelope->operation];

	*error = NULL;
	wire->envelope = envelope;
	split_payload(wire, payload);
	if (templates->group != NULL)
		appendBinaryStringInfo(group, templates->group, templates->group_len);
	else if (!write_group(wire, templates, group, error))
		return false;
	if (templates->no_body)
		return true;
	if (!retl_emit(templates->record, &wire->base, RETL_UNDEFINED, record, error) && *error == NULL)
		*error = pstrdup("the record is empty");
	return *error == NULL;
}

/* ---- compiling ---- */

static void
invalid(const char *what, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("definition of the connector is not valid"),
			 errdetail("%s: %s", what, problem)));
}

static RetlNode *
compile_template(RetlWire *wire, const RetlJson *template, const RetlJson *constants,
				 const char *what)
{
	List	   *messages = retl_validate(template);
	RetlScope	scope = {.find = find, .arg = wire, .constants = constants};
	char	   *error = NULL;
	RetlNode   *node;

	if (messages != NIL)
		invalid(what, linitial(messages));
	scope.url = strcmp(what, "url") == 0 || strcmp(what, "base_url") == 0;
	node = retl_compile(template, &scope, &error);
	if (error != NULL)
		invalid(what, error);
	return node;
}

/*
 * Member "name" of the request, as it is written for requests of several
 * records, for one operation, or for all.
 */
static RetlJson *
request_member(const RetlWire *wire, const RetlJson *definition, RetlOperation operation, const char *name)
{
	const RetlJson *several = retl_json_member(definition, "several");
	const RetlJson *own = retl_json_member(definition, retl_operation_name(operation));
	RetlJson   *member = NULL;

	if (wire->several)
	{
		member = retl_json_member(retl_json_member(several, retl_operation_name(operation)), name);
		if (member == NULL)
			member = retl_json_member(several, name);
		if (member == NULL && strcmp(name, "body") == 0)
			member = retl_json_member(definition, "batch_body");
	}
	if (member == NULL)
		member = retl_json_member(own, name);
	return member != NULL ? member : retl_json_member(definition, name);
}

/* {"setting": name, "values": {value: template}}: what the setting's value chooses; others as they are. */
static RetlJson *
choose(RetlJson *template, const RetlJson *constants, const char *what)
{
	RetlJson   *setting = retl_json_member(template, "setting");
	RetlJson   *values = retl_json_member(template, "values");
	RetlJson   *value;

	if (setting == NULL || setting->type != RETL_JSON_STRING)
		return template;
	value = retl_json_get(retl_json_member(constants, "settings"), setting->text, setting->len);
	if (value == NULL || value->type != RETL_JSON_STRING)
		invalid(what, "the setting that it depends on has no value");
	if (values == NULL)
		return value;
	value = retl_json_get(values, value->text, value->len);
	if (value == NULL)
		invalid(what, "it has no value for this setting");
	return value;
}

static RetlNode *
compile_member(RetlWire *wire, const RetlJson *definition, RetlOperation operation,
			   const char *name, const char *otherwise, const RetlJson *constants)
{
	RetlJson   *template = request_member(wire, definition, operation, name);

	if (template == NULL)
		template = retl_json_parse(otherwise, strlen(otherwise), NULL);
	if (strcmp(name, "url") == 0)
		template = choose(template, constants, name);
	return compile_template(wire, template, constants, name);
}

/* Where an action has a rule for answers, its requests name the action. */
static char *
rule_name(const RetlJson *connector, const RetlJson *action)
{
	RetlJson   *actions = retl_json_member(connector, "actions");
	StringInfoData tail;

	initStringInfo(&tail);
	for (int i = 0; retl_json_member(action, "response") != NULL && i < actions->len; i++)
	{
		if (actions->members[i].value != action)
			continue;
		appendStringInfoString(&tail, ",\"action\":");
		retl_json_write_string(&tail, actions->members[i].key, actions->members[i].keylen);
	}
	return tail.data;
}

/* JSON is what is stored; these are made of it when a request is sent. */
static const char *const encodings[] = {"json", "form", "lines", "csv"};

static void
compile_encoding(RetlWire *wire, const RetlJson *definition, RetlOperation operation)
{
	RetlJson   *encode = request_member(wire, definition, operation, "encode");

	if (encode == NULL)
		return;
	for (int i = 0; i < lengthof(encodings); i++)
	{
		if (!retl_json_is_string(encode, encodings[i]))
			continue;
		if (i > 0)
			wire->templates[operation].tail = psprintf("%s,\"encode\":\"%s\"",
													   wire->templates[operation].tail, encodings[i]);
		return;
	}
	invalid("encode", "it must be json, form, lines or csv");
}

static void
compile_body(RetlWire *wire, const RetlJson *definition, RetlOperation operation, const RetlJson *constants)
{
	Templates  *templates = &wire->templates[operation];
	RetlJson   *body = request_member(wire, definition, operation, "body");
	int			several = 0,
				one = 0;

	if (body == NULL)
		return;
	if (body->type == RETL_JSON_NULL)
	{
		if (wire->several)
			invalid("body", "requests without one cannot carry several records");
		templates->no_body = true;
		return;
	}
	retl_marks_count(&wire->marks, body, &several, &one);
	if (several + one == 0)
		invalid("body", "it must have {\"@records\": true} or {\"@record\": true} in it");
	if (several == 0 && wire->several)
		invalid("body", "it has room for one record, and requests carry several");
	templates->body = compile_template(wire, body, constants, "body");
	wire->has_bodies = true;
}

/* The request's head now, if it does not depend on the record. */
static void
precompute_group(RetlWire *wire, Templates *templates)
{
	RetlValue	ignored;
	StringInfoData group;
	char	   *error = NULL;

	if (!retl_is_constant(templates->method, &ignored) || !retl_is_constant(templates->url, &ignored) ||
		!retl_is_constant(templates->headers, &ignored) ||
		(templates->body != NULL && !retl_is_constant(templates->body, &ignored)))
		return;
	initStringInfo(&group);
	if (!write_group(wire, templates, &group, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no request can be made with these settings"),
				 errdetail("The %s.", error)));
	templates->group = group.data;
	templates->group_len = group.len;
}

static char *
constant_text(const RetlNode *node, const char *what)
{
	RetlValue	value;
	int			len;
	const char *text;

	if (!retl_is_constant(node, &value) || retl_is_undefined(value) ||
		retl_value_type(value) != RETL_JSON_STRING)
		invalid(what, "it must be a string that depends on settings alone");
	text = retl_value_text(value, &len);
	return pnstrdup(text, len);
}

/*
 * base_url: a template, or {"setting": name, "values": {value: url}}, with
 * "override", a setting that is used instead if it is set.
 */
static void
compile_base_url(RetlWire *wire, const RetlJson *connector, const RetlJson *settings,
				 const RetlJson *constants)
{
	RetlJson   *base = retl_json_member(connector, "base_url");
	RetlJson   *override = retl_json_member(base, "override");
	const char *problem;

	if (base == NULL)
		return;
	if (override != NULL && override->type == RETL_JSON_STRING)
		override = retl_json_get(settings, override->text, override->len);
	if (override != NULL && override->type == RETL_JSON_STRING)
		base = override;
	else
		base = choose(base, constants, "base_url");
	wire->base_url = constant_text(compile_template(wire, base, constants, "base_url"), "base_url");
	if (!retl_url_is_valid(wire->base_url, strlen(wire->base_url), &problem))
		invalid("base_url", problem);
}

RetlWire *
retl_wire_compile(const RetlJson *connector, const RetlJson *action, const RetlJson *settings,
					 const RetlWireField *fields, int nfields, int batch_records)
{
	RetlWire *wire = palloc0(sizeof(RetlWire));
	RetlJson   *definition = retl_connector_member(action, "request", RETL_JSON_OBJECT, true, "the action");
	RetlJson   *constants = retl_json_object();

	wire->base.fetch = fetch;
	wire->base.lookup = lookup;
	wire->base.root = root;
	wire->fields = fields;
	wire->nfields = nfields;
	wire->values = palloc0(Max(nfields, 1) * sizeof(RetlSlice));
	wire->several = batch_records > 1;
	retl_json_set(constants, "settings", 8, unconstify(RetlJson *, settings));
	retl_marks_init(&wire->marks);
	(void) retl_marks_place(&wire->marks, definition);

	compile_base_url(wire, connector, settings, constants);
	collect_origins(wire, definition, settings);
	for (int i = 0; i < OPERATIONS; i++)
	{
		Templates  *templates = &wire->templates[i];

		templates->method = compile_member(wire, definition, i, "method", "\"POST\"", constants);
		templates->url = compile_member(wire, definition, i, "url", "\"/\"", constants);
		templates->headers = compile_member(wire, definition, i, "headers", "{}", constants);
		templates->record = compile_member(wire, definition, i, "record", "{\"@path\": \"$.fields\"}",
										   constants);
		templates->tail = rule_name(connector, action);
		compile_encoding(wire, definition, i);
		compile_body(wire, definition, i, constants);
		precompute_group(wire, templates);
	}
	return wire;
}

/* One side of a body as the group has it; "otherwise" where it says nothing. */
static void
append_side(const RetlWire *wire, const char *group, uint32 side, const char *otherwise, StringInfo body)
{
	RetlSlice	sides = {NULL, 0};
	const char *text;
	int			len;

	if (wire->has_bodies)
		sides = retl_slice_member(retl_slice(group, strlen(group)), "body", strlen("body"));
	if (sides.data == NULL)
	{
		if (wire->several)
			appendStringInfoString(body, otherwise);
		return;
	}
	text = retl_slice_text(retl_slice_item(sides, side), &len);
	appendBinaryStringInfo(body, text, len);
}

void
retl_wire_body_begin(const RetlWire *wire, const char *group, StringInfo body)
{
	append_side(wire, group, 0, "[", body);
}

void
retl_wire_body_end(const RetlWire *wire, const char *group, StringInfo body)
{
	append_side(wire, group, 1, "]", body);
}
