/* ctest: no-tsan timeout=120 */
/* What must end: a rank that never calls, one that dies, an abort by another thread. The rank that is
 * missing is named, the communicator is lost, everything else goes on. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "support/cases.h"

enum { SCRATCH = 2 << 20, COUNT = 1000, LONG = 30000, ROOM = 1 << 20 };
#define TIMEOUT_MS (600u * t_scale())

/* What the ranks that are there call. */
static const struct {
    enum t_coll coll;
    const char *algorithm;
    enum t_windows windows;
    size_t count;
} missed[] = {
    {T_all_reduce, "one_shot", T_ORDINARY, COUNT},
    {T_all_reduce, "two_shot", T_ORDINARY, LONG},
    {T_all_reduce, "direct", T_REGISTERED, LONG},
    {T_all_gather, "one_shot", T_ORDINARY, COUNT},
    {T_all_gather, "two_shot", T_ORDINARY, LONG},
    {T_all_gather, "direct", T_REGISTERED, LONG},
    {T_reduce_scatter, NULL, T_ORDINARY, COUNT},
    {T_broadcast, NULL, T_ORDINARY, COUNT},
    {T_barrier, NULL, T_ORDINARY, 0},
};

static void check_good(struct t_rank *t, struct t_device *device)
{
    const struct t_case c = {.coll = T_all_reduce, .dtype = TUTTI_DTYPE_I32, .count = 100};
    struct t_stage s;

    t_meet(t);
    t_stage_open_on(&s, t, t->comm, 1 << 16, 0, device);
    t_meet(t);
    t_case_run(&s, &c);
    t_meet(t);
    t_stage_close(&s);
}

/* The call has been made; its failure must show, stay, and name the last rank. */
static void check_failed(struct t_rank *t, tutti_comm *comm, tutti_result want, int is_named,
                         const char *what, const char *call, uint64_t sequence)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    const int last = t->n_ranks - 1;

    T_OK(tutti_comm_status(comm, &state));
    T_CHECK(state.result == want, "the state is %s (%s), want %s", tutti_result_name(state.result),
            state.text, tutti_result_name(want));
    T_CHECK(!is_named || state.peer == last, "rank %d is blamed, not %d: %s (%s)", state.peer, last,
            state.text, what);
    T_CHECK(state.sequence == sequence, "call %llu is blamed, not %llu: %s (%s)",
            (unsigned long long)state.sequence, (unsigned long long)sequence, state.text, what);
    T_CONTAINS(state.text, call);
    T_IS(want, tutti_barrier(comm, NULL));
    T_CHECK(strlen(tutti_last_error()) > 20, "\"%s\" says little", tutti_last_error());
}

/* Ranks that share a context: a stream is not set up, nor memory had, while another rank's barrier waits, and who
 * waits inside the driver may keep others from launching theirs. */
static void two_barriers(struct t_rank *t, tutti_comm *comm, struct t_device *device)
{
    t_device_sync(device);
    t_meet(t);
    T_OK(tutti_barrier(comm, device->stream));
    T_OK(tutti_barrier(comm, device->stream));
    t_meet(t);
    t_device_sync(device);
}

