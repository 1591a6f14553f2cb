/* Ranks as on two hosts: each in a network namespace of its own, joined by a virtual cable. */
#ifndef TUTTI_TESTS_NETNS_H
#define TUTTI_TESTS_NETNS_H

#include "support/job.h"

enum t_netns_more {
    T_NETNS_SECOND = 1, /* a second cable: "host1" with 10.78.0.1/24 and 10.78.0.2/24 */
    T_NETNS_DECOY =
        2, /* "decoy0" with 10.79.0.1/24 and 10.79.0.2/24, before all others, leads nowhere */
};

/* All ranks of a job (processes) call this before anything else. Rank r is on host r % 2, which has the
 * interface "host0" with the addresses given for it (NULL: none), as "10.77.0.1/24", and what `more` says.
 * Skips the test, saying why, where this is not permitted. */
void t_netns_enter(struct t_rank *t, const char *const ip4[2], const char *const ip6[2], int more);

/* One more address of an interface; with a label ("host0:1"), if that is not NULL. */
void t_netns_add(const char *name, const char *ip4, const char *label);

/* For t_netns_enter() from now on: the cable is a link with these properties. Zeros: a plain cable. */
void t_netns_link_is(unsigned delay_us, double loss, double mbit);

/* A link (not a plain cable) loses everything from now on, or nothing more than it did; no end notices. */
void t_netns_cut(struct t_rank *t, int is_cut);

/* Pull the plug of this rank's end, or put it back. */
void t_netns_link(const char *name, int up);

/* Both ends are plugged in, and this one's kernel has noticed, which may take it a second. */
void t_netns_wait_up(const char *name);

/* Fails if something in this namespace listens on all addresses; the number that listen on one. */
int t_netns_count_listeners(void);

#endif
