/* The state of the engine for several hosts, and the steps that its collectives are made of. */
#ifndef TT_COLL_HIER_PARTS_H
#define TT_COLL_HIER_PARTS_H

#include "base/engine.h"
#include "base/error.h"
#include "coll/hier.h"
#include "coll/select.h"
#include "coll/wire.h"
#include "cpu/cpu_engine.h"
#include "cpu/kernels.h"

/*
 * Ranks of a host are numbered within it in the order of their ranks; hosts in the order of their
 * first. A *rail* is the ranks of all hosts that have the same number: those talk to one another.
 */
struct tt_engine {
    int rank, n_ranks, n_hosts;
    int host, local, n_local; /* this rank's host, its number there, how many are there */
    int n_rails;              /* ranks of the smallest host */
    int is_even;              /* all hosts have as many */
    int *host_of, *local_of;  /* [n_ranks] */
    int *first;               /* [n_hosts + 1]: where a host's members begin */
    int *members;             /* [n_ranks]: the ranks of host 0, of host 1, ... */

    const struct tt_engine_ops *ops; /* of the engine within the host */
    struct tt_engine *local_engine;
    struct tt_select select;
    struct tt_wire *wire;
    struct tt_hier_window *windows; /* that the network has registered */
    const struct tt_kernels *kernels;
    uint64_t timeout_ns;
    char details[256];

    uint64_t sequence;      /* collectives begun */
    uint64_t rail_sequence; /* those of the rail alone */
    uint32_t kind, check;   /* of this call, for messages */
    int has_told;

    struct tt_message *messages; /* [max_messages]: those of the step that is prepared or runs */
    size_t n_messages, max_messages;
    unsigned char *scratch; /* this rank's own */
    size_t scratch_bytes;
    size_t *counts;       /* [TT_HIER_N_ROWS][n_ranks]: workspace, see tt_hier_row() */
    const void **sources; /* [2][n_ranks]: of reductions; of averages */
    void **places;        /* [2][n_ranks]: of blocks; of those within the host */
    struct tt_p2p *p2p;   /* [n_local] */
    unsigned char *zeros; /* [TT_HIER_ZEROS] of minus zero of `zeros_dtype`: neutral in every sum */
    int zeros_dtype;
};

#define TT_HIER_ZEROS 8192u

enum tt_hier_row { /* what the arrays of a call are for */
                   TT_ROW_COUNTS,
                   TT_ROW_DISPLS,
                   TT_ROW_OUT,
                   TT_ROW_OUT_AT,
                   TT_ROW_IN,
                   TT_ROW_IN_AT,
                   TT_ROW_LOCAL, /* four of them, for the step within the host */
                   TT_HIER_N_ROWS = TT_ROW_LOCAL + 4
};
static inline size_t *tt_hier_row(const struct tt_engine *e, int row)
{
    return e->counts + (size_t)row * (size_t)e->n_ranks;
}

/* What a call has of host h: how many ranks, and which is the i'th. */
static inline int tt_hier_size(const struct tt_engine *e, int h)
{
    return e->first[h + 1] - e->first[h];
}
static inline int tt_hier_member(const struct tt_engine *e, int h, int i)
{
    return e->members[e->first[h] + i];
}
/* The rank of host h that this rank's data goes to where ranks meet by rails. */
static inline int tt_hier_partner(const struct tt_engine *e, int h)
{
    return tt_hier_member(e, h, e->local % tt_hier_size(e, h));
}

/* ---- steps (hier_step.c) ---- */

/* Prepare a message; then run all that were prepared. Between start and finish a step within the host
 * may run: messages advance in its waits. */
struct tt_message *tt_hier_send(struct tt_engine *e, int peer, const void *buf, uint64_t bytes);
struct tt_message *tt_hier_recv(struct tt_engine *e, int peer, void *buf, uint64_t bytes);
void tt_hier_start(struct tt_engine *e);
tutti_result tt_hier_finish(struct tt_engine *e);
tutti_result tt_hier_exchange(struct tt_engine *e); /* start and finish */

