/*
 * All-reduce through scratch, for buffers that peers cannot reach; and reduce, where that pays.
 *
 * One-shot: everybody copies its vector into its scratch, meets, and reduces all n vectors. One
 * exchange of flags, n x bytes read per rank: best while latency counts.
 *
 * Two-shot: rank r reduces slice r only (what the others put into their scratch for it) and leaves
 * the result where it read, in the others' scratch. Two exchanges, 2 x bytes read per rank whatever
 * n is: best when bytes count. Of a reduce the results go to root's scratch only.
 *
 * Both work through long vectors in pieces, a meeting each; the two halves of scratch take turns, so
 * no piece needs a barrier at its end (lane.c).
 */
#include "cpu/cpu.h"

#define STAGGER_FROM 256u /* bytes from which ranks begin to reduce at different places */
#define FETCH_MOST   512u

/* With one peer the reduction's own loads come soon enough. */
static inline size_t fetch_of(const struct tt_engine *e, size_t bytes)
{
    return e->n_ranks == 2 ? 0 : bytes < FETCH_MOST ? bytes : FETCH_MOST;
}

/* Elements [first, first + n) of everybody's scratch, and of the own send, into recv. */
static inline void reduce_all(struct tt_lane *ln, const struct tt_call *call,
                              const unsigned char *send, unsigned char *recv, size_t first,
                              size_t n, size_t ahead)
{
    struct tt_engine *e = ln->e;
    const size_t at = first * tt_dtype_bytes(call->dtype);

    for (int r = 0; r < e->n_ranks; r++)
        ln->sources[r] = tt_scratch_of(ln, r) + at;
    ln->sources[e->rank] = send + at;
    e->kernels->reduce[call->dtype][call->op](recv + at, NULL, ln->sources, e->n_ranks, n, ahead);
}

/* Reduce one piece that fits scratch. The smallest calls are this and little else. */
static inline tutti_result one_shot_piece(struct tt_lane *ln, const struct tt_call *call,
                                          const unsigned char *send, unsigned char *recv, size_t n,
                                          size_t bytes)
{
    struct tt_engine *e = ln->e;
    const struct tt_kernels *k = e->kernels;
    const size_t ahead = tt_ahead_for(bytes);
    const int early = TT_BROKEN(FENCE);
    unsigned char *mine;
    tutti_result res;

    tt_lane_begin(ln, bytes);
    mine = tt_scratch_of(ln, e->rank); /* of this epoch */
    if (early)
        tt_lane_arrive_plain(ln, call->count);
    TT_STALL();
    k->put(mine, send, bytes, ahead);
    if (bytes <= TT_DEMOTE_BYTES)
        k->demote(mine, bytes);
    tt_time_add(ln, &e->mine->stats.copy_ns);
    if (!early)
        tt_lane_arrive_plain(ln, call->count);
    res = tt_lane_meet_plain(ln, call->count, fetch_of(e, bytes));
    if (res != TUTTI_OK)
        return res;
    if (bytes < STAGGER_FROM || e->n_ranks == 2) {
        reduce_all(ln, call, send, recv, 0, n, ahead);
    } else { /* each rank begins elsewhere, so that they do not all want the same lines at once */
        const size_t lines = bytes / 64, per_line = 64 / tt_dtype_bytes(call->dtype);
        const size_t middle = lines * (size_t)e->rank / (size_t)e->n_ranks * per_line;

        reduce_all(ln, call, send, recv, middle, n - middle, ahead);
        reduce_all(ln, call, send, recv, 0, middle, ahead);
    }
    tt_time_add(ln, &e->mine->stats.reduce_ns);
    tt_lane_ready(ln, 0, bytes);
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
        tutti_result res = tt_go_on(ln->e);

        if (res == TUTTI_OK)
            res = one_shot_piece(ln, call, send + done * size, recv + done * size, n, n * size);
        if (res != TUTTI_OK)
            return res;
        done += n;
    } while (done < count);
    return TUTTI_OK;
}

/*
 * A piece: rank q puts slice r of its vector into its scratch for rank r, which reads it there and
 * leaves the result in the same lines. So a line is only ever touched by q and r, and r writes it
 * when it has just read it: storing to lines that other cores hold costs several times more.
 */
struct piece {
    const unsigned char *send;
    unsigned char *recv; /* NULL: only root has one */
    size_t n;            /* elements */
    size_t ahead;
};

/* Rank r's slice of a piece. */
static void slice_of(const struct tt_lane *ln, const struct piece *p, int r, size_t size,
                     size_t *first, size_t *len)
{
    const struct tt_share share = {(unsigned)r, (unsigned)ln->e->n_ranks, 0, 0};

    tt_share_of(share, p->n, size, first, len);
}

