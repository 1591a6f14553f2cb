/* ctest: timeout=120 tsan */
/* Channels of host memory: to ranks of this host by loads and stores, of others through proxies; every byte
 * that a signal announces, packets, sums, flushes. */
#include <sys/mman.h>
#include <tutti/device.h>

#include "support/hosts.h"
#include "support/job.h"

enum {
    CHANNELS = 3,
    SLOT = 70000, /* bytes of one message, at most */
    DEPTH = 3,    /* messages to a peer that are not answered yet */
};

/* The memory: from every rank, on every channel, DEPTH slots to receive, and as many to send from. */
struct place {
    struct t_rank *t;
    tutti_channel_set *set;
    unsigned char *memory;
    tutti_channel ch[T_MAX_RANKS][CHANNELS];
};

static uint64_t slot_at(const struct place *p, int rank, int channel, uint64_t round, int is_send)
{
    const uint64_t n = (uint64_t)p->t->n_ranks;
    const uint64_t slots = ((uint64_t)rank * CHANNELS + (uint64_t)channel) * DEPTH + round % DEPTH;

    return (slots + (is_send ? n * CHANNELS * DEPTH : 0)) * SLOT + 64;
}

static uint64_t seed_of(int from, int to, int channel, uint64_t round)
{
    return t_hash(round * 100 + (uint64_t)channel, (uint64_t)from << 32 | (uint64_t)to);
}

static uint64_t bytes_of(uint64_t seed)
{
    return seed % 7 == 0 ? seed % SLOT : seed % 5 == 0 ? 8 + seed % 2000 : seed % 60;
}

static uint64_t shift_of(uint64_t seed) /* unaligned */
{
    return seed >> 20 & 15;
}

static void fill(unsigned char *at, uint64_t bytes, uint64_t seed)
{
    for (uint64_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(t_hash(seed, i >> 3) >> (i & 7) * 8);
}

static void check(const unsigned char *at, uint64_t bytes, uint64_t seed, const char *what)
{
    for (uint64_t i = 0; i < bytes; i++)
        T_CHECK(at[i] == (unsigned char)(t_hash(seed, i >> 3) >> (i & 7) * 8),
                "%s: byte %llu of %llu is wrong", what, (unsigned long long)i,
                (unsigned long long)bytes);
}

static void set_up(struct place *p, struct t_rank *t, const tutti_channel_config *config)
{
    const size_t need = (size_t)t->n_ranks * CHANNELS * DEPTH * 2 * SLOT + 4096;
    void *memory;

    memset(p, 0, sizeof(*p));
    p->t = t;
    T_OK(tutti_mem_alloc(t->comm, need, &memory));
    p->memory = memory;
    T_OK(tutti_channel_set_create(t->comm, memory, need, config, &p->set));
    for (int r = 0; r < t->n_ranks; r++)
        for (uint32_t i = 0; r != t->rank && i < CHANNELS && (!config || i < config->n_channels);
             i++)
            T_OK(tutti_channel_get(p->set, r, i, TUTTI_CHANNEL_HOST, &p->ch[r][i]));
}

static void tear_down(struct place *p)
{
    T_OK(tutti_channel_set_status(p->set));
    T_OK(tutti_channel_set_destroy(p->set));
    T_OK(tutti_mem_free(p->t->comm, p->memory));
}

static void send_one(struct place *p, int peer, int channel, uint64_t round)
{
    const uint64_t seed = seed_of(p->t->rank, peer, channel, round), bytes = bytes_of(seed);
    const uint64_t from = slot_at(p, peer, channel, round, 1) + shift_of(seed >> 4);
    const uint64_t to = slot_at(p, p->t->rank, channel, round, 0) + shift_of(seed);
    const tutti_channel *c = &p->ch[peer][channel];

    fill(p->memory + from, bytes, seed);
    if (seed & 1) {
        T_OK(tutti_channel_put_with_signal(c, to, from, bytes, 0, 1));
        return;
    }
    T_OK(tutti_channel_put(c, to, from, bytes / 2, 0, 1));
    T_OK(tutti_channel_put(c, to + bytes / 2, from + bytes / 2, bytes - bytes / 2, 0, 1));
    T_OK(tutti_channel_signal(c));
}

/* Signals are messages and answers by turns: message k and the answer to the peer's message k - DEPTH. */
static void stream(struct t_rank *t, const tutti_channel_config *config, uint64_t rounds)
{
    static struct place p;

    set_up(&p, t, config);
    for (uint64_t k = 0; k < rounds; k++) {
        for (int r = 0; r < t->n_ranks; r++)
            for (int c = 0; r != t->rank && c < CHANNELS; c++) {
                if (k >= DEPTH) { /* its answers, so that the slot is free */
                    T_OK(tutti_channel_wait(&p.ch[r][c], 2 * (k - DEPTH + 1)));
                    t_at(__FILE__, __LINE__, "a slot is free");
                }
                send_one(&p, r, c, k);
            }
        for (int r = 0; r < t->n_ranks; r++)
            for (int c = 0; r != t->rank && c < CHANNELS; c++) {
                const uint64_t seed = seed_of(r, t->rank, c, k);

                /* Before message k came k messages, and the answers to what we sent are interleaved: at
                 * least 2 k + 1 signals once k answers are here, too. */
                T_OK(tutti_channel_wait(&p.ch[r][c], 2 * k + 1));
                check(p.memory + slot_at(&p, r, c, k, 0) + shift_of(seed), bytes_of(seed), seed,
                      "message");
                T_OK(tutti_channel_signal(&p.ch[r][c]));
            }
    }
    tear_down(&p);
}

static void stream_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .n_channels = CHANNELS, .n_proxies = 2};

    stream(t, &config, t_times(40, 400));
}

