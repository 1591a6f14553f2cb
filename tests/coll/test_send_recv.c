/* ctest: timeout=120 */
/* Messages between two ranks: order, sizes from nothing to many MiB, exchanges in groups. */
#include "support/job.h"

static unsigned char byte_of(size_t message, size_t i)
{
    return (unsigned char)(message * 131 + i * 7 + (i >> 8));
}

static void fill(unsigned char *p, size_t message, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = byte_of(message, i);
}

static void check(const unsigned char *p, size_t message, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        T_CHECK(p[i] == byte_of(message, i), "message %zu byte %zu of %zu is %#x", message, i,
                bytes, p[i]);
}

T_RANKS(messages_arrive_whole_and_in_order, 2)
{
    static const size_t sizes[] = {0,   1,    7,    31,   32,    33,     64, 96, 97,
                                   100, 4095, 4096, 5000, 65536, 300001, 2,  0,  9 << 20};
    unsigned char *p = malloc(9 << 20);

    for (size_t round = 0; round < 3; round++)
        for (size_t m = 0; m < T_LEN(sizes); m++)
            if (t->rank == 0) {
                fill(p, m, sizes[m]);
                T_OK(tutti_send(t->comm, p, sizes[m], TUTTI_DTYPE_U8, 1, NULL));
            } else {
                memset(p, 0, sizes[m]);
                T_OK(tutti_recv(t->comm, p, sizes[m], TUTTI_DTYPE_U8, 0, NULL));
                check(p, m, sizes[m]);
            }
    free(p);
}

/* The receiver is late, then the sender: neither loses a message. */
T_RANKS(many_small_messages_with_late_ranks, 3)
{
    const int next = (t->rank + 1) % 3, before = (t->rank + 2) % 3;
    struct t_rng own = {(uint64_t)t->rank};

    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t in = 0, out = i * 3 + (uint32_t)t->rank;

        if (t_random_below(&own, 100) == 0)
            t_sleep_us(200);
        T_OK(tutti_group_begin(t->comm));
        T_OK(tutti_send(t->comm, &out, 1, TUTTI_DTYPE_U32, next, NULL));
        T_OK(tutti_recv(t->comm, &in, 1, TUTTI_DTYPE_U32, before, NULL));
        T_OK(tutti_group_end(t->comm));
        T_CHECK(in == i * 3 + (uint32_t)before, "message %u is %u", i, in);
    }
}

/* More messages at a time than a direction has lines for, of all kinds: each keeps its turn. */
T_RANKS(bursts_of_mixed_sizes, 2)
{
    enum { MOST = 50, BYTES = 20000 };
    unsigned char *in = malloc(MOST * BYTES), *out = malloc(MOST * BYTES);
    struct t_rng rng = {7};

    for (int round = 0; round < 60; round++) {
        const size_t n = 1 + t_random_below(&rng, MOST);
        size_t bytes[MOST];

        T_OK(tutti_group_begin(t->comm));
        for (size_t m = 0; m < n; m++) {
            static const size_t below[] = {40, 200, 5000, BYTES};

            bytes[m] = t_random_below(&rng, below[t_random_below(&rng, T_LEN(below))]);
            fill(out + m * BYTES, m + (size_t)t->rank, bytes[m]);
            memset(in + m * BYTES, 0, bytes[m]);
            T_OK(tutti_send(t->comm, out + m * BYTES, bytes[m], TUTTI_DTYPE_U8, 1 - t->rank, NULL));
            T_OK(tutti_recv(t->comm, in + m * BYTES, bytes[m], TUTTI_DTYPE_U8, 1 - t->rank, NULL));
        }
        T_OK(tutti_group_end(t->comm));
        for (size_t m = 0; m < n; m++)
            check(in + m * BYTES, m + 1 - (size_t)t->rank, bytes[m]);
    }
    free(in);
    free(out);
}

