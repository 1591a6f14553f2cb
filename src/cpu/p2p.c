/*
 * Sends and receives: a ring in shared memory for each direction between two ranks. The sender's
 * head says how many bytes it has put in, the receiver's tail how many it has taken out; both only
 * grow. A message is a line with its size and kind, then its bytes in whole lines, or, for long ones
 * where memories can be reached, nothing: the receiver fetches them from the address in the line and
 * moves its tail past the line when it has them.
 */
#include <stdlib.h>

#include "cpu/cpu.h"

#define LINE      ((uint64_t)64)
#define XMEM_FROM 65536u /* shorter messages are faster through the ring */

struct header {
    uint64_t bytes;
    uint64_t address; /* 0: the bytes follow */
    uint32_t dtype;
};

/* This rank's side of the rings to and from one peer. */
struct tt_p2p_channel {
    _Atomic uint64_t *out_head; /* mine */
    _Atomic uint64_t *out_tail; /* the peer's */
    _Atomic uint64_t *in_head;  /* the peer's */
    _Atomic uint64_t *in_tail;  /* mine */
    unsigned char *out_ring, *in_ring;
    int busy[2]; /* an earlier operation of this sweep is under way: receives, sends */
};

static void *area_at(const struct tt_engine *e, int owner, uint64_t offset, int peer,
                     uint64_t stride)
{
    return (unsigned char *)e->peers[owner].area + offset + (uint64_t)peer * stride;
}

static _Atomic uint64_t *counter(const struct tt_engine *e, int owner, uint64_t offset, int peer)
{
    struct tt_counter_line *line = area_at(e, owner, offset, peer, sizeof(struct tt_counter_line));

    return &line->value;
}

