/*
 * bare_multi.c
 *		What libcurl alone can do: the same body to the same URL, N times, C at
 *		a time, over its multi interface and nothing else. What delivery adds
 *		to that (the ledger, bodies from tables, outcomes on record) is the difference.
 *
 *		cc -O2 -o bare_multi bare_multi.c -lcurl
 *		./bare_multi URL BODY_FILE REQUESTS CONCURRENCY
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static size_t
discard(char *data, size_t one, size_t len, void *arg)
{
	return len;
}

static double
seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static char *
read_file(const char *path, long *len)
{
	FILE	   *file = fopen(path, "rb");
	char	   *data;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
	{
		perror(path);
		exit(1);
	}
	*len = ftell(file);
	rewind(file);
	data = malloc(*len + 1);
	if (data == NULL || fread(data, 1, *len, file) != (size_t) *len)
	{
		perror(path);
		exit(1);
	}
	fclose(file);
	return data;
}

int
main(int argc, char **argv)
{
	struct curl_slist *headers = NULL;
	struct rusage usage;
	CURLM	   *multi;
	char	   *body;
	long		len;
	long		requests;
	long		concurrency;
	long		started = 0;
	long		ended = 0;
	long		failed = 0;
	double		start;
	double		time;
	int			running;

	if (argc != 5)
	{
		fprintf(stderr, "usage: %s URL BODY_FILE REQUESTS CONCURRENCY\n", argv[0]);
		return 2;
	}
	body = read_file(argv[2], &len);
	requests = atol(argv[3]);
	concurrency = atol(argv[4]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	multi = curl_multi_init();
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_MULTIPLEX);
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Idempotency-Key: 0123456789abcdef0123456789abcdef");
	headers = curl_slist_append(headers, "Expect:");

	start = seconds();
	for (; started < concurrency && started < requests; started++)
	{
		CURL	   *easy = curl_easy_init();

		curl_easy_setopt(easy, CURLOPT_URL, argv[1]);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
		if (getenv("SSL_CERT_FILE") != NULL)
			curl_easy_setopt(easy, CURLOPT_CAINFO, getenv("SSL_CERT_FILE"));
		curl_multi_add_handle(multi, easy);
	}
	while (ended < requests)
	{
		CURLMsg    *message;
		int			left;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left)) != NULL)
		{
			CURL	   *easy = message->easy_handle;
			long		status = 0;

			curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
			failed += message->data.result != CURLE_OK || status / 100 != 2;
			ended++;
			curl_multi_remove_handle(multi, easy);
			if (started < requests)
			{
				curl_multi_add_handle(multi, easy);
				started++;
			}
			else
				curl_easy_cleanup(easy);
		}
		if (ended < requests)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	time = seconds() - start;

	getrusage(RUSAGE_SELF, &usage);
	printf("%ld requests of %ld bytes in %.3f s: %.0f a second, %.1f us of CPU each, %ld failed\n",
		   requests, len, time, requests / time,
		   ((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / requests,
		   failed);
	return failed > 0;
}
