/* ctest: tsan timeout=300 */
/* Ranks as threads of one process, so that ThreadSanitizer sees both sides of the protocol: every
 * algorithm, every way of waiting. */
#include "support/algorithms.h"
#include "support/cases.h"

static void random_calls(struct t_rank *t)
{
    struct t_rng rng = {17};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, 1 << 19, 1);
    for (unsigned i = 0; i < t_times(120, 2000); i++) {
        struct t_case c = t_case_random_on(&s, &rng, 60000);

        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static void small_calls(struct t_rank *t)
{
    struct t_rng rng = {18};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, 1 << 17, 1);
    for (unsigned i = 0; i < t_times(300, 5000); i++) {
        const struct t_case c = t_case_random(t_random(&rng), t->n_ranks, 40);

        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static void run(int n_ranks, void (*body)(struct t_rank *), const char *wait)
{
    const struct t_job job = {.n_ranks = n_ranks, .threads = 1, .body = body};

    if (wait != NULL)
        setenv("TUTTI_CPU_WAIT", wait, 1);
    t_run_algorithms(&job);
    unsetenv("TUTTI_CPU_WAIT");
}

static void two_threads(void **state)
{
    (void)state;
    run(2, random_calls, NULL);
    run(2, small_calls, NULL);
}

static void three_threads(void **state)
{
    (void)state;
    run(3, random_calls, NULL);
}

static void waiters_that_sleep(void **state)
{
    (void)state;
    run(3, small_calls, "sleep");
}

static void waiters_that_yield(void **state)
{
    (void)state;
    run(2, small_calls, "yield");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_threads),
        cmocka_unit_test(three_threads),
        cmocka_unit_test(waiters_that_sleep),
        cmocka_unit_test(waiters_that_yield),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
