/* Everything that only moves data: from a call to one launch, two for a large broadcast. */
#include "base/error.h"
#include "cuda/cuda.h"

#define BROADCAST_ALL ((uint64_t)256 << 10) /* larger ones are divided among the ranks to pass on */

/* A move under preparation. */
struct plan {
    struct tt_cuda_move_args args;
    uint64_t put_at[TT_CUDA_MAX_RANKS]; /* my block's place in each peer's recv, in units */
    uint64_t longest; /* units that one rank sends another, on any rank; UINT64_MAX: unknown */
    uint64_t bytes;   /* of the larger side, for the statistics */
    int can_put;      /* may go straight into the peers' windows, if recv[0 .. bytes) is one */
    int silent;       /* some rank sends some other nothing */
};

static void begin(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    struct tt_cuda_move_args *a = &plan->args;

    a->base = e->base;
    a->base.coll = (uint16_t)call->coll;
    a->part[0].send = call->send;
    a->part[0].recv = call->recv;
    a->part[0].unit_bytes = 1;
    a->n_parts = 1;
    for (int r = 0; r < e->n_ranks; r++)
        a->send_at[r] = a->send_units[r] = a->recv_at[r] = a->recv_units[r] = plan->put_at[r] = 0;
    plan->longest = plan->bytes = 0;
    plan->can_put = plan->silent = 0;
}

static void give(struct plan *plan, int peer, uint64_t at, uint64_t units, uint64_t put_at)
{
    plan->args.send_at[peer] = at;
    plan->args.send_units[peer] = units;
    plan->put_at[peer] = put_at;
}

static void take(struct plan *plan, int peer, uint64_t at, uint64_t units)
{
    plan->args.recv_at[peer] = at;
    plan->args.recv_units[peer] = units;
}

/* What any pair of ranks may send one another. */
static void admit(struct plan *plan, uint64_t units)
{
    plan->longest = units > plan->longest ? units : plan->longest;
    plan->silent |= units == 0;
}

static void all_gather(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    const uint64_t size = call->parts ? 1 : tt_dtype_bytes(call->dtype);
    uint64_t at = 0;

    for (int r = 0; r < e->n_ranks; r++) {
        const uint64_t units = (call->counts ? call->counts[r] : call->count) * size;

        take(plan, r, at, units);
        admit(plan, units);
        at += units;
    }
    for (int r = 0; r < e->n_ranks; r++)
        give(plan, r, 0, plan->args.recv_units[e->rank], plan->args.recv_at[e->rank]);
    plan->bytes = at;
    plan->can_put = !call->parts && !call->recv_blocks;
}

static void set_parts(struct plan *plan, const struct tt_call *call)
{
    const uint64_t rows = plan->bytes;

    plan->args.n_parts = (int32_t)call->n_parts;
    plan->bytes = 0;
    for (size_t p = 0; p < call->n_parts; p++) {
        plan->args.part[p].send = call->parts[p].send;
        plan->args.part[p].recv = call->parts[p].recv;
        plan->args.part[p].unit_bytes = call->parts[p].row_bytes;
        plan->bytes += rows * call->parts[p].row_bytes;
        plan->silent |= call->parts[p].row_bytes == 0;
    }
}

/* An all-gather to blocks that lie anywhere: offsets from the lowest. */
static void to_blocks(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    uintptr_t lowest = UINTPTR_MAX;

    for (int r = 0; r < e->n_ranks; r++)
        if ((uintptr_t)call->recv_blocks[r] < lowest)
            lowest = (uintptr_t)call->recv_blocks[r];
    for (int r = 0; r < e->n_ranks; r++)
        plan->args.recv_at[r] = (uintptr_t)call->recv_blocks[r] - lowest;
    plan->args.part[0].recv = (unsigned char *)lowest;
}

static void all_to_all(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    const uint64_t size = tt_dtype_bytes(call->dtype), block = call->count * size;

    for (int r = 0; r < e->n_ranks; r++) {
        if (call->send_counts) {
            give(plan, r, call->send_displs[r] * size, call->send_counts[r] * size, 0);
            take(plan, r, call->recv_displs[r] * size, call->recv_counts[r] * size);
        } else {
            give(plan, r, (uint64_t)r * block, block, (uint64_t)e->rank * block);
            take(plan, r, (uint64_t)r * block, block);
        }
        plan->bytes += plan->args.recv_units[r];
    }
    if (!call->send_counts) {
        admit(plan, block);
    } else if (e->n_ranks == 2) { /* of a pair both know what goes either way */
        admit(plan, plan->args.send_units[1 - e->rank]);
        admit(plan, plan->args.recv_units[1 - e->rank]);
    } else { /* each rank knows its own messages only */
        plan->longest = UINT64_MAX;
        plan->silent = 1;
    }
    plan->can_put = !call->send_counts && call->send != call->recv;
}

