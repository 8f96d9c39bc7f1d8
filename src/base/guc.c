/*
 * guc.c
 *		Settings; see guc.h.
 */
#include "postgres.h"

#include <limits.h>

#include <arpa/inet.h>

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/guc.h"
#include "base/shmem.h"

/* Minutes. */
#define DAY (24 * 60)
#define MAX_RETENTION (10 * 366 * DAY)

char	   *retl_allowed_private_networks = NULL;
char	   *retl_host_identity = NULL;
char	   *retl_ca_file = NULL;
bool		retl_enabled = true;
int			retl_worker_idle_timeout = 60;
int			retl_naptime = 60;
int			retl_snapshot_workers = 2;
int			retl_delivery_workers = 4;
int			retl_max_planned_kb = 64 * 1024;
int			retl_retry_delay = 1000;
int			retl_max_retry_delay = 300 * 1000;
int			retl_run_retention = 90 * DAY;
int			retl_attempt_retention = 30 * DAY;
int			retl_answer_retention = 7 * DAY;
int			retl_body_retention = 7 * DAY;
int			retl_failed_row_retention = 0;
int			retl_audit_retention = 0;

static bool check_networks(char **newval, void **extra, GucSource source);

/* All of them may be changed by a reload; none in a session. */
static const struct
{
	const char *name;
	const char *description;
	const char *detail;
	char	  **variable;
	GucStringCheckHook check;
}			string_settings[] = {
	{
		"retl.allowed_private_networks",
		"Private or loopback networks that destinations may be in.",
		"A list of networks in CIDR notation, such as \"10.1.0.0/16, ::1\". Empty: none.",
		&retl_allowed_private_networks, check_networks
	},
	{
		"retl.host_identity",
		"What the guard against copied databases takes this host for.",
		"Empty: a hash of the machine's identifier.",
		&retl_host_identity, NULL
	},
	{
		"retl.ca_file",
		"File with the certificates of the authorities that destinations' certificates may be of.",
		"In place of the system's. Empty: the system's, or those that SSL_CERT_FILE in the server's environment names.",
		&retl_ca_file, NULL
	},
};

static const struct
{
	const char *name;
	const char *description;
	const char *detail;
	int		   *variable;
	int			initial;
	int			min;
	int			max;
	int			flags;
}			int_settings[] = {
	{
		"retl.worker_idle_timeout",
		"Time after which a worker without work leaves.",
		NULL,
		&retl_worker_idle_timeout, 60, 0, 24 * 3600, GUC_UNIT_S
	},
	{
		"retl.naptime",
		"Time between two looks at a database from which nothing was heard.",
		"Work is announced when its transaction commits; this is what finds work whose announcement was lost.",
		&retl_naptime, 60, 1, 24 * 3600, GUC_UNIT_S
	},
	{
		"retl.snapshot_workers",
		"Most snapshot workers in this cluster.",
		"They count towards max_worker_processes.",
		&retl_snapshot_workers, 2, 1, RETL_MAX_WORKERS / RETL_WORKER_KINDS, 0
	},
	{
		"retl.delivery_workers",
		"Most delivery workers in this cluster; a database has at most one.",
		"They count towards max_worker_processes.",
		&retl_delivery_workers, 4, 1, RETL_MAX_WORKERS / RETL_WORKER_KINDS, 0
	},
	{
		"retl.max_planned_bytes",
		"Most bytes of requests that a run is planned ahead of delivery.",
		NULL,
		&retl_max_planned_kb, 64 * 1024, 64, MAX_KILOBYTES, GUC_UNIT_KB
	},
	{
		"retl.retry_delay",
		"Longest time before the first repetition of a request.",
		"The time is random, and may be twice as long before each one that follows. A destination that says how long it wants to be left alone is obeyed.",
		&retl_retry_delay, 1000, 1, 3600 * 1000, GUC_UNIT_MS
	},
	{
		"retl.max_retry_delay",
		"Longest time before any repetition of a request.",
		NULL,
		&retl_max_retry_delay, 300 * 1000, 1, 24 * 3600 * 1000, GUC_UNIT_MS
	},
	{
		"retl.run_retention",
		"Time for which runs are kept after their end, with all that belongs to them.",
		"0: for ever.",
		&retl_run_retention, 90 * DAY, 0, MAX_RETENTION, GUC_UNIT_MIN
	},
	{
		"retl.attempt_retention",
		"Time for which attempts at requests are kept after their run's end.",
		"0: as long as the run.",
		&retl_attempt_retention, 30 * DAY, 0, MAX_RETENTION, GUC_UNIT_MIN
	},
	{
		"retl.answer_retention",
		"Time for which answers of destinations are kept after their run's end.",
		"0: as long as the attempt.",
		&retl_answer_retention, 7 * DAY, 0, MAX_RETENTION, GUC_UNIT_MIN
	},
	{
		"retl.body_retention",
		"Time for which the bytes and keys of requests are kept after their run's end.",
		"A run can be replayed as it was for as long. 0: as long as the run.",
		&retl_body_retention, 7 * DAY, 0, MAX_RETENTION, GUC_UNIT_MIN
	},
	{
		"retl.failed_row_retention",
		"Time after its last failure for which a failed row is tried again.",
		"0: until its destination accepts it. Later it counts as accepted.",
		&retl_failed_row_retention, 0, 0, MAX_RETENTION, GUC_UNIT_MIN
	},
	{
		"retl.audit_retention",
		"Time for which it is kept who changed a definition.",
		"0: for ever.",
		&retl_audit_retention, 0, 0, MAX_RETENTION, GUC_UNIT_MIN
	},
};

