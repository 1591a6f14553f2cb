/* Two ranks as two hosts: each in a network namespace of its own, joined by a virtual cable. */
#ifndef TUTTI_TESTS_NETNS_H
#define TUTTI_TESTS_NETNS_H

#include "support/job.h"

/* Both ranks of a job (processes) call this before anything else. Rank r has the interface "host0" with
 * the addresses given for it (NULL: none), as "10.77.0.1/24"; with `two_cables` also "host1" with
 * 10.78.0.1/24. Skips the test, saying why, where this is not permitted. */
void t_netns_enter(struct t_rank *t, const char *const ip4[2], const char *const ip6[2],
                   int two_cables);

/* Pull the plug of this rank's end, or put it back. */
void t_netns_link(const char *name, int up);

/* Fails if something in this namespace listens on all addresses; the number that listen on one. */
int t_netns_count_listeners(void);

#endif
