/* ctest: timeout=180 */
/* ctest: long as=many args=full timeout=1200 */
/* Every collective on every kind of layout of hosts, each element checked, over a network that delivers
 * late, in pieces and out of order. */
#include "support/cases.h"
#include "support/hosts.h"

enum { ROOM = 1 << 21 };

static const char *const layouts[] = {"01",   "0011",   "0101",   "0111",
                                      "1000", "001122", "012012", "0120112"};

static void matrix(struct t_rank *t)
{
    static const size_t counts[] = {0, 1, 3, 17, 515, 6001};
    struct t_rng rng = {4 + (uint64_t)t->n_ranks};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (int coll = 0; coll < T_N_COLLS; coll++)
        for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
            for (int op = 0; op < (t_colls[coll].reduces ? TUTTI_N_OPS : 1); op++) {
                struct t_case c = t_case_random(t_random(&rng), t->n_ranks, 1);
                const size_t i = t_random_below(&rng, T_LEN(counts));

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
    struct t_rng rng = {4321 + (uint64_t)t->n_ranks}, own = {(uint64_t)t->rank + 1};
    struct t_stage s;

    t_stage_open(&s, t, t->comm, ROOM, 1);
    for (unsigned i = 0; i < t_times(60, 2000); i++) {
        struct t_case c = t_case_random_on(&s, &rng, 1 << 18);

        if (t_random_below(&own, 40) == 0)
            t_sleep_us((unsigned)t_random_below(&own, 300));
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

/* Every set of ranks may work in place while the others do not. */
static void some_in_place(struct t_rank *t)
{
    static const size_t counts[] = {0, 1, 1001, 70000};
    int32_t *buf[2];

    for (int side = 0; side < 2; side++)
        T_CHECK((buf[side] = malloc((size_t)t->n_ranks * 70000 * sizeof(int32_t))), "no memory");
    for (unsigned i = 0; i < T_LEN(counts) << t->n_ranks; i++) {
        const size_t set = i / T_LEN(counts), n = counts[i % T_LEN(counts)];
        int32_t *recv = buf[set >> t->rank & 1 ? 0 : 1];

        for (size_t k = 0; k < n * (size_t)t->n_ranks; k++)
            buf[0][k] = (int32_t)(k + (size_t)t->rank * 10000000);
        T_OK(tutti_all_to_all(t->comm, buf[0], recv, n, TUTTI_DTYPE_I32, NULL));
        for (size_t k = 0; k < n * (size_t)t->n_ranks; k++)
            T_CHECK(recv[k] == (int32_t)(k % n + n * (size_t)t->rank + k / n * 10000000),
                    "in place on the ranks %#zx, blocks of %zu: element %zu is %d", set, n, k,
                    (int)recv[k]);
    }
    for (int side = 0; side < 2; side++)
        free(buf[side]);
}

static void run(void (*body)(struct t_rank *))
{
    for (size_t i = 0; i < T_LEN(layouts); i++) {
        t_hosts(layouts[i]);
        t_ranks((int)strlen(layouts[i]), body);
    }
    t_hosts(NULL);
}

static void every_collective_dtype_and_operation(void **state)
{
    (void)state;
    run(matrix);
}

static void random_calls_back_to_back(void **state)
{
    (void)state;
    run(random_calls);
}

/* Little scratch: rings of 8 KiB, collectives in many pieces. */
static void random_calls_with_little_scratch(void **state)
{
    struct t_job job = {.n_ranks = 4, .body = random_calls};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.scratch_bytes = 65536;
    t_hosts("0011");
    t_run(&job);
    t_hosts("0112");
    t_run(&job);
    t_hosts(NULL);
}

static void all_to_all_in_place_on_some_ranks(void **state)
{
    (void)state;
    t_hosts("0101");
    t_ranks(4, some_in_place);
    t_hosts("0112");
    t_ranks(4, some_in_place);
    t_hosts(NULL);
}

/* More hosts than talk to each other at once. */
static void ten_hosts(void **state)
{
    (void)state;
    t_hosts("0123456789");
    t_ranks(10, matrix);
    t_hosts(NULL);
}

/* A network that lets signals overtake data must not go unnoticed. */
static void a_signal_before_its_data_is_noticed(void **state)
{
    const struct t_job job = {.n_ranks = 2, .body = random_calls};
    static char text[8192];
    int failed;

    (void)state;
    if (getenv("T_NET") != NULL)
        t_skip("only the network of tests/support/net can be broken");
    setenv("T_NET", "signal_early", 1);
    t_hosts("01");
    failed = t_run_quietly(&job, text, sizeof(text));
    t_hosts(NULL);
    unsetenv("T_NET");
    assert_true(failed);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_dtype_and_operation),
        cmocka_unit_test(random_calls_back_to_back),
        cmocka_unit_test(random_calls_with_little_scratch),
        cmocka_unit_test(all_to_all_in_place_on_some_ranks),
        cmocka_unit_test(ten_hosts),
        cmocka_unit_test(a_signal_before_its_data_is_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
