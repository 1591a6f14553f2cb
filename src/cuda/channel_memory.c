/* What channels need of a GPU: pinned memory, words, and copies that nobody waits for. */
#include "cuda/channel_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cuda/share_map.h"

struct tt_cuda_copier {
    const struct tt_cuda_device *device;
    struct tt_cuda_scope scope;
    int is_entered;
    CUstream stream;
    CUevent events[TT_CUDA_COPIES]; /* of copy t at t modulo their number */
    uint64_t n_begun, n_done;
};

static CUdeviceptr address(const void *ptr)
{
    return (CUdeviceptr)(uintptr_t)ptr;
}

tutti_result tt_cuda_channel_open(int device_index, const void *memory, size_t bytes,
                                  struct tt_cuda_device **device_out)
{
    struct tt_cuda_scope scope;
    tutti_result result;

    TT_TRY(tt_cuda_device_open(device_index, device_out));
    TT_TRY(tt_cuda_scope_enter(*device_out, &scope));
    result = tt_cuda_memory_check(*device_out, memory, bytes);
    tt_cuda_scope_leave(&scope);
    return result;
}

void tt_cuda_channel_close(struct tt_cuda_device *device)
{
    tt_cuda_device_close(device);
}

/* ---- memory ---- */

tutti_result tt_cuda_pin(const struct tt_cuda_device *device, size_t bytes, void **host_out,
                         void **at_device_out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    struct tt_cuda_scope scope;
    tutti_result result;
    CUdeviceptr at = 0;
    void *host = NULL;

    TT_TRY(tt_cuda_scope_enter(device, &scope));
    result = TT_CUDA(
        cu->cuMemHostAlloc(&host, bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP));
    if (result == TUTTI_OK) {
        memset(host, 0, bytes);
        result = TT_CUDA(cu->cuMemHostGetDevicePointer_v2(&at, host, 0));
        if (result != TUTTI_OK)
            (void)cu->cuMemFreeHost(host);
    }
    tt_cuda_scope_leave(&scope);
    if (result == TUTTI_OK) {
        *host_out = host;
        *at_device_out = (void *)(uintptr_t)at;
    }
    return result;
}

void tt_cuda_unpin(const struct tt_cuda_device *device, void *host)
{
    struct tt_cuda_scope scope;

    if (!host || tt_cuda_scope_enter(device, &scope) != TUTTI_OK)
        return;
    (void)tt_cuda_driver()->cuMemFreeHost(host);
    tt_cuda_scope_leave(&scope);
}

tutti_result tt_cuda_words_new(const struct tt_cuda_device *device, size_t bytes, void **out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    struct tt_cuda_scope scope;
    tutti_result result;
    CUdeviceptr at = 0;

    TT_TRY(tt_cuda_scope_enter(device, &scope));
    result = TT_CUDA(cu->cuMemAlloc_v2(&at, bytes));
    if (result == TUTTI_OK) {
        *out = (void *)(uintptr_t)at;
        result = tt_cuda_fill(*out, 0, bytes);
        if (result != TUTTI_OK)
            (void)cu->cuMemFree_v2(at);
    }
    tt_cuda_scope_leave(&scope);
    return result;
}

void tt_cuda_words_free(const struct tt_cuda_device *device, void *words)
{
    struct tt_cuda_scope scope;

    if (!words || tt_cuda_scope_enter(device, &scope) != TUTTI_OK)
        return;
    (void)tt_cuda_driver()->cuMemFree_v2(address(words));
    tt_cuda_scope_leave(&scope);
}

/* ---- copies ---- */

static tutti_result make_stream(struct tt_cuda_copier *c)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();

    TT_TRY(TT_CUDA(cu->cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING)));
    for (int i = 0; i < TT_CUDA_COPIES; i++)
        TT_TRY(TT_CUDA(cu->cuEventCreate(&c->events[i], CU_EVENT_DISABLE_TIMING)));
    return TUTTI_OK;
}

