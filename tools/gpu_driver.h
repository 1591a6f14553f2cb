/* The part of the CUDA driver that the benchmark uses, found at run time: no toolkit is needed. */
#ifndef TUTTI_TOOLS_GPU_DRIVER_H
#define TUTTI_TOOLS_GPU_DRIVER_H

#include <tutti/tutti.h>

typedef unsigned long long gpu_ptr;
typedef struct CUctx_st *gpu_context;
typedef struct CUevent_st *gpu_event;
typedef struct CUgraph_st *gpu_graph;
typedef struct CUgraphExec_st *gpu_graph_exec;

#define GPU_STREAM_NON_BLOCKING   1u
#define GPU_NOT_READY             600
#define GPU_CAPTURE_THREAD_LOCAL  1
#define GPU_ATTRIBUTE_L2_BYTES    38
#define GPU_ATTRIBUTE_MULTIPLIERS 16 /* streaming multiprocessors */

/* X(name, suffix of the symbol, arguments): all return a CUresult, 0 for success. */
#define GPU_DRIVER_FUNCTIONS(X)                                                                    \
    X(cuInit, "", (unsigned int flags))                                                            \
    X(cuGetErrorString, "", (int result, const char **text))                                       \
    X(cuDriverGetVersion, "", (int *version))                                                      \
    X(cuDeviceGetCount, "", (int *count))                                                          \
    X(cuDeviceGet, "", (int *device, int ordinal))                                                 \
    X(cuDeviceGetName, "", (char *name, int size, int device))                                     \
    X(cuDeviceGetAttribute, "", (int *value, int attribute, int device))                           \
    X(cuDevicePrimaryCtxRetain, "", (gpu_context * context, int device))                           \
    X(cuDevicePrimaryCtxRelease, "_v2", (int device))                                              \
    X(cuCtxSetCurrent, "", (gpu_context context))                                                  \
    X(cuMemGetInfo, "_v2", (size_t * available, size_t * total))                                   \
    X(cuMemAlloc, "_v2", (gpu_ptr * ptr, size_t bytes))                                            \
    X(cuMemFree, "_v2", (gpu_ptr ptr))                                                             \
    X(cuMemcpyHtoDAsync, "_v2", (gpu_ptr to, const void *from, size_t bytes, tutti_stream stream)) \
    X(cuMemcpyDtoHAsync, "_v2", (void *to, gpu_ptr from, size_t bytes, tutti_stream stream))       \
    X(cuMemcpyDtoDAsync, "_v2", (gpu_ptr to, gpu_ptr from, size_t bytes, tutti_stream stream))     \
    X(cuMemsetD8Async, "", (gpu_ptr at, unsigned char value, size_t bytes, tutti_stream stream))   \
    X(cuStreamCreate, "", (tutti_stream * stream, unsigned int flags))                             \
    X(cuStreamDestroy, "_v2", (tutti_stream stream))                                               \
    X(cuStreamSynchronize, "", (tutti_stream stream))                                              \
    X(cuStreamQuery, "", (tutti_stream stream))                                                    \
    X(cuEventCreate, "", (gpu_event * event, unsigned int flags))                                  \
    X(cuEventDestroy, "_v2", (gpu_event event))                                                    \
    X(cuEventRecord, "", (gpu_event event, tutti_stream stream))                                   \
    X(cuEventElapsedTime, "", (float *ms, gpu_event from, gpu_event to))                           \
    X(cuStreamBeginCapture, "_v2", (tutti_stream stream, int mode))                                \
    X(cuStreamEndCapture, "", (tutti_stream stream, gpu_graph * graph))                            \
    X(cuGraphInstantiateWithFlags, "",                                                             \
      (gpu_graph_exec * exec, gpu_graph graph, unsigned long long flags))                          \
    X(cuGraphLaunch, "", (gpu_graph_exec exec, tutti_stream stream))                               \
    X(cuGraphExecDestroy, "", (gpu_graph_exec exec))                                               \
    X(cuGraphDestroy, "", (gpu_graph graph))

struct gpu_driver {
#define GPU_DRIVER_MEMBER_(name, suffix, arguments) int(*name) arguments;
    GPU_DRIVER_FUNCTIONS(GPU_DRIVER_MEMBER_)
#undef GPU_DRIVER_MEMBER_
};

/* Load libcuda, or what TUTTI_CUDA_LIBRARY names, without starting it: a process that has not called
 * cuInit may fork. NULL with a line in text[size] on failure. */
const struct gpu_driver *gpu_driver_load(char *text, size_t size);

/* A function of a loaded library; `symbol` may be NULL. Returns 0, or -1 if it has none. */
int gpu_symbol(void *library, const char *symbol, void *function_out);

#endif
