/*
 * What the host tells a kernel, and where things lie in a rank's arena. Plain data for both sides;
 * docs/design/cuda.md explains the protocol. Nothing here counts calls: epochs live in the arena and
 * the kernels advance them, so that a captured launch can be replayed for ever.
 */
#ifndef TT_CUDA_KERNEL_ARGS_H
#define TT_CUDA_KERNEL_ARGS_H

#include <stdint.h>

#define TT_CUDA_MAX_RANKS   32
#define TT_CUDA_MAX_BLOCKS  128 /* of one launch */
#define TT_CUDA_MAX_THREADS 512 /* of one block */
#define TT_CUDA_MAX_PARTS   16  /* tensors of one move: TUTTI_MAX_ROW_PARTS */

/* An arena: one allocation of GPU memory per rank, mapped by all ranks.
 *
 *   0          struct tt_cuda_block [TT_CUDA_MAX_BLOCKS]    read and written by its own rank only
 *   FLAGS      uint64_t [TT_N_FLAGS][TT_CUDA_MAX_BLOCKS][TT_CUDA_MAX_RANKS], written by the peers
 *   packets    [2 halves][n_ranks][packet_slot]             written by the peers, flags in the data
 *   sentinel   [2 halves][sentinel_half]                    written by the peers, all ones when idle
 *   staging    [n_ranks][staging_slot]                      written by the peers, guarded by flags
 */
struct tt_cuda_block {
    uint64_t epoch; /* launches that this block has finished */
    uint32_t failed; /* a wait has failed: every later launch ends at once */
    uint32_t unused;
};

enum tt_cuda_flag {
    TT_FLAG_ENTRY, /* value: epoch. My kernel has begun: my windows may be read and written */
    TT_FLAG_EXIT,  /* value: epoch. I have read and written all that I wanted of yours */
    TT_FLAG_READY, /* value: epoch << 24 | chunks. So many chunks of this launch are in your staging */
    TT_FLAG_CREDIT, /* value: epoch << 24 | chunks. So many have been taken out of mine */
    TT_N_FLAGS
};

#define TT_CUDA_FLAGS_AT   4096
#define TT_CUDA_CONTROL_BYTES                                                                      \
    (TT_CUDA_FLAGS_AT + TT_N_FLAGS * TT_CUDA_MAX_BLOCKS * TT_CUDA_MAX_RANKS * 8)

struct tt_cuda_layout {
    uint64_t packets, packet_slot;     /* 16-byte packets of 8 bytes of data and two flags */
    uint64_t sentinel, sentinel_half;  /* 16-byte vectors of floats */
    uint64_t staging, staging_slot;    /* bytes */
    uint64_t bytes;                    /* of the whole arena */
};

/* In pinned host memory: how a kernel is told to end, and how it says why it did. */
struct tt_cuda_report {
    uint32_t abort;  /* set by the host */
    uint32_t result; /* 0, or minus the tutti_result of the first failure, set once by a kernel */
    int32_t peer;    /* who was missing */
    uint32_t coll;   /* enum tt_coll */
    uint64_t epoch;  /* of the launch that failed */
    uint64_t waited_ns;
};

struct tt_cuda_base {
    unsigned char *arena[TT_CUDA_MAX_RANKS]; /* of every rank, as mapped here */
    struct tt_cuda_report *report;
    uint64_t timeout_ns;
    struct tt_cuda_layout layout;
    int32_t rank, n_ranks;
    uint32_t coll; /* enum tt_coll, for the report */
    uint32_t meet; /* 1: some pair of ranks moves no data, so each shows the others that it came */
};

enum tt_cuda_result_to { TT_RESULT_ALL, TT_RESULT_SHARD, TT_RESULT_ROOT };

/* all_reduce, reduce_scatter(v), reduce. Rank r reduces shard r of everybody's send. */
struct tt_cuda_reduce_args {
    struct tt_cuda_base base;
    const unsigned char *send;
    unsigned char *recv; /* RESULT_SHARD: of my shard only; RESULT_ROOT: used by root only */
    uint64_t bytes;      /* of send */
    uint64_t chunk;      /* two-shot: bytes of a shard that go through the sentinel half at a time */
    uint64_t shard_at[TT_CUDA_MAX_RANKS], shard_bytes[TT_CUDA_MAX_RANKS]; /* in send */
    const unsigned char *peer_send[TT_CUDA_MAX_RANKS]; /* direct: everybody's windows, mapped here */
    unsigned char *peer_recv[TT_CUDA_MAX_RANKS];
    int32_t op; /* tutti_op */
    int32_t result_to, root;
    int32_t aligned; /* send, recv and all shards begin at multiples of 16 bytes */
};

/* Everything that moves blocks between pairs of ranks. Offsets and lengths are in units; part i has
 * units of part[i].unit_bytes. A rank's own block is copied too, unless it is in place. */
struct tt_cuda_move_args {
    struct tt_cuda_base base;
    struct {
        const unsigned char *send;
        unsigned char *recv;
        uint64_t unit_bytes;
    } part[TT_CUDA_MAX_PARTS];
    int32_t n_parts;
    int32_t aligned; /* every block of every part begins and ends at a multiple of 16 bytes */
    uint64_t send_at[TT_CUDA_MAX_RANKS], send_units[TT_CUDA_MAX_RANKS]; /* to each rank */
    uint64_t recv_at[TT_CUDA_MAX_RANKS], recv_units[TT_CUDA_MAX_RANKS]; /* from each rank */
    uint64_t chunk; /* staged: bytes that go through a staging slot at a time */
    /* direct (one part): where my block for rank r goes, as mapped here */
    unsigned char *peer_recv[TT_CUDA_MAX_RANKS];
};

#endif
