/* ctest: timeout=120 */
/* No wake is lost between a rank that goes to sleep and the peer that it waits for: a lost one costs a
 * nap, so naps that nobody ends are made long here, and a call that lasts as long as one has lost its
 * wake. The two rules that see to it are then broken in turn. Needs -DTUTTI_STALL=1. */
#include "cpu/stall.h"
#include "support/job.h"

#ifdef TUTTI_STALL

enum { CALLS = 1000 };

struct plan {
    enum tt_break what;
    unsigned n_calls;
    uint64_t nap_ns;
};

/* The fence itself cannot be seen missing: a processor seldom lets the look at the sleepers pass the
 * store before it, so it is done in that order (TT_BREAK_WAKE). */
static void barriers(struct t_rank *t)
{
    const struct plan *plan = t->arg;

    T_OK(tutti_barrier(t->comm, NULL));
    tt_stall_seed(t_hash(t_now_ns(), (uint64_t)t->rank + 1) | 1);
    tt_stall_nap(plan->nap_ns);
    tt_break(plan->what);
    for (unsigned i = 0; i < plan->n_calls; i++) {
        const uint64_t start = t_now_ns();

        T_OK(tutti_barrier(t->comm, NULL));
        t_meet(t); /* the next post of the same rank would make good for the lost wake */
        T_CHECK(t_now_ns() - start < plan->nap_ns, "call %u lost its wake: it lasted %u ms", i,
                (unsigned)((t_now_ns() - start) / 1000000));
    }
    tt_break(TT_BREAK_NONE);
    tt_stall_nap(0);
    tt_stall_seed(0);
}

static int play(struct plan plan, char *text, size_t bytes)
{
    const struct t_job job = {.n_ranks = 3, .body = barriers, .arg = &plan};
    int failed;

    setenv("TUTTI_CPU_WAIT", "sleep", 1);
    failed = t_run_quietly(&job, text, bytes);
    unsetenv("TUTTI_CPU_WAIT");
    return failed;
}

static void no_wake_is_lost(void **state)
{
    const struct plan plan = {TT_BREAK_NONE, t_times(CALLS, 20 * CALLS), UINT64_C(10000000000)};
    char text[4096];

    (void)state;
    if (play(plan, text, sizeof(text)))
        T_FAIL("%s", text);
}

static void must_be_noticed(enum tt_break what)
{
    const struct plan plan = {what, 5 * CALLS, UINT64_C(2000000000)};
    char text[4096] = "every call was in time";

    for (int attempt = 0; attempt < 5 && !play(plan, text, sizeof(text)); attempt++)
        continue;
    T_CONTAINS(text, "lost its wake");
}

static void a_look_at_sleepers_before_the_flag_is_noticed(void **state)
{
    (void)state;
    must_be_noticed(TT_BREAK_WAKE);
}

static void sleep_without_another_look_is_noticed(void **state)
{
    (void)state;
    must_be_noticed(TT_BREAK_LOOK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wake_is_lost),
        cmocka_unit_test(a_look_at_sleepers_before_the_flag_is_noticed),
        cmocka_unit_test(sleep_without_another_look_is_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else
#include "support/without_stall.inc"
#endif
