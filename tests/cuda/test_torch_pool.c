/* ctest: no-tsan timeout=120 */
/* The hooks of torch's memory pools: segments become windows when the communicator is popped, may be
 * given back at any time, and ranks that do not allocate alike go on without windows. */
#include <pthread.h>

#include "support/cases.h"

enum { MIB = 1 << 20, SEGMENT = 2 * MIB, SCRATCH = 1 << 20 };

static void *take(size_t bytes, const struct t_device *device)
{
    void *p = tutti_torch_alloc((ptrdiff_t)bytes, device->index, device->stream);

    T_CHECK(p != NULL, "no memory: %s", tutti_last_error());
    return p;
}

static void give(void *p, const struct t_device *device)
{
    tutti_torch_free(p, 0, device->index, device->stream);
}

static void update(tutti_comm *comm)
{
    T_OK(tutti_torch_push_comm(comm));
    T_OK(tutti_torch_pop_comm());
}

static int is_window(tutti_comm *comm, void *p, size_t bytes)
{
    return tutti_window_find(comm, p, bytes) != NULL;
}

/* Where ranks are threads, one cannot tell whose objects there are: then all of them meet around this. */
static void check_objects(const struct t_rank *t, int n_before)
{
    const int n = t_device_n_objects();

    T_CHECK(n == n_before, "rank %d has lost %d objects", t->rank, n - n_before);
}

/* Failures that cannot be returned are log lines. */
static void count_line(void *context, tutti_log_level level, const char *line)
{
    (void)level;
    (void)line;
    atomic_fetch_add((atomic_int *)context, 1);
}

/* A sum in p of what only this call can have put there. */
static void one_call(struct t_rank *t, tutti_comm *comm, const struct t_device *device, void *p,
                     size_t count)
{
    static _Thread_local int32_t salt;
    int32_t *host = malloc(count * 4);

    T_CHECK(host != NULL, "no memory");
    salt++;
    for (size_t i = 0; i < count; i++)
        host[i] = (int32_t)i + t->rank + salt;
    t_device_push(device, p, host, count * 4);
    T_OK(tutti_all_reduce(comm, p, p, count, TUTTI_DTYPE_I32, TUTTI_OP_SUM, device->stream));
    t_device_pull(device, host, p, count * 4);
    t_device_sync(device);
    for (size_t i = 0; i < count; i++)
        T_CHECK(host[i] == t->n_ranks * ((int32_t)i + salt) + t->n_ranks * (t->n_ranks - 1) / 2,
                "element %zu is %d", i, host[i]);
    free(host);
}

/* --- as it should be --- */

static void zeroed(const struct t_device *device, const void *p)
{
    uint64_t first[64];

    t_device_pull(device, first, p, sizeof(first));
    t_device_sync(device);
    for (size_t i = 0; i < T_LEN(first); i++)
        T_CHECK(first[i] == 0, "word %zu of new memory is not 0", i);
}

static void registered(struct t_rank *t)
{
    static atomic_int n_lines; /* of all ranks, where they are threads */
    struct t_device device;
    void *p, *q, *r;
    int n_before;

    tutti_log_set(count_line, &n_lines);
    t_device_open(&device, t);
    update(t->comm); /* what a communicator does only once */
    p = take(SEGMENT, &device);
    T_OK(tutti_torch_push_comm(t->comm));
    T_OK(tutti_torch_pop_comm());
    T_CHECK(!is_window(t->comm, p, 1), "allocated for nobody, and registered");
    one_call(t, t->comm, &device, p, 70000);
    T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, p));
    give(p, &device);
    t_meet(t);
    n_before = t_device_n_objects();
    t_meet(t);
    T_OK(tutti_torch_push_comm(t->comm));
    p = take(SEGMENT, &device);
    q = take(3 * MIB + 512, &device);
    zeroed(&device, q);
    T_CHECK(!is_window(t->comm, p, 1), "registered before all ranks can have been asked");
    one_call(t, t->comm, &device, p, 70000);
    T_OK(tutti_torch_pop_comm());
    T_CHECK(is_window(t->comm, p, SEGMENT) && is_window(t->comm, q, 3 * MIB + 512),
            "not registered");
    one_call(t, t->comm, &device, p, 70000);
    one_call(t, t->comm, &device, (char *)q + 4, 70001);
    T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, p));
    T_IS(TUTTI_E_ARG, tutti_window_deregister(t->comm, tutti_window_find(t->comm, p, 1)));
    t_meet(t);
    give(t->rank == 0 ? p : q, &device);
    give(t->rank == 0 ? q : p, &device);
    T_CHECK(atomic_load(&n_lines) == 0, "a failure was logged");
    t_meet(t);
    give(p, &device); /* once too often: no harm */
    T_CHECK(atomic_load(&n_lines) > 0, "nothing was said of a second free");
    r = take(SEGMENT, &device); /* not in the place of one whose window is left */
    T_CHECK(!is_window(t->comm, r, 1), "new memory is in an old window");
    one_call(t, t->comm, &device, r, 70000);
    update(t->comm);
    T_CHECK(!is_window(t->comm, p, 1) && !is_window(t->comm, q, 1), "registered for ever");
    give(r, &device);
    t_meet(t);
    check_objects(t, n_before);
    t_meet(t);
    t_device_close(&device);
}

