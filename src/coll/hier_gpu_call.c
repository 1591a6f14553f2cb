/* From a call to what happens on the GPU: steps within the host by the CUDA engine, and launches that the
 * proxy completes. */
#include <stdlib.h>
#include <string.h>

#include "coll/hier_gpu_parts.h"

/* Up to which size every rank's whole partial result crosses, instead of a part for each. */
#define SMALL_BYTES (UINT64_C(32) << 10)

static struct tt_gpu_plan *begin(struct tt_gpu_plan *plan, enum tt_gpu_kind kind,
                                 const struct tt_call *call)
{
    plan->kind = kind;
    plan->call = call;
    plan->longest = 0;
    plan->most = 1;
    plan->n_out = plan->n_in = 0;
    return plan;
}

static unsigned char *at(const void *base, uint64_t offset)
{
    return base ? (unsigned char *)(uintptr_t)base + offset : NULL;
}

/* ---- reductions ---- */

static tutti_result local(struct tt_engine *e, struct tt_call *call)
{
    call->thread = TT_CALL_UNCOUNTED;
    return tt_cuda_engine.run(e->cuda, call);
}

static tutti_result along_rail(struct tt_engine *e, const struct tt_call *call, void *send,
                               void *recv, uint64_t bytes)
{
    struct tt_gpu_plan plan;

    begin(&plan, TT_GPU_RAIL, call)->longest = bytes;
    tt_gpu_plan_out(&plan, send, bytes, e->rank);
    tt_gpu_plan_in(&plan, recv, bytes, e->rank);
    return tt_gpu_plan_launch(e, &plan);
}

static tutti_op partial_op(tutti_op op)
{
    return op == TUTTI_OP_AVG ? TUTTI_OP_SUM : op;
}

/* All ranks have their host's partial result; each reduces all of it with its like. */
static tutti_result all_reduce_small(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    struct tt_call within = *call;

    if (e->place.n_local == 1)
        return along_rail(e, call, (void *)(uintptr_t)call->send, call->recv, bytes);
    within.op = partial_op(call->op);
    TT_TRY(local(e, &within));
    return along_rail(e, call, call->recv, call->recv, bytes);
}

/* Each rank of a rail has a part of it, reduces that with its like, and all parts are gathered. */
static tutti_result all_reduce_parts(struct tt_engine *e, const struct tt_call *call)
{
    const struct tt_hier_place *p = &e->place;
    const size_t size = tt_dtype_bytes(call->dtype);
    struct tt_hier_part mine = {call->count, 0};
    struct tt_call within = *call;
    unsigned char *part;

    if (p->local < p->n_rails)
        mine = tt_hier_part_of(call->count, p->n_rails, p->local, size);
    part = at(call->recv, mine.first * size);
    for (int i = 0; i < p->n_local; i++)
        e->counts[i] = i < p->n_rails ? tt_hier_part_of(call->count, p->n_rails, i, size).n : 0;
    within.coll = TT_COLL_REDUCE_SCATTER;
    within.op = partial_op(call->op);
    within.counts = e->counts;
    within.recv = part;
    if (p->n_local > 1)
        TT_TRY(local(e, &within));
    if (p->local < p->n_rails)
        TT_TRY(along_rail(e, call, p->n_local > 1 ? part : (void *)(uintptr_t)call->send, part,
                          mine.n * size));
    if (p->n_local == 1)
        return TUTTI_OK;
    within.coll = TT_COLL_ALL_GATHER;
    within.send = part;
    within.recv = call->recv;
    return local(e, &within);
}

static tutti_result all_reduce(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    struct tt_gpu_plan plan;

    if (!tt_hier_is_flat(call))
        return e->place.is_even && bytes <= SMALL_BYTES ? all_reduce_small(e, call)
                                                        : all_reduce_parts(e, call);
    begin(&plan, TT_GPU_WHOLE, call)->longest = bytes;
    tt_gpu_plan_out(&plan, call->send, bytes, e->rank);
    tt_gpu_plan_in(&plan, call->recv, bytes, e->rank);
    return tt_gpu_plan_launch(e, &plan);
}

/* Bytes of rank r's block, where all ranks know them. */
static uint64_t block_of(const struct tt_call *call, int r)
{
    return (call->counts ? call->counts[r] : call->count) * tt_dtype_bytes(call->dtype);
}

static void measure(const struct tt_engine *e, struct tt_gpu_plan *plan, const struct tt_call *call,
                    uint64_t unit)
{
    plan->most = 0;
    for (int r = 0; r < e->n_ranks; r++) {
        const uint64_t bytes = block_of(call, r) * unit;

        plan->longest = bytes > plan->longest ? bytes : plan->longest;
        plan->most += bytes > 0;
    }
}

static tutti_result reduce_scatter(struct tt_engine *e, const struct tt_call *call)
{
    struct tt_gpu_plan plan;
    uint64_t before = 0;

    measure(e, begin(&plan, TT_GPU_WHOLE, call), call, 1);
    for (int r = 0; r < e->n_ranks; r++) {
        tt_gpu_plan_out(&plan, at(call->send, before), block_of(call, r), r);
        before += block_of(call, r);
    }
    tt_gpu_plan_in(&plan, call->recv, block_of(call, e->rank), e->rank);
    return tt_gpu_plan_launch(e, &plan);
}

