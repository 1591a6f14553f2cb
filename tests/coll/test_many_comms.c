/* ctest: timeout=120 tsan */
/* Several communicators in one process, used in turn or by a thread each, do not touch each other. */
#include "support/cases.h"
#include "support/team.h"

enum { COMMS = 5 };

T_RANKS(calls_on_several_communicators_interleave, 3)
{
    tutti_comm *comms[COMMS];
    struct t_rng rng = {3};

    for (int k = 0; k < COMMS; k++)
        T_OK(t_comm_create(t, 10 + (uint64_t)k, NULL, &comms[k]));
    for (int i = 0; i < 1000; i++) {
        const int k = (int)t_random_below(&rng, COMMS);
        int32_t sum = t->rank * k + i;

        T_OK(tutti_all_reduce(comms[k], &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
        T_CHECK(sum == 3 * k + 3 * i, "call %d on %d: %d", i, k, sum);
    }
    for (int k = 0; k < COMMS; k++)
        tutti_comm_destroy(comms[k]);
}

/* Thread k of every rank has communicator k; all are created, used and destroyed at once. */
static tutti_result thread_with_its_own(void *context, int k, int n)
{
    struct t_rank *t = context;
    tutti_comm *comm;
    struct t_stage s;
    struct t_rng rng = {100 + (uint64_t)k};

    (void)n;
    T_OK(t_comm_create(t, 20 + (uint64_t)k, NULL, &comm));
    t_stage_open(&s, t, comm, 1 << 20, 1);
    for (unsigned i = 0; i < t_times(150, 2000); i++) {
        struct t_case c = t_case_random_on(&s, &rng, 20000);

        c.team = 0;
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
    tutti_comm_destroy(comm);
    return TUTTI_OK;
}

T_RANKS(a_thread_for_each_communicator, 2)
{
    T_OK(t_team_run(t, 4, thread_with_its_own, t));
}

/* One communicator's failure is not another's. */
T_RANKS(a_failed_communicator_leaves_the_others_good, 3)
{
    tutti_comm *other;
    int x = 1;

    T_OK(t_comm_create(t, 30, NULL, &other));
    T_IS(TUTTI_E_MISMATCH, tutti_all_reduce(other, &x, &x, t->rank == 0 ? 1 : 0, TUTTI_DTYPE_I32,
                                            TUTTI_OP_SUM, NULL));
    x = 1;
    T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    T_CHECK(x == 3, "sum %d", x);
    tutti_comm_destroy(other);
    T_OK(tutti_barrier(t->comm, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_on_several_communicators_interleave),
        cmocka_unit_test(a_thread_for_each_communicator),
        cmocka_unit_test(a_failed_communicator_leaves_the_others_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
