/* Inside the engine for GPUs on several hosts. */
#ifndef TT_COLL_HIER_GPU_PARTS_H
#define TT_COLL_HIER_GPU_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/proxy.h"
#include "boot/boot.h"
#include "coll/hier.h"
#include "coll/hier_gpu.h"
#include "cuda/cuda_engine.h"
#include "cuda/side_stream.h"
#include "cuda/stage.h"

/* How the proxy carries out a call's chunks. */
enum tt_gpu_kind {
    TT_GPU_WHOLE,    /* the collective itself, among all ranks */
    TT_GPU_COUNTED,  /* the same, of blocks that follow from counts in GPU memory */
    TT_GPU_RAIL,     /* partial results to their reduction, along the rail */
    TT_GPU_SCATTER,  /* those of a block for each rank that is this one's to serve, to that rank */
    TT_GPU_CROSS,    /* every rank's block once to each other host */
    TT_GPU_ENTRIES,  /* a broadcast's data to one rank of each host */
    TT_GPU_MESSAGES, /* sends and receives, each at its own pace */
};

/* What the proxy knows of a launch. One of a graph is kept as long as the communicator, since it may come
 * again; any other is gone when it has been carried out. */
struct tt_gpu_record {
    struct tt_gpu_record *next, **link;
    int is_captured;
    enum tt_gpu_kind kind;
    struct tt_call call; /* without buffers and counts */
    uint64_t slice, n_chunks, window;
    tutti_device_counts counts; /* COUNTED */
    int n_parts;                /* COUNTED: tensors of each rank */
    int n_out, n_in;
    uint64_t *sizes; /* CROSS, SCATTER: [n_ranks], of all ranks' blocks; behind the parts */
    struct tt_gpu_part {
        uint64_t bytes; /* COUNTED: of a count of 1 */
        int rank;       /* whose block it is, or who sends or receives it */
        tutti_dtype dtype;
    } part[]; /* out first, then in */
};

/* A proxy's thread, and what it alone has. The first finds the calls, and shares out those that are worth it. */
struct tt_gpu_lane {
    struct tt_engine *e;
    int number;
    struct tt_proxy *proxy;
    struct tt_engine *data;         /* for host memory, with a network of its own */
    uint64_t looked_ns, lived_ns;   /* when it last looked around, and who lives */
    _Atomic int has_work;           /* from the first lane's word to the end of its own share */
    tutti_result result;            /* of that */
    void **places;                  /* [n_ranks] */
    size_t *counts;                 /* [4][n_ranks] */
    struct tt_hier_stream *streams; /* [n_streams]: its messages */
    int *stage_index;               /* [n_streams]: their numbers at the stage */
    size_t n_streams;
    int is_lost; /* its network has failed while it was idle */
};

/* More chunks than that are never under way. */
#define TT_GPU_LANES TT_CUDA_STAGE_SLOTS

/* A call that the lanes have before them: lane k of n has chunks k, k + n, ... */
struct tt_gpu_job {
    const struct tt_gpu_record *record;
    const struct tt_cuda_stage_plan *plan; /* what follows from counts in GPU memory, or NULL */
    uint64_t slice, n_chunks;
    tutti_result (*work)(struct tt_gpu_lane *lane);

    pthread_mutex_t lock; /* of what follows: chunks are done in their order, whoever has them */
    uint64_t n_done;
    uint64_t carried[TT_CUDA_STAGE_SLOTS]; /* 1 + the last chunk of each slot that is carried out */
};

struct tt_engine {
    int rank, n_ranks;
    uint64_t timeout_ns;
    struct tt_hier_place place;
    struct tt_exchange exchange; /* of all ranks, on the caller's thread */
    struct tt_engine *control;   /* for host memory, on the caller's thread */
    struct tt_engine *cuda;      /* among the ranks of this host */
    struct tt_engine *data;      /* for host memory: the first lane's */
    enum tt_algo algo;           /* of steps within the host */
    struct tt_cuda_stage *stage;
    struct tt_cuda_side *side;
    uint64_t slot_bytes;
    unsigned char
        *partials; /* on the GPU, of reduce_scatter: [partial_bytes]; NULL: alone on its host */
    uint64_t partial_bytes;
    int n_lanes; /* the same on all ranks */
    struct tt_gpu_lane lanes[TT_GPU_LANES];
    struct tt_gpu_job job;
    _Atomic int is_stopping, is_busy; /* busy: in the midst of a call */
    int is_over;                      /* the first lane's: it has failed */

    /* What the proxy of this rank alone knows yet: set once, then has_refused. */
    _Atomic int has_refused;
    tutti_result refusal;
    int refusal_peer;
    char refusal_text[200];

    pthread_mutex_t lock; /* of the list */
    struct tt_gpu_record *records;

    uint64_t *words; /* the first lane's: [1 + n_ranks][n_ranks] counts of GPUs */
    size_t *counts;  /* the caller's: [4][n_ranks] */
    void **blocks;   /* the caller's: [n_ranks] */
    char details[448];
};

/* ---- hier_gpu_call.c, hier_gpu_reduce.c, hier_gpu_move.c: from a call to launches ---- */