/* The receiver is asleep when the message comes, and its sender is gone when it wakes. */
T_RANKS(what_a_leaver_sent_last_arrives, 2)
{
    static uint32_t words[3000];

    for (uint32_t i = 1; i <= 40; i++) {
        const size_t n = i % 2 ? 1 : T_LEN(words); /* a short one, and one that the sender stores */
        tutti_comm *comm;

        for (size_t k = 0; k < n; k++)
            words[k] = t->rank == 0 ? 0 : i;

        T_OK(tutti_comm_split(t->comm, 0, t->rank, &comm));
        if (t->rank == 1)
            t_sleep_us(3000 + 37 * i);
        T_OK(t->rank == 1 ? tutti_send(comm, words, n, TUTTI_DTYPE_U32, 0, NULL)
                          : tutti_recv(comm, words, n, TUTTI_DTYPE_U32, 1, NULL));
        tutti_comm_destroy(comm);
        for (size_t k = 0; k < n; k++)
            T_CHECK(words[k] == i, "message %u is %u at %zu", i, words[k], k);
    }
}

static void ping_pong(struct t_rank *t, size_t bytes, int rounds)
{
    unsigned char *p = malloc(bytes + 1);

    for (int i = 0; i < rounds; i++) {
        const size_t m = (size_t)i;

        if (t->rank == 0) {
            fill(p, m, bytes);
            T_OK(tutti_send(t->comm, p, bytes, TUTTI_DTYPE_U8, 1, NULL));
            memset(p, 0, bytes);
            T_OK(tutti_recv(t->comm, p, bytes, TUTTI_DTYPE_U8, 1, NULL));
            check(p, m + 1, bytes);
        } else {
            T_OK(tutti_recv(t->comm, p, bytes, TUTTI_DTYPE_U8, 0, NULL));
            check(p, m, bytes);
            fill(p, m + 1, bytes);
            T_OK(tutti_send(t->comm, p, bytes, TUTTI_DTYPE_U8, 0, NULL));
        }
    }
    free(p);
}

T_RANKS(ping_pong_of_all_sizes, 2)
{
    ping_pong(t, 1, 200);
    ping_pong(t, 1000, 100);
    ping_pong(t, 70000, 20);
    ping_pong(t, 3 << 20, 3);
}

/* Everybody sends to everybody, itself included, `bytes` each, in one group. */
static void all_pairs(struct t_rank *t, size_t bytes)
{
    const size_t n = (size_t)t->n_ranks, me = (size_t)t->rank;
    unsigned char *in = calloc(n, bytes + 1), *out = malloc(n * (bytes + 1));

    T_OK(tutti_group_begin(t->comm));
    for (size_t r = 0; r < n; r++) {
        fill(out + r * bytes, me * n + r, bytes);
        T_OK(tutti_recv(t->comm, in + r * bytes, bytes, TUTTI_DTYPE_U8, (int)r, NULL));
        T_OK(tutti_send(t->comm, out + r * bytes, bytes, TUTTI_DTYPE_U8, (int)r, NULL));
    }
    T_OK(tutti_group_end(t->comm));
    for (size_t r = 0; r < n; r++)
        check(in + r * bytes, r * n + me, bytes);
    free(in);
    free(out);
}

static void all_pairs_of_sizes(struct t_rank *t)
{
    static const size_t sizes[] = {1, 0, 100, 5000, 65537, 1 << 20};

    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < T_LEN(sizes); i++)
            all_pairs(t, sizes[i]);
}

static void all_pairs_in_a_group(void **state)
{
    (void)state;
    t_ranks(1, all_pairs_of_sizes);
    t_ranks(2, all_pairs_of_sizes);
    t_ranks(5, all_pairs_of_sizes);
}

T_RANKS(both_send_nine_mib_at_once_in_a_group, 2)
{
    all_pairs(t, 9 << 20);
}

/* Several messages to the same peer in one group keep their order, whatever their sizes. */
T_RANKS(a_group_keeps_the_order_of_messages, 2)
{
    static const size_t sizes[] = {10, 200000, 1, 0, 70000, 3};
    unsigned char *in[T_LEN(sizes)], *out[T_LEN(sizes)];

    T_OK(tutti_group_begin(t->comm));
    for (size_t i = 0; i < T_LEN(sizes); i++) {
        in[i] = calloc(1, sizes[i] + 1);
        out[i] = malloc(sizes[i] + 1);
        fill(out[i], i, sizes[i]);
        T_OK(tutti_send(t->comm, out[i], sizes[i], TUTTI_DTYPE_U8, 1 - t->rank, NULL));
        T_OK(tutti_recv(t->comm, in[i], sizes[i], TUTTI_DTYPE_U8, 1 - t->rank, NULL));
    }
    T_OK(tutti_group_end(t->comm));
    for (size_t i = 0; i < T_LEN(sizes); i++) {
        check(in[i], i, sizes[i]);
        free(in[i]);
        free(out[i]);
    }
}

