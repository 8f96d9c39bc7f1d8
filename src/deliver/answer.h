/*
 * answer.h
 *		What is kept of an answer: text that can be stored and shown. No state.
 */
#ifndef RETL_ANSWER_H
#define RETL_ANSWER_H

#include "postgres.h"

#include "deliver/http.h"

/* As much of a body is kept. */
#define RETL_ANSWER_KEPT 4096

/* A copy of at most "most" bytes, valid in the database's encoding, in "context". */
extern char *retl_answer_clean(MemoryContext context, const char *text, size_t len, size_t most);

/* Why there is no answer, in "context". */
extern char *retl_answer_fault(MemoryContext context, const RetlHttpAnswer *answer);

#endif							/* RETL_ANSWER_H */
