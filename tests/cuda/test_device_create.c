/* ctest: no-tsan timeout=180 */
/* Creating communicators on GPUs: by every way to map memory, on shared GPUs, with ranks that are
 * threads; what is missing is said, on every rank, and nothing is left behind. */
#include "support/cases.h"

enum { SCRATCH = 1 << 20 };

static void some_calls(struct t_rank *t)
{
    struct t_rng rng = {7};
    struct t_device device;
    struct t_stage s;

    t_device_open(&device, t);
    t_stage_open_on(&s, t, t->comm, 1 << 17, 0, &device);
    t_meet(t);
    for (int i = 0; i < 20; i++) {
        struct t_case c = t_case_random_on(&s, &rng, 3000);

        t_case_run(&s, &c);
    }
    t_meet(t);
    t_stage_close(&s);
    t_device_close(&device);
}

static void run(int n_ranks, int threads)
{
    struct t_job job = t_cuda_job(n_ranks, some_calls);

    job.config.scratch_bytes = SCRATCH;
    job.threads |= threads;
    t_run(&job);
}

static void simulated_only(void)
{
    if (!t_is_simulated())
        t_skip("this needs a GPU that can be told to fail");
}

static void ranks_are_processes_or_threads(void **state)
{
    static const int ranks[] = {1, 4, 0};

    (void)state;
    for (const int *n = t_wanted_ranks(ranks); *n != 0; n++) {
        run(*n, 0);
        run(*n, 1);
    }
}

static void ranks_share_gpus(void **state)
{
    struct t_job job = t_cuda_job(4, some_calls);

    (void)state;
    job.config.scratch_bytes = SCRATCH;
    job.n_devices = 1;
    job.threads = 1;
    t_run(&job);
    job.n_devices = job.n_devices > 1 ? 2 : 1;
    t_run(&job);
    job.threads = 0;
    if (t_is_simulated())
        t_run(&job);
}

/* What the others have of its memory is theirs until they go, too. */
static void first_leaves(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;
    struct t_device device;
    tutti_comm *comm;
    int32_t *p;

    config.timeout_ms = 500;
    config.scratch_bytes = SCRATCH;
    t_device_open(&device, t);
    p = t_device_alloc(sizeof(*p));
    T_OK(t_comm_create(t, 50, &config, &comm));
    t_meet(t);
    if (t->rank == 0)
        tutti_comm_destroy(comm);
    t_meet(t);
    if (t->rank != 0) {
        (void)tutti_all_reduce(comm, p, p, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, device.stream);
        t_device_sync(&device);
        T_OK(tutti_comm_status(comm, &state));
        T_CHECK(state.result < TUTTI_OK && state.peer == 0, "%s", state.text);
        tutti_comm_destroy(comm);
    }
    t_meet(t);
    t_device_free(p);
    t_device_close(&device);
}

static void memory_is_mapped_without_vmm(void **state)
{
    struct t_job job = t_cuda_job(3, first_leaves);

    (void)state;
    simulated_only();
    setenv("T_SIM_NO_VMM", "all", 1);
    t_run(&job);
    job.threads = 1;
    t_run(&job);
    run(3, 0);
    run(3, 1);
    setenv("T_SIM_NO_VMM", "1", 1); /* one GPU of three cannot: agreed on */
    run(3, 0);
    unsetenv("T_SIM_NO_VMM");
}

/* --- failures --- */

struct fault {
    const char *variable, *value;
    tutti_result want; /* on the rank at fault; 0: any */
    const char *text;  /* on every rank */
    int n_devices;
};

static void fails(struct t_rank *t)
{
    const struct fault *fault = t->arg;
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm *comm = NULL;
    tutti_result result;

    config.scratch_bytes = SCRATCH;
    config.timeout_ms = 5000;
    t_meet(t);
    if (fault->variable != NULL)
        setenv(fault->variable, fault->value, 1);
    result = t_comm_create(t, 500, &config, &comm);
    T_CHECK(result < 0, "created in spite of %s=%s", fault->variable, fault->value);
    T_CHECK(fault->want == 0 || result == fault->want, "%s=%s gave %s: %s", fault->variable,
            fault->value, tutti_result_name(result), tutti_last_error());
    T_CONTAINS(tutti_last_error(), fault->text);
    T_CHECK(t_device_n_objects() <= 0, "%d objects of the driver were left", t_device_n_objects());
}

