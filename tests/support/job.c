/* Start ranks, watch over them, report the first that failed, and leave nothing behind. */
#include "support/job.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/board.h"
#include "support/hosts.h"
#include "support/proc.h"

enum { ATTEMPTS = 3 };

struct team {
    const struct t_job *job;
    struct t_board *board;
    pid_t pids[T_MAX_RANKS];
    int status[T_MAX_RANKS];
    int n_processes;
    int n_alive;
    int timed_out;
    uint64_t held_up_ns;
};

/* Calls on a stream fail after they were made, when the test may look no more. */
static void check_well(const struct t_rank *t)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_OK || state.result == TUTTI_E_ABORTED || t->job->dies != 0,
            "the communicator has failed: %s", state.text);
}

static void run_rank(const struct t_job *job, struct t_board *board, int rank)
{
    struct t_rank t = {.rank = rank, .n_ranks = job->n_ranks, .job = job, .arg = job->arg};

    t.board = board;
    t.shared = board->shared;
    t_report_to(&board->slots[rank], !job->threads);
    t_host_enter(rank);
    if (!job->no_comm)
        T_OK(t_comm_create(&t, 1, &job->config, &t.comm));
    job->body(&t);
    if (!job->no_comm && !job->keep_comm && job->config.device == TUTTI_DEVICE_CUDA)
        check_well(&t);
    t_at(__FILE__, __LINE__, "tutti_comm_destroy");
    if (!job->no_comm && !job->keep_comm)
        tutti_comm_destroy(t.comm);
    t_at(__FILE__, __LINE__, "(the end)");
    atomic_store(&board->slots[rank].state, T_DONE);
}

struct thread_arg {
    struct team *team;
    int rank;
    pthread_t thread;
};

static void *thread_main(void *context)
{
    struct thread_arg *arg = context;

    run_rank(arg->team->job, arg->team->board, arg->rank);
    return NULL;
}

static void run_threads(struct team *team)
{
    static struct thread_arg args[T_MAX_RANKS];

    t_report_to(&team->board->slots[0], 1);
    for (int r = 0; r < team->job->n_ranks; r++) {
        args[r] = (struct thread_arg){.team = team, .rank = r};
        T_CHECK(pthread_create(&args[r].thread, NULL, thread_main, &args[r]) == 0, "no thread");
    }
    for (int r = 0; r < team->job->n_ranks; r++)
        pthread_join(args[r].thread, NULL);
}

/* cmocka's handlers would take a crash in a rank for one in the test. */
static void default_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGABRT};

    for (size_t i = 0; i < T_LEN(signals); i++)
        signal(signals[i], SIG_DFL);
}

static void child_main(struct team *team, int rank, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    setpgid(0, 0);
    default_signals();
    if (team->job->threads)
        run_threads(team);
    else
        run_rank(team->job, team->board, rank);
    exit(0); /* not _exit: the sanitizers report at exit */
}

static void start(struct team *team)
{
    const pid_t parent = getpid();

    fflush(NULL);
    team->n_processes = team->job->threads ? 1 : team->job->n_ranks;
    for (int r = 0; r < team->n_processes; r++) {
        const pid_t pid = fork();

        if (pid == 0)
            child_main(team, r, parent);
        team->pids[r] = pid;
        if (pid > 0)
            team->n_alive++;
        else
            snprintf(team->board->slots[r].text, T_TEXT_BYTES, "fork: %s", strerror(errno));
        if (pid > 0)
            setpgid(pid, pid);
    }
}

static void reap(struct team *team, int options)
{
    for (int r = 0; r < team->n_processes; r++)
        if (team->pids[r] > 0 && waitpid(team->pids[r], &team->status[r], options) > 0) {
            kill(-team->pids[r], SIGKILL); /* what it may have started */
            team->pids[r] = -1;
            team->n_alive--;
        }
}

static int may_die(const struct team *team, int r)
{
    return !team->job->threads && r < 64 && ((team->job->dies >> r) & 1) != 0;
}

