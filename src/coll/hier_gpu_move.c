/* Calls of GPUs on several hosts that only move data. */
#include "coll/hier_gpu_parts.h"

/* ---- all_gather ---- */

static tutti_result all_gather_whole(struct tt_engine *e, const struct tt_call *call)
{
    struct tt_gpu_plan plan;
    uint64_t before = 0;

    tt_gpu_measure(e, tt_gpu_plan_begin(&plan, TT_GPU_WHOLE, call), call, 1);
    tt_gpu_plan_out(&plan, call->send, tt_gpu_block_of(call, e->rank), e->rank);
    for (int r = 0; r < e->n_ranks; r++) {
        tt_gpu_plan_in(&plan,
                       call->recv_blocks ? call->recv_blocks[r] : tt_gpu_at(call->recv, before),
                       tt_gpu_block_of(call, r), r);
        before += tt_gpu_block_of(call, r);
    }
    return tt_gpu_plan_launch(e, &plan);
}

/* The blocks of host h that the ranks of this one have received become everybody's, one from each in a
 * round. Those of this host: one from each. */
static tutti_result share(struct tt_engine *e, const struct tt_call *call, void *const places[],
                          int h)
{
    const struct tt_hier_place *p = &e->place;
    const int n = p->first[h + 1] - p->first[h];
    struct tt_call within = tt_call_even(TT_COLL_ALL_GATHER, TUTTI_DTYPE_U8, NULL, NULL, 0);

    within.counts = e->counts;
    within.recv_blocks = e->blocks;
    within.stream = call->stream;
    for (int begin = 0; begin < n; begin += p->n_local) {
        for (int i = 0; i < p->n_local; i++) {
            const int r = begin + i < n ? p->members[p->first[h] + begin + i] : -1;

            e->counts[i] = r >= 0 ? tt_gpu_block_of(call, r) : 0;
            e->blocks[i] = r >= 0 ? places[r] : places[0]; /* nothing, anywhere */
        }
        within.send = h == p->host ? call->send : e->blocks[p->local];
        TT_TRY(tt_hier_gpu_within(e, &within));
    }
    return TUTTI_OK;
}

/* Each block crosses once to each other host, and is shared there by the GPUs. */
static tutti_result all_gather_crossing(struct tt_engine *e, const struct tt_call *call)
{
    const struct tt_hier_place *p = &e->place;
    void *places[TT_HIER_GPU_MAX_RANKS] = {0};
    struct tt_gpu_plan plan;
    uint64_t before = 0;

    tt_gpu_measure(e, tt_gpu_plan_begin(&plan, TT_GPU_CROSS, call), call, 1);
    tt_gpu_plan_out(&plan, call->send, tt_gpu_block_of(call, e->rank), e->rank);
    for (int r = 0; r < e->n_ranks; r++) {
        plan.sizes[r] = tt_gpu_block_of(call, r);
        places[r] = call->recv_blocks ? call->recv_blocks[r] : tt_gpu_at(call->recv, before);
        before += plan.sizes[r];
    }
    for (int h = 0; h < p->n_hosts; h++)
        for (int k = p->local; h != p->host && k < p->first[h + 1] - p->first[h]; k += p->n_local) {
            const int r = p->members[p->first[h] + k];

            tt_gpu_plan_in(&plan, places[r], plan.sizes[r], r);
        }
    TT_TRY(tt_gpu_plan_launch(e, &plan));
    for (int h = 0; h < p->n_hosts; h++)
        if (p->n_local > 1 || h == p->host)
            TT_TRY(share(e, call, places, h));
    return TUTTI_OK;
}

