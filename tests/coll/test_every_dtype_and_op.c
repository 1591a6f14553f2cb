/* Every collective of every dtype and operation gives the bits of the reference, for any inputs. */
#include "support/cases.h"

static const size_t counts[] = {1, 5, 67};

static void run_inputs(struct t_stage *s, struct t_case *c)
{
    for (size_t i = 0; i < T_LEN(counts); i++) {
        c->count = counts[i];
        c->inputs = (enum t_inputs)(i % 3);
        c->seed = t_hash(c->seed, 1);
        c->in_place = (int)(c->seed & 1);
        c->place = (enum t_place)((c->seed >> 1) % T_N_PLACES);
        c->windows = (enum t_windows)((c->seed >> 8) % 4);
        c->root = (int)((c->seed >> 16) % (uint64_t)s->n_ranks);
        t_case_run(s, c);
    }
}

static void every_dtype_and_op(struct t_rank *t)
{
    struct t_case c = {.seed = (uint64_t)t->n_ranks};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, t_case_room(t->n_ranks, 67, 8), 1);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (int op = 0; op < (t_colls[coll].reduces ? TUTTI_N_OPS : 1); op++) {
                c.coll = (enum t_coll)coll;
                c.dtype = (tutti_dtype)dtype;
                c.op = (tutti_op)op;
                run_inputs(&s, &c);
            }
    t_stage_close(&s);
}

/* Longer than one pattern, with all the special values, where vector loops and tails are at work. */
static void every_reduction_of_special_values(struct t_rank *t)
{
    struct t_case c = {.coll = T_all_reduce, .count = 4099, .inputs = T_BITS};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, t_case_room(t->n_ranks, 4099, 8), 0);
    for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
        for (int op = 0; op < TUTTI_N_OPS; op++) {
            c.dtype = (tutti_dtype)dtype;
            c.op = (tutti_op)op;
            c.seed++;
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

#define RANKS(n)                                                                                   \
    static void every_dtype_and_op_##n##_ranks(void **state)                                       \
    {                                                                                              \
        (void)state;                                                                               \
        t_ranks(n, every_dtype_and_op);                                                            \
    }
RANKS(1)
RANKS(2)
RANKS(3)
RANKS(4)
RANKS(5)
RANKS(7)
RANKS(8)

static void special_values_reduce_to_the_bits_of_the_reference(void **state)
{
    (void)state;
    t_ranks(1, every_reduction_of_special_values);
    t_ranks(2, every_reduction_of_special_values);
    t_ranks(3, every_reduction_of_special_values);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype_and_op_1_ranks),
        cmocka_unit_test(every_dtype_and_op_2_ranks),
        cmocka_unit_test(every_dtype_and_op_3_ranks),
        cmocka_unit_test(every_dtype_and_op_4_ranks),
        cmocka_unit_test(every_dtype_and_op_5_ranks),
        cmocka_unit_test(every_dtype_and_op_7_ranks),
        cmocka_unit_test(every_dtype_and_op_8_ranks),
        cmocka_unit_test(special_values_reduce_to_the_bits_of_the_reference),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
