/* device.h's functions on a GPU, in PTX. */
#ifndef TT_CUDA_KERNELS_DEVICE_PTX_H
#define TT_CUDA_KERNELS_DEVICE_PTX_H

/* One 16-byte access to memory that GPUs share. PTX promises atomicity for each 4 bytes only;
 * protocols check every word, or both flags of a packet. */
TT_FN void tt_store_shared16(void *p, struct tt_vec v)
{
    asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.w[0]),
                 "r"(v.w[1]), "r"(v.w[2]), "r"(v.w[3])
                 : "memory");
}

TT_FN struct tt_vec tt_load_shared16(const void *p)
{
    struct tt_vec v;

    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                 : "l"(p)
                 : "memory");
    return v;
}

/* A plain access: the caller's buffers, and peers' windows between the entry and the exit flags. */
TT_FN struct tt_vec tt_load16(const void *p)
{
    return *(const struct tt_vec *)p;
}

TT_FN void tt_store16(void *p, struct tt_vec v)
{
    *(struct tt_vec *)p = v;
}

TT_FN void tt_flag_release(uint64_t *flag, uint64_t value)
{
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(value) : "memory");
}

TT_FN uint64_t tt_flag_acquire(const uint64_t *flag)
{
    uint64_t value;

    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(flag) : "memory");
    return value;
}

TT_FN void tt_flag_relaxed(uint64_t *flag, uint64_t value)
{
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(value) : "memory");
}

TT_FN uint64_t tt_flag_peek(const uint64_t *flag)
{
    uint64_t value;

    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(flag) : "memory");
    return value;
}

TT_FN void tt_fence_sys(void)
{
    asm volatile("fence.acq_rel.sys;" ::: "memory");
}

TT_FN void tt_sync_block(void)
{
    __syncthreads();
}

/* The n_threads (a multiple of 32) of a team: 0, 1 ... */
TT_FN void tt_sync_team(int team, int n_threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + team), "r"(n_threads) : "memory");
}

/* Programmatic dependent launch: wait for all of the kernel before us, and let the one after us
 * begin its preamble. */
TT_FN void tt_grid_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Fetch lines of arguments that will be needed, while the kernel before us still runs. (What is loaded
 * must seem to be used.) */
TT_FN void tt_fetch_arguments(const void *args, int bytes)
{
#if __CUDA_ARCH__ >= 900
    const uint64_t *word = (const uint64_t *)args;
    uint64_t sum = 0;

    TT_UNROLL
    for (int k = 0; k < bytes / 8; k += 8)
        sum ^= word[k];
    asm volatile("{ .reg .pred p; setp.eq.u64 p, %0, 1; @p griddepcontrol.wait; }" ::"l"(sum)
                 : "memory");
#endif
}

TT_FN void tt_grid_launch_next(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

TT_FN uint64_t tt_now(void)
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
    return ns;
}

/* Host memory: the abort word and the report. */
TT_FN uint32_t tt_host_load(const uint32_t *p)
{
    return *(const volatile uint32_t *)p;
}

TT_FN uint32_t tt_host_swap(uint32_t *p, uint32_t expected, uint32_t value)
{
    return atomicCAS_system(p, expected, value);
}

#endif
