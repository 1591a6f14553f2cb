/*
 * The rules of puts and signals over a provider that reorders, delays, refuses and breaks: what a signal
 * follows is there when it is seen; a source that counts as sent may be changed; a lost endpoint is an
 * error. With the fences lost on purpose the same checks find wrong data: they can fail.
 */
/* ctest: timeout=120 tsan */
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "net/net_parts.h"
#include "support/fake_net_provider.h"
#include "support/nets.h"

#define N_SLOTS    4
#define SLOT_BYTES ((size_t)8192)
#define N_BLOCKS   300
#define TIMEOUT    20000
#define WAIT_S     20
#define N          3

/* A rank's memory: from each rank a ring of slots, a flag (blocks sent) and a credit (blocks read). */
struct lane {
    unsigned char slots[N_SLOTS][SLOT_BYTES];
    _Alignas(64) _Atomic uint64_t sent;
    _Alignas(64) _Atomic uint64_t read;
};

struct area {
    struct lane from[N];
};

struct stream {
    struct tt_net *net;
    struct tt_net_region *region;
    struct area *mine;
    unsigned char *src[N][N_SLOTS]; /* not registered */
    uint64_t posted_at[N][N_SLOTS]; /* tt_net_posted() after the slot's put; 0: sent */
    uint64_t n_sent[N], n_read[N];
    uint64_t n_wrong;
};

static size_t block_bytes(uint64_t from, uint64_t to, uint64_t number)
{
    return 1 + (size_t)(t_hash(t_hash(from, to), number) % SLOT_BYTES);
}

static uint64_t block_seed(uint64_t from, uint64_t to, uint64_t number)
{
    return t_hash(from * 100 + to, number) & 0xff;
}

/* What counts as sent may be changed: so it is, at once. */
static void spoil_sent(struct stream *s, int peer)
{
    for (int k = 0; k < N_SLOTS; k++) {
        if (s->posted_at[peer][k] == 0 || tt_net_sent(s->net, peer) < s->posted_at[peer][k])
            continue;
        memset(s->src[peer][k], 0xee, SLOT_BYTES);
        s->posted_at[peer][k] = 0;
    }
}

/* One block in two puts and a signal, if there is room for it there and its source is free here. */
static void send_one(struct t_rank *t, struct stream *s, int peer)
{
    const uint64_t k = s->n_sent[peer];
    const size_t slot = k % N_SLOTS, bytes = block_bytes((uint64_t)t->rank, (uint64_t)peer, k);
    const size_t lane = offsetof(struct area, from) + (size_t)t->rank * sizeof(struct lane);
    const size_t at = lane + offsetof(struct lane, slots) + slot * SLOT_BYTES;
    unsigned char *src = s->src[peer][slot];

    spoil_sent(s, peer);
    if (k == N_BLOCKS || k - tt_load_acquire(&s->mine->from[peer].read) >= N_SLOTS ||
        s->posted_at[peer][slot] != 0)
        return;
    t_net_fill(src, bytes, block_seed((uint64_t)t->rank, (uint64_t)peer, k));
    T_OK(tt_net_put(s->net, peer, src, bytes / 2, s->region, at));
    T_OK(tt_net_put(s->net, peer, src + bytes / 2, bytes - bytes / 2, s->region, at + bytes / 2));
    s->posted_at[peer][slot] = tt_net_posted(s->net, peer);
    T_OK(tt_net_signal(s->net, peer, s->region, lane + offsetof(struct lane, sent), k + 1));
    s->n_sent[peer]++;
}

static void read_one(struct t_rank *t, struct stream *s, int peer)
{
    struct lane *lane = &s->mine->from[peer];
    const uint64_t k = s->n_read[peer];
    const size_t bytes = block_bytes((uint64_t)peer, (uint64_t)t->rank, k);
    const size_t back = offsetof(struct area, from) + (size_t)t->rank * sizeof(struct lane);

    if (k == N_BLOCKS || tt_load_acquire(&lane->sent) <= k)
        return;
    s->n_wrong += t_net_find_wrong(lane->slots[k % N_SLOTS], bytes,
                                   block_seed((uint64_t)peer, (uint64_t)t->rank, k)) != bytes;
    s->n_read[peer]++;
    T_OK(tt_net_signal(s->net, peer, s->region, back + offsetof(struct lane, read), k + 1));
}

static int is_over(struct t_rank *t, const struct stream *s)
{
    for (int r = 0; r < t->n_ranks; r++) {
        if (r != t->rank && (s->n_sent[r] < N_BLOCKS || s->n_read[r] < N_BLOCKS))
            return 0;
    }
    return 1;
}

