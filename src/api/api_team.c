/* Public functions: collectives of thread teams. The checks are each thread's own; they read only
 * arguments, which are the same on all threads. */
#include "api/check.h"
#include "base/error.h"

/* Blocks per buffer: `whole` on the larger side, one on the other. */
static tutti_result team(const char *function, tutti_comm *comm, struct tt_call *call,
                         size_t send_blocks, size_t recv_blocks, int thread, int n_threads)
{
    const size_t most = send_blocks > recv_blocks ? send_blocks : recv_blocks;
    size_t bytes, one;

    TT_TRY(tt_check_team(function, comm, thread, n_threads));
    TT_TRY(tt_check_bytes(function, call->count, most, call->dtype, &bytes));
    one = bytes / most;
    TT_TRY(tt_check_buffer(function, "send", call->send, one * send_blocks));
    TT_TRY(tt_check_buffer(function, "recv", call->recv, one * recv_blocks));
    if (call->coll == TT_COLL_ALL_GATHER)
        TT_TRY(tt_check_overlap(function, call->recv, bytes, call->send, one,
                                (size_t)comm->rank * one));
    else
        TT_TRY(
            tt_check_overlap(function, call->send, one * send_blocks, call->recv, one * recv_blocks,
                             call->coll == TT_COLL_REDUCE_SCATTER ? (size_t)comm->rank * one : 0));
    call->thread = thread;
    call->n_threads = n_threads;
    return tt_coll_run(comm, call);
}

tutti_result tutti_all_reduce_team(tutti_comm *comm, const void *send, void *recv, size_t count,
                                   tutti_dtype dtype, tutti_op op, int thread, int n_threads)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_REDUCE, dtype, send, recv, count);

    call.op = op;
    TT_TRY(tt_check_call("all_reduce_team", comm, dtype, NULL));
    TT_TRY(tt_check_op("all_reduce_team", op));
    return team("all_reduce_team", comm, &call, 1, 1, thread, n_threads);
}

tutti_result tutti_reduce_scatter_team(tutti_comm *comm, const void *send, void *recv,
                                       size_t recv_count, tutti_dtype dtype, tutti_op op,
                                       int thread, int n_threads)
{
    struct tt_call call = tt_call_even(TT_COLL_REDUCE_SCATTER, dtype, send, recv, recv_count);

    call.op = op;
    TT_TRY(tt_check_call("reduce_scatter_team", comm, dtype, NULL));
    TT_TRY(tt_check_op("reduce_scatter_team", op));
    return team("reduce_scatter_team", comm, &call, (size_t)comm->n_ranks, 1, thread, n_threads);
}

tutti_result tutti_all_gather_team(tutti_comm *comm, const void *send, void *recv,
                                   size_t send_count, tutti_dtype dtype, int thread, int n_threads)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_GATHER, dtype, send, recv, send_count);

    TT_TRY(tt_check_call("all_gather_team", comm, dtype, NULL));
    return team("all_gather_team", comm, &call, 1, (size_t)comm->n_ranks, thread, n_threads);
}

tutti_result tutti_all_to_all_team(tutti_comm *comm, const void *send, void *recv, size_t count,
                                   tutti_dtype dtype, int thread, int n_threads)
{
    struct tt_call call = {
        .coll = TT_COLL_ALL_TO_ALL, .dtype = dtype, .send = send, .recv = recv, .count = count};
    const size_t n = comm ? (size_t)comm->n_ranks : 1;

    TT_TRY(tt_check_call("all_to_all_team", comm, dtype, NULL));
    return team("all_to_all_team", comm, &call, n, n, thread, n_threads);
}

tutti_result tutti_broadcast_team(tutti_comm *comm, void *buf, size_t count, tutti_dtype dtype,
                                  int root, int thread, int n_threads)
{
    struct tt_call call = tt_call_even(TT_COLL_BROADCAST, dtype, buf, buf, count);

    call.root = root;
    TT_TRY(tt_check_call("broadcast_team", comm, dtype, NULL));
    TT_TRY(tt_check_rank("broadcast_team", comm, "root", root));
    return team("broadcast_team", comm, &call, 1, 1, thread, n_threads);
}
