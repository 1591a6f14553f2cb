/* The host's side of kernels/stage.inc: pinned memory, launches, and what the proxy sees. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "cuda/share_map.h"

#define PAGE        4096u
#define WORDS_BYTES ((sizeof(struct tt_cuda_stage_words) + PAGE - 1) / PAGE * PAGE)
#define FEW_THREADS 128         /* of a block that has little to carry */
#define MAX_BLOCKS  16          /* of a launch: enough for PCIe, and most of the GPU stays free */
#define VECTORS     4           /* of 16 bytes that a thread has under way */
#define LATE_NS     1000000000u /* what kernels wait after everybody else has given up */

_Static_assert(sizeof(struct tt_cuda_stage_args) <= 4096, "what every driver takes as arguments");

struct tt_cuda_stage {
    struct tt_engine *engine;
    unsigned char *memory; /* words, slots out, slots in */
    uint64_t bytes, slot_bytes;
    int is_registered;
    struct tt_cuda_stage_words *words;
    unsigned char *on_device;
    CUdeviceptr counters; /* struct tt_cuda_stage_counters [], uint64_t bytes_before [] */

    /* The proxy's. */
    uint64_t launches, done; /* seen; chunks carried out */
    uint64_t before_call;    /* of those, before the call that runs */
    int n_blocks, out_blocks, in_blocks;
    uint64_t before[TT_CUDA_STAGE_BLOCKS]; /* bytes of messages of earlier calls */
};

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* ---- memory ---- */

/* Ordinary pages that are registered, not memory of the driver's: other processes of the host and the
 * network can read them. */
static tutti_result make_memory(struct tt_cuda_stage *s)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    const size_t counters = TT_CUDA_MAX_BLOCKS * sizeof(struct tt_cuda_stage_counters) +
                            TT_CUDA_STAGE_BLOCKS * sizeof(uint64_t);
    CUdeviceptr on_device;

    s->memory = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->memory == MAP_FAILED) {
        s->memory = NULL;
        return TT_FAIL_SYS("no memory for %llu bytes between GPU and network",
                           (unsigned long long)s->bytes);
    }
    memset(s->memory, 0, s->bytes);
    s->words = (struct tt_cuda_stage_words *)(void *)s->memory;
    TT_TRY(TT_CUDA(cu->cuMemHostRegister_v2(
        s->memory, s->bytes, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP)));
    s->is_registered = 1;
    TT_TRY(TT_CUDA(cu->cuMemHostGetDevicePointer_v2(&on_device, s->memory, 0)));
    s->on_device = (unsigned char *)(uintptr_t)on_device;
    TT_TRY(TT_CUDA(cu->cuMemAlloc_v2(&s->counters, counters)));
    return tt_cuda_fill((unsigned char *)(uintptr_t)s->counters, 0, counters);
}

tutti_result tt_cuda_stage_open(struct tt_engine *e, uint64_t slot_bytes,
                                struct tt_cuda_stage **stage_out)
{
    struct tt_cuda_stage *s = calloc(1, sizeof(*s));
    struct tt_cuda_scope scope;
    tutti_result res;

    if (!s)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a stage");
    s->engine = e;
    s->slot_bytes = slot_bytes;
    s->bytes = WORDS_BYTES + (uint64_t)2 * TT_CUDA_STAGE_SLOTS * slot_bytes;
    res = tt_cuda_scope_enter(e->device, &scope);
    if (res == TUTTI_OK) {
        res = make_memory(s);
        tt_cuda_scope_leave(&scope);
    }
    if (res == TUTTI_OK)
        *stage_out = s;
    else
        tt_cuda_stage_close(s);
    return res;
}

