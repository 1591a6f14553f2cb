/* Communicators on several hosts as objects: what they say of themselves, divisions, windows, messages
 * within a host beside messages to another. */
#include "support/cases.h"
#include "support/hosts.h"

enum { ROOM = 1 << 18 };

static void query(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    tutti_stats stats = TUTTI_STATS_INIT;
    float x = 1, all[4];

    T_OK(tutti_comm_query(t->comm, &info));
    T_CHECK(info.n_hosts == 2 && info.rank == t->rank && info.n_ranks == 4, "%d hosts, rank %d",
            info.n_hosts, info.rank);
    T_CHECK(strcmp(info.engine, "hosts") == 0, "engine %s", info.engine);
    T_CONTAINS(info.details, "2 hosts, 2 ranks on this one");
    T_CHECK(info.memory_bytes > 0, "no memory");
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_OK && state.peer == -1, "status of rank %d", state.peer);
    T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_F32, TUTTI_OP_MAX, NULL));
    T_OK(tutti_comm_stats(t->comm, t->rank, &stats));
    T_CHECK(stats.n_calls == 1 && stats.n_bytes == 4 && stats.sequence == 1,
            "%llu calls, %llu bytes, sequence %llu", (unsigned long long)stats.n_calls,
            (unsigned long long)stats.n_bytes, (unsigned long long)stats.sequence);
    T_CHECK(strcmp(stats.last_call, "all_reduce f32 max") == 0, "last call %s", stats.last_call);
    T_OK(tutti_all_gather(t->comm, &x, all, 1, TUTTI_DTYPE_F32, NULL));
    T_OK(tutti_comm_stats(t->comm, t->rank, &stats));
    T_CHECK(stats.n_calls == 2 && stats.last_bytes == sizeof(all), "%llu calls, %llu bytes",
            (unsigned long long)stats.n_calls, (unsigned long long)stats.last_bytes);
    T_OK(tutti_comm_stats(t->comm, 3 - t->rank, &stats)); /* on the other host */
    T_CHECK(stats.rank == 3 - t->rank && stats.n_calls == 0, "rank %d", stats.rank);
}

static void check_child(struct t_rank *t, tutti_comm *comm, int n_hosts, const char *engine,
                        size_t most)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    struct t_rng rng = {77};
    struct t_stage s;

    T_OK(tutti_comm_query(comm, &info));
    T_CHECK(info.n_hosts == n_hosts && strcmp(info.engine, engine) == 0, "%d hosts, engine %s",
            info.n_hosts, info.engine);
    t_stage_open(&s, t, comm, ROOM, 0);
    for (int i = 0; i < 20; i++) {
        struct t_case c = t_case_random(t_random(&rng), info.n_ranks, most);

        c.inputs = T_SMALL; /* the order of sums is another test's */
        c.dtype = i % 2 ? TUTTI_DTYPE_I32 : TUTTI_DTYPE_F64;
        c.op = TUTTI_OP_MAX;
        c.windows = T_ORDINARY;
        c.count = t_case_fit(c.coll, info.n_ranks, ROOM, tutti_dtype_bytes(c.dtype), c.count);
        t_case_run(&s, &c);
    }
    t_stage_close(&s);
    tutti_comm_destroy(comm);
}

static void split(struct t_rank *t)
{
    tutti_comm *comm;

    T_OK(tutti_comm_split(t->comm, t_host_of(t->rank), t->rank, &comm));
    check_child(t, comm, 1, "cpu", 1000);
    T_OK(tutti_comm_split(t->comm, t->rank / 2, -t->rank, &comm)); /* across, in reverse */
    check_child(t, comm, 2, "hosts", 1000);
    T_OK(tutti_comm_split(t->comm, t->rank == 3 ? -1 : 0, 0, &comm));
    T_CHECK((comm == NULL) == (t->rank == 3), "a communicator for a negative color");
    if (comm)
        check_child(t, comm, 2, "hosts", 1000);
}

/* Wishes for scratch that differ, once with rank 0's as the smallest and once as the largest. */
static void unequal(struct t_rank *t)
{
    static const uint64_t wishes[] = {65536, 1 << 20, 100000, 4 << 20};
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm, *part;

    for (int i = 0; i < 2; i++) {
        config.scratch_bytes = wishes[i ? 3 - t->rank : t->rank];
        T_OK(t_comm_create(t, 2 + (uint64_t)i, &config, &comm));
        T_OK(tutti_comm_split(comm, t->rank % 2, 0, &part));
        check_child(t, comm, 2, "hosts", ROOM);
        check_child(t, part, 2, "hosts", ROOM);
    }
}

static void split_within_fds(struct t_rank *t)
{
    t_split_within_fds(t, 2);
    T_OK(tutti_barrier(t->comm, NULL));
}

