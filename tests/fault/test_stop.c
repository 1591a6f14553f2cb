/* A rank that is stopped (SIGSTOP, a debugger, swap) is not dead: the others give up at the deadline
 * and say who, in which call, for how long; and so does the rank itself when it comes back. */
#include <signal.h>
#include <unistd.h>

#include "support/job.h"
#include "support/proc.h"

enum { N = 3, CALLS = 7 };

struct scene {
    _Atomic int pid;    /* of the stopped rank */
    _Atomic int n_done; /* ranks that have seen the failure */
    _Atomic uint64_t stopped_ns;
};

/* Of creation as well, which takes long under sanitizers. */
static unsigned deadline_ms(void)
{
    return 500 * t_scale();
}

static tutti_result call(struct t_rank *t, const char *which, int32_t *x)
{
    if (strcmp(which, "recv") == 0)
        return t->rank == 0 ? tutti_recv(t->comm, x, 4, TUTTI_DTYPE_I32, 1, NULL)
                            : tutti_barrier(t->comm, NULL);
    if (strcmp(which, "barrier") == 0)
        return tutti_barrier(t->comm, NULL);
    return tutti_all_reduce(t->comm, x, x, 100000, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL);
}

static void check_state(struct t_rank *t, const char *which)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_E_TIMEOUT, "status is %s", tutti_result_name(state.result));
    T_CHECK(state.peer == 1, "peer is %d: %s", state.peer, state.text);
    T_CONTAINS(state.text, "rank 1");
    if (strcmp(which, "recv") == 0) { /* messages have no number: it is that of the last call */
        T_CONTAINS(state.text, t->rank == 0 ? "send_recv" : "barrier");
        T_CHECK(t->rank != 0 || state.sequence == CALLS, "sequence %llu, want %d: %s",
                (unsigned long long)state.sequence, CALLS, state.text);
        return;
    }
    T_CONTAINS(state.text, which);
    T_CHECK(state.sequence == CALLS + 1, "sequence %llu, want %d: %s",
            (unsigned long long)state.sequence, CALLS + 1, state.text);
    T_CONTAINS(state.text, "8");
}

static void one_is_stopped(struct t_rank *t)
{
    struct scene *scene = (struct scene *)(void *)t->shared;
    static int32_t x[100000];
    const char *which = t->arg;

    for (int i = 0; i < CALLS; i++)
        T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 1) {
        scene->pid = getpid();
        raise(SIGSTOP);
        T_CHECK(scene->n_done == N - 1, "continued before the others were done");
        T_IS(TUTTI_E_TIMEOUT, tutti_barrier(t->comm, NULL));
        return;
    }
    const int waits = strcmp(which, "recv") != 0 || t->rank == 0;
    while (scene->pid == 0 || (!waits && scene->n_done == 0))
        t_sleep_us(100);
    const uint64_t start = t_now_ns();
    T_IS(TUTTI_E_TIMEOUT, call(t, which, x));
    const uint64_t ms = (t_now_ns() - start) / 1000000;
    T_CHECK(!waits || ms + 20 >= deadline_ms() * 9 / 10, "gave up after %llu ms",
            (unsigned long long)ms);
    T_CHECK(ms < deadline_ms() + 500 * t_scale(), "gave up after %llu ms", (unsigned long long)ms);
    check_state(t, which);
    T_IS(TUTTI_E_TIMEOUT, tutti_barrier(t->comm, NULL)); /* for good, and at once */
    if (atomic_fetch_add(&scene->n_done, 1) + 1 == N - 1)
        kill(scene->pid, SIGCONT);
}

static void run(const char *which, const char *wait)
{
    char name[16];
    struct t_job job = {.n_ranks = N, .body = one_is_stopped, .arg = name};

    snprintf(name, sizeof(name), "%s", which);
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = deadline_ms();
    if (wait != NULL)
        setenv("TUTTI_CPU_WAIT", wait, 1);
    t_run(&job);
    unsetenv("TUTTI_CPU_WAIT");
}

static void an_all_reduce_times_out(void **state)
{
    (void)state;
    run("all_reduce", NULL);
}

static void a_barrier_times_out(void **state)
{
    (void)state;
    run("barrier", NULL);
}

static void a_recv_times_out(void **state)
{
    (void)state;
    run("recv", NULL);
}

