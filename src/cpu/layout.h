/*
 * The shared segment of a communicator: one sealed memfd, mapped by every rank (docs/design/
 * shared-memory.md). A header, then one area a rank. Every word has one writer, its area's rank,
 * except where a comment says otherwise; words that different ranks write never share a line pair.
 */
#ifndef TT_CPU_LAYOUT_H
#define TT_CPU_LAYOUT_H

#include <stddef.h>

#include "base/atomic.h"

#define TT_SEGMENT_MAGIC  0x3169747475743a31u
#define TT_SEGMENT_LAYOUT 4 /* changes with this file: `tutti info --live` reads other processes */
#define TT_SEGMENT_NAME   "tutti-comm"

#define TT_TEAM_LANES   16 /* lanes for thread teams; lane 0 is for ordinary calls */
#define TT_N_LANES      (1 + TT_TEAM_LANES) /* lanes of a rank */
#define TT_TEAM_SCRATCH (64u << 10)         /* bytes of each half of a team lane's scratch */
#define TT_PAGE         4096u

/*
 * "I have come to call `epoch`, here is what it is, and my data (if any) is in scratch." One line,
 * written once a call; two of them, by parity of the epoch, so that a rank that is one call ahead
 * does not overwrite what a slower one still reads. Nobody can be two calls ahead: every call waits
 * for everybody's arrival.
 */
struct tt_arrival {
    _Alignas(TT_LINE) _Atomic uint64_t epoch; /* stored last, with release */
    _Atomic uint64_t what;                    /* see tt_what() */
    _Atomic uint64_t count;                   /* elements, or a hash of the counts */
    _Atomic uint64_t can;                     /* TT_CAN_*: what this rank's buffers allow */
    _Atomic uint64_t send;                    /* address, or window and offset (TT_CAN_WINDOW) */
    _Atomic uint64_t recv;
    _Atomic uint64_t longest; /* bytes of this rank's longest outgoing block */
};

#define TT_CAN_XMEM   1u /* peers may read send and write recv across memories */
#define TT_CAN_WINDOW 2u /* send and recv lie in windows */
#define TT_CAN_BLOCKS                                                                              \
    4u /* as XMEM, but blocks of recv lie anywhere: only if they do on all ranks */

struct tt_lane_area {
    struct tt_arrival arrival[2];
    _Alignas(TT_LINE) _Atomic uint64_t produced; /* counts the steps within calls */
};

/* Counters for tutti_comm_stats(); relaxed, read by anybody. */
struct tt_stats_area {
    _Alignas(TT_LINE) _Atomic uint64_t n_calls;
    _Atomic uint64_t n_bytes;
    _Atomic uint64_t wait_ns, copy_ns, reduce_ns, sync_ns;
    _Atomic uint64_t n_sleeps;
    _Atomic uint64_t sequence;
    _Atomic uint64_t last_what, last_bytes;
    _Atomic uint64_t n_refused;
};

struct tt_rank_area {
    _Alignas(TT_LINE) _Atomic uint32_t doorbell; /* futex: changes when a sleeper may look again */
    _Atomic uint32_t left;    /* 1 once the rank has destroyed its communicator */
    _Atomic uint32_t waits;   /* 1: it has waited for half of its deadline, itself */
    _Atomic uint64_t token;   /* random: proves that a cross-memory read works */
    _Atomic uint32_t storing; /* threads that are storing into a peer's memory just now */
    _Alignas(TT_LINE) _Atomic uint32_t sleepers; /* written by waiting peers */
    struct tt_stats_area stats;
    struct tt_lane_area lanes[TT_N_LANES];
    /* At run-time offsets behind this struct: blocks[2][n], senders[n], receivers[n], rings[n], scratch */
};

/* all_to_allv: how long the block for a peer is, and where that peer's belongs and how long it must be, by parity
 * of the epoch. */
struct tt_block_note {
    _Atomic uint64_t address;
    _Atomic uint64_t bytes, awaited;
};

/* A message from one rank to another. Its two lines hold all of a short one, the first of a very short one; of
 * others the first part is in the ring already, up to `put`, or nothing: the sender stores them where the
 * receiver says. */
struct tt_message {
    _Alignas(TT_LINE) _Atomic uint64_t number; /* from 1 on; it is here when this says so */
    uint64_t bytes, put;
    uint32_t dtype, is_stored;
    unsigned char first[96];
};

#define TT_MESSAGES 16

/* One direction between two ranks, what the sender writes: how many bytes it has put into the ring, and the
 * last message that it has stored. */
struct tt_sender_area {
    _Alignas(TT_LINE) _Atomic uint64_t put, stored;
    struct tt_message messages[TT_MESSAGES];
};

/* What the receiver writes: how many bytes and messages it has taken, and where it wants message `placed`. */
struct tt_receiver_area {
    _Alignas(TT_LINE) _Atomic uint64_t taken, received, placed, place;
};

struct tt_segment {
    uint64_t magic; /* set last, by the leader, before anybody else maps the segment */
    uint32_t layout;
    uint32_t n_ranks;
    uint64_t area_offset; /* of rank 0's area */
    uint64_t area_stride;
    uint64_t notes_offset; /* the rest are offsets within an area */
    uint64_t senders_offset;
    uint64_t receivers_offset;
    uint64_t rings_offset;
    uint64_t ring_bytes; /* a power of two */
    uint64_t scratch_offset;
    uint64_t half_bytes; /* each half of lane 0's scratch */
    uint64_t team_offset;
    uint64_t total_bytes;
    char name[32];
    /* The first failure, written once, by the rank that takes the record (wait.c). */
    _Alignas(TT_LINE) _Atomic uint64_t failure;
    _Atomic uint64_t failure_taken;
    _Atomic uint64_t failure_detail; /* what the rank at fault called, for mismatches */
    _Atomic uint64_t failure_count;
    char failure_text[192]; /* who is late, or died too; of a failure outside */
};

#endif
