/* The order of sums: the same bits on every rank and in every place whatever the size of a call; with
 * TUTTI_ALGO=flat the bits of a single host. */
#include "support/cases.h"
#include "support/hosts.h"

enum { ROOM = 1 << 21, MOST = 40000 };

static void flat_calls(struct t_rank *t)
{
    static const enum t_coll colls[] = {T_all_reduce, T_reduce_scatter, T_reduce_scatterv,
                                        T_reduce};
    static const size_t counts[] = {0, 1, 33, 700, 30001};
    struct t_rng rng = {99};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 0);
    s.is_flat = 1;
    for (size_t k = 0; k < T_LEN(colls); k++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (int op = 0; op < TUTTI_N_OPS; op++) {
                struct t_case c = t_case_random(t_random(&rng), t->n_ranks, 1);

                c.coll = colls[k];
                c.dtype = (tutti_dtype)dtype;
                c.op = (tutti_op)op;
                c.team = 0;
                c.windows = T_ORDINARY;
                c.inputs = op % 2 == 0 ? T_NEAR : T_BITS;
                c.count = t_case_fit(c.coll, t->n_ranks, ROOM, tutti_dtype_bytes(c.dtype),
                                     counts[t_random_below(&rng, T_LEN(counts))]);
                t_case_run(&s, &c);
            }
    t_stage_close(&s);
}

static void flat_gives_the_bits_of_one_host(void **state)
{
    (void)state;
    setenv("TUTTI_ALGO", "flat", 1);
    t_hosts("0101");
    t_ranks(4, flat_calls);
    t_hosts("0112");
    t_ranks(4, flat_calls);
    t_hosts(NULL);
    t_ranks(3, flat_calls); /* the name is known on one host too, where all algorithms are flat */
    unsetenv("TUTTI_ALGO");
}

/* An element's sum does not depend on where in which vector it stands. */
static void slices(struct t_rank *t)
{
    static uint16_t x[MOST], whole[MOST], part[MOST];
    static const size_t cuts[] = {0, 1, 65, 700, 3001, 30000, MOST};
    struct t_pattern p;

    t_pattern_input(&p, T_PERIOD, TUTTI_DTYPE_BF16, T_NEAR, 5, t->rank);
    t_pattern_write(&p, x, 0, MOST);
    T_OK(tutti_all_reduce(t->comm, x, whole, MOST, TUTTI_DTYPE_BF16, TUTTI_OP_SUM, NULL));
    for (size_t i = 0; i + 1 < T_LEN(cuts); i++)
        T_OK(tutti_all_reduce(t->comm, x + cuts[i], part + cuts[i], cuts[i + 1] - cuts[i],
                              TUTTI_DTYPE_BF16, TUTTI_OP_SUM, NULL));
    T_CHECK(memcmp(whole, part, sizeof(whole)) == 0, "sums depend on the size of the call");
    memset(part, 0, sizeof(part));
    T_OK(tutti_reduce(t->comm, x, part, MOST, TUTTI_DTYPE_BF16, TUTTI_OP_SUM, 2, NULL));
    T_CHECK(t->rank != 2 || memcmp(whole, part, sizeof(whole)) == 0, "reduce gives other bits");
}

static void bits_do_not_depend_on_size_or_call(void **state)
{
    (void)state;
    t_hosts("01101");
    t_ranks(5, slices);
    t_hosts(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flat_gives_the_bits_of_one_host),
        cmocka_unit_test(bits_do_not_depend_on_size_or_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
