/* A collective call as every layer below the public functions sees it. Plain data. */
#ifndef TT_BASE_CALL_H
#define TT_BASE_CALL_H

#include <tutti/tutti.h>

/* X(name, text) */
#define TT_COLL_MAP(X)                                                                             \
    X(ALL_REDUCE, "all_reduce")                                                                    \
    X(REDUCE_SCATTER, "reduce_scatter")                                                            \
    X(ALL_GATHER, "all_gather")                                                                    \
    X(ALL_TO_ALL, "all_to_all")                                                                    \
    X(BROADCAST, "broadcast")                                                                      \
    X(REDUCE, "reduce")                                                                            \
    X(GATHER, "gather")                                                                            \
    X(SCATTER, "scatter")                                                                          \
    X(BARRIER, "barrier")                                                                          \
    X(SEND_RECV, "send_recv")

/* Bytes of an element; 0 for what is no dtype. Inline: every call asks several times. */
static inline size_t tt_dtype_bytes(tutti_dtype dtype)
{
    static const unsigned char bytes[] = {
#define TT_DTYPE_BYTES_(name, value, bytes, text) bytes,
        TUTTI_DTYPE_MAP(TT_DTYPE_BYTES_)
#undef TT_DTYPE_BYTES_
    };

    return (unsigned)dtype < sizeof(bytes) ? bytes[dtype] : 0;
}

enum tt_coll {
#define TT_COLL_ENUM_(name, text) TT_COLL_##name,
    TT_COLL_MAP(TT_COLL_ENUM_)
#undef TT_COLL_ENUM_
        TT_N_COLLS
};

/* How a collective is carried out. X(name, text) */
#define TT_ALGO_MAP(X)                                                                             \
    X(AUTO, "auto")                                                                                \
    X(ONE_SHOT, "one_shot") /* everybody shows all its data, everybody reduces or takes all */     \
    X(TWO_SHOT, "two_shot") /* reduce one slice each, then gather the slices */                    \
    X(XMEM, "xmem")         /* slices read from and written to the peers' own memory */            \
    X(DIRECT, "direct")     /* the same through registered windows */                              \
    X(FLAT, "flat")         /* across hosts: sums in the order of a single host */

enum tt_algo {
#define TT_ALGO_ENUM_(name, text) TT_ALGO_##name,
    TT_ALGO_MAP(TT_ALGO_ENUM_)
#undef TT_ALGO_ENUM_
        TT_N_ALGOS
};

/* What the library makes a call of its own for: none of a caller's matches it. X(name, text) */
#define TT_PURPOSE_MAP(X)                                                                          \
    X(CALLER, "")                                                                                  \
    X(LIBRARY, "an exchange of the library's own")                                                 \
    X(SPLIT, "comm_split")                                                                         \
    X(REGISTER, "window_register")                                                                 \
    X(DEREGISTER, "window_deregister")                                                             \
    X(COUNTS, "a call with counts in memory")

enum tt_purpose {
#define TT_PURPOSE_ENUM_(name, text) TT_FOR_##name,
    TT_PURPOSE_MAP(TT_PURPOSE_ENUM_)
#undef TT_PURPOSE_ENUM_
        TT_N_PURPOSES
};

#define TT_TEAM_NONE 0 /* n_threads of an ordinary call */
#define TT_CALL_UNCOUNTED                                                                          \
    (-1) /* thread of a call that is the library's own: not in the statistics */

/* How wide a launch on a GPU is; blocks of 0: the engine chooses. */
struct tt_width {
    uint16_t n_blocks, n_threads;
};

struct tt_call {
    enum tt_coll coll;
    enum tt_algo algo;                   /* for buffers that are not in windows */
    enum tt_algo window_algo;            /* for those that are */
    struct tt_width width, window_width; /* if the algorithm is that one */
    tutti_dtype dtype;
    tutti_op op;
    int root;
    const void *send;
    void *recv;
    size_t count;         /* elements per rank and block; unused when counts are given */
    uint64_t bytes;       /* of the larger side on this rank, for the counters: tt_coll_run() */
    const size_t *counts; /* reduce_scatterv, all_gatherv; else NULL */

    const size_t *send_counts, *send_displs; /* all_to_allv; else NULL */
    const size_t *recv_counts, *recv_displs;
    /* reduce_scatterv whose blocks are not one after another: send_displs alone */

    const tutti_rows *parts; /* all_gatherv_rows: counts are rows; else NULL */
    size_t n_parts;

    const tutti_device_counts
        *device_counts; /* counts are in memory of the communicator; else NULL */

    void *const *recv_blocks; /* all_gather to scattered places, one a rank; else NULL */

    int thread, n_threads; /* team calls; else 0, TT_TEAM_NONE */
    enum tt_purpose purpose;

    tutti_stream stream; /* GPU memory; else NULL */
};

/* A call with even blocks. Field by field, because compilers clear a struct of this size with string
 * instructions that take longer than the smallest calls. */
static inline struct tt_call tt_call_even(enum tt_coll coll, tutti_dtype dtype, const void *send,
                                          void *recv, size_t count)
{
    struct tt_call call;

    call.coll = coll;
    call.algo = call.window_algo = TT_ALGO_AUTO;
    call.width = call.window_width = (struct tt_width){0, 0};
    call.dtype = dtype;
    call.op = TUTTI_OP_SUM;
    call.root = 0;
    call.send = send;
    call.recv = recv;
    call.count = count;
    call.bytes = 0;
    call.counts = NULL;
    call.send_counts = call.send_displs = NULL;
    call.recv_counts = call.recv_displs = NULL;
    call.parts = NULL;
    call.n_parts = 0;
    call.device_counts = NULL;
    call.recv_blocks = NULL;
    call.thread = 0;
    call.n_threads = TT_TEAM_NONE;
    call.purpose = TT_FOR_CALLER;
    call.stream = NULL;
    return call;
}

/* One send or receive of a group. */
struct tt_p2p {
    void *buf;
    size_t bytes;
    int peer;
    int is_send;
    tutti_dtype dtype;
    tutti_stream stream; /* the same in all of a group */

    /* The engine's own; zero at first. */
    int done, started;
    size_t moved;
    uint64_t end;
};

#endif
