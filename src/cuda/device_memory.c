/* Memory of our own making on a GPU: of tutti_mem_alloc and of memory_pool.c. It belongs to the process:
 * any of its communicators may register it. */
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"
#include "cuda/share_map.h"

struct allocation {
    struct tt_cuda_memory memory;
    struct tt_cuda_device *device; /* held open */
    enum tt_cuda_owner owner;
    int n_windows;
    int is_released; /* goes with its last window */
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

tutti_result tt_cuda_device_alloc(int device_index, enum tt_cuda_owner owner, size_t bytes,
                                  void **ptr_out)
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
    a->owner = owner;
    pthread_mutex_lock(&lock);
    a->next = list;
    list = a;
    pthread_mutex_unlock(&lock);
    *ptr_out = a->memory.ptr;
    return TUTTI_OK;
}

/* The link to the allocation that begins at ptr, or to the end of the list. */
static struct allocation **link_to(const void *ptr, enum tt_cuda_owner owner)
{
    struct allocation **p = &list;

    while (*p && ((*p)->memory.ptr != ptr || (*p)->owner != owner))
        p = &(*p)->next;
    return p;
}

/* Out of the list, if it may be freed. */
static tutti_result take(const void *ptr, struct allocation **a_out)
{
    tutti_result result = TUTTI_OK;
    struct allocation **p;

    pthread_mutex_lock(&lock);
    p = link_to(ptr, TT_CUDA_CALLER);
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

/* Kernels may still use the memory: wait for them, as cudaFree does. */
static void dispose(struct allocation *a, int after_kernels)
{
    struct tt_cuda_scope scope;

    if (tt_cuda_scope_enter(a->device, &scope) == TUTTI_OK) {
        if (after_kernels)
            (void)tt_cuda_wait_for_kernels();
        tt_cuda_memory_free(&a->memory);
        tt_cuda_scope_leave(&scope);
    }
    tt_cuda_device_close(a->device);
    free(a);
}

tutti_result tt_cuda_device_free(void *ptr)
{
    struct allocation *a = NULL;

    TT_TRY(take(ptr, &a));
    dispose(a, 1);
    return TUTTI_OK;
}

tutti_result tt_cuda_device_quiet(const void *ptr)
{
    struct tt_cuda_scope scope;
    const struct allocation *a;

    pthread_mutex_lock(&lock);
    a = *link_to(ptr, TT_CUDA_POOL);
    pthread_mutex_unlock(&lock);
    if (!a)
        return TT_FAIL(TUTTI_E_ARG, "%p is not the start of memory from tutti_torch_alloc", ptr);
    if (tt_cuda_scope_enter(a->device, &scope) == TUTTI_OK) {
        (void)tt_cuda_wait_for_kernels();
        tt_cuda_scope_leave(&scope);
    }
    return TUTTI_OK;
}

void tt_cuda_device_release(const void *ptr)
{
    struct allocation **p, *gone = NULL;

    pthread_mutex_lock(&lock);
    p = link_to(ptr, TT_CUDA_POOL);
    if (*p && (*p)->n_windows > 0) {
        (*p)->is_released = 1;
    } else if (*p) {
        gone = *p;
        *p = gone->next;
    }
    pthread_mutex_unlock(&lock);
    if (gone)
        dispose(gone, 0);
}

void tt_cuda_device_hold(const void *ptr, int n_windows)
{
    struct allocation **p = &list, *a, *gone = NULL;

    pthread_mutex_lock(&lock);
    while ((a = *p)) {
        if ((uintptr_t)ptr - (uintptr_t)a->memory.ptr < a->memory.bytes) {
            a->n_windows += n_windows;
            if (a->is_released && a->n_windows == 0) {
                gone = a;
                *p = a->next;
            }
            break;
        }
        p = &a->next;
    }
    pthread_mutex_unlock(&lock);
    if (gone)
        dispose(gone, 0);
}
