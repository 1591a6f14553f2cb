/* ctest: long serial timeout=1500 */
/* The matrix, as much of it as minutes allow: collective x dtype x operation x ranks x count x place
 * x in place x windows, under every algorithm. */
#include "support/algorithms.h"
#include "support/cases.h"

static const size_t counts[] = {0, 1, 2, 3, 7, 16, 17, 63, 64, 65, 1000, 4096, 4097, 65537, 300007};

enum { ROOM = 6 << 20 };

/* Every combination of collective, dtype and count; of the rest a random one each time. */
static void matrix(struct t_rank *t)
{
    struct t_rng rng = {4 + (uint64_t)t->n_ranks};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (size_t i = 0; i < T_LEN(counts); i++)
                for (int op = 0; op < (t_colls[coll].reduces ? TUTTI_N_OPS : 1); op++) {
                    struct t_case c = t_case_random(t_random(&rng), t->n_ranks, 1);

                    c.coll = (enum t_coll)coll;
                    c.dtype = (tutti_dtype)dtype;
                    c.op = (tutti_op)op;
                    c.team = t_colls[coll].has_team && c.seed % 8 == 0 ? 3 : 0;
                    c.count =
                        t_case_fit(c.coll, t->n_ranks, ROOM, tutti_dtype_bytes(c.dtype), counts[i]);
                    t_case_run(&s, &c);
                }
    t_stage_close(&s);
}

static void random_calls(struct t_rank *t)
{
    struct t_rng rng = {4321 + (uint64_t)t->n_ranks};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (int i = 0; i < 3000; i++) {
        struct t_case c = t_case_random_on(&s, &rng, 1 << 20);

        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static void run(int n_ranks)
{
    struct t_job job = {.n_ranks = n_ranks, .body = matrix, .limit_s = 600};

    t_run_algorithms(&job);
    job.body = random_calls;
    t_run_algorithms(&job);
}

#define RANKS(n)                                                                                   \
    static void matrix_##n##_ranks(void **state)                                                   \
    {                                                                                              \
        (void)state;                                                                               \
        run(n);                                                                                    \
    }
RANKS(1)
RANKS(2)
RANKS(3)
RANKS(5)
RANKS(8)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrix_1_ranks), cmocka_unit_test(matrix_2_ranks),
        cmocka_unit_test(matrix_3_ranks), cmocka_unit_test(matrix_5_ranks),
        cmocka_unit_test(matrix_8_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
