/* The contract between `tutti bench` and tutti_bench_mpi.so, which holds all that knows MPI; the same for
 * tutti_bench_gloo.so. */
#ifndef TUTTI_TOOLS_BENCH_PEER_H
#define TUTTI_TOOLS_BENCH_PEER_H

#include <tutti/tutti.h>

enum bench_id {
    BENCH_ALL_REDUCE,
    BENCH_REDUCE_SCATTER,
    BENCH_REDUCE_SCATTERV,
    BENCH_ALL_GATHER,
    BENCH_ALL_GATHERV,
    BENCH_ALL_GATHERV_ROWS,
    BENCH_ALL_TO_ALL,
    BENCH_ALL_TO_ALLV,
    BENCH_BROADCAST,
    BENCH_REDUCE,
    BENCH_GATHER,
    BENCH_SCATTER,
    BENCH_SENDRECV, /* a ring: to the next rank, from the previous one */
    BENCH_BARRIER,
    BENCH_N_COLLECTIVES
};

#define BENCH_N_PARTS 4 /* of all_gatherv_rows */

/* One call, ready to be made. Arrays have n_ranks entries and outlive the call. */
struct bench_call {
    enum bench_id id;
    tutti_dtype dtype;
    tutti_op op;
    const void *send;
    void *recv;
    size_t count; /* as the tutti function of that name takes it */
    int root;
    int rank;
    int n_ranks;
    int in_place;
    const size_t *counts;      /* reduce_scatterv, all_gatherv; rows of all_gatherv_rows */
    const size_t *send_counts; /* all_to_allv */
    const size_t *recv_counts;
    const size_t *displs; /* of both sides */
    tutti_rows parts[BENCH_N_PARTS];
    tutti_stream stream;                      /* NULL for host memory */
    const tutti_device_counts *device_counts; /* NULL: those above */
};

/* How ranks that no launcher of the peer has started find each other. */
struct bench_exchange {
    int rank;
    int n_ranks;
    void *context;
    int (*all_gather)(void *context, const void *mine, void *all, size_t bytes); /* 0: done */
};

struct bench_peer {
    uint32_t size;
    const char *(*name)(void);                          /* "Open MPI 4.1.4" */
    int (*init)(const struct bench_exchange *exchange); /* NULL: its own launcher has started us */
    void (*finalize)(void);
    int (*rank)(void);
    int (*n_ranks)(void);
    /* 0 if it can do such calls; may keep what it derives from the counts. Not timed. */
    int (*prepare)(const struct bench_call *call);
    int (*run)(const struct bench_call *call);
};

/* The module's one symbol. */
#define BENCH_PEER_SYMBOL "tutti_bench_peer"
typedef const struct bench_peer *(*bench_peer_fn)(void);

#endif
