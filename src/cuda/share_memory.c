/* GPU memory of this process that others can map: making it, and describing what exists. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/random.h"
#include "cuda/share_map.h"

#define IPC_GRANULE ((size_t)2 << 20) /* a handle means all of it, so nothing else shall be in it */

tutti_result tt_cuda_scope_enter(const struct tt_cuda_device *device, struct tt_cuda_scope *scope)
{
    TT_TRY(tt_cuda_enter(device, &scope->entered));
    scope->mode = CU_STREAM_CAPTURE_MODE_RELAXED;

    const tutti_result result =
        TT_CUDA(tt_cuda_driver()->cuThreadExchangeStreamCaptureMode(&scope->mode));

    if (result != TUTTI_OK)
        tt_cuda_leave(scope->entered);
    return result;
}

void tt_cuda_scope_leave(const struct tt_cuda_scope *scope)
{
    CUstreamCaptureMode mode = scope->mode;

    (void)tt_cuda_driver()->cuThreadExchangeStreamCaptureMode(&mode);
    tt_cuda_leave(scope->entered);
}

/* While any thread captures, the driver refuses to wait for streams (and breaks the capture). To free memory
 * waits for all work nevertheless, but keeps all threads from launching meanwhile, which a kernel may be
 * waiting for: so it is what is tried second. */
tutti_result tt_cuda_wait_for_kernels(void)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUdeviceptr at;
    const tutti_result result = TT_CUDA(cu->cuCtxSynchronize());

    if (result == TUTTI_OK || cu->cuMemAlloc_v2(&at, 1) != CUDA_SUCCESS)
        return result;
    return TT_CUDA(cu->cuMemFree_v2(at));
}

static CUdeviceptr address(const void *ptr)
{
    return (CUdeviceptr)(uintptr_t)ptr;
}

enum transfer { FILL, WRITE, READ };

static tutti_result transfer(enum transfer what, void *to, const void *from, unsigned char byte,
                             size_t bytes)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    tutti_result result, end;
    CUstream stream;

    TT_TRY(TT_CUDA(cu->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING)));
    switch (what) {
    case FILL: result = TT_CUDA(cu->cuMemsetD8Async(address(to), byte, bytes, stream)); break;
    case WRITE: result = TT_CUDA(cu->cuMemcpyHtoDAsync_v2(address(to), from, bytes, stream)); break;
    default: result = TT_CUDA(cu->cuMemcpyDtoHAsync_v2(to, address(from), bytes, stream)); break;
    }
    end = TT_CUDA(cu->cuStreamSynchronize(stream));
    (void)cu->cuStreamDestroy_v2(stream);
    return result != TUTTI_OK ? result : end;
}

tutti_result tt_cuda_fill(void *ptr, unsigned char byte, size_t bytes)
{
    return transfer(FILL, ptr, NULL, byte, bytes);
}

tutti_result tt_cuda_write(void *to, const void *host, size_t bytes)
{
    return transfer(WRITE, to, host, 0, bytes);
}

tutti_result tt_cuda_read(void *host, const void *from, size_t bytes)
{
    return transfer(READ, host, from, 0, bytes);
}

/* ---- making ---- */

static CUmemAllocationProp exportable(const struct tt_cuda_device *device)
{
    CUmemAllocationProp prop;

    memset(&prop, 0, sizeof(prop));
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = device->handle;
    prop.allocFlags.gpuDirectRDMACapable = device->direct_vmm != 0;
    return prop;
}

static tutti_result round_up(size_t bytes, size_t granule, size_t *whole_out)
{
    if (__builtin_add_overflow(bytes, granule - 1, whole_out))
        return TT_FAIL(TUTTI_E_ARG, "%zu bytes are more than there can be", bytes);
    *whole_out -= *whole_out % granule;
    return TUTTI_OK;
}

