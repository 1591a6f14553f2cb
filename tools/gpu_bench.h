/*
 * `tutti bench --gpus N`, split by idea:
 *
 *   gpu_run.c      before the ranks are there: defaults, what does not go together, the start
 *   gpu_rank.c     what a rank does: GPU, communicators, then cell after cell
 *   gpu_buffers.c  its buffers, and the columns that they make
 *   gpu_measure.c  the measurement
 *   gpu_verify.c   data to the GPU and back, and the check of every element
 *   gpu_nccl.c     NCCL, where there is one
 *   gpu_driver.c   CUDA
 *   gpu_probe.c    which GPUs there are, without starting CUDA in this process
 *   gpu_print.c    the table
 */
#ifndef TUTTI_TOOLS_GPU_BENCH_H
#define TUTTI_TOOLS_GPU_BENCH_H

#include "bench.h"
#include "gpu_driver.h"

#define GPU_MAX_CALLS 20 /* of one graph, and so the most buffer sets that a cell goes round */

struct gpu_nccl;

struct gpu_variant {
    tutti_comm *comm; /* NULL: NCCL */
    int index;        /* of the communicator */
    int registered;   /* its buffers are windows */
    gpu_ptr in;
    gpu_ptr out;
    int counted; /* v-calls only, with counts in GPU memory */
};

struct gpu_rank {
    const struct bench_options *options;
    const struct bench_plan *plan;
    const struct place *place;
    struct bench_board *board;
    const struct gpu_driver *driver;
    int rank;
    int n_here; /* ranks on this machine */
    int device;
    gpu_context context; /* the primary one */
    tutti_stream stream;
    gpu_event events[2];
    size_t region_bytes; /* of each buffer on the GPU */
    size_t host_bytes;   /* of each buffer of the host */
    gpu_ptr pristine;    /* inputs of calls in place, which spoil them */
    gpu_ptr counts;      /* [n_ranks], of counted variants */
    char *sources[2];    /* what even and odd buffer sets are filled with */
    char *result;
    struct gpu_variant variants[BENCH_MAX_VARIANTS];
    int n_variants;
    struct gpu_nccl *nccl;
};

struct gpu_estate { /* what a rank owns */
    tutti_comm *comms[BENCH_MAX_VARIANTS];
    const char *algorithms[BENCH_MAX_VARIANTS];
    tutti_window *windows[BENCH_MAX_VARIANTS][2];
    int n_comms;
    int has_windows;
    double create_ms[BENCH_MAX_VARIANTS];
    double nccl_ms;
    gpu_ptr ordinary[2];
    gpu_ptr registered[2];
    gpu_ptr symmetric[2];
};

/* How a cell is measured; the same on all ranks. */
struct gpu_geometry {
    size_t stride; /* from one buffer set to the next */
    int n_sets;
    int n_calls; /* of one graph, or between two events */
    int n_samples;
};
void gpu_geometry(const struct bench_options *options, const struct bench_cell *cell, int n_ranks,
                  struct gpu_geometry *geometry_out);

/* Call the driver: 0, or -1 after bench_abort() with a line that names the function. */
#define GPU(rank, name, ...) gpu_check((rank), #name, (rank)->driver->name(__VA_ARGS__))
int gpu_check(const struct gpu_rank *rank, const char *what, int result);

/* ---- run, rank ---- */

/* The GPUs of this machine; asked by a child, because a process that has started CUDA cannot fork. */
struct gpu_facts {
    int n_gpus;
    int n_processors; /* of the smallest */
    char name[96];    /* of the first */
    char error[256];  /* "" or why there are none */
};
int gpu_probe(struct gpu_facts *facts_out); /* 0, or an exit status after a message */

/* What the environment says of NCCL. Before the first communicator: the library would warn of a variable
 * that is not its own. */
void gpu_take_variables(struct bench_options *options);
/* What --gpus changes about defaults, and what does not go with it: 0, or an exit status. */
int gpu_options(struct bench_options *options, int n_collectives);
int gpu_start(const struct bench_report *report, struct ranks *ranks);
int gpu_rank_main(const struct bench_report *report, int rank_number);

/* The slowest rank's values[0 .. 1], on all ranks. 0, or -1 once the run was aborted. */
int gpu_slowest(const struct gpu_rank *rank, double values[2]);
/* Does any rank say yes? 1, 0, or -1 once the run was aborted. */
int gpu_any(const struct gpu_rank *rank, int yes);

/* A line for the head of the table, by rank 0. */
void gpu_remark(const struct gpu_rank *rank, const char *text);

/* ---- buffers: 0, or -1 once the run was aborted ---- */

/* The largest cell that fits on all ranks decides how long the buffers are. */
int gpu_choose_sizes(struct gpu_rank *rank);
int gpu_make_buffers(struct gpu_rank *rank, struct gpu_estate *estate);
int gpu_make_variants(struct gpu_rank *rank, struct gpu_estate *estate);

/* ---- measure ---- */

int gpu_measure(struct gpu_rank *rank, int index);

/* ---- verify ---- */

struct gpu_cell {
    struct gpu_rank *rank;
    struct bench_row *row;
    uint32_t iteration; /* of sources[0]; the other's is one more */
    struct bench_shape shape;
    struct bench_values values;
    struct gpu_geometry geometry;
    tutti_device_counts counts;
    struct bench_call calls[BENCH_MAX_VARIANTS][GPU_MAX_CALLS];
    int usable[BENCH_MAX_VARIANTS];
    gpu_graph_exec graphs[BENCH_MAX_VARIANTS];
    float *samples[2][BENCH_MAX_VARIANTS]; /* microseconds of the GPU, of the host */
    uint32_t n_samples[2][BENCH_MAX_VARIANTS];
    uint32_t n_uploads;
};

void gpu_fill_sources(struct gpu_cell *cell);
/* Buffer sets that are filled and checked. */
static inline int gpu_n_checked(const struct gpu_cell *cell)
{
    return cell->rank->options->trials ? 1 : cell->geometry.n_sets;
}
/* Poison all results of a variant and give its calls inputs that differ from the last ones. */
int gpu_upload(struct gpu_cell *cell, int v);
/* Fetch and check all results of a variant. */
int gpu_verify(struct gpu_cell *cell, int v);
/* 1 if the call leaves other input than it found. */
int gpu_spoils_input(const struct bench_call *call);

/* ---- NCCL ---- */

/* The path of the Python package's library, or "". */
void gpu_nccl_find(char *path, size_t size);
/* Collective. NULL with a line in why[size] on all ranks if it cannot be had on any. */
struct gpu_nccl *gpu_nccl_open(struct gpu_rank *rank, char *why, size_t size);
const char *gpu_nccl_name(const struct gpu_nccl *nccl); /* "NCCL 2.28.9" */
/* Collective. Two symmetric buffers; 0, or -1 with a line in why[size] on all ranks. */
int gpu_nccl_symmetric(struct gpu_rank *rank, gpu_ptr buffers_out[2], char *why, size_t size);
int gpu_nccl_can(const struct gpu_nccl *nccl, const struct bench_call *call);
int gpu_nccl_run(const struct gpu_nccl *nccl, const struct bench_call *call); /* 0 for success */
const char *gpu_nccl_error(const struct gpu_nccl *nccl, int result);
void gpu_nccl_close(struct gpu_nccl *nccl);

/* ---- print ---- */

void gpu_print_head(const struct bench_report *report);
void gpu_print_row(const struct bench_report *report, int index);

#endif
