/* ctest: no-tsan timeout=120 */
/* Kernels that use channels: the same kernel over mapped memory and through proxies and a network that
 * delivers in disorder. Kernels run on the simulated GPU, whose stores are seen late. */
#define TUTTI_DEVICE_WORDS "support/sim/channel_words.h"
#include "support/sim/sim.h"

#include <tutti/device.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "support/gpus.h"

enum { BLOCKS = 3, THREADS = 32, SLOT = 8192, PARTS = 2, MAX_PEERS = 4, LARGE = 9 << 20 };

struct kernel_args {
    tutti_channel ch[MAX_PEERS][BLOCKS]; /* a channel to each peer for each block */
    int rank, n_ranks;
    uint64_t rounds, value, seed;
    uint64_t *n_wrong, *result; /* in the GPU's memory: [BLOCKS] */
};

/* ---- kernels ---- */

static uint64_t word_of(uint64_t seed, int from, int to, int block, uint64_t round, uint64_t i)
{
    const uint64_t way = (uint64_t)from * 100 + (uint64_t)to * 10 + (uint64_t)block;

    return t_hash(t_hash(seed, way), round << 20 | i);
}

/* Where the messages of one rank for another lie: to send, and received. */
static uint64_t place(const struct kernel_args *a, int rank, int block, uint64_t round, int is_send)
{
    const uint64_t slot = ((uint64_t)rank * BLOCKS + (uint64_t)block) * PARTS + round % PARTS;

    return (slot + (is_send ? (uint64_t)a->n_ranks * BLOCKS * PARTS : 0)) * SLOT;
}

static uint64_t words_of(uint64_t round)
{
    return 2 + round * 37 % (SLOT / 8 - 2) / 2 * 2;
}

static void fill(const struct kernel_args *a, const tutti_channel *c, uint64_t at, uint64_t round)
{
    for (uint64_t i = (uint64_t)TT_THREAD; i < words_of(round) / 2; i += (uint64_t)TT_THREADS) {
        struct tt_vec v;
        uint64_t w[2];

        for (uint64_t k = 0; k < 2; k++)
            w[k] = word_of(a->seed, a->rank, c->peer, TT_BLOCK, round, 2 * i + k);
        memcpy(&v, w, sizeof(v));
        tt_store16(c->memory + at + 16 * i, v);
    }
}

static void check(const struct kernel_args *a, const tutti_channel *c, uint64_t at, uint64_t round)
{
    for (uint64_t i = (uint64_t)TT_THREAD; i < words_of(round) / 2; i += (uint64_t)TT_THREADS) {
        const struct tt_vec v = tt_load16(c->memory + at + 16 * i);
        uint64_t w[2];

        memcpy(w, &v, sizeof(w));
        for (uint64_t k = 0; k < 2; k++)
            if (w[k] != word_of(a->seed, c->peer, a->rank, TT_BLOCK, round, 2 * i + k))
                __atomic_fetch_add(a->n_wrong, 1, __ATOMIC_RELAXED);
    }
}

static void note(const struct kernel_args *a, int result)
{
    if (result != TUTTI_OK)
        __atomic_store_n(a->result, (uint64_t)(int64_t)result, __ATOMIC_RELAXED);
}

static void send_message(const struct kernel_args *a, const tutti_channel *c, uint64_t round)
{
    const uint64_t from = place(a, c->peer, TT_BLOCK, round, 1), bytes = words_of(round) * 8;
    const uint64_t to = place(a, a->rank, TT_BLOCK, round, 0);

    fill(a, c, from, round);
    tt_sync_block();
    if (round % 3 == 0) {
        note(a, tutti_channel_put_with_signal(c, to, from, bytes, (uint32_t)TT_THREAD,
                                              (uint32_t)TT_THREADS));
        return;
    }
    note(a, tutti_channel_put(c, to, from, bytes, (uint32_t)TT_THREAD, (uint32_t)TT_THREADS));
    tt_sync_block();
    if (TT_THREAD == 0)
        note(a, tutti_channel_signal(c));
}

