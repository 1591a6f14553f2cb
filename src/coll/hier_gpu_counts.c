/*
 * Calls of GPUs on several hosts whose counts lie in GPU memory. The kernel brings the counts out, the
 * proxy tells them to all ranks and answers with where every block begins and ends; all ranks know the
 * same then, and go on as with counts that they were given.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coll/hier_gpu_parts.h"

/* ---- the caller's side ---- */

static uint64_t unit_of(const struct tt_call *call)
{
    const uint64_t unit = call->device_counts->unit ? call->device_counts->unit : 1;

    return unit * tt_dtype_bytes(call->dtype);
}

/* The record has bytes for a count of 1, the launch what the bound allows. */
static void add(struct tt_gpu_plan *plan, int is_out, const void *base, uint64_t unit, int rank)
{
    const uint64_t most = unit * plan->call->device_counts->max_count;

    if (is_out)
        tt_gpu_plan_out(plan, base, most, rank);
    else
        tt_gpu_plan_in(plan, (void *)(uintptr_t)base, most, rank);
    plan->parts[plan->n_out + plan->n_in - 1].bytes = unit;
}

static tutti_result launch(struct tt_engine *e, struct tt_gpu_plan *plan)
{
    uint64_t longest = 0;

    for (int i = 0; i < plan->n_out + plan->n_in; i++)
        longest = plan->blocks[i].bytes > longest ? plan->blocks[i].bytes : longest;
    plan->longest = longest;
    plan->most = plan->n_out > plan->n_in ? plan->n_out : plan->n_in;
    return tt_gpu_plan_launch(e, plan);
}

static tutti_result gather_parts(struct tt_engine *e, const struct tt_call *call, size_t first,
                                 size_t n)
{
    struct tt_call some = *call;
    struct tt_gpu_plan plan = {.kind = TT_GPU_COUNTED, .call = &some};

    some.parts = call->parts + first;
    some.n_parts = n;
    for (size_t p = 0; p < n; p++)
        add(&plan, 1, some.parts[p].send, some.parts[p].row_bytes, e->rank);
    for (int r = 0; r < e->n_ranks; r++)
        for (size_t p = 0; p < n; p++)
            add(&plan, 0, some.parts[p].recv, some.parts[p].row_bytes, r);
    return launch(e, &plan);
}

tutti_result tt_hier_gpu_counted(struct tt_engine *e, const struct tt_call *call)
{
    const size_t fit = TT_CUDA_STAGE_BLOCKS / ((size_t)e->n_ranks + 1);
    struct tt_gpu_plan plan = {.kind = TT_GPU_COUNTED, .call = call};
    const uint64_t unit = unit_of(call);

    tt_cuda_note(e->cuda, call, (uint64_t)e->n_ranks * call->device_counts->max_count * unit);
    for (size_t p = 0; call->parts && p < call->n_parts; p += fit)
        TT_TRY(gather_parts(e, call, p, call->n_parts - p < fit ? call->n_parts - p : fit));
    if (call->parts)
        return TUTTI_OK;
    if (call->coll == TT_COLL_ALL_GATHER)
        add(&plan, 1, call->send, unit, e->rank);
    for (int r = 0; r < e->n_ranks && call->coll != TT_COLL_ALL_GATHER; r++)
        add(&plan, 1, call->send, unit, r);
    if (call->coll == TT_COLL_REDUCE_SCATTER)
        add(&plan, 0, call->recv, unit, e->rank);
    for (int r = 0; r < e->n_ranks && call->coll != TT_COLL_REDUCE_SCATTER; r++)
        add(&plan, 0, call->recv, unit, r);
    return launch(e, &plan);
}

/* ---- the proxy's side ---- */

/* Each rank's words: what it gives all, or what it gives each. */
static tutti_result exchange(struct tt_engine *e, int n_words)
{
    uint64_t *mine = e->words, *all = e->words + e->n_ranks;
    struct tt_call call =
        tt_call_even(TT_COLL_ALL_GATHER, TUTTI_DTYPE_U64, mine, all, (size_t)n_words);

    for (int i = 0; i < n_words; i++)
        mine[i] = tt_cuda_stage_count(e->stage, i);
    return tt_hier_engine.run(e->data, &call);
}

