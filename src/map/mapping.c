/*
 * mapping.c
 *		A mapping, compiled: fields of an action computed from rows; see
 *		mapping.h.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/compat.h"
#include "base/nearest.h"
#include "map/connector.h"
#include "map/envelope.h"
#include "map/fields.h"
#include "map/wire.h"

#define OPERATIONS 3

/* Keys that the language's origin puts beside the fields for its own use. */
#define PLATFORM_PREFIX "__segment_internal_"

typedef struct Field
{
	const char *name;
	int			len;
	const char *prefix;			/* "name": as JSON */
	int			prefix_len;
	RetlFieldType type;
	RetlNode   *node;			/* NULL: not mapped, or the root is a directive */

	/* of the row in work: where its value is in the payload */
	bool		present;
	int			start;
	int			valuelen;
} Field;

struct RetlMapping
{
	Field	   *fields;			/* in the order of payloads */
	int			nfields;
	const RetlFieldType **types;
	bool		requires;		/* some field is required, or may be */
	StringInfo	payload;		/* of the row in work */
	RetlNode   *whole;			/* gives all fields at once, if set */
	RetlEnvelopeInput input;
	List	   *sql;			/* char * */
	bool		takes[OPERATIONS];
	int			batch_records;
	int			batch_bytes;
	int			record_bytes;	/* 0: any */
	const RetlJson *one_of;		/* groups of fields of which a payload has one at least, or NULL */
	RetlWire   *wire;
};

/* ---- compiling ---- */

pg_noreturn static void invalid_mapping(const char *detail, const char *hint);

static void
invalid_mapping(const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("fields of the mapping are not valid"),
			 errdetail("%s", detail),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static int
add_sql(void *arg, const char *text)
{
	RetlMapping *mapping = arg;

	mapping->sql = lappend(mapping->sql, pstrdup(text));
	return list_length(mapping->sql) - 1;
}

/* Scope callbacks have one argument: the mapping. */
static int
find(void *arg, const RetlStep *steps, int nsteps, int *used)
{
	RetlMapping *mapping = arg;

	return retl_envelope_find(&mapping->input, steps, nsteps, used);
}

static RetlNode *
compile_node(RetlMapping *mapping, const RetlJson *source, const char *name, bool url)
{
	RetlScope	scope = {.find = find, .sql = add_sql, .arg = mapping, .url = url};
	char	   *error = NULL;
	RetlNode   *node = retl_compile(source, &scope, &error);

	if (error != NULL)
		invalid_mapping(name != NULL ? psprintf("Field \"%s\": %s.", name, error) : psprintf("%s.", error), NULL);
	return node;
}

static RetlJson *
parse(const char *text, const char *what)
{
	char	   *error;
	RetlJson   *json = retl_json_parse(text, strlen(text), &error);

	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s are not valid JSON", what),
				 errdetail("%s.", error)));
	return json;
}

/* Whether a declaration has this alias, a name by which it is also found. */
static bool
has_alias(const RetlJson *declaration, const char *name, int len)
{
	RetlJson   *aliases = retl_json_member(declaration, "alias");

	for (int i = 0; aliases != NULL && aliases->type == RETL_JSON_ARRAY && i < aliases->len; i++)
	{
		const RetlJson *alias = aliases->items[i];

		if (alias->type == RETL_JSON_STRING && alias->len == len && memcmp(alias->text, name, len) == 0)
			return true;
	}
	return false;
}

/* The declaration of this name or alias, among the members of an object; NULL: there is none. */
static const RetlJsonMember *
find_declaration(const RetlJson *declarations, const char *name, int len)
{
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < declarations->len; i++)
		{
			const RetlJsonMember *member = &declarations->members[i];

			if (pass == 0 ? member->keylen == len && memcmp(member->key, name, len) == 0 :
				has_alias(member->value, name, len))
				return member;
		}
	}
	return NULL;
}

static RetlJson *
find_action(const RetlJson *connector, const char *name)
{
	RetlJson   *actions = retl_connector_member(connector, "actions", RETL_JSON_OBJECT, true, "the connector");
	const RetlJsonMember *action = find_declaration(actions, name, strlen(name));
	const char **names = palloc(Max(actions->len, 1) * sizeof(char *));
	const char *nearest;
	StringInfoData list;

	if (action != NULL)
		return action->value;
	initStringInfo(&list);
	for (int i = 0; i < actions->len; i++)
	{
		names[i] = pnstrdup(actions->members[i].key, actions->members[i].keylen);
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	}
	nearest = retl_nearest(name, actions->len, names);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("action \"%s\" does not exist", name),
			 nearest != NULL ? errhint("Perhaps you meant the action \"%s\".", nearest) :
			 errhint("Actions of this connector are: %s.", list.data)));
}