void tt_cuda_stage_close(struct tt_cuda_stage *s)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    struct tt_cuda_scope scope;

    if (!s)
        return;
    if (tt_cuda_scope_enter(s->engine->device, &scope) == TUTTI_OK) {
        if (s->counters)
            (void)cu->cuMemFree_v2(s->counters);
        if (s->is_registered)
            (void)cu->cuMemHostUnregister(s->memory);
        tt_cuda_scope_leave(&scope);
    }
    if (s->memory)
        munmap(s->memory, s->bytes);
    free(s);
}

uint64_t tt_cuda_stage_memory(const struct tt_cuda_stage *s)
{
    return s->bytes;
}

/* ---- launches ---- */

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Threads for the slices of a chunk; more chunks than one go out and in at the same time, by half of the
 * blocks each, if the GPU can run two of ours at once. */
static int widen(const struct tt_engine *e, struct tt_cuda_stage_args *args, int *n_threads)
{
    uint64_t bytes[2] = {0, 0}, most;
    int n;

    for (int i = 0; i < args->n_out + args->n_in; i++)
        bytes[i >= args->n_out] +=
            args->block[i].bytes < args->slice ? args->block[i].bytes : args->slice;
    most = bytes[0] > bytes[1] ? bytes[0] : bytes[1];
    *n_threads = most <= FEW_THREADS * VECTORS * 16 ? FEW_THREADS : TT_CUDA_MAX_THREADS;
    if (e->limits.n_threads)
        *n_threads = e->limits.n_threads;
    most = most / ((uint64_t)*n_threads * VECTORS * 16) + 1;
    n = smaller(smaller(MAX_BLOCKS, e->limits.max_blocks),
                most < MAX_BLOCKS ? (int)most : MAX_BLOCKS);
    args->side.out_blocks = args->side.in_blocks = n;
    if (args->side.n_chunks > 1 && e->limits.max_blocks > 1) {
        n = n < 2 ? 2 : n;
        args->side.out_blocks = n / 2;
        args->side.in_blocks = n - n / 2;
    }
    return n;
}

static void show(const struct tt_cuda_stage *s, const struct tt_cuda_stage_call *call,
                 struct tt_cuda_stage_side *side)
{
    side->words = (struct tt_cuda_stage_words *)(void *)s->on_device;
    side->counters = (struct tt_cuda_stage_counters *)(uintptr_t)s->counters;
    side->record = (uint64_t)(uintptr_t)call->record;
    side->n_chunks = call->n_chunks;
    side->timeout_ns = 2 * s->engine->timeout_ns + LATE_NS;
}

static void describe(const struct tt_cuda_stage *s, const struct tt_cuda_stage_call *call,
                     struct tt_cuda_stage_args *args)
{
    const struct tt_engine *e = s->engine;
    const unsigned char *counters = (const unsigned char *)(uintptr_t)s->counters;
    const size_t n = (size_t)call->n_out + (size_t)call->n_in;

    show(s, call, &args->side);
    args->base = e->base;
    args->base.coll = (uint16_t)call->coll;
    args->base.sequence = tt_cuda_sequence(e);
    args->base.meet = 0;
    args->base.timeout_ns = args->side.timeout_ns; /* it waits for the proxy only */
    args->out = s->on_device + WORDS_BYTES;
    args->in = args->out + TT_CUDA_STAGE_SLOTS * s->slot_bytes;
    args->slot_bytes = s->slot_bytes;
    args->bytes_before =
        (uint64_t *)(uintptr_t)(counters +
                                TT_CUDA_MAX_BLOCKS * sizeof(struct tt_cuda_stage_counters));
    args->slice = call->slice;
    args->given = call->given;
    args->received = call->received;
    args->n_given = call->n_given;
    args->n_received = call->received ? call->n_received : 0;
    args->window = call->window;
    args->n_out = call->n_out;
    args->n_in = call->n_in;
    memcpy(args->block, call->blocks, n * sizeof(args->block[0]));
}

int tt_cuda_stage_sums(const struct tt_cuda_stage *s, tutti_dtype dtype, uint64_t bytes)
{
    const struct tt_engine *e = s->engine;

    return e->n_ranks > 1 && bytes <= s->slot_bytes &&
           bytes <=
               tt_cuda_one_shot_bytes(&e->limits.layout, e->n_ranks, tt_cuda_by_packets(dtype));
}

