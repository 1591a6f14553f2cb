/*
 * Records: what two proxies tell each other besides puts and signals, in order. A record is put into the
 * peer's memory, then its number is signalled; the peer carries records out one after another and signals how
 * many it has done. So the answer to a record proves that everything before it has arrived.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "coll/channel_parts.h"
#ifdef TUTTI_HAVE_CUDA
#include "cuda/channel_memory.h"
#endif

#define CHUNK ((uint64_t)256 << 10) /* of GPU memory, at most: two are under way and more */

/* ---- copies to and from the GPU ---- */

#ifdef TUTTI_HAVE_CUDA
static tutti_result copies_done(struct tt_port *p, uint64_t *n_out)
{
    *n_out = 0;
    return p->copier ? tt_cuda_copies_done(p->copier, n_out) : TUTTI_OK;
}

static int may_copy(const struct tt_port *p)
{
    return p->copier && tt_cuda_copier_has_room(p->copier);
}

static int are_copies_under_way(const struct tt_port *p)
{
    return p->copier && !tt_cuda_copier_is_idle(p->copier);
}

static tutti_result copy(struct tt_port *p, int is_in, void *to, const void *from, uint64_t bytes,
                         uint64_t *ticket_out)
{
    return is_in ? tt_cuda_copy_in(p->copier, to, from, bytes, ticket_out)
                 : tt_cuda_copy_out(p->copier, to, from, bytes, ticket_out);
}
#else
static tutti_result copies_done(struct tt_port *p, uint64_t *n_out)
{
    (void)p;
    *n_out = 0;
    return TUTTI_OK;
}

static int may_copy(const struct tt_port *p)
{
    (void)p;
    return 0;
}

static int are_copies_under_way(const struct tt_port *p)
{
    (void)p;
    return 0;
}

static tutti_result copy(struct tt_port *p, int is_in, void *to, const void *from, uint64_t bytes,
                         uint64_t *ticket_out)
{
    (void)p;
    (void)is_in;
    (void)to;
    (void)from;
    (void)bytes;
    (void)ticket_out;
    return TT_FAIL(TUTTI_E_INTERNAL, "a copy to a GPU in a build without GPUs");
}
#endif

/* ---- ours ---- */

int tt_port_has_room(const struct tt_port_peer *peer)
{
    return peer->n_entries - peer->n_done < TT_PORT_RECORDS;
}

struct tt_port_entry *tt_port_new_entry(struct tt_port *p, int peer, enum tt_record_kind kind)
{
    struct tt_port_peer *to = &p->peers[peer];
    struct tt_port_entry *e = &to->entries[to->n_entries++ % TT_PORT_RECORDS];

    memset(e, 0, sizeof(*e));
    e->record.kind = kind;
    to->is_unproven = 0;
    if (kind != TT_RECORD_NOTHING)
        to->n_must = to->n_entries;
    return e;
}

/* Room in the ring for one piece without a gap: how much of `bytes`, and where. */
static uint64_t ring_take(const struct tt_port *p, struct tt_port_peer *to, uint64_t bytes,
                          uint64_t *at_out)
{
    const uint64_t size = p->set->layout.ring_bytes, at = to->ring_head % size;
    const uint64_t room = size - (to->ring_head - to->ring_tail);
    uint64_t n = bytes < CHUNK ? bytes : CHUNK;

    n = n < size - at ? n : size - at;
    if (n > room)
        return 0;
    *at_out = at;
    to->ring_head += (n + 63) / 64 * 64;
    return n;
}

int64_t tt_port_stage(struct tt_port *p, int peer, uint64_t to, uint64_t from, uint64_t bytes)
{
    struct tt_port_peer *its = &p->peers[peer];
    unsigned char *ring = (unsigned char *)tt_port_place(p, peer) + p->set->layout.ring_out;
    struct tt_port_entry *e;
    uint64_t at = 0, n, ticket = 0;

    if (!tt_port_has_room(its) || !may_copy(p))
        return 0;
    n = ring_take(p, its, bytes, &at);
    if (n == 0)
        return 0;
    TT_TRY(copy(p, 0, ring + at, p->set->memory + from, n, &ticket));
    e = tt_port_new_entry(p, peer, TT_RECORD_DATA);
    e->record.to = to;
    e->record.bytes = n;
    e->record.ring_at = at;
    e->ring_end = its->ring_head;
    e->has_copy = 1;
    e->copy = ticket;
    return (int64_t)n;
}

/* Operations that one more entry needs of the network's bounded number. */
static int network_has_room(const struct tt_port *p, int peer)
{
    return tt_net_posted(p->net, peer) - tt_net_sent(p->net, peer) < 240;
}

static tutti_result send_entry(struct tt_port *p, int peer, uint64_t number)
{
    const struct tt_port_layout *l = &p->set->layout;
    struct tt_port_place *place = tt_port_place(p, peer);
    const uint64_t slot = number % TT_PORT_RECORDS, theirs = tt_port_theirs(p);
    const struct tt_port_entry *e = &p->peers[peer].entries[slot];

    if (e->record.kind == TT_RECORD_DATA)
        TT_TRY(tt_net_put(p->net, peer, (unsigned char *)place + l->ring_out + e->record.ring_at,
                          e->record.bytes, p->arena_region,
                          theirs + l->ring_in + e->record.ring_at));
    place->out[slot] = e->record;
    return tt_net_put(p->net, peer, &place->out[slot], sizeof(e->record), p->arena_region,
                      theirs + offsetof(struct tt_port_place, in) + slot * sizeof(e->record));
}

