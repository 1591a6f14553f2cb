/*
 * Collectives across hosts beside one put and signal of the network, in one run:
 *     tutti run -n 4 -- build/release/bench/hosts_bench [ranks per host [largest size [calls]]]
 * With an argument (not 0) the ranks of this machine count as on several hosts, that many on each. Times are those of
 * the slowest rank, in microseconds: the median of the batches, below it their 99th percentile (a batch's time is the
 * mean of its calls; a third argument says of how many at most: few, where packets are lost, or every batch has lost
 * one). The batches of all calls take turns. "-": of so few bytes there is nothing for each rank.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "boot/boot.h"
#include "net/net.h"

enum { N_BATCHES = 101, P50 = 50, P99 = 99, MOST = 4 << 20 };

struct bench {
    tutti_comm *comm;
    int rank, n_ranks, per_host, most_calls;
    float *send, *recv;
    struct tt_net *net;
    struct tt_net_region *region;
    unsigned char *arena;
    uint64_t round;
};

typedef void (*call_fn)(struct bench *b, size_t bytes);

static void check(tutti_result result, const char *what)
{
    if (result == TUTTI_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, tutti_result_name(result), tutti_last_error());
    exit(1);
}

static void all_reduce(struct bench *b, size_t bytes)
{
    check(
        tutti_all_reduce(b->comm, b->send, b->recv, bytes / 4, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL),
        "all_reduce");
}

static void all_gather(struct bench *b, size_t bytes)
{
    check(tutti_all_gather(b->comm, b->send, b->recv, bytes / 4 / (size_t)b->n_ranks,
                           TUTTI_DTYPE_F32, NULL),
          "all_gather");
}

static void reduce_scatter(struct bench *b, size_t bytes)
{
    check(tutti_reduce_scatter(b->comm, b->send, b->recv, bytes / 4 / (size_t)b->n_ranks,
                               TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL),
          "reduce_scatter");
}

static void broadcast(struct bench *b, size_t bytes)
{
    check(tutti_broadcast(b->comm, b->recv, bytes / 4, TUTTI_DTYPE_F32, 0, NULL), "broadcast");
}

static void barrier(struct bench *b, size_t bytes)
{
    (void)bytes;
    check(tutti_barrier(b->comm, NULL), "barrier");
}

/* ---- the network alone: there and back between the first rank and the last, half of which counts ---- */

static tutti_result gather(void *context, const void *send, void *recv, size_t bytes)
{
    return tutti_all_gather(context, send, recv, bytes, TUTTI_DTYPE_U8, NULL);
}

static void open_net(struct bench *b)
{
    static const unsigned char key[32] = "a key for a bench of all";
    const struct tt_exchange x = {.rank = b->rank,
                                  .n_ranks = b->n_ranks,
                                  .all_gather = gather,
                                  .context = b->comm,
                                  .deadline_ns = tt_now_ns() + UINT64_C(30000000000)};
    int *host_of = calloc((size_t)b->n_ranks, sizeof(*host_of));
    struct tt_net_config config = {.rank = b->rank,
                                   .n_ranks = b->n_ranks,
                                   .host_of = host_of,
                                   .timeout_ns = UINT64_C(30000000000),
                                   .key = key,
                                   .exchange = &x};

    for (int r = 0; host_of && r < b->n_ranks; r++)
        host_of[r] = b->per_host ? r / b->per_host : r;
    b->arena = mmap(NULL, MOST + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!host_of || b->arena == MAP_FAILED)
        exit(1);
    check(tt_net_create(&config, &b->net), "net");
    check(tt_net_expose(b->net, &x, b->arena, MOST + 4096, &b->region), "expose");
    free(host_of);
}

static void put(struct bench *b, size_t bytes)
{
    const int peer = b->rank == 0 ? b->n_ranks - 1 : 0;
    const _Atomic uint64_t *flag = (_Atomic uint64_t *)(void *)b->arena;
    const uint64_t round = ++b->round;

    if (b->rank != 0 && b->rank != b->n_ranks - 1)
        return;
    for (int turn = 0; turn < 2; turn++) {
        if ((b->rank == 0) == (turn == 0)) {
            check(tt_net_put(b->net, peer, b->send, bytes, b->region, 4096), "put");
            check(tt_net_signal(b->net, peer, b->region, 0, round), "signal");
        } else {
            while (tt_load_acquire(flag) < round)
                check(tt_net_progress(b->net), "progress");
        }
    }
    while (tt_net_sent(b->net, peer) < tt_net_posted(b->net, peer))
        check(tt_net_progress(b->net), "progress");
}

