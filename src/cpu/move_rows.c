/*
 * all_gatherv_rows: a rank's block is rows of several tensors, its parts. Through scratch they lie one behind
 * the other; across memories each goes where it belongs, all parts of a peer by one system call.
 */
#include "cpu/cpu.h"

#define ACROSS_FROM ((size_t)12 << 10) /* of all ranks: the lookup of every part's pages costs */

/* Rows of the ranks below r. */
static size_t rows_before(const struct tt_call *call, int r)
{
    size_t before = 0;

    for (int q = 0; q < r; q++)
        before += call->counts[q];
    return before;
}

tutti_result tt_rows_keep_own(const struct tt_engine *e, const struct tt_call *call)
{
    const size_t before = rows_before(call, e->rank);

    for (size_t p = 0; p < call->n_parts; p++) {
        const tutti_rows *part = &call->parts[p];
        unsigned char *to = (unsigned char *)part->recv + before * part->row_bytes;
        const size_t bytes = call->counts[e->rank] * part->row_bytes;

        if (to != part->send)
            TT_TRY(tt_copy(e, NULL, to, part->send, bytes));
    }
    return TUTTI_OK;
}

/* ---- through scratch ---- */

void tt_rows_copy(struct tt_lane *ln, const struct tt_call *call, int r, size_t at, size_t bytes,
                  unsigned char *scratch, int out)
{
    const struct tt_kernels *k = ln->e->kernels;
    const size_t before = rows_before(call, r);

    for (size_t p = 0; p < call->n_parts && bytes > 0; p++) {
        const tutti_rows *part = &call->parts[p];
        const size_t whole = call->counts[r] * part->row_bytes;
        size_t n;

        if (at >= whole) {
            at -= whole;
            continue;
        }
        n = whole - at < bytes ? whole - at : bytes;
        if (out)
            k->put(scratch, (const unsigned char *)part->send + at, n, tt_ahead_for(n));
        else
            k->take((unsigned char *)part->recv + before * part->row_bytes + at, scratch, n,
                    tt_ahead_for(n));
        scratch += n;
        bytes -= n;
        at = 0;
    }
}

/* ---- across memories ---- */

int tt_rows_go_across(const struct tt_call *call, int n_ranks)
{
    size_t row = 0;

    for (size_t p = 0; p < call->n_parts; p++)
        row += call->parts[p].row_bytes;
    return rows_before(call, n_ranks) * row >= ACROSS_FROM;
}

void tt_rows_tell(const struct tt_lane *ln, const struct tt_call *call)
{
    uint64_t *places = (uint64_t *)tt_scratch_of(ln, ln->e->rank);

    for (size_t p = 0; p < call->n_parts; p++)
        places[p] = (uint64_t)(uintptr_t)call->parts[p].recv;
}

tutti_result tt_rows_push(struct tt_lane *ln, const struct tt_call *call)
{
    struct tt_engine *e = ln->e;
    const size_t before = rows_before(call, e->rank), n_rows = call->counts[e->rank];

    TT_TRY(tt_rows_keep_own(e, call));
    for (int d = 1; d < e->n_ranks && n_rows > 0; d++) {
        const int r = tt_after(e, d);
        const uint64_t *places = (const uint64_t *)tt_scratch_of(ln, r);
        struct iovec from[TUTTI_MAX_ROW_PARTS], to[TUTTI_MAX_ROW_PARTS];
        size_t n = 0;

        for (size_t p = 0; p < call->n_parts; p++) {
            const tutti_rows *part = &call->parts[p];

            if (part->row_bytes == 0)
                continue;
            from[n].iov_base = (void *)(uintptr_t)part->send;
            to[n].iov_base = (void *)(uintptr_t)(places[p] + before * part->row_bytes);
            from[n].iov_len = to[n].iov_len = n_rows * part->row_bytes;
            n++;
        }
        TT_TRY(tt_xmem_write_all(e, r, to, from, n));
    }
    tt_time_add(ln, &e->mine->stats.copy_ns);
    return TUTTI_OK;
}