static void one_missing(struct t_rank *t, size_t i)
{
    const struct t_case c = {.coll = missed[i].coll,
                             .dtype = TUTTI_DTYPE_F32,
                             .count = missed[i].count,
                             .place = T_ALIGNED,
                             .windows = missed[i].windows};
    tutti_comm_config config = t_cuda_config(t);
    struct t_device device;
    tutti_comm *comm;
    struct t_stage s;

    config.algorithm = missed[i].algorithm;
    config.timeout_ms = TIMEOUT_MS;
    config.scratch_bytes = SCRATCH;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 300 + i, &config, &comm));
    t_stage_open_on(&s, t, comm, ROOM, 1, &device);
    t_case_load(&s, &c);
    two_barriers(t, comm, &device);
    t_meet(t);
    if (t->rank < t->n_ranks - 1) {
        const uint64_t begin = t_now_ns();
        uint64_t took_ms;

        T_OK(t_case_launch(&s));
        (void)t_case_launch(&s); /* the host may be ahead of what fails */
        t_device_sync(&device);
        took_ms = (t_now_ns() - begin) / 1000000;
        T_CHECK(took_ms >= TIMEOUT_MS / 2 && took_ms < (TIMEOUT_MS + 1500) * t_scale(),
                "gave up after %llu ms", (unsigned long long)took_ms);
        check_failed(t, comm, TUTTI_E_TIMEOUT, 1, missed[i].algorithm, t_colls[missed[i].coll].name,
                     3);
    }
    t_meet(t);
    s.windows[0] = s.windows[1] = NULL; /* they end with their communicator */
    s.device_memory[1][0] = s.device_memory[1][1] = NULL;
    t_stage_close(&s);
    tutti_comm_destroy(comm);
    check_good(t, &device);
    t_device_close(&device);
}

static void missing(struct t_rank *t)
{
    for (size_t i = 0; i < T_LEN(missed); i++)
        one_missing(t, i);
}

/* A graph of the third and the fourth call, which one rank does not replay. */
static void missing_in_graph(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    struct t_device device;
    tutti_comm *comm;
    t_graph graph;
    float *x;

    config.timeout_ms = TIMEOUT_MS;
    config.scratch_bytes = SCRATCH;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 300, &config, &comm));
    x = t_device_alloc(LONG * sizeof(*x));
    t_device_fill(&device, x, 0, LONG * sizeof(*x));
    two_barriers(t, comm, &device);
    t_capture_begin(&device);
    T_OK(tutti_all_reduce(comm, x, x, COUNT, TUTTI_DTYPE_F32, TUTTI_OP_SUM, device.stream));
    T_OK(tutti_broadcast(comm, x, COUNT, TUTTI_DTYPE_F32, 0, device.stream));
    graph = t_capture_end(&device, NULL);
    t_graph_launch(&device, graph);
    T_OK(tutti_barrier(comm, device.stream)); /* the fifth */
    t_device_sync(&device);
    t_meet(t);
    if (t->rank < t->n_ranks - 1) {
        t_graph_launch(&device, graph);
        t_device_sync(&device);
        check_failed(t, comm, TUTTI_E_TIMEOUT, 1, "graph", "all_reduce", 3);
    }
    t_meet(t);
    t_graph_free(graph);
    tutti_comm_destroy(comm);
    t_device_free(x);
    t_device_close(&device);
}

static void who_does_not_replay_is_named(void **state)
{
    static const int ranks[] = {3, 0};

    (void)state;
    t_cuda_ranks(ranks, missing_in_graph);
}

static void a_rank_that_never_calls_is_named(void **state)
{
    static const int ranks[] = {3, 0};

    (void)state;
    setenv("T_SIM_EARLY", "1", 1); /* launches return before they are over, as on a GPU */
    t_cuda_ranks(ranks, missing);
    unsetenv("T_SIM_EARLY");
}

/* --- abort --- */

struct aborter {
    tutti_comm *comm;
    uint64_t at_ns;
};

static void *abort_soon(void *context)
{
    struct aborter *a = context;

    t_sleep_us(100000);
    a->at_ns = t_now_ns();
    tutti_comm_abort(a->comm);
    return NULL;
}

static void aborted(struct t_rank *t)
{
    const struct t_case c = {.coll = T_all_reduce, .dtype = TUTTI_DTYPE_F32, .count = COUNT};
    tutti_comm_config config = t_cuda_config(t);
    struct aborter a;
    struct t_device device;
    struct t_stage s;
    pthread_t thread;

    config.scratch_bytes = SCRATCH;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 400, &config, &a.comm));
    t_stage_open_on(&s, t, a.comm, ROOM, 0, &device);
    t_meet(t);
    if (t->rank == 0) {
        uint64_t took_ms;

        t_case_load(&s, &c);
        T_CHECK(pthread_create(&thread, NULL, abort_soon, &a) == 0, "no thread");
        T_OK(t_case_launch(&s));
        t_device_sync(&device);
        pthread_join(thread, NULL);
        took_ms = (t_now_ns() - a.at_ns) / 1000000;
        T_CHECK(took_ms < 100 * t_scale(), "the abort took %llu ms", (unsigned long long)took_ms);
        check_failed(t, a.comm, TUTTI_E_ABORTED, 0, "abort", "aborted", 1);
    }
    t_meet(t);
    t_stage_close(&s);
    tutti_comm_destroy(a.comm);
    check_good(t, &device);
    t_device_close(&device);
}

