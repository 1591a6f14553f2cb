/* ctest: no-tsan timeout=120 */
/* Sends and receives of all shapes, groups, and communicators made by splitting. */
#include "support/cases.h"

enum { SCRATCH = 1 << 20, ROOM = 1 << 20 };

/* Element i of message `number` from rank `from`. */
static uint8_t sent(int from, unsigned number, size_t i)
{
    return (uint8_t)(i * 7 + i / 251 + (size_t)from * 31 + number * 13);
}

struct mailbox {
    struct t_device device;
    unsigned char *send, *recv; /* on the device: ROOM bytes for each peer */
    unsigned char *host;
};

static void open_mailbox(struct mailbox *m, struct t_rank *t)
{
    t_device_open(&m->device, t);
    m->send = t_device_alloc(ROOM * (size_t)t->n_ranks);
    m->recv = t_device_alloc(ROOM * (size_t)t->n_ranks);
    m->host = malloc(ROOM);
    T_CHECK(m->host != NULL, "no memory");
    t_meet(t);
}

static void close_mailbox(struct mailbox *m, struct t_rank *t)
{
    t_device_sync(&m->device);
    t_meet(t);
    t_device_free(m->send);
    t_device_free(m->recv);
    free(m->host);
    t_device_close(&m->device);
}

static void fill(struct mailbox *m, size_t at, int from, unsigned number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        m->host[i] = sent(from, number, i);
    t_device_push(&m->device, m->send + at, m->host, bytes);
    t_device_sync(&m->device);
}

static void check(struct mailbox *m, size_t at, int from, unsigned number, size_t bytes)
{
    t_device_pull(&m->device, m->host, m->recv + at, bytes);
    t_device_sync(&m->device);
    for (size_t i = 0; i < bytes; i++)
        T_CHECK(m->host[i] == sent(from, number, i), "message %u from %d: byte %zu of %zu is wrong",
                number, from, i, bytes);
}

/* Bytes of message `number` from a to b: nothing now and then. */
static size_t length(int a, int b, unsigned number, size_t most)
{
    const uint64_t h = t_hash((uint64_t)(a * 64 + b), number);

    return h % 5 == 0 ? 0 : (h >> 8) % most;
}

/* Everybody to everybody, itself included, several messages a pair, in one group. */
static void all_pairs(struct t_rank *t, struct mailbox *m, unsigned round, size_t most)
{
    enum { MESSAGES = 3 };
    const int n = t->n_ranks, me = t->rank;
    const size_t slot = ROOM / MESSAGES;

    for (int r = 0; r < n; r++)
        for (unsigned k = 0; k < MESSAGES; k++)
            fill(m, (size_t)r * ROOM + k * slot, me, round * MESSAGES + k,
                 length(me, r, round * MESSAGES + k, most));
    T_OK(tutti_group_begin(t->comm));
    for (int r = 0; r < n; r++)
        for (unsigned k = 0; k < MESSAGES; k++) {
            const unsigned number = round * MESSAGES + k;
            const size_t at = (size_t)r * ROOM + k * slot;

            T_OK(tutti_send(t->comm, m->send + at, length(me, r, number, most), TUTTI_DTYPE_U8, r,
                            m->device.stream));
            T_OK(tutti_recv(t->comm, m->recv + at, length(r, me, number, most), TUTTI_DTYPE_U8, r,
                            m->device.stream));
        }
    T_OK(tutti_group_end(t->comm));
    for (int r = 0; r < n; r++)
        for (unsigned k = 0; k < MESSAGES; k++)
            check(m, (size_t)r * ROOM + k * slot, r, round * MESSAGES + k,
                  length(r, me, round * MESSAGES + k, most));
}

static void exchanges(struct t_rank *t)
{
    static const size_t most[] = {20, 3000, 20000, 60000};
    struct mailbox m;

    open_mailbox(&m, t);
    for (unsigned round = 0; round < 2 * T_LEN(most); round++)
        all_pairs(t, &m, round, most[round % T_LEN(most)]);
    close_mailbox(&m, t);
}

