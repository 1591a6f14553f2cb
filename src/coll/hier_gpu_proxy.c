/* The proxies of a GPU on several hosts: the first finds calls whose kernels run, and all carry their chunks out
 * on host memory. It makes no call of the driver, which could wait for the kernels that wait for it. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "coll/hier_gpu_parts.h"

#define POLLS   100
#define LOOK_NS UINT64_C(500000) /* from one look at what others say to the next */
#define LIVE_NS                                                                                    \
    UINT64_C(20000000) /* from one look whether they live, which is two system calls each */

/* ---- failing: here, on the GPU and on all other ranks ---- */

tutti_result tt_hier_gpu_failed(const struct tt_engine *e)
{
    int peer;

    if (atomic_load(&e->has_refused))
        return TT_FAIL(e->refusal, "%s", e->refusal_text);
    TT_TRY(tt_hier_failed(e->data));
    return tt_cuda_failed(e->cuda, &peer);
}

/* A kernel cannot see that the rank it waits for has died. */
static tutti_result look_for_dead(struct tt_gpu_lane *lane)
{
    const struct tt_hier_place *p = &lane->e->place;
    char text[64];

    for (int i = 0; i < p->n_local; i++) {
        const int rank = p->members[p->first[p->host] + i];

        if (i == p->local || tt_hier_local_presence(lane->data, i) != TT_HAS_DIED)
            continue;
        snprintf(text, sizeof(text), "rank %d died", rank);
        return tt_hier_fail(lane->data, TUTTI_E_PEER, rank, text);
    }
    return TUTTI_OK;
}

/* What kernels report is everybody's business. */
tutti_result tt_hier_gpu_look(struct tt_gpu_lane *lane)
{
    struct tt_engine *e = lane->e;
    const uint64_t now = tt_now_ns();
    char text[256];
    tutti_result res;
    int peer;

    if (now - lane->looked_ns < LOOK_NS)
        return TUTTI_OK;
    lane->looked_ns = now;
    TT_TRY(tt_hier_watch(lane->data));
    if (now - lane->lived_ns >= LIVE_NS) {
        lane->lived_ns = now;
        TT_TRY(look_for_dead(lane));
    }
    res = tt_cuda_failed(e->cuda, &peer);
    if (res == TUTTI_OK || atomic_load(&e->is_stopping)) /* whose end has ended the kernels */
        return TUTTI_OK;
    snprintf(text, sizeof(text), "%s", tt_error_text());
    return tt_hier_fail(lane->data, res, peer, text);
}

/* ---- chunks ---- */

