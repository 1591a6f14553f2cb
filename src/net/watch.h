/*
 * Watching the ranks that this one exchanges data with, over connections of our own: a data plane may
 * hide a dead link for minutes. A process that dies closes its connection at once; the kernel of a host
 * that is there answers a probe every second, whatever its process does. The same connections carry
 * notices: abort, "I leave", "I have lost rank 3". Who connects is nobody until it has proved that it
 * knows the ranks' key.
 */
#ifndef TT_NET_WATCH_H
#define TT_NET_WATCH_H

#include <stdatomic.h>

#include "boot/boot_address.h"
#include "net/watch_wire.h"

struct tt_watch;

/* Called from within tt_watch_poll(), with a lock held: nothing of the watch may be called from them. */
struct tt_watch_events {
    void *context;
    /* The rank is dead, or its host cannot be reached. */
    void (*lost)(void *context, int rank, const char *why);
    /* The rank had closed its door before we were through it: it has left, or died. */
    void (*gone)(void *context, int rank);
    void (*notice)(void *context, int from, const struct tt_notice *notice);
};

struct tt_watch_config {
    int rank, n_ranks;
    const unsigned char *key;       /* 32 bytes that the ranks share */
    struct tt_boot_address address; /* to listen on */
    uint64_t lost_ns;
    _Atomic uint64_t
        *refused; /* counts connections that did not prove to be a rank's; may be NULL */
    struct tt_watch_events events;
};

tutti_result tt_watch_open(const struct tt_watch_config *config, struct tt_watch **watch_out);

/* Where this rank listens, for the others; and where another does. */
void tt_watch_where(const struct tt_watch *watch, struct tt_boot_endpoint *out);
void tt_watch_find(struct tt_watch *watch, int rank, const struct tt_boot_endpoint *where);

/* Watch the rank from now on; nothing is waited for. */
void tt_watch_start(struct tt_watch *watch, int rank);

/* Whether both sides know who the other is, so that neither can go unnoticed. */
int tt_watch_is_ready(struct tt_watch *watch, int rank);

/* Whether it watches this one. */
int tt_watch_is_watched(struct tt_watch *watch, int rank);

/* Everything that has happened since; returns at once: 1 if a handshake is under way. After TT_NOTICE_ABORT was told,
 * by any thread, and without events. */
int tt_watch_poll(struct tt_watch *watch);

/* Readable when there may be something to poll. */
int tt_watch_fd(const struct tt_watch *watch);

/* To all ranks that are watched, at once and, but for what passes by (TT_NOTICE_WAITS), until close to those that
 * come. Any thread. */
void tt_watch_tell(struct tt_watch *watch, enum tt_notice_kind kind, int about);

/* Is what was told here, in the other hosts' kernels? Then closing cannot take it back. */
int tt_watch_is_told(struct tt_watch *watch);

void tt_watch_close(struct tt_watch *watch); /* NULL is fine */

#endif
