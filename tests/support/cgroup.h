/* A cgroup (v1 or v2) that a test makes for itself, where that is permitted. */
#ifndef TUTTI_TESTS_CGROUP_H
#define TUTTI_TESTS_CGROUP_H

#include "support/t.h"

/* Make one with this limit of memory, or a quota of so many cores; its folder in `path`. 0, or -1 if that is not permitted here. */
int t_cgroup_create(size_t limit_bytes, char path[256]);
int t_cgroup_create_cpu(size_t n_cores, char path[256]);
int t_cgroup_enter(const char *path); /* this process; 0 or -1 */
void t_cgroup_remove(const char *path);

#endif
