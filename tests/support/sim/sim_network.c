/*
 * The simulated libcuda: GPUDirect. What a device of the network writes to GPU memory lies in a queue until it is
 * flushed, as writes over PCIe may; only a few fit it. T_SIM_BREAK=no_flush: only the first flush does
 * anything.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "support/sim/sim.h"
#include "support/sim/sim_driver.h"

enum { MOST = 64 };

struct write {
    void *to;
    void *data;
    size_t bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct write writes[MOST];
static int n_writes, n_flushes;

static void land_first(void)
{
    memcpy(writes[0].to, writes[0].data, writes[0].bytes);
    free(writes[0].data);
    memmove(writes, writes + 1, (size_t)--n_writes * sizeof(writes[0]));
}

void tt_sim_write_later(void *to, const void *data, size_t bytes)
{
    struct write w = {to, malloc(bytes), bytes};

    if (w.data == NULL)
        abort();
    memcpy(w.data, data, bytes);
    pthread_mutex_lock(&lock);
    if (n_writes == MOST)
        land_first();
    writes[n_writes++] = w;
    pthread_mutex_unlock(&lock);
}

CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
                                    CUflushGPUDirectRDMAWritesScope scope)
{
    int device;

    if (target != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX ||
        scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_device(&device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    while (n_writes > 0 && (n_flushes == 0 || !tt_sim_breaks("no_flush")))
        land_first();
    n_flushes++;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}