/* ---- moves ---- */

static tutti_result all_gather(struct tt_engine *e, const struct tt_call *call)
{
    struct tt_gpu_plan plan;
    uint64_t before = 0;

    measure(e, begin(&plan, TT_GPU_WHOLE, call), call, 1);
    tt_gpu_plan_out(&plan, call->send, block_of(call, e->rank), e->rank);
    for (int r = 0; r < e->n_ranks; r++) {
        tt_gpu_plan_in(&plan, call->recv_blocks ? call->recv_blocks[r] : at(call->recv, before),
                       block_of(call, r), r);
        before += block_of(call, r);
    }
    return tt_gpu_plan_launch(e, &plan);
}

/* Blocks of one rank stand together in a chunk, whatever tensor they are of. */
static tutti_result gather_parts(struct tt_engine *e, const struct tt_call *call, size_t first,
                                 size_t n)
{
    struct tt_gpu_plan plan;
    uint64_t widest = 0, before = 0;

    for (size_t p = first; p < first + n; p++)
        widest = call->parts[p].row_bytes > widest ? call->parts[p].row_bytes : widest;
    measure(e, begin(&plan, TT_GPU_WHOLE, call), call, widest);
    plan.most *= (int)n;
    for (size_t p = first; p < first + n; p++)
        tt_gpu_plan_out(&plan, call->parts[p].send,
                        call->counts[e->rank] * call->parts[p].row_bytes, e->rank);
    for (int r = 0; r < e->n_ranks; r++) {
        for (size_t p = first; p < first + n; p++)
            tt_gpu_plan_in(&plan, at(call->parts[p].recv, before * call->parts[p].row_bytes),
                           call->counts[r] * call->parts[p].row_bytes, r);
        before += call->counts[r];
    }
    return tt_gpu_plan_launch(e, &plan);
}

static tutti_result gather_rows(struct tt_engine *e, const struct tt_call *call)
{
    const size_t fit = TT_CUDA_STAGE_BLOCKS / (size_t)(e->n_ranks + 1);

    for (size_t p = 0; p < call->n_parts; p += fit)
        TT_TRY(gather_parts(e, call, p, call->n_parts - p < fit ? call->n_parts - p : fit));
    return TUTTI_OK;
}

/* Counts that only the two ranks of a pair know: messages, and what stays here is copied. */
static tutti_result all_to_allv(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t size = tt_dtype_bytes(call->dtype);
    struct tt_gpu_plan plan;

    TT_TRY(tt_cuda_copy(e->cuda, at(call->recv, call->recv_displs[e->rank] * size),
                        at(call->send, call->send_displs[e->rank] * size),
                        call->send_counts[e->rank] * size, call->stream));
    begin(&plan, TT_GPU_MESSAGES, call);
    for (int i = 1; i < e->n_ranks; i++) {
        const int r = (e->rank + i) % e->n_ranks;

        tt_gpu_plan_out(&plan, at(call->send, call->send_displs[r] * size),
                        call->send_counts[r] * size, r);
    }
    for (int i = 1; i < e->n_ranks; i++) {
        const int r = (e->rank + e->n_ranks - i) % e->n_ranks;

        tt_gpu_plan_in(&plan, at(call->recv, call->recv_displs[r] * size),
                       call->recv_counts[r] * size, r);
    }
    return tt_gpu_plan_launch(e, &plan);
}

/* A block for every rank on the ranks that have such, one on the others. */
static void plan_blocks(const struct tt_engine *e, struct tt_gpu_plan *plan, int is_out, int n,
                        const void *base, uint64_t bytes)
{
    for (int r = 0; r < n; r++) {
        const int rank = n == 1 ? e->rank : r;

        if (is_out)
            tt_gpu_plan_out(plan, at(base, (uint64_t)r * bytes), bytes, rank);
        else
            tt_gpu_plan_in(plan, at(base, (uint64_t)r * bytes), bytes, rank);
    }
}

/* All others: `bytes` of each block, how many blocks go out and come in here. */
static tutti_result move(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int n = e->n_ranks, is_root = e->rank == call->root;
    struct tt_gpu_plan plan;
    int n_out = 1, n_in = 1, most = n;

    switch (call->coll) {
    case TT_COLL_ALL_TO_ALL: n_out = n_in = n; break;
    case TT_COLL_BROADCAST:
        n_out = is_root;
        n_in = !is_root;
        most = 1;
        break;
    case TT_COLL_REDUCE:
        n_in = is_root;
        most = 1;
        break;
    case TT_COLL_GATHER: n_in = is_root ? n : 0; break;
    case TT_COLL_SCATTER: n_out = is_root ? n : 0; break;
    default: n_out = n_in = most = 0; /* barrier */
    }
    begin(&plan, TT_GPU_WHOLE, call)->longest = call->coll == TT_COLL_BARRIER ? 0 : bytes;
    plan.most = most;
    plan_blocks(e, &plan, 1, n_out, call->send, bytes);
    plan_blocks(e, &plan, 0, n_in, call->recv, bytes);
    return tt_gpu_plan_launch(e, &plan);
}

