/* ctest: no-tsan timeout=120 */
/* ctest: long as=many args=full no-tsan timeout=1800 */
/* The kernels that move data, run by the simulated GPU without an engine around them: ranks are
 * threads, and each case is a sequence of launches of random kernels, shapes, sizes, places and
 * alignments on the same arenas, with nothing between one launch and the next. Every byte of every
 * buffer is checked, also those that belong to nobody. T_MOVE_SEED=7 runs case 7 only. */
#include <pthread.h>
#include <stdlib.h>

#include "support/sim/sim.h"
#include "support/t.h"

#include "cuda/kernels/move_direct.inc"
#include "cuda/kernels/move_packet.inc"
#include "cuda/kernels/move_staged.inc"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes)   ((void)(p))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void)(p))
#endif

TT_KERNEL(t_move_packet, tt_cuda_move_args)
{
    tt_move_packet_body(&args);
}

TT_KERNEL(t_move_staged, tt_cuda_move_args)
{
    tt_move_staged_body(&args);
}

TT_KERNEL(t_move_direct, tt_cuda_move_args)
{
    tt_move_direct_body(&args);
}

enum { MAX_N = 8, LAUNCHES = 12, GUARD = 48, WIDE = 100000 };
enum kernel { PACKET, STAGED, DIRECT, BARRIER, N_KERNELS };
enum pattern { ANY, EVEN, FROM_ROOT, TO_ROOT, GATHER_IN_PLACE, EXCHANGE_IN_PLACE, N_PATTERNS };

struct buffer {
    unsigned char *memory; /* guard, bytes, guard */
    unsigned char *before; /* a copy of all of it */
    unsigned char *at;
    uint64_t bytes;
    int aliased; /* memory is another buffer's */
};

struct launch {
    enum kernel kernel;
    enum pattern pattern;
    int blocks, threads;
    uint64_t units[MAX_N][MAX_N]; /* [from][to] */
    struct tt_cuda_move_args args[MAX_N];
    struct buffer send[MAX_N][TT_CUDA_MAX_PARTS], recv[MAX_N][TT_CUDA_MAX_PARTS];
};

static struct job {
    int n, no_meet;
    struct tt_cuda_layout layout;
    unsigned char *arena[MAX_N];
    struct tt_cuda_report report[MAX_N];
    struct launch launch[LAUNCHES];
    uint64_t seed;
    struct t_rng rng;
} job;

static const char *const kernel_names[] = {"packet", "staged", "direct", "barrier"};

static uint64_t below(uint64_t bound)
{
    return t_random_below(&job.rng, bound);
}

/* ---- preparing ---- */

static void lay_out(struct tt_cuda_layout *l, int n)
{
    static const uint64_t rooms[] = {256, 1024, 4096, 65536};

    memset(l, 0, sizeof(*l));
    l->packet_slot = rooms[below(T_LEN(rooms))];
    l->packets = TT_CUDA_CONTROL_BYTES;
    l->sentinel = l->packets + 2 * (uint64_t)n * l->packet_slot;
    l->sentinel_half =
        TT_CUDA_STAGED_RING * (uint64_t)n * TT_CUDA_TILE_ROOM * (1 + below(below(2) ? 3 : 30));
    l->bytes = l->sentinel + 2 * l->sentinel_half;
}

static void set_epochs(uint64_t epoch)
{
    for (int r = 0; r < job.n; r++)
        for (int b = 0; b < TT_CUDA_MAX_BLOCKS; b++)
            ((struct tt_cuda_block *)job.arena[r])[b].epoch = epoch;
}

static uint64_t random_units(enum pattern pattern, uint64_t most, int from, int to, uint64_t even,
                             int root)
{
    switch (pattern) {
    case EVEN:
    case GATHER_IN_PLACE:
    case EXCHANGE_IN_PLACE: return even;
    case FROM_ROOT: return from == root ? even : 0;
    case TO_ROOT: return to == root ? even : 0;
    default: return below(4) == 0 ? 0 : below(most + 1);
    }
}