/* It is not the GPU that is late while another lane has a chunk before this one. */
static tutti_result await_chunk(struct tt_gpu_lane *lane, uint64_t c)
{
    const struct tt_engine *e = lane->e;
    uint64_t since = tt_now_ns();

    for (;;) {
        for (int i = 0; i < POLLS; i++) {
            if (tt_cuda_stage_is_put(e->stage, c))
                return TUTTI_OK;
            tt_pause();
        }
        TT_TRY(tt_hier_gpu_look(lane));
        if (!tt_cuda_stage_is_due(e->stage, c))
            since = tt_now_ns();
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
static void lay_out(const struct tt_gpu_lane *lane, const struct chunk *c, struct tt_call *call)
{
    const struct tt_engine *e = lane->e;
    const struct tt_gpu_record *r = c->record;
    const size_t n = (size_t)e->n_ranks;
    size_t *rows = lane->counts;

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

static tutti_result run_whole(struct tt_gpu_lane *lane, const struct chunk *c)
{
    const struct tt_engine *e = lane->e;
    const struct tt_gpu_record *r = c->record;
    const size_t size = tt_dtype_bytes(r->call.dtype);
    size_t *counts = lane->counts;
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
            lay_out(lane, c, &call);
            break;
        }                                        /* fall through */
    default: call.count = slice_of(c, 0) / size; /* of all blocks, whichever way */
    }
    return tt_hier_engine.run(lane->data, &call);
}

/* Of every rank's block, also those that do not come by here. */
static const size_t *slices_of_all(const struct tt_gpu_lane *lane, const struct chunk *c)
{
    for (int q = 0; q < lane->e->n_ranks; q++) {
        const uint64_t all = c->record->sizes[q], left = all > c->from ? all - c->from : 0;

        lane->counts[q] = (size_t)(left < c->slice ? left : c->slice);
    }
    return lane->counts;
}

/* Blocks that do not come here have no place. */
static tutti_result run_cross(struct tt_gpu_lane *lane, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    unsigned char *in = c->in;

    for (int i = r->n_out; i < r->n_out + r->n_in; i++) {
        lane->places[r->part[i].rank] = in;
        in += slice_of(c, i);
    }
    return tt_hier_run_cross(lane->data, c->out, slices_of_all(lane, c), lane->places);
}

static tutti_result run_scatter(struct tt_gpu_lane *lane, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    struct tt_call call = tt_call_even(r->call.coll, r->call.dtype, c->out, c->in, 0);

    call.op = r->call.op;
    return tt_hier_scatter_rail(lane->data, &call, slices_of_all(lane, c));
}

static tutti_result run_chunk(struct tt_gpu_lane *lane, const struct chunk *c)
{
    const struct tt_gpu_record *r = c->record;
    struct tt_call call;

    if (r->kind == TT_GPU_CROSS)
        return run_cross(lane, c);
    if (r->kind == TT_GPU_SCATTER)
        return run_scatter(lane, c);
    if (r->kind == TT_GPU_WHOLE || r->kind == TT_GPU_COUNTED)
        return run_whole(lane, c);
    call = tt_call_even(r->call.coll, r->call.dtype, c->out, c->in,
                        slice_of(c, 0) / tt_dtype_bytes(r->call.dtype));
    call.op = r->call.op;
    call.root = r->call.root;
    return r->kind == TT_GPU_RAIL ? tt_hier_reduce_rail(lane->data, &call)
                                  : tt_hier_run_entries(lane->data, &call);
}

static int has_chunk(const struct tt_gpu_lane *lane)
{
    return (uint64_t)lane->number < lane->e->job.n_chunks;
}

static tutti_result carry_chunks(struct tt_gpu_lane *lane)
{
    struct tt_engine *e = lane->e;
    const struct tt_gpu_job *job = &e->job;
    struct chunk c = {.record = job->record, .plan = job->plan, .slice = job->slice};

    for (uint64_t i = (uint64_t)lane->number; i < job->n_chunks; i += (uint64_t)e->n_lanes) {
        TT_TRY(await_chunk(lane, i));
        c.from = i * c.slice;
        c.out = tt_cuda_stage_out(e->stage, i);
        c.in = tt_cuda_stage_in(e->stage, i);
        TT_TRY(run_chunk(lane, &c));
        tt_gpu_lanes_carried(e, i);
    }
    return TUTTI_OK;
}

static tutti_result run_chunks(struct tt_engine *e, const struct tt_gpu_record *r)
{
    struct tt_gpu_job *job = &e->job;

    job->record = r;
    job->plan = NULL;
    job->slice = r->slice;
    job->n_chunks = r->n_chunks;
    if (r->kind == TT_GPU_COUNTED) {
        TT_TRY(tt_hier_gpu_plan_counts(e, r));
        job->plan = tt_cuda_stage_plan(e->stage);
        job->slice = job->plan->slice;
        job->n_chunks = job->plan->n_chunks;
    }
    job->n_done = 0;
    memset(job->carried, 0, sizeof(job->carried));
    job->work = carry_chunks;
    return tt_gpu_lanes_run(e, has_chunk);
}

/* ---- messages ---- */

/* How far the GPU is, and to tell it how far the network is. */
static int take_turn(void *context)
{
    const struct tt_gpu_lane *lane = context;
    struct tt_cuda_stage *stage = lane->e->stage;
    struct tt_hier_stream *s = lane->streams;
    int moved = 0;

    for (size_t i = 0; i < lane->n_streams; i++) {
        const uint64_t gpu = tt_cuda_stage_moved(stage, lane->stage_index[i]);
        const uint64_t limit = s[i].is_send ? gpu : gpu + s[i].window_bytes;

        tt_cuda_stage_tell(stage, lane->stage_index[i], s[i].moved);
        moved |= limit != s[i].limit;
        s[i].limit = limit;
    }
    return moved;
}

static int has_streams(const struct tt_gpu_lane *lane)
{
    return lane->n_streams > 0;
}

static tutti_result carry_streams(struct tt_gpu_lane *lane)
{
    return tt_hier_run_streams(lane->data, lane->streams, lane->n_streams, take_turn, lane);
}

/* All between two ranks, either way, are one lane's at both: they keep their order. */
static void add_stream(struct tt_engine *e, const struct tt_gpu_record *r, int i)
{
    struct tt_gpu_lane *lane = &e->lanes[(e->rank + r->part[i].rank) % e->n_lanes];

    lane->stage_index[lane->n_streams] = i;
    lane->streams[lane->n_streams++] = (struct tt_hier_stream){
        .peer = r->part[i].rank,
        .is_send = i < r->n_out,
        .dtype = r->part[i].dtype,
        .bytes = r->part[i].bytes,
        .window_bytes = r->window,
        .window = tt_cuda_stage_window_at(e->stage, r->n_out, i, r->window)};
}

static tutti_result run_messages(struct tt_engine *e, const struct tt_gpu_record *r)
{
    const int n = r->n_out + r->n_in;

    for (int k = 0; k < e->n_lanes; k++)
        e->lanes[k].n_streams = 0;
    for (int i = 0; i < n; i++)
        add_stream(e, r, i);
    e->job.work = carry_streams;
    TT_TRY(tt_gpu_lanes_run(e, has_streams));
    for (int i = 0; i < n; i++)
        tt_cuda_stage_settle(e->stage, i, r->part[i].bytes);
    atomic_store(&e->is_busy, 0);
    tt_cuda_stage_done(e->stage);
    return TUTTI_OK;
}

/* ---- the first lane's thread ---- */

static int give_up(struct tt_engine *e, tutti_result why)
{
    tt_gpu_lanes_fail(&e->lanes[0], why);
    e->is_over = 1;
    return 0;
}

int tt_hier_gpu_poll(void *first_lane)
{
    struct tt_gpu_lane *lane = first_lane;
    struct tt_engine *e = lane->e;
    struct tt_gpu_record *record;
    tutti_result res;

    if (e->is_over || atomic_load(&e->is_stopping))
        return 0;
    record = tt_cuda_stage_next(e->stage);
    if (!record) {
        res = tt_hier_gpu_look(lane);
        return res == TUTTI_OK ? 0 : give_up(e, res);
    }
    atomic_store(&e->is_busy, 1);
    res = record->kind == TT_GPU_MESSAGES ? run_messages(e, record) : run_chunks(e, record);
    if (res != TUTTI_OK)
        (void)give_up(e, res);
    else if (!record->is_captured)
        tt_gpu_record_drop(e, record);
    atomic_store(&e->is_busy, 0);
    return 1;
}
