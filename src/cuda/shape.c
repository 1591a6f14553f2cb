/*
 * Which algorithm, how many blocks and threads: functions of what all ranks know, and of nothing else,
 * so that they never disagree. shape_table.inc holds the figures.
 */
#include <limits.h>

#include "base/error.h"
#include "cuda/cuda.h"

#define MOVE_VECTORS 4 /* that a thread moves at a time, at least */
#define P2P_LANE_MIN 16384u
#define STAGED_ITEM  32 /* bytes: of few tiles each has a block of 128 threads to itself */
#define UNKNOWN_SENT ((uint64_t)2 << 20) /* not too wide for little, nor too narrow for much */

enum family {
    REDUCE_ALL,
    REDUCE_ALL_PACKETS, /* each family of reductions is followed by its packets */
    REDUCE_SHARD,
    REDUCE_SHARD_PACKETS,
    MOVE
};
enum kind { ONE_SHOT, TWO_SHOT, DIRECT, MOVE_PACKET, MOVE_STAGED, MOVE_DIRECT };

static const struct algo_row {
    enum family family;
    int max_ranks;
    uint64_t max_bytes;
    enum tt_algo any, windows;
} algo_rows[] = {
#define ALGO(family, ranks, bytes, any, windows)                                                   \
    {family, ranks, bytes, TT_ALGO_##any, TT_ALGO_##windows},
#define WIDTH(kind, items, threads, blocks)
#include "cuda/shape_table.inc"
#undef ALGO
#undef WIDTH
};

static const struct width_row {
    enum kind kind;
    uint64_t max_items;
    int n_threads, max_blocks;
} width_rows[] = {
#define ALGO(family, ranks, bytes, any, windows)
#define WIDTH(kind, items, threads, blocks) {kind, items, threads, blocks},
#include "cuda/shape_table.inc"
#undef ALGO
#undef WIDTH
};

static enum tt_algo choose(enum family family, int n_ranks, uint64_t bytes, int in_windows)
{
    const struct algo_row *row = algo_rows;

    while (row->family != family || n_ranks > row->max_ranks || bytes > row->max_bytes)
        row++;
    return in_windows ? row->windows : row->any;
}

static struct tt_cuda_shape widen(const struct tt_cuda_limits *limits, enum tt_algo algo,
                                  enum kind kind, uint64_t items)
{
    const struct width_row *row = width_rows;
    struct tt_cuda_shape shape = {.algo = algo};
    uint64_t blocks;

    while (row->kind != kind || items > row->max_items)
        row++;
    blocks = items / (uint64_t)row->n_threads + (items % (uint64_t)row->n_threads != 0);
    if (blocks > (uint64_t)row->max_blocks)
        blocks = (uint64_t)row->max_blocks;
    if (blocks > (uint64_t)limits->max_blocks)
        blocks = (uint64_t)limits->max_blocks;
    shape.n_blocks = blocks ? (int)blocks : 1;
    shape.n_threads = row->n_threads;
    if (limits->n_blocks) {
        shape.n_blocks =
            limits->n_blocks < limits->max_blocks ? limits->n_blocks : limits->max_blocks;
        shape.n_threads = limits->n_threads;
    }
    return shape;
}

struct tt_cuda_shape tt_cuda_reduce_shape(const struct tt_cuda_limits *limits, enum tt_coll coll,
                                          enum tt_algo force, uint64_t bytes, int in_windows,
                                          int packets)
{
    const enum family family = (enum family)(
        (coll == TT_COLL_REDUCE_SCATTER ? REDUCE_SHARD : REDUCE_ALL) + (packets != 0));
    const uint64_t shard = bytes / (uint64_t)limits->n_ranks + 1;
    const int fits = bytes <= tt_cuda_one_shot_bytes(&limits->layout, limits->n_ranks, packets);
    enum tt_algo algo =
        force != TT_ALGO_AUTO ? force : choose(family, limits->n_ranks, bytes, in_windows);
    struct tt_cuda_shape shape;

    if (algo == TT_ALGO_DIRECT && !in_windows)
        algo = TT_ALGO_TWO_SHOT;
    if (algo == TT_ALGO_ONE_SHOT && coll != TT_COLL_ALL_REDUCE &&
        (coll == TT_COLL_REDUCE_SCATTER || !fits))
        algo = TT_ALGO_TWO_SHOT;
    if (algo == TT_ALGO_DIRECT)
        return widen(limits, algo, DIRECT, shard / 16 + 1);
    if (algo == TT_ALGO_ONE_SHOT) {
        shape = widen(limits, algo, fits ? ONE_SHOT : TWO_SHOT, bytes / (packets ? 8 : 16) + 1);
        shape.in_chunks = !fits;
        return shape;
    }
    return widen(limits, TT_ALGO_TWO_SHOT, TWO_SHOT, shard / (packets ? 8 : 16) + 1);
}

struct tt_cuda_shape tt_cuda_move_shape(const struct tt_cuda_limits *limits, enum tt_algo force,
                                        uint64_t pair_bytes, uint64_t pair_room, int in_windows)
{
    /* One rank still copies its own block. */
    const uint64_t peers = limits->n_ranks > 1 ? (uint64_t)limits->n_ranks - 1 : 1;
    const uint64_t sent =
        pair_bytes <= UINT64_MAX / TT_CUDA_MAX_RANKS ? pair_bytes * peers : UINT64_MAX;
    enum tt_algo algo =
        force != TT_ALGO_AUTO ? force : choose(MOVE, limits->n_ranks, sent, in_windows);

    if (algo == TT_ALGO_DIRECT && !in_windows)
        algo = TT_ALGO_TWO_SHOT;
    if (algo == TT_ALGO_ONE_SHOT && pair_room > limits->layout.packet_slot)
        algo = TT_ALGO_TWO_SHOT;
    if (algo == TT_ALGO_DIRECT)
        return widen(limits, algo, MOVE_DIRECT, sent / (16 * MOVE_VECTORS));
    if (algo == TT_ALGO_ONE_SHOT)
        return widen(limits, algo, MOVE_PACKET, pair_room / (16 * MOVE_VECTORS) * peers + peers);
    return widen(limits, TT_ALGO_TWO_SHOT, MOVE_STAGED,
                 (pair_bytes == UINT64_MAX ? UNKNOWN_SENT : sent) / STAGED_ITEM);
}

void tt_cuda_take_width(const struct tt_cuda_limits *limits, enum tt_algo algo,
                        struct tt_width width, struct tt_cuda_shape *shape)
{
    if (width.n_blocks == 0 || shape->algo != algo || limits->n_blocks)
        return;
    shape->n_blocks = width.n_blocks < limits->max_blocks ? width.n_blocks : limits->max_blocks;
    shape->n_threads = width.n_threads;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * UINT64_C(0x100000001b3) ^ hash >> 29;
}

uint64_t tt_cuda_table_id(void)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < TT_LEN(algo_rows); i++) {
        const struct algo_row *row = &algo_rows[i];

        hash = mix(mix(mix(hash, row->family), (uint64_t)row->max_ranks), row->max_bytes);
        hash = mix(mix(hash, row->any), row->windows);
    }
    for (size_t i = 0; i < TT_LEN(width_rows); i++) {
        const struct width_row *row = &width_rows[i];

        hash = mix(mix(hash, row->kind), row->max_items);
        hash = mix(mix(hash, (uint64_t)row->n_threads), (uint64_t)row->max_blocks);
    }
    return hash;
}

int tt_cuda_p2p_lanes(const struct tt_cuda_limits *limits, uint64_t bytes)
{
    /* To one peer and from one at once, as in a ring or a pipeline, all blocks have a lane. With more peers
     * blocks have several, and serve whichever can go on. */
    const int blocks = limits->max_blocks / 2;
    uint64_t lanes = bytes / P2P_LANE_MIN;

    if (lanes > (uint64_t)tt_cuda_p2p_most_lanes(&limits->layout))
        lanes = (uint64_t)tt_cuda_p2p_most_lanes(&limits->layout);
    if (lanes > (uint64_t)(blocks > 0 ? blocks : 0))
        lanes = (uint64_t)blocks;
    return lanes ? (int)lanes : 1;
}
