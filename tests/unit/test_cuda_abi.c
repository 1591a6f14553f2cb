/* Our declarations of libcuda against NVIDIA's own, where a toolkit has left a cuda.h. */
#include <stddef.h>
#include <stdio.h>

#if !__has_include(<cuda.h>)

int main(void)
{
    printf("skipped: no cuda.h was found when this was built\n");
    return 77;
}

#else

/* Ours under other names. The tags of structs are part of the names: CUuuid_st. */
#define OUR_TYPES(X)                                                                               \
    X(CUdevice)                                                                                    \
    X(CUdeviceptr)                                                                                 \
    X(CUmemGenericAllocationHandle)                                                                \
    X(CUcontext)                                                                                   \
    X(CUstream)                                                                                    \
    X(CUfunction)                                                                                  \
    X(CUkernel)                                                                                    \
    X(CUlibrary)                                                                                   \
    X(CUevent)                                                                                     \
    X(CUresult)                                                                                    \
    X(CUdevice_attribute)                                                                          \
    X(CUfunction_attribute)                                                                        \
    X(CUpointer_attribute)                                                                         \
    X(CUstreamCaptureStatus)                                                                       \
    X(CUstreamCaptureMode)                                                                         \
    X(CUjit_option)                                                                                \
    X(CUlibraryOption)                                                                             \
    X(CUlaunchAttributeID)                                                                         \
    X(CUmemAccess_flags)                                                                           \
    X(CUmemAllocationType)                                                                         \
    X(CUmemAllocationHandleType)                                                                   \
    X(CUmemAllocationGranularity_flags)                                                            \
    X(CUmemLocationType)                                                                           \
    X(CUflushGPUDirectRDMAWritesTarget)                                                            \
    X(CUflushGPUDirectRDMAWritesScope)                                                             \
    X(CUuuid)                                                                                      \
    X(CUipcMemHandle)                                                                              \
    X(CUmemLocation)                                                                               \
    X(CUmemAllocationProp)                                                                         \
    X(CUmemAccessDesc)                                                                             \
    X(CUlaunchAttributeValue)                                                                      \
    X(CUlaunchAttribute)                                                                           \
    X(CUlaunchConfig)

#define CUdevice                         our_CUdevice
#define CUdeviceptr                      our_CUdeviceptr
#define CUmemGenericAllocationHandle     our_CUmemGenericAllocationHandle
#define CUcontext                        our_CUcontext
#define CUstream                         our_CUstream
#define CUfunction                       our_CUfunction
#define CUkernel                         our_CUkernel
#define CUlibrary                        our_CUlibrary
#define CUevent                          our_CUevent
#define CUresult                         our_CUresult
#define CUdevice_attribute               our_CUdevice_attribute
#define CUfunction_attribute             our_CUfunction_attribute
#define CUpointer_attribute              our_CUpointer_attribute
#define CUstreamCaptureStatus            our_CUstreamCaptureStatus
#define CUstreamCaptureMode              our_CUstreamCaptureMode
#define CUjit_option                     our_CUjit_option
#define CUlibraryOption                  our_CUlibraryOption
#define CUlaunchAttributeID              our_CUlaunchAttributeID
#define CUmemAccess_flags                our_CUmemAccess_flags
#define CUmemAllocationType              our_CUmemAllocationType
#define CUmemAllocationHandleType        our_CUmemAllocationHandleType
#define CUmemAllocationGranularity_flags our_CUmemAllocationGranularity_flags
#define CUmemLocationType                our_CUmemLocationType
#define CUflushGPUDirectRDMAWritesTarget our_CUflushGPUDirectRDMAWritesTarget
#define CUflushGPUDirectRDMAWritesScope  our_CUflushGPUDirectRDMAWritesScope
#define CUuuid                           our_CUuuid
#define CUipcMemHandle                   our_CUipcMemHandle
#define CUmemLocation                    our_CUmemLocation
#define CUmemAllocationProp              our_CUmemAllocationProp
#define CUmemAccessDesc                  our_CUmemAccessDesc
#define CUlaunchAttributeValue           our_CUlaunchAttributeValue
#define CUlaunchAttribute                our_CUlaunchAttribute
#define CUlaunchConfig                   our_CUlaunchConfig
#define CUuuid_st                        our_CUuuid_st
#define CUipcMemHandle_st                our_CUipcMemHandle_st
#define CUmemLocation_st                 our_CUmemLocation_st
#define CUmemAllocationProp_st           our_CUmemAllocationProp_st
#define CUmemAccessDesc_st               our_CUmemAccessDesc_st
#define CUlaunchAttributeValue_union     our_CUlaunchAttributeValue_union
#define CUlaunchAttribute_st             our_CUlaunchAttribute_st
#define CUlaunchConfig_st                our_CUlaunchConfig_st
#define TT_CUDA_CONSTANT(name)           our_##name

#include "cuda/driver.h"