/* All ranks have the same words before them, and say the same. */
static tutti_result check(struct tt_engine *e, const struct tt_gpu_record *r, int n_words,
                          int *culprit)
{
    const uint64_t *all = e->words + e->n_ranks;

    for (int i = 0; i < e->n_ranks * n_words; i++) {
        *culprit = i / n_words;
        if (all[i] > r->counts.max_count)
            return TT_FAIL(TUTTI_E_MISMATCH,
                           "counts in GPU memory: rank %d has a count of %" PRIu64
                           ", above max_count %zu; nothing was moved: raise max_count",
                           *culprit, all[i], r->counts.max_count);
    }
    for (int i = 0; r->call.coll == TT_COLL_REDUCE_SCATTER && i < e->n_ranks; i++) {
        *culprit = i;
        if (memcmp(all, all + (size_t)i * (size_t)n_words, (size_t)n_words * sizeof(*all)) != 0)
            return TT_FAIL(TUTTI_E_MISMATCH,
                           "counts in GPU memory: rank %d has other counts than rank 0, but they "
                           "must be the same on every rank",
                           i);
    }
    return TUTTI_OK;
}

/* The count of block i of those that go out or come in here, of a rank's blocks as they lie in memory. */
static uint64_t count_of(const struct tt_engine *e, const struct tt_gpu_record *r, int is_out,
                         int rank)
{
    const uint64_t *all = e->words + e->n_ranks;
    const size_t n = (size_t)e->n_ranks, me = (size_t)e->rank, other = (size_t)rank;

    if (r->call.coll != TT_COLL_ALL_TO_ALL)
        return all[other];
    return is_out ? all[me * n + other] : all[other * n + me];
}

/* In counts: where the blocks of that rank begin. One that stands alone begins at 0. */
static uint64_t begin_of(const struct tt_engine *e, const struct tt_gpu_record *r, int is_out,
                         int rank)
{
    const uint64_t stride = is_out ? r->counts.send_stride : r->counts.recv_stride;
    const int is_alone =
        is_out ? r->call.coll == TT_COLL_ALL_GATHER : r->call.coll == TT_COLL_REDUCE_SCATTER;
    uint64_t at = 0;

    if (is_alone)
        return 0;
    for (int q = 0; stride == 0 && q < rank; q++)
        at += count_of(e, r, is_out, q);
    return stride ? (uint64_t)rank * stride : at;
}

/* What all ranks know decides on the slices: the longest block and how many there may be in a slot. */
static void fill(const struct tt_engine *e, const struct tt_gpu_record *r, int n_words,
                 struct tt_cuda_stage_plan *plan)
{
    const uint64_t *all = e->words + e->n_ranks;
    uint64_t longest = 0, widest = 0;

    for (int i = 0; i < r->n_out + r->n_in; i++) {
        const int is_out = i < r->n_out, rank = r->part[i].rank;
        const uint64_t unit = r->part[i].bytes;

        plan->block[i].at = begin_of(e, r, is_out, rank) * unit;
        plan->block[i].bytes = count_of(e, r, is_out, rank) * unit;
        widest = unit > widest ? unit : widest;
    }
    for (int i = 0; i < e->n_ranks * n_words; i++)
        longest = all[i] > longest ? all[i] : longest;
    for (int q = 0; q < e->n_ranks; q++)
        plan->received[q] = count_of(e, r, 0, q);
    tt_gpu_cut(e, longest * widest, e->n_ranks * r->n_parts, &plan->slice, &plan->n_chunks);
}

/* What cannot be done is answered too, by nothing to move. When the kernel is over its failure can be seen, but
 * the others hear of it only when all have the counts and have answered their kernels likewise. */
static tutti_result refuse(struct tt_engine *e, tutti_result why, int culprit)
{
    const struct tt_call barrier = {.coll = TT_COLL_BARRIER, .dtype = TUTTI_DTYPE_U8};
    struct tt_cuda_stage_plan *plan = tt_cuda_stage_plan(e->stage);

    snprintf(e->refusal_text, sizeof(e->refusal_text), "%s", tt_error_text());
    e->refusal = why;
    e->refusal_peer = culprit;
    atomic_store(&e->has_refused, 1);
    plan->n_chunks = 0;
    memset(plan->received, 0, sizeof(plan->received));
    memset(plan->block, 0, sizeof(plan->block));
    tt_cuda_stage_planned(e->stage);
    (void)tt_hier_engine.run(e->data, &barrier);
    return tt_hier_fail(e->data, why, culprit, e->refusal_text);
}

tutti_result tt_hier_gpu_plan_counts(struct tt_engine *e, const struct tt_gpu_record *r)
{
    const int n_words = r->call.coll == TT_COLL_ALL_GATHER ? 1 : e->n_ranks;
    int culprit = -1;
    tutti_result res;

    TT_TRY(exchange(e, n_words));
    res = check(e, r, n_words, &culprit);
    if (res != TUTTI_OK)
        return refuse(e, res, culprit);
    fill(e, r, n_words, tt_cuda_stage_plan(e->stage));
    tt_cuda_stage_planned(e->stage);
    return TUTTI_OK;
}
