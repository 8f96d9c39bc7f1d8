/*
 * strategy.c
 *		Choosing how much of a model to read; see strategy.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "model/strategy.h"

/* Looks, a millisecond apart, at writers that are about to have committed. */
#define SETTLE_TRIES 10

static TimestampTz
add_seconds(TimestampTz time, double seconds)
{
	double		micros = seconds * USECS_PER_SEC;

	if (TIMESTAMP_NOT_FINITE(time))
		return time;
	/* an interval can be longer than time is */
	if (time + micros >= (double) END_TIMESTAMP)
		return DT_NOEND;
	if (time + micros <= (double) MIN_TIMESTAMP)
		return DT_NOBEGIN;
	return time + (int64) micros;
}

/* --------------------------------------------------------------------------
 * Reading nothing
 * -------------------------------------------------------------------------- */

static bool
full_is_due(const RetlStrategy *strategy)
{
	return strategy->now >= add_seconds(strategy->state->full_at, strategy->scan->model->full_every);
}

/* Under the snapshot that sees the requests: whether what it would read is what was read last. */
static bool
is_needless(void *arg)
{
	RetlStrategy *strategy = arg;
	const RetlModelState *state = strategy->state;
	const RetlModel *model = strategy->scan->model;
	RetlEvidence evidence;

	if (model->max_skip <= 0)
		strategy->not_skipped = "max_skip is 0";
	else if (strategy->reads.refusal != NULL)
		strategy->not_skipped = psprintf("writes cannot be seen: %s", strategy->reads.refusal);
	else if (strategy->now >= add_seconds(state->read_at, model->max_skip))
		strategy->not_skipped = "max_skip has passed since the model was read";
	else if (state->full_at != state->read_at && full_is_due(strategy))
		strategy->not_skipped = "full_every has passed since the model was read as a whole";
	else
	{
		retl_reads_evidence(&strategy->reads, NULL, &evidence);
		if (evidence.refusal != NULL)
			strategy->not_skipped = psprintf("writes cannot be seen: %s", evidence.refusal);
		else if (strcmp(evidence.definition, state->definition) != 0)
			strategy->not_skipped = "what the model reads was altered or rebuilt";
		else if (state->writes == NULL)
			strategy->not_skipped = "what the model reads was being written when it was read";
		else if (evidence.writes == NULL || strcmp(evidence.writes, state->writes) != 0)
			strategy->not_skipped = "what the model reads was written";
		else
			return true;
	}
	return false;
}

/* --------------------------------------------------------------------------
 * Reading a part
 * -------------------------------------------------------------------------- */

/* -1 and a reason, where the column cannot be used. */
static int
watermark_column(const RetlScan *scan, char **reason)
{
	const RetlModelColumns *columns = scan->columns;

	if (scan->model->watermark == NULL)
		return -1;
	for (int i = 0; i < columns->count; i++)
	{
		Oid			type;

		if (strcmp(columns->names[i], scan->model->watermark) != 0)
			continue;
		type = getBaseType(columns->types[i]);
		if (type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID)
			return i;
		*reason = psprintf("watermark \"%s\" is no date or timestamp", scan->model->watermark);
		return -1;
	}
	*reason = psprintf("the model has no column \"%s\", its watermark", scan->model->watermark);
	return -1;
}

static bool
choose_watermark(RetlStrategy *strategy)
{
	const RetlModelState *state = strategy->state;
	RetlScan   *scan = strategy->scan;

	if (scan->scope.column < 0)
		return false;
	if (state->watermark == DT_NOBEGIN)
		strategy->reason = "no watermark is known yet";
	else if (full_is_due(strategy))
		strategy->reason = "full_every has passed since the model was read as a whole";
	else if (strcmp(strategy->evidence.definition, state->definition) != 0)
		strategy->reason = "what the model reads was altered or rebuilt";
	else
	{
		scan->scope.kind = RETL_SCOPE_WATERMARK;
		scan->scope.from = add_seconds(state->watermark, -scan->model->watermark_overlap);
		if (retl_scan_plan(scan))
		{
			strategy->name = "watermark";
			strategy->reason = psprintf("\"%s\" from %s on", scan->model->watermark,
										timestamptz_to_str(scan->scope.from));
			return true;
		}
		strategy->reason = psprintf("the planner cannot push a condition on \"%s\" down to a table",
									scan->model->watermark);
	}
	return false;
}

static bool
choose_keys(RetlStrategy *strategy)
{
	RetlScan   *scan = strategy->scan;

	scan->scope.kind = RETL_SCOPE_KEYS;
	scan->scope.keys = strategy->wanted->keys;
	if (retl_scan_plan(scan))
	{
		strategy->name = "keys";
		strategy->reason = psprintf("%d keys", scan->scope.keys->count);
		return true;
	}
	strategy->reason = "the planner cannot push a condition on the key down to a table";
	return false;
}

/* A part of the model, if that is enough and can be had. */
static bool
choose_part(RetlStrategy *strategy)
{
	if (strategy->state->seq == 0)
		strategy->reason = "first snapshot";
	else if (strategy->wanted->full)
		strategy->reason = "asked for";
	else if (strategy->scan->all)
		strategy->reason = "the model's columns have changed";
	else
	{
		strategy->scan->is_needless = is_needless;
		strategy->scan->needless_arg = strategy;
		if (strategy->state->definition == NULL)
			strategy->scan->is_needless = NULL;
		if (strategy->wanted->keys != NULL)
		{
			/* who names keys wants them read */
			if (choose_keys(strategy))
			{
				strategy->scan->is_needless = NULL;
				return true;
			}
		}
		else if (strategy->state->definition != NULL)
			return choose_watermark(strategy);
	}
	return false;
}

/*
 * The evidence that is kept. Whoever asked for this snapshot may be at the last
 * step of the commit that we have seen: that is worth a moment.
 */
static void
settle(RetlStrategy *strategy, const RetlCatalogWrites *catalogs)
{
	for (int i = 0; i < SETTLE_TRIES; i++)
	{
		if (i > 0)
			pg_usleep(1000L);
		CHECK_FOR_INTERRUPTS();
		retl_reads_evidence(&strategy->reads, catalogs, &strategy->evidence);
		if (strategy->evidence.writes != NULL || strategy->evidence.refusal != NULL || !catalogs->settled)
			break;
	}
}

void
retl_strategy_choose(RetlStrategy *strategy, const RetlCatalogWrites *catalogs)
{
	RetlScan   *scan = strategy->scan;

	scan->scope.column = watermark_column(scan, &strategy->reason);
	/* what choosing goes by; evidence of writes comes last, when all is locked */
	retl_reads_evidence(&strategy->reads, catalogs, &strategy->evidence);
	if (!choose_part(strategy))
	{
		scan->scope.kind = RETL_SCOPE_ALL;
		strategy->name = "full";
		(void) retl_scan_plan(scan);
	}
	settle(strategy, catalogs);
}

void
retl_strategy_finish(RetlStrategy *strategy)
{
	if (!strategy->scan->executed)
	{
		strategy->name = "skipped";
		strategy->reason = psprintf("nothing that the model reads was written since %s",
									timestamptz_to_str(strategy->state->read_at));
	}
	else if (strategy->reason == NULL)
		strategy->reason = strategy->not_skipped;
}
