/*
 * resend.c
 *		What an edited mapping sends again: which versions lie between the one
 *		that planned last and the run's, and the earlier one, compiled, so that
 *		what it made of a row can be compared with what is made of it now.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/sql.h"
#include "run/plan_state.h"

typedef struct Version
{
	const char *connector;
	const char *action;
	const char *settings;
	char	   *fields;
	char	   *filter;			/* or NULL */
	int			batch_size;
} Version;

static void
compile(RunPlan *plan, const Version *version)
{
	const RetlShape *shape = retl_plan_shape(plan, plan->shape);
	RetlMapping *mapping = retl_mapping_compile(version->connector, version->action, version->fields,
												version->settings, version->batch_size);
	int			count = retl_mapping_sql_count(mapping);
	const char **expressions = palloc(sizeof(char *) * Max(count, 1));
	const char *filter = version->filter;
	RetlSqlSet *sql = NULL;

	for (int i = 0; i < count; i++)
		expressions[i] = retl_mapping_sql(mapping, i);
	if (count > 0)
		sql = retl_sql_prepare(shape, count, expressions, plan->model->owner, plan->model->search_path);
	if (filter != NULL)
		plan->before_filter = retl_sql_prepare(shape, 1, &filter, plan->model->owner, plan->model->search_path);
	plan->before_sql = sql;
	plan->before = mapping;
}

/*
 * The earlier version may name a column or a field that is gone: then nothing
 * is known of what it made of a row, and every row counts as changed.
 */
static void
try_compile(RunPlan *plan, const Version *version)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		compile(plan, version);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		int			code;
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		code = ERRCODE_TO_CATEGORY(error->sqlerrcode);
		if (code == ERRCODE_OPERATOR_INTERVENTION || code == ERRCODE_INSUFFICIENT_RESOURCES ||
			code == ERRCODE_TRANSACTION_ROLLBACK)
			ReThrowError(error);
		FreeErrorData(error);
		plan->before = NULL;
		plan->before_sql = NULL;
		plan->before_filter = NULL;
	}
	PG_END_TRY();
}

void
retl_plan_load_resend(RunPlan *plan, const char *connector, const char *action, const char *settings)
{
	RetlArgs	args = {0};
	Version		version = {.connector = connector, .action = action, .settings = settings};
	RetlResend	asked;

	/* a first sync sends everything anyway */
	if (plan->from_seq < 0)
		return;
	retl_arg_int8(&args, plan->mapping_id);
	retl_arg_int4(&args, plan->version);
	if (retl_sql("SELECT b.fields::pg_catalog.text, b.filter, COALESCE(b.batch_size, 0),"
				 "  (SELECT pg_catalog.max(CASE v.resend WHEN 'all' THEN 2 WHEN 'changed' THEN 1 ELSE 0 END)"
				 "   FROM retl.mapping_version v WHERE v.mapping = $1 AND v.version > s.version AND v.version <= $2)"
				 " FROM retl.mapping_state s"
				 "  JOIN retl.mapping_version b ON b.mapping = s.mapping AND b.version = s.version"
				 " WHERE s.mapping = $1 AND s.version < $2", &args) != 1)
		return;
	asked = (RetlResend) retl_result_int4(0, 4);
	if (asked == RETL_RESEND_NONE)
		return;

	/* a run that is being stopped sends nothing: the next one is to do it */
	if (plan->stopping)
	{
		plan->keep_version = true;
		return;
	}
	plan->resend = asked;
	version.fields = retl_result_text(0, 1);
	version.filter = retl_result_text(0, 2);
	version.batch_size = retl_result_int4(0, 3);
	try_compile(plan, &version);
}
