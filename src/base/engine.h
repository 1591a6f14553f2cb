/*
 * What an engine (CPU, CUDA, network) offers to the layer that composes collectives. Tables are
 * const, `size` comes first so that slots can be appended, and every slot is filled.
 */
#ifndef TT_BASE_ENGINE_H
#define TT_BASE_ENGINE_H

#include "base/call.h"

struct tt_engine; /* an engine's own state; each engine defines it for itself */

struct tt_boot_address; /* boot/boot_address.h */
struct tt_exchange;     /* boot/boot.h */

/* What host memory tells of another rank. */
enum tt_presence { TT_IS_THERE, TT_HAS_DIED, TT_HAS_LEFT };

struct tt_engine_config {
    int rank, n_ranks;
    uint64_t timeout_ns;
    uint64_t scratch_bytes;
    const char *name;
    const unsigned char *key; /* 32 bytes shared by the ranks of this communicator */
    int device_index;         /* of a GPU engine */
    const int *host_of;       /* [n_ranks]: each rank's host, where there are several */
    /* This host's address on the way to the others, as the rendezvous found it, or NULL. */
    const struct tt_boot_address *route;
    /* "0000:17:00.0": that the ranks' data is on, for the network; NULL: host memory. */
    const char *gpu;
    const struct tt_exchange *exchange; /* copied; its context lives as long as a GPU engine, during
                                         * create only of the others */
    /* Of a GPU engine, which cannot tell by itself; the context is that of `exchange`. Any thread. */
    enum tt_presence (*presence)(void *context, int rank);

    struct tt_engine *control; /* of a GPU engine on several hosts: that for host memory */

    /* Of an engine that another one is composed of. */
    int n_nearby;               /* ranks on this machine, if some of them count as on other hosts */
    const int *labels;          /* [n_ranks]: what texts call the ranks; NULL: by their numbers */
    int (*idle)(void *context); /* called in waits that are long: 1 if something moved, or NULL */
    void *idle_context;
};

/* What a table of launches for this communicator may say. Of a GPU engine; the same on all ranks but
 * for the name, of which rank 0's counts. */
struct tt_launch_limits {
    const char *gpu;         /* the model: "NVIDIA H200" */
    int max_blocks;          /* that run at once on every rank's GPU */
    int max_threads;         /* of a block */
    uint32_t packets_dtypes; /* bit per dtype whose reductions travel in packets */
};

struct tt_engine_info {
    uint64_t memory_bytes;
    int xmem; /* 1 if all ranks can copy across memories */
    const char *details;
    struct tt_launch_limits launch;
};

struct tt_engine_ops {
    uint32_t size; /* sizeof(struct tt_engine_ops) */
    const char *name;

    tutti_result (*create)(const struct tt_engine_config *config, struct tt_engine **engine_out);
    void (*destroy)(struct tt_engine *engine);

    /* Carry out a collective. The caller has checked the arguments. */
    tutti_result (*run)(struct tt_engine *engine, const struct tt_call *call);

    /* Carry out sends and receives, all at once. */
    tutti_result (*run_p2p)(struct tt_engine *engine, struct tt_p2p ops[], size_t n_ops);

    void (*abort)(struct tt_engine *engine);
    void (*state)(const struct tt_engine *engine, tutti_comm_state *state);
    void (*info)(const struct tt_engine *engine, struct tt_engine_info *info);
    void (*stats)(const struct tt_engine *engine, int rank, tutti_stats *stats);

    tutti_result (*mem_alloc)(struct tt_engine *engine, size_t bytes, void **ptr_out);
    tutti_result (*mem_free)(struct tt_engine *engine, void *ptr);
    tutti_result (*window_register)(struct tt_engine *engine, void *ptr, size_t bytes,
                                    tutti_window **window_out);
    tutti_result (*window_deregister)(struct tt_engine *engine, tutti_window *window);
    tutti_window *(*window_find)(struct tt_engine *engine, const void *ptr, size_t bytes);
    /* Where rank's part of a window begins, as mapped here; NULL: it is not. */
    void *(*window_at)(struct tt_engine *engine, const tutti_window *window, int rank);
};

#endif
