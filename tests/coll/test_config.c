/* tutti_comm_config: defaults, bad fields, and callers built with an older or a newer header. */
#include "support/proc.h"
#include "support/job.h"

static void zero_is_a_communicator_of_one(void **state)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    (void)state;
    T_OK(tutti_comm_create(&config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    assert_int_equal(info.rank, 0);
    assert_int_equal(info.n_ranks, 1);
    assert_int_equal(info.n_hosts, 1);
    assert_int_equal(info.timeout_ms, 30000);
    assert_string_equal(info.engine, "cpu");
    assert_non_null(info.name);
    assert_non_null(info.details);
    tutti_comm_destroy(comm);
}

/* A caller with a longer struct: what this library does not know must be zero, or it is refused
 * rather than ignored. */
static void a_newer_caller(void **state)
{
    struct {
        tutti_comm_config config;
        uint64_t future[4];
    } newer = {.config = TUTTI_COMM_CONFIG_INIT};
    tutti_comm *comm;

    (void)state;
    newer.config.size = sizeof(newer);
    T_OK(tutti_comm_create(&newer.config, &comm));
    tutti_comm_destroy(comm);
}

/* A caller whose struct ends after `exchange_context`: the fields behind it are not read. */
static void an_older_caller(void **state)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    (void)state;
    config.size = offsetof(tutti_comm_config, timeout_ms);
    config.timeout_ms = 17;
    config.name = (const char *)16; /* would crash if it were read */
    config.algorithm = (const char *)16;
    T_OK(tutti_comm_create(&config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    assert_int_equal(info.timeout_ms, 30000);
    tutti_comm_destroy(comm);
}

static void output_structs_of_other_sizes(void **state)
{
    struct {
        tutti_comm_info info;
        unsigned char more[64];
    } newer = {.info = TUTTI_COMM_INFO_INIT};
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info older = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    (void)state;
    T_OK(tutti_comm_create(&config, &comm));
    memset(newer.more, 0x5A, sizeof(newer.more));
    newer.info.size = sizeof(newer);
    T_OK(tutti_comm_query(comm, &newer.info));
    assert_int_equal(newer.info.n_ranks, 1);
    older.size = offsetof(tutti_comm_info, n_hosts);
    older.n_hosts = -7;
    T_OK(tutti_comm_query(comm, &older));
    assert_int_equal(older.n_ranks, 1);
    assert_int_equal(older.n_hosts, -7); /* beyond its size: not written */
    tutti_comm_destroy(comm);
}

static void refused(tutti_comm_config config, tutti_result want, const char *part)
{
    const struct t_holdings before = t_holdings_now();
    tutti_comm *comm = (tutti_comm *)16;

    T_IS(want, tutti_comm_create(&config, &comm));
    T_CONTAINS(tutti_last_error(), part);
    assert_ptr_equal(comm, (tutti_comm *)16); /* set on success only */
    t_check_holdings(&before, 2, part);
}

static void bad_fields(void **state)
{
    static tutti_unique_id garbage;
    const tutti_comm_config init = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_config c = init;
    tutti_comm *comm;

    (void)state;
    c.size = 0;
    refused(c, TUTTI_E_ARG, "size");
    c = init, c.rank = -1;
    refused(c, TUTTI_E_ARG, "rank");
    c = init, c.n_ranks = -3;
    refused(c, TUTTI_E_ARG, "n_ranks");
    c = init, c.rank = 2, c.n_ranks = 2;
    refused(c, TUTTI_E_ARG, "rank is 2");
    c = init, c.n_ranks = 2; /* neither id nor exchange */
    refused(c, TUTTI_E_ARG, "id");
    c = init, c.n_ranks = 2, c.id = &garbage;
    refused(c, TUTTI_E_ARG, "id");
    c = init, c.flags = 0x80000000u;
    refused(c, TUTTI_E_ARG, "flags");
    c = init, c.device = (tutti_device)9;
    refused(c, TUTTI_E_UNSUPPORTED, "device 9");
    c = init, c.tune_file = "/nonexistent/tune";
    refused(c, TUTTI_E_SYSTEM, "/nonexistent/tune");
    c = init, c.name = "two\rlines";
    refused(c, TUTTI_E_ARG, "name");
    c = init, c.name = "a name that is longer than the thirty-one bytes it may have";
    const tutti_result r = tutti_comm_create(&c, &comm); /* refused, or cut */
    T_CHECK(r == TUTTI_OK || r == TUTTI_E_ARG, "%s", tutti_result_name(r));
    if (r == TUTTI_OK)
        tutti_comm_destroy(comm);
    T_IS(TUTTI_E_ARG, tutti_comm_create(NULL, &comm));
    T_IS(TUTTI_E_ARG, tutti_comm_create(&init, NULL));
}

static int clean_environment(void **state)
{
    (void)state;
    unsetenv("TUTTI_TIMEOUT");
    unsetenv("TUTTI_SCRATCH");
    unsetenv("TUTTI_CPU_ISA");
    unsetenv("TUTTI_CPU_XMEM");
    unsetenv("TUTTI_CPU_WAIT");
    unsetenv("TUTTI_ALGO");
    return 0;
}

static void malformed_variables_are_named(void **state)
{
    static const char *const rows[][2] = {{"TUTTI_TIMEOUT", "soon"}, {"TUTTI_TIMEOUT", "0"},
                                          {"TUTTI_TIMEOUT", "0s"},   {"TUTTI_SCRATCH", "4 apples"},
                                          {"TUTTI_CPU_ISA", "mmx"},  {"TUTTI_CPU_XMEM", "perhaps"},
                                          {"TUTTI_CPU_WAIT", "nap"}, {"TUTTI_ALGO", "no_such_way"}};
    const tutti_comm_config init = TUTTI_COMM_CONFIG_INIT;

    (void)state;
    for (size_t i = 0; i < T_LEN(rows); i++) {
        setenv(rows[i][0], rows[i][1], 1);
        refused(init, TUTTI_E_ARG, rows[i][1]);
        T_CONTAINS(tutti_last_error(), rows[i][0]);
        unsetenv(rows[i][0]);
    }
}

static void variables_fill_what_is_zero(void **state)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    (void)state;
    setenv("TUTTI_TIMEOUT", "7s", 1);
    T_OK(tutti_comm_create(&config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    assert_int_equal(info.timeout_ms, 7000);
    tutti_comm_destroy(comm);
    config.timeout_ms = 1234; /* an explicit field wins */
    T_OK(tutti_comm_create(&config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    assert_int_equal(info.timeout_ms, 1234);
    tutti_comm_destroy(comm);
    unsetenv("TUTTI_TIMEOUT");
}

/* Settings for many ranks do not disturb one that is alone, as a launcher of such ranks is. */
static void what_suits_many_suits_one(void **state)
{
    static const char *const algorithms[] = {"one_shot", "two_shot", "xmem", "direct", "flat"};
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    static float x[1 << 16];
    tutti_comm *comm;

    (void)state;
    setenv("TUTTI_CPU_XMEM", "on", 1);
    for (size_t i = 0; i < T_LEN(algorithms); i++) {
        setenv("TUTTI_ALGO", algorithms[i], 1);
        T_OK(tutti_comm_create(&config, &comm));
        T_OK(tutti_all_reduce(comm, x, x, T_LEN(x), TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        tutti_comm_destroy(comm);
    }
    unsetenv("TUTTI_CPU_XMEM");
    unsetenv("TUTTI_ALGO");
}

/* A rank that never comes: named when the deadline has passed, and nothing is left behind. */
static void somebody_is_missing(struct t_rank *t)
{
    const struct t_holdings before = t_holdings_now();
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    const uint64_t start = t_now_ns();
    tutti_unique_id id;
    tutti_comm *comm;

    t_share_id(t, 0, 5, &id);
    config.id = &id;
    config.n_ranks = 4;
    config.rank = t->rank == 0 ? 0 : 2;
    config.timeout_ms = 400;
    T_IS(TUTTI_E_TIMEOUT, tutti_comm_create(&config, &comm));
    T_CHECK(t_now_ns() - start < 3000000000u, "took %llu ms",
            (unsigned long long)(t_now_ns() - start) / 1000000);
    if (t->rank == 0) {
        T_CONTAINS(tutti_last_error(), "1");
        T_CONTAINS(tutti_last_error(), "3");
    }
    t_check_holdings(&before, 3, "after a failed creation");
}

static void missing_ranks_are_named_at_the_deadline(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = somebody_is_missing};

    (void)state;
    t_run(&job);
}

static int refuses(void *context, const void *send, void *recv, size_t bytes)
{
    (void)context, (void)send, (void)recv, (void)bytes;
    return -5;
}

/* On any rank; and rank 0, which listens by then, does not go on listening. */
static void a_failing_exchange_is_an_error(void **state)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    const size_t n_fds = t_count_fds();
    tutti_comm *comm;

    (void)state;
    config.n_ranks = 2;
    config.exchange = refuses;
    for (int rank = 0; rank < 2; rank++) {
        config.rank = rank;
        T_CHECK(tutti_comm_create(&config, &comm) < 0, "created without an exchange");
        T_CONTAINS(tutti_last_error(), "the exchange callback failed on rank");
        T_CHECK(t_count_fds() == n_fds, "rank %d: %zu descriptors, %zu before", rank, t_count_fds(),
                n_fds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_is_a_communicator_of_one),
        cmocka_unit_test(a_newer_caller),
        cmocka_unit_test(an_older_caller),
        cmocka_unit_test(output_structs_of_other_sizes),
        cmocka_unit_test(bad_fields),
        cmocka_unit_test_teardown(malformed_variables_are_named, clean_environment),
        cmocka_unit_test(variables_fill_what_is_zero),
        cmocka_unit_test_teardown(what_suits_many_suits_one, clean_environment),
        cmocka_unit_test(missing_ranks_are_named_at_the_deadline),
        cmocka_unit_test(a_failing_exchange_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