/* Each block talks to its counterpart on every peer: a message, and the answer that it was read. */
TT_KERNEL(t_talk, kernel_args)
{
    const struct kernel_args *a = &args;

    for (uint64_t k = 0; k < a->rounds; k++) {
        for (int r = 0; r < a->n_ranks; r++)
            if (r != a->rank) {
                send_message(a, &a->ch[r][TT_BLOCK], k);
                tt_sync_block();
            }
        for (int r = 0; r < a->n_ranks; r++) {
            const tutti_channel *c = &a->ch[r][TT_BLOCK];

            if (r == a->rank)
                continue;
            if (TT_THREAD == 0)
                note(a, tutti_channel_wait_next(c));
            tt_sync_block();
            check(a, c, place(a, r, TT_BLOCK, k, 0), k);
            tt_sync_block();
            if (TT_THREAD == 0) {
                note(a, tutti_channel_signal(c));
                note(a, tutti_channel_wait_next(c));
            }
            tt_sync_block();
        }
    }
}

/* Packets there and back, without signals. */
TT_KERNEL(t_packets, kernel_args)
{
    const struct kernel_args *a = &args;
    const uint32_t me = (uint32_t)TT_THREAD, all = (uint32_t)TT_THREADS;

    for (uint32_t k = 1; k <= a->rounds; k++)
        for (int r = 0; r < a->n_ranks; r++) {
            const tutti_channel *c = &a->ch[r][TT_BLOCK];
            const uint64_t at = k % 2 * 512;
            uint32_t out[128], in[128] = {0};

            if (r == a->rank)
                continue;
            for (uint64_t i = 0; i < 128; i++)
                out[i] = (uint32_t)word_of(a->seed, a->rank, r, TT_BLOCK, k, i);
            note(a, tutti_channel_put_packets(c, at, out, sizeof(out), k, me, all));
            note(a, tutti_channel_get_packets(c, at, in, sizeof(in), k, me, all));
            for (uint64_t i = me; i < 128; i += all)
                if (in[i] != (uint32_t)word_of(a->seed, r, a->rank, TT_BLOCK, k, i))
                    __atomic_fetch_add(a->n_wrong, 1, __ATOMIC_RELAXED);
            tt_sync_block();
        }
}

/* All threads of all blocks add, as fast as they can: the queue has few slots. */
TT_KERNEL(t_add, kernel_args)
{
    const struct kernel_args *a = &args;
    const int peer = (a->rank + 1) % a->n_ranks;

    for (uint64_t k = 0; k < a->rounds; k++)
        note(a, tutti_channel_atomic_add(&a->ch[peer][TT_BLOCK], 8 * (uint64_t)TT_BLOCK,
                                         a->value + (uint64_t)TT_THREAD));
    note(a, tutti_channel_flush(&a->ch[peer][TT_BLOCK]));
}

/* The same to one word. */
TT_KERNEL(t_add_to_one, kernel_args)
{
    const struct kernel_args *a = &args;
    const tutti_channel *c = &a->ch[1 - a->rank][TT_BLOCK];

    for (uint64_t k = 0; k < a->rounds; k++)
        note(a, tutti_channel_atomic_add(c, 64, 1));
    note(a, tutti_channel_flush(c));
}

TT_KERNEL(t_wait, kernel_args)
{
    const struct kernel_args *a = &args;

    if (TT_BLOCK == 0 && TT_THREAD == 0)
        note(a, tutti_channel_wait(&a->ch[(a->rank + 1) % a->n_ranks][0], a->value));
}

TT_KERNEL(t_large, kernel_args)
{
    const tutti_channel *c = &args.ch[1 - args.rank][0];

    if (TT_BLOCK == 0 && TT_THREAD == 0) {
        note(&args, tutti_channel_put_with_signal(c, LARGE + 3, args.value, LARGE - 100, 0, 1));
        note(&args, tutti_channel_wait(c, args.value));
    }
}

/* A put that leads nowhere, one that is not even refused here, and a good one. */
TT_KERNEL(t_spoil, kernel_args)
{
    const tutti_channel *c = &args.ch[(args.rank + 1) % args.n_ranks][0];
    uint64_t number;

    if (TT_BLOCK == 0 && TT_THREAD == 0) {
        if (args.value == 2)
            note(&args, tutti_channel_put(c, 0, 0, 16, 0, 1));
        else if (args.value == 0)
            note(&args, tutti_channel_put(c, c->bytes - 8, 0, 16, 0, 1));
        else
            note(&args, tutti_dev_push(c, TUTTI_CHANNEL_PUT, c->bytes - 8, 0, 16, &number));
    }
}

