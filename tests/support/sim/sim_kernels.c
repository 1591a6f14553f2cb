/* The kernels by name, as cuLibraryGetKernel finds them. They themselves are src/cuda/kernels/(*.cu),
 * compiled as C. */
#include "support/sim/sim.h"

#define TT_REDUCE(name, body, wire, dtype, op, n) void name(const void *args);
#define TT_MOVE(name, body)                       void name(const void *args);
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE

#define ARGS(type)       sizeof(struct type), offsetof(struct type, base)
#define ARGS_MOVE_PACKET ARGS(tt_cuda_move_args)
#define ARGS_MOVE_STAGED ARGS(tt_cuda_move_args)
#define ARGS_MOVE_DIRECT ARGS(tt_cuda_move_args)
#define ARGS_P2P         ARGS(tt_cuda_p2p_args)

#define ARGS_STAGE          ARGS(tt_cuda_stage_args)
#define ARGS_STAGE_COUNTED  ARGS(tt_cuda_stage_args)
#define ARGS_STAGE_MESSAGES ARGS(tt_cuda_stage_args)

#define ARGS_MOVE_PACKET_COUNTED ARGS(tt_cuda_move_args)
#define ARGS_MOVE_STAGED_COUNTED ARGS(tt_cuda_move_args)
#define ARGS_MOVE_DIRECT_COUNTED ARGS(tt_cuda_move_args)

const struct tt_sim_entry tt_sim_kernels[] = {
#define TT_REDUCE(name, body, wire, dtype, op, n)                                                  \
    {#name, name, sizeof(struct TT_ARGS_##body), offsetof(struct tt_cuda_reduce_args, base)},
#define TT_MOVE(name, body) {#name, name, ARGS_##body},
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE
};
const size_t tt_sim_n_kernels = sizeof(tt_sim_kernels) / sizeof(tt_sim_kernels[0]);
