/* tutti_comm_create_from_env() with the variables that each launcher sets. */
#include <unistd.h>

#include "support/job.h"

enum { N = 3 };

struct launcher {
    const char *rank, *size, *local_rank, *local_size;
    const char *job, *job_value; /* what names the job, or NULL */
    int master;                  /* also set MASTER_ADDR and MASTER_PORT */
};

static const struct launcher launchers[] = {
    {"TUTTI_RANK", "TUTTI_N_RANKS", NULL, NULL, NULL, NULL, 0},
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "run-7", 1},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE", "prterun-host-1@1", 0},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "HYDI_CONTROL_FD", "7", 1},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_ID",
     "4711", 0},
};

static void set_number(const char *name, int value)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", value);
    if (name != NULL)
        setenv(name, text, 1);
}

static void set_variables(const struct launcher *l, int rank, unsigned port)
{
    char address[64];

    set_number(l->rank, rank);
    set_number(l->size, N);
    set_number(l->local_rank, rank);
    set_number(l->local_size, N);
    if (l->job != NULL)
        setenv(l->job, l->job_value, 1);
    if (l->master) {
        setenv("MASTER_ADDR", "127.0.0.1", 1);
        set_number("MASTER_PORT", (int)port);
    }
    if (l->rank[0] == 'T') { /* tutti run sets an address too */
        snprintf(address, sizeof(address), "127.0.0.1:%u", port + 1);
        setenv("TUTTI_BOOT_ADDR", address, 1);
        setenv("TUTTI_SECRET", "a secret", 1);
    }
    setenv("SLURM_NNODES", "1", 1);
    setenv("SLURM_JOB_NUM_NODES", "1", 1);
    setenv("SLURM_STEP_ID", "0", 1);
    setenv("SLURM_STEPID", "0", 1);
    setenv("SLURM_NODELIST", "localhost", 1);
}

static void created_from(struct t_rank *t)
{
    const struct launcher *l = t->arg;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;
    int sum = 1;

    set_variables(l, t->rank, 20000 + (unsigned)getppid() % 10000 * 2);
    T_OK(tutti_comm_create_from_env(NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CHECK(info.rank == t->rank && info.n_ranks == N, "%s: rank %d of %d", l->rank, info.rank,
            info.n_ranks);
    T_OK(tutti_all_reduce(comm, &sum, &sum, 1, TUTTI_DTYPE_I32, TUTTI_OP_SUM, NULL));
    T_CHECK(sum == N, "sum %d", sum);
    tutti_comm_destroy(comm);
}

static void from(size_t i)
{
    struct launcher l = launchers[i];
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = created_from, .arg = &l};

    t_run(&job);
}

static void from_tutti_run(void **state)
{
    (void)state;
    from(0);
}

static void from_torchrun(void **state)
{
    (void)state;
    from(1);
}

static void from_open_mpi(void **state)
{
    (void)state;
    from(2);
}

static void from_pmi(void **state)
{
    (void)state;
    from(3);
}

static void from_slurm(void **state)
{
    (void)state;
    from(4);
}

static void a_local_socket(struct t_rank *t)
{
    tutti_comm *comm;
    char address[64];

    set_number("TUTTI_RANK", t->rank);
    set_number("TUTTI_N_RANKS", N);
    snprintf(address, sizeof(address), "unix:tutti-test-%d", (int)getppid());
    setenv("TUTTI_BOOT_ADDR", address, 1);
    T_OK(tutti_comm_create_from_env(NULL, &comm));
    T_OK(tutti_barrier(comm, NULL));
    tutti_comm_destroy(comm);
}

static void from_a_local_socket(void **state)
{
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = a_local_socket};

    (void)state;
    t_run(&job);
}

/* Twice in a row under one launcher: the second must not find the first's address taken. */
static void twice(struct t_rank *t)
{
    created_from(t);
    created_from(t);
}

static void several_communicators_from_one_environment(void **state)
{
    struct launcher l = launchers[1];
    const struct t_job job = {.n_ranks = N, .no_comm = 1, .body = twice, .arg = &l};

    (void)state;
    t_run(&job);
}

static void nothing(struct t_rank *t)
{
    tutti_comm_config overrides = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    tutti_comm *comm;

    (void)t;
    for (size_t i = 0; i < T_LEN(launchers); i++)
        unsetenv(launchers[i].rank);
    T_OK(tutti_comm_create_from_env(NULL, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CHECK(info.rank == 0 && info.n_ranks == 1, "rank %d of %d", info.rank, info.n_ranks);
    tutti_comm_destroy(comm);
    overrides.timeout_ms = 4321;
    overrides.name = "mine";
    T_OK(tutti_comm_create_from_env(&overrides, &comm));
    T_OK(tutti_comm_query(comm, &info));
    T_CHECK(info.timeout_ms == 4321, "timeout %llu", (unsigned long long)info.timeout_ms);
    T_CONTAINS(info.name, "mine");
    tutti_comm_destroy(comm);
}

static void no_launcher_is_one_rank(void **state)
{
    const struct t_job job = {.n_ranks = 1, .no_comm = 1, .body = nothing};

    (void)state;
    t_run(&job);
}

/* X(variable, value, what the text must name) on top of RANK=0 WORLD_SIZE=2 */
static const char *const malformed[][3] = {
    {"RANK", "one", "RANK"},
    {"RANK", "2", "RANK"},
    {"RANK", "-1", "RANK"},
    {"WORLD_SIZE", "0", "WORLD_SIZE"},
    {"WORLD_SIZE", "", "WORLD_SIZE"},
    {"MASTER_PORT", "99999999", "MASTER_PORT"},
    {"MASTER_ADDR", "", "MASTER_ADDR"},
    {"TUTTI_BOOT_ADDR", "nonsense", "TUTTI_BOOT_ADDR"},
};

static void malformed_values(struct t_rank *t)
{
    (void)t;
    for (size_t i = 0; i < T_LEN(malformed); i++) {
        tutti_comm *comm;

        setenv("RANK", "0", 1);
        setenv("WORLD_SIZE", "2", 1);
        setenv("MASTER_ADDR", "127.0.0.1", 1);
        setenv("MASTER_PORT", "29500", 1);
        setenv("TUTTI_TIMEOUT", "300ms", 1);
        unsetenv("TUTTI_BOOT_ADDR");
        if (malformed[i][1][0] != 0)
            setenv(malformed[i][0], malformed[i][1], 1);
        else
            unsetenv(malformed[i][0]);
        T_IS(TUTTI_E_ARG, tutti_comm_create_from_env(NULL, &comm));
        T_CONTAINS(tutti_last_error(), malformed[i][2]);
    }
}

static void malformed_values_are_named(void **state)
{
    const struct t_job job = {.n_ranks = 1, .no_comm = 1, .body = malformed_values};

    (void)state;
    t_run(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_tutti_run),
        cmocka_unit_test(from_torchrun),
        cmocka_unit_test(from_open_mpi),
        cmocka_unit_test(from_pmi),
        cmocka_unit_test(from_slurm),
        cmocka_unit_test(from_a_local_socket),
        cmocka_unit_test(several_communicators_from_one_environment),
        cmocka_unit_test(no_launcher_is_one_rank),
        cmocka_unit_test(malformed_values_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
