/*
 * fault.c
 *		Named fault points; see fault.h.
 */
#include "postgres.h"

#include "base/fault.h"

#ifdef RETL_TESTING

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

void
retl_fault(const char *name)
{
	char		path[MAXPGPATH];
	char		action[32];
	int			countdown = 1;
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/retl_fault/%s", DataDir, name);
	file = fopen(path, "r");
	if (file == NULL)
		return;
	if (fscanf(file, "%31s %d", action, &countdown) < 1)
		action[0] = '\0';
	fclose(file);

	if (countdown > 1)
	{
		file = fopen(path, "w");
		if (file != NULL)
		{
			fprintf(file, "%s %d\n", action, countdown - 1);
			fclose(file);
		}
		return;
	}
	(void) unlink(path);

	elog(LOG, "retl fault point \"%s\" fires: %s", name, action);
	if (strcmp(action, "kill") == 0)
		kill(MyProcPid, SIGKILL);
	else if (strcmp(action, "kill_postmaster") == 0)
	{
		kill(PostmasterPid, SIGKILL);
		kill(MyProcPid, SIGKILL);
	}
	else if (strcmp(action, "immediate") == 0)
	{
		/* what follows must not happen: wait for the signal that the postmaster sends to all */
		kill(PostmasterPid, SIGQUIT);
		for (;;)
			pg_usleep(10000);
	}
	else if (strcmp(action, "term") == 0)
		kill(MyProcPid, SIGTERM);
	else if (strcmp(action, "error") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("fault point \"%s\"", name)));
	else
		elog(WARNING, "unknown action \"%s\" at fault point \"%s\"", action, name);
}

int64
retl_fault_number(const char *name, int64 number)
{
	char		path[MAXPGPATH];
	FILE	   *file;
	long long	other;

	snprintf(path, sizeof(path), "%s/retl_fault/%s", DataDir, name);
	file = fopen(path, "r");
	if (file == NULL)
		return number;
	if (fscanf(file, "%lld", &other) == 1)
		number = other;
	fclose(file);
	return number;
}

#endif							/* RETL_TESTING */
