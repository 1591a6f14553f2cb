/*
 * Which algorithm for which call: a table over collective, ranks and bytes, made for a communicator
 * when it is created; on GPUs how wide its launch is, too. Rank 0's is everybody's, so that ranks
 * never disagree.
 */
#ifndef TT_COLL_SELECT_H
#define TT_COLL_SELECT_H

#include "base/engine.h"
#include "coll/tune_rows.h"

#define TT_SELECT_ROWS 24

struct tt_select_row {
    uint64_t max_bytes; /* of the larger side of the call on a rank; the last row has UINT64_MAX */
    uint16_t algo;
    struct tt_width width; /* on GPUs; 0: the engine chooses */
    uint16_t unused;
};

struct tt_select {
    struct tt_select_row row[TT_N_COLLS][TT_N_TUNE_FOR][TT_SELECT_ROWS];
    uint64_t direct_from[TT_N_COLLS]; /* of the CPU: windows are used from this many bytes on */
    uint32_t packets_dtypes;          /* struct tt_launch_limits */
    char source[124];                 /* where it comes from, in words */
};

/* Where the table is for. On GPUs the engine chooses where the table says auto, as it does built in. */
enum tt_select_kind {
    TT_SELECT_CPU,
    TT_SELECT_CPU_XMEM /* cross-memory copies work */,
    TT_SELECT_GPU,
    TT_SELECT_HOSTS /* several hosts: only what was asked for by name matters */
};

struct tt_select_place {
    enum tt_select_kind kind;
    int n_ranks;
    struct tt_launch_limits limits; /* of a GPU engine */
    const char *tune_file;          /* "" for none */
    const char *force;              /* an algorithm by name; "" for none */
};

/* The built-in table, the rows of the tune file over it, and over both the forced algorithm. */
tutti_result tt_select_make(struct tt_select *select, const struct tt_select_place *place);

/* A number that tells tables apart. */
uint32_t tt_select_id(const struct tt_select *select);

static inline const struct tt_select_row *
tt_select_row(const struct tt_select *select, enum tt_coll coll, unsigned list, uint64_t bytes)
{
    const struct tt_select_row *row = select->row[coll][list];

    while (bytes > row->max_bytes)
        row++;
    return row;
}

/* The index'th algorithm that a collective knows in host memory; TT_ALGO_AUTO past the last. */
enum tt_algo tt_select_known(enum tt_coll coll, size_t index);

const char *tt_algo_name(enum tt_algo algo);
const char *tt_coll_name(enum tt_coll coll);
int tt_coll_from_name(const char *name); /* enum tt_coll, -1: no such collective */
int tt_algo_from_name(const char *name); /* enum tt_algo, -1: no such algorithm */

#endif
