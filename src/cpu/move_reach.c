/*
 * Every collective but all_reduce, from memory to memory: meet, move each block once, meet again.
 * Through windows by plain loads and stores, else across memories by one system call a block.
 */
#include "cpu/cpu.h"

#define KIB(n) ((size_t)(n) << 10)

struct reach {
    const struct tt_call *call;
    struct tt_share share;
    int windows;
};

static uint64_t send_word(const struct tt_lane *ln, int r)
{
    return tt_load_relaxed(&tt_arrival_of(ln, r)->send);
}

static unsigned char *recv_at(const struct tt_lane *ln, int r)
{
    return tt_window_at(ln->e, r, tt_load_relaxed(&tt_arrival_of(ln, r)->recv));
}

/* ---- what this rank can offer ---- */

static size_t sum(const size_t *counts, int n)
{
    size_t total = 0;

    for (int r = 0; r < n; r++)
        total += counts[r];
    return total;
}

/* Which of a call's buffers the peers must reach through windows, in bytes; 0: not at all. */
static void needs(const struct tt_lane *ln, const struct tt_call *call, size_t *send_bytes,
                  size_t *recv_bytes)
{
    const size_t size = tt_dtype_bytes(call->dtype), n = (size_t)ln->e->n_ranks;
    const size_t all = (call->counts ? sum(call->counts, ln->e->n_ranks) : n * call->count) * size;
    const int at_root = ln->e->rank == call->root;

    *send_bytes = *recv_bytes = 0;
    switch (call->coll) {
    case TT_COLL_ALL_GATHER:
    case TT_COLL_ALL_TO_ALL: *recv_bytes = all; break;
    case TT_COLL_REDUCE_SCATTER: *send_bytes = all; break;
    /* The side that nobody reaches into counts as well: where it lies in no window, the other
     * ranks' buffers will not either, and to offer in vain costs a meeting. */
    case TT_COLL_BROADCAST: *send_bytes = *recv_bytes = call->count * size; break;
    case TT_COLL_GATHER:
        *recv_bytes = at_root ? all : 0;
        *send_bytes = at_root ? 0 : call->count * size;
        break;
    case TT_COLL_SCATTER:
        *recv_bytes = at_root ? 0 : call->count * size;
        *send_bytes = at_root ? all : 0;
        break;
    default:
        *send_bytes = call->count * size;
        *recv_bytes = at_root ? call->count * size : 0;
        break;
    }
}

/* Blocks that move may not overwrite blocks that have not: those go through scratch. */
static int in_place_exchange(const struct tt_call *call)
{
    return call->coll == TT_COLL_ALL_TO_ALL && call->send == call->recv;
}

static int offer_windows(const struct tt_lane *ln, const struct tt_call *call, struct tt_ticket *t)
{
    size_t send_bytes, recv_bytes;
    tutti_window *w;

    if (call->parts || call->recv_blocks || call->send_displs || in_place_exchange(call))
        return 0;
    needs(ln, call, &send_bytes, &recv_bytes);
    if (send_bytes) {
        w = tt_cpu_window_find(ln->e, call->send, send_bytes);
        if (!w)
            return 0;
        t->send = tt_window_word(w, call->send);
    }
    if (recv_bytes) {
        w = tt_cpu_window_find(ln->e, call->recv, recv_bytes);
        if (!w)
            return 0;
        t->recv = tt_window_word(w, call->recv);
    }
    t->can = TT_CAN_WINDOW;
    return 1;
}

static size_t lines(size_t bytes)
{
    return bytes & ~(size_t)63;
}

/* A root copies alone what its peers could fetch meanwhile. */
static size_t broadcast_fetched(int is_pair, size_t bytes)
{
    if (!is_pair)
        return bytes;
    return bytes <= KIB(64) ? 0 : lines(bytes <= KIB(512) ? bytes / 4 : bytes / 2);
}

/* Of long blocks even more: no cache of root's keeps them. */
static size_t scatter_fetched(int is_pair, int windows, size_t bytes)
{
    if (bytes <= KIB(256))
        return is_pair || windows ? 0 : lines(bytes / 2);
    return is_pair && (windows || bytes <= KIB(512)) ? lines(bytes / 2) : bytes;
}

/* How much of a block its receiver fetches; its sender stores the rest where it belongs. To store where a peer
 * will read costs less than to load what it has just written, and many store at once what one would fetch.
 * Where blocks lie scattered, only a pair can tell each other where. */
static size_t fetched(const struct reach *x, int n_ranks, size_t bytes)
{
    const int is_pair = n_ranks == 2;

    switch (x->call->coll) {
    case TT_COLL_BROADCAST: return broadcast_fetched(is_pair, bytes);
    case TT_COLL_SCATTER: return scatter_fetched(is_pair, x->windows, bytes);
    case TT_COLL_ALL_GATHER: return x->windows || is_pair || !x->call->recv_blocks ? 0 : bytes;
    default: return 0;
    }
}

