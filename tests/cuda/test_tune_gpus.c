/* ctest: no-tsan timeout=300 */
/* `tutti tune --gpus` makes a file that communicators follow, leaves other rows alone, and goes on where
 * it was broken off. */
#include "support/cases.h"
#include "support/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 2, BYTES = 1024, SCRATCH = 1536 << 10 };
#define SCRATCH_TEXT "1536K"

static char folder[] = "/tmp/tutti-tune-XXXXXX";
static char tool[512], path[64], partial[80], output[64], csv[64];

static void read_file(const char *from, char *text, size_t size)
{
    FILE *file = fopen(from, "re");
    size_t n = 0;

    T_CHECK(file != NULL, "%s: %s", from, strerror(errno));
    n = fread(text, 1, size - 1, file);
    text[n] = 0;
    fclose(file);
}

static void write_file(const char *to, const char *text)
{
    FILE *file = fopen(to, "we");

    T_CHECK(file != NULL, "%s: %s", to, strerror(errno));
    fputs(text, file);
    T_CHECK(fclose(file) == 0, "%s: %s", to, strerror(errno));
}

/* `tutti tune ... -o path` on two simulated GPUs, as quickly as it goes; what it says is in output. */
static pid_t start(const char *arguments)
{
    char line[700];
    const pid_t pid = fork();

    T_SYS(pid);
    if (pid > 0)
        return pid;
    setenv("T_SIM_GPUS", "2", 1);
    setenv("TUTTI_CUDA_SCRATCH", SCRATCH_TEXT, 1);
    snprintf(line, sizeof(line), "exec '%s' %s > %s 2>&1", tool, arguments, output);
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
}

