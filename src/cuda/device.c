/* The GPUs that this process uses. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/error.h"
#include "cuda/cuda.h"
#include "cuda/cuda_engine.h"
#include "cuda/images.h"

#define MAX_DEVICES     64
#define PDL_MIN_MAJOR   9
#define PDL_MIN_VERSION 12030 /* of the driver: the first that can capture such launches */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tt_cuda_device *devices[MAX_DEVICES];

static const char *const kernel_names[TT_N_CUDA_KERNELS] = {
#define TT_REDUCE(name, body, wire, dtype, op, n) #name,
#define TT_MOVE(name, body)                       #name,
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE
};

tutti_result tt_cuda_n_devices(int *n_out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();

    if (!cu)
        return TUTTI_E_UNSUPPORTED;
    return TT_CUDA(cu->cuDeviceGetCount(n_out));
}

/* 0 also where the driver does not know the word. */
static int attribute(const struct tt_cuda_driver *cu, const struct tt_cuda_device *d,
                     CUdevice_attribute which)
{
    int value = 0;

    return cu->cuDeviceGetAttribute(&value, which, d->handle) == CUDA_SUCCESS ? value : 0;
}

static void describe_direct(const struct tt_cuda_driver *cu, struct tt_cuda_device *d)
{
    const int options = attribute(cu, d, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS);
    const int ordering = attribute(cu, d, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING);

    d->can_flush = (options & CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST) != 0;
    d->direct = attribute(cu, d, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED) &&
                (d->can_flush || ordering >= CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER);
    d->direct_vmm = attribute(cu, d, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED);
    d->dmabuf = attribute(cu, d, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED);
}

static tutti_result describe(const struct tt_cuda_driver *cu, struct tt_cuda_device *d)
{
    const CUdevice_attribute attributes[] = {
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
    };
    int value[TT_LEN(attributes)] = {0};
    CUuuid uuid;
    int pdl_choice;

    TT_TRY(TT_CUDA(cu->cuDeviceGet(&d->handle, d->index)));
    TT_TRY(TT_CUDA(cu->cuDeviceGetName(d->name, (int)sizeof(d->name), d->handle)));
    TT_TRY(TT_CUDA(cu->cuDeviceGetUuid_v2(&uuid, d->handle)));
    memcpy(d->uuid, uuid.bytes, sizeof(d->uuid));
    for (size_t i = 0; i < TT_LEN(attributes); i++)
        TT_TRY(TT_CUDA(cu->cuDeviceGetAttribute(&value[i], attributes[i], d->handle)));
    TT_TRY(tt_env_choice(TT_ENV_TUTTI_CUDA_PDL, &pdl_choice));
    d->major = value[0];
    d->minor = value[1];
    d->n_sms = value[2];
    d->vmm = value[3] && value[4];
    describe_direct(cu, d);
    d->pdl = pdl_choice == 0 && d->major >= PDL_MIN_MAJOR && cu->version >= PDL_MIN_VERSION;
    return TUTTI_OK;
}

static tutti_result load_image(const struct tt_cuda_driver *cu, struct tt_cuda_device *d,
                               const void *image)
{
    if (d->n_libraries == TT_CUDA_MAX_LIBRARIES)
        return TT_FAIL(TUTTI_E_INTERNAL, "more than %d images of kernels", TT_CUDA_MAX_LIBRARIES);
    TT_TRY(TT_CUDA(
        cu->cuLibraryLoadData(&d->library[d->n_libraries], image, NULL, NULL, 0, NULL, NULL, 0)));
    d->n_libraries++;
    return TUTTI_OK;
}

static tutti_result load_images(const struct tt_cuda_driver *cu, struct tt_cuda_device *d)
{
    for (const struct tt_cuda_image *image = tt_cuda_images; image->data; image++)
        TT_TRY(load_image(cu, d, image->data));
    if (d->n_libraries > 0)
        return TUTTI_OK;
    if (cu->is_stand_in) /* it has its own */
        return load_image(cu, d, "");
    return TT_FAIL(TUTTI_E_UNSUPPORTED,
                   "this build has no CUDA kernels: nvcc was not found when it "
                   "was built; build where a CUDA toolkit is installed");
}

static CUkernel find_kernel(const struct tt_cuda_driver *cu, const struct tt_cuda_device *d,
                            const char *name)
{
    CUkernel kernel;

    for (int i = 0; i < d->n_libraries; i++)
        if (cu->cuLibraryGetKernel(&kernel, d->library[i], name) == CUDA_SUCCESS)
            return kernel;
    return NULL;
}

/* All of them, now: a kernel that is loaded when it is first launched waits for the GPU to be idle, and
 * it is not while a kernel of ours waits for a peer. */
