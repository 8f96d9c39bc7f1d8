/*
 * changelog.c
 *		Emptying and compacting change logs; see changelog.h.
 *
 * Planners read the log at "points" only: the cursors of mappings, and both
 * ends of what active runs plan. Changes of one key between two neighbouring
 * points can be merged into one, numbered as the later point; changes up to
 * the first point can go. TRUNCATE and DROP are not MVCC-safe, so planners
 * hold the model's lock from before their snapshots.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lockdefs.h"

#include "base/fault.h"
#include "base/sql.h"
#include "model/changelog.h"
#include "model/checkpoint.h"
#include "model/model.h"

/*
 * A log is looked at when it has grown by $1 rows, and to twice what was
 * left of it last time: so tidying costs as much as writing at most.
 */
const char *const retl_changelog_due =
"SELECT model FROM retl.model_state"
" WHERE log_rows > $1 + 2 * log_rows_kept LIMIT 32";

/* The points, ascending, as an array; the current snapshot is the last. */
static const char *const find_points =
"SELECT st.log_generation, st.seq,"
" ARRAY(SELECT DISTINCT p FROM ("
"   SELECT s.cursor FROM retl.mapping_state s JOIN retl.mapping m ON m.id = s.mapping"
"    WHERE m.model = $1 AND s.cursor IS NOT NULL"
"   UNION ALL SELECT r.from_seq FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
"    WHERE m.model = $1 AND r.finished_at IS NULL AND r.served_by IS NULL AND r.from_seq IS NOT NULL"
"   UNION ALL SELECT r.to_seq FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
"    WHERE m.model = $1 AND r.finished_at IS NULL AND r.served_by IS NULL AND r.to_seq IS NOT NULL"
"   UNION ALL SELECT st.seq) x (p) ORDER BY p),"
" (SELECT pg_catalog.min(p) FROM ("
"   SELECT s.cursor FROM retl.mapping_state s JOIN retl.mapping m ON m.id = s.mapping"
"    WHERE m.model = $1 AND s.cursor IS NOT NULL"
"   UNION ALL SELECT COALESCE(r.from_seq, r.to_seq) FROM retl.run r JOIN retl.mapping m ON m.id = r.mapping"
"    WHERE m.model = $1 AND r.finished_at IS NULL AND r.served_by IS NULL"
"   UNION ALL SELECT st.seq) x (p))"
" FROM retl.model_state st WHERE st.model = $1";

static void
append_keys(StringInfo sql, int nkeys, const char *prefix)
{
	for (int k = 1; k <= nkeys; k++)
		appendStringInfo(sql, "%s%sk%d", k > 1 ? ", " : "", prefix, k);
}

/* SELECT DISTINCT ON (key, point): the first or last change of a key up to a point. */
static void
append_edge(StringInfo sql, int nkeys, const char *log, const char *order)
{
	appendStringInfoString(sql, "(SELECT DISTINCT ON (");
	append_keys(sql, nkeys, "");
	appendStringInfo(sql, ", point) * FROM (SELECT *, (SELECT pg_catalog.min(p)"
					 " FROM pg_catalog.unnest($1) p WHERE p >= seq) AS point FROM %s WHERE seq > $2) l"
					 " ORDER BY ", log);
	append_keys(sql, nkeys, "");
	appendStringInfo(sql, ", point, seq %s)", order);
}

/* Writes the net changes between points into a table of the next generation. */
static int64
compact(const RetlModel *model, int generation, Datum points, int64 floor)
{
	char	   *old = retl_log_table(model->id, generation);
	char	   *new = retl_log_table(model->id, generation + 1);
	StringInfoData sql;
	RetlArgs	args = {0};
	int64		kept;

	retl_sql(psprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL)", new, old), NULL);
	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (", new);
	append_keys(&sql, model->nkeys, "");
	appendStringInfoString(&sql, ", seq, old_shape, old_data, new_shape, new_data) SELECT ");
	append_keys(&sql, model->nkeys, "a.");
	appendStringInfoString(&sql, ", point, a.old_shape, a.old_data, z.new_shape, z.new_data FROM ");
	append_edge(&sql, model->nkeys, old, "ASC");
	appendStringInfoString(&sql, " a JOIN ");
	append_edge(&sql, model->nkeys, old, "DESC");
	appendStringInfoString(&sql, " z USING (");
	append_keys(&sql, model->nkeys, "");
	appendStringInfoString(&sql, ", point) WHERE (a.old_shape, a.old_data::pg_catalog.text)"
						   " IS DISTINCT FROM (z.new_shape, z.new_data::pg_catalog.text)");
	retl_arg_datum(&args, INT8ARRAYOID, points, false);
	retl_arg_int8(&args, floor);
	kept = retl_sql(sql.data, &args);
	RETL_FAULT("log_compacted");
	retl_sql(psprintf("DROP TABLE %s", old), NULL);
	return kept;
}

bool
retl_changelog_tidy(int64 id)
{
	RetlModel  *model;
	RetlArgs	args = {0};
	int			generation;
	int64		seq;
	int64		floor;
	int64		kept = 0;
	Datum		points;
	bool		isnull;

	if (!retl_model_try_lock(id, AccessExclusiveLock))
		return false;
	model = retl_model_load(id);
	if (model == NULL)
		return false;

	SPI_connect();
	retl_arg_int8(&args, id);
	if (retl_sql(find_points, &args) != 1)
	{
		SPI_finish();
		return false;
	}
	generation = retl_result_int4(0, 1);
	seq = retl_result_int8(0, 2);
	points = retl_result_datum(0, 3, &isnull);
	floor = retl_result_int8(0, 4);

	if (floor >= seq)
		retl_sql(psprintf("TRUNCATE %s", retl_log_table(id, generation)), NULL);
	else
		kept = compact(model, generation++, points, floor);

	RETL_FAULT("log_tidied");
	retl_arg_int8(&args, kept);
	retl_arg_int4(&args, generation);
	retl_sql("UPDATE retl.model_state SET log_rows = $2, log_rows_kept = $2, log_generation = $3"
			 " WHERE model = $1", &args);
	SPI_finish();
	return true;
}
