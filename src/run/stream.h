/*
 * stream.h
 *		What a mapping has to plan, one change a key, in the order of keys: the
 *		net change between two snapshots, the state at a snapshot, or what
 *		became of the mapping's exceptions.
 *
 * The caller holds the model's lock in AccessShareLock mode from before the
 * stream's snapshot, has connected SPI, and runs as retl_snapshot with the
 * settings pinned that keys are written under.
 */
#ifndef RETL_STREAM_H
#define RETL_STREAM_H

#include "postgres.h"

#include "model/model.h"
#include "model/row.h"

typedef enum RetlStreamKind
{
	RETL_STREAM_STATE,			/* every row present at to_seq */
	RETL_STREAM_LOG,			/* net change of keys in (from_seq, to_seq] */
	RETL_STREAM_BOTH,			/* every row present at from_seq or to_seq, changed or not */
	RETL_STREAM_EXCEPTIONS		/* exceptions of the mapping and the state of their keys at to_seq */
} RetlStreamKind;

typedef struct RetlStored
{
	int			shape;			/* 0: there is no row */
	const char *data;			/* JSON array, not NUL-terminated */
	int			len;
} RetlStored;

typedef struct RetlChange
{
	const char *key;			/* as one text */
	RetlStored	old;			/* before: at from_seq, or as acknowledged */
	RetlStored	new;			/* at to_seq */
	RetlStored	last;			/* exceptions: the last row there was, when new is none */
	bool		maybe;			/* exceptions: the last outcome is unknown */
} RetlChange;

typedef struct RetlStreamSpec
{
	const RetlModel *model;
	char	  **key_types;		/* as in the checkpoint */
	int			log_generation;
	RetlStreamKind kind;
	int64		mapping;
	int64		run;			/* exceptions of this run are not its own work */
	int64		from_seq;
	int64		to_seq;
	const char *position;		/* key after which to start; NULL: from the first */
} RetlStreamSpec;

typedef struct RetlStream RetlStream;

extern RetlStream *retl_stream_open(const RetlStreamSpec *spec);

/* False at the end. What *change points to is valid until the next call. */
extern bool retl_stream_next(RetlStream *stream, RetlChange *change);
extern void retl_stream_close(RetlStream *stream);

/*
 * The row of a key at a snapshot, in the current memory context; none when
 * there was none. The caller is as one of a stream.
 */
extern void retl_stream_state_of(const RetlModel *model, char **key_types, int log_generation,
								 int64 seq, const char *key, RetlStored *stored);

/* SQL text: the typed key columns of "key", an expression of type text, as "e1, e2, ...". */
extern char *retl_stream_typed_key(const RetlModel *model, char *const *key_types, const char *key);

#endif							/* RETL_STREAM_H */