#undef CUdevice
#undef CUdeviceptr
#undef CUmemGenericAllocationHandle
#undef CUcontext
#undef CUstream
#undef CUfunction
#undef CUkernel
#undef CUlibrary
#undef CUevent
#undef CUresult
#undef CUdevice_attribute
#undef CUfunction_attribute
#undef CUpointer_attribute
#undef CUstreamCaptureStatus
#undef CUstreamCaptureMode
#undef CUjit_option
#undef CUlibraryOption
#undef CUlaunchAttributeID
#undef CUmemAccess_flags
#undef CUmemAllocationType
#undef CUmemAllocationHandleType
#undef CUmemAllocationGranularity_flags
#undef CUmemLocationType
#undef CUflushGPUDirectRDMAWritesTarget
#undef CUflushGPUDirectRDMAWritesScope
#undef CUuuid
#undef CUipcMemHandle
#undef CUmemLocation
#undef CUmemAllocationProp
#undef CUmemAccessDesc
#undef CUlaunchAttributeValue
#undef CUlaunchAttribute
#undef CUlaunchConfig
#undef CUuuid_st
#undef CUipcMemHandle_st
#undef CUmemLocation_st
#undef CUmemAllocationProp_st
#undef CUmemAccessDesc_st
#undef CUlaunchAttributeValue_union
#undef CUlaunchAttribute_st
#undef CUlaunchConfig_st

#include <cuda.h>

/* Every type has the size and the alignment of its model. */
#define SAME_TYPE(type)                                                                            \
    _Static_assert(sizeof(our_##type) == sizeof(type), #type ": size");                            \
    _Static_assert(_Alignof(our_##type) == _Alignof(type), #type ": alignment");
OUR_TYPES(SAME_TYPE)

/* Every field is where it is in the model, and as large. */
#define SAME_FIELD(type, field)                                                                    \
    _Static_assert(offsetof(our_##type, field) == offsetof(type, field), #type "." #field);        \
    _Static_assert(sizeof(((our_##type *)0)->field) == sizeof(((type *)0)->field),                 \
                   #type "." #field ": size");
SAME_FIELD(CUuuid, bytes)
SAME_FIELD(CUipcMemHandle, reserved)
SAME_FIELD(CUmemLocation, type)
SAME_FIELD(CUmemLocation, id)
SAME_FIELD(CUmemAllocationProp, type)
SAME_FIELD(CUmemAllocationProp, requestedHandleTypes)
SAME_FIELD(CUmemAllocationProp, location)
SAME_FIELD(CUmemAllocationProp, win32HandleMetaData)
SAME_FIELD(CUmemAllocationProp, allocFlags.compressionType)
SAME_FIELD(CUmemAllocationProp, allocFlags.gpuDirectRDMACapable)
SAME_FIELD(CUmemAllocationProp, allocFlags.usage)
SAME_FIELD(CUmemAllocationProp, allocFlags.reserved)
SAME_FIELD(CUmemAccessDesc, location)
SAME_FIELD(CUmemAccessDesc, flags)
SAME_FIELD(CUlaunchAttributeValue, programmaticStreamSerializationAllowed)
SAME_FIELD(CUlaunchAttribute, id)
SAME_FIELD(CUlaunchAttribute, value)
SAME_FIELD(CUlaunchConfig, gridDimX)
SAME_FIELD(CUlaunchConfig, gridDimY)
SAME_FIELD(CUlaunchConfig, gridDimZ)
SAME_FIELD(CUlaunchConfig, blockDimX)
SAME_FIELD(CUlaunchConfig, blockDimY)
SAME_FIELD(CUlaunchConfig, blockDimZ)
SAME_FIELD(CUlaunchConfig, sharedMemBytes)
SAME_FIELD(CUlaunchConfig, hStream)
SAME_FIELD(CUlaunchConfig, attrs)
SAME_FIELD(CUlaunchConfig, numAttrs)

/* Every constant has the value of its model. */
#define SAME_VALUE(name, value)                                                                    \
    _Static_assert((long long)our_##name == (long long)(name), #name ": value");
TT_CUDA_CONSTANTS(SAME_VALUE)

/* Every function has the arguments of its model: our list, read with NVIDIA's types in it. */
#define SAME_FUNCTION(name, arguments)                                                             \
    _Static_assert(                                                                                \
        __builtin_types_compatible_p(__typeof__(&(name)), CUresult(CUDAAPI *) arguments),          \
        #name ": arguments");
TT_CUDA_FUNCTIONS(SAME_FUNCTION)
#if CUDA_VERSION >= 12040
TT_CUDA_OPTIONAL_FUNCTIONS(SAME_FUNCTION)
#endif

#define COUNT(...)  +1
#define N_TYPES     (0 OUR_TYPES(COUNT))
#define N_CONSTANTS (0 TT_CUDA_CONSTANTS(COUNT))
#define N_FUNCTIONS (0 TT_CUDA_FUNCTIONS(COUNT) TT_CUDA_OPTIONAL_FUNCTIONS(COUNT))

int main(void)
{
    printf("%d types, %d constants and %d functions are as in cuda.h %d.%d\n", N_TYPES, N_CONSTANTS,
           N_FUNCTIONS, CUDA_VERSION / 1000, CUDA_VERSION % 1000 / 10);
    return 0;
}

#endif
