/*
 * Sends and receives. Each direction between two ranks has a few lines for messages and a ring for
 * their bytes in shared memory. A message is announced by its lines, which hold the bytes of a short
 * one; those of others follow through the ring, in whole lines, or, where memories can be reached,
 * the receiver says where it wants them and the sender stores them there.
 *
 * All counters only grow. Each side keeps what it has seen of the other's, and looks again only when
 * that does not do: a line that nobody else reads costs nothing to write.
 */
#include <stdlib.h>

#include "cpu/cpu.h"

#define LINE      ((uint64_t)64)
#define XMEM_FROM ((size_t)4096) /* shorter messages are faster through the ring */

/* One direction between this rank and a peer. */
struct way {
    struct tt_sender_area *sender;
    struct tt_receiver_area *receiver;
    unsigned char *ring;
    uint64_t n_messages; /* sent, or received */
    uint64_t at;         /* bytes put into the ring, or taken out of it */
    uint64_t seen;       /* of the other side: bytes taken, or put */
    uint64_t n_seen;     /* messages that the receiver has taken */
    int is_busy;         /* an earlier operation of this sweep is under way */
};

struct tt_p2p_channel {
    struct way in, out;
};

static void *area_at(const struct tt_engine *e, int owner, uint64_t offset, int peer,
                     uint64_t stride)
{
    return (unsigned char *)e->peers[owner].area + offset + (uint64_t)peer * stride;
}

tutti_result tt_p2p_open(struct tt_engine *e)
{
    const struct tt_segment *s = e->segment;

    e->channels = calloc((size_t)e->n_ranks, sizeof(*e->channels));
    if (!e->channels)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for channels to %d ranks", e->n_ranks);
    for (int r = 0; r < e->n_ranks; r++) {
        struct tt_p2p_channel *c = &e->channels[r];

        c->out.sender = area_at(e, e->rank, s->senders_offset, r, sizeof(*c->out.sender));
        c->out.receiver = area_at(e, r, s->receivers_offset, e->rank, sizeof(*c->out.receiver));
        c->out.ring = area_at(e, e->rank, s->rings_offset, r, s->ring_bytes);
        c->in.sender = area_at(e, r, s->senders_offset, e->rank, sizeof(*c->in.sender));
        c->in.receiver = area_at(e, e->rank, s->receivers_offset, r, sizeof(*c->in.receiver));
        c->in.ring = area_at(e, r, s->rings_offset, e->rank, s->ring_bytes);
    }
    return TUTTI_OK;
}

void tt_p2p_close(struct tt_engine *e)
{
    free(e->channels);
    e->channels = NULL;
}

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + LINE - 1) & ~(LINE - 1);
}

/* ---- one step of one operation ---- */

/* The bytes of a message that go through the ring now, if `room` of it is there: up to its end, and in
 * quarters, so that both sides are busy. */
static uint64_t next_part(const struct tt_engine *e, const struct tt_p2p *op, const struct way *w,
                          uint64_t room)
{
    const uint64_t ring = e->segment->ring_bytes, to_end = ring - (w->at & (ring - 1));
    uint64_t n = op->bytes - op->moved;

    n = n < room ? n : room;
    n = n < to_end ? n : to_end;
    return n < ring / 4 ? n : ring / 4;
}

static int put_part(struct tt_engine *e, struct tt_p2p *op, struct way *w)
{
    const uint64_t ring = e->segment->ring_bytes;
    uint64_t n;

    if (w->seen + ring - w->at < round_up(op->bytes - op->moved))
        w->seen = tt_load_acquire(&w->receiver->taken);
    n = next_part(e, op, w, TT_BROKEN(ROOM) ? ring : w->seen + ring - w->at);
    if (n == 0)
        return 0;
    tt_post_early(TT_BROKEN(PUT), e, &w->sender->put, w->at + round_up(n));
    e->kernels->put(w->ring + (w->at & (ring - 1)), (unsigned char *)op->buf + op->moved, n, 0);
    op->moved += n;
    w->at += round_up(n);
    return 1;
}

/* Ask for the lines that a message like this one will be put into: the receiver has read them. */
static void make_ready(const struct tt_engine *e, const struct way *w, uint64_t bytes)
{
    const uint64_t ring = e->segment->ring_bytes;

    for (uint64_t line = 0; line < bytes && line < TT_READY_MOST; line += LINE)
        tt_fetch_to_write(w->ring + ((w->at + line) & (ring - 1)));
}

/* The message's line, and what goes with it; 0: not now. */
static int announce(struct tt_engine *e, struct tt_p2p *op, struct way *w)
{
    struct tt_message *m = &w->sender->messages[w->n_messages % TT_MESSAGES];

    if (w->n_messages - w->n_seen == TT_MESSAGES)
        w->n_seen = tt_load_acquire(&w->receiver->received);
    if (w->n_messages - w->n_seen == TT_MESSAGES && !TT_BROKEN(SLOT))
        return 0;
    w->n_messages++;
    op->started = 1;
    tt_post_early(TT_BROKEN(LINE), e, &m->number, w->n_messages);
    m->bytes = op->bytes;
    m->dtype = op->dtype;
    m->is_stored = e->xmem && op->bytes >= XMEM_FROM;
    if (m->is_stored) {
        op->end = w->n_messages;
    } else if (op->bytes <= sizeof(m->first)) {
        if (op->bytes > 0)
            memcpy(m->first, op->buf, op->bytes);
        op->moved = op->bytes;
    } else {
        (void)put_part(e, op, w);
    }
    m->put = w->at;
    tt_post(e, &m->number, w->n_messages);
    make_ready(e, w, op->moved);
    return 1;
}