static int has_failed(const struct team *team, int r)
{
    const int process = team->job->threads ? 0 : r;
    const int state = atomic_load(&team->board->slots[r].state);

    if (state == T_FAILED)
        return 1;
    if (may_die(team, r) || team->pids[process] > 0)
        return 0;
    return team->pids[process] == 0 || team->status[process] != 0 || state == T_RUNNING;
}

static int any_failed(const struct team *team)
{
    for (int r = 0; r < team->job->n_ranks; r++)
        if (has_failed(team, r))
            return 1;
    return 0;
}

/* When a rank has just failed, which by itself may be the one that was not held up. */
static uint64_t held_up_most(const struct team *team)
{
    uint64_t most = 0;

    for (int r = 0; r < team->job->n_ranks; r++) {
        const struct t_slot *slot = &team->board->slots[r];
        const uint64_t ns = atomic_load(&slot->state) == T_FAILED ? slot->held_up_ns
                            : r < team->n_processes && team->pids[r] > 0
                                ? t_held_up_most_ns((int)team->pids[r])
                                : 0;

        most = ns > most ? ns : most;
    }
    return most;
}

/* Until all ranks have ended, or the time is over; a failure shortens it to two seconds. */
static void watch(struct team *team)
{
    const uint64_t limit = team->job->limit_s != 0 ? team->job->limit_s : 60;
    uint64_t end = t_now_ns() + limit * t_scale() * 1000000000u;
    int shortened = 0;

    for (;;) {
        reap(team, WNOHANG);
        if (team->n_alive == 0)
            return;
        if (!shortened && any_failed(team)) {
            shortened = 1;
            team->held_up_ns = held_up_most(team);
            end = t_now_ns() + 2000000000u;
        }
        if (t_now_ns() > end)
            break;
        t_sleep_us(500);
    }
    team->timed_out = !shortened;
    for (int r = 0; r < team->n_processes; r++)
        if (team->pids[r] > 0)
            kill(-team->pids[r], SIGKILL);
    reap(team, 0);
}

