/* Memory of other ranks, mapped here. */
#include "cuda/share_map.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* An allocation that was opened by its handle: the driver opens each only once in a context. */
struct opened {
    CUipcMemHandle handle;
    CUcontext context;
    CUdeviceptr at;
    int n_users;
    struct opened *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct opened *list;

static tutti_result open_first(const struct tt_cuda_driver *cu, CUcontext context,
                               const CUipcMemHandle *handle, struct opened **opened_out)
{
    struct opened *o = calloc(1, sizeof(*o));
    tutti_result result;

    if (!o)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a mapping");
    o->handle = *handle;
    o->context = context;
    result =
        TT_CUDA(cu->cuIpcOpenMemHandle_v2(&o->at, *handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    if (result != TUTTI_OK) {
        free(o);
        return result;
    }
    o->next = list;
    list = o;
    *opened_out = o;
    return TUTTI_OK;
}

static tutti_result ipc_open(const CUipcMemHandle *handle, CUdeviceptr *at_out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    tutti_result result = TUTTI_OK;
    struct opened *o;
    CUcontext context;

    TT_TRY(TT_CUDA(cu->cuCtxGetCurrent(&context)));
    pthread_mutex_lock(&lock);
    for (o = list; o; o = o->next)
        if (o->context == context && memcmp(&o->handle, handle, sizeof(*handle)) == 0)
            break;
    if (!o)
        result = open_first(cu, context, handle, &o);
    if (result == TUTTI_OK) {
        o->n_users++;
        *at_out = o->at;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static void ipc_close(CUdeviceptr at)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUcontext context = NULL;

    (void)cu->cuCtxGetCurrent(&context);
    pthread_mutex_lock(&lock);
    for (struct opened **p = &list; *p; p = &(*p)->next) {
        struct opened *o = *p;

        if (o->at != at || o->context != context)
            continue;
        if (--o->n_users == 0) {
            (void)cu->cuIpcCloseMemHandle(at);
            *p = o->next;
            free(o);
        }
        break;
    }
    pthread_mutex_unlock(&lock);
}

/* An allocation by IPC that ranks of its own process use where it is. They keep it, as the mappings of other
 * processes do: whose it is may leave first. */
struct borrowed {
    CUdeviceptr at;
    int n_users;
    int is_given_up; /* by its owner: the last user frees it */
    struct borrowed *next;
};

static struct borrowed *borrowed;

static struct borrowed **borrowed_at(CUdeviceptr at)
{
    struct borrowed **p = &borrowed;

    while (*p && (*p)->at != at)
        p = &(*p)->next;
    return p;
}

static tutti_result borrow(CUdeviceptr at)
{
    tutti_result result = TUTTI_OK;
    struct borrowed **p;

    pthread_mutex_lock(&lock);
    p = borrowed_at(at);
    if (!*p && (*p = calloc(1, sizeof(**p))))
        (*p)->at = at;
    if (*p)
        (*p)->n_users++;
    else
        result = TT_FAIL(TUTTI_E_MEMORY, "no memory for a mapping");
    pthread_mutex_unlock(&lock);
    return result;
}

static void give_back(CUdeviceptr at)
{
    struct borrowed **p, *b;

    pthread_mutex_lock(&lock);
    p = borrowed_at(at);
    b = *p;
    if (b && --b->n_users == 0) {
        if (b->is_given_up)
            (void)tt_cuda_driver()->cuMemFree_v2(at);
        *p = b->next;
        free(b);
    }
    pthread_mutex_unlock(&lock);
}

int tt_cuda_give_up(CUdeviceptr at)
{
    struct borrowed *b;

    pthread_mutex_lock(&lock);
    b = *borrowed_at(at);
    if (b)
        b->is_given_up = 1;
    pthread_mutex_unlock(&lock);
    return b != NULL;
}

/* A thread of this process has it mapped already; another GPU's needs only be let through. */
static tutti_result use_in_process(const struct tt_cuda_offer *offer)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUcontext theirs = (CUcontext)(uintptr_t)offer->context;
    CUcontext ours;
    CUresult result;

    TT_TRY(TT_CUDA(cu->cuCtxGetCurrent(&ours)));
    if (ours == theirs)
        return TUTTI_OK;
    result = cu->cuCtxEnablePeerAccess(theirs, 0);
    if (result == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED)
        return TUTTI_OK;
    return tt_cuda_result(__FILE__, __LINE__, "cuCtxEnablePeerAccess", result);
}

static tutti_result map_ipc(const struct tt_cuda_offer *own, const struct tt_cuda_offer *theirs,
                            struct tt_cuda_mapping *mapping)
{
    CUdeviceptr at = theirs->base;

    if (memcmp(own->process, theirs->process, sizeof(own->process)) == 0) {
        TT_TRY(use_in_process(theirs));
        TT_TRY(borrow(at));
        mapping->is_borrowed = 1;
    } else {
        TT_TRY(ipc_open(&theirs->ipc, &at));
        mapping->is_opened = 1;
    }
    mapping->base = (unsigned char *)(uintptr_t)at;
    return TUTTI_OK;
}

tutti_result tt_cuda_map_begin(const struct tt_cuda_offer *own, const struct tt_cuda_offer *theirs,
                               struct tt_cuda_mapping *mapping)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUdeviceptr at;

    mapping->sharing = (enum tt_cuda_sharing)theirs->sharing;
    if (mapping->sharing == TT_CUDA_IPC)
        return map_ipc(own, theirs, mapping);
    TT_TRY(TT_CUDA(cu->cuMemAddressReserve(&at, theirs->span, 0, 0, 0)));
    mapping->base = (unsigned char *)(uintptr_t)at;
    mapping->reserved = theirs->span;
    return TUTTI_OK;
}

static CUdeviceptr end_of_pieces(const struct tt_cuda_mapping *mapping)
{
    CUdeviceptr at = (CUdeviceptr)(uintptr_t)mapping->base;

    for (uint32_t i = 0; i < mapping->n_pieces; i++)
        at += mapping->piece_bytes[i];
    return at;
}

tutti_result tt_cuda_map_piece(const struct tt_cuda_device *device,
                               const struct tt_cuda_offer *theirs, struct tt_cuda_mapping *mapping,
                               int fd)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUmemAccessDesc access = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, device->handle},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    const CUdeviceptr at = end_of_pieces(mapping);
    const uint64_t bytes = theirs->piece_bytes[mapping->n_pieces];
    CUmemGenericAllocationHandle handle;
    tutti_result result;

    TT_TRY(TT_CUDA(cu->cuMemImportFromShareableHandle(&handle, (void *)(uintptr_t)fd,
                                                      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)));
    result = TT_CUDA(cu->cuMemMap(at, bytes, 0, handle, 0));
    (void)cu->cuMemRelease(handle); /* the mapping keeps the pages */
    TT_TRY(result);
    mapping->piece_bytes[mapping->n_pieces++] = bytes;
    return TT_CUDA(cu->cuMemSetAccess(at, bytes, &access, 1));
}

void tt_cuda_unmap(struct tt_cuda_mapping *mapping)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const CUdeviceptr at = (CUdeviceptr)(uintptr_t)mapping->base;

    if (!mapping->base)
        return;
    if (mapping->is_opened)
        ipc_close(at);
    if (mapping->is_borrowed)
        give_back(at);
    while (mapping->n_pieces > 0) {
        const uint64_t bytes = mapping->piece_bytes[--mapping->n_pieces];

        (void)cu->cuMemUnmap(end_of_pieces(mapping), bytes);
    }
    if (mapping->reserved)
        (void)cu->cuMemAddressFree(at, mapping->reserved);
    mapping->base = NULL;
}
