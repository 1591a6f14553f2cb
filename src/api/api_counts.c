/* Public functions: collectives whose counts lie in memory of the communicator. The host knows their
 * bound only, and that is what it checks. */
#include <string.h>

#include "api/check.h"
#include "base/error.h"

enum { STRIDE_OF_SEND = 1, STRIDE_OF_RECV = 2, RECEIVED = 4, UNIT = 8 }; /* what a call uses */

static tutti_result unused(const char *function, const char *field)
{
    return TT_FAIL(TUTTI_E_ARG, "%s: counts->%s is not used by this call; it must be 0", function,
                   field);
}

static tutti_result check_fields(const char *function, const tutti_device_counts *c, unsigned uses,
                                 size_t n_given, size_t n_ranks)
{
    const uintptr_t given = (uintptr_t)c->counts, received = (uintptr_t)c->received;

    if (c->flags != 0)
        return TT_FAIL(TUTTI_E_ARG, "%s: counts->flags is %#x; there are none yet", function,
                       c->flags);
    if (!c->counts || given % 8 != 0 || received % 8 != 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "%s: counts->counts is %p and counts->received %p; they must be 8-byte "
                       "aligned, and the first not NULL",
                       function, (const void *)c->counts, (const void *)c->received);
    if (received != 0 && received < given + 8 * n_given && given < received + 8 * n_ranks)
        return TT_FAIL(TUTTI_E_ARG, "%s: counts->counts and counts->received overlap", function);
    if (c->send_stride != 0 && !(uses & STRIDE_OF_SEND))
        return unused(function, "send_stride");
    if (c->recv_stride != 0 && !(uses & STRIDE_OF_RECV))
        return unused(function, "recv_stride");
    if (c->received && !(uses & RECEIVED))
        return unused(function, "received");
    if (c->unit != 0 && !(uses & UNIT))
        return unused(function, "unit");
    if ((c->send_stride != 0 && c->send_stride < c->max_count) ||
        (c->recv_stride != 0 && c->recv_stride < c->max_count))
        return TT_FAIL(TUTTI_E_ARG,
                       "%s: blocks of up to max_count %zu overlap with send_stride %zu and "
                       "recv_stride %zu; a stride is 0 or at least max_count",
                       function, c->max_count, c->send_stride, c->recv_stride);
    return TUTTI_OK;
}

/* A whole copy of what the caller gave, with nothing left to default; bytes of the longest block. */
static tutti_result read_counts(const char *function, const tutti_comm *comm,
                                const tutti_device_counts *given, unsigned uses, size_t n_given,
                                tutti_dtype dtype, tutti_device_counts *counts_out,
                                size_t *block_out)
{
    const size_t n = (size_t)comm->n_ranks;
    tutti_device_counts c = TUTTI_DEVICE_COUNTS_INIT;
    size_t stride, bytes;

    if (!given || given->size < sizeof(given->size) || given->size > 65536)
        return TT_FAIL(TUTTI_E_ARG,
                       "%s: counts is NULL or its size is not set: begin with "
                       "TUTTI_DEVICE_COUNTS_INIT",
                       function);
    memcpy(&c, given, given->size < sizeof(c) ? given->size : sizeof(c));
    for (uint32_t i = sizeof(c); i < given->size; i++)
        if (((const unsigned char *)given)[i])
            return TT_FAIL(TUTTI_E_VERSION,
                           "%s: counts sets a field that this version of tutti does not know (byte "
                           "%u)",
                           function, i);
    c.size = sizeof(c);
    TT_TRY(check_fields(function, &c, uses, n_given, n));
    if (c.unit == 0)
        c.unit = 1;
    stride = c.send_stride > c.recv_stride ? c.send_stride : c.recv_stride;
    stride = stride > c.max_count ? stride : c.max_count;
    if (__builtin_mul_overflow(stride, c.unit, &bytes))
        bytes = SIZE_MAX;
    TT_TRY(tt_check_bytes(function, bytes, n, dtype, &bytes));
    *block_out = c.max_count * c.unit * tt_dtype_bytes(dtype);
    *counts_out = c;
    return TUTTI_OK;
}

