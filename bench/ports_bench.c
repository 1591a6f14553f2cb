/*
 * Port channels from host code, between two ranks of one machine through the network:
 *     tutti run -n 2 -- build/release/bench/ports_bench
 * Trigger to proxy: from before a trigger is queued until its proxy has understood it (a flush, which sends
 * nothing at once). Trigger to wire: of a put, until the kernel gives its packet to the network interface, and
 * until the network's call, which carries it to the receiver's socket where that is near, has returned.
 * There and back: a put with a signal and the same as an answer; half of it counts. Rate: puts of 8 bytes with
 * a signal on 16 channels, flushed at the end, against the number of proxies. Medians and, since cores may be
 * shared, the fastest tenth, in microseconds.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tutti/device.h>

#include "wire_tap.h"

enum { CHANNELS = 16, MOST = 4 << 20, SAMPLES = 4000 };

struct bench {
    tutti_comm *comm;
    tutti_comm_info info;
    unsigned char *memory;
    tutti_channel_set *set;
    tutti_channel ch[CHANNELS];
};

static void check(int result, const char *what)
{
    if (result == TUTTI_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, tutti_last_error());
    exit(1);
}

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void print(const char *what, uint64_t bytes, double *us, int n)
{
    qsort(us, (size_t)n, sizeof(*us), by_value);
    printf("%-17s %8llu bytes %10.2f us, a tenth %10.2f us\n", what, (unsigned long long)bytes,
           us[n / 2], us[n / 10]);
}

static void open_set(struct bench *b, uint32_t n_proxies, uint32_t flags)
{
    tutti_channel_config config = TUTTI_CHANNEL_CONFIG_INIT;

    config.n_proxies = n_proxies;
    config.n_channels = CHANNELS;
    config.flags = flags;
    check(tutti_channel_set_create(b->comm, b->memory, (size_t)2 * MOST, &config, &b->set),
          "channels");
    for (uint32_t i = 0; i < CHANNELS; i++)
        check(tutti_channel_get(b->set, 1 - b->info.rank, i, TUTTI_CHANNEL_HOST, &b->ch[i]),
              "channel");
}

/* Rank 0 alone: the other's proxy answers nothing, or later. By a tap the wire is seen, too. */
static void trigger_to(struct bench *b, const char *what, tutti_channel_op op, int tap)
{
    static double us[SAMPLES], wire_us[SAMPLES];
    const tutti_channel *c = &b->ch[0];
    int n_seen = 0;

    for (int i = 0; b->info.rank == 0 && i < SAMPLES; i++) {
        const uint64_t begin = wire_now_ns();
        const double from = now_us();
        uint64_t number, stamp;

        check(tutti_dev_push(c, op, MOST, 0, 8, &number), "push");
        while (tutti_dev_acquire(c->done) <= number)
            sched_yield(); /* to the proxy, where cores are few */
        us[i] = now_us() - from;
        while (now_us() - from < 20) /* not the rate: each by itself */
            sched_yield();
        stamp = tap < 0 ? 0 : wire_tap_first(tap, begin);
        if (stamp)
            wire_us[n_seen++] = (double)(stamp - begin) * 1e-3;
    }
    if (b->info.rank == 0) {
        check(tutti_channel_flush(c), "flush");
        if (n_seen > 0)
            print("trigger to wire", 8, wire_us, n_seen);
        print(what, 8, us, SAMPLES);
    }
    check(tutti_barrier(b->comm, NULL), "barrier");
}

static void triggers(struct bench *b)
{
    const int tap = b->info.rank == 0 ? wire_tap_open("lo") : -1;

    if (b->info.rank == 0 && tap < 0)
        printf("(the wire cannot be seen: that takes CAP_NET_RAW)\n");
    trigger_to(b, "trigger to proxy", TUTTI_CHANNEL_FLUSH, -1);
    trigger_to(b, "its call returns", TUTTI_CHANNEL_PUT_WITH_SIGNAL, tap);
    if (tap >= 0)
        close(tap);
}

static void there_and_back(struct bench *b, uint64_t bytes)
{
    static double us[SAMPLES];
    const int n = bytes < 65536 ? SAMPLES : SAMPLES / 20;
    const tutti_channel *c = &b->ch[1];
    const uint64_t before = tutti_channel_n_signals(c);

    check(tutti_barrier(b->comm, NULL), "barrier");
    for (int i = 0; i < n; i++) {
        const double from = now_us();

        if (b->info.rank == 0)
            check(tutti_channel_put_with_signal(c, MOST, 0, bytes, 0, 1), "put");
        check(tutti_channel_wait(c, before + (uint64_t)i + 1), "wait");
        if (b->info.rank == 1)
            check(tutti_channel_put_with_signal(c, MOST, 0, bytes, 0, 1), "put");
        us[i] = (now_us() - from) / 2;
    }
    if (b->info.rank == 0)
        print("one way", bytes, us, n);
    check(tutti_barrier(b->comm, NULL), "barrier");
}

static void rate(struct bench *b, uint32_t n_proxies)
{
    const int n = 20000;
    double from;

    check(tutti_barrier(b->comm, NULL), "barrier");
    from = now_us();
    for (int i = 0; b->info.rank == 0 && i < n; i++)
        check(tutti_channel_put_with_signal(&b->ch[i % CHANNELS], MOST, 0, 8, 0, 1), "put");
    for (int i = 0; b->info.rank == 0 && i < CHANNELS; i++)
        check(tutti_channel_flush(&b->ch[i]), "flush");
    if (b->info.rank == 0)
        printf("%2u proxies  %8.2f million messages/s\n", n_proxies, n / (now_us() - from));
    check(tutti_barrier(b->comm, NULL), "barrier");
}

static void close_set(struct bench *b)
{
    check(tutti_channel_set_destroy(b->set), "destroy");
}

int main(void)
{
    struct bench b = {.info = TUTTI_COMM_INFO_INIT};
    void *memory;

    check(tutti_comm_create_from_env(NULL, &b.comm), "create");
    check(tutti_comm_query(b.comm, &b.info), "query");
    if (b.info.n_ranks != 2) {
        fprintf(stderr, "ports_bench is for two ranks: tutti run -n 2 -- ports_bench\n");
        return 1;
    }
    check(tutti_mem_alloc(b.comm, (size_t)2 * MOST, &memory), "memory");
    b.memory = memory;
    for (uint32_t flags = 0; flags < 2; flags++) {
        open_set(&b, 1, flags);
        if (b.info.rank == 0)
            printf("--- %s\n", flags ? "by port" : "by memory");
        if (flags)
            triggers(&b);
        for (uint64_t bytes = 8; bytes <= MOST; bytes *= 8)
            there_and_back(&b, bytes);
        close_set(&b);
    }
    for (uint32_t n = 1; n <= 8; n *= 2) {
        open_set(&b, n, TUTTI_CHANNELS_BY_PORT);
        rate(&b, n);
        close_set(&b);
    }
    check(tutti_mem_free(b.comm, memory), "free");
    tutti_comm_destroy(b.comm);
    return 0;
}
