/* ctest: no-tsan timeout=240 */
/* ctest: long as=many args=full no-tsan timeout=1800 */
/*
 * Calls of all kinds and sizes back to back, several on their way before any is checked, with ranks,
 * blocks and threads late at random and stores seen late: a buffer that is used again too soon, or a
 * store that is trusted too early, shows as wrong data. With proof that each such fault would be seen.
 */
#include "support/cases.h"

/* So little scratch that long calls go round in it several times. */
enum {
    SCRATCH = 256 << 10,
    SCRATCH_A_RANK = 64 << 10,
    ROOM = 1 << 18,
    MAX_COUNT = 20000,
    AHEAD = 4
};

#define BIT(coll)  (UINT64_C(1) << T_##coll)
#define REDUCTIONS (BIT(all_reduce) | BIT(reduce_scatter))
#define MOVES      (BIT(all_gather) | BIT(all_to_all))
#define LONG       (UINT64_C(1) << 63) /* with them: calls that go round in the scratch */

static struct t_case next_case(struct t_rng *rng, int n_ranks, uint64_t only)
{
    struct t_case c;

    do
        c = t_case_random(t_random(rng), n_ranks, MAX_COUNT);
    while (only != 0 && (only >> c.coll & 1) == 0);
    c.team = 0;
    if (only & LONG)
        c.count = MAX_COUNT;
    c.count = t_case_fit(c.coll, n_ranks, ROOM, tutti_dtype_bytes(c.dtype), c.count);
    return c;
}

struct plan {
    unsigned n_calls;
    uint64_t only; /* bit of each collective; 0: all */
    const char *algorithm;
};

/* This rank comes late now and then. */
static void skew(struct t_rng *own)
{
    if (t_random_below(own, 10) == 0)
        t_sleep_us((unsigned)t_random_below(own, 1000));
}

static void calls(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    struct t_rng rng = {(uint64_t)t->n_ranks}, own = {(uint64_t)t->rank + 1};
    struct t_stage stages[AHEAD];
    struct t_case cases[AHEAD];
    struct t_device device;

    t_device_open(&device, t);
    for (int i = 0; i < AHEAD; i++)
        t_stage_open_on(&stages[i], t, t->comm, ROOM, 1, &device);
    t_meet(t);
    for (unsigned done = 0; done < plan->n_calls; done += AHEAD) {
        for (int i = 0; i < AHEAD; i++) {
            cases[i] = next_case(&rng, t->n_ranks, plan->only);
            t_case_load(&stages[i], &cases[i]);
        }
        for (int i = 0; i < AHEAD; i++) {
            skew(&own);
            T_OK(t_case_launch(&stages[i]));
        }
        for (int i = 0; i < AHEAD; i++)
            T_OK(t_case_verify(&stages[i]));
    }
    t_meet(t);
    for (int i = 0; i < AHEAD; i++)
        t_stage_close(&stages[i]);
    t_device_close(&device);
}

static struct t_job job_of(int n_ranks, struct plan *plan)
{
    struct t_job job = t_cuda_job(n_ranks, calls);

    job.arg = plan;
    job.config.scratch_bytes = SCRATCH + (size_t)n_ranks * SCRATCH_A_RANK;
    job.config.algorithm = plan->algorithm;
    return job;
}

static void run_seed(unsigned seed, unsigned n_calls, const char *algorithm)
{
    static const int ranks[] = {2, 3, 4, 8, 0};
    struct plan plan = {.n_calls = n_calls, .algorithm = algorithm};
    char number[16];

    snprintf(number, sizeof(number), "%u", seed);
    setenv("T_SIM_SEED", number, 1);
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = job_of(*n, &plan);

        job.limit_s = 600;
        t_run(&job);
    }
    unsetenv("T_SIM_SEED");
}