/* ---- around them ---- */

struct scene {
    struct t_rank *t;
    struct t_device device;
    tutti_channel_set *set;
    unsigned char *memory;
    uint64_t *words; /* n_wrong, result */
    struct kernel_args args;
};

static void set_up_over(struct scene *s, struct t_rank *t, int by_port, uint32_t n_slots,
                        unsigned char *memory)
{
    const tutti_channel_config config = {.size = sizeof(config),
                                         .flags = by_port ? TUTTI_CHANNELS_BY_PORT : 0,
                                         .n_channels = BLOCKS,
                                         .n_proxies = 2,
                                         .n_slots = n_slots};

    memset(s, 0, sizeof(*s));
    s->t = t;
    t_device_open(&s->device, t);
    s->memory = memory;
    s->words = t_device_alloc(4096);
    memset(s->words, 0, 4096);
    T_OK(tutti_channel_set_create(t->comm, memory, 2 * LARGE, &config, &s->set));
    s->args.rank = t->rank;
    s->args.n_ranks = t->n_ranks;
    s->args.n_wrong = &s->words[0];
    s->args.result = &s->words[1];
    for (int r = 0; r < t->n_ranks; r++)
        for (uint32_t i = 0; r != t->rank && i < BLOCKS; i++)
            T_OK(tutti_channel_get(s->set, r, i, TUTTI_CHANNEL_KERNEL, &s->args.ch[r][i]));
}

static void set_up(struct scene *s, struct t_rank *t, int by_port, uint32_t n_slots)
{
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, 2 * LARGE, &memory));
    set_up_over(s, t, by_port, n_slots, memory);
}

static void launch(struct scene *s, tt_sim_kernel kernel)
{
    tt_sim_run(kernel, &s->args, BLOCKS, THREADS, BLOCKS);
}

static int result_of(const struct scene *s)
{
    return (int)(int64_t)__atomic_load_n(&s->words[1], __ATOMIC_RELAXED);
}

static void take_down(struct scene *s, tutti_result want)
{
    T_IS(want, tutti_channel_set_destroy(s->set));
    t_device_free(s->words);
    t_device_close(&s->device);
}

static void tear_down(struct scene *s, tutti_result want)
{
    take_down(s, want);
    T_OK(tutti_mem_free(s->t->comm, s->memory));
}

static void expect_good(struct scene *s, const char *what)
{
    if (result_of(s) != TUTTI_OK)
        T_OK(tutti_channel_set_status(s->set));
    T_CHECK(result_of(s) == TUTTI_OK, "%s gave %d", what, result_of(s));
    T_CHECK(s->words[0] == 0, "%s: %llu words are wrong", what, (unsigned long long)s->words[0]);
}

struct plan {
    int by_port;
    uint32_t n_slots;
    uint64_t seeds, rounds;
};

static void talk_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;

    set_up(&s, t, plan->by_port, plan->n_slots);
    s.args.rounds = plan->rounds;
    for (uint64_t seed = 0; seed < plan->seeds; seed++) {
        tt_sim_set_weather(seed);
        s.args.seed = seed;
        launch(&s, t_talk);
        expect_good(&s, "messages");
        s.args.rounds = 2 * plan->rounds; /* of packets; flags begin anew in another place */
        if (seed == 0)
            launch(&s, t_packets);
        expect_good(&s, "packets");
        s.args.rounds = plan->rounds;
    }
    tear_down(&s, TUTTI_OK);
}

static void run(int n, void (*body)(struct t_rank *t), const struct plan *plan)
{
    struct t_job job = t_cuda_job(n, body);

    job.arg = (void *)(uintptr_t)plan;
    t_run(&job);
}

static void one_kernel_for_memory_and_for_ports(void **state)
{
    const struct plan memory = {.seeds = 8, .rounds = 12}, port = {1, 0, 6, 8};

    (void)state;
    run(2, talk_body, &memory);
    run(2, talk_body, &port);
    run(4, talk_body, &memory);
    run(4, talk_body, &(const struct plan){1, 0, 2, 4});
}

