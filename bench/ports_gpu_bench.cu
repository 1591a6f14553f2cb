/*
 * Port channels from kernels, between two GPUs of one machine through the network:
 *     tutti run -n 2 -- build/release/bench/ports_gpu_bench
 * Trigger to proxy: from before a kernel queues a trigger until its proxy has understood it (a flush, which sends
 * nothing at once), and until the network's call has returned (packets), which carries them to the receiver's
 * socket where that is near. The kernel sees either by a word in host memory; what that way back takes is
 * subtracted: half of what a word takes to a thread of the host and back. Trigger to wire: until the packet is
 * given to the network interface, by its stamp; the two clocks are compared before and after. Then a put with a
 * signal there and back (half of it), packets there and back, and the rate of small messages of 16 blocks against
 * the number of proxies. Medians, in microseconds.
 */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <cuda_runtime.h>
#include <tutti/device.h>

#include "wire_tap.h"

enum { CHANNELS = 16, MOST = 4 << 20, SAMPLES = 2000, RATE = 2000 };

struct channels {
    tutti_channel at[CHANNELS];
};

static void check(int result, const char *what)
{
    if (result == TUTTI_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, tutti_last_error());
    exit(1);
}

static void cuda(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

#include "ports_gpu_kernels.inc"

static uint64_t answered[SAMPLES]; /* when, by the host's clock */

static void answer(uint64_t *word)
{
    for (uint64_t i = 1; i <= SAMPLES; i++) {
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) < i)
            ;
        __atomic_store_n(word + 16, i, __ATOMIC_RELEASE);
        answered[i - 1] = wire_now_ns();
    }
}

struct bench {
    tutti_comm *comm;
    tutti_comm_info info;
    void *memory;
    tutti_channel_set *set;
    channels ch;
    uint64_t *out, *word; /* of the host, seen by kernels */
    uint32_t flag;
};

struct moment { /* by both clocks */
    uint64_t gpu_ns, host_ns;
};

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static double median_us(uint64_t *ns, int n)
{
    qsort(ns, (size_t)n, sizeof(*ns), by_value);
    return (double)ns[n / 2] * 1e-3;
}

static void open_set(bench *b, uint32_t n_proxies)
{
    tutti_channel_config config = TUTTI_CHANNEL_CONFIG_INIT;

    config.n_proxies = n_proxies;
    config.n_channels = CHANNELS;
    config.flags = TUTTI_CHANNELS_BY_PORT;
    check(tutti_channel_set_create(b->comm, b->memory, (size_t)2 * MOST, &config, &b->set),
          "channels");
    for (uint32_t i = 0; i < CHANNELS; i++)
        check(tutti_channel_get(b->set, 1 - b->info.rank, i, TUTTI_CHANNEL_KERNEL, &b->ch.at[i]),
              "channel");
}

static void finish(bench *b, const char *what)
{
    cuda(cudaGetLastError(), what);
    cuda(cudaDeviceSynchronize(), what);
    check(tutti_channel_set_status(b->set), what);
    check(tutti_barrier(b->comm, NULL), "barrier");
    cuda(cudaDeviceSynchronize(), "barrier");
}

/* One way of a word between a kernel and the host; and what the host's clock says in the middle of the fastest. */
static double run_echo(bench *b, moment *when)
{
    int best = 0;

    b->word[0] = b->word[16] = 0;
    std::thread host(answer, b->word);
    echo<<<1, 1>>>(b->word, b->out);
    cuda(cudaDeviceSynchronize(), "echo");
    __atomic_store_n(b->word, SAMPLES, __ATOMIC_RELEASE); /* if the kernel has given up */
    host.join();
    for (int i = 1; i < SAMPLES; i++)
        if (b->out[i] < b->out[best])
            best = i;
    when->gpu_ns = b->out[SAMPLES + best] + b->out[best] / 2;
    when->host_ns = answered[best];
    return median_us(b->out, SAMPLES) / 2;
}

static void run_trigger(bench *b, const char *what, tutti_channel_op op, double way_back)
{
    if (b->info.rank == 0)
        trigger_to<<<1, 1>>>(b->ch, op, b->out);
    finish(b, what);
    if (b->info.rank == 0)
        printf("%-28s %8.2f us (and %.2f until the kernel knows)\n", what,
               median_us(b->out, SAMPLES) - way_back, way_back);
}

/* The first packet after each trigger. */
static void print_wire(const uint64_t *triggered, const uint64_t *stamps, int n_stamps, moment from,
                       moment to)
{
    static uint64_t took[SAMPLES];
    const double speed = (double)(to.host_ns - from.host_ns) / (double)(to.gpu_ns - from.gpu_ns);
    int n = 0;

    for (int i = 0, k = 0; i < SAMPLES; i++) {
        const uint64_t begin =
            from.host_ns + (uint64_t)((double)(triggered[i] - from.gpu_ns) * speed);

        while (k < n_stamps && stamps[k] < begin)
            k++;
        if (k < n_stamps && stamps[k] - begin < 30000)
            took[n++] = stamps[k] - begin;
    }
    printf("%-28s %8.2f us (%d of %d packets seen; clocks differ by %.1f us a second)\n",
           "trigger to wire", n ? median_us(took, n) : 0, n, SAMPLES, (speed - 1) * 1e6);
}