/* More than fit into what the ranks tell each other at a time. */
static void many(struct t_rank *t)
{
    enum { N = 70 };
    struct t_device device;
    void *p[N];

    t_device_open(&device, t);
    T_OK(tutti_torch_push_comm(t->comm));
    for (int i = 0; i < N; i++)
        p[i] = take(65536 + 512 * (size_t)i, &device);
    T_OK(tutti_torch_pop_comm());
    for (int i = 0; i < N; i++)
        T_CHECK(is_window(t->comm, p[i], 65536 + 512 * (size_t)i), "segment %d", i);
    one_call(t, t->comm, &device, p[N - 1], 16000);
    t_meet(t);
    for (int i = N - 1; i >= 0; i -= 2)
        give(p[i], &device);
    update(t->comm);
    for (int i = 0; i < N; i++)
        T_CHECK(is_window(t->comm, p[i], 1) == (i % 2 == 0), "segment %d of which half are left",
                i);
    one_call(t, t->comm, &device, p[0], 16000);
    t_meet(t);
    for (int i = 0; i < N; i += 2)
        give(p[i], &device);
    t_device_close(&device);
}

/* A tensor that is allocated, registered and reduced while a graph is captured. */
static void captured(struct t_rank *t)
{
    int32_t x = t->rank + 1, sum;
    struct t_device device;
    size_t n_nodes;
    t_graph graph;
    void *p;

    t_device_open(&device, t);
    t_meet(t);
    t_capture_begin(&device);
    T_OK(tutti_torch_push_comm(t->comm));
    p = take(SEGMENT, &device);
    T_OK(tutti_torch_pop_comm());
    T_CHECK(is_window(t->comm, p, SEGMENT), "not registered");
    T_OK(tutti_all_reduce(t->comm, p, p, 70000, TUTTI_DTYPE_I32, TUTTI_OP_SUM, device.stream));
    graph = t_capture_end(&device, &n_nodes);
    T_CHECK(n_nodes == 1, "%zu nodes were captured, not the call alone", n_nodes);
    t_device_push(&device, p, &x, sizeof(x));
    t_meet(t);
    t_graph_launch(&device, graph);
    t_device_pull(&device, &sum, p, sizeof(sum));
    t_device_sync(&device);
    T_CHECK(sum == t->n_ranks * (t->n_ranks + 1) / 2, "the sum is %d", sum);
    t_meet(t);
    t_graph_free(graph);
    give(p, &device);
    t_device_close(&device);
}

/* --- whose is it? --- */

static void nested(struct t_rank *t)
{
    const tutti_comm_config config = t_cuda_config(t);
    struct t_device device;
    tutti_comm *other;
    void *a, *b, *c, *d;

    t_device_open(&device, t);
    T_OK(t_comm_create(t, 2, &config, &other));
    T_OK(tutti_torch_push_comm(t->comm));
    a = take(SEGMENT, &device);
    T_OK(tutti_torch_push_comm(other));
    b = take(SEGMENT, &device);
    T_OK(tutti_torch_push_comm(NULL));
    c = take(SEGMENT, &device);
    T_OK(tutti_torch_pop_comm());
    T_OK(tutti_torch_pop_comm());
    T_CHECK(is_window(other, b, SEGMENT) && !is_window(t->comm, a, 1), "not the inner one's alone");
    d = take(SEGMENT, &device);
    T_OK(tutti_torch_pop_comm());
    T_CHECK(is_window(t->comm, a, SEGMENT) && is_window(t->comm, d, SEGMENT), "the outer one's");
    T_CHECK(!is_window(other, a, 1) && !is_window(t->comm, b, 1), "registered with both");
    T_CHECK(!is_window(other, c, 1) && !is_window(t->comm, c, 1), "registered, and for nobody");
    one_call(t, other, &device, b, 70000);
    one_call(t, t->comm, &device, b, 70000);
    T_IS(TUTTI_E_ARG, tutti_torch_pop_comm());
    for (int i = 0; i < 16; i++)
        T_OK(tutti_torch_push_comm(NULL));
    T_IS(TUTTI_E_ARG, tutti_torch_push_comm(t->comm));
    for (int i = 0; i < 16; i++)
        T_OK(tutti_torch_pop_comm());
    t_meet(t);
    tutti_comm_destroy(other);
    give(b, &device);
    give(a, &device);
    give(d, &device);
    give(c, &device);
    t_device_close(&device);
}

