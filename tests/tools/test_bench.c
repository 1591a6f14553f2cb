/* `tutti bench` and `tutti tune`: what they refuse before they measure, and where their output goes. */
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/cgroup.h"
#include "support/program.h"

static char folder[] = "/tmp/tutti-bench-XXXXXX";
static char text[65536];

static void says(const char *arguments, int want, const char *part)
{
    t_tutti_says(arguments, want, part, text, sizeof(text));
}

/* --- memory --- */

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    says("bench all_gather -n 2 -e 900000G", 2, "2 ranks with buffers of 900000 GiB need ");
    T_CONTAINS(text, "GiB are available; use a smaller -e or -n");
    says("tune --quick -n 2,3 -c all_gather -e 900000G -o nowhere.txt", 2,
         "tutti tune: 2 ranks with buffers of 900000 GiB need ");
    T_CHECK(access("nowhere.txt.partial", F_OK) != 0, "a file was begun");
}

static void a_group_with_less_memory_counts(void **state)
{
    char group[256], program[4096], line[5000];
    const char *const words[] = {"sh", "-c", line, NULL};
    int out, status;
    pid_t pid;

    (void)state;
    if (t_program("tutti", program, sizeof(program)) != 0)
        t_skip("there is no program %s in this build", program);
    if (t_cgroup_create(128 << 20, group) != 0)
        t_skip("cgroups with a limit of memory are not permitted here");
    snprintf(line, sizeof(line), "echo $$ > %s/cgroup.procs && exec '%s' bench all_gather -n 2",
             group, program);
    pid = t_start(words, &out);
    status = t_finish(pid, out, text, sizeof(text));
    t_cgroup_remove(group);
    T_CHECK(status == 2, "exit status %d: %s", status, text);
    T_CONTAINS(text, "2 ranks with buffers of 16 MiB need 0.2 GiB, and 0.1 GiB are available");
}

/* Ranks that are each in a group of their own, as containers are, do not share what one group leaves. */
static void a_group_is_for_its_own_ranks(void **state)
{
    char groups[2][256], program[4096], line[6000];
    int permitted, status;

    (void)state;
    if (t_program("tutti", program, sizeof(program)) != 0)
        t_skip("there is no program %s in this build", program);
    if (t_cgroup_create(512 << 20, groups[0]) != 0)
        t_skip("cgroups with a limit of memory are not permitted here");
    permitted = t_cgroup_create(512 << 20, groups[1]) == 0;
    snprintf(line, sizeof(line),
             "run -n 2 sh -c '[ $TUTTI_RANK = 0 ] && group=%s || group=%s; "
             "echo $$ > $group/cgroup.procs && exec \"%s\" bench all_gather -b 40M -e 40M "
             "--time 0.1'",
             groups[0], groups[1], program);
    status = permitted ? t_tutti(line, text, sizeof(text)) : -1;
    t_cgroup_remove(groups[0]);
    if (permitted)
        t_cgroup_remove(groups[1]);
    T_CHECK(status == 0, "exit status %d: %s", status, text);
    T_CONTAINS(text, ", 0 wrong");
}

/* Shared memory is a file to the system, which would end the program by a signal. Here that of the results is too
 * large, though not that of a communicator. */
static void a_limit_of_file_sizes_is_told(void **state)
{
    struct rlimit old, tight;

    (void)state;
    T_SYS(getrlimit(RLIMIT_FSIZE, &old));
    tight = old;
    tight.rlim_cur = 12 << 20;
    T_SYS(setrlimit(RLIMIT_FSIZE, &tight));
    says("bench -n 2 -b 4 -e 1M -f 2 --dtype f32,f16,bf16,f64,i8,u8,i32,u32,i64,u64,e4m3,e5m2 "
         "--op sum,prod,max,min",
         2, "memory shared by the ranks (memfd): File too large: raise `ulimit -f`");
    T_SYS(setrlimit(RLIMIT_FSIZE, &old));
}

/* --- output --- */

/* A program that wrote to whatever file has the number of a closed one would break its own. */
static void closed_outputs_are_left_alone(void **state)
{
    (void)state;
    says("hello -n 2 >&-", 0, "");
    T_CHECK(!*text, "%s", text);
    says("bench all_gather -n 2 -e 64 --time 0.1 >&-", 0, "");
    T_CHECK(!*text, "%s", text);
}

static void lost_output_is_a_failure(void **state)
{
    static const char *const lines[] = {"bench barrier -n 2 --time 0.1 --csv >/dev/full",
                                        "bench barrier -n 2 --time 0.1 >/dev/full",
                                        "info --json >/dev/full",
                                        "env --lines >/dev/full",
                                        "help bench >/dev/full",
                                        "run -n 2 echo x >/dev/full"};

    (void)state;
    for (size_t i = 0; i < T_LEN(lines); i++) {
        says(lines[i], 1, ": standard output: No space left on device\n");
        T_CHECK(!strchr(text, '\n')[1], "tutti %s: more than one line: %s", lines[i], text);
    }
}

