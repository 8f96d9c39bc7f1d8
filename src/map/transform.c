/*
 * transform.c
 *		retl.transform(mapping, event): the mapping language by itself.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "map/eval.h"

PG_FUNCTION_INFO_V1(retl_transform);

/* Compiled mapping of the last call: a query maps many events by one mapping. */
typedef struct Compiled
{
	MemoryContext context;
	char	   *source;
	int			source_len;
	RetlNode   *node;
} Compiled;

static void
invalid(const char *message, List *others)
{
	StringInfoData detail;

	initStringInfo(&detail);
	for (int i = 1; i < list_length(others); i++)
		appendStringInfo(&detail, "%s%s", i > 1 ? "\n" : "", (char *) list_nth(others, i));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 detail.len > 0 ? errdetail("%s", detail.data) : 0));
}

static RetlJson *
parse(const char *text, int len, const char *what)
{
	char	   *error;
	RetlJson   *json = retl_json_parse(text, len, &error);

	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be read", what),
				 errdetail("%s.", error)));
	return json;
}

static RetlNode *
compile(const char *source, int len)
{
	RetlScope	scope = {NULL};
	RetlJson   *mapping = parse(source, len, "mapping");
	char	   *error = NULL;
	char	   *ignored = NULL;
	List	   *messages;

	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("mappings need a database whose encoding is UTF8"),
				 errdetail("The encoding of this database is %s.", GetDatabaseEncodingName())));
	mapping = retl_root_directive(mapping, &error);
	if (error != NULL)
		invalid(error, NIL);
	messages = retl_validate(mapping);
	if (messages != NIL)
		invalid(linitial(messages), messages);
	return retl_compile(mapping, &scope, &ignored);
}

static RetlNode *
compiled_mapping(FunctionCallInfo fcinfo, text *mapping)
{
	Compiled   *compiled = fcinfo->flinfo->fn_extra;
	const char *source = VARDATA_ANY(mapping);
	int			len = VARSIZE_ANY_EXHDR(mapping);
	MemoryContext caller;

	if (compiled == NULL)
	{
		compiled = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Compiled));
		compiled->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "retl.transform",
												  ALLOCSET_DEFAULT_SIZES);
		fcinfo->flinfo->fn_extra = compiled;
	}
	if (compiled->node != NULL && compiled->source_len == len &&
		memcmp(compiled->source, source, len) == 0)
		return compiled->node;

	compiled->node = NULL;
	MemoryContextReset(compiled->context);
	caller = MemoryContextSwitchTo(compiled->context);
	compiled->source = pnstrdup(source, len);
	compiled->source_len = len;
	compiled->node = compile(compiled->source, len);
	MemoryContextSwitchTo(caller);
	return compiled->node;
}

/* Strict: without a mapping or an event there is nothing to say. */
Datum
retl_transform(PG_FUNCTION_ARGS)
{
	text	   *event = PG_GETARG_TEXT_PP(1);
	RetlSlice	root = retl_slice(VARDATA_ANY(event), VARSIZE_ANY_EXHDR(event));
	RetlNode   *node;
	StringInfoData out;
	char	   *error = NULL;
	bool		present;

	if (retl_slice_type(root) != RETL_JSON_OBJECT)
		invalid(psprintf("data must be an object, got %s",
						 retl_value_type_name(retl_value_slice(root))), NIL);
	node = compiled_mapping(fcinfo, PG_GETARG_TEXT_PP(0));
	initStringInfo(&out);
	present = retl_emit(node, NULL, retl_value_slice(root), &out, &error);
	if (error != NULL)
		invalid(error, NIL);
	if (!present)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
