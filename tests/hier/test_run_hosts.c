/* `tutti run --hosts` with a stand-in for ssh that runs the command on this machine. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/program.h"

static char folder[] = "/tmp/tutti-run-hosts-XXXXXX";
static char rsh[128], program[4096];

static void write_script(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    T_CHECK(f != NULL, "%s: %s", path, strerror(errno));
    fputs(text, f);
    fclose(f);
    T_SYS(chmod(path, 0700));
}

static int set_up(void **state)
{
    (void)state;
    if (t_program("tutti", program, sizeof(program)) != 0)
        return -1;
    T_CHECK(mkdtemp(folder) != NULL, "mkdtemp: %s", strerror(errno));
    snprintf(rsh, sizeof(rsh), "%s/rsh", folder);
    write_script(rsh, "#!/bin/sh\nshift\nsh -c \"$*\"\n"); /* stays between, as ssh does */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(rsh);
    rmdir(folder);
    return 0;
}

static pid_t start(const char *hosts, const char *script, int *out)
{
    const char *const words[] = {program, "run", "--rsh", rsh,  "--hosts", hosts, "--grace",
                                 "1",     "--",  "sh",    "-c", script,    NULL};

    return t_start(words, out);
}

static int run(const char *hosts, const char *script, char *text, size_t bytes)
{
    int out;
    const pid_t pid = start(hosts, script, &out);

    return t_finish(pid, out, text, bytes);
}

static void ranks_know_who_they_are(void **state)
{
    char text[8192];

    (void)state;
    setenv("TUTTI_NAME_OF_TEST", "it's here", 1);
    assert_int_equal(run("127.0.0.1:1,localhost:2",
                         "echo \"$TUTTI_RANK/$TUTTI_N_RANKS $LOCAL_RANK/$LOCAL_WORLD_SIZE "
                         "$TUTTI_HOST ${TUTTI_BOOT_ADDR%:*} ${#TUTTI_SECRET} $TUTTI_NAME_OF_TEST\"",
                         text, sizeof(text)),
                     0);
    unsetenv("TUTTI_NAME_OF_TEST");
    t_check_contains(__FILE__, __LINE__, text, "[0] 0/3 0/1 127.0.0.1 127.0.0.1 32 it's here\n");
    t_check_contains(__FILE__, __LINE__, text, "[1] 1/3 0/2 localhost 127.0.0.1 32 it's here\n");
    t_check_contains(__FILE__, __LINE__, text, "[2] 2/3 1/2 localhost 127.0.0.1 32 it's here\n");
}

/* How many processes have an argument that matches; the pattern itself must not. */
static int count_processes(const char *pattern)
{
    char command[128], text[16] = "";
    FILE *f;

    snprintf(command, sizeof(command), "grep -lzsx -e '%s' /proc/[0-9]*/cmdline | wc -l", pattern);
    f = popen(command, "r");
    if (f == NULL || fgets(text, sizeof(text), f) == NULL)
        text[0] = 0;
    if (f != NULL)
        pclose(f);
    return (int)strtol(text, NULL, 10);
}

static void the_first_death_ends_all(void **state)
{
    char text[8192];

    (void)state;
    assert_int_equal(
        run("a:2,b:2", "if [ $RANK = 2 ]; then exit 7; fi; exec sleep 98765.4", text, sizeof(text)),
        7);
    t_check_contains(__FILE__, __LINE__, text, "rank 2 (pid ");
    t_check_contains(__FILE__, __LINE__, text, "host b: exit status 7; ending the others");
    assert_int_equal(count_processes("98765[.]4"), 0);
}

static void nothing_outlives_a_killed_launcher(void **state)
{
    int out, status, n = 0, n_before;
    const pid_t pid = start("a:2,b:1", "exec sleep 98765.6", &out);

    (void)state;
    for (int ms = 0; n < 3 && ms < 10000; ms += 50) {
        t_sleep_us(50000);
        n = count_processes("98765[.]6");
    }
    n_before = n;
    T_SYS(kill(pid, SIGKILL));
    T_SYS(waitpid(pid, &status, 0));
    for (int ms = 0; n > 0 && ms < 10000; ms += 50) {
        t_sleep_us(50000);
        n = count_processes("98765[.]6");
    }
    assert_int_equal(n_before, 3);
    assert_int_equal(n, 0);
    close(out);
}

static void mistakes_are_explained(void **state)
{
    char text[8192];

    (void)state;
    assert_int_equal(run("a:x", "true", text, sizeof(text)), 2);
    t_check_contains(__FILE__, __LINE__, text, "a:x is not NAME:RANKS");
    assert_int_equal(run("a:1,,b:1", "true", text, sizeof(text)), 2);
    t_check_contains(__FILE__, __LINE__, text, "is no name of a host");
    assert_int_equal(run("-oProxyCommand=x:1", "true", text, sizeof(text)), 2);
    assert_int_equal(run("a:2147483647,b:1", "true", text, sizeof(text)), 2);
    t_check_contains(__FILE__, __LINE__, text, "1 to 4096 ranks");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_know_who_they_are),
        cmocka_unit_test(the_first_death_ends_all),
        cmocka_unit_test(nothing_outlives_a_killed_launcher),
        cmocka_unit_test(mistakes_are_explained),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
