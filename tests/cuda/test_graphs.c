/* ctest: no-tsan timeout=240 */
/* ctest: long as=many args=full no-tsan timeout=1800 */
/* Calls that are captured once and replayed for ever, with other data each time, with eager calls of
 * other sizes in between, two graphs in turn; and epochs that pass 2^32 on the way. */
#include <pthread.h>

#include "support/cases.h"
#include "support/hosts.h"

enum { SCRATCH = 1 << 20, ROOM = 1 << 17, MAX_COUNT = 8000, CALLS = 5 };

/* A graph of some calls, each on a stage of its own. */
struct recording {
    struct t_stage stages[CALLS];
    struct t_case cases[CALLS];
    t_graph graph;
    int n;
};

/* What a graph's calls take. */
struct plan {
    const char *
        algorithm; /* NULL: the table's, of any calls; else half of them are sums of floats in windows */
};

static void load(struct recording *r, uint64_t round)
{
    for (int i = 0; i < r->n; i++) {
        r->cases[i].round = round;
        t_case_load(&r->stages[i], &r->cases[i]);
    }
}

static void verify(struct recording *r)
{
    for (int i = 0; i < r->n; i++)
        T_OK(t_case_verify(&r->stages[i]));
}

static struct t_case some_case(uint64_t seed, int n_ranks)
{
    struct t_case c = t_case_random(seed, n_ranks, MAX_COUNT);

    c.team = 0;
    c.count = t_case_fit(c.coll, n_ranks, ROOM, tutti_dtype_bytes(c.dtype), c.count);
    return c;
}

/* Those that models have: reductions of floats that are shared evenly, in windows so that they can be direct. */
static void make_sum(struct t_case *c, int n_ranks, uint64_t seed)
{
    static const tutti_dtype floats[] = {TUTTI_DTYPE_F32, TUTTI_DTYPE_F16, TUTTI_DTYPE_BF16};
    const int scatter = (int)(seed >> 8 & 1);

    c->coll = scatter ? T_reduce_scatter : T_all_reduce;
    c->dtype = floats[seed % T_LEN(floats)];
    c->op = TUTTI_OP_SUM;
    c->count = t_case_fit(c->coll, n_ranks, ROOM, 4, MAX_COUNT) / 64 * 64;
    c->place = T_ALIGNED;
    c->windows = T_REGISTERED;
}

static void open_recording(struct recording *r, struct t_rank *t, struct t_device *device, int n,
                           uint64_t seed)
{
    const struct plan *plan = t->arg;

    r->n = n;
    for (int i = 0; i < n; i++) {
        r->cases[i] = some_case(t_hash(seed, (uint64_t)i), t->n_ranks);
        if (plan->algorithm != NULL && i % 2 == 0)
            make_sum(&r->cases[i], t->n_ranks, t_hash(seed, 77 + (uint64_t)i));
        t_stage_open_on(&r->stages[i], t, t->comm, ROOM, 1, device);
    }
}

static void capture(struct recording *r, struct t_device *device)
{
    size_t n_nodes = 0;

    load(r, 0);
    t_device_sync(device);
    t_capture_begin(device);
    for (int i = 0; i < r->n; i++)
        T_OK(t_case_launch(&r->stages[i]));
    r->graph = t_capture_end(device, &n_nodes);
    T_CHECK(n_nodes >= 1 && n_nodes <= 2 * (size_t)r->n, "%zu nodes for %d calls", n_nodes, r->n);
}

static void close_recording(struct recording *r)
{
    t_graph_free(r->graph);
    for (int i = 0; i < r->n; i++)
        t_stage_close(&r->stages[i]);
}

/* Replay `g`; with new data and a check now and then, else just so. */
static void replay(struct recording *g, struct t_device *device, uint64_t round, int checked)
{
    if (checked)
        load(g, round);
    t_graph_launch(device, g->graph);
    if (checked)
        verify(g);
}

static void replays(struct t_rank *t)
{
    const struct plan *plan = t->arg;
    const unsigned n = !t_is_simulated() ? t_times(10000, 20000)
                       : plan->algorithm ? t_times(10, 300)
                                         : t_times(30, 1000);
    const unsigned every = t_is_simulated() ? 2 : plan->algorithm ? 500 : 100;
    static _Thread_local struct recording g[2], eager;
    struct t_rng rng = {(uint64_t)t->n_ranks};
    struct t_device device;

    t_device_open(&device, t);
    open_recording(&g[0], t, &device, CALLS, 1);
    open_recording(&g[1], t, &device, 2, 2);
    open_recording(&eager, t, &device, 1, 3);
    t_meet(t);
    capture(&g[0], &device);
    capture(&g[1], &device);
    for (unsigned i = 0; i < n; i++) {
        replay(&g[i % 3 == 0], &device, i + 1, i % every == 0);
        if (t_random_below(&rng, 3) != 0)
            continue;
        eager.cases[0] = some_case(t_random(&rng), t->n_ranks);
        t_case_run(&eager.stages[0], &eager.cases[0]);
    }
    t_device_sync(&device);
    t_meet(t);
    close_recording(&g[0]);
    close_recording(&g[1]);
    t_stage_close(&eager.stages[0]);
    t_device_close(&device);
}

/* Calls of a graph whose windows have come, gone and come again since it was captured: what it does not do
 * through them it does for ever. */
