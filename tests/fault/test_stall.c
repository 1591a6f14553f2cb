/* ctest: timeout=300 */
/* Random delays at every step of the protocol change no result; and with one rule of the protocol
 * broken on purpose the same calls give wrong ones, so the tests can tell. Needs -DTUTTI_STALL=1. */
#include "cpu/stall.h"
#include "support/algorithms.h"
#include "support/cases.h"

#ifdef TUTTI_STALL

enum { ROOM = 1 << 19 };

struct plan {
    uint64_t seed;
    unsigned n_calls;
    size_t max_count;
};

static void stalled_calls(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    struct t_rng rng = {plan->seed};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1); /* as it should be, until the calls begin */
    t_meet(t);
    tt_stall_seed(t_hash(plan->seed, (uint64_t)t->rank + 1) | 1);
    for (unsigned i = 0; i < plan->n_calls; i++) {
        struct t_case c = t_case_random_on(&s, &rng, plan->max_count);

        t_case_run(&s, &c);
    }
    tt_stall_seed(0);
    t_meet(t);
    t_stage_close(&s);
}

static void run_stalled(size_t max_count, unsigned n_calls)
{
    for (int n = 2; n <= 4; n++) {
        struct plan plan = {t_now_ns(), n_calls, max_count};
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

/* ---- negative controls: one rule broken, one algorithm, one call over and over ---- */

struct control {
    enum tt_break what;
    const char *rule, *algorithm;
    enum t_coll coll;
    enum t_windows windows;
    int is_mismatch; /* what the broken rule makes of the calls; else wrong data */
    size_t count;    /* 0: some thousands */
};

/* A rule is broken where it holds something up: only calls that touch the peers' own buffers end
 * with a barrier, only those that stage data announce it. "Before" is said by the order of statements:
 * to leave a release or an acquire away changes nothing that an x86 processor does. */
static const struct control controls[] = {
    {TT_BREAK_BARRIER, "a skipped barrier", "xmem", T_all_reduce, T_ORDINARY},
    {TT_BREAK_BARRIER, "a skipped barrier", "xmem", T_all_gather, T_ORDINARY},
    {TT_BREAK_BARRIER, "a skipped barrier", "direct", T_all_reduce, T_REGISTERED},
    {TT_BREAK_BARRIER, "a skipped barrier", "direct", T_all_gather, T_REGISTERED},
    {TT_BREAK_BARRIER, "a second step not waited for", "two_shot", T_all_reduce, T_ORDINARY},
    {TT_BREAK_EPOCH, "any epoch accepted", "one_shot", T_all_reduce, T_ORDINARY},
    {TT_BREAK_EPOCH, "any epoch accepted", "two_shot", T_all_reduce, T_ORDINARY},
    {TT_BREAK_EPOCH, "any epoch accepted", "xmem", T_all_reduce, T_ORDINARY},
    {TT_BREAK_EPOCH, "any epoch accepted", "direct", T_all_reduce, T_REGISTERED},
    {TT_BREAK_EPOCH, "any epoch accepted", "one_shot", T_all_to_all, T_ORDINARY},
    {TT_BREAK_FENCE, "a flag before its data", "one_shot", T_all_reduce, T_ORDINARY},
    {TT_BREAK_FENCE, "a flag before its data", "two_shot", T_all_reduce, T_ORDINARY},
    {TT_BREAK_FENCE, "a flag before its data", "one_shot", T_all_to_all, T_ORDINARY},
    {TT_BREAK_EPOCH, "any epoch accepted", "one_shot", T_broadcast, T_ORDINARY, 0, 200},
    {TT_BREAK_FENCE, "a flag before its data", "one_shot", T_broadcast, T_ORDINARY, 0, 200},
    {TT_BREAK_PARITY, "one half of scratch", "one_shot", T_broadcast, T_ORDINARY, 0, 200},
    {TT_BREAK_PARITY, "one half of scratch", "one_shot", T_all_gather, T_ORDINARY},
    {TT_BREAK_PARITY, "one table of notes", "one_shot", T_all_to_allv, T_ORDINARY, 1},
    {TT_BREAK_NOTES, "an arrival before its notes", "one_shot", T_all_to_allv, T_ORDINARY, 1},
    {TT_BREAK_NOTES, "an arrival before its places", "xmem", T_all_gatherv_rows, T_ORDINARY},
};

struct controlled {
    const struct control *control;
    uint64_t seed;
    size_t count;
};

/* The first calls keep the rule, so that what is stale afterwards at least looks like this call. */
static void broken_calls(struct t_rank *t)
{
    const struct controlled *plan = t->arg;
    struct t_rng rng = {plan->seed};
    struct t_stage s;
    struct t_case c = {.coll = plan->control->coll,
                       .windows = plan->control->windows,
                       .dtype = TUTTI_DTYPE_I32,
                       .op = TUTTI_OP_SUM};

    t_stage_open(&s, t, t->comm, ROOM, 1);
    c.count = t_case_fit(c.coll, t->n_ranks, ROOM, 4, plan->count);
    t_meet(t);
    tt_stall_seed(t_hash(plan->seed, (uint64_t)t->rank + 1) | 1);
    for (unsigned i = 0; i < 200; i++) {
        if (i == 4)
            tt_break(plan->control->what);
        c.seed = t_random(&rng);
        c.place = (enum t_place)(c.seed % T_N_PLACES); /* or a stale address is as good */
        t_case_run(&s, &c);
    }
    tt_break(TT_BREAK_NONE);
    tt_stall_seed(0);
    t_meet(t);
    t_stage_close(&s);
}

/* Play until the error is seen, for some seconds at most. That one, not just any failure. */
static void must_be_noticed(const struct control *control)
{
    static char text[8192];

    for (unsigned attempt = 0; attempt < 60; attempt++) {
        struct controlled plan = {control, 1 + attempt, attempt % 2 == 0 ? 2000 : 30000};
        struct t_job job = {.n_ranks = 2 + (int)(attempt % 3), .body = broken_calls, .arg = &plan};

        if (control->count)
            plan.count = control->count;
        job.config.size = sizeof(job.config);
        job.config.algorithm = control->algorithm;
        job.config.timeout_ms = 5000;
        if (!t_run_quietly(&job, text, sizeof(text)))
            continue;
        if (strstr(text, control->is_mismatch ? "TUTTI_E_MISMATCH" : ", want 0x") != NULL) {
            printf("%s, %s: noticed in attempt %u: %.160s\n", control->rule, control->algorithm,
                   attempt, text);
            return;
        }
        if (strstr(text, "TUTTI_E_UNSUPPORTED") != NULL) {
            printf("passed over: algorithm %s cannot run here\n", control->algorithm);
            return;
        }
    }
    T_FAIL("nothing was noticed with %s, %s %s; last report: %s", control->rule, control->algorithm,
           t_colls[control->coll].name, text);
}

static void controls_of(enum tt_break what)
{
    for (size_t i = 0; i < T_LEN(controls); i++)
        if (controls[i].what == what)
            must_be_noticed(&controls[i]);
}

static void a_skipped_barrier_is_noticed(void **state)
{
    (void)state;
    controls_of(TT_BREAK_BARRIER);
}

static void a_wrong_epoch_is_noticed(void **state)
{
    (void)state;
    controls_of(TT_BREAK_EPOCH);
}

static void a_flag_before_its_data_is_noticed(void **state)
{
    (void)state;
    controls_of(TT_BREAK_FENCE);
}

static void one_half_for_all_calls_is_noticed(void **state)
{
    (void)state;
    controls_of(TT_BREAK_PARITY);
}

static void an_arrival_before_its_notes_is_noticed(void **state)
{
    (void)state;
    controls_of(TT_BREAK_NOTES);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_calls_are_right_under_stalls),
        cmocka_unit_test(large_calls_are_right_under_stalls),
        cmocka_unit_test(a_skipped_barrier_is_noticed),
        cmocka_unit_test(a_wrong_epoch_is_noticed),
        cmocka_unit_test(a_flag_before_its_data_is_noticed),
        cmocka_unit_test(one_half_for_all_calls_is_noticed),
        cmocka_unit_test(an_arrival_before_its_notes_is_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
#include "support/without_stall.inc"
#endif
