/*
 * filter.c
 *		The filter of a scan, in parallel workers too; see filter.h.
 *
 * The statement carries the segment's handle, by which parallel workers find
 * it. Anybody can call the function with any number: so a segment counts only
 * if it says that it is a filter, and of this process or its leader.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/dsm.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "base/progress.h"
#include "model/filter.h"

#define FILTER_MAGIC 0x7265746c

/* Rows between two notes of how far a scan is; a power of two. */
#define PROGRESS_ROWS 1024

/* Of the joined rows, few differ. */
#define FILTER_SELECTIVITY 0.02

typedef struct Shared
{
	uint32		magic;
	int			leader;			/* pid */
	bool		all;
	int64		nslots;
	int64		nwords;			/* of each of the two parts of "bits" */
	pg_atomic_uint64 rows;		/* in steps of PROGRESS_ROWS */
	pg_atomic_uint64 duplicates;
	pg_atomic_uint64 watermark;	/* a TimestampTz, from DT_NOBEGIN on upwards */
	pg_atomic_uint32 bits[FLEXIBLE_ARRAY_MEMBER];	/* seen, then seen more than once; by slot */
} Shared;

struct RetlFilter
{
	dsm_segment *segment;
	Shared	   *shared;
};

/* The filter of the scan that is executed in this process. */
static RetlFilter *active = NULL;

PG_FUNCTION_INFO_V1(retl_snapshot_filter);
PG_FUNCTION_INFO_V1(retl_snapshot_filter_support);

/* --------------------------------------------------------------------------
 * Of the process that runs the scan
 * -------------------------------------------------------------------------- */

RetlFilter *
retl_filter_begin(int64 nslots, bool all)
{
	RetlFilter *filter = palloc(sizeof(RetlFilter));
	int64		nwords = nslots / 32 + 1;
	Size		size = offsetof(Shared, bits) + 2 * nwords * sizeof(pg_atomic_uint32);
	Shared	   *shared;

	filter->segment = dsm_create(size, 0);
	filter->shared = shared = dsm_segment_address(filter->segment);
	memset(shared, 0, size);
	shared->leader = MyProcPid;
	shared->all = all;
	shared->nslots = nslots;
	shared->nwords = nwords;
	pg_atomic_init_u64(&shared->rows, 0);
	pg_atomic_init_u64(&shared->duplicates, 0);
	pg_atomic_init_u64(&shared->watermark, (uint64) DT_NOBEGIN);
	for (int64 i = 0; i < 2 * nwords; i++)
		pg_atomic_init_u32(&shared->bits[i], 0);
	pg_write_barrier();
	shared->magic = FILTER_MAGIC;
	return filter;
}

void
retl_filter_end(RetlFilter *filter)
{
	dsm_detach(filter->segment);
}

void
retl_filter_append_where(StringInfo sql, const RetlFilter *filter, const char *hash,
						 const char *checkpoint_hash, const char *slot, const char *watermark)
{
	appendStringInfo(sql, " WHERE retl.snapshot_filter(%s, %s, %s, '%u'%s%s)", hash, checkpoint_hash, slot,
					 dsm_segment_handle(filter->segment), watermark ? ", " : "", watermark ? watermark : "");
}

void
retl_filter_activate(RetlFilter *filter)
{
	active = filter;
}

int64
retl_filter_rows(const RetlFilter *filter)
{
	return pg_atomic_read_u64(&filter->shared->rows);
}

TimestampTz
retl_filter_watermark(const RetlFilter *filter)
{
	return (TimestampTz) pg_atomic_read_u64(&filter->shared->watermark);
}

bool
retl_filter_twice(const RetlFilter *filter, int64 slot)
{
	const Shared *shared = filter->shared;

	return pg_atomic_read_u32((pg_atomic_uint32 *) &shared->bits[shared->nwords + slot / 32]) &
		((uint32) 1 << slot % 32);
}

static int64
count_bits(const Shared *shared, int part)
{
	return pg_popcount((const char *) &shared->bits[part * shared->nwords],
					   shared->nwords * sizeof(pg_atomic_uint32));
}

void
retl_filter_count(const RetlFilter *filter, int64 *matched, int64 *twice, int64 *duplicates)
{
	*matched = count_bits(filter->shared, 0);
	*twice = count_bits(filter->shared, 1);
	*duplicates = pg_atomic_read_u64(&filter->shared->duplicates);
}