/* One address with an optional prefix length. */
static bool
network_valid(const char *network)
{
	char		address[INET6_ADDRSTRLEN];
	unsigned char bytes[16];
	const char *slash = strchr(network, '/');
	size_t		len = slash ? (size_t) (slash - network) : strlen(network);
	int			max_prefix = 0;

	if (len >= sizeof(address))
		return false;
	memcpy(address, network, len);
	address[len] = '\0';
	if (inet_pton(AF_INET, address, bytes) == 1)
		max_prefix = 32;
	else if (inet_pton(AF_INET6, address, bytes) == 1)
		max_prefix = 128;
	else
		return false;

	if (slash != NULL)
	{
		char	   *end;
		long		prefix;

		if (slash[1] < '0' || slash[1] > '9')
			return false;
		prefix = strtol(slash + 1, &end, 10);
		if (*end != '\0' || prefix > max_prefix)
			return false;
	}
	return true;
}

static bool
check_networks(char **newval, void **extra, GucSource source)
{
	char	   *list = pstrdup(*newval);
	char	   *rest = list;
	char	   *network;
	bool		valid = true;

	for (char *p = list; *p; p++)
		if (*p == ' ' || *p == '\t')
			*p = ',';
	while (valid && (network = strsep(&rest, ",")) != NULL)
	{
		if (*network != '\0' && !network_valid(network))
		{
			GUC_check_errdetail("\"%s\" is not a network in CIDR notation.", network);
			valid = false;
		}
	}
	pfree(list);
	return valid;
}

void
retl_guc_define(void)
{
	DefineCustomBoolVariable("retl.enabled",
							 "Whether workers of retl are started.",
							 "Off: workers that run leave after the step they are in.",
							 &retl_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);

	for (int i = 0; i < lengthof(string_settings); i++)
		DefineCustomStringVariable(string_settings[i].name, string_settings[i].description,
								   string_settings[i].detail, string_settings[i].variable, "",
								   PGC_SIGHUP, 0, string_settings[i].check, NULL, NULL);

	for (int i = 0; i < lengthof(int_settings); i++)
		DefineCustomIntVariable(int_settings[i].name, int_settings[i].description,
								int_settings[i].detail, int_settings[i].variable,
								int_settings[i].initial, int_settings[i].min, int_settings[i].max,
								PGC_SIGHUP, int_settings[i].flags, NULL, NULL, NULL);

	MarkGUCPrefixReserved("retl");
}
