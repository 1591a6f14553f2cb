/*
 * Which algorithm for which call: a table over collective, ranks and bytes, made for a communicator
 * when it is created. Rank 0's is everybody's, so that ranks never disagree.
 */
#ifndef TT_COLL_SELECT_H
#define TT_COLL_SELECT_H

#include "base/call.h"

#define TT_SELECT_ROWS 8

struct tt_select_row {
    uint64_t max_bytes; /* of the larger side of the call on a rank; the last row has UINT64_MAX */
    uint32_t algo;
    uint32_t unused;
};

struct tt_select {
    struct tt_select_row row[TT_N_COLLS][TT_SELECT_ROWS];
    uint64_t direct_from[TT_N_COLLS]; /* windows are used from this many bytes on */
};

/* Where the table is for. On GPUs the engine chooses where the table says auto, as it does built in. */
enum tt_select_kind {
    TT_SELECT_CPU,
    TT_SELECT_CPU_XMEM /* cross-memory copies work */,
    TT_SELECT_GPU
};

/* The built-in table for n ranks, the rows of `tune_file` (may be "") over it, and over both the
 * algorithm forced by name ("" for none). */
tutti_result tt_select_make(struct tt_select *select, int n_ranks, enum tt_select_kind kind,
                            const char *tune_file, const char *force);

static inline enum tt_algo tt_select_algo(const struct tt_select *select, enum tt_coll coll,
                                          uint64_t bytes)
{
    const struct tt_select_row *row = select->row[coll];

    while (bytes > row->max_bytes)
        row++;
    return (enum tt_algo)row->algo;
}

/* The index'th algorithm that a collective knows; TT_ALGO_AUTO past the last. */
enum tt_algo tt_select_known(enum tt_coll coll, size_t index);

const char *tt_algo_name(enum tt_algo algo);
const char *tt_coll_name(enum tt_coll coll);
int tt_coll_from_name(const char *name); /* enum tt_coll, -1: no such collective */
int tt_algo_from_name(const char *name); /* enum tt_algo, -1: no such algorithm */

/* One line of a tune file: "op ranks max_bytes algorithm". 1: a row, 0: blank or comment, -1: bad. */
struct tt_tune_row {
    enum tt_coll coll;
    int n_ranks;
    uint64_t max_bytes;
    enum tt_algo algo;
};
int tt_tune_parse(const char *line, struct tt_tune_row *row);

#endif