/* The communicator ends first: at the end of an interpreter, say. */
static void outlived(struct t_rank *t)
{
    const tutti_comm_config config = t_cuda_config(t);
    const int n_before = t_device_n_objects();
    struct t_device device;
    tutti_comm *comm;
    void *p[5];

    t_meet(t);
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 2, &config, &comm));
    T_OK(tutti_torch_push_comm(comm));
    for (int i = 0; i < 2; i++)
        p[i] = take(SEGMENT, &device);
    T_OK(tutti_torch_pop_comm());
    T_OK(tutti_torch_push_comm(comm));
    p[2] = take(SEGMENT, &device);
    one_call(t, comm, &device, p[0], 70000);
    t_meet(t);
    give(p[1], &device); /* its window is still there */
    tutti_comm_destroy(comm);
    p[3] = take(SEGMENT, &device);
    T_IS(TUTTI_E_ARG, tutti_torch_pop_comm());
    T_CONTAINS(tutti_last_error(), "destroyed");
    p[4] = take(SEGMENT, &device);
    give(p[2], &device);
    give(p[0], &device);
    give(p[4], &device);
    give(p[3], &device);
    t_device_close(&device);
    t_meet(t);
    if (!t->job->threads)
        check_objects(t, n_before);
}

struct helper {
    struct t_rank *t;
    const struct t_device *device;
    void *old, *new;
    unsigned n;
};

static void *in_another_thread(void *context)
{
    struct helper *h = context;

    t_adopt(h->t);
    h->new = take(SEGMENT, h->device);
    give(h->old, h->device);
    T_IS(TUTTI_E_ARG, tutti_torch_pop_comm());
    return NULL;
}

static void *take_and_give(void *context)
{
    struct helper *h = context;

    t_adopt(h->t);
    for (unsigned i = 0; i < h->n; i++) {
        void *p = take(65536, h->device);
        void *q = take(65536, h->device);

        give(p, h->device);
        give(q, h->device);
    }
    return NULL;
}

static void run_helper(struct helper *h, void *(*body)(void *), pthread_t *thread)
{
    T_CHECK(pthread_create(thread, NULL, body, h) == 0, "no thread");
}

static void threads(struct t_rank *t)
{
    struct t_device device;
    struct helper h = {.t = t, .device = &device, .n = t_times(20, 200)};
    pthread_t one, two;
    void *p;

    t_device_open(&device, t);
    T_OK(tutti_torch_push_comm(t->comm));
    p = take(SEGMENT, &device);
    h.old = take(SEGMENT, &device);
    run_helper(&h, in_another_thread, &one);
    pthread_join(one, NULL);
    T_OK(tutti_torch_pop_comm());
    T_CHECK(is_window(t->comm, p, SEGMENT), "not registered");
    T_CHECK(!is_window(t->comm, h.new, 1), "what another thread has pushed counts");
    run_helper(&h, take_and_give, &one);
    run_helper(&h, take_and_give, &two);
    for (unsigned i = 0; i < h.n; i++) {
        void *q;

        T_OK(tutti_torch_push_comm(t->comm));
        q = take(65536, &device);
        T_OK(tutti_torch_pop_comm());
        T_CHECK(is_window(t->comm, q, 65536), "turn %u", i);
        one_call(t, t->comm, &device, p, 1000);
        give(q, &device);
    }
    pthread_join(one, NULL);
    pthread_join(two, NULL);
    give(h.new, &device);
    give(p, &device);
    t_device_close(&device);
}

static void *give_soon(void *context)
{
    struct helper *h = context;

    t_adopt(h->t);
    t_sleep_us(h->n);
    give(h->old, h->device);
    return NULL;
}

