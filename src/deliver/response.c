/*
 * response.c
 *		Reading answers by a connector's rule; see response.h.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"

#include "deliver/bisect.h"
#include "deliver/response.h"

/* What is kept of a reason. */
#define REASON_MOST 500

/* A value of the answer, and the key of the object over which "[*]" came to it. */
typedef struct Selected
{
	const RetlJson *value;
	const char *key;
	int			keylen;
} Selected;

/* The records of the request, and what is known of them so far. */
typedef struct Reading
{
	int			records;
	RetlVerdict *verdicts;
	bool	   *listed;
	RetlSlice  *sent;			/* each record as it was sent; NULL: not looked up yet */
	bool		sent_missing;
	int			nlisted;
	const char *stored;			/* the request, or NULL */
	const char *body;
	size_t		body_len;
	int			unknown;		/* faults that belong to no record that is known */
	char	   *unknown_reason;
} Reading;

/* ---- paths ---- */

static int
step_len(const char *path)
{
	return strcspn(path, ".[");
}

/* Appends to *selected what "path" ("$.a.b[0].c[*]") leads to. */
static void
follow(const RetlJson *value, const char *path, const char *key, int keylen, List **selected)
{
	if (value == NULL)
		return;
	if (*path == '$')
		path++;
	if (*path == '.')
	{
		int			len = step_len(path + 1);

		follow(retl_json_get(value, path + 1, len), path + 1 + len, key, keylen, selected);
	}
	else if (strncmp(path, "[*]", 3) == 0)
	{
		for (int i = 0; i < value->len && value->type == RETL_JSON_ARRAY; i++)
			follow(value->items[i], path + 3, key, keylen, selected);
		for (int i = 0; i < value->len && value->type == RETL_JSON_OBJECT; i++)
			follow(value->members[i].value, path + 3, value->members[i].key, value->members[i].keylen, selected);
	}
	else if (*path == '[')
	{
		int			index = atoi(path + 1);
		const char *end = strchr(path, ']');

		if (end != NULL && value->type == RETL_JSON_ARRAY && index >= 0 && index < value->len)
			follow(value->items[index], end + 1, key, keylen, selected);
	}
	else
	{
		Selected   *found = palloc(sizeof(Selected));

		*found = (Selected) {value, key, keylen};
		*selected = lappend(*selected, found);
	}
}

static List *
select_all(const RetlJson *value, const char *path)
{
	List	   *selected = NIL;

	follow(value, path, "", 0, &selected);
	return selected;
}

static const RetlJson *
select_one(const RetlJson *value, const char *path)
{
	List	   *selected = select_all(value, path);

	return selected != NIL ? ((Selected *) linitial(selected))->value : NULL;
}

static char *
string_of(const RetlJson *object, const char *name)
{
	RetlJson   *member = retl_json_member(object, name);

	return member != NULL && member->type == RETL_JSON_STRING ? retl_json_cstring(member) : NULL;
}

/* Text of a value: of a string itself, else its JSON. */
static char *
text_of(const RetlJson *value)
{
	StringInfoData text;

	if (value == NULL || value->type == RETL_JSON_NULL)
		return pstrdup("");
	if (value->type == RETL_JSON_STRING)
		return retl_json_cstring(value);
	initStringInfo(&text);
	retl_json_write(&text, value);
	return text.data;
}

/* ---- reasons ---- */

/* A path, or a text with {{path}} in it; {{key}} is the key that "[*]" went over. */
static char *
make_reason(const char *template, const Selected *item)
{
	StringInfoData text;
	const char *at = template;
	const char *open;
	const char *close;

	if (template == NULL)
		return NULL;
	initStringInfo(&text);
	if (template[0] == '$')
		appendStringInfoString(&text, text_of(select_one(item->value, template)));
	else
	{
		while ((open = strstr(at, "{{")) != NULL && (close = strstr(open, "}}")) != NULL)
		{
			char	   *path = pnstrdup(open + 2, close - open - 2);

			appendBinaryStringInfo(&text, at, open - at);
			if (strcmp(path, "key") == 0)
				appendBinaryStringInfo(&text, item->key, item->keylen);
			else
				appendStringInfoString(&text, text_of(select_one(item->value, path)));
			at = close + 2;
		}
		appendStringInfoString(&text, at);
	}
	if (text.len > REASON_MOST)
		text.data[pg_mbcliplen(text.data, text.len, REASON_MOST)] = '\0';
	return text.len > 0 ? text.data : NULL;
}

