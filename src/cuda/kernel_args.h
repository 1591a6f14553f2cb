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
#define TT_CUDA_MAX_THREADS 512 /* of one block; always a multiple of 32 */
#define TT_CUDA_MAX_PARTS   16  /* tensors of one move: TUTTI_MAX_ROW_PARTS */
#define TT_CUDA_PARTS       3   /* of the one-shot memory, used in turn */
#define TT_CUDA_P2P_OPS     64  /* of one launch: one each way for every pair, at least */
#define TT_CUDA_P2P_LANES   64  /* that a message may be divided among, at most */
#define TT_CUDA_P2P_RING    4   /* chunks of a lane that are under way at most */

/* An arena: one allocation of GPU memory per rank, mapped by all ranks.
 *
 *   0          struct tt_cuda_block [TT_CUDA_MAX_BLOCKS]    written by its own rank only
 *   WAITS      uint64_t, likewise: the last epoch in which this rank has waited for about a ms
 *   FLAGS      uint64_t [TT_N_FLAGS][TT_CUDA_MAX_BLOCKS][TT_CUDA_MAX_RANKS], written by the peers
 *   packets    [2 halves][n_ranks][packet_slot]             written by the peers, flags in the data
 *   one_shot   [3 parts][one_shot_part]                     written by the peers, all ones when idle
 *   sentinel   [2 halves][sentinel_half]                    the same, of two-shot and staged moves
 *   P2P        uint64_t [TT_N_P2P_WORDS][TT_CUDA_P2P_LANES][TT_CUDA_MAX_RANKS]
 *   COUNTS     packets [2 halves][TT_CUDA_MAX_RANKS]        written by the peers, flags in the data
 *   p2p        [n_ranks - 1][p2p_slot]                      written by the peers, all ones when idle
 */
struct tt_cuda_block {
    uint64_t epoch;  /* launches that this block has finished */
    uint32_t failed; /* a wait has failed: every later launch ends at once */
    uint32_t next; /* the part of the one-shot memory that the next launch may use; << 2: vectors at
                      * the beginning of the part before it that the next launch is to put right */
};

/* In which launch, as a kernel marks it; 1: from outside. Blocks of that launch may begin after it, and do as if
 * they had begun before. */
#define TT_CUDA_FAILED_IN(epoch) ((uint32_t)(epoch) << 2 | 2)

enum tt_cuda_flag {
    TT_FLAG_ENTRY, /* value: epoch. My kernel has begun: my windows may be read and written */
    TT_FLAG_EXIT,  /* value: epoch. I have read and written all that I wanted of yours */
    TT_FLAG_CREDIT, /* value: epoch << 24 | chunks of this launch that have been taken out of my memory */
    TT_N_FLAGS
};

/* Of sends and receives, which only two ranks take part in and which are no epoch therefore. Chunks
 * are counted per lane and pair from the creation of the communicator on. */
enum tt_cuda_p2p_word {
    TT_P2P_CREDIT, /* by the receiver, in the sender's arena: TT_CUDA_P2P_CREDIT() */
    TT_P2P_SENT,   /* own: chunks of earlier messages */
    TT_P2P_TAKEN,  /* own: the same of the other direction */
    TT_N_P2P_WORDS
};

/* How many chunks may be put, modulo 2^24, and of how long a message. */
#define TT_CUDA_P2P_CHUNKS                UINT64_C(0xffffff)
#define TT_CUDA_P2P_CREDIT(chunks, bytes) ((uint64_t)(bytes) << 24 | ((chunks)&TT_CUDA_P2P_CHUNKS))

#define TT_CUDA_WAITS_AT (TT_CUDA_MAX_BLOCKS * 16)
#define TT_CUDA_FLAGS_AT 4096
#define TT_CUDA_P2P_AT   (TT_CUDA_FLAGS_AT + TT_N_FLAGS * TT_CUDA_MAX_BLOCKS * TT_CUDA_MAX_RANKS * 8)
#define TT_CUDA_COUNTS_AT                                                                          \
    (TT_CUDA_P2P_AT + TT_N_P2P_WORDS * TT_CUDA_P2P_LANES * TT_CUDA_MAX_RANKS * 8)
#define TT_CUDA_CONTROL_BYTES (TT_CUDA_COUNTS_AT + 2 * TT_CUDA_MAX_RANKS * 16)

