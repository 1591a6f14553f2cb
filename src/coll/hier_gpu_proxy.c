/* The proxy of a GPU on several hosts: finds calls whose kernels run, and carries their chunks out on host
 * memory. It makes no call of the driver, which could wait for the kernels that wait for it. */
#include <sched.h>
#include <stdio.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "coll/hier_gpu_parts.h"

#define POLLS   100
#define LOOK_NS UINT64_C(500000) /* from one look at what others say to the next */
#define LIVE_NS                                                                                    \
    UINT64_C(20000000) /* from one look whether they live, which is two system calls each */

/* ---- failing: here, on the GPU and on all other ranks ---- */

static void give_up(struct tt_engine *e, tutti_result why)
{
    char text[256];

    snprintf(text, sizeof(text), "%s", tt_error_text());
    (void)tt_hier_fail(e->data, why, -1, text);
    tt_cuda_end(e->cuda, why);
    e->is_over = 1;
}

tutti_result tt_hier_gpu_failed(const struct tt_engine *e)
{
    int peer;

    if (atomic_load(&e->has_refused))
        return TT_FAIL(e->refusal, "%s", e->refusal_text);
    TT_TRY(tt_hier_failed(e->data));
    return tt_cuda_failed(e->cuda, &peer);
}

/* A kernel cannot see that the rank it waits for has died. */
static tutti_result look_for_dead(struct tt_engine *e)
{
    const struct tt_hier_place *p = &e->place;
    char text[64];

    for (int i = 0; i < p->n_local; i++) {
        const int rank = p->members[p->first[p->host] + i];

        if (i == p->local || tt_hier_local_presence(e->data, i) != TT_HAS_DIED)
            continue;
        snprintf(text, sizeof(text), "rank %d died", rank);
        return tt_hier_fail(e->data, TUTTI_E_PEER, rank, text);
    }
    return TUTTI_OK;
}

/* What kernels report is everybody's business. */
static tutti_result look(struct tt_engine *e)
{
    const uint64_t now = tt_now_ns();
    char text[256];
    tutti_result res;
    int peer;

    if (now - e->looked_ns < LOOK_NS)
        return TUTTI_OK;
    e->looked_ns = now;
    TT_TRY(tt_hier_watch(e->data));
    if (now - e->lived_ns >= LIVE_NS) {
        e->lived_ns = now;
        TT_TRY(look_for_dead(e));
    }
    res = tt_cuda_failed(e->cuda, &peer);
    if (res == TUTTI_OK || atomic_load(&e->is_stopping)) /* whose end has ended the kernels */
        return TUTTI_OK;
    snprintf(text, sizeof(text), "%s", tt_error_text());
    return tt_hier_fail(e->data, res, peer, text);
}

/* ---- chunks ---- */

static tutti_result await_chunk(struct tt_engine *e, uint64_t c)
{
    const uint64_t since = tt_now_ns();

    for (;;) {
        for (int i = 0; i < POLLS; i++) {
            if (tt_cuda_stage_is_put(e->stage, c))
                return TUTTI_OK;
            tt_pause();
        }
        TT_TRY(look(e));
        if (atomic_load(&e->is_stopping))
            return TT_FAIL(TUTTI_E_ABORTED, "rank %d has ended its communicator in a call",
                           e->rank);
        if (tt_now_ns() - since > e->timeout_ns)
            return TT_FAIL(TUTTI_E_TIMEOUT,
                           "the GPU of rank %d has begun a call, but brought no data within "
                           "%llu ms: is it stopped in a debugger, or shared with others?",
                           e->rank, (unsigned long long)(e->timeout_ns / 1000000));
        sched_yield();
    }
}

/* A chunk of a call in host memory: a slice of every block, one after another. */
struct chunk {
    const struct tt_gpu_record *record;
    const struct tt_cuda_stage_plan *plan; /* what follows from counts in GPU memory, or NULL */
    uint64_t from, slice;
    unsigned char *out, *in;
};