/* ---- conditions ---- */

static bool
is_empty(const RetlJson *value)
{
	if (value == NULL || value->type == RETL_JSON_NULL)
		return true;
	if (value->type == RETL_JSON_BOOL)
		return !value->boolean;
	if (value->type == RETL_JSON_NUMBER)
		return retl_json_double(value->text, value->len) == 0;
	return value->len == 0;
}

static bool
same(const RetlJson *a, const RetlJson *b)
{
	return a->type == b->type && strcmp(text_of(a), text_of(b)) == 0;
}

static bool
status_is(const RetlJson *wanted, int status)
{
	if (wanted->type == RETL_JSON_NUMBER)
		return retl_json_double(wanted->text, wanted->len) == status;
	if (wanted->type == RETL_JSON_STRING)
		return wanted->len == 3 && wanted->text[0] == '0' + status / 100;
	for (int i = 0; i < wanted->len && wanted->type == RETL_JSON_ARRAY; i++)
	{
		if (status_is(wanted->items[i], status))
			return true;
	}
	return false;
}

/* {"status", "path", "is"}: without "is" the path must lead to something that is not empty. */
static bool
holds(const RetlJson *condition, const RetlJson *value, int status)
{
	RetlJson   *wanted = retl_json_member(condition, "status");
	RetlJson   *is = retl_json_member(condition, "is");
	char	   *path = string_of(condition, "path");
	const RetlJson *found;

	if (condition == NULL)
		return true;
	if (wanted != NULL && !status_is(wanted, status))
		return false;
	if (path == NULL)
		return true;
	found = select_one(value, path);
	if (is == NULL)
		return !is_empty(found);
	if (found == NULL)
		return false;
	for (int i = 0; i < is->len && is->type == RETL_JSON_ARRAY; i++)
	{
		if (same(is->items[i], found))
			return true;
	}
	return is->type != RETL_JSON_ARRAY && same(is, found);
}

static const char *const kinds[] = {
	[RETL_VERDICT_ACCEPTED] = "accepted",
	[RETL_VERDICT_REJECTED] = "rejected",
	[RETL_VERDICT_RETRY] = "retry",
	[RETL_VERDICT_AGAIN] = "again",
};

static RetlVerdictKind
kind_of(const RetlJson *rule, const char *name, RetlVerdictKind otherwise)
{
	RetlJson   *kind = retl_json_member(rule, name);

	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (retl_json_is_string(kind, kinds[i]))
			return (RetlVerdictKind) i;
	}
	return otherwise;
}

/* ---- records that are listed ---- */

/* Where a record is that the answer gives the number of; -1: it does not. */
static int
index_of(const RetlJson *index, const RetlJson *item)
{
	char	   *path = index->type == RETL_JSON_STRING ? retl_json_cstring(index) : string_of(index, "path");
	char	   *after = string_of(index, "after");
	char	   *text;

	if (path == NULL)
		return -1;
	text = text_of(select_one(item, path));
	if (after != NULL)
	{
		char	   *found = strstr(text, after);

		if (found == NULL)
			return -1;
		text = found + strlen(after);
	}
	return *text >= '0' && *text <= '9' ? atoi(text) : -1;
}

static void
set_verdict(Reading *reading, int record, RetlVerdictKind kind, char *reason)
{
	RetlVerdict *verdict = &reading->verdicts[record];

	/* the worst that is said of a record counts, and what was said first */
	if (reading->listed[record] && verdict->kind == RETL_VERDICT_REJECTED)
		return;
	reading->listed[record] = true;
	reading->nlisted++;
	verdict->kind = kind;
	verdict->reason = reason;
}

