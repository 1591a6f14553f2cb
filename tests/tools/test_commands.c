/* `tutti hello`, `info`, `env`, and what the program says of mistakes. */
#include <unistd.h>

#include "support/cgroup.h"
#include "support/program.h"

static char text[65536];

static void says(const char *arguments, int want, const char *part)
{
    t_tutti_says(arguments, want, part, text, sizeof(text));
}

/* As if no variable of the library's were set. */
static int clear(void **state)
{
    tutti_env_entry entry = TUTTI_ENV_ENTRY_INIT;

    (void)state;
    for (size_t i = 0; tutti_env_describe(i, &entry) == TUTTI_OK; i++)
        unsetenv(entry.name);
    return 0;
}

static size_t count(const char *part)
{
    size_t n = 0;

    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        n++;
    return n;
}

static void hello_adds_the_numbers_of_all_ranks(void **state)
{
    (void)state;
    says("hello -n 4", 0, "2. 4 ranks, each a process, are a communicator now. Engine cpu: ");
    T_CONTAINS(text, "tutti_all_reduce left 0 + 1 + ... = 6 on all.\n");
    T_CONTAINS(text, "5. All is well.");
    says("hello -n 1", 0, "2. 1 rank, a process, is a communicator now. Engine cpu: ");
    T_CONTAINS(text, "tutti_all_reduce left 0 = 0 on all.\n");
}

static void hello_is_a_rank_of_what_a_launcher_started(void **state)
{
    char tutti[4096], line[8192];

    (void)state;
    T_CHECK(t_program("tutti", tutti, sizeof(tutti)) == 0, "no tutti");
    snprintf(line, sizeof(line), "run -n 3 -- '%s' hello", tutti);
    says(line, 0, "[0] 1. A launcher started 3 ranks on 1 host, and they found rank 0.\n");
    T_CONTAINS(text, "tutti_all_reduce left 0 + 1 + 2 = 3 on all.\n");
    T_CHECK(count("5. All is well.") == 1, "%s", text);
    snprintf(line, sizeof(line), "run -n 3 -- '%s' hello -n 2", tutti);
    says(line, 2, "-n 2: a launcher has started 3 ranks");
}

static void hello_says_what_went_wrong(void **state)
{
    (void)state;
    setenv("TUTTI_CPU_ISA", "abacus", 1);
    says("hello -n 2", 1, "tutti_comm_create: TUTTI_E_ARG: ");
    T_CONTAINS(text, "TUTTI_CPU_ISA=abacus");
    T_CHECK(!strstr(text, "All is well"), "%s", text);
}

static void info_has_every_capability_and_its_remedy(void **state)
{
    tutti_capability c = TUTTI_CAPABILITY_INIT;
    char read[32];
    size_t n = 0;

    (void)state;
    says("info", 0, "\nwhat works\n");
    T_CONTAINS(text, "\nvariables that are set (tutti env: all)\n  none\n");
    for (; tutti_capability_describe(n, &c) == TUTTI_OK; n++) {
        T_CONTAINS(text, c.name);
        if (c.good <= 0 && c.remedy)
            T_CONTAINS(text, c.remedy);
    }
    T_CHECK(n > 5, "%zu capabilities", n);
    says("info --json", 0, "{\"version\": \"");
    T_CHECK(count("{\"name\": ") == n, "not %zu capabilities: %s", n, text);
    snprintf(read, sizeof(read), "%zu read\n", n);
    says("info --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)"
         "[\"capabilities\"]), \"read\")'",
         0, read);
}

static void info_shows_what_is_set_but_no_secret(void **state)
{
    (void)state;
    setenv("TUTTI_TIMEOUT", "5s", 1);
    setenv("TUTTI_SECRET", "hush", 1);
    says("info", 0, "\n  TUTTI_TIMEOUT=5s\n");
    T_CONTAINS(text, "\n  TUTTI_SECRET=(hidden)\n");
    T_CHECK(!strstr(text, "hush"), "%s", text);
}

static void info_tells_the_quota(void **state)
{
    char group[256], inner[300], program[4096], line[5000];
    const char *const words[] = {"sh", "-c", line, NULL};
    int out, status;
    pid_t pid;

    (void)state;
    if (t_program("tutti", program, sizeof(program)) != 0)
        t_skip("there is no program %s in this build", program);
    if (t_cgroup_create_cpu(1, group) != 0)
        t_skip("cgroups with a quota are not permitted here");
    snprintf(inner, sizeof(inner), "%s/inner", group);
    snprintf(line, sizeof(line), "mkdir %s && echo $$ > %s/cgroup.procs && exec '%s' info", inner,
             inner, program);
    pid = t_start(words, &out);
    status = t_finish(pid, out, text, sizeof(text));
    t_cgroup_remove(inner);
    t_cgroup_remove(group);
    T_CHECK(status == 0, "exit status %d: %s", status, text);
    T_CONTAINS(text, "\n  quota      1.0 CPUs by the control group: 1 rank fit\n");
}