/* A real GPU makes its own weather. */
static void run_weather(unsigned quick, const char *algorithm)
{
    const unsigned n_seeds = t_is_simulated() ? t_times(1, 5) : 1;

    for (unsigned seed = 1; seed <= n_seeds; seed++)
        run_seed(seed, t_times(quick, 5 * quick), algorithm);
}

static void calm(void **state)
{
    (void)state;
    run_seed(0, t_times(120, 2000), NULL);
}

static void bad_weather(void **state)
{
    (void)state;
    if (!t_is_simulated())
        t_skip("it is the same as calm on a real GPU");
    run_weather(60, NULL);
}

static void bad_weather_one_shot(void **state)
{
    (void)state;
    run_weather(40, "one_shot");
}

static void bad_weather_two_shot(void **state)
{
    (void)state;
    run_weather(40, "two_shot");
}

static void bad_weather_direct(void **state)
{
    (void)state;
    run_weather(40, "direct");
}

/* --- can these tests fail? --- */

static void expect_to_fail(const char *fault, uint64_t only, const char *algorithm)
{
    struct plan plan = {.n_calls = 400, .only = only, .algorithm = algorithm};
    static char text[8192];
    struct t_job job;
    int failed = 0;

    if (!t_is_simulated())
        t_skip("a real GPU keeps its promises");
    setenv("T_SIM_BREAK", fault, 1);
    for (int seed = 1; !failed && seed <= 5; seed++) {
        char number[16];

        snprintf(number, sizeof(number), "%d", seed);
        setenv("T_SIM_SEED", number, 1);
        job = job_of(3, &plan);
        job.config.timeout_ms = 3000;
        job.limit_s = 60;
        failed = t_run_quietly(&job, text, sizeof(text));
    }
    unsetenv("T_SIM_BREAK");
    unsetenv("T_SIM_SEED");
    T_CHECK(failed, "nothing was noticed of %s (%s)", fault, algorithm);
    T_CHECK(strstr(text, "_create") == NULL, "%s: failed before the calls: %s", fault, text);
}

static void sentinels_not_put_back_are_noticed(void **state)
{
    (void)state;
    expect_to_fail("no_rearm", REDUCTIONS, "one_shot");
    expect_to_fail("no_rearm", REDUCTIONS, "two_shot");
}

static void one_half_instead_of_two_is_noticed(void **state)
{
    (void)state;
    expect_to_fail("one_half", REDUCTIONS, "one_shot");
}

static void ranks_that_do_not_meet_are_noticed(void **state)
{
    (void)state;
    expect_to_fail("no_meet", BIT(broadcast), "one_shot");
}

static void torn_packets_are_noticed(void **state)
{
    (void)state;
    expect_to_fail("torn", MOVES, "one_shot");
}

static void flags_that_order_nothing_are_noticed(void **state)
{
    (void)state;
    expect_to_fail("no_release", MOVES | LONG, "two_shot");
    expect_to_fail("no_release", REDUCTIONS, "two_shot");
    expect_to_fail("no_release", REDUCTIONS, "direct");
}

static void flags_not_waited_for_are_noticed(void **state)
{
    (void)state;
    expect_to_fail("no_acquire", MOVES, "two_shot");
    expect_to_fail("no_acquire", BIT(broadcast) | LONG, "two_shot"); /* nobody answers a root */
    expect_to_fail("no_acquire", REDUCTIONS, "direct");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calm),
        cmocka_unit_test(bad_weather),
        cmocka_unit_test(bad_weather_one_shot),
        cmocka_unit_test(bad_weather_two_shot),
        cmocka_unit_test(bad_weather_direct),
        cmocka_unit_test(sentinels_not_put_back_are_noticed),
        cmocka_unit_test(one_half_instead_of_two_is_noticed),
        cmocka_unit_test(ranks_that_do_not_meet_are_noticed),
        cmocka_unit_test(torn_packets_are_noticed),
        cmocka_unit_test(flags_that_order_nothing_are_noticed),
        cmocka_unit_test(flags_not_waited_for_are_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
