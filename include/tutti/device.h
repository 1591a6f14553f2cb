/*
 * tutti/device.h: channels, for people who write their own kernels. Experimental: may change in any release.
 *
 * A *channel* is a one-sided path from this rank to one peer: it puts bytes of this rank's memory into the
 * peer's and raises a counter there. The same calls work from host code (C or C++), from CUDA kernels and on
 * every kind of channel, so that an algorithm is written once:
 *
 *   memory channel   the peer's memory is mapped here: loads and stores.
 *   port channel     through a *trigger* in a queue that a thread of the library (a proxy) drains, and the
 *                    network. Nothing waits for the network but tutti_channel_wait() and _flush().
 *
 * All ranks together make a *channel set* over a piece of memory of each:
 *
 *     tutti_channel_set_create(comm, memory, bytes, NULL, &set);        // collective
 *     tutti_channel_get(set, peer, 0, TUTTI_CHANNEL_HOST, &ch);         // or TUTTI_CHANNEL_KERNEL
 *     tutti_channel_put_with_signal(&ch, to, from, n, 0, 1);            // to, from: offsets in the memory
 *     ...
 *     tutti_channel_wait(&ch, 1);                                       // the peer's first signal to us
 *     tutti_channel_set_destroy(set);                                   // collective
 *
 * Order       A signal is seen only after everything that was put or added before it, on the same channel, by
 *             the thread that signals or before a barrier with it. Puts among themselves, other channels
 *             and packets have no order; but one proxy carries out what is queued in the order of the queue
 *             (design/channels.md), so channels of one proxy delay one another.
 * Visibility  Who has waited for a signal may read what came before it with plain loads; from a group of
 *             threads, one waits and a barrier of the group follows.
 * Memory      A put borrows its source until a flush of the channel, or an answer of the peer, says that it
 *             has arrived. Before a group puts, what its threads wrote there is ordered by a barrier.
 * Threads     A group of n_threads threads makes one call, each with its index `thread`; (0, 1) is one thread
 *             alone. Calls without these are made by one thread. Any threads may put, flush and add on one
 *             channel at a time; only one thread or group at a time may signal, put with a signal or put
 *             packets, and a group has a barrier between two of these on the same channel.
 * Waits       End after the communicator's timeout at the latest. Every call returns TUTTI_OK or a negative
 *             tutti_result; on the host the text is in tutti_last_error(), of a kernel's failure in
 *             tutti_channel_set_status(). After the first failure a set is lost for good, its communicator is
 *             not (but for what happened to it too): destroy the set. Wrong arguments of host code are no such
 *             failure: TUTTI_E_ARG, and nothing happened. Of a kernel they are.
 */
#ifndef TUTTI_DEVICE_H
#define TUTTI_DEVICE_H

#include <tutti/tutti.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ sets, on the host -------- */

typedef struct tutti_channel_set tutti_channel_set;

/** Reach all peers through the network, those of this host too: for tests and for measurements, and for host
 *  code that moves GPU memory. */
#define TUTTI_CHANNELS_BY_PORT UINT32_C(1)

/* Zero means the default in every field. The same on all ranks, but for n_proxies, of which the lowest counts. */
typedef struct tutti_channel_config {
    uint32_t size;         /* sizeof(tutti_channel_config) */
    uint32_t flags;        /* TUTTI_CHANNELS_BY_PORT, or 0 */
    uint32_t n_channels;   /* to each peer: 1; at most 256 */
    uint32_t n_proxies;    /* threads for triggers, up to 16: TUTTI_NET_PROXIES, else by cores */
    uint32_t n_slots;      /* of a queue of triggers, a power of 2: 1024; 2 to 65536 */
    uint32_t packet_bytes; /* room for packets, per channel, a multiple of 64: 4096; up to 1 MiB */
} tutti_channel_config;
#define TUTTI_CHANNEL_CONFIG_INIT TUTTI_INIT_(tutti_channel_config)

/**
 * Make channels between all pairs of ranks of `comm`. Collective; all succeed or all fail.
 *
 * Memory      memory[0 .. bytes), the same number of bytes on all ranks, 64-byte aligned: of
 *             tutti_mem_alloc(), or whatever tutti_window_register() takes, which is called for it where
 *             peers share a host. On a communicator of GPUs it is memory of this rank's GPU; sets may share
 *             it. Puts from peers may change it until the set is destroyed, and only then may it be freed.
 * Kind        To a peer whose memory can be mapped: a memory channel; else a port channel.
 * Threads     Where there are port channels, n_proxies threads are started, with all signals blocked, on
 *             those of the calling thread's cores that are near its GPU, if it has one. Idle they sleep
 *             (under 2 % of a core; up to 4 ms to wake up where a kernel or the network has something for
 *             them, at once where host code has).
 * GPUs        Bytes for port channels travel through pinned host memory, by the driver's copies on a stream
 *             of the proxy's own. Packets and signals need no copies.
 * Errors      TUTTI_E_ARG, TUTTI_E_MISMATCH (ranks disagree), TUTTI_E_UNSUPPORTED (no network, and it is
 *             needed), TUTTI_E_MEMORY, TUTTI_E_SYSTEM; those of a failed communicator.
 */
TUTTI_API tutti_result tutti_channel_set_create(tutti_comm *comm, void *memory, size_t bytes,
                                                const tutti_channel_config *config,
                                                tutti_channel_set **set_out);

/**
 * End a set: what was put is delivered first. Collective, in the same order on all ranks, before the
 * communicator is destroyed (tutti_comm_destroy() ends what is left without waiting for anybody). No kernel
 * or thread may use its channels any more. NULL on all ranks is fine. TUTTI_E_TIMEOUT, _PEER, _ABORTED: not
 * everything was delivered; the set is gone in any case. A set that has failed gives what it has failed with.
 * GPUs: where peers share the host it waits for the GPU, which breaks a capture (tutti_window_deregister()).
 */