static void
unknown_field(const RetlJson *declared, const char *name)
{
	const char **names = palloc(Max(declared->len, 1) * sizeof(char *));
	const char *nearest;
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < declared->len; i++)
	{
		names[i] = pnstrdup(declared->members[i].key, declared->members[i].keylen);
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	}
	nearest = retl_nearest(name, declared->len, names);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("field \"%s\" does not exist", name),
			 nearest != NULL ? errhint("Perhaps you meant the field \"%s\".", nearest) :
			 errhint("Fields of this action are: %s.", list.data)));
}

static Field *
add_field(RetlMapping *mapping, const RetlJsonMember *declared)
{
	Field	   *field = &mapping->fields[mapping->nfields++];
	StringInfoData prefix;

	field->name = pnstrdup(declared->key, declared->keylen);
	field->len = declared->keylen;
	initStringInfo(&prefix);
	retl_json_write_string(&prefix, field->name, field->len);
	appendStringInfoChar(&prefix, ':');
	field->prefix = prefix.data;
	field->prefix_len = prefix.len;
	retl_field_compile(&field->type, declared->key, declared->keylen, declared->value);
	mapping->types[mapping->nfields - 1] = &field->type;
	mapping->requires |= field->type.required || field->type.condition != NULL;
	return field;
}

static Field *
find_field(const RetlMapping *mapping, const char *name, int len)
{
	for (int i = 0; i < mapping->nfields; i++)
	{
		Field	   *field = &mapping->fields[i];

		if (field->len == len && memcmp(field->name, name, len) == 0)
			return field;
	}
	return NULL;
}

/* Sentences, one after the other. */
static char *
join(const List *errors)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, errors)
		appendStringInfo(&text, "%s%s", text.len > 0 ? " " : "", (char *) lfirst(cell));
	return text.data;
}

/* A value that is the same for every row is checked now. */
static void
check_constant(const Field *field)
{
	RetlValue	value;
	List	   *errors = NIL;
	char	   *error = NULL;

	if (!retl_is_constant(field->node, &value) || retl_is_undefined(value))
		return;
	(void) retl_field_coerce(&field->type, retl_value_as_tree(value, &error), &errors);
	if (errors != NIL)
		invalid_mapping(psprintf("Field \"%s\": %s", field->name, join(errors)), NULL);
}

static void
compile_field(RetlMapping *mapping, const RetlJsonMember *declared, const RetlJson *source)
{
	Field	   *field = add_field(mapping, declared);
	bool		url = retl_json_is_string(retl_json_member(declared->value, "format"), "url");

	if (source != NULL)
	{
		field->node = compile_node(mapping, source, field->name, url);
		check_constant(field);
	}
	else if (field->type.required)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("field \"%s\" is required", field->name),
				 errhint("Map it, for example \"%s\": {\"@path\": \"$.column\"}.", field->name)));
}

static bool
is_platform_key(const RetlJsonMember *member)
{
	static const char *const hooks[] = {
		"onMappingSave", "retlOnMappingSave", "enable_batching", "batch_size", "batch_keys", "batch_bytes"
	};

	if (member->keylen >= strlen(PLATFORM_PREFIX) &&
		memcmp(member->key, PLATFORM_PREFIX, strlen(PLATFORM_PREFIX)) == 0)
		return true;
	for (int i = 0; i < lengthof(hooks); i++)
	{
		if (strlen(hooks[i]) == member->keylen && memcmp(hooks[i], member->key, member->keylen) == 0)
			return true;
	}
	return false;
}

/* Whether the fields come from one directive, not each from its own value. */
static bool
is_whole(const RetlJson *fields)
{
	for (int i = 0; i < fields->len; i++)
	{
		if (fields->members[i].keylen > 0 && fields->members[i].key[0] == '@')
			return true;
	}
	return false;
}

