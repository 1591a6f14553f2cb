/* Reductions of GPUs on several hosts. */
#include "coll/hier_gpu_parts.h"

static tutti_op partial_op(tutti_op op)
{
    return op == TUTTI_OP_AVG ? TUTTI_OP_SUM : op;
}

/* sums: of what the ranks of this host have at `send`. */
static tutti_result along_rail(struct tt_engine *e, const struct tt_call *call, void *send,
                               void *recv, uint64_t bytes, int sums)
{
    struct tt_gpu_plan plan;

    tt_gpu_plan_begin(&plan, TT_GPU_RAIL, call)->longest = bytes;
    plan.sums = sums;
    plan.partial = partial_op(call->op);
    tt_gpu_plan_out(&plan, send, bytes, e->rank);
    tt_gpu_plan_in(&plan, recv, bytes, e->rank);
    return tt_gpu_plan_launch(e, &plan);
}

/* All ranks form their host's partial result; each reduces all of it with its like. In one launch, unless
 * another algorithm than one-shot was asked for, or a small scratch leaves no room: then the ranks of a host, which all
 * know this, do it in two, and other hosts see no difference. */
static tutti_result all_reduce_small(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int sums = (e->algo == TT_ALGO_AUTO || e->algo == TT_ALGO_ONE_SHOT) &&
                     tt_cuda_stage_sums(e->stage, call->dtype, bytes);
    struct tt_call within = *call;

    within.op = partial_op(call->op);
    if (sums || e->place.n_local == 1)
        return along_rail(e, call, (void *)(uintptr_t)call->send, call->recv, bytes, sums);
    TT_TRY(tt_hier_gpu_within(e, &within));
    return along_rail(e, call, call->recv, call->recv, bytes, 0);
}

/* Elements [first, first + n) of a large one. Each rank of a rail has a part of them, reduces that with its like,
 * and all parts are gathered. */
struct piece {
    size_t first, n;
    struct tt_hier_part mine; /* of the piece */
};

static struct piece piece_of(const struct tt_engine *e, const struct tt_call *call, int n_pieces,
                             int k)
{
    const struct tt_hier_place *p = &e->place;
    const size_t size = tt_dtype_bytes(call->dtype);
    const struct tt_hier_part all = tt_hier_part_of(call->count, n_pieces, k, size);
    struct piece piece = {.first = all.first, .n = all.n, .mine = {all.n, 0}};

    if (p->local < p->n_rails)
        piece.mine = tt_hier_part_of(all.n, p->n_rails, p->local, size);
    return piece;
}

/* A step within the host: what each of its ranks has for its part, or gets of the others'. */
static tutti_result step_within(struct tt_engine *e, const struct tt_call *call,
                                const struct piece *piece, enum tt_coll coll)
{
    const struct tt_hier_place *p = &e->place;
    const size_t size = tt_dtype_bytes(call->dtype), at = piece->first * size;
    unsigned char *const part = tt_gpu_at(call->recv, at + piece->mine.first * size);
    struct tt_call within = *call;

    if (p->n_local == 1)
        return TUTTI_OK;
    for (int i = 0; i < p->n_local; i++)
        e->counts[i] = i < p->n_rails ? tt_hier_part_of(piece->n, p->n_rails, i, size).n : 0;
    within.coll = coll;
    within.op = partial_op(call->op);
    within.counts = e->counts;
    within.send = coll == TT_COLL_ALL_GATHER ? part : tt_gpu_at(call->send, at);
    within.recv = coll == TT_COLL_ALL_GATHER ? tt_gpu_at(call->recv, at) : part;
    return tt_hier_gpu_within(e, &within);
}

/* Beside the caller's stream, if other pieces come: mark k is when it is over. */
static tutti_result step_between(struct tt_engine *e, const struct tt_call *call,
                                 const struct piece *piece, int n_pieces, int k)
{
    const struct tt_hier_place *p = &e->place;
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t at = (piece->first + piece->mine.first) * size;
    unsigned char *const part = tt_gpu_at(call->recv, at);
    struct tt_call beside = *call;

    if (p->local >= p->n_rails)
        return TUTTI_OK;
    if (n_pieces > 1)
        TT_TRY(tt_cuda_side_branch(e->side, call->stream, &beside.stream));
    TT_TRY(along_rail(e, &beside, p->n_local > 1 ? part : tt_gpu_at(call->send, at), part,
                      piece->mine.n * size, 0));
    return n_pieces > 1 ? tt_cuda_side_mark(e->side, k) : TUTTI_OK;
}