/* All records whose value at "path" is "text"; how many there were. */
static int
set_by_key(Reading *reading, const char *path, const char *text, RetlVerdictKind kind, char *reason)
{
	int			count = 0;

	if (reading->sent == NULL && !reading->sent_missing)
	{
		reading->sent = retl_bisect_records(reading->stored, reading->body, reading->body_len, reading->records);
		reading->sent_missing = reading->sent == NULL;
	}
	for (int i = 0; i < reading->records && reading->sent != NULL; i++)
	{
		char	   *ignored;
		RetlJson   *record = retl_json_parse(reading->sent[i].data, reading->sent[i].len, &ignored);
		const RetlJson *value = select_one(record, path);

		if (value == NULL || pg_strcasecmp(text_of(value), text) != 0)
			continue;
		set_verdict(reading, i, kind, reason);
		count++;
	}
	return count;
}

/* Path number "n" of one or several; NULL: there are not as many. */
static const char *
alternative(const RetlJson *paths, int n)
{
	if (paths != NULL && paths->type == RETL_JSON_ARRAY)
		return n < paths->len && paths->items[n]->type == RETL_JSON_STRING ? retl_json_cstring(paths->items[n]) : NULL;
	return paths != NULL && paths->type == RETL_JSON_STRING && n == 0 ? retl_json_cstring(paths) : NULL;
}

static void
read_item(Reading *reading, const RetlJson *source, const Selected *item, int status)
{
	RetlJson   *index = retl_json_member(source, "index");
	RetlJson   *key = retl_json_member(source, "key");
	RetlJson   *record = retl_json_member(source, "record");
	RetlVerdictKind kind = kind_of(source, "outcome", RETL_VERDICT_REJECTED);
	char	   *reason;
	int			found = 0;

	if (!holds(retl_json_member(source, "when"), item->value, status))
		return;
	reason = make_reason(string_of(source, "reason"), item);
	if (index != NULL)
	{
		int			number = index_of(index, item->value);

		if (number >= 0 && number < reading->records)
		{
			set_verdict(reading, number, kind, reason);
			found++;
		}
	}
	for (int n = 0; found == 0 && alternative(key, n) != NULL && alternative(record, n) != NULL; n++)
	{
		List	   *keys = select_all(item->value, alternative(key, n));

		for (int i = 0; i < list_length(keys); i++)
			found += set_by_key(reading, alternative(record, n), text_of(((Selected *) list_nth(keys, i))->value),
								kind, reason);
	}
	if (found == 0 && kind != RETL_VERDICT_ACCEPTED)
	{
		reading->unknown++;
		if (reading->unknown_reason == NULL)
			reading->unknown_reason = reason;
	}
}

static void
read_listed(Reading *reading, const RetlJson *source, const RetlJson *answer, int status)
{
	char	   *at = string_of(source, "at");
	List	   *items = select_all(answer, at != NULL ? at : "$");

	/* a list itself, or what "[*]" found in it */
	for (int i = 0; i < list_length(items); i++)
	{
		const Selected *item = list_nth(items, i);

		if (item->value->type != RETL_JSON_ARRAY)
			read_item(reading, source, item, status);
		else
		{
			for (int j = 0; j < item->value->len; j++)
			{
				Selected	inner = {item->value->items[j], item->key, item->keylen};

				if (inner.value != NULL)
					read_item(reading, source, &inner, status);
			}
		}
	}
}

