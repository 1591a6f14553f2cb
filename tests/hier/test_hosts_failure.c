/* ctest: timeout=120 processors=1 */
/* What ends a communicator on several hosts: every rank fails alike, and names who is at fault. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/hosts.h"
#include "support/job.h"

enum { LATE_MS = 3000, HELD_UP_MS = LATE_MS / 6 };

struct scene {
    _Atomic uint64_t struck_ns; /* when the victim was killed, stopped ... */
    struct t_time abort;        /* what it took */
    _Atomic int is_aborted;
    _Atomic int n_warm; /* ranks that have made their first calls */
    int victim;
    int kind; /* of calls that the others are in */
};

static struct scene *scene_of(struct t_rank *t)
{
    return (struct scene *)(void *)t->shared;
}

/* Calls again and again, small and large, until one fails. */
static tutti_result call_for_ever(struct t_rank *t)
{
    static float x[100000], y[100000];
    tutti_result res = TUTTI_OK;

    for (int i = 0; res == TUTTI_OK; i++) {
        const size_t n = i % 5 == 4 ? 100000 : 8;

        if (scene_of(t)->kind == 0)
            res = tutti_all_reduce(t->comm, x, y, n, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL);
        else if (scene_of(t)->kind == 1)
            res = tutti_broadcast(t->comm, x, n, TUTTI_DTYPE_F32, i % t->n_ranks, NULL);
        else
            res = tutti_all_gather(t->comm, x, y, n / 8, TUTTI_DTYPE_F32, NULL);
        if (i == 3)
            scene_of(t)->n_warm++;
    }
    return res;
}

/* So long after it was struck; that who struck waited for a core does not count either. */
static void expect_after(struct t_rank *t, tutti_result want, tutti_result got, int peer,
                         uint64_t most_ms, struct t_time took)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    const uint64_t ms = t_time_left_ms(took, scene_of(t)->abort.held_up_ns);
    char text[512];

    snprintf(text, sizeof(text), "%s", tutti_last_error());
    T_CHECK(got == want, "%s after %d ms: %s", tutti_result_name(got), (int)ms, text);
    T_CHECK(ms < most_ms * t_scale(), "only after %d ms: %s", (int)ms, text);
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == want && (peer < 0 || state.peer == peer), "status %s of rank %d: %s",
            tutti_result_name(state.result), state.peer, state.text);
    T_IS(want, tutti_barrier(t->comm, NULL)); /* for good */
}

static void expect(struct t_rank *t, tutti_result want, tutti_result got, int peer,
                   uint64_t most_ms)
{
    const struct t_time took = {t_now_ns() - scene_of(t)->struck_ns, 0};

    expect_after(t, want, got, peer, most_ms, took);
}

static void survive(struct t_rank *t)
{
    const tutti_result res = call_for_ever(t);

    expect(t, TUTTI_E_PEER, res, scene_of(t)->victim, 2000);
}

static void name_the_late(struct t_rank *t)
{
    const tutti_result res = call_for_ever(t);

    if (t->rank != scene_of(t)->victim)
        expect(t, TUTTI_E_TIMEOUT, res, scene_of(t)->victim, 2 * t->job->config.timeout_ms + 500);
}

static void set_scene(const struct t_job *job, struct t_board *board)
{
    memcpy(t_board_shared(board), job->arg, sizeof(struct scene));
}

static struct scene *await_calls(const struct t_job *job, struct t_board *board)
{
    struct scene *scene = (struct scene *)(void *)t_board_shared(board);

    for (int ms = 0; scene->n_warm < job->n_ranks && ms < 20000; ms++)
        t_sleep_us(1000);
    scene->struck_ns = t_now_ns();
    return scene;
}

static void kill_one(const struct t_job *job, struct t_board *board, const pid_t pids[])
{
    const struct scene *scene = await_calls(job, board);

    kill(pids[scene->victim], SIGKILL);
}

static void stop_one(const struct t_job *job, struct t_board *board, const pid_t pids[])
{
    const struct scene *scene = await_calls(job, board);

    kill(pids[scene->victim], SIGSTOP);
    t_sleep_us(2700 *
               (unsigned)job->config.timeout_ms); /* longer than the others take to give up */
    kill(pids[scene->victim], SIGKILL);
}

static void play(const char *layout, int victim, int kind, int is_kill)
{
    struct scene scene = {.victim = victim, .kind = kind};
    struct t_job job = {.n_ranks = (int)strlen(layout),
                        .body = is_kill ? survive : name_the_late,
                        .arg = &scene,
                        .prepare = set_scene,
                        .dies = (uint64_t)1 << victim,
                        .parent = is_kill ? kill_one : stop_one,
                        .held_up_ms = is_kill ? 0 : HELD_UP_MS};

    job.config.size = sizeof(job.config);
    job.config.timeout_ms = is_kill ? 20000 : LATE_MS; /* creation, too, on few cores */
    t_hosts(layout);
    t_run(&job);
    t_hosts(NULL);
}

