/* ctest: no-tsan timeout=120 */
/* Groups of more messages than one launch holds, cut differently on different ranks, and messages that
 * do not match. */
#include "support/cases.h"

enum { SCRATCH = 1 << 20, LONG = 40000 };
#define TIMEOUT_MS 1500

static size_t length(unsigned number)
{
    return number % 5 == 0 ? LONG + number : 1 + number * 37 % 3000;
}

static unsigned char byte_of(int from, int to, unsigned number, size_t i)
{
    return (unsigned char)(i * 3 + i / 257 + number * 11 + (unsigned)from * 5 + (unsigned)to * 17);
}

/* Rank r exchanges 10 (r + p) messages with rank p, in one group: r has other cuts than p. */
static unsigned n_messages(int a, int b)
{
    return 10 * (unsigned)(a + b);
}

static void send_all(struct t_rank *t, struct t_device *d, unsigned char *buf, int peer)
{
    unsigned char *host = malloc(2 * LONG);

    T_CHECK(host != NULL, "no memory");
    for (unsigned k = 0; k < n_messages(t->rank, peer); k++) {
        for (size_t i = 0; i < length(k); i++)
            host[i] = byte_of(t->rank, peer, k, i);
        t_device_push(d, buf, host, length(k));
        t_device_sync(d);
        T_OK(tutti_send(t->comm, buf, length(k), TUTTI_DTYPE_U8, peer, d->stream));
        buf += length(k) + 3;
    }
    free(host);
}

static void check_all(struct t_rank *t, struct t_device *d, const unsigned char *buf, int peer)
{
    unsigned char *host = malloc(2 * LONG);

    T_CHECK(host != NULL, "no memory");
    for (unsigned k = 0; k < n_messages(t->rank, peer); k++) {
        t_device_pull(d, host, buf, length(k));
        t_device_sync(d);
        for (size_t i = 0; i < length(k); i++)
            T_CHECK(host[i] == byte_of(peer, t->rank, k, i), "byte %zu of message %u from %d", i, k,
                    peer);
        buf += length(k) + 3;
    }
    free(host);
}

static size_t room(int n_ranks)
{
    size_t sum = 0;

    for (unsigned k = 0; k < n_messages(n_ranks, n_ranks); k++)
        sum += length(k) + 3;
    return sum;
}

static void long_groups(struct t_rank *t)
{
    const size_t each = room(t->n_ranks);
    unsigned char *send, *recv;
    struct t_device d;

    t_device_open(&d, t);
    send = t_device_alloc(each * (size_t)t->n_ranks);
    recv = t_device_alloc(each * (size_t)t->n_ranks);
    T_OK(tutti_group_begin(t->comm));
    for (int p = 0; p < t->n_ranks; p++) {
        unsigned char *at = recv + (size_t)p * each;

        send_all(t, &d, send + (size_t)p * each, p);
        for (unsigned k = 0; k < n_messages(t->rank, p); k++) {
            T_OK(tutti_recv(t->comm, at, length(k), TUTTI_DTYPE_U8, p, d.stream));
            at += length(k) + 3;
        }
    }
    T_OK(tutti_group_end(t->comm));
    for (int p = 0; p < t->n_ranks; p++)
        check_all(t, &d, recv + (size_t)p * each, p);
    t_meet(t);
    t_device_free(send);
    t_device_free(recv);
    t_device_close(&d);
}

static void groups_of_many_launches(void **state)
{
    const int ranks[] = {1, 2, 4, 0};

    (void)state;
    t_cuda_ranks(ranks, long_groups);
}

/* The credit of a pair has 24 bits. */
static void credit_wraps(void **state)
{
    static const char *const first[] = {"16777213", "4294967290"};
    const int ranks[] = {2, 3, 0};

    (void)state;
    for (size_t i = 0; i < T_LEN(first); i++) {
        setenv("TUTTI_CUDA_EPOCH", first[i], 1);
        t_cuda_ranks(ranks, long_groups);
    }
    unsetenv("TUTTI_CUDA_EPOCH");
}

static void mismatch(struct t_rank *t)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    tutti_comm_config config = t_cuda_config(t);
    struct t_device d;
    tutti_comm *comm;
    unsigned char *buf;

    config.timeout_ms = TIMEOUT_MS;
    config.scratch_bytes = SCRATCH;
    t_device_open(&d, t);
    T_OK(t_comm_create(t, 77, &config, &comm));
    buf = t_device_alloc(LONG);
    if (t->rank == 0)
        T_OK(tutti_send(comm, buf, 1000, TUTTI_DTYPE_U8, 1, d.stream));
    else if (t->rank == 1)
        T_OK(tutti_recv(comm, buf, 2000, TUTTI_DTYPE_U8, 0, d.stream));
    t_device_sync(&d);
    T_OK(tutti_comm_status(comm, &state));
    T_CHECK(state.result == (t->rank == 0   ? TUTTI_E_MISMATCH
                             : t->rank == 1 ? TUTTI_E_TIMEOUT
                                            : TUTTI_OK),
            "%s: %s", tutti_result_name(state.result), state.text);
    T_CHECK(state.peer == (t->rank < 2 ? 1 - t->rank : -1), "rank %d is blamed", state.peer);
    t_meet(t);
    tutti_comm_destroy(comm);
    t_device_free(buf);
    t_device_close(&d);
}

static void unequal_messages_are_noticed(void **state)
{
    const int ranks[] = {2, 0};

    (void)state;
    t_cuda_ranks(ranks, mismatch);
}

/* A message to oneself without its receive, and two streams in a group: nothing happens. */
static void refusals(struct t_rank *t)
{
    struct t_device a;
    unsigned char *buf;

    t_device_open(&a, t);
    buf = t_device_alloc(64);
    T_OK(tutti_group_begin(t->comm));
    T_OK(tutti_send(t->comm, buf, 64, TUTTI_DTYPE_U8, t->rank, a.stream));
    T_IS(TUTTI_E_ARG, tutti_group_end(t->comm));
    T_OK(tutti_group_begin(t->comm));
    T_OK(tutti_send(t->comm, buf, 64, TUTTI_DTYPE_U8, t->rank, a.stream));
    T_IS(TUTTI_E_ARG, tutti_recv(t->comm, buf, 64, TUTTI_DTYPE_U8, t->rank, NULL));
    T_IS(TUTTI_E_ARG, tutti_group_end(t->comm));
    T_IS(TUTTI_E_UNSUPPORTED,
         tutti_all_reduce_team(t->comm, buf, buf, 4, TUTTI_DTYPE_F32, TUTTI_OP_SUM, 0, 1));
    t_meet(t);
    T_OK(tutti_barrier(t->comm, a.stream));
    t_device_sync(&a);
    t_meet(t);
    t_device_free(buf);
    t_device_close(&a);
}

static void what_cannot_be_is_refused(void **state)
{
    const int ranks[] = {1, 2, 0};

    (void)state;
    t_cuda_ranks(ranks, refusals);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_of_many_launches),
        cmocka_unit_test(credit_wraps),
        cmocka_unit_test(unequal_messages_are_noticed),
        cmocka_unit_test(what_cannot_be_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
