/* Launchers' variables: rank, size, address, and that jobs are told apart. Table-driven. */
#include "base/error.h"
#include "boot/boot.h"
#include "boot/boot_address.h"
#include "boot/boot_launcher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* order matters: cmocka wants the above */
#include <cmocka.h>

#define MAX_VARIABLES 10

struct launch {
    const char *what;
    const char *variables[MAX_VARIABLES]; /* "NAME=value" */
    tutti_result result;
    int rank;
    int n_ranks;
    const char *launcher;
    const char *where; /* address, or its beginning when it ends in '*'; NULL: none */
    const char *error; /* part of the text */
};

static const struct launch launches[] = {
    {"nothing", {NULL}, TUTTI_OK, 0, 1, "none", NULL, NULL},
    {"tutti run",
     {"TUTTI_RANK=2", "TUTTI_N_RANKS=4", "TUTTI_BOOT_ADDR=unix:job", "TUTTI_SECRET=s"},
     TUTTI_OK,
     2,
     4,
     "tutti run",
     "unix:job",
     NULL},
    {"tutti run wins over torchrun",
     {"TUTTI_RANK=2", "TUTTI_N_RANKS=4", "TUTTI_BOOT_ADDR=[::1]:80", "RANK=1", "WORLD_SIZE=2"},
     TUTTI_OK,
     2,
     4,
     "tutti run",
     "[::1]:80",
     NULL},
    {"one rank needs no address",
     {"TUTTI_RANK=0", "TUTTI_N_RANKS=1"},
     TUTTI_OK,
     0,
     1,
     "tutti run",
     NULL,
     NULL},
    {"no address",
     {"TUTTI_RANK=0", "TUTTI_N_RANKS=2"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "TUTTI_BOOT_ADDR=host:port"},
    {"bad address",
     {"TUTTI_RANK=0", "TUTTI_N_RANKS=2", "TUTTI_BOOT_ADDR=nowhere"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "TUTTI_BOOT_ADDR=nowhere is not"},
    {"no size", {"TUTTI_RANK=0"}, TUTTI_E_ARG, 0, 0, NULL, NULL, "TUTTI_N_RANKS is not"},
    {"rank past size",
     {"RANK=4", "WORLD_SIZE=4"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "RANK=4 is not below WORLD_SIZE=4"},
    {"rank no number", {"RANK=x", "WORLD_SIZE=4"}, TUTTI_E_ARG, 0, 0, NULL, NULL, "RANK=x"},
    {"size too large",
     {"RANK=0", "WORLD_SIZE=99999999999"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "WORLD_SIZE=99999999999 is out of range"},
    {"torchrun on one host",
     {"RANK=1", "WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=10.0.0.1", "MASTER_PORT=29500"},
     TUTTI_OK,
     1,
     2,
     "torchrun",
     "unix:tutti-*",
     NULL},
    {"torchrun on several",
     {"RANK=1", "WORLD_SIZE=4", "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=10.0.0.1", "MASTER_PORT=29500"},
     TUTTI_OK,
     1,
     4,
     "torchrun",
     "10.0.0.1:29501",
     NULL},
    {"IPv6 master",
     {"RANK=1", "WORLD_SIZE=4", "MASTER_ADDR=fe80::1", "MASTER_PORT=29500"},
     TUTTI_OK,
     1,
     4,
     "torchrun",
     "[fe80::1]:29501",
     NULL},
    {"named master",
     {"RANK=1", "WORLD_SIZE=4", "MASTER_ADDR=node-0.svc", "MASTER_PORT=1"},
     TUTTI_OK,
     1,
     4,
     "torchrun",
     "node-0.svc:2",
     NULL},
    {"no port above",
     {"RANK=1", "WORLD_SIZE=4", "MASTER_ADDR=a", "MASTER_PORT=65535"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "MASTER_PORT=65535"},
    {"no port",
     {"RANK=1", "WORLD_SIZE=4", "MASTER_ADDR=a"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "MASTER_PORT is not set"},
    {"by hand on one host, without a name for the job",
     {"RANK=1", "WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "TUTTI_BOOT_ADDR"},
    {"the address wins",
     {"RANK=1", "WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2", "MASTER_PORT=5", "TUTTI_BOOT_ADDR=1.2.3.4:5"},
     TUTTI_OK,
     1,
     2,
     "torchrun",
     "1.2.3.4:5",
     NULL},
    {"Open MPI on one host",
     {"OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_LOCAL_SIZE=4",
      "OMPI_MCA_ess_base_jobid=77"},
     TUTTI_OK,
     3,
     4,
     "Open MPI",
     "unix:tutti-*",
     NULL},
    {"Open MPI on several",
     {"OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_LOCAL_SIZE=2",
      "PMIX_NAMESPACE=x@1"},
     TUTTI_E_ARG,
     0,
     0,
     NULL,
     NULL,
     "Open MPI does not say where rank 0 is"},
    {"MPICH on one host",
     {"PMI_RANK=0", "PMI_SIZE=2", "MPI_LOCALNRANKS=2"},
     TUTTI_OK,
     0,
     2,
     "PMI",
     "unix:tutti-*",
     NULL},
    {"srun on one host",
     {"SLURM_PROCID=1", "SLURM_NTASKS=2", "SLURM_STEP_ID=0", "SLURM_JOB_ID=12", "SLURM_NNODES=1"},
     TUTTI_OK,
     1,
     2,
     "Slurm",
     "unix:tutti-*",
     NULL},
    {"srun on several",
     {"SLURM_PROCID=1", "SLURM_NTASKS=8", "SLURM_STEP_NUM_TASKS=4", "SLURM_STEP_ID=2",
      "SLURM_JOB_ID=10", "SLURM_STEP_NUM_NODES=2", "SLURM_STEP_NODELIST=gpu[07-08]"},
     TUTTI_OK,
     1,
     4,
     "Slurm",
     "gpu07:15312",
     NULL},
    {"srun with PMI-2",
     {"PMI_RANK=1", "PMI_SIZE=2", "SLURM_STEP_ID=0", "SLURM_JOB_ID=12", "SLURM_STEP_NUM_NODES=1"},
     TUTTI_OK,
     1,
     2,
     "PMI",
     "unix:tutti-*",
     NULL},
    {"a batch script is no rank",
     {"SLURM_PROCID=0", "SLURM_NTASKS=8", "SLURM_JOB_ID=12"},
     TUTTI_OK,
     0,
     1,
     "none",
     NULL,
     NULL},
};

static void clear_environment(void **state)
{
    (void)state;
    clearenv();
}

static void set_variables(const char *const variables[])
{
    clear_environment(NULL);
    for (int i = 0; i < MAX_VARIABLES && variables[i]; i++)
        assert_int_equal(putenv((char *)(uintptr_t)variables[i]), 0);
}

static void where_of(const tutti_unique_id *id, char *out, size_t bytes)
{
    struct tt_boot_id parsed;

    assert_int_equal(tt_boot_id_parse(id, &parsed), 0);
    tt_boot_id_where(&parsed, out, bytes);
}

static void check_launch(const struct launch *l)
{
    struct tt_boot_env env;
    char where[TT_BOOT_TEXT_BYTES];
    tutti_result result;

    set_variables(l->variables);
    result = tt_boot_env_read(&env);
    if (result != l->result)
        fail_msg("%s: %s (%s)", l->what, tt_result_name(result), tt_error_text());
    if (l->error && !strstr(tt_error_text(), l->error))
        fail_msg("%s: \"%s\" lacks \"%s\"", l->what, tt_error_text(), l->error);
    if (result != TUTTI_OK)
        return;
    if (env.rank != l->rank || env.n_ranks != l->n_ranks || strcmp(env.launcher, l->launcher) != 0)
        fail_msg("%s: rank %d of %d by %s", l->what, env.rank, env.n_ranks, env.launcher);
    if (env.have_id != (l->where != NULL))
        fail_msg("%s: have_id %d", l->what, env.have_id);
    if (!l->where)
        return;
    where_of(&env.id, where, sizeof(where));

    size_t n = strlen(l->where);
    int is_same = l->where[n - 1] == '*' ? strncmp(where, l->where, n - 1) == 0
                                         : strcmp(where, l->where) == 0;
    if (!is_same)
        fail_msg("%s: %s instead of %s", l->what, where, l->where);
}

static void test_launchers(void **state)
{
    (void)state;
    for (size_t i = 0; i < TT_LEN(launches); i++)
        check_launch(&launches[i]);
    clear_environment(NULL);
}

/* Ranks of one job agree; another job, another attempt or another secret differs. */
static void read_id(const char *a, const char *b, tutti_unique_id *id_out)
{
    const char *variables[MAX_VARIABLES] = {"WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2",
                                            "TORCHELASTIC_RUN_ID=none", "MASTER_PORT=29500"};
    struct tt_boot_env env;

    variables[4] = a;
    variables[5] = b;
    set_variables(variables);
    assert_int_equal(tt_boot_env_read(&env), TUTTI_OK);
    *id_out = env.id;
    clear_environment(NULL);
}

static void test_jobs_are_told_apart(void **state)
{
    tutti_unique_id rank0;
    tutti_unique_id other;

    (void)state;
    read_id("RANK=0", NULL, &rank0);
    read_id("RANK=1", NULL, &other);
    assert_memory_equal(&rank0, &other, sizeof(rank0));
    read_id("RANK=1", "MASTER_PORT=29501", &other);
    assert_memory_not_equal(&rank0, &other, sizeof(rank0));
    read_id("RANK=1", "TORCHELASTIC_RESTART_COUNT=1", &other);
    assert_memory_not_equal(&rank0, &other, sizeof(rank0));
    read_id("RANK=1", "TUTTI_SECRET=x", &other);
    assert_memory_not_equal(rank0.bytes + 20, other.bytes + 20, 32);
}

static void test_first_host(void **state)
{
    static const struct {
        const char *list;
        const char *first; /* NULL: no list */
    } cases[] = {
        {"node1", "node1"},
        {"node1,node2", "node1"},
        {"gpu[03-07,9],login1", "gpu03"},
        {"gpu[7]", "gpu7"},
        {"r[1-2]n[10-20].x,a", "r1n10.x"},
        {"a.b-c_d", "a.b-c_d"},
        {"", NULL},
        {",a", NULL},
        {"gpu[", NULL},
        {"gpu[]", NULL},
        {"gpu[x]", NULL},
        {"gpu[1", NULL},
        {"gpu[1;2]", NULL},
        {"gpu]", NULL},
        {"a b", NULL},
        {"$(reboot)", NULL},
    };
    char out[16];

    (void)state;
    for (size_t i = 0; i < TT_LEN(cases); i++) {
        int result = tt_boot_first_host(cases[i].list, out, sizeof(out));

        if ((result == 0) != (cases[i].first != NULL) ||
            (result == 0 && strcmp(out, cases[i].first) != 0))
            fail_msg("\"%s\": %d", cases[i].list, result);
    }
    assert_int_equal(tt_boot_first_host("exactly15-chars", out, 16), 0);
    assert_int_equal(tt_boot_first_host("exactly16--chars", out, 16), -1);
    assert_int_equal(tt_boot_first_host("a[1234567890123456]", out, 16), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launchers),
        cmocka_unit_test(test_jobs_are_told_apart),
        cmocka_unit_test(test_first_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
