/* ctest: no-tsan timeout=120 */
/* `tutti bench --gpus` as the ranks of a job: four simulated GPUs, two on each of two hosts, over UCX. */
#include "support/gpus.h"
#include "support/hosts.h"
#include "support/program.h"

static char text[65536];

/* Four ranks of a job, rank r on the host that `host` makes of it; what they say is in text. */
static int bench(const char *host, const char *arguments)
{
    char program[4096], line[5000];

    if (!t_is_simulated())
        t_skip("scripts/gpu_check.sh runs `tutti bench --gpus` between hosts on real GPUs");
    setenv("T_NET", "ucx", 1);
    t_hosts("0011"); /* is there a network? */
    t_hosts(NULL);
    if (t_program("tutti", program, sizeof(program)) != 0)
        t_skip("there is no program %s in this build", program);
    snprintf(line, sizeof(line),
             "run -n 4 -- sh -c 'TUTTI_HOST=host$((%s)) exec \"%s\" bench %s --replays 3'", host,
             program, arguments);
    return t_tutti(line, text, sizeof(text));
}

static void is_right(const char *host, const char *arguments)
{
    const int status = bench(host, arguments);

    T_CHECK(status == 0, "%s: exit status %d: %s", arguments, status, text);
    T_CONTAINS(text, "[0] # tutti ");
    T_CONTAINS(text, "bench: 4 ranks on 2 hosts, rank 0's machine with 4 x simulated GPU");
    T_CONTAINS(text, "# engine cuda hosts: ");
    T_CONTAINS(text, "2 hosts, 2 ranks on this one");
    T_CHECK(!strstr(text, "[1] #") && !strstr(text, "ranks share GPUs"), "%s", text);
}

/* 256 elements of each of four ranks, in two columns, checked before and after they are timed. */
static void calls_in_a_graph(void **state)
{
    (void)state;
    setenv("TUTTI_LOG", "info", 1);
    is_right("TUTTI_RANK/2", "all_reduce --gpus 4 -d f32 -b 1K -e 1K --graph --json /dev/stderr");
    unsetenv("TUTTI_LOG");
    T_CONTAINS(text, ", in a graph\n");
    T_CONTAINS(text, "# 4096 elements compared with what they must be\n");
    T_CONTAINS(text, "2 results, 0 wrong\n");
    T_CONTAINS(text, "\"ranks\": 4, \"hosts\": 2, ");
    T_CONTAINS(text, "the time between two events");
    for (int r = 0; r < 4; r++) { /* a GPU for each */
        char gpu[64];

        snprintf(gpu, sizeof(gpu), "communicator bench: cuda hosts engine, GPU %d ", r);
        T_CONTAINS(text, gpu);
    }
}

static void calls_one_by_one(void **state)
{
    (void)state;
    is_right("TUTTI_RANK%2", "all_to_all --gpus 8 -d f32 -b 1K -e 1K --ordinary");
    T_CHECK(!strstr(text, "in a graph"), "%s", text);
    T_CONTAINS(text, "# 2048 elements compared with what they must be\n");
    T_CONTAINS(text, "1 results, 0 wrong\n");
}

/* GPUs whose stores come late: the one rank that gets a result is on the other host. */
static void what_another_rank_finds_wrong_counts(void **state)
{
    int status = 0, found = 0;

    (void)state;
    setenv("T_SIM_BREAK", "no_release", 1);
    for (int seed = 1; !found && seed <= 5; seed++) {
        char number[16];

        snprintf(number, sizeof(number), "%d", seed);
        setenv("T_SIM_SEED", number, 1);
        status = bench("TUTTI_RANK/2", "reduce --root 3 --gpus 4 -b 4K -e 4K --ordinary");
        found = strstr(text, "<- WRONG") != NULL;
    }
    unsetenv("T_SIM_BREAK");
    unsetenv("T_SIM_SEED");
    T_CHECK(found && status == 1, "exit status %d: %s", status, text);
    T_CONTAINS(text, "[0] wrong: reduce bf16, 4096 bytes, ordinary: rank 3: element ");
    T_CONTAINS(text, "[0] 1 results, 1 wrong\n");
}

static void fewer_gpus_than_asked_for(void **state)
{
    int status;

    (void)state;
    setenv("T_SIM_GPUS", "2", 1);
    status = bench("TUTTI_RANK/2", "all_reduce --gpus 4");
    T_CHECK(status == 2, "exit status %d: %s", status, text);
    T_CONTAINS(text, "--gpus 4: this machine has 2; ranks share GPUs with --gpus 2\n");
    T_CHECK(!strstr(text, "results"), "%s", text);
    status = bench("TUTTI_RANK/2", "all_reduce --gpus 2 -b 64 -e 64 --ordinary");
    T_CHECK(status == 0, "exit status %d: %s", status, text);
    unsetenv("T_SIM_GPUS");
    T_CONTAINS(text, "rank 0's machine with 2 x simulated GPU");
    T_CONTAINS(text, "# ranks share GPUs, which take turns");
    T_CONTAINS(text, "1 results, 0 wrong\n");
}

/* Without a job: what cannot be is one line, and it says why. */
static void on_one_host_what_cannot_be_is_one_line(void **state)
{
    (void)state;
    setenv("T_SIM_GPUS", "2", 1);
    T_CHECK(t_tutti("bench all_reduce --gpus 4", text, sizeof(text)) == 2, "%s", text);
    unsetenv("T_SIM_GPUS");
    assert_string_equal(text, "tutti bench: --gpus 4: this machine has 2; ranks share GPUs with "
                              "--gpus 2 -n 4\n");
    T_CHECK(t_tutti("bench all_reduce --gpus 2 -e 1K -a xmem", text, sizeof(text)) == 2, "%s",
            text);
    T_CONTAINS(text, "xmem");
    T_CHECK(strchr(text, '\n') == text + strlen(text) - 1, "%s", text);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_in_a_graph),
        cmocka_unit_test(calls_one_by_one),
        cmocka_unit_test(what_another_rank_finds_wrong_counts),
        cmocka_unit_test(fewer_gpus_than_asked_for),
        cmocka_unit_test(on_one_host_what_cannot_be_is_one_line),
    };

    t_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