static size_t slice_of(const struct chunk *c, int i)
{
    const uint64_t all = c->plan ? c->plan->block[i].bytes : c->record->part[i].bytes;
    const uint64_t left = all > c->from ? all - c->from : 0;

    return (size_t)(left < c->slice ? left : c->slice);
}

/* Bytes of each rank's blocks among n of them. */
static void sum_by_rank(const struct tt_engine *e, const struct chunk *c, int first, int n,
                        size_t sizes[])
{
    for (int r = 0; r < e->n_ranks; r++)
        sizes[r] = 0;
    for (int i = first; i < first + n; i++)
        sizes[c->record->part[i].rank] += slice_of(c, i);
}

/* Blocks of any size between all ranks, one after another. */
static void lay_out(const struct tt_engine *e, const struct chunk *c, struct tt_call *call)
{
    const struct tt_gpu_record *r = c->record;
    const size_t n = (size_t)e->n_ranks;
    size_t *rows = e->proxy_counts;

    call->dtype = TUTTI_DTYPE_U8;
    for (int way = 0; way < 2; way++) {
        size_t *sizes = rows + (size_t)2 * (size_t)way * n, *begins = sizes + n, at = 0;

        sum_by_rank(e, c, way ? r->n_out : 0, way ? r->n_in : r->n_out, sizes);
        for (size_t k = 0; k < n; k++) {
            begins[k] = at;
            at += sizes[k];
        }
    }
    call->send_counts = rows;
    call->send_displs = rows + n;
    call->recv_counts = rows + 2 * n;
    call->recv_displs = rows + 3 * n;
}

static tutti_result run_whole(struct tt_engine *e, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    const size_t size = tt_dtype_bytes(r->call.dtype);
    size_t *counts = e->proxy_counts;
    struct tt_call call = r->call;

    call.send = c->out;
    call.recv = c->in;
    call.stream = NULL;
    call.thread = 0;
    switch (call.coll) {
    case TT_COLL_REDUCE_SCATTER:
        sum_by_rank(e, c, 0, r->n_out, counts);
        for (int i = 0; i < e->n_ranks; i++)
            counts[i] /= size;
        call.counts = counts;
        break;
    case TT_COLL_ALL_GATHER:
        sum_by_rank(e, c, r->n_out, r->n_in, counts);
        call.dtype = TUTTI_DTYPE_U8;
        call.counts = counts;
        break;
    case TT_COLL_BARRIER: break;
    case TT_COLL_ALL_TO_ALL:
        if (c->plan || r->n_out < e->n_ranks) { /* not to ranks of this host */
            lay_out(e, c, &call);
            break;
        }                                        /* fall through */
    default: call.count = slice_of(c, 0) / size; /* of all blocks, whichever way */
    }
    return tt_hier_engine.run(e->data, &call);
}

/* Of every rank's block, also those that do not come by here. */
static const size_t *slices_of_all(const struct tt_engine *e, const struct chunk *c)
{
    for (int q = 0; q < e->n_ranks; q++) {
        const uint64_t all = c->record->sizes[q], left = all > c->from ? all - c->from : 0;

        e->proxy_counts[q] = (size_t)(left < c->slice ? left : c->slice);
    }
    return e->proxy_counts;
}

/* Blocks that do not come here have no place. */
static tutti_result run_cross(struct tt_engine *e, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    unsigned char *in = c->in;

    for (int i = r->n_out; i < r->n_out + r->n_in; i++) {
        e->places[r->part[i].rank] = in;
        in += slice_of(c, i);
    }
    return tt_hier_run_cross(e->data, c->out, slices_of_all(e, c), e->places);
}

static tutti_result run_scatter(struct tt_engine *e, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    struct tt_call call = tt_call_even(r->call.coll, r->call.dtype, c->out, c->in, 0);

    call.op = r->call.op;
    return tt_hier_scatter_rail(e->data, &call, slices_of_all(e, c));
}

