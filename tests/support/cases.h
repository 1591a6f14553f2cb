/*
 * One collective call as data: what is called, with which buffers; made up from a random number or
 * listed in a table; run and checked against the reference by every rank on its own.
 */
#ifndef TUTTI_TESTS_CASES_H
#define TUTTI_TESTS_CASES_H

#include "support/buffers.h"
#include "support/gpus.h"
#include "support/job.h"
#include "support/reference.h"

/* X(name, reduces, moves between a root and the others, has a team call) */
#define T_COLL_MAP(X)                                                                              \
    X(all_reduce, 1, 0, 1)                                                                         \
    X(reduce_scatter, 1, 0, 1)                                                                     \
    X(reduce_scatterv, 1, 0, 0)                                                                    \
    X(all_gather, 0, 0, 1)                                                                         \
    X(all_gatherv, 0, 0, 0)                                                                        \
    X(all_gatherv_rows, 0, 0, 0)                                                                   \
    X(all_to_all, 0, 0, 1)                                                                         \
    X(all_to_allv, 0, 0, 0)                                                                        \
    X(reduce_scatterv_device, 1, 0, 0)                                                             \
    X(all_gatherv_device, 0, 0, 0)                                                                 \
    X(all_gatherv_rows_device, 0, 0, 0)                                                            \
    X(all_to_allv_device, 0, 0, 0)                                                                 \
    X(broadcast, 0, 1, 1)                                                                          \
    X(reduce, 1, 1, 0)                                                                             \
    X(gather, 0, 1, 0)                                                                             \
    X(scatter, 0, 1, 0)                                                                            \
    X(barrier, 0, 0, 0)                                                                            \
    X(ring, 0, 0, 0) /* a group of a send to the next rank and a recv from the one before */

enum t_coll {
#define T_COLL_ENUM_(name, reduces, rooted, team) T_##name,
    T_COLL_MAP(T_COLL_ENUM_)
#undef T_COLL_ENUM_
        T_N_COLLS
};

struct t_coll_facts {
    const char *name;
    int reduces, rooted, has_team;
};
extern const struct t_coll_facts t_colls[T_N_COLLS];

/* Are the counts in device memory? */
static inline int t_is_counted(enum t_coll coll)
{
    return coll >= T_reduce_scatterv_device && coll <= T_all_to_allv_device;
}

/* Which buffers lie in windows. */
enum t_windows {
    T_ORDINARY,   /* none */
    T_REGISTERED, /* all, at the same offset on all ranks */
    T_SKEWED,     /* all, each at an offset of its own; on a GPU none, likewise */
    T_MIXED,      /* each rank and each side as it falls */
};

struct t_case {
    enum t_coll coll;
    tutti_dtype dtype;
    tutti_op op;
    size_t count; /* of the call; an upper bound / 2 of the v-calls' */
    int root;
    int in_place; /* where the call allows it */
    int team;     /* 0: ordinary call; else teams of 1 .. team threads */
    enum t_place place;
    enum t_windows windows;
    enum t_inputs inputs;
    uint64_t seed;  /* of inputs and of all that is not said above */
    uint64_t round; /* the same call with other inputs, and other counts in device memory */
};

/* What a rank needs to run cases: buffers, windows, patterns. */
struct t_stage {
    struct t_rank *t;
    tutti_comm *comm;
    int rank, n_ranks;
    size_t room;                  /* bytes that each side of a call may need */
    struct t_memory memory[2][2]; /* [registered][0 send, 1 recv] */
    tutti_window *windows[2];
    unsigned char *want;
    struct t_pattern *inputs; /* of all ranks */
    struct t_pattern *result;
    size_t *counts;     /* [4][n_ranks] */
    uint64_t *words;    /* [2][n_ranks] of calls with counts in device memory: given, received */
    int is_flat;        /* sums in rank order though there are several hosts */
    int expect_failure; /* return a wrong result instead of failing the test */

    /* On a GPU: `memory` is what the host sees of device_memory, before and after a call. */
    struct t_device *device; /* NULL: on the host */
    unsigned char *device_memory[2][2];
    uint64_t *device_words;
    struct t_call *call; /* between load and verify */
};

/* comm NULL, without windows: s->comm is set later, to one of all ranks of the job. */
void t_stage_open(struct t_stage *s, struct t_rank *t, tutti_comm *comm, size_t room,
                  int with_windows);
void t_stage_close(struct t_stage *s);

/* The same on a GPU. Registered memory comes from tutti_mem_alloc(). All ranks at once: nobody may
 * be in a call, since allocating GPU memory can wait for all kernels. */
void t_stage_open_on(struct t_stage *s, struct t_rank *t, tutti_comm *comm, size_t room,
                     int with_windows, struct t_device *device);

/* Run one case on this rank and check the result. Returns what the call returned if it failed;
 * wrong data fails the test, or gives TUTTI_E_INTERNAL where expect_failure is set. */
tutti_result t_case_try(struct t_stage *s, const struct t_case *c);

/* The three steps of t_case_try(): inputs to their place, the call, and the check of its result.
 * On a GPU, calls on several stages can be made before the first is verified; `c` lives until then. */
void t_case_load(struct t_stage *s, const struct t_case *c);
tutti_result t_case_launch(struct t_stage *s);
tutti_result t_case_verify(struct t_stage *s);

/* The same as t_case_try(), where failure is a failed test. */
void t_case_run(struct t_stage *s, const struct t_case *c);

/* A case from a random number: any call, dtype, op, root, place, windows; up to max_count elements,
 * small ones more often. Valid on all ranks alike when they pass the same number. */
struct t_case t_case_random(uint64_t seed, int n_ranks, size_t max_count);

/* Such a case that the stage has room for; without teams on a GPU. */
struct t_case t_case_random_on(const struct t_stage *s, struct t_rng *rng, size_t max_count);

/* Of one of few counts, with root, place, windows and inputs from the seed's hash; the call is the caller's to choose. */
enum { T_CASE_N_COUNTS = 8, T_CASE_MOST = 4099 };
extern const size_t t_case_counts[T_CASE_N_COUNTS];
struct t_case t_case_of_some_count(uint64_t seed, int n_ranks);

/* Bytes of each side that a case may need: the room for a stage. */
size_t t_case_room(int n_ranks, size_t max_count, size_t element);

/* The largest count, up to `count`, with which the call fits a stage of `room` bytes. */
size_t t_case_fit(enum t_coll coll, int n_ranks, size_t room, size_t element, size_t count);

/* "all_reduce bf16 sum count 17 in place ..." */
const char *t_case_text(const struct t_case *c);

#endif
