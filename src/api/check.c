#include "api/check.h"

#include "base/error.h"

tutti_result tt_check_call(const char *function, const tutti_comm *comm, tutti_dtype dtype,
                           tutti_stream stream)
{
    if (!comm)
        return TT_FAIL(TUTTI_E_ARG, "%s: comm is NULL", function);
    if (tt_dtype_bytes(dtype) == 0)
        return TT_FAIL(TUTTI_E_ARG, "%s: dtype %d does not exist", function, (int)dtype);
    if (stream && comm->device == TUTTI_DEVICE_CPU)
        return TT_FAIL(TUTTI_E_ARG,
                       "%s: a stream was given, but communicator %s is for host memory: "
                       "pass NULL",
                       function, comm->name);
    return TUTTI_OK;
}

tutti_result tt_check_op(const char *function, tutti_op op)
{
    if ((unsigned)op >= TUTTI_N_OPS)
        return TT_FAIL(TUTTI_E_ARG, "%s: op %d does not exist", function, (int)op);
    return TUTTI_OK;
}

tutti_result tt_check_rank(const char *function, const tutti_comm *comm, const char *what, int rank)
{
    if (rank < 0 || rank >= comm->n_ranks)
        return TT_FAIL(TUTTI_E_ARG, "%s: %s is %d; communicator %s has ranks 0 to %d", function,
                       what, rank, comm->name, comm->n_ranks - 1);
    return TUTTI_OK;
}

tutti_result tt_check_team(const char *function, const tutti_comm *comm, int thread, int n_threads)
{
    if (n_threads < 1 || thread < 0 || thread >= n_threads)
        return TT_FAIL(TUTTI_E_ARG, "%s: thread %d of a team of %d", function, thread, n_threads);
    if (comm->device != TUTTI_DEVICE_CPU)
        return TT_FAIL(
            TUTTI_E_UNSUPPORTED,
            "%s: communicator %s is for GPU memory; teams of threads are for host memory", function,
            comm->name);
    if (comm->group)
        return TT_FAIL(TUTTI_E_ARG, "%s: team calls cannot be in a group", function);
    return TUTTI_OK;
}

tutti_result tt_check_bytes(const char *function, size_t count, size_t blocks, tutti_dtype dtype,
                            size_t *bytes_out)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, tt_dtype_bytes(dtype), &bytes) ||
        __builtin_mul_overflow(bytes, blocks, &bytes) || bytes > SIZE_MAX / 4)
        return TT_FAIL(TUTTI_E_ARG, "%s: %zu x %zu elements of %s are more than memory can hold",
                       function, blocks, count, tt_dtype_name(dtype));
    *bytes_out = bytes;
    return TUTTI_OK;
}

tutti_result tt_check_counts(const char *function, const size_t *counts, int n, tutti_dtype dtype,
                             size_t *sum_out)
{
    size_t sum = 0, bytes;

    if (!counts)
        return TT_FAIL(TUTTI_E_ARG, "%s: counts is NULL", function);
    for (int r = 0; r < n; r++)
        if (__builtin_add_overflow(sum, counts[r], &sum))
            return TT_FAIL(TUTTI_E_ARG, "%s: the sum of counts overflows at rank %d", function, r);
    TT_TRY(tt_check_bytes(function, sum, 1, dtype, &bytes));
    *sum_out = sum;
    return TUTTI_OK;
}

tutti_result tt_check_buffer(const char *function, const char *what, const void *p, size_t bytes)
{
    if (!p && bytes > 0)
        return TT_FAIL(TUTTI_E_ARG, "%s: %s is NULL but should hold %zu bytes", function, what,
                       bytes);
    return TUTTI_OK;
}

tutti_result tt_check_overlap(const char *function, const void *a, size_t a_bytes, const void *b,
                              size_t b_bytes, size_t place)
{
    const uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;

    if (a_bytes == 0 || b_bytes == 0 || y == x + place || x >= y + b_bytes || y >= x + a_bytes)
        return TUTTI_OK;
    return TT_FAIL(TUTTI_E_ARG,
                   "%s: send and recv overlap in a way that is not in place (see tutti.h)",
                   function);
}

tutti_result tt_check_parts_apart(const char *function, const tutti_rows parts[], size_t n_parts,
                                  size_t own_rows, size_t all_rows)
{
    for (size_t p = 0; p < n_parts; p++) {
        const size_t bytes = all_rows * parts[p].row_bytes;

        for (size_t q = 0; q < n_parts; q++)
            if (q != p)
                TT_TRY(tt_check_overlap(function, parts[p].recv, bytes, parts[q].send,
                                        own_rows * parts[q].row_bytes, bytes));
    }
    return TUTTI_OK;
}