/* A result for each record, in their order. */
static void
read_results(Reading *reading, const RetlJson *results, const RetlJson *answer, int status)
{
	char	   *at = string_of(results, "at");
	const RetlJson *list = select_one(answer, at != NULL ? at : "$");
	RetlJson   *retry = retl_json_member(results, "retry");

	if (list != NULL && list->type == RETL_JSON_OBJECT && reading->records == 1)
	{
		RetlJson   *alone = retl_json_array();

		retl_json_push(alone, unconstify(RetlJson *, list));
		list = alone;
	}
	if (list == NULL || list->type != RETL_JSON_ARRAY || list->len != reading->records)
	{
		reading->unknown++;
		return;
	}
	for (int i = 0; i < list->len; i++)
	{
		Selected	item = {list->items[i], "", 0};

		if (holds(retl_json_member(results, "accepted"), item.value, status))
			set_verdict(reading, i, RETL_VERDICT_ACCEPTED, NULL);
		else
			set_verdict(reading, i,
						retry != NULL && holds(retry, item.value, status) ? RETL_VERDICT_RETRY : RETL_VERDICT_REJECTED,
						make_reason(string_of(results, "reason"), &item));
	}
}

/* ---- answers ---- */

static void
read_case(Reading *reading, const RetlJson *rule, const RetlJson *answer, int status)
{
	RetlJson   *listed = retl_json_member(rule, "listed");
	RetlJson   *results = retl_json_member(rule, "results");
	RetlVerdictKind others = status >= 200 && status < 300 ? RETL_VERDICT_ACCEPTED : RETL_VERDICT_AGAIN;
	Selected	whole = {answer, "", 0};
	char	   *reason;

	if (listed != NULL && listed->type == RETL_JSON_OBJECT)
		read_listed(reading, listed, answer, status);
	for (int i = 0; listed != NULL && listed->type == RETL_JSON_ARRAY && i < listed->len; i++)
		read_listed(reading, listed->items[i], answer, status);
	if (results != NULL)
		read_results(reading, results, answer, status);

	others = kind_of(rule, "others", kind_of(rule, "all", others));
	reason = make_reason(string_of(rule, "reason"), &whole);
	if (reading->unknown > 0)
	{
		/* somebody is at fault: those who may be are asked about again */
		others = RETL_VERDICT_AGAIN;
		if (reason == NULL)
			reason = reading->unknown_reason;
	}
	for (int i = 0; i < reading->records; i++)
	{
		if (reading->listed[i])
			continue;
		reading->verdicts[i].kind = others;
		reading->verdicts[i].reason = others == RETL_VERDICT_ACCEPTED ? NULL : reason;
	}
}

/* Statuses that a rule is about unless it names others: success, and what is wrong with records. */
static bool
about_records(int status)
{
	return (status >= 200 && status < 300) || status == 400 || status == 413 || status == 422;
}

/* Whether a case may be about an answer with that status, whatever is in it. */
static bool
would_hold(const RetlJson *condition, int status)
{
	RetlJson   *wanted = retl_json_member(condition, "status");

	return wanted != NULL ? status_is(wanted, status) : about_records(status);
}

bool
retl_response_read(const RetlJson *rule, int status, const char *answer, size_t answer_len,
				   const char *stored, const char *sent, size_t sent_len, int records, RetlVerdict *verdicts,
				   bool *unreadable)
{
	Reading		reading = {.records = records, .verdicts = verdicts, .stored = stored, .body = sent, .body_len = sent_len};
	RetlJson   *tree = NULL;
	char	   *error;
	int			cases = rule->type == RETL_JSON_ARRAY ? rule->len : 1;

	*unreadable = false;
	if (answer_len > 0 && answer_len <= PG_INT32_MAX && pg_verify_mbstr(PG_UTF8, answer, answer_len, true))
		tree = retl_json_parse(answer, answer_len, &error);
	for (int i = 0; i < cases; i++)
	{
		const RetlJson *one = rule->type == RETL_JSON_ARRAY ? rule->items[i] : rule;
		bool		reads = retl_json_member(one, "all") == NULL;

		/* that is for retl_response_next() */
		if (retl_json_member(one, "next") != NULL)
			continue;
		if (reads && tree == NULL && answer_len > 0 && would_hold(retl_json_member(one, "when"), status))
			*unreadable = true;
		if (!holds(retl_json_member(one, "when"), tree, status) || (reads && tree == NULL) ||
			(retl_json_member(retl_json_member(one, "when"), "status") == NULL && !about_records(status)))
			continue;
		memset(verdicts, 0, records * sizeof(RetlVerdict));
		reading.listed = palloc0(records * sizeof(bool));
		reading.unknown = reading.nlisted = 0;
		read_case(&reading, one, tree, status);
		/* a refusal that names nobody is for the status to interpret */
		if (!reads || status < 300 || reading.nlisted > 0 || reading.unknown > 0)
			return true;
	}
	return false;
}

