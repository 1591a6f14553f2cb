/* Where the limits of this process are: the folder of its control group, and those of the groups around
 * it, whose limits bind it as well. */
#ifndef TT_BASE_CGROUP_PATH_H
#define TT_BASE_CGROUP_PATH_H

#include <stddef.h>

struct tt_cgroup {
    char folder[512];
    size_t root_bytes; /* how much of it is the root's folder */
};

/* The group that this process is in: of a controller of version 1 ("memory"), or of version 2 (""). The
 * root where /proc/self/cgroup does not say. `prefix` comes before /proc and /sys: "", but for tests. */
void tt_cgroup_find(struct tt_cgroup *group, const char *prefix, const char *controller);

/* To the group around it: 0 if it is the root already. */
int tt_cgroup_up(struct tt_cgroup *group);

#endif