/* Two sets, each over a part of one window of the program's own. */
static void parts_body(struct t_rank *t)
{
    static struct scene s[2];
    tutti_window *window;
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, 5 * LARGE, &memory));
    T_OK(tutti_window_register(t->comm, memory, 5 * LARGE, &window));
    for (int i = 0; i < 2; i++)
        set_up_over(&s[i], t, 0, 0, (unsigned char *)memory + (i + 1) * 64 + i * 2 * LARGE);
    T_OK(tutti_window_deregister(t->comm, window)); /* the sets hold it */
    for (int i = 0; i < 2; i++) {
        s[i].args.rounds = 8;
        s[i].args.seed = 5 + (uint64_t)i;
        launch(&s[i], t_talk);
        expect_good(&s[i], "messages in a part of a window");
    }
    for (int i = 0; i < 2; i++) {
        t_device_enter(&s[i].device);
        take_down(&s[i], TUTTI_OK);
    }
    T_OK(tutti_mem_free(t->comm, memory));
}

static void a_set_over_a_part_of_a_window(void **state)
{
    (void)state;
    run(2, parts_body, NULL);
    run(3, parts_body, NULL);
}

static void add_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    uint64_t want = 0, got[BLOCKS] = {0};
    static struct scene s;

    set_up(&s, t, plan->by_port, plan->n_slots);
    tt_sim_set_weather(7);
    s.args.rounds = plan->rounds;
    s.args.value = 1000 + (uint64_t)((t->rank + t->n_ranks - 1) % t->n_ranks);
    for (uint64_t i = 0; i < THREADS; i++)
        want += (s.args.value + i) * plan->rounds;
    s.args.value = 1000 + (uint64_t)t->rank;
    memset(s.memory, 0, 64);
    t_meet(t);
    launch(&s, t_add);
    expect_good(&s, "sums");
    t_meet(t); /* all are flushed */
    t_device_pull(&s.device, got, s.memory, sizeof(got));
    t_device_sync(&s.device);
    for (int b = 0; b < BLOCKS; b++)
        T_CHECK(got[b] == want, "sum %d is %llu, not %llu", b, (unsigned long long)got[b],
                (unsigned long long)want);
    tear_down(&s, TUTTI_OK);
}

/* Each block has its channel of another set, and all sets are over the same memory. */
static void shared_body(struct t_rank *t)
{
    const int peer = 1 - t->rank;
    static struct scene s[BLOCKS];
    uint64_t sum;

    set_up(&s[0], t, 1, 0);
    memset(s[0].memory, 0, 128);
    for (int i = 1; i < BLOCKS; i++) {
        set_up_over(&s[i], t, 1, 0, s[0].memory);
        s[0].args.ch[peer][i] = s[i].args.ch[peer][i];
    }
    s[0].args.rounds = 60;
    t_meet(t);
    launch(&s[0], t_add_to_one);
    expect_good(&s[0], "sums");
    t_meet(t);
    memcpy(&sum, s[0].memory + 64, sizeof(sum));
    T_CHECK(sum == s[0].args.rounds * THREADS * BLOCKS, "the sum is %llu", (unsigned long long)sum);
    for (int i = BLOCKS - 1; i >= 0; i--) {
        t_device_enter(&s[i].device);
        if (i > 0)
            take_down(&s[i], TUTTI_OK);
        else
            tear_down(&s[i], TUTTI_OK);
    }
}

static void sets_that_share_memory_add_to_one_word(void **state)
{
    (void)state;
    run(2, shared_body, NULL);
}

static void all_threads_add_through_a_queue_that_is_full(void **state)
{
    (void)state;
    run(2, add_body, &(const struct plan){1, 4, 1, 8});
    run(3, add_body, &(const struct plan){.rounds = 20});
}

/* More than the rings hold, in both directions at once. */
static void large_body(struct t_rank *t)
{
    const int peer = 1 - t->rank;
    static struct scene s;
    unsigned char *bytes = malloc(LARGE);

    set_up(&s, t, 1, 16);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (unsigned char)t_hash((uint64_t)t->rank, i >> 6);
    for (s.args.value = 1; s.args.value < 4; s.args.value++) {
        const size_t shift = s.args.value;

        t_device_push(&s.device, s.memory, bytes, LARGE);
        t_device_sync(&s.device);
        t_meet(t);
        launch(&s, t_large);
        expect_good(&s, "a large put");
        for (size_t i = 0; i < LARGE - 100; i++)
            T_CHECK(s.memory[LARGE + 3 + i] ==
                        (unsigned char)t_hash((uint64_t)peer, (i + shift) >> 6),
                    "byte %zu is wrong", i);
        t_meet(t);
    }
    free(bytes);
    tear_down(&s, TUTTI_OK);
}

