/* ctest: no-tsan timeout=120 */
/*
 * Ranks that come after others have given up. Whoever gave up goes on putting launches on its stream, or replays a
 * graph; none of that may be taken for what it would have sent: a call of a late rank is right, or it fails. Of two
 * ranks the second comes far too late, of three the last comes when the first has given up and the second has not.
 */
#include "support/cases.h"

enum { SCRATCH = 2 << 20, CALLS = 4, LONG = 30000, SHORT = 2000, ROOM = 1 << 20 };
#define TIMEOUT_MS (300u * t_scale())

static const struct {
    enum t_coll coll;
    tutti_dtype dtype;
    const char *algorithm;
    enum t_windows windows;
    size_t count;
} missed[] = {
    {T_all_reduce, TUTTI_DTYPE_F32, "one_shot", T_ORDINARY, SHORT},
    {T_all_reduce, TUTTI_DTYPE_I32, "one_shot", T_ORDINARY, SHORT},
    {T_all_reduce, TUTTI_DTYPE_F32, "two_shot", T_ORDINARY, LONG},
    {T_all_reduce, TUTTI_DTYPE_F16, "two_shot", T_ORDINARY, LONG + 1},
    {T_all_reduce, TUTTI_DTYPE_F32, "direct", T_REGISTERED, LONG},
    {T_all_gather, TUTTI_DTYPE_F32, "one_shot", T_ORDINARY, SHORT},
    {T_all_gather, TUTTI_DTYPE_F32, "two_shot", T_ORDINARY, LONG},
    {T_all_gather, TUTTI_DTYPE_F32, "direct", T_REGISTERED, LONG},
    {T_all_gatherv_device, TUTTI_DTYPE_F32, "two_shot", T_ORDINARY, LONG},
    {T_broadcast, TUTTI_DTYPE_F32, "two_shot", T_ORDINARY, LONG},
    {T_ring, TUTTI_DTYPE_F32, NULL, T_ORDINARY, LONG},
};

static struct t_case case_of(size_t i, int call)
{
    return (struct t_case){.coll = missed[i].coll,
                           .dtype = missed[i].dtype,
                           .count = missed[i].count,
                           .place = T_ALIGNED,
                           .windows = missed[i].windows,
                           .seed = t_hash(i, (uint64_t)call)};
}

static tutti_result state_of(tutti_comm *comm)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_comm_status(comm, &state));
    return state.result;
}

/* All calls at once, whatever becomes of the first. */
static void replay_all(struct t_stage stages[], struct t_device *device)
{
    t_graph graph;

    t_capture_begin(device);
    for (int k = 0; k < CALLS; k++)
        T_OK(t_case_launch(&stages[k]));
    graph = t_capture_end(device, NULL);
    t_graph_launch(device, graph);
    t_device_sync(device);
    t_graph_free(graph);
}

/* One after another, until one has failed; those before are right. */
static void call_until_failure(struct t_stage stages[], tutti_comm *comm, struct t_device *device)
{
    for (int k = 0; k < CALLS; k++) {
        if (t_case_launch(&stages[k]) != TUTTI_OK)
            return;
        t_device_sync(device);
        if (state_of(comm) != TUTTI_OK)
            return;
        T_OK(t_case_verify(&stages[k]));
    }
}

static void one_late(struct t_rank *t, size_t i)
{
    tutti_comm_config config = t_cuda_config(t);
    struct t_stage stages[CALLS];
    struct t_case cases[CALLS];
    struct t_device device;
    tutti_comm *comm;

    config.algorithm = missed[i].algorithm;
    config.timeout_ms = TIMEOUT_MS;
    config.scratch_bytes = SCRATCH;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 300 + i, &config, &comm));
    for (int k = 0; k < CALLS; k++) {
        t_stage_open_on(&stages[k], t, comm, ROOM, 1, &device);
        cases[k] = case_of(i, k);
        t_case_load(&stages[k], &cases[k]);
    }
    t_device_sync(&device);
    t_meet(t);
    T_OK(tutti_barrier(comm, device.stream));
    t_device_sync(&device);
    t_meet(t);
    t_sleep_us((unsigned)t->rank * TIMEOUT_MS * (t->n_ranks == 2 ? 3000 : 700));
    if (t->rank == 0)
        replay_all(stages, &device);
    else
        call_until_failure(stages, comm, &device);
    T_CHECK(t->n_ranks > 2 || state_of(comm) != TUTTI_OK, "%s by %s: rank %d is well",
            t_colls[missed[i].coll].name, missed[i].algorithm ? missed[i].algorithm : "messages",
            t->rank);
    t_meet(t);
    for (int k = 0; k < CALLS; k++) {
        stages[k].windows[0] = stages[k].windows[1] = NULL; /* they end with their communicator */
        stages[k].device_memory[1][0] = stages[k].device_memory[1][1] = NULL;
        t_stage_close(&stages[k]);
    }
    tutti_comm_destroy(comm);
    t_device_close(&device);
}

static void late(struct t_rank *t)
{
    for (size_t i = 0; i < T_LEN(missed); i++)
        one_late(t, i);
}

static void who_comes_late_is_not_fooled(void **state)
{
    static const int ranks[] = {2, 3, 0};

    (void)state;
    setenv("T_SIM_EARLY", "1", 1); /* launches return before they are over, as on a GPU */
    t_cuda_ranks(ranks, late);
    unsetenv("T_SIM_EARLY");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_comes_late_is_not_fooled),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
