/* ctest: timeout=180 */
/* Every collective for counts at every edge: empty, one, odd, around vectors, pages and slices. */
#include "support/cases.h"

static const size_t counts[] = {0,    1,    2,     3,     7,     8,      9,      15,     16,   17,
                                31,   63,   64,    65,    127,   255,    257,    1000,   1024, 2047,
                                4096, 4097, 16384, 16385, 65537, 100003, 300007, 1048583};

enum { ROOM = 6 << 20 };

static void every_count(struct t_rank *t)
{
    struct t_case c = {.coll = T_all_reduce};
    struct t_rng rng = {1234 + (uint64_t)t->n_ranks};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (size_t i = 0; i < T_LEN(counts); i++)
        for (int coll = 0; coll < T_barrier; coll++) {
            c = t_case_random(t_random(&rng), t->n_ranks, 1);
            c.coll = (enum t_coll)coll;
            if (counts[i] > 20000 && (i + (size_t)coll) % 3 != 0) /* the long ones now and then */
                continue;
            c.team = t_colls[coll].has_team ? c.team : 0;
            c.count = t_case_fit(c.coll, t->n_ranks, ROOM, tutti_dtype_bytes(c.dtype), counts[i]);
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

/* The sizes where one algorithm takes over from another, and around them, for the main calls. */
static void every_size_around_a_power_of_two(struct t_rank *t)
{
    static const enum t_coll colls[] = {T_all_reduce, T_reduce_scatter, T_all_gather, T_all_to_all,
                                        T_broadcast};
    struct t_case c = {.dtype = TUTTI_DTYPE_BF16, .inputs = T_NEAR};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (size_t bytes = 64; bytes <= 1 << 20; bytes *= 2)
        for (size_t k = 0; k < T_LEN(colls); k++) {
            c.coll = colls[k];
            c.seed++;
            c.windows = (enum t_windows)(c.seed % 4);
            c.place = (enum t_place)(c.seed / 4 % T_N_PLACES);
            c.count = t_case_fit(c.coll, t->n_ranks, ROOM, 2, bytes / 2 + c.seed % 3 - 1);
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

#define COUNTS(n)                                                                                  \
    static void counts_##n##_ranks(void **state)                                                   \
    {                                                                                              \
        (void)state;                                                                               \
        t_ranks(n, every_count);                                                                   \
        t_ranks(n, every_size_around_a_power_of_two);                                              \
    }
COUNTS(1)
COUNTS(2)
COUNTS(3)
COUNTS(4)
COUNTS(5)
COUNTS(7)
COUNTS(8)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_1_ranks), cmocka_unit_test(counts_2_ranks),
        cmocka_unit_test(counts_3_ranks), cmocka_unit_test(counts_4_ranks),
        cmocka_unit_test(counts_5_ranks), cmocka_unit_test(counts_7_ranks),
        cmocka_unit_test(counts_8_ranks),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
