/*
 * Ranks as forked processes (or as threads of one forked process, where ThreadSanitizer must see
 * the protocol), each with a communicator of its own. A rank that fails, hangs or dies fails the
 * test with the place and its last call; nothing outlives the test.
 */
#ifndef TUTTI_TESTS_JOB_H
#define TUTTI_TESTS_JOB_H

#include <stdatomic.h>
#include <sys/types.h>

#include "support/held_up.h"
#include "support/t.h"

#define T_MAX_RANKS 65

struct t_job;
struct t_board;

struct t_rank {
    int rank;
    int n_ranks;
    tutti_comm *comm; /* of all ranks; NULL if job->no_comm */
    const struct t_job *job;
    void *arg;
    struct t_board *board; /* shared by all ranks and the parent */
    unsigned char *shared; /* T_SHARED_BYTES for the test's own use, zeroed */
};
#define T_SHARED_BYTES ((size_t)1 << 20)

enum t_boot { T_BOOT_ID, T_BOOT_EXCHANGE };

/* What a job is. Zero is the default of every field but n_ranks and body. */
struct t_job {
    int n_ranks;
    void (*body)(struct t_rank *t);
    void *arg;
    int threads;      /* ranks are threads of one process */
    enum t_boot boot; /* how they find each other */
    int no_comm;      /* the body makes its own */
    int keep_comm;    /* the body has destroyed t->comm itself */
    unsigned limit_s; /* 60 */
    int n_devices;    /* rank r takes GPU r modulo this */
    /* If not 0: where times of their own make ranks fail, a failure counts only if no rank was kept from a core for longer
     * than that in all; else t_run() tries again, three times in all, `attempt` being 1 and 2, with twice the config's timeout each time. */
    unsigned held_up_ms;
    unsigned attempt;
    uint64_t dies;            /* bit r: rank r may be killed, that is no failure */
    tutti_comm_config config; /* size 0: TUTTI_COMM_CONFIG_INIT */
    /* Runs in the parent before there are ranks: to fill the shared area. */
    void (*prepare)(const struct t_job *job, struct t_board *board);
    /* Runs in the parent beside the ranks, with their pids (of the process, for threads). */
    void (*parent)(const struct t_job *job, struct t_board *board, const pid_t pids[]);
};

/* Run the job to its end. Fails the cmocka test if a rank fails. */
void t_run(const struct t_job *job);

/* Run the job and return 1 if it failed, with the report in text, instead of failing the test. */
int t_run_quietly(const struct t_job *job, char *text, size_t bytes);

/* n ranks, all defaults. */
void t_ranks(int n_ranks, void (*body)(struct t_rank *t));

/* A cmocka test `name` whose body, in braces after the macro, runs on each of n ranks as `t`. */
#define T_RANKS(name, n)                                                                           \
    static void name##_body_(struct t_rank *t);                                                    \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        t_ranks(n, name##_body_);                                                                  \
    }                                                                                              \
    static void name##_body_(struct t_rank *t)

/* --- between ranks, without tutti ------------------------------------------------------------ */

/* Wait for all ranks of the job. */
void t_meet(struct t_rank *t);

/* All ranks, with what each of them took since a t_meet(): milliseconds of this rank's, without what it and the one of
 * the others that was held up most waited for a core. Ends with a t_meet(). */
uint64_t t_meet_ms(struct t_rank *t, struct t_time took);

/* The id that rank `owner` makes, to all who ask for `key` (not 0; a new one for every id). */
void t_share_id(struct t_rank *t, int owner, uint64_t key, tutti_unique_id *id_out);

/* A further communicator over all ranks. NULL config: defaults. Rank, size and id are filled in. */
tutti_result t_comm_create(struct t_rank *t, uint64_t key, const tutti_comm_config *config,
                           tutti_comm **comm_out);

/* A tutti_exchange_fn over the board; context is the struct t_rank. */
int t_exchange(void *context, const void *send, void *recv, size_t bytes);

/* The area that all ranks and the parent share: t_rank's `shared`. */
unsigned char *t_board_shared(struct t_board *board);

/* Divide t->comm, while rank `victim` can open 0, 1, ... descriptors more and at last as many as it likes: all
 * ranks get a part or none, and t->comm is as good as before. */
void t_split_within_fds(struct t_rank *t, int victim);

/* Threads that a rank starts report as that rank once they have called this. */
void t_adopt(struct t_rank *t);

#endif
