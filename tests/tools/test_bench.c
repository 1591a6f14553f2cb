/* `tutti bench` and `tutti tune`: what they refuse before they measure, and where their output goes. */
#include <sys/stat.h>
#include <unistd.h>

#include "support/cgroup.h"
#include "support/program.h"

static char folder[] = "/tmp/tutti-bench-XXXXXX";
static char text[65536];

static void says(const char *arguments, int want, const char *part)
{
    const int status = t_tutti(arguments, text, sizeof(text));

    T_CHECK(status == want, "tutti %s: exit status %d: %s", arguments, status, text);
    T_CONTAINS(text, part);
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
    if (t_cgroup_create(64 << 20, group) != 0)
        t_skip("cgroups with a limit of memory are not permitted here");
    snprintf(line, sizeof(line), "echo $$ > %s/cgroup.procs && exec '%s' bench all_gather -n 2",
             group, program);
    pid = t_start(words, &out);
    status = t_finish(pid, out, text, sizeof(text));
    t_cgroup_remove(group);
    T_CHECK(status == 2, "exit status %d: %s", status, text);
    T_CONTAINS(text, "2 ranks with buffers of 16 MiB need 0.2 GiB, and 0.1 GiB are available");
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
        cmocka_unit_test(closed_outputs_are_left_alone),
        cmocka_unit_test(lost_output_is_a_failure),
        cmocka_unit_test(a_reader_that_has_left_is_none),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
