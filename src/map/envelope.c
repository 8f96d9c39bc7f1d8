/*
 * envelope.c
 *		The root of a mapping; see envelope.h.
 */
#include "postgres.h"

#include "map/envelope.h"

typedef enum Slot
{
	SLOT_TYPE,
	SLOT_EVENT,
	SLOT_PROPERTIES,
	SLOT_KEY,
	SLOT_MESSAGE_ID,
	SLOT_TIMESTAMP,
	SLOT_OLD,
	SLOT_CHANGED,
	SLOT_OPERATION,
	FIRST_COLUMN
} Slot;

static const char *const member_names[FIRST_COLUMN] = {
	[SLOT_TYPE] = "type",
	[SLOT_EVENT] = "event",
	[SLOT_PROPERTIES] = "properties",
	[SLOT_KEY] = "__segment_id",
	[SLOT_MESSAGE_ID] = "messageId",
	[SLOT_TIMESTAMP] = "timestamp",
	[SLOT_OLD] = "old",
	[SLOT_CHANGED] = "changed",
	[SLOT_OPERATION] = "operation",
};

#define CONSTANT(text) ((RetlSlice) {text, sizeof(text) - 1})
#define ABSENT ((RetlSlice) {NULL, 0})

static const RetlSlice event_names[] = {
	[RETL_ADDED] = {"\"new\"", 5},
	[RETL_UPDATED] = {"\"updated\"", 9},
	[RETL_DELETED] = {"\"deleted\"", 9},
};

static const RetlSlice operation_names[] = {
	[RETL_ADDED] = {"\"added\"", 7},
	[RETL_UPDATED] = {"\"updated\"", 9},
	[RETL_DELETED] = {"\"deleted\"", 9},
};

const char *
retl_operation_name(RetlOperation operation)
{
	switch (operation)
	{
		case RETL_ADDED:
			return "added";
		case RETL_UPDATED:
			return "updated";
		case RETL_DELETED:
			return "deleted";
	}
	elog(ERROR, "unknown operation: %d", (int) operation);
}

static RetlSlice
as_slice(StringInfo text)
{
	RetlSlice	slice = {text->data, text->len};

	return slice;
}

static RetlSlice
text_slice(const char *text)
{
	StringInfoData json;

	initStringInfo(&json);
	retl_json_write_string(&json, text, strlen(text));
	return as_slice(&json);
}

/* ---- compiling ---- */

static int
find_member(const RetlStep *step)
{
	for (int i = 0; i < FIRST_COLUMN; i++)
	{
		if (strlen(member_names[i]) == step->len && memcmp(member_names[i], step->key, step->len) == 0)
			return i;
	}
	return -1;
}

static int
add_column(RetlEnvelopeInput *input, const RetlStep *step, bool old)
{
	MemoryContext caller;
	RetlRootColumn *column;

	for (int i = 0; i < input->ncolumns; i++)
	{
		column = &input->columns[i];
		if (column->old == old && column->len == step->len &&
			memcmp(column->name, step->key, step->len) == 0)
			return FIRST_COLUMN + i;
	}
	caller = MemoryContextSwitchTo(input->context);
	if (input->columns == NULL)
		input->columns = palloc(sizeof(RetlRootColumn));
	else
		input->columns = repalloc(input->columns, (input->ncolumns + 1) * sizeof(RetlRootColumn));
	column = &input->columns[input->ncolumns++];
	column->name = pnstrdup(step->key, step->len);
	column->len = step->len;
	column->old = old;
	MemoryContextSwitchTo(caller);
	return FIRST_COLUMN + input->ncolumns - 1;
}

int
retl_envelope_find(void *arg, const RetlStep *steps, int nsteps, int *used)
{
	RetlEnvelopeInput *input = arg;
	int			member = find_member(&steps[0]);

	*used = 1;
	if (member < 0)
		return add_column(input, &steps[0], false);
	if (nsteps > 1 && (member == SLOT_PROPERTIES || member == SLOT_OLD))
	{
		*used = 2;
		return add_column(input, &steps[1], member == SLOT_OLD);
	}
	return member;
}

bool
retl_envelope_is_row(int slot)
{
	return slot == SLOT_PROPERTIES || slot == SLOT_OLD;
}

/* ---- evaluating ---- */

static RetlSlice
row_object(const RetlShape *shape, const RetlSlice *row)
{
	StringInfoData text;

	initStringInfo(&text);
	retl_row_append_object(&text, shape, row);
	return as_slice(&text);
}

/* Names of the columns that both rows have and whose values differ. */
static RetlSlice
changed_columns(const RetlEnvelope *envelope)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoChar(&text, '[');
	for (int i = 0; i < envelope->shape->ncolumns; i++)
	{
		const RetlColumn *column = &envelope->shape->columns[i];
		const RetlSlice *value = &envelope->row[i];
		int			old = envelope->shape == envelope->old_shape ? i :
			retl_shape_find(envelope->old_shape, column->name, strlen(column->name));

		if (old < 0 || (envelope->old[old].len == value->len &&
						memcmp(envelope->old[old].data, value->data, value->len) == 0))
			continue;
		if (text.len > 1)
			appendStringInfoChar(&text, ',');
		appendStringInfoString(&text, column->name_json);
	}
	appendStringInfoChar(&text, ']');
	return as_slice(&text);
}

static bool
has_old(const RetlEnvelope *envelope)
{
	return envelope->operation == RETL_UPDATED && envelope->old != NULL;
}

