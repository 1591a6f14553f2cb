/*
 * The simulated libcuda: memory. Allocations are memfds, so that other processes can map them; what is
 * not mapped, or beyond the end of an allocation, faults as on a GPU. New memory is full of rubbish.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/sim/sim_driver.h"

enum { PAGE = 4096, RUBBISH = 0xCD };
#define RUBBISH_BYTES ((size_t)1 << 20) /* of large ones: to stay sparse */
#define IPC_MAGIC     0x7475747469697063u

struct allocation { /* behind a CUmemGenericAllocationHandle */
    int fd, n_users;
    size_t bytes;
    CUmemAllocationProp prop;
};

enum kind { RESERVED, VMM, PLAIN, IPC };

struct range {
    enum kind kind;
    uintptr_t at;
    size_t bytes;
    int device;
    int accessible;            /* VMM */
    int fd;                    /* PLAIN */
    int n_users, pid, peer_fd; /* IPC */
    struct allocation *allocation;
    struct range *next;
};

struct ipc_handle {
    uint64_t magic;
    int pid, fd, device;
    size_t bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges;
static int n_objects;

int tt_sim_n_objects(void)
{
    return __atomic_load_n(&n_objects, __ATOMIC_RELAXED);
}

void sim_count_object(int change)
{
    __atomic_add_fetch(&n_objects, change, __ATOMIC_RELAXED);
}

/* ---- ranges of addresses ---- */

static struct range *find(uintptr_t at, int with_reserved)
{
    struct range *r;

