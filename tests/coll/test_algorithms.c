/* ctest: timeout=180 */
/* Every algorithm, forced by name, gives the reference's bits: so all give the same. */
#include "support/algorithms.h"
#include "support/cases.h"

enum { ROOM = 3 << 20 };

static void random_calls(struct t_rank *t)
{
    const unsigned n_calls = t_times(150, 2000);
    struct t_rng rng = {(uint64_t)t->n_ranks * 1000};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (unsigned i = 0; i < n_calls; i++) {
        struct t_case c = t_case_random_on(&s, &rng, 400000);

        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static void sizes_of_all_reduce(struct t_rank *t)
{
    static const size_t counts[] = {0, 1, 17, 100, 1023, 4096, 5000, 33333, 262147, 700001};
    struct t_case c = {.dtype = TUTTI_DTYPE_F32, .inputs = T_NEAR};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (size_t i = 0; i < T_LEN(counts); i++)
        for (int windows = 0; windows < 4; windows++) {
            c.windows = (enum t_windows)windows;
            c.in_place = (int)((i + (size_t)windows) & 1);
            c.seed++;
            c.count = counts[i];
            t_case_run(&s, &c);
        }
    t_stage_close(&s);
}

static void run(int n_ranks)
{
    struct t_job job = {.n_ranks = n_ranks, .body = random_calls};

    t_run_algorithms(&job);
    job.body = sizes_of_all_reduce;
    t_run_algorithms(&job);
}

#define RANKS(n)                                                                                   \
    static void algorithms_agree_##n##_ranks(void **state)                                         \
    {                                                                                              \
        (void)state;                                                                               \
        run(n);                                                                                    \
    }
RANKS(1)
RANKS(2)
RANKS(3)
RANKS(4)
RANKS(7)
RANKS(8)

static void an_unknown_name_is_refused(void **state)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    const char *name = "unchanged";
    tutti_comm *comm;

    (void)state;
    config.algorithm = "no_such_way";
    T_IS(TUTTI_E_ARG, tutti_comm_create(&config, &comm));
    T_CONTAINS(tutti_last_error(), "no_such_way");
    T_IS(TUTTI_E_ARG, tutti_algorithm_name("all_reduce", 1000, &name));
    T_IS(TUTTI_E_ARG, tutti_algorithm_name("no_such_collective", 0, &name));
    assert_string_equal(name, "unchanged");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(algorithms_agree_1_ranks),   cmocka_unit_test(algorithms_agree_2_ranks),
        cmocka_unit_test(algorithms_agree_3_ranks),   cmocka_unit_test(algorithms_agree_4_ranks),
        cmocka_unit_test(algorithms_agree_7_ranks),   cmocka_unit_test(algorithms_agree_8_ranks),
        cmocka_unit_test(an_unknown_name_is_refused),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
