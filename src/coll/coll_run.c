/* A checked call: queue it, or choose its algorithm and hand it to the engine. */
#include "base/error.h"
#include "coll/comm.h"

static uint64_t bound(const tutti_comm *comm, const struct tt_call *call)
{
    const uint64_t most = (uint64_t)comm->n_ranks * call->device_counts->max_count;
    uint64_t bytes = call->parts ? 0 : call->device_counts->unit * tt_dtype_bytes(call->dtype);

    for (size_t p = 0; call->parts && p < call->n_parts; p++)
        bytes += call->parts[p].row_bytes;
    return most * bytes;
}

/* all_to_allv: what this rank sends or what it receives, whichever is more. */
static uint64_t larger_list(const tutti_comm *comm, const struct tt_call *call)
{
    uint64_t sent = 0, received = 0;

    for (int r = 0; r < comm->n_ranks; r++) {
        sent += call->send_counts[r];
        received += call->recv_counts[r];
    }
    return sent > received ? sent : received;
}

/* Bytes of the larger side of a call on a rank: the same on all ranks, except for all_to_allv. */
static uint64_t larger_side(const tutti_comm *comm, const struct tt_call *call)
{
    const uint64_t size = tt_dtype_bytes(call->dtype), n = (uint64_t)comm->n_ranks;
    uint64_t count = call->count;

    if (call->send_counts)
        return larger_list(comm, call) * size;
    if (call->device_counts) /* of which the bound counts */
        return bound(comm, call);
    if (call->counts) {
        uint64_t row_bytes = call->parts ? 0 : size;

        count = 0;
        for (uint64_t r = 0; r < n; r++)
            count += call->counts[r];
        for (size_t p = 0; call->parts && p < call->n_parts; p++)
            row_bytes += call->parts[p].row_bytes;
        return count * row_bytes;
    }
    switch (call->coll) {
    case TT_COLL_ALL_REDUCE:
    case TT_COLL_BROADCAST:
    case TT_COLL_REDUCE: return count * size;
    default: return n * count * size;
    }
}

static void choose_on_cpu(const struct tt_select *select, struct tt_call *call, uint64_t bytes)
{
    call->algo = (enum tt_algo)tt_select_row(select, call->coll, TT_TUNE_ORDINARY, bytes)->algo;
    call->window_algo =
        bytes >= select->direct_from[call->coll] ? TT_ALGO_DIRECT : TT_ALGO_ONE_SHOT;
}

/* Whether buffers lie in windows is seen by the engine, so it is told of both cases. */
static void choose_on_gpu(const struct tt_select *select, struct tt_call *call, uint64_t bytes)
{
    const unsigned packets =
        select->packets_dtypes >> call->dtype & 1 ? TT_TUNE_ORDINARY_PACKETS : TT_TUNE_ORDINARY;
    const struct tt_select_row *row = tt_select_row(select, call->coll, packets, bytes);

    call->algo = (enum tt_algo)row->algo;
    call->width = row->width;
    row = tt_select_row(select, call->coll, packets + TT_TUNE_WINDOWS, bytes);
    call->window_algo = (enum tt_algo)row->algo;
    call->window_width = row->width;
}

tutti_result tt_coll_run(tutti_comm *comm, struct tt_call *call)
{
    uint64_t bytes;

    if (comm->group)
        return tt_group_add_call(comm->group, call, comm->n_ranks);
    if (call->device_counts && comm->device == TUTTI_DEVICE_CPU)
        return tt_coll_run_counted(comm, call);
    call->bytes = larger_side(comm, call);
    /* Ranks that do not know one number settle the way when they meet. */
    bytes = call->send_counts ? UINT64_MAX : call->bytes;
    if (comm->device == TUTTI_DEVICE_CPU)
        choose_on_cpu(&comm->select, call, bytes);
    else
        choose_on_gpu(&comm->select, call, bytes);
    return comm->ops->run(comm->engine, call);
}

tutti_result tt_coll_p2p(tutti_comm *comm, const struct tt_p2p *op)
{
    struct tt_p2p one = *op;

    if (comm->group)
        return tt_group_add_p2p(comm->group, op);
    if (op->peer == comm->rank)
        return TT_FAIL(TUTTI_E_ARG,
                       "rank %d sends to or receives from itself: put the send and the "
                       "receive into a group",
                       comm->rank);
    return comm->ops->run_p2p(comm->engine, &one, 1);
}
