/* Checks of a collective's arguments. Each returns TUTTI_E_ARG with a text that says what is wrong
 * with which argument; nothing has happened then. */
#ifndef TT_API_CHECK_H
#define TT_API_CHECK_H

#include "coll/comm.h"

/* Communicator, stream and dtype. */
tutti_result tt_check_call(const char *function, const tutti_comm *comm, tutti_dtype dtype,
                           tutti_stream stream);
tutti_result tt_check_op(const char *function, tutti_op op);
tutti_result tt_check_rank(const char *function, const tutti_comm *comm, const char *what,
                           int rank);
tutti_result tt_check_team(const char *function, const tutti_comm *comm, int thread, int n_threads);

/* count elements times `blocks`, in bytes; overflow is an error. */
tutti_result tt_check_bytes(const char *function, size_t count, size_t blocks, tutti_dtype dtype,
                            size_t *bytes_out);
/* The sum of counts[n], checked to be representable in bytes. */
tutti_result tt_check_counts(const char *function, const size_t *counts, int n, tutti_dtype dtype,
                             size_t *sum_out);

/* 1 if a call with these two buffers of `count` elements each is plainly right, so that the checks
 * below, which say what is wrong, need not run: this is on the way of the smallest calls. */
static inline int tt_plainly_right(const tutti_comm *comm, const void *send, const void *recv,
                                   size_t count, tutti_dtype dtype, tutti_op op,
                                   tutti_stream stream)
{
    const uintptr_t x = (uintptr_t)send, y = (uintptr_t)recv;
    const size_t bytes = count * tt_dtype_bytes(dtype);

    return comm && (!stream || comm->device == TUTTI_DEVICE_CUDA) && send && recv &&
           (unsigned)dtype < TUTTI_N_DTYPES && (unsigned)op < TUTTI_N_OPS &&
           count < SIZE_MAX / 64 && (x == y || x >= y + bytes || y >= x + bytes);
}

/* A buffer that holds bytes must not be NULL. */
tutti_result tt_check_buffer(const char *function, const char *what, const void *p, size_t bytes);

/* a[a_bytes] and b[b_bytes] may not overlap, unless b - a is exactly `place` (in place). */
tutti_result tt_check_overlap(const char *function, const void *a, size_t a_bytes, const void *b,
                              size_t b_bytes, size_t place);
/* No part may receive over what another sends. Their sizes have been checked. */
tutti_result tt_check_parts_apart(const char *function, const tutti_rows parts[], size_t n_parts,
                                  size_t own_rows, size_t all_rows);

#endif
