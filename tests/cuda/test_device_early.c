/* ctest: no-tsan timeout=120 */
/* ctest: long as=full args=full no-tsan timeout=1800 */
/* Launches that begin while what comes before them on the stream still runs (programmatic dependent launch): copies
 * and fills of the caller right before and right after every call, and calls right after calls, eager
 * and in a graph. Nothing is read too early, and a buffer may be used again at once. */
#include "support/cases.h"

enum { SCRATCH = 1 << 20, ROUNDS = 4, TIMEOUT_MS = 20000 };

static const enum t_coll colls[] = {T_all_reduce, T_reduce_scatter, T_all_gather,
                                    T_all_to_all, T_broadcast,      T_ring};
static const size_t counts[] = {128, 2000, 18000}; /* of the blocks of all ranks, about */

struct flow {
    struct t_rank *t;
    tutti_comm *comm;
    struct t_device device;
    enum t_coll coll;
    size_t count;
    float *send, *recv; /* used by every round; n_ranks blocks each */
    float *in, *out;    /* [ROUNDS] of them */
    size_t elements;    /* of each of these */
};

/* Element i of what rank r sends in a round; sums of them are exact. */
static float sent(const struct flow *f, uint64_t salt, int round, int r, size_t i)
{
    return (float)((salt + (uint64_t)round * 31 + (uint64_t)r * 7 + i) % 97 + f->count % 5);
}

static float received(const struct flow *f, uint64_t salt, int round, size_t i)
{
    const int me = f->t->rank, n = f->t->n_ranks, from = (int)(i / f->count);
    const size_t at = (size_t)me * f->count + i % f->count;
    float sum = 0;

    switch (f->coll) {
    case T_all_gather: return sent(f, salt, round, from, i % f->count);
    case T_all_to_all: return sent(f, salt, round, from, at);
    case T_broadcast: return sent(f, salt, round, n - 1, i);
    case T_ring: return sent(f, salt, round, (me + n - 1) % n, i);
    default: break;
    }
    for (int r = 0; r < n; r++)
        sum += sent(f, salt, round, r, f->coll == T_all_reduce ? i : at);
    return sum;
}

static size_t n_received(const struct flow *f)
{
    return f->coll == T_reduce_scatter ? f->count : f->elements;
}

static tutti_result call(const struct flow *f)
{
    const int me = f->t->rank, n = f->t->n_ranks;
    const tutti_stream stream = f->device.stream;
    const tutti_dtype f32 = TUTTI_DTYPE_F32;

    switch (f->coll) {
    case T_all_reduce:
        return tutti_all_reduce(f->comm, f->send, f->recv, f->elements, f32, TUTTI_OP_SUM, stream);
    case T_reduce_scatter:
        return tutti_reduce_scatter(f->comm, f->send, f->recv, f->count, f32, TUTTI_OP_SUM, stream);
    case T_all_gather: return tutti_all_gather(f->comm, f->send, f->recv, f->count, f32, stream);
    case T_all_to_all: return tutti_all_to_all(f->comm, f->send, f->recv, f->count, f32, stream);
    case T_broadcast:
        if (me == n - 1)
            t_device_copy(&f->device, f->recv, f->send, f->elements * sizeof(float));
        return tutti_broadcast(f->comm, f->recv, f->elements, f32, n - 1, stream);
    default:
        T_OK(tutti_group_begin(f->comm));
        T_OK(tutti_send(f->comm, f->send, f->elements, f32, (me + 1) % n, stream));
        T_OK(tutti_recv(f->comm, f->recv, f->elements, f32, (me + n - 1) % n, stream));
        return tutti_group_end(f->comm);
    }
}

/* Rubbish, then the input, then the call, then the result is kept and made rubbish: all of it one after
 * another on the stream, in buffers that every round uses. Then a call right behind a call. */
static void flow(const struct flow *f)
{
    const size_t bytes = f->elements * sizeof(float);

    for (size_t k = 0; k < ROUNDS; k++) {
        t_device_fill(&f->device, f->send, 0xff, bytes);
        t_device_copy(&f->device, f->send, f->in + k * f->elements, bytes);
        T_OK(call(f));
        if (k % 2 != 0) /* the same again */
            T_OK(call(f));
        t_device_copy(&f->device, f->out + k * f->elements, f->recv, bytes);
        t_device_fill(&f->device, f->recv, 0xee, bytes);
    }
}