    for (r = ranges; r != NULL; r = r->next)
        if (at >= r->at && at < r->at + r->bytes && (r->kind != RESERVED || with_reserved))
            break;
    return r;
}

static struct range *add(enum kind kind, uintptr_t at, size_t bytes, int device)
{
    struct range *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->kind = kind;
    r->at = at;
    r->bytes = bytes;
    r->device = device;
    r->next = ranges;
    ranges = r;
    sim_count_object(1);
    return r;
}

static void drop(struct range *r)
{
    struct range **link = &ranges;

    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    free(r);
    sim_count_object(-1);
}

static int is_usable(uintptr_t at, size_t bytes)
{
    while (bytes > 0) {
        const struct range *r = find(at, 0);
        size_t here;

        if (r == NULL || (r->kind == VMM && !r->accessible))
            return 0;
        here = (size_t)(r->at + r->bytes - at);
        if (here >= bytes)
            return 1;
        at += here;
        bytes -= here;
    }
    return 1;
}

CUresult sim_check_range(CUdeviceptr p, size_t bytes)
{
    int good;

    pthread_mutex_lock(&lock);
    good = is_usable((uintptr_t)p, bytes);
    pthread_mutex_unlock(&lock);
    return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static int new_memfd(size_t bytes)
{
    const int fd = memfd_create("simulated GPU memory", MFD_CLOEXEC);
    unsigned char rubbish[4096];

    if (fd < 0)
        return -1;
    memset(rubbish, RUBBISH, sizeof(rubbish));
    if (ftruncate(fd, (off_t)bytes) != 0) {
        close(fd);
        return -1;
    }
    for (size_t at = 0; at < bytes && at < RUBBISH_BYTES; at += sizeof(rubbish))
        if (pwrite(fd, rubbish, sizeof(rubbish), (off_t)at) < 0)
            break;
    return fd;
}

/* ---- cuMemAlloc ---- */

/* The pages of fd between two that fault. */
static unsigned char *map_guarded(int fd, size_t bytes)
{
    unsigned char *p =
        mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    if (mmap(p + PAGE, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
        MAP_FAILED) {
        munmap(p, bytes + 2 * PAGE);
        return NULL;
    }
    return p + PAGE;
}

static CUresult alloc_locked(CUdeviceptr *ptr, size_t bytes, int device)
{
    const int fd = new_memfd(bytes);
    unsigned char *p = fd >= 0 ? map_guarded(fd, bytes) : NULL;
    struct range *r = p != NULL ? add(PLAIN, (uintptr_t)p, bytes, device) : NULL;

    if (r == NULL) {
        if (fd >= 0)
            close(fd);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r->fd = fd;
    *ptr = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes)
{
    int device;
    CUresult result = sim_device(&device);

    if (result == CUDA_SUCCESS)
        result = sim_not_in_capture();
    if (result != CUDA_SUCCESS)
        return result;
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    result = alloc_locked(ptr, whole_pages(bytes), device);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Of a GPU that is always empty: memory is the host's, and is taken as it is touched. */
SIM_API CUresult cuMemGetInfo_v2(size_t *available, size_t *total);
CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    *available = (size_t)4 << 30;
    *total = (size_t)4 << 30;
    return CUDA_SUCCESS;
}

static CUresult free_locked(uintptr_t at)
{
    struct range *r = find(at, 0);

    if (r == NULL || r->kind != PLAIN || r->at != at)
        return CUDA_ERROR_INVALID_VALUE;
    munmap((void *)(r->at - PAGE), r->bytes + 2 * PAGE);
    close(r->fd);
    drop(r);
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr ptr)
{
    CUresult result = sim_not_in_capture();

    if (result != CUDA_SUCCESS || ptr == 0)
        return result;
    pthread_mutex_lock(&lock);
    result = free_locked((uintptr_t)ptr);
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- host memory ---- */

CUresult cuMemHostAlloc(void **ptr, size_t bytes, unsigned int flags)
{
    int device;
    const CUresult result = sim_device(&device);

    (void)flags;
    if (result != CUDA_SUCCESS)
        return result;
    if (bytes == 0 || posix_memalign(ptr, PAGE, bytes) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*ptr, RUBBISH, bytes);
    sim_count_object(1);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *ptr)
{
    free(ptr);
    sim_count_object(-1);
    return CUDA_SUCCESS;
}

CUresult cuMemHostRegister_v2(void *ptr, size_t bytes, unsigned int flags)
{
    int device;
    const CUresult result = sim_device(&device);

    (void)flags;
    if (result != CUDA_SUCCESS)
        return result;
    if (bytes == 0 || (uintptr_t)ptr % PAGE != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_count_object(1);
    return CUDA_SUCCESS;
}

CUresult cuMemHostUnregister(void *ptr)
{
    (void)ptr;
    sim_count_object(-1);
    return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *ptr, void *host, unsigned int flags)
{
    *ptr = (CUdeviceptr)(uintptr_t)host;
    return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- what a pointer is ---- */

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr)
{
    const struct range *r;

    pthread_mutex_lock(&lock);
    r = find((uintptr_t)ptr, 0);
    if (r != NULL && base != NULL)
        *base = (CUdeviceptr)r->at;
    if (r != NULL && bytes != NULL)
        *bytes = r->bytes;
    pthread_mutex_unlock(&lock);
    return r != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    const struct range *r;
    int word = 0, known = 1;

    pthread_mutex_lock(&lock);
    r = find((uintptr_t)ptr, 0);
    if (attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
        word = r != NULL ? r->device : 0;
    else if (attribute == CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)
        word = r != NULL && r->kind == PLAIN && !sim_is_listed("T_SIM_NO_IPC", r->device);
    else if (attribute == CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE)
        word =
            r != NULL && (r->kind == PLAIN ||
                          (r->kind == VMM && r->allocation->prop.allocFlags.gpuDirectRDMACapable));
    else
        known = 0;
    pthread_mutex_unlock(&lock);
    memcpy(value, &word, sizeof(word));
    return r != NULL && known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- virtual memory management ---- */

static struct allocation *of_handle(CUmemGenericAllocationHandle handle)
{
    return (struct allocation *)(uintptr_t)handle;
}

static void put_allocation(struct allocation *a)
{
    if (--a->n_users > 0)
        return;
    close(a->fd);
    free(a);
    sim_count_object(-1);
}

static CUresult new_allocation(int fd, size_t bytes, const CUmemAllocationProp *prop,
                               CUmemGenericAllocationHandle *handle)
{
    struct allocation *a = fd >= 0 ? calloc(1, sizeof(*a)) : NULL;

    if (a == NULL) {
        if (fd >= 0)
            close(fd);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    a->fd = fd;
    a->n_users = 1;
    a->bytes = bytes;
    a->prop = *prop;
    sim_count_object(1);
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)a;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop,
                                       CUmemAllocationGranularity_flags option)
{
    (void)option;
    *bytes = SIM_GRANULARITY;
    return sim_is_listed("T_SIM_NO_VMM", prop->location.id) ? CUDA_ERROR_NOT_SUPPORTED
                                                            : CUDA_SUCCESS;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
                     const CUmemAllocationProp *prop, unsigned long long flags)
{
    if (sim_is_listed("T_SIM_NO_VMM", prop->location.id))
        return CUDA_ERROR_NOT_SUPPORTED;
    if (flags != 0 || bytes == 0 || bytes % SIM_GRANULARITY != 0 ||
        prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
        prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE || prop->location.id >= sim_n_devices())
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_is_listed("T_SIM_NO_MEMORY", prop->location.id))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return new_allocation(new_memfd(bytes), bytes, prop, handle);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    pthread_mutex_lock(&lock);
    put_allocation(of_handle(handle));
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t bytes, size_t alignment, CUdeviceptr hint,
                             unsigned long long flags)
{
    const size_t unit = alignment > SIM_GRANULARITY ? alignment : SIM_GRANULARITY;
    unsigned char *p;
    uintptr_t at;

    (void)hint;
    if (flags != 0 || bytes == 0 || bytes % SIM_GRANULARITY != 0 || (unit & (unit - 1)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    p = mmap(NULL, bytes + unit + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
             0);
    if (p == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    at = ((uintptr_t)p + unit - 1) & ~(uintptr_t)(unit - 1); /* and keep a page after it */
    if (at != (uintptr_t)p)
        munmap(p, at - (uintptr_t)p);
    munmap((void *)(at + bytes + PAGE), (uintptr_t)p + unit - at);
    pthread_mutex_lock(&lock);
    add(RESERVED, at, bytes, -1);
    pthread_mutex_unlock(&lock);
    *ptr = (CUdeviceptr)at;
    return CUDA_SUCCESS;
}

static struct range *find_reserved(uintptr_t at)
{
    struct range *r;

    for (r = ranges; r != NULL; r = r->next)
        if (r->kind == RESERVED && at >= r->at && at < r->at + r->bytes)
            break;
    return r;
}

static int has_mapping(uintptr_t at, size_t bytes)
{
    const struct range *r;

    for (r = ranges; r != NULL; r = r->next)
        if (r->kind == VMM && r->at < at + bytes && at < r->at + r->bytes)
            return 1;
    return 0;
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t bytes)
{
    struct range *r;
    CUresult result = CUDA_ERROR_INVALID_VALUE;

    pthread_mutex_lock(&lock);
    r = find_reserved((uintptr_t)ptr);
    if (r != NULL && r->at == ptr && r->bytes == bytes && !has_mapping(r->at, bytes)) {
        munmap((void *)r->at, bytes + PAGE);
        drop(r);
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static CUresult map_locked(uintptr_t at, size_t bytes, struct allocation *a)
{
    const struct range *reserved = find_reserved(at);
    struct range *r;

    if (reserved == NULL || at + bytes > reserved->at + reserved->bytes || has_mapping(at, bytes) ||
        bytes == 0 || bytes % SIM_GRANULARITY != 0 || bytes > a->bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (mmap((void *)at, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, a->fd, 0) == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = add(VMM, at, bytes, a->prop.location.id);
    if (r == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r->allocation = a;
    a->n_users++;
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    CUresult result;

    if (flags != 0 || offset != 0 || handle == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    result = map_locked((uintptr_t)ptr, bytes, of_handle(handle));
    pthread_mutex_unlock(&lock);
    return result;
}

static CUresult unmap_locked(uintptr_t at, size_t bytes)
{
    while (bytes > 0) {
        struct range *r = find(at, 0);

        if (r == NULL || r->kind != VMM || r->at != at || r->bytes > bytes)
            return CUDA_ERROR_INVALID_VALUE;
        mmap((void *)at, r->bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        put_allocation(r->allocation);
        at += r->bytes;
        bytes -= r->bytes;
        drop(r);
    }
    return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr ptr, size_t bytes)
{
    CUresult result;

    pthread_mutex_lock(&lock);
    result = unmap_locked((uintptr_t)ptr, bytes);
    pthread_mutex_unlock(&lock);
    return result;
}

static CUresult set_access_locked(uintptr_t at, size_t bytes)
{
    while (bytes > 0) {
        struct range *r = find(at, 0);

        if (r == NULL || r->kind != VMM || r->at != at || r->bytes > bytes)
            return CUDA_ERROR_INVALID_VALUE;
        if (mprotect((void *)at, r->bytes, PROT_READ | PROT_WRITE) != 0)
            return CUDA_ERROR_OUT_OF_MEMORY;
        r->accessible = 1;
        at += r->bytes;
        bytes -= r->bytes;
    }
    return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc *access,
                        size_t n_access)
{
    CUresult result = CUDA_SUCCESS;

    for (size_t i = 0; i < n_access; i++)
        if (access[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            access[i].location.id >= sim_n_devices() ||
            access[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (n_access > 0)
        result = set_access_locked((uintptr_t)ptr, bytes);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuMemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle handle,
                                      CUmemAllocationHandleType type, unsigned long long flags)
{
    const struct allocation *a = of_handle(handle);
    int fd;

    if (flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
        (a->prop.requestedHandleTypes & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == 0)
        return CUDA_ERROR_INVALID_VALUE;
    fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(shareable, &fd, sizeof(fd));
    return CUDA_SUCCESS;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shareable,
                                        CUmemAllocationHandleType type)
{
    const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .requestedHandleTypes =
                                          CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                      .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    const int fd = (int)(intptr_t)shareable;
    struct stat about;
    int device;

    if (sim_device(&device) == CUDA_SUCCESS && sim_is_listed("T_SIM_FAIL_IMPORT", device))
        return CUDA_ERROR_INVALID_DEVICE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || fstat(fd, &about) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    return new_allocation(fcntl(fd, F_DUPFD_CLOEXEC, 0), (size_t)about.st_size, &prop, handle);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *ptr)
{
    const struct range *r;

    pthread_mutex_lock(&lock);
    r = find((uintptr_t)ptr, 0);
    if (r != NULL && r->kind == VMM) {
        r->allocation->n_users++;
        *handle = (CUmemGenericAllocationHandle)(uintptr_t)r->allocation;
    }
    pthread_mutex_unlock(&lock);
    return r != NULL && r->kind == VMM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                CUmemGenericAllocationHandle handle)
{
    *prop = of_handle(handle)->prop;
    return CUDA_SUCCESS;
}

/* ---- IPC ---- */

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr ptr)
{
    struct ipc_handle words = {.magic = IPC_MAGIC, .pid = getpid()};
    const struct range *r;
    int good;

    pthread_mutex_lock(&lock);
    r = find((uintptr_t)ptr, 0);
    good = r != NULL && r->kind == PLAIN && !sim_is_listed("T_SIM_NO_IPC", r->device);
    if (good) {
        words.fd = r->fd;
        words.bytes = r->bytes;
        words.device = r->device;
    }
    pthread_mutex_unlock(&lock);
    memset(handle, 0, sizeof(*handle));
    memcpy(handle, &words, sizeof(words));
    return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult open_locked(CUdeviceptr *ptr, const struct ipc_handle *words)
{
    struct range *r;
    char path[64];
    unsigned char *p;
    int fd;

    for (r = ranges; r != NULL; r = r->next)
        if (r->kind == IPC && r->pid == words->pid && r->peer_fd == words->fd) {
            r->n_users++;
            *ptr = (CUdeviceptr)r->at;
            return CUDA_SUCCESS;
        }
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", words->pid, words->fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return CUDA_ERROR_INVALID_VALUE;
    p = map_guarded(fd, words->bytes);
    close(fd);
    r = p != NULL ? add(IPC, (uintptr_t)p, words->bytes, words->device) : NULL;
    if (r == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r->n_users = 1;
    r->pid = words->pid;
    r->peer_fd = words->fd;
    *ptr = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *ptr, CUipcMemHandle handle, unsigned int flags)
{
    struct ipc_handle words;
    CUresult result;
    int device;

    memcpy(&words, &handle, sizeof(words));
    if (words.magic != IPC_MAGIC || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
        return CUDA_ERROR_INVALID_VALUE;
    if (words.pid == getpid() || sim_device(&device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (sim_is_listed("T_SIM_FAIL_IMPORT", device))
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&lock);
    result = open_locked(ptr, &words);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr ptr)
{
    struct range *r;
    int good;

    pthread_mutex_lock(&lock);
    r = find((uintptr_t)ptr, 0);
    good = r != NULL && r->kind == IPC && r->at == ptr;
    if (good && --r->n_users == 0) {
        munmap((void *)(r->at - PAGE), r->bytes + 2 * PAGE);
        drop(r);
    }
    pthread_mutex_unlock(&lock);
    return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