static void large_puts_go_through_the_ring_in_pieces(void **state)
{
    (void)state;
    run(2, large_body, NULL);
}

/* By port nothing but the proxies' copies would notice, and lose the set. */
static void memory_body(struct t_rank *t)
{
    const tutti_channel_config port = {.size = sizeof(port), .flags = TUTTI_CHANNELS_BY_PORT};
    static _Alignas(4096) unsigned char of_host[4096];
    tutti_channel_set *set = NULL;
    struct t_device device;
    void *memory;

    t_device_open(&device, t);
    T_OK(tutti_mem_alloc(t->comm, 4096, &memory)); /* which makes it a whole granule */
    for (int by_port = 0; by_port < 2; by_port++) {
        const tutti_channel_config *config = by_port ? &port : NULL;

        T_IS(TUTTI_E_ARG, tutti_channel_set_create(t->comm, of_host, 4096, config, &set));
        T_CONTAINS(tutti_last_error(), "only the first 0 are memory");
        T_IS(TUTTI_E_ARG, tutti_channel_set_create(t->comm, memory, 64 << 20, config, &set));
        T_CONTAINS(tutti_last_error(), "of the 67108864 bytes");
        T_CHECK(set == NULL, "a set in spite of the failure");
    }
    T_OK(tutti_channel_set_create(t->comm, memory, 4096, &port, &set));
    T_OK(tutti_channel_set_destroy(set));
    T_OK(tutti_mem_free(t->comm, memory));
    t_device_close(&device);
}

static void memory_that_is_none_of_the_gpu_is_refused(void **state)
{
    (void)state;
    run(2, memory_body, NULL);
}

/* ---- GPUDirect ---- */

static void expect_way(struct t_rank *t, const char *way)
{
    tutti_channel_info info = {.size = sizeof(info)};
    static struct scene s;

    set_up(&s, t, 1, 0);
    T_OK(tutti_channel_set_query(s.set, &info));
    T_CONTAINS(info.details, way);
    tear_down(&s, TUTTI_OK);
}

static void direct_body(struct t_rank *t)
{
    expect_way(t, "GPUDirect");
}

static void staged_body(struct t_rank *t)
{
    expect_way(t, "staged");
}

static void refused_body(struct t_rank *t)
{
    tutti_channel_set *set;
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, 4096, &memory));
    T_IS(TUTTI_E_UNSUPPORTED, tutti_channel_set_create(t->comm, memory, 4096,
                                                       &(const tutti_channel_config){
                                                           .size = sizeof(tutti_channel_config),
                                                           .flags = TUTTI_CHANNELS_BY_PORT},
                                                       &set));
    T_CONTAINS(tutti_last_error(), "TUTTI_NET_GPUDIRECT=on, but no device");
    T_OK(tutti_mem_free(t->comm, memory));
}

static void the_network_reaches_gpu_memory(void **state)
{
    (void)state;
    setenv("T_NET_GPU", "peermem", 1);
    run(2, direct_body, NULL);
    run(2, talk_body, &(const struct plan){1, 0, 6, 8});
    run(4, talk_body, &(const struct plan){1, 4, 2, 4});
    run(2, add_body, &(const struct plan){1, 4, 1, 8});
    run(2, large_body, NULL);
    setenv("T_NET_GPU", "dmabuf", 1);
    run(3, direct_body, NULL);
    unsetenv("T_NET_GPU");
}

/* ... or does not, or is not to, or only some of it does. */
static void else_bytes_go_through_pinned_memory(void **state)
{
    (void)state;
    run(2, staged_body, NULL);
    setenv("TUTTI_NET_GPUDIRECT", "on", 1);
    run(2, refused_body, NULL);
    setenv("TUTTI_NET_GPUDIRECT", "off", 1);
    setenv("T_NET_GPU", "peermem", 1);
    run(2, staged_body, NULL);
    unsetenv("TUTTI_NET_GPUDIRECT");
    setenv("T_NET_GPU", "lost", 1);
    run(3, staged_body, NULL);
    run(2, talk_body, &(const struct plan){1, 0, 2, 8});
    unsetenv("T_NET_GPU");
}