/* Give the pages of `handle` an address. */
static tutti_result place(const struct tt_cuda_device *device, CUmemGenericAllocationHandle handle,
                          size_t bytes, CUdeviceptr *at_out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUmemAccessDesc access = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, device->handle},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    tutti_result result;
    CUdeviceptr at;

    TT_TRY(TT_CUDA(cu->cuMemAddressReserve(&at, bytes, 0, 0, 0)));
    result = TT_CUDA(cu->cuMemMap(at, bytes, 0, handle, 0));
    if (result == TUTTI_OK) {
        result = TT_CUDA(cu->cuMemSetAccess(at, bytes, &access, 1));
        if (result != TUTTI_OK)
            (void)cu->cuMemUnmap(at, bytes);
    }
    if (result != TUTTI_OK)
        (void)cu->cuMemAddressFree(at, bytes);
    *at_out = at;
    return result;
}

static tutti_result vmm_new(const struct tt_cuda_device *device, size_t bytes,
                            struct tt_cuda_memory *m)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUmemAllocationProp prop = exportable(device);
    CUmemGenericAllocationHandle handle;
    size_t granule;
    CUdeviceptr at = 0;
    tutti_result result;

    if (!device->vmm)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "GPU %d (%s) has no memory that can be passed as file descriptors",
                       device->index, device->name);
    TT_TRY(TT_CUDA(
        cu->cuMemGetAllocationGranularity(&granule, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)));
    TT_TRY(round_up(bytes, granule, &m->bytes));
    TT_TRY(TT_CUDA(cu->cuMemCreate(&handle, m->bytes, &prop, 0)));
    result = place(device, handle, m->bytes, &at);
    (void)cu->cuMemRelease(handle); /* the mapping keeps the pages */
    if (result == TUTTI_OK)
        m->ptr = (unsigned char *)(uintptr_t)at;
    return result;
}

static tutti_result ipc_new(size_t bytes, struct tt_cuda_memory *m)
{
    CUdeviceptr at;

    TT_TRY(round_up(bytes, IPC_GRANULE, &m->bytes));
    TT_TRY(TT_CUDA(tt_cuda_driver()->cuMemAlloc_v2(&at, m->bytes)));
    m->ptr = (unsigned char *)(uintptr_t)at;
    return TUTTI_OK;
}

tutti_result tt_cuda_memory_new(const struct tt_cuda_device *device, size_t bytes,
                                enum tt_cuda_sharing sharing, struct tt_cuda_memory *memory_out)
{
    struct tt_cuda_memory m = {.sharing = sharing};
    tutti_result result;

    TT_TRY(sharing == TT_CUDA_VMM ? vmm_new(device, bytes, &m) : ipc_new(bytes, &m));
    result = tt_cuda_fill(m.ptr, 0, m.bytes);
    if (result == TUTTI_OK)
        *memory_out = m;
    else
        tt_cuda_memory_free(&m);
    return result;
}

void tt_cuda_memory_free(struct tt_cuda_memory *memory)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();

    if (!memory->ptr)
        return;
    if (memory->sharing == TT_CUDA_VMM) {
        (void)cu->cuMemUnmap(address(memory->ptr), memory->bytes);
        (void)cu->cuMemAddressFree(address(memory->ptr), memory->bytes);
    } else if (!tt_cuda_give_up(address(memory->ptr))) {
        (void)cu->cuMemFree_v2(address(memory->ptr));
    }
    memory->ptr = NULL;
}

/* ---- describing ---- */

/* Two processes may have one pid, each in its own namespace; a forked child has its parent's token. */
static tutti_result identify_process(unsigned char id_out[24])
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static unsigned char token[16];
    static int have_token;
    const int64_t pid = getpid();
    tutti_result result = TUTTI_OK;

    pthread_mutex_lock(&lock);
    if (!have_token)
        result = tt_random_bytes(token, sizeof(token));
    have_token = result == TUTTI_OK;
    memcpy(id_out, token, sizeof(token));
    pthread_mutex_unlock(&lock);
    memcpy(id_out + sizeof(token), &pid, sizeof(pid));
    return result;
}

