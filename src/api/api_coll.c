/* Public functions: collectives, sends, groups. Each checks its arguments and makes one call down. */
#include "api/check.h"
#include "base/error.h"

tutti_result tutti_all_reduce(tutti_comm *comm, const void *send, void *recv, size_t count,
                              tutti_dtype dtype, tutti_op op, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_REDUCE, dtype, send, recv, count);
    size_t bytes;

    call.op = op;
    call.stream = stream;
    if (tt_plainly_right(comm, send, recv, count, dtype, op, stream))
        return tt_coll_run(comm, &call);
    TT_TRY(tt_check_call("all_reduce", comm, dtype, stream));
    TT_TRY(tt_check_op("all_reduce", op));
    TT_TRY(tt_check_bytes("all_reduce", count, 1, dtype, &bytes));
    TT_TRY(tt_check_buffer("all_reduce", "send", send, bytes));
    TT_TRY(tt_check_buffer("all_reduce", "recv", recv, bytes));
    TT_TRY(tt_check_overlap("all_reduce", send, bytes, recv, bytes, 0));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_reduce_scatter(tutti_comm *comm, const void *send, void *recv, size_t recv_count,
                                  tutti_dtype dtype, tutti_op op, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_REDUCE_SCATTER, dtype, send, recv, recv_count);
    size_t all, one;

    call.op = op;
    call.stream = stream;
    TT_TRY(tt_check_call("reduce_scatter", comm, dtype, stream));
    TT_TRY(tt_check_op("reduce_scatter", op));
    TT_TRY(tt_check_bytes("reduce_scatter", recv_count, (size_t)comm->n_ranks, dtype, &all));
    one = all / (size_t)comm->n_ranks;
    TT_TRY(tt_check_buffer("reduce_scatter", "send", send, all));
    TT_TRY(tt_check_buffer("reduce_scatter", "recv", recv, one));
    TT_TRY(tt_check_overlap("reduce_scatter", send, all, recv, one, (size_t)comm->rank * one));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_reduce_scatterv(tutti_comm *comm, const void *send, void *recv,
                                   const size_t counts[], tutti_dtype dtype, tutti_op op,
                                   tutti_stream stream)
{
    struct tt_call call = {.coll = TT_COLL_REDUCE_SCATTER,
                           .dtype = dtype,
                           .op = op,
                           .send = send,
                           .recv = recv,
                           .counts = counts,
                           .stream = stream};
    size_t all, before = 0, size = tt_dtype_bytes(dtype);

    TT_TRY(tt_check_call("reduce_scatterv", comm, dtype, stream));
    TT_TRY(tt_check_op("reduce_scatterv", op));
    TT_TRY(tt_check_counts("reduce_scatterv", counts, comm->n_ranks, dtype, &all));
    for (int r = 0; r < comm->rank; r++)
        before += counts[r];
    TT_TRY(tt_check_buffer("reduce_scatterv", "send", send, all * size));
    TT_TRY(tt_check_buffer("reduce_scatterv", "recv", recv, counts[comm->rank] * size));
    TT_TRY(tt_check_overlap("reduce_scatterv", send, all * size, recv, counts[comm->rank] * size,
                            before * size));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_all_gather(tutti_comm *comm, const void *send, void *recv, size_t send_count,
                              tutti_dtype dtype, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_GATHER, dtype, send, recv, send_count);
    size_t all, one;

    call.stream = stream;
    TT_TRY(tt_check_call("all_gather", comm, dtype, stream));
    TT_TRY(tt_check_bytes("all_gather", send_count, (size_t)comm->n_ranks, dtype, &all));
    one = all / (size_t)comm->n_ranks;
    TT_TRY(tt_check_buffer("all_gather", "send", send, one));
    TT_TRY(tt_check_buffer("all_gather", "recv", recv, all));
    TT_TRY(tt_check_overlap("all_gather", recv, all, send, one, (size_t)comm->rank * one));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_all_gatherv(tutti_comm *comm, const void *send, void *recv,
                               const size_t counts[], tutti_dtype dtype, tutti_stream stream)
{
    struct tt_call call = {.coll = TT_COLL_ALL_GATHER,
                           .dtype = dtype,
                           .send = send,
                           .recv = recv,
                           .counts = counts,
                           .stream = stream};
    size_t all, before = 0, size = tt_dtype_bytes(dtype);

    TT_TRY(tt_check_call("all_gatherv", comm, dtype, stream));
    TT_TRY(tt_check_counts("all_gatherv", counts, comm->n_ranks, dtype, &all));
    for (int r = 0; r < comm->rank; r++)
        before += counts[r];
    TT_TRY(tt_check_buffer("all_gatherv", "send", send, counts[comm->rank] * size));
    TT_TRY(tt_check_buffer("all_gatherv", "recv", recv, all * size));
    TT_TRY(tt_check_overlap("all_gatherv", recv, all * size, send, counts[comm->rank] * size,
                            before * size));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_all_gatherv_rows(tutti_comm *comm, const tutti_rows parts[], size_t n_parts,
                                    const size_t rows[], tutti_stream stream)
{
    struct tt_call call = {.coll = TT_COLL_ALL_GATHER,
                           .dtype = TUTTI_DTYPE_U8,
                           .counts = rows,
                           .parts = parts,
                           .n_parts = n_parts,
                           .stream = stream};
    size_t all, before = 0, bytes;

    TT_TRY(tt_check_call("all_gatherv_rows", comm, TUTTI_DTYPE_U8, stream));
    if (!parts || n_parts < 1 || n_parts > TUTTI_MAX_ROW_PARTS)
        return TT_FAIL(TUTTI_E_ARG, "all_gatherv_rows: %zu parts; it must be 1 to %d", n_parts,
                       TUTTI_MAX_ROW_PARTS);
    TT_TRY(tt_check_counts("all_gatherv_rows", rows, comm->n_ranks, TUTTI_DTYPE_U8, &all));
    for (int r = 0; r < comm->rank; r++)
        before += rows[r];
    for (size_t p = 0; p < n_parts; p++) {
        const size_t row = parts[p].row_bytes, mine = rows[comm->rank];

        TT_TRY(tt_check_bytes("all_gatherv_rows", all, row, TUTTI_DTYPE_U8, &bytes));
        TT_TRY(tt_check_buffer("all_gatherv_rows", "send", parts[p].send, mine * row));
        TT_TRY(tt_check_buffer("all_gatherv_rows", "recv", parts[p].recv, bytes));
        TT_TRY(tt_check_overlap("all_gatherv_rows", parts[p].recv, bytes, parts[p].send, mine * row,
                                before * row));
    }
    TT_TRY(tt_check_parts_apart("all_gatherv_rows", parts, n_parts, rows[comm->rank], all));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_all_to_all(tutti_comm *comm, const void *send, void *recv, size_t count,
                              tutti_dtype dtype, tutti_stream stream)
{
    struct tt_call call = {.coll = TT_COLL_ALL_TO_ALL,
                           .dtype = dtype,
                           .send = send,
                           .recv = recv,
                           .count = count,
                           .stream = stream};
    size_t all;

    TT_TRY(tt_check_call("all_to_all", comm, dtype, stream));
    TT_TRY(tt_check_bytes("all_to_all", count, (size_t)comm->n_ranks, dtype, &all));
    TT_TRY(tt_check_buffer("all_to_all", "send", send, all));
    TT_TRY(tt_check_buffer("all_to_all", "recv", recv, all));
    TT_TRY(tt_check_overlap("all_to_all", send, all, recv, all, 0));
    return tt_coll_run(comm, &call);
}

/* No block ends where no memory can be. */
static tutti_result check_displs(const size_t counts[], const size_t displs[], int n,
                                 tutti_dtype dtype)
{
    size_t end, bytes;

    if (!displs)
        return TT_FAIL(TUTTI_E_ARG, "all_to_allv: displacements are NULL");
    for (int r = 0; r < n; r++) {
        if (__builtin_add_overflow(displs[r], counts[r], &end))
            end = SIZE_MAX;
        if (counts[r] > 0)
            TT_TRY(tt_check_bytes("all_to_allv", end, 1, dtype, &bytes));
    }
    return TUTTI_OK;
}

tutti_result tutti_all_to_allv(tutti_comm *comm, const void *send, const size_t send_counts[],
                               const size_t send_displs[], void *recv, const size_t recv_counts[],
                               const size_t recv_displs[], tutti_dtype dtype, tutti_stream stream)
{
    struct tt_call call = {.coll = TT_COLL_ALL_TO_ALL,
                           .dtype = dtype,
                           .send = send,
                           .recv = recv,
                           .send_counts = send_counts,
                           .send_displs = send_displs,
                           .recv_counts = recv_counts,
                           .recv_displs = recv_displs,
                           .stream = stream};
    size_t sent, received;

    TT_TRY(tt_check_call("all_to_allv", comm, dtype, stream));
    TT_TRY(tt_check_counts("all_to_allv", send_counts, comm->n_ranks, dtype, &sent));
    TT_TRY(tt_check_counts("all_to_allv", recv_counts, comm->n_ranks, dtype, &received));
    TT_TRY(check_displs(send_counts, send_displs, comm->n_ranks, dtype));
    TT_TRY(check_displs(recv_counts, recv_displs, comm->n_ranks, dtype));
    TT_TRY(tt_check_buffer("all_to_allv", "send", send, sent));
    TT_TRY(tt_check_buffer("all_to_allv", "recv", recv, received));
    if (send == recv && sent > 0 && received > 0)
        return TT_FAIL(TUTTI_E_ARG, "all_to_allv cannot work in place: send == recv");
    if (send_counts[comm->rank] != recv_counts[comm->rank])
        return TT_FAIL(TUTTI_E_ARG,
                       "all_to_allv: rank %d sends %zu elements to itself but receives "
                       "%zu",
                       comm->rank, send_counts[comm->rank], recv_counts[comm->rank]);
    return tt_coll_run(comm, &call);
}

/* broadcast, reduce, gather, scatter: whole[n blocks of count] on root, part[count] elsewhere. */
static tutti_result rooted(const char *function, tutti_comm *comm, struct tt_call *call,
                           tutti_stream stream)
{
    const int many = call->coll == TT_COLL_GATHER || call->coll == TT_COLL_SCATTER;
    size_t one, all;

    call->stream = stream;
    TT_TRY(tt_check_call(function, comm, call->dtype, stream));
    TT_TRY(tt_check_rank(function, comm, "root", call->root));
    TT_TRY(
        tt_check_bytes(function, call->count, many ? (size_t)comm->n_ranks : 1, call->dtype, &all));
    one = many ? all / (size_t)comm->n_ranks : all;
    if (call->coll != TT_COLL_SCATTER || comm->rank == call->root)
        TT_TRY(tt_check_buffer(function, "send", call->send,
                               call->coll == TT_COLL_SCATTER ? all : one));
    if (call->coll == TT_COLL_SCATTER || comm->rank == call->root)
        TT_TRY(tt_check_buffer(function, "recv", call->recv,
                               call->coll == TT_COLL_GATHER ? all : one));
    if (comm->rank == call->root && call->coll == TT_COLL_GATHER)
        TT_TRY(
            tt_check_overlap(function, call->recv, all, call->send, one, (size_t)comm->rank * one));
    if (comm->rank == call->root && call->coll == TT_COLL_SCATTER)
        TT_TRY(
            tt_check_overlap(function, call->send, all, call->recv, one, (size_t)comm->rank * one));
    if (comm->rank == call->root && call->coll == TT_COLL_REDUCE)
        TT_TRY(tt_check_overlap(function, call->send, one, call->recv, one, 0));
    return tt_coll_run(comm, call);
}

tutti_result tutti_broadcast(tutti_comm *comm, void *buf, size_t count, tutti_dtype dtype, int root,
                             tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_BROADCAST, dtype, buf, buf, count);

    call.root = root;
    return rooted("broadcast", comm, &call, stream);
}

tutti_result tutti_reduce(tutti_comm *comm, const void *send, void *recv, size_t count,
                          tutti_dtype dtype, tutti_op op, int root, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_REDUCE, dtype, send, recv, count);

    call.op = op;
    call.root = root;
    TT_TRY(tt_check_op("reduce", op));
    return rooted("reduce", comm, &call, stream);
}

tutti_result tutti_gather(tutti_comm *comm, const void *send, void *recv, size_t count,
                          tutti_dtype dtype, int root, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_GATHER, dtype, send, recv, count);

    call.root = root;
    return rooted("gather", comm, &call, stream);
}