static void an_abort_ends_a_call(void **state)
{
    static const int ranks[] = {2, 0};

    (void)state;
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, aborted);

        job.held_up_ms = 25;
        t_run(&job);
    }
}

/* --- death --- */

static void killed(struct t_rank *t)
{
    const struct t_case c = {.coll = T_all_reduce, .dtype = TUTTI_DTYPE_F32, .count = COUNT};
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct t_device device;
    struct t_stage s;

    t_device_open(&device, t);
    t_stage_open_on(&s, t, t->comm, ROOM, 0, &device);
    t_meet(t);
    t_case_run(&s, &c);
    t_meet(t); /* a death is told to who asks, though all calls so far were complete */
    if (t->rank == t->n_ranks - 1)
        kill(getpid(), SIGKILL);
    t_case_load(&s, &c);
    if (t_case_launch(&s) == TUTTI_OK) {
        t_device_sync(&device);
        T_OK(tutti_comm_status(t->comm, &state));
        T_CHECK(state.result == TUTTI_E_PEER && state.peer == t->n_ranks - 1,
                "the state is %s, rank %d: %s", tutti_result_name(state.result), state.peer,
                state.text);
    }
    t_stage_close(&s);
    t_device_close(&device);
}

static void a_rank_that_dies_is_survived(void **state)
{
    static const int ranks[] = {3, 0};

    (void)state;
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, killed);

        if (job.threads)
            t_skip("ranks are threads here");
        job.config.timeout_ms = 1000;
        job.config.scratch_bytes = SCRATCH;
        job.dies = UINT64_C(1) << (*n - 1);
        t_run(&job);
    }
}

/* --- arguments --- */

static void arguments(struct t_rank *t)
{
    tutti_comm *comm = t->comm;
    struct t_device device;
    float *x;

    t_device_open(&device, t);
    x = t_device_alloc(4096);
    T_IS(TUTTI_E_ARG, tutti_all_reduce(comm, NULL, x, 8, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_reduce(comm, x, x, 8, (tutti_dtype)99, TUTTI_OP_SUM, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_reduce(comm, x, x, 8, TUTTI_DTYPE_F32, (tutti_op)99, NULL));
    T_IS(TUTTI_E_ARG, tutti_broadcast(comm, x, 8, TUTTI_DTYPE_F32, t->n_ranks, NULL));
    T_IS(TUTTI_E_ARG, tutti_all_reduce(comm, x, x + 1, 8, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL));
    T_IS(TUTTI_E_UNSUPPORTED,
         tutti_all_reduce_team(comm, x, x, 8, TUTTI_DTYPE_F32, TUTTI_OP_SUM, 0, 1));
    t_meet(t);
    T_OK(tutti_all_reduce(comm, x, x, 8, TUTTI_DTYPE_F32, TUTTI_OP_SUM, device.stream));
    t_device_sync(&device);
    t_meet(t);
    t_device_free(x);
    t_device_close(&device);
}

static void wrong_arguments_are_refused(void **state)
{
    static const int ranks[] = {2, 0};

    (void)state;
    t_cuda_ranks(ranks, arguments);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_that_never_calls_is_named),
        cmocka_unit_test(who_does_not_replay_is_named),
        cmocka_unit_test(an_abort_ends_a_call),
        cmocka_unit_test(a_rank_that_dies_is_survived),
        cmocka_unit_test(wrong_arguments_are_refused),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
