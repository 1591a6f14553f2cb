/*
 * Tune files: text, the line "tutti-tune 1" and then a row a line; `#` begins a comment.
 *
 *   op ranks max_bytes algorithm                                       for host memory
 *   op ranks max_bytes algorithm blocksxthreads buffers wire gpu       for GPUs
 */
#ifndef TT_COLL_TUNE_ROWS_H
#define TT_COLL_TUNE_ROWS_H

#include "base/call.h"

/* What a row is for, as bits; each is a list of its own. Of host memory there is ORDINARY only. What
 * only moves data has the same rows with and without packets. */
enum tt_tune_for {
    TT_TUNE_ORDINARY,
    TT_TUNE_WINDOWS,
    TT_TUNE_ORDINARY_PACKETS, /* reductions whose numbers travel in packets */
    TT_TUNE_WINDOWS_PACKETS,
    TT_N_TUNE_FOR
};

struct tt_tune_row {
    enum tt_coll coll;
    int n_ranks;
    uint64_t max_bytes; /* of the larger side of the call on a rank; "inf": UINT64_MAX */
    enum tt_algo algo;  /* AUTO, on GPUs only: what the engine takes */
    int on_gpu;
    struct tt_width width; /* 0 blocks, "auto": what the engine takes */
    unsigned lists;        /* 1 << enum tt_tune_for */
    char gpu[64];          /* the model, blanks as underscores */
};

#define TT_TUNE_WHY_BYTES 200

/* One line: 1 a row, 0 blank or a comment, -1 bad, for the reason in why[TT_TUNE_WHY_BYTES]. */
int tt_tune_parse(const char *line, struct tt_tune_row *row, char *why);

/* Hand all rows of a file to `take`, which returns -1 with a reason where it refuses one. A failure
 * names file and line. */
typedef int (*tt_tune_take)(void *context, const struct tt_tune_row *row, char *why);
tutti_result tt_tune_read(const char *path, tt_tune_take take, void *context);

/* 1 if `gpu` of a row means the model that a driver calls `name`. */
int tt_tune_is_gpu(const char *gpu, const char *name);

/* How many rows of a file are for the GPU `name`, and how many for other GPUs. */
tutti_result tt_tune_count(const char *path, const char *name, int *n_rows_out, int *n_others_out);

#endif
