/* The engine of a communicator of GPUs on several hosts: the CUDA engine among those of a host, and between
 * hosts the engine for host memory, driven by a thread. docs/design/hierarchical.md: "GPUs" */
#ifndef TT_COLL_HIER_GPU_H
#define TT_COLL_HIER_GPU_H

#include "base/engine.h"
#include "cuda/kernel_args.h"

#define TT_HIER_GPU_MAX_RANKS TT_CUDA_STAGE_RANKS /* on all hosts together */

extern const struct tt_engine_ops tt_hier_gpu_engine;

/* The CUDA engine among the ranks of this host. */
struct tt_engine *tt_hier_gpu_local(struct tt_engine *e);

/* The algorithm that was asked for by name ("": none), the same on all ranks: that of the steps within a
 * host. */
tutti_result tt_hier_gpu_choose(struct tt_engine *e, const char *algorithm);

#endif