TUTTI_API tutti_result tutti_channel_set_destroy(tutti_channel_set *set);

/** Is the set good? Else why not, with its text: also what a kernel has reported. Any thread. */
TUTTI_API tutti_result tutti_channel_set_status(tutti_channel_set *set);

typedef struct tutti_channel_info {
    uint32_t size; /* sizeof(tutti_channel_info), set by the caller */
    int32_t n_proxies;
    int32_t n_memory_peers, n_port_peers;
    uint64_t n_triggers; /* that this rank's proxies have carried out */
    const char *details; /* one line; lives as long as the set */
} tutti_channel_info;
#define TUTTI_CHANNEL_INFO_INIT TUTTI_INIT_(tutti_channel_info)

/** Describe a set. Any thread. TUTTI_E_ARG if info->size is not set. */
TUTTI_API tutti_result tutti_channel_set_query(const tutti_channel_set *set,
                                               tutti_channel_info *info);

typedef enum tutti_channel_place {
    TUTTI_CHANNEL_HOST = 0,   /* for threads of this process */
    TUTTI_CHANNEL_KERNEL = 1, /* for kernels on this communicator's GPU */
} tutti_channel_place;

/* ------------------------------------------------------------------ a channel ---------------- */

/* 32 bytes in the queue: 48 bits of each word are the trigger, the upper 16 say for which turn of the ring the
 * word was written, so that whoever sees all four words of its turn has all of it. */
typedef struct tutti_trigger {
    uint64_t word[4];
} tutti_trigger;

/* In host memory that kernels can reach: how a wait is told to end, and how it says why it did. */
typedef struct tutti_channel_report {
    uint32_t abort;  /* set by the host */
    uint32_t result; /* 0, or minus the tutti_result of the first failure */
    uint32_t op;     /* tutti_channel_op */
    int32_t peer;
    uint64_t value, seen; /* what was waited for, and what was there; or the offset and the bytes */
    uint64_t waited_ns;
} tutti_channel_report;

typedef enum tutti_channel_op {
    TUTTI_CHANNEL_PUT = 1,
    TUTTI_CHANNEL_SIGNAL = 2,
    TUTTI_CHANNEL_PUT_WITH_SIGNAL = 3,
    TUTTI_CHANNEL_PUT_PACKETS = 4,
    TUTTI_CHANNEL_FLUSH = 5,
    TUTTI_CHANNEL_ATOMIC_ADD = 6,
    TUTTI_CHANNEL_WAIT = 7,
    TUTTI_CHANNEL_GET_PACKETS = 8,
} tutti_channel_op;

/* A channel's own words at this rank and place. */
typedef struct tutti_channel_state {
    uint64_t sent;    /* signals, of a memory channel */
    uint64_t taken;   /* signals that tutti_channel_wait_next() has waited for */
    uint64_t arrived; /* threads of a group that have put their part */
    uint64_t unused[5];
} tutti_channel_state;

/* One end of a channel, filled in by tutti_channel_get(). A plain struct: pass it to kernels by value. */
typedef struct tutti_channel {
    int32_t rank, peer;
    uint32_t id;                /* what triggers call it */
    uint32_t n_slots;           /* 0: a memory channel, without a queue */
    unsigned char *memory;      /* this rank's ... */
    unsigned char *peer_memory; /* ... and the peer's, where it is mapped here, else NULL */
    uint64_t bytes;             /* of either */
    tutti_channel_state *state;
    const uint64_t *signals; /* that the peer has sent to this rank */
    uint64_t *peer_signals;  /* memory channel: where the peer looks for ours */
    const uint64_t *packets; /* from the peer */
    uint64_t *packets_out;   /* memory channel: at the peer; else where they leave from */
    uint64_t packet_bytes;
    tutti_trigger *slots;
    uint64_t *head, *seen; /* triggers queued; of those that were done, as last looked at */
    const uint64_t *done, *flushed; /* written by the proxy */
    tutti_channel_report *report;
    uint64_t timeout_ns;
    tutti_channel_set *set; /* on the host; NULL in kernels */
} tutti_channel;

/**
 * The channel number `index` to `peer` (not this rank), for use at `place`. Local. The two ends with
 * the same index belong together. Valid until the set is destroyed. Signals and flushes of one channel are
 * to be made from one place only.
 * Errors      TUTTI_E_ARG; TUTTI_E_UNSUPPORTED: kernels on a communicator without GPUs, or host code on a
 *             memory channel of GPU memory (TUTTI_CHANNELS_BY_PORT is the way).
 */
TUTTI_API tutti_result tutti_channel_get(tutti_channel_set *set, int peer, uint32_t index,
                                         tutti_channel_place place, tutti_channel *channel_out);

/** Not to be called: what tutti_channel_* do on the host now and then while they wait, since *since_ns. */
TUTTI_API tutti_result tutti_channel_pause(const tutti_channel *channel, tutti_channel_op op,
                                           uint64_t value, uint64_t *since_ns);

/** Not to be called: what tutti_channel_* do on the host once something is queued. */
TUTTI_API void tutti_channel_kick(const tutti_channel *channel);

/** Not to be called: what tutti_channel_* do on the host with arguments that are wrong. */
TUTTI_API tutti_result tutti_channel_refuse(const tutti_channel *channel, tutti_channel_op op,
                                            uint64_t at, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#include <tutti/device_channel.h>

#endif /* TUTTI_DEVICE_H */