static RetlSlice
fetch_member(RetlEnvelopeInput *input, Slot slot)
{
	const RetlEnvelope *envelope = input->envelope;

	switch (slot)
	{
		case SLOT_TYPE:
			return CONSTANT("\"track\"");
		case SLOT_EVENT:
			return input->comparable ? CONSTANT("\"\"") : event_names[envelope->operation];
		case SLOT_OPERATION:
			return input->comparable ? CONSTANT("\"\"") : operation_names[envelope->operation];
		case SLOT_MESSAGE_ID:
			return input->comparable ? CONSTANT("\"\"") : text_slice(envelope->message_id);
		case SLOT_TIMESTAMP:
			return input->comparable ? CONSTANT("\"\"") : text_slice(envelope->timestamp);
		case SLOT_KEY:
			return retl_slice(envelope->key, strlen(envelope->key));
		case SLOT_PROPERTIES:
			if (input->properties.data == NULL)
				input->properties = row_object(envelope->shape, envelope->row);
			return input->properties;
		case SLOT_OLD:
			if (input->old.data == NULL && has_old(envelope) && !input->comparable)
				input->old = row_object(envelope->old_shape, envelope->old);
			return input->old;
		case SLOT_CHANGED:
			if (input->changed.data == NULL && has_old(envelope) && !input->comparable)
				input->changed = changed_columns(envelope);
			return input->changed;
		default:
			return ABSENT;
	}
}

static RetlSlice
fetch(RetlInput *base, int slot)
{
	RetlEnvelopeInput *input = (RetlEnvelopeInput *) base;
	int			column;

	if (slot < FIRST_COLUMN)
		return fetch_member(input, slot);
	slot -= FIRST_COLUMN;
	if (input->columns[slot].old)
	{
		column = input->old_index != NULL ? input->old_index[slot] : -1;
		return column < 0 ? ABSENT : input->envelope->old[column];
	}
	column = input->row_index[slot];
	return column < 0 ? ABSENT : input->envelope->row[column];
}

static RetlSlice
lookup(RetlInput *base, const RetlStep *steps, int nsteps, int *used)
{
	RetlEnvelopeInput *input = (RetlEnvelopeInput *) base;
	const RetlEnvelope *envelope = input->envelope;
	int			member = find_member(&steps[0]);
	const RetlStep *step = &steps[0];
	int			column;

	*used = 1;
	if (member >= 0 && (nsteps == 1 || (member != SLOT_PROPERTIES && member != SLOT_OLD)))
		return fetch_member(input, member);
	if (member >= 0)
	{
		step = &steps[1];
		*used = 2;
	}
	if (member == SLOT_OLD)
	{
		if (!has_old(envelope) || input->comparable)
			return ABSENT;
		column = retl_shape_find(envelope->old_shape, step->key, step->len);
		return column < 0 ? ABSENT : envelope->old[column];
	}
	column = retl_shape_find(envelope->shape, step->key, step->len);
	return column < 0 ? ABSENT : envelope->row[column];
}

static RetlSlice
root(RetlInput *base)
{
	RetlEnvelopeInput *input = (RetlEnvelopeInput *) base;
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < FIRST_COLUMN; i++)
	{
		RetlSlice	value = fetch_member(input, i);

		if (value.data == NULL)
			continue;
		appendStringInfo(&text, "%c\"%s\":", text.len == 0 ? '{' : ',', member_names[i]);
		appendBinaryStringInfo(&text, value.data, value.len);
	}
	appendStringInfoChar(&text, '}');
	return as_slice(&text);
}

/* Where the mapping's columns are in a shape; remembered for the last few shapes. */
static const int *
map_shape(RetlEnvelopeInput *input, const RetlShape *shape)
{
	RetlShapeMap *map;

	for (int i = 0; i < RETL_SHAPE_MAPS; i++)
	{
		map = &input->maps[i];
		if (map->shape == shape && map->number == shape->shape && map->index != NULL)
			return map->index;
	}
	/* not the one that this row uses already */
	if (input->row_index != NULL && input->maps[input->next_map].index == input->row_index)
		input->next_map = (input->next_map + 1) % RETL_SHAPE_MAPS;
	map = &input->maps[input->next_map];
	input->next_map = (input->next_map + 1) % RETL_SHAPE_MAPS;
	if (map->index == NULL)
		map->index = MemoryContextAlloc(input->context, Max(input->ncolumns, 1) * sizeof(int));
	map->shape = shape;
	map->number = shape->shape;
	for (int i = 0; i < input->ncolumns; i++)
		map->index[i] = retl_shape_find(shape, input->columns[i].name, input->columns[i].len);
	return map->index;
}

void
retl_envelope_init(RetlEnvelopeInput *input)
{
	memset(input, 0, sizeof(RetlEnvelopeInput));
	input->base.fetch = fetch;
	input->base.lookup = lookup;
	input->base.root = root;
	input->context = CurrentMemoryContext;
}

void
retl_envelope_set(RetlEnvelopeInput *input, const RetlEnvelope *envelope, bool comparable)
{
	input->envelope = envelope;
	input->comparable = comparable;
	input->base.sql = envelope->sql;
	input->row_index = NULL;
	input->row_index = map_shape(input, envelope->shape);
	input->old_index = has_old(envelope) && !comparable ? map_shape(input, envelope->old_shape) : NULL;
	input->properties = input->old = input->changed = ABSENT;
}