/* Whole blocks between root and the others; a broadcast's root keeps its own. */
static void rooted(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    const uint64_t block = call->count * tt_dtype_bytes(call->dtype);
    const uint64_t step = call->coll == TT_COLL_BROADCAST ? 0 : block;
    const int gathers = call->coll == TT_COLL_GATHER;

    plan->longest = block;
    plan->silent = 1;
    plan->bytes = step ? (uint64_t)e->n_ranks * block : block;
    plan->can_put = call->coll == TT_COLL_BROADCAST;
    for (int r = 0; r < e->n_ranks; r++) {
        if (gathers && e->rank == call->root)
            take(plan, r, (uint64_t)r * block, block);
        if (!gathers && e->rank == call->root)
            give(plan, r, (uint64_t)r * step, block, 0);
    }
    if (gathers)
        give(plan, call->root, 0, block, 0);
    else
        take(plan, call->root, 0, block);
}

/* Counts in GPU memory: the bound decides, and the kernel finds the blocks. All ranks hear from all. */
static void by_counts(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    const tutti_device_counts *c = call->device_counts;
    const uint64_t peers = (uint64_t)e->n_ranks - 1;
    const uint64_t stride = c->recv_stride ? c->recv_stride : c->max_count;
    struct tt_cuda_move_args *a = &plan->args;

    a->counts.given = c->counts;
    a->counts.received = c->received;
    a->counts.max = c->max_count;
    a->counts.send_stride = c->send_stride;
    a->counts.recv_stride = c->recv_stride;
    a->counts.is_one = call->coll == TT_COLL_ALL_GATHER;
    a->part[0].unit_bytes = c->unit * tt_dtype_bytes(call->dtype);
    plan->longest = c->max_count;
    plan->bytes = peers * stride + c->max_count;
    if (call->parts)
        set_parts(plan, call);
    else
        plan->bytes *= a->part[0].unit_bytes;
    /* A peer's place is known to me if all have the same blocks, or none depends on another. */
    plan->can_put = !call->parts && (a->counts.is_one || c->recv_stride > 0);
    for (int r = 0; r < e->n_ranks; r++)
        a->peer_recv[r] = NULL;
}

/* Where the part of a broadcast that rank r passes on begins. */
static uint64_t part_at(uint64_t bytes, int n_ranks, int r)
{
    const uint64_t each = bytes / 16 / (uint64_t)n_ranks * 16;

    return r == n_ranks ? bytes : (uint64_t)r * each;
}

/* A large broadcast in two moves: root gives every rank a part, then all give theirs to all others.
 * So root sends its data about twice, not n_ranks - 1 times. */
static void spread(struct tt_engine *e, struct plan *plan, const struct tt_call *call, int second)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const uint64_t my_at = part_at(bytes, e->n_ranks, e->rank);
    const uint64_t my_bytes = part_at(bytes, e->n_ranks, e->rank + 1) - my_at;

    for (int r = 0; r < e->n_ranks; r++) {
        const uint64_t at = part_at(bytes, e->n_ranks, r);
        const uint64_t units = part_at(bytes, e->n_ranks, r + 1) - at;

        admit(plan, units);
        if (r == e->rank)
            continue;
        if (second && e->rank != call->root)
            take(plan, r, at, units);
        if (second && r != call->root)
            give(plan, r, my_at, my_bytes, my_at);
        if (!second && e->rank == call->root)
            give(plan, r, at, units, at);
        if (!second && r == call->root)
            take(plan, r, my_at, my_bytes);
    }
    plan->bytes = bytes;
    plan->silent = 1;
    plan->can_put = 1;
}

static enum tt_cuda_kernel kernel_of(enum tt_algo algo, const struct tt_call *call)
{
    const int counted = call->device_counts != NULL;

    switch (algo) {
    case TT_ALGO_ONE_SHOT:
        return counted ? TT_CUDA_KERNEL_tt_move_packet_counted : TT_CUDA_KERNEL_tt_move_packet;
    case TT_ALGO_TWO_SHOT:
        return counted ? TT_CUDA_KERNEL_tt_move_staged_counted : TT_CUDA_KERNEL_tt_move_staged;
    default: return counted ? TT_CUDA_KERNEL_tt_move_direct_counted : TT_CUDA_KERNEL_tt_move_direct;
    }
}