static void put_slices(struct tt_lane *ln, const struct piece *p, size_t size)
{
    struct tt_engine *e = ln->e;
    unsigned char *mine = tt_scratch_of(ln, e->rank);
    size_t first, len;

    for (int d = 1; d < e->n_ranks; d++) {
        slice_of(ln, p, tt_after(e, d), size, &first, &len);
        e->kernels->put(mine + first * size, p->send + first * size, len * size, p->ahead);
    }
    tt_time_add(ln, &e->mine->stats.copy_ns);
}

static int gets_result(const struct tt_lane *ln, const struct tt_call *call)
{
    return call->coll == TT_COLL_ALL_REDUCE || ln->e->rank == call->root;
}

/* Reduce the own slice, in bits that are still in the first-level cache when they are copied on. */
static void reduce_slice(struct tt_lane *ln, const struct tt_call *call, const struct piece *p,
                         size_t size)
{
    struct tt_engine *e = ln->e;
    const int to_all = call->coll == TT_COLL_ALL_REDUCE, next = tt_after(e, 1);
    const size_t bit = 16384 / size;
    size_t first, len;

    slice_of(ln, p, e->rank, size, &first, &len);
    for (size_t done = 0; done < len; done += bit) {
        const size_t n = len - done < bit ? len - done : bit, at = (first + done) * size;
        unsigned char *dst = gets_result(ln, call) ? p->recv : tt_scratch_of(ln, call->root);

        for (int r = 0; r < e->n_ranks; r++)
            ln->sources[r] = tt_scratch_of(ln, r) + at;
        ln->sources[e->rank] = p->send + at;
        e->kernels->reduce[call->dtype][call->op](dst + at,
                                                  to_all ? tt_scratch_of(ln, next) + at : NULL,
                                                  ln->sources, e->n_ranks, n, p->ahead);
        for (int d = 2; to_all && d < e->n_ranks; d++)
            e->kernels->put(tt_scratch_of(ln, tt_after(e, d)) + at, p->recv + at, n * size, 0);
    }
    tt_time_add(ln, &e->mine->stats.reduce_ns);
}

static tutti_result fetch_results(struct tt_lane *ln, const struct piece *p, size_t size)
{
    struct tt_engine *e = ln->e;
    const unsigned char *mine = tt_scratch_of(ln, e->rank);
    size_t first, len;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);

        if (!TT_BROKEN(BARRIER))
            TT_TRY(tt_await(e, r, &tt_lane_of(ln, r)->produced, ln->produced));
        tt_time_add(ln, &e->mine->stats.sync_ns);
        slice_of(ln, p, r, size, &first, &len);
        e->kernels->take(p->recv + first * size, mine + first * size, len * size, p->ahead);
        tt_time_add(ln, &e->mine->stats.copy_ns);
    }
    return TUTTI_OK;
}

static tutti_result two_shot_piece(struct tt_lane *ln, const struct tt_call *call,
                                   const struct piece *p)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const int early = TT_BROKEN(FENCE);
    tutti_result res;

    tt_lane_begin(ln, p->n * size);
    if (early)
        tt_lane_arrive_plain(ln, call->count);
    TT_STALL();
    put_slices(ln, p, size);
    if (!early)
        tt_lane_arrive_plain(ln, call->count);
    tt_fetch_to_write(&ln->mine->produced);
    res = tt_lane_meet_plain(ln, call->count, 0);
    if (res != TUTTI_OK)
        return res;
    ln->produced++;
    if (early)
        tt_post(ln->e, &ln->mine->produced, ln->produced);
    reduce_slice(ln, call, p, size);
    if (!early)
        tt_post(ln->e, &ln->mine->produced, ln->produced);
    if (gets_result(ln, call))
        TT_TRY(fetch_results(ln, p, size));
    tt_lane_ready(ln, 0, 0);
    return TUTTI_OK;
}

tutti_result tt_all_reduce_two_shot(struct tt_lane *ln, const struct tt_call *call,
                                    const unsigned char *send, unsigned char *recv, size_t count)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t limit = (ln->half_bytes < TT_CHUNK ? ln->half_bytes : TT_CHUNK) / size;
    size_t done = 0;

    do {
        const size_t n = count - done < limit ? count - done : limit;
        const struct piece p = {.send = send + done * size,
                                .recv = recv ? recv + done * size : NULL,
                                .n = n,
                                .ahead = tt_ahead_for(n * size / (size_t)ln->e->n_ranks)};
        tutti_result res = tt_go_on(ln->e);

        if (res == TUTTI_OK)
            res = two_shot_piece(ln, call, &p);
        if (res != TUTTI_OK)
            return res;
        done += n;
    } while (done < count);
    return TUTTI_OK;
}
