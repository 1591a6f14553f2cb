/*
 * `tutti bench`, split by idea:
 *
 *   bench.c          the command: options
 *   bench_run.c      starting the ranks, waiting for rows
 *   bench_plan.c     which cells (collective, dtype, op, bytes) a run consists of
 *   bench_shape.c    a cell's counts, and what must be where afterwards
 *   bench_data.c     input values, and the check of every element
 *   bench_shared.c   memory shared by all ranks: barrier, decisions, results
 *   bench_memory.c   whether the buffers fit in memory
 *   bench_rank.c     what a rank does: communicator, buffers, variants
 *   bench_measure.c  the measurement
 *   bench_call.c     from a cell to a call of the library
 *   bench_team.c     calls by a team of threads
 *   bench_mpi_run.c  the same ranks under mpirun, with the peer's module loaded
 *   bench_job.c      ranks that a launcher has started, on whatever hosts
 *   gpu_*.c          on GPUs: see gpu_bench.h
 *   bench_files.c    whether the files of the results can be written
 *   bench_print.c, bench_json.c, bench_plot.c    results
 */
#ifndef TUTTI_TOOLS_BENCH_H
#define TUTTI_TOOLS_BENCH_H

#include "bench_plan.h"
#include "cli.h"
#include "place.h"
#include "ranks.h"

#include <stdatomic.h>
#include <stdio.h>

#define BENCH_MAX_VARIANTS 32
#define BENCH_MAX_CELLS    4096
#define BENCH_MAX_SAMPLES  20000

/* ---- shared ---- */

enum { BENCH_EMPTY, BENCH_DONE, BENCH_NOT_AVAILABLE };

struct bench_result {
    int32_t state;
    uint32_t n;
    double p50_us;
    double p99_us;
    double min_us;
    double host_us;           /* GPUs: what issuing a call takes */
    _Atomic uint64_t checked; /* elements, over all ranks and checked calls */
    _Atomic uint64_t wrong;
    _Atomic uint32_t has_note;
    char note[168];
};

struct bench_row {
    uint64_t bytes;
    uint64_t count;
    struct bench_result results[BENCH_MAX_VARIANTS];
};

struct bench_slot {
    _Alignas(128) _Atomic uint32_t arrived;
    _Alignas(64) uint64_t t0;
    uint64_t t1;
    int32_t result;
};

struct bench_shared {
    _Atomic uint32_t abort;
    _Atomic uint32_t n_done; /* rows; a futex */
    _Atomic uint32_t has_error;
    _Atomic uint32_t n_ids; /* futex */
    tutti_unique_id ids[BENCH_MAX_VARIANTS];
    int32_t crowded; /* ranks share cores */
    int32_t n_variants;
    int32_t n_peers; /* the last of them are not tutti's */
    char variant_names[BENCH_MAX_VARIANTS][40];
    char engine[448];
    char error[512];
    char machine[192];   /* what the figures are of; empty: the CPU */
    char remark[640];    /* lines for the head of the table */
    int32_t unsupported; /* the error is that this machine cannot do it */
    double create_ms[BENCH_MAX_VARIANTS];
    unsigned char peer_id[128]; /* how ranks of the peer find each other */
    int32_t k;                  /* decisions of rank 0 */
    int32_t last;
    _Atomic uint64_t n_checked_calls;
};

/* Ranks that a launcher has started: no memory is shared. */
struct bench_job {
    tutti_comm *comm; /* what ranks tell each other */
    int rank;
    int n_ranks;
    int n_hosts;
    int n_here; /* ranks on this machine */
    int n_near; /* and of those, with their memory from the same control group */
    int here;   /* this one's number among them */
    int is_crowded;
    int has_one_clock;
    const struct bench_report *report; /* rank 0's; NULL: others print nothing */
};

struct bench_board {
    struct bench_shared *shared;
    struct bench_job *job; /* NULL: all ranks have this memory in common */
    struct bench_slot *slots;
    struct bench_row *rows;
    size_t bytes;
    int fd;
    int rank;
    int n_ranks;
    int crowded; /* yield at once instead of spinning */
    uint32_t epoch;
    uint32_t n_ids_used;
};

/* Become a rank of the job that the environment tells of; NULL in *job_out if there is none, or of one
 * rank only. 0, or an exit status after a message. */
int bench_job_join(struct bench_job **job_out);
void bench_job_leave(struct bench_job *job); /* NULL is fine */

