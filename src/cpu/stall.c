#include "cpu/stall.h"

#ifdef TUTTI_STALL
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum tt_break tt_broken = TT_BREAK_NONE;
static atomic_uint_least64_t stall_state;
static uint64_t nap_ns;

void tt_stall_seed(uint64_t seed)
{
    atomic_store(&stall_state, seed);
}

void tt_break(enum tt_break what)
{
    tt_broken = what;
}

/* Mostly nothing, often a yield, sometimes a sleep: what a busy machine does to a rank. */
void tt_stall_here(void)
{
    uint64_t x = atomic_load(&stall_state);

    if (x == 0)
        return;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    atomic_store(&stall_state, x);
    if (x % 97 == 0) {
        struct timespec t = {0, (long)(x >> 32) % 300000};

        nanosleep(&t, NULL);
    } else if (x % 5 == 0) {
        sched_yield();
    }
}

void tt_stall_long(void)
{
    const struct timespec t = {0, 5000000};

    nanosleep(&t, NULL);
}

void tt_stall_nap(uint64_t ns)
{
    nap_ns = ns;
}

uint64_t tt_stall_napping(uint64_t ns)
{
    return nap_ns ? nap_ns : ns;
}
#else
typedef int tt_stall_unused; /* ISO C wants a declaration in every file */
#endif
