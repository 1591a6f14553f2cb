/* The counts of a cell, and what must be where once the call has returned. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static size_t at_least_1(size_t x)
{
    return x ? x : 1;
}

/* Uneven shares of total: weights 2, 3, 4, 2, 3, 4 ... */
static size_t weight_of(int rank, int even)
{
    return even ? 1 : 2 + (size_t)rank % 3;
}

/* In whole rows; what does not fill one goes to the last rank. */
static void split(size_t total, size_t row, int n, int even, size_t *counts, size_t *displs)
{
    const size_t n_rows = total / row;
    size_t weights = 0;
    size_t before = 0;

    for (int r = 0; r < n; r++)
        weights += weight_of(r, even);
    for (int r = 0; r <= n; r++) {
        const size_t at =
            r == n ? total
                   : (n_rows / weights * before + n_rows % weights * before / weights) * row;

        if (r > 0)
            counts[r - 1] = at - displs[r - 1];
        if (r < n)
            displs[r] = at;
        before += weight_of(r, even);
    }
}

/* What rank a sends to rank b in all_to_allv, of blocks that have room for `room` elements. */
static size_t a2av_count(int a, int b, int even, size_t room)
{
    return even ? room : room / 2 + room / 4 * (((size_t)a + 2 * (size_t)b) % 3);
}

static void add(struct bench_shape *shape, size_t at, size_t length, int source, size_t from)
{
    const struct bench_segment segment = {at, length, source, from};

    if (length)
        shape->segments[shape->n_segments++] = segment;
}

/* The offsets of the parts of a rank with n_rows rows, one part after the other on cache lines. */
static size_t place_parts(const struct bench_shape *shape, size_t n_rows, size_t *offsets)
{
    size_t at = 0;

    for (int p = 0; p < BENCH_N_PARTS; p++) {
        offsets[p] = at;
        at += (n_rows * shape->row_bytes[p] + 63) / 64 * 64;
    }
    return at;
}

/* Rows as mixture-of-experts layers gather them: values, scales, ids, weights. */
static void make_rows(struct bench_shape *s)
{
    const size_t wide = s->cell.bytes >= 16384 ? 1024 : 16;
    size_t row = 0;
    size_t n_rows;
    size_t end = 0;

    s->row_bytes[0] = wide;
    s->row_bytes[1] = wide / 8;
    s->row_bytes[2] = 8;
    s->row_bytes[3] = 8;
    for (int p = 0; p < BENCH_N_PARTS; p++)
        row += s->row_bytes[p];
    n_rows = at_least_1(s->cell.bytes / row);
    split(n_rows, 1, s->n_ranks, s->cell.even_counts, s->counts, s->displs);
    s->bytes = n_rows * row;
    s->count = n_rows;
    s->n_recv = place_parts(s, n_rows, s->recv_part);
    for (int p = 0; p < BENCH_N_PARTS; p++) {
        add(s, end, s->recv_part[p] - end, BENCH_UNTOUCHED, 0);
        for (int r = 0; r < s->n_ranks; r++) {
            size_t offsets[BENCH_N_PARTS];

            place_parts(s, s->counts[r], offsets);
            add(s, s->recv_part[p] + s->displs[r] * s->row_bytes[p], s->counts[r] * s->row_bytes[p],
                r, offsets[p]);
        }
        end = s->recv_part[p] + n_rows * s->row_bytes[p];
    }
    s->n_send = place_parts(s, s->counts[s->rank], s->send_part);
}

static void make_all_to_allv(struct bench_shape *s, size_t per)
{
    for (int r = 0; r < s->n_ranks; r++) {
        const size_t at = (size_t)r * per;

        s->displs[r] = at;
        s->send_counts[r] = a2av_count(s->rank, r, s->cell.even_counts, per);
        s->recv_counts[r] = a2av_count(r, s->rank, s->cell.even_counts, per);
        add(s, at, s->recv_counts[r], r, (size_t)s->rank * per);
        add(s, at + s->recv_counts[r], per - s->recv_counts[r], BENCH_UNTOUCHED, 0);
    }
}

/* Elements that the counts of v-calls are multiples of, if a rank has several times as many. */
static size_t row_of(const struct bench_shape *s, size_t total)
{
    const size_t row = at_least_1(s->cell.row);

    return total / row >= 4 * (size_t)s->n_ranks ? row : 1;
}

