#include "ranks.h"
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t ranks_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void ranks_sleep_ms(int ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

void ranks_die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(125);
}

int ranks_start(struct ranks *ranks, int n, ranks_fn run, void *context)
{
    const pid_t parent = getpid();

    ranks->n = n;
    ranks->pids = cli_alloc((size_t)n * sizeof(*ranks->pids));
    ranks->status = cli_alloc((size_t)n * sizeof(*ranks->status));
    fflush(NULL);
    for (int r = 0; r < n; r++) {
        const pid_t pid = fork();

        if (pid < 0) {
            cli_error("fork: %s; %d of %d ranks were started", strerror(errno), r, n);
            ranks_kill(ranks, SIGKILL);
            ranks_finish(ranks, 1);
            return -1;
        }
        if (pid == 0) {
            int status;

            ranks_die_with(parent);
            status = run(context, r);
            fflush(NULL);
            _exit(status);
        }
        ranks->pids[r] = pid;
    }
    return 0;
}

int ranks_poll(struct ranks *ranks, int *failed_out)
{
    int n_left = 0;

    for (int r = 0; r < ranks->n; r++) {
        int status;

        if (!ranks->pids[r])
            continue;
        if (waitpid(ranks->pids[r], &status, WNOHANG) != ranks->pids[r]) {
            n_left++;
            continue;
        }
        ranks->pids[r] = 0;
        ranks->status[r] = status;
        if (status != 0)
            *failed_out = r;
    }
    return n_left;
}

void ranks_kill(struct ranks *ranks, int signal_number)
{
    for (int r = 0; r < ranks->n; r++)
        if (ranks->pids[r] > 0)
            kill(ranks->pids[r], signal_number);
}

void ranks_finish(struct ranks *ranks, double seconds)
{
    const uint64_t deadline = ranks_now_ns() + (uint64_t)(seconds * 1e9);
    int failed = -1;

    while (ranks_poll(ranks, &failed) > 0) {
        if (ranks_now_ns() > deadline)
            ranks_kill(ranks, SIGKILL);
        ranks_sleep_ms(5);
    }
}

void ranks_free(struct ranks *ranks)
{
    free(ranks->pids);
    free(ranks->status);
}

const char *ranks_describe(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
    return text;
}

int ranks_exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