static void a_killed_rank_is_named_on_all_hosts(void **state)
{
    (void)state;
    play("01", 1, 0, 1);
    play("0011", 0, 0, 1);
    play("0011", 3, 1, 1);
    play("01212", 4, 0, 1);
    play("01212", 0, 2, 1);
}

static void a_stopped_rank_is_named_on_all_hosts(void **state)
{
    (void)state;
    play("01", 1, 0, 0);
    play("0011", 3, 0, 0);
    play("01212", 2, 0, 0);
}

/* Each waits for the next one, and began before it; the last does not come at all. */
static void wait_in_a_chain(struct t_rank *t)
{
    const int last = t->n_ranks - 1;
    int x = 0;

    scene_of(t)->victim = last;
    T_OK(tutti_barrier(t->comm, NULL));
    t_meet(t);
    if (t->rank == 0)
        scene_of(t)->struck_ns = t_now_ns();
    if (t->rank == last) {
        for (unsigned ms = 0; scene_of(t)->n_warm < last && ms < 2 * t->job->config.timeout_ms;
             ms++)
            t_sleep_us(1000);
        return;
    }
    t_sleep_us(300000 * (unsigned)t->rank);
    expect(t, TUTTI_E_TIMEOUT, tutti_recv(t->comm, &x, 1, TUTTI_DTYPE_I32, t->rank + 1, NULL), last,
           2 * t->job->config.timeout_ms - 500);
    scene_of(t)->n_warm++;
}

static void the_end_of_a_chain_is_named(void **state)
{
    struct t_job job = {.n_ranks = 4, .body = wait_in_a_chain, .held_up_ms = HELD_UP_MS};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = LATE_MS;
    t_run(&job);
    t_hosts("0123");
    t_run(&job);
    t_hosts("0011");
    t_run(&job);
    t_hosts(NULL);
}

/* A rank dies that nobody has ever exchanged anything with. */
static void wait_for_a_stranger(struct t_rank *t)
{
    int x = 0;

    scene_of(t)->n_warm++;
    if (t->rank == scene_of(t)->victim)
        t_sleep_us(60000000);
    else
        expect(t, TUTTI_E_PEER, tutti_recv(t->comm, &x, 1, TUTTI_DTYPE_I32, 1, NULL), 1, 2000);
}

static void a_rank_that_never_sent_is_missed(void **state)
{
    struct scene scene = {.victim = 1};
    struct t_job job = {.n_ranks = 2,
                        .body = wait_for_a_stranger,
                        .arg = &scene,
                        .prepare = set_scene,
                        .dies = 2,
                        .parent = kill_one};

    (void)state;
    t_hosts("01");
    t_run(&job);
    t_hosts(NULL);
}

static void *abort_later(void *context)
{
    struct t_rank *t = context;

    t_sleep_us(100000);
    struct scene *scene = scene_of(t);
    const struct t_time from = t_time_of(0);

    scene->struck_ns = t_now_ns();
    tutti_comm_abort(t->comm);
    scene->abort = t_time_from(from, t_time_of(0));
    scene->is_aborted = 1;
    return NULL;
}

/* Rank 0 of host 0 aborts; the others wait for the last rank, which is late. */
static void wait_and_abort(struct t_rank *t)
{
    struct t_time from, took;
    pthread_t thread;
    tutti_result res;

    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 0)
        T_CHECK(pthread_create(&thread, NULL, abort_later, t) == 0, "no thread");
    if (t->rank == t->n_ranks - 1) {
        while (!scene_of(t)->is_aborted)
            t_sleep_us(1000);
        t_sleep_us(300000);
    }
    from = t_time_of(0);
    do { /* the last one may be let through: all others have entered */
        res = tutti_barrier(t->comm, NULL);
    } while (res == TUTTI_OK && t->rank == t->n_ranks - 1);
    took = t_time_from(from, t_time_of(0));
    took.ns = t_now_ns() - scene_of(t)->struck_ns;
    for (int ms = 0; !scene_of(t)->is_aborted && ms < 5000; ms++)
        t_sleep_us(1000);
    expect_after(t, TUTTI_E_ABORTED, res, -1, t->rank == t->n_ranks - 1 ? 1000 : 300, took);
    if (t->rank == 0)
        pthread_join(thread, NULL);
}

static void abort_ends_calls_on_all_hosts(void **state)
{
    (void)state;
    t_hosts("01");
    t_ranks(2, wait_and_abort);
    t_hosts("00112");
    t_ranks(5, wait_and_abort);
    t_hosts(NULL);
}

