/* `tutti run`: start the ranks of a program on this host, and see to it that all end together. */
#include "commands.h"
#include "place.h"
#include "run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static struct run_options options;

static const struct cli_option option_table[] = {
    {'n', "ranks", CLI_NUMBER, &options.n, "N", "ranks; default: one a core"},
    {0, "bind", CLI_TEXT, &options.bind, "HOW",
     "core: an equal share of the cores each (default);\nnuma: a NUMA node; none"},
    {0, "timeout", CLI_SECONDS, &options.timeout, "TIME", "end all after this long (status 124)"},
    {0, "grace", CLI_SECONDS, &options.grace, "TIME", "from SIGTERM to SIGKILL; default 3 s"},
    {0, "env", CLI_LIST, &options.env, "K=V", "set a variable for the ranks; may be repeated"},
    {0, "hosts", CLI_TEXT, &options.hosts, "A:N,B:N",
     "start N ranks on host A, N on B ...; the ranks of the\nfirst come first, and it must be "
     "reachable by that name"},
    {0, "rsh", CLI_TEXT, &options.rsh, "COMMAND",
     "how to run a command on a host; default: TUTTI_RSH,\nelse ssh"},
    {0, "port", CLI_NUMBER, &options.port, "PORT",
     "where rank 0 of several hosts listens; default: random"},
    {0, "part", CLI_TEXT, &options.part, NULL, NULL},
    {0, "no-prefix", CLI_FLAG, &options.no_prefix, NULL, "print lines as they are"},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_run = {
    "run", "[-n N | --hosts A:N,B:N] [options] [--] PROGRAM [arguments]",
    "start a program as N ranks, on this host or on several",
    "Every rank finds TUTTI_RANK, TUTTI_N_RANKS, TUTTI_BOOT_ADDR and TUTTI_SECRET (all that\n"
    "tutti_comm_create_from_env() needs) and RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE. Ranks "
    "are\n"
    "spread over the NUMA nodes and bound to cores of their own. Lines are printed behind their "
    "rank.\n"
    "When a rank dies all others are ended, and what each of them last did is told. Nothing "
    "outlives\n"
    "`tutti run`.\n"
    "\n"
    "  tutti run -n 4 ./my_program --its-option\n"
    "  tutti run -n 2 --bind numa --env OMP_NUM_THREADS=16 -- ./server\n"
    "  tutti run -n 8 --timeout 60 ./test\n"
    "  tutti run --hosts alpha:4,beta:4 -- ./my_program\n"
    "\n"
    "On several hosts this program and the ranks' must be found at the same place, and TUTTI_* "
    "variables\n"
    "are passed on. The secret travels through ssh, not on a command line.\n"
    "\n"
    "Exit status: that of the first rank that failed (128 + signal if one killed it), 124 at the "
    "time\n"
    "limit, 127 if the program cannot be run, 130 after Ctrl-C.\n",
    option_table};

static void end_all(struct run *run, int status)
{
    if (run->status < 0)
        run->status = status;
    if (run->kill_ns)
        return;
    run->kill_ns = ranks_now_ns() + (uint64_t)(options.grace * 1e9);
    if (run->n_hosts) { /* the parts have as long; then they are taken for lost */
        run_hosts_close(run);
        run->kill_ns += 2000000000u;
        return;
    }
    ranks_kill(&run->ranks, SIGTERM);
}

/* The rank whose end is the cause: of those that ended together one that was killed by a signal, for
 * the others may have ended because of it. */
static int find_cause(const struct ranks *ranks, const pid_t *before)
{
    int cause = -1;

    for (int r = 0; r < ranks->n; r++) {
        const int ended = before[r] > 0 && ranks->pids[r] == 0 && ranks->status[r] != 0;

        if (ended &&
            (cause < 0 || (WIFSIGNALED(ranks->status[r]) && !WIFSIGNALED(ranks->status[cause]))))
            cause = r;
    }
    return cause;
}

/* Reap, and on the first failure tell the story and end the others. */
static int reap(struct run *run)
{
    const size_t bytes = (size_t)run->ranks.n * sizeof(pid_t);
    pid_t *before = cli_alloc(bytes);
    int failed = -1;
    int n_left;
    char text[96];

    memcpy(before, run->ranks.pids, bytes);
    n_left = ranks_poll(&run->ranks, &failed);
    failed = find_cause(&run->ranks, before);
    if (failed >= 0 && run->status < 0) {
        cli_flush();
        ranks_describe(run->ranks.status[failed], text, sizeof(text));
        if (run->n_hosts)
            fprintf(stderr, "tutti run: host %s: %s%s\n", run->hosts[failed].name, text,
                    n_left ? "; ending the others" : "");
        else
            fprintf(stderr, "tutti run: rank %d (pid %d): %s%s\n", run->first + failed,
                    (int)before[failed], text, n_left ? "; ending the others" : "");
        if (n_left && run->n_total == run->ranks.n && !run->n_hosts)
            story_tell(&run->ranks, failed);
        end_all(run, ranks_exit_status(run->ranks.status[failed]));
    }
    free(before);
    return n_left;
}

static void handle_signals(struct run *run)
{
    struct signalfd_siginfo info;

    while (read(run->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        const int number = (int)info.ssi_signo;

        if (number == SIGCHLD)
            continue;
        if (run->n_hosts)
            run_hosts_close(run);
        else if (info.ssi_code != SI_KERNEL) /* the terminal's reach the ranks by themselves */
            ranks_kill(&run->ranks, number);
        if ((number == SIGUSR1 || number == SIGUSR2) && !run->n_hosts)
            continue;
        if (run->status < 0)
            run->status = 128 + number;
        if (run->n_interrupts++ > 0)
            run->kill_ns = 1; /* asked twice: no more patience */
        else
            run->kill_ns = ranks_now_ns() + (uint64_t)(options.grace * 1e9);
    }
}

static void check_limits(struct run *run)
{
    const uint64_t now = ranks_now_ns();

    if (run->limit_ns && now > run->limit_ns) {
        run->limit_ns = 0;
        fprintf(stderr, "tutti run: not done after %g s; ending all ranks\n", options.timeout);
        if (!run->n_hosts)
            story_tell(&run->ranks, -1);
        end_all(run, 124);
    }
    if (run->kill_ns && now > run->kill_ns) {
        ranks_kill(&run->ranks, SIGKILL);
        run->kill_ns = now + 1000000000u;
    }
}

/* What ranks started and left behind has become our child: end it. */
static void end_orphans(void)
{
    char path[64];
    int pid;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    for (int turn = 0; turn < 20; turn++) {
        int n = 0;

        file = fopen(path, "re");
        while (file && fscanf(file, "%d", &pid) == 1) {
            kill(pid, turn < 5 ? SIGTERM : SIGKILL);
            n++;
        }
        if (file)
            fclose(file);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            n--;
        if (n <= 0)
            return;
        ranks_sleep_ms(20);
    }
}

static void loop(struct run *run)
{
    const nfds_t n_polls = 2 * (nfds_t)run->ranks.n + 2;
    struct pollfd *polls = cli_alloc(n_polls * sizeof(*polls));
    uint64_t quiet_ns = 0; /* when all had ended */

    for (;;) {
        const int n_open = lines_poll_set(run->lines, polls);
        int n_left;

        polls[n_polls - 1].fd = run->signals;
        polls[n_polls - 1].events = POLLIN;
        polls[n_polls - 2].fd = run->kill_ns ? -1 : run->control;
        polls[n_polls - 2].events = POLLIN;
        poll(polls, n_polls, run->kill_ns || run->limit_ns || quiet_ns ? 50 : 1000);
        lines_read(run->lines, polls);
        handle_signals(run);
        if (run->control >= 0 && !run->kill_ns && run_part_has_ended(run))
            end_all(run, 143);
        n_left = reap(run);
        if (n_left) {
            check_limits(run);
            continue;
        }
        if (!quiet_ns)
            quiet_ns = ranks_now_ns();
        /* a child of a rank may hold a pipe open: it is not waited for */
        if (n_open == 0 || ranks_now_ns() - quiet_ns > 200000000u)
            break;
    }
    free(polls);
}

static int prepare(struct run *run)
{
    sigset_t mask;

    run->bind = PLACE_CORE;
    if (options.bind && strcmp(options.bind, "numa") == 0)
        run->bind = PLACE_NUMA;
    else if (options.bind && strcmp(options.bind, "none") == 0)
        run->bind = PLACE_NONE;
    else if (options.bind && strcmp(options.bind, "core") != 0)
        return cli_error("--bind %s: core, numa or none", options.bind);
    for (size_t i = 0; i < options.env.n; i++)
        if (strcspn(options.env.items[i], "=") == 0 || !strchr(options.env.items[i], '='))
            return cli_error("--env %s: expected NAME=VALUE", options.env.items[i]);
    place_read(&run->place);
    if (!options.hosts && (options.rsh || options.port))
        return cli_error("--%s: only with --hosts", options.rsh ? "rsh" : "port");
    if (options.n == CLI_NOT_GIVEN && !options.hosts)
        options.n = place_fit(&run->place);
    if (options.n != CLI_NOT_GIVEN && (options.n < 1 || options.n > RUN_MOST_RANKS))
        return cli_error("-n %d: 1 to %d ranks", options.n, RUN_MOST_RANKS);
    if (options.hosts) {
        const int status = run_hosts_parse(run);

        if (status)
            return status;
        options.n = run->n_hosts; /* what is started here: a part on each */
    }
    if (!options.hosts)
        run->n_total = options.n;
    if (options.part ? run_part_prepare(run) : run_make_secret(run))
        return 2;
    sigemptyset(&mask);
    for (size_t i = 0; i < 7; i++)
        sigaddset(&mask,
                  (const int[]){SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}[i]);
    sigprocmask(SIG_BLOCK, &mask, &run->old_mask);
    run->signals = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return 0;
}

int command_run_run(int argc, char **argv)
{
    struct run run = {0};
    int status;

    options.grace = 3;
    options.n = CLI_NOT_GIVEN;
    run.options = &options;
    run.status = -1;
    run.control = -1;
    run.program = cli_alloc((size_t)(argc + 1) * sizeof(*run.program));
    status = cli_parse(&command_run, argc, argv, 1, run.program);
    if (status != CLI_GO)
        return status;
    if (!run.program[0])
        return cli_error("which program? For example: tutti run -n 4 ./my_program");
    status = prepare(&run);
    if (status)
        return status;
    run.ranks.n = options.n;
    run.ranks.pids = cli_alloc((size_t)options.n * sizeof(*run.ranks.pids));
    run.ranks.status = cli_alloc((size_t)options.n * sizeof(*run.ranks.status));
    run.lines = lines_new(options.n, !options.no_prefix && !run.n_hosts);
    if (!run.n_hosts)
        lines_number(run.lines, run.first, run.n_total);
    if (options.timeout > 0)
        run.limit_ns = ranks_now_ns() + (uint64_t)(options.timeout * 1e9);
    status = run.n_hosts ? run_hosts_start(&run) : run_start(&run);
    if (status)
        end_all(&run, status);
    loop(&run);
    run_hosts_close(&run);
    end_orphans();
    lines_finish(run.lines);
    place_free(&run.place);
    ranks_free(&run.ranks);
    free(run.program);
    free(run.hosts);
    free(run.host_list);
    return run.status < 0 ? 0 : run.status;
}
