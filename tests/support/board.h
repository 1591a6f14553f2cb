/* What the ranks of a job and their parent share: an anonymous shared mapping made before fork. */
#ifndef TUTTI_TESTS_BOARD_H
#define TUTTI_TESTS_BOARD_H

#include "support/job.h"

enum { T_TEXT_BYTES = 2048, T_ID_SLOTS = 64, T_EXCHANGE_BYTES = 65536 };

enum t_state { T_RUNNING, T_DONE, T_FAILED, T_SKIPPED };

/* One rank's report. The strings are literals: the same address in every process of the test. */
struct t_slot {
    atomic_int state;
    int rank;
    uint64_t failed_ns;
    const char *file; /* last call */
    int line;
    const char *call;
    char text[T_TEXT_BYTES];
    uint64_t held_up_ns; /* for t_meet_ms(), and at a failure */
};

struct t_id_slot {
    _Atomic uint64_t key;
    char text[TUTTI_UNIQUE_ID_TEXT_BYTES];
};

struct t_board {
    struct t_slot slots[T_MAX_RANKS];
    struct t_id_slot ids[T_ID_SLOTS];
    atomic_uint arrived; /* of t_meet() */
    atomic_uint met;
    unsigned char exchange[T_MAX_RANKS][T_EXCHANGE_BYTES];
    unsigned char shared[T_SHARED_BYTES];
};

struct t_board *t_board_new(int n_ranks);
void t_board_free(struct t_board *board);

/* This thread (and process, if it has none yet) reports to `slot`; NULL: to cmocka. */
void t_report_to(struct t_slot *slot, int whole_process);

#endif
