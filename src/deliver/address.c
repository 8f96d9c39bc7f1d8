/*
 * address.c
 *		Which network addresses requests may reach; see address.h.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "deliver/address.h"

typedef struct Network
{
	int			family;
	int			bits;
	uint8		address[16];
} Network;

typedef struct Denied
{
	Network		network;
	const char *reason;
} Denied;

#define V4(a, b, c, d, bits, reason) {{AF_INET, bits, {a, b, c, d}}, reason}
#define V6(bits, reason, ...) {{AF_INET6, bits, {__VA_ARGS__}}, reason}

/* The special-purpose registries, and what wraps an IPv4 address. */
static const Denied denied[] = {
	V4(0, 0, 0, 0, 8, "unspecified"),
	V4(10, 0, 0, 0, 8, "private"),
	V4(100, 64, 0, 0, 10, "shared"),
	V4(127, 0, 0, 0, 8, "loopback"),
	V4(169, 254, 0, 0, 16, "link-local"),
	V4(172, 16, 0, 0, 12, "private"),
	V4(192, 0, 0, 0, 24, "reserved"),
	V4(192, 0, 2, 0, 24, "documentation"),
	V4(192, 88, 99, 0, 24, "6to4 relay"),
	V4(192, 168, 0, 0, 16, "private"),
	V4(198, 18, 0, 0, 15, "benchmarking"),
	V4(198, 51, 100, 0, 24, "documentation"),
	V4(203, 0, 113, 0, 24, "documentation"),
	V4(224, 0, 0, 0, 4, "multicast"),
	V4(240, 0, 0, 0, 4, "reserved"),
	V6(128, "loopback", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
	V6(96, "unspecified", 0),
	V6(96, "IPv4-translated", 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0),
	V6(96, "NAT64", 0, 0x64, 0xff, 0x9b),
	V6(48, "NAT64", 0, 0x64, 0xff, 0x9b, 0, 1),
	V6(64, "discard-only", 0x01, 0x00),
	V6(23, "reserved", 0x20, 0x01, 0x00, 0x00),
	V6(32, "documentation", 0x20, 0x01, 0x0d, 0xb8),
	V6(16, "6to4", 0x20, 0x02),
	V6(20, "documentation", 0x3f, 0xff),
	V6(16, "reserved", 0x5f, 0x00),
	V6(7, "private", 0xfc),
	V6(10, "link-local", 0xfe, 0x80),
	V6(10, "site-local", 0xfe, 0xc0),
	V6(8, "multicast", 0xff),
};

/* More networks than anybody needs; bounds what the setting can hold. */
#define MAX_NETWORKS 128

static Network allowed[MAX_NETWORKS];
static int	nallowed = 0;

static bool
network_contains(const Network *network, int family, const uint8 *address)
{
	int			bytes = network->bits / 8;
	int			bits = network->bits % 8;

	if (network->family != family || memcmp(network->address, address, bytes) != 0)
		return false;
	if (bits == 0)
		return true;
	return ((network->address[bytes] ^ address[bytes]) >> (8 - bits)) == 0;
}

static const char *
refused(int family, const uint8 *address)
{
	static const uint8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	/* ::ffff:a.b.c.d reaches a.b.c.d */
	if (family == AF_INET6 && memcmp(address, mapped, sizeof(mapped)) == 0)
	{
		family = AF_INET;
		address += sizeof(mapped);
	}

	for (int i = 0; i < nallowed; i++)
	{
		if (network_contains(&allowed[i], family, address))
			return NULL;
	}
	for (int i = 0; i < lengthof(denied); i++)
	{
		if (network_contains(&denied[i].network, family, address))
			return denied[i].reason;
	}
	return NULL;
}

const char *
retl_address_refused(const struct sockaddr *address, socklen_t len)
{
	if (address->sa_family == AF_INET && len >= sizeof(struct sockaddr_in))
		return refused(AF_INET, (const uint8 *) &((const struct sockaddr_in *) address)->sin_addr);
	if (address->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6))
		return refused(AF_INET6, (const uint8 *) &((const struct sockaddr_in6 *) address)->sin6_addr);
	return "not of an internet family";
}

const char *
retl_address_text_refused(const char *address)
{
	uint8		binary[16];
	char		copy[INET6_ADDRSTRLEN];
	char	   *scope;

	if (strlcpy(copy, address, sizeof(copy)) >= sizeof(copy))
		return "unreadable";
	scope = strchr(copy, '%');
	if (scope != NULL)
		*scope = '\0';
	if (inet_pton(AF_INET, copy, binary) == 1)
		return refused(AF_INET, binary);
	if (inet_pton(AF_INET6, copy, binary) == 1)
		return refused(AF_INET6, binary);
	return "unreadable";
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

const char *
retl_address_url_refused(const char *url)
{
	const char *at = strstr(url, "://");
	const char *end;
	const char *user;
	char		host[256];
	size_t		len = 0;
	struct in_addr address;

	if (at == NULL)
		return NULL;
	at += 3;
	end = at + strcspn(at, "/?#\\");
	for (user = at; user < end; user++)
	{
		if (*user == '@')
			at = user + 1;
	}
	for (; at < end && len < sizeof(host) - 1; at++)
	{
		bool		encoded = *at == '%' && end - at > 2 && hex_digit(at[1]) >= 0 && hex_digit(at[2]) >= 0;

		host[len++] = encoded ? (char) (hex_digit(at[1]) << 4 | hex_digit(at[2])) : *at;
		at += encoded ? 2 : 0;
	}
	host[len] = '\0';

	if (host[0] == '[')
	{
		host[strcspn(host, "]")] = '\0';
		return retl_address_text_refused(host + 1);
	}
	host[strcspn(host, ":")] = '\0';
	len = strlen(host);
	while (len > 0 && host[len - 1] == '.')
		host[--len] = '\0';
	/* which takes all that a resolver takes for one: 127.1, 0x7f000001, 017700000001 */
	if (inet_aton(host, &address) == 0)
		return NULL;
	return refused(AF_INET, (const uint8 *) &address);
}

/* Parses "address" or "address/bits" of the given length. */
static bool
network_parse(const char *text, size_t len, Network *network)
{
	char		copy[INET6_ADDRSTRLEN + 4];
	char	   *slash;
	int			max;

	if (len == 0 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	slash = strchr(copy, '/');
	if (slash != NULL)
		*slash = '\0';

	memset(network, 0, sizeof(*network));
	if (inet_pton(AF_INET, copy, network->address) == 1)
		network->family = AF_INET;
	else if (inet_pton(AF_INET6, copy, network->address) == 1)
		network->family = AF_INET6;
	else
		return false;
	max = network->family == AF_INET ? 32 : 128;

	network->bits = max;
	if (slash != NULL)
	{
		char	   *end;
		long		bits;

		if (slash[1] < '0' || slash[1] > '9')
			return false;
		bits = strtol(slash + 1, &end, 10);
		if (*end != '\0' || bits > max)
			return false;
		network->bits = (int) bits;
	}
	return true;
}

/* Items are separated by commas or blanks, as the setting's check allows. */
void
retl_address_allow(const char *networks)
{
	nallowed = 0;
	for (const char *item = networks; item != NULL && *item != '\0';)
	{
		size_t		len = strcspn(item, ", \t");

		if (len > 0)
		{
			if (nallowed == MAX_NETWORKS || !network_parse(item, len, &allowed[nallowed]))
			{
				nallowed = 0;
				return;
			}
			nallowed++;
		}
		item += len;
		item += strspn(item, ", \t");
	}
}
