/* tutti_comm_abort() from another thread ends what every rank is doing within 100 ms. */
#include <pthread.h>
#include <unistd.h>

#include "cpu/stall.h"
#include "support/job.h"

#ifdef TUTTI_STALL
enum { N = 3, STALLS = 1 };
#else
enum { N = 3, STALLS = 0 };
#endif

struct scene {
    int pids[N];
    struct t_time of[N]; /* the ranks, when one aborts */
    struct t_time abort; /* what that took */
    atomic_int is_over;
};

static void *abort_later(void *context)
{
    struct t_rank *t = context;
    struct scene *scene = (struct scene *)(void *)t->shared;
    struct t_time from;

    t_sleep_us(150000);
    for (int r = 0; r < N; r++)
        scene->of[r] = t_time_of(scene->pids[r]);
    from = t_time_of(0);
    tutti_comm_abort(t->comm);
    scene->abort = t_time_from(from, t_time_of(0));
    atomic_store(&scene->is_over, 1);
    return NULL;
}

/* Calls that none of the ranks can finish. */
static tutti_result blocked(struct t_rank *t, const char *which)
{
    static int32_t x[300000], y[300000];
    const int next = (t->rank + 1) % N;

    if (strcmp(which, "recv") == 0)
        return tutti_recv(t->comm, x, 10, TUTTI_DTYPE_I32, next, NULL);
    if (strcmp(which, "send") == 0) /* too large to be taken without a receiver */
        return tutti_send(t->comm, x, 300000, TUTTI_DTYPE_I32, next, NULL);
    if (strcmp(which, "group") == 0) {
        T_OK(tutti_group_begin(t->comm));
        T_OK(tutti_recv(t->comm, x, 10, TUTTI_DTYPE_I32, next, NULL));
        T_OK(tutti_recv(t->comm, y, 10, TUTTI_DTYPE_I32, (next + 1) % N, NULL));
        return tutti_group_end(t->comm);
    }
    if (t->rank == 2) { /* comes when all is over */
        while (!atomic_load(&((struct scene *)(void *)t->shared)->is_over))
            t_sleep_us(1000);
        return tutti_barrier(t->comm, NULL);
    }
    return tutti_all_reduce(t->comm, x, y, 300000, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL);
}

static void wait_and_abort(struct t_rank *t)
{
    struct scene *scene = (struct scene *)(void *)t->shared;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    const char *which = t->arg;
    struct t_time end;
    pthread_t thread;

    scene->pids[t->rank] = (int)getpid();
    t_meet(t);
    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_later, t) == 0, "no thread");
    T_IS(TUTTI_E_ABORTED, blocked(t, which));
    end = t_time_of(0);
    if (t->rank == 0)
        pthread_join(thread, NULL);
    t_meet(t);
    const uint64_t ms =
        t_time_left_ms(t_time_from(scene->of[t->rank], end), scene->abort.held_up_ns);
    if (t->rank != 2 || strcmp(which, "all_reduce") != 0)
        T_CHECK(scene->abort.ns != 0 && ms < 100 * t_scale(), "returned after %llu ms",
                (unsigned long long)ms);
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_E_ABORTED, "status %s", tutti_result_name(state.result));
    T_IS(TUTTI_E_ABORTED, tutti_barrier(t->comm, NULL));
}

static void run(const char *which, const char *wait)
{
    char name[16];
    const struct t_job job = {.n_ranks = N, .body = wait_and_abort, .arg = name};

    snprintf(name, sizeof(name), "%s", which);
    if (wait != NULL)
        setenv("TUTTI_CPU_WAIT", wait, 1);
    t_run(&job);
    unsetenv("TUTTI_CPU_WAIT");
}

static void ends_a_collective(void **state)
{
    (void)state;
    run("all_reduce", NULL);
    run("all_reduce", "sleep");
    run("all_reduce", "spin");
}

static void ends_a_recv(void **state)
{
    (void)state;
    run("recv", NULL);
    run("recv", "sleep");
}

static void ends_a_send(void **state)
{
    (void)state;
    run("send", NULL);
}

static void ends_a_group(void **state)
{
    (void)state;
    run("group", NULL);
}

T_RANKS(before_any_call_it_fails_the_next, 2)
{
    if (t->rank == 0)
        tutti_comm_abort(t->comm);
    T_IS(TUTTI_E_ABORTED, tutti_barrier(t->comm, NULL));
    if (t->rank == 0) /* the other may be in the barrier already */
        T_CONTAINS(tutti_last_error(), "rank 0 had made no call");
    tutti_comm_abort(t->comm); /* again: nothing */
    tutti_comm_abort(NULL);
}

/* Rank 1 is outside any call when it is aborted: what it made before has not failed. */
T_RANKS(an_abort_blames_no_call, 2)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    tutti_result result;

    T_OK(tutti_barrier(t->comm, NULL));
    T_OK(tutti_barrier(t->comm, NULL));
    t_meet(t);
    if (t->rank == 0)
        tutti_comm_abort(t->comm);
    t_meet(t);
    result = tutti_barrier(t->comm, NULL);
    T_CONTAINS(tutti_last_error(), "was in or after barrier, call 2");
    T_IS(TUTTI_E_ABORTED, result);
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.sequence == 2, "sequence %llu", (unsigned long long)state.sequence);
}