int64
retl_filter_free_slots(const RetlFilter *filter, int64 count, int64 *slots)
{
	Shared	   *shared = filter->shared;
	int64		found = 0;

	for (int64 word = 0; word < shared->nwords && found < count; word++)
	{
		uint32		free = ~pg_atomic_read_u32(&shared->bits[word]);

		while (free != 0 && found < count)
		{
			int64		slot = word * 32 + pg_rightmost_one_pos32(free);

			if (slot >= shared->nslots)
				break;
			slots[found++] = slot;
			free &= free - 1;
		}
	}
	return found;
}

/* --------------------------------------------------------------------------
 * The function
 * -------------------------------------------------------------------------- */

/* What a place in a plan where the function is called remembers. */
typedef struct CallSite
{
	Shared	   *shared;
	uint64		rows;
} CallSite;

static pg_noinline void
refuse(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("retl.snapshot_filter works only inside a snapshot of retl")));
}

static Shared *
attach(dsm_handle handle)
{
	dsm_segment *segment;
	Shared	   *shared;
	PGPROC	   *leader = MyProc->lockGroupLeader;

	if (leader == NULL)
		refuse();
	segment = dsm_find_mapping(handle);
	if (segment == NULL)
	{
		segment = dsm_attach(handle);
		if (segment == NULL)
			refuse();
		/* the worker ends soon after its plan does */
		dsm_pin_mapping(segment);
	}
	shared = dsm_segment_address(segment);
	if (dsm_segment_map_length(segment) < sizeof(Shared) || shared->magic != FILTER_MAGIC ||
		shared->leader != leader->pid)
		refuse();
	return shared;
}

static CallSite *
call_site(FunctionCallInfo fcinfo)
{
	CallSite   *site;
	Shared	   *shared = NULL;

	if (IsParallelWorker())
		shared = attach((dsm_handle) PG_GETARG_OID(3));
	else if (active != NULL)
		shared = active->shared;
	else
		refuse();
	site = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(CallSite));
	site->shared = shared;
	fcinfo->flinfo->fn_extra = site;
	return site;
}

static inline void
note_watermark(Shared *shared, TimestampTz watermark)
{
	uint64		known = pg_atomic_read_u64(&shared->watermark);

	if (TIMESTAMP_NOT_FINITE(watermark))
		return;
	/* a failed exchange reads it anew */
	while (watermark > (TimestampTz) known &&
		   !pg_atomic_compare_exchange_u64(&shared->watermark, &known, (uint64) watermark))
		;
}

/*
 * retl.snapshot_filter(hash, checkpoint hash, slot, segment [, watermark]):
 * whether a joined row goes on to the receiver.
 */
Datum
retl_snapshot_filter(PG_FUNCTION_ARGS)
{
	CallSite   *site = fcinfo->flinfo->fn_extra;
	Shared	   *shared;
	uint64		slot;
	uint32		bit;

	if (PG_ARGISNULL(3))
		refuse();
	if (site == NULL)
		site = call_site(fcinfo);
	shared = site->shared;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);	/* gone from the model */
	if ((++site->rows & (PROGRESS_ROWS - 1)) == 0)
	{
		uint64		rows = pg_atomic_add_fetch_u64(&shared->rows, PROGRESS_ROWS);

		if (!IsParallelWorker())
			retl_progress_rows(rows);
	}
	if (PG_NARGS() > 4 && !PG_ARGISNULL(4))
		note_watermark(shared, DatumGetTimestampTz(PG_GETARG_DATUM(4)));
	if (PG_ARGISNULL(2))
		PG_RETURN_BOOL(true);	/* new */

	slot = (uint64) PG_GETARG_INT64(2);
	if (slot >= shared->nslots)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("slot " UINT64_FORMAT " of a checkpoint is out of range", slot)));
	bit = (uint32) 1 << (slot % 32);
	if (pg_atomic_fetch_or_u32(&shared->bits[slot / 32], bit) & bit)
	{
		pg_atomic_fetch_or_u32(&shared->bits[shared->nwords + slot / 32], bit);
		pg_atomic_fetch_add_u64(&shared->duplicates, 1);
		PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(shared->all || PG_ARGISNULL(1) || PG_GETARG_INT64(0) != PG_GETARG_INT64(1));
}

/* Tells the planner how many rows pass. */
Datum
retl_snapshot_filter_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = FILTER_SELECTIVITY;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}