struct tt_cuda_layout {
    uint64_t packets, packet_slot;    /* 16-byte packets of 8 bytes of data and two flags */
    uint64_t one_shot, one_shot_part; /* 16-byte vectors of floats */
    uint64_t sentinel, sentinel_half; /* likewise, and anything else in tiles of move_tiles.inc */
    uint64_t p2p, p2p_slot;           /* [lanes][TT_CUDA_P2P_RING] chunks, in tiles */
    uint64_t bytes;                   /* of the whole arena */
};

/* In pinned host memory: how a kernel is told to end, and how it says why it did. */
struct tt_cuda_report {
    uint32_t abort;    /* set by the host */
    uint32_t result;   /* 0, or minus the tutti_result of the first failure, set once by a kernel */
    int32_t peer;      /* who was missing */
    uint32_t coll;     /* enum tt_coll */
    uint64_t epoch;    /* of the launch that failed */
    uint32_t sequence; /* of its collective; 0: no kernel said */
    /* TIMEOUT: ns waited. MISMATCH of counts in GPU memory: the count that is above its bound, 0 if
     * ranks have different ones. */
    uint64_t detail;
    uint64_t verdict; /* the host's, once it has looked: report.c */
};

/* What every launch reads stands together and first: each line of 64 bytes is fetched when a kernel first
 * touches it, and small calls wait for nothing longer. Lines begin at 48, 112, 176 ... of the arguments:
 * one for a reduction's own, one for what comes before `arena`, one for eight arenas. */
struct tt_cuda_base {
    int32_t rank, n_ranks;
    uint16_t meet; /* 1: some pair of ranks moves no data, so each shows the others that it came */
    uint16_t coll; /* enum tt_coll, for the report, as is: */
    uint32_t
        sequence; /* the collective's number when it was put on its stream or captured; nothing follows from it */
    uint64_t one_shot, one_shot_part, sentinel, sentinel_half; /* of layout */
    struct tt_cuda_report *report;
    uint64_t timeout_ns;
    unsigned char *arena[TT_CUDA_MAX_RANKS]; /* of every rank, as mapped here */
    struct tt_cuda_layout layout;
};

/* Who gets the result of which part of `send`: everybody of everything; root of everything; rank r of shard r
 * only; everybody of everything again, but each rank reduces all of it itself: a shard, for each rank, is all
 * of `send`. What is pushed to an owner and not passed on by him takes one hop, else it is two. */
enum tt_cuda_result_to { TT_RESULT_ALL, TT_RESULT_ROOT, TT_RESULT_SHARD, TT_RESULT_WHOLE };

#define TT_CUDA_HOPS(result_to) ((result_to) < TT_RESULT_SHARD ? 2u : 1u)

/* What one-shot and two-shot can hold. One-shot: the most bytes of `send`. Two-shot: the most bytes
 * of `chunk`: two chunks are under way, each with a slot of every source and, for the second hop, one of
 * every owner (of two ranks, the only peer is either). */
static inline uint64_t tt_cuda_one_shot_bytes(const struct tt_cuda_layout *layout, int n_ranks,
                                              int packets)
{
    return (packets ? layout->packet_slot / 2 : layout->one_shot_part / (uint64_t)n_ranks) &
           ~(uint64_t)15;
}

static inline uint64_t tt_cuda_two_shot_chunk(const struct tt_cuda_layout *layout, int n_ranks,
                                              int packets, int32_t result_to)
{
    const uint64_t n = (uint64_t)n_ranks, slots = n == 2 ? 1 : n; /* tt_slots() */
    const uint64_t places = 2 * slots * TT_CUDA_HOPS(result_to);

    return (packets ? n * layout->packet_slot / 2 : layout->sentinel_half) / places &
           ~(uint64_t)127;
}

/* Counts in GPU memory, which the kernel reads: kernels/counts.inc. */
struct tt_cuda_counts {
    const uint64_t *given; /* what I send each rank; is_one: [1], of the block that all ranks get */
    uint64_t *received;    /* NULL, or where the kernel leaves what came from each */
    uint64_t max;          /* of every count; the launch is shaped by it */
    uint64_t send_stride, recv_stride; /* units from block to block; 0: one right after another */
    uint64_t unit_bytes;               /* of reductions; moves have it in their parts */
    int32_t is_one;
};

/* all_reduce, reduce_scatter(v), reduce. Rank r reduces shard r of everybody's send. One-shot: ALL;
 * direct: all but WHOLE. */