/* ---- failures ---- */

static uint64_t run_waiting(struct scene *s, uint64_t value)
{
    const uint64_t from = t_now_ns();

    s->args.value = value;
    launch(s, t_wait);
    return (t_now_ns() - from) / 1000000;
}

static void late_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;
    uint64_t ms;

    set_up(&s, t, plan->by_port, 0);
    t_meet(t);
    if (t->rank == 0) {
        ms = run_waiting(&s, 5);
        T_CHECK(result_of(&s) == TUTTI_E_TIMEOUT, "the wait gave %d", result_of(&s));
        T_CHECK(ms > 900 && ms < 5000 * t_scale(), "after %d ms", (int)ms);
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(s.set));
        T_CONTAINS(tutti_last_error(), "wait with rank 1");
        T_CONTAINS(tutti_last_error(), "waited for 5");
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(s.set)); /* for good */
    }
    t_meet(t);
    if (t->rank == 0)
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_destroy(s.set));
    else
        (void)tutti_channel_set_destroy(s.set);
}

static void a_kernel_gives_up_at_the_deadline(void **state)
{
    struct plan plan = {0};
    struct t_job job = t_cuda_job(2, late_body);

    (void)state;
    job.arg = &plan;
    job.config.timeout_ms = 1000;
    t_run(&job);
    plan.by_port = 1;
    t_run(&job);
}

/* Copies of one rank that never end, out of its GPU or into it; nobody waits for what they carry. */
static void stuck_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    const int stuck = (int)plan->seeds;
    static struct scene s;

    set_up(&s, t, 1, 0);
    if (t->rank == stuck)
        setenv("T_SIM_LATE_COPIES", "stuck", 1);
    t_meet(t);
    if (t->rank == 0) {
        s.args.value = 2;
        launch(&s, t_spoil);
        expect_good(&s, "a put");
    }
    for (int i = 0; i < 20000 && tutti_channel_set_status(s.set) == TUTTI_OK; i++)
        t_sleep_us(1000);
    T_CHECK(tutti_channel_set_status(s.set) != TUTTI_OK, "copies are stuck, and the set is good");
    if (t->rank == stuck) {
        T_IS(TUTTI_E_TIMEOUT, tutti_channel_set_status(s.set));
        T_CONTAINS(tutti_last_error(), "the driver has not copied from or to GPU memory for 1000");
    }
    t_meet(t);
    (void)tutti_channel_set_destroy(s.set);
}

static void copies_that_do_not_end_are_named(void **state)
{
    struct plan plan = {0};
    struct t_job job = t_cuda_job(2, stuck_body);

    (void)state;
    job.arg = &plan;
    job.config.timeout_ms = 1000;
    for (plan.seeds = 0; plan.seeds < 2; plan.seeds++)
        t_run(&job);
}

static void *abort_later(void *context)
{
    t_sleep_us(100000);
    tutti_comm_abort(context);
    return NULL;
}

static void abort_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;
    pthread_t thread;
    uint64_t ms;

    set_up(&s, t, plan->by_port, 0);
    t_meet(t);
    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_later, t->comm) == 0, "no thread");
    if (t->rank == 0 || plan->by_port) { /* ports tell the others */
        ms = run_waiting(&s, 5);
        T_CHECK(result_of(&s) == TUTTI_E_ABORTED, "the wait gave %d", result_of(&s));
        T_CHECK(ms < 2000 * t_scale(), "after %d ms", (int)ms);
        T_IS(TUTTI_E_ABORTED, tutti_channel_set_status(s.set));
    }
    if (t->rank == 0)
        pthread_join(thread, NULL);
    t_meet(t);
}

static void an_abort_ends_kernels(void **state)
{
    (void)state;
    run(2, abort_body, &(const struct plan){0});
    run(2, abort_body, &(const struct plan){.by_port = 1});
}