struct plan {
    const struct tt_net_provider *provider;
    int loses_fences;
};

static atomic_ullong total_wrong; /* of the job's ranks, which are threads */

/* Rank 0, when all nets are gone. */
static void check_counts(const struct plan *plan)
{
    const struct t_fake_net *f = &t_fake_net;
    const unsigned long long wrong = atomic_load(&total_wrong);

    printf("%s: %llu delivered, %llu of them ahead of others, %llu refusals, %llu blocks wrong\n",
           plan->provider->fence_orders ? "fences" : "flushes", (unsigned long long)f->n_delivered,
           (unsigned long long)f->n_overtaken, (unsigned long long)f->n_refused, wrong);
    T_CHECK(f->n_wrong == 0, "%llu accesses to memory that is not registered",
            (unsigned long long)f->n_wrong);
    T_CHECK(f->n_bundled > 0 && f->n_bundled < f->n_delivered / 2, "%llu bundles",
            (unsigned long long)f->n_bundled);
    T_CHECK(f->n_heads > 0, "no small put went along with a larger one and its signal");
    T_CHECK(f->n_overtaken > f->n_delivered / 20, "the fake hardly reorders");
    if (plan->loses_fences)
        T_CHECK(wrong > 0, "fences are lost, and nobody notices");
    else
        T_CHECK(wrong == 0, "%llu blocks are wrong", wrong);
}

static void stream_all(struct t_rank *t, struct stream *s)
{
    const struct plan *plan = t->arg;
    const uint64_t limit_s = plan->loses_fences ? 2 : WAIT_S * t_scale();
    const uint64_t end = tt_now_ns() + limit_s * 1000000000u;

    while (!is_over(t, s)) {
        for (int r = 0; r < t->n_ranks; r++) {
            if (r == t->rank)
                continue;
            send_one(t, s, r);
            read_one(t, s, r);
        }
        T_OK(tt_net_progress(s->net));
        if (tt_now_ns() < end)
            continue;
        T_CHECK(plan->loses_fences, "rank %d has stopped at %llu sent, %llu read", t->rank,
                (unsigned long long)s->n_sent[(t->rank + 1) % N],
                (unsigned long long)s->n_read[(t->rank + 1) % N]);
        return; /* one signal has overtaken the next, so that a word went back */
    }
}

static void stream_body(struct t_rank *t)
{
    const struct tt_exchange x = t_net_exchange(t);
    const struct plan *plan = t->arg;
    struct stream s = {.net = t_net_new(t, plan->provider, TIMEOUT)};

    s.mine = aligned_alloc(64, sizeof(*s.mine));
    memset((void *)s.mine, 0, sizeof(*s.mine));
    for (int i = 0; i < N * N_SLOTS; i++)
        s.src[i / N_SLOTS][i % N_SLOTS] = malloc(SLOT_BYTES);
    T_OK(tt_net_expose(s.net, &x, s.mine, sizeof(*s.mine), &s.region));
    stream_all(t, &s);
    atomic_fetch_add(&total_wrong, s.n_wrong);
    tt_net_destroy(s.net); /* the last credits go to who may have left */
    t_meet(t);
    if (t->rank == 0)
        check_counts(plan);
    for (int i = 0; i < N * N_SLOTS; i++)
        free(s.src[i / N_SLOTS][i % N_SLOTS]);
    free((void *)s.mine);
}

static void run(void (*body)(struct t_rank *), const struct plan *plan, int n_ranks)
{
    const struct t_job job = {.n_ranks = n_ranks,
                              .no_comm = 1,
                              .threads = 1,
                              .body = body,
                              .arg = (void *)(uintptr_t)plan};

    t_run(&job);
}

static void test_streams(void **state)
{
    const struct plan fences = {.provider = &t_fake_provider};
    const struct plan flushes = {.provider = &t_fake_unordered};

    (void)state;
    for (uint64_t seed = 1; seed <= t_times(2, 20); seed++) {
        t_fake_net_reset(seed);
        t_fake_net.busy_percent = 30;
        run(stream_body, &fences, N);
        t_fake_net_reset(seed);
        t_fake_net.busy_percent = 10;
        run(stream_body, &flushes, N);
    }
}

/* The negative control. */
static void test_lost_fences_are_caught(void **state)
{
    const struct plan plan = {.provider = &t_fake_provider, .loses_fences = 1};

    (void)state;
    t_fake_net_reset(1);
    t_fake_net.loses_fences = 1;
    run(stream_body, &plan, N);
}