struct tt_cuda_reduce_args {
    const unsigned char *send;
    /* RESULT_SHARD: of my shard only; RESULT_ROOT: used by root only; one-shot: NULL: I keep nothing. */
    unsigned char *recv;
    uint64_t bytes; /* of send */
    /* two-shot: bytes of every shard that go at a time: a multiple of 16, at least 16, at most
     * tt_cuda_two_shot_chunk(), or twice that if it is the longest shard; the same on all ranks. Up to
     * two chunks no flags are needed. Best: the longest shard rounded up to 16 where that fits. */
    uint64_t chunk;
    uint64_t stride; /* bytes of every shard, where all are equal, whole and aligned; else 0 */
    int32_t op;      /* tutti_op */
    int32_t result_to;
    struct tt_cuda_base base;
    int32_t root;
    int32_t aligned; /* send, recv and all shards begin at multiples of 16 bytes */
    uint64_t shard_at[TT_CUDA_MAX_RANKS], shard_bytes[TT_CUDA_MAX_RANKS]; /* in send */
    const unsigned char
        *peer_send[TT_CUDA_MAX_RANKS]; /* direct: everybody's windows, mapped here */
    unsigned char *peer_recv[TT_CUDA_MAX_RANKS];
    struct tt_cuda_counts counts; /* counted kernels, which fill the shards in themselves */
};

/* All that the kernels of even.inc read of them. A driver copies arguments at every launch, and 1.5 KB take it
 * 0.2 to 0.5 us longer than these. */
#define TT_CUDA_FIRST_BYTES 176

struct tt_cuda_even_args {
    uint64_t first[TT_CUDA_FIRST_BYTES / 8];
};

/* Staged moves and messages go by tiles of TILE_BYTES, which take TILE_ROOM. A pair has a ring of slots for
 * the first in the sentinel memory, and one for each lane of the second. */
#define TT_CUDA_TILE_THREADS 32
#define TT_CUDA_TILE_DEPTH   8 /* vectors of each thread */
#define TT_CUDA_TILE_BYTES   (TT_CUDA_TILE_THREADS * TT_CUDA_TILE_DEPTH * 16)
#define TT_CUDA_TILE_TOPS    (TT_CUDA_TILE_THREADS * 4)
#define TT_CUDA_TILE_ROOM    (TT_CUDA_TILE_TOPS + TT_CUDA_TILE_BYTES)
#define TT_CUDA_STAGED_RING  4

/* What one part of what a pair moves takes of a packet slot: 16 bytes for every 8. A move can go by
 * packets if no pair's parts need more than layout.packet_slot together. */
static inline uint64_t tt_cuda_packet_bytes(uint64_t part_bytes)
{
    return (part_bytes / 8 + (part_bytes % 8 != 0)) * 16;
}

/* Everything that moves blocks between pairs of ranks. Offsets and lengths are in units; part i has
 * units of part[i].unit_bytes. A rank's own block is copied too, unless it is in place. No parts: a
 * barrier (packets). An all_to_all in place cannot be direct. */
struct tt_cuda_move_args {
    struct tt_cuda_base base;
    struct {
        const unsigned char *send;
        unsigned char *recv;
        uint64_t unit_bytes;
    } part[TT_CUDA_MAX_PARTS];
    int32_t n_parts;
    uint64_t send_at[TT_CUDA_MAX_RANKS], send_units[TT_CUDA_MAX_RANKS]; /* to each rank */
    uint64_t recv_at[TT_CUDA_MAX_RANKS], recv_units[TT_CUDA_MAX_RANKS]; /* from each rank */
    /* direct (one part): where my block for rank r goes, as mapped here */
    unsigned char *peer_recv[TT_CUDA_MAX_RANKS];
    /* counted kernels, which fill in the blocks; peer_recv are the windows' recv as a whole then */
    struct tt_cuda_counts counts;
};

/* Sends and receives, those of one peer and direction one after another. */
struct tt_cuda_p2p_op {
    unsigned char *buf;
    uint64_t bytes;
    int32_t peer, is_send;
    int32_t lanes;   /* blocks that share it: both ends say the same */
    int32_t is_last; /* of its peer and direction */
};

struct tt_cuda_p2p_args {
    struct tt_cuda_base base;
    uint64_t chunk, place;          /* bytes of a chunk, and what it takes of a ring */
    int32_t n_channels, lanes;      /* pairs of peer and direction; the most lanes of any op */
    int32_t first[TT_CUDA_P2P_OPS]; /* op of each channel */
    struct tt_cuda_p2p_op op[TT_CUDA_P2P_OPS];
};