static void run_wire(bench *b)
{
    static uint64_t stamps[8 * SAMPLES], triggered[SAMPLES];
    const int is_first = b->info.rank == 0, tap = is_first ? wire_tap_open("lo") : -1;
    moment from, to;
    int n = 0;

    if (is_first && tap < 0)
        printf("(the wire cannot be seen: that takes CAP_NET_RAW)\n");
    if (tap >= 0) {
        run_echo(b, &from);
        (void)wire_tap_first(tap, 0);
        trigger_to<<<1, 1>>>(b->ch, TUTTI_CHANNEL_PUT_PACKETS, b->out);
        while (cudaStreamQuery(0) == cudaErrorNotReady)
            for (uint64_t stamp; n < 8 * SAMPLES && (stamp = wire_tap_next(tap)) != 0;)
                stamps[n++] = stamp;
        std::copy(b->out + SAMPLES, b->out + 2 * SAMPLES, triggered);
        run_echo(b, &to);
        print_wire(triggered, stamps, n, from, to);
        close(tap);
    }
    finish(b, "wire");
}

static void run_latencies(bench *b)
{
    const int is_first = b->info.rank == 0;
    moment when;
    const double way_back = is_first ? run_echo(b, &when) : 0;

    run_trigger(b, "trigger to proxy", TUTTI_CHANNEL_FLUSH, way_back);
    run_wire(b);
    run_trigger(b, "its call returns", TUTTI_CHANNEL_PUT_PACKETS, way_back);
    for (uint64_t bytes = 0; bytes <= MOST; bytes = bytes ? bytes * 8 : 8) {
        const int n = bytes < 65536 ? SAMPLES : SAMPLES / 20;

        there_and_back<<<1, 1>>>(b->ch, bytes, b->flag, n, b->out);
        b->flag += (uint32_t)n;
        finish(b, "there and back");
        if (is_first)
            printf("one way, %7llu bytes%s %8.2f us\n", (unsigned long long)(bytes ? bytes : 8),
                   bytes ? "      " : ", pack", median_us(b->out, n));
    }
}

static void run_rate(bench *b, uint32_t n_proxies)
{
    cudaEvent_t begin, end;
    float ms;

    cuda(cudaEventCreate(&begin), "event");
    cuda(cudaEventCreate(&end), "event");
    cuda(cudaEventRecord(begin), "event");
    if (b->info.rank == 0)
        rate<<<CHANNELS, 32>>>(b->ch);
    cuda(cudaEventRecord(end), "event");
    finish(b, "rate");
    cuda(cudaEventElapsedTime(&ms, begin, end), "event");
    if (b->info.rank == 0)
        printf("%2u proxies                   %8.3f million messages/s\n", n_proxies,
               CHANNELS * RATE / (double)ms * 1e-3);
}

int main(void)
{
    static bench b;
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    const char *rank = getenv("TUTTI_RANK");
    int n_gpus = 0;

    cuda(cudaGetDeviceCount(&n_gpus), "no GPU");
    config.device = TUTTI_DEVICE_CUDA;
    config.device_index = rank ? (int)strtol(rank, NULL, 10) % n_gpus : 0;
    cuda(cudaSetDevice(config.device_index), "device");
    check(tutti_comm_create_from_env(&config, &b.comm), "create");
    b.info = TUTTI_COMM_INFO_INIT;
    check(tutti_comm_query(b.comm, &b.info), "query");
    if (b.info.n_ranks != 2) {
        fprintf(stderr, "ports_gpu_bench is for two ranks: tutti run -n 2 -- ports_gpu_bench\n");
        return 1;
    }
    check(tutti_mem_alloc(b.comm, (size_t)2 * MOST, &b.memory), "memory");
    cuda(cudaMallocHost(&b.out, 2 * SAMPLES * sizeof(*b.out)), "memory");
    cuda(cudaMallocHost(&b.word, 32 * sizeof(*b.word)), "memory");
    b.flag = 1;
    open_set(&b, 1);
    run_latencies(&b);
    check(tutti_channel_set_destroy(b.set), "destroy");
    for (uint32_t n = 1; n <= 8; n *= 2) {
        open_set(&b, n);
        run_rate(&b, n);
        check(tutti_channel_set_destroy(b.set), "destroy");
    }
    check(tutti_mem_free(b.comm, b.memory), "free");
    tutti_comm_destroy(b.comm);
    return 0;
}