/* Store a message where the receiver has said, once it has. */
static tutti_result store(struct tt_engine *e, struct tt_p2p *op, struct way *w, int *moved)
{
    if (tt_load_acquire(&w->receiver->placed) != op->end && !TT_BROKEN(PLACED))
        return TUTTI_OK;
    tt_post_early(TT_BROKEN(STORED), e, &w->sender->stored, op->end);
    TT_TRY(tt_xmem_write(e, op->peer, tt_load_relaxed(&w->receiver->place), op->buf, op->bytes));
    op->moved = op->bytes;
    *moved = 1;
    tt_post(e, &w->sender->stored, op->end);
    return TUTTI_OK;
}

static tutti_result send_step(struct tt_engine *e, struct tt_p2p *op, int *moved)
{
    struct way *w = &e->channels[op->peer].out;

    if (!op->started) {
        *moved |= announce(e, op, w);
    } else if (op->end) {
        TT_TRY(store(e, op, w, moved));
    } else if (put_part(e, op, w)) {
        *moved = 1;
        tt_post(e, &w->sender->put, w->at);
    }
    op->done = op->started && op->moved == op->bytes;
    return TUTTI_OK;
}

/* The message's line, if it is there. */
static tutti_result begin(struct tt_engine *e, struct tt_p2p *op, struct way *w, int *moved)
{
    const struct tt_message *m = &w->sender->messages[w->n_messages % TT_MESSAGES];

    if (tt_load_acquire(&m->number) != w->n_messages + 1 && !TT_BROKEN(NUMBER))
        return TUTTI_OK;
    if (m->bytes != op->bytes || m->dtype != (uint32_t)op->dtype)
        return tt_engine_fail(e, TT_MISMATCH, op->peer, TT_COLL_SEND_RECV | (uint64_t)m->dtype << 5,
                              m->bytes);
    op->started = *moved = 1;
    w->seen = m->put;
    if (m->is_stored) {
        op->end = w->n_messages + 1;
        tt_post_early(TT_BROKEN(PLACE), e, &w->receiver->placed, op->end);
        tt_store_relaxed(&w->receiver->place, (uint64_t)(uintptr_t)op->buf);
        tt_post(e, &w->receiver->placed, op->end);
    } else if (op->bytes > 0 && op->bytes <= sizeof(m->first)) {
        memcpy(op->buf, m->first, op->bytes);
        op->moved = op->bytes;
    }
    return TUTTI_OK;
}

static void take_part(struct tt_engine *e, struct tt_p2p *op, struct way *w, int *moved)
{
    const uint64_t ring = e->segment->ring_bytes;
    uint64_t n;

    if (w->seen == w->at) { /* the first part came with the message's line: `put` may be older */
        const uint64_t put = tt_load_acquire(&w->sender->put);

        w->seen = put > w->seen ? put : w->seen;
    }
    n = next_part(e, op, w, w->seen - w->at);
    if (n == 0)
        return;
    tt_post_early(TT_BROKEN(TAKEN), e, &w->receiver->taken, w->at + round_up(n));
    e->kernels->take((unsigned char *)op->buf + op->moved, w->ring + (w->at & (ring - 1)), n, 0);
    op->moved += n;
    w->at += round_up(n);
    *moved = 1;
    tt_post(e, &w->receiver->taken, w->at);
}

static tutti_result recv_step(struct tt_engine *e, struct tt_p2p *op, int *moved)
{
    struct way *w = &e->channels[op->peer].in;

    if (!op->started)
        TT_TRY(begin(e, op, w, moved));
    if (!op->started)
        return TUTTI_OK;
    if (op->end && (tt_load_acquire(&w->sender->stored) == op->end || TT_BROKEN(ARRIVED)))
        op->moved = op->bytes;
    else if (!op->end && op->moved < op->bytes)
        take_part(e, op, w, moved);
    op->done = op->moved == op->bytes;
    if (op->done) {
        *moved = 1;
        tt_post(e, &w->receiver->received, ++w->n_messages);
    }
    return TUTTI_OK;
}

/* One step of every operation that no earlier one to or from the same peer holds up. */
static tutti_result sweep(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops, int *moved,
                          size_t *first_open)
{
    *moved = 0;
    *first_open = n_ops;
    for (int r = 0; r < e->n_ranks; r++)
        e->channels[r].in.is_busy = e->channels[r].out.is_busy = 0;
    for (size_t i = 0; i < n_ops; i++) {
        struct tt_p2p *op = &ops[i];
        struct tt_p2p_channel *c = &e->channels[op->peer];
        int *busy = op->is_send ? &c->out.is_busy : &c->in.is_busy;

        if (op->done || *busy)
            continue;
        TT_TRY(op->is_send ? send_step(e, op, moved) : recv_step(e, op, moved));
        if (!op->done) {
            *busy = 1;
            if (*first_open == n_ops)
                *first_open = i;
        }
    }
    return TUTTI_OK;
}

/* As the last sweep found it. */
int tt_p2p_is_open(const struct tt_engine *e, int r)
{
    return e->channels[r].in.is_busy || e->channels[r].out.is_busy;
}

static tutti_result run(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_idle idle = {0};
    size_t open;
    int moved;

    do {
        TT_STALL();
        TT_TRY(tt_go_on(e));
        TT_TRY(sweep(e, ops, n_ops, &moved, &open));
        if (moved && idle.since_ns != 0)
            tt_engine_waits(e, 0);
        if (moved)
            idle = (struct tt_idle){0};
        else if (open < n_ops)
            TT_TRY(tt_wait_pause(e, ops[open].peer, &idle));
    } while (open < n_ops);
    return TUTTI_OK;
}

tutti_result tt_p2p_run(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    const tutti_result result = run(e, ops, n_ops);

    if (result != TUTTI_OK)
        tt_wait_stored(e);
    return result;
}
