/*
 * The part of libcuda that we use, declared here and loaded when it is first needed: neither a
 * toolkit to build nor a driver to run is required of those who stay on the CPU. The names are
 * NVIDIA's, those of functions with the version that is exported; tests/unit/test_cuda_abi.c holds
 * everything against a real cuda.h where there is one.
 */
#ifndef TT_CUDA_DRIVER_H
#define TT_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>
#include <tutti/tutti.h>

#define TT_CUDA_MIN_VERSION 12000 /* what cuDriverGetVersion says: 12.0 */

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef unsigned long long CUmemGenericAllocationHandle;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUfunc_st *CUfunction;
typedef struct CUkern_st *CUkernel;
typedef struct CUlib_st *CUlibrary;
typedef struct CUevent_st *CUevent;

/* NVIDIA's enums: all of four bytes. Their values are in TT_CUDA_CONSTANTS. */
typedef int CUresult;
typedef int CUdevice_attribute;
typedef int CUfunction_attribute;
typedef int CUpointer_attribute;
typedef int CUstreamCaptureStatus;
typedef int CUstreamCaptureMode;
typedef int CUjit_option;
typedef int CUlibraryOption;
typedef int CUlaunchAttributeID;
typedef int CUmemAccess_flags;
typedef int CUmemAllocationType;
typedef int CUmemAllocationHandleType;
typedef int CUmemAllocationGranularity_flags;
typedef int CUmemLocationType;
typedef int CUflushGPUDirectRDMAWritesTarget;
typedef int CUflushGPUDirectRDMAWritesScope;

typedef struct CUuuid_st {
    char bytes[16];
} CUuuid;

typedef struct CUipcMemHandle_st {
    char reserved[64];
} CUipcMemHandle;

typedef struct CUmemLocation_st {
    CUmemLocationType type;
    int id;
} CUmemLocation;

typedef struct CUmemAllocationProp_st {
    CUmemAllocationType type;
    CUmemAllocationHandleType requestedHandleTypes;
    CUmemLocation location;
    void *win32HandleMetaData;
    struct {
        unsigned char compressionType;
        unsigned char gpuDirectRDMACapable;
        unsigned short usage;
        unsigned char reserved[4];
    } allocFlags;
} CUmemAllocationProp;

typedef struct CUmemAccessDesc_st {
    CUmemLocation location;
    CUmemAccess_flags flags;
} CUmemAccessDesc;

typedef union CUlaunchAttributeValue_union {
    char pad[64];
    void *alignment; /* of other attributes */
    int programmaticStreamSerializationAllowed;
} CUlaunchAttributeValue;

typedef struct CUlaunchAttribute_st {
    CUlaunchAttributeID id;
    char pad[4];
    CUlaunchAttributeValue value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig_st {
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned int numAttrs;
} CUlaunchConfig;

/* X(name, value) */
#define TT_CUDA_CONSTANTS(X)                                                                       \
    X(CUDA_SUCCESS, 0)                                                                             \
    X(CUDA_ERROR_INVALID_VALUE, 1)                                                                 \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2)                                                                 \
    X(CUDA_ERROR_NOT_INITIALIZED, 3)                                                               \
    X(CUDA_ERROR_DEINITIALIZED, 4)                                                                 \
    X(CUDA_ERROR_NO_DEVICE, 100)                                                                   \
    X(CUDA_ERROR_INVALID_DEVICE, 101)                                                              \
    X(CUDA_ERROR_INVALID_CONTEXT, 201)                                                             \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                                                           \
    X(CUDA_ERROR_NOT_FOUND, 500)                                                                   \
    X(CUDA_ERROR_NOT_READY, 600)                                                                   \
    X(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, 704)                                                 \
    X(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, 217)                                                     \
    X(CUDA_ERROR_NOT_PERMITTED, 800)                                                               \
    X(CUDA_ERROR_NOT_SUPPORTED, 801)                                                               \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                                                \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)                                            \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)                                            \
    X(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 102)                                \
    X(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 103)                        \
    X(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 110)                            \
    X(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED, 116)                                          \
    X(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS, 117)                               \
    X(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING, 118)                                    \
    X(CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, 124)                                                  \
    X(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST, 1)                                              \
    X(CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER, 100)                                               \
    X(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER, 100)                                               \
    X(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX, 0)                                       \
    X(CU_FUNC_ATTRIBUTE_NUM_REGS, 4)                                                               \
    X(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, 9)                                                      \
    X(CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, 10)                                         \
    X(CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE, 15)                                         \
    X(CU_STREAM_NON_BLOCKING, 1)                                                                   \
    X(CU_EVENT_DISABLE_TIMING, 2)                                                                  \
    X(CU_STREAM_CAPTURE_STATUS_NONE, 0)                                                            \
    X(CU_STREAM_CAPTURE_MODE_RELAXED, 2)                                                           \
    X(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 6)                                    \
    X(CU_MEMHOSTALLOC_PORTABLE, 1)                                                                 \
    X(CU_MEMHOSTALLOC_DEVICEMAP, 2)                                                                \
    X(CU_MEMHOSTREGISTER_PORTABLE, 1)                                                              \
    X(CU_MEMHOSTREGISTER_DEVICEMAP, 2)                                                             \
    X(CU_MEM_ALLOCATION_TYPE_PINNED, 1)                                                            \
    X(CU_MEM_ALLOC_GRANULARITY_MINIMUM, 0)                                                         \
    X(CU_MEM_ALLOC_GRANULARITY_RECOMMENDED, 1)                                                     \
    X(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 1)                                                 \
    X(CU_MEM_LOCATION_TYPE_DEVICE, 1)                                                              \
    X(CU_MEM_ACCESS_FLAGS_PROT_READWRITE, 3)                                                       \
    X(CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, 1)

