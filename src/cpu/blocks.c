/* Who gets what from whom in a collective: the one place that knows each collective's layout. */
#include "cpu/cpu.h"

void tt_share_of(struct tt_share share, size_t count, size_t element_bytes, size_t *first,
                 size_t *n)
{
    /* sizes are powers of two, and two ranks are common: divisions would cost more than the rest */
    const int shift = 6 - __builtin_ctzl(element_bytes);
    const size_t lines = (count + ((size_t)1 << shift) - 1) >> shift;
    const size_t each =
        (share.parts == 2 ? (lines + 1) / 2 : (lines + share.parts - 1) / share.parts) << shift;

    *first = each * share.part < count ? each * share.part : count;
    *n = count - *first < each ? count - *first : each;
}

struct slice {
    size_t first, bytes; /* in bytes */
};

static struct slice slice_of(struct tt_share share, size_t count, size_t size)
{
    size_t first, n;

    tt_share_of(share, count, size, &first, &n);
    return (struct slice){first * size, n * size};
}

static void all_gather(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const int n = ln->e->n_ranks, me = ln->e->rank;
    const struct slice mine = slice_of(share, call->counts ? call->counts[me] : call->count, size);
    size_t displ = 0;

    for (int r = 0; r < n; r++) {
        const size_t count = call->counts ? call->counts[r] : call->count;
        const struct slice s = slice_of(share, count, size);
        unsigned char *to =
            call->recv_blocks ? call->recv_blocks[r] : (unsigned char *)call->recv + displ * size;

        ln->blocks[r] = (struct tt_block){(const unsigned char *)call->send + mine.first,
                                          mine.bytes, to + s.first, s.bytes};
        displ += count;
    }
}

static void reduce_scatter(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const int n = ln->e->n_ranks, me = ln->e->rank;
    const struct slice mine = slice_of(share, call->counts ? call->counts[me] : call->count, size);
    size_t displ = 0;

    for (int r = 0; r < n; r++) {
        const size_t count = call->counts ? call->counts[r] : call->count;
        const struct slice s = slice_of(share, count, size);
        const size_t at = call->send_displs ? call->send_displs[r] : displ;

        ln->blocks[r] =
            (struct tt_block){(const unsigned char *)call->send + at * size + s.first, s.bytes,
                              (unsigned char *)call->recv + mine.first, mine.bytes};
        displ += count;
    }
}

static void all_to_all(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const int v = call->send_counts != NULL;

    for (int r = 0; r < ln->e->n_ranks; r++) {
        const struct slice out = slice_of(share, v ? call->send_counts[r] : call->count, size);
        const struct slice in = slice_of(share, v ? call->recv_counts[r] : call->count, size);
        const size_t out_at = (v ? call->send_displs[r] : (size_t)r * call->count) * size;
        const size_t in_at = (v ? call->recv_displs[r] : (size_t)r * call->count) * size;

        ln->blocks[r] =
            (struct tt_block){(const unsigned char *)call->send + out_at + out.first, out.bytes,
                              (unsigned char *)call->recv + in_at + in.first, in.bytes};
    }
}

/* broadcast, reduce: one block between root and everybody. gather, scatter: block r of root's. */
static void rooted(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const struct slice s = slice_of(share, call->count, size);
    const int me = ln->e->rank, root = call->root;
    const int from_root = call->coll == TT_COLL_BROADCAST || call->coll == TT_COLL_SCATTER;
    const int many = call->coll == TT_COLL_GATHER || call->coll == TT_COLL_SCATTER;

    for (int r = 0; r < ln->e->n_ranks; r++) {
        struct tt_block *b = &ln->blocks[r];
        const size_t at = many ? (size_t)r * call->count * size : 0;

        *b = (struct tt_block){0};
        if (from_root ? me == root : r == root) {
            b->out = (const unsigned char *)call->send + (from_root ? at : 0) + s.first;
            b->out_bytes = s.bytes;
        }
        if (from_root ? r == root : me == root) {
            b->in = (unsigned char *)call->recv + (from_root ? 0 : at) + s.first;
            b->in_bytes = s.bytes;
        }
    }
}

static void rows(struct tt_lane *ln, const struct tt_call *call)
{
    for (int r = 0; r < ln->e->n_ranks; r++) {
        struct tt_block *b = &ln->blocks[r];

        *b = (struct tt_block){0};
        for (size_t p = 0; p < call->n_parts; p++) {
            b->out_bytes += call->counts[ln->e->rank] * call->parts[p].row_bytes;
            b->in_bytes += call->counts[r] * call->parts[p].row_bytes;
        }
    }
}

int tt_blocks_fill(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    switch (call->coll) {
    case TT_COLL_ALL_GATHER:
        if (call->parts)
            rows(ln, call);
        else
            all_gather(ln, call, share);
        return 1;
    case TT_COLL_REDUCE_SCATTER: reduce_scatter(ln, call, share); return 0;
    case TT_COLL_ALL_TO_ALL: all_to_all(ln, call, share); return 0;
    case TT_COLL_BROADCAST:
    case TT_COLL_REDUCE: rooted(ln, call, share); return 1;
    default: rooted(ln, call, share); return 0;
    }
}
