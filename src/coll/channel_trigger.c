/* Triggers: from a queue that threads or kernels fill to puts, signals and records, in the queue's order. */
#include "coll/channel_parts.h"

#define BUDGET 64 /* triggers of a queue before the network has its turn */

struct order {
    tutti_channel_op op;
    int peer;
    uint32_t index;
    uint64_t to, from, bytes;
};

/* 1: all of it is there. Each word says which turn it belongs to. */
static int read_trigger(const struct tt_port *p, const struct tt_port_queue *q, uint64_t word[4])
{
    const uint64_t *slot = q->slots[q->next & (p->set->n_slots - 1)].word;
    const uint64_t turn = ((q->next >> tutti_dev_log2(p->set->n_slots)) + 1) & 0xffff;

    for (int i = 3; i >= 0; i--) {
        word[i] = __atomic_load_n(&slot[i], __ATOMIC_ACQUIRE);
        if (word[i] >> 48 != turn)
            return 0;
        word[i] &= TUTTI_TRIGGER_MASK;
    }
    return 1;
}

int tt_port_is_empty(const struct tt_port *p, const struct tt_port_queue *q)
{
    uint64_t word[4];

    return !q->slots || !read_trigger(p, q, word);
}

static int fits(uint64_t room, uint64_t at, uint64_t bytes)
{
    return bytes <= room && at <= room - bytes;
}

/* Whatever wrote it may be broken: nothing that leads out of the memory is carried out. */
static tutti_result understand(const struct tt_port *p, const uint64_t word[4], struct order *o)
{
    const tutti_channel_set *s = p->set;
    const uint32_t id = (uint32_t)word[3];
    int good = id < (uint32_t)s->n_ranks * s->n_channels;

    o->op = (tutti_channel_op)(word[3] >> 32);
    o->peer = good ? (int)(id / s->n_channels) : -1;
    o->index = id % s->n_channels;
    o->to = word[0];
    o->from = word[1];
    o->bytes = word[2];
    good =
        good && s->by_port[o->peer] && tt_channel_proxy(s, o->peer, o->index) == (uint32_t)p->index;
    switch (o->op) {
    case TUTTI_CHANNEL_PUT:
    case TUTTI_CHANNEL_PUT_WITH_SIGNAL:
        good = good && fits(s->bytes, o->to, o->bytes) && fits(s->bytes, o->from, o->bytes);
        break;
    case TUTTI_CHANNEL_PUT_PACKETS:
        good = good && fits(s->packet_bytes, o->to, o->bytes) && (o->to | o->bytes) % 4 == 0;
        break;
    case TUTTI_CHANNEL_ATOMIC_ADD: good = good && fits(s->bytes, o->to, 8) && o->to % 8 == 0; break;
    case TUTTI_CHANNEL_SIGNAL:
    case TUTTI_CHANNEL_FLUSH: break;
    default: good = 0;
    }
    if (good)
        return TUTTI_OK;
    return TT_FAIL(
        TUTTI_E_ARG,
        "a trigger that means nothing: operation %u (%s), channel %u of %u to each of %d "
        "ranks, %llu bytes from %llu to %llu of %llu. Its kernel has overwritten the queue, "
        "or used another set's channel",
        (unsigned)o->op, tt_channel_op_name(o->op), id, s->n_channels, s->n_ranks,
        (unsigned long long)o->bytes, (unsigned long long)o->from, (unsigned long long)o->to,
        (unsigned long long)s->bytes);
}

/* ---- carrying out: 1 done, 0 not now, or a failure ---- */

static int put(struct tt_port *p, struct tt_port_queue *q, const struct order *o)
{
    p->peers[o->peer].is_unproven = 1;
    if ((!p->copier || p->set->is_direct) && q->bytes_put < o->bytes) {
        TT_TRY(tt_net_put(p->net, o->peer, p->set->memory + o->from, o->bytes, p->memory_region,
                          o->to));
        q->bytes_put = o->bytes;
    }
    while (q->bytes_put < o->bytes) {
        const int64_t n = tt_port_stage(p, o->peer, o->to + q->bytes_put, o->from + q->bytes_put,
                                        o->bytes - q->bytes_put);

        if (n <= 0)
            return (int)n;
        q->bytes_put += (uint64_t)n;
    }
    return 1;
}

