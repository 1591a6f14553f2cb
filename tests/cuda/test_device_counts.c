/* ctest: no-tsan timeout=240 */
/* ctest: long as=many args=full no-tsan timeout=1800 */
/* Counts in GPU memory: graphs whose counts change from replay to replay, by every algorithm; and what
 * must end with a report: a count above its bound, counts that differ, a rank that is missing. */
#include "support/algorithms.h"
#include "support/cases.h"

enum { SCRATCH = 1 << 20, ROOM = 1 << 18, MAX_COUNT = 9000, TIMEOUT_MS = 20000, SHORT_MS = 400 };

static const enum t_coll colls[] = {T_all_gatherv_device, T_all_gatherv_rows_device,
                                    T_reduce_scatterv_device, T_all_to_allv_device};
enum { N_COLLS = T_LEN(colls) };

/* --- replays --- */

static struct t_case some_case(enum t_coll coll, uint64_t seed, int n_ranks)
{
    struct t_case c = t_case_random(seed, n_ranks, MAX_COUNT);

    c.coll = coll;
    c.team = 0;
    c.count = t_case_fit(coll, n_ranks, ROOM, tutti_dtype_bytes(c.dtype), c.count);
    return c;
}

static void replay_all(struct t_stage stages[], struct t_case cases[], struct t_device *device,
                       t_graph graph, uint64_t round)
{
    for (size_t i = 0; i < N_COLLS; i++) {
        cases[i].round = round;
        t_case_load(&stages[i], &cases[i]);
    }
    t_graph_launch(device, graph);
    for (size_t i = 0; i < N_COLLS; i++)
        T_OK(t_case_verify(&stages[i]));
}

static void one_graph(struct t_rank *t, tutti_comm *comm, struct t_device *device, uint64_t seed,
                      unsigned n_replays)
{
    static _Thread_local struct t_stage stages[N_COLLS];
    struct t_case cases[N_COLLS];
    t_graph graph;
    size_t n_nodes;

    for (size_t i = 0; i < N_COLLS; i++) {
        cases[i] = some_case(colls[i], t_hash(seed, i), t->n_ranks);
        t_stage_open_on(&stages[i], t, comm, ROOM, 1, device);
        t_case_load(&stages[i], &cases[i]);
    }
    t_meet(t);
    t_device_sync(device);
    t_capture_begin(device);
    for (size_t i = 0; i < N_COLLS; i++)
        T_OK(t_case_launch(&stages[i]));
    graph = t_capture_end(device, &n_nodes);
    T_CHECK(n_nodes == N_COLLS, "%zu nodes for %d calls", n_nodes, (int)N_COLLS);
    for (unsigned i = 1; i <= n_replays; i++)
        replay_all(stages, cases, device, graph, i);
    t_device_sync(device);
    t_meet(t);
    t_graph_free(graph);
    for (size_t i = 0; i < N_COLLS; i++)
        t_stage_close(&stages[i]);
}

static void replays(struct t_rank *t)
{
    /* Of each algorithm; 10,000 in all on a GPU. */
    const unsigned n_replays = t_times(t_is_simulated() ? 8 : 100, t_is_simulated() ? 250 : 2500);
    const char *names[T_MAX_ALGORITHMS];
    const size_t n = t_algorithms(names);
    struct t_device device;

    t_device_open(&device, t);
    for (size_t i = 0; i < n; i++) {
        tutti_comm_config config = t_cuda_config(t);
        tutti_comm *comm;

        if (names[i] != NULL && strcmp(names[i], "xmem") == 0)
            continue; /* the CPU's */
        config.algorithm = names[i];
        config.scratch_bytes = SCRATCH;
        T_OK(t_comm_create(t, 100 + i, &config, &comm));
        one_graph(t, comm, &device, (uint64_t)t->n_ranks * 100 + i, n_replays);
        t_meet(t);
        tutti_comm_destroy(comm);
    }
    t_device_close(&device);
}

static void run_replays(const int ranks[])
{
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, replays);

        job.limit_s = 900;
        t_run(&job);
    }
}

static void counts_change_between_replays(void **state)
{
    static const int ranks[] = {1, 2, 3, 4, 8, 0};

    (void)state;
    run_replays(ranks);
}

