/* What this process holds, and what lies about in the system: for tests that nothing is left. */
#ifndef TUTTI_TESTS_PROC_H
#define TUTTI_TESTS_PROC_H

#include "support/t.h"

size_t t_count_fds(void);
size_t t_count_maps(void);

/* From here on this process can open that many descriptors more; -1: as many as before the first limit. */
void t_limit_fds(int more);

size_t t_count_children(void);
size_t t_count_threads(int pid); /* of that process, 0: of this one */
size_t t_count_dev_shm(void);    /* files in /dev/shm */

/* Give this process, and its children, a mount namespace with an empty /dev/shm of that size ("4096",
 * "64m") where that is permitted: 0, else -1. Others on this machine do not disturb it then. */
int t_private_dev_shm(const char *size);
size_t t_count_sockets(void); /* lines of /proc/net/unix that this process can see */

/* A line of /proc/self/smaps_rollup or /proc/self/status ("Pss:", "VmRSS:"), in KiB. */
size_t t_memory_kib(const char *file, const char *name);

/* How much of a core this process takes while its caller sleeps: percent, over a second. */
double t_idle_percent(void);

/* What the system says of a process: 'R', 'S', 'T' (stopped), 'Z' (ended, nobody has waited for it) ...; 'X': there is
 * none; '?': there is no descriptor to look with. */
char t_process_state(int pid);

/* Is what a child writes to this byte the child's alone? */
int t_is_private(volatile unsigned char *byte);

/* Free memory of the machine in MiB. */
size_t t_available_mib(void);

/* fds and maps at one time, and a check that they are the same later (maps: but for `slack`). */
struct t_holdings {
    size_t fds, maps, dev_shm;
};
struct t_holdings t_holdings_now(void);
void t_check_holdings(const struct t_holdings *before, size_t map_slack, const char *when);

#endif