/* ---- limits ---- */

#define BIG ((size_t)32 << 20)

/* A peer that does not progress takes a bounded amount, and posting to it ends with its name. */
static void flood(struct t_rank *t)
{
    const struct tt_exchange x = t_net_exchange(t);
    const struct plan *plan = t->arg;
    struct tt_net *net = t_net_new(t, plan->provider, 700);
    struct tt_net_region *region;
    unsigned char *mine = aligned_alloc(64, BIG);
    tutti_result result = TUTTI_OK;

    memset(mine, t->rank, BIG);
    T_OK(tt_net_expose(net, &x, mine, BIG, &region));
    T_OK(tt_net_signal(net, 1 - t->rank, region, 0, UINT64_MAX));
    t_net_wait(net, mine, UINT64_MAX, WAIT_S);
    while (tt_net_sent(net, 1 - t->rank) < 1)
        T_OK(tt_net_progress(net));
    t_meet(t);
    if (t->rank == 0) {
        for (int i = 0; i < 1000 && result == TUTTI_OK; i++)
            result = tt_net_put(net, 1, mine, BIG, region, 0);
        T_CHECK(result == TUTTI_E_TIMEOUT, "%s", tutti_result_name(result));
        T_CONTAINS(tutti_last_error(), "rank 1 on ");
        T_CHECK(tt_net_posted(net, 1) == 1 + 256, "%llu are posted",
                (unsigned long long)tt_net_posted(net, 1));
        T_CHECK(t_fake_net.most_bytes <= TT_NET_MAX_FLYING &&
                    t_fake_net.most_bytes > TT_NET_MAX_FLYING / 2,
                "%llu bytes under way", (unsigned long long)t_fake_net.most_bytes);
        T_CHECK(t_fake_net.most_requests <= TT_NET_MAX_FLIGHTS, "%llu requests under way",
                (unsigned long long)t_fake_net.most_requests);
    }
    t_meet(t);
    tt_net_hide(region);
    tt_net_destroy(net);
    t_meet(t);
    T_CHECK(t_fake_net.n_wrong == 0, "memory that was given back is used");
    free(mine);
}

static void test_flood(void **state)
{
    const struct plan plan = {.provider = &t_fake_provider};

    (void)state;
    t_fake_net_reset(5);
    run(flood, &plan, 2);
}

/* ---- arguments, regions ---- */

static void refuse(struct t_rank *t)
{
    const struct tt_exchange x = t_net_exchange(t);
    const struct plan *plan = t->arg;
    struct tt_net *net = t_net_new(t, plan->provider, TIMEOUT);
    struct tt_net_region *region;
    unsigned char *mine = aligned_alloc(64, 4096);
    const int peer = 1 - t->rank;

    /* Rank 1 offers nothing. */
    T_OK(tt_net_expose(net, &x, mine, t->rank == 0 ? 4096 : 0, &region));
    if (t->rank == 0) {
        T_IS(TUTTI_E_ARG, tt_net_put(net, peer, mine, 1, region, 0));
        T_IS(TUTTI_E_ARG, tt_net_signal(net, peer, region, 0, 1));
    } else {
        T_IS(TUTTI_E_ARG, tt_net_put(net, peer, mine, 4097, region, 0));
        T_IS(TUTTI_E_ARG, tt_net_put(net, peer, mine, 1, region, 4096));
        T_IS(TUTTI_E_ARG, tt_net_put(net, peer, mine, UINT64_MAX, region, 2));
        T_IS(TUTTI_E_ARG, tt_net_put(net, peer, mine, 2, region, UINT64_MAX));
        T_IS(TUTTI_E_ARG, tt_net_put(net, 1, mine, 1, region, 0));
        T_IS(TUTTI_E_ARG, tt_net_put(net, 2, mine, 1, region, 0));
        T_IS(TUTTI_E_ARG, tt_net_put(net, -1, mine, 1, region, 0));
        T_IS(TUTTI_E_ARG, tt_net_signal(net, peer, region, 4, 1));
        T_IS(TUTTI_E_ARG, tt_net_signal(net, peer, region, 4096, 1));
        T_CHECK(tt_net_posted(net, peer) == 0, "what was refused is counted");
        T_OK(tt_net_put(net, peer, mine, 0, region, 4096)); /* nothing, at the end */
    }
    tt_net_hide(region);
    /* One that is not aligned: both are told. */
    T_IS(TUTTI_E_ARG, tt_net_expose(net, &x, mine + t->rank * 8, 1024, &region));
    T_CONTAINS(tutti_last_error(), "64-byte aligned");
    if (t->rank == 0)
        T_CONTAINS(tutti_last_error(), "rank 1 on ");
    tt_net_destroy(net);
    t_meet(t);
    free(mine);
}

