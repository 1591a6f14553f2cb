/* v-calls whose blocks are empty: nobody's data, one rank's, everybody's but one's; and ranks that
 * need nothing of the others run ahead without harm. */
#include "support/cases.h"

enum { MAX = 5000, N = 4 };

static uint32_t value(int rank, size_t call, size_t i)
{
    return (uint32_t)(rank * 1000003 + (int)call * 7919) + (uint32_t)i;
}

/* Which of the ranks have a block in this call. */
static void counts_of(size_t call, size_t counts[N])
{
    for (int r = 0; r < N; r++) {
        const size_t size = 1 + t_hash(call, (uint64_t)r) % (call % 3 == 0 ? 20 : MAX);

        counts[r] = ((call >> r) & 1) != 0 ? size : 0;
    }
}

T_RANKS(all_gatherv_with_empty_blocks, N)
{
    static uint32_t send[MAX], recv[N * MAX];

    for (size_t call = 0; call < 400; call++) {
        size_t counts[N], at = 0;

        counts_of(call, counts);
        for (size_t i = 0; i < counts[t->rank]; i++)
            send[i] = value(t->rank, call, i);
        T_OK(tutti_all_gatherv(t->comm, counts[t->rank] ? send : NULL, recv, counts,
                               TUTTI_DTYPE_U32, NULL));
        for (int r = 0; r < N; r++)
            for (size_t i = 0; i < counts[r]; i++, at++)
                T_CHECK(recv[at] == value(r, call, i), "call %zu rank %d element %zu is %u", call,
                        r, i, recv[at]);
    }
}

T_RANKS(reduce_scatterv_with_empty_blocks, N)
{
    static uint32_t send[N * MAX], recv[MAX];

    for (size_t call = 0; call < 400; call++) {
        size_t counts[N], total = 0, first = 0;

        counts_of(call, counts);
        for (int r = 0; r < N; r++) {
            if (r < t->rank)
                first += counts[r];
            total += counts[r];
        }
        for (size_t i = 0; i < total; i++)
            send[i] = value(t->rank, call, i);
        T_OK(tutti_reduce_scatterv(t->comm, send, counts[t->rank] ? recv : NULL, counts,
                                   TUTTI_DTYPE_U32, TUTTI_OP_SUM, NULL));
        for (size_t i = 0; i < counts[t->rank]; i++) {
            uint32_t want = 0;

            for (int r = 0; r < N; r++)
                want += value(r, call, first + i);
            T_CHECK(recv[i] == want, "call %zu element %zu is %u, want %u", call, i, recv[i], want);
        }
    }
}

/* counts[a][b] of one call: chosen so that pairs, rows, columns or all are empty. */
static size_t cell(size_t call, int a, int b)
{
    const size_t size = t_hash(call, (uint64_t)(a * N + b)) % (call % 5 == 0 ? MAX : 30);

    switch (call % 6) {
    case 0: return size;
    case 1: return a == (int)(call / 6 % N) ? size : 0; /* one sends */
    case 2: return b == (int)(call / 6 % N) ? size : 0; /* one receives */
    case 3: return a == b ? size : 0;                   /* to oneself only */
    case 4: return 0;
    default: return (a + b) % 2 ? size : 0;
    }
}

T_RANKS(all_to_allv_with_empty_blocks, N)
{
    static uint32_t send[N * MAX], recv[N * MAX];

    for (size_t call = 0; call < 600; call++) {
        size_t sends[N], recvs[N], send_at[N], recv_at[N], sent = 0, received = 0;

        for (int r = 0; r < N; r++) {
            sends[r] = cell(call, t->rank, r);
            recvs[r] = cell(call, r, t->rank);
            send_at[r] = sent;
            recv_at[N - 1 - r] = 0;
            for (size_t i = 0; i < sends[r]; i++)
                send[sent + i] = value(t->rank * N + r, call, i);
            sent += sends[r];
        }
        for (int r = N - 1; r >= 0; r--) { /* received in the opposite order */
            recv_at[r] = received;
            received += recvs[r];
        }
        T_OK(tutti_all_to_allv(t->comm, send, sends, send_at, recv, recvs, recv_at, TUTTI_DTYPE_U32,
                               NULL));
        for (int r = 0; r < N; r++)
            for (size_t i = 0; i < recvs[r]; i++)
                T_CHECK(recv[recv_at[r] + i] == value(r * N + t->rank, call, i),
                        "call %zu from %d element %zu", call, r, i);
    }
}

