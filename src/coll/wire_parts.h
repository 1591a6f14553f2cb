/* The state that the wire's files share. */
#ifndef TT_COLL_WIRE_PARTS_H
#define TT_COLL_WIRE_PARTS_H

#include "coll/wire.h"
#include "net/net.h"

#define TT_WIRE_SLOTS        8u /* packets under way from one rank to another */
#define TT_WIRE_HEADER_WORDS 6u
#define TT_WIRE_NOTICE_BYTES 2048u
#define TT_WIRE_NOTICE_TEXT  192u

/*
 * A packet's words: 32 bits of data and, above them, 32 bits that say which packet they belong to. So
 * a word proves its own arrival, in whatever order the words come, and a packet is one put. The
 * receiver clears what it has read; no word of an earlier packet can be taken for one of a later.
 *
 * Where a put travels together with its signal (tt_net_bundle_bytes), packets with bytes inside are plain:
 * a first word that says so, which is the signal, then the header and the bytes as they are.
 */
enum tt_wire_word {
    TT_WORD_KIND,
    TT_WORD_CHECK,
    TT_WORD_BYTES,
    TT_WORD_BYTES_HIGH,
    TT_WORD_PACKETS_TAKEN, /* what the sender has taken out of the other direction, low 32 bits */
    TT_WORD_STREAM_TAKEN,  /* the same in units of 64 bytes */
};

/* What rank p may write in this rank's arena, at p * stride behind the first page. */
struct tt_wire_place {
    _Alignas(128) _Atomic uint64_t stream_put; /* bytes that p has put into the ring */
    _Atomic uint64_t stream_taken;             /* bytes and packets that p has taken of ours */
    _Atomic uint64_t packets_taken;
};

#define TT_WIRE_BELL   0u /* offset of the word that says that there is a notice */
#define TT_WIRE_PLACES 4096u

struct tt_wire_peer {
    int used; /* a message was begun in either direction */
    uint64_t busy_sweep[2];

    /* towards the peer */
    uint64_t packets_out, packets_acked;
    uint64_t stream_out, stream_acked;
    uint64_t *outbox;               /* copies of packets until they are sent */
    uint64_t posted[TT_WIRE_SLOTS]; /* which put each of them was */

    /* from the peer */
    uint64_t packets_in, packets_told;
    uint64_t stream_in, stream_told;
    int has_taken; /* bytes went straight from the network to a message: credit may be due */
};

struct tt_wire {
    int rank, n_ranks;
    const int *host_of;
    char name[32];
    uint64_t timeout_ns;
    int polls;
    tutti_result (*check)(void *context);
    void (*waits)(void *context);
    void *context;

    struct tt_net *net;
    struct tt_net_region *region;
    unsigned char *arena;
    uint64_t arena_bytes, stride, slot_bytes, slots_at, notice_at, ring_at, ring_bytes, chunk;
    uint64_t inline_max;        /* bytes inside of a packet of words */
    uint64_t plain_max;         /* of a plain one; 0: this rank sends none */
    struct tt_wire_peer *peers; /* [n_ranks] */
    int culprit;
    uint64_t n_sweeps;

    struct tt_message *messages; /* that are under way */
    size_t n_messages, n_open;
    int (*turn)(void *context);
    void *turn_context;
    unsigned char *unpacked; /* a packet's bytes on their way to a taker */
    uint64_t *notice;        /* what this rank tells all */
    int told;
    uint64_t told_waits_ns;
};

static inline struct tt_wire_place *tt_wire_place(const struct tt_wire *w, int peer)
{
    return (struct tt_wire_place *)(void *)(w->arena + TT_WIRE_PLACES + (uint64_t)peer * w->stride);
}

/* Where this rank's place is in a peer's arena. */
static inline uint64_t tt_wire_theirs(const struct tt_wire *w)
{
    return TT_WIRE_PLACES + (uint64_t)w->rank * w->stride;
}

/* ---- packets (wire_packet.c) ---- */

/* Returns the number of words written. */
size_t tt_packet_write(uint64_t *words, uint64_t number, const uint32_t header[],
                       const void *payload, size_t bytes);
/* A plain one, without its first word, which tt_packet_signal() is. Returns the number of bytes. */
size_t tt_packet_write_plain(void *packet, const uint32_t header[], const void *payload,
                             size_t bytes);
uint64_t tt_packet_signal(uint64_t number);
#define TT_PACKET_PLAIN_BYTES (8 + 4 * TT_WIRE_HEADER_WORDS) /* before the payload of a plain one */

enum tt_packet_form { TT_PACKET_NONE, TT_PACKET_WORDS, TT_PACKET_PLAIN };
/* Whether packet `number` begins here and its header has come. */
enum tt_packet_form tt_packet_header(const uint64_t *words, uint64_t number, uint32_t header_out[]);
/* Of words: 1 if all of its bytes have come; they are copied out. */
int tt_packet_payload(const uint64_t *words, uint64_t number, void *payload_out, size_t bytes);
/* Of words: 1 if a notice is there, and it is one: a failure, about a rank or none. */
struct tt_wire_notice {
    tutti_result result;
    int peer;
    char text[TT_WIRE_NOTICE_TEXT + 1];
};
int tt_packet_notice(const uint64_t *words, int n_ranks, struct tt_wire_notice *out);
void tt_packet_clear(uint64_t *words, enum tt_packet_form form, size_t bytes);
static inline size_t tt_packet_words(size_t bytes)
{
    return TT_WIRE_HEADER_WORDS + (bytes + 3) / 4;
}

/* ---- steps (wire_step.c): *moved is set if something did ---- */

tutti_result tt_wire_step(struct tt_wire *w, struct tt_message *m, int *moved);
/* What the network offers: the next bytes that a message waits for need not go through the ring. */
int tt_wire_take(void *wire, uint64_t at, const void *data, uint64_t bytes);

/* ---- what ends a wait (wire_wait.c) ---- */

struct tt_wire_idle { /* since something moved; zero at first */
    unsigned rounds;
    uint64_t since_ns, last_ns;
};
tutti_result tt_wire_idle(struct tt_wire *w, struct tt_wire_idle *idle);
tutti_result tt_wire_advance(struct tt_wire *w, int *moved);
tutti_result tt_wire_look(struct tt_wire *w); /* notices, and the other engine */

#endif
