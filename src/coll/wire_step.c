/* One step of one message: see wire.h. */
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/error.h"
#include "coll/wire_parts.h"
#include "cpu/cpu_engine.h"

#define LINE    UINT64_C(64)
#define KEPT_BY UINT64_C(65536) /* bytes under way that the two kernels take in any case */

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + LINE - 1) & ~(LINE - 1);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Where the next bytes of a message lie; *most falls to what can be moved there at once. */
static unsigned char *place_of(const struct tt_message *m, uint64_t *most)
{
    const uint64_t piece = m->window / 4;

    if (!m->window)
        return m->buf + m->moved;
    *most = smaller(*most, piece - m->moved % piece);
    return m->buf + m->moved % m->window;
}

/* ---- sending ---- */

/* Counters come as whole words, and their low halves in the headers of packets. */
static void note_credits(struct tt_wire *w, int peer)
{
    struct tt_wire_peer *p = &w->peers[peer];
    const struct tt_wire_place *place = tt_wire_place(w, peer);
    const uint64_t packets = tt_load_acquire(&place->packets_taken);
    const uint64_t stream = tt_load_acquire(&place->stream_taken);

    p->packets_acked = packets > p->packets_acked ? packets : p->packets_acked;
    p->stream_acked = stream > p->stream_acked ? stream : p->stream_acked;
}

static void note_header(struct tt_wire_peer *p, const uint32_t header[])
{
    const uint32_t packets = header[TT_WORD_PACKETS_TAKEN] - (uint32_t)p->packets_acked;
    const uint32_t lines = header[TT_WORD_STREAM_TAKEN] - (uint32_t)(p->stream_acked / LINE);

    if (packets < UINT32_C(1) << 31)
        p->packets_acked += packets;
    if (lines < UINT32_C(1) << 31)
        p->stream_acked += lines * LINE;
}

/* The packet leaves from the outbox, so that the caller's bytes may change at once. */
static tutti_result post_packet(struct tt_wire *w, const struct tt_message *m, uint64_t *from,
                                uint64_t to)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const uint32_t header[] = {m->kind,
                               m->check,
                               (uint32_t)m->bytes,
                               (uint32_t)(m->bytes >> 32),
                               (uint32_t)p->packets_in,
                               (uint32_t)(p->stream_in / LINE)};

    if (m->bytes <= w->plain_max) {
        const size_t n = tt_packet_write_plain(from, header, m->buf, m->bytes);

        TT_TRY(tt_net_put(w->net, m->peer, from, n, w->region, to + 8));
        return tt_net_signal(w->net, m->peer, w->region, to, tt_packet_signal(p->packets_out));
    }
    return tt_net_put(w->net, m->peer, from,
                      8 * tt_packet_write(from, p->packets_out, header, m->buf,
                                          m->bytes <= w->inline_max ? m->bytes : 0),
                      w->region, to);
}

static tutti_result send_packet(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const size_t slot = p->packets_out % TT_WIRE_SLOTS;
    const size_t inside = m->bytes <= w->inline_max || m->bytes <= w->plain_max ? m->bytes : 0;
    const uint64_t at = slot * w->slot_bytes;

    if (m->ready && inside && *m->ready < m->bytes)
        return TUTTI_OK;
    note_credits(w, m->peer);
    if (p->packets_out - p->packets_acked >= TT_WIRE_SLOTS ||
        tt_net_sent(w->net, m->peer) < p->posted[slot])
        return TUTTI_OK;
    if (!p->outbox)
        p->outbox = malloc(TT_WIRE_SLOTS * w->slot_bytes);
    if (!p->outbox)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for packets to rank %d", m->peer);
    p->packets_told = p->packets_in; /* more may come in while this goes out */
    p->stream_told = p->stream_in;
    TT_TRY(post_packet(w, m, p->outbox + at / 8, tt_wire_theirs(w) + w->slots_at + at));
    p->packets_out++;
    m->posted = p->posted[slot] = tt_net_posted(w->net, m->peer);
    m->started = 1;
    m->left = m->moved = inside;
    *moved = 1;
    return TUTTI_OK;
}

/* How many bytes of a send have left the caller's memory. */
static uint64_t has_left(const struct tt_wire *w, const struct tt_message *m)
{
    return m->started && tt_net_sent(w->net, m->peer) >= m->posted ? m->moved : m->left;
}