/* Who sends more than is awaited must not store it, in scratch or across memories. Who needs nothing from the other may
 * learn it a call later, on another host. */
T_RANKS(an_all_to_allv_that_does_not_fit_writes_nothing_outside, 2)
{
    enum { SENT = 524288, AWAITED = 8192 };
    const int other = 1 - t->rank;
    const size_t length = t->rank == 0 ? SENT : AWAITED; /* what rank 0 gives, what rank 1 wants */
    size_t send_counts[2] = {0}, recv_counts[2] = {0};
    const size_t displs[2] = {0};
    unsigned char *send = calloc(1, SENT), *recv = malloc(SENT);
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_result result;

    T_CHECK(send && recv, "no memory");
    memset(recv, 0xEE, SENT);
    (t->rank == 0 ? send_counts : recv_counts)[other] = length;
    T_OK(tutti_comm_query(t->comm, &info));
    result = tutti_all_to_allv(t->comm, send, send_counts, displs, recv, recv_counts, displs,
                               TUTTI_DTYPE_U8, NULL);
    if (t->rank == 0 && info.n_hosts > 1 && result == TUTTI_OK)
        result = tutti_barrier(t->comm, NULL);
    T_CHECK(result == TUTTI_E_MISMATCH, "%s: %s", tutti_result_name(result), tutti_last_error());
    t_meet(t);
    for (size_t i = t->rank == 1 ? AWAITED : 0; i < SENT; i++)
        T_CHECK(recv[i] == 0xEE, "byte %zu was written", i);
    free(send);
    free(recv);
}

T_RANKS(calls_of_no_elements_accept_null, 3)
{
    const size_t none[3] = {0, 0, 0};
    tutti_comm *c = t->comm;

    for (int i = 0; i < 50; i++) {
        T_OK(tutti_all_reduce(c, NULL, NULL, 0, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        T_OK(tutti_reduce_scatter(c, NULL, NULL, 0, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        T_OK(tutti_reduce_scatterv(c, NULL, NULL, none, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
        T_OK(tutti_all_gather(c, NULL, NULL, 0, TUTTI_DTYPE_F32, NULL));
        T_OK(tutti_all_gatherv(c, NULL, NULL, none, TUTTI_DTYPE_F32, NULL));
        T_OK(tutti_all_to_all(c, NULL, NULL, 0, TUTTI_DTYPE_F32, NULL));
        T_OK(tutti_all_to_allv(c, NULL, none, none, NULL, none, none, TUTTI_DTYPE_F32, NULL));
        T_OK(tutti_broadcast(c, NULL, 0, TUTTI_DTYPE_F32, 1, NULL));
        T_OK(tutti_reduce(c, NULL, NULL, 0, TUTTI_DTYPE_F32, TUTTI_OP_SUM, 1, NULL));
        T_OK(tutti_gather(c, NULL, NULL, 0, TUTTI_DTYPE_F32, 1, NULL));
        T_OK(tutti_scatter(c, NULL, NULL, 0, TUTTI_DTYPE_F32, 1, NULL));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_gatherv_with_empty_blocks),
        cmocka_unit_test(reduce_scatterv_with_empty_blocks),
        cmocka_unit_test(all_to_allv_with_empty_blocks),
        cmocka_unit_test(an_all_to_allv_that_does_not_fit_writes_nothing_outside),
        cmocka_unit_test(calls_of_no_elements_accept_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
