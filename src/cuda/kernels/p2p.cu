/* The kernel of sends and receives. */
#include "cuda/kernels/p2p.inc"

TT_KERNEL(tt_p2p, tt_cuda_p2p_args)
{
    tt_p2p_run(&args);
}