static void a_reader_that_has_left_is_none(void **state)
{
    char program[4096], line[5000];
    const char *const words[] = {"sh", "-c", line, NULL};
    pid_t pid;
    int out;

    (void)state;
    if (t_program("tutti", program, sizeof(program)) != 0)
        t_skip("there is no program %s in this build", program);
    snprintf(
        line, sizeof(line),
        "trap '' PIPE; exec 3>&1; { sleep 0.2; '%s' run -n 2 echo x 2>&3; echo status $? >&3; }"
        " | true",
        program);
    pid = t_start(words, &out);
    t_finish(pid, out, text, sizeof(text));
    assert_string_equal(text, "status 0\n");
}

static void json_has_the_output_for_itself(void **state)
{
    (void)state;
    says("bench barrier -n 2 --time 0.1 --json - 2>&1 | python3 -c 'import json, sys; "
         "print(json.load(sys.stdin)[\"rows\"][0][\"collective\"])'",
         0, "barrier\n");
    says("bench barrier -n 2 --csv --json -", 2, "--csv and --json - exclude each other");
}

/* --- before the measurement --- */

static void files_are_tried_first(void **state)
{
    char program[4096], line[5000];
    FILE *file = fopen("old.json", "we");

    (void)state;
    T_CHECK(file && fputs("old", file) > 0 && fclose(file) == 0, "old.json: %s", strerror(errno));
    says("bench barrier -n 2 --json /nonexistent/r.json", 2,
         "--json /nonexistent/r.json: No such file or directory");
    says("bench barrier -n 2 --json .", 2, "--json .: Is a directory");
    says("bench barrier -n 2 --json new.json --plot /nonexistent/r.svg", 2,
         "--plot /nonexistent/r.svg: No such file or directory");
    T_CHECK(access("new.json", F_OK) != 0, "an empty file was left");
    says("bench barrier -n 2 --json old.json --plot r.pdf", 2, "ends in .svg or .png");
    file = fopen("old.json", "re");
    T_CHECK(file && fread(line, 1, sizeof(line), file) == 3, "old.json is not what it was");
    fclose(file);
    unlink("old.json");
    T_CHECK(t_program("tutti", program, sizeof(program)) == 0, "no tutti");
    snprintf(line, sizeof(line),
             "run -n 1 --env PATH=/nonexistent -- '%s' bench barrier -n 2 --plot r.png", program);
    says(line, 2, "PNG needs gnuplot");
}

static void a_table_goes_to_a_regular_file(void **state)
{
    (void)state;
    T_SYS(mknod("socket", S_IFSOCK | 0600, 0));
    says("tune --quick -n 2 -c all_gather -e 1K --time 0.1 -o socket", 2,
         "socket is no regular file; say where with -o FILE");
    unlink("socket");
    says("tune --quick -n 2 -c all_gather -e 1K --time 0.1 -o -", 2,
         "-o -: the table is printed anyway; name a file");
}

static void zero_is_no_default(void **state)
{
    (void)state;
    says("bench -n 0", 2, "-n 0: 1 to 1024 ranks");
    says("bench -f 0", 2, "-f 0: sizes must grow");
    says("bench --gpus 0", 2, "--gpus 0: 1 to 64");
    says("bench --replays 5", 2, "--replays is for GPUs");
    says("bench -e 0", 2, "sizes begin at 1 byte");
    says("tune -e 0", 2, "-e 0: at least 64");
}

static void mistakes_tell_what_to_give(void **state)
{
    (void)state;
    says("bench -b 5G", 2, "-b 5 GiB: the largest size is 16 MiB unless -e says more");
    says("bench -e 32", 2, "-e 32 B: the smallest size is 64 B unless -b says less");
    says("bench -b 4K -e 1K", 2, "-b 4 KiB -e 1 KiB: the smallest size is above the largest");
    says("bench -n 3 --against gloo", 2, "as by `tutti run -n 3 -- tutti bench");
    says("bench --against shmem", 2, "only mpi and gloo are known without --gpus");
}

/* A launcher is spoken of where there is one. */
static void a_wrong_algorithm_is_named(void **state)
{
    char program[4096], line[5000];

    (void)state;
    setenv("TUTTI_ALGO", "ring", 1);
    says("bench all_reduce -n 2", 2, "tutti bench: no communicator: TUTTI_E_ARG: no algorithm");
    T_CHECK(t_program("tutti", program, sizeof(program)) == 0, "no tutti");
    snprintf(line, sizeof(line), "run -n 2 -- '%s' bench all_reduce", program);
    says(line, 2, "with the ranks that a launcher seems to have started: TUTTI_E_ARG");
    unsetenv("TUTTI_ALGO");
}

/* The tests run where files that should not be there are seen. */
static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return chdir("/") != 0 || rmdir(folder) != 0; /* nothing was left there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_group_with_less_memory_counts),
        cmocka_unit_test(a_group_is_for_its_own_ranks),
        cmocka_unit_test(a_limit_of_file_sizes_is_told),
        cmocka_unit_test(closed_outputs_are_left_alone),
        cmocka_unit_test(lost_output_is_a_failure),
        cmocka_unit_test(a_reader_that_has_left_is_none),
        cmocka_unit_test(json_has_the_output_for_itself),
        cmocka_unit_test(files_are_tried_first),
        cmocka_unit_test(a_table_goes_to_a_regular_file),
        cmocka_unit_test(zero_is_no_default),
        cmocka_unit_test(mistakes_tell_what_to_give),
        cmocka_unit_test(a_wrong_algorithm_is_named),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