/* ---- nothing is stored into the buffers of a call that has come back ---- */

enum { BIG = 48 << 20, STEP = 64 << 10 };

struct stored {
    tutti_comm *comm;
    volatile unsigned char *first; /* of what the peer stores */
    uint64_t patience_ns;          /* for it to come */
};

static void *abort_midway(void *context)
{
    struct stored *s = context;
    const uint64_t end = t_now_ns() + s->patience_ns;

    while (*s->first == 0 && t_now_ns() < end)
        continue;
    tutti_comm_abort(s->comm);
    return NULL;
}

/* Rank 1's block is long, and rank 0 gives up while it comes. It waits for a rank that stores for 50 ms; who was kept
 * from its core for about as long may be late. */
static void give_up(struct t_rank *t, tutti_comm *comm, unsigned char *send, unsigned char *recv,
                    uint64_t patience_ns)
{
    const size_t counts[] = {1, BIG};
    static unsigned char seen[BIG / STEP];
    uint64_t *const held_up_ns = (uint64_t *)(void *)t->shared;
    struct stored s = {comm, recv + 1, patience_ns};
    const struct t_time from = t_time_of(0);
    size_t late = SIZE_MAX;
    pthread_t thread;
    tutti_result result;

    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_midway, &s) == 0, "no thread");
    result = tutti_all_gatherv(comm, send, recv, counts, TUTTI_DTYPE_U8, NULL);
    if (t->rank == 1)
        *held_up_ns = t_time_from(from, t_time_of(0)).held_up_ns;
    if (t->rank == 0) {
        for (size_t i = 0; i < T_LEN(seen); i++)
            seen[i] = recv[1 + i * STEP];
        t_sleep_us(20000);
        for (size_t i = 0; i < T_LEN(seen); i++)
            late = recv[1 + i * STEP] != seen[i] ? i * STEP : late;
        pthread_join(thread, NULL);
    }
    t_meet(t);
    T_CHECK(late == SIZE_MAX || *held_up_ns > 40000000, "stored at %zu after the call", late);
    T_CHECK(result == TUTTI_E_ABORTED || result == TUTTI_OK, "%s", tutti_result_name(result));
}

static void abort_while_storing(struct t_rank *t)
{
    const enum tt_break *what = t->arg; /* NULL: all as it should be */
    const uint64_t patience_ns =
        what && *what == TT_BREAK_GUARD ? 2000000 : UINT64_C(5000000000) * t_scale();
    unsigned char *send = malloc(BIG), *ordinary = malloc(BIG + 1);

#ifdef TUTTI_STALL
    if (what != NULL)
        tt_break(*what);
#endif
    memset(send, 1, BIG);
    for (uint64_t i = 0; i < 6; i++) {
        void *recv = ordinary;
        tutti_window *window;
        tutti_comm *comm;

        T_OK(t_comm_create(t, 2 + i, NULL, &comm));
        if (i % 2) {
            T_OK(tutti_mem_alloc(comm, BIG + 1, &recv));
            T_OK(tutti_window_register(comm, recv, BIG + 1, &window));
        }
        memset(recv, 0, BIG + 1);
        t_meet(t);
        give_up(t, comm, send, recv, patience_ns);
        t_meet(t);
        tutti_comm_destroy(comm);
    }
    free(send);
    free(ordinary);
}

static void nothing_is_stored_afterwards(void **state)
{
    const struct t_job job = {.n_ranks = 2, .no_comm = 1, .body = abort_while_storing};

    (void)state;
    t_run(&job);
}

/* The two halves of that rule: who stores looks again whether the call has failed, after a pause here and
 * before it counts itself, as if the look had come first; who fails does not wait. */
static void a_store_afterwards_is_noticed(void **state)
{
    static const enum tt_break halves[] = {TT_BREAK_GUARD, TT_BREAK_LEAVE};
    char text[4096] = "";

    (void)state;
    for (size_t i = 0; STALLS && i < T_LEN(halves); i++) {
        enum tt_break what = halves[i];
        const struct t_job job = {
            .n_ranks = 2, .no_comm = 1, .body = abort_while_storing, .arg = &what};
        int tries = 0;

        while (tries++ < 10 && !t_run_quietly(&job, text, sizeof(text)))
            continue;
        T_CONTAINS(text, "after the call");
    }
}

/* ---- nor does a rank copy on for long ---- */

enum { LONG = 128 << 20, HALF = LONG / 2, TRIES = 20, MESSAGE = 3000 };

struct way {
    const char *call;
    const char *algorithm; /* NULL: through windows; else through scratch, by this one */
    int n_ranks;
};