static void every_way_of_waiting_times_out(void **state)
{
    (void)state;
    run("all_reduce", "spin");
    run("all_reduce", "yield");
    run("all_reduce", "sleep");
}

/* ---- several at once ---- */

enum { N_MANY = 5, STOPPED_1 = 1, STOPPED_2 = 3 };

struct several {
    _Atomic int pids[N_MANY];
    _Atomic int n_done;
};

static struct several *several_of(struct t_rank *t)
{
    return (struct several *)(void *)t->shared;
}

static void stop_here(struct t_rank *t)
{
    several_of(t)->pids[t->rank] = getpid();
    raise(SIGSTOP);
}

static void await_stop(struct t_rank *t, int rank)
{
    while (several_of(t)->pids[rank] == 0)
        t_sleep_us(100);
}

static tutti_result recv_from_both(struct t_rank *t, int32_t *x)
{
    T_OK(tutti_group_begin(t->comm));
    T_OK(tutti_recv(t->comm, x, 4, TUTTI_DTYPE_I32, STOPPED_1, NULL));
    T_OK(tutti_recv(t->comm, x + 4, 4, TUTTI_DTYPE_I32, STOPPED_2, NULL));
    return tutti_group_end(t->comm);
}

static void two_are_stopped(struct t_rank *t)
{
    struct several *scene = several_of(t);
    static int32_t x[100000];
    const int receives = strcmp(t->arg, "recv") == 0;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == STOPPED_1 || t->rank == STOPPED_2) {
        stop_here(t);
        return;
    }
    await_stop(t, STOPPED_1);
    await_stop(t, STOPPED_2);
    while (receives && t->rank != 0 &&
           scene->n_done == 0) /* or it would be their call that fails */
        t_sleep_us(100);
    T_IS(TUTTI_E_TIMEOUT, receives && t->rank == 0 ? recv_from_both(t, x) : call(t, t->arg, x));
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_E_TIMEOUT && state.peer == STOPPED_1, "%s, rank %d: %s",
            tutti_result_name(state.result), state.peer, state.text);
    T_CONTAINS(state.text, "ranks 1 and 3 did not arrive within");
    T_CONTAINS(tutti_last_error(), "ranks 1 and 3 did not arrive within");
    if (atomic_fetch_add(&scene->n_done, 1) + 1 == N_MANY - 2) {
        kill(scene->pids[STOPPED_1], SIGCONT);
        kill(scene->pids[STOPPED_2], SIGCONT);
    }
}

static void all_who_are_stopped_are_named(void **state)
{
    static const char *const which[] = {"all_reduce", "recv"};

    (void)state;
    for (size_t i = 0; i < T_LEN(which); i++) {
        char name[16];
        struct t_job job = {.n_ranks = N_MANY, .body = two_are_stopped, .arg = name};

        snprintf(name, sizeof(name), "%s", which[i]);
        job.config.size = sizeof(job.config);
        job.config.timeout_ms = 2 * deadline_ms(); /* a survivor that is later is named as well */
        t_run(&job);
    }
}

/* Rank 0 waits for rank 1, which is stopped; rank 2, whom it would have waited for next, is dead. */
static void one_stopped_one_dead(struct t_rank *t)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 1) {
        stop_here(t);
        return;
    }
    await_stop(t, 1);
    if (t->rank == 2)
        kill(getpid(), SIGKILL);
    T_IS(TUTTI_E_PEER, tutti_barrier(t->comm, NULL));
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_E_PEER && state.peer == 2, "%s, rank %d: %s",
            tutti_result_name(state.result), state.peer, state.text);
    kill(several_of(t)->pids[1], SIGCONT);
}

/* Whether a child of the harness is gone: reaped or not. */
static int is_gone(int pid)
{
    return strchr("ZX", t_process_state(pid)) != NULL;
}