/* Blocks of one rank stand together in a chunk, whatever tensor they are of. */
static tutti_result gather_parts(struct tt_engine *e, const struct tt_call *call, size_t first,
                                 size_t n)
{
    struct tt_gpu_plan plan;
    uint64_t widest = 0, before = 0;

    for (size_t p = first; p < first + n; p++)
        widest = call->parts[p].row_bytes > widest ? call->parts[p].row_bytes : widest;
    tt_gpu_measure(e, tt_gpu_plan_begin(&plan, TT_GPU_WHOLE, call), call, widest);
    plan.most *= (int)n;
    for (size_t p = first; p < first + n; p++)
        tt_gpu_plan_out(&plan, call->parts[p].send,
                        call->counts[e->rank] * call->parts[p].row_bytes, e->rank);
    for (int r = 0; r < e->n_ranks; r++) {
        for (size_t p = first; p < first + n; p++)
            tt_gpu_plan_in(&plan, tt_gpu_at(call->parts[p].recv, before * call->parts[p].row_bytes),
                           call->counts[r] * call->parts[p].row_bytes, r);
        before += call->counts[r];
    }
    return tt_gpu_plan_launch(e, &plan);
}

/* Each tensor's rows as blocks of bytes. */
static tutti_result gather_rows_crossing(struct tt_engine *e, const struct tt_call *call)
{
    size_t bytes[TT_HIER_GPU_MAX_RANKS];

    for (size_t p = 0; p < call->n_parts; p++) {
        const tutti_rows *part = &call->parts[p];
        struct tt_call one =
            tt_call_even(TT_COLL_ALL_GATHER, TUTTI_DTYPE_U8, part->send, part->recv, 0);

        for (int r = 0; r < e->n_ranks; r++)
            bytes[r] = call->counts[r] * part->row_bytes;
        one.counts = bytes;
        one.stream = call->stream;
        TT_TRY(all_gather_crossing(e, &one));
    }
    return TUTTI_OK;
}

static tutti_result gather_rows(struct tt_engine *e, const struct tt_call *call)
{
    const size_t fit = TT_CUDA_STAGE_BLOCKS / (size_t)(e->n_ranks + 1);
    uint64_t rows = 0, bytes = 0;

    for (int r = 0; r < e->n_ranks; r++)
        rows += call->counts[r];
    for (size_t p = 0; p < call->n_parts; p++)
        bytes += rows * call->parts[p].row_bytes;
    if (tt_gpu_is_worth_crossing(e, bytes))
        return gather_rows_crossing(e, call);
    for (size_t p = 0; p < call->n_parts; p += fit)
        TT_TRY(gather_parts(e, call, p, call->n_parts - p < fit ? call->n_parts - p : fit));
    return TUTTI_OK;
}

tutti_result tt_hier_gpu_all_gather(struct tt_engine *e, const struct tt_call *call)
{
    if (call->parts)
        return gather_rows(e, call);
    return tt_gpu_is_worth_crossing(e, tt_gpu_all_blocks(e, call)) ? all_gather_crossing(e, call)
                                                                   : all_gather_whole(e, call);
}

/* ---- all_to_all ---- */

/* Between the GPUs of this host, by their numbers here. */
static tutti_result exchange_within(struct tt_engine *e, const struct tt_call *call)
{
    const struct tt_hier_place *p = &e->place;
    const size_t n = (size_t)p->n_local;
    struct tt_call within = *call;

    for (size_t i = 0; i < n; i++) {
        const int r = p->members[p->first[p->host] + (int)i];

        e->counts[i] = call->send_counts[r];
        e->counts[n + i] = call->send_displs[r];
        e->counts[2 * n + i] = call->recv_counts[r];
        e->counts[3 * n + i] = call->recv_displs[r];
    }
    within.send_counts = e->counts;
    within.send_displs = e->counts + n;
    within.recv_counts = e->counts + 2 * n;
    within.recv_displs = e->counts + 3 * n;
    return tt_hier_gpu_within(e, &within);
}

