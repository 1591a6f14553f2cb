/* Counts in memory of the communicator, on the host: what is wrong is found by all ranks, and the
 * communicator goes on. That the right ones are right is in every test that runs all calls. */
#include "support/cases.h"

enum { N = 3, BOUND = 20 };

static tutti_device_counts counts_at(const uint64_t *words, uint64_t *received)
{
    tutti_device_counts c = TUTTI_DEVICE_COUNTS_INIT;

    c.counts = words;
    c.received = received;
    c.max_count = BOUND;
    return c;
}

static void gather_works(struct t_rank *t)
{
    const uint64_t mine = (uint64_t)t->rank + 1;
    const int32_t send[BOUND] = {t->rank, t->rank, t->rank};
    int32_t recv[N * BOUND];
    uint64_t received[N];
    const tutti_device_counts c = counts_at(&mine, received);
    size_t at = 0;

    T_OK(tutti_all_gatherv_device(t->comm, send, recv, &c, TUTTI_DTYPE_I32, NULL));
    for (int r = 0; r < N; r++) {
        T_CHECK(received[r] == (uint64_t)r + 1, "received[%d] is %llu", r,
                (unsigned long long)received[r]);
        for (uint64_t i = 0; i < received[r]; i++, at++)
            T_CHECK(recv[at] == r, "element %zu is %d, not %d", at, recv[at], r);
    }
}

T_RANKS(a_count_above_its_bound_is_refused_on_every_rank, N)
{
    static int32_t send[N * BOUND], recv[N * BOUND];
    uint64_t words[N] = {4, 5, 6}, received[N] = {7, 7, 7};
    const tutti_device_counts c = counts_at(words, received);
    tutti_device_counts reduced = counts_at(words, NULL);
    const tutti_rows part = {send, recv, 4};

    if (t->rank == 1)
        words[0] = BOUND + 1;
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_device(t->comm, send, recv, &c, TUTTI_DTYPE_I32, NULL));
    T_CHECK(strstr(tutti_last_error(), "rank 1") && strstr(tutti_last_error(), "21"), "\"%s\"",
            tutti_last_error());
    T_CHECK(received[0] == 0 && received[2] == 0, "received is not zeroed");
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_rows_device(t->comm, &part, 1, &c, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_to_allv_device(t->comm, send, recv, &c, TUTTI_DTYPE_I32, NULL));
    words[0] = 4;
    words[2] = t->rank == 1 ? UINT64_MAX : 6;
    T_IS(TUTTI_E_ARG, tutti_reduce_scatterv_device(t->comm, send, recv, &reduced, TUTTI_DTYPE_I32,
                                                   TUTTI_OP_SUM, NULL));
    gather_works(t);
}

T_RANKS(counts_of_a_reduction_that_differ_are_a_mismatch, N)
{
    static int32_t send[N * BOUND], recv[N * BOUND];
    const uint64_t words[N] = {4, t->rank == 1 ? 6 : 5, 6};
    const tutti_device_counts c = counts_at(words, NULL);

    T_IS(TUTTI_E_MISMATCH, tutti_reduce_scatterv_device(t->comm, send, recv, &c, TUTTI_DTYPE_I32,
                                                        TUTTI_OP_SUM, NULL));
}

/* What decides how a call is carried out is the same on all ranks: none waits for another's refusal. */
T_RANKS(bounds_that_differ_are_a_mismatch, N)
{
    static int32_t send[N * BOUND], recv[2 * N * BOUND];
    const uint64_t mine = t->rank == 0 ? 2 * BOUND : 1;
    uint64_t received[N];
    tutti_device_counts c = counts_at(&mine, received);

    c.max_count = t->rank == 0 ? 2 * BOUND : BOUND;
    T_IS(TUTTI_E_MISMATCH,
         tutti_all_gatherv_device(t->comm, send, recv, &c, TUTTI_DTYPE_I32, NULL));
    T_CONTAINS(tutti_last_error(), "counts in memory");
}

/* Where a rank wants the blocks is its own affair: rank 1 one after another, the others apart. */
T_RANKS(a_stride_is_of_one_rank_alone, N)
{
    enum { MOST = 200000 };
    const size_t stride = t->rank == 1 ? 0 : MOST;
    const uint64_t mine = MOST - 100 * (uint64_t)t->rank;
    unsigned char *send = malloc(MOST), *recv = malloc((size_t)N * MOST);
    uint64_t received[N];
    tutti_device_counts c = counts_at(&mine, received);

    T_CHECK(send && recv, "no memory");
    c.max_count = MOST;
    c.recv_stride = stride;
    for (int again = 0; again < 3; again++) {
        const unsigned char *packed = recv;

        memset(send, t->rank + 1 + 10 * again, MOST);
        memset(recv, 0xEE, (size_t)N * MOST);
        T_OK(tutti_all_gatherv_device(t->comm, send, recv, &c, TUTTI_DTYPE_U8, NULL));
        for (int r = 0; r < N; r++) {
            const unsigned char *got = stride ? recv + (size_t)r * MOST : packed;

            T_CHECK(received[r] == MOST - 100 * (uint64_t)r, "received[%d]", r);
            for (size_t i = 0; i < (stride ? MOST : received[r]); i++)
                T_CHECK(got[i] == (i < received[r] ? r + 1 + 10 * again : 0xEE),
                        "block %d, byte %zu is %d", r, i, got[i]);
            packed += received[r];
        }
    }
    free(send);
    free(recv);
}