tutti_result tutti_scatter(tutti_comm *comm, const void *send, void *recv, size_t count,
                           tutti_dtype dtype, int root, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_SCATTER, dtype, send, recv, count);

    call.root = root;
    return rooted("scatter", comm, &call, stream);
}

tutti_result tutti_barrier(tutti_comm *comm, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_BARRIER, TUTTI_DTYPE_U8, NULL, NULL, 0);

    call.stream = stream;
    TT_TRY(tt_check_call("barrier", comm, TUTTI_DTYPE_U8, stream));
    return tt_coll_run(comm, &call);
}

static tutti_result p2p(const char *function, tutti_comm *comm, void *buf, size_t count,
                        tutti_dtype dtype, int peer, int is_send, tutti_stream stream)
{
    struct tt_p2p op = {
        .buf = buf, .peer = peer, .is_send = is_send, .dtype = dtype, .stream = stream};

    TT_TRY(tt_check_call(function, comm, dtype, stream));
    TT_TRY(tt_check_rank(function, comm, "peer", peer));
    TT_TRY(tt_check_bytes(function, count, 1, dtype, &op.bytes));
    TT_TRY(tt_check_buffer(function, "buf", buf, op.bytes));
    return tt_coll_p2p(comm, &op);
}

tutti_result tutti_send(tutti_comm *comm, const void *buf, size_t count, tutti_dtype dtype,
                        int peer, tutti_stream stream)
{
    return p2p("send", comm, (void *)(uintptr_t)buf, count, dtype, peer, 1, stream);
}

tutti_result tutti_recv(tutti_comm *comm, void *buf, size_t count, tutti_dtype dtype, int peer,
                        tutti_stream stream)
{
    return p2p("recv", comm, buf, count, dtype, peer, 0, stream);
}

tutti_result tutti_group_begin(tutti_comm *comm)
{
    if (!comm)
        return TT_FAIL(TUTTI_E_ARG, "group_begin: comm is NULL");
    return tt_group_begin(comm);
}

tutti_result tutti_group_end(tutti_comm *comm)
{
    if (!comm)
        return TT_FAIL(TUTTI_E_ARG, "group_end: comm is NULL");
    return tt_group_end(comm);
}