static void registered_again(struct t_rank *t)
{
    static _Thread_local struct recording before, within;
    struct t_device device;

    t_device_open(&device, t);
    open_recording(&before, t, &device, CALLS, 4);
    for (int i = 0; i < CALLS; i++)
        for (int side = 0; side < 2; side++) {
            T_OK(tutti_window_deregister(t->comm, before.stages[i].windows[side]));
            before.stages[i].windows[side] = NULL;
        }
    open_recording(&within, t, &device, CALLS, 5);
    t_meet(t);
    capture(&before, &device); /* of memory that is in no window yet */
    capture(&within, &device);
    for (uint64_t round = 1; round <= 6; round++) {
        for (int i = 0; i < CALLS; i++)
            for (int side = 0; side < 2; side++) {
                struct t_stage *s = &before.stages[i], *w = &within.stages[i];

                T_OK(tutti_window_deregister(t->comm, s->windows[side]));
                s->windows[side] = NULL;
                if (round % 2 != 0)
                    T_OK(tutti_window_register(t->comm, s->device_memory[1][side],
                                               s->memory[1][side].bytes, &s->windows[side]));
                T_OK(tutti_window_deregister(t->comm, w->windows[side]));
                T_OK(tutti_window_register(t->comm, w->device_memory[1][side],
                                           w->memory[1][side].bytes, &w->windows[side]));
            }
        t_meet(t);
        replay(&before, &device, round, 1);
        replay(&within, &device, round, 1);
        t_meet(t);
    }
    close_recording(&before);
    close_recording(&within);
    t_device_close(&device);
}

struct other {
    struct t_rank *t;
    tutti_comm *comm;
    tutti_window *window;
    float *p;
};

static void *clear_up(void *context)
{
    const struct other *o = context;

    t_adopt(o->t);
    T_OK(tutti_window_deregister(o->comm, o->window));
    T_OK(tutti_mem_free(o->comm, o->p));
    tutti_comm_destroy(o->comm);
    return NULL;
}

/* What waits for the GPU finds a way while another thread captures, which may break the capture. */
static void captured_meanwhile(struct t_rank *t)
{
    const tutti_comm_config config = t_cuda_config(t);
    struct other other = {.t = t};
    struct t_device device;
    pthread_t thread;
    float *q, x = 1;

    t_device_open(&device, t);
    T_OK(t_comm_create(t, 50, &config, &other.comm));
    T_OK(tutti_mem_alloc(other.comm, ROOM, (void **)&other.p));
    T_OK(tutti_window_register(other.comm, other.p, ROOM, &other.window));
    T_OK(tutti_all_reduce(other.comm, other.p, other.p, 64, TUTTI_DTYPE_F32, TUTTI_OP_SUM,
                          device.stream));
    t_device_sync(&device);
    q = t_device_alloc(sizeof(x));
    t_meet(t);
    t_capture_begin(&device);
    T_CHECK(pthread_create(&thread, NULL, clear_up, &other) == 0, "no thread");
    pthread_join(thread, NULL);
    t_capture_drop(&device);
    t_device_push(&device, q, &x, sizeof(x));
    T_OK(tutti_all_reduce(t->comm, q, q, 1, TUTTI_DTYPE_F32, TUTTI_OP_SUM, device.stream));
    t_device_pull(&device, &x, q, sizeof(x));
    t_device_sync(&device);
    T_CHECK(x == (float)t->n_ranks, "the sum is %g", (double)x);
    t_meet(t);
    t_device_free(q);
    t_device_close(&device);
}

static void run(void (*body)(struct t_rank *t), const char *algorithm, const char *epoch,
                const char *seed)
{
    static const int ranks[] = {2, 3, 8, 0};
    struct plan plan = {algorithm};

    if (epoch != NULL)
        setenv("TUTTI_CUDA_EPOCH", epoch, 1);
    if (seed != NULL)
        setenv("T_SIM_SEED", seed, 1);
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, body);

        job.arg = &plan;
        job.config.algorithm = algorithm;
        job.config.scratch_bytes = SCRATCH;
        job.limit_s = 600;
        t_run(&job);
    }
    unsetenv("TUTTI_CUDA_EPOCH");
    unsetenv("T_SIM_SEED");
}

static void replays_and_eager_calls_mix(void **state)
{
    (void)state;
    run(replays, NULL, NULL, NULL);
}

static void also_in_bad_weather(void **state)
{
    (void)state;
    if (!t_is_simulated())
        t_skip("a real GPU makes its own weather");
    run(replays, NULL, NULL, "7");
}

static void epochs_pass_2_to_the_32(void **state)
{
    (void)state;
    run(replays, NULL, "4294967293", NULL);
}

static void epochs_pass_2_to_the_33(void **state)
{
    (void)state;
    run(replays, NULL, "8589934590", NULL);
}

/* Each by every algorithm, the epoch passing 2^32 on the way. */
static void by_one_shot(void **state)
{
    (void)state;
    run(replays, "one_shot", "4294967293", NULL);
}

static void by_two_shot(void **state)
{
    (void)state;
    run(replays, "two_shot", "4294967293", NULL);
}

static void by_direct(void **state)
{
    (void)state;
    run(replays, "direct", "4294967293", NULL);
}

static void windows_come_and_go(void **state)
{
    (void)state;
    if (t_has_hosts())
        t_skip("between hosts nothing goes through windows alone");
    run(registered_again, "two_shot", NULL, NULL);
}

static void another_thread_clears_up(void **state)
{
    (void)state;
    run(captured_meanwhile, NULL, NULL, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replays_and_eager_calls_mix),
        cmocka_unit_test(also_in_bad_weather),
        cmocka_unit_test(epochs_pass_2_to_the_32),
        cmocka_unit_test(epochs_pass_2_to_the_33),
        cmocka_unit_test(by_one_shot),
        cmocka_unit_test(by_two_shot),
        cmocka_unit_test(by_direct),
        cmocka_unit_test(windows_come_and_go),
        cmocka_unit_test(another_thread_clears_up),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