static tutti_result check_place(const struct tt_cuda_device *device, const void *ptr, int index)
{
    if (index == device->index)
        return TUTTI_OK;
    return TT_FAIL(TUTTI_E_ARG, "%p is memory of GPU %d, and the communicator is on GPU %d", ptr,
                   index, device->index);
}

tutti_result tt_cuda_memory_check(const struct tt_cuda_device *device, const void *ptr,
                                  size_t bytes)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUdeviceptr begin = address(ptr), end = begin + bytes;
    CUdeviceptr base;
    size_t span;

    for (CUdeviceptr at = begin; at < end; at = base + span) {
        int index;

        if (cu->cuPointerGetAttribute(&index, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at) !=
                CUDA_SUCCESS ||
            cu->cuMemGetAddressRange_v2(&base, &span, at) != CUDA_SUCCESS || at - base >= span)
            return TT_FAIL(TUTTI_E_ARG,
                           "of the %zu bytes at %p only the first %llu are memory of a GPU", bytes,
                           ptr, at - begin);
        TT_TRY(check_place(device, ptr, index));
    }
    return TUTTI_OK;
}

/* The piece of VMM memory that holds `at`. */
static tutti_result add_piece(const struct tt_cuda_device *device,
                              CUmemGenericAllocationHandle handle, CUdeviceptr at,
                              struct tt_cuda_offer *offer)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    void *const ptr = (void *)(uintptr_t)at;
    CUmemAllocationProp prop;
    CUdeviceptr base;
    size_t bytes;

    TT_TRY(TT_CUDA(cu->cuMemGetAllocationPropertiesFromHandle(&prop, handle)));
    TT_TRY(TT_CUDA(cu->cuMemGetAddressRange_v2(&base, &bytes, at)));
    if (at < base || at - base >= bytes)
        return TT_FAIL(TUTTI_E_SYSTEM, "the driver says that %p is in the %zu bytes at %p", ptr,
                       bytes, (void *)(uintptr_t)base);
    if (prop.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return TT_FAIL(TUTTI_E_ARG, "%p is not memory of a GPU", ptr);
    TT_TRY(check_place(device, ptr, prop.location.id));
    if (!(prop.requestedHandleTypes & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR))
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "%p was made by cuMemCreate without a handle that can be passed to other "
                       "processes: take it from tutti_mem_alloc() or from cudaMalloc",
                       ptr);
    if (offer->n_pieces == 0) {
        offer->base = base;
        offer->offset = at - base;
    }
    offer->piece_bytes[offer->n_pieces++] = bytes;
    offer->span += bytes;
    return TUTTI_OK;
}

static tutti_result describe_vmm(const struct tt_cuda_device *device, CUdeviceptr ptr, size_t bytes,
                                 struct tt_cuda_offer *offer)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUdeviceptr end = ptr + bytes;

    offer->sharing = TT_CUDA_VMM;
    for (CUdeviceptr at = ptr; at < end; at = offer->base + offer->span) {
        CUmemGenericAllocationHandle handle;
        tutti_result result;

        if (offer->n_pieces == TT_CUDA_MAX_PIECES)
            return TT_FAIL(TUTTI_E_UNSUPPORTED,
                           "the %zu bytes are in more than %d pieces of memory: take them from "
                           "tutti_mem_alloc(), or register less",
                           bytes, TT_CUDA_MAX_PIECES);
        if (cu->cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)at) != CUDA_SUCCESS)
            return TT_FAIL(TUTTI_E_ARG, "of the %zu bytes only the first %llu are memory", bytes,
                           at - ptr);
        result = add_piece(device, handle, at, offer);
        (void)cu->cuMemRelease(handle);
        TT_TRY(result);
    }
    return TUTTI_OK;
}