static void make_buffer(struct buffer *b, uint64_t bytes, unsigned offset)
{
    void *memory;

    T_CHECK(posix_memalign(&memory, 64, bytes + 2 * GUARD + 16) == 0, "no memory");
    b->memory = memory;
    b->before = malloc(bytes + 2 * GUARD + 16);
    b->at = b->memory + GUARD + offset;
    b->bytes = bytes;
    b->aliased = 0;
    for (uint64_t i = 0; i < bytes + 2 * GUARD + 16; i++)
        b->memory[i] = b->before[i] = (unsigned char)t_random(&job.rng);
    ASAN_POISON_MEMORY_REGION(b->memory, GUARD + offset); /* reading there is wrong too */
    ASAN_POISON_MEMORY_REGION(b->at + bytes, GUARD);
}

static unsigned random_offset(int mode)
{
    static const unsigned steps[] = {16, 8, 4, 2, 1};

    return (unsigned)below(16) / steps[mode] * steps[mode];
}

/* Places in ascending order with gaps, in units; returns the end. */
static uint64_t place(uint64_t at[], const uint64_t units[], int gaps)
{
    uint64_t end = 0;

    for (int r = 0; r < job.n; r++) {
        at[r] = end + (gaps ? below(3) : 0);
        end = at[r] + units[r];
    }
    return end;
}

static void make_rank(struct launch *l, int rank)
{
    struct tt_cuda_move_args *a = &l->args[rank];
    const int gaps = l->pattern == ANY && below(2), mode = (int)below(5);
    uint64_t send_end, recv_end;

    for (int r = 0; r < job.n; r++) {
        a->send_units[r] = l->units[rank][r];
        a->recv_units[r] = l->units[r][rank];
    }
    send_end = place(a->send_at, a->send_units, gaps);
    recv_end = place(a->recv_at, a->recv_units, gaps);
    if (l->pattern == GATHER_IN_PLACE) {
        for (int r = 0; r < job.n; r++)
            a->send_at[r] = 0;
        send_end = a->send_units[0];
    }
    for (int p = 0; p < a->n_parts; p++) {
        const uint64_t unit = a->part[p].unit_bytes;
        struct buffer *send = &l->send[rank][p], *recv = &l->recv[rank][p];

        make_buffer(recv, recv_end * unit, random_offset(mode));
        if (l->pattern == GATHER_IN_PLACE || l->pattern == EXCHANGE_IN_PLACE) {
            *send = *recv;
            send->aliased = 1;
            send->bytes = send_end * unit;
            if (l->pattern == GATHER_IN_PLACE)
                send->at += a->recv_at[rank] * unit;
        } else {
            make_buffer(send, send_end * unit, random_offset(mode));
        }
        a->part[p].send = send->at;
        a->part[p].recv = recv->at;
    }
}

static int needs_meeting(const struct launch *l, const struct tt_cuda_move_args *a)
{
    uint64_t unit = 0;

    for (int p = 0; p < a->n_parts; p++)
        unit += a->part[p].unit_bytes;
    for (int i = 0; i < job.n; i++)
        for (int k = 0; k < job.n; k++)
            if (i != k && l->units[i][k] * unit == 0)
                return 1;
    return 0;
}

/* The most units that a pair may have. */
static uint64_t most_units(const struct launch *l, const struct tt_cuda_move_args *a)
{
    const uint64_t long_ones[] = {40, 700, 9000, 60000};
    uint64_t unit = 0, room = 0;

    for (int p = 0; p < a->n_parts; p++) {
        unit += a->part[p].unit_bytes;
        room += tt_cuda_packet_bytes(a->part[p].unit_bytes);
    }
    if (l->kernel == PACKET)
        return room > 0 ? job.layout.packet_slot / room : 5;
    return long_ones[below(T_LEN(long_ones))] / (unit + 1) + 1;
}