/* Counts that only the two ranks of a pair know: to other hosts as messages. */
static tutti_result all_to_allv(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t size = tt_dtype_bytes(call->dtype);
    const struct tt_hier_place *p = &e->place;
    struct tt_gpu_plan plan;

    TT_TRY(exchange_within(e, call));
    tt_gpu_plan_begin(&plan, TT_GPU_MESSAGES, call);
    for (int i = 1; i < e->n_ranks; i++) {
        const int r = (e->rank + i) % e->n_ranks;

        if (p->host_of[r] != p->host)
            tt_gpu_plan_out(&plan, tt_gpu_at(call->send, call->send_displs[r] * size),
                            call->send_counts[r] * size, r);
    }
    for (int i = 1; i < e->n_ranks; i++) {
        const int r = (e->rank + e->n_ranks - i) % e->n_ranks;

        if (p->host_of[r] != p->host)
            tt_gpu_plan_in(&plan, tt_gpu_at(call->recv, call->recv_displs[r] * size),
                           call->recv_counts[r] * size, r);
    }
    return tt_gpu_plan_launch(e, &plan);
}

/* In chunks of all blocks: messages would store what comes over what has not left yet, on the ranks that work
 * in place. */
static tutti_result exchange_across(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const struct tt_hier_place *p = &e->place;
    struct tt_gpu_plan plan;

    tt_gpu_plan_begin(&plan, TT_GPU_WHOLE, call)->longest = bytes;
    plan.most = e->n_ranks - p->n_rails; /* those of the smallest host have the most elsewhere */
    for (int r = 0; r < e->n_ranks; r++)
        if (p->host_of[r] != p->host)
            tt_gpu_plan_out(&plan, tt_gpu_at(call->send, (uint64_t)r * bytes), bytes, r);
    for (int r = 0; r < e->n_ranks; r++)
        if (p->host_of[r] != p->host)
            tt_gpu_plan_in(&plan, tt_gpu_at(call->recv, (uint64_t)r * bytes), bytes, r);
    return tt_gpu_plan_launch(e, &plan);
}

/* Even blocks, if there is enough of them. Every rank may be in place or not, whatever the others are. */
static tutti_result all_to_all_even(struct tt_engine *e, const struct tt_call *call)
{
    size_t counts[TT_HIER_GPU_MAX_RANKS], displs[TT_HIER_GPU_MAX_RANKS];
    struct tt_call v = *call;

    if (!tt_gpu_is_worth_crossing(e, tt_gpu_all_blocks(e, call)))
        return tt_hier_gpu_whole(e, call);
    for (int r = 0; r < e->n_ranks; r++) {
        counts[r] = call->count;
        displs[r] = (size_t)r * call->count;
    }
    v.send_counts = v.recv_counts = counts;
    v.send_displs = v.recv_displs = displs;
    TT_TRY(exchange_within(e, &v));
    return exchange_across(e, call);
}

tutti_result tt_hier_gpu_all_to_all(struct tt_engine *e, const struct tt_call *call)
{
    return call->send_counts ? all_to_allv(e, call) : all_to_all_even(e, call);
}

/* ---- everything else ---- */

/* A block for every rank on the ranks that have such, one on the others. */
static void plan_blocks(const struct tt_engine *e, struct tt_gpu_plan *plan, int is_out, int n,
                        const void *base, uint64_t bytes)
{
    for (int r = 0; r < n; r++) {
        const int rank = n == 1 ? e->rank : r;

        if (is_out)
            tt_gpu_plan_out(plan, tt_gpu_at(base, (uint64_t)r * bytes), bytes, rank);
        else
            tt_gpu_plan_in(plan, tt_gpu_at(base, (uint64_t)r * bytes), bytes, rank);
    }
}

/* All others: `bytes` of each block, how many blocks go out and come in here. */
tutti_result tt_hier_gpu_whole(struct tt_engine *e, const struct tt_call *call)
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
    tt_gpu_plan_begin(&plan, TT_GPU_WHOLE, call)->longest =
        call->coll == TT_COLL_BARRIER ? 0 : bytes;
    plan.most = most;
    plan_blocks(e, &plan, 1, n_out, call->send, bytes);
    plan_blocks(e, &plan, 0, n_in, call->recv, bytes);
    return tt_gpu_plan_launch(e, &plan);
}