/* Given back by another thread before, while or after it becomes a window; not at once on all ranks. */
static void meanwhile(struct t_rank *t)
{
    const unsigned n_turns = t_times(60, 1000);
    struct t_rng rng = {(uint64_t)t->rank};
    struct t_device device;
    int n_before;

    t_device_open(&device, t);
    update(t->comm);
    n_before = t_device_n_objects();
    t_meet(t);
    for (unsigned i = 0; i < n_turns; i++) {
        struct helper h = {.t = t, .device = &device, .n = (unsigned)t_random_below(&rng, 1500)};
        pthread_t thread;
        tutti_result result;

        T_OK(tutti_torch_push_comm(t->comm));
        h.old = take(SEGMENT, &device);
        run_helper(&h, give_soon, &thread);
        result = tutti_torch_pop_comm();
        T_CHECK(result == TUTTI_OK || result == TUTTI_E_MISMATCH, "%s: %s",
                tutti_result_name(result), tutti_last_error());
        pthread_join(thread, NULL);
        t_meet(t);
        update(t->comm);
        T_CHECK(!is_window(t->comm, h.old, 1), "registered for ever");
        if (!t->job->threads)
            check_objects(t, n_before);
    }
    t_device_close(&device);
}

static void another_gpu(struct t_rank *t)
{
    static atomic_int n_lines;
    struct t_device device, other;
    void *p;

    t_device_open(&device, t);
    other = device;
    other.index = (device.index + 1) % t->job->n_devices;
    T_OK(tutti_torch_push_comm(t->comm));
    p = take(SEGMENT, &other);
    T_OK(tutti_torch_pop_comm());
    T_CHECK(!is_window(t->comm, p, 1), "memory of GPU %d is in a window of GPU %d", other.index,
            device.index);
    give(p, &other);
    tutti_log_set(count_line, &n_lines);
    T_CHECK(tutti_torch_alloc(SEGMENT, t->job->n_devices, NULL) == NULL, "a GPU that is not there");
    T_CONTAINS(tutti_last_error(), "GPU");
    T_CHECK(atomic_load(&n_lines) > 0, "torch says \"out of memory\", and the log nothing");
    T_CHECK(tutti_torch_alloc(0, device.index, NULL) == NULL, "nothing is something");
    tutti_torch_free(NULL, 0, device.index, NULL);
    t_device_close(&device);
}

/* --- ranks that do not allocate alike --- */

static void check_ordinary(struct t_rank *t, const struct t_device *device, void *p)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    T_CHECK(!is_window(t->comm, p, 1), "registered, and not on all ranks");
    T_OK(tutti_comm_status(t->comm, &state));
    T_CHECK(state.result == TUTTI_OK, "the communicator has failed: %s", state.text);
    t_meet(t);
    one_call(t, t->comm, device, p, 70000);
    t_meet(t);
}

static void unlike(struct t_rank *t)
{
    const size_t odd = (size_t)(t->rank == 1);
    struct t_device device;
    void *p, *q, *r;

    t_device_open(&device, t);
    T_OK(tutti_torch_push_comm(t->comm)); /* unequal sizes, after equal ones */
    r = take(SEGMENT, &device);
    p = take(SEGMENT + 512 * odd, &device);
    q = take(SEGMENT, &device);
    T_IS(TUTTI_E_MISMATCH, tutti_torch_pop_comm());
    T_CONTAINS(tutti_last_error(), "rank 1");
    T_CHECK(is_window(t->comm, r, SEGMENT), "what is alike is not registered");
    check_ordinary(t, &device, p);
    check_ordinary(t, &device, q);
    give(p, &device);
    give(q, &device);
    T_OK(tutti_torch_push_comm(t->comm)); /* one has none */
    p = odd ? NULL : take(SEGMENT, &device);
    T_IS(TUTTI_E_MISMATCH, tutti_torch_pop_comm());
    T_OK(tutti_torch_push_comm(NULL));
    p = odd ? take(SEGMENT, &device) : p;
    T_OK(tutti_torch_pop_comm());
    check_ordinary(t, &device, p);
    if (odd) /* one gives back what the others keep */
        give(r, &device);
    update(t->comm);
    r = odd ? take(SEGMENT, &device) : r;
    check_ordinary(t, &device, r);
    give(r, &device);
    give(p, &device);
    T_OK(tutti_torch_push_comm(t->comm)); /* and now alike again */
    p = take(SEGMENT, &device);
    T_OK(tutti_torch_pop_comm());
    T_CHECK(is_window(t->comm, p, SEGMENT), "not registered");
    one_call(t, t->comm, &device, p, 70000);
    t_meet(t);
    give(p, &device);
    t_device_close(&device);
}

