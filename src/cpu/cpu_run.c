/*
 * One call, from the engine's table to an algorithm. Which algorithm is everybody's decision: the
 * table's word is the same on all ranks, and what only one rank knows (do my buffers lie in windows?)
 * becomes common knowledge when they meet. If then some can and some cannot, all run again with a
 * smaller offer: first without windows, then without cross-memory copies, which always works.
 */
#include "cpu/cpu.h"

#define TEAM_LANE_BYTES 16384u /* a lane is worth waking a thread for from here on */

/* All vectors into one, on all ranks or, by two-shot alone, on root. */
static tutti_result all_reduce(struct tt_lane *ln, const struct tt_call *call,
                               struct tt_share share)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const unsigned char *send = call->send;
    unsigned char *recv = call->recv;
    size_t first = 0, n = call->count;

    if (share.parts > 1) { /* the sums below cost a small call more than its data */
        tt_share_of(share, call->count, size, &first, &n);
        send = n ? send + first * size : send;
        recv = n && recv ? recv + first * size : recv;
    }
    if (share.windows || share.xmem)
        return tt_all_reduce_reach(ln, call, send, recv, n, share);
    if (call->algo == TT_ALGO_TWO_SHOT)
        return tt_all_reduce_two_shot(ln, call, send, recv, n);
    return tt_all_reduce_one_shot(ln, call, send, recv, n);
}

/* The arithmetic of one rank: as with several, and in pieces, so that it sees an abort. */
static tutti_result reduce_alone(const struct tt_lane *ln, const struct tt_call *call,
                                 struct tt_share share)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t count = call->counts ? call->counts[0] : call->count;
    size_t first, n, piece;

    tt_share_of(share, count, size, &first, &n);
    for (size_t done = 0; done < n; done += piece) {
        const size_t at = (first + done) * size;

        piece = n - done < TT_AT_ONCE / size ? n - done : TT_AT_ONCE / size;
        TT_TRY(tt_go_on(ln->e));
        ln->sources[0] = (const unsigned char *)call->send + at;
        ln->e->kernels->reduce[call->dtype][call->op]((unsigned char *)call->recv + at, NULL,
                                                      ln->sources, 1, piece, 0);
    }
    return TUTTI_OK;
}

/* A communicator of one rank: nothing to wait for. */
static tutti_result run_alone(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    const struct tt_block *own = &ln->blocks[0];

    if (ln->bytes_to_note)
        tt_lane_note(ln);
    if (call->coll == TT_COLL_BARRIER)
        return TUTTI_OK;
    if (call->coll == TT_COLL_ALL_REDUCE || call->coll == TT_COLL_REDUCE ||
        call->coll == TT_COLL_REDUCE_SCATTER)
        return reduce_alone(ln, call, share);
    if (call->parts)
        return tt_move_staged(ln, call, share);
    (void)tt_blocks_fill(ln, call, share);
    return own->in != own->out ? tt_copy(ln->e, NULL, own->in, own->out, own->in_bytes) : TUTTI_OK;
}

static tutti_result run_lane(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    struct tt_engine *e = ln->e;
    tutti_result res = TUTTI_IN_PROGRESS;

    ln->what = tt_what(call);
    if (e->n_ranks == 1)
        return run_alone(ln, call, share);
    if (call->coll == TT_COLL_BARRIER)
        return tt_cpu_barrier(ln);
    if (call->coll == TT_COLL_BROADCAST && share.parts == 1 && tt_broadcast_is_short(call))
        return tt_broadcast_short(ln, call);
    share.xmem = e->xmem && call->algo == TT_ALGO_XMEM;
    share.windows = e->n_registered && call->window_algo == TT_ALGO_DIRECT;
    for (int attempt = 0; attempt < 3 && res == TUTTI_IN_PROGRESS; attempt++) {
        share.windows = share.windows && attempt < 1;
        share.xmem = share.xmem && attempt < 2;
        if (call->coll == TT_COLL_ALL_REDUCE)
            res = all_reduce(ln, call, share);
        else if (share.windows || share.xmem)
            res = tt_move_reach(ln, call, share);
        else if (call->coll == TT_COLL_REDUCE && call->algo == TT_ALGO_TWO_SHOT)
            res = all_reduce(ln, call, share);
        else
            res = tt_move_staged(ln, call, share);
    }
    return res;
}

static tutti_result run_team(struct tt_engine *e, const struct tt_call *call)
{
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);
    size_t lanes = bytes / TEAM_LANE_BYTES;

    lanes = lanes < 1 ? 1 : lanes > TT_TEAM_LANES ? TT_TEAM_LANES : lanes;
    for (size_t i = (size_t)call->thread; i < lanes; i += (size_t)call->n_threads) {
        const struct tt_share share = {(unsigned)i, (unsigned)lanes, 0, 0};

        TT_TRY(run_lane(&e->lanes[1 + i], call, share));
    }
    return TUTTI_OK;
}

tutti_result tt_cpu_run(struct tt_engine *e, const struct tt_call *call)
{
    const struct tt_share whole = {0, 1, 0, 0};
    tutti_result res;
    uint64_t fp;

    if (__builtin_expect(tt_load_relaxed(&e->segment->failure) != 0, 0))
        return tt_engine_failed(e);
    if (call->thread == 0)
        e->lanes[call->n_threads != TT_TEAM_NONE].bytes_to_note = 1 + call->bytes;
    fp = tt_fp_enter();
    if (call->coll == TT_COLL_ALL_REDUCE && call->algo == TT_ALGO_ONE_SHOT &&
        call->window_algo == TT_ALGO_ONE_SHOT && call->n_threads == TT_TEAM_NONE &&
        e->n_ranks > 1) { /* the short way of the smallest calls */
        e->lanes[0].what = tt_what(call);
        res = tt_all_reduce_one_shot(&e->lanes[0], call, call->send, call->recv, call->count);
    } else if (call->n_threads != TT_TEAM_NONE) {
        res = run_team(e, call);
    } else {
        res = run_lane(&e->lanes[0], call, whole);
    }
    tt_fp_leave(fp);
    if (__builtin_expect(res != TUTTI_OK, 0))
        tt_wait_stored(e);
    return res;
}

tutti_result tt_cpu_exchange(struct tt_engine *e, enum tt_purpose purpose, const void *send,
                             void *recv, size_t bytes)
{
    const struct tt_call call = {.coll = TT_COLL_ALL_GATHER,
                                 .algo = TT_ALGO_ONE_SHOT,
                                 .window_algo = TT_ALGO_ONE_SHOT,
                                 .dtype = TUTTI_DTYPE_U8,
                                 .send = send,
                                 .recv = recv,
                                 .count = bytes,
                                 .thread = TT_CALL_UNCOUNTED,
                                 .purpose = purpose};

    return tt_cpu_run(e, &call);
}