static int send_entries(struct tt_port *p, int peer, uint64_t copies)
{
    struct tt_port_peer *to = &p->peers[peer];
    const uint64_t before = to->n_left;

    while (to->n_left != to->n_entries && network_has_room(p, peer)) {
        const struct tt_port_entry *e = &to->entries[to->n_left % TT_PORT_RECORDS];

        if (e->has_copy && e->copy >= copies)
            break;
        TT_TRY(send_entry(p, peer, to->n_left));
        to->n_left++;
    }
    if (to->n_left == before)
        return 0;
    TT_TRY(tt_net_signal(p->net, peer, p->arena_region,
                         tt_port_theirs(p) + offsetof(struct tt_port_place, n_records),
                         to->n_left));
    return 1;
}

/* The peer has said how many it has done. */
int tt_port_take_answers(struct tt_port *p, int peer)
{
    struct tt_port_peer *to = &p->peers[peer];
    const uint64_t done = __atomic_load_n(&tt_port_place(p, peer)->n_done, __ATOMIC_ACQUIRE);
    const uint64_t before = to->n_done;

    if (done > to->n_left)
        return TT_FAIL(TUTTI_E_MISMATCH, "rank %d says that it has done %llu of %llu records", peer,
                       (unsigned long long)done, (unsigned long long)to->n_left);
    for (; to->n_done < done; to->n_done++) {
        const struct tt_port_entry *e = &to->entries[to->n_done % TT_PORT_RECORDS];

        if (e->ring_end)
            to->ring_tail = e->ring_end;
        if (e->flushed)
            __atomic_store_n(e->flushed, e->number, __ATOMIC_RELEASE);
    }
    return to->n_done != before;
}

/* ---- theirs ---- */

tutti_result tt_port_check_record(const tutti_channel_set *s, int peer, const struct tt_record *r)
{
    const uint64_t bytes = r->kind == TT_RECORD_ADD ? sizeof(uint64_t) : r->bytes;
    const uint64_t ring = r->kind == TT_RECORD_DATA ? s->layout.ring_bytes : 0;
    int good = r->kind >= TT_RECORD_DATA && r->kind <= TT_RECORD_NOTHING;

    good = good && r->channel < s->n_channels && bytes <= s->bytes && r->to <= s->bytes - bytes;
    if (r->kind == TT_RECORD_DATA)
        good = good && r->bytes <= ring && r->ring_at <= ring - r->bytes;
    if (r->kind == TT_RECORD_ADD)
        good = good && r->to % sizeof(uint64_t) == 0;
    if (good)
        return TUTTI_OK;
    return TT_FAIL(
        TUTTI_E_MISMATCH,
        "rank %d sent a record that means no place of the %llu bytes of its channels: kind "
        "%u, channel %u, %llu bytes at %llu",
        peer, (unsigned long long)s->bytes, r->kind, r->channel, (unsigned long long)r->bytes,
        (unsigned long long)r->to);
}

/* Copies into the GPU begin as soon as their bytes are here. */
static tutti_result begin_records(struct tt_port *p, int peer, uint64_t n)
{
    struct tt_port_peer *from = &p->peers[peer];
    struct tt_port_place *place = tt_port_place(p, peer);
    unsigned char *ring = (unsigned char *)place + p->set->layout.ring_in;

    for (; from->in_begun < n; from->in_begun++) {
        const uint64_t slot = from->in_begun % TT_PORT_RECORDS;
        const struct tt_record r = place->in[slot]; /* the peer can change what lies there */

        TT_TRY(tt_port_check_record(p->set, peer, &r));
        from->in_has_copy[slot] = r.kind == TT_RECORD_DATA;
        if (r.kind != TT_RECORD_DATA)
            continue;
        if (!may_copy(p))
            return TUTTI_OK;
        TT_TRY(copy(p, 1, p->set->memory + r.to, ring + r.ring_at, r.bytes, &from->in_copy[slot]));
    }
    return TUTTI_OK;
}

#ifdef TUTTI_HAVE_CUDA
tutti_result tt_port_await_copy(struct tt_port *p, uint64_t ticket)
{
    const uint64_t until = tt_now_ns() + p->set->timeout_ns;
    uint64_t done = 0;

    for (;;) {
        TT_TRY(copies_done(p, &done));
        if (done > ticket)
            return TUTTI_OK;
        if (tt_now_ns() > until)
            return TT_FAIL(TUTTI_E_TIMEOUT,
                           "the driver has not copied a word of GPU memory for %llu ms",
                           (unsigned long long)(p->set->timeout_ns / 1000000));
    }
}

/* Of all sets, which may be over the same memory. */
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