tutti_result tt_p2p_open(struct tt_engine *e)
{
    const struct tt_segment *s = e->segment;

    e->channels = calloc((size_t)e->n_ranks, sizeof(*e->channels));
    if (!e->channels)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for channels to %d ranks", e->n_ranks);
    for (int r = 0; r < e->n_ranks; r++) {
        struct tt_p2p_channel *c = &e->channels[r];

        c->out_head = counter(e, e->rank, s->heads_offset, r);
        c->out_tail = counter(e, r, s->tails_offset, e->rank);
        c->in_head = counter(e, r, s->heads_offset, e->rank);
        c->in_tail = counter(e, e->rank, s->tails_offset, r);
        c->out_ring = area_at(e, e->rank, s->rings_offset, r, s->ring_bytes);
        c->in_ring = area_at(e, r, s->rings_offset, e->rank, s->ring_bytes);
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

/* ---- one step of one operation: 1 if something moved ---- */

static int send_header(struct tt_engine *e, struct tt_p2p *op)
{
    struct tt_p2p_channel *c = &e->channels[op->peer];
    const uint64_t ring = e->segment->ring_bytes, head = tt_load_relaxed(c->out_head);
    const int far = e->xmem && op->bytes >= XMEM_FROM;
    const struct header h = {op->bytes, far ? (uint64_t)(uintptr_t)op->buf : 0, op->dtype};

    if (ring - (head - tt_load_acquire(c->out_tail)) < LINE)
        return 0;
    memcpy(c->out_ring + (head & (ring - 1)), &h, sizeof(h));
    op->started = 1;
    op->end = far ? head + LINE : 0;
    op->done = op->bytes == 0;
    tt_post(e, c->out_head, head + LINE);
    return 1;
}

static int send_step(struct tt_engine *e, struct tt_p2p *op)
{
    struct tt_p2p_channel *c = &e->channels[op->peer];
    const uint64_t ring = e->segment->ring_bytes;
    uint64_t head, room, n;

    if (!op->started)
        return send_header(e, op);
    if (op->end) { /* the receiver fetches it */
        op->done = tt_load_acquire(c->out_tail) >= op->end;
        return op->done;
    }
    head = tt_load_relaxed(c->out_head);
    room = ring - (head - tt_load_acquire(c->out_tail));
    n = ring - (head & (ring - 1)); /* up to the ring's end */
    n = room < n ? room : n;
    n = n < ring / 4 ? n : ring / 4; /* in quarters, so that both sides are busy */
    n = op->bytes - op->moved < n ? op->bytes - op->moved : n;
    if (n == 0)
        return 0;
    e->kernels->put(c->out_ring + (head & (ring - 1)), (unsigned char *)op->buf + op->moved, n, 0);
    op->moved += n;
    op->done = op->moved == op->bytes;
    tt_post(e, c->out_head, head + round_up(n));
    return 1;
}

static tutti_result recv_header(struct tt_engine *e, struct tt_p2p *op, int *moved)
{
    struct tt_p2p_channel *c = &e->channels[op->peer];
    const uint64_t ring = e->segment->ring_bytes, tail = tt_load_relaxed(c->in_tail);
    struct header h;

    if (tt_load_acquire(c->in_head) == tail)
        return TUTTI_OK;
    memcpy(&h, c->in_ring + (tail & (ring - 1)), sizeof(h));
    if (h.bytes != op->bytes || h.dtype != (uint32_t)op->dtype)
        return tt_engine_fail(e, TT_MISMATCH, op->peer, TT_COLL_SEND_RECV | (uint64_t)h.dtype << 5,
                              h.bytes);
    if (h.address)
        TT_TRY(tt_xmem_read(e, op->peer, op->buf, h.address, op->bytes));
    op->started = 1;
    op->done = op->bytes == 0 || h.address != 0;
    tt_post(e, c->in_tail, tail + LINE);
    *moved = 1;
    return TUTTI_OK;
}

static tutti_result recv_step(struct tt_engine *e, struct tt_p2p *op, int *moved)
{
    struct tt_p2p_channel *c = &e->channels[op->peer];
    const uint64_t ring = e->segment->ring_bytes;
    uint64_t tail, n;

    if (!op->started)
        return recv_header(e, op, moved);
    tail = tt_load_relaxed(c->in_tail);
    n = tt_load_acquire(c->in_head) - tail;
    if (n > ring - (tail & (ring - 1)))
        n = ring - (tail & (ring - 1));
    if (n > op->bytes - op->moved)
        n = op->bytes - op->moved;
    if (n == 0)
        return TUTTI_OK;
    e->kernels->take((unsigned char *)op->buf + op->moved, c->in_ring + (tail & (ring - 1)), n, 0);
    op->moved += n;
    op->done = op->moved == op->bytes;
    tt_post(e, c->in_tail, tail + round_up(n));
    *moved = 1;
    return TUTTI_OK;
}

/* One step of every operation that no earlier one to or from the same peer holds up. */
static tutti_result sweep(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops, int *moved,
                          size_t *first_open)
{
    *moved = 0;
    *first_open = n_ops;
    for (int r = 0; r < e->n_ranks; r++)
        e->channels[r].busy[0] = e->channels[r].busy[1] = 0;
    for (size_t i = 0; i < n_ops; i++) {
        struct tt_p2p *op = &ops[i];
        int *busy = &e->channels[op->peer].busy[op->is_send];

        if (op->done || *busy)
            continue;
        if (op->is_send)
            *moved |= send_step(e, op);
        else
            TT_TRY(recv_step(e, op, moved));
        if (!op->done) {
            *busy = 1;
            if (*first_open == n_ops)
                *first_open = i;
        }
    }
    return TUTTI_OK;
}

tutti_result tt_p2p_run(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_idle idle = {0};
    size_t open;
    int moved;

    do {
        TT_STALL();
        TT_TRY(sweep(e, ops, n_ops, &moved, &open));
        if (moved)
            idle = (struct tt_idle){0};
        else if (open < n_ops)
            TT_TRY(tt_wait_pause(e, ops[open].peer, &idle));
    } while (open < n_ops);
    return TUTTI_OK;
}
