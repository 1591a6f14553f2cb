/*
 * Every collective but all_reduce, through scratch: copy what the others are to get into the own
 * scratch, meet, take (or reduce) what they put into theirs. In pieces, a meeting each; the halves
 * of scratch take turns. Works for any buffers and is the quickest way for small ones.
 */
#include "cpu/cpu.h"

/* all_to_allv: when some block is this long, copy from memory to memory */
#define XMEM_FROM_OF_2 ((size_t)4 << 10)
#define XMEM_FROM      ((size_t)128 << 10)

#define ROOTED_PIECES 4u
#define ROOTED_LEAST  ((size_t)8 << 10)
#define ROOTED_MOST   ((size_t)64 << 10)

struct stage {
    const struct tt_call *call;
    int same;     /* one block for all peers */
    int demotes;  /* push what was put towards the shared cache */
    size_t piece; /* bytes of a block that scratch holds at a time */
    size_t at;    /* where the current piece begins in every block */
};

static size_t part_of(const struct stage *st, size_t bytes)
{
    const size_t left = bytes > st->at ? bytes - st->at : 0;

    return left < st->piece ? left : st->piece;
}

static void put(struct tt_lane *ln, const struct stage *st, unsigned char *to,
                const unsigned char *from, size_t n)
{
    const struct tt_kernels *k = ln->e->kernels;

    k->put(to, from, n, tt_ahead_for(n));
    if (st->demotes)
        k->demote(to, n);
}

static void put_out(struct tt_lane *ln, const struct stage *st)
{
    struct tt_engine *e = ln->e;
    unsigned char *scratch = tt_scratch_of(ln, e->rank);

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const struct tt_block *b = &ln->blocks[r];
        const size_t n = part_of(st, b->out_bytes);

        if (n == 0)
            continue;
        if (st->call->parts)
            tt_rows_copy(ln, st->call, e->rank, st->at, n, scratch, 1);
        else
            put(ln, st, scratch + (st->same ? 0 : (size_t)r * st->piece), b->out + st->at, n);
        if (st->same)
            break;
    }
    tt_time_add(ln, &e->mine->stats.copy_ns);
}

/* The lines that put_out() will write next. */
static void make_ready(const struct tt_lane *ln, const struct stage *st)
{
    const struct tt_engine *e = ln->e;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const size_t n = part_of(st, ln->blocks[r].out_bytes);

        tt_lane_ready(ln, st->same ? 0 : (size_t)r * st->piece, n);
        if (st->same)
            break;
    }
}

/* What this rank sends to itself. */
static tutti_result keep_own(const struct tt_lane *ln, const struct tt_call *call)
{
    const struct tt_block *b = &ln->blocks[ln->e->rank];

    if (call->parts)
        return tt_rows_keep_own(ln->e, call);
    return b->in != b->out ? tt_copy(ln->e, NULL, b->in, b->out, b->in_bytes) : TUTTI_OK;
}

static void take_in(struct tt_lane *ln, const struct stage *st)
{
    struct tt_engine *e = ln->e;
    const size_t mine = st->same ? 0 : (size_t)e->rank * st->piece;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const struct tt_block *b = &ln->blocks[r];
        const size_t n = part_of(st, b->in_bytes);

        if (n == 0)
            continue;
        if (st->call->parts)
            tt_rows_copy(ln, st->call, r, st->at, n, tt_scratch_of(ln, r), 0);
        else
            e->kernels->take(b->in + st->at, tt_scratch_of(ln, r) + mine, n, tt_ahead_for(n));
    }
    tt_time_add(ln, &e->mine->stats.copy_ns);
}

static void reduce_in(struct tt_lane *ln, const struct stage *st)
{
    struct tt_engine *e = ln->e;
    const struct tt_call *call = st->call;
    const struct tt_block *own = &ln->blocks[e->rank];
    const size_t n = part_of(st, own->in_bytes);
    const size_t mine = st->same ? 0 : (size_t)e->rank * st->piece;

    if (n == 0)
        return;
    for (int r = 0; r < e->n_ranks; r++)
        ln->sources[r] = tt_scratch_of(ln, r) + mine;
    ln->sources[e->rank] = own->out + st->at;
    e->kernels->reduce[call->dtype][call->op](own->in + st->at, NULL, ln->sources, e->n_ranks,
                                              n / tt_dtype_bytes(call->dtype), tt_ahead_for(n));
    tt_time_add(ln, &e->mine->stats.reduce_ns);
}

/* all_to_allv: tell every peer how long its block is and where its own belongs, and check what they say. */
static struct tt_block_note *note_of(const struct tt_lane *ln, int from, int to)
{
    const struct tt_engine *e = ln->e;

    return (struct tt_block_note *)((unsigned char *)e->peers[from].area +
                                    e->segment->notes_offset) +
           (TT_BROKEN(PARITY) ? 0 : ln->epoch & 1) * (size_t)e->n_ranks + to;
}

void tt_notes_write(struct tt_lane *ln)
{
    for (int r = 0; r < ln->e->n_ranks; r++) {
        struct tt_block_note *note = note_of(ln, ln->e->rank, r);

        tt_store_relaxed(&note->address, (uint64_t)(uintptr_t)ln->blocks[r].in);
        tt_store_relaxed(&note->bytes, ln->blocks[r].out_bytes);
        tt_store_relaxed(&note->awaited, ln->blocks[r].in_bytes);
    }
}

