/*
 * format.h
 *		Formats of strings that fields may ask for. No state.
 */
#ifndef RETL_FORMAT_H
#define RETL_FORMAT_H

#include "postgres.h"

/*
 * Whether a text has the format. Formats that are not known hold for every
 * text; *title is what to call the format in a message.
 */
extern bool retl_format_matches(const char *format, const char *text, int len, const char **title);

#endif							/* RETL_FORMAT_H */
