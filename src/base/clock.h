/* Time. tt_now_ns() is CLOCK_MONOTONIC; tt_ticks() a cheap counter for statistics only. */
#ifndef TT_BASE_CLOCK_H
#define TT_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t tt_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t tt_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;

    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return tt_now_ns();
#endif
}

/* Ranks wait for each other in chains, and the one at the end of a chain is at fault. So who has waited for half of
 * its deadline tells, and who waits for one that waits itself gives it half as much more, at most 3 s. */
static inline int tt_is_long_wait(uint64_t waited_ns, uint64_t timeout_ns)
{
    return waited_ns > timeout_ns / 2;
}

static inline int tt_is_overdue(uint64_t waited_ns, uint64_t timeout_ns, int peer_waits)
{
    const uint64_t most = UINT64_C(3000000000);
    const uint64_t more = timeout_ns / 2 < most ? timeout_ns / 2 : most;

    return waited_ns >= timeout_ns + (peer_waits ? more : 0);
}

/* Nanoseconds per tick, measured once per process (about 1 ms the first time). Any thread. */
double tt_ns_per_tick(void);

#endif
