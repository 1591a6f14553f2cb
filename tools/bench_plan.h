/* What a run of the bench consists of: cells, their shapes, their data. Pure: no ranks, no clock. */
#ifndef TUTTI_TOOLS_BENCH_PLAN_H
#define TUTTI_TOOLS_BENCH_PLAN_H

#include "bench_peer.h"

#include <stdint.h>

/* ---- plan ---- */

/* What `tutti tune` measures on GPUs: a communicator for each table goes round all cells. */
struct bench_trials {
    char (*tables)[32]; /* paths of tune files */
    int n_tables;
    const uint32_t (
        *wanted)[2];     /* of each cell, with ordinary and registered buffers: bit a table */
    double cell_seconds; /* no more samples after that */
};

struct bench_options {
    const char *collectives[BENCH_N_COLLECTIVES];
    int n_ranks;
    size_t min_bytes;
    size_t max_bytes;
    int factor;
    const char *dtypes; /* "f32,bf16"; NULL: f32, and bf16 too where it reduces */
    const char *ops;    /* "sum,max" */
    int root;
    int in_place;
    int only_ordinary;
    int only_registered;
    const char *algorithm; /* "all": every one the collective has, side by side */
    int n_threads;
    double seconds; /* for the whole run; 0: as long as the number of cells needs */
    int end_to_end;
    int no_pin;
    const char *json;
    const char *plot;
    int csv;
    const char *against;
    int n_gpus;        /* 0: CPU */
    int device_counts; /* GPUs: columns whose counts lie in GPU memory */
    int even_counts;   /* v-calls: the same for all ranks */
    int row;           /* v-calls: counts are multiples of so many elements */
    int graph;
    int n_replays;
    const struct bench_trials *trials; /* NULL: the bench */
    const char *nccl_named;            /* by TUTTI_NCCL_LIBRARY, or NULL */
    const char *nccl_wheel;            /* the Python package's library, or "" */
    const char *joined; /* internal: where the memory of the program that began this run is */
};

struct bench_cell {
    enum bench_id id;
    tutti_dtype dtype;
    tutti_op op;
    int even_counts;
    size_t row;
    size_t bytes; /* asked for; the shape may round it down to what divides evenly */
};

struct bench_plan {
    struct bench_cell *cells;
    int n_cells;
    int n_ranks;
    int n_collectives;
};

struct bench_traits {
    const char *name;
    int reduces;
    int rooted;
    int in_place; /* has an in-place form */
    int team;     /* has a form for teams of threads */
    int busbw;    /* factor: 0 none, 1 one, 2 (n-1)/n, 3 2(n-1)/n */
};
extern const struct bench_traits bench_traits[BENCH_N_COLLECTIVES];

int bench_find_collective(const char *name); /* a bench_id or -1 */
int bench_find_dtype(const char *name);      /* a tutti_dtype or -1 */
int bench_find_op(const char *name);
double bench_busbw_factor(enum bench_id id, int n_ranks);

/* 0, or an exit status after a message. */
int bench_plan_make(const struct bench_options *options, struct bench_plan *plan_out);

/* ---- shape ---- */

enum { BENCH_FROM_ALL = -1, BENCH_UNTOUCHED = -2 };

/* length elements of recv, from element `at`: the reduction of element `from` on of all ranks, that of
 * one rank's send buffer, or the poison that was there before. */
struct bench_segment {
    size_t at;
    size_t length;
    int source; /* a rank, BENCH_FROM_ALL or BENCH_UNTOUCHED */
    size_t from;
};

struct bench_shape {
    struct bench_cell cell;
    int rank;
    int n_ranks;
    int root;
    size_t element_bytes;
    size_t bytes; /* of the larger side of the call: what the table calls bytes */
    size_t count; /* what the call takes */
    size_t n_send;
    size_t n_recv; /* elements of this rank's buffers; 0: not used */
    size_t *counts;
    size_t *send_counts;
    size_t *recv_counts;
    size_t *displs;
    size_t row_bytes[BENCH_N_PARTS];
    size_t send_part[BENCH_N_PARTS]; /* offsets */
    size_t recv_part[BENCH_N_PARTS];
    struct bench_segment *segments;
    int n_segments;
};

void bench_shape_make(const struct bench_cell *cell, int rank, int n_ranks, int root,
                      struct bench_shape *shape_out);
void bench_shape_free(struct bench_shape *shape);

/* ---- data ---- */

struct bench_values {
    uint32_t modulus; /* inputs are 0 .. modulus - 1, small enough for sums to be exact */
    size_t element_bytes;
    uint64_t *encoded; /* bits of an input */
    uint64_t *result;  /* bits of a result */
    uint32_t n_results;
};

void bench_values_make(const struct bench_shape *shape, struct bench_values *values_out);
void bench_values_free(struct bench_values *values);

/* The send buffer of `rank` in iteration `iteration`. */
void bench_fill(const struct bench_shape *shape, const struct bench_values *values,
                uint32_t iteration, void *send);
/* Elements from .. to - 1 of it. */
void bench_fill_part(const struct bench_shape *shape, const struct bench_values *values,
                     uint32_t iteration, size_t from, size_t to, void *send);
void bench_poison(void *recv, size_t bytes);

struct bench_verdict {
    uint64_t checked;
    uint64_t wrong;
    char first[160]; /* the first wrong element, in words */
};
void bench_check(const struct bench_shape *shape, const struct bench_values *values,
                 uint32_t iteration, const void *recv, int in_place, struct bench_verdict *verdict);
/* Elements from .. to - 1 of recv; the guard belongs to the last. */
void bench_check_part(const struct bench_shape *shape, const struct bench_values *values,
                      uint32_t iteration, const void *recv, int in_place, size_t from, size_t to,
                      struct bench_verdict *verdict);

#define BENCH_GUARD_BYTES 64 /* poisoned behind a result, unless in place, and checked to be so */

#endif