static void env_lists_all_variables(void **state)
{
    tutti_env_entry entry = TUTTI_ENV_ENTRY_INIT;
    char line[512];
    size_t n = 0;

    (void)state;
    says("env", 0, "variable ");
    for (; tutti_env_describe(n, &entry) == TUTTI_OK; n++)
        T_CONTAINS(text, entry.help);
    T_CHECK(count("\nTUTTI_") == n, "not %zu variables: %s", n, text);
    says("env --lines", 0, "TUTTI_LOG=");
    for (size_t i = 0; tutti_env_describe(i, &entry) == TUTTI_OK; i++) {
        snprintf(line, sizeof(line), "%s=%s\n", entry.name, entry.value);
        T_CONTAINS(text, line);
    }
}

static void env_says_which_are_set(void **state)
{
    char name[32], value[32], from[32];

    (void)state;
    says("env --set", 0, "no TUTTI_* variable is set\n");
    setenv("TUTTI_TIMEOUT", "5s", 1);
    setenv("TUTTI_SECRET", "hush", 1);
    says("env --set", 0, "\nTUTTI_TIMEOUT ");
    T_CHECK(sscanf(strstr(text, "\nTUTTI_TIMEOUT "), "%31s %31s %31s", name, value, from) == 3 &&
                strcmp(value, "5s") == 0 && strcmp(from, "environment") == 0,
            "%s", text);
    T_CHECK(count("\nTUTTI_") == 2 && strstr(text, "(hidden)"), "%s", text);
    T_CHECK(!strstr(text, "hush"), "%s", text);
    says("env --lines", 0, "\nTUTTI_SECRET=\n");
    T_CHECK(!strstr(text, "hush"), "%s", text);
}

/* What the commands are for: a wrong variable is seen, by its name or by its value. */
static void wrong_variables_are_shown(void **state)
{
    (void)state;
    setenv("TUTTI_TIMOUT", "hush", 1);
    says("env --set", 0,
         "\n-> TUTTI_TIMOUT is not a variable of tutti; did you mean TUTTI_TIMEOUT?");
    T_CHECK(!strstr(text, "hush"), "%s", text);
    says("info", 0, "     -> TUTTI_TIMOUT is not a variable of tutti; did you mean");
    says("env --lines", 0, "\nTUTTI_TIMEOUT=30s\n");
    T_CHECK(!strstr(text, "TIMOUT"), "%s", text);
    unsetenv("TUTTI_TIMOUT");
    setenv("TUTTI_TIMEOUT", "abc", 1);
    setenv("TUTTI_CPU_WAIT", "nap", 1);
    says("env", 0, "\n-> TUTTI_TIMEOUT=abc is not a time: use 250ms, 30s or 2m\n");
    T_CHECK(count("WRONG") == 2 && count("\n-> TUTTI_") == 2, "%s", text);
    says("info", 0, "  TUTTI_TIMEOUT=abc\n     -> TUTTI_TIMEOUT=abc is not a time");
}

static void mistakes_are_named(void **state)
{
    char version[32];

    (void)state;
    says("", 2, "Usage: tutti COMMAND");
    says("bnech", 2, "no command bnech; did you mean `tutti bench`?");
    says("bench --algoritm", 2, "no option --algoritm; did you mean --algorithm?");
    says("bench --max-bytes huge", 2, "--max-bytes huge: expected a size");
    says("hello there", 2, "there: nothing is expected here");
    says("hello -n 1000", 2, "1 to 256 ranks");
    says("hello -n 0", 2, "-n 0: 1 to 256 ranks");
    says("run -n 0 -- true", 2, "-n 0: 1 to 4096 ranks");
    says("run -n -1 -- true", 2, "-n -1: 1 to 4096 ranks");
    says("run -n 0 --hosts localhost -- true", 2, "-n 0: 1 to 4096 ranks");
    says("run --port 7000 -- true", 2, "--port: only with --hosts");
    says("run --rsh ssh -n 1 -- true", 2, "--rsh: only with --hosts");
    says("run --hosts localhost:2 --port 99999 -- true", 2, "--port 99999: 1 to 65535");
    says("run --hosts localhost:2 --port -1 -- true", 2, "--port -1: 1 to 65535");
    says("run -n 1 --env =x -- true", 2, "--env =x: expected NAME=VALUE");
    says("info --watch --interval 0", 2, "--interval 0: 10ms at least");
    says("help tune", 0, "tutti tune --quick -n 2\n");
    says("help help", 0, "Usage: tutti COMMAND");
    says("help run extra", 2, "extra: nothing is expected here");
    says("version x", 2, "x: nothing is expected here");
    snprintf(version, sizeof(version), "tutti %u.%u.%u\n", tutti_version() >> 16,
             tutti_version() >> 8 & 255, tutti_version() & 255);
    says("version", 0, version);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(hello_adds_the_numbers_of_all_ranks, clear),
        cmocka_unit_test_setup(hello_is_a_rank_of_what_a_launcher_started, clear),
        cmocka_unit_test_setup(hello_says_what_went_wrong, clear),
        cmocka_unit_test_setup(info_has_every_capability_and_its_remedy, clear),
        cmocka_unit_test_setup(info_shows_what_is_set_but_no_secret, clear),
        cmocka_unit_test_setup(info_tells_the_quota, clear),
        cmocka_unit_test_setup(env_lists_all_variables, clear),
        cmocka_unit_test_setup(env_says_which_are_set, clear),
        cmocka_unit_test_setup(wrong_variables_are_shown, clear),
        cmocka_unit_test_setup(mistakes_are_named, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