/* Thousands of messages both ways, none of which is waited for. */
static tutti_result messages(tutti_comm *comm, int rank, unsigned char *send, unsigned char *recv)
{
    T_OK(tutti_group_begin(comm));
    for (size_t at = 0; at + MESSAGE <= LONG; at += MESSAGE) {
        T_OK(tutti_send(comm, send + at, MESSAGE, TUTTI_DTYPE_U8, 1 - rank, NULL));
        T_OK(tutti_recv(comm, recv + at, MESSAGE, TUTTI_DTYPE_U8, 1 - rank, NULL));
    }
    return tutti_group_end(comm);
}

/* All of LONG bytes or more, of which rank 0's recv gets the first HALF from one rank's hands. */
static tutti_result long_call(const char *which, tutti_comm *comm, int rank, void *send, void *recv)
{
    const size_t own[] = {LONG - 1, 1}, others[] = {0, LONG};

    if (strcmp(which, "own") == 0)
        return tutti_all_gatherv(comm, send, recv, own, TUTTI_DTYPE_U8, NULL);
    if (strcmp(which, "push") == 0)
        return tutti_all_gatherv(comm, send, recv, others, TUTTI_DTYPE_U8, NULL);
    if (strcmp(which, "pull") == 0)
        return tutti_broadcast(comm, rank == 1 ? send : recv, LONG, TUTTI_DTYPE_U8, 1, NULL);
    if (strcmp(which, "messages") == 0)
        return messages(comm, rank, send, recv);
    if (strcmp(which, "reduce_scatter") == 0)
        return tutti_reduce_scatter(comm, send, recv, HALF / 4, TUTTI_DTYPE_I32, TUTTI_OP_SUM,
                                    NULL);
    return tutti_all_reduce(comm, send, recv, LONG / 4, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL);
}

/* Whether the call ended before rank 0's first half was there. An abort that came too late says nothing, so
 * there are several tries. */
static int ends_early(struct t_rank *t, uint64_t key, void *send, unsigned char *recv)
{
    struct stored s = {NULL, recv, UINT64_C(5000000000) * t_scale()};
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    const struct way *way = t->arg;
    tutti_window *windows[2];
    pthread_t thread;
    tutti_result result;

    config.algorithm = way->algorithm;
    T_OK(t_comm_create(t, key, &config, &s.comm));
    if (!way->algorithm) {
        T_OK(tutti_window_register(s.comm, send, LONG, &windows[0]));
        T_OK(tutti_window_register(s.comm, recv, LONG, &windows[1]));
    }
    recv[0] = recv[HALF - 1] = 0;
    t_meet(t);
    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_midway, &s) == 0, "no thread");
    result = long_call(way->call, s.comm, t->rank, send, recv);
    T_CHECK(result == TUTTI_E_ABORTED || result == TUTTI_OK, "%s", tutti_result_name(result));
    if (t->rank == 0)
        pthread_join(thread, NULL);
    t_meet(t); /* rank 1 has come back as well */
    if (t->rank == 0)
        t->shared[0] = recv[HALF - 1] == 0;
    t_meet(t);
    T_CHECK(!t->shared[0] || result == TUTTI_E_ABORTED, "%s, and not all is there",
            tutti_result_name(result));
    tutti_comm_destroy(s.comm);
    return t->shared[0];
}

static void abort_a_long_call(struct t_rank *t)
{
    void *send, *recv;
    uint64_t tries = 0;

    T_OK(tutti_mem_alloc(t->comm, LONG, &send));
    T_OK(tutti_mem_alloc(t->comm, LONG, &recv));
    memset(send, 1, LONG);
    while (!ends_early(t, 2 + tries, send, recv))
        T_CHECK(++tries < TRIES, "%d calls went on to their end after an abort", TRIES);
}

static void a_long_call_ends_midway(void **state)
{
    static const struct way ways[] = {{"own", NULL, 2},
                                      {"push", NULL, 2},
                                      {"pull", NULL, 2},
                                      {"reduce_scatter", NULL, 2},
                                      {"all_reduce", NULL, 2},
                                      {"reduce_scatter", "one_shot", 2},
                                      {"all_reduce", "one_shot", 2},
                                      {"all_reduce", "two_shot", 2},
                                      {"messages", "one_shot", 2},
                                      {"own", NULL, 1},
                                      {"all_reduce", NULL, 1},
                                      {"reduce_scatter", NULL, 1}};

    (void)state;
    for (size_t i = 0; i < T_LEN(ways); i++) {
        struct way way = ways[i];
        const struct t_job job = {.n_ranks = way.n_ranks, .body = abort_a_long_call, .arg = &way};

        t_run(&job);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_a_collective),
        cmocka_unit_test(ends_a_recv),
        cmocka_unit_test(ends_a_send),
        cmocka_unit_test(ends_a_group),
        cmocka_unit_test(before_any_call_it_fails_the_next),
        cmocka_unit_test(an_abort_blames_no_call),
        cmocka_unit_test(nothing_is_stored_afterwards),
        cmocka_unit_test(a_long_call_ends_midway),
        cmocka_unit_test(a_store_afterwards_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
