/* The kernels that move data. */
#include "cuda/kernels/move_counted.inc"

#define TT_BODY_MOVE_PACKET(name)         TT_MOVE_KERNEL_(name, tt_move_packet_body)
#define TT_BODY_MOVE_STAGED(name)         TT_MOVE_KERNEL_(name, tt_move_staged_body)
#define TT_BODY_MOVE_DIRECT(name)         TT_MOVE_KERNEL_(name, tt_move_direct_body)
#define TT_BODY_MOVE_PACKET_COUNTED(name) TT_MOVE_KERNEL_(name, tt_move_packet_counted_body)
#define TT_BODY_MOVE_STAGED_COUNTED(name) TT_MOVE_KERNEL_(name, tt_move_staged_counted_body)
#define TT_BODY_MOVE_DIRECT_COUNTED(name) TT_MOVE_KERNEL_(name, tt_move_direct_counted_body)
#define TT_BODY_P2P(name)                 /* p2p.cu */
#define TT_BODY_STAGE(name)               /* stage.cu */
#define TT_BODY_STAGE_COUNTED(name)       /* stage.cu */
#define TT_BODY_STAGE_MESSAGES(name)      /* stage.cu */
#define TT_MOVE_KERNEL_(name, body)                                                                \
    TT_KERNEL(name, tt_cuda_move_args)                                                             \
    {                                                                                              \
        body(&args);                                                                               \
    }

#define TT_REDUCE(name, body, wire, dtype, op, n)
#define TT_MOVE(name, body) TT_BODY_##body(name)
#include "cuda/kernels/variants.inc"
