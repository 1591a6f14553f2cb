/*
 * Messages between the ranks of different hosts, on the network's puts and signals. Every rank offers
 * an arena with a place for each of the others: slots for packets, a ring for longer data, counters.
 * A message is a packet that says what it is, with its bytes inside if they are few, else with its
 * bytes in the ring behind it. docs/design/hierarchical.md
 */
#ifndef TT_COLL_WIRE_H
#define TT_COLL_WIRE_H

#include "base/call.h"

struct tt_boot_address; /* boot/boot_address.h */
struct tt_exchange;     /* boot/boot.h */
struct tt_wire;

struct tt_wire_config {
    int rank, n_ranks;
    const int *host_of; /* [n_ranks] */
    const char *name;   /* of the communicator, for texts */
    uint64_t timeout_ns;
    uint64_t ring_bytes; /* of the rings of all peers together */
    const unsigned char *key;
    const struct tt_exchange *exchange;
    const struct tt_boot_address *route; /* as tt_net_config has it */
    const char *gpu;                     /* likewise */
    _Atomic uint64_t *refused;           /* likewise */
    int polls;                           /* this rank has a core of its own */
    /* Has something else failed? Asked in waits that are long. */
    tutti_result (*check)(void *context);
    void (*waits)(void *context); /* a wait for another host has lasted for half of the deadline */
    void *context;
};

/* A message's kind: collective, dtype and operation as tt_cpu_what() has them, above them the root. */
#define TT_WIRE_KIND_BITS 14u
#define TT_WIRE_KIND_MASK 0x3fffu

/* One send or receive. Messages of one direction between two ranks keep their order. */
struct tt_message {
    int peer, is_send;
    uint32_t kind;  /* what kind of call this belongs to, named if the other side's differs */
    uint32_t check; /* which call of that kind, compared too */
    unsigned char *buf;
    uint64_t bytes;
    uint64_t window; /* not 0: buf is so many bytes, a multiple of 256, used again and again */
    /* Rising to `bytes`. Send: how many bytes may go; receive: how many there is room for. NULL: all */
    const uint64_t *ready;
    /* Receive: take bytes [at, at + n) from `piece` instead of copying them to buf; `at` and, but for
     * the end, n are multiples of 64. */
    void (*take)(struct tt_message *m, const unsigned char *piece, uint64_t at, size_t n);
    void *context;
    /* Receive: a byte is taken only when that byte of this send, to the same peer, has left its memory. NULL:
     * as soon as it is there. */
    const struct tt_message *after;

    /* The wire's own; zero at first. */
    int started, done;
    uint64_t moved, posted;
    uint64_t left; /* send: at least so many bytes may change */
};

/* Collective over all ranks. */
tutti_result tt_wire_create(const struct tt_wire_config *config, struct tt_wire **wire_out);
void tt_wire_destroy(struct tt_wire *w);

/* Begin messages, which stay where they are until tt_wire_finish() has returned: then all are done. */
void tt_wire_start(struct tt_wire *w, struct tt_message *messages, size_t n);
tutti_result tt_wire_finish(struct tt_wire *w);

/* Called again and again while messages are waited for: 1 if `ready` of some has risen. NULL: none. */
void tt_wire_on_turn(struct tt_wire *w, int (*turn)(void *context), void *context);

/* Let messages advance, from waits for something else. 1 if something moved, or a failure. */
int tt_wire_poll(struct tt_wire *w);

/* Memory that messages will often be sent from, until it is taken back: the network registers it once. NULL in
 * *lent_out where it cannot; messages are sent all the same. */
struct tt_net_region;
void tt_wire_lend(struct tt_wire *w, void *base, uint64_t bytes, struct tt_net_region **lent_out);
void tt_wire_take_back(struct tt_net_region *lent); /* NULL is fine */

/* The rank that the last failure was about, or -1. */
int tt_wire_culprit(const struct tt_wire *w);

/* Tell every rank that this one has talked to, or that waits for it, that the communicator has failed. */
void tt_wire_tell(struct tt_wire *w, tutti_result result, int peer, const char *text);
/* This rank has waited for long itself: it will know better who is at fault than those that wait for it. */
void tt_wire_tell_waits(struct tt_wire *w);

void tt_wire_abort(struct tt_wire *w); /* from any thread */
uint64_t tt_wire_memory(const struct tt_wire *w);
const char *tt_wire_details(const struct tt_wire *w);

#endif