/* To a word in the GPU's memory, one proxy at a time. Who finds another one at it has other things to do: that one's
 * copies may be late, behind a kernel that waits for them. */
static int add_on_gpu(struct tt_port *p, int peer, const struct tt_record *r)
{
    uint64_t *word = (uint64_t *)(void *)((unsigned char *)tt_port_place(p, peer) +
                                          p->set->layout.ring_in + p->set->layout.ring_bytes);
    uint64_t ticket = 0;
    tutti_result result;

    if (pthread_mutex_trylock(&adding) != 0)
        return 0;
    result = copy(p, 0, word, p->set->memory + r->to, sizeof(*word), &ticket);
    if (result == TUTTI_OK)
        result = tt_port_await_copy(p, ticket);
    *word += r->value;
    if (result == TUTTI_OK)
        result = copy(p, 1, p->set->memory + r->to, word, sizeof(*word), &ticket);
    if (result == TUTTI_OK)
        result = tt_port_await_copy(p, ticket);
    pthread_mutex_unlock(&adding);
    return result == TUTTI_OK ? 1 : (int)result;
}
#else
static int add_on_gpu(struct tt_port *p, int peer, const struct tt_record *r)
{
    (void)p;
    (void)peer;
    (void)r;
    return 1;
}
#endif

/* 1: done, 0: not now, or a failure. */
static int carry_out(struct tt_port *p, int peer, const struct tt_record *r)
{
    unsigned char *place = (unsigned char *)tt_port_place(p, peer);
    uint64_t *word;

    switch ((enum tt_record_kind)r->kind) {
    case TT_RECORD_SIGNAL:
        word = (uint64_t *)(void *)(place + p->set->layout.signals +
                                    (uint64_t)r->channel * TT_CHANNEL_LINE);
        __atomic_store_n(word, r->value, __ATOMIC_RELEASE);
        return 1;
    case TT_RECORD_ADD:
        if (p->copier)
            return add_on_gpu(p, peer, r);
        word = (uint64_t *)(void *)(p->set->memory + r->to);
        __atomic_fetch_add(word, r->value, __ATOMIC_ACQ_REL);
        return 1;
    default: return 1; /* DATA: its copy is done */
    }
}

static int take_records(struct tt_port *p, int peer, uint64_t copies)
{
    struct tt_port_peer *from = &p->peers[peer];
    struct tt_port_place *place = tt_port_place(p, peer);
    const uint64_t n = __atomic_load_n(&place->n_records, __ATOMIC_ACQUIRE);
    const uint64_t before = from->in_done;
    struct tt_record record;

    if (n - from->in_done > TT_PORT_RECORDS)
        return TT_FAIL(TUTTI_E_MISMATCH, "rank %d has sent %llu records, where %u have room", peer,
                       (unsigned long long)(n - from->in_done), TT_PORT_RECORDS);
    if (n == from->in_done)
        return 0;
    TT_TRY(tt_port_settle(p)); /* puts before the records */
    TT_TRY(begin_records(p, peer, n));
    for (; from->in_done < from->in_begun; from->in_done++) {
        const uint64_t slot = from->in_done % TT_PORT_RECORDS;
        int done;

        if (from->in_has_copy[slot] && from->in_copy[slot] >= copies)
            break;
        record = place->in[slot];
        TT_TRY(tt_port_check_record(p->set, peer, &record)); /* it may be another one by now */
        TT_TRY(done = carry_out(p, peer, &record));
        if (!done)
            break;
    }
    if (from->in_done == before)
        return 0;
    TT_TRY(tt_net_signal(p->net, peer, p->arena_region,
                         tt_port_theirs(p) + offsetof(struct tt_port_place, n_done),
                         from->in_done));
    return 1;
}

/* Copies, in either direction, that do not end. */
static tutti_result check_stuck(struct tt_port *p, uint64_t copies)
{
    const uint64_t now = are_copies_under_way(p) ? tt_now_ns() : 0;

    if (now == 0 || copies != p->copies || p->copies_since_ns == 0) {
        p->copies = copies;
        p->copies_since_ns = now;
    }
    if (now - p->copies_since_ns < p->set->timeout_ns)
        return TUTTI_OK;
    return TT_FAIL(
        TUTTI_E_TIMEOUT,
        "the driver has not copied from or to GPU memory for %llu ms: a copy of another stream "
        "that waits for a kernel which waits for this one may be before it in a queue of the "
        "driver (set CUDA_DEVICE_MAX_CONNECTIONS higher, or send packets, which need no copy)",
        (unsigned long long)(p->set->timeout_ns / 1000000));
}

int tt_port_move_records(struct tt_port *p)
{
    uint64_t copies;
    int moved = 0;

    TT_TRY(copies_done(p, &copies));
    TT_TRY(check_stuck(p, copies));
    for (int r = 0; r < p->set->n_ranks; r++) {
        int now;

        if (!p->set->by_port[r])
            continue;
        TT_TRY(now = take_records(p, r, copies));
        moved |= now;
        TT_TRY(now = tt_port_take_answers(p, r));
        moved |= now;
        TT_TRY(now = send_entries(p, r, copies));
        moved |= now;
    }
    return moved;
}