T_RANKS(a_stride_of_rows_is_of_one_rank_alone, N)
{
    const size_t stride = t->rank == 1 ? 0 : BOUND;
    const uint64_t mine = (uint64_t)t->rank + 1;
    const unsigned char one[BOUND] = {1, 2, 3};
    const int32_t two[BOUND] = {t->rank, t->rank, t->rank};
    unsigned char all_one[N * BOUND] = {0};
    int32_t all_two[N * BOUND];
    const tutti_rows parts[] = {{one, all_one, 1}, {two, all_two, 4}};
    tutti_device_counts c = counts_at(&mine, NULL);

    c.recv_stride = stride;
    T_OK(tutti_all_gatherv_rows_device(t->comm, parts, T_LEN(parts), &c, NULL));
    for (size_t r = 0, at = 0; r < N; r++)
        for (size_t i = 0; i <= r; i++, at++) {
            const size_t row = stride > 0 ? r * stride + i : at;

            T_CHECK(all_one[row] == i + 1, "row %zu is %d", row, all_one[row]);
            T_CHECK(all_two[row] == (int32_t)r, "row %zu is %d", row, all_two[row]);
        }
}

/* The counts themselves are read at the end, as buffers are. */
T_RANKS(a_group_copies_what_describes_the_counts, N)
{
    const int32_t send[BOUND] = {t->rank, t->rank, t->rank};
    uint64_t mine = 0, received[N];
    tutti_device_counts c = counts_at(&mine, received);
    int32_t recv[N * BOUND];

    T_OK(tutti_group_begin(t->comm));
    T_OK(tutti_all_gatherv_device(t->comm, send, recv, &c, TUTTI_DTYPE_I32, NULL));
    memset(&c, 0x7f, sizeof(c));
    mine = 2;
    T_OK(tutti_group_end(t->comm));
    for (int i = 0; i < 2 * N; i++)
        T_CHECK(recv[i] == i / 2 && received[i / 2] == 2, "element %d is %d, from %llu", i, recv[i],
                (unsigned long long)received[i / 2]);
}

/* Each makes one field of good counts wrong. */
static tutti_device_counts wrong_counts(int i, const uint64_t *words, uint64_t *received)
{
    tutti_device_counts c = counts_at(words, received);

    switch (i) {
    case 0: c.size = 0; break;
    case 1: c.flags = 1; break;
    case 2: c.counts = NULL; break;
    case 3: c.counts = (const uint64_t *)((uintptr_t)words + 4); break;
    case 4: c.received = (uint64_t *)((uintptr_t)received + 1); break;
    case 5: c.received = (uint64_t *)(uintptr_t)words; break;
    case 6: c.recv_stride = BOUND - 1; break;
    case 7: c.send_stride = BOUND; break; /* all_gatherv has one block */
    case 8: c.max_count = SIZE_MAX / 8; break;
    case 9: c.unit = SIZE_MAX / 8; break;
    default: break;
    }
    return c;
}
enum { N_WRONG = 10 };

T_RANKS(wrong_arguments_are_refused, N)
{
    static int32_t send[BOUND], recv[N * BOUND];
    const uint64_t words[N] = {1, 1, 1};
    uint64_t received[N + 1];
    tutti_device_counts c = counts_at(words, NULL);
    struct {
        tutti_device_counts c;
        uint64_t field; /* that only a later version has */
    } later = {c, 1};
    tutti_comm *comm = t->comm;

    later.c.size = sizeof(later);

    for (int i = 0; i < N_WRONG; i++) {
        const tutti_device_counts wrong = wrong_counts(i, words, received);

        T_CHECK(tutti_all_gatherv_device(comm, send, recv, &wrong, TUTTI_DTYPE_I32, NULL) ==
                    TUTTI_E_ARG,
                "wrong counts %d are accepted", i);
        T_CHECK(strstr(tutti_last_error(), "all_gatherv_device") != NULL, "%s", tutti_last_error());
    }
    T_IS(TUTTI_E_VERSION,
         tutti_all_gatherv_device(comm, send, recv, &later.c, TUTTI_DTYPE_I32, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_device(comm, send, recv, NULL, TUTTI_DTYPE_I32, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_device(comm, NULL, recv, &c, TUTTI_DTYPE_I32, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_to_allv_device(comm, recv, recv, &c, TUTTI_DTYPE_I32, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_rows_device(comm, NULL, 1, &c, NULL));
    c.received = received;
    T_IS(TUTTI_E_ARG,
         tutti_reduce_scatterv_device(comm, recv, send, &c, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    c.received = NULL;
    c.recv_stride = BOUND; /* in place, but not at its place */
    T_IS(TUTTI_E_ARG, tutti_all_gatherv_device(comm, recv + BOUND * t->rank + 1, recv, &c,
                                               TUTTI_DTYPE_I32, NULL));
    gather_works(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_count_above_its_bound_is_refused_on_every_rank),
        cmocka_unit_test(counts_of_a_reduction_that_differ_are_a_mismatch),
        cmocka_unit_test(bounds_that_differ_are_a_mismatch),
        cmocka_unit_test(a_stride_is_of_one_rank_alone),
        cmocka_unit_test(a_stride_of_rows_is_of_one_rank_alone),
        cmocka_unit_test(a_group_copies_what_describes_the_counts),
        cmocka_unit_test(wrong_arguments_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
