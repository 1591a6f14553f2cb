/* The words of tutti/device_channel.h for kernels of the simulated GPU: TUTTI_DEVICE_WORDS. */
#ifndef TUTTI_TESTS_CHANNEL_WORDS_H
#define TUTTI_TESTS_CHANNEL_WORDS_H

#include "cuda/kernels/device.h"

#define TUTTI_DEV_POLLS TT_POLLS_PER_CHECK

static inline uint64_t tutti_dev_acquire(const uint64_t *p)
{
    return tt_sim_load_flag(p, 1);
}

static inline uint64_t tutti_dev_load(const uint64_t *p)
{
    return tt_sim_load_flag(p, 0);
}

static inline void tutti_dev_release(uint64_t *p, uint64_t value)
{
    tt_sim_store_flag(p, value, 1);
}

static inline void tutti_dev_store(uint64_t *p, uint64_t value)
{
    tt_sim_store_flag(p, value, 0);
}

static inline uint64_t tutti_dev_add(uint64_t *p, uint64_t value)
{
    const uint64_t before = __atomic_fetch_add(p, value, __ATOMIC_RELAXED);

    if ((tt_sim_random() & 7) == 1)
        tt_sim_pause();
    return before;
}

static inline void tutti_dev_add_at_peer(uint64_t *p, uint64_t value)
{
    tt_sim_fence();
    __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}

static inline void tutti_dev_fence(void)
{
    tt_sim_fence();
}

static inline void tutti_dev_copy16(void *to, const void *from)
{
    struct tt_vec v;

    tt_sim_load16(from, &v);
    tt_sim_store16(to, &v);
}

static inline void tutti_dev_copy1(unsigned char *to, const unsigned char *from)
{
    __atomic_store_n(to, __atomic_load_n(from, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

static inline uint32_t tutti_dev_load32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint32_t tutti_dev_swap32(uint32_t *p, uint32_t expected, uint32_t value)
{
    return tt_host_swap(p, expected, value);
}

static inline uint64_t tutti_dev_now_ns(void)
{
    return tt_sim_now_ns();
}

static inline void tutti_dev_relax(void)
{
    tt_sim_pause();
}

#endif