/* Each gives a rail half as many chunks as may be under way, for what is within the host takes about as long as
 * that. Hosts of one rank have nothing to do meanwhile. */
static int count_pieces(const struct tt_engine *e, uint64_t bytes)
{
    const uint64_t n = bytes / (TT_CUDA_STAGE_SLOTS * e->slot_bytes * (uint64_t)e->place.n_rails);

    if (e->place.n_hosts == e->n_ranks || n < 1)
        return 1;
    return n < TT_CUDA_SIDE_MARKS ? (int)n : TT_CUDA_SIDE_MARKS;
}

/* While one piece is between the hosts, the GPUs of a host reduce the next and gather the one before. */
static tutti_result all_reduce_parts(struct tt_engine *e, const struct tt_call *call)
{
    const int n = count_pieces(e, call->count * tt_dtype_bytes(call->dtype));

    for (int k = 0; k < n; k++) {
        const struct piece piece = piece_of(e, call, n, k);

        TT_TRY(step_within(e, call, &piece, TT_COLL_REDUCE_SCATTER));
        TT_TRY(step_between(e, call, &piece, n, k));
    }
    for (int k = 0; k < n; k++) {
        const struct piece piece = piece_of(e, call, n, k);

        if (n > 1 && e->place.local < e->place.n_rails)
            TT_TRY(tt_cuda_side_join(e->side, k, call->stream));
        TT_TRY(step_within(e, call, &piece, TT_COLL_ALL_GATHER));
    }
    return TUTTI_OK;
}

tutti_result tt_hier_gpu_all_reduce(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    struct tt_gpu_plan plan;

    if (!tt_hier_is_flat(call))
        return e->place.is_even && bytes <= TT_GPU_SMALL ? all_reduce_small(e, call)
                                                         : all_reduce_parts(e, call);
    tt_gpu_plan_begin(&plan, TT_GPU_WHOLE, call)->longest = bytes;
    tt_gpu_plan_out(&plan, call->send, bytes, e->rank);
    tt_gpu_plan_in(&plan, call->recv, bytes, e->rank);
    return tt_gpu_plan_launch(e, &plan);
}

/* ---- reduce_scatter ---- */

static tutti_result reduce_scatter_whole(struct tt_engine *e, const struct tt_call *call)
{
    struct tt_gpu_plan plan;
    uint64_t before = 0;

    tt_gpu_measure(e, tt_gpu_plan_begin(&plan, TT_GPU_WHOLE, call), call, 1);
    for (int r = 0; r < e->n_ranks; r++) {
        tt_gpu_plan_out(&plan, tt_gpu_at(call->send, before), tt_gpu_block_of(call, r), r);
        before += tt_gpu_block_of(call, r);
    }
    tt_gpu_plan_in(&plan, call->recv, tt_gpu_block_of(call, e->rank), e->rank);
    return tt_gpu_plan_launch(e, &plan);
}

/* A slice of every block: elements [at, at + most) of it. */
struct slice {
    const struct tt_call *call;
    size_t at, most, size;
    int places; /* for partial results: those of the smallest host, which needs the most */
    size_t displs[TT_HIER_GPU_MAX_RANKS]; /* of the blocks */
};

static size_t slice_of(const struct slice *s, int r)
{
    const size_t count = tt_gpu_block_of(s->call, r) / s->size;
    const size_t left = count > s->at ? count - s->at : 0;

    return left < s->most ? left : s->most;
}

/* The i'th GPU of a host reduces the blocks of the i'th of every host; where that has more than this one, of
 * the i + n_local'th in the next *round*, and so on. So all rounds of all hosts: each has a place for a partial result. */
static int n_rounds(const struct tt_hier_place *p, int n_local)
{
    int n = 0;

    for (int h = 0; h < p->n_hosts; h++)
        n += (p->first[h + 1] - p->first[h] + n_local - 1) / n_local;
    return n;
}

/* The rank whose block the i'th GPU here reduces in the round of host h that begins with `first`; -1: none. */
static int served(const struct tt_hier_place *p, int h, int first, int i)
{
    return p->first[h] + first + i < p->first[h + 1] ? p->members[p->first[h] + first + i] : -1;
}