/* Both ways: who sends more than is awaited must not store it. */
tutti_result tt_notes_check(struct tt_lane *ln)
{
    struct tt_engine *e = ln->e;

    for (int r = 0; r < e->n_ranks; r++) {
        const struct tt_block_note *note = note_of(ln, r, e->rank);
        const uint64_t sent = tt_load_relaxed(&note->bytes);

        if (sent != ln->blocks[r].in_bytes ||
            tt_load_relaxed(&note->awaited) != ln->blocks[r].out_bytes)
            return tt_engine_fail(e, TT_MISMATCH, r, TT_COLL_ALL_TO_ALL | TUTTI_DTYPE_U8 << 5,
                                  sent);
    }
    return TUTTI_OK;
}

uint64_t tt_note_address(const struct tt_lane *ln, int from)
{
    return tt_load_relaxed(&note_of(ln, from, ln->e->rank)->address);
}

struct tt_ticket tt_move_ticket(const struct tt_lane *ln, const struct tt_call *call)
{
    struct tt_ticket t = {.what = ln->what, .count = call->count};

    if (call->counts)
        t.count = tt_counts_hash(call->counts, (size_t)ln->e->n_ranks);
    for (size_t p = 0; p < call->n_parts; p++)
        t.count = tt_hash_on(t.count, call->parts[p].row_bytes);
    for (int r = 0; r < ln->e->n_ranks; r++)
        if (r != ln->e->rank && ln->blocks[r].out_bytes > t.longest)
            t.longest = ln->blocks[r].out_bytes;
    return t;
}

static int reduces(const struct tt_call *call)
{
    return call->coll == TT_COLL_REDUCE_SCATTER || call->coll == TT_COLL_REDUCE;
}

/* Bytes of a block per meeting: what scratch holds and the cache keeps. Where one side only gives and
 * the other only takes, smaller pieces let the next go in while the last is taken out. */
static size_t piece_of(const struct tt_lane *ln, const struct tt_call *call, int same)
{
    const size_t n = (size_t)ln->e->n_ranks;
    const size_t room = same ? ln->half_bytes : ln->half_bytes / n & ~(size_t)63;
    size_t piece = TT_CHUNK;

    if (call->coll == TT_COLL_BROADCAST || call->coll == TT_COLL_GATHER ||
        call->coll == TT_COLL_SCATTER) {
        piece = (call->count * tt_dtype_bytes(call->dtype) / ROOTED_PIECES + 63) & ~(size_t)63;
        piece = piece < ROOTED_LEAST ? ROOTED_LEAST : piece > ROOTED_MOST ? ROOTED_MOST : piece;
    }
    return piece < room ? piece : room;
}

/* A few lines that a peer will load while this rank loads its own come sooner from the shared cache. Where
 * only one side gives they do not. */
static int demotes(const struct tt_lane *ln, const struct tt_call *call, size_t longest)
{
    return longest * (size_t)(ln->e->n_ranks - 1) <= TT_DEMOTE_BYTES &&
           (call->coll == TT_COLL_ALL_GATHER || call->coll == TT_COLL_ALL_TO_ALL ||
            call->coll == TT_COLL_REDUCE_SCATTER);
}

/* all_to_allv: whether a block as long as this sends all of them across memories. Only when the ranks have
 * met do they know the longest one. */
static int goes_across(const struct tt_lane *ln, const struct tt_call *call, size_t longest)
{
    return call->send_counts && ln->e->xmem && call->algo == TT_ALGO_XMEM &&
           longest >= (ln->e->n_ranks == 2 ? XMEM_FROM_OF_2 : XMEM_FROM);
}

tutti_result tt_move_staged(struct tt_lane *ln, const struct tt_call *call, struct tt_share share)
{
    struct stage st = {.call = call, .same = tt_blocks_fill(ln, call, share)};
    const struct tt_ticket t = tt_move_ticket(ln, call);
    const int reducing = reduces(call);
    struct tt_meeting m = {.longest = t.longest};

    st.piece = piece_of(ln, call, st.same);
    st.demotes = demotes(ln, call, t.longest);
    do {
        const int early = TT_BROKEN(FENCE), late = TT_BROKEN(NOTES);

        TT_TRY(tt_go_on(ln->e));
        tt_lane_begin(ln, m.longest);
        if (call->send_counts && !late)
            tt_notes_write(ln);
        if (early)
            tt_lane_arrive(ln, &t);
        if (!goes_across(ln, call, t.longest))
            put_out(ln, &st);
        if (!early)
            tt_lane_arrive(ln, &t);
        TT_STALL();
        if (call->send_counts && late)
            tt_notes_write(ln);
        TT_TRY(tt_lane_meet(ln, &t, &m));
        if (m.any_can)
            return TUTTI_IN_PROGRESS;
        if (st.at == 0 && call->send_counts) {
            TT_TRY(tt_notes_check(ln));
            if (goes_across(ln, call, m.longest))
                return tt_move_noted(ln, call);
        }
        if (reducing)
            reduce_in(ln, &st);
        else
            take_in(ln, &st);
        if (st.at == 0 && !reducing)
            TT_TRY(keep_own(ln, call));
        make_ready(ln, &st);
        st.at += st.piece;
    } while (st.at < m.longest);
    return TUTTI_OK;
}