T_RANKS(messages_mix_with_collectives, 3)
{
    for (int i = 0; i < 200; i++) {
        int sum = t->rank, message = i;

        if (t->rank == i % 3)
            T_OK(tutti_send(t->comm, &message, 1, TUTTI_DTYPE_I32, (i + 1) % 3, NULL));
        if (t->rank == (i + 1) % 3)
            T_OK(tutti_recv(t->comm, &message, 1, TUTTI_DTYPE_I32, i % 3, NULL));
        T_CHECK(message == i, "message %d is %d", i, message);
        T_OK(tutti_all_reduce(t->comm, &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
        T_CHECK(sum == 3, "sum %d", sum);
    }
}

T_RANKS(sending_to_oneself_needs_a_group, 2)
{
    int x = 1, y = 0;

    T_IS(TUTTI_E_ARG, tutti_send(t->comm, &x, 1, TUTTI_DTYPE_I32, t->rank, NULL));
    T_CONTAINS(tutti_last_error(), "group");
    T_OK(tutti_group_begin(t->comm));
    T_OK(tutti_send(t->comm, &x, 1, TUTTI_DTYPE_I32, t->rank, NULL));
    T_OK(tutti_recv(t->comm, &y, 1, TUTTI_DTYPE_I32, t->rank, NULL));
    T_OK(tutti_group_end(t->comm));
    T_CHECK(y == 1, "y is %d", y);
    T_OK(tutti_barrier(t->comm, NULL));
}

static void unlike_lengths(struct t_rank *t, size_t sent, size_t received)
{
    unsigned char *p = calloc(1, sent + received);
    tutti_result r;

    if (t->rank == 0)
        r = tutti_send(t->comm, p, sent, TUTTI_DTYPE_U8, 1, NULL);
    else
        r = tutti_recv(t->comm, p, received, TUTTI_DTYPE_U8, 0, NULL);
    if (t->rank == 1)
        T_CHECK(r == TUTTI_E_MISMATCH, "recv gave %s", tutti_result_name(r));
    else
        T_CHECK(r == TUTTI_E_MISMATCH || r == TUTTI_OK, "send gave %s", tutti_result_name(r));
    /* a sender that had already returned learns it at the next call */
    T_IS(TUTTI_E_MISMATCH, tutti_barrier(t->comm, NULL));
    free(p);
}

T_RANKS(a_short_message_is_a_mismatch, 2)
{
    unlike_lengths(t, 4, 8);
}

T_RANKS(a_long_message_is_a_mismatch, 2)
{
    unlike_lengths(t, 8, 4);
}

T_RANKS(a_large_message_of_unlike_length_is_a_mismatch, 2)
{
    unlike_lengths(t, 4 << 20, 2 << 20);
}

T_RANKS(a_message_of_another_dtype_is_a_mismatch, 2)
{
    int32_t x[2] = {0};
    const tutti_result r = t->rank == 0 ? tutti_send(t->comm, x, 2, TUTTI_DTYPE_F32, 1, NULL)
                                        : tutti_recv(t->comm, x, 2, TUTTI_DTYPE_I32, 0, NULL);

    T_CHECK(r == TUTTI_E_MISMATCH || (t->rank == 0 && r == TUTTI_OK), "%s", tutti_result_name(r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_whole_and_in_order),
        cmocka_unit_test(many_small_messages_with_late_ranks),
        cmocka_unit_test(bursts_of_mixed_sizes),
        cmocka_unit_test(what_a_leaver_sent_last_arrives),
        cmocka_unit_test(ping_pong_of_all_sizes),
        cmocka_unit_test(all_pairs_in_a_group),
        cmocka_unit_test(both_send_nine_mib_at_once_in_a_group),
        cmocka_unit_test(a_group_keeps_the_order_of_messages),
        cmocka_unit_test(messages_mix_with_collectives),
        cmocka_unit_test(sending_to_oneself_needs_a_group),
        cmocka_unit_test(a_short_message_is_a_mismatch),
        cmocka_unit_test(a_long_message_is_a_mismatch),
        cmocka_unit_test(a_large_message_of_unlike_length_is_a_mismatch),
        cmocka_unit_test(a_message_of_another_dtype_is_a_mismatch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