static void the_last_three_die(struct t_rank *t)
{
    struct several *scene = several_of(t);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    char others[32];

    T_OK(tutti_barrier(t->comm, NULL));
    scene->pids[t->rank] = getpid();
    if (t->rank >= 2)
        kill(getpid(), SIGKILL);
    for (int r = 2; r < N_MANY; r++)
        while (scene->pids[r] == 0 || !is_gone(scene->pids[r]))
            t_sleep_us(1000);
    T_IS(TUTTI_E_PEER, tutti_barrier(t->comm, NULL));
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_E_PEER && state.peer >= 2, "%s, rank %d: %s",
            tutti_result_name(state.result), state.peer, state.text);
    snprintf(others, sizeof(others), "died, as did ranks %d and %d;", state.peer == 2 ? 3 : 2,
             state.peer == 4 ? 3 : 4);
    T_CONTAINS(state.text, others);
}

static void all_who_have_died_are_named(void **state)
{
    struct t_job job = {.n_ranks = N_MANY, .body = the_last_three_die, .dies = 7u << 2};

    (void)state;
    t_run(&job);
}

static void a_death_explains_more(void **state)
{
    struct t_job job = {.n_ranks = 3, .body = one_stopped_one_dead, .dies = 1u << 2};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = 2 * deadline_ms();
    t_run(&job);
}

/* ---- stopped wherever it is: by its parent, at a random moment ---- */

enum { CREATE_MS = 1000 };

static int everybody_else_is_done(const struct t_job *job, const struct scene *scene)
{
    return scene->n_done >= job->n_ranks - 1;
}

static void stop_one(const struct t_job *job, struct t_board *board, const pid_t pids[])
{
    struct scene *scene = (struct scene *)(void *)t_board_shared(board);
    const uint64_t end = t_now_ns() + UINT64_C(30000000000) * t_scale();

    while (scene->pid == 0 && t_now_ns() < end)
        t_sleep_us(20);
    t_sleep_us((unsigned)(t_now_ns() / 1000 % 3000));
    scene->stopped_ns = t_now_ns();
    kill(pids[1], SIGSTOP);
    while (!everybody_else_is_done(job, scene) && t_now_ns() < end)
        t_sleep_us(1000);
    kill(pids[1], SIGCONT);
}

/* How the others come back: late enough, but not later, and all say who it was. */
static void check_stopped(struct t_rank *t, const char *text, unsigned most_ms)
{
    struct scene *scene = (struct scene *)(void *)t->shared;
    const unsigned ms = (unsigned)((t_now_ns() - scene->stopped_ns) / 1000000);

    T_CHECK(scene->stopped_ns != 0, "nobody was stopped: %s", text);
    T_CHECK(ms < most_ms + 3000 * t_scale(), "gave up %u ms after the stop: %s", ms, text);
    T_CHECK(strstr(text, "rank 1") || strstr(text, "ranks 1"), "rank 1 was stopped: %s", text);
    scene->n_done++;
}

static void in_calls(struct t_rank *t)
{
    struct scene *scene = (struct scene *)(void *)t->shared;
    static int32_t x[100000];
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    tutti_result result = TUTTI_OK;

    for (uint64_t i = 0; result == TUTTI_OK; i++) {
        if (i == 5 && t->rank == 1)
            scene->pid = getpid();
        result = tutti_all_reduce(t->comm, x, x, i % 3 ? 100000 : 10, TUTTI_DTYPE_I32, TUTTI_OP_SUM,
                                  NULL);
    }
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(result == TUTTI_E_TIMEOUT && state.result == result && state.peer == 1, "%s: %s",
            tutti_result_name(result), state.text);
    T_CONTAINS(state.text, "all_reduce");
    if (t->rank != 1)
        check_stopped(t, state.text, deadline_ms());
}

static void stopped_in_a_call(void **state)
{
    struct t_job job = {.n_ranks = N, .body = in_calls, .parent = stop_one};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = deadline_ms();
    for (int i = 0; i < 3; i++)
        t_run(&job);
}

/* The stopped rank may be told that time is over, or that the others have gone meanwhile. */
static void in_creation(struct t_rank *t)
{
    struct scene *scene = (struct scene *)(void *)t->shared;
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_result result = TUTTI_OK;

    config.timeout_ms = CREATE_MS * t_scale();
    for (uint64_t key = 2; result == TUTTI_OK; key++) {
        tutti_comm *comm;

        if (key == 4 && t->rank == 1)
            scene->pid = getpid();
        result = t_comm_create(t, key, &config, &comm);
        if (result == TUTTI_OK)
            tutti_comm_destroy(comm);
    }
    T_CHECK(result == TUTTI_E_TIMEOUT || (t->rank == 1 && result == TUTTI_E_PEER), "%s: %s",
            tutti_result_name(result), tutti_last_error());
    if (t->rank != 1)
        check_stopped(t, tutti_last_error(), CREATE_MS * t_scale());
}