static void also_in_bad_weather(void **state)
{
    static const int ranks[] = {3, 4, 0};

    (void)state;
    if (!t_is_simulated())
        t_skip("a real GPU makes its own weather");
    setenv("T_SIM_SEED", "7", 1);
    run_replays(ranks);
    unsetenv("T_SIM_SEED");
}

/* --- failures --- */

enum fault { ABOVE, BELOW_ZERO, DIFFERENT, MISSING };

/* What rank 1 does wrong. */
static const struct {
    enum t_coll coll;
    const char *algorithm;
    enum t_windows windows;
    enum fault fault;
} faults[] = {
    {T_all_gatherv_device, "one_shot", T_ORDINARY, ABOVE},
    {T_all_gatherv_device, "two_shot", T_ORDINARY, ABOVE},
    {T_all_gatherv_device, "direct", T_REGISTERED, ABOVE},
    {T_all_gatherv_rows_device, "one_shot", T_ORDINARY, BELOW_ZERO},
    {T_all_gatherv_rows_device, "two_shot", T_ORDINARY, ABOVE},
    {T_all_to_allv_device, "one_shot", T_ORDINARY, ABOVE},
    {T_all_to_allv_device, "two_shot", T_ORDINARY, BELOW_ZERO},
    {T_all_to_allv_device, "direct", T_REGISTERED, ABOVE},
    {T_reduce_scatterv_device, NULL, T_ORDINARY, ABOVE},
    {T_reduce_scatterv_device, NULL, T_ORDINARY, DIFFERENT},
    {T_all_gatherv_device, "one_shot", T_ORDINARY, MISSING},
    {T_all_to_allv_device, "two_shot", T_ORDINARY, MISSING},
    {T_reduce_scatterv_device, NULL, T_ORDINARY, MISSING},
};
enum {
    AT_FAULT = 1,
    HUGE_COUNT = 1 << 30,
    MOST_RANKS = 8,
    BOUND = 1000,
    ELEMENTS = MOST_RANKS * BOUND + 500
};

static uint64_t given_count(size_t i, int rank, int to, int n)
{
    if (rank != AT_FAULT)
        return 500;
    switch (faults[i].fault) {
    case ABOVE: return to == n - 1 || faults[i].coll != T_all_to_allv_device ? HUGE_COUNT : 500;
    case BELOW_ZERO: return UINT64_MAX;
    case DIFFERENT: return to == 0 ? 501 : 500;
    default: return 500;
    }
}

static tutti_result make(size_t i, tutti_comm *comm, struct t_device *device, int32_t *send,
                         int32_t *recv, uint64_t *words, int n)
{
    const tutti_rows part = {send, recv, 4};
    tutti_device_counts counts = TUTTI_DEVICE_COUNTS_INIT;

    counts.counts = words;
    counts.received = words + n;
    counts.max_count = BOUND;
    switch (faults[i].coll) {
    case T_all_gatherv_device:
        return tutti_all_gatherv_device(comm, send, recv, &counts, TUTTI_DTYPE_I32, device->stream);
    case T_all_gatherv_rows_device:
        return tutti_all_gatherv_rows_device(comm, &part, 1, &counts, device->stream);
    case T_all_to_allv_device:
        counts.recv_stride = BOUND;
        return tutti_all_to_allv_device(comm, send, recv, &counts, TUTTI_DTYPE_I32, device->stream);
    default:
        counts.received = NULL;
        return tutti_reduce_scatterv_device(comm, send, recv, &counts, TUTTI_DTYPE_I32,
                                            TUTTI_OP_SUM, device->stream);
    }
}

/* Which rank is blamed, and for what. */
static void check_report(struct t_rank *t, tutti_comm *comm, size_t i, uint64_t took_ms)
{
    const int missing = faults[i].fault == MISSING, different = faults[i].fault == DIFFERENT;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_OK(tutti_comm_status(comm, &state));
    T_CHECK(state.result == (missing ? TUTTI_E_TIMEOUT : TUTTI_E_MISMATCH), "case %zu: %s: %s", i,
            tutti_result_name(state.result), state.text);
    T_CHECK(state.peer == AT_FAULT || (different && t->rank == AT_FAULT), "case %zu blames %d: %s",
            i, state.peer, state.text);
    if (faults[i].fault == ABOVE)
        T_CHECK(strstr(state.text, "1073741824") != NULL && strstr(state.text, "max_count") != NULL,
                "\"%s\" says little", state.text);
    T_CHECK(missing || took_ms < TIMEOUT_MS / 2, "case %zu took %llu ms", i,
            (unsigned long long)took_ms);
    T_IS(state.result, tutti_barrier(comm, NULL));
}