/* As many blocks as a one-shot within the host, but no more than leave most of the GPU free for the time that a
 * network takes. */
static tutti_result launch_sum(const struct tt_cuda_stage *s, const struct tt_cuda_stage_call *call)
{
    const struct tt_engine *e = s->engine;
    const struct tt_cuda_stage_block *send = &call->blocks[0], *recv = &call->blocks[1];
    const struct tt_cuda_shape shape =
        tt_cuda_reduce_shape(&e->limits, TT_COLL_ALL_REDUCE, TT_ALGO_ONE_SHOT, send->bytes, 0,
                             tt_cuda_by_packets(call->dtype));
    const int n_blocks = smaller(shape.n_blocks, MAX_BLOCKS);
    struct tt_cuda_rail_args args;

    memset(&args, 0, sizeof(args));
    args.sum.send = send->at;
    args.sum.recv = s->on_device + WORDS_BYTES;
    args.sum.bytes = send->bytes;
    args.sum.op = (int32_t)call->op;
    args.sum.result_to = TT_RESULT_ALL;
    args.sum.aligned = (uintptr_t)send->at % 16 == 0;
    args.sum.base = e->base;
    args.sum.base.coll = (uint16_t)call->coll;
    args.sum.base.sequence = tt_cuda_sequence(e);
    args.sum.base.meet = send->bytes == 0;
    show(s, call, &args.side);
    args.side.out_blocks = args.side.in_blocks = n_blocks;
    args.in = args.sum.recv + TT_CUDA_STAGE_SLOTS * s->slot_bytes;
    args.recv = recv->at;
    args.aligned = (uintptr_t)recv->at % 16 == 0;
    return tt_cuda_launch(e, tt_cuda_rail_kernel(call->dtype, call->op, e->n_ranks), n_blocks,
                          shape.n_threads, &args, sizeof(args), call->stream);
}

tutti_result tt_cuda_stage_launch(struct tt_cuda_stage *s, const struct tt_cuda_stage_call *call)
{
    const struct tt_engine *e = s->engine;
    struct tt_cuda_stage_args args;
    int n_threads = TT_CUDA_MAX_THREADS, n;

    if (call->way == TT_STAGE_SUM)
        return launch_sum(s, call);
    describe(s, call, &args);
    if (call->way != TT_STAGE_MESSAGES)
        return tt_cuda_launch(e,
                              call->way == TT_STAGE_COUNTED ? TT_CUDA_KERNEL_tt_stage_counted
                                                            : TT_CUDA_KERNEL_tt_stage,
                              widen(e, &args, &n_threads), n_threads, &args, sizeof(args),
                              call->stream);
    n = smaller(smaller(call->n_out + call->n_in, MAX_BLOCKS), e->limits.max_blocks);
    args.side.out_blocks = args.side.in_blocks = n = n > 0 ? n : 1;
    return tt_cuda_launch(e, TT_CUDA_KERNEL_tt_stage_messages, n,
                          e->limits.n_threads ? e->limits.n_threads : n_threads, &args,
                          sizeof(args), call->stream);
}

uint64_t tt_cuda_stage_window(const struct tt_cuda_stage *s, int n_out, int n_in)
{
    const uint64_t most = TT_CUDA_STAGE_SLOTS * s->slot_bytes;
    const uint64_t n = (uint64_t)(n_out > n_in ? n_out : n_in);
    const uint64_t each = most / (n ? n : 1) & ~(uint64_t)255;

    return n_out + n_in <= TT_CUDA_STAGE_BLOCKS && each >= TT_CUDA_STAGE_LEAST ? each : 0;
}

