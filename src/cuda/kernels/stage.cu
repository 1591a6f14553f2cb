/* The kernels between tensors and what the host's proxy carries to other hosts. */
#include "cuda/kernels/stage_messages.inc"

TT_KERNEL(tt_stage, tt_cuda_stage_args)
{
    tt_stage_body(&args);
}

TT_KERNEL(tt_stage_counted, tt_cuda_stage_args)
{
    tt_stage_counted_body(&args);
}

TT_KERNEL(tt_stage_messages, tt_cuda_stage_args)
{
    tt_stage_messages_body(&args);
}
