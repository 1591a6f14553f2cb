/*
 * Port channels from kernels, between two GPUs of one machine through the network:
 *     tutti run -n 2 -- build/release/bench/ports_gpu_bench
 * Trigger to proxy: from before a kernel queues a trigger until its proxy has understood it (a flush, which sends
 * nothing at once); trigger to wire: the same of packets, which have gone through the network's own send() then.
 * The kernel sees either by a word in host memory; what that way back takes is subtracted: half of what a word
 * takes to a thread of the host and back. Then a put with a signal there and back (half of it), packets there
 * and back, and the rate of small messages of 16 blocks against the number of proxies. Medians, in
 * microseconds.
 */
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <cuda_runtime.h>
#include <tutti/device.h>

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

__device__ static uint64_t ns(void)
{
    uint64_t now;

    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

__device__ static void pace(uint64_t from) /* not the rate: each by itself */
{
    while (ns() - from < 30000)
        ;
}

/* A word to the host and back: word[0] is the kernel's, word[16] what a thread of the host makes of it. */
__global__ void echo(uint64_t *word, uint64_t *out)
{
    for (int i = 0; i < SAMPLES; i++) {
        const uint64_t from = ns();

        asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(word), "l"((uint64_t)i + 1) : "memory");
        while (tutti_dev_acquire(word + 16) != (uint64_t)i + 1)
            if (ns() - from > 1000000000)
                return;
        out[i] = ns() - from;
        pace(from);
    }
}

static void answer(uint64_t *word)
{
    for (uint64_t i = 1; i <= SAMPLES; i++) {
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) < i)
            ;
        __atomic_store_n(word + 16, i, __ATOMIC_RELEASE);
    }
}

__global__ void trigger_to(const __grid_constant__ channels c, uint32_t op, uint64_t *out)
{
    for (int i = 0; i < SAMPLES; i++) {
        const uint64_t from = ns();
        uint64_t number;

        if (tutti_dev_push(&c.at[0], (tutti_channel_op)op, 0, 0, 8, &number) != TUTTI_OK)
            return;
        while (tutti_dev_acquire(c.at[0].done) <= number)
            if (ns() - from > 1000000000)
                return;
        out[i] = ns() - from;
        pace(from);
    }
    (void)tutti_channel_flush(&c.at[0]);
}

/* One thread: the copies are the proxies'. `bytes` of 0: packets of 8 bytes. */
__global__ void there_and_back(const __grid_constant__ channels c, uint64_t bytes, uint32_t flag,
                               int n, uint64_t *out)
{
    const tutti_channel *ch = &c.at[1];
    const int first = ch->rank == 0;
    uint32_t word[2] = {1, 2};

    for (int i = 0; i < n; i++) {
        const uint64_t from = ns();

        for (int turn = 0; turn < 2; turn++) {
            int result;

            if (bytes == 0)
                result = (turn == 0) == first
                             ? tutti_channel_put_packets(ch, 0, word, 8, flag + i, 0, 1)
                             : tutti_channel_get_packets(ch, 0, word, 8, flag + i, 0, 1);
            else
                result = (turn == 0) == first
                             ? tutti_channel_put_with_signal(ch, MOST, 0, bytes, 0, 1)
                             : tutti_channel_wait_next(ch);
            if (result != TUTTI_OK)
                return;
        }
        out[i] = (ns() - from) / 2;
    }
}

/* By packets: what a proxy can take, not what the copies of its GPU can. */
__global__ void rate(const __grid_constant__ channels c)
{
    const tutti_channel *ch = &c.at[blockIdx.x];
    uint32_t word[2] = {1, 2};

    if (threadIdx.x == 0) {
        for (uint32_t i = 1; i <= RATE; i++)
            if (tutti_channel_put_packets(ch, 0, word, 8, i, 0, 1) != TUTTI_OK)
                return;
        (void)tutti_channel_flush(ch);
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

/* One way of a word between a kernel and the host. */
static double run_echo(bench *b)
{
    std::thread host(answer, b->word);

    echo<<<1, 1>>>(b->word, b->out);
    cuda(cudaDeviceSynchronize(), "echo");
    __atomic_store_n(b->word, SAMPLES, __ATOMIC_RELEASE); /* if the kernel has given up */
    host.join();
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

static void run_latencies(bench *b)
{
    const int is_first = b->info.rank == 0;
    const double way_back = is_first ? run_echo(b) : 0;

    run_trigger(b, "trigger to proxy", TUTTI_CHANNEL_FLUSH, way_back);
    run_trigger(b, "trigger to wire", TUTTI_CHANNEL_PUT_PACKETS, way_back);
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
    cuda(cudaMallocHost(&b.out, SAMPLES * sizeof(*b.out)), "memory");
    cuda(cudaMallocHost(&b.word, 32 * sizeof(*b.word)), "memory");
    b.word[0] = b.word[16] = 0;
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