/* Nothing but the blocks that counts within the bound may fill has changed. */
static void check_memory(struct t_device *device, size_t i, const int32_t *recv,
                         const uint64_t *words, int n)
{
    static _Thread_local int32_t seen[ELEMENTS];
    uint64_t received[MOST_RANKS];

    t_device_pull(device, seen, recv, sizeof(seen));
    t_device_pull(device, received, words + n, (size_t)n * sizeof(*received));
    t_device_sync(device);
    for (size_t k = (size_t)n * BOUND; k < ELEMENTS; k++)
        T_CHECK(seen[k] == 0x5a5a5a5a, "case %zu: element %zu behind recv was written", i, k);
    for (int r = 0; r < n && faults[i].coll != T_reduce_scatterv_device; r++)
        T_CHECK(received[r] == 0, "case %zu: received[%d] is %llu", i, r,
                (unsigned long long)received[r]);
}

static void one_fault(struct t_rank *t, size_t i, struct t_device *device)
{
    static _Thread_local int32_t fill[ELEMENTS];
    const int n = t->n_ranks;
    tutti_comm_config config = t_cuda_config(t);
    uint64_t given[2 * MOST_RANKS] = {0}, *words, began;
    tutti_window *window = NULL;
    tutti_comm *comm;
    void *send, *recv;

    config.algorithm = faults[i].algorithm;
    config.scratch_bytes = SCRATCH;
    config.timeout_ms = faults[i].fault == MISSING ? SHORT_MS : TIMEOUT_MS;
    T_OK(t_comm_create(t, 200 + i, &config, &comm));
    T_OK(tutti_mem_alloc(comm, sizeof(fill), &send));
    T_OK(tutti_mem_alloc(comm, sizeof(fill), &recv));
    if (faults[i].windows == T_REGISTERED)
        T_OK(tutti_window_register(comm, recv, sizeof(fill), &window));
    words = t_device_alloc(sizeof(given));
    memset(fill, 0x5a, sizeof(fill));
    for (int r = 0; r < n; r++) {
        given[r] = given_count(i, t->rank, r, n);
        given[n + r] = 77;
    }
    t_device_push(device, recv, fill, sizeof(fill));
    t_device_push(device, words, given, sizeof(given));
    t_device_sync(device);
    t_meet(t);
    if (faults[i].fault != MISSING || t->rank != AT_FAULT) {
        began = t_now_ns();
        T_OK(make(i, comm, device, send, recv, words, n));
        t_device_sync(device);
        check_report(t, comm, i, (t_now_ns() - began) / 1000000);
        check_memory(device, i, recv, words, n);
    }
    t_meet(t);
    t_device_free(words);
    tutti_comm_destroy(comm); /* with its window */
    T_OK(tutti_mem_free(t->comm, send));
    T_OK(tutti_mem_free(t->comm, recv));
}

static void all_faults(struct t_rank *t)
{
    const struct t_case good = {.coll = T_all_gatherv_device, .dtype = TUTTI_DTYPE_I32, .count = 9};
    struct t_device device;
    struct t_stage s;

    if (t->n_ranks > MOST_RANKS)
        t_skip("there is memory for %d ranks", MOST_RANKS);
    t_device_open(&device, t);
    for (size_t i = 0; i < T_LEN(faults); i++)
        one_fault(t, i, &device);
    t_stage_open_on(&s, t, t->comm, 1 << 16, 0, &device);
    t_meet(t);
    t_case_run(&s, &good); /* other communicators are unharmed */
    t_meet(t);
    t_stage_close(&s);
    t_device_close(&device);
}

static void what_does_not_fit_is_reported_by_all(void **state)
{
    static const int ranks[] = {3, 0};

    (void)state;
    t_cuda_ranks(ranks, all_faults);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_change_between_replays),
        cmocka_unit_test(also_in_bad_weather),
        cmocka_unit_test(what_does_not_fit_is_reported_by_all),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