static void stopped_in_creation(void **state)
{
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = in_creation, .parent = stop_one};

    (void)state;
    for (int i = 0; i < 3; i++)
        t_run(&job);
}

/* ---- stopped while it waits itself: that is nobody's fault ---- */

struct pause {
    unsigned deadline_ms, stop_ms;
    int is_barrier; /* else a message */
    int is_early;   /* the peer comes while the rank is stopped, else afterwards */
};

static tutti_result meet(struct t_rank *t, const struct pause *p, int32_t *x)
{
    if (p->is_barrier)
        return tutti_barrier(t->comm, NULL);
    return t->rank == 0 ? tutti_send(t->comm, x, 1, TUTTI_DTYPE_I32, 1, NULL)
                        : tutti_recv(t->comm, x, 1, TUTTI_DTYPE_I32, 0, NULL);
}

static void waits_and_is_stopped(struct t_rank *t)
{
    struct scene *scene = (struct scene *)(void *)t->shared;
    const struct pause *p = t->arg;
    int32_t x = t->rank == 0 ? 42 : 0;

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 1) {
        scene->pid = getpid();
        T_OK(meet(t, p, &x));
        T_CHECK(p->is_barrier || x == 42, "received %d", x);
        return;
    }
    while (scene->pid == 0)
        t_sleep_us(100);
    t_sleep_us(50000); /* it waits, and sleeps, by now */
    T_SYS(kill(scene->pid, SIGSTOP));
    if (p->is_early)
        T_OK(meet(t, p, &x));
    t_sleep_us(p->stop_ms * 1000);
    T_SYS(kill(scene->pid, SIGCONT));
    if (!p->is_early) {
        t_sleep_us(50000); /* so that it looks, and nobody has come */
        T_OK(meet(t, p, &x));
    }
}

static void pause_for(unsigned deadline_ms, unsigned stop_ms, int is_barrier, int is_early)
{
    struct pause p = {deadline_ms * t_scale(), stop_ms * t_scale(), is_barrier, is_early};
    struct t_job job = {.n_ranks = 2, .body = waits_and_is_stopped, .arg = &p};

    job.config.size = sizeof(job.config);
    job.config.timeout_ms = p.deadline_ms;
    t_run(&job);
}

/* Too short a stop to be told from a peer that is late: what has come meanwhile counts. */
static void a_message_came_while_it_was_stopped(void **state)
{
    (void)state;
    pause_for(800, 950, 0, 1);
}

static void a_stop_moves_the_deadline_of_a_message(void **state)
{
    (void)state;
    pause_for(1000, 1500, 0, 0);
}

static void a_stop_moves_the_deadline_of_a_collective(void **state)
{
    (void)state;
    pause_for(1000, 1500, 1, 0);
}

/* Slower than the deadline in all, but never later than it at any one call: not an error. */
static void slow_but_alive(struct t_rank *t)
{
    for (int i = 0; i < 4; i++) {
        if (t->rank == i % t->n_ranks)
            t_sleep_us(300000);
        T_OK(tutti_barrier(t->comm, NULL));
    }
}

static void a_slow_rank_is_waited_for(void **state)
{
    struct t_job job = {.n_ranks = 2, .body = slow_but_alive};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = 1000;
    t_run(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_all_reduce_times_out),
        cmocka_unit_test(a_barrier_times_out),
        cmocka_unit_test(a_recv_times_out),
        cmocka_unit_test(every_way_of_waiting_times_out),
        cmocka_unit_test(all_who_are_stopped_are_named),
        cmocka_unit_test(a_death_explains_more),
        cmocka_unit_test(all_who_have_died_are_named),
        cmocka_unit_test(stopped_in_a_call),
        cmocka_unit_test(stopped_in_creation),
        cmocka_unit_test(a_message_came_while_it_was_stopped),
        cmocka_unit_test(a_stop_moves_the_deadline_of_a_message),
        cmocka_unit_test(a_stop_moves_the_deadline_of_a_collective),
        cmocka_unit_test(a_slow_rank_is_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
