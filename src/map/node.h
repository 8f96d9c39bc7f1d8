/*
 * node.h
 *		Compiled form of the mapping language: between compile.c, which makes
 *		it, and eval.c and directive.c, which run it. Nobody else includes this.
 */
#ifndef RETL_NODE_H
#define RETL_NODE_H

#include "map/eval.h"

typedef enum RetlNodeKind
{
	NODE_CONSTANT,				/* value */
	NODE_PATH,					/* path, slot */
	NODE_COMPUTED_PATH,			/* arg: gives the path's text */
	NODE_TEMPLATE,				/* parts */
	NODE_COMPUTED_TEMPLATE,		/* arg: gives the template's text */
	NODE_OBJECT,				/* members */
	NODE_ARRAY,					/* children */
	NODE_SQL,					/* number */
	NODE_IF,					/* condition, then, otherwise; blank */
	NODE_CASE,					/* arg; upper */
	NODE_REPLACE,				/* arg; replacements */
	NODE_ARRAY_PATH,			/* arg, shape */
	NODE_JSON,					/* arg; encode */
	NODE_FLATTEN,				/* arg; text, flag: omit arrays */
	NODE_MERGE,					/* children; flag: left */
	NODE_TRANSFORM,				/* arg, shape */
	NODE_EXCLUDE_NULL,			/* arg */
	NODE_ERROR					/* text: what evaluating it says */
} RetlNodeKind;

typedef struct RetlNodeMember
{
	const char *key;
	int			keylen;
	const char *prefix;			/* "key": as JSON */
	int			prefix_len;
	RetlNode   *value;
} RetlNodeMember;

/* A piece of a template: text, then the value at a path. */
typedef struct RetlTemplatePart
{
	const char *text;
	int			len;
	const char *json;			/* the same, escaped for a JSON string */
	int			json_len;
	RetlNode   *value;			/* NULL after the last text */
	bool		encode;			/* for a URL */
} RetlTemplatePart;

typedef struct RetlReplacement
{
	const char *pattern;
	int			pattern_len;
	const char *with;
	int			with_len;
} RetlReplacement;

struct RetlNode
{
	RetlNodeKind kind;
	bool		flag;
	int			number;			/* slot, @sql expression, count of parts etc. */
	RetlPath	path;
	RetlValue	value;
	const char *text;
	int			len;
	RetlNode   *arg;
	RetlNode   *shape;			/* evaluated on another root */
	RetlNode   *condition;
	RetlNode   *then;
	RetlNode   *otherwise;
	union
	{
		RetlNode  **children;
		RetlNodeMember *members;
		RetlTemplatePart *parts;
		RetlReplacement *replacements;
	};
	bool		ignore_case;
	bool		global;
	bool		url;
};

/* The evaluation of one row. */
typedef struct RetlEval
{
	RetlInput  *input;
	bool		plain;			/* paths are followed from root, not asked of input */
	RetlValue	root;
	char	  **error;			/* first problem */
} RetlEval;

/* eval.c */
extern RetlValue retl_eval_node(RetlEval *eval, const RetlNode *node);
extern void retl_eval_problem(RetlEval *eval, const char *format,...) pg_attribute_printf(2, 3);
extern RetlJson *retl_eval_tree(RetlEval *eval, RetlValue value);
extern RetlValue retl_eval_path(RetlEval *eval, const char *text, int len, bool strip);

/* directive.c */
extern RetlValue retl_eval_directive(RetlEval *eval, const RetlNode *node);

/* template.c: takes a template's text apart; returns parts, *count of them. */
extern RetlTemplatePart *retl_template_parse(const char *text, int len, bool url,
											 RetlScope *scope, int *count);
extern bool retl_template_is_two_pass(const char *text, int len);

/* Replaces the placeholders of a text: of three braces (pass 3), of two (pass 2). */
extern RetlValue retl_template_render(RetlEval *eval, const char *text, int len, bool url);

/* compile.c: the node of one path. */
extern RetlNode *retl_compile_path(const char *text, int len, bool strip, RetlScope *scope);

#endif							/* RETL_NODE_H */
