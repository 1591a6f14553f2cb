/*
 * The network among the ranks of a communicator: registered memory, puts, signals. All calls on one
 * `struct tt_net` are made by one thread at a time, and nothing moves unless somebody calls: who
 * waits, progresses. Endpoints are made when a peer is first used. docs/design/network.md
 */
#ifndef TT_NET_NET_H
#define TT_NET_NET_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tt_boot_address; /* boot/boot_address.h */
struct tt_exchange;     /* boot/boot.h */
struct tt_net;
struct tt_net_region; /* memory of every rank that the others may put into */

struct tt_net_config {
    int rank, n_ranks;
    const int *host_of; /* [n_ranks]: index of the host of each rank, from 0 */
    uint64_t timeout_ns;
    const unsigned char *key;           /* 32 bytes that the ranks share */
    const struct tt_exchange *exchange; /* used during create only */
    /* "0000:17:00.0": what this rank computes with, whose nearest card it uses; NULL: cores. */
    const char *gpu;
    /* Whoever waits has a core to itself: that it can be woken up is to cost those who send nothing. */
    int polls;
    /* This host's address by which the rendezvous reached another host (tt_boot_route); NULL: found by the
     * networks that the hosts have in common. The ranks of a host give the same. */
    const struct tt_boot_address *route;
    /* Rises with every message and connection of a stranger that is refused. NULL: nobody looks. */
    _Atomic uint64_t *refused;
};

/* Collective over all ranks, through the exchange: all succeed, or all fail with the reason of the first
 * that does. */
tutti_result tt_net_create(const struct tt_net_config *config, struct tt_net **net_out);
/* What was posted is delivered first (up to five seconds, together with tt_net_hide(); not after a failure),
 * and the ranks that were exchanged with are told that this one leaves. */
void tt_net_destroy(struct tt_net *net);
/* Why there is no network here ("" if there is): library not found, too old, switched off. */
const char *tt_net_missing(void);
/* For `tutti info`, without a net: the library and where it was found; the interface that would be taken,
 * if the rendezvous does not say another, and all devices (or why none would do). */
void tt_net_library_text(char *out, size_t bytes);
tutti_result tt_net_place_text(char *out, size_t bytes);
/* One line: provider, version, where it was found, device(s), address. */
const char *tt_net_details(const struct tt_net *net);

/* Collective (through `exchange`): this rank offers `bytes` (0: nothing) at `base`, 64-byte aligned. */
tutti_result tt_net_expose(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                           uint64_t bytes, struct tt_net_region **region_out);
/* The same of memory of this rank's GPU: the devices read and write it themselves (GPUDirect). What they have
 * written is there, for those who compute on it, once tt_cuda_settle() has been called after the signal. */
tutti_result tt_net_expose_gpu(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                               uint64_t bytes, struct tt_net_region **region_out);
/* By which ways this rank's devices can; none: TUTTI_E_UNSUPPORTED from the above. */
enum tt_net_gpu_way {
    TT_NET_GPU_PEERMEM = 1, /* the kernel module nvidia_peermem: any memory of a GPU */
    TT_NET_GPU_DMABUF = 2,  /* memory that the driver of the GPU exports as a dma-buf */
};
unsigned tt_net_gpu_ways(const struct tt_net *net);
/* Not collective: memory of this rank that it will often put from, registered once. Nobody puts into it, and
 * tt_net_hide() ends it: what is put from it has then been sent. */
tutti_result tt_net_lend(struct tt_net *net, void *base, uint64_t bytes,
                         struct tt_net_region **region_out);
/* Not collective: the others must have stopped to put into this rank's part. What this rank has posted is
 * delivered first (up to five seconds; what is still under way from this memory then fails the net). After
 * a failure nothing is waited for, and nothing that comes later is let in. */
void tt_net_hide(struct tt_net_region *region);

/* What comes for this rank's part is offered to `take` before it is stored, where puts are messages: the
 * pieces of a peer's puts in their order, each [at, at + bytes) of the region. 1: it is taken, and nothing is
 * stored; 0: it is stored. Called from within this net's calls, and not to call any of them. */
typedef int (*tt_net_take_fn)(void *context, uint64_t at, const void *data, uint64_t bytes);
void tt_net_offer(struct tt_net_region *region, tt_net_take_fn take, void *context);

