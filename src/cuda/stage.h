/*
 * The stage: how tensors get to pinned host memory and back, for what goes to other hosts. One side puts
 * calls on a stream, the other, a proxy's thread, finds them when their kernels run, and carries them
 * out on host memory, chunk by chunk. docs/design/cuda.md: "The stage"
 */
#ifndef TT_CUDA_STAGE_H
#define TT_CUDA_STAGE_H

#include "base/engine.h"
#include "cuda/kernel_args.h"

struct tt_cuda_stage;

/* Local. slot_bytes: of the slices of a chunk together, each way; a multiple of 4096. */
tutti_result tt_cuda_stage_open(struct tt_engine *engine, uint64_t slot_bytes,
                                struct tt_cuda_stage **stage_out);
/* The engine has quietened, and nobody serves the stage any more. NULL is fine. */
void tt_cuda_stage_close(struct tt_cuda_stage *stage);
uint64_t tt_cuda_stage_memory(const struct tt_cuda_stage *stage);

/* A call: blocks that go out, then blocks that come in. */
struct tt_cuda_stage_call {
    void *record; /* what the proxy finds */
    enum tt_cuda_stage_way {
        TT_STAGE_CHUNKS,
        TT_STAGE_COUNTED,
        TT_STAGE_MESSAGES,
        TT_STAGE_SUM
    } way;
    enum tt_coll coll;
    int n_out, n_in; /* together at most TT_CUDA_STAGE_BLOCKS */
    const struct tt_cuda_stage_block *blocks;
    uint64_t slice, n_chunks; /* chunks: of every block */
    uint64_t window;          /* messages: of each, tt_cuda_stage_window() */
    const uint64_t *given;    /* counted: [n_given] counts in GPU memory */
    uint64_t *received;       /* NULL, or [n_received], where the proxy's answer goes */
    int n_given, n_received;
    tutti_dtype dtype; /* sum */
    tutti_op op;
    tutti_stream stream;
};

/* Put on the stream: in chunks; in chunks of blocks that follow from counts in GPU memory (`bytes` are
 * the most that they may have); each block as a message of its own; or what goes out is the sum of one block
 * of each rank of this host, which all call. */
tutti_result tt_cuda_stage_launch(struct tt_cuda_stage *stage,
                                  const struct tt_cuda_stage_call *call);
/* Is that a sum for one launch: does it fit a slot, and the memory that ranks of this host send it through? */
int tt_cuda_stage_sums(const struct tt_cuda_stage *stage, tutti_dtype dtype, uint64_t bytes);
/* Bytes of each message's window if there are so many of them each way; 0: too many. */
uint64_t tt_cuda_stage_window(const struct tt_cuda_stage *stage, int n_out, int n_in);
/* What a group of sends and receives has for `rank` itself, which is this one: checked, then copied on the
 * stream, and marked as done. */
tutti_result tt_cuda_serve_oneself(struct tt_engine *engine, int rank, struct tt_p2p ops[],
                                   size_t n_ops);
/* Within this GPU, on the stream. */
tutti_result tt_cuda_copy(struct tt_engine *engine, void *to, const void *from, size_t bytes,
                          tutti_stream stream);
/* Counters. bytes: of the larger side of a call. */
void tt_cuda_note(struct tt_engine *engine, const struct tt_call *call, uint64_t bytes);
/* Is the stream being captured, so that a call on it may come again for ever? */
tutti_result tt_cuda_is_captured(struct tt_engine *engine, tutti_stream stream, int *is_out);

/* ---- the proxy's side: one thread, but for chunks and messages, which several may share out ---- */

/* The record of a call whose kernel has begun, once; else NULL. */
void *tt_cuda_stage_next(struct tt_cuda_stage *stage);
/* Counted: what the GPU has given, and where to leave what follows from it; then to say that it is there. */
uint64_t tt_cuda_stage_count(const struct tt_cuda_stage *stage, int i);
struct tt_cuda_stage_plan *tt_cuda_stage_plan(struct tt_cuda_stage *stage);
void tt_cuda_stage_planned(struct tt_cuda_stage *stage);
/* 1 if chunk c of that call lies in its slot, and there is room for its result. */
int tt_cuda_stage_is_put(const struct tt_cuda_stage *stage, uint64_t c);
/* 1 if nothing keeps the GPU from putting it there: so many before it are done. */
int tt_cuda_stage_is_due(const struct tt_cuda_stage *stage, uint64_t c);
/* The slots of that chunk. */
unsigned char *tt_cuda_stage_out(const struct tt_cuda_stage *stage, uint64_t c);
unsigned char *tt_cuda_stage_in(const struct tt_cuda_stage *stage, uint64_t c);
/* The next chunk is carried out; one thread at a time. Messages: all of them are, which counts as one chunk. */
void tt_cuda_stage_done(struct tt_cuda_stage *stage);

/* The windows of a call's messages, i counted over both ways; how many bytes the GPU has put into one or
 * taken out of it; to tell it the other side's number. Settle: when all are done, given what each had. */
unsigned char *tt_cuda_stage_window_at(const struct tt_cuda_stage *stage, int n_out, int i,
                                       uint64_t window);
uint64_t tt_cuda_stage_moved(const struct tt_cuda_stage *stage, int i);
void tt_cuda_stage_tell(struct tt_cuda_stage *stage, int i, uint64_t bytes);
void tt_cuda_stage_settle(struct tt_cuda_stage *stage, int i, uint64_t bytes);

/* ---- failing with the proxy. No call of the driver: any thread ---- */

/* What kernels of this rank, or an abort, have reported, with its text; the rank at fault, or -1. */
tutti_result tt_cuda_failed(const struct tt_engine *engine, int *peer_out);
/* End the kernels of this rank. */
void tt_cuda_end(const struct tt_engine *engine, tutti_result why);

#endif