/* Fields in the user's order, then those that have a default, then the rest. */
static void
compile_fields(RetlMapping *mapping, const RetlJson *fields, const RetlJson *declared)
{
	mapping->fields = palloc0(Max(declared->len, 1) * sizeof(Field));
	mapping->types = palloc0(Max(declared->len, 1) * sizeof(RetlFieldType *));
	if (is_whole(fields))
	{
		mapping->whole = compile_node(mapping, fields, NULL, false);
		for (int i = 0; i < declared->len; i++)
			(void) add_field(mapping, &declared->members[i]);
		return;
	}
	for (int i = 0; i < fields->len; i++)
	{
		const RetlJsonMember *member = &fields->members[i];
		const RetlJsonMember *field = find_declaration(declared, member->key, member->keylen);

		if (field != NULL)
		{
			if (find_field(mapping, field->key, field->keylen) != NULL)
				invalid_mapping(psprintf("Field \"%.*s\" is mapped twice.", field->keylen, field->key), NULL);
			compile_field(mapping, field, member->value);
		}
		else if (!is_platform_key(member))
			unknown_field(declared, pnstrdup(member->key, member->keylen));
	}
	for (int i = 0; i < declared->len; i++)
	{
		const RetlJsonMember *member = &declared->members[i];

		if (find_field(mapping, member->key, member->keylen) == NULL)
			compile_field(mapping, member, retl_json_member(member->value, "default"));
	}
}

/* "a, b" of the names of one group. */
static char *
list_names(const RetlJson *group)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < group->len; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", retl_json_cstring(group->items[i]));
	return list.data;
}

/* Of each group, some field must be mapped. */
static void
compile_one_of(RetlMapping *mapping, const RetlJson *action)
{
	mapping->one_of = retl_connector_member(action, "one_of", RETL_JSON_ARRAY, false, "the action");
	if (mapping->one_of == NULL || mapping->whole != NULL)
		return;
	for (int i = 0; i < mapping->one_of->len; i++)
	{
		const RetlJson *group = mapping->one_of->items[i];
		bool		mapped = false;

		for (int j = 0; j < group->len; j++)
		{
			const Field *field = find_field(mapping, group->items[j]->text, group->items[j]->len);

			mapped |= field != NULL && field->node != NULL;
		}
		if (!mapped)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("one of the fields %s is required", list_names(group)),
					 errhint("Map one of them, for example \"%s\": {\"@path\": \"$.column\"}.",
							 retl_json_cstring(group->items[0]))));
	}
}

/* A limit: a number, or {"setting": name}; 0 where there is none. */
static int
limit(const RetlJson *batch, const char *name, const RetlJson *settings)
{
	RetlJson   *value = retl_json_member(batch, name);
	RetlJson   *setting = retl_json_member(value, "setting");

	if (setting != NULL && setting->type == RETL_JSON_STRING)
		value = retl_json_get(settings, setting->text, setting->len);
	if (value == NULL || value->type != RETL_JSON_NUMBER)
		return 0;
	return (int) Min(retl_json_double(value->text, value->len), PG_INT32_MAX);
}

/* No batch has more records than may be sent at once. */
static int
within_rate(int records, const RetlJson *settings)
{
	RetlJson   *rate = retl_json_member(settings, "rows_per_second");
	RetlJson   *burst = retl_json_member(settings, "burst");
	double		most;

	if (rate == NULL || rate->type != RETL_JSON_NUMBER)
		return records;
	most = retl_json_double(rate->text, rate->len);
	if (burst != NULL && burst->type == RETL_JSON_NUMBER)
		most *= retl_json_double(burst->text, burst->len);
	return most >= records ? records : Max((int) most, 1);
}

static void
set_limits(RetlMapping *mapping, const RetlJson *action, const RetlJson *settings, int batch_size)
{
	RetlJson   *batch = retl_json_member(action, "batch");
	int			maximum = limit(batch, "max_records", settings);

	mapping->batch_records = batch_size > 0 ? batch_size : Max(limit(batch, "records", settings), 1);
	mapping->batch_bytes = limit(batch, "bytes", settings);
	mapping->record_bytes = limit(batch, "record_bytes", settings);
	if (batch == NULL)
		maximum = 1;
	if (batch_size < 0 || (maximum > 0 && mapping->batch_records > maximum))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch size %d is out of range", batch_size < 0 ? batch_size : mapping->batch_records),
				 maximum > 0 ? errhint("Requests of this action carry 1 to %d records.", maximum) :
				 errhint("A request carries one record at least.")));
	mapping->batch_records = within_rate(mapping->batch_records, settings);
}

static void
set_operations(RetlMapping *mapping, const RetlJson *action)
{
	RetlJson   *operations = retl_connector_member(action, "operations", RETL_JSON_ARRAY, true, "the action");

	for (int i = 0; i < operations->len; i++)
	{
		for (int op = 0; op < OPERATIONS; op++)
			mapping->takes[op] |= retl_json_is_string(operations->items[i], retl_operation_name(op));
	}
}