/* Offsets above 4 GiB, in memory that is mostly not there: nothing lands 4 GiB below. */
static void far_away(struct t_rank *t)
{
    static const uint64_t gib = UINT64_C(1) << 30;
    static const struct {
        uint64_t to, from, bytes;
    } puts[] = {
        {0, 5 * (UINT64_C(1) << 30) + 3, 5000},    /* from above to below */
        {(UINT64_C(1) << 32) - 1500, 70000, 3000}, /* across the limit */
        {(UINT64_C(1) << 32) + 8192, 80000, 40},   /* with its signal */
        {5 * (UINT64_C(1) << 30) + 77, 5 * (UINT64_C(1) << 30) + 12345, 300000},
        {6 * (UINT64_C(1) << 30) - 64, (UINT64_C(1) << 32) + 65536, 64}, /* the last bytes */
    };
    const size_t bytes = 6 * gib;
    const uint64_t sum_at = 5 * gib + (1 << 20);
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const int peer = 1 - t->rank;
    tutti_channel_set *set;
    tutti_channel ch;
    uint64_t sum;

    if (memory == MAP_FAILED)
        t_skip("this system gives no 6 GiB of address space");
    T_OK(tutti_channel_set_create(t->comm, memory, bytes, NULL, &set));
    T_OK(tutti_channel_get(set, peer, 0, TUTTI_CHANNEL_HOST, &ch));
    for (size_t i = 0; i < T_LEN(puts) && t->rank == 0; i++) {
        fill(memory + puts[i].from, puts[i].bytes, i);
        T_OK(tutti_channel_put_with_signal(&ch, puts[i].to, puts[i].from, puts[i].bytes, 0, 1));
    }
    T_OK(tutti_channel_atomic_add(&ch, sum_at, 40 + (uint64_t)t->rank));
    T_OK(tutti_channel_atomic_add(&ch, sum_at, 2));
    T_OK(tutti_channel_flush(&ch));
    t_meet(t);
    sum = __atomic_load_n((uint64_t *)(void *)(memory + sum_at), __ATOMIC_ACQUIRE);
    T_CHECK(sum == 42 + (uint64_t)peer, "the sum is %llu", (unsigned long long)sum);
    for (size_t i = 0; i < T_LEN(puts) && t->rank == 1; i++) {
        T_OK(tutti_channel_wait(&ch, i + 1));
        check(memory + puts[i].to, puts[i].bytes, i, "far put");
    }
    for (size_t k = 8192; k < (2 << 20) && t->rank == 1; k++)
        T_CHECK(memory[k] == 0 && memory[gib + k] == 0, "byte %zu is written", k);
    T_OK(tutti_channel_set_destroy(set));
    munmap(memory, bytes);
}

static void run(const char *hosts, int n, void (*body)(struct t_rank *t))
{
    t_hosts(hosts);
    t_ranks(n, body);
    t_hosts(NULL);
}

