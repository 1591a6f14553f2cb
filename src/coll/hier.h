/* The engine of a communicator whose ranks are on several hosts: the CPU engine among the ranks of a
 * host, messages among the hosts. docs/design/hierarchical.md */
#ifndef TT_COLL_HIER_H
#define TT_COLL_HIER_H

#include "base/engine.h"

extern const struct tt_engine_ops tt_hier_engine;

/* The algorithm that was asked for by name ("": none), the same on all ranks: what it means for the
 * steps within a host. */
tutti_result tt_hier_choose(struct tt_engine *e, const char *algorithm);

/* Is that rank still there? Of other hosts' it is not known here. Any thread. */
enum tt_presence tt_hier_presence(struct tt_engine *e, int rank);

#endif
