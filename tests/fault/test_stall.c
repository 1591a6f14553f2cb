/* ctest: timeout=300 */
/* Random delays at every step of the protocol change no result; and with one rule of the protocol
 * broken on purpose the same calls give wrong ones, so the tests can tell. Needs -DTUTTI_STALL=1. */
#include "cpu/stall.h"
#include "support/algorithms.h"
#include "support/cases.h"

#ifdef TUTTI_STALL

enum { ROOM = 1 << 19 };

struct plan {
    enum tt_break what;
    uint64_t seed;
    unsigned n_calls;
    size_t max_count;
    int alike; /* all calls are the same but for their data: none differs from a peer's */
};

static void stalled_calls(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    struct t_rng rng = {plan->seed};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1); /* as it should be, until the calls begin */
    t_meet(t);
    tt_stall_seed(t_hash(plan->seed, (uint64_t)t->rank + 1) | 1);
    tt_break(plan->what);
    for (unsigned i = 0; i < plan->n_calls; i++) {
        struct t_case c = t_case_random(t_random(&rng), t->n_ranks, plan->max_count);

        if (plan->alike) {
            c = t_case_random(plan->seed, t->n_ranks, plan->max_count);
            c.windows = T_ORDINARY;
            c.seed = t_random(&rng);
        }
        c.count = t_case_fit(c.coll, t->n_ranks, ROOM, tutti_dtype_bytes(c.dtype), c.count);
        t_case_run(&s, &c);
    }
    tt_break(TT_BREAK_NONE);
    tt_stall_seed(0);
    t_meet(t);
    t_stage_close(&s);
}

static void run_stalled(size_t max_count, unsigned n_calls)
{
    for (int n = 2; n <= 4; n++) {
        struct plan plan = {TT_BREAK_NONE, t_now_ns(), n_calls, max_count, 0};
        const struct t_job job = {.n_ranks = n, .body = stalled_calls, .arg = &plan};

        t_run_algorithms(&job);
    }
}

static void small_calls_are_right_under_stalls(void **state)
{
    (void)state;
    run_stalled(60, t_times(150, 3000));
}

static void large_calls_are_right_under_stalls(void **state)
{
    (void)state;
    run_stalled(60000, t_times(60, 1000));
}

/* Play until an error is seen, for some seconds at most. Wrong data, not just any failure. */
static void must_be_noticed(enum tt_break what, const char *name)
{
    const char *names[T_MAX_ALGORITHMS];
    const size_t n_names = t_algorithms(names);
    static char text[8192];

    for (unsigned attempt = 0; attempt < 40; attempt++) {
        struct plan plan = {what, 1 + attempt, 400, attempt % 2 == 0 ? 2000 : 60000, 0};
        struct t_job job = {.n_ranks = 2 + (int)(attempt % 3), .body = stalled_calls, .arg = &plan};

        plan.alike = what == TT_BREAK_EPOCH; /* else the unlike call is noticed first */
        job.config.size = sizeof(job.config);
        job.config.algorithm = names[attempt / 2 % n_names];
        job.config.timeout_ms = 5000;
        if (t_run_quietly(&job, text, sizeof(text)) && strstr(text, ", want 0x") != NULL) {
            printf("%s: noticed in attempt %u: %.200s\n", name, attempt, text);
            return;
        }
    }
    T_FAIL("nothing was noticed with %s; last report: %s", name, text);
}

static void a_skipped_barrier_is_noticed(void **state)
{
    (void)state;
    must_be_noticed(TT_BREAK_BARRIER, "a skipped barrier");
}

static void a_wrong_epoch_is_noticed(void **state)
{
    (void)state;
    must_be_noticed(TT_BREAK_EPOCH, "any epoch accepted");
}

static void a_flag_before_its_data_is_noticed(void **state)
{
    (void)state;
    must_be_noticed(TT_BREAK_FENCE, "a flag before its data");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_calls_are_right_under_stalls),
        cmocka_unit_test(large_calls_are_right_under_stalls),
        cmocka_unit_test(a_skipped_barrier_is_noticed),
        cmocka_unit_test(a_wrong_epoch_is_noticed),
        cmocka_unit_test(a_flag_before_its_data_is_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    printf("skipped: the library was built without TUTTI_STALL (cmake --preset stall)\n");
    return 77;
}

#endif