/* Both at once, as in a collective. */
static void exchange(struct bench *b, size_t bytes)
{
    const int peer = b->rank == 0 ? b->n_ranks - 1 : 0;
    const _Atomic uint64_t *flag = (_Atomic uint64_t *)(void *)b->arena;
    const uint64_t round = ++b->round;

    if (b->rank != 0 && b->rank != b->n_ranks - 1)
        return;
    check(tt_net_put(b->net, peer, b->send, bytes, b->region, 4096), "put");
    check(tt_net_signal(b->net, peer, b->region, 0, round), "signal");
    while (tt_load_acquire(flag) < round || tt_net_sent(b->net, peer) < tt_net_posted(b->net, peer))
        check(tt_net_progress(b->net), "progress");
}

/* ---- measuring ---- */

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Whether a call of so many bytes is one: those of parts have one for every rank. */
static int has_any(const struct bench *b, call_fn call, size_t bytes)
{
    return (call != reduce_scatter && call != all_gather) || bytes / 4 >= (size_t)b->n_ranks;
}

static float batch(struct bench *b, call_fn call, size_t bytes)
{
    int n = bytes <= 4096 ? 50 : bytes <= 65536 ? 20 : 4;
    uint64_t start;

    n = n < b->most_calls ? n : b->most_calls;

    call(b, bytes);
    check(tutti_barrier(b->comm, NULL), "barrier");
    start = tt_now_ns();
    for (int i = 0; i < n; i++)
        call(b, bytes);
    return (float)((double)(tt_now_ns() - start) / 1e3 / n / (call == put ? 2 : 1));
}

static void measure(struct bench *b, size_t bytes)
{
    static const call_fn calls[] = {put,        exchange,  all_reduce, reduce_scatter,
                                    all_gather, broadcast, barrier};
    enum { N_CALLS = sizeof(calls) / sizeof(calls[0]) };
    static float us[N_CALLS][N_BATCHES];

    for (int i = 0; i < N_BATCHES; i++)
        for (int c = 0; c < N_CALLS; c++)
            us[c][i] = has_any(b, calls[c], bytes) ? batch(b, calls[c], bytes) : 0;
    check(tutti_all_reduce(b->comm, us, us, (size_t)N_CALLS * N_BATCHES, TUTTI_DTYPE_F32,
                           TUTTI_OP_MAX, NULL),
          "the slowest rank");
    for (int c = 0; c < N_CALLS; c++)
        qsort(us[c], N_BATCHES, sizeof(us[c][0]), by_value);
    if (b->rank != 0)
        return;
    for (int p = 0; p < 2; p++) {
        if (p == 0)
            printf("%10zu", bytes);
        else
            printf("%10s", "p99");
        for (int c = 0; c < N_CALLS; c++) {
            if (has_any(b, calls[c], bytes))
                printf(" %12.1f", (double)us[c][p ? P99 : P50]);
            else
                printf(" %12s", "-");
        }
        if (p == 0)
            printf("   all_reduce %.2f of a put, %.2f of an exchange",
                   (double)(us[2][P50] / us[0][P50]), (double)(us[2][P50] / us[1][P50]));
        printf("\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {8, 64, 1024, 16384, 65536, 262144, 1 << 20, MOST};
    struct bench b = {.per_host = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0,
                      .most_calls = argc > 3 ? (int)strtol(argv[3], NULL, 10) : INT_MAX};
    const size_t most = argc > 2 ? strtoul(argv[2], NULL, 10) : MOST;
    const char *rank = getenv("TUTTI_RANK");
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    char name[32];

    if (b.per_host > 0 && rank) {
        snprintf(name, sizeof(name), "host%ld", strtol(rank, NULL, 10) / b.per_host);
        setenv("TUTTI_HOST", name, 1);
    }
    check(tutti_comm_create_from_env(NULL, &b.comm), "create");
    check(tutti_comm_query(b.comm, &info), "query");
    b.rank = info.rank;
    b.n_ranks = info.n_ranks;
    b.send = calloc(1, MOST);
    b.recv = calloc(1, MOST);
    if (!b.send || !b.recv || b.n_ranks < 2 || b.most_calls < 1)
        exit(1);
    open_net(&b);
    if (b.rank == 0)
        printf("%d ranks, %s\n%10s %12s %12s %12s %12s %12s %12s %12s  us\n", b.n_ranks,
               info.details, "bytes", "put+signal", "exchange", "all_reduce", "red_scatter",
               "all_gather", "broadcast", "barrier");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && sizes[i] <= most; i++)
        measure(&b, sizes[i]);
    check(tutti_barrier(b.comm, NULL), "barrier");
    tt_net_hide(b.region);
    tt_net_destroy(b.net);
    tutti_comm_destroy(b.comm);
    free(b.send);
    free(b.recv);
    return 0;
}
