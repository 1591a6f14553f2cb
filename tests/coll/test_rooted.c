/* Calls with a root, while the root, or the others, run as far ahead as they can. (vLLM's gather let
 * the others overtake a waiting root, which then hung.) */
#include "support/cases.h"

enum { CALLS = 300 };

enum who { ROOT_LATE, OTHERS_LATE, ONE_LATE, NOBODY_LATE };

static void repeat(struct t_rank *t, enum t_coll coll, enum who late, int root_moves)
{
    struct t_case c = {.coll = coll, .dtype = TUTTI_DTYPE_U8};
    struct t_rng own = {(uint64_t)t->rank};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, t_case_room(t->n_ranks, 20000, 1), 1);
    for (int i = 0; i < CALLS; i++) {
        c.root = root_moves ? i % t->n_ranks : 1 % t->n_ranks;
        c.count = (size_t)(i % 20 == 19 ? 20000 : i % 7 == 6 ? 0 : i);
        c.windows = (enum t_windows)(i / 10 % 4);
        c.seed++;
        const int is_late = late == ROOT_LATE     ? t->rank == c.root
                            : late == OTHERS_LATE ? t->rank != c.root
                                                  : late == ONE_LATE && t->rank == 0;
        if (is_late && t_random_below(&own, 20) == 0)
            t_sleep_us(500);
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static void all_kinds(struct t_rank *t)
{
    static const enum t_coll colls[] = {T_broadcast, T_reduce, T_gather, T_scatter};

    for (size_t k = 0; k < T_LEN(colls); k++)
        for (int late = ROOT_LATE; late <= NOBODY_LATE; late++)
            repeat(t, colls[k], (enum who)late, late & 1);
}

static void rooted_calls_with_late_ranks(void **state)
{
    (void)state;
    t_ranks(2, all_kinds);
    t_ranks(3, all_kinds);
    t_ranks(5, all_kinds);
}

/* The root of many small gathers is one second late: it must find all of them, in order. */
T_RANKS(others_may_be_far_ahead_of_a_gathering_root, 3)
{
    if (t->rank == 0)
        t_sleep_us(300000);
    for (int i = 0; i < 100; i++) {
        int mine = t->rank * 1000 + i, all[3] = {0};

        T_OK(tutti_gather(t->comm, &mine, all, 1, TUTTI_DTYPE_I32, 0, NULL));
        for (int r = 0; r < 3 && t->rank == 0; r++)
            T_CHECK(all[r] == r * 1000 + i, "gather %d of rank %d is %d", i, r, all[r]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rooted_calls_with_late_ranks),
        cmocka_unit_test(others_may_be_far_ahead_of_a_gathering_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
