/* The engine of a communicator whose ranks are on several hosts: the CPU engine among the ranks of a
 * host, messages among the hosts. docs/design/hierarchical.md */
#ifndef TT_COLL_HIER_H
#define TT_COLL_HIER_H

#include "base/engine.h"

extern const struct tt_engine_ops tt_hier_engine;

/* The algorithm that was asked for by name ("": none), the same on all ranks: what it means for the
 * steps within a host. */
tutti_result tt_hier_choose(struct tt_engine *e, const char *algorithm);

/* Is that rank still there? Of other hosts' it is not known here. Any thread. */
enum tt_presence tt_hier_presence(struct tt_engine *e, int rank);

/* ---- for an engine that is composed of this one (hier_compose.c) ---- */

/* Who is where; the arrays live as long as the engine. */
struct tt_hier_place {
    int n_hosts, host, local, n_local;
    int n_rails;        /* ranks of the smallest host: those of them form a rail with their like */
    int is_even;        /* all hosts have as many */
    const int *host_of; /* [n_ranks] */
    const int *members; /* [n_ranks]: the ranks of host 0, of host 1, ... */
    const int *first;   /* [n_hosts + 1]: where those of a host begin */
};
struct tt_hier_place tt_hier_place(const struct tt_engine *e);

/* An all-gather of host memory among the ranks of this host; `engine` is the context of a tt_exchange. */
tutti_result tt_hier_gather_local(void *engine, const void *send, void *recv, size_t bytes);
/* Is the i'th rank of this host still there? Any thread. */
enum tt_presence tt_hier_local_presence(struct tt_engine *e, int local);

/* The second half of an all_reduce: send is this host's partial result of a part that the rail has in
 * common, recv becomes the reduction over the hosts. Of ranks below n_rails of their host. */
tutti_result tt_hier_reduce_rail(struct tt_engine *e, const struct tt_call *call);
/* What a reduce_scatter does between hosts. bytes[r] of every rank's block; send: this host's partial results of
 * those of the ranks whose number on their host modulo n_local is this one's, host after host; recv becomes the
 * reduction of this rank's. Of all ranks; where hosts are even, of rails. */
tutti_result tt_hier_scatter_rail(struct tt_engine *e, const struct tt_call *call,
                                  const size_t bytes[]);
/* What an all_gather does between hosts: bytes[r] of every rank, places[r] where those go that come to
 * this rank, which are the ones whose number on their host modulo n_local is its own. */
tutti_result tt_hier_run_cross(struct tt_engine *e, const void *mine, const size_t bytes[],
                               void *const places[]);
/* What a broadcast does between hosts. Of the ranks that stand for a host: root itself for its own. */
tutti_result tt_hier_run_entries(struct tt_engine *e, const struct tt_call *call);
int tt_hier_entry(const struct tt_engine *e, int root, int host);

/* The i'th of `parts` equal parts of a vector, in elements of `size` bytes; lines are not split. */
struct tt_hier_part {
    size_t first, n;
};
struct tt_hier_part tt_hier_part_of(size_t count, int parts, int i, size_t size);
/* Must sums be formed from the ranks' own elements, in rank order? */
int tt_hier_is_flat(const struct tt_call *call);

/* Messages through windows of memory that something else fills and empties. `turn` is called again and
 * again: it looks how far that is (limit) and tells it how far these are (moved). All at once. */
struct tt_hier_stream {
    int peer, is_send; /* any rank, of this host too */
    tutti_dtype dtype;
    uint64_t bytes, window_bytes;
    unsigned char *window;
    uint64_t limit; /* bytes put into the window; receive: room for so many bytes, of all */
    uint64_t moved; /* bytes that are out of the window; receive: in it, or out again */
};
tutti_result tt_hier_run_streams(struct tt_engine *e, struct tt_hier_stream *streams, size_t n,
                                 int (*turn)(void *context), void *context);

_Atomic uint64_t *tt_hier_refused(struct tt_engine *e); /* as tt_cpu_refused() */

/* Without a call: has another rank failed, or died? Then so has this engine, here and for all. */
tutti_result tt_hier_watch(struct tt_engine *e);
/* The network has its turn; nobody is told of a failure, which the next call finds again. */
tutti_result tt_hier_serve(struct tt_engine *e);
tutti_result tt_hier_failed(const struct tt_engine *e); /* without looking. Any thread */
tutti_result tt_hier_fail(struct tt_engine *e, tutti_result why, int peer, const char *text);
/* What has failed in `from` ends the waits of `e` as well, whose own thread then tells others. Any thread. */
void tt_hier_fail_like(struct tt_engine *e, const struct tt_engine *from);

#endif