static void no_memory(struct t_rank *t)
{
    struct t_device device;
    void *p;

    t_device_open(&device, t);
    T_OK(tutti_torch_push_comm(t->comm));
    if (t->rank == 1)
        setenv("T_SIM_NO_MEMORY", "all", 1);
    p = tutti_torch_alloc(SEGMENT, device.index, device.stream);
    T_CHECK((p == NULL) == (t->rank == 1), "%p", p);
    if (p == NULL)
        T_CONTAINS(tutti_last_error(), "memory");
    unsetenv("T_SIM_NO_MEMORY");
    T_IS(TUTTI_E_MISMATCH, tutti_torch_pop_comm());
    p = p != NULL ? p : take(SEGMENT, &device); /* torch tries again */
    check_ordinary(t, &device, p);
    give(p, &device);
    t_meet(t);
    setenv("T_SIM_FAIL_IMPORT", "1", 1); /* the GPU of rank 1 */
    T_OK(tutti_torch_push_comm(t->comm));
    p = take(SEGMENT, &device);
    T_IS(TUTTI_E_SYSTEM, tutti_torch_pop_comm());
    unsetenv("T_SIM_FAIL_IMPORT");
    check_ordinary(t, &device, p);
    give(p, &device);
    t_device_close(&device);
}

/* A rank that never pops: the others have a communicator less and all their memory. */
static void absent(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct t_device device;
    tutti_comm *comm;
    void *p;

    config.timeout_ms = 300;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 2, &config, &comm));
    T_OK(tutti_torch_push_comm(comm));
    p = take(SEGMENT, &device);
    if (t->rank != 1) {
        const uint64_t begin = t_now_ns();

        T_IS(TUTTI_E_TIMEOUT, tutti_torch_pop_comm());
        T_CONTAINS(tutti_last_error(), "rank 1");
        T_CHECK(t_now_ns() - begin < 2000000000u * t_scale(), "gave up too late");
        T_OK(tutti_comm_status(comm, &state));
        T_CHECK(state.result == TUTTI_E_TIMEOUT && state.peer == 1, "%s", state.text);
    }
    t_meet(t);
    if (t->rank == 1)
        T_CHECK(tutti_torch_pop_comm() < TUTTI_OK, "the others have gone");
    check_ordinary(t, &device, p);
    tutti_comm_destroy(comm);
    give(p, &device);
    t_device_close(&device);
}

static void run(int n_ranks, void (*body)(struct t_rank *), int threads)
{
    const int list[] = {n_ranks, 0};

    for (const int *n = t_wanted_ranks(list); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, body);

        job.config.scratch_bytes = SCRATCH;
        job.threads |= threads;
        t_run(&job);
    }
}

static void what_is_popped_is_registered(void **state)
{
    (void)state;
    run(1, registered, 0);
    run(2, registered, 0);
    run(3, registered, 0);
    run(2, registered, 1);
}

static void there_may_be_many(void **state)
{
    (void)state;
    run(2, many, 0);
}

static void a_capture_may_be_under_way(void **state)
{
    (void)state;
    run(2, captured, 0);
}

static void pushes_nest(void **state)
{
    (void)state;
    run(2, nested, 0);
}

static void memory_outlives_its_communicator(void **state)
{
    (void)state;
    run(2, outlived, 0);
}

static void each_thread_has_its_own(void **state)
{
    (void)state;
    run(2, threads, 0);
}

static void threads_may_meet(void **state)
{
    (void)state;
    run(2, meanwhile, 0);
}

static void each_gpu_has_its_own(void **state)
{
    (void)state;
    if (t_n_devices() < 2)
        t_skip("one GPU only");
    run(2, another_gpu, 0);
}

static void ranks_may_disagree(void **state)
{
    (void)state;
    run(2, unlike, 0);
    run(3, unlike, 0);
    run(2, unlike, 1);
}

static void memory_may_be_missing(void **state)
{
    (void)state;
    if (!t_is_simulated())
        t_skip("a real GPU is not filled");
    run(3, no_memory, 0);
}

static void a_rank_may_be_absent(void **state)
{
    (void)state;
    run(3, absent, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_popped_is_registered),
        cmocka_unit_test(there_may_be_many),
        cmocka_unit_test(a_capture_may_be_under_way),
        cmocka_unit_test(pushes_nest),
        cmocka_unit_test(memory_outlives_its_communicator),
        cmocka_unit_test(each_thread_has_its_own),
        cmocka_unit_test(threads_may_meet),
        cmocka_unit_test(each_gpu_has_its_own),
        cmocka_unit_test(ranks_may_disagree),
        cmocka_unit_test(memory_may_be_missing),
        cmocka_unit_test(a_rank_may_be_absent),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
