/* The CUDA engine as the rooms above see it. */
#ifndef TT_CUDA_CUDA_ENGINE_H
#define TT_CUDA_CUDA_ENGINE_H

#include "base/engine.h"
#include "cuda/kernel_args.h" /* TT_CUDA_MAX_RANKS */

extern const struct tt_engine_ops tt_cuda_engine;

/* For `tutti info`. The kernels in this build: "90", "" if there are none. */
const char *tt_cuda_kernel_archs(void);

/* "13.0", or "" if there is no driver that will do; the error text says why. */
void tt_cuda_driver_text(char *text, size_t bytes);

/* "8 x NVIDIA H200", or "". */
void tt_cuda_gpus_text(char *text, size_t bytes);

/* The model of the first GPU, "NVIDIA H200", or "". */
void tt_cuda_gpu_name(char *text, size_t bytes);

#endif
