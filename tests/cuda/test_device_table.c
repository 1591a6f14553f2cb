/* ctest: no-tsan timeout=120 */
/* A tune file on GPUs: every rank's calls follow rank 0's rows, bad rows end creation on all ranks. */
#include "support/cases.h"

#include <unistd.h>

enum { N = 2, KIB = 1024, LINES = 8 };

static char path[] = "/tmp/tutti-table-XXXXXX";
static char lines[LINES][256]; /* of the log, with "threads" or "left out" in them */
static int n_lines;

static void keep(void *context, tutti_log_level level, const char *line)
{
    (void)context;
    (void)level;
    if (n_lines < LINES && (strstr(line, " threads") || strstr(line, "left out")))
        snprintf(lines[n_lines++], sizeof(lines[0]), "%s", line);
}

static void write_rows(const char *rows)
{
    FILE *file = fopen(path, "we");

    T_CHECK(file != NULL, "%s: %s", path, strerror(errno));
    fprintf(file, "tutti-tune 1\n%s", rows);
    fclose(file);
}

/* Only rank 0 knows of the file. */
static tutti_result create(struct t_rank *t, uint64_t key, const char *algorithm, tutti_comm **comm)
{
    tutti_comm_config config = t_cuda_config(t);

    config.tune_file = t->rank == 0 ? path : NULL;
    config.algorithm = algorithm;
    config.scratch_bytes = (uint64_t)1 << 20;
    return t_comm_create(t, key, &config, comm);
}

struct buffers {
    struct t_device device;
    void *ordinary, *window;
    tutti_window *w;
};

/* What the log says of the launch of a call. */
static const char *launch(struct t_rank *t, tutti_comm *comm, const struct buffers *b,
                          size_t n_bytes, tutti_dtype dtype, int in_window)
{
    void *x = in_window ? b->window : b->ordinary;

    (void)t;
    n_lines = 0;
    T_OK(tutti_all_reduce(comm, x, x, n_bytes / tutti_dtype_bytes(dtype), dtype, TUTTI_OP_MAX,
                          b->device.stream));
    t_device_sync(&b->device);
    T_CHECK(n_lines == 1, "%d lines of the log tell of a launch", n_lines);
    return lines[0];
}