static void load(const struct flow *f, float *host, uint64_t salt)
{
    for (size_t i = 0; i < ROUNDS * f->elements; i++)
        host[i] = sent(f, salt, (int)(i / f->elements), f->t->rank, i % f->elements);
    t_device_push(&f->device, f->in, host, ROUNDS * f->elements * sizeof(float));
    t_device_sync(&f->device);
}

static void verify(const struct flow *f, float *host, uint64_t salt, const char *how)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    t_device_pull(&f->device, host, f->out, ROUNDS * f->elements * sizeof(float));
    t_device_sync(&f->device);
    T_OK(tutti_comm_status(f->comm, &state));
    T_CHECK(state.result == TUTTI_OK, "%s", state.text);
    for (int k = 0; k < ROUNDS; k++)
        for (size_t i = 0; i < n_received(f); i++) {
            const float got = host[(size_t)k * f->elements + i], want = received(f, salt, k, i);

            T_CHECK(got == want, "%s %s of blocks of %zu, round %d: element %zu is %g, not %g", how,
                    t_colls[f->coll].name, f->count, k, i, (double)got, (double)want);
        }
}

/* A flow eagerly, then captured and replayed with other data. */
static void eager_and_replayed(struct flow *f, float *host)
{
    const unsigned n_replays = t_times(1, 200);
    t_graph graph;

    f->elements = f->count * (size_t)f->t->n_ranks;
    load(f, host, 0);
    t_meet(f->t);
    flow(f);
    verify(f, host, 0, "eager");
    t_capture_begin(&f->device);
    flow(f);
    graph = t_capture_end(&f->device, NULL);
    for (unsigned i = 1; i <= n_replays; i++) {
        load(f, host, i);
        t_graph_launch(&f->device, graph);
        verify(f, host, i, "replayed");
    }
    t_graph_free(graph);
}

static void every_call(struct t_rank *t)
{
    static const char *const names[] = {"one_shot", "two_shot", "direct"};
    const size_t bytes = counts[T_LEN(counts) - 1] * sizeof(float);
    struct flow f = {.t = t};
    float *host = malloc(ROUNDS * bytes);
    tutti_window *window;
    void *both;

    T_CHECK(host != NULL, "no memory");
    t_device_open(&f.device, t);
    f.in = t_device_alloc(ROUNDS * bytes);
    f.out = t_device_alloc(ROUNDS * bytes);
    T_OK(tutti_mem_alloc(t->comm, 2 * bytes, &both));
    f.send = both;
    f.recv = f.send + bytes / sizeof(float);
    for (size_t i = 0; i < T_LEN(names); i++) {
        tutti_comm_config config = t_cuda_config(t);

        config.algorithm = names[i];
        config.scratch_bytes = SCRATCH;
        config.timeout_ms = *(const unsigned *)t->arg;
        T_OK(t_comm_create(t, 100 + i, &config, &f.comm));
        if (strcmp(names[i], "direct") == 0)
            T_OK(tutti_window_register(f.comm, both, 2 * bytes, &window));
        for (size_t k = 0; k < T_LEN(colls) * T_LEN(counts); k++) {
            f.coll = colls[k % T_LEN(colls)];
            f.count = counts[k / T_LEN(colls)] / (size_t)t->n_ranks;
            eager_and_replayed(&f, host);
        }
        t_meet(t);
        tutti_comm_destroy(f.comm);
    }
    T_OK(tutti_mem_free(t->comm, both));
    t_device_free(f.in);
    t_device_free(f.out);
    t_device_close(&f.device);
    free(host);
}

static void streams_keep_their_order(void **state)
{
    static const int ranks[] = {2, 3, 0};
    unsigned timeout_ms = TIMEOUT_MS * t_scale();

    (void)state;
    setenv("T_SIM_EARLY", "1", 1);
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, every_call);

        job.arg = &timeout_ms;
        t_run(&job);
    }
    unsetenv("T_SIM_EARLY");
}

static void launches_that_wait_for_nothing_are_noticed(void **state)
{
    unsigned timeout_ms = 500;
    struct t_job job = t_cuda_job(2, every_call);
    static char text[8192];

    (void)state;
    if (!t_is_simulated())
        t_skip("a real GPU keeps its promises");
    job.arg = &timeout_ms;
    setenv("T_SIM_EARLY", "1", 1);
    setenv("T_SIM_BREAK", "no_grid_wait", 1);
    T_CHECK(t_run_quietly(&job, text, sizeof(text)), "nothing was noticed");
    unsetenv("T_SIM_BREAK");
    unsetenv("T_SIM_EARLY");
    T_CONTAINS(text, "eager all_reduce");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_keep_their_order),
        cmocka_unit_test(launches_that_wait_for_nothing_are_noticed),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