tutti_result tt_cuda_copier_new(const struct tt_cuda_device *device, struct tt_cuda_copier **out)
{
    struct tt_cuda_copier *c = calloc(1, sizeof(*c));
    struct tt_cuda_scope scope;
    tutti_result result;

    if (!c)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the copies of a channel");
    c->device = device;
    result = tt_cuda_scope_enter(device, &scope);
    if (result == TUTTI_OK) {
        result = make_stream(c);
        tt_cuda_scope_leave(&scope);
    }
    if (result == TUTTI_OK)
        *out = c;
    else
        tt_cuda_copier_free(c);
    return result;
}

void tt_cuda_copier_free(struct tt_cuda_copier *c)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    struct tt_cuda_scope scope;

    if (c && tt_cuda_scope_enter(c->device, &scope) == TUTTI_OK) {
        if (c->stream) {
            (void)cu->cuStreamSynchronize(c->stream);
            (void)cu->cuStreamDestroy_v2(c->stream);
        }
        for (int i = 0; i < TT_CUDA_COPIES; i++)
            if (c->events[i])
                (void)cu->cuEventDestroy_v2(c->events[i]);
        tt_cuda_scope_leave(&scope);
    }
    free(c);
}

tutti_result tt_cuda_copier_enter(struct tt_cuda_copier *c)
{
    if (c->is_entered)
        return TUTTI_OK;
    TT_TRY(tt_cuda_scope_enter(c->device, &c->scope));
    c->is_entered = 1;
    return TUTTI_OK;
}

void tt_cuda_copier_leave(struct tt_cuda_copier *c)
{
    if (c->is_entered)
        tt_cuda_scope_leave(&c->scope);
    c->is_entered = 0;
}

int tt_cuda_copier_has_room(const struct tt_cuda_copier *c)
{
    return c->n_begun - c->n_done < TT_CUDA_COPIES;
}

int tt_cuda_copier_is_idle(const struct tt_cuda_copier *c)
{
    return c->n_begun == c->n_done;
}

static tutti_result note(struct tt_cuda_copier *c, uint64_t *ticket_out)
{
    TT_TRY(TT_CUDA(
        tt_cuda_driver()->cuEventRecord(c->events[c->n_begun % TT_CUDA_COPIES], c->stream)));
    *ticket_out = c->n_begun++;
    return TUTTI_OK;
}

tutti_result tt_cuda_copy_in(struct tt_cuda_copier *c, void *to_gpu, const void *from_host,
                             size_t bytes, uint64_t *ticket_out)
{
    TT_TRY(TT_CUDA(
        tt_cuda_driver()->cuMemcpyHtoDAsync_v2(address(to_gpu), from_host, bytes, c->stream)));
    return note(c, ticket_out);
}

tutti_result tt_cuda_copy_out(struct tt_cuda_copier *c, void *to_host, const void *from_gpu,
                              size_t bytes, uint64_t *ticket_out)
{
    TT_TRY(TT_CUDA(
        tt_cuda_driver()->cuMemcpyDtoHAsync_v2(to_host, address(from_gpu), bytes, c->stream)));
    return note(c, ticket_out);
}

tutti_result tt_cuda_copies_done(struct tt_cuda_copier *c, uint64_t *n_out)
{
    while (c->n_done < c->n_begun) {
        const CUresult result =
            tt_cuda_driver()->cuEventQuery(c->events[c->n_done % TT_CUDA_COPIES]);

        if (result == CUDA_ERROR_NOT_READY)
            break;
        TT_TRY(TT_CUDA(result));
        c->n_done++;
    }
    *n_out = c->n_done;
    return TUTTI_OK;
}

/* ---- GPUDirect ---- */

int tt_cuda_is_direct(const struct tt_cuda_device *device, const void *memory, int by_dmabuf)
{
    int is_capable = 0;

    if (!device->direct || (by_dmabuf && !device->dmabuf))
        return 0;
    return tt_cuda_driver()->cuPointerGetAttribute(&is_capable,
                                                   CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE,
                                                   address(memory)) == CUDA_SUCCESS &&
           is_capable;
}

tutti_result tt_cuda_settle(const struct tt_cuda_copier *c)
{
    if (!c->device->can_flush)
        return TUTTI_OK;
    return TT_CUDA(tt_cuda_driver()->cuFlushGPUDirectRDMAWrites(
        CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
        CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER));
}