static void rows_are_followed(struct t_rank *t)
{
    struct buffers b;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    tutti_log_set(keep, NULL);
    t_device_open(&b.device, t);
    T_OK(create(t, 1, NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CONTAINS(info.details, "4 rows of ");
    b.ordinary = t_device_alloc(64 * KIB);
    T_OK(tutti_mem_alloc(comm, 64 * KIB, &b.window));
    T_OK(tutti_window_register(comm, b.window, 64 * KIB, &b.w));
    T_CONTAINS(launch(t, comm, &b, 4 * KIB, TUTTI_DTYPE_F32, 0), "two_shot by 3 x 96 threads");
    T_CONTAINS(launch(t, comm, &b, 8 * KIB, TUTTI_DTYPE_BF16, 0), "one_shot by 2 x 64 threads");
    T_CONTAINS(launch(t, comm, &b, 4 * KIB, TUTTI_DTYPE_F32, 1), "direct by 4 x 32 threads");
    T_CONTAINS(launch(t, comm, &b, 4 * KIB, TUTTI_DTYPE_I32, 0), "two_shot by 1 x 160 threads");
    T_OK(tutti_window_deregister(comm, b.w));
    T_OK(tutti_mem_free(comm, b.window));
    tutti_comm_destroy(comm);
    /* A name wins over the file, and what it takes is as wide as built in. */
    T_OK(create(t, 2, "one_shot", &comm));
    T_CONTAINS(launch(t, comm, &b, 4 * KIB, TUTTI_DTYPE_F32, 0), "one_shot by ");
    T_CHECK(!strstr(lines[0], "3 x 96"), "%s", lines[0]);
    tutti_comm_destroy(comm);
    t_device_free(b.ordinary);
    t_device_close(&b.device);
}

static void run(void (*body)(struct t_rank *t))
{
    struct t_job job = t_cuda_job(N, body);

    job.no_comm = 1;
    t_run(&job);
}

static void the_file_is_followed(void **state)
{
    (void)state;
    if (!t_is_simulated())
        t_skip("the file is for the GPU of the simulation");
    write_rows("all_reduce 2 4K two_shot 3x96 ordinary sentinel simulated_GPU\n"
               "all_reduce 2 64K one_shot 2x64 ordinary sentinel simulated_GPU\n"
               "all_reduce 2 64K direct 4x32 windows sentinel simulated_GPU\n"
               "all_reduce 2 inf two_shot 1x160 ordinary packets simulated_GPU\n"
               "all_reduce 3 inf two_shot 1x160 any any simulated_GPU\n");
    setenv("TUTTI_LOG", "trace", 1);
    run(rows_are_followed);
    unsetenv("TUTTI_LOG");
}

static void all_results(struct t_rank *t)
{
    struct t_rng rng = {11};
    struct t_device device;
    struct t_stage s;
    tutti_comm *comm;

    t_device_open(&device, t);
    T_OK(create(t, 1, NULL, &comm));
    t_stage_open_on(&s, t, comm, 1 << 17, 0, &device);
    t_meet(t);
    for (int i = 0; i < 40; i++) {
        struct t_case c = t_case_random_on(&s, &rng, 3000);

        t_case_run(&s, &c);
    }
    t_meet(t);
    t_stage_close(&s);
    t_device_close(&device);
    tutti_comm_destroy(comm);
}

/* Launches of odd widths, and algorithms that do not fit the scratch: right all the same. */
static void any_rows_give_right_results(void **state)
{
    static const char *const ways[] = {"one_shot 3x96", "two_shot 4x32", "one_shot auto"};

    (void)state;
    if (!t_is_simulated())
        t_skip("the file is for the GPU of the simulation");
    for (size_t i = 0; i < T_LEN(ways); i++) {
        const char *shard = strncmp(ways[i], "one", 3) == 0 ? "two_shot 2x64" : ways[i];
        char rows[1024];

        snprintf(rows, sizeof(rows),
                 "all_reduce 2 inf %s ordinary any simulated_GPU\n"
                 "all_reduce 2 inf direct 1x64 windows any simulated_GPU\n"
                 "reduce_scatter 2 inf %s any any simulated_GPU\n"
                 "all_gather 2 inf %s any any simulated_GPU\n"
                 "all_to_all 2 inf %s any any simulated_GPU\n"
                 "broadcast 2 inf %s any any simulated_GPU\n"
                 "reduce 2 inf %s any any simulated_GPU\n"
                 "gather 2 inf %s any any simulated_GPU\n"
                 "scatter 2 inf %s any any simulated_GPU\n",
                 ways[i], shard, ways[i], ways[i], ways[i], ways[i], ways[i], ways[i]);
        write_rows(rows);
        run(all_results);
    }
}

static void creation_is_refused(struct t_rank *t)
{
    tutti_comm *comm = NULL;
    const tutti_result result = create(t, 1, NULL, &comm);

    T_IS(TUTTI_E_ARG, result);
    T_CHECK(comm == NULL, "a communicator was given out");
    T_CONTAINS(tutti_last_error(), t->rank == 0 ? ":2: 1000 blocks" : "rank 0");
}

static void bad_rows_end_creation_everywhere(void **state)
{
    (void)state;
    if (!t_is_simulated())
        t_skip("the file is for the GPU of the simulation");
    write_rows("all_reduce 2 4K two_shot 1000x96 any any simulated_GPU\n");
    run(creation_is_refused);
}

static void rows_are_left_out(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    tutti_log_set(keep, NULL);
    T_OK(create(t, 1, NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CONTAINS(info.details, "algorithms: built in");
    T_CHECK(t->job->threads ? n_lines > 0 : n_lines == (t->rank == 0),
            "%d lines of the log tell of other GPUs", n_lines);
    tutti_comm_destroy(comm);
}

static void rows_of_other_gpus_are_left_out(void **state)
{
    (void)state;
    write_rows("all_reduce 2 4K two_shot 1000x96 any any NVIDIA_Z1\n"
               "all_gather 2 inf two_shot 1000x96 any any NVIDIA_Z1\n");
    run(rows_are_left_out);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_followed),
        cmocka_unit_test(any_rows_give_right_results),
        cmocka_unit_test(bad_rows_end_creation_everywhere),
        cmocka_unit_test(rows_of_other_gpus_are_left_out),
    };
    int fd, status;

    t_arguments(argc, argv);
    fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    status = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return status;
}
