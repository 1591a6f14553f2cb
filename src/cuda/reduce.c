/* Reductions: from a call to one launch. */
#include <string.h>

#include "cuda/cuda.h"

enum body {
    ONE_SHOT,
    ONE_SHOT_RAIL,
    TWO_SHOT,
    TWO_SHOT_COUNTED,
    DIRECT,
    ONE_SHOT_EVEN,
    TWO_SHOT_EVEN,
    N_BODIES
};
enum wire { NONE, SENTINEL, PACKET };
enum { ANY, SUM };

#define MAX_UNROLLED 8

_Static_assert(offsetof(struct tt_cuda_reduce_args, base.arena) + MAX_UNROLLED * sizeof(void *) ==
                   sizeof(struct tt_cuda_even_args),
               "the kernels of even.inc get what they read, and no more");

/* By body, type, operation and the number of ranks that it is unrolled for. */
static const struct {
    unsigned char kernel; /* 1 + its number; 0: there is none */
    unsigned char wire;
} variants[N_BODIES][TUTTI_N_DTYPES][2][MAX_UNROLLED + 1] = {
#define TT_REDUCE(name, body, wire, dtype, op, n)                                                  \
    [body][TUTTI_DTYPE_##dtype][op][n] = {1 + TT_CUDA_KERNEL_##name, wire},
#define TT_MOVE(name, body)
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE
};

/* Of some types no value could mean "not here yet". */
int tt_cuda_by_packets(tutti_dtype dtype)
{
    return variants[ONE_SHOT][dtype][ANY][0].wire == PACKET;
}

enum tt_cuda_kernel tt_cuda_rail_kernel(tutti_dtype dtype, tutti_op op, int n_ranks)
{
    int kernel = 0;

    if (op == TUTTI_OP_SUM && n_ranks <= MAX_UNROLLED)
        kernel = variants[ONE_SHOT_RAIL][dtype][SUM][MAX_UNROLLED].kernel;
    if (kernel == 0)
        kernel = variants[ONE_SHOT_RAIL][dtype][ANY][0].kernel;
    return (enum tt_cuda_kernel)(kernel - 1);
}

uint32_t tt_cuda_packets_dtypes(void)
{
    uint32_t bits = 0;

    for (int dtype = 0; dtype < TUTTI_N_DTYPES; dtype++)
        bits |= (uint32_t)(tt_cuda_by_packets((tutti_dtype)dtype) != 0) << dtype;
    return bits;
}

static enum body body_of(enum tt_algo algo)
{
    return algo == TT_ALGO_ONE_SHOT ? ONE_SHOT : algo == TT_ALGO_TWO_SHOT ? TWO_SHOT : DIRECT;
}

/* The body for what is shared evenly, kernels/even.inc, or else the same. */
static enum body even_body(enum body body, const struct tt_cuda_reduce_args *args)
{
    if (body == ONE_SHOT && args->aligned && args->bytes > 0 && args->bytes % 16 == 0)
        return ONE_SHOT_EVEN;
    if (body == TWO_SHOT && args->stride > 0 && args->result_to != TT_RESULT_ROOT &&
        (args->result_to != TT_RESULT_WHOLE || args->base.n_ranks == 2))
        return TWO_SHOT_EVEN;
    return body;
}

static enum tt_cuda_kernel variant(enum body body, tutti_dtype dtype, int n_ranks,
                                   const struct tt_cuda_reduce_args *args)
{
    int kernel = 0;

    if (args->op == TUTTI_OP_SUM && n_ranks <= MAX_UNROLLED)
        kernel = variants[even_body(body, args)][dtype][SUM][n_ranks].kernel;
    if (kernel == 0)
        kernel = variants[body][dtype][ANY][0].kernel;
    return (enum tt_cuda_kernel)(kernel - 1);
}

/* Equal shards of whole 16-byte vectors; the last ones may be short or empty. Returns the longest. */
static uint64_t share_evenly(struct tt_cuda_reduce_args *args, int n)
{
    const uint64_t vectors = args->bytes / 16 + (args->bytes % 16 != 0);
    const uint64_t each = (vectors + (uint64_t)n - 1) / (uint64_t)n * 16;
    uint64_t at = 0;

    for (int r = 0; r < n; r++) {
        args->shard_at[r] = at;
        args->shard_bytes[r] = args->bytes - at < each ? args->bytes - at : each;
        at += args->shard_bytes[r];
    }
    return args->bytes < each ? args->bytes : each;
}

static uint64_t share_as_given(struct tt_cuda_reduce_args *args, const struct tt_call *call, int n)
{
    const uint64_t size = tt_dtype_bytes(call->dtype);
    uint64_t at = 0, longest = 0;

    for (int r = 0; r < n; r++) {
        const uint64_t bytes = (call->counts ? call->counts[r] : call->count) * size;

        args->shard_at[r] = call->send_displs ? call->send_displs[r] * size : at;
        args->shard_bytes[r] = bytes;
        at += bytes;
        longest = bytes > longest ? bytes : longest;
    }
    args->bytes = at;
    return longest;
}

/* Everything to everybody, by chunks: what is shared are copies. */
static uint64_t share_whole(struct tt_cuda_reduce_args *args, int n)
{
    args->result_to = TT_RESULT_WHOLE;
    for (int r = 0; r < n; r++) {
        args->shard_at[r] = 0;
        args->shard_bytes[r] = args->bytes;
    }
    return args->bytes;
}

/* Bytes of a shard that a launch handles at a time: a vector of each thread, or what even.inc makes of it. */
static uint64_t pass_bytes(const struct tt_cuda_shape *shape, int n)
{
    return (uint64_t)shape->n_blocks * (uint64_t)shape->n_threads * (n == 2 ? 32 : 16);
}

/* Fewest chunks, all about as long. Of whole passes where that can be: a chunk of little more than one takes as
 * long as one of two. */
static uint64_t chunk_bytes(uint64_t longest, uint64_t most, uint64_t pass)
{
    const uint64_t unit = longest > most && most >= pass ? pass : 16;
    const uint64_t fit = unit == pass ? most / unit * unit : most;
    const uint64_t n_chunks = longest / fit + (longest % fit != 0);

    if (n_chunks == 0)
        return 16;
    return ((longest + n_chunks - 1) / n_chunks + unit - 1) / unit * unit;
}

/* Up to where shards reach. */
static uint64_t span_of(const struct tt_cuda_reduce_args *args, int n)
{
    uint64_t end = 0;

    for (int r = 0; r < n; r++)
        if (args->shard_bytes[r] > 0 && args->shard_at[r] + args->shard_bytes[r] > end)
            end = args->shard_at[r] + args->shard_bytes[r];
    return end;
}

/* Where the peers' buffers are. What is reduced to shards stays at home. */
static int reach(struct tt_engine *e, int n, struct tt_cuda_reduce_args *args)
{
    const uint64_t recv_bytes =
        args->result_to == TT_RESULT_SHARD ? args->shard_bytes[e->rank] : args->bytes;
    tutti_window *send, *recv = NULL;

    if (!e->windows || args->result_to == TT_RESULT_ROOT || args->bytes == 0)
        return 0;
    send = tt_cuda_window_find(e, args->send, span_of(args, n));
    if (!send)
        return 0;
    if (args->result_to == TT_RESULT_ALL) {
        recv = tt_cuda_window_find(e, args->recv, recv_bytes);
        if (!recv)
            return 0;
    }
    for (int r = 0; r < n; r++) {
        args->peer_send[r] = tt_cuda_window_at(send, args->send, r);
        args->peer_recv[r] = recv ? tt_cuda_window_at(recv, args->recv, r) : NULL;
    }
    args->peer_recv[e->rank] = args->recv;
    return 1;
}

static int is_aligned(const struct tt_cuda_reduce_args *args, int n, int direct, int has_gaps)
{
    uint64_t bits = (uintptr_t)args->send;

    if (args->result_to != TT_RESULT_ROOT || args->root == args->base.rank)
        bits |= (uintptr_t)args->recv;
    for (int r = 0; r < n; r++) {
        bits |= args->shard_at[r] | (has_gaps ? args->shard_bytes[r] : 0);
        if (direct)
            bits |= (uintptr_t)args->peer_send[r] | (uintptr_t)args->peer_recv[r];
    }
    return bits % 16 == 0;
}

/* Does some rank hear nothing from some other in this launch? Direct kernels always meet. */
static int some_are_silent(const struct tt_cuda_reduce_args *args, enum tt_algo algo, int n)
{
    if (algo == TT_ALGO_DIRECT)
        return 0;
    if (args->bytes == 0 || args->result_to == TT_RESULT_ROOT)
        return 1;
    for (int r = 0; algo == TT_ALGO_TWO_SHOT && r < n; r++)
        if (args->shard_bytes[r] == 0)
            return 1;
    return 0;
}

/* A reduce in one hop is an all_reduce whose result only root keeps. What root waits for is the same, the others have
 * nothing better to do, and that they wait for data keeps them in step without flags. */
static void keep_on_root(struct tt_cuda_reduce_args *args)
{
    args->result_to = TT_RESULT_ALL;
    if (args->root != args->base.rank)
        args->recv = NULL;
}

/* All that does not depend on the algorithm. Returns the bytes of the longest shard. */
static uint64_t describe(const struct tt_engine *e, const struct tt_call *call, int n,
                         struct tt_cuda_reduce_args *args)
{
    args->base = e->base;
    args->base.coll = (uint16_t)call->coll;
    args->send = call->send;
    args->recv = call->recv;
    args->op = (int32_t)call->op;
    args->root = call->root;
    args->result_to = call->coll == TT_COLL_ALL_REDUCE       ? TT_RESULT_ALL
                      : call->coll == TT_COLL_REDUCE_SCATTER ? TT_RESULT_SHARD
                                                             : TT_RESULT_ROOT;
    if (call->coll == TT_COLL_REDUCE_SCATTER)
        return share_as_given(args, call, n);
    args->bytes = call->count * tt_dtype_bytes(call->dtype);
    return share_evenly(args, n);
}

/* reduce_scatterv with counts in GPU memory: the bound decides, and the kernel finds the shards. */
static tutti_result reduce_counted(struct tt_engine *e, const struct tt_call *call)
{
    const tutti_device_counts *c = call->device_counts;
    const int packets = tt_cuda_by_packets(call->dtype);
    const uint64_t most =
        tt_cuda_two_shot_chunk(&e->limits.layout, e->n_ranks, packets, TT_RESULT_SHARD);
    struct tt_cuda_reduce_args args;
    struct tt_cuda_shape shape;

    memset(&args, 0, sizeof(args));
    args.base = e->base;
    args.base.coll = (uint16_t)call->coll;
    args.send = call->send;
    args.recv = call->recv;
    args.op = (int32_t)call->op;
    args.result_to = TT_RESULT_SHARD;
    args.counts.given = c->counts;
    args.counts.max = c->max_count;
    args.counts.send_stride = c->send_stride;
    args.counts.unit_bytes = c->unit * tt_dtype_bytes(call->dtype);
    args.bytes = (uint64_t)e->n_ranks * c->max_count * args.counts.unit_bytes;
    shape = tt_cuda_reduce_shape(&e->limits, call->coll, TT_ALGO_TWO_SHOT, args.bytes, 0, packets);
    args.chunk =
        chunk_bytes(c->max_count * args.counts.unit_bytes, most, pass_bytes(&shape, e->n_ranks));
    tt_cuda_note(e, call, args.bytes);
    args.base.sequence = tt_cuda_sequence(e);
    return tt_cuda_launch(e, variant(TWO_SHOT_COUNTED, call->dtype, e->n_ranks, &args),
                          shape.n_blocks, shape.n_threads, &args, sizeof(args), call->stream);
}

tutti_result tt_cuda_reduce(struct tt_engine *e, const struct tt_call *call)
{
    const int n = e->n_ranks, packets = tt_cuda_by_packets(call->dtype);
    const int has_gaps = call->send_displs != NULL;
    struct tt_cuda_reduce_args args;
    struct tt_cuda_shape shape;
    enum tt_algo wanted;
    enum body body;
    uint64_t longest, most;
    int in_windows = 1;

    if (call->device_counts)
        return reduce_counted(e, call);
    longest = describe(e, call, n, &args);
    if (n == 1) { /* the same arithmetic, without anybody to wait for */
        args.result_to = TT_RESULT_ALL;
        args.peer_send[0] = args.send;
        args.peer_recv[0] = args.recv;
        shape = tt_cuda_reduce_shape(&e->limits, TT_COLL_ALL_REDUCE, TT_ALGO_DIRECT, args.bytes, 1,
                                     packets);
    } else {
        in_windows = reach(e, n, &args);
        wanted = in_windows ? call->window_algo : call->algo;
        shape =
            tt_cuda_reduce_shape(&e->limits, call->coll, wanted, args.bytes, in_windows, packets);
        tt_cuda_take_width(&e->limits, wanted, in_windows ? call->window_width : call->width,
                           &shape);
        if (has_gaps && shape.algo == TT_ALGO_ONE_SHOT) /* which takes all of `send` */
            shape = tt_cuda_reduce_shape(&e->limits, call->coll, TT_ALGO_TWO_SHOT, args.bytes, 0,
                                         packets);
    }
    body = body_of(shape.algo);
    if (body == ONE_SHOT && args.result_to == TT_RESULT_ROOT)
        keep_on_root(&args);
    if (shape.in_chunks) {
        body = TWO_SHOT;
        longest = share_whole(&args, n);
    }
    most = tt_cuda_two_shot_chunk(&e->limits.layout, n, packets, args.result_to);
    if (longest > 0 && longest <= 2 * most) /* no second chunk to keep apart */
        most = longest;
    args.chunk = chunk_bytes(longest, most, pass_bytes(&shape, n));
    args.aligned = is_aligned(&args, n, in_windows && shape.algo == TT_ALGO_DIRECT, has_gaps);
    args.stride = args.aligned && !has_gaps && longest % 16 == 0 &&
                          (longest * (uint64_t)n == args.bytes || args.result_to == TT_RESULT_WHOLE)
                      ? longest
                      : 0;
    args.base.meet = (uint16_t)some_are_silent(&args, shape.algo, n);
    tt_cuda_note(e, call, args.bytes);
    args.base.sequence = tt_cuda_sequence(e);
    tt_cuda_trace(e, call, args.bytes, &shape);
    return tt_cuda_launch(e, variant(body, call->dtype, n, &args), shape.n_blocks, shape.n_threads,
                          &args, sizeof(args), call->stream);
}