static tutti_result run_chunk(struct tt_engine *e, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    struct tt_call call;

    if (r->kind == TT_GPU_CROSS)
        return run_cross(e, c);
    if (r->kind == TT_GPU_SCATTER)
        return run_scatter(e, c);
    if (r->kind == TT_GPU_WHOLE || r->kind == TT_GPU_COUNTED)
        return run_whole(e, c);
    call = tt_call_even(r->call.coll, r->call.dtype, c->out, c->in,
                        slice_of(c, 0) / tt_dtype_bytes(r->call.dtype));
    call.op = r->call.op;
    call.root = r->call.root;
    return r->kind == TT_GPU_RAIL ? tt_hier_reduce_rail(e->data, &call)
                                  : tt_hier_run_entries(e->data, &call);
}

/* From the end of the last chunk on the caller may destroy the communicator, so then this is not busy. */
static tutti_result run_chunks(struct tt_engine *e, const struct tt_gpu_record *r)
{
    struct chunk c = {.record = r, .slice = r->slice};
    uint64_t n = r->n_chunks;

    if (r->kind == TT_GPU_COUNTED) {
        TT_TRY(tt_hier_gpu_plan_counts(e, r));
        c.plan = tt_cuda_stage_plan(e->stage);
        c.slice = c.plan->slice;
        n = c.plan->n_chunks;
    }
    for (uint64_t i = 0; i < n; i++) {
        TT_TRY(await_chunk(e, i));
        c.from = i * c.slice;
        c.out = tt_cuda_stage_out(e->stage, i);
        c.in = tt_cuda_stage_in(e->stage, i);
        TT_TRY(run_chunk(e, &c));
        if (i + 1 == n)
            atomic_store(&e->is_busy, 0);
        tt_cuda_stage_done(e->stage);
    }
    return TUTTI_OK;
}

/* ---- messages ---- */

/* How far the GPU is, and to tell it how far the network is. */
static int take_turn(void *context)
{
    struct tt_engine *e = context;
    struct tt_hier_stream *s = e->streams;
    int moved = 0;

    for (int i = 0; s[i].window; i++) {
        const uint64_t gpu = tt_cuda_stage_moved(e->stage, i);
        const uint64_t limit = s[i].is_send ? gpu : gpu + s[i].window_bytes;

        tt_cuda_stage_tell(e->stage, i, s[i].moved);
        moved |= limit != s[i].limit;
        s[i].limit = limit;
    }
    return moved;
}

static tutti_result run_messages(struct tt_engine *e, const struct tt_gpu_record *r)
{
    const int n = r->n_out + r->n_in;

    for (int i = 0; i < n; i++)
        e->streams[i] = (struct tt_hier_stream){
            .peer = r->part[i].rank,
            .is_send = i < r->n_out,
            .dtype = r->part[i].dtype,
            .bytes = r->part[i].bytes,
            .window_bytes = r->window,
            .window = tt_cuda_stage_window_at(e->stage, r->n_out, i, r->window)};
    e->streams[n].window = NULL;
    TT_TRY(tt_hier_run_streams(e->data, e->streams, (size_t)n, take_turn, e));
    for (int i = 0; i < n; i++)
        tt_cuda_stage_settle(e->stage, i, r->part[i].bytes);
    atomic_store(&e->is_busy, 0);
    tt_cuda_stage_done(e->stage);
    return TUTTI_OK;
}

/* ---- the thread ---- */

int tt_hier_gpu_poll(void *engine)
{
    struct tt_engine *e = engine;
    struct tt_gpu_record *record;
    tutti_result res;

    if (e->is_over || atomic_load(&e->is_stopping))
        return 0;
    record = tt_cuda_stage_next(e->stage);
    if (!record) {
        res = look(e);
        if (res != TUTTI_OK)
            give_up(e, res);
        return 0;
    }
    atomic_store(&e->is_busy, 1);
    res = record->kind == TT_GPU_MESSAGES ? run_messages(e, record) : run_chunks(e, record);
    if (res != TUTTI_OK)
        give_up(e, res);
    else if (!record->is_captured)
        tt_gpu_record_drop(e, record);
    atomic_store(&e->is_busy, 0);
    return 1;
}
