/* One step of one message: see wire.h. */
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/error.h"
#include "coll/wire_parts.h"
#include "cpu/cpu_engine.h"

#define LINE UINT64_C(64)

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

static tutti_result send_packet(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const size_t slot = p->packets_out % TT_WIRE_SLOTS;
    const size_t inside = m->bytes <= w->inline_max ? m->bytes : 0;
    const uint64_t at = slot * w->slot_bytes;
    const uint32_t header[] = {m->kind,
                               m->check,
                               (uint32_t)m->bytes,
                               (uint32_t)(m->bytes >> 32),
                               (uint32_t)p->packets_in,
                               (uint32_t)(p->stream_in / LINE)};
    size_t n_words;

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
    n_words = tt_packet_write(p->outbox + at / 8, p->packets_out, header, m->buf, inside);
    TT_TRY(tt_net_put(w->net, m->peer, p->outbox + at / 8, n_words * 8, w->region,
                      tt_wire_theirs(w) + w->slots_at + at));
    p->packets_told = p->packets_in;
    p->stream_told = p->stream_in;
    p->packets_out++;
    m->posted = p->posted[slot] = tt_net_posted(w->net, m->peer);
    m->started = 1;
    m->moved = inside;
    *moved = 1;
    return TUTTI_OK;
}

static tutti_result send_chunk(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const uint64_t at = p->stream_out & (w->ring_bytes - 1);
    const uint64_t ready = m->ready ? *m->ready : m->bytes;
    uint64_t n = smaller(smaller(w->chunk, m->bytes - m->moved), w->ring_bytes - at);
    const unsigned char *from = place_of(m, &n);

    note_credits(w, m->peer);
    if (ready - m->moved < n || w->ring_bytes - (p->stream_out - p->stream_acked) < n)
        return TUTTI_OK;
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

static tutti_result recv_packet(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    const size_t slot = p->packets_in % TT_WIRE_SLOTS;
    uint64_t *words = (uint64_t *)(void *)((unsigned char *)tt_wire_place(w, m->peer) +
                                           w->slots_at + slot * w->slot_bytes);
    const size_t inside = m->bytes <= w->inline_max ? m->bytes : 0;
    uint32_t header[TT_WIRE_HEADER_WORDS];

    if (!tt_packet_header(words, p->packets_in, header))
        return TUTTI_OK;
    if (header[TT_WORD_KIND] != m->kind || header[TT_WORD_CHECK] != m->check ||
        header[TT_WORD_BYTES] != (uint32_t)m->bytes ||
        header[TT_WORD_BYTES_HIGH] != (uint32_t)(m->bytes >> 32))
        return mismatch(w, m, header);
    if (!tt_packet_payload(words, p->packets_in, m->take ? w->unpacked : m->buf, inside))
        return TUTTI_OK;
    tt_packet_clear(words, inside);
    note_header(p, header);
    p->packets_in++;
    m->started = 1;
    m->moved = inside;
    if (inside && m->take)
        m->take(m, w->unpacked, 0, inside);
    *moved = 1;
    return give_credit(w, m->peer);
}

static tutti_result recv_chunk(struct tt_wire *w, struct tt_message *m, int *moved)
{
    struct tt_wire_peer *p = &w->peers[m->peer];
    struct tt_wire_place *place = tt_wire_place(w, m->peer);
    const uint64_t at = p->stream_in & (w->ring_bytes - 1);
    const unsigned char *piece = (unsigned char *)place + w->ring_at + at;
    uint64_t n = tt_load_acquire(&place->stream_put) - p->stream_in;
    unsigned char *to;

    n = smaller(smaller(n, m->bytes - m->moved), smaller(w->chunk, w->ring_bytes - at));
    to = place_of(m, &n);
    if (n == 0 || (m->ready && *m->ready - m->moved < n))
        return TUTTI_OK;
    if (m->take)
        m->take(m, piece, m->moved, n);
    else
        memcpy(to, piece, n);
    m->moved += n;
    p->stream_in += round_up(n);
    *moved = 1;
    return give_credit(w, m->peer);
}

tutti_result tt_wire_step(struct tt_wire *w, struct tt_message *m, int *moved)
{
    tutti_result res = TUTTI_OK;

    if (!m->started)
        res = m->is_send ? send_packet(w, m, moved) : recv_packet(w, m, moved);
    else if (m->moved < m->bytes)
        res = m->is_send ? send_chunk(w, m, moved) : recv_chunk(w, m, moved);
    if (res != TUTTI_OK || !m->started)
        return res;
    if (!m->is_send || tt_net_sent(w->net, m->peer) >= m->posted) {
        m->sent = m->moved;
        m->done = m->moved == m->bytes;
    }
    return TUTTI_OK;
}