/* What of a text can be a part of a URL's path: letters, digits, "-", "_" and "." */
static int
segment_len(const char *text)
{
	int			len = 0;

	while ((text[len] >= 'a' && text[len] <= 'z') || (text[len] >= 'A' && text[len] <= 'Z') ||
		   (text[len] >= '0' && text[len] <= '9') || (text[len] != '\0' && strchr("-_.", text[len]) != NULL))
		len++;
	return len;
}

/* The stored request with a method of "next", and the value appended to the path of its URL. */
static char *
write_next(const RetlJson *next, const char *value, RetlJson *request)
{
	RetlJson   *url = retl_json_member(request, "url");
	RetlJson   *method = retl_json_member(next, "method");
	StringInfoData text;
	int			path_len;

	if (url == NULL || url->type != RETL_JSON_STRING || retl_json_member(request, "step") != NULL)
		return NULL;
	path_len = strcspn(retl_json_cstring(url), "?#");
	initStringInfo(&text);
	appendBinaryStringInfo(&text, url->text, path_len);
	appendStringInfo(&text, "/%s", value);
	appendBinaryStringInfo(&text, url->text + path_len, url->len - path_len);
	retl_json_set(request, "url", strlen("url"), retl_json_string(text.data, text.len));
	if (method != NULL)
		retl_json_set(request, "method", strlen("method"), method);
	retl_json_set(request, "step", strlen("step"), retl_json_number("2", 1));
	initStringInfo(&text);
	retl_json_write(&text, request);
	return text.data;
}