/* Up to which size fewer launches are better than fewer bytes: of an all_reduce every rank's whole partial
 * result crosses instead of a part for each (hierarchical.md: "A small all_reduce"); of moves everything takes the
 * way of the host's memory. */
#define TT_GPU_SMALL (UINT64_C(32) << 10)

tutti_result tt_hier_gpu_all_reduce(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gpu_reduce_scatter(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gpu_reduce(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gpu_all_gather(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gpu_all_to_all(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gpu_move(struct tt_engine *e, const struct tt_call *call); /* all others */
/* All blocks through the host's memory, in one launch: reduce, even all_to_all, rooted moves, barrier. */
tutti_result tt_hier_gpu_whole(struct tt_engine *e, const struct tt_call *call);

tutti_result tt_hier_gpu_run(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gpu_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops);

/* ---- hier_gpu_stage.c: a launch, and what is kept of it ---- */

/* A launch under preparation: blocks that go out, then those that come in. */
struct tt_gpu_plan {
    enum tt_gpu_kind kind;
    int sums; /* RAIL: what goes out is the sum of what all ranks of the host have, by `partial` */
    tutti_op partial;
    const struct tt_call *call;
    uint64_t longest;                    /* bytes of any rank's longest block */
    uint64_t sizes[TT_CUDA_STAGE_RANKS]; /* CROSS, SCATTER: of every rank's */
    int most;                            /* blocks of any rank, one way */
    int n_out, n_in;
    struct tt_cuda_stage_block blocks[TT_CUDA_STAGE_BLOCKS];
    struct tt_gpu_part parts[TT_CUDA_STAGE_BLOCKS];
};
struct tt_gpu_plan *tt_gpu_plan_begin(struct tt_gpu_plan *plan, enum tt_gpu_kind kind,
                                      const struct tt_call *call);
void tt_gpu_plan_out(struct tt_gpu_plan *plan, const void *at, uint64_t bytes, int rank);
void tt_gpu_plan_in(struct tt_gpu_plan *plan, void *at, uint64_t bytes, int rank);
tutti_result tt_gpu_plan_launch(struct tt_engine *e, struct tt_gpu_plan *plan);

/* A step by the GPUs of this host alone. */
tutti_result tt_hier_gpu_within(struct tt_engine *e, struct tt_call *call);

unsigned char *tt_gpu_at(const void *base, uint64_t offset); /* NULL: of none */
/* Bytes of rank r's block, where all ranks know them; of all ranks' blocks; the longest of all, times `unit`,
 * and how many are not empty. */
uint64_t tt_gpu_block_of(const struct tt_call *call, int r);
uint64_t tt_gpu_all_blocks(const struct tt_engine *e, const struct tt_call *call);
void tt_gpu_measure(const struct tt_engine *e, struct tt_gpu_plan *plan, const struct tt_call *call,
                    uint64_t unit);

/* Do GPUs share a host, and is there enough to move (of all ranks' blocks) that more launches pay? */
int tt_gpu_is_worth_crossing(const struct tt_engine *e, uint64_t bytes);

void tt_gpu_record_drop(struct tt_engine *e, struct tt_gpu_record *record);

/* Slices of blocks of up to `longest` bytes, `most` of them in a slot: the same on all ranks, if they know
 * the same. */
void tt_gpu_cut(const struct tt_engine *e, uint64_t longest, int most, uint64_t *slice_out,
                uint64_t *n_chunks_out);

/* ---- hier_gpu_counts.c: counts in GPU memory ---- */

tutti_result tt_hier_gpu_counted(struct tt_engine *e, const struct tt_call *call);
/* On the proxy: tell all ranks, and answer the GPU. */
tutti_result tt_hier_gpu_plan_counts(struct tt_engine *e, const struct tt_gpu_record *record);

/* ---- hier_gpu_proxy.c ---- */

int tt_hier_gpu_poll(void *first_lane);
/* Without a call: what ended it here, on the GPU, or on another rank. Now and then, however often it is asked. */
tutti_result tt_hier_gpu_look(struct tt_gpu_lane *lane);
/* What has failed, with its text, wherever it was seen first. */
tutti_result tt_hier_gpu_failed(const struct tt_engine *e);

/* ---- hier_gpu_lanes.c ---- */

/* On the first lane: job.work by every lane that `has_share`, and by this one; when all are over, what failed. */
tutti_result tt_gpu_lanes_run(struct tt_engine *e, int (*has_share)(const struct tt_gpu_lane *));
/* Chunk c of the job is carried out: those that are, from the first on that the GPU does not know of, are done. */
void tt_gpu_lanes_carried(struct tt_engine *e, uint64_t c);
/* What a lane has failed with, by the thread's error text, ends all lanes and the kernels. */
void tt_gpu_lanes_fail(struct tt_gpu_lane *lane, tutti_result why);
/* Wakes the lanes that may get one of so many shares. */
void tt_gpu_lanes_kick(struct tt_engine *e, uint64_t n_shares);
void tt_gpu_lanes_abort(struct tt_engine *e);
tutti_result tt_gpu_lanes_start(struct tt_engine *e);
void tt_gpu_lanes_stop(struct tt_engine *e);

#endif