static void
compile_request(RetlMapping *mapping, const RetlJson *connector, const RetlJson *action,
				const RetlJson *settings)
{
	RetlWireField *fields = palloc(Max(mapping->nfields, 1) * sizeof(RetlWireField));

	for (int i = 0; i < mapping->nfields; i++)
	{
		fields[i].name = mapping->fields[i].name;
		fields[i].len = mapping->fields[i].len;
		fields[i].present = mapping->whole != NULL || mapping->fields[i].node != NULL;
	}
	mapping->wire = retl_wire_compile(connector, action, settings, fields, mapping->nfields,
											mapping->batch_records);
}

RetlMapping *
retl_mapping_compile(const char *connector_text, const char *action_name, const char *fields_text,
					 const char *settings_text, int batch_size)
{
	RetlMapping *mapping = palloc0(sizeof(RetlMapping));
	RetlJson   *connector = retl_connector_parse(connector_text);
	RetlJson   *action = find_action(connector, action_name);
	RetlJson   *declared = retl_connector_member(action, "fields", RETL_JSON_OBJECT, true, "the action");
	RetlJson   *settings = parse(settings_text, "settings");
	RetlJson   *fields = parse(fields_text, "fields of the mapping");
	char	   *error = NULL;
	List	   *messages;

	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("mappings need a database whose encoding is UTF8"),
				 errdetail("The encoding of this database is %s.", GetDatabaseEncodingName())));
	if (fields->type != RETL_JSON_OBJECT)
		invalid_mapping(psprintf("They are of type %s, not object.", retl_json_type_name(fields)), NULL);
	fields = retl_root_directive(fields, &error);
	messages = error == NULL ? retl_validate(fields) : list_make1(error);
	if (messages != NIL)
	{
		StringInfoData detail;

		initStringInfo(&detail);
		for (int i = 0; i < list_length(messages); i++)
			appendStringInfo(&detail, "%s%s", i > 0 ? "\n" : "", (char *) list_nth(messages, i));
		invalid_mapping(detail.data, NULL);
	}
	retl_envelope_init(&mapping->input);
	set_operations(mapping, action);
	set_limits(mapping, action, settings, batch_size);
	compile_fields(mapping, fields, declared);
	compile_one_of(mapping, action);
	compile_request(mapping, connector, action, settings);
	return mapping;
}

/* ---- what the compiled mapping says of itself ---- */

int
retl_mapping_sql_count(const RetlMapping *mapping)
{
	return list_length(mapping->sql);
}

const char *
retl_mapping_sql(const RetlMapping *mapping, int number)
{
	return list_nth(mapping->sql, number);
}

int
retl_mapping_column_count(const RetlMapping *mapping)
{
	return mapping->input.ncolumns;
}

const char *
retl_mapping_column(const RetlMapping *mapping, int number)
{
	return mapping->input.columns[number].name;
}

bool
retl_mapping_takes(const RetlMapping *mapping, RetlOperation operation)
{
	return mapping->takes[operation];
}

int
retl_mapping_batch_records(const RetlMapping *mapping)
{
	return mapping->batch_records;
}

int
retl_mapping_batch_bytes(const RetlMapping *mapping)
{
	return mapping->batch_bytes;
}

/* ---- payloads ---- */

/*
 * Gives the value that was just written the type of its field. False: it is
 * absent.
 */
static bool
coerce_written(const Field *field, StringInfo payload, int start, List **errors)
{
	RetlSlice	written = {payload->data + start, payload->len - start};
	RetlJson   *tree;
	char	   *error;

	if (retl_field_fits(&field->type, written))
		return true;
	written.data = pnstrdup(written.data, written.len);
	tree = retl_json_parse(written.data, written.len, &error);
	if (tree == NULL)
	{
		*errors = lappend(*errors, psprintf("%s cannot be read: %s.", field->type.label, error));
		return false;
	}
	tree = retl_field_coerce(&field->type, tree, errors);
	payload->len = start;
	if (tree == NULL)
		return false;
	retl_json_write(payload, tree);
	return true;
}

/* A field of the payload in work, for conditions of others. */
static RetlSlice
written_field(void *arg, const char *name, int len)
{
	RetlMapping *mapping = arg;
	const Field *field = find_field(mapping, name, len);
	RetlSlice	value = {NULL, 0};

	if (field != NULL && field->present)
	{
		value.data = mapping->payload->data + field->start;
		value.len = field->valuelen;
	}
	return value;
}