/* ---- what leaves the host, through pinned memory that a proxy reads and fills: kernels/stage.inc ---- */

#define TT_CUDA_STAGE_BLOCKS 200 /* tensors' blocks of one launch, both ways together */
#define TT_CUDA_STAGE_RANKS  100 /* of a communicator: a block for each, both ways */
#define TT_CUDA_STAGE_SLOTS  4   /* chunks that may be under way, each way */
#define TT_CUDA_STAGE_LEAST                                                                        \
    4096 /* bytes of a window at least: what a packet of the network holds */

struct tt_cuda_stage_block {
    unsigned char *at;
    uint64_t bytes;
};

/* What follows from counts in GPU memory: the proxy's. */
struct tt_cuda_stage_plan {
    uint64_t slice, n_chunks;
    struct {
        uint64_t at, bytes; /* from where the launch says that the block begins */
    } block[TT_CUDA_STAGE_BLOCKS];
    uint64_t received[TT_CUDA_STAGE_RANKS];
};

/* Words in pinned memory. All counters grow for ever; a side writes its own and reads the other's. */
struct tt_cuda_stage_words {
    /* The GPU's: which launch has begun, counted from 1, and what it is. `launch` is written last. */
    uint64_t launch, record, n_chunks;
    uint64_t shape; /* blocks << 32 | out_blocks << 16 | in_blocks */
    uint64_t unused_[4];
    /* The proxy's: chunks carried out, of all launches. Their results are in their slots. */
    uint64_t done;
    uint64_t planned; /* the last launch whose plan is below */
    uint64_t unused2_[6];
    /* The GPU's, by block: chunks that it has put into slots, and whose results it has taken. */
    uint64_t put[TT_CUDA_MAX_BLOCKS], taken[TT_CUDA_MAX_BLOCKS];
    /* Of messages, in bytes: the GPU's, put into a window or taken out of it; the proxy's, taken out of
     * a window or put into it. */
    uint64_t gpu_bytes[TT_CUDA_STAGE_BLOCKS], host_bytes[TT_CUDA_STAGE_BLOCKS];
    uint64_t counts[TT_CUDA_STAGE_RANKS]; /* the GPU's, of a launch with counts in GPU memory */
    struct tt_cuda_stage_plan plan;
};

/* In GPU memory, by block of a launch: what the next one begins with. */
struct tt_cuda_stage_counters {
    uint64_t launches, chunks;
};

/* What any launch that the proxy completes shows it, and counts from. */
struct tt_cuda_stage_side {
    struct tt_cuda_stage_words *words;       /* as the GPU sees them */
    struct tt_cuda_stage_counters *counters; /* [TT_CUDA_MAX_BLOCKS] */
    uint64_t record;                         /* the proxy's */
    uint64_t n_chunks;
    uint64_t timeout_ns;           /* of waits for the proxy, which knows better whom it misses */
    int32_t out_blocks, in_blocks; /* of the launch: the first so many, and the last so many */
};

/* Chunk c is the bytes [c * slice, (c + 1) * slice) of every block, one after another in a slot. */
struct tt_cuda_stage_args {
    struct tt_cuda_base base;
    struct tt_cuda_stage_side side;
    unsigned char *out, *in; /* [TT_CUDA_STAGE_SLOTS][slot_bytes] each, as the GPU sees them */
    uint64_t slot_bytes;
    uint64_t *bytes_before; /* messages: [TT_CUDA_STAGE_BLOCKS] of earlier launches */
    const uint64_t *given;  /* counts in GPU memory: [n_given] */
    uint64_t *received;     /* NULL, or [n_received] */
    uint64_t slice;
    uint64_t window;     /* messages: bytes of each; a multiple of 256 */
    int32_t n_out, n_in; /* blocks; messages: sends, receives */
    int32_t n_given, n_received;
    struct tt_cuda_stage_block block[TT_CUDA_STAGE_BLOCKS]; /* out first, then in */
};

/* An all_reduce in one launch: the sum of this host's ranks into a slot of the stage, the proxy's answer out of
 * another into `recv`. */
struct tt_cuda_rail_args {
    struct tt_cuda_reduce_args sum; /* whose recv is the slot out */
    struct tt_cuda_stage_side side; /* of one chunk */
    const unsigned char *in;
    unsigned char *recv;
    int32_t aligned; /* recv is */
};

#endif
