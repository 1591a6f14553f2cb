/* ctest: timeout=120 */
/* Ranks in two network namespaces: collectives over a cable between them, and without it. */
#include "support/cases.h"
#include "support/hosts.h"
#include "support/netns.h"

enum { ROOM = 1 << 21 };

static const char *const four[] = {"10.77.0.1/24", "10.77.0.2/24"};
static const char *const six[] = {"fd77::1/64", "fd77::2/64"};
static const char *const none[] = {NULL, NULL};

static void calls(struct t_rank *t, tutti_comm *comm)
{
    struct t_rng rng = {2025};
    struct t_stage s;

    t_stage_open(&s, t, comm, ROOM, 1);
    for (int i = 0; i < 150; i++) {
        struct t_case c = t_case_random_on(&s, &rng, 1 << 18);

        t_case_run(&s, &c);
    }
    t_stage_close(&s);
}

static tutti_comm *create(struct t_rank *t, uint64_t timeout_ms)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm = NULL;

    config.timeout_ms = timeout_ms;
    T_OK(t_comm_create(t, 7, &config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CHECK(info.n_hosts == 2, "%d hosts: %s", info.n_hosts, info.details);
    T_CONTAINS(info.details, "devices host0");
    return comm;
}

static void over_ip4(struct t_rank *t)
{
    tutti_comm *comm;

    t_netns_enter(t, four, none, 0);
    comm = create(t, 0);
    calls(t, comm);
    tutti_comm_destroy(comm);
}

static void over_ip6(struct t_rank *t)
{
    tutti_comm *comm;

    t_netns_enter(t, none, six, 0);
    comm = create(t, 0);
    calls(t, comm);
    tutti_comm_destroy(comm);
}

/* The cable goes in the middle of calls: both sides learn it, and in time. */
static void unplugged(struct t_rank *t)
{
    static float x[50000];
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    tutti_result res = TUTTI_OK;
    tutti_comm *comm;
    uint64_t start;

    t_netns_enter(t, four, none, 0);
    comm = create(t, 4000);
    for (int i = 0; i < 50; i++)
        T_OK(tutti_all_reduce(comm, x, x, 50000, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL));
    start = t_now_ns();
    for (int i = 0; res == TUTTI_OK; i++) {
        if (i == 20 && t->rank == 0)
            t_netns_link("host0", 0);
        res = tutti_all_reduce(comm, x, x, i % 2 ? 8 : 50000, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL);
    }
    T_CHECK(res == TUTTI_E_PEER || res == TUTTI_E_TIMEOUT, "%s: %s", tutti_result_name(res),
            tutti_last_error());
    T_CHECK(t_now_ns() - start < (uint64_t)10000000000u * t_scale(), "only after %d ms",
            (int)((t_now_ns() - start) / 1000000));
    T_OK(tutti_comm_status(comm, &state));
    T_CHECK(state.peer == 1 - t->rank, "peer %d: %s", state.peer, state.text);
    tutti_comm_destroy(comm);
}

/* Rank 0 sends more and more, until its kernel takes no more, and each time goes off to compute. Rank 1, which
 * comes late, has it all before rank 0 calls again: nothing is kept in a queue that only calls empty. */
static void sent_and_gone(struct t_rank *t)
{
    enum { STEP = 100000, MOST = 12 };
    _Atomic int *awake = (_Atomic int *)(void *)t->shared;
    static unsigned char data[STEP * MOST];
    tutti_comm *comm;

    setenv("UCX_ZCOPY_THRESH", "inf", 1); /* everything is copied to such a queue */
    t_netns_enter(t, four, none, 0);
    comm = create(t, 0);
    for (int n = 1; n <= MOST; n++) {
        const size_t bytes = (size_t)n * STEP;

        T_OK(tutti_barrier(comm, NULL));
        if (t->rank == 0) {
            data[bytes - 1] = (unsigned char)n;
            T_OK(tutti_send(comm, data, bytes, TUTTI_DTYPE_U8, 1, NULL));
            t_sleep_us(300000 * t_scale());
            atomic_store(awake, n);
        } else {
            t_sleep_us(100000);
            T_OK(tutti_recv(comm, data, bytes, TUTTI_DTYPE_U8, 0, NULL));
            T_CHECK(atomic_load(awake) < n, "%zu bytes came when rank 0 called again", bytes);
            T_CHECK(data[bytes - 1] == n, "%zu bytes came wrong", bytes);
        }
    }
    tutti_comm_destroy(comm);
}

/* One rank without: all are told which and why. */
static void without_a_network(struct t_rank *t)
{
    tutti_comm *comm = NULL;

    if (t->rank == 1)
        setenv("TUTTI_NET", "off", 1);
    T_IS(TUTTI_E_UNSUPPORTED, t_comm_create(t, 7, NULL, &comm));
    T_CONTAINS(tutti_last_error(), "the ranks run on 2 hosts (rank 0 on host-0, rank 1 on host-1)");
    T_CONTAINS(tutti_last_error(), "rank 1 has no network");
    if (t->rank == 1)
        T_CONTAINS(tutti_last_error(), "TUTTI_NET");
}

/* Both hosts are in a network 10.79.0.0/24, but that one leads nowhere. The rendezvous has found the way;
 * the rank that met rank 0 without leaving its host learns it, and so do splits without rank 0. */
static void a_way_that_must_be_known(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm, *child = NULL;
    float x = 1;

    t_netns_enter(t, four, none, T_NETNS_DECOY);
    comm = create(t, 0);
    T_OK(tutti_all_reduce(comm, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    T_CHECK(x == 3, "%g", (double)x);
    T_OK(tutti_comm_split(comm, t->rank == 0 ? -1 : 0, -t->rank, &child));
    if (t->rank > 0) {
        T_OK(tutti_comm_query(child, &info));
        T_CONTAINS(info.details, "devices host0");
        T_OK(tutti_all_reduce(child, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        T_CHECK(x == 6, "%g", (double)x);
        tutti_comm_destroy(child);
    }
    tutti_comm_destroy(comm);
}

static void run_on(const char *hosts, void (*body)(struct t_rank *))
{
    const struct t_job job = {
        .n_ranks = (int)strlen(hosts), .no_comm = 1, .body = body, .limit_s = 30};

    t_hosts(hosts);
    t_run(&job);
    t_hosts(NULL);
}

static void run(void (*body)(struct t_rank *))
{
    run_on("01", body);
}

static void collectives_over_ip4(void **state)
{
    (void)state;
    run(over_ip4);
}

static void collectives_over_ip6(void **state)
{
    (void)state;
    run(over_ip6);
}

static void the_way_of_the_rendezvous(void **state)
{
    (void)state;
    run_on("010", a_way_that_must_be_known);
}

static void who_has_sent_may_go(void **state)
{
    (void)state;
    run(sent_and_gone);
}

static void a_cable_that_is_pulled(void **state)
{
    (void)state;
    run(unplugged);
}

static void a_rank_without_a_network_is_named(void **state)
{
    (void)state;
    run(without_a_network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_over_ip4),
        cmocka_unit_test(collectives_over_ip6),
        cmocka_unit_test(the_way_of_the_rendezvous),
        cmocka_unit_test(who_has_sent_may_go),
        cmocka_unit_test(a_cable_that_is_pulled),
        cmocka_unit_test(a_rank_without_a_network_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