tutti_result tt_cuda_is_captured(struct tt_engine *e, tutti_stream stream, int *is_out)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    tutti_result res;
    int entered;

    TT_TRY(tt_cuda_enter(e->device, &entered));
    res = TT_CUDA(tt_cuda_driver()->cuStreamIsCapturing(stream, &status));
    tt_cuda_leave(entered);
    *is_out = status != CU_STREAM_CAPTURE_STATUS_NONE;
    return res;
}

/* ---- the proxy's side ---- */

void *tt_cuda_stage_next(struct tt_cuda_stage *s)
{
    const struct tt_cuda_stage_words *w = s->words;
    uint64_t shape;

    if (load(&w->launch) == s->launches)
        return NULL;
    s->launches++;
    s->before_call = s->done;
    shape = load(&w->shape);
    s->n_blocks = (int)(shape >> 32);
    s->out_blocks = (int)(shape >> 16 & 0xffff);
    s->in_blocks = (int)(shape & 0xffff);
    return (void *)(uintptr_t)load(&w->record);
}

uint64_t tt_cuda_stage_count(const struct tt_cuda_stage *s, int i)
{
    return load(&s->words->counts[i]);
}

struct tt_cuda_stage_plan *tt_cuda_stage_plan(struct tt_cuda_stage *s)
{
    return &s->words->plan;
}

void tt_cuda_stage_planned(struct tt_cuda_stage *s)
{
    __atomic_store_n(&s->words->planned, s->launches, __ATOMIC_RELEASE);
}

int tt_cuda_stage_is_put(const struct tt_cuda_stage *s, uint64_t c)
{
    const struct tt_cuda_stage_words *w = s->words;
    const uint64_t n = s->before_call + c + 1;

    for (int b = 0; b < s->out_blocks; b++)
        if (load(&w->put[b]) < n)
            return 0;
    for (int b = s->n_blocks - s->in_blocks; c >= TT_CUDA_STAGE_SLOTS && b < s->n_blocks; b++)
        if (load(&w->taken[b]) < n - TT_CUDA_STAGE_SLOTS)
            return 0;
    return 1;
}

int tt_cuda_stage_is_due(const struct tt_cuda_stage *s, uint64_t c)
{
    return load(&s->words->done) + TT_CUDA_STAGE_SLOTS > s->before_call + c;
}

unsigned char *tt_cuda_stage_out(const struct tt_cuda_stage *s, uint64_t c)
{
    return s->memory + WORDS_BYTES + c % TT_CUDA_STAGE_SLOTS * s->slot_bytes;
}

unsigned char *tt_cuda_stage_in(const struct tt_cuda_stage *s, uint64_t c)
{
    return tt_cuda_stage_out(s, c) + TT_CUDA_STAGE_SLOTS * s->slot_bytes;
}

void tt_cuda_stage_done(struct tt_cuda_stage *s)
{
    s->done++;
    __atomic_store_n(&s->words->done, s->done, __ATOMIC_RELEASE);
}

unsigned char *tt_cuda_stage_window_at(const struct tt_cuda_stage *s, int n_out, int i,
                                       uint64_t window)
{
    unsigned char *out = s->memory + WORDS_BYTES;

    return i < n_out ? out + (uint64_t)i * window
                     : out + TT_CUDA_STAGE_SLOTS * s->slot_bytes + (uint64_t)(i - n_out) * window;
}

uint64_t tt_cuda_stage_moved(const struct tt_cuda_stage *s, int i)
{
    const uint64_t bytes = load(&s->words->gpu_bytes[i]);

    return bytes > s->before[i] ? bytes - s->before[i] : 0;
}

void tt_cuda_stage_tell(struct tt_cuda_stage *s, int i, uint64_t bytes)
{
    __atomic_store_n(&s->words->host_bytes[i], s->before[i] + bytes, __ATOMIC_RELEASE);
}

void tt_cuda_stage_settle(struct tt_cuda_stage *s, int i, uint64_t bytes)
{
    tt_cuda_stage_tell(s, i, bytes);
    s->before[i] += bytes;
}
