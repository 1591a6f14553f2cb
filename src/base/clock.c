/* The length of a tick. */
#include "base/clock.h"

#include <stdatomic.h>

#if defined(__x86_64__)
struct moment {
    uint64_t ns, ticks;
};

/* Both clocks at once: a thread may lose its core between two readings, but hardly every time. */
static struct moment now_by_both(void)
{
    struct moment best = {0};
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 8; i++) {
        const uint64_t before = tt_ticks(), ns = tt_now_ns(), after = tt_ticks();

        if (after - before < least) {
            least = after - before;
            best = (struct moment){ns, before + least / 2};
        }
    }
    return best;
}

static double measure(void)
{
    const struct moment begin = now_by_both();
    struct moment end;

    while (tt_now_ns() - begin.ns < 1000000)
        continue;
    end = now_by_both();
    return end.ticks > begin.ticks ? (double)(end.ns - begin.ns) / (double)(end.ticks - begin.ticks)
                                   : 1.0;
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