static tutti_result launch(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    struct tt_cuda_move_args *a = &plan->args;
    uint64_t pair_bytes = 0, pair_room = 0;
    tutti_window *window = NULL;
    struct tt_cuda_shape shape;
    enum tt_algo wanted;

    for (int p = 0; plan->longest != UINT64_MAX && p < a->n_parts; p++) {
        pair_bytes += plan->longest * a->part[p].unit_bytes;
        pair_room += tt_cuda_packet_bytes(plan->longest * a->part[p].unit_bytes);
    }
    if (plan->longest == UINT64_MAX)
        pair_bytes = pair_room = UINT64_MAX;
    if (plan->can_put && e->windows && plan->bytes > 0)
        window = tt_cuda_window_find(e, call->recv, plan->bytes);
    wanted = window ? call->window_algo : call->algo;
    shape = tt_cuda_move_shape(&e->limits, wanted, pair_bytes, pair_room, window != NULL);
    tt_cuda_take_width(&e->limits, wanted, window ? call->window_width : call->width, &shape);
    tt_cuda_trace(e, call, plan->bytes, &shape);
    for (int r = 0; shape.algo == TT_ALGO_DIRECT && r < e->n_ranks; r++)
        a->peer_recv[r] = tt_cuda_window_at(window, call->recv, r) + plan->put_at[r];
    a->base.meet = plan->silent && shape.algo != TT_ALGO_DIRECT; /* which always meets */
    return tt_cuda_launch(e, kernel_of(shape.algo, call), shape.n_blocks, shape.n_threads, a,
                          sizeof(*a), call->stream);
}

static tutti_result barrier(struct tt_engine *e, struct plan *plan, const struct tt_call *call)
{
    plan->args.n_parts = 0; /* the kernel's own word for it */
    plan->args.base.meet = 0;
    return tt_cuda_launch(e, TT_CUDA_KERNEL_tt_move_packet, 1, TT_CUDA_MAX_RANKS, &plan->args,
                          sizeof(plan->args), call->stream);
}

/* One rank: its block for itself. */
static tutti_result copy_own(struct tt_engine *e, const struct plan *plan, CUstream stream)
{
    const struct tt_cuda_move_args *a = &plan->args;
    tutti_result res = TUTTI_OK;

    for (int p = 0; res == TUTTI_OK && p < a->n_parts; p++) {
        const uint64_t unit = a->part[p].unit_bytes;
        const unsigned char *from = a->part[p].send;
        unsigned char *to = a->part[p].recv;

        if (a->send_units[0] * unit > 0)
            res = tt_cuda_copy(e, to + a->recv_at[0] * unit, from + a->send_at[0] * unit,
                               a->send_units[0] * unit, stream);
    }
    return res;
}

tutti_result tt_cuda_copy(struct tt_engine *e, void *to, const void *from, size_t bytes,
                          CUstream stream)
{
    const struct tt_cuda_driver *cu = tt_cuda_driver();
    tutti_result res;
    int entered;

    if (to == from || bytes == 0)
        return TUTTI_OK;
    TT_TRY(tt_cuda_enter(e->device, &entered));
    res = TT_CUDA(cu->cuMemcpyDtoDAsync_v2((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from,
                                           bytes, stream));
    tt_cuda_leave(entered);
    return res;
}

tutti_result tt_cuda_move(struct tt_engine *e, const struct tt_call *call)
{
    struct plan plan;

    begin(e, &plan, call);
    if (call->device_counts) {
        by_counts(e, &plan, call);
        tt_cuda_note(e, call, plan.bytes);
        plan.args.base.sequence = tt_cuda_sequence(e);
        return launch(e, &plan, call);
    }
    switch (call->coll) {
    case TT_COLL_ALL_GATHER:
        all_gather(e, &plan, call);
        if (call->parts)
            set_parts(&plan, call);
        if (call->recv_blocks)
            to_blocks(e, &plan, call);
        break;
    case TT_COLL_ALL_TO_ALL: all_to_all(e, &plan, call); break;
    case TT_COLL_BROADCAST:
    case TT_COLL_GATHER:
    case TT_COLL_SCATTER: rooted(e, &plan, call); break;
    default: break;
    }
    tt_cuda_note(e, call, plan.bytes);
    plan.args.base.sequence = tt_cuda_sequence(e);
    if (e->n_ranks == 1)
        return copy_own(e, &plan, call->stream);
    if (call->coll == TT_COLL_BARRIER)
        return barrier(e, &plan, call);
    if (call->coll != TT_COLL_BROADCAST || plan.bytes <= BROADCAST_ALL || e->n_ranks == 2)
        return launch(e, &plan, call);
    for (int second = 0; second < 2; second++) {
        begin(e, &plan, call);
        spread(e, &plan, call, second);
        TT_TRY(launch(e, &plan, call));
    }
    return TUTTI_OK;
}