/* Puts from a region that is hidden at once: they are sent first. */
static void hide_early(struct t_rank *t)
{
    const struct tt_exchange x = t_net_exchange(t);
    const struct plan *plan = t->arg;
    struct tt_net *net = t_net_new(t, plan->provider, TIMEOUT);
    struct tt_net_region *regions[2];
    unsigned char *mine = aligned_alloc(64, BIG), *other = aligned_alloc(64, 4096);

    memset(other, 0, 4096);
    T_OK(tt_net_expose(net, &x, mine, BIG, &regions[0]));
    T_OK(tt_net_expose(net, &x, other, 4096, &regions[1]));
    if (t->rank == 0) {
        t_net_fill(mine, BIG, 9);
        T_OK(tt_net_put(net, 1, mine, BIG, regions[0], 0));
        T_OK(tt_net_signal(net, 1, regions[1], 64, 1));
        tt_net_hide(regions[0]);
        memset(mine, 0, BIG);
    } else {
        t_net_wait(net, other + 64, 1, WAIT_S);
        T_CHECK(t_net_find_wrong(mine, BIG, 9) == BIG,
                "what was hidden while it was sent is wrong");
        tt_net_hide(regions[0]);
    }
    tt_net_hide(regions[1]);
    tt_net_destroy(net);
    t_meet(t);
    T_CHECK(t_fake_net.n_wrong == 0, "memory that was given back is used");
    free(mine);
    free(other);
}

static void test_regions(void **state)
{
    const struct plan plan = {.provider = &t_fake_provider};

    (void)state;
    t_fake_net_reset(6);
    run(refuse, &plan, 2);
    t_fake_net_reset(7);
    run(hide_early, &plan, 2);
}

/* ---- failure ---- */

/* The provider loses an endpoint, though the peer lives: an error that names it, after a moment. */
static void lose_endpoint(struct t_rank *t)
{
    const struct tt_exchange x = t_net_exchange(t);
    const struct plan *plan = t->arg;
    struct tt_net *net = t_net_new(t, plan->provider, TIMEOUT);
    const uint64_t end = tt_now_ns() + (uint64_t)5 * t_scale() * 1000000000u;
    struct tt_net_region *region;
    unsigned char *mine = aligned_alloc(64, 4096);
    tutti_result result = TUTTI_OK;

    T_OK(tt_net_expose(net, &x, mine, 4096, &region));
    while (result == TUTTI_OK && tt_now_ns() < end) {
        if (t->rank == 0)
            result = tt_net_put(net, 1, mine, 64, region, 0);
        if (result == TUTTI_OK)
            result = tt_net_progress(net);
    }
    T_CHECK(result == TUTTI_E_PEER, "%s: %s", tutti_result_name(result), tutti_last_error());
    if (t->rank == 0) {
        T_CONTAINS(tutti_last_error(), "lost rank 1 on ");
        T_CONTAINS(tutti_last_error(), "the fake broke it");
        T_CHECK(tt_net_sent(net, 1) < tt_net_posted(net, 1), "what was lost counts as sent");
    }
    t_meet(t);
    tt_net_destroy(net);
    t_meet(t);
    free(mine);
}

/* One rank cannot: all are told which, and why. */
static void fail_open(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    struct tt_net *net = NULL;

    T_IS(TUTTI_E_SYSTEM, t_net_try(t, plan->provider, TIMEOUT, &net));
    T_CONTAINS(tutti_last_error(), "the fake does not want to");
    if (t->rank != 1)
        T_CONTAINS(tutti_last_error(), "rank 1 on ");
    T_CHECK(!net, "a net all the same");
    t_meet(t);
}

static void test_failures(void **state)
{
    const struct plan plan = {.provider = &t_fake_provider};

    (void)state;
    t_fake_net_reset(8);
    t_fake_net.break_after = 20;
    run(lose_endpoint, &plan, 2);
    t_fake_net_reset(9);
    t_fake_net.fails_open_of = 2;
    run(fail_open, &plan, 3);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),  cmocka_unit_test(test_lost_fences_are_caught),
        cmocka_unit_test(test_flood),    cmocka_unit_test(test_regions),
        cmocka_unit_test(test_failures),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
