/*
 * Reductions of the ranks' own elements in rank order, as on one host: the same bits, for more bytes
 * across the network (each rank's elements, where else there is a partial result for each host).
 */
#include "coll/hier_parts.h"

#define SMALL_BYTES (UINT64_C(64) << 10) /* of all ranks' vectors: everybody gets them */

static tutti_result reduce_all(struct tt_engine *e, const struct tt_call *call)
{
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);
    size_t *counts = tt_hier_row(e, TT_ROW_COUNTS);

    for (int r = 0; r < e->n_ranks; r++) {
        counts[r] = bytes;
        e->places[r] = e->scratch + (size_t)r * bytes;
        e->sources[r] = e->places[r];
    }
    TT_TRY(tt_hier_gather_blocks(e, call->send, counts, e->places));
    e->kernels->reduce[call->dtype][call->op](call->recv, NULL, e->sources, e->n_ranks, call->count,
                                              0);
    return TUTTI_OK;
}

/* Slices [at, at + most) of all ranks' blocks, to the rank that each block is for, who reduces them
 * into `recv`. */
static tutti_result reduce_slices(struct tt_engine *e, const struct tt_call *call, size_t at,
                                  size_t most, unsigned char *recv)
{
    const size_t size = tt_dtype_bytes(call->dtype), *blocks = call->counts;
    size_t *out = tt_hier_row(e, TT_ROW_OUT), *out_at = tt_hier_row(e, TT_ROW_OUT_AT);
    size_t *in = tt_hier_row(e, TT_ROW_IN), *in_at = tt_hier_row(e, TT_ROW_IN_AT);
    const struct tt_hier_moves moves = {.out_bytes = out,
                                        .out_at = out_at,
                                        .in_bytes = in,
                                        .in_at = in_at,
                                        .out = call->send,
                                        .in = e->scratch,
                                        .skip_empty = 1};
    size_t displ = 0, mine = blocks[e->rank] > at ? blocks[e->rank] - at : 0;

    mine = mine < most ? mine : most;
    for (int r = 0; r < e->n_ranks; r++) {
        const size_t left = blocks[r] > at ? blocks[r] - at : 0;

        out[r] = (left < most ? left : most) * size;
        out_at[r] = (displ + at) * size;
        in[r] = mine * size;
        in_at[r] = (size_t)r * mine * size;
        displ += blocks[r];
    }
    TT_TRY(tt_hier_move_blocks(e, &moves));
    for (int r = 0; r < e->n_ranks; r++)
        e->sources[r] = e->scratch + in_at[r];
    if (mine)
        e->kernels->reduce[call->dtype][call->op](recv, NULL, e->sources, e->n_ranks, mine, 0);
    return TUTTI_OK;
}

tutti_result tt_hier_flat_reduce_scatter(struct tt_engine *e, const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t most = e->scratch_bytes / size / (size_t)e->n_ranks;
    size_t longest = 0;

    for (int r = 0; r < e->n_ranks; r++)
        longest = call->counts[r] > longest ? call->counts[r] : longest;
    for (size_t at = 0; at < longest; at += most)
        TT_TRY(reduce_slices(e, call, at, most,
                             call->recv ? (unsigned char *)call->recv + at * size : NULL));
    return TUTTI_OK;
}

/* A piece of the vector: a block of it for each rank, reduced there and gathered again. */
static tutti_result reduce_piece(struct tt_engine *e, const struct tt_call *call, size_t at,
                                 size_t count)
{
    const size_t size = tt_dtype_bytes(call->dtype), n = (size_t)e->n_ranks;
    const size_t each = (count + n - 1) / n;
    unsigned char *recv = (unsigned char *)call->recv + at * size, *mine;
    size_t *blocks = tt_hier_row(e, TT_ROW_COUNTS), first = 0;
    struct tt_call piece = *call;

    for (int r = 0; r < e->n_ranks; r++) {
        blocks[r] = count - first < each ? count - first : each;
        e->places[r] = recv + first * size;
        first += blocks[r];
    }
    mine = e->places[e->rank];
    piece.send = (const unsigned char *)call->send + at * size;
    piece.counts = blocks;
    TT_TRY(reduce_slices(e, &piece, 0, each, mine));
    for (int r = 0; r < e->n_ranks; r++)
        blocks[r] *= size;
    return tt_hier_gather_blocks(e, mine, blocks, e->places);
}

tutti_result tt_hier_flat_all_reduce(struct tt_engine *e, const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype), n = (size_t)e->n_ranks;
    const size_t piece = e->scratch_bytes / size / n * n;

    TT_TRY(tt_hier_meet(e, call));
    if (call->count * size * n <= SMALL_BYTES && call->count * size * n <= e->scratch_bytes)
        return reduce_all(e, call);
    for (size_t at = 0; at < call->count; at += piece)
        TT_TRY(reduce_piece(e, call, at, call->count - at < piece ? call->count - at : piece));
    return TUTTI_OK;
}
