/* `tutti run` on one host: what ranks are told, what is told of them, and how it ends. */
#include <signal.h>
#include <unistd.h>

#include "support/program.h"

enum { N = 3, COUNT = 1024 };

static char self[4096], text[65536];

static int run(const char *arguments)
{
    return t_tutti(arguments, text, sizeof(text));
}

/* --- as a rank: three calls; then rank 1 dies, or stays away, while the others are in the fourth --- */

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, tutti_last_error());
    return 1;
}

static int has_begun(const tutti_comm *comm, int rank, uint64_t sequence)
{
    tutti_stats stats = TUTTI_STATS_INIT;

    return tutti_comm_stats(comm, rank, &stats) == TUTTI_OK && stats.sequence >= sequence;
}

static int be_rank(const char *how)
{
    static float x[COUNT];
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    config.name = "app";
    if (tutti_comm_create_from_env(&config, &comm) != TUTTI_OK ||
        tutti_comm_query(comm, &info) != TUTTI_OK)
        return failed("create");
    printf("pid %d\n", (int)getpid());
    fflush(stdout);
    for (int i = 0; i < 3; i++)
        if (tutti_all_reduce(comm, x, x, COUNT, TUTTI_DTYPE_F32, TUTTI_OP_SUM, NULL) != TUTTI_OK)
            return failed("all_reduce");
    if (info.rank == 1) {
        while (!has_begun(comm, 0, 4) || !has_begun(comm, 2, 4))
            t_sleep_us(1000);
        if (strcmp(how, "dies") == 0)
            raise(SIGKILL);
        exit(3); /* its memory goes with it, without a word to the others */
    }
    (void)tutti_all_reduce(comm, x, x, COUNT, TUTTI_DTYPE_BF16, TUTTI_OP_MAX, NULL);
    printf("%s\n", tutti_last_error());
    fflush(stdout);
    for (;;) /* tutti run has to end this one */
        pause();
}

/* --- the tests --- */

static void check_all_have_ended(void)
{
    int n = 0, pid;

    for (const char *at = strstr(text, "] pid "); at; at = strstr(at + 1, "] pid ")) {
        n++;
        T_CHECK(sscanf(at, "] pid %d", &pid) == 1, "%s", at);
        T_CHECK(kill(pid, 0) != 0 && errno == ESRCH, "process %d is still there: %s", pid, text);
    }
    T_CHECK(n == N, "%d ranks have begun: %s", n, text);
}

static void a_death(const char *how, int status, const char *as)
{
    char line[8192];
    int got;

    snprintf(line, sizeof(line), "run -n %d --grace 10 -- '%s' %s", N, self, how);
    got = run(line);
    T_CHECK(got == status, "exit status %d: %s", got, text);
    T_CONTAINS(text, "tutti run: rank 1 (pid ");
    T_CONTAINS(text, as);
    T_CONTAINS(text, "tutti run: last collectives of the ranks in communicator app:\n"
                     "  rank 1: collective 3, all_reduce f32 sum, 4 KiB   <- the one that died\n"
                     "  rank 0: collective 4, all_reduce bf16 max, 2 KiB\n"
                     "  rank 2: collective 4, all_reduce bf16 max, 2 KiB\n");
    check_all_have_ended();
}

static void a_killed_rank_ends_all_and_is_named(void **state)
{
    (void)state;
    a_death("dies", 128 + SIGKILL, "): killed by signal 9 (Killed); ending the others\n");
}

static void a_rank_that_fails_ends_all_and_is_named(void **state)
{
    (void)state;
    a_death("leaves", 3, "): exit status 3; ending the others\n");
}

static void lines_are_those_of_the_ranks(void **state)
{
    char line[8192], example[4096];

    (void)state;
    if (t_program("examples/01_hello", example, sizeof(example)) != 0)
        t_skip("there are no examples in this build");
    snprintf(line, sizeof(line), "run -n %d '%s'", N, example);
    T_CHECK(run(line) == 0, "%s", text);
    T_CONTAINS(text, "[0] rank 0 of 3: sum 6 12 18 24\n");
    T_CONTAINS(text, "[1] rank 1 of 3: sum 6 12 18 24\n");
    T_CONTAINS(text, "[2] rank 2 of 3: sum 6 12 18 24\n");
}

static void ranks_know_who_they_are(void **state)
{
    (void)state;
    T_CHECK(run("run -n 2 --env A=b=c -- sh -c 'echo \"$TUTTI_RANK/$TUTTI_N_RANKS $RANK/$WORLD_SIZE"
                " $LOCAL_RANK/$LOCAL_WORLD_SIZE ${TUTTI_BOOT_ADDR%%:*} ${#TUTTI_SECRET} $A\"'") ==
                0,
            "%s", text);
    T_CONTAINS(text, "[0] 0/2 0/2 0/2 unix 32 b=c\n");
    T_CONTAINS(text, "[1] 1/2 1/2 1/2 unix 32 b=c\n");
}

static void exit_status(const char *arguments, int want, const char *part)
{
    const int got = run(arguments);

    T_CHECK(got == want, "tutti %s: exit status %d: %s", arguments, got, text);
    T_CONTAINS(text, part);
}

/* tutti itself ignores the signal of files that grow too large; a user's program is not told to. */
static void no_signal_is_ignored_for_ranks(void **state)
{
    const char *ignored;

    (void)state;
    signal(SIGXFSZ, SIG_DFL);
    T_CHECK(run("run -n 1 grep SigIgn /proc/self/status") == 0, "%s", text);
    ignored = strstr(text, "SigIgn:");
    T_CHECK(ignored != NULL && (strtoull(ignored + 7, NULL, 16) >> (SIGXFSZ - 1) & 1) == 0, "%s",
            text);
}

static void the_exit_status_says_what_happened(void **state)
{
    (void)state;
    exit_status("run -n 2 -- sh -c 'exit $((RANK * 7))'", 7, "rank 1 (pid ");
    exit_status("run -n 2 -- /nonexistent", 127, "cannot run /nonexistent");
    exit_status("run -n 2 --timeout 0.2 --grace 10 -- sleep 98765", 124, "not done after 0.2 s");
    exit_status("run -n 2", 2, "which program?");
    exit_status("run -n 2 --bind sideways true", 2, "core, numa or none");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_ends_all_and_is_named),
        cmocka_unit_test(a_rank_that_fails_ends_all_and_is_named),
        cmocka_unit_test(lines_are_those_of_the_ranks),
        cmocka_unit_test(ranks_know_who_they_are),
        cmocka_unit_test(no_signal_is_ignored_for_ranks),
        cmocka_unit_test(the_exit_status_says_what_happened),
    };
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (argc > 1)
        return be_rank(argv[1]);
    self[n > 0 ? n : 0] = 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