static tutti_result send_chunk(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const uint64_t at = p->stream_out & (w->ring_bytes - 1);
    const uint64_t ready = m->ready ? *m->ready : m->bytes, rest = m->bytes - m->moved;
    /* In equal parts, for of a small last one it would not be known when it has left. */
    const uint64_t n_chunks = (rest + w->chunk - 1) / w->chunk;
    uint64_t n =
        smaller(smaller(round_up(rest / n_chunks), w->chunk), smaller(rest, w->ring_bytes - at));
    const unsigned char *from = place_of(m, &n);

    note_credits(w, m->peer);
    if (ready - m->moved < n || w->ring_bytes - (p->stream_out - p->stream_acked) < n)
        return TUTTI_OK;
    m->left = has_left(w, m);
    TT_TRY(tt_net_put(w->net, m->peer, from, n, w->region, tt_wire_theirs(w) + w->ring_at + at));
    p->stream_out += round_up(n);
    TT_TRY(tt_net_signal(w->net, m->peer, w->region,
                         tt_wire_theirs(w) + offsetof(struct tt_wire_place, stream_put),
                         p->stream_out));
    m->moved += n;
    m->posted = tt_net_posted(w->net, m->peer);
    *moved = 1;
    return TUTTI_OK;
}

/* ---- receiving ---- */

static void kind_text(uint32_t kind, char *text, size_t bytes)
{
    tt_cpu_call_text((kind & TT_WIRE_KIND_MASK) | (uint64_t)(kind >> TT_WIRE_KIND_BITS) << 25, text,
                     bytes);
}

static tutti_result mismatch(struct tt_wire *w, const struct tt_message *m, const uint32_t header[])
{
    const uint64_t bytes = header[TT_WORD_BYTES] | (uint64_t)header[TT_WORD_BYTES_HIGH] << 32;
    char theirs[48], ours[48];

    w->culprit = m->peer;
    kind_text(header[TT_WORD_KIND], theirs, sizeof(theirs));
    kind_text(m->kind, ours, sizeof(ours));
    return TT_FAIL(TUTTI_E_MISMATCH,
                   "calls do not match: rank %d made %s (%llu bytes for rank %d), which made %s "
                   "(%llu bytes)%s",
                   m->peer, theirs, (unsigned long long)bytes, w->rank, ours,
                   (unsigned long long)m->bytes,
                   header[TT_WORD_KIND] == m->kind && bytes == m->bytes
                       ? ", another call of that kind or with another count or root"
                       : "");
}

/* What was taken is told at once when it is much; else it goes with the next packet. */
static tutti_result give_credit(struct tt_wire *w, int peer)
{
    struct tt_wire_peer *p = &w->peers[peer];
    const uint64_t place = tt_wire_theirs(w);

    if (p->packets_in - p->packets_told >= TT_WIRE_SLOTS / 2) {
        p->packets_told = p->packets_in;
        TT_TRY(tt_net_signal(w->net, peer, w->region,
                             place + offsetof(struct tt_wire_place, packets_taken), p->packets_in));
    }
    if (p->stream_in - p->stream_told >= w->chunk) {
        p->stream_told = p->stream_in;
        TT_TRY(tt_net_signal(w->net, peer, w->region,
                             place + offsetof(struct tt_wire_place, stream_taken), p->stream_in));
    }
    return TUTTI_OK;
}

/* How many bytes more a receive may take. */
static uint64_t may_take(const struct tt_wire *w, const struct tt_message *m)
{
    const uint64_t left = m->after ? has_left(w, m->after) : m->bytes;
    const uint64_t end = smaller(smaller(left, m->ready ? *m->ready : m->bytes), m->bytes);
    const uint64_t n = end > m->moved ? end - m->moved : 0;

    return end == m->bytes ? n : n & ~(LINE - 1);
}

static tutti_result recv_packet(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const size_t slot = p->packets_in % TT_WIRE_SLOTS;
    uint64_t *words = (uint64_t *)(void *)((unsigned char *)tt_wire_place(w, m->peer) +
                                           w->slots_at + slot * w->slot_bytes);
    const unsigned char *plain = (unsigned char *)words + TT_PACKET_PLAIN_BYTES;
    uint32_t header[TT_WIRE_HEADER_WORDS];
    const enum tt_packet_form form = tt_packet_header(words, p->packets_in, header);
    size_t inside = m->bytes <= w->inline_max ? m->bytes : 0;

    if (form == TT_PACKET_NONE)
        return TUTTI_OK;
    if (header[TT_WORD_KIND] != m->kind || header[TT_WORD_CHECK] != m->check ||
        header[TT_WORD_BYTES] != (uint32_t)m->bytes ||
        header[TT_WORD_BYTES_HIGH] != (uint32_t)(m->bytes >> 32) ||
        (form == TT_PACKET_PLAIN && m->bytes > w->slot_bytes - TT_PACKET_PLAIN_BYTES))
        return mismatch(w, m, header);
    if (form == TT_PACKET_PLAIN)
        inside = m->bytes;
    if (inside > may_take(w, m))
        return TUTTI_OK;
    if (form == TT_PACKET_WORDS &&
        !tt_packet_payload(words, p->packets_in, m->take ? w->unpacked : m->buf, inside))
        return TUTTI_OK;
    if (inside > 0 && form == TT_PACKET_PLAIN && !m->take)
        memcpy(m->buf, plain, inside);
    if (inside > 0 && m->take)
        m->take(m, form == TT_PACKET_PLAIN ? plain : w->unpacked, 0, inside);
    tt_packet_clear(words, form, inside);
    note_header(p, header);
    p->packets_in++;
    m->started = 1;
    m->moved = inside;
    *moved = 1;
    return TUTTI_OK;
}