tutti_result tutti_all_gatherv_device(tutti_comm *comm, const void *send, void *recv,
                                      const tutti_device_counts *counts, tutti_dtype dtype,
                                      tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_GATHER, dtype, send, recv, 0);
    tutti_device_counts c;
    size_t block, step;

    call.device_counts = &c;
    call.stream = stream;
    TT_TRY(tt_check_call("all_gatherv_device", comm, dtype, stream));
    TT_TRY(read_counts("all_gatherv_device", comm, counts, STRIDE_OF_RECV | RECEIVED | UNIT, 1,
                       dtype, &c, &block));
    step = c.recv_stride * c.unit * tt_dtype_bytes(dtype);
    TT_TRY(tt_check_buffer("all_gatherv_device", "send", send, block));
    TT_TRY(tt_check_buffer("all_gatherv_device", "recv", recv, block));
    TT_TRY(tt_check_overlap("all_gatherv_device", recv, step * (size_t)comm->n_ranks, send, block,
                            step * (size_t)comm->rank));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_all_gatherv_rows_device(tutti_comm *comm, const tutti_rows parts[],
                                           size_t n_parts, const tutti_device_counts *counts,
                                           tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_GATHER, TUTTI_DTYPE_U8, NULL, NULL, 0);
    tutti_device_counts c;
    size_t block, bytes;

    call.device_counts = &c;
    call.parts = parts;
    call.n_parts = n_parts;
    call.stream = stream;
    TT_TRY(tt_check_call("all_gatherv_rows_device", comm, TUTTI_DTYPE_U8, stream));
    if (!parts || n_parts < 1 || n_parts > TUTTI_MAX_ROW_PARTS)
        return TT_FAIL(TUTTI_E_ARG, "all_gatherv_rows_device: %zu parts; it must be 1 to %d",
                       n_parts, TUTTI_MAX_ROW_PARTS);
    TT_TRY(read_counts("all_gatherv_rows_device", comm, counts, STRIDE_OF_RECV | RECEIVED, 1,
                       TUTTI_DTYPE_U8, &c, &block));
    for (size_t p = 0; p < n_parts; p++) {
        const size_t row = parts[p].row_bytes, n = (size_t)comm->n_ranks;
        const size_t stride = c.recv_stride > c.max_count ? c.recv_stride : c.max_count;

        TT_TRY(tt_check_bytes("all_gatherv_rows_device", stride * n, row, TUTTI_DTYPE_U8, &bytes));
        TT_TRY(tt_check_buffer("all_gatherv_rows_device", "send", parts[p].send, block * row));
        TT_TRY(tt_check_buffer("all_gatherv_rows_device", "recv", parts[p].recv, block * row));
        TT_TRY(tt_check_overlap("all_gatherv_rows_device", parts[p].recv, c.recv_stride * n * row,
                                parts[p].send, block * row,
                                c.recv_stride * (size_t)comm->rank * row));
    }
    return tt_coll_run(comm, &call);
}

tutti_result tutti_reduce_scatterv_device(tutti_comm *comm, const void *send, void *recv,
                                          const tutti_device_counts *counts, tutti_dtype dtype,
                                          tutti_op op, tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_REDUCE_SCATTER, dtype, send, recv, 0);
    tutti_device_counts c;
    size_t block, step;

    call.device_counts = &c;
    call.op = op;
    call.stream = stream;
    TT_TRY(tt_check_call("reduce_scatterv_device", comm, dtype, stream));
    TT_TRY(tt_check_op("reduce_scatterv_device", op));
    TT_TRY(read_counts("reduce_scatterv_device", comm, counts, STRIDE_OF_SEND | UNIT,
                       (size_t)comm->n_ranks, dtype, &c, &block));
    step = c.send_stride * c.unit * tt_dtype_bytes(dtype);
    TT_TRY(tt_check_buffer("reduce_scatterv_device", "send", send, block));
    TT_TRY(tt_check_buffer("reduce_scatterv_device", "recv", recv, block));
    TT_TRY(tt_check_overlap("reduce_scatterv_device", send, step * (size_t)comm->n_ranks, recv,
                            block, step * (size_t)comm->rank));
    return tt_coll_run(comm, &call);
}

tutti_result tutti_all_to_allv_device(tutti_comm *comm, const void *send, void *recv,
                                      const tutti_device_counts *counts, tutti_dtype dtype,
                                      tutti_stream stream)
{
    struct tt_call call = tt_call_even(TT_COLL_ALL_TO_ALL, dtype, send, recv, 0);
    tutti_device_counts c;
    size_t block;

    call.device_counts = &c;
    call.stream = stream;
    TT_TRY(tt_check_call("all_to_allv_device", comm, dtype, stream));
    TT_TRY(read_counts("all_to_allv_device", comm, counts,
                       STRIDE_OF_SEND | STRIDE_OF_RECV | RECEIVED | UNIT, (size_t)comm->n_ranks,
                       dtype, &c, &block));
    TT_TRY(tt_check_buffer("all_to_allv_device", "send", send, block));
    TT_TRY(tt_check_buffer("all_to_allv_device", "recv", recv, block));
    if (send == recv && block > 0)
        return TT_FAIL(TUTTI_E_ARG, "all_to_allv_device cannot work in place: send == recv");
    return tt_coll_run(comm, &call);
}
