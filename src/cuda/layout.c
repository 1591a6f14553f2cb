/* How an arena is divided. */
#include "base/error.h"
#include "cuda/cuda.h"

#define PAGE         4096u
#define LEAST_A_RANK 65536u

/* Shares of what the flags leave, in thirty-seconds; two-shot and staged moves have the rest. */
#define PACKETS  2
#define P2P      8
#define ONE_SHOT 4

static uint64_t down(uint64_t bytes, uint64_t unit)
{
    return bytes / unit * unit;
}

/* Smaller slots begin at cache lines, larger ones at pages. */
static uint64_t slot(uint64_t bytes, uint64_t n)
{
    const uint64_t each = bytes / n;

    return down(each, each >= 16 * PAGE ? PAGE : 256);
}

tutti_result tt_cuda_layout(int n_ranks, uint64_t scratch_bytes, struct tt_cuda_layout *layout)
{
    const uint64_t n = (uint64_t)n_ranks, peers = n > 1 ? n - 1 : 1;
    const uint64_t control = down(TT_CUDA_CONTROL_BYTES + PAGE - 1, PAGE);
    const uint64_t least = control + n * LEAST_A_RANK;
    uint64_t room;

    if (scratch_bytes < least)
        return TT_FAIL(TUTTI_E_ARG,
                       "scratch_bytes is %llu; %d GPU ranks need at least %llu "
                       "(config.scratch_bytes or TUTTI_CUDA_SCRATCH)",
                       (unsigned long long)scratch_bytes, n_ranks, (unsigned long long)least);
    room = scratch_bytes - control;
    layout->packets = control;
    layout->packet_slot = slot(room / 32 * PACKETS, 2 * n);
    layout->p2p = layout->packets + 2 * n * layout->packet_slot;
    layout->p2p_slot = slot(room / 32 * P2P, peers);
    layout->one_shot = down(layout->p2p + peers * layout->p2p_slot + 255, 256);
    layout->one_shot_part = slot(room / 32 * ONE_SHOT, TT_CUDA_PARTS);
    layout->sentinel = down(layout->one_shot + TT_CUDA_PARTS * layout->one_shot_part + 255, 256);
    layout->sentinel_half = slot(scratch_bytes - layout->sentinel, 2);
    layout->bytes = scratch_bytes;
    return TUTTI_OK;
}

/* Lanes of whole tiles, as many as there is room for; one, of shorter ones, where there is room for none. */
int tt_cuda_p2p_most_lanes(const struct tt_cuda_layout *layout)
{
    const uint64_t lanes = layout->p2p_slot / (TT_CUDA_P2P_RING * TT_CUDA_TILE_ROOM);

    return lanes > TT_CUDA_P2P_LANES ? TT_CUDA_P2P_LANES : lanes > 0 ? (int)lanes : 1;
}

uint64_t tt_cuda_p2p_place(const struct tt_cuda_layout *layout)
{
    return down(layout->p2p_slot / TT_CUDA_P2P_RING / (uint64_t)tt_cuda_p2p_most_lanes(layout),
                TT_CUDA_TILE_TOPS);
}
