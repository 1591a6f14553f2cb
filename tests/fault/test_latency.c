/* ctest: serial timeout=60 no-asan no-tsan */
/* Two promises about time that a loaded machine can keep as well: a barrier of two ranks that share
 * one core, and what a call costs when there is nobody to wait for. */
#include <sched.h>
#include <sys/mman.h>

#include "support/job.h"

enum { ROUNDS = 4000 };

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double median_us(uint64_t ns[], size_t n)
{
    qsort(ns, n, sizeof(*ns), by_size);
    return (double)ns[n / 2] / 1000;
}

static void pin_to_one_core(void)
{
    cpu_set_t allowed, one;

    CPU_ZERO(&one);
    sched_getaffinity(0, sizeof(allowed), &allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && CPU_COUNT(&one) == 0)
            CPU_SET(cpu, &one);
    T_SYS(sched_setaffinity(0, sizeof(one), &one));
}

/* The same exchange by hand: two words and sched_yield(). What this machine can do at best, now. */
static double yield_baseline(struct t_rank *t)
{
    atomic_uint *mine = (atomic_uint *)(void *)(t->shared + 4096 * (size_t)(1 + t->rank));
    atomic_uint *other = (atomic_uint *)(void *)(t->shared + 4096 * (size_t)(2 - t->rank));
    uint64_t start;

    atomic_store(mine, 0);
    t_meet(t);
    start = t_now_ns();
    for (unsigned i = 1; i <= ROUNDS; i++) {
        atomic_store(mine, i);
        while (atomic_load(other) < i)
            sched_yield();
    }
    return (double)(t_now_ns() - start) / ROUNDS / 1000;
}

static double barriers(tutti_comm *comm, uint64_t ns[])
{
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t start = t_now_ns();

        T_OK(tutti_barrier(comm, NULL));
        ns[i] = t_now_ns() - start;
    }
    return median_us(ns, ROUNDS);
}

/* The communicator must be made after pinning: it looks at the ranks' cores when it is created. */
static void two_on_one_core(struct t_rank *t)
{
    static uint64_t ns[ROUNDS];
    double baseline = 1e9, us = 1e9;
    tutti_comm *comm;

    pin_to_one_core();
    T_OK(t_comm_create(t, 2, NULL, &comm));
    for (int attempt = 0; attempt < 5; attempt++) {
        const double base_now = yield_baseline(t), now = barriers(comm, ns);

        baseline = base_now < baseline ? base_now : baseline;
        us = now < us ? now : us;
    }
    t_meet(t);
    if (t->rank == 0)
        fprintf(stderr, "barrier of two ranks on one core: %.2f us; by sched_yield: %.2f us\n", us,
                baseline);
    T_CHECK(us < 10 || us < 3 * baseline, "a barrier takes %.2f us, by sched_yield %.2f us", us,
            baseline);
    tutti_comm_destroy(comm);
}

static void a_barrier_of_two_ranks_on_one_core(void **state)
{
    const struct t_job job = {.n_ranks = 2, .body = two_on_one_core, .no_comm = 1};

    (void)state;
    t_run(&job);
}

T_RANKS(a_call_at_one_rank_costs_under_100_ns, 1)
{
    enum { BATCH = 2000 };
    double best = 1e9;
    float x = 1, y = 0;

    for (int attempt = 0; attempt < 200; attempt++) {
        const uint64_t start = t_now_ns();

        for (int i = 0; i < BATCH; i++)
            if (tutti_all_reduce(t->comm, &x, &y, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL) != 0)
                T_FAIL("%s", tutti_last_error());
        const double ns = (double)(t_now_ns() - start) / BATCH;
        best = ns < best ? ns : best;
    }
    fprintf(stderr, "all_reduce of 4 bytes at one rank: %.1f ns\n", best);
    T_CHECK(y == x, "y is %g", (double)y);
    T_CHECK(best < 100, "%.1f ns a call", best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_barrier_of_two_ranks_on_one_core),
        cmocka_unit_test(a_call_at_one_rank_costs_under_100_ns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