static void signals_follow_their_data(void **state)
{
    (void)state;
    run("01", 2, stream_body);
    run("0011", 4, stream_body);
    run("001", 3, stream_body);
}

static void within_a_host_too(void **state)
{
    (void)state;
    t_ranks(3, stream_body);
}

/* Two slots: queues are full all the time. */
static void offsets_have_more_than_32_bits(void **state)
{
    (void)state;
    run("01", 2, far_away);
}

static void tight_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .n_channels = CHANNELS, .n_proxies = 1, .n_slots = 2};

    stream(t, &config, 30);
}

static void queues_that_are_full_lose_nothing(void **state)
{
    (void)state;
    run("01", 2, tight_body);
}

/* ---- packets ---- */

static void packets_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .packet_bytes = 8192, .n_channels = 1};
    const uint32_t rounds = t_times(300, 5000);
    static struct place p;
    static uint32_t out[2048], in[2048];

    set_up(&p, t, &config);
    for (uint32_t k = 1; k <= rounds; k++) {
        const uint64_t half = k % 2 * 4096, bytes = 4 + t_hash(k, 3) % 1024 * 4;

        for (int r = 0; r < t->n_ranks; r++) {
            if (r == t->rank)
                continue;
            fill((unsigned char *)out, bytes, seed_of(t->rank, r, 0, k));
            T_OK(tutti_channel_put_packets(&p.ch[r][0], half, out, bytes < 4096 ? bytes : 4096, k,
                                           0, 1));
        }
        for (int r = 0; r < t->n_ranks; r++) {
            if (r == t->rank)
                continue;
            T_OK(tutti_channel_get_packets(&p.ch[r][0], half, in, bytes < 4096 ? bytes : 4096, k, 0,
                                           1));
            check((unsigned char *)in, bytes < 4096 ? bytes : 4096, seed_of(r, t->rank, 0, k),
                  "packets");
        }
    }
    tear_down(&p);
}

static void packets_prove_their_arrival(void **state)
{
    (void)state;
    run("01", 2, packets_body);
    run("0011", 4, packets_body);
}

/* ---- sums and flushes ---- */

static void sums_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .n_channels = CHANNELS, .n_proxies = 2};
    static struct place p;
    uint64_t *sums, want = 0;

    set_up(&p, t, &config);
    sums = (uint64_t *)(void *)p.memory;
    for (uint64_t k = 0; k < 100; k++)
        for (int c = 0; t->rank != 0 && c < CHANNELS; c++)
            T_OK(tutti_channel_atomic_add(&p.ch[0][c], 8 * (k % 2),
                                          t_hash(k, (uint64_t)t->rank * 10 + (uint64_t)c)));
    for (int c = 0; t->rank != 0 && c < CHANNELS; c++)
        T_OK(tutti_channel_signal(&p.ch[0][c])); /* after the sums */
    for (int r = 1; r < t->n_ranks; r++)
        for (int c = 0; c < CHANNELS; c++) {
            for (uint64_t k = 0; k < 100; k++)
                want += k % 2 ? 0 : t_hash(k, (uint64_t)r * 10 + (uint64_t)c);
            if (t->rank == 0)
                T_OK(tutti_channel_wait(&p.ch[r][c], 1));
        }
    if (t->rank == 0)
        T_CHECK(__atomic_load_n(&sums[0], __ATOMIC_ACQUIRE) == want, "the sum is wrong");
    tear_down(&p);
}

static void sums_are_there_before_the_signal(void **state)
{
    (void)state;
    run("01", 2, sums_body);
    run("0112", 4, sums_body);
}

static void flush_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .n_channels = CHANNELS, .n_proxies = 1};
    const int left = (t->rank + t->n_ranks - 1) % t->n_ranks, right = (t->rank + 1) % t->n_ranks;
    static struct place p;

    set_up(&p, t, &config);
    for (uint64_t k = 0; k < 10; k++) {
        fill(p.memory + slot_at(&p, right, 0, k, 1), SLOT / 2, seed_of(t->rank, right, 0, k));
        T_OK(tutti_channel_put(&p.ch[right][0], slot_at(&p, t->rank, 0, k, 0),
                               slot_at(&p, right, 0, k, 1), SLOT / 2, 0, 1));
        T_OK(tutti_channel_flush(&p.ch[right][0]));
        t_meet(t); /* which no channel knows of */
        check(p.memory + slot_at(&p, left, 0, k, 0), SLOT / 2, seed_of(left, t->rank, 0, k),
              "flushed");
        t_meet(t);
    }
    tear_down(&p);
}

