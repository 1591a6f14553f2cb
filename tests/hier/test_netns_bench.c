/* ctest: timeout=120 */
/* `tutti bench` as the ranks of a job: on two machines, by all that they can tell, and under mpirun. */
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include "net/net.h"
#include "support/netns.h"
#include "support/program.h"

enum { MOST_WORDS = 16 };

static const char *const four[] = {"10.77.0.1/24", "10.77.0.2/24"};
static const char *const none[] = {NULL, NULL};

struct output {
    char text[16384];
    int status; /* 1000 + signal if one killed it */
};

/* `tutti bench` with these words, as rank t->rank. */
static pid_t start_bench(const struct t_rank *t, const char *const words[], int *out)
{
    const char *all[MOST_WORDS + 3] = {NULL, "bench"};
    char program[512], number[2][16];

    T_CHECK(t_program("tutti", program, sizeof(program)) == 0, "no program %s", program);
    all[0] = program;
    for (int i = 0; words[i]; i++)
        all[i + 2] = words[i];
    snprintf(number[0], sizeof(number[0]), "%d", t->rank);
    snprintf(number[1], sizeof(number[1]), "%d", t->n_ranks);
    setenv("TUTTI_RANK", number[0], 1);
    setenv("TUTTI_N_RANKS", number[1], 1);
    setenv("TUTTI_BOOT_ADDR", "10.77.0.1:7123", 1);
    setenv("TUTTI_SECRET", "of a bench", 1);
    setenv("TUTTI_TIMEOUT", "20s", 1);
    return t_start(all, out);
}

static void bench(const struct t_rank *t, const char *const words[], struct output *o)
{
    int fd;
    const pid_t pid = start_bench(t, words, &fd);

    o->status = t_finish(pid, fd, o->text, sizeof(o->text));
}

/* A cable between two machines with kernels of their own, to whoever asks which one is running. */
static void enter(struct t_rank *t)
{
    char path[] = "/tmp/tutti-boot-id-XXXXXX";
    int fd;

    if (*tt_net_missing())
        t_skip("%s", tt_net_missing());
    t_netns_enter(t, four, none, 0);
    if (t->rank < 2) {
        fd = mkstemp(path);
        T_SYS(fd);
        T_CHECK(dprintf(fd, "0000000%d-1111-4222-8333-444444444444\n", t->rank) > 0, "%s",
                strerror(errno));
        close(fd);
        T_SYS(mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL));
        unlink(path);
    }
    t_meet(t);
}

static void measure(struct t_rank *t)
{
    static const char *const words[] = {"all_reduce", "all_gatherv", "-b",     "64",          "-e",
                                        "64K",        "-f",          "32",     "-d",          "f32",
                                        "--time",     "1",           "--json", "/dev/stderr", NULL};
    struct output o;

    enter(t);
    bench(t, words, &o);
    T_CHECK(o.status == 0, "status %d: %s", o.status, o.text);
    if (t->rank > 0) {
        T_CHECK(o.text[0] == 0, "prints, too: %s", o.text);
        return;
    }
    T_CONTAINS(o.text, "4 ranks on 2 hosts, rank 0's with ");
    T_CONTAINS(o.text, "2 hosts, 2 ranks on this one");
    T_CONTAINS(o.text, "of the slowest rank, from a barrier on");
    T_CONTAINS(o.text, "12 results, 0 wrong");
    T_CONTAINS(o.text, "\"ranks\": 4, \"hosts\": 2, ");
    T_CONTAINS(o.text, "\"collective\": \"all_gatherv\", \"bytes\": 65536");
}

static void misused(struct t_rank *t)
{
    static const char *const wrong_number[] = {"barrier", "-n", "3", NULL};
    static const char *const for_cpus[] = {"all_reduce", "--gpus", "2", "--threads", "2", NULL};
    struct output o;

    enter(t);
    bench(t, wrong_number, &o);
    T_CHECK(o.status == 2, "status %d: %s", o.status, o.text);
    T_CONTAINS(o.text, "-n 3: a launcher has started 2 ranks");
    t_meet(t);
    bench(t, for_cpus, &o);
    T_CHECK(o.status == 2, "status %d: %s", o.status, o.text);
    T_CONTAINS(o.text, "are for ranks on CPUs; leave them out with --gpus");
}

/* The others end, and say what they saw. */
static void killed(struct t_rank *t)
{
    static const char *const words[] = {"all_reduce", "-b",     "64", "-e",
                                        "256",        "--time", "60", NULL};
    const uint64_t begin = t_now_ns();
    struct output o;
    pid_t pid;
    int fd;

    enter(t);
    pid = start_bench(t, words, &fd);
    t_sleep_us(1500000);
    t_meet(t);
    if (t->rank == 2)
        kill(pid, SIGKILL);
    o.status = t_finish(pid, fd, o.text, sizeof(o.text));
    T_CHECK(o.status == (t->rank == 2 ? 1000 + SIGKILL : 1), "status %d: %s", o.status, o.text);
    T_CHECK(t_now_ns() - begin < (uint64_t)15000000000u * t_scale(), "only after %d s",
            (int)((t_now_ns() - begin) / 1000000000));
    if (t->rank == 0)
        T_CONTAINS(o.text, "rank 2 ");
}

static void run(int n_ranks, void (*body)(struct t_rank *))
{
    const struct t_job job = {.n_ranks = n_ranks, .no_comm = 1, .body = body, .limit_s = 40};

    t_run(&job);
}

static void four_ranks_on_two_machines(void **state)
{
    (void)state;
    run(4, measure);
}

static void misuse_is_told(void **state)
{
    (void)state;
    run(2, misused);
}

static void a_rank_that_dies(void **state)
{
    (void)state;
    run(3, killed);
}

/* One machine in two roles, and another library in the same processes. */
static void beside_mpi(void **state)
{
    static const char script[] = "TUTTI_HOST=host$OMPI_COMM_WORLD_RANK exec \"$0\" bench "
                                 "all_reduce -b 64 -e 1K -f 16 -d f32 "
                                 "--time 1 --against mpi";
    char program[512], module[512];
    const char *const words[] = {
        "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", "sh", "-c", script, program,
        NULL};
    const char *const version[] = {"mpirun", "--version", NULL};
    struct output o;
    pid_t pid;
    int fd;

    (void)state;
    if (*tt_net_missing())
        t_skip("%s", tt_net_missing());
    T_CHECK(t_program("tutti", program, sizeof(program)) == 0, "no program %s", program);
    pid = t_start(version, &fd);
    o.status = t_finish(pid, fd, o.text, sizeof(o.text));
    if (t_program("tutti_bench_mpi.so", module, sizeof(module)) != 0 || !strstr(o.text, "Open MPI"))
        t_skip("no Open MPI here");
    pid = t_start(words, &fd);
    o.status = t_finish(pid, fd, o.text, sizeof(o.text));
    assert_int_equal(o.status, 0);
    t_check_contains(__FILE__, __LINE__, o.text, "2 ranks on 2 hosts");
    t_check_contains(__FILE__, __LINE__, o.text, "from the last rank's arrival");
    t_check_contains(__FILE__, __LINE__, o.text, "times faster");
    t_check_contains(__FILE__, __LINE__, o.text, "6 results, 0 wrong");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_ranks_on_two_machines),
        cmocka_unit_test(misuse_is_told),
        cmocka_unit_test(a_rank_that_dies),
        cmocka_unit_test(beside_mpi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