/* Single sends and receives along a chain, with collectives of all ranks in between. */
static void chain(struct t_rank *t)
{
    const struct t_case c = {.coll = T_all_reduce, .dtype = TUTTI_DTYPE_F32, .count = 500};
    const int last = t->n_ranks - 1;
    struct mailbox m;
    struct t_stage s;

    open_mailbox(&m, t);
    t_stage_open_on(&s, t, t->comm, 1 << 16, 0, &m.device);
    t_meet(t);
    for (unsigned number = 0; number < 12; number++) {
        const size_t bytes = (size_t)number * 5000 + 3;

        fill(&m, 0, 0, number, bytes);
        if (t->rank > 0)
            T_OK(tutti_recv(t->comm, m.recv, bytes, TUTTI_DTYPE_U8, t->rank - 1, m.device.stream));
        if (t->rank < last)
            T_OK(tutti_send(t->comm, t->rank > 0 ? m.recv : m.send, bytes, TUTTI_DTYPE_U8,
                            t->rank + 1, m.device.stream));
        if (number % 3 == 2)
            t_case_run(&s, &c);
        if (t->rank > 0)
            check(&m, 0, 0, number, bytes);
    }
    t_meet(t);
    t_stage_close(&s);
    close_mailbox(&m, t);
}

/* Collectives in a group; broadcasts from every root become one call. */
static void grouped(struct t_rank *t)
{
    const size_t bytes = 5000;
    struct mailbox m;

    open_mailbox(&m, t);
    fill(&m, 0, t->rank, 1, bytes);
    T_OK(tutti_group_begin(t->comm));
    for (int r = 0; r < t->n_ranks; r++) {
        unsigned char *buf = m.recv + (size_t)r * ROOM;

        T_OK(tutti_broadcast(t->comm, r == t->rank ? m.send : buf, bytes, TUTTI_DTYPE_U8, r,
                             m.device.stream));
    }
    T_OK(tutti_all_gather(t->comm, m.send, m.recv + bytes, 100, TUTTI_DTYPE_U8, m.device.stream));
    T_OK(tutti_group_end(t->comm));
    for (int r = 0; r < t->n_ranks; r++) {
        if (r != t->rank)
            check(&m, (size_t)r * ROOM, r, 1, bytes);
        check(&m, bytes + (size_t)r * 100, r, 1, 100);
    }
    close_mailbox(&m, t);
}

/* Even and odd ranks, the order reversed; both halves and the whole at work by turns. */
static void halves(struct t_rank *t)
{
    struct t_device device;
    struct t_stage whole, half;
    struct t_rank part = *t;
    tutti_comm *comm, *none;
    struct t_rng rng = {5};

    t_device_open(&device, t);
    T_OK(tutti_comm_split(t->comm, t->rank % 2, -t->rank, &comm));
    T_OK(tutti_comm_split(t->comm, t->rank == 0 ? -1 : 0, 0, &none));
    T_CHECK((none == NULL) == (t->rank == 0), "a negative color");
    tutti_comm_destroy(none);
    t_stage_open_on(&whole, t, t->comm, 1 << 17, 0, &device);
    t_stage_open_on(&half, &part, comm, 1 << 17, 1, &device);
    t_meet(t);
    for (int i = 0; i < 30; i++) {
        struct t_stage *s = i % 3 == 0 ? &whole : &half;
        struct t_case c = t_case_random_on(s, &rng, 3000);

        c.root = 0;
        t_case_run(s, &c);
    }
    t_meet(t);
    t_stage_close(&whole);
    t_stage_close(&half);
    tutti_comm_destroy(comm);
    t_device_close(&device);
}

static void split_within_fds(struct t_rank *t)
{
    t_split_within_fds(t, 1);
    grouped(t);
}

static void run(void (*body)(struct t_rank *), const char *seed)
{
    static const int ranks[] = {2, 3, 4, 0};

    if (seed != NULL)
        setenv("T_SIM_SEED", seed, 1);
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, body);

        job.config.scratch_bytes = SCRATCH;
        t_run(&job);
    }
    unsetenv("T_SIM_SEED");
}

static void messages_between_all_pairs(void **state)
{
    (void)state;
    run(exchanges, NULL);
    run(exchanges, "3");
}

static void messages_along_a_chain(void **state)
{
    (void)state;
    run(chain, NULL);
    run(chain, "4");
}

static void groups_of_collectives(void **state)
{
    (void)state;
    run(grouped, NULL);
}

static void split_communicators(void **state)
{
    (void)state;
    run(halves, NULL);
}

static void a_split_that_fails_on_one_rank_fails_on_all(void **state)
{
    struct t_job job = t_cuda_job(3, split_within_fds);

    (void)state;
    job.config.scratch_bytes = SCRATCH;
    t_run(&job);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_between_all_pairs),
        cmocka_unit_test(messages_along_a_chain),
        cmocka_unit_test(groups_of_collectives),
        cmocka_unit_test(split_communicators),
        cmocka_unit_test(a_split_that_fails_on_one_rank_fails_on_all),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