static void failures_are_told_and_leave_nothing(void **state)
{
    static struct fault faults[] = {
        {"T_SIM_FAIL_IMPORT", "1", 0, "", 8},
        {"T_SIM_NO_MEMORY", "1", TUTTI_E_MEMORY, "", 8},
        {"T_SIM_SMS", "2", 0, "", 1},
    };

    (void)state;
    simulated_only();
    for (size_t i = 0; i < T_LEN(faults); i++) {
        struct t_job job = t_cuda_job(3, fails);

        if (faults[i].n_devices > job.n_devices)
            continue;
        job.no_comm = 1;
        job.n_devices = faults[i].n_devices;
        job.arg = &faults[i];
        t_run(&job);
    }
}

static void without(struct t_rank *t)
{
    const struct fault *fault = t->arg;
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm *comm = NULL;

    setenv(fault->variable, fault->value, 1);
    config.device = TUTTI_DEVICE_CUDA;
    T_IS(fault->want, tutti_comm_create(&config, &comm));
    T_CONTAINS(tutti_last_error(), fault->text);
    (void)t;
}

static void what_is_missing_is_said(void **state)
{
    static struct fault faults[] = {
        {"T_SIM_GPUS", "0", TUTTI_E_UNSUPPORTED, "CUDA_ERROR_NO_DEVICE", 1},
        {"T_SIM_VERSION", "11080", TUTTI_E_UNSUPPORTED, "12.0", 1},
        {"TUTTI_CUDA_LIBRARY", "no-such-library.so", TUTTI_E_UNSUPPORTED, "no-such-library.so", 1},
    };

    (void)state;
    for (size_t i = 0; i < T_LEN(faults); i++) {
        const struct t_job job = {.n_ranks = 1, .body = without, .no_comm = 1, .arg = &faults[i]};

        if (t_is_simulated() || i == 2)
            t_run(&job);
    }
}

static void arguments(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm *comm = NULL;

    config.device_index = 1000;
    T_IS(TUTTI_E_ARG, tutti_comm_create(&config, &comm));
    config.device_index = -1;
    T_IS(TUTTI_E_ARG, tutti_comm_create(&config, &comm));
    config.device_index = 0;
    config.scratch_bytes = 70000;
    T_IS(TUTTI_E_ARG, tutti_comm_create(&config, &comm));
}

static void wrong_arguments_are_refused(void **state)
{
    struct t_job job = t_cuda_job(1, arguments);

    (void)state;
    job.no_comm = 1;
    t_run(&job);
}

/* --- again and again --- */

static void again(struct t_rank *t)
{
    tutti_comm_config config = t_cuda_config(t);
    struct t_device device;
    int before = 0;

    t_device_open(&device, t);
    config.scratch_bytes = SCRATCH;
    for (unsigned i = 0; i < 10; i++) {
        tutti_comm_info info = TUTTI_COMM_INFO_INIT;
        tutti_window *window;
        tutti_comm *comm;
        void *p;

        t_meet(t);
        T_OK(t_comm_create(t, 600 + i, &config, &comm));
        T_OK(tutti_comm_query(comm, &info));
        T_CHECK(info.device == TUTTI_DEVICE_CUDA && strcmp(info.engine, "cuda") == 0, "engine %s",
                info.engine);
        p = t_device_alloc(100000);
        T_OK(tutti_window_register(comm, p, 100000, &window));
        T_OK(tutti_barrier(comm, NULL));
        t_meet(t);
        tutti_comm_destroy(comm); /* and the window */
        t_device_free(p);
        t_meet(t);
        if (i == 1)
            before = t_device_n_objects();
        T_CHECK(i < 2 || t_device_n_objects() == before, "%d objects of the driver, now %d", before,
                t_device_n_objects());
        t_meet(t);
    }
    t_device_close(&device);
}

static void nothing_is_left_behind(void **state)
{
    struct t_job job = t_cuda_job(2, again);

    (void)state;
    job.no_comm = 1;
    t_run(&job);
    job.threads = 1;
    if (!t_is_simulated()) /* barriers of threads on one GPU's default stream would wait for ever */
        return;
    t_run(&job);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_processes_or_threads),
        cmocka_unit_test(ranks_share_gpus),
        cmocka_unit_test(memory_is_mapped_without_vmm),
        cmocka_unit_test(failures_are_told_and_leave_nothing),
        cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(nothing_is_left_behind),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
