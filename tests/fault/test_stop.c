/* A rank that is stopped (SIGSTOP, a debugger, swap) is not dead: the others give up at the deadline
 * and say who, in which call, for how long; and so does the rank itself when it comes back. */
#include <signal.h>
#include <unistd.h>

#include "support/job.h"

enum { N = 3, DEADLINE_MS = 500, CALLS = 7 };

struct scene {
    _Atomic int pid;    /* of the stopped rank */
    _Atomic int n_done; /* ranks that have seen the failure */
};

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
    if (strcmp(which, "recv") == 0)
        return;
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
    T_CHECK(!waits || ms + 20 >= DEADLINE_MS * 9 / 10, "gave up after %llu ms",
            (unsigned long long)ms);
    T_CHECK(ms < DEADLINE_MS + 500 * t_scale(), "gave up after %llu ms", (unsigned long long)ms);
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
    job.config.timeout_ms = DEADLINE_MS;
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
        cmocka_unit_test(a_slow_rank_is_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