static int finish(pid_t pid)
{
    int status = 0;

    T_SYS(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void tune(const char *collectives)
{
    char arguments[200], text[8192];
    int status;

    snprintf(arguments, sizeof(arguments), "tune --gpus 2 --quick -e 1K --time 1 -c %s -o %s",
             collectives, path);
    status = finish(start(arguments));
    read_file(output, text, sizeof(text));
    T_CHECK(status == 0, "exit status %d: %s", status, text);
}

static void fails(const char *arguments, int want, const char *part)
{
    char text[8192];
    const int status = finish(start(arguments));

    read_file(output, text, sizeof(text));
    T_CHECK(status == want, "%s: exit status %d: %s", arguments, status, text);
    T_CONTAINS(text, part);
}

static void need_tool(void)
{
    if (t_program("tutti", tool, sizeof(tool)) != 0)
        t_skip("there is no program %s in this build", tool);
}

static void need_simulation(void)
{
    if (!t_is_simulated())
        t_skip("scripts/gpu_check.sh runs `tutti tune --gpus` on real GPUs");
    need_tool();
}

static void clear(void)
{
    unlink(path);
    unlink(partial);
}

/* Does a line of what was said hold `part`? */
static int was_said(const char *part)
{
    FILE *file = fopen(output, "re");
    char line[512];
    int found = 0;

    T_CHECK(file != NULL, "%s: %s", output, strerror(errno));
    while (!found && fgets(line, sizeof(line), file))
        found = strstr(line, part) != NULL;
    fclose(file);
    return found;
}

/* --- a file is made, and followed --- */

static char launched[256];

static void keep(void *context, tutti_log_level level, const char *line)
{
    (void)context;
    (void)level;
    if (strstr(line, " threads"))
        snprintf(launched, sizeof(launched), "%s", line);
}

static void calls_follow(struct t_rank *t)
{
    const char *want = t->arg;
    tutti_comm_config config = t_cuda_config(t);
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    struct t_device device;
    tutti_comm *comm;
    void *x;

    tutti_log_set(keep, NULL);
    config.tune_file = t->rank == 0 ? path : NULL;
    config.scratch_bytes = (uint64_t)1 << 20;
    t_device_open(&device, t);
    T_OK(t_comm_create(t, 1, &config, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CONTAINS(info.details, path);
    x = t_device_alloc(BYTES);
    T_OK(tutti_all_reduce(comm, x, x, BYTES / 2, TUTTI_DTYPE_BF16, TUTTI_OP_SUM, device.stream));
    t_device_sync(&device);
    T_CONTAINS(launched, want);
    tutti_comm_destroy(comm);
    t_device_free(x);
    t_device_close(&device);
}

/* The words that the log has for the launch of the file's row for ordinary buffers. */
static void read_row(const char *text, char *want, size_t size)
{
    const char *row = strstr(text, "\nall_reduce 2 ");
    char algorithm[32], width[32], buffers[32];
    int n_blocks, n_threads;

    T_CHECK(row && sscanf(row, " %*s %*s %*s %31s %31s %31s", algorithm, width, buffers) == 3,
            "no row of all_reduce in %s", text);
    T_CHECK(strcmp(buffers, "ordinary") == 0, "the first row is for %s", buffers);
    if (sscanf(width, "%dx%d", &n_blocks, &n_threads) == 2)
        snprintf(want, size, "%s by %d x %d threads", algorithm, n_blocks, n_threads);
    else
        snprintf(want, size, " by "); /* auto was as fast as any */
}

static void follow(void)
{
    char text[8192], want[128];
    struct t_job job = t_cuda_job(N, calls_follow);

    read_file(path, text, sizeof(text));
    read_row(text, want, sizeof(want));
    job.no_comm = 1;
    job.arg = want;
    setenv("TUTTI_LOG", "trace", 1);
    t_run(&job);
    unsetenv("TUTTI_LOG");
}

static void a_file_is_made_and_followed(void **state)
{
    char text[8192];

    (void)state;
    need_simulation();
    clear();
    setenv("TUTTI_LOG", "trace", 1);
    snprintf(text, sizeof(text), "all_reduce --csv %s", csv);
    tune(text);
    unsetenv("TUTTI_LOG");
    T_CHECK(was_said("1024 bytes: one_shot by 4 x 128 threads") &&
                was_said("1024 bytes: two_shot by 1 x 128 threads") &&
                was_said("1024 bytes: direct by 4 x 128 threads"),
            "the ranks did not launch what was to be tried");
    read_file(path, text, sizeof(text));
    T_CHECK(strncmp(text, "tutti-tune 1\n", 13) == 0, "%s", text);
    T_CONTAINS(text, "ordinary sentinel simulated_GPU\n");
    T_CONTAINS(text, "windows sentinel simulated_GPU\n");
    T_CHECK(access(partial, F_OK) != 0, "%s was left behind", partial);
    read_file(csv, text, sizeof(text));
    T_CONTAINS(text, "op,ranks,bytes,");
    T_CONTAINS(text, "\nall_reduce,2,1024,ordinary,sentinel,two_shot,1,128,");
    T_CONTAINS(text, "\nall_reduce,2,1024,windows,sentinel,direct,4,128,");
    follow();
    setenv("TUTTI_TUNE_FILE", path, 1);
    fails("info", 0, "rows of /tmp/tutti-tune-");
    unsetenv("TUTTI_TUNE_FILE");
}

/* --- what was there --- */

static void other_rows_stay(void **state)
{
    char text[8192];

    (void)state;
    need_simulation();
    clear();
    write_file(path, "tutti-tune 1\n"
                     "all_reduce 2 inf two_shot\n"
                     "all_reduce 2 12345 one_shot 1x96 any any simulated_GPU\n"
                     "all_reduce 2 inf one_shot 1x96 any packets NVIDIA_H200\n"
                     "all_reduce 3 inf one_shot 1x96 any any simulated_GPU\n"
                     "all_gather 2 inf one_shot 1x96 any any simulated_GPU\n");
    tune("all_reduce");
    read_file(path, text, sizeof(text));
    T_CONTAINS(text, "\nall_reduce 2 inf two_shot\n");
    T_CONTAINS(text, "\nall_reduce 2 inf one_shot 1x96 any packets NVIDIA_H200\n");
    T_CONTAINS(text, "\nall_reduce 3 inf one_shot 1x96 any any simulated_GPU\n");
    T_CONTAINS(text, "\nall_gather 2 inf one_shot 1x96 any any simulated_GPU\n");
    T_CHECK(!strstr(text, "12345"), "an old row stays beside its new ones: %s", text);
    follow();
}

/* --- broken off --- */

static void a_broken_off_run_goes_on(void **state)
{
    char text[8192], arguments[200];
    pid_t pid;

    (void)state;
    need_simulation();
    clear();
    snprintf(arguments, sizeof(arguments),
             "tune --gpus 2 --quick -e 1K --time 1 -c all_reduce,all_gather,all_to_all -o %s",
             path);
    pid = start(arguments);
    for (int i = 0;; i++) { /* until the first collective is done */
        T_CHECK(i < 60000, "no row in a minute");
        t_sleep_us(1000);
        if (access(partial, F_OK) != 0)
            continue;
        read_file(partial, text, sizeof(text));
        if (strstr(text, "windows sentinel"))
            break;
    }
    kill(pid, SIGINT);
    T_CHECK(finish(pid) == 128 + SIGINT, "it was over before it could be broken off");
    T_CHECK(access(path, F_OK) != 0, "half a measurement was taken for a whole one");
    read_file(partial, text, sizeof(text));
    T_CHECK(!strstr(text, "all_to_all"), "all was measured: %s", text);
    /* A row that no measurement would give must be there at the end: it was not measured again. */
    snprintf(strstr(text, "\nall_reduce") + 1, 100,
             "all_reduce 2 inf two_shot 3x96 any any simulated_GPU\n");
    write_file(partial, text);
    tune("all_reduce,all_gather,all_to_all");
    read_file(output, text, sizeof(text));
    T_CONTAINS(text, "going on where the last run broke off");
    read_file(path, text, sizeof(text));
    T_CONTAINS(text, "\nall_reduce 2 inf two_shot 3x96 any any simulated_GPU\n");
    T_CHECK(!strstr(strstr(text, "\nall_reduce 2") + 1, "\nall_reduce 2"),
            "all_reduce was measured again: %s", text);
    T_CONTAINS(text, "\nall_gather 2 inf ");
    T_CONTAINS(text, "\nall_to_all 2 inf ");
    T_CHECK(access(partial, F_OK) != 0, "%s was left behind", partial);
}

/* Packets whose data come later than their flags: no file is made of such measurements. */
static void wrong_results_end_it(void **state)
{
    char arguments[200];

    (void)state;
    need_simulation();
    clear();
    setenv("T_SIM_BREAK", "torn", 1);
    setenv("T_SIM_SEED", "5", 1);
    snprintf(arguments, sizeof(arguments),
             "tune --gpus 2 --quick -e 1K --time 1 -c all_gather -o %s", path);
    fails(arguments, 1, "WRONG: all_gather of 1024 bytes by ");
    unsetenv("T_SIM_BREAK");
    unsetenv("T_SIM_SEED");
    T_CHECK(access(path, F_OK) != 0, "a file was made of wrong results");
}

static void mistakes_are_named(void **state)
{
    (void)state;
    need_simulation();
    fails("tune --gpus 3", 2, "this machine has 2");
    fails("tune --gpus many", 2, "expected numbers of GPUs");
    fails("tune --gpus 2 -n 2", 2, "exclude each other");
    fails("tune --gpus 2 -c barrier", 2, "barrier");
    fails("tune --packets", 2, "--gpus");
}

static void says_its_memory(struct t_rank *t)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;

    T_OK(tutti_comm_query(t->comm, &info));
    T_CHECK(info.memory_bytes >= SCRATCH && info.memory_bytes < SCRATCH + (1 << 20), "%llu bytes",
            (unsigned long long)info.memory_bytes);
}

/* `tutti info` says what a communicator costs here: as much as communicators take. */
static void memory_is_told(void **state)
{
    char text[8192], want[80];
    struct t_job job = t_cuda_job(1, says_its_memory);

    (void)state;
    need_tool();
    T_CHECK(finish(start("info")) <= 1, "tutti info failed");
    read_file(output, text, sizeof(text));
    snprintf(want, sizeof(want), "GPU memory per communicator      %.4g MiB a rank",
             (double)SCRATCH / (1 << 20));
    T_CONTAINS(text, want);
    setenv("TUTTI_CUDA_SCRATCH", SCRATCH_TEXT, 1);
    t_run(&job);
    unsetenv("TUTTI_CUDA_SCRATCH");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_made_and_followed), cmocka_unit_test(other_rows_stay),
        cmocka_unit_test(a_broken_off_run_goes_on),    cmocka_unit_test(wrong_results_end_it),
        cmocka_unit_test(mistakes_are_named),          cmocka_unit_test(memory_is_told),
    };
    int status;

    t_arguments(argc, argv);
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof(path), "%s/tune.txt", folder);
    snprintf(partial, sizeof(partial), "%s.gpu.partial", path);
    snprintf(output, sizeof(output), "%s/output", folder);
    snprintf(csv, sizeof(csv), "%s/all.csv", folder);
    status = cmocka_run_group_tests(tests, NULL, NULL);
    clear();
    unlink(output);
    unlink(csv);
    rmdir(folder);
    return status;
}