static void what_is_flushed_is_there(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    t_skip("ThreadSanitizer does not see how ranks meet");
#endif
    run("01", 2, flush_body);
    run("011", 3, flush_body);
}

/* ---- several sets, and destroying ---- */

static void sets_body(struct t_rank *t)
{
    const int peer = t->n_ranks - 1 - t->rank;
    tutti_channel_set *sets[3];
    tutti_channel_info info = TUTTI_CHANNEL_INFO_INIT;
    tutti_comm *other;
    void *memory[3];
    tutti_channel c;

    T_OK(tutti_comm_split(t->comm, 0, 0, &other));
    for (int i = 0; i < 3; i++) {
        tutti_comm *comm = i == 2 ? other : t->comm;

        T_OK(tutti_mem_alloc(comm, 1 << 20, &memory[i]));
        T_OK(tutti_channel_set_create(comm, memory[i], 1 << 20, NULL, &sets[i]));
    }
    for (int i = 2; i >= 0; i--) { /* not waited for: destroying delivers */
        fill((unsigned char *)memory[i], 1 << 19, seed_of(t->rank, peer, i, 0));
        T_OK(tutti_channel_get(sets[i], peer, 0, TUTTI_CHANNEL_HOST, &c));
        for (uint64_t at = 0; at < 1 << 19; at += 1 << 14)
            T_OK(tutti_channel_put(&c, (1 << 19) + at, at, 1 << 14, 0, 1));
    }
    T_OK(tutti_channel_set_query(sets[0], &info));
    T_CHECK(info.n_memory_peers + info.n_port_peers == t->n_ranks - 1, "%d and %d peers",
            info.n_memory_peers, info.n_port_peers);
    T_CHECK((info.n_port_peers > 0) == (info.n_proxies > 0), "%d proxies", info.n_proxies);
    for (int i = 0; i < 3; i++) {
        T_OK(tutti_channel_set_destroy(sets[i]));
        check((unsigned char *)memory[i] + (1 << 19), 1 << 19, seed_of(peer, t->rank, i, 0),
              "delivered");
        T_OK(tutti_mem_free(i == 2 ? other : t->comm, memory[i]));
    }
    T_OK(tutti_channel_set_destroy(NULL));
    T_OK(tutti_barrier(t->comm, NULL));
    tutti_comm_destroy(other);
}

static void sets_live_side_by_side_and_deliver_at_the_end(void **state)
{
    (void)state;
    run("01", 2, sets_body);
    run("0011", 4, sets_body);
    t_ranks(2, sets_body);
}

/* ---- the negative control ---- */

static void long_body(struct t_rank *t)
{
    const tutti_channel_config config = {
        .size = sizeof(config), .n_channels = CHANNELS, .n_proxies = 1};

    stream(t, &config, 2000);
}

static void a_signal_before_its_data_is_noticed(void **state)
{
    const struct t_job job = {.n_ranks = 2, .body = long_body};
    static char text[8192];
    int is_noticed;

    (void)state;
#ifdef __SANITIZE_THREAD__
    t_skip("what is broken on purpose is a race");
#endif
    if (getenv("T_NET") != NULL)
        t_skip("only the network of tests/support/net can be broken");
    setenv("T_NET", "signal_early", 1);
    t_hosts("01");
    is_noticed = t_run_quietly(&job, text, sizeof(text)) &&
                 (strstr(text, "is wrong") || strstr(text, "means no place"));
    t_hosts(NULL);
    unsetenv("T_NET");
    assert_true(is_noticed);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_follow_their_data),
        cmocka_unit_test(within_a_host_too),
        cmocka_unit_test(offsets_have_more_than_32_bits),
        cmocka_unit_test(queues_that_are_full_lose_nothing),
        cmocka_unit_test(packets_prove_their_arrival),
        cmocka_unit_test(sums_are_there_before_the_signal),
        cmocka_unit_test(what_is_flushed_is_there),
        cmocka_unit_test(sets_live_side_by_side_and_deliver_at_the_end),
        cmocka_unit_test(a_signal_before_its_data_is_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
