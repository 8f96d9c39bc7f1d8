/*
 * columns.h
 *		Which columns of a model a mapping's texts name, found without the model,
 *		the destination or anything else that they are about.
 *
 * No shared state, no locks.
 */
#ifndef RETL_COLUMNS_H
#define RETL_COLUMNS_H

#include "postgres.h"

#include "nodes/pg_list.h"

/*
 * Adds what fields (JSON text) take from the row to *columns (char *, each
 * once), texts of @sql expressions included; true: they take the row as a whole,
 * too. Errors as retl.transform does.
 */
extern bool retl_columns_of_fields(const char *fields, List **columns);

/* The same for an expression over the model's columns. Errors: 42601. */
extern void retl_columns_of_expression(const char *text, List **columns);

#endif							/* RETL_COLUMNS_H */