/* One of another host calls something else. */
static void disagree(struct t_rank *t)
{
    int x[4] = {0}, y[4];
    const size_t count = t->rank == 2 ? 2 : 3;
    tutti_result res;

    T_OK(tutti_barrier(t->comm, NULL));
    t_meet(t); /* or a failure would end a barrier that a slower rank is still in */
    scene_of(t)->struck_ns = t_now_ns();
    if (*(const int *)t->arg == 0)
        res = tutti_all_reduce(t->comm, x, y, count, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL);
    else if (*(const int *)t->arg == 1) /* as many bytes, another operation */
        res = tutti_all_reduce(t->comm, x, y, 3, TUTTI_DTYPE_I32,
                               t->rank == 2 ? TUTTI_OP_MAX : TUTTI_OP_SUM, NULL);
    else if (t->rank == 2)
        res = tutti_barrier(t->comm, NULL);
    else
        res = tutti_all_gather(t->comm, x, y, 1, TUTTI_DTYPE_I32, NULL);
    while (res == TUTTI_OK) /* who needs nothing from the odd one out learns it a call later */
        res = tutti_barrier(t->comm, NULL);
    expect(t, TUTTI_E_MISMATCH, res, -1, 3000);
}

static void calls_that_do_not_match_are_an_error(void **state)
{
    int kind = 0;
    struct t_job job = {.n_ranks = 3, .body = disagree, .arg = &kind};

    (void)state;
    t_hosts("012");
    t_run(&job);
    for (kind = 1; kind < 3; kind++)
        t_run(&job);
    t_hosts("001"); /* rank 2 alone on its host */
    kind = 0;
    t_run(&job);
    t_hosts("011"); /* rank 2 beside rank 1 */
    t_run(&job);
    t_hosts(NULL);
}

/* Whoever is done may leave, however late the others are. */
static void leave_in_turn(struct t_rank *t)
{
    for (int i = 0; i < 10; i++) {
        tutti_comm *comm;
        int x = 1;

        T_OK(t_comm_create(t, 100 + (uint64_t)i, NULL, &comm));
        T_OK(tutti_all_reduce(comm, &x, &x, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
        T_CHECK(x == t->n_ranks, "the sum is %d", x);
        if ((t->rank + i) % t->n_ranks == 0)
            t_sleep_us(30000);
        tutti_comm_destroy(comm);
    }
}

/* ... but who is needed is missed. */
static void leave_too_early(struct t_rank *t)
{
    T_OK(tutti_barrier(t->comm, NULL));
    t_meet(t);
    scene_of(t)->struck_ns = t_now_ns();
    if (t->rank == 1) {
        tutti_comm_destroy(t->comm);
        t->comm = NULL;
        return;
    }
    expect(t, TUTTI_E_PEER, tutti_barrier(t->comm, NULL), 1, 2000);
    tutti_comm_destroy(t->comm);
}

static void leaving_is_no_failure_unless_one_is_needed(void **state)
{
    struct t_job job = {.n_ranks = 4, .body = leave_in_turn};

    (void)state;
    t_hosts("0011");
    t_run(&job);
    t_hosts("0121");
    t_run(&job);
    job.body = leave_too_early;
    job.keep_comm = 1;
    t_run(&job);
    t_hosts("0011");
    t_run(&job);
    t_hosts(NULL);
}

/* The buffers of a call that has failed are the caller's, also what a rank on another host has not taken of them
 * yet: it takes on while rank 0 leaves. */
static void give_back(struct t_rank *t)
{
    enum { LONG = 32 << 20 };
    unsigned char *buf =
        mmap(NULL, LONG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    T_CHECK(buf != MAP_FAILED, "no memory");
    T_OK(tutti_barrier(t->comm, NULL));
    if (t->rank == 0) {
        T_IS(TUTTI_E_TIMEOUT, tutti_send(t->comm, buf, LONG, TUTTI_DTYPE_U8, 1, NULL));
        munmap(buf, LONG);
    }
    t_meet(t);
    if (t->rank == 1)
        T_CHECK(tutti_recv(t->comm, buf, LONG, TUTTI_DTYPE_U8, 0, NULL) < 0,
                "received what was not sent");
}

static void what_a_failed_call_sends_is_the_callers_again(void **state)
{
    struct t_job job = {.n_ranks = 2, .body = give_back};

    (void)state;
    job.config.size = sizeof(job.config);
    job.config.timeout_ms = 2000; /* creation, too, on few cores */
    t_hosts("01");
    t_run(&job);
    t_hosts(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_is_named_on_all_hosts),
        cmocka_unit_test(a_stopped_rank_is_named_on_all_hosts),
        cmocka_unit_test(the_end_of_a_chain_is_named),
        cmocka_unit_test(a_rank_that_never_sent_is_missed),
        cmocka_unit_test(abort_ends_calls_on_all_hosts),
        cmocka_unit_test(calls_that_do_not_match_are_an_error),
        cmocka_unit_test(leaving_is_no_failure_unless_one_is_needed),
        cmocka_unit_test(what_a_failed_call_sends_is_the_callers_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