#ifndef TT_CUDA_CONSTANT /* the test of all this gives ours another name, to have both */
#define TT_CUDA_CONSTANT(name) name
#endif
enum tt_cuda_constant {
#define TT_CUDA_ENUM_(name, value) TT_CUDA_CONSTANT(name) = (value),
    TT_CUDA_CONSTANTS(TT_CUDA_ENUM_)
#undef TT_CUDA_ENUM_
};

/* X(name, arguments); all return CUresult. */
#define TT_CUDA_FUNCTIONS(X)                                                                       \
    X(cuInit, (unsigned int flags))                                                                \
    X(cuDriverGetVersion, (int *version))                                                          \
    X(cuGetErrorName, (CUresult error, const char **name))                                         \
    X(cuGetErrorString, (CUresult error, const char **text))                                       \
    X(cuDeviceGetCount, (int *count))                                                              \
    X(cuDeviceGet, (CUdevice * device, int ordinal))                                               \
    X(cuDeviceGetName, (char *name, int bytes, CUdevice device))                                   \
    X(cuDeviceGetUuid_v2, (CUuuid * uuid, CUdevice device))                                        \
    X(cuDeviceGetPCIBusId, (char *id, int bytes, CUdevice device))                                 \
    X(cuDeviceGetAttribute, (int *value, CUdevice_attribute attribute, CUdevice device))           \
    X(cuDeviceCanAccessPeer, (int *can, CUdevice device, CUdevice peer))                           \
    X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                            \
    X(cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                             \
    X(cuCtxGetCurrent, (CUcontext * context))                                                      \
    X(cuCtxPushCurrent_v2, (CUcontext context))                                                    \
    X(cuCtxPopCurrent_v2, (CUcontext * context))                                                   \
    X(cuCtxEnablePeerAccess, (CUcontext peer, unsigned int flags))                                 \
    X(cuCtxSynchronize, (void))                                                                    \
    X(cuLibraryLoadData, (CUlibrary * library, const void *image, CUjit_option *jit_options,       \
                          void **jit_values, unsigned int n_jit_options, CUlibraryOption *options, \
                          void **values, unsigned int n_options))                                  \
    X(cuLibraryUnload, (CUlibrary library))                                                        \
    X(cuLibraryGetKernel, (CUkernel * kernel, CUlibrary library, const char *name))                \
    X(cuKernelGetFunction, (CUfunction * function, CUkernel kernel))                               \
    X(cuFuncGetAttribute, (int *value, CUfunction_attribute attribute, CUfunction function))       \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor,                                                 \
      (int *n_blocks, CUfunction function, int n_threads, size_t shared_bytes))                    \
    X(cuLaunchKernelEx,                                                                            \
      (const CUlaunchConfig *config, CUfunction function, void **arguments, void **extra))         \
    X(cuStreamCreate, (CUstream * stream, unsigned int flags))                                     \
    X(cuStreamDestroy_v2, (CUstream stream))                                                       \
    X(cuStreamSynchronize, (CUstream stream))                                                      \
    X(cuStreamIsCapturing, (CUstream stream, CUstreamCaptureStatus * status))                      \
    X(cuThreadExchangeStreamCaptureMode, (CUstreamCaptureMode * mode))                             \
    X(cuEventCreate, (CUevent * event, unsigned int flags))                                        \
    X(cuEventRecord, (CUevent event, CUstream stream))                                             \
    X(cuEventQuery, (CUevent event))                                                               \
    X(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned int flags))                     \
    X(cuEventDestroy_v2, (CUevent event))                                                          \
    X(cuMemAlloc_v2, (CUdeviceptr * ptr, size_t bytes))                                            \
    X(cuMemFree_v2, (CUdeviceptr ptr))                                                             \
    X(cuMemHostAlloc, (void **ptr, size_t bytes, unsigned int flags))                              \
    X(cuMemFreeHost, (void *ptr))                                                                  \
    X(cuMemHostRegister_v2, (void *ptr, size_t bytes, unsigned int flags))                         \
    X(cuMemHostUnregister, (void *ptr))                                                            \
    X(cuMemHostGetDevicePointer_v2, (CUdeviceptr * ptr, void *host, unsigned int flags))           \
    X(cuMemsetD8Async, (CUdeviceptr ptr, unsigned char byte, size_t bytes, CUstream stream))       \
    X(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))     \
    X(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream))           \
    X(cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))     \
    X(cuMemGetAddressRange_v2, (CUdeviceptr * base, size_t * bytes, CUdeviceptr ptr))              \
    X(cuPointerGetAttribute, (void *value, CUpointer_attribute attribute, CUdeviceptr ptr))        \
    X(cuMemGetAllocationGranularity,                                                               \
      (size_t * bytes, const CUmemAllocationProp *prop, CUmemAllocationGranularity_flags option))  \
    X(cuMemCreate, (CUmemGenericAllocationHandle * handle, size_t bytes,                           \
                    const CUmemAllocationProp *prop, unsigned long long flags))                    \
    X(cuMemRelease, (CUmemGenericAllocationHandle handle))                                         \
    X(cuMemAddressReserve, (CUdeviceptr * ptr, size_t bytes, size_t alignment, CUdeviceptr hint,   \
                            unsigned long long flags))                                             \
    X(cuMemAddressFree, (CUdeviceptr ptr, size_t bytes))                                           \
    X(cuMemMap, (CUdeviceptr ptr, size_t bytes, size_t offset,                                     \
                 CUmemGenericAllocationHandle handle, unsigned long long flags))                   \
    X(cuMemUnmap, (CUdeviceptr ptr, size_t bytes))                                                 \
    X(cuMemSetAccess,                                                                              \
      (CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc *access, size_t n_access))             \
    X(cuMemExportToShareableHandle, (void *shareable, CUmemGenericAllocationHandle handle,         \
                                     CUmemAllocationHandleType type, unsigned long long flags))    \
    X(cuMemImportFromShareableHandle,                                                              \
      (CUmemGenericAllocationHandle * handle, void *shareable, CUmemAllocationHandleType type))    \
    X(cuMemRetainAllocationHandle, (CUmemGenericAllocationHandle * handle, void *ptr))             \
    X(cuMemGetAllocationPropertiesFromHandle,                                                      \
      (CUmemAllocationProp * prop, CUmemGenericAllocationHandle handle))                           \
    X(cuIpcGetMemHandle, (CUipcMemHandle * handle, CUdeviceptr ptr))                               \
    X(cuIpcOpenMemHandle_v2, (CUdeviceptr * ptr, CUipcMemHandle handle, unsigned int flags))       \
    X(cuIpcCloseMemHandle, (CUdeviceptr ptr))                                                      \
    X(cuFlushGPUDirectRDMAWrites,                                                                  \
      (CUflushGPUDirectRDMAWritesTarget target, CUflushGPUDirectRDMAWritesScope scope))

/* Those that drivers before 12.4 lack: NULL there. */
#define TT_CUDA_OPTIONAL_FUNCTIONS(X) X(cuFuncLoad, (CUfunction function))

struct tt_cuda_driver {
#define TT_CUDA_FUNCTION_(name, arguments) CUresult(*name) arguments;
    TT_CUDA_FUNCTIONS(TT_CUDA_FUNCTION_)
    TT_CUDA_OPTIONAL_FUNCTIONS(TT_CUDA_FUNCTION_)
#undef TT_CUDA_FUNCTION_
    int version;     /* of the driver: 12040 is 12.4 */
    int is_stand_in; /* TUTTI_CUDA_LIBRARY named the library */
};

/* Loads the driver at the first call. NULL if there is none that will do; the error text, set each
 * time, says why. Any thread. */
const struct tt_cuda_driver *tt_cuda_driver(void);

/* TUTTI_OK, or the failure of a driver call with its text: TT_TRY(TT_CUDA(cu->cuMemFree_v2(p))). */
#define TT_CUDA(call) tt_cuda_result(__FILE__, __LINE__, #call, (call))
tutti_result tt_cuda_result(const char *file, int line, const char *call, CUresult result);

#endif