/* A call within the host, its algorithm chosen here. */
tutti_result tt_hier_local(struct tt_engine *e, struct tt_call *call);
/* All ranks of the host have made this call, and it is the same one. */
tutti_result tt_hier_meet(struct tt_engine *e, const struct tt_call *call);
/* The same; and *any becomes whether it was set on any of them. */
tutti_result tt_hier_meet_any(struct tt_engine *e, const struct tt_call *call, int *any);

/* dst = the reduction of the hosts' partial results, in the order of hosts, divided if that is what
 * the operation is. dst may be one of them. */
void tt_hier_combine(struct tt_engine *e, void *dst, const void *const partials[], size_t count,
                     tutti_dtype dtype, tutti_op op);
/* The operation within a host: averages divide at the end only. */
static inline tutti_op tt_hier_partial_op(tutti_op op)
{
    return op == TUTTI_OP_AVG ? TUTTI_OP_SUM : op;
}
/* An all-gather of `bytes` at `mine` among this rank's rail, into blocks by host in scratch that
 * *blocks_out points to. At most `scratch_bytes` in all. */
tutti_result tt_hier_gather_hosts(struct tt_engine *e, const void *mine, size_t bytes,
                                  const void *blocks_out[]);

/* ---- windows (hier_window.c) ---- */

struct tt_hier_window {
    const tutti_window *window;
    struct tt_net_region *lent; /* NULL: the network could not register it */
    struct tt_hier_window *next;
};
tutti_result tt_hier_window_register(struct tt_engine *e, void *ptr, size_t bytes,
                                     tutti_window **window_out);
tutti_result tt_hier_window_deregister(struct tt_engine *e, tutti_window *window);
void tt_hier_windows_free(struct tt_engine *e); /* when the wire is gone */

/* ---- collectives ---- */

tutti_result tt_hier_barrier(struct tt_engine *e);
tutti_result tt_hier_all_reduce(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_reduce_scatter(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_flat_all_reduce(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_flat_reduce_scatter(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_all_gather(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_all_to_all(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_broadcast(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_gather(struct tt_engine *e, const struct tt_call *call);
tutti_result tt_hier_scatter(struct tt_engine *e, const struct tt_call *call);

/* The block of every rank, bytes[r] long, to places[r]. */
tutti_result tt_hier_gather_blocks(struct tt_engine *e, const void *mine, const size_t bytes[],
                                   void *const places[]);

/* The part of that between hosts, prepared: places[r] of the ranks whose blocks come to this one. */
void tt_hier_cross(struct tt_engine *e, const void *mine, const size_t bytes[],
                   void *const places[]);
/* The part of a broadcast between hosts: among the ranks that tt_hier_entry() names. */
tutti_result tt_hier_broadcast_hosts(struct tt_engine *e, const struct tt_call *call);

/* A block from every rank to every other: bytes, and offsets from `out` and `in`. */
struct tt_hier_moves {
    const size_t *out_bytes, *out_at;
    const size_t *in_bytes, *in_at;
    const unsigned char *out;
    unsigned char *in;
    int skip_empty; /* both sides know which blocks are empty */
    int in_place;   /* here: a peer's block comes to where the one for it is, which is as long */
    int staged;     /* on any rank of this host */
};
tutti_result tt_hier_move_blocks(struct tt_engine *e, const struct tt_hier_moves *moves);

tutti_result tt_hier_run(struct tt_engine *e, const struct tt_call *call); /* hier_run.c */
tutti_result tt_hier_run_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops);
tutti_result tt_hier_give_up(struct tt_engine *e, tutti_result why);
void tt_hier_reason(const char *text, char *out, size_t bytes); /* a text without its frame */
uint32_t tt_hier_mix(uint64_t h, uint64_t x);
tutti_result tt_hier_make_room(struct tt_engine *e, size_t n_messages); /* for so many at once */
tutti_result tt_hier_scatter_along_rail(struct tt_engine *e, const struct tt_call *call,
                                        const size_t bytes[]);
tutti_result tt_hier_along_rail(struct tt_engine *e,
                                const struct tt_call *call); /* hier_reduce.c */

#endif
