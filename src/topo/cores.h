/* Which cores are near a device, and how many there are to use. */
#ifndef TT_TOPO_CORES_H
#define TT_TOPO_CORES_H

#include <sched.h>
#include <stdint.h>

/* Those of this thread's cores that the kernel says are near the PCI device ("0000:17:00.0", either case):
 * 1. Or 0, and *cores_out is as it was: it does not say, or none of them is this thread's. */
int tt_cores_near(const char *pci_device, cpu_set_t *cores_out);

/* "0-3,8,10-11" as the kernel writes it. 0 on success, -1 for what is no such list. Pure. */
int tt_cores_parse(const char *list, cpu_set_t *cores_out);

/* How many cores the quotas of this process's control group, and of those around it, allow it, the last one
 * perhaps in part; 0: as many as there are. `prefix` is put before /proc and /sys: "", but for tests. */
uint32_t tt_cores_quota(const char *prefix);

#endif