static void take_bytes(struct tt_wire_peer *p, struct tt_message *m, const unsigned char *piece,
                       uint64_t n)
{
    p->stream_in += round_up(n);
    while (n > 0) {
        uint64_t most = n;
        unsigned char *to = place_of(m, &most);

        if (m->take)
            m->take(m, piece, m->moved, most);
        else
            memcpy(to, piece, most);
        m->moved += most;
        piece += most;
        n -= most;
    }
}

static void recv_chunk(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    struct tt_wire_place *place = tt_wire_place(w, m->peer);
    const uint64_t at = p->stream_in & (w->ring_bytes - 1);
    const uint64_t put = tt_load_acquire(&place->stream_put);
    uint64_t n =
        put > p->stream_in ? put - p->stream_in : 0; /* some may be taken before its signal */

    n = smaller(smaller(n, may_take(w, m)), smaller(w->chunk, w->ring_bytes - at));
    if (n == 0)
        return;
    take_bytes(p, m, (unsigned char *)place + w->ring_at + at, n);
    *moved = 1;
}

/* The message that the next bytes of the peer's ring are for, if it has begun. */
static struct tt_message *next_of(struct tt_wire *w, int peer)
{
    for (size_t i = 0; i < w->n_messages; i++) {
        struct tt_message *m = &w->messages[i];
        int moved = 0;

        if (m->peer != peer || m->is_send || m->done)
            continue;
        if (!m->started && (recv_packet(w, m, &moved) != TUTTI_OK || !moved))
            return NULL; /* a failure is found again where it can be told */
        w->peers[peer].has_taken |= moved;
        if (m->moved < m->bytes)
            return m;
    }
    return NULL;
}

int tt_wire_take(void *wire, uint64_t at, const void *data, uint64_t bytes)
{
    struct tt_wire *w = wire;
    const uint64_t peer = at < TT_WIRE_PLACES ? UINT64_MAX : (at - TT_WIRE_PLACES) / w->stride;
    const uint64_t place = TT_WIRE_PLACES + peer * w->stride + w->ring_at;
    struct tt_wire_peer *p;
    struct tt_message *m;

    if (w->n_messages == 0 || peer >= (uint64_t)w->n_ranks || at < place)
        return 0;
    p = &w->peers[peer];
    if (at - place != (p->stream_in & (w->ring_bytes - 1)))
        return 0;
    m = next_of(w, (int)peer);
    if (!m || may_take(w, m) < bytes || (m->bytes - m->moved > bytes && bytes % LINE))
        return 0;
    take_bytes(p, m, data, bytes);
    p->has_taken = 1;
    return 1;
}

static tutti_result step_recv(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];

    if (!m->started)
        TT_TRY(recv_packet(w, m, moved));
    if (m->started && m->moved < m->bytes)
        recv_chunk(w, m, moved);
    *moved |= p->has_taken;
    p->has_taken = 0;
    return give_credit(w, m->peer);
}

/* Has it left the caller's memory, and this process? This rank may go off to compute, and the peer wait. */
static int is_out(struct tt_wire *w, const struct tt_message *m)
{
    const struct tt_wire_peer *p = &w->peers[m->peer];

    if (tt_net_sent(w->net, m->peer) < m->posted)
        return 0;
    note_credits(w, m->peer);
    return (p->stream_out - p->stream_acked) +
                   (p->packets_out - p->packets_acked) * w->slot_bytes <=
               KEPT_BY ||
           tt_net_has_left(w->net, m->peer, m->posted);
}

static tutti_result step_send(struct tt_wire *w, struct tt_message *m, int *moved)
{
    if (!m->started)
        TT_TRY(send_packet(w, m, moved));
    /* The first chunk right behind the packet: the network may send them in one. */
    if (m->started && m->moved < m->bytes)
        TT_TRY(send_chunk(w, m, moved));
    return TUTTI_OK;
}

tutti_result tt_wire_step(struct tt_wire *w, struct tt_message *m, int *moved)
{
    TT_TRY(m->is_send ? step_send(w, m, moved) : step_recv(w, m, moved));
    if (m->is_send)
        m->left = has_left(w, m);
    if (m->started && m->moved == m->bytes)
        m->done = !m->is_send || is_out(w, m);
    return TUTTI_OK;
}