static tutti_result reduce_round(struct tt_engine *e, const struct slice *s, int h, int first,
                                 unsigned char *partial)
{
    const struct tt_hier_place *p = &e->place;
    size_t *counts = e->counts, *displs = e->counts + p->n_local, all = 0;
    struct tt_call within = *s->call;

    within.coll = TT_COLL_REDUCE_SCATTER;
    within.op = partial_op(s->call->op);
    within.counts = counts;
    within.send_displs = displs;
    within.recv = partial;
    for (int i = 0; i < p->n_local; i++) {
        const int r = served(p, h, first, i);

        counts[i] = r >= 0 ? slice_of(s, r) : 0;
        displs[i] = r >= 0 ? s->displs[r] + s->at : 0;
        all += counts[i];
    }
    return all > 0 ? tt_hier_gpu_within(e, &within) : TUTTI_OK;
}

/* Every round's partial result, and where those that are this rank's to send stand. Alone on its host it has
 * them from the start. */
static tutti_result reduce_within(struct tt_engine *e, const struct slice *s,
                                  struct tt_gpu_plan *plan)
{
    const struct tt_hier_place *p = &e->place;
    unsigned char *partial = e->partials;

    for (int h = 0; h < p->n_hosts; h++)
        for (int first = 0; first < p->first[h + 1] - p->first[h]; first += p->n_local) {
            const int r = served(p, h, first, p->local);
            const void *at = partial;

            if (p->n_local > 1)
                TT_TRY(reduce_round(e, s, h, first, partial));
            else
                at = tt_gpu_at(s->call->send, (s->displs[r] + s->at) * s->size);
            if (r >= 0)
                tt_gpu_plan_out(plan, at, slice_of(s, r) * s->size, r);
            partial = tt_gpu_at(partial, s->most * s->size);
        }
    return TUTTI_OK;
}

/* A rail that has nothing of this slice has nothing to do, but for uneven hosts, which have no rails here. */
static int is_idle(const struct tt_engine *e, const struct tt_gpu_plan *plan)
{
    int idle = e->place.is_even;

    for (int i = 0; i < plan->n_out + plan->n_in; i++)
        idle = idle && plan->blocks[i].bytes == 0;
    return idle;
}

static tutti_result scatter_slice(struct tt_engine *e, const struct slice *s)
{
    struct tt_gpu_plan plan;

    tt_gpu_plan_begin(&plan, TT_GPU_SCATTER, s->call)->most = s->places;
    for (int r = 0; r < e->n_ranks; r++) {
        plan.sizes[r] = slice_of(s, r) * s->size;
        plan.longest = plan.sizes[r] > plan.longest ? plan.sizes[r] : plan.longest;
    }
    TT_TRY(reduce_within(e, s, &plan));
    tt_gpu_plan_in(&plan, tt_gpu_at(s->call->recv, s->at * s->size), plan.sizes[e->rank], e->rank);
    return is_idle(e, &plan) ? TUTTI_OK : tt_gpu_plan_launch(e, &plan);
}

static tutti_result reduce_scatter_slices(struct tt_engine *e, const struct tt_call *call)
{
    struct slice s = {.call = call,
                      .size = tt_dtype_bytes(call->dtype),
                      .places = n_rounds(&e->place, e->place.n_rails)};
    size_t before = 0, longest = 0;

    s.most = e->partial_bytes / (size_t)s.places / 64 * 64 / s.size;
    for (int r = 0; r < e->n_ranks; r++) {
        const size_t count = tt_gpu_block_of(call, r) / s.size;

        s.displs[r] = before;
        before += count;
        longest = count > longest ? count : longest;
    }
    for (; s.at < longest; s.at += s.most)
        TT_TRY(scatter_slice(e, &s));
    return TUTTI_OK;
}

tutti_result tt_hier_gpu_reduce_scatter(struct tt_engine *e, const struct tt_call *call)
{
    return !tt_hier_is_flat(call) && tt_gpu_is_worth_crossing(e, tt_gpu_all_blocks(e, call))
               ? reduce_scatter_slices(e, call)
               : reduce_scatter_whole(e, call);
}

/* As a reduce_scatter whose blocks are empty but for root's. */
tutti_result tt_hier_gpu_reduce(struct tt_engine *e, const struct tt_call *call)
{
    size_t counts[TT_HIER_GPU_MAX_RANKS] = {0};
    struct tt_call scatter = *call;

    if (tt_hier_is_flat(call))
        return tt_hier_gpu_whole(e, call);
    counts[call->root] = call->count;
    scatter.coll = TT_COLL_REDUCE_SCATTER;
    scatter.counts = counts;
    return reduce_scatter_slices(e, &scatter);
}
