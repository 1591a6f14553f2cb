/*
 * A stream of our own beside the caller's, so that two parts of a call may be under way at the same time. In a
 * capture it joins the caller's graph. While it is in one, calls on other streams go without it.
 */
#ifndef TT_CUDA_SIDE_STREAM_H
#define TT_CUDA_SIDE_STREAM_H

#include "base/engine.h"

#define TT_CUDA_SIDE_MARKS 8

struct tt_cuda_side;

tutti_result tt_cuda_side_open(struct tt_engine *engine, struct tt_cuda_side **side_out);
/* Nothing of it runs any more. NULL is fine. */
void tt_cuda_side_close(struct tt_cuda_side *side);

/* What is put on *own_out next comes after what `stream` has now; it is `stream` itself while ours is in the capture
 * of another one. */
tutti_result tt_cuda_side_branch(struct tt_cuda_side *side, tutti_stream stream,
                                 tutti_stream *own_out);
/* What is put on `stream` after its join comes after what our own stream had at mark i, which is below
 * TT_CUDA_SIDE_MARKS. The last mark of a call is joined before the call returns. */
tutti_result tt_cuda_side_mark(struct tt_cuda_side *side, int i);
tutti_result tt_cuda_side_join(struct tt_cuda_side *side, int i, tutti_stream stream);

#endif