static void make_uneven(struct bench_shape *s, size_t total)
{
    const int gathers = s->cell.id == BENCH_ALL_GATHERV;
    const size_t own = (size_t)s->rank;

    split(total, row_of(s, total), s->n_ranks, s->cell.even_counts, s->counts, s->displs);
    s->n_send = gathers ? s->counts[own] : total;
    s->n_recv = gathers ? total : s->counts[own];
    if (!gathers)
        add(s, 0, s->counts[own], BENCH_FROM_ALL, s->displs[own]);
    for (int r = 0; gathers && r < s->n_ranks; r++)
        add(s, s->displs[r], s->counts[r], r, 0);
}

/* Calls that are about one block of `count` elements for each rank. */
static void make_blocks(struct bench_shape *s)
{
    const size_t per = s->count;
    const size_t all = per * (size_t)s->n_ranks;
    const size_t own = (size_t)s->rank * per;
    const int is_root = s->rank == s->root;

    switch (s->cell.id) {
    case BENCH_REDUCE_SCATTER:
        s->n_send = all;
        s->n_recv = per;
        add(s, 0, per, BENCH_FROM_ALL, own);
        break;
    case BENCH_SCATTER:
        s->n_send = is_root ? all : 0;
        s->n_recv = per;
        add(s, 0, per, s->root, own);
        break;
    case BENCH_ALL_GATHER:
    case BENCH_GATHER:
        s->n_send = per;
        s->n_recv = s->cell.id == BENCH_ALL_GATHER || is_root ? all : 0;
        for (int r = 0; s->n_recv && r < s->n_ranks; r++)
            add(s, (size_t)r * per, per, r, 0);
        break;
    case BENCH_ALL_TO_ALL:
        s->n_send = all;
        s->n_recv = all;
        for (int r = 0; r < s->n_ranks; r++)
            add(s, (size_t)r * per, per, r, own);
        break;
    default:
        s->n_send = all;
        s->n_recv = all;
        make_all_to_allv(s, per);
        break;
    }
}

/* Calls in which all buffers have `total` elements. */
static void make_whole(struct bench_shape *s, size_t total)
{
    const int is_root = s->rank == s->root;
    const int previous = (s->rank + s->n_ranks - 1) % s->n_ranks;

    s->n_send = total;
    s->n_recv = total;
    if (s->cell.id == BENCH_ALL_REDUCE)
        add(s, 0, total, BENCH_FROM_ALL, 0);
    else if (s->cell.id == BENCH_REDUCE)
        add(s, 0, total, is_root ? BENCH_FROM_ALL : BENCH_UNTOUCHED, 0);
    else if (s->cell.id == BENCH_SENDRECV)
        add(s, 0, total, previous, 0);
    else
        add(s, 0, total, s->root, 0);
    if (s->cell.id == BENCH_BROADCAST && !is_root)
        s->n_send = 0;
}

void bench_shape_make(const struct bench_cell *cell, int rank, int n_ranks, int root,
                      struct bench_shape *s)
{
    const size_t n = (size_t)n_ranks;
    size_t total;

    memset(s, 0, sizeof(*s));
    s->cell = *cell;
    s->rank = rank;
    s->n_ranks = n_ranks;
    s->root = root;
    s->element_bytes = tutti_dtype_bytes(cell->dtype);
    s->counts = cli_alloc(4 * n * sizeof(size_t));
    s->displs = s->counts + n;
    s->send_counts = s->displs + n;
    s->recv_counts = s->send_counts + n;
    s->segments = cli_alloc((n + 1) * BENCH_N_PARTS * sizeof(*s->segments));
    total = at_least_1(cell->bytes / s->element_bytes);

    switch (cell->id) {
    case BENCH_BARRIER: total = 0; break;
    case BENCH_ALL_GATHERV_ROWS: make_rows(s); return;
    case BENCH_ALL_REDUCE:
    case BENCH_REDUCE:
    case BENCH_BROADCAST:
    case BENCH_SENDRECV:
        s->count = total;
        make_whole(s, total);
        break;
    case BENCH_REDUCE_SCATTERV:
    case BENCH_ALL_GATHERV:
        s->count = total;
        make_uneven(s, total);
        break;
    default:
        s->count = at_least_1(total / n);
        total = s->count * n;
        make_blocks(s);
        break;
    }
    s->bytes = total * s->element_bytes;
}

void bench_shape_free(struct bench_shape *shape)
{
    free(shape->counts);
    free(shape->segments);
}