/* Root's data to one GPU of each other host, and from there, or from root, to the rest of the host. */
static tutti_result broadcast_crossing(struct tt_engine *e, const struct tt_call *call)
{
    const struct tt_hier_place *p = &e->place;
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int entry = tt_hier_entry(e->data, call->root, p->host);
    struct tt_call within = *call;
    struct tt_gpu_plan plan;

    tt_gpu_plan_begin(&plan, TT_GPU_ENTRIES, call)->longest = bytes;
    plan_blocks(e, &plan, 1, e->rank == call->root, call->send, bytes);
    plan_blocks(e, &plan, 0, e->rank != call->root, call->recv, bytes);
    if (e->rank == entry)
        TT_TRY(tt_gpu_plan_launch(e, &plan));
    if (p->n_local == 1)
        return TUTTI_OK;
    for (int i = 0; i < p->n_local; i++)
        if (p->members[p->first[p->host] + i] == entry)
            within.root = i;
    if (e->rank == entry)
        within.send = within.recv =
            e->rank == call->root ? (void *)(uintptr_t)call->send : call->recv;
    return tt_hier_gpu_within(e, &within);
}

/* Blocks between root and the others: on root's host by the GPUs, to and from other hosts as messages. */
static tutti_result rooted_crossing(struct tt_engine *e, const struct tt_call *call)
{
    const struct tt_hier_place *p = &e->place;
    const uint64_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int gathers = call->coll == TT_COLL_GATHER, is_root = e->rank == call->root;
    size_t counts[2][TT_HIER_GPU_MAX_RANKS] = {{0}}, displs[2][TT_HIER_GPU_MAX_RANKS] = {{0}};
    size_t *of_root = counts[gathers], *of_all = counts[!gathers];
    struct tt_gpu_plan plan;
    struct tt_call v = *call;

    of_root[call->root] = call->count; /* each rank's one block; root's are all */
    for (int r = 0; r < e->n_ranks; r++) {
        of_all[r] = is_root ? call->count : 0;
        displs[!gathers][r] = is_root ? (size_t)r * call->count : 0;
    }
    v.coll = TT_COLL_ALL_TO_ALL;
    v.send_counts = counts[1];
    v.send_displs = displs[1];
    v.recv_counts = counts[0];
    v.recv_displs = displs[0];
    if (p->host == p->host_of[call->root])
        TT_TRY(exchange_within(e, &v));
    tt_gpu_plan_begin(&plan, TT_GPU_MESSAGES, call);
    for (int r = 0; r < e->n_ranks; r++) {
        if (p->host_of[r] == p->host || (!is_root && r != call->root))
            continue;
        if (gathers != is_root)
            tt_gpu_plan_out(&plan, tt_gpu_at(call->send, is_root ? (uint64_t)r * bytes : 0), bytes,
                            r);
        else
            tt_gpu_plan_in(&plan, tt_gpu_at(call->recv, is_root ? (uint64_t)r * bytes : 0), bytes,
                           r);
    }
    return plan.n_out + plan.n_in > 0 ? tt_gpu_plan_launch(e, &plan) : TUTTI_OK;
}

tutti_result tt_hier_gpu_move(struct tt_engine *e, const struct tt_call *call)
{
    if (!tt_gpu_is_worth_crossing(e, tt_gpu_all_blocks(e, call)))
        return tt_hier_gpu_whole(e, call);
    switch (call->coll) {
    case TT_COLL_BROADCAST: return broadcast_crossing(e, call);
    case TT_COLL_REDUCE: return tt_hier_gpu_reduce(e, call);
    case TT_COLL_GATHER:
    case TT_COLL_SCATTER: return rooted_crossing(e, call);
    default: return tt_hier_gpu_whole(e, call);
    }
}