/* Copy `bytes` to offset `at` of the peer's part of the region. `src` may be any host memory, or memory of
 * the GPU that is exposed; it may be changed once tt_net_sent() says so. Refused with TUTTI_E_ARG where it
 * would leave the region. Returns at once unless 256 are under way to the peer already; TUTTI_E_TIMEOUT if
 * none of them has been sent for as long as the net's timeout. To a peer that has left (not died) it is a put
 * that nobody will miss: TUTTI_OK, counted as sent. */
tutti_result tt_net_put(struct tt_net *net, int peer, const void *src, uint64_t bytes,
                        struct tt_net_region *region, uint64_t at);

/* No signal will follow the last put to `peer`: it leaves now, and not with the next progress. */
void tt_net_push(struct tt_net *net, int peer);

/* Store `value` at offset `at` (multiple of 8) of the peer's part, after all earlier puts of this rank to
 * this peer are visible there: who reads it with acquire may read their data. */
tutti_result tt_net_signal(struct tt_net *net, int peer, struct tt_net_region *region, uint64_t at,
                           uint64_t value);

/* What is not sent to `peer` by now never will be: nothing reads the sources of puts to it any more, and the
 * way to it is closed. For after a failure, when the sources are their owners' again. */
void tt_net_drop(struct tt_net *net, int peer);

/* How many bytes a put may have to travel together with the signal that is posted right after it: then it
 * costs no more than either alone. 0: on this network they are two. */
uint64_t tt_net_bundle_bytes(const struct tt_net *net);

/* Number of puts and signals to `peer` so far; and how many of them, from the first on, have been sent
 * in the sense that their sources may be reused. */
uint64_t tt_net_posted(const struct tt_net *net, int peer);
uint64_t tt_net_sent(const struct tt_net *net, int peer);

/* Whether the first `number` of them have left this process, and get there even if this rank does not call for
 * long: a source that may be reused can have been copied to a queue. */
int tt_net_has_left(struct tt_net *net, int peer, uint64_t number);

/* Lets everything advance that can: incoming puts, outgoing ones, watching the peers. Returns at once.
 * What this rank has posted moves by this, too: who goes off to do something else before it has left
 * (tt_net_has_left()) may leave the peer waiting.
 * TUTTI_E_PEER (naming host and rank) as soon as a peer that was ever used is known to be lost. */
tutti_result tt_net_progress(struct tt_net *net);

/* Rises whenever progress finds something to do, for one's own part or for a peer's: who polls beside other
 * work goes to sleep when it does not. */
uint64_t tt_net_moves(const struct tt_net *net);

/* Sleep until something may have arrived or `until_ns`, whichever is first; for waits that are long. */
void tt_net_sleep(struct tt_net *net, uint64_t until_ns);

/* Is the peer there, as far as is known? TUTTI_E_PEER (naming host and rank) if it is lost, gone or has left:
 * nothing more will come from it, and what it sent before it left is visible by now. For who waits for
 * this peer: a peer that leaves is no failure of tt_net_progress(). */
tutti_result tt_net_check_peer(struct tt_net *net, int peer);

/* Whether the peer dies is known from here on, although nothing is sent to it: for who waits for it for long. */
void tt_net_watch(struct tt_net *net, int peer);
/* Whether the peer has exchanged with this rank or watches it. */
int tt_net_has_met(const struct tt_net *net, int peer);

/* To those that this rank has exchanged with or that watch it: it has waited for long itself. Whether a peer has said
 * so in the last `within_ns`. */
void tt_net_tell_waits(struct tt_net *net);
int tt_net_waits(const struct tt_net *net, int peer, uint64_t within_ns);

/* To those that this rank has exchanged with, now: `rank` is lost, as became known by other means than the
 * network's. They fail as if they had found it themselves. For a rank that ends because of it: what closes
 * without a word looks dead itself. */
void tt_net_tell_lost(struct tt_net *net, int rank);

/* From any thread: every call on this net, on all ranks, fails with TUTTI_E_ABORTED soon. Those that this one has not
 * met are connected to, which takes 50 ms at most, and 10 where they are in no call. */
void tt_net_abort(struct tt_net *net);

#endif
