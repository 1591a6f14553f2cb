/* A launch between this GPU and the other hosts, and what the proxy is to know of it. */
#include <stdlib.h>
#include <string.h>

#include "coll/hier_gpu_parts.h"

/* ---- plans ---- */

struct tt_gpu_plan *tt_gpu_plan_begin(struct tt_gpu_plan *plan, enum tt_gpu_kind kind,
                                      const struct tt_call *call)
{
    plan->kind = kind;
    plan->call = call;
    plan->longest = 0;
    plan->most = 1;
    plan->n_out = plan->n_in = 0;
    plan->sums = 0;
    plan->partial = call->op;
    return plan;
}

unsigned char *tt_gpu_at(const void *base, uint64_t offset)
{
    return base ? (unsigned char *)(uintptr_t)base + offset : NULL;
}

uint64_t tt_gpu_block_of(const struct tt_call *call, int r)
{
    return (call->counts ? call->counts[r] : call->count) * tt_dtype_bytes(call->dtype);
}

uint64_t tt_gpu_all_blocks(const struct tt_engine *e, const struct tt_call *call)
{
    uint64_t bytes = 0;

    for (int r = 0; r < e->n_ranks; r++)
        bytes += tt_gpu_block_of(call, r);
    return bytes;
}

void tt_gpu_measure(const struct tt_engine *e, struct tt_gpu_plan *plan, const struct tt_call *call,
                    uint64_t unit)
{
    plan->most = 0;
    for (int r = 0; r < e->n_ranks; r++) {
        const uint64_t bytes = tt_gpu_block_of(call, r) * unit;

        plan->longest = bytes > plan->longest ? bytes : plan->longest;
        plan->most += bytes > 0;
    }
}

void tt_gpu_plan_out(struct tt_gpu_plan *plan, const void *at, uint64_t bytes, int rank)
{
    const int i = plan->n_out++;

    plan->blocks[i] =
        (struct tt_cuda_stage_block){.at = (unsigned char *)(uintptr_t)at, .bytes = bytes};
    plan->parts[i] = (struct tt_gpu_part){bytes, rank, plan->call->dtype};
}

void tt_gpu_plan_in(struct tt_gpu_plan *plan, void *at, uint64_t bytes, int rank)
{
    const int i = plan->n_out + plan->n_in++;

    plan->blocks[i] = (struct tt_cuda_stage_block){.at = at, .bytes = bytes};
    plan->parts[i] = (struct tt_gpu_part){bytes, rank, plan->call->dtype};
}

/* ---- records ---- */

static tutti_result keep(struct tt_engine *e, const struct tt_gpu_plan *plan,
                         struct tt_gpu_record **record_out)
{
    const size_t n = (size_t)plan->n_out + (size_t)plan->n_in;
    struct tt_gpu_record *r;
    int is_captured;

    TT_TRY(tt_cuda_is_captured(e->cuda, plan->call->stream, &is_captured));
    r = calloc(1, sizeof(*r) + n * sizeof(r->part[0]) + (size_t)e->n_ranks * sizeof(r->sizes[0]));
    if (!r)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a call with %zu blocks", n);
    r->is_captured = is_captured;
    r->kind = plan->kind;
    r->call = tt_call_even(plan->call->coll, plan->call->dtype, NULL, NULL, 0);
    r->call.op = plan->call->op;
    r->call.root = plan->call->root;
    r->call.algo = plan->call->algo;
    r->n_out = plan->n_out;
    r->n_in = plan->n_in;
    memcpy(r->part, plan->parts, n * sizeof(r->part[0]));
    r->sizes = (uint64_t *)(void *)(r->part + n);
    if (plan->kind == TT_GPU_CROSS || plan->kind == TT_GPU_SCATTER)
        memcpy(r->sizes, plan->sizes, (size_t)e->n_ranks * sizeof(r->sizes[0]));
    pthread_mutex_lock(&e->lock);
    r->next = e->records;
    r->link = &e->records;
    if (r->next)
        r->next->link = &r->next;
    e->records = r;
    pthread_mutex_unlock(&e->lock);
    *record_out = r;
    return TUTTI_OK;
}

void tt_gpu_record_drop(struct tt_engine *e, struct tt_gpu_record *r)
{
    pthread_mutex_lock(&e->lock);
    *r->link = r->next;
    if (r->next)
        r->next->link = r->link;
    pthread_mutex_unlock(&e->lock);
    free(r);
}

/* ---- launches ---- */

int tt_gpu_is_worth_crossing(const struct tt_engine *e, uint64_t bytes)
{
    return e->n_ranks > e->place.n_hosts && bytes > TT_GPU_SMALL;
}

/* Nothing to move is a chunk as well, for the ranks are to meet. */
void tt_gpu_cut(const struct tt_engine *e, uint64_t longest, int most, uint64_t *slice_out,
                uint64_t *n_chunks_out)
{
    const uint64_t slice = e->slot_bytes / (most > 1 ? (uint64_t)most : 1) & ~(uint64_t)63;
    const uint64_t n = longest / slice + (longest % slice != 0);

    *slice_out = slice;
    *n_chunks_out = n ? n : 1;
}

tutti_result tt_gpu_plan_launch(struct tt_engine *e, struct tt_gpu_plan *plan)
{
    struct tt_gpu_record *r = NULL;
    struct tt_cuda_stage_call call;
    tutti_result res;

    TT_TRY(keep(e, plan, &r));
    tt_gpu_cut(e, plan->longest, plan->most, &r->slice, &r->n_chunks);
    r->window = tt_cuda_stage_window(e->stage, plan->n_out, plan->n_in);
    call = (struct tt_cuda_stage_call){.record = r,
                                       .way = plan->sums                      ? TT_STAGE_SUM
                                              : plan->kind == TT_GPU_MESSAGES ? TT_STAGE_MESSAGES
                                              : plan->kind == TT_GPU_COUNTED  ? TT_STAGE_COUNTED
                                                                              : TT_STAGE_CHUNKS,
                                       .coll = plan->call->coll,
                                       .n_out = plan->n_out,
                                       .n_in = plan->n_in,
                                       .blocks = plan->blocks,
                                       .slice = r->slice,
                                       .n_chunks = r->n_chunks,
                                       .window = r->window,
                                       .n_received = e->n_ranks,
                                       .dtype = plan->call->dtype,
                                       .op = plan->partial,
                                       .stream = plan->call->stream};
    if (plan->kind == TT_GPU_COUNTED) {
        const tutti_device_counts *counts = plan->call->device_counts;

        r->counts = *counts;
        r->n_parts = plan->call->parts ? (int)plan->call->n_parts : 1;
        call.given = counts->counts;
        call.received = counts->received;
        call.n_given = plan->call->coll == TT_COLL_ALL_GATHER ? 1 : e->n_ranks;
    }
    tt_gpu_lanes_kick(e, plan->kind == TT_GPU_MESSAGES || plan->kind == TT_GPU_COUNTED
                             ? UINT64_MAX
                             : r->n_chunks);
    res = tt_cuda_stage_launch(e->stage, &call);
    if (res != TUTTI_OK)
        tt_gpu_record_drop(e, r);
    return res;
}

tutti_result tt_hier_gpu_within(struct tt_engine *e, struct tt_call *call)
{
    call->thread = TT_CALL_UNCOUNTED;
    call->algo = call->window_algo = e->algo;
    return tt_cuda_engine.run(e->cuda, call);
}