static void windows(struct t_rank *t)
{
    tutti_window *window = NULL;
    void *p;

    T_OK(tutti_mem_alloc(t->comm, 8192, &p));
    T_IS(TUTTI_E_MISMATCH,
         tutti_window_register(t->comm, p, t_host_of(t->rank) ? 4096 : 8192, &window));
    T_CHECK(tutti_window_find(t->comm, p, 1) == NULL, "half a window");
    T_OK(tutti_window_register(t->comm, p, 8192, &window));
    T_CHECK(tutti_window_find(t->comm, (char *)p + 100, 8) == window, "a window that is not found");
    T_OK(tutti_window_deregister(t->comm, window));
    T_OK(tutti_mem_free(t->comm, p));
    T_OK(tutti_barrier(t->comm, NULL));
}

/* Rank 1 gets from rank 3 what rank 3 has after rank 0's message has come, which rank 0 sends beside
 * one to rank 1, who takes that last: works only if all of a group are under way at once. */
static void messages(struct t_rank *t)
{
    enum { N = 300000 };
    static int a[N], b[N];

    for (int i = 0; i < 3; i++) {
        if (t->rank == 0) {
            a[N - 1] = 10 + i;
            T_OK(tutti_group_begin(t->comm));
            T_OK(tutti_send(t->comm, a, N, TUTTI_DTYPE_I32, 1, NULL)); /* within the host */
            T_OK(tutti_send(t->comm, a, N, TUTTI_DTYPE_I32, 3, NULL));
            T_OK(tutti_group_end(t->comm));
        } else if (t->rank == 1) {
            T_OK(tutti_recv(t->comm, b, N, TUTTI_DTYPE_I32, 3, NULL));
            T_CHECK(b[N - 1] == 11 + i, "the message over two hosts ends with %d", b[N - 1]);
            T_OK(tutti_recv(t->comm, a, N, TUTTI_DTYPE_I32, 0, NULL));
            T_CHECK(a[N - 1] == 10 + i, "the message within the host ends with %d", a[N - 1]);
        } else if (t->rank == 3) {
            T_OK(tutti_recv(t->comm, a, N, TUTTI_DTYPE_I32, 0, NULL));
            a[N - 1]++;
            T_OK(tutti_send(t->comm, a, N, TUTTI_DTYPE_I32, 1, NULL));
        }
    }
    T_OK(tutti_barrier(t->comm, NULL));
}

/* A sender that is far ahead of a receiver on another host, with small messages and large ones. */
static void run_ahead(struct t_rank *t)
{
    enum { MOST = 5000 };
    static int x[MOST];

    if (t->rank == 3)
        t_sleep_us(200000);
    for (int i = 0; i < 200; i++) {
        const size_t n = i % 7 == 6 ? MOST : 1 + (size_t)i % 3;

        if (t->rank == 0) {
            x[0] = x[n - 1] = i;
            T_OK(tutti_send(t->comm, x, n, TUTTI_DTYPE_I32, 3, NULL));
        } else if (t->rank == 3) {
            T_OK(tutti_recv(t->comm, x, n, TUTTI_DTYPE_I32, 0, NULL));
            T_CHECK(x[0] == i && x[n - 1] == i, "message %d holds %d and %d", i, x[0], x[n - 1]);
        }
    }
    T_OK(tutti_barrier(t->comm, NULL));
}

static void run(void (*body)(struct t_rank *))
{
    t_hosts("0011");
    t_ranks(4, body);
    t_hosts(NULL);
}

static void a_communicator_describes_itself(void **state)
{
    (void)state;
    run(query);
}

static void parts_within_a_host_are_plain_ones(void **state)
{
    (void)state;
    t_hosts("0101");
    t_ranks(4, split);
    t_hosts(NULL);
}

static void a_split_that_fails_on_one_rank_fails_on_all(void **state)
{
    (void)state;
    run(split_within_fds);
}

static void scratch_is_rank_zeros_on_all_hosts(void **state)
{
    (void)state;
    run(unequal);
}

static void windows_are_for_all_hosts_or_none(void **state)
{
    (void)state;
    run(windows);
}

static void groups_run_within_and_across_at_once(void **state)
{
    (void)state;
    run(messages);
}

static void nobody_overruns_a_late_receiver(void **state)
{
    (void)state;
    run(run_ahead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_communicator_describes_itself),
        cmocka_unit_test(parts_within_a_host_are_plain_ones),
        cmocka_unit_test(a_split_that_fails_on_one_rank_fails_on_all),
        cmocka_unit_test(scratch_is_rank_zeros_on_all_hosts),
        cmocka_unit_test(windows_are_for_all_hosts_or_none),
        cmocka_unit_test(groups_run_within_and_across_at_once),
        cmocka_unit_test(nobody_overruns_a_late_receiver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
