/* Inside the CUDA engine: ranks that compare notes, over host memory. */
#ifndef TT_CUDA_SHARE_AGREE_H
#define TT_CUDA_SHARE_AGREE_H

#include "cuda/cuda.h"

/* `bytes` (at most TT_BOOT_MAX_RECORD) of every rank to every rank, with a deadline from now. */
tutti_result tt_cuda_exchange(struct tt_engine *engine, const void *send, void *recv, size_t bytes);

/* Collective: TUTTI_OK if all ranks bring that, else on all ranks the failure of the first that does not,
 * whose text begins with `what`: "rank 3 could not <what>: <its text>". Also a barrier. */
tutti_result tt_cuda_agree(struct tt_engine *engine, tutti_result mine, const char *what);

#endif
