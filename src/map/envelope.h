/*
 * envelope.h
 *		The root of a mapping: what a changed row looks like to its paths.
 *
 * {"type", "event", "properties", "__segment_id", "messageId", "timestamp",
 * "old", "changed", "operation"}. A path that starts with none of these
 * addresses a column. Columns are numbered when the mapping is compiled, and
 * looked up once for each shape. No shared state, no locks.
 */
#ifndef RETL_ENVELOPE_H
#define RETL_ENVELOPE_H

#include "postgres.h"

#include "map/eval.h"
#include "map/mapping.h"

typedef struct RetlRootColumn
{
	const char *name;
	int			len;
	bool		old;			/* of the row before */
} RetlRootColumn;

/* Where the columns are in one shape. */
typedef struct RetlShapeMap
{
	const RetlShape *shape;
	int			number;
	int		   *index;			/* by column number; -1: not there */
} RetlShapeMap;

#define RETL_SHAPE_MAPS 2

typedef struct RetlEnvelopeInput
{
	RetlInput	base;
	MemoryContext context;		/* that of the mapping */
	int			ncolumns;
	RetlRootColumn *columns;
	RetlShapeMap maps[RETL_SHAPE_MAPS];
	int			next_map;

	/* of the row in work */
	const RetlEnvelope *envelope;
	bool		comparable;		/* hold constant what differs from run to run */
	const int  *row_index;
	const int  *old_index;
	RetlSlice	properties;
	RetlSlice	old;
	RetlSlice	changed;
} RetlEnvelopeInput;

extern void retl_envelope_init(RetlEnvelopeInput *input);

/* The scope that compiles for this input. */
extern int	retl_envelope_find(void *input, const RetlStep *steps, int nsteps, int *used);

/* Whether what is found is the row, or the row before, as a whole. */
extern bool retl_envelope_is_row(int slot);

extern void retl_envelope_set(RetlEnvelopeInput *input, const RetlEnvelope *envelope, bool comparable);

#endif							/* RETL_ENVELOPE_H */
