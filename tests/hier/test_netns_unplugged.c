/* ctest: timeout=120 */
/* A cable between two hosts with two ranks each is pulled: what spans it fails on all ranks, whether it was at work or
 * idle, and names a rank and a host beyond the cable; what does not, goes on. */
#include <unistd.h>

#include "support/hosts.h"
#include "support/job.h"
#include "support/netns.h"

static const char *const four[] = {"10.77.0.1/24", "10.77.0.2/24"};
static const char *const none[] = {NULL, NULL};

/* Longer than a silent host counts as alive, so that it is that which is found and not the deadline. */
#define TIMEOUT_MS 30000
#define LOST_MS    "2500"

static tutti_comm *create(struct t_rank *t, uint64_t key)
{
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm = NULL;
    float x = 1;

    config.timeout_ms = TIMEOUT_MS;
    T_OK(t_comm_create(t, key, &config, &comm));
    for (int i = 0; i < 3; i++)
        T_OK(tutti_all_reduce(comm, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL));
    return comm;
}

/* TUTTI_E_PEER, of a rank of the other host, by number and host name; well before the deadline. */
static void check_lost(struct t_rank *t, tutti_comm *comm, const char *which, uint64_t since_ns)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    const uint64_t ms = (t_now_ns() - since_ns) / 1000000;
    char host[64], named[96];

    T_OK(tutti_comm_status(comm, &state));
    T_CHECK(state.result == TUTTI_E_PEER, "%s: %s after %d ms: %s", which,
            tutti_result_name(state.result), (int)ms, state.text);
    T_CHECK(state.peer >= 0 && state.peer % 2 != t->rank % 2, "%s: rank %d blames %d: %s", which,
            t->rank, state.peer, state.text);
    T_SYS(gethostname(host, sizeof(host)));
    snprintf(named, sizeof(named), "rank %d on %s", state.peer, host);
    T_CONTAINS(state.text, named);
    T_CHECK(ms < TIMEOUT_MS * (uint64_t)t_scale(), "%s: only after %d ms: %s", which, (int)ms,
            state.text);
    printf("rank %d, %s, after %d ms: %s\n", t->rank, which, (int)ms, state.text);
}

static void unplugged(struct t_rank *t)
{
    static float x[50000];
    tutti_comm *busy, *idle, *unused, *home = NULL;
    tutti_result res = TUTTI_OK;
    uint64_t start;
    float y = 1;

    setenv("TUTTI_NET_LOST", LOST_MS, 1);
    t_netns_enter(t, four, none, 0);
    busy = create(t, 7);
    idle = create(t, 8);
    unused = create(t, 9);
    T_OK(tutti_comm_split(busy, t->rank % 2, 0, &home));
    t_meet(t);
    start = t_now_ns();
    if (t->rank == 0)
        t_netns_link("host0", 0);
    while (res == TUTTI_OK)
        res = tutti_all_reduce(busy, x, x, 50000, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL);
    T_IS(TUTTI_E_PEER, res);
    check_lost(t, busy, "busy", start);
    for (int i = 0; i < 10; i++) {
        T_OK(tutti_all_reduce(home, &y, &y, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        T_CHECK(y == (float)(2 << i), "the sum is %g", (double)y);
    }
    res = TUTTI_OK;
    start = t_now_ns();
    while (res == TUTTI_OK)
        res = tutti_barrier(idle, NULL);
    T_IS(TUTTI_E_PEER, res);
    check_lost(t, idle, "idle", start);
    /* That a communicator is given up that nobody has used since is no reason to wait for anybody. */
    start = t_now_ns();
    tutti_comm_destroy(unused);
    T_CHECK(t_now_ns() - start < (uint64_t)TIMEOUT_MS * 1000000 * t_scale(), "destroying hangs");
    tutti_comm_destroy(idle);
    tutti_comm_destroy(home);
    tutti_comm_destroy(busy);
}

static void a_cable_is_pulled(void **state)
{
    const struct t_job job = {.n_ranks = 4, .no_comm = 1, .body = unplugged, .limit_s = 100};

    (void)state;
    t_hosts("0101");
    t_run(&job);
    t_hosts(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_cable_is_pulled)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
