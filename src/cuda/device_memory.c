/* tutti_mem_alloc on a GPU. The memory belongs to the process: any of its communicators may register
 * or free it. */
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"
#include "cuda/share_map.h"

struct allocation {
    struct tt_cuda_memory memory;
    struct tt_cuda_device *device; /* held open */
    int n_windows;
    struct allocation *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct allocation *list;

static tutti_result make(const struct tt_cuda_device *device, size_t bytes,
                         struct tt_cuda_memory *memory)
{
    struct tt_cuda_scope scope;
    tutti_result result;

    TT_TRY(tt_cuda_scope_enter(device, &scope));
    result = tt_cuda_memory_new(device, bytes, device->vmm ? TT_CUDA_VMM : TT_CUDA_IPC, memory);
    if (result == TUTTI_E_SYSTEM && device->vmm) /* a container may forbid descriptors */
        result = tt_cuda_memory_new(device, bytes, TT_CUDA_IPC, memory);
    tt_cuda_scope_leave(&scope);
    return result;
}

tutti_result tt_cuda_device_alloc(int device_index, size_t bytes, void **ptr_out)
{
    struct allocation *a;
    tutti_result result;

    if (bytes == 0 || bytes > SIZE_MAX / 2)
        return TT_FAIL(TUTTI_E_ARG, "mem_alloc of %zu bytes", bytes);
    a = calloc(1, sizeof(*a));
    if (!a)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the list of GPU memory");
    result = tt_cuda_device_open(device_index, &a->device);
    if (result == TUTTI_OK)
        result = make(a->device, bytes, &a->memory);
    if (result != TUTTI_OK) {
        tt_cuda_device_close(a->device);
        free(a);
        return result;
    }
    pthread_mutex_lock(&lock);
    a->next = list;
    list = a;
    pthread_mutex_unlock(&lock);
    *ptr_out = a->memory.ptr;
    return TUTTI_OK;
}

/* Out of the list, if it may be freed. */
static tutti_result take(const void *ptr, struct allocation **a_out)
{
    tutti_result result = TUTTI_OK;
    struct allocation **p;

    pthread_mutex_lock(&lock);
    for (p = &list; *p && (*p)->memory.ptr != ptr; p = &(*p)->next)
        ;
    if (!*p) {
        result = TT_FAIL(TUTTI_E_ARG, "mem_free of %p, which is not from mem_alloc", ptr);
    } else if ((*p)->n_windows > 0) {
        result = TT_FAIL(TUTTI_E_ARG,
                         "mem_free of %p, which is still registered %d times: deregister "
                         "its windows first",
                         ptr, (*p)->n_windows);
    } else {
        *a_out = *p;
        *p = (*p)->next;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

tutti_result tt_cuda_device_free(void *ptr)
{
    struct allocation *a = NULL;
    struct tt_cuda_scope scope;
    tutti_result result;

    TT_TRY(take(ptr, &a));
    result = tt_cuda_scope_enter(a->device, &scope);
    if (result == TUTTI_OK) {
        (void)tt_cuda_driver()->cuCtxSynchronize(); /* as cudaFree does: kernels may still use it */
        tt_cuda_memory_free(&a->memory);
        tt_cuda_scope_leave(&scope);
    }
    tt_cuda_device_close(a->device);
    free(a);
    return result;
}

void tt_cuda_device_hold(const void *ptr, int n_windows)
{
    pthread_mutex_lock(&lock);
    for (struct allocation *a = list; a; a = a->next)
        if ((uintptr_t)ptr - (uintptr_t)a->memory.ptr < a->memory.bytes)
            a->n_windows += n_windows;
    pthread_mutex_unlock(&lock);
}
