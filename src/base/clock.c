/* The length of a tick. */
#include "base/clock.h"

#include <stdatomic.h>

#if defined(__x86_64__)
static double measure(void)
{
    uint64_t ns0 = tt_now_ns();
    uint64_t ticks0 = tt_ticks();
    uint64_t ns1;

    do
        ns1 = tt_now_ns();
    while (ns1 - ns0 < 1000000);
    uint64_t ticks = tt_ticks() - ticks0;
    return ticks ? (double)(ns1 - ns0) / (double)ticks : 1.0;
}
#elif defined(__aarch64__)
static double measure(void)
{
    uint64_t hz;

    __asm__("mrs %0, cntfrq_el0" : "=r"(hz));
    return hz ? 1e9 / (double)hz : 1.0;
}
#else
static double measure(void)
{
    return 1.0;
}
#endif

double tt_ns_per_tick(void)
{
    static _Atomic double known; /* threads that race measure twice and agree to within 1 % */
    double value = atomic_load_explicit(&known, memory_order_relaxed);

    if (value <= 0) {
        value = measure();
        atomic_store_explicit(&known, value, memory_order_relaxed);
    }
    return value;
}
