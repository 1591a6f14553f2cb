/*
 * `tutti tune`, split by idea:
 *
 *   tune.c         the command: options, progress; host memory
 *   tune_gpu.c     GPUs: which measurements, and what they are made of
 *   tune_search.c  GPUs: which launches to try for a size, and which of them to keep
 *   tune_file.c    choosing from results in host memory; the file
 */
#ifndef TUTTI_TOOLS_TUNE_H
#define TUTTI_TOOLS_TUNE_H

#include "bench.h"

struct tune_options {
    const char *ranks;       /* as 2,4 */
    const char *gpus;        /* as 2,4: on GPUs */
    const char *collectives; /* as all_reduce,all_gather */
    const char *output;
    const char *csv;
    size_t max_bytes;
    double seconds;
    int quick;
    int packets;
    int fresh;
};

/* The collectives that are named, else those of all[0 .. n); 0, or an exit status after a message. */
int tune_collectives(const struct tune_options *options, const enum bench_id all[], int n,
                     enum bench_id ids[BENCH_N_COLLECTIVES], int *n_out);

/* ---- progress ---- */

struct tune_progress {
    uint64_t begin_ns;
    int n_all;
    int n_done;
    int n_measured; /* of them, by this run */
};

/* `share` of the next one is done, too. Nothing where standard error is no terminal. */
void tune_show_progress(const struct tune_progress *progress, double share, const char *what,
                        int n_ranks, const char *kind);
void tune_clear_progress(void);

/* ---- on GPUs ---- */

#define TUNE_MAX_WAYS  15 /* that are tried for a size */
#define TUNE_MAX_SIZES 22
#define TUNE_NEARLY    1.03 /* so much slower is as good, because such differences do not last */

struct tune_way {
    const char *algorithm; /* "auto": as the engine chooses, width 0 x 0 */
    int n_blocks, n_threads;
};

/* Ways and their median microseconds; 0: not measured, or not usable. */
struct tune_trials {
    struct tune_way ways[TUNE_MAX_WAYS];
    double us[TUNE_MAX_WAYS];
    int n;
};

enum { TUNE_ORDINARY, TUNE_WINDOWS, TUNE_N_BUFFERS };

struct tune_size {
    size_t bytes;
    struct tune_trials trials[TUNE_N_BUFFERS];
};

struct tune_search {
    enum bench_id id;
    int n_ranks;
    int max_blocks;
    struct tune_size sizes[TUNE_MAX_SIZES];
    int n_sizes;
};

struct tune_choice { /* of one kind of buffers */
    int n;
    struct {
        size_t max_bytes; /* the last measured size that it is for */
        struct tune_way way;
    } rows[TUNE_MAX_SIZES];
};

/* Windows have a way of their own, so they are measured and have rows of their own. */
int tune_has_windows(enum bench_id id);

/* Fill in the trials: a coarse net over algorithms and widths. */
void tune_propose(struct tune_search *search);
/* From the results of the coarse net to finer ones: near the best, and the best of near sizes. */
void tune_refine(struct tune_search *search);
/* The fewest rows that are nearly as fast as the best of every size. */
void tune_choose(const struct tune_search *search, int buffers, struct tune_choice *choice_out);

/* Options are complete but for defaults. Returns the program's exit status. */
int tune_gpu_run(const struct tune_options *options, const char *path);

/* ---- the file ---- */

/* What rows are about; gpu NULL: host memory, and no wire. */
struct tune_subject {
    const char *op;
    int n_ranks;
    const char *gpu;  /* blanks as underscores */
    const char *wire; /* "sentinel", "packets", "any" */
};

/* An algorithm that only windows have: nothing to choose for other buffers. */
int tune_is_for_windows(const char *algorithm);

int tune_make_folders(const char *path); /* those above the file; 0 on success */

/* Begin the file, or keep it as it is if it was begun with the same settings. */
int tune_begin_file(const char *path, const char *settings, int fresh);
int tune_has_rows(const char *path, const struct tune_subject *subject);
/* Choose from the results of a collective in host memory, and append its rows. */
int tune_write_rows(const struct bench_report *report, const char *path);
int tune_write_gpu_rows(const struct tune_subject *subject, const struct tune_search *search,
                        const char *path);
/* Put the rows of `partial` into `path`, beside those that are about something else, print them, and
 * say how to use them. 0, or an exit status. */
int tune_finish_file(const char *partial, const char *path);

#endif
