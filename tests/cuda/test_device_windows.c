/* ctest: no-tsan timeout=120 */
/* Registration of GPU memory: what is found, what is refused and that all ranks agree on it. That
 * calls in windows are right is shown by the other tests. */
#include "support/cases.h"

enum { BYTES = 3 << 20, SCRATCH = 1 << 20 };

static void one_call(struct t_rank *t, struct t_device *device, void *x, size_t count)
{
    int32_t *host = malloc(count * 4);

    T_CHECK(host != NULL, "no memory");
    for (size_t i = 0; i < count; i++)
        host[i] = (int32_t)i + t->rank;
    t_device_push(device, x, host, count * 4);
    T_OK(tutti_all_reduce(t->comm, x, x, count, TUTTI_DTYPE_I32, TUTTI_OP_SUM, device->stream));
    t_device_pull(device, host, x, count * 4);
    t_device_sync(device);
    for (size_t i = 0; i < count; i++)
        T_CHECK(host[i] == t->n_ranks * (int32_t)i + t->n_ranks * (t->n_ranks - 1) / 2,
                "element %zu is %d", i, host[i]);
    free(host);
}

static void check_found(tutti_comm *comm, tutti_window *window, unsigned char *p)
{
    T_CHECK(tutti_window_find(comm, p, BYTES) == window, "the whole is not found");
    T_CHECK(tutti_window_find(comm, p + 5, BYTES - 5) == window, "the end is not found");
    T_CHECK(tutti_window_find(comm, p + BYTES - 1, 1) == window, "the last byte is not found");
    T_CHECK(tutti_window_find(comm, p + BYTES - 1, 2) == NULL, "more than there is was found");
    T_CHECK(tutti_window_find(comm, p - 1, 2) == NULL, "what lies before was found");
}

static void found(struct t_rank *t)
{
    tutti_window *window, *again;
    struct t_device device;
    void *p, *q;

    t_device_open(&device, t);
    T_OK(tutti_mem_alloc(t->comm, BYTES, &p));
    T_OK(tutti_mem_alloc(t->comm, BYTES, &q));
    T_CHECK(tutti_window_find(t->comm, p, 1) == NULL, "found before it is registered");
    T_OK(tutti_window_register(t->comm, p, BYTES, &window));
    check_found(t->comm, window, p);
    T_CHECK(tutti_window_find(t->comm, q, 1) == NULL, "other memory was found");
    t_meet(t);
    one_call(t, &device, p, 70000);
    one_call(t, &device, q, 70000);
    T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, p));
    T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, (char *)q + 64));
    T_OK(tutti_window_register(t->comm, p, BYTES, &again));
    T_OK(tutti_window_deregister(t->comm, again));
    T_OK(tutti_window_deregister(t->comm, window));
    T_CHECK(tutti_window_find(t->comm, p, 1) == NULL, "found after it was deregistered");
    t_meet(t);
    one_call(t, &device, p, 70000);
    t_meet(t);
    T_OK(tutti_mem_free(t->comm, p));
    T_OK(tutti_mem_free(t->comm, q));
    t_device_close(&device);
}

/* What cudaMalloc gives, at an odd place in it. */
static void plain_memory(struct t_rank *t)
{
    tutti_window *window;
    struct t_device device;
    unsigned char *p;

    t_device_open(&device, t);
    p = t_device_alloc(BYTES + 4096);
    T_OK(tutti_window_register(t->comm, p + 512, BYTES, &window));
    check_found(t->comm, window, p + 512);
    t_meet(t);
    one_call(t, &device, p + 512, 70000);
    one_call(t, &device, p + 516, 70001);
    t_meet(t);
    T_OK(tutti_window_deregister(t->comm, window));
    t_meet(t);
    t_device_free(p);
    t_device_close(&device);
}

/* How long calls look for their windows: told, not judged. */
static void time_finding(tutti_comm *comm, void *const p[], int n)
{
    enum { TIMES = 100000 };
    uint64_t best = UINT64_MAX;
    int n_found = 0;

    for (int turn = 0; turn < 5; turn++) {
        const uint64_t begin = t_now_ns();

        for (int i = 0; i < TIMES; i++)
            n_found += tutti_window_find(comm, (char *)p[i * 7 % n] + i % 1000, 4) != NULL;
        if (t_now_ns() - begin < best)
            best = t_now_ns() - begin;
    }
    T_CHECK(n_found == 5 * TIMES, "%d of %d were found", n_found, 5 * TIMES);
    printf("tutti_window_find among %d windows: %.1f ns\n", n, (double)best / TIMES);
}

/* Two windows in one allocation, which share its granules. */
static void neighbours(struct t_rank *t)
{
    enum { PART = 300000, AT = 301056 };
    struct t_device device;
    tutti_window *first, *second, *none = NULL;
    unsigned char *p;
    void *memory;

    t_device_open(&device, t);
    T_OK(tutti_mem_alloc(t->comm, BYTES, &memory));
    p = memory;
    T_OK(tutti_window_register(t->comm, p, PART, &first));
    T_OK(tutti_window_register(t->comm, p + AT, PART, &second));
    T_CHECK(first != second && tutti_window_find(t->comm, p + PART - 1, 1) == first &&
                tutti_window_find(t->comm, p + AT, PART) == second &&
                tutti_window_find(t->comm, p + PART, 1) == NULL &&
                tutti_window_find(t->comm, p, AT + 1) == NULL,
            "two windows are mixed up");
    T_IS(TUTTI_E_ARG,
         tutti_window_register(t->comm, p + PART - 16, AT, &none)); /* of both a part */
    t_meet(t);
    one_call(t, &device, p, 20000);
    one_call(t, &device, p + AT, 20000);
    T_OK(tutti_window_deregister(t->comm, first));
    T_CHECK(tutti_window_find(t->comm, p, 1) == NULL, "found after it was deregistered");
    t_meet(t);
    one_call(t, &device, p, 20000);
    one_call(t, &device, p + AT, 20000);
    T_IS(TUTTI_E_ARG, tutti_mem_free(t->comm, p)); /* the second holds all of it */
    T_OK(tutti_window_deregister(t->comm, second));
    t_meet(t);
    T_OK(tutti_mem_free(t->comm, p));
    t_device_close(&device);
}

