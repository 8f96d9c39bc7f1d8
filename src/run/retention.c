/*
 * retention.c
 *		How long history is kept; see retention.h.
 *
 * Each kind of history has a setting in minutes, 0 for ever. What belongs to a
 * run goes as a whole some time after the run's end; the run says what it still
 * has, so that finding the next one is a look at an index. No kind outlives the
 * run itself.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/sql.h"
#include "run/retention.h"

/* Rows a transaction removes of one kind, and runs it looks at. */
#define PORTION "5000"
#define RUNS "50"

typedef struct Kind
{
	const char *what;
	const int  *minutes;
	const char *oldest;			/* SQL: when the oldest one's time began, or no row or NULL */
	const char *runs;			/* SQL: runs ended before $1 that have some; NULL: not of runs */
	const char *remove;			/* SQL: removes a portion, of runs $1 or before time $1 */
	const char *done;			/* SQL: says of those of runs $1 of which nothing is left that it is so */
} Kind;

#define OLDEST_RUN(has) "SELECT pg_catalog.min(finished_at) FROM retl.run WHERE " has
#define ENDED_RUNS(has) \
	"SELECT pg_catalog.array_agg(id) FROM (SELECT id FROM retl.run WHERE finished_at < $1 AND " has \
	"  ORDER BY finished_at LIMIT " RUNS ") r"
#define NOTHING_LEFT(has, left) \
	"UPDATE retl.run r SET " has " = false WHERE r.id = ANY ($1)" \
	" AND NOT EXISTS (SELECT FROM retl.batch b " left " WHERE b.run = r.id)"

/* In this order: a run goes when nothing of it is left. */
static const Kind kinds[] = {
	{
		"answers", &retl_answer_retention,
		OLDEST_RUN("has_answers"), ENDED_RUNS("has_answers"),
		"UPDATE retl.attempt SET answer = NULL WHERE (batch, attempt) IN (SELECT a.batch, a.attempt"
		" FROM retl.batch b JOIN retl.attempt a ON a.batch = b.id"
		" WHERE b.run = ANY ($1) AND a.answer IS NOT NULL LIMIT " PORTION ")",
		NOTHING_LEFT("has_answers", "JOIN retl.attempt a ON a.batch = b.id AND a.answer IS NOT NULL")
	},
	{
		"attempts", &retl_attempt_retention,
		OLDEST_RUN("has_attempts"), ENDED_RUNS("has_attempts"),
		"DELETE FROM retl.attempt WHERE (batch, attempt) IN (SELECT a.batch, a.attempt"
		" FROM retl.batch b JOIN retl.attempt a ON a.batch = b.id WHERE b.run = ANY ($1) LIMIT " PORTION ")",
		NOTHING_LEFT("has_attempts", "JOIN retl.attempt a ON a.batch = b.id")
	},
	{
		"bodies", &retl_body_retention,
		OLDEST_RUN("has_bodies"), ENDED_RUNS("has_bodies"),
		"DELETE FROM retl.batch_body WHERE batch IN (SELECT y.batch"
		" FROM retl.batch b JOIN retl.batch_body y ON y.batch = b.id WHERE b.run = ANY ($1) LIMIT " PORTION ")",
		NOTHING_LEFT("has_bodies", "JOIN retl.batch_body y ON y.batch = b.id")
	},
	{
		"requests", &retl_run_retention,
		OLDEST_RUN("has_batches"), ENDED_RUNS("has_batches"),
		"DELETE FROM retl.batch WHERE id IN (SELECT b.id FROM retl.batch b WHERE b.run = ANY ($1) LIMIT " PORTION ")",
		NOTHING_LEFT("has_batches", "")
	},
	{
		"runs", &retl_run_retention,
		OLDEST_RUN("NOT has_batches"), ENDED_RUNS("NOT has_batches"),
		"DELETE FROM retl.run WHERE id = ANY ($1) OR served_by = ANY ($1)", NULL
	},
	{
		/* the last ones show what is usual for a model */
		"snapshots", &retl_run_retention,
		"SELECT pg_catalog.min(n.finished_at) FROM retl.snapshot n JOIN retl.model_state s ON s.model = n.model"
		" WHERE n.seq <= s.seq - 100",
		NULL,
		"DELETE FROM retl.snapshot n USING retl.model_state s"
		" WHERE s.model = n.model AND n.seq <= s.seq - 100 AND n.finished_at < $1", NULL
	},
	{
		"failed rows", &retl_failed_row_retention,
		"SELECT pg_catalog.min(x.failed_at) FROM retl.exception x JOIN retl.mapping_state s ON s.mapping = x.mapping"
		" WHERE x.resolved AND s.active_run IS NULL",
		NULL,
		"DELETE FROM retl.exception x USING retl.mapping_state s"
		" WHERE s.mapping = x.mapping AND x.resolved AND s.active_run IS NULL AND x.failed_at < $1", NULL
	},
	{
		"changes", &retl_audit_retention,
		"SELECT pg_catalog.min(at) FROM retl.audit", NULL,
		"DELETE FROM retl.audit WHERE at < $1", NULL
	},
};

/* A kind that belongs to a run does not outlive it. */
static int
minutes_of(const Kind *kind)
{
	int			minutes = *kind->minutes;

	if (kind->runs != NULL && retl_run_retention > 0)
		minutes = minutes > 0 ? Min(minutes, retl_run_retention) : retl_run_retention;
	return minutes;
}

static bool
trim(const Kind *kind, TimestampTz before)
{
	RetlArgs	args = {0};
	Datum		runs;
	bool		isnull;

	if (kind->runs == NULL)
	{
		retl_arg_timestamptz(&args, before);
		return retl_sql(kind->remove, &args) > 0;
	}
	retl_arg_timestamptz(&args, before);
	(void) retl_sql(kind->runs, &args);
	runs = retl_result_datum(0, 1, &isnull);
	if (isnull)
		return false;
	memset(&args, 0, sizeof(args));
	retl_arg_datum(&args, INT8ARRAYOID, runs, false);
	(void) retl_sql(kind->remove, &args);
	if (kind->done != NULL)
		(void) retl_sql(kind->done, &args);
	return true;
}

bool
retl_retention_trim(TimestampTz now, TimestampTz *due)
{
	bool		trimmed = false;

	*due = DT_NOEND;
	SPI_connect();
	for (int i = 0; i < lengthof(kinds) && !trimmed; i++)
	{
		int64		age = (int64) minutes_of(&kinds[i]) * 60 * 1000;
		TimestampTz oldest;
		bool		isnull;

		if (age == 0)
			continue;
		if (retl_sql(kinds[i].oldest, NULL) == 0)
			continue;
		oldest = DatumGetTimestampTz(retl_result_datum(0, 1, &isnull));
		if (isnull)
			continue;
		if (TimestampTzPlusMilliseconds(oldest, age) < now)
			trimmed = trim(&kinds[i], TimestampTzPlusMilliseconds(now, -age));
		if (!trimmed)
			*due = Min(*due, TimestampTzPlusMilliseconds(oldest, age));
	}
	SPI_finish();
	RETL_FAULT("history_trimmed");
	return trimmed;
}
