/*
 * The smallest broadcasts, through scratch: the root puts its buffer there, all meet, the others take it. They
 * fetch the root's data for as long as they poll its arrival, so that one journey between cores brings both.
 */
#include "cpu/cpu.h"

#define SHORT_MOST        1024u
#define FETCH_MOST_OF_2   512u
#define FETCH_MOST_OF_ANY 128u /* more readers than one get into each other's way */

int tt_broadcast_is_short(const struct tt_call *call)
{
    return call->algo == TT_ALGO_ONE_SHOT && call->window_algo == TT_ALGO_ONE_SHOT &&
           call->count <= SHORT_MOST / tt_dtype_bytes(call->dtype);
}

static void poll_with_data(const struct tt_lane *ln, int root, const unsigned char *data,
                           size_t bytes)
{
    const struct tt_arrival *a = tt_arrival_of(ln, root);
    const size_t most = ln->e->n_ranks == 2 ? FETCH_MOST_OF_2 : FETCH_MOST_OF_ANY;

    for (unsigned i = 0; i < TT_TIGHT_POLLS && tt_load_acquire(&a->epoch) < ln->epoch; i++)
        for (size_t at = 0; at < bytes && at < most; at += 64)
            __builtin_prefetch(data + at, 0, 3);
}

tutti_result tt_broadcast_short(struct tt_lane *ln, const struct tt_call *call)
{
    struct tt_engine *e = ln->e;
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const int is_root = e->rank == call->root, early = TT_BROKEN(FENCE);
    unsigned char *data;

    tt_lane_begin(ln, bytes);
    data = tt_scratch_of(ln, call->root); /* of this epoch */
    if (early)
        tt_lane_arrive_plain(ln, call->count);
    TT_STALL();
    if (is_root)
        e->kernels->put(data, call->send, bytes, 0);
    tt_time_add(ln, &e->mine->stats.copy_ns);
    if (!early)
        tt_lane_arrive_plain(ln, call->count);
    if (!is_root)
        poll_with_data(ln, call->root, data, bytes);
    TT_TRY(tt_lane_meet_plain(ln, call->count, 0));
    if (!is_root)
        e->kernels->take(call->recv, data, bytes, 0);
    tt_time_add(ln, &e->mine->stats.copy_ns);
    tt_lane_ready(ln, 0, is_root ? bytes : 0);
    return TUTTI_OK;
}
