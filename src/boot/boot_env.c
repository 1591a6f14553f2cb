/*
 * Who am I, as launchers tell it. Each of them is a row of a table: how its rank and size are
 * called, how it says that all ranks share a host, and which variables name the job.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/error.h"
#include "base/sha256.h"
#include "boot/boot.h"
#include "boot/boot_address.h"
#include "boot/boot_launcher.h"

#define MAX_JOB_NAMES 5
#define JOB_BYTES     512
#define SLURM_PORTS   15000 /* from here, below the ports that kernels give away */

struct launcher {
    const char *name;
    const char *rank;
    const char *size;
    const char *local_size; /* equal to size: all ranks share the host; or NULL */
    const char
        *job[MAX_JOB_NAMES]; /* what the ranks of a job have in common and no other job has */
    int use_parent; /* without any of `job`, ranks of one host are known by their parent process */
    int by_srun;    /* may be started by srun, whose variables then tell the hosts */
};

static const struct launcher launchers[] = {
    {"tutti run", "TUTTI_RANK", "TUTTI_N_RANKS", NULL, {NULL}, 0, 0},
    {"torchrun",
     "RANK",
     "WORLD_SIZE",
     "LOCAL_WORLD_SIZE",
     {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"},
     0,
     0},
    {"Open MPI",
     "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_SIZE",
     {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "SLURM_JOB_ID", "SLURM_STEP_ID"},
     1,
     0},
    {"PMI",
     "PMI_RANK",
     "PMI_SIZE",
     "MPI_LOCALNRANKS",
     {"PMIX_NAMESPACE", "PMI_JOBID", "PALS_APID", "SLURM_JOB_ID", "SLURM_STEP_ID"},
     1,
     1},
    {"Slurm",
     "SLURM_PROCID",
     "SLURM_NTASKS",
     NULL,
     {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"},
     0,
     1},
};

#define SLURM (&launchers[TT_LEN(launchers) - 1])

static int is_set(const char *name)
{
    const char *value = name ? tt_env_foreign(name) : NULL;

    return value && *value;
}

/* The batch script of a Slurm job has a SLURM_PROCID too, but is no rank: only srun sets a step. */
static int is_launched_by(const struct launcher *launcher)
{
    return is_set(launcher->rank) && (launcher != SLURM || is_set("SLURM_STEP_ID"));
}

static const struct launcher *find_launcher(void)
{
    for (size_t i = 0; i < TT_LEN(launchers); i++) {
        if (is_launched_by(&launchers[i]))
            return &launchers[i];
    }
    return NULL;
}

static tutti_result read_number(const char *name, uint64_t most, int *value_out)
{
    uint64_t value;

    TT_TRY(tt_env_foreign_number(name, &value));
    if (value > most)
        return TT_FAIL(TUTTI_E_ARG, "%s=%s is out of range", name, tt_env_foreign(name));
    *value_out = (int)value;
    return TUTTI_OK;
}

static const char *size_name(const struct launcher *launcher)
{
    /* A step may have fewer tasks than its job. */
    return launcher == SLURM && is_set("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS"
                                                               : launcher->size;
}

static tutti_result read_ranks(const struct launcher *launcher, struct tt_boot_env *out)
{
    const char *size = size_name(launcher);

    if (!is_set(size))
        return TT_FAIL(TUTTI_E_ARG, "%s is set but %s is not: %s sets both", launcher->rank, size,
                       launcher->name);
    TT_TRY(read_number(launcher->rank, 1 << 20, &out->rank));
    TT_TRY(read_number(size, 1 << 20, &out->n_ranks));
    if (out->rank >= out->n_ranks)
        return TT_FAIL(TUTTI_E_ARG, "%s=%d is not below %s=%d", launcher->rank, out->rank, size,
                       out->n_ranks);
    return TUTTI_OK;
}

static int is_number(const char *name, int expected)
{
    uint64_t value;

    return is_set(name) && tt_env_parse_number(tt_env_foreign(name), &value) == 0 &&
           value == (uint64_t)expected;
}

/* 1 if the launcher says that all ranks are on this host. */
static int is_one_host(const struct launcher *launcher, int n_ranks)
{
    if (is_set(launcher->local_size))
        return is_number(launcher->local_size, n_ranks);
    if (!launcher->by_srun || !is_set("SLURM_STEP_ID"))
        return 0;
    return is_number(is_set("SLURM_STEP_NUM_NODES") ? "SLURM_STEP_NUM_NODES" : "SLURM_NNODES", 1);
}

/* Launcher, user and the job's variables in one text; 0 if nothing in it tells this job from others
 * of the user. Numbers of users and processes mean something on one host only. */
static int job_text(const struct launcher *launcher, int one_host, char out[JOB_BYTES])
{
    unsigned user = one_host ? (unsigned)getuid() : 0;
    size_t n = (size_t)snprintf(out, JOB_BYTES, "%s|%u", launcher->name, user);
    int n_set = 0;

    for (int i = 0; i < MAX_JOB_NAMES && launcher->job[i] && n < JOB_BYTES; i++) {
        const char *value = tt_env_foreign(launcher->job[i]);

        n_set += value && *value;
        n += (size_t)snprintf(out + n, JOB_BYTES - n, "|%s", value ? value : "");
    }
    if (n_set == 0 && one_host && launcher->use_parent && n < JOB_BYTES) {
        snprintf(out + n, JOB_BYTES - n, "|parent %d", (int)getppid());
        n_set = 1;
    }
    return n_set > 0;
}

static void local_name(const char *job, char *out, size_t bytes)
{
    struct tt_sha256 hash;
    unsigned char digest[TT_SHA256_BYTES];
    char hex[33];

    tt_sha256_begin(&hash);
    tt_sha256_add(&hash, job, strlen(job));
    tt_sha256_end(&hash, digest);
    for (int i = 0; i < 16; i++)
        snprintf(hex + (ptrdiff_t)2 * i, 3, "%02x", digest[i]);
    snprintf(out, bytes, "unix:tutti-%s", hex);
}

static tutti_result master_address(char *out, size_t bytes)
{
    const char *host = tt_env_foreign("MASTER_ADDR");
    int port;

    TT_TRY(read_number("MASTER_PORT", 65534, &port));
    /* torch's own store listens on MASTER_PORT. */
    if (strchr(host, ':'))
        snprintf(out, bytes, "[%s]:%d", host, port + 1);
    else
        snprintf(out, bytes, "%s:%d", host, port + 1);
    return TUTTI_OK;
}

static tutti_result slurm_address(char *out, size_t bytes)
{
    const char *list = tt_env_foreign("SLURM_STEP_NODELIST");
    const char *job = tt_env_foreign("SLURM_JOB_ID");
    const char *step = tt_env_foreign("SLURM_STEP_ID");
    uint64_t job_id = 0;
    uint64_t step_id = 0;
    char host[256];

    if (!list || !*list)
        list = tt_env_foreign("SLURM_JOB_NODELIST");
    if (!list || tt_boot_first_host(list, host, sizeof(host)) != 0)
        return TT_FAIL(TUTTI_E_ARG,
                       "SLURM_STEP_NODELIST=%s does not name a first node: set TUTTI_BOOT_ADDR",
                       list ? list : "");
    if (!job || tt_env_parse_number(job, &job_id) != 0)
        return TT_FAIL(TUTTI_E_ARG, "SLURM_JOB_ID is not a number: set TUTTI_BOOT_ADDR");
    if (step)
        (void)tt_env_parse_number(step, &step_id); /* a word for special steps */
    snprintf(out, bytes, "%s:%d", host, SLURM_PORTS + (int)((job_id * 31 + step_id) % SLURM_PORTS));
    return TUTTI_OK;
}

static tutti_result find_address(const struct launcher *launcher, int one_host, const char *job,
                                 char *out, size_t bytes)
{
    if (tt_env_is_set(TT_ENV_TUTTI_BOOT_ADDR)) {
        struct tt_boot_address parsed;
        uint16_t port;

        snprintf(out, bytes, "%s", tt_env_text(TT_ENV_TUTTI_BOOT_ADDR));
        if (tt_boot_address_parse(out, &parsed, &port) != 0)
            return TT_FAIL(TUTTI_E_ARG,
                           "TUTTI_BOOT_ADDR=%s is not host:port, [ipv6]:port or unix:name", out);
        return TUTTI_OK;
    }
    if (one_host) {
        local_name(job, out, bytes);
        return TUTTI_OK;
    }
    if (is_set("MASTER_ADDR"))
        return master_address(out, bytes);
    if (is_set("SLURM_JOB_ID") && is_set("SLURM_STEP_NODELIST"))
        return slurm_address(out, bytes);
    return TT_FAIL(TUTTI_E_ARG,
                   "%s does not say where rank 0 is: set TUTTI_BOOT_ADDR=host:port (or MASTER_ADDR "
                   "and MASTER_PORT) to an address of rank 0's host",
                   launcher->name);
}

tutti_result tt_boot_env_read(struct tt_boot_env *env_out)
{
    const struct launcher *launcher = find_launcher();
    struct tt_boot_env env = {.n_ranks = 1, .launcher = "none"};
    char job[JOB_BYTES];
    char address[320];
    char secret[JOB_BYTES + 256];

    if (!launcher) {
        *env_out = env;
        return TUTTI_OK;
    }
    env.launcher = launcher->name;
    TT_TRY(read_ranks(launcher, &env));
    if (env.n_ranks > 1) {
        int one_host = is_one_host(launcher, env.n_ranks);
        int is_unique = job_text(launcher, one_host, job);

        TT_TRY(find_address(launcher, one_host && is_unique, job, address, sizeof(address)));
        /* The job is part of it even beside a secret of the user's, so that ranks which an earlier
         * attempt has left behind are not let in. */
        int n = snprintf(secret, sizeof(secret), "%s|%s", tt_env_text(TT_ENV_TUTTI_SECRET), job);

        if (n < 0 || (size_t)n >= sizeof(secret))
            return TT_FAIL(TUTTI_E_ARG, "TUTTI_SECRET is longer than 255 characters");
        TT_TRY(tt_boot_id_from_address(address, secret, &env.id));
        env.have_id = 1;
        explicit_bzero(secret, sizeof(secret));
    }
    *env_out = env;
    return TUTTI_OK;
}