static void offer(const struct tt_lane *ln, const struct tt_call *call, struct tt_share share,
                  struct tt_ticket *t)
{
    if (share.windows && offer_windows(ln, call, t))
        return;
    if (call->parts && !tt_rows_go_across(call, ln->e->n_ranks))
        return;
    if (share.xmem && !call->send_displs && !in_place_exchange(call)) {
        t->can = call->recv_blocks ? TT_CAN_BLOCKS : TT_CAN_XMEM;
        t->send = (uint64_t)(uintptr_t)call->send;
        t->recv = (uint64_t)(uintptr_t)call->recv;
        if (call->recv_blocks && ln->e->n_ranks == 2)
            t->recv = (uint64_t)(uintptr_t)ln->blocks[1 - ln->e->rank].in;
    }
}

/* ---- moving ---- */

/* Where in rank r's recv the block for it begins. */
static size_t target_offset(const struct tt_lane *ln, const struct tt_call *call, int r)
{
    const size_t whole = call->count * tt_dtype_bytes(call->dtype);
    const size_t from = (size_t)(ln->blocks[r].out - (const unsigned char *)call->send);

    if (call->coll == TT_COLL_BROADCAST)
        return from;
    if (call->coll == TT_COLL_SCATTER)
        return from - (size_t)r * whole;
    if (call->coll == TT_COLL_GATHER)
        return from + (size_t)ln->e->rank * whole;
    return (size_t)(ln->blocks[ln->e->rank].in - (unsigned char *)call->recv);
}

/* The same across memories. */
static uint64_t target_address(const struct tt_lane *ln, const struct tt_call *call, int r)
{
    const uint64_t recv = tt_load_relaxed(&tt_arrival_of(ln, r)->recv);

    if (call->send_counts)
        return tt_note_address(ln, r);
    return call->recv_blocks ? recv : recv + target_offset(ln, call, r);
}

/* Store this rank's blocks where the peers want them. */
static tutti_result push(struct tt_lane *ln, const struct reach *x)
{
    struct tt_engine *e = ln->e;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const struct tt_block *b = &ln->blocks[r];
        const size_t at = fetched(x, e->n_ranks, b->out_bytes), bytes = b->out_bytes - at;

        if (bytes == 0)
            continue;
        if (x->windows)
            TT_TRY(tt_copy(e, e->kernels->put, recv_at(ln, r) + target_offset(ln, x->call, r) + at,
                           b->out + at, bytes));
        else
            TT_TRY(tt_xmem_write(e, r, target_address(ln, x->call, r) + at, b->out + at, bytes));
    }
    return TUTTI_OK;
}

/* Where in rank r's send the block for this rank begins (the part of it that is this lane's). */
static size_t source_offset(const struct tt_lane *ln, const struct reach *x, int r)
{
    const struct tt_call *call = x->call;
    const size_t size = tt_dtype_bytes(call->dtype);
    const int me = ln->e->rank;
    size_t first, n, count = call->count, before = 0;

    if (call->coll == TT_COLL_ALL_GATHER && call->counts)
        count = call->counts[r];
    if (call->coll == TT_COLL_REDUCE_SCATTER) {
        before = call->counts ? sum(call->counts, me) : (size_t)me * call->count;
        count = call->counts ? call->counts[me] : call->count;
    }
    if (call->coll == TT_COLL_ALL_TO_ALL || call->coll == TT_COLL_SCATTER)
        before = (size_t)me * call->count;
    tt_share_of(x->share, count, size, &first, &n);
    return (before + first) * size;
}

/* Fetch this rank's blocks where the peers have them. */
static tutti_result pull(struct tt_lane *ln, const struct reach *x)
{
    struct tt_engine *e = ln->e;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const struct tt_block *b = &ln->blocks[r];
        const size_t bytes = fetched(x, e->n_ranks, b->in_bytes);

        if (bytes == 0)
            continue;
        if (x->windows)
            TT_TRY(tt_copy(e, e->kernels->take, b->in,
                           tt_window_at(e, r, send_word(ln, r)) + source_offset(ln, x, r), bytes));
        else
            TT_TRY(tt_xmem_read(e, r, b->in, send_word(ln, r) + source_offset(ln, x, r), bytes));
    }
    return TUTTI_OK;
}

