/*
 * What it costs this machine to move bytes between its cores, which no collective of ranks on CPUs can go below:
 *     build/release/bench/lines_bench [ranks [largest size]]
 * All ranks at the same time, one a core. For a message of so many bytes, every rank
 *     put     writes its peers' shares of it, from its own memory into lines that they read last;
 *     take    reads as much, which they have just written, into its own memory.
 * An all_reduce of ordinary buffers puts and takes once more than one of windows, which reads and writes what
 * callers hold. Medians over rounds, of the slowest rank, in microseconds; arithmetic is left out. And what it
 * costs to hand a line over: nothing that needs a peer's answer takes less.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { MAX_RANKS = 64, MAX_ROUNDS = 400, LEAST = 1024, LINE = 64 };

typedef void (*copy_fn)(void *to, const void *from, size_t bytes);

static void copy_plain(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

#ifdef __x86_64__
static void copy_string(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

/* Past the caches. */
static void copy_stream(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i + 16 <= bytes; i += 16)
        _mm_stream_si128((__m128i *)((char *)to + i),
                         _mm_loadu_si128((const __m128i *)((const char *)from + i)));
    _mm_sfence();
}
#endif

static const struct way {
    const char *name;
    copy_fn put, take;
} ways[] = {
    {"memcpy", copy_plain, copy_plain},
#ifdef __x86_64__
    {"rep movsb", copy_string, copy_string},
    {"streamed", copy_stream, copy_plain},
#endif
};

enum { N_WAYS = sizeof(ways) / sizeof(ways[0]) };

struct shared {
    _Alignas(LINE) atomic_uint arrived;
    _Alignas(LINE) atomic_uint turn;
    _Alignas(LINE) atomic_uint ball;
    _Alignas(LINE) float us[2][MAX_RANKS][MAX_ROUNDS];
};

struct bench {
    struct shared *shared;
    unsigned char *area; /* [ranks][ranks][most / ranks]: to, from */
    unsigned char *mine; /* what this rank sends and gets */
    size_t most;
    unsigned n_ranks, rank;
};

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void barrier(const struct bench *b)
{
    const unsigned turn = atomic_load(&b->shared->turn);

    if (atomic_fetch_add(&b->shared->arrived, 1) + 1 == b->n_ranks) {
        atomic_store(&b->shared->arrived, 0);
        atomic_store(&b->shared->turn, turn + 1);
    }
    while (atomic_load_explicit(&b->shared->turn, memory_order_acquire) == turn)
        continue;
}

static unsigned char *place(const struct bench *b, unsigned to, unsigned from)
{
    return b->area + ((size_t)to * b->n_ranks + from) * (b->most / b->n_ranks);
}

static void round_of(const struct bench *b, const struct way *way, size_t bytes, int round)
{
    const size_t share = bytes / b->n_ranks;
    double begin;

    memset(b->mine, round, bytes); /* as callers do: what is sent has just been written */
    barrier(b);
    begin = now_us();
    for (unsigned k = 1; k < b->n_ranks; k++) {
        const unsigned peer = (b->rank + k) % b->n_ranks;

        way->put(place(b, peer, b->rank), b->mine + peer * share, share);
    }
    b->shared->us[0][b->rank][round] = (float)(now_us() - begin);
    barrier(b);
    begin = now_us();
    for (unsigned k = 1; k < b->n_ranks; k++) {
        const unsigned peer = (b->rank + k) % b->n_ranks;

        way->take(b->mine + peer * share, place(b, b->rank, peer), share);
    }
    b->shared->us[1][b->rank][round] = (float)(now_us() - begin);
    barrier(b);
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Of the slowest rank, the median over the rounds. */
static double median(const struct bench *b, int phase, int rounds)
{
    static float us[MAX_ROUNDS];

    for (int i = 0; i < rounds; i++) {
        us[i] = 0;
        for (unsigned r = 0; r < b->n_ranks; r++) {
            const float of_rank = b->shared->us[phase][r][i];

            us[i] = of_rank > us[i] ? of_rank : us[i];
        }
    }
    qsort(us, (size_t)rounds, sizeof(us[0]), ascending);
    return us[rounds / 2];
}

static void size_of(const struct bench *b, size_t bytes)
{
    const int rounds = bytes > 1 << 20 ? MAX_ROUNDS / 10 : MAX_ROUNDS;

    for (int w = 0; w < N_WAYS; w++) {
        for (int i = 0; i < rounds; i++)
            round_of(b, &ways[w], bytes, i);
        if (b->rank == 0) {
            const double put = median(b, 0, rounds), take = median(b, 1, rounds);
            const double moved = (double)(bytes - bytes / b->n_ranks) / 1e3;

            printf("%10zu  %-10s %9.2f %9.2f %9.2f | %7.1f %7.1f\n", bytes, ways[w].name, put, take,
                   put + take, moved / put, moved / take);
            fflush(stdout);
        }
        barrier(b);
    }
}

/* A line that two ranks write in turn, each as soon as it sees the other's number: half of there and back. */
static void hand_over(const struct bench *b)
{
    enum { TIMES = 200000 };
    atomic_uint *const ball = &b->shared->ball;
    const double begin = now_us();

    if (b->rank < 2) {
        for (unsigned i = b->rank; i < TIMES; i += 2) {
            while (atomic_load_explicit(ball, memory_order_acquire) != i)
                continue;
            atomic_store_explicit(ball, i + 1, memory_order_release);
        }
    }
    if (b->rank == 0)
        printf("# %u ranks, all at the same time; us of the slowest, GB/s of each\n"
               "# a line handed over: %.3f us\n"
               "#    bytes  way              put      take      both |     put    take\n",
               b->n_ranks, (now_us() - begin) / TIMES);
    barrier(b);
}

static void rank_of(struct bench *b)
{
    cpu_set_t cpu;

    CPU_ZERO(&cpu);
    CPU_SET(b->rank, &cpu);
    if (sched_setaffinity(0, sizeof(cpu), &cpu) != 0)
        perror("sched_setaffinity");
    b->mine = aligned_alloc(4096, b->most);
    if (!b->mine)
        exit(1);
    for (unsigned r = 0; r < b->n_ranks; r++) /* pages there before the first round */
        memset(place(b, b->rank, r), 0, b->most / b->n_ranks);
    barrier(b);
    hand_over(b);
    for (size_t bytes = LEAST; bytes <= b->most; bytes *= 4)
        size_of(b, bytes);
    free(b->mine);
}

static void *shared_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

int main(int argc, char **argv)
{
    struct bench b = {.n_ranks = 2, .most = 16 << 20};

    if (argc > 1)
        b.n_ranks = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        b.most = strtoul(argv[2], NULL, 10);
    if (argc > 3 || b.n_ranks < 2 || b.n_ranks > MAX_RANKS ||
        b.n_ranks > (unsigned)sysconf(_SC_NPROCESSORS_ONLN) || b.most < LEAST) {
        fprintf(stderr, "usage: lines_bench [ranks: 2 to the cores there are [largest size]]\n");
        return 2;
    }
    b.shared = shared_memory(sizeof(*b.shared));
    b.area = shared_memory(b.most * b.n_ranks);
    for (b.rank = 1; b.rank < b.n_ranks; b.rank++)
        if (fork() == 0) {
            rank_of(&b);
            _exit(0);
        }
    b.rank = 0;
    rank_of(&b);
    while (wait(NULL) > 0)
        continue;
    return 0;
}
