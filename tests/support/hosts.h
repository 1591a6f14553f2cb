/* Ranks of one machine as if they were on several hosts. */
#ifndef TUTTI_TESTS_HOSTS_H
#define TUTTI_TESTS_HOSTS_H

#include "support/reference.h"

/* From here on ranks are on the hosts that the letters say, one for each rank: "0011". NULL: on one.
 * The same as the variable T_HOSTS. Ranks must be processes. */
void t_hosts(const char *letters);

int t_has_hosts(void);
int t_host_of(int rank);     /* numbered from 0 in order of first ranks */
void t_host_enter(int rank); /* in the process of a rank, before it creates communicators */

/* The pattern of the reduction of n ranks' patterns on these hosts: within each host, rounded, then
 * over the hosts; or, where that is what the library promises or `flat` is set, in rank order. */
void t_hosts_reduce(struct t_pattern *p, const struct t_pattern sources[], int n, size_t count,
                    tutti_dtype dtype, tutti_op op, int flat);

#endif
