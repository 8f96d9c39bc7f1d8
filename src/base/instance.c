/*
 * instance.c
 *		The guard against copied databases; see instance.h.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#include "base/guc.h"
#include "base/instance.h"
#include "base/sql.h"

/* 128 bits in hexadecimal, and room for a line end or two */
#define MACHINE_ID_LIMIT 64

static bool
read_machine_id(char *id, size_t size)
{
	FILE	   *file = AllocateFile("/etc/machine-id", "r");
	size_t		len;

	if (file == NULL)
		return false;
	len = fread(id, 1, size - 1, file);
	FreeFile(file);
	id[len] = '\0';
	id[strcspn(id, "\r\n")] = '\0';
	return id[0] != '\0';
}

char *
retl_instance_host_identity(void)
{
	char		id[Max(MACHINE_ID_LIMIT, 256)];
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char	   *text = palloc(PG_SHA256_DIGEST_LENGTH * 2 + 1);
	pg_cryptohash_ctx *hash;

	if (retl_host_identity != NULL && retl_host_identity[0] != '\0')
		return pstrdup(retl_host_identity);

	if (!read_machine_id(id, MACHINE_ID_LIMIT))
	{
		if (gethostname(id, sizeof(id) - 1) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("could not read the host's name: %m"),
					 errhint("Set retl.host_identity.")));
		id[sizeof(id) - 1] = '\0';
	}

	/* hashed: the identifier itself is not meant to leave the machine */
	hash = pg_cryptohash_create(PG_SHA256);
	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) id, strlen(id)) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(hash));
	pg_cryptohash_free(hash);
	text[hex_encode((const char *) digest, sizeof(digest), text)] = '\0';
	return text;
}

bool
retl_instance_armed(char **why)
{
	RetlArgs	args = {0};

	retl_arg_int8(&args, (int64) GetSystemIdentifier());
	retl_arg_datum(&args, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	retl_arg_text(&args, retl_instance_host_identity());
	if (retl_sql("SELECT system_identifier = $1, database = $2, $3 = ANY (hosts) FROM retl.instance", &args) == 0)
	{
		*why = pstrdup("Nothing was created in this database yet, or its row in retl.instance is missing.");
		return false;
	}
	if (!retl_result_bool(0, 1))
		*why = pstrdup("It was armed in another cluster: this one is a restored or upgraded copy.");
	else if (!retl_result_bool(0, 2))
		*why = pstrdup("It was armed under another OID: this one is a copy made from it.");
	else if (!retl_result_bool(0, 3))
		*why = pstrdup("It was armed on another host.");
	else
		return true;
	return false;
}
