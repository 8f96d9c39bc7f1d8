/*
 * secret.c
 *		Secrets of destinations; see secret.h.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base64.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#include "base/fault.h"
#include "base/json.h"
#include "base/sql.h"
#include "deliver/secret.h"

/* Keys and certificates are smaller; what is larger is no secret of ours. */
#define FILE_LIMIT (64 * 1024)

/* Shorter values are not masked: they occur by chance. */
#define MASK_LEAST 6

static char *
read_file(const char *given, MemoryContext context, const char **fault)
{
	char		path[MAXPGPATH];
	char		buffer[FILE_LIMIT];
	char	   *value;
	struct stat info;
	ssize_t		len;
	int			fd;

	if (!is_absolute_path(given) || strlcpy(path, given, sizeof(path)) >= sizeof(path))
	{
		*fault = "its path is not absolute";
		return NULL;
	}
	canonicalize_path(path);
	if (path_is_prefix_of_path(DataDir, path))
	{
		*fault = "its file is in the data directory";
		return NULL;
	}

	/* not to hang on a pipe */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
	{
		*fault = errno == ENOENT ? "its file does not exist" : "its file cannot be opened";
		return NULL;
	}
	if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode))
		len = -1;
	else
		len = read(fd, buffer, sizeof(buffer));
	CloseTransientFile(fd);
	if (len < 0 || len == sizeof(buffer))
	{
		*fault = len < 0 ? "its file cannot be read" : "its file is too large";
		explicit_bzero(buffer, sizeof(buffer));
		return NULL;
	}

	/* an editor ends the last line */
	while (len > 0 && (buffer[len - 1] == '\n' || buffer[len - 1] == '\r'))
		len--;
	value = MemoryContextAlloc(context, len + 1);
	memcpy(value, buffer, len);
	value[len] = '\0';
	explicit_bzero(buffer, sizeof(buffer));
	return value;
}

static char *
resolve(const char *reference, MemoryContext context, const char **fault)
{
	char	   *error;
	RetlJson   *tree = retl_json_parse(reference, strlen(reference), &error);
	RetlJson   *file = tree != NULL ? retl_json_member(tree, "file") : NULL;
	RetlJson   *env = tree != NULL ? retl_json_member(tree, "env") : NULL;
	const char *value;

	if (file != NULL && file->type == RETL_JSON_STRING)
		return read_file(retl_json_cstring(file), context, fault);
	if (env != NULL && env->type == RETL_JSON_STRING)
	{
		value = getenv(retl_json_cstring(env));
		if (value != NULL)
			return MemoryContextStrdup(context, value);
		*fault = "its environment variable is not set";
		return NULL;
	}
	*fault = "its reference is neither to a file nor to an environment variable";
	return NULL;
}

/* Copies a text value, and wipes where it was. */
static char *
take(int64 row, int column, MemoryContext context)
{
	bool		isnull;
	Datum		datum = retl_result_datum(row, column, &isnull);
	struct varlena *stored = (struct varlena *) DatumGetPointer(datum);
	text	   *plain;
	char	   *value;
	Size		len;

	plain = (text *) pg_detoast_datum_packed(stored);
	len = VARSIZE_ANY_EXHDR(plain);
	value = MemoryContextAlloc(context, len + 1);
	memcpy(value, VARDATA_ANY(plain), len);
	value[len] = '\0';
	if (!VARATT_IS_EXTENDED(plain) || VARATT_IS_SHORT(plain))
		explicit_bzero(VARDATA_ANY(plain), len);
	return value;
}

RetlSecrets *
retl_secrets_load(int64 destination, MemoryContext context)
{
	RetlArgs	args = {0};
	RetlSecrets *secrets = MemoryContextAllocZero(context, sizeof(RetlSecrets));
	int64		count;

	retl_arg_int8(&args, destination);
	count = retl_sql("SELECT name, value, reference FROM retl.secret WHERE destination = $1", &args);
	secrets->items = MemoryContextAllocZero(context, sizeof(RetlSecret) * Max(1, count));
	for (int64 row = 0; row < count; row++)
	{
		RetlSecret *secret = &secrets->items[secrets->count];

		secret->name = MemoryContextStrdup(context, retl_result_text(row, 1));
		if (!retl_result_isnull(row, 2))
			secret->value = take(row, 2, context);
		else
			secret->value = resolve(retl_result_text(row, 3), context, &secret->fault);
		secrets->count++;
	}
	RETL_FAULT("secret_loaded");
	return secrets;
}

const char *
retl_secrets_get(const RetlSecrets *secrets, const char *name, const char **fault)
{
	*fault = NULL;
	for (int i = 0; secrets != NULL && i < secrets->count; i++)
	{
		if (strcmp(secrets->items[i].name, name) == 0)
		{
			*fault = secrets->items[i].fault;
			return secrets->items[i].value;
		}
	}
	return NULL;
}

static void
mask(char *text, const char *value, size_t len)
{
	if (len < MASK_LEAST)
		return;
	for (char *at = strstr(text, value); at != NULL; at = strstr(at + len, value))
		memset(at, '*', len);
}

/*
 * A secret within a longer text in base64, as basic authentication has it, in each of its three
 * alignments: what stands for the secret's bytes alone.
 */
static void
mask_base64(char *text, const char *value, size_t len)
{
	uint8	   *bytes = palloc(len + 2);
	int			size = pg_b64_enc_len(len + 2) + 1;
	char	   *encoded = palloc(size);

	for (int before = 0; before < 3; before++)
	{
		static const int skipped[] = {0, 2, 3};
		size_t		whole = (before + len) / 3 * 4;

		memset(bytes, 0, before);
		memcpy(bytes + before, value, len);
		if (pg_b64_encode((const void *) bytes, before + len, encoded, size - 1) < 0)
			continue;
		encoded[whole] = '\0';
		if (whole > skipped[before])
			mask(text, encoded + skipped[before], whole - skipped[before]);
	}
	explicit_bzero(bytes, len + 2);
	explicit_bzero(encoded, size);
	pfree(bytes);
	pfree(encoded);
}

void
retl_secrets_mask(const RetlSecrets *secrets, char *text)
{
	for (int i = -1; secrets != NULL && text != NULL && i < secrets->count; i++)
	{
		const char *value = i < 0 ? secrets->token : secrets->items[i].value;
		size_t		len = value != NULL ? strlen(value) : 0;

		if (len < MASK_LEAST)
			continue;
		mask(text, value, len);
		mask_base64(text, value, len);
	}
}

void
retl_secrets_wipe(RetlSecrets *secrets)
{
	if (secrets == NULL)
		return;
	for (int i = 0; i < secrets->count; i++)
	{
		RetlSecret *secret = &secrets->items[i];

		if (secret->value != NULL)
		{
			explicit_bzero(secret->value, strlen(secret->value));
			pfree(secret->value);
		}
		pfree(secret->name);
	}
	pfree(secrets->items);
	pfree(secrets);
}
