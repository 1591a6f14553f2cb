/*
 * The words of src/cuda/kernels/device.h for a C compiler: every thread of a kernel is a fibre of the
 * OS thread that launched it (sim_fibres.c), and its stores reach the others as late and in as odd an
 * order as a GPU may let them (sim_stores.c).
 */
#ifndef TUTTI_TESTS_DEVICE_SIM_H
#define TUTTI_TESTS_DEVICE_SIM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Which thread this is; one for each fibre. */
struct tt_sim_thread {
    int thread, threads, block, blocks;
};

extern _Thread_local struct tt_sim_thread *tt_sim_now;

typedef void (*tt_sim_kernel)(const void *args);

/* The body gets its arguments by value, as on a GPU. */
#define TT_KERNEL(name, args_type)                                                                 \
    static void name##_body_(const struct args_type args);                                         \
    void name(const void *args);                                                                   \
    void name(const void *args)                                                                    \
    {                                                                                              \
        name##_body_(*(const struct args_type *)args);                                             \
    }                                                                                              \
    static void name##_body_(const struct args_type args)

#define TT_SHARED(type, name)                                                                      \
    static const char name##_key_;                                                                 \
    type *const name = (type *)tt_sim_shared(&name##_key_, sizeof(type))

#define TT_THREAD  (tt_sim_now->thread)
#define TT_THREADS (tt_sim_now->threads)
#define TT_BLOCK   (tt_sim_now->block)
#define TT_BLOCKS  (tt_sim_now->blocks)
#define TT_PAUSE() tt_sim_pause()
#define TT_UNROLL

/* A poll is a round of all fibres here, far slower than on a GPU. */
#define TT_POLLS_PER_CHECK 64

/* ---- sim_fibres.c ---- */

void tt_sim_pause(void); /* let the others run */
/* A barrier of the block; its threads' stores are seen after it. */
void tt_sim_sync(void);

/* Memory of this block, for one launch, found by key; full of rubbish at first. */
void *tt_sim_shared(const void *key, size_t bytes);

void tt_sim_grid_wait(void); /* until what comes before the launch on its stream is over */
uint64_t tt_sim_now_ns(void);
uint64_t tt_sim_random(void); /* 0 for ever in calm weather: T_SIM_SEED is not set */

/* ---- sim_stores.c: memory as weak as a GPU's ---- */

void tt_sim_store16(void *p, const void *vec);
void tt_sim_load16(const void *p, void *vec);
void tt_sim_store4(void *p, uint32_t word);
uint32_t tt_sim_load4(const void *p);
void tt_sim_store_flag(uint64_t *p, uint64_t value, int release);
uint64_t tt_sim_load_flag(const uint64_t *p, int acquire);
void tt_sim_fence(void);
int tt_sim_breaks(const char *what); /* is T_SIM_BREAK this word? */

TT_FN void tt_store_shared16(void *p, struct tt_vec v)
{
    tt_sim_store16(p, &v);
}

TT_FN struct tt_vec tt_load_shared16(const void *p)
{
    struct tt_vec v;

    tt_sim_load16(p, &v);
    return v;
}

TT_FN void tt_store_shared4(void *p, uint32_t word)
{
    tt_sim_store4(p, word);
}

TT_FN uint32_t tt_load_shared4(const void *p)
{
    return tt_sim_load4(p);
}

TT_FN struct tt_vec tt_load16(const void *p)
{
    return tt_load_shared16(p);
}

TT_FN void tt_store16(void *p, struct tt_vec v)
{
    tt_store_shared16(p, v);
}

TT_FN void tt_flag_release(uint64_t *flag, uint64_t value)
{
    tt_sim_store_flag(flag, value, 1);
}

TT_FN uint64_t tt_flag_acquire(const uint64_t *flag)
{
    return tt_sim_load_flag(flag, 1);
}

TT_FN void tt_flag_relaxed(uint64_t *flag, uint64_t value)
{
    tt_sim_store_flag(flag, value, 0);
}

TT_FN uint64_t tt_flag_peek(const uint64_t *flag)
{
    return tt_sim_load_flag(flag, 0);
}

TT_FN void tt_fence_sys(void)
{
    tt_sim_fence();
}

TT_FN void tt_sync_block(void)
{
    tt_sim_sync();
}

TT_FN int tt_sync_block_or(int x)
{
    TT_SHARED(int, any);

    *any = 0;
    tt_sim_sync();
    *any |= x;
    tt_sim_sync();
    x = *any;
    tt_sim_sync();
    return x;
}

TT_FN void tt_grid_wait(void)
{
    tt_sim_grid_wait();
}

TT_FN void tt_seem_to_use(uint64_t value)
{
    (void)value;
}

TT_FN void tt_grid_launch_next(void)
{
}

TT_FN uint64_t tt_now(void)
{
    return tt_sim_now_ns();
}

TT_FN uint32_t tt_host_load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

TT_FN uint32_t tt_host_swap(uint32_t *p, uint32_t expected, uint32_t value)
{
    __atomic_compare_exchange_n(p, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return expected;
}

#endif
