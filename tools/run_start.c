/* Starting the ranks: their environment, cores and pipes. */
#include "cli.h"
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

int run_make_secret(struct run *run)
{
    unsigned char bytes[24];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return cli_error("no random numbers: %s", strerror(errno));
    snprintf(run->address, sizeof(run->address), "unix:tutti-run-");
    for (int i = 0; i < 16; i++)
        cli_append(run->secret, sizeof(run->secret), "%02x", bytes[i]);
    for (int i = 16; i < 24; i++)
        cli_append(run->address, sizeof(run->address), "%02x", bytes[i]);
    return 0;
}

static void set_number(const char *name, int value)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", value);
    setenv(name, text, 1);
}

static void exec_rank(struct run *run, int rank, int out, int err)
{
    const int n = run->ranks.n;
    cpu_set_t set;

    if (run->bind != PLACE_NONE) {
        place_of_rank(&run->place, run->bind, rank, n, &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    set_number("TUTTI_RANK", run->first + rank);
    set_number("TUTTI_N_RANKS", run->n_total);
    setenv("TUTTI_BOOT_ADDR", run->address, 1);
    setenv("TUTTI_SECRET", run->secret, 1);
    set_number("RANK", run->first + rank);
    set_number("WORLD_SIZE", run->n_total);
    set_number("LOCAL_RANK", rank);
    set_number("LOCAL_WORLD_SIZE", n);
    for (size_t i = 0; i < run->options->env.n; i++)
        putenv((char *)(uintptr_t)run->options->env.items[i]);
    if (rank != 0 || run->control >= 0) { /* standard input is rank 0's */
        const int null = open("/dev/null", O_RDONLY);

        if (null >= 0)
            dup2(null, STDIN_FILENO);
    }
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, &run->old_mask, NULL);
    execvp(run->program[0], run->program);
    dprintf(STDERR_FILENO, "tutti run: cannot run %s: %s\n", run->program[0], strerror(errno));
    _exit(127);
}

int run_start(struct run *run)
{
    const pid_t parent = getpid();

    for (int r = 0; r < run->ranks.n; r++) {
        int ends[2];
        pid_t pid;

        if (lines_open(run->lines, r, ends) != 0)
            return 2;
        pid = fork();
        if (pid == 0) {
            ranks_die_with(parent);
            exec_rank(run, r, ends[0], ends[1]);
        }
        close(ends[0]);
        close(ends[1]);
        if (pid < 0)
            return cli_error("fork: %s; %d of %d ranks were started", strerror(errno), r,
                             run->ranks.n);
        run->ranks.pids[r] = pid;
    }
    return 0;
}