/* Create (path NULL) or open the memory; 0 on success. */
int bench_board_open(struct bench_board *board, const char *path, int n_ranks, int n_rows);
void bench_board_close(struct bench_board *board);
int bench_barrier(struct bench_board *board); /* 0, or -1 once the run was aborted */
float bench_sample_us(const struct bench_board *board);
void bench_summarise(float *samples, uint32_t n, struct bench_result *result); /* sorts */
void bench_abort(struct bench_board *board, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Rank 0 makes the index'th id; all return once it is there. */
tutti_result bench_share_id(struct bench_board *board, uint32_t index);
void bench_wait_change(_Atomic uint32_t *word, uint32_t old, int ms);
void bench_wake(_Atomic uint32_t *word);
/* A rank has measured this row: rank 0 shows it, in a job when it has heard what all have checked. */
int bench_row_over(struct bench_board *board, int rank, int n_variants, int index);

/* ---- ranks ---- */

struct bench_rank;

struct bench_report {
    const struct bench_options *options;
    const struct bench_plan *plan;
    const struct place *place;
    struct bench_board *board;
    /* Called in order, once for each row that is done, and from time to time in between. */
    void (*on_row)(const struct bench_report *report, int index);
    void (*on_wait)(const struct bench_report *report, int n_done, double elapsed);
};

struct bench_team;

struct bench_variant {
    char name[40];
    tutti_comm *comm;
    const struct bench_peer *peer; /* NULL: tutti */
    char *in;
    char *out;
    struct bench_team *team; /* NULL: one thread */
};

struct bench_rank {
    const struct bench_options *options;
    const struct bench_plan *plan;
    const struct place *place;
    struct bench_board *board;
    int rank;
    struct bench_variant variants[BENCH_MAX_VARIANTS];
    int n_variants;
    char *sources[2]; /* fresh data of even and odd iterations */
    float *samples[BENCH_MAX_VARIANTS];
    double unit_seconds; /* for a cell of weight 1 */
};

/* The whole life of a rank; returns its exit status. */
int bench_rank_main(const struct bench_options *options, const struct bench_plan *plan,
                    const struct place *place, struct bench_board *board, int rank);
double bench_weight(const struct bench_cell *cell);
size_t bench_buffer_bytes(const struct bench_plan *plan);
/* 0 if the buffers of n_here ranks fit into this machine's memory, and of n_near into that of this process's control
 * group, or an exit status after a message. With GPUs it is theirs, and the ranks look. */
int bench_check_memory(const struct bench_options *options, const struct bench_plan *plan,
                       int n_here, int n_near);

/* Measure one cell into row `index`; 0, or -1 when the run was aborted. */
int bench_measure(struct bench_rank *rank, int index);

/* The call of a shape with these buffers. */
void bench_call_make(const struct bench_shape *shape, int in_place, char *in, char *out,
                     struct bench_call *call_out);
tutti_result bench_call_run(tutti_comm *comm, const struct bench_call *call);
int bench_call_has_counts(const struct bench_call *call); /* a v-call */
tutti_result bench_call_run_team(tutti_comm *comm, const struct bench_call *call, int thread,
                                 int n_threads);

struct bench_team *bench_team_start(const struct place *place, int rank, int n_ranks,
                                    int n_threads);
tutti_result bench_team_run(struct bench_team *team, tutti_comm *comm,
                            const struct bench_call *call);
void bench_team_stop(struct bench_team *team);

/* Start the ranks, forked or under mpirun (which then is the one child); 0, or an exit status. */
int bench_start(const struct bench_report *report, int argc, char **argv, struct ranks *ranks);
/* Deliver rows as they come. 0, or 1 after a message when ranks failed; none is left. */
int bench_follow(const struct bench_report *report, struct ranks *ranks);
/* The part of a rank that mpirun started. */
int bench_joined(const struct bench_report *report);

/* The same of a rank of a job; rank 0 delivers the rows. */
int bench_job_run(const struct bench_report *report);
int bench_job_meet(struct bench_board *board); /* bench_barrier() */
tutti_result bench_job_share_id(struct bench_job *job, tutti_unique_id *id);
/* Rank 0's data to all. */
tutti_result bench_job_tell(struct bench_job *job, void *data, size_t bytes);
/* All ranks' checks of a row, then its delivery. */
int bench_job_row(struct bench_board *board, int n_variants, int index);

/* ---- the peer ---- */

int bench_mpi_launch(const struct bench_options *options, const struct place *place,
                     const struct bench_board *board, int argc, char **argv, pid_t *pid_out);
/* The module of `--against`; NULL after a message. */
const struct bench_peer *bench_peer_load(const char *against);

/* ---- results ---- */

struct bench_totals {
    uint64_t n_results;
    uint64_t n_wrong; /* results with a wrong element */
    uint64_t n_checked;
};

void bench_print_head(const struct bench_report *report);
void bench_print_row(const struct bench_report *report, int index);
void bench_print_progress(const struct bench_report *report, int n_done, double elapsed);
void bench_clear_progress(void);
void bench_print_end(const struct bench_report *report, struct bench_totals *totals_out);
/* Before the measurement: can they be written? 0, or an exit status after a message. */
int bench_check_files(const struct bench_options *options);
int bench_write_json(const struct bench_report *report, const char *path);
int bench_write_plot(const struct bench_report *report, const char *path);
int bench_n_cores(const struct bench_report *report);
const char *bench_cpu_name(char *text, size_t size);

#endif
