/* The simulated libcuda: devices, contexts, kernels by name, errors.
 * T_SIM_GPUS (8) and T_SIM_SMS (4) say what machine it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/sim/sim.h"
#include "support/sim/sim_driver.h"

enum { MAX_DEPTH = 16 };

static struct CUctx_st contexts[SIM_MAX_DEVICES];
static _Thread_local struct CUctx_st *stack[MAX_DEPTH];
static _Thread_local int depth;
static int is_initialised;

static int number(const char *variable, int otherwise, int most)
{
    const char *text = getenv(variable);
    const long value = text != NULL ? strtol(text, NULL, 10) : otherwise;

    return value >= 0 && value <= most ? (int)value : otherwise;
}

int sim_n_devices(void)
{
    return number("T_SIM_GPUS", 8, SIM_MAX_DEVICES);
}

int sim_n_sms(void)
{
    return number("T_SIM_SMS", 4, 128);
}

int sim_is_listed(const char *variable, int device)
{
    const char *text = getenv(variable);

    if (text == NULL)
        return 0;
    if (strcmp(text, "all") == 0)
        return 1;
    while (*text != 0) {
        char *end;
        const long listed = strtol(text, &end, 10);

        if (end == text)
            return 0;
        if (listed == device)
            return 1;
        text = *end == ',' ? end + 1 : end;
    }
    return 0;
}

CUresult sim_device(int *device_out)
{
    if (!is_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (depth == 0 || stack[depth - 1] == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *device_out = stack[depth - 1]->device;
    return CUDA_SUCCESS;
}

CUresult cuInit(unsigned int flags)
{
    const char *seed = getenv("T_SIM_SEED");

    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    tt_sim_set_weather(seed != NULL ? strtoull(seed, NULL, 10) : 0);
    for (int i = 0; i < SIM_MAX_DEVICES; i++)
        contexts[i].device = i;
    __atomic_store_n(&is_initialised, 1, __ATOMIC_RELEASE);
    return sim_n_devices() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
    *version = number("T_SIM_VERSION", 13000, 99999);
    return CUDA_SUCCESS;
}

static const struct {
    CUresult error;
    const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {SIM_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {SIM_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed now"},
    {SIM_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {SIM_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {SIM_ERROR_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {SIM_ERROR_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
};

CUresult cuGetErrorName(CUresult error, const char **name)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (errors[i].error == error) {
            *name = errors[i].name;
            return CUDA_SUCCESS;
        }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (errors[i].error == error) {
            *text = errors[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

/* ---- devices ---- */

static CUresult check_device(CUdevice device)
{
    if (!is_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    return device >= 0 && device < sim_n_devices() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = sim_n_devices();
    return is_initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    const CUresult result = check_device(ordinal);

    if (result == CUDA_SUCCESS)
        *device = ordinal;
    return result;
}

CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    snprintf(name, (size_t)bytes, "simulated GPU");
    return check_device(device);
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    memset(uuid, 0x51, sizeof(*uuid));
    uuid->bytes[15] = (char)device;
    return check_device(device);
}

CUresult cuDeviceGetPCIBusId(char *id, int bytes, CUdevice device)
{
    snprintf(id, (size_t)bytes, "0000:F%X:00.0", (unsigned)device & 15);
    return check_device(device);
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = sim_n_sms(); break;
    case 38: *value = 50 << 20; break; /* bytes of L2 cache */
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
        *value = !sim_is_listed("T_SIM_NO_VMM", device);
        break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS:
        *value = CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST;
        break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING: *value = 0; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return check_device(device);
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    *can = device != peer && !sim_is_listed("T_SIM_NO_PEER", device);
    return check_device(peer) != CUDA_SUCCESS ? check_device(peer) : check_device(device);
}

/* ---- contexts ---- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    const CUresult result = check_device(device);

    if (result != CUDA_SUCCESS)
        return result;
    __atomic_add_fetch(&contexts[device].n_users, 1, __ATOMIC_RELAXED);
    sim_count_object(1);
    *context = &contexts[device];
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    const CUresult result = check_device(device);

    if (result != CUDA_SUCCESS)
        return result;
    if (__atomic_fetch_sub(&contexts[device].n_users, 1, __ATOMIC_RELAXED) <= 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    sim_count_object(-1);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return is_initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

SIM_API CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuCtxSetCurrent(CUcontext context)
{
    if (depth == 0)
        depth = 1;
    stack[depth - 1] = context;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *device);
CUresult cuCtxGetDevice(CUdevice *device)
{
    return sim_device(device);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    if (context == NULL || context->n_users <= 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (depth == MAX_DEPTH)
        return CUDA_ERROR_INVALID_VALUE;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context != NULL)
        *context = stack[depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    int device;
    const CUresult result = sim_device(&device);

    if (result != CUDA_SUCCESS)
        return result;
    return peer != NULL && peer->device != device && flags == 0 ? CUDA_SUCCESS
                                                                : CUDA_ERROR_INVALID_VALUE;
}

/* ---- kernels ---- */

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *jit_options,
                           void **jit_values, unsigned int n_jit_options, CUlibraryOption *options,
                           void **values, unsigned int n_options)
{
    (void)image; /* the kernels are in here */
    (void)jit_options;
    (void)jit_values;
    (void)options;
    (void)values;
    if (n_jit_options != 0 || n_options != 0)
        return CUDA_ERROR_INVALID_VALUE;
    *library = calloc(1, 1);
    sim_count_object(1);
    return *library != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuLibraryUnload(CUlibrary library)
{
    sim_count_object(-1);
    free(library);
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    (void)library;
    for (size_t i = 0; i < tt_sim_n_kernels; i++)
        if (strcmp(tt_sim_kernels[i].name, name) == 0) {
            *kernel = (CUkernel)(uintptr_t)&tt_sim_kernels[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
    *function = (CUfunction)kernel;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    (void)attribute;
    *value = 32;
    return function != NULL ? CUDA_SUCCESS : SIM_ERROR_INVALID_HANDLE;
}

CUresult cuFuncLoad(CUfunction function)
{
    return function != NULL ? CUDA_SUCCESS : SIM_ERROR_INVALID_HANDLE;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n_blocks, CUfunction function,
                                                     int n_threads, size_t shared_bytes)
{
    (void)shared_bytes;
    if (function == NULL || n_threads < 1 || n_threads > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    *n_blocks = 1024 / n_threads; /* kernels of up to 64 registers */
    return CUDA_SUCCESS;
}
