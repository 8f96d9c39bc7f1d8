/*
 * compress.c
 *		Bodies of requests, compressed; see compress.h.
 *
 * The lowest levels: JSON shrinks to a quarter or less at any, and the time is the worker's.
 */
#include "postgres.h"

#include <zlib.h>
#include <zstd.h>

#include "deliver/compress.h"

/* Shorter bodies fit into one packet as they are. */
#define LEAST_BYTES 1024

#define GZIP_LEVEL 1
#define ZSTD_LEVEL 1

/* The window and the format that make it gzip's, with a header without time or name. */
#define GZIP_WINDOW (15 + 16)
#define GZIP_MEMORY 8

static const char *const names[] = {
	[RETL_COMPRESSION_NONE] = "none",
	[RETL_COMPRESSION_GZIP] = "gzip",
	[RETL_COMPRESSION_ZSTD] = "zstd",
};

RetlCompression
retl_compression_named(const char *name)
{
	for (int i = 0; name != NULL && i < lengthof(names); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return (RetlCompression) i;
	}
	return RETL_COMPRESSION_NONE;
}

const char *
retl_compression_name(RetlCompression compression)
{
	return names[compression];
}

static size_t
gzip(const char *body, size_t len, char *into, size_t size)
{
	static z_stream stream;
	static bool ready = false;

	/* a new one for each body would cost as much as a small body itself */
	if (!ready && deflateInit2(&stream, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	ready = true;
	if (deflateReset(&stream) != Z_OK)
		return 0;
	stream.next_in = (Bytef *) unconstify(char *, body);
	stream.avail_in = len;
	stream.next_out = (Bytef *) into;
	stream.avail_out = size;
	return deflate(&stream, Z_FINISH) == Z_STREAM_END ? size - stream.avail_out : 0;
}

static size_t
zstd(const char *body, size_t len, char *into, size_t size)
{
	static ZSTD_CCtx *context = NULL;
	size_t		result;

	if (context == NULL)
		context = ZSTD_createCCtx();
	if (context == NULL)
		return 0;
	result = ZSTD_compressCCtx(context, into, size, body, len, ZSTD_LEVEL);
	return ZSTD_isError(result) ? 0 : result;
}

char *
retl_compress(RetlCompression compression, const char *body, size_t len, size_t *compressed_len)
{
	char	   *into;

	if (compression == RETL_COMPRESSION_NONE || len < LEAST_BYTES || len > UINT_MAX)
		return NULL;
	/* what does not fit is not shorter */
	into = MemoryContextAllocHuge(CurrentMemoryContext, len);
	*compressed_len = compression == RETL_COMPRESSION_GZIP ? gzip(body, len, into, len - 1) : zstd(body, len, into, len - 1);
	if (*compressed_len > 0)
		return into;
	pfree(into);
	return NULL;
}
