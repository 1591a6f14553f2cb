/* The ports of RDMA cards that a host has, and which of them is near. */
#ifndef TT_TOPO_RAILS_H
#define TT_TOPO_RAILS_H

#include <stddef.h>

#define TT_SYSFS "/sys" /* tests have others */

/* ",mlx5_0:1,mlx5_1:1": all that are active, those that fit. */
void tt_rails_list(const char *sysfs, char *out, size_t bytes);

/* The one for a rank that computes on the PCI device `gpu` ("0000:17:00.0", either case), or on the cores of this
 * thread if that is "": ",mlx5_0:1"; "" if there is none. Of those that are equally near the ranks of a host, of
 * which this is number `turn` from 0, each take another. */
void tt_rails_nearest(const char *sysfs, const char *gpu, int turn, char *out, size_t bytes);

#endif