char *
retl_response_next(const RetlJson *rule, int status, const char *answer, size_t answer_len, const char *stored)
{
	int			cases = rule->type == RETL_JSON_ARRAY ? rule->len : 1;
	char	   *error;
	RetlJson   *request = retl_json_parse(stored, strlen(stored), &error);
	RetlJson   *tree = NULL;

	if (answer_len > 0 && answer_len <= PG_INT32_MAX && pg_verify_mbstr(PG_UTF8, answer, answer_len, true))
		tree = retl_json_parse(answer, answer_len, &error);
	for (int i = 0; i < cases && tree != NULL && request != NULL; i++)
	{
		const RetlJson *one = rule->type == RETL_JSON_ARRAY ? rule->items[i] : rule;
		RetlJson   *next = retl_json_member(one, "next");
		RetlJson   *append = retl_json_member(next, "append");
		char	   *path = string_of(append, "path");
		char	   *after = string_of(append, "after");
		char	   *value;

		if (path == NULL || !holds(retl_json_member(one, "when"), tree, status))
			continue;
		value = text_of(select_one(tree, path));
		if (after != NULL)
			value = strstr(value, after) != NULL ? strstr(value, after) + strlen(after) : pstrdup("");
		value[segment_len(value)] = '\0';
		if (value[0] == '\0' || strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
			continue;
		return write_next(next, value, request);
	}
	return NULL;
}

const RetlJson *
retl_response_rule(const RetlJson *connector, const char *stored)
{
	RetlSlice	name = retl_slice_member(retl_slice(stored, strlen(stored)), "action", strlen("action"));
	const char *text;
	int			len;

	if (name.data == NULL || retl_slice_type(name) != RETL_JSON_STRING)
		return NULL;
	text = retl_slice_text(name, &len);
	return retl_json_member(retl_json_get(retl_json_member(connector, "actions"), text, len), "response");
}

/* ---- rules ---- */

/* Members of each part of a rule, and of what type they are ('*': see below). */
typedef struct Member
{
	const char *name;
	char		type;			/* p path, t text, c condition, o outcome, i index, k path or paths, s source or sources, r results, n next, v any */
} Member;

static const Member case_members[] = {
	{"when", 'c'}, {"listed", 's'}, {"results", 'r'}, {"all", 'o'}, {"others", 'o'}, {"reason", 't'}, {"next", 'n'}, {NULL, 0}
};
static const Member next_members[] = {{"method", 't'}, {"append", 'i'}, {NULL, 0}};
static const Member source_members[] = {
	{"at", 'p'}, {"index", 'i'}, {"key", 'k'}, {"record", 'k'}, {"when", 'c'}, {"outcome", 'o'}, {"reason", 't'}, {NULL, 0}
};
static const Member results_members[] = {
	{"at", 'p'}, {"accepted", 'c'}, {"retry", 'c'}, {"reason", 't'}, {NULL, 0}
};
static const Member condition_members[] = {{"status", 'v'}, {"path", 'p'}, {"is", 'v'}, {NULL, 0}};
static const Member index_members[] = {{"path", 'p'}, {"after", 't'}, {NULL, 0}};

static char *check_members(const RetlJson *object, const Member *members, const char *place);

static bool
is_path(const RetlJson *value)
{
	return value->type == RETL_JSON_STRING && value->len > 0 && value->text[0] == '$' &&
		(value->len == 1 || value->text[1] == '.' || value->text[1] == '[');
}

static char *
check_member(const RetlJson *value, char type, const char *place)
{
	switch (type)
	{
		case 'p':
			return is_path(value) ? NULL : psprintf("%s: it must be a path such as \"$\" or \"$[*]\", with dots before names.", place);
		case 't':
			return value->type == RETL_JSON_STRING ? NULL : psprintf("%s: it must be a string.", place);
		case 'o':
			for (int i = 0; i < lengthof(kinds); i++)
			{
				if (retl_json_is_string(value, kinds[i]))
					return NULL;
			}
			return psprintf("%s: it must be accepted, rejected, retry or again.", place);
		case 'k':
			for (int i = 0; value->type == RETL_JSON_ARRAY && i < value->len; i++)
			{
				if (!is_path(value->items[i]))
					return check_member(value->items[i], 'p', psprintf("%s/%d", place, i));
			}
			return value->type == RETL_JSON_ARRAY ? NULL : check_member(value, 'p', place);
		case 'i':
			return value->type == RETL_JSON_OBJECT ? check_members(value, index_members, place) :
				check_member(value, 'p', place);
		case 'c':
			return check_members(value, condition_members, place);
		case 'n':
			return check_members(value, next_members, place);
		case 'r':
			return check_members(value, results_members, place);
		case 's':
			if (value->type != RETL_JSON_ARRAY)
				return check_members(value, source_members, place);
			for (int i = 0; i < value->len; i++)
			{
				char	   *problem = check_members(value->items[i], source_members, psprintf("%s/%d", place, i));

				if (problem != NULL)
					return problem;
			}
			return NULL;
		default:
			return NULL;
	}
}

static char *
check_members(const RetlJson *object, const Member *members, const char *place)
{
	if (object->type != RETL_JSON_OBJECT)
		return psprintf("%s: it must be an object, not %s.", place, retl_json_type_name(object));
	for (int i = 0; i < object->len; i++)
	{
		char	   *name = pnstrdup(object->members[i].key, object->members[i].keylen);
		const Member *member = members;
		char	   *problem;

		while (member->name != NULL && strcmp(member->name, name) != 0)
			member++;
		if (member->name == NULL)
			return psprintf("%s/%s: there is no such member.", place, name);
		problem = check_member(object->members[i].value, member->type, psprintf("%s/%s", place, name));
		if (problem != NULL)
			return problem;
	}
	return NULL;
}

char *
retl_response_check(const RetlJson *rule)
{
	if (rule->type != RETL_JSON_ARRAY)
		return check_members(rule, case_members, "");
	for (int i = 0; i < rule->len; i++)
	{
		char	   *problem = check_members(rule->items[i], case_members, psprintf("/%d", i));

		if (problem != NULL)
			return problem;
	}
	return NULL;
}