static void make_launch(struct launch *l)
{
    static const uint64_t unit_bytes[] = {1, 2, 4, 8, 16, 1, 3, 5, 48, 0};
    struct tt_cuda_move_args *first = &l->args[0];
    const int root = job.no_meet ? 0 : (int)below((uint64_t)job.n);
    uint64_t most, even;
    int is_wide;

    memset(l, 0, sizeof(*l));
    l->kernel = (enum kernel)below(below(4) == 0 ? N_KERNELS : DIRECT);
    do
        l->pattern = (enum pattern)below(N_PATTERNS);
    while (l->kernel == DIRECT && l->pattern == EXCHANGE_IN_PLACE);
    if (job.no_meet) {
        l->kernel = PACKET;
        l->pattern = FROM_ROOT;
    }
    /* So many blocks that some do nothing but copy the own block, which is long. */
    is_wide = l->kernel == DIRECT && below(2);
    l->blocks = is_wide ? 8 + (int)below(16) : 1 + (int)below(9);
    l->threads = is_wide ? 32 : 32 * (1 + (int)below(3));
    first->n_parts = l->kernel == BARRIER ? 0 : l->kernel == DIRECT ? 1 : 1 + (int)below(4);
    for (int p = 0; p < first->n_parts; p++)
        first->part[p].unit_bytes = unit_bytes[below(T_LEN(unit_bytes))];
    most = is_wide ? WIDE / (first->part[0].unit_bytes + 1) : most_units(l, first);
    even = is_wide ? most : below(most + 1);
    for (int i = 0; i < job.n && l->kernel != BARRIER; i++)
        for (int k = 0; k < job.n; k++)
            l->units[i][k] = random_units(l->pattern, most, i, k, even, root);
    for (int r = 0; r < job.n; r++) {
        l->args[r] = *first;
        make_rank(l, r);
        l->args[r].base.layout = job.layout;
        l->args[r].base.sentinel = job.layout.sentinel;
        l->args[r].base.sentinel_half = job.layout.sentinel_half;
        l->args[r].base.rank = r;
        l->args[r].base.n_ranks = job.n;
        l->args[r].base.meet = !job.no_meet && needs_meeting(l, first);
        l->args[r].base.report = &job.report[r];
        l->args[r].base.timeout_ns = job.no_meet ? 500000000u : 60000000000u * t_scale();
        memcpy(l->args[r].base.arena, job.arena, sizeof(job.arena));
    }
    if (l->kernel == DIRECT)
        for (int r = 0; r < job.n; r++)
            for (int p = 0; p < job.n; p++)
                l->args[r].peer_recv[p] =
                    l->recv[p][0].at + l->args[p].recv_at[r] * l->args[p].part[0].unit_bytes;
}

/* ---- running and checking ---- */

static void *rank_main(void *context)
{
    const int rank = (int)(intptr_t)context;

    for (int i = 0; i < LAUNCHES; i++) {
        const struct launch *l = &job.launch[i];
        const tt_sim_kernel kernel = l->kernel == STAGED   ? t_move_staged
                                     : l->kernel == DIRECT ? t_move_direct
                                                           : t_move_packet;

        tt_sim_run(kernel, &l->args[rank], l->blocks, l->threads, l->blocks);
    }
    return NULL;
}

/* What the launch should have done, applied to the copies. */
static void apply(struct launch *l)
{
    unsigned char *sent[MAX_N];

    for (int p = 0; p < l->args[0].n_parts; p++) {
        const uint64_t unit = l->args[0].part[p].unit_bytes;

        for (int r = 0; r < job.n; r++) {
            const struct buffer *b = &l->send[r][p];

            sent[r] = malloc(b->bytes + 1);
            memcpy(sent[r], b->before + (b->at - b->memory), b->bytes);
        }
        for (int from = 0; from < job.n; from++)
            for (int to = 0; to < job.n; to++) {
                const struct buffer *b = &l->recv[to][p];

                memcpy(b->before + (b->at - b->memory) + l->args[to].recv_at[from] * unit,
                       sent[from] + l->args[from].send_at[to] * unit, l->units[from][to] * unit);
            }
        for (int r = 0; r < job.n; r++)
            free(sent[r]);
    }
}

/* The first byte that is wrong, in a text. */
static int is_good(const struct buffer *b, int i, int rank, int part, char *text, size_t text_bytes)
{
    const struct launch *l = &job.launch[i];
    const uint64_t all = (uint64_t)(b->at - b->memory) + b->bytes + GUARD;

    ASAN_UNPOISON_MEMORY_REGION(b->memory, all);
    for (uint64_t k = 0; !b->aliased && k < all; k++)
        if (b->memory[k] != b->before[k]) {
            snprintf(text, text_bytes,
                     "seed %llu launch %d (%s, pattern %d, %d blocks of %d): rank %d of %d, part "
                     "%d, byte %lld of %llu is %02x, not %02x",
                     (unsigned long long)job.seed, i, kernel_names[l->kernel], (int)l->pattern,
                     l->blocks, l->threads, rank, job.n, part, (long long)(b->memory + k - b->at),
                     (unsigned long long)b->bytes, b->memory[k], b->before[k]);
            return 0;
        }
    return 1;
}