static void many(struct t_rank *t)
{
    enum { N = 40 };
    tutti_window *windows[N];
    struct t_device device;
    void *p[N];

    t_device_open(&device, t);
    for (int i = 0; i < N; i++) {
        T_OK(tutti_mem_alloc(t->comm, 100000, &p[i]));
        T_OK(tutti_window_register(t->comm, p[i], 100000, &windows[i]));
    }
    for (int i = 0; i < N; i++)
        T_CHECK(tutti_window_find(t->comm, (char *)p[i] + 99999, 1) == windows[i], "window %d", i);
    if (t->rank == 0)
        time_finding(t->comm, p, N);
    t_meet(t);
    one_call(t, &device, p[N - 1], 25000);
    t_meet(t);
    for (int i = 0; i < N; i += 2)
        T_OK(tutti_window_deregister(t->comm, windows[i]));
    for (int i = 0; i < N; i++)
        T_CHECK(tutti_window_find(t->comm, p[i], 1) == (i % 2 == 0 ? NULL : windows[i]),
                "window %d after half of them have gone", i);
    for (int i = 1; i < N; i += 2)
        T_OK(tutti_window_deregister(t->comm, windows[i]));
    t_meet(t);
    for (int i = 0; i < N; i++)
        T_OK(tutti_mem_free(t->comm, p[i]));
    t_device_close(&device);
}

/* --- refusals --- */

static void check_refused(struct t_rank *t, struct t_device *device, void *p, size_t bytes,
                          tutti_result want, const char *text)
{
    tutti_window *window = NULL;
    void *q;

    T_IS(want, tutti_window_register(t->comm, p, bytes, &window));
    T_CONTAINS(tutti_last_error(), text);
    T_CHECK(tutti_window_find(t->comm, p, 1) == NULL, "refused, but found");
    t_meet(t);
    q = t_device_alloc(4096);
    t_meet(t);
    one_call(t, device, q, 1000); /* the communicator is as good as before */
    t_meet(t);
    t_device_free(q);
}

static int n_told;

static void count_told(void *context, tutti_log_level level, const char *line)
{
    (void)context;
    (void)level;
    n_told += strstr(line, "is no window") != NULL;
}

static void refused(struct t_rank *t)
{
    struct t_device device;
    size_t private_bytes;
    void *p, *hidden;

    n_told = 0;
    tutti_log_set(count_told, NULL);
    t_device_open(&device, t);
    T_OK(tutti_mem_alloc(t->comm, BYTES, &p));
    hidden = t_device_alloc_private(&device, BYTES, &private_bytes);
    t_meet(t);
    check_refused(t, &device, t->rank == 1 ? hidden : p, BYTES, TUTTI_E_UNSUPPORTED,
                  t->rank == 1 ? "cuMemCreate" : "rank 1");
    check_refused(t, &device, t->rank == 1 ? hidden : p, BYTES, TUTTI_E_UNSUPPORTED, "");
    if (!t->job->threads) /* or who says it is not known */
        T_CHECK(n_told == (t->rank == 0), "the log says %d times that a buffer is no window",
                n_told);
    check_refused(t, &device, p, BYTES - 16 * (size_t)(t->rank == 1), TUTTI_E_MISMATCH, "bytes");
    if (t_is_simulated() && t->job->n_devices > 1) {
        t_meet(t);
        setenv("T_SIM_FAIL_IMPORT", "1", 1); /* the GPU of rank 1 */
        check_refused(t, &device, p, BYTES, TUTTI_E_SYSTEM, "");
        unsetenv("T_SIM_FAIL_IMPORT");
    }
    t_meet(t);
    t_device_free_private(hidden, private_bytes);
    T_OK(tutti_mem_free(t->comm, p));
    t_device_close(&device);
}

static void run_by(const char *algorithm, void (*body)(struct t_rank *), int threads)
{
    static const int ranks[] = {2, 3, 0};

    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        struct t_job job = t_cuda_job(*n, body);

        job.config.scratch_bytes = SCRATCH;
        job.config.algorithm = algorithm;
        job.threads |= threads;
        t_run(&job);
    }
}

static void run(void (*body)(struct t_rank *), int threads)
{
    run_by(NULL, body, threads);
}

static void windows_are_found(void **state)
{
    (void)state;
    run(found, 0);
    run(found, 1);
}

static void memory_of_other_allocators_is_registered(void **state)
{
    (void)state;
    run(plain_memory, 0);
    run(plain_memory, 1);
}

static void an_allocation_may_hold_two(void **state)
{
    (void)state;
    run_by(NULL, neighbours, 1);
    run_by("direct", neighbours, 0);
}

static void there_may_be_many(void **state)
{
    (void)state;
    run(many, 0);
}

static void a_refusal_is_everybodys(void **state)
{
    (void)state;
    run(refused, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_found),
        cmocka_unit_test(memory_of_other_allocators_is_registered),
        cmocka_unit_test(an_allocation_may_hold_two),
        cmocka_unit_test(there_may_be_many),
        cmocka_unit_test(a_refusal_is_everybodys),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
