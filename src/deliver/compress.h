/*
 * compress.h
 *		Bodies of requests, compressed. The same library makes the same bytes of the same body.
 *
 * Contexts of the libraries are kept for the life of the process. No locks.
 */
#ifndef RETL_COMPRESS_H
#define RETL_COMPRESS_H

#include "postgres.h"

typedef enum RetlCompression
{
	RETL_COMPRESSION_NONE,
	RETL_COMPRESSION_GZIP,
	RETL_COMPRESSION_ZSTD
} RetlCompression;

/* By its name, which is also that of its Content-Encoding. NULL and what is unknown: none. */
extern RetlCompression retl_compression_named(const char *name);
extern const char *retl_compression_name(RetlCompression compression);

/* In the current memory context; NULL where it would not be shorter, or is too short to be worth it. */
extern char *retl_compress(RetlCompression compression, const char *body, size_t len, size_t *compressed_len);

#endif							/* RETL_COMPRESS_H */
