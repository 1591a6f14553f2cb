/* Ranks as children of this process. */
#ifndef TUTTI_TOOLS_RANKS_H
#define TUTTI_TOOLS_RANKS_H

#include <stdint.h>
#include <sys/types.h>

struct ranks {
    int n;
    pid_t *pids; /* 0 once reaped */
    int *status; /* as waitpid() gives it */
};

/* What a rank does; its return value is its exit status. */
typedef int (*ranks_fn)(void *context, int rank);

/* Fork n ranks, which die with this process. Returns 0, or -1 with none left. */
int ranks_start(struct ranks *ranks, int n, ranks_fn run, void *context);

/* Reap those that have ended; returns how many are still there. A rank that died (signal or a status
 * that is not 0) is stored in *failed_out, which is else left alone. */
int ranks_poll(struct ranks *ranks, int *failed_out);

/* Poll until all have ended or seconds have passed; then end what is left. */
void ranks_finish(struct ranks *ranks, double seconds);

void ranks_kill(struct ranks *ranks, int signal_number);
void ranks_free(struct ranks *ranks);

/* "killed by signal 9 (Killed)", "exit status 3". */
const char *ranks_describe(int status, char *text, size_t size);
int ranks_exit_status(int status); /* as a shell has it: 128 + signal */

/* Die when `parent` does; call in the child. */
void ranks_die_with(pid_t parent);

uint64_t ranks_now_ns(void);
void ranks_sleep_ms(int ms);

#endif
