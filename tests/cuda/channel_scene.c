#include "channel_scene.h"

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

void t_scene_open_over(struct scene *s, struct t_rank *t, int by_port, uint32_t n_slots,
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

void t_scene_open(struct scene *s, struct t_rank *t, int by_port, uint32_t n_slots)
{
    void *memory;

    T_OK(tutti_mem_alloc(t->comm, 2 * LARGE, &memory));
    t_scene_open_over(s, t, by_port, n_slots, memory);
}

void t_scene_launch(struct scene *s, tt_sim_kernel kernel)
{
    tt_sim_run(kernel, &s->args, BLOCKS, THREADS, BLOCKS);
}

int t_scene_result(const struct scene *s)
{
    return (int)(int64_t)__atomic_load_n(&s->words[1], __ATOMIC_RELAXED);
}

void t_scene_close_over(struct scene *s, tutti_result want)
{
    T_IS(want, tutti_channel_set_destroy(s->set));
    t_device_free(s->words);
    t_device_close(&s->device);
}

void t_scene_close(struct scene *s, tutti_result want)
{
    t_scene_close_over(s, want);
    T_OK(tutti_mem_free(s->t->comm, s->memory));
}

void t_scene_expect_good(struct scene *s, const char *what)
{
    if (t_scene_result(s) != TUTTI_OK)
        T_OK(tutti_channel_set_status(s->set));
    T_CHECK(t_scene_result(s) == TUTTI_OK, "%s gave %d", what, t_scene_result(s));
    T_CHECK(s->words[0] == 0, "%s: %llu words are wrong", what, (unsigned long long)s->words[0]);
}

void t_talk_body(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    static struct scene s;

    t_scene_open(&s, t, plan->by_port, plan->n_slots);
    s.args.rounds = plan->rounds;
    for (uint64_t seed = 0; seed < plan->seeds; seed++) {
        tt_sim_set_weather(seed);
        s.args.seed = seed;
        t_scene_launch(&s, t_talk);
        t_scene_expect_good(&s, "messages");
        s.args.rounds = 2 * plan->rounds; /* of packets; flags begin anew in another place */
        if (seed == 0)
            t_scene_launch(&s, t_packets);
        t_scene_expect_good(&s, "packets");
        s.args.rounds = plan->rounds;
    }
    t_scene_close(&s, TUTTI_OK);
}

int t_channels_begin(void)
{
    setenv("T_SIM_LATE_COPIES", "1", 1); /* copies are not there before their event is */
    if (t_is_simulated())
        return 1;
    puts("skipped: these kernels are compiled for the simulated GPU: TUTTI_CUDA_LIBRARY");
    return 0;
}

void t_channels_run(int n, void (*body)(struct t_rank *t), const struct plan *plan)
{
    struct t_job job = t_cuda_job(n, body);

    job.arg = (void *)(uintptr_t)plan;
    t_run(&job);
}
