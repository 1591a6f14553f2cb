/*
 * All-reduce from memory to memory: rank r reduces slice r straight out of everybody's send buffer
 * and stores the result into everybody's recv buffer; a barrier at the end, because then the buffers
 * are the callers' again. No byte is staged: 2 x bytes move per rank, which is the least there is.
 *
 * The peers' buffers are windows (plain loads and stores), or whatever process_vm_readv and
 * process_vm_writev reach, in pieces that stay in the cache.
 */
#include "cpu/cpu.h"

struct reach {
    int windows;         /* else across memories */
    size_t first, bytes; /* this rank's slice */
};

static unsigned char *peer_recv(const struct tt_lane *ln, int r)
{
    return tt_window_at(ln->e, r, tt_load_relaxed(&tt_arrival_of(ln, r)->recv));
}

/* Make sources[] readable for [at, at + bytes) of every rank's vector. */
static tutti_result load_sources(struct tt_lane *ln, const struct reach *reach, size_t at,
                                 size_t bytes, const unsigned char *send)
{
    struct tt_engine *e = ln->e;
    unsigned char *bounce = ln->bounce;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const uint64_t word = tt_load_relaxed(&tt_arrival_of(ln, r)->send);

        if (reach->windows) {
            ln->sources[r] = tt_window_at(e, r, word) + at;
            continue;
        }
        TT_TRY(tt_xmem_read(e, r, bounce, word + at, bytes));
        ln->sources[r] = bounce;
        bounce += (bytes + 63) & ~(size_t)63;
    }
    ln->sources[e->rank] = send + at;
    tt_time_add(ln, &e->mine->stats.copy_ns);
    return TUTTI_OK;
}

/* Give [at, at + bytes) of the result to every rank but `skip`. */
static tutti_result store_result(struct tt_lane *ln, const struct reach *reach, size_t at,
                                 size_t bytes, const unsigned char *recv, int skip, size_t ahead)
{
    struct tt_engine *e = ln->e;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);

        if (r == skip)
            continue;
        if (reach->windows)
            e->kernels->put(peer_recv(ln, r) + at, recv + at, bytes, ahead);
        else
            TT_TRY(tt_xmem_write(e, r, tt_load_relaxed(&tt_arrival_of(ln, r)->recv) + at, recv + at,
                                 bytes));
    }
    tt_time_add(ln, &e->mine->stats.copy_ns);
    return TUTTI_OK;
}

/* How much of the slice to do at a time. Through windows with one peer only an abort limits it; with more
 * the result should still be in the first-level cache when it is copied on. Across memories what was
 * fetched must still be in the second-level cache when it is reduced. */
static size_t piece_of(const struct tt_lane *ln, int windows)
{
    const size_t others = (size_t)ln->e->n_ranks - 1;
    size_t piece;

    if (windows)
        return others == 1 ? TT_AT_ONCE / 2 : 16384;
    piece = ln->bounce_bytes / others & ~(size_t)63;
    return piece < TT_CHUNK ? piece : TT_CHUNK;
}

static tutti_result reduce_slice(struct tt_lane *ln, const struct tt_call *call,
                                 const struct reach *reach, const unsigned char *send,
                                 unsigned char *recv)
{
    struct tt_engine *e = ln->e;
    const size_t size = tt_dtype_bytes(call->dtype);
    const size_t ahead = tt_ahead_for(reach->bytes);
    const size_t piece = piece_of(ln, reach->windows);
    const int second = reach->windows ? tt_after(e, 1) : -1;

    for (size_t done = 0; done < reach->bytes;) {
        const size_t at = reach->first + done;
        const size_t bytes = reach->bytes - done < piece ? reach->bytes - done : piece;

        TT_TRY(tt_go_on(e));
        TT_TRY(load_sources(ln, reach, at, bytes, send));
        e->kernels->reduce[call->dtype][call->op](recv + at,
                                                  second < 0 ? NULL : peer_recv(ln, second) + at,
                                                  ln->sources, e->n_ranks, bytes / size, ahead);
        tt_time_add(ln, &e->mine->stats.reduce_ns);
        TT_TRY(store_result(ln, reach, at, bytes, recv, second, ahead));
        done += bytes;
    }
    return TUTTI_OK;
}

tutti_result tt_all_reduce_reach(struct tt_lane *ln, const struct tt_call *call,
                                 const unsigned char *send, unsigned char *recv, size_t count,
                                 struct tt_share offers)
{
    struct tt_engine *e = ln->e;
    const size_t bytes = count * tt_dtype_bytes(call->dtype);
    struct tt_ticket t = {.what = ln->what, .count = call->count};
    tutti_window *from = offers.windows ? tt_cpu_window_find(e, send, bytes) : NULL;
    tutti_window *to = from && recv != send ? tt_cpu_window_find(e, recv, bytes) : from;
    struct tt_meeting m;
    struct reach reach;
    const struct tt_share slice = {(unsigned)e->rank, (unsigned)e->n_ranks, 0, 0};
    tutti_result res;
    size_t first, n;

    if (from && to) {
        t.can = TT_CAN_WINDOW;
        t.send = tt_window_word(from, send);
        t.recv = tt_window_word(to, recv);
    } else if (offers.xmem) {
        t.can = TT_CAN_XMEM;
        t.send = (uint64_t)(uintptr_t)send;
        t.recv = (uint64_t)(uintptr_t)recv;
    } else {
        return call->algo == TT_ALGO_TWO_SHOT ? tt_all_reduce_two_shot(ln, call, send, recv, count)
                                              : tt_all_reduce_one_shot(ln, call, send, recv, count);
    }
    tt_lane_begin(ln, bytes);
    tt_lane_arrive(ln, &t);
    TT_TRY(tt_lane_meet(ln, &t, &m));
    if (!m.all_can)
        return TUTTI_IN_PROGRESS;
    reach.windows = (m.all_can & TT_CAN_WINDOW) != 0;
    tt_share_of(slice, count, tt_dtype_bytes(call->dtype), &first, &n);
    reach.first = first * tt_dtype_bytes(call->dtype);
    reach.bytes = n * tt_dtype_bytes(call->dtype);
    TT_TRY(tt_store_begin(e));
    res = reduce_slice(ln, call, &reach, send, recv);
    tt_store_end(e);
    return res == TUTTI_OK ? tt_lane_barrier(ln) : res;
}
