/*
 * All-reduce through scratch, for buffers that peers cannot reach.
 *
 * One-shot: everybody copies its vector into its scratch, meets, and reduces all n vectors. One
 * exchange of flags, n x bytes read per rank: best while latency counts.
 *
 * Two-shot: rank r reduces slice r only (what the others put into their scratch for it) and shows
 * the result in its scratch, from where the others fetch it. Two exchanges, 2 x bytes read per rank
 * whatever n is: best when bytes count.
 *
 * Both work through long vectors in pieces, a meeting each; the two halves of scratch take turns, so
 * no piece needs a barrier at its end (lane.c).
 */
#include "cpu/cpu.h"

#define DEMOTE_BYTES   1024u /* up to here pushing lines out of the own cache saves time */
#define PREFETCH_FROM  8192u /* from here on prefetching ahead does */
#define PREFETCH_AHEAD 2048u

static size_t ahead_for(size_t bytes)
{
    return bytes >= PREFETCH_FROM ? PREFETCH_AHEAD : 0;
}

/* Reduce one piece that fits scratch. The smallest calls are this and little else. */
static inline tutti_result one_shot_piece(struct tt_lane *ln, const struct tt_call *call,
                                          const unsigned char *send, unsigned char *recv, size_t n,
                                          size_t bytes)
{
    struct tt_engine *e = ln->e;
    const struct tt_kernels *k = e->kernels;
    const size_t ahead = ahead_for(bytes);
    const int early = TT_BROKEN(FENCE);
    unsigned char *mine;
    tutti_result res;

    tt_lane_begin(ln, bytes);
    mine = tt_scratch_of(ln, e->rank); /* of this epoch */
    if (early)
        tt_lane_arrive_plain(ln, call->count);
    TT_STALL();
    k->copy(mine, send, bytes, ahead);
    if (bytes <= DEMOTE_BYTES)
        k->demote(mine, bytes);
    tt_time_add(ln, &e->mine->stats.copy_ns);
    if (!early)
        tt_lane_arrive_plain(ln, call->count);
    res = tt_lane_meet_plain(ln, call->count);
    if (res != TUTTI_OK)
        return res;
    for (int r = 0; r < e->n_ranks; r++)
        ln->sources[r] = tt_scratch_of(ln, r);
    ln->sources[e->rank] = send;
    k->reduce[call->dtype][call->op](recv, NULL, ln->sources, e->n_ranks, n, ahead);
    tt_time_add(ln, &e->mine->stats.reduce_ns);
    return TUTTI_OK;
}

tutti_result tt_all_reduce_one_shot(struct tt_lane *ln, const struct tt_call *call,
                                    const unsigned char *send, unsigned char *recv, size_t count)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    size_t piece, done = 0;

    if (count * size <= ln->half_bytes)
        return one_shot_piece(ln, call, send, recv, count, count * size);
    piece = ln->half_bytes / size;
    do {
        const size_t n = count - done < piece ? count - done : piece;
        const tutti_result res =
            one_shot_piece(ln, call, send + done * size, recv + done * size, n, n * size);

        if (res != TUTTI_OK)
            return res;
        done += n;
    } while (done < count);
    return TUTTI_OK;
}

/* Slice r of a piece of n elements: whole lines, the last ones shorter or empty. */
static void slice_of(size_t n, int n_ranks, size_t per_line, int r, size_t *first, size_t *len)
{
    const size_t lines = (n + per_line - 1) / per_line;
    const size_t each = (lines + (size_t)n_ranks - 1) / (size_t)n_ranks * per_line;

    *first = (size_t)r * each < n ? (size_t)r * each : n;
    *len = n - *first < each ? n - *first : each;
}

/* Scratch of a piece: the slices for the others at their place, the own result behind them. */
static tutti_result two_shot_piece(struct tt_lane *ln, const struct tt_call *call,
                                   const unsigned char *send, unsigned char *recv, size_t n)
{
    struct tt_engine *e = ln->e;
    const struct tt_kernels *k = e->kernels;
    const size_t size = tt_dtype_bytes(call->dtype), per_line = 64 / size;
    const size_t ahead = ahead_for(n * size / (size_t)e->n_ranks);
    unsigned char *mine, *result;
    size_t first, len, my_first, my_len;
    tutti_result res;

    tt_lane_begin(ln, n * size);
    mine = tt_scratch_of(ln, e->rank); /* of this epoch */
    for (int d = 1; d < e->n_ranks; d++) {
        slice_of(n, e->n_ranks, per_line, (e->rank + d) % e->n_ranks, &first, &len);
        k->copy(mine + first * size, send + first * size, len * size, ahead);
    }
    tt_time_add(ln, &e->mine->stats.copy_ns);
    tt_lane_arrive_plain(ln, call->count);
    res = tt_lane_meet_plain(ln, call->count);
    if (res != TUTTI_OK)
        return res;

    slice_of(n, e->n_ranks, per_line, e->rank, &my_first, &my_len);
    result = mine + my_first * size; /* the one slice that nothing was copied to */
    for (int r = 0; r < e->n_ranks; r++)
        ln->sources[r] = tt_scratch_of(ln, r) + my_first * size;
    ln->sources[e->rank] = send + my_first * size;
    k->reduce[call->dtype][call->op](recv + my_first * size, result, ln->sources, e->n_ranks,
                                     my_len, ahead);
    tt_time_add(ln, &e->mine->stats.reduce_ns);
    ln->produced++;
    tt_post(e, &ln->mine->produced, ln->produced);
    for (int d = 1; d < e->n_ranks; d++) {
        const int r = (e->rank + d) % e->n_ranks;

        slice_of(n, e->n_ranks, per_line, r, &first, &len);
        TT_TRY(tt_await(e, r, &tt_lane_of(ln, r)->produced, ln->produced));
        tt_time_add(ln, &e->mine->stats.sync_ns);
        k->copy(recv + first * size, tt_scratch_of(ln, r) + first * size, len * size, ahead);
        tt_time_add(ln, &e->mine->stats.copy_ns);
    }
    return TUTTI_OK;
}

tutti_result tt_all_reduce_two_shot(struct tt_lane *ln, const struct tt_call *call,
                                    const unsigned char *send, unsigned char *recv, size_t count)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t limit = (size_t)TT_CHUNK * (ln->e->n_ranks > 2 ? 2 : 1);
    const size_t piece = (ln->half_bytes < limit ? ln->half_bytes : limit) / size;
    size_t done = 0;

    do {
        const size_t n = count - done < piece ? count - done : piece;
        const tutti_result res =
            two_shot_piece(ln, call, send + done * size, recv + done * size, n);

        if (res != TUTTI_OK)
            return res;
        done += n;
    } while (done < count);
    return TUTTI_OK;
}