static void death_body(struct t_rank *t)
{
    static struct scene s;
    uint64_t ms;

    set_up(&s, t, 1, 0);
    t_meet(t);
    if (t->rank == 1) {
        t_sleep_us(50000);
        kill(getpid(), SIGKILL);
    }
    ms = run_waiting(&s, 5);
    T_CHECK(result_of(&s) < 0, "the wait gave %d", result_of(&s));
    T_CHECK(ms < 3000 * t_scale(), "after %d ms", (int)ms);
    T_IS(TUTTI_E_PEER, tutti_channel_set_status(s.set));
    T_CONTAINS(tutti_last_error(), "rank 1");
    T_IS(TUTTI_E_PEER, tutti_channel_set_destroy(s.set));
}

static void a_peer_that_dies_ends_kernels(void **state)
{
    struct t_job job = t_cuda_job(2, death_body);

    (void)state;
    job.dies = 2;
    t_run(&job);
}

static void spoil_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;

    set_up(&s, t, 1, 0);
    memset(s.memory, 7, 2 * LARGE);
    t_meet(t);
    s.args.value = plan->rounds;
    if (t->rank == 0) {
        launch(&s, t_spoil);
        for (int i = 0; i < 5000 && tutti_channel_set_status(s.set) == TUTTI_OK; i++)
            t_sleep_us(1000);
        T_IS(TUTTI_E_ARG, tutti_channel_set_status(s.set));
        T_CONTAINS(tutti_last_error(), plan->rounds ? "means nothing" : "kernel's put");
    }
    t_meet(t);
    for (size_t i = 0; i < 2 * LARGE; i += 4096)
        T_CHECK(s.memory[i] == 7 && s.memory[2 * LARGE - 1] == 7, "something was written");
    (void)tutti_channel_set_destroy(s.set);
}

static void what_leads_out_of_the_memory_is_not_carried_out(void **state)
{
    (void)state;
    run(2, spoil_body, &(const struct plan){.rounds = 0});
    run(2, spoil_body, &(const struct plan){.rounds = 1});
}

/* ---- negative controls ---- */

static void must_fail(const char *variable, const char *value, const struct plan *plan)
{
    struct t_job job = t_cuda_job(2, talk_body);
    static char text[8192];
    int is_noticed = 0;

    job.arg = (void *)(uintptr_t)plan;
    setenv(variable, value, 1);
    for (int i = 0; !is_noticed && i < 5; i++) /* what is late may be in time by chance */
        is_noticed = t_run_quietly(&job, text, sizeof(text)) &&
                     (strstr(text, "are wrong") || strstr(text, "means no place"));
    unsetenv(variable);
    assert_true(is_noticed);
}

static void order_that_is_lost_is_noticed(void **state)
{
    (void)state;
    must_fail("T_SIM_BREAK", "no_release", &(const struct plan){.seeds = 8, .rounds = 30});
    must_fail("T_SIM_BREAK", "no_release", &(const struct plan){1, 0, 8, 30});
    must_fail("T_NET", "signal_early", &(const struct plan){1, 0, 8, 100});
    setenv("T_NET_GPU", "peermem", 1);
    must_fail("T_SIM_BREAK", "no_flush", &(const struct plan){1, 0, 8, 30});
    unsetenv("T_NET_GPU");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_kernel_for_memory_and_for_ports),
        cmocka_unit_test(a_set_over_a_part_of_a_window),
        cmocka_unit_test(all_threads_add_through_a_queue_that_is_full),
        cmocka_unit_test(sets_that_share_memory_add_to_one_word),
        cmocka_unit_test(large_puts_go_through_the_ring_in_pieces),
        cmocka_unit_test(memory_that_is_none_of_the_gpu_is_refused),
        cmocka_unit_test(the_network_reaches_gpu_memory),
        cmocka_unit_test(else_bytes_go_through_pinned_memory),
        cmocka_unit_test(a_kernel_gives_up_at_the_deadline),
        cmocka_unit_test(copies_that_do_not_end_are_named),
        cmocka_unit_test(an_abort_ends_kernels),
        cmocka_unit_test(a_peer_that_dies_ends_kernels),
        cmocka_unit_test(what_leads_out_of_the_memory_is_not_carried_out),
        cmocka_unit_test(order_that_is_lost_is_noticed),
    };

    setenv("T_SIM_LATE_COPIES", "1", 1); /* copies are not there before their event is */
    if (!t_is_simulated()) {
        puts("skipped: these kernels are compiled for the simulated GPU: TUTTI_CUDA_LIBRARY");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
