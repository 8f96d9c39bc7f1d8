/*
 * answer.h
 *		What is kept of an answer: text that can be stored and shown. No state.
 */
#ifndef RETL_ANSWER_H
#define RETL_ANSWER_H

#include "postgres.h"

#include "deliver/http.h"
#include "deliver/secret.h"

/* As much of a body is kept; and of one that accepts everything. */
#define RETL_ANSWER_KEPT 4096
#define RETL_ANSWER_KEPT_ACCEPTED 1024

/* A copy of at most "most" bytes, valid in the database's encoding, in "context". */
extern char *retl_answer_clean(MemoryContext context, const char *text, size_t len, size_t most);

/* The beginning of a body that may repeat secrets, these masked; NULL: it is empty. In "context". */
extern char *retl_answer_excerpt(MemoryContext context, const RetlHttpAnswer *answer, const RetlSecrets *secrets, size_t most);

/* Why there is no answer, in "context". */
extern char *retl_answer_fault(MemoryContext context, const RetlHttpAnswer *answer);

#endif							/* RETL_ANSWER_H */
