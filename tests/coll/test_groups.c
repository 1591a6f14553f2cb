/* Groups: broadcasts that travel as one all_gatherv, mixtures of calls, errors inside a group. */
#include "support/job.h"

enum { N = 4, MAX = 3000 };

static int value(int round, int root, size_t i)
{
    return round * 100000 + root * 10000 + (int)i;
}

T_RANKS(broadcasts_from_every_root_in_one_group, N)
{
    static int bufs[N][MAX];

    for (int round = 0; round < 100; round++) {
        T_OK(tutti_group_begin(t->comm));
        for (int root = 0; root < N; root++) {
            const size_t count = (size_t)(round * (root + 1)) % MAX;

            for (size_t i = 0; i < count; i++)
                bufs[root][i] = root == t->rank ? value(round, root, i) : -1;
            T_OK(tutti_broadcast(t->comm, bufs[root], count, TUTTI_DTYPE_I32, root, NULL));
        }
        T_OK(tutti_group_end(t->comm));
        for (int root = 0; root < N; root++)
            for (size_t i = 0; i < (size_t)(round * (root + 1)) % MAX; i++)
                T_CHECK(bufs[root][i] == value(round, root, i), "round %d root %d element %zu",
                        round, root, i);
    }
}

/* Contiguous, in rank order: what frameworks write for an uneven all-gather. And in any order. */
T_RANKS(broadcasts_in_any_order_of_roots, N)
{
    static const int orders[3][N] = {{0, 1, 2, 3}, {3, 1, 0, 2}, {1, 1, 2, 1}};
    int x[N];

    for (int round = 0; round < 60; round++) {
        const int *order = orders[round % 3];

        T_OK(tutti_group_begin(t->comm));
        for (int k = 0; k < N; k++) {
            x[k] = order[k] == t->rank ? value(round, k, 0) : -1;
            T_OK(tutti_broadcast(t->comm, &x[k], 1, TUTTI_DTYPE_I32, order[k], NULL));
        }
        T_OK(tutti_group_end(t->comm));
        for (int k = 0; k < N; k++)
            T_CHECK(x[k] == value(round, k, 0), "round %d broadcast %d is %d", round, k, x[k]);
    }
}

T_RANKS(collectives_and_messages_in_one_group, N)
{
    const int next = (t->rank + 1) % N, before = (t->rank + N - 1) % N;

    for (int round = 0; round < 100; round++) {
        int sum = t->rank, in = -1, out = t->rank + round, all[N], last = t->rank == 2 ? round : -1;

        T_OK(tutti_group_begin(t->comm));
        T_OK(tutti_recv(t->comm, &in, 1, TUTTI_DTYPE_I32, before, NULL));
        T_OK(tutti_all_reduce(t->comm, &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
        T_OK(tutti_send(t->comm, &out, 1, TUTTI_DTYPE_I32, next, NULL));
        T_OK(tutti_all_gather(t->comm, &out, all, 1, TUTTI_DTYPE_I32, NULL));
        T_OK(tutti_barrier(t->comm, NULL));
        T_OK(tutti_broadcast(t->comm, &last, 1, TUTTI_DTYPE_I32, 2, NULL));
        T_OK(tutti_group_end(t->comm));
        T_CHECK(sum == 6, "sum is %d", sum);
        T_CHECK(in == before + round, "in is %d", in);
        T_CHECK(last == round, "last is %d", last);
        for (int r = 0; r < N; r++)
            T_CHECK(all[r] == r + round, "all[%d] is %d", r, all[r]);
    }
}

/* Each depends on the one before, so they cannot travel together. */
T_RANKS(broadcasts_of_one_buffer_keep_their_order, N)
{
    int x[2] = {10 + t->rank, 20 + t->rank};

    T_OK(tutti_group_begin(t->comm));
    for (int r = 0; r < N; r++)
        T_OK(tutti_broadcast(t->comm, r == N - 1 ? x + 1 : x, r == 0 ? 2 : 1, TUTTI_DTYPE_I32, r,
                             NULL));
    T_OK(tutti_group_end(t->comm));
    T_CHECK(x[0] == 10 && x[1] == 20, "%d and %d are not what rank 0 had", x[0], x[1]);
}

T_RANKS(counts_arrays_are_copied, N)
{
    size_t counts[N] = {1, 0, 2, 1};
    int send[2] = {t->rank, t->rank + 10}, recv[4] = {0};
    const int want[4] = {0, 2, 12, 3};

    T_OK(tutti_group_begin(t->comm));
    T_OK(tutti_all_gatherv(t->comm, send, recv, counts, TUTTI_DTYPE_I32, NULL));
    memset(counts, 0xff, sizeof(counts));
    T_OK(tutti_group_end(t->comm));
    for (int i = 0; i < 4; i++)
        T_CHECK(recv[i] == want[i], "recv[%d] is %d", i, recv[i]);
}

T_RANKS(an_empty_group_is_nothing, 2)
{
    for (int i = 0; i < 10; i++) {
        T_OK(tutti_group_begin(t->comm));
        T_OK(tutti_group_end(t->comm));
    }
    T_OK(tutti_barrier(t->comm, NULL));
}

T_RANKS(a_bad_call_in_a_group_is_refused_and_the_rest_runs, 2)
{
    int x = 1;

    T_OK(tutti_group_begin(t->comm));
    T_IS(TUTTI_E_ARG, tutti_all_reduce(t->comm, &x, &x, 1, (tutti_dtype)99, TUTTI_OP_SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_group_begin(t->comm));
    T_OK(tutti_all_reduce(t->comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    const tutti_result r = tutti_group_end(t->comm);
    T_CHECK(r == TUTTI_OK || r == TUTTI_E_ARG, "group_end gave %s", tutti_result_name(r));
    T_IS(TUTTI_E_ARG, tutti_group_end(t->comm));
    T_CONTAINS(tutti_last_error(), "group");
    T_OK(tutti_barrier(t->comm, NULL));
}

/* A group of hundreds of messages to one peer, both ways: none waits for another for ever. */
T_RANKS(a_large_group_does_not_deadlock, 2)
{
    enum { MESSAGES = 500, LENGTH = 1000 };
    static int in[MESSAGES][LENGTH], out[MESSAGES][LENGTH];

    T_OK(tutti_group_begin(t->comm));
    for (int m = 0; m < MESSAGES; m++) {
        for (int i = 0; i < LENGTH; i++)
            out[m][i] = m * i + t->rank;
        T_OK(tutti_send(t->comm, out[m], LENGTH, TUTTI_DTYPE_I32, 1 - t->rank, NULL));
    }
    for (int m = 0; m < MESSAGES; m++)
        T_OK(tutti_recv(t->comm, in[m], LENGTH, TUTTI_DTYPE_I32, 1 - t->rank, NULL));
    T_OK(tutti_group_end(t->comm));
    for (int m = 0; m < MESSAGES; m++)
        for (int i = 0; i < LENGTH; i++)
            T_CHECK(in[m][i] == m * i + 1 - t->rank, "message %d element %d", m, i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broadcasts_from_every_root_in_one_group),
        cmocka_unit_test(broadcasts_in_any_order_of_roots),
        cmocka_unit_test(collectives_and_messages_in_one_group),
        cmocka_unit_test(broadcasts_of_one_buffer_keep_their_order),
        cmocka_unit_test(counts_arrays_are_copied),
        cmocka_unit_test(an_empty_group_is_nothing),
        cmocka_unit_test(a_bad_call_in_a_group_is_refused_and_the_rest_runs),
        cmocka_unit_test(a_large_group_does_not_deadlock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