/* Whether the payload has a value other than null for one field of each group. */
static void
require_one_of(const RetlMapping *mapping, List **errors)
{
	for (int i = 0; mapping->one_of != NULL && i < mapping->one_of->len; i++)
	{
		const RetlJson *group = mapping->one_of->items[i];
		bool		present = false;

		for (int j = 0; j < group->len && !present; j++)
		{
			const Field *field = find_field(mapping, group->items[j]->text, group->items[j]->len);

			present = field != NULL && field->present && mapping->payload->data[field->start] != 'n';
		}
		if (!present)
			*errors = lappend(*errors, psprintf("One of the fields %s is required.", list_names(group)));
	}
}

/*
 * Appends the fields one by one. "whole": the object that a directive at the
 * root made, which has them all.
 */
static bool
write_fields(RetlMapping *mapping, const RetlJson *whole, StringInfo payload, char **error)
{
	bool		first = true;
	List	   *errors = NIL;

	appendStringInfoCharMacro(payload, '{');
	for (int i = 0; i < mapping->nfields; i++)
	{
		Field	   *field = &mapping->fields[i];
		int			mark = payload->len;

		field->present = false;
		if (whole == NULL && field->node == NULL)
			continue;
		if (!first)
			appendStringInfoCharMacro(payload, ',');
		appendBinaryStringInfo(payload, field->prefix, field->prefix_len);
		field->start = payload->len;
		if (whole != NULL)
			field->present = retl_value_write_json(payload,
												   retl_value_tree(retl_json_get(whole, field->name, field->len)));
		else
			field->present = retl_emit(field->node, &mapping->input.base, RETL_UNDEFINED, payload, error);
		if (*error != NULL)
		{
			*error = psprintf("field \"%s\": %s", field->name, *error);
			return false;
		}
		if (field->present)
			field->present = coerce_written(field, payload, field->start, &errors);
		field->valuelen = payload->len - field->start;
		if (field->present)
			first = false;
		else
		{
			payload->len = mark;
			payload->data[mark] = '\0';
		}
	}
	appendStringInfoCharMacro(payload, '}');

	mapping->payload = payload;
	require_one_of(mapping, &errors);
	if (mapping->requires)
		retl_fields_require(mapping->types, mapping->nfields, written_field, mapping, &errors);
	if (errors != NIL)
		*error = join(errors);
	return errors == NIL;
}

static bool
write_payload(RetlMapping *mapping, const RetlEnvelope *envelope, bool comparable,
			  StringInfo payload, char **error)
{
	RetlJson   *whole = NULL;

	*error = NULL;
	retl_envelope_set(&mapping->input, envelope, comparable);
	if (mapping->whole != NULL)
	{
		whole = retl_value_as_tree(retl_evaluate(mapping->whole, &mapping->input.base,
												 RETL_UNDEFINED, error), error);
		if (*error == NULL && (whole == NULL || whole->type != RETL_JSON_OBJECT))
			*error = psprintf("the mapping gives no object of fields but %s", retl_json_type_name(whole));
		if (*error != NULL)
			return false;
	}
	return write_fields(mapping, whole, payload, error);
}

bool
retl_mapping_payload(RetlMapping *mapping, const RetlEnvelope *envelope, StringInfo payload,
					 char **error)
{
	return write_payload(mapping, envelope, false, payload, error);
}

bool
retl_mapping_comparable(RetlMapping *mapping, const RetlEnvelope *envelope, StringInfo payload,
						char **error)
{
	return write_payload(mapping, envelope, true, payload, error);
}

/* ---- requests ---- */

bool
retl_mapping_record(RetlMapping *mapping, const RetlEnvelope *envelope, const char *payload,
					int payload_len, StringInfo group, StringInfo record, char **error)
{
	int			start = record->len;

	if (!retl_wire_record(mapping->wire, envelope, retl_slice(payload, payload_len), group, record, error))
		return false;
	if (mapping->record_bytes > 0 && record->len - start > mapping->record_bytes)
	{
		*error = psprintf("The record has %d bytes, and the destination takes %d at most.",
						  record->len - start, mapping->record_bytes);
		return false;
	}
	return true;
}

void
retl_mapping_body_begin(const RetlMapping *mapping, const char *group, StringInfo body)
{
	retl_wire_body_begin(mapping->wire, group, body);
}

void
retl_mapping_body_add(const RetlMapping *mapping, StringInfo body, const char *record,
					  int record_len, bool first)
{
	if (!first)
		appendStringInfoChar(body, ',');
	appendBinaryStringInfo(body, record, record_len);
}

void
retl_mapping_body_end(const RetlMapping *mapping, const char *group, StringInfo body)
{
	retl_wire_body_end(mapping->wire, group, body);
}