/* Reduce bytes [at, at + bytes) of this lane's block out of everybody's send into `to`. */
static tutti_result reduce_from(struct tt_lane *ln, const struct reach *x, const unsigned char *own,
                                size_t at, size_t bytes, unsigned char *to)
{
    struct tt_engine *e = ln->e;
    const struct tt_call *call = x->call;
    const size_t piece =
        (x->windows ? TT_AT_ONCE : ln->bounce_bytes) / (size_t)e->n_ranks & ~(size_t)63;

    for (size_t done = 0; done < bytes;) {
        const size_t n = bytes - done < piece ? bytes - done : piece;
        unsigned char *bounce = ln->bounce;

        TT_TRY(tt_go_on(e));
        for (int d = 1; d < e->n_ranks; d++) {
            const int r = tt_after(e, d);

            if (x->windows) {
                ln->sources[r] = tt_window_at(e, r, send_word(ln, r)) + at + done;
                continue;
            }
            TT_TRY(tt_xmem_read(e, r, bounce, send_word(ln, r) + at + done, n));
            ln->sources[r] = bounce;
            bounce += (n + 63) & ~(size_t)63;
        }
        ln->sources[e->rank] = own + at + done;
        e->kernels->reduce[call->dtype][call->op](to + done, NULL, ln->sources, e->n_ranks,
                                                  n / tt_dtype_bytes(call->dtype),
                                                  tt_ahead_for(bytes));
        done += n;
    }
    tt_time_add(ln, &e->mine->stats.reduce_ns);
    return TUTTI_OK;
}

static tutti_result reduce_scatter(struct tt_lane *ln, const struct reach *x)
{
    const struct tt_block *own = &ln->blocks[ln->e->rank];

    return reduce_from(ln, x, x->call->send, source_offset(ln, x, ln->e->rank), own->in_bytes,
                       own->in);
}

/* reduce: every rank reduces its slice and delivers it to root. */
static tutti_result reduce_to_root(struct tt_lane *ln, const struct reach *x)
{
    struct tt_engine *e = ln->e;
    const struct tt_call *call = x->call;
    const struct tt_share slice = {(unsigned)e->rank, (unsigned)e->n_ranks, 0, 0};
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t limit = ln->bounce_bytes / (size_t)e->n_ranks & ~(size_t)63;
    unsigned char *last = ln->bounce + ln->bounce_bytes - limit; /* the others' pieces end below */
    const uint64_t root_recv = tt_load_relaxed(&tt_arrival_of(ln, call->root)->recv);
    size_t first, n, end;

    tt_share_of(slice, call->count, size, &first, &n);
    first *= size;
    end = first + n * size;
    if (e->rank == call->root)
        return reduce_from(ln, x, call->send, first, end - first,
                           (unsigned char *)call->recv + first);
    if (x->windows)
        return reduce_from(ln, x, call->send, first, end - first,
                           tt_window_at(e, call->root, root_recv) + first);
    while (first < end) {
        const size_t bytes = end - first < limit ? end - first : limit;

        TT_TRY(reduce_from(ln, x, call->send, first, bytes, last));
        TT_TRY(tt_xmem_write(e, call->root, root_recv + first, last, bytes));
        first += bytes;
    }
    return TUTTI_OK;
}

static tutti_result move(struct tt_lane *ln, const struct reach *x)
{
    const struct tt_block *own = &ln->blocks[ln->e->rank];

    if (x->call->parts)
        return tt_rows_push(ln, x->call);
    if (x->call->coll == TT_COLL_REDUCE_SCATTER)
        return reduce_scatter(ln, x);
    if (x->call->coll == TT_COLL_REDUCE)
        return reduce_to_root(ln, x);
    if (own->in != own->out)
        TT_TRY(tt_copy(ln->e, NULL, own->in, own->out, own->in_bytes));
    TT_TRY(push(ln, x));
    TT_TRY(pull(ln, x));
    tt_time_add(ln, &ln->e->mine->stats.copy_ns);
    return TUTTI_OK;
}

tutti_result tt_move_noted(struct tt_lane *ln, const struct tt_call *call)
{
    const struct reach x = {.call = call};

    TT_TRY(move(ln, &x));
    return tt_lane_barrier(ln);
}

tutti_result tt_move_reach(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    struct reach x = {.call = call, .share = share};
    const int late = TT_BROKEN(NOTES);
    struct tt_ticket t;
    struct tt_meeting m;
    tutti_result res;

    (void)tt_blocks_fill(ln, call, share);
    t = tt_move_ticket(ln, call);
    offer(ln, call, share, &t);
    if (!t.can)
        return tt_move_staged(ln, call, share);
    tt_lane_begin(ln, t.longest);
    if (call->parts && !late)
        tt_rows_tell(ln, call);
    tt_lane_arrive(ln, &t);
    TT_STALL();
    if (call->parts && late)
        tt_rows_tell(ln, call);
    TT_TRY(tt_lane_meet(ln, &t, &m));
    if (!m.all_can)
        return TUTTI_IN_PROGRESS;
    x.windows = (m.all_can & TT_CAN_WINDOW) != 0;
    TT_TRY(tt_store_begin(ln->e));
    res = move(ln, &x);
    tt_store_end(ln->e);
    return res == TUTTI_OK ? tt_lane_barrier(ln) : res;
}
