/* ctest: timeout=180 */
/* ctest: long as=many args=full timeout=1200 */
/* Thousands of random calls back to back, no barrier between them, ranks early and late at random:
 * a buffer that is used again too soon shows as wrong data. */
#include "support/algorithms.h"
#include "support/cases.h"

enum { ROOM = 1 << 20 };

/* Now and then, this rank or that comes late: by a little, so that others run ahead. */
static void skew(struct t_rng *own)
{
    const uint64_t dice = t_random_below(own, 40);

    if (dice == 0)
        t_sleep_us((unsigned)t_random_below(own, 300));
    else if (dice < 8)
        for (uint64_t end = t_now_ns() + t_random_below(own, 5000); t_now_ns() < end;)
            continue;
}

static void calls(struct t_rank *t, unsigned n_calls, size_t max_count)
{
    struct t_rng rng = {(uint64_t)t->n_ranks + max_count};
    struct t_rng own = {(uint64_t)t->rank + 1};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (unsigned i = 0; i < n_calls; i++) {
        struct t_case c = t_case_random_on(&s, &rng, max_count);

        skew(&own);
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static void small_calls(struct t_rank *t)
{
    calls(t, t_times(1500, 20000), 300);
}

static void calls_of_all_sizes(struct t_rank *t)
{
    calls(t, t_times(300, 3000), 100000);
}

/* The same call again and again with new data: the shortest way round to a reused buffer. */
static void one_call_repeated(struct t_rank *t)
{
    struct t_case c = {.dtype = TUTTI_DTYPE_I32, .count = 37};
    struct t_rng own = {(uint64_t)t->rank + 77};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (unsigned i = 0; i < t_times(100, 2000); i++) {
            c.coll = (enum t_coll)coll;
            c.windows = i % 2 == 0 ? T_ORDINARY : T_REGISTERED;
            c.seed++;
            skew(&own);
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

static void run(void (*body)(struct t_rank *), const char *wait)
{
    static const int ranks[] = {2, 3, 4, 8};

    if (wait != NULL)
        setenv("TUTTI_CPU_WAIT", wait, 1);
    for (size_t i = 0; i < T_LEN(ranks); i++) {
        const struct t_job job = {.n_ranks = ranks[i], .body = body, .limit_s = t_times(60, 600)};

        t_run(&job);
    }
    unsetenv("TUTTI_CPU_WAIT");
}

static void small_random_calls(void **state)
{
    (void)state;
    run(small_calls, NULL);
}

static void random_calls_of_all_sizes(void **state)
{
    (void)state;
    run(calls_of_all_sizes, NULL);
}

static void every_call_repeated(void **state)
{
    (void)state;
    run(one_call_repeated, NULL);
}

/* A waiter that sleeps must be woken by every kind of arrival. */
static void random_calls_with_sleeping_waiters(void **state)
{
    (void)state;
    run(small_calls, "sleep");
}

static void random_calls_with_little_scratch(void **state)
{
    struct t_job job = {.n_ranks = 3, .body = calls_of_all_sizes};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.scratch_bytes = 65536;
    t_run(&job);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_random_calls),
        cmocka_unit_test(random_calls_of_all_sizes),
        cmocka_unit_test(every_call_repeated),
        cmocka_unit_test(random_calls_with_sleeping_waiters),
        cmocka_unit_test(random_calls_with_little_scratch),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
