/* The communicator. */
#ifndef TT_COLL_COMM_H
#define TT_COLL_COMM_H

#include "base/engine.h"
#include "boot/boot_address.h"
#include "coll/select.h"

struct tt_group; /* group.c */

struct tutti_comm {
    int rank, n_ranks, n_hosts;
    int n_nearby; /* ranks on this machine, whatever hosts they count as being on */
    int *host_of; /* [n_ranks]: each rank's host, numbered in order of their first ranks */
    /* This host's address on the way to another one, as a rendezvous of ranks of this host found it. */
    struct tt_boot_address route;
    int has_route;
    tutti_device device;
    int device_index;
    const struct tt_engine_ops *ops;
    struct tt_engine *engine;
    /* What ranks tell each other in host memory: the engine itself where that is its memory, else a
     * small CPU engine among the same ranks. */
    const struct tt_engine_ops *control_ops;
    struct tt_engine *control;
    struct tt_select select;
    uint64_t timeout_ms;
    uint64_t scratch_bytes;
    char name[32];
    char algorithm[16];
    char *tune_file;   /* as this rank was told at creation: for splits */
    char details[448]; /* the engine's, and which table */
    unsigned char key[32];
    uint32_t n_splits;
    struct tt_group *group;                 /* between group_begin and group_end, else NULL */
    struct tt_group *spare_group;           /* the memory of the last one */
    struct tutti_channel_set *channel_sets; /* channel_set.c */
};

/* A config with nothing left to default: explicit, else environment, else built in. */
tutti_result tt_comm_config_read(const tutti_comm_config *given, tutti_comm_config *config);

/* Make a communicator of ranks that can exchange records. `config` has nothing left to default; `route` is
 * this rank's way to another host, NULL if it knows none. */
struct tt_exchange;
tutti_result tt_comm_build(const tutti_comm_config *config, const struct tt_exchange *x,
                           const unsigned char key[32], const struct tt_boot_address *route,
                           tutti_comm **comm_out);

tutti_result tt_comm_create(const tutti_comm_config *given, tutti_comm **comm_out);
tutti_result tt_comm_create_from_env(const tutti_comm_config *overrides, tutti_comm **comm_out);
tutti_result tt_comm_split(tutti_comm *comm, int color, int key, tutti_comm **comm_out);
void tt_comm_destroy(tutti_comm *comm);
void tt_comm_abort(tutti_comm *comm);
void tt_comm_state(const tutti_comm *comm, tutti_comm_state *state);
void tt_comm_stats(const tutti_comm *comm, int rank, tutti_stats *stats);
/* Where what is refused on the communicator's behalf is counted, while it lives. */
_Atomic uint64_t *tt_comm_refused(const tutti_comm *comm);

/* An all-gather of host memory, for a purpose: `alike` is the same on all ranks, or their calls do not match.
 * The other is for a tt_exchange, whose context is the communicator. */
tutti_result tt_comm_exchange(const tutti_comm *comm, enum tt_purpose purpose, uint32_t alike,
                              const void *send, void *recv, size_t bytes);
tutti_result tt_comm_all_gather(void *comm, const void *send, void *recv, size_t bytes);

/* Choose the algorithm and run, or queue in the open group. */
tutti_result tt_coll_run(tutti_comm *comm, struct tt_call *call);
/* The same for counts in host memory that ranks do not know of each other. */
tutti_result tt_coll_run_counted(tutti_comm *comm, const struct tt_call *call);
tutti_result tt_coll_p2p(tutti_comm *comm, const struct tt_p2p *op);

tutti_result tt_group_begin(tutti_comm *comm);
tutti_result tt_group_end(tutti_comm *comm);
tutti_result tt_group_add_call(struct tt_group *group, const struct tt_call *call, int n_ranks);
tutti_result tt_group_add_p2p(struct tt_group *group, const struct tt_p2p *op);
void tt_group_free(struct tt_group *group);

#endif