/* By itself where nothing that the peer's proxy has to do comes before it. */
static int signal_peer(struct tt_port *p, const struct order *o)
{
    struct tt_port_peer *peer = &p->peers[o->peer];
    struct tt_port_entry *e;

    if (peer->n_done >= peer->n_must && !p->copier) {
        TT_TRY(tt_net_signal(p->net, o->peer, p->arena_region,
                             tt_port_theirs(p) + p->set->layout.signals +
                                 (uint64_t)o->index * TT_CHANNEL_LINE,
                             peer->n_signals[o->index] + 1));
        peer->n_signals[o->index]++;
        peer->is_unproven = 1;
        return 1;
    }
    if (!tt_port_has_room(peer))
        return 0;
    e = tt_port_new_entry(p, o->peer, TT_RECORD_SIGNAL);
    e->record.channel = o->index;
    e->record.value = ++peer->n_signals[o->index];
    return 1;
}

static int put_packets(struct tt_port *p, const struct order *o)
{
    const struct tt_port_layout *l = &p->set->layout;
    const uint64_t at = (uint64_t)o->index * p->set->packet_bytes * 2 + o->to * 2;
    const unsigned char *place = (const unsigned char *)tt_port_place(p, o->peer);

    p->peers[o->peer].is_unproven = 1;
    TT_TRY(tt_net_put(p->net, o->peer, place + l->packets_out + at, o->bytes * 2, p->arena_region,
                      tt_port_theirs(p) + l->packets_in + at));
    tt_net_push(p->net, o->peer);
    return 1;
}

static int put_with_signal(struct tt_port *p, struct tt_port_queue *q, const struct order *o)
{
    const int result = put(p, q, o);

    return result == 1 ? signal_peer(p, o) : result;
}

static int flush(struct tt_port *p, struct tt_port_queue *q, const struct order *o)
{
    struct tt_port_entry *e;

    if (!tt_port_has_room(&p->peers[o->peer]))
        return 0;
    e = tt_port_new_entry(p, o->peer, TT_RECORD_NOTHING);
    e->flushed = &q->flushed[tt_channel_id(p->set, o->peer, o->index)];
    e->number = q->next + 1;
    return 1;
}

static int atomic_add(struct tt_port *p, const struct order *o)
{
    struct tt_port_entry *e;

    if (!tt_port_has_room(&p->peers[o->peer]))
        return 0;
    e = tt_port_new_entry(p, o->peer, TT_RECORD_ADD);
    e->record.to = o->to;
    e->record.value = o->from | o->bytes << 48;
    return 1;
}

static int carry_out(struct tt_port *p, struct tt_port_queue *q, const struct order *o)
{
    /* The network takes so many at a time; more would wait in it, and all other channels with it. */
    if (tt_net_posted(p->net, o->peer) - tt_net_sent(p->net, o->peer) > 240)
        return 0;
    switch (o->op) {
    case TUTTI_CHANNEL_PUT: return put(p, q, o);
    case TUTTI_CHANNEL_SIGNAL: return signal_peer(p, o);
    case TUTTI_CHANNEL_PUT_WITH_SIGNAL: return put_with_signal(p, q, o);
    case TUTTI_CHANNEL_PUT_PACKETS: return put_packets(p, o);
    case TUTTI_CHANNEL_FLUSH: return flush(p, q, o);
    default: return atomic_add(p, o);
    }
}

int tt_port_take_triggers(struct tt_port *p, struct tt_port_queue *q)
{
    const uint64_t before = q->next;
    uint64_t word[4];

    if (!q->slots)
        return 0;
    for (int i = 0; i < BUDGET && read_trigger(p, q, word); i++) {
        struct order o;
        int done;

        TT_TRY(understand(p, word, &o));
        TT_TRY(done = carry_out(p, q, &o));
        if (!done)
            break;
        q->bytes_put = 0;
        q->next++;
        __atomic_store_n(q->done, q->next, __ATOMIC_RELEASE);
    }
    atomic_fetch_add_explicit(&p->n_triggers, q->next - before, memory_order_relaxed);
    return q->next != before;
}