static void free_buffer(struct buffer *b)
{
    if (!b->aliased) {
        free(b->memory);
        free(b->before);
    }
}

static int check_launch(int i, char *text, size_t text_bytes)
{
    struct launch *l = &job.launch[i];
    int good = 1;

    apply(l);
    for (int r = 0; r < job.n; r++)
        for (int p = 0; p < l->args[0].n_parts; p++) {
            good = good && is_good(&l->send[r][p], i, r, p, text, text_bytes) &&
                   is_good(&l->recv[r][p], i, r, p, text, text_bytes);
            free_buffer(&l->send[r][p]);
            free_buffer(&l->recv[r][p]);
        }
    return good;
}

/* 1: all bytes are as they should be; else the text says which is not. */
static int run_case(uint64_t seed, int n, int no_meet, char *text, size_t text_bytes)
{
    static const uint64_t epochs[] = {0, 0xfffffffa, 0x1fffffffb, 77};
    pthread_t threads[MAX_N];
    int good = 1;

    memset(&job, 0, sizeof(job));
    job.n = n;
    job.no_meet = no_meet;
    job.seed = seed;
    job.rng.state = seed * 2 + 1;
    lay_out(&job.layout, n);
    for (int r = 0; r < n; r++) {
        void *memory;

        T_CHECK(posix_memalign(&memory, 64, job.layout.bytes) == 0, "no memory");
        memset(memory, 0, job.layout.sentinel);
        memset((unsigned char *)memory + job.layout.sentinel, 0xff, 2 * job.layout.sentinel_half);
        job.arena[r] = memory;
    }
    set_epochs(epochs[below(T_LEN(epochs))]);
    for (int i = 0; i < LAUNCHES; i++)
        make_launch(&job.launch[i]);
    tt_sim_set_weather(seed % 3 == 0 ? 0 : seed);
    for (int r = 0; r < n; r++)
        T_CHECK(pthread_create(&threads[r], NULL, rank_main, (void *)(intptr_t)r) == 0,
                "no thread");
    for (int r = 0; r < n; r++)
        pthread_join(threads[r], NULL);
    for (int i = 0; i < LAUNCHES; i++) /* all, so that all is freed */
        good &= check_launch(i, text, text_bytes);
    for (int r = 0; r < n; r++) {
        if (job.report[r].result != 0) {
            snprintf(text, text_bytes, "seed %llu: rank %d gave up: %d", (unsigned long long)seed,
                     r, -(int)job.report[r].result);
            good = 0;
        }
        free(job.arena[r]);
    }
    return good;
}

static const int ranks[] = {1, 2, 3, 4, 5, 8};

static void moves(void **state)
{
    const char *only = getenv("T_MOVE_SEED");
    const unsigned n = t_times(3, 300) * (unsigned)T_LEN(ranks);
    char text[256];

    (void)state;
    for (uint64_t seed = 1; seed <= n; seed++)
        if (only == NULL || strtoull(only, NULL, 10) == seed)
            T_CHECK(run_case(seed, ranks[seed % T_LEN(ranks)], 0, text, sizeof(text)), "%s", text);
}

/* The control: a root that does not hear from the others runs away from them. */
static void without_meeting_it_goes_wrong(void **state)
{
    char text[256];

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        if (!run_case(seed, 3, 1, text, sizeof(text)))
            return;
    T_FAIL("nothing went wrong");
}

static void workers_share_all_jobs(void **state)
{
    (void)state;
    for (int n = 1; n <= 33; n++)
        for (int workers = 1; workers <= 140; workers++) {
            int lanes[33] = {0}, said[33] = {0};

            for (int w = 0; w < workers; w++) {
                const struct tt_share s = tt_share_of(w, workers, n);

                for (int i = s.first; i < n; i += s.step) {
                    T_CHECK(s.lane < s.lanes, "lane %d of %d", s.lane, s.lanes);
                    T_CHECK(said[i] == 0 || said[i] == s.lanes, "two opinions");
                    said[i] = s.lanes;
                    lanes[i]++;
                }
            }
            for (int i = 0; i < n; i++)
                T_CHECK(lanes[i] == said[i] && lanes[i] > 0, "job %d of %d: %d of %d workers", i, n,
                        lanes[i], said[i]);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_share_all_jobs),
        cmocka_unit_test(moves),
        cmocka_unit_test(without_meeting_it_goes_wrong),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