static tutti_result describe_ipc(const struct tt_cuda_device *device, CUdeviceptr ptr, size_t bytes,
                                 struct tt_cuda_offer *offer)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    void *const p = (void *)(uintptr_t)ptr;
    CUdeviceptr base;
    size_t span;
    int index, is_capable = 0;

    if (cu->cuPointerGetAttribute(&index, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, ptr) != CUDA_SUCCESS)
        return TT_FAIL(TUTTI_E_ARG, "%p is not memory of a GPU", p);
    TT_TRY(check_place(device, p, index));
    TT_TRY(TT_CUDA(cu->cuPointerGetAttribute(
        &is_capable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, ptr)));
    if (!is_capable)
        return TT_FAIL(
            TUTTI_E_UNSUPPORTED,
            "%p can be shared neither by descriptor nor by IPC handle (managed, pinned or "
            "pool memory cannot): take it from tutti_mem_alloc() or from cudaMalloc",
            p);
    TT_TRY(TT_CUDA(cu->cuMemGetAddressRange_v2(&base, &span, ptr)));
    if (ptr < base || ptr - base > span || bytes > span - (ptr - base))
        return TT_FAIL(TUTTI_E_ARG, "the allocation at %p ends before the %zu bytes at %p",
                       (void *)(uintptr_t)base, bytes, p);
    TT_TRY(TT_CUDA(cu->cuIpcGetMemHandle(&offer->ipc, base)));
    offer->sharing = TT_CUDA_IPC;
    offer->base = base;
    offer->offset = ptr - base;
    offer->span = span;
    return TUTTI_OK;
}

tutti_result tt_cuda_offer_make(const struct tt_cuda_device *device, void *ptr, size_t bytes,
                                struct tt_cuda_offer *offer)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUmemGenericAllocationHandle handle;
    const CUdeviceptr at = address(ptr);
    int by_ipc = 0;

    memset(offer, 0, sizeof(*offer));
    if (!ptr || bytes == 0 || at + bytes < at)
        return TT_FAIL(TUTTI_E_ARG, "%zu bytes at %p cannot be shared", bytes, ptr);
    offer->bytes = bytes;
    offer->context = (uintptr_t)device->context;
    TT_TRY(identify_process(offer->process));
    /* Asked first: some drivers have a handle for cudaMalloc memory too, one that cannot be passed. */
    (void)cu->cuPointerGetAttribute(&by_ipc, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, at);
    if (by_ipc || cu->cuMemRetainAllocationHandle(&handle, ptr) != CUDA_SUCCESS)
        return describe_ipc(device, at, bytes, offer);
    (void)cu->cuMemRelease(handle);
    return describe_vmm(device, at, bytes, offer);
}

int tt_cuda_offer_is_sane(const struct tt_cuda_offer *offer)
{
    uint64_t span = offer->sharing == TT_CUDA_VMM ? 0 : offer->span;

    if (offer->sharing != TT_CUDA_VMM && offer->sharing != TT_CUDA_IPC)
        return 0;
    if (offer->n_pieces > TT_CUDA_MAX_PIECES)
        return 0;
    for (uint32_t i = 0; i < offer->n_pieces; i++)
        if (__builtin_add_overflow(span, offer->piece_bytes[i], &span))
            return 0;
    return span == offer->span && offer->offset <= span && offer->bytes <= span - offer->offset;
}

tutti_result tt_cuda_piece_export(const struct tt_cuda_offer *offer, uint32_t piece, int *fd_out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUmemGenericAllocationHandle handle;
    CUdeviceptr at = offer->base;
    tutti_result result;

    for (uint32_t i = 0; i < piece; i++)
        at += offer->piece_bytes[i];
    TT_TRY(TT_CUDA(cu->cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)at)));
    result = TT_CUDA(cu->cuMemExportToShareableHandle(fd_out, handle,
                                                      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    (void)cu->cuMemRelease(handle);
    return result;
}
