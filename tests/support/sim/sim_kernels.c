/* The kernels by name, as cuLibraryGetKernel finds them. They themselves are src/cuda/kernels/(*.cu),
 * compiled as C. */
#include "support/sim/sim.h"

#define TT_REDUCE(name, body, wire, dtype, op, n) void name(const void *args);
#define TT_MOVE(name, body)                       void name(const void *args);
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE

#define BYTES_MOVE_PACKET sizeof(struct tt_cuda_move_args)
#define BYTES_MOVE_STAGED sizeof(struct tt_cuda_move_args)
#define BYTES_MOVE_DIRECT sizeof(struct tt_cuda_move_args)
#define BYTES_P2P         sizeof(struct tt_cuda_p2p_args)

const struct tt_sim_entry tt_sim_kernels[] = {
#define TT_REDUCE(name, body, wire, dtype, op, n) {#name, name, sizeof(struct tt_cuda_reduce_args)},
#define TT_MOVE(name, body)                       {#name, name, BYTES_##body},
#include "cuda/kernels/variants.inc"
#undef TT_REDUCE
#undef TT_MOVE
};
const size_t tt_sim_n_kernels = sizeof(tt_sim_kernels) / sizeof(tt_sim_kernels[0]);
