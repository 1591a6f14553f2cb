/*
 * The little that kernel bodies need of the machine. Bodies (*.inc) are C with these words in it;
 * nvcc compiles them for GPUs, and a C compiler compiles them for tests/support/sim, where every
 * thread of a kernel is a fibre and TT_PAUSE lets the others run.
 *
 * Loads and stores of what another GPU writes or reads go through the functions here and nothing
 * else: plain accesses may be answered by a stale L1 line.
 */
#ifndef TT_CUDA_KERNELS_DEVICE_H
#define TT_CUDA_KERNELS_DEVICE_H

#include <stdint.h>

#include <tutti/tutti.h>

#include "cuda/kernel_args.h"

/* 16 bytes: what one thread moves at a time. */
struct
#ifdef __CUDACC__
    __align__(16)
#else
    __attribute__((aligned(16)))
#endif
        tt_vec
{
    uint32_t w[4];
};

#ifdef __CUDACC__
#define TT_FN static __device__ __forceinline__
#define TT_KERNEL(name, args_type)                                                                 \
    extern "C" __global__ void __launch_bounds__(TT_CUDA_MAX_THREADS, 1)                           \
        name(const __grid_constant__ struct args_type args)
#define TT_SHARED(type, name)                                                                      \
    __shared__ type name##_storage;                                                                \
    type *const name = &name##_storage
#define TT_THREAD  ((int)threadIdx.x)
#define TT_THREADS ((int)blockDim.x)
#define TT_BLOCK   ((int)blockIdx.x)
#define TT_BLOCKS  ((int)gridDim.x)
#define TT_PAUSE() ((void)0)
#define TT_UNROLL  _Pragma("unroll")
#define TT_ROLLED  _Pragma("unroll 1") /* what seldom runs stays small */
#include "cuda/kernels/device_ptx.h"
#else
#define TT_FN static inline
#include <support/sim/device_sim.h> /* all of the above, and the functions of device_ptx.h */
#endif

#ifndef TT_ROLLED
#define TT_ROLLED
#endif

#endif
