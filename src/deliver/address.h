/*
 * address.h
 *		Which network addresses requests may reach.
 *
 * Whoever may configure a destination chooses where the server connects to.
 * So addresses that only the server can reach (loopback, private and
 * link-local networks, metadata services, and every notation that wraps one of
 * them) are refused, unless the superuser named their network in
 * retl.allowed_private_networks. What is checked is the address a socket is
 * about to connect to, after name resolution.
 *
 * Plain C on the caller's data, callable below libcurl: nothing here raises
 * errors or allocates from memory contexts, but for retl_address_allow(), which sets
 * this process's list of allowed networks.
 */
#ifndef RETL_ADDRESS_H
#define RETL_ADDRESS_H

#include "postgres.h"

#include <sys/socket.h>

/*
 * Replaces the list of networks that are reachable although private. Text that
 * does not parse allows nothing.
 */
extern void retl_address_allow(const char *networks);

/*
 * Why an address must not be reached ("loopback", "private", ..), or NULL when
 * it may be.
 */
extern const char *retl_address_refused(const struct sockaddr *address, socklen_t len);

/* The same for an address in text form. */
extern const char *retl_address_text_refused(const char *address);

/*
 * The same for the host of a URL, if it is an address, in whatever notation; NULL: it
 * may be reached, or is a name. For requests through a proxy, which alone knows what it connects to.
 */
extern const char *retl_address_url_refused(const char *url);

#endif							/* RETL_ADDRESS_H */
