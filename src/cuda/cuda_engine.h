/* The CUDA engine as the rooms above see it. */
#ifndef TT_CUDA_CUDA_ENGINE_H
#define TT_CUDA_CUDA_ENGINE_H

#include "base/engine.h"
#include "cuda/kernel_args.h" /* TT_CUDA_MAX_RANKS */

extern const struct tt_engine_ops tt_cuda_engine;

struct tt_cuda_device; /* device.c */

/* Where a GPU is plugged in, "0000:17:00.0", or "" if the driver does not say. */
void tt_cuda_device_place(const struct tt_cuda_device *device, char *out, size_t bytes);
void tt_cuda_place(const struct tt_engine *engine, char *out, size_t bytes);

/* ---- memory_pool.c: memory that another allocator manages ---- */

/* What is allocated for a communicator. Outlives it; counted. */
struct tt_cuda_pool;
tutti_result tt_cuda_pool_of(struct tt_engine *engine, struct tt_cuda_pool **pool_out);
void tt_cuda_pool_put(struct tt_cuda_pool *pool);     /* NULL is fine */
int tt_cuda_pool_is_alive(struct tt_cuda_pool *pool); /* its communicator exists */

/* Local. Zeroed. `pool` may be NULL; if it is on this GPU and alive, the next tt_cuda_pool_register()
 * makes the memory a window. */
tutti_result tt_cuda_pool_alloc(struct tt_cuda_pool *pool, int device_index, size_t bytes,
                                void **ptr_out);
tutti_result tt_cuda_pool_free(void *ptr); /* local, whatever it is registered with */

/* Collective: windows for what all ranks have allocated alike, none any more for what a rank has freed.
 * Memory that it refuses stays as usable as before. */
tutti_result tt_cuda_pool_register(struct tt_cuda_pool *pool);

/* ---- for `tutti info` ---- */

/* The kernels in this build: "90", "" if there are none. */
const char *tt_cuda_kernel_archs(void);

/* "13.0", or "" if there is no driver that will do; the error text says why. */
void tt_cuda_driver_text(char *text, size_t bytes);

/* "8 x NVIDIA H200", or "". */
void tt_cuda_gpus_text(char *text, size_t bytes);

/* The model of the first GPU, "NVIDIA H200", or "". */
void tt_cuda_gpu_name(char *text, size_t bytes);

#endif