static tutti_result load_kernels(const struct tt_cuda_driver *cu, struct tt_cuda_device *d)
{
    int n_registers;

    TT_TRY(load_images(cu, d));
    for (int i = 0; i < TT_N_CUDA_KERNELS; i++) {
        CUkernel kernel = find_kernel(cu, d, kernel_names[i]);

        if (!kernel)
            return TT_FAIL(TUTTI_E_INTERNAL, "the kernel %s is in no image of this build",
                           kernel_names[i]);
        TT_TRY(TT_CUDA(cu->cuKernelGetFunction(&d->kernel[i], kernel)));
        if (cu->cuFuncLoad)
            TT_TRY(TT_CUDA(cu->cuFuncLoad(d->kernel[i])));
        TT_TRY(TT_CUDA(
            cu->cuFuncGetAttribute(&n_registers, CU_FUNC_ATTRIBUTE_NUM_REGS, d->kernel[i])));
    }
    return TUTTI_OK;
}

static void device_free(const struct tt_cuda_driver *cu, struct tt_cuda_device *d)
{
    while (d->n_libraries > 0)
        (void)cu->cuLibraryUnload(d->library[--d->n_libraries]);
    if (d->context)
        (void)cu->cuDevicePrimaryCtxRelease_v2(d->handle);
    free(d);
}

static tutti_result device_new(const struct tt_cuda_driver *cu, int index,
                               struct tt_cuda_device **device_out)
{
    struct tt_cuda_device *d = calloc(1, sizeof(*d));
    tutti_result result;
    int entered = 0;

    if (!d)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a device");
    d->index = index;
    result = describe(cu, d);
    if (result == TUTTI_OK)
        result = TT_CUDA(cu->cuDevicePrimaryCtxRetain(&d->context, d->handle));
    if (result == TUTTI_OK)
        result = tt_cuda_enter(d, &entered);
    if (result == TUTTI_OK)
        result = load_kernels(cu, d);
    tt_cuda_leave(entered);
    if (result == TUTTI_OK)
        *device_out = d;
    else
        device_free(cu, d);
    return result;
}

tutti_result tt_cuda_device_open(int index, struct tt_cuda_device **device_out)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    tutti_result result = TUTTI_OK;
    int n;

    if (!cu)
        return TUTTI_E_UNSUPPORTED;
    TT_TRY(TT_CUDA(cu->cuDeviceGetCount(&n)));
    n = n < MAX_DEVICES ? n : MAX_DEVICES;
    if (index < 0 || index >= n)
        return TT_FAIL(TUTTI_E_ARG,
                       "there is no GPU %d: this process sees %d, counted from 0 (see "
                       "CUDA_VISIBLE_DEVICES)",
                       index, n);
    pthread_mutex_lock(&lock);
    if (!devices[index])
        result = device_new(cu, index, &devices[index]);
    if (result == TUTTI_OK) {
        devices[index]->n_users++;
        *device_out = devices[index];
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void tt_cuda_device_close(struct tt_cuda_device *device)
{
    if (!device)
        return;
    pthread_mutex_lock(&lock);
    if (--device->n_users == 0) {
        devices[device->index] = NULL;
        device_free(tt_cuda_driver(), device);
    }
    pthread_mutex_unlock(&lock);
}

tutti_result tt_cuda_enter(const struct tt_cuda_device *device, int *entered)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUcontext current = NULL;

    *entered = 0;
    TT_TRY(TT_CUDA(cu->cuCtxGetCurrent(&current)));
    if (current == device->context)
        return TUTTI_OK;
    TT_TRY(TT_CUDA(cu->cuCtxPushCurrent_v2(device->context)));
    *entered = 1;
    return TUTTI_OK;
}

void tt_cuda_leave(int entered)
{
    CUcontext ours;

    if (entered)
        (void)tt_cuda_driver()->cuCtxPopCurrent_v2(&ours);
}

void tt_cuda_device_place(const struct tt_cuda_device *device, char *out, size_t bytes)
{
    if (tt_cuda_driver()->cuDeviceGetPCIBusId(out, (int)bytes, device->handle) != CUDA_SUCCESS)
        out[0] = 0;
}

void tt_cuda_place(const struct tt_engine *engine, char *out, size_t bytes)
{
    tt_cuda_device_place(engine->device, out, bytes);
}

tutti_result tt_cuda_launch(const struct tt_engine *engine, enum tt_cuda_kernel kernel,
                            int n_blocks, int n_threads, const void *args, size_t args_bytes,
                            CUstream stream)
{
    const struct tt_cuda_device *device = engine->device;
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    CUlaunchAttribute overlap = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
    CUlaunchConfig config = {.gridDimX = (unsigned)n_blocks,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = (unsigned)n_threads,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = stream,
                             .attrs = &overlap,
                             .numAttrs = (unsigned)engine->overlaps};
    void *arguments[] = {(void *)(uintptr_t)args};
    tutti_result result;
    int entered;

    (void)args_bytes; /* the driver knows it from the kernel */
    overlap.value.programmaticStreamSerializationAllowed = 1;
    TT_TRY(tt_cuda_enter(device, &entered));
    result = TT_CUDA(cu->cuLaunchKernelEx(&config, device->kernel[kernel], arguments, NULL));
    tt_cuda_leave(entered);
    return result;
}