static size_t add(char *text, size_t bytes, size_t used, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static size_t add(char *text, size_t bytes, size_t used, const char *format, ...)
{
    va_list args;
    int n;

    if (used >= bytes)
        return used;
    va_start(args, format);
    n = vsnprintf(text + used, bytes - used, format, args);
    va_end(args);
    return n < 0 ? used : used + (size_t)n;
}

static size_t describe(const struct team *team, int r, char *text, size_t bytes, size_t used)
{
    const struct t_slot *slot = &team->board->slots[r];
    const int status = team->status[team->job->threads ? 0 : r];
    const char *call = slot->call != NULL ? slot->call : "(between calls)";
    const char *file = slot->file != NULL ? slot->file : "(start)";

    used = add(text, bytes, used, "rank %d of %d: ", r, team->job->n_ranks);
    if (atomic_load(&slot->state) == T_FAILED || slot->text[0] != 0)
        return add(text, bytes, used, "%s\n", slot->text);
    if (WIFSIGNALED(status) && !(team->timed_out && WTERMSIG(status) == SIGKILL))
        used = add(text, bytes, used, "died of signal %d (%s)", WTERMSIG(status),
                   strsignal(WTERMSIG(status)));
    else if (team->timed_out && atomic_load(&slot->state) == T_RUNNING)
        used = add(text, bytes, used, "hung");
    else
        used = add(text, bytes, used, "ended with status %d", WEXITSTATUS(status));
    return add(text, bytes, used, " at %s:%d %s\n", file, slot->line, call);
}

/* The earliest failure first, then whoever else failed. */
static void report(const struct team *team, char *text, size_t bytes)
{
    uint64_t first = UINT64_MAX;
    int first_rank = -1;
    size_t used = 0;

    for (int r = 0; r < team->job->n_ranks; r++) {
        const struct t_slot *slot = &team->board->slots[r];

        if (has_failed(team, r) && slot->failed_ns != 0 && slot->failed_ns < first) {
            first = slot->failed_ns;
            first_rank = r;
        }
    }
    text[0] = 0;
    if (first_rank >= 0)
        used = describe(team, first_rank, text, bytes, used);
    for (int r = 0; r < team->job->n_ranks; r++)
        if (r != first_rank && has_failed(team, r))
            used = describe(team, r, text, bytes, used);
}

static const char *skipped(const struct team *team)
{
    for (int r = 0; r < team->job->n_ranks; r++)
        if (atomic_load(&team->board->slots[r].state) == T_SKIPPED)
            return team->board->slots[r].text;
    return NULL;
}

static int run(const struct t_job *job, char *text, size_t bytes, uint64_t *held_up_ns)
{
    struct team team = {.job = job, .board = t_board_new(job->n_ranks)};
    int failed;

    T_CHECK(team.board != NULL, "no memory for the board");
    T_CHECK(job->n_ranks >= 1 && job->n_ranks <= T_MAX_RANKS, "%d ranks", job->n_ranks);
    if (job->prepare != NULL)
        job->prepare(job, team.board);
    start(&team);
    if (job->parent != NULL)
        job->parent(job, team.board, team.pids);
    watch(&team);
    failed = any_failed(&team) || team.timed_out;
    text[0] = 0;
    if (failed)
        report(&team, text, bytes);
    else if (skipped(&team) != NULL)
        snprintf(text, bytes, "skipped: %s", skipped(&team));
    t_board_free(team.board);
    *held_up_ns = team.held_up_ns;
    return failed;
}

int t_run_quietly(const struct t_job *job, char *text, size_t bytes)
{
    uint64_t held_up_ns;

    return run(job, text, bytes, &held_up_ns);
}

void t_run(const struct t_job *job)
{
    char text[4 * T_TEXT_BYTES];
    struct t_job again = *job;
    uint64_t held_up_ns;

    while (run(&again, text, sizeof(text), &held_up_ns)) {
        if (job->held_up_ms == 0 || held_up_ns <= job->held_up_ms * UINT64_C(1000000) ||
            ++again.attempt == ATTEMPTS)
            fail_msg("%s", text);
        again.config.timeout_ms = job->config.timeout_ms << again.attempt;
        print_message("again, since a rank was kept from a core for %d ms: %s",
                      (int)(held_up_ns / 1000000), text);
    }
    if (strncmp(text, "skipped: ", 9) == 0)
        t_skip("%s", text + 9);
}

void t_ranks(int n_ranks, void (*body)(struct t_rank *t))
{
    const struct t_job job = {.n_ranks = n_ranks, .body = body};

    t_run(&job);
}

void t_split_within_fds(struct t_rank *t, int victim)
{
    enum { MOST = 12 };
    int good[T_MAX_RANKS], n_failed = 0;

    for (int more = 0; more <= MOST; more++) {
        tutti_comm *part = NULL;
        tutti_result result;

        if (t->rank == victim)
            t_limit_fds(more < MOST ? more : -1);
        result = tutti_comm_split(t->comm, 0, 0, &part);
        if (t->rank == victim)
            t_limit_fds(-1);
        T_CHECK(result != TUTTI_E_TIMEOUT && result != TUTTI_E_PEER, "%d more: %s: %s", more,
                tutti_result_name(result), tutti_last_error());
        good[t->rank] = result == TUTTI_OK;
        T_CHECK(t_exchange(t, &good[t->rank], good, sizeof(good[0])) == 0, "the exchange failed");
        for (int r = 0; r < t->n_ranks; r++)
            T_CHECK(good[r] == good[t->rank], "%d more: rank %d has %s", more, r,
                    good[r] ? "a part" : "none");
        n_failed += result != TUTTI_OK;
        tutti_comm_destroy(part);
    }
    T_CHECK(good[0] && n_failed > 0, "%d of %d splits failed", n_failed, MOST + 1);
}
