/*
 * guc.h
 *		Settings. Owns the variables; they change only when PostgreSQL reloads
 *		its configuration, which a worker does between two steps of work.
 *
 * All of them exist without preloading too, so that a configuration that names
 * them loads; those about workers have no effect then.
 */
#ifndef RETL_GUC_H
#define RETL_GUC_H

#include "postgres.h"

/* Networks (CIDR, separated by commas) that may be reached although private. */
extern char *retl_allowed_private_networks;

/* What the clone guard calls this host; empty: a hash of the machine id. */
extern char *retl_host_identity;

/* Whether the launcher starts workers. */
extern bool retl_enabled;

/* Seconds after which a worker without work leaves. */
extern int	retl_worker_idle_timeout;

/* Seconds between two looks at a database from which nothing was heard. */
extern int	retl_naptime;

/* Workers of each kind, in the whole cluster. */
extern int	retl_snapshot_workers;
extern int	retl_delivery_workers;

/* How far planning may be ahead of delivery, in kB (retl.max_planned_bytes). */
extern int	retl_max_planned_kb;

/* What the first repetition of a request waits for at most, and any one, in ms. */
extern int	retl_retry_delay;
extern int	retl_max_retry_delay;

/* Authorities that certificates may be of, in place of the system's; empty: those. */
extern char *retl_ca_file;

/* How long history is kept, in minutes; 0: for ever. */
extern int	retl_run_retention;
extern int	retl_attempt_retention;
extern int	retl_answer_retention;
extern int	retl_body_retention;
extern int	retl_failed_row_retention;
extern int	retl_audit_retention;

/* Defines all settings; called once, from _PG_init. */
extern void retl_guc_define(void);

#endif							/* RETL_GUC_H */
