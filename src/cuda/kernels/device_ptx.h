/* device.h's functions on a GPU, in PTX. */
#ifndef TT_CUDA_KERNELS_DEVICE_PTX_H
#define TT_CUDA_KERNELS_DEVICE_PTX_H

/* One 16-byte access to memory that GPUs share, whose two halves PTX promises to be atomic; protocols check
 * both, or every word. */
TT_FN void tt_store_shared16(void *p, struct tt_vec v)
{
    const uint64_t low = v.w[0] | (uint64_t)v.w[1] << 32, high = v.w[2] | (uint64_t)v.w[3] << 32;

    asm volatile("st.volatile.global.v2.u64 [%0], {%1, %2};" ::"l"(p), "l"(low), "l"(high)
                 : "memory");
}

TT_FN struct tt_vec tt_load_shared16(const void *p)
{
    uint64_t low, high;
    struct tt_vec v;

    asm volatile("ld.volatile.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(low), "=l"(high)
                 : "l"(p)
                 : "memory");
    v.w[0] = (uint32_t)low;
    v.w[1] = (uint32_t)(low >> 32);
    v.w[2] = (uint32_t)high;
    v.w[3] = (uint32_t)(high >> 32);
    return v;
}

TT_FN void tt_store_shared4(void *p, uint32_t word)
{
    asm volatile("st.volatile.global.u32 [%0], %1;" ::"l"(p), "r"(word) : "memory");
}

TT_FN uint32_t tt_load_shared4(const void *p)
{
    uint32_t word;

    asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(word) : "l"(p) : "memory");
    return word;
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

/* A barrier of the block, and whether any of its threads says so. */
TT_FN int tt_sync_block_or(int x)
{
    return __syncthreads_or(x);
}

/* Programmatic dependent launch: wait for all of the kernel before us, and let the one after us
 * begin its preamble. */
TT_FN void tt_grid_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* What is loaded must seem to be used. */
TT_FN void tt_seem_to_use(uint64_t value)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; setp.eq.u64 p, %0, 1; @p griddepcontrol.wait; }" ::"l"(value)
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