/* ---- any call ---- */

/* Bytes of the larger side, for the counters. */
static uint64_t larger_side(const struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t size = tt_dtype_bytes(call->dtype), n = (uint64_t)e->n_ranks;
    uint64_t count = 0, row = call->parts ? 0 : size;

    for (size_t p = 0; call->parts && p < call->n_parts; p++)
        row += call->parts[p].row_bytes;
    for (uint64_t r = 0; r < n; r++)
        count += call->counts ? call->counts[r] : call->recv_counts ? call->recv_counts[r] : 0;
    if (call->counts || call->recv_counts)
        return count * row;
    switch (call->coll) {
    case TT_COLL_ALL_REDUCE:
    case TT_COLL_BROADCAST:
    case TT_COLL_REDUCE: return call->count * size;
    default: return n * call->count * size;
    }
}

static tutti_result dispatch(struct tt_engine *e, const struct tt_call *call)
{
    if (call->device_counts)
        return tt_hier_gpu_counted(e, call);
    tt_cuda_note(e->cuda, call, larger_side(e, call));
    switch (call->coll) {
    case TT_COLL_ALL_REDUCE: return all_reduce(e, call);
    case TT_COLL_REDUCE_SCATTER: return reduce_scatter(e, call);
    case TT_COLL_ALL_GATHER: return call->parts ? gather_rows(e, call) : all_gather(e, call);
    case TT_COLL_ALL_TO_ALL: return call->send_counts ? all_to_allv(e, call) : move(e, call);
    default: return move(e, call);
    }
}

tutti_result tt_hier_gpu_run(struct tt_engine *e, const struct tt_call *call)
{
    tutti_result res;

    TT_TRY(tt_hier_gpu_failed(e));
    res = dispatch(e, call);
    /* If it has failed since: the proxy knows why. */
    return res == TUTTI_OK || tt_hier_failed(e->data) == TUTTI_OK ? res : tt_hier_failed(e->data);
}

/* ---- sends and receives ---- */

enum { WAITING, CHOSEN, DONE }; /* tt_p2p.done */

/* Message k of each peer and direction, for the least k that is left: how many each way. */
static void choose_round(const struct tt_engine *e, struct tt_p2p ops[], size_t n_ops, int n_out[2])
{
    unsigned char seen[2][TT_HIER_GPU_MAX_RANKS] = {{0}};

    n_out[0] = n_out[1] = 0;
    for (size_t i = 0; i < n_ops; i++) {
        unsigned char *had = &seen[ops[i].is_send != 0][ops[i].peer];

        if (ops[i].done != WAITING || *had || ops[i].peer == e->rank)
            continue;
        *had = 1;
        ops[i].done = CHOSEN;
        n_out[ops[i].is_send != 0]++;
    }
}

static tutti_result launch_chosen(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_call call = tt_call_even(TT_COLL_SEND_RECV, TUTTI_DTYPE_U8, NULL, NULL, 0);
    struct tt_gpu_plan plan;

    call.stream = ops[0].stream;
    begin(&plan, TT_GPU_MESSAGES, &call);
    for (int is_send = 1; is_send >= 0; is_send--)
        for (size_t i = 0; i < n_ops; i++) {
            if (ops[i].done != CHOSEN || ops[i].is_send != is_send)
                continue;
            call.dtype = ops[i].dtype;
            if (is_send)
                tt_gpu_plan_out(&plan, ops[i].buf, ops[i].bytes, ops[i].peer);
            else
                tt_gpu_plan_in(&plan, ops[i].buf, ops[i].bytes, ops[i].peer);
            ops[i].done = DONE;
        }
    return plan.n_out + plan.n_in > 0 ? tt_gpu_plan_launch(e, &plan) : TUTTI_OK;
}

/* As few launches as will hold them, cut between rounds: ranks whose groups are cut differently cannot
 * wait in a circle. Two ranks of a host meet here too, for they cannot know whether the other's group
 * goes to other hosts as well. */
tutti_result tt_hier_gpu_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_call call = tt_call_even(TT_COLL_SEND_RECV, TUTTI_DTYPE_U8, NULL, NULL, 0);
    int n[2] = {0, 0}, round[2];

    TT_TRY(tt_hier_gpu_failed(e));
    TT_TRY(tt_cuda_serve_oneself(e->cuda, e->rank, ops, n_ops));
    for (size_t i = 0; i < n_ops; i++)
        tt_cuda_note(e->cuda, &call, ops[i].bytes);
    for (;;) {
        choose_round(e, ops, n_ops, round);
        n[0] += round[0];
        n[1] += round[1];
        if (round[0] + round[1] == 0)
            return launch_chosen(e, ops, n_ops);
        /* The next round is no longer than this one. */
        if (tt_cuda_stage_window(e->stage, n[1] + round[1], n[0] + round[0]) == 0) {
            TT_TRY(launch_chosen(e, ops, n_ops));
            n[0] = n[1] = 0;
        }
    }
}
