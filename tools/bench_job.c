/*
 * Ranks that a launcher has started, on whatever hosts. They share no memory, so each has a board of its
 * own, and a communicator beside those that are measured carries between them what the memory would:
 * the barrier brings every rank's slot and rank 0's decisions, the end of a cell what was checked.
 */
#include "gpu_bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a rank shows at a barrier. */
struct job_slot {
    uint64_t t0;
    uint64_t t1;
    int32_t result;
    int32_t failed;
    int32_t k; /* rank 0's */
    int32_t last;
};

struct job_check {
    uint64_t checked;
    uint64_t wrong;
    char note[sizeof(((struct bench_result *)0)->note)];
};

/* Where a rank runs: ranks of one running kernel have one clock. */
struct job_card {
    char boot_id[40];
    uint64_t group_id; /* of its memory */
    int32_t n_cores;
    int32_t unused;
};

/* `bytes` of every rank to all; NULL after a message. The caller frees it. */
static void *gather(struct bench_job *job, const void *mine, size_t bytes)
{
    void *all = cli_alloc((size_t)job->n_ranks * bytes);
    const tutti_result result = tutti_all_gather(job->comm, mine, all, bytes, TUTTI_DTYPE_U8, NULL);

    if (result == TUTTI_OK)
        return all;
    if (result != TUTTI_E_ABORTED) /* else a rank has said why */
        cli_error("the ranks lost each other: %s: %s", tutti_result_name(result),
                  tutti_last_error());
    free(all);
    return NULL;
}

static int look_around(struct bench_job *job)
{
    struct job_card mine = {.n_cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN),
                            .group_id = place_memory().group_id},
                    *all;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (!file || fscanf(file, "%39s", mine.boot_id) != 1)
        snprintf(mine.boot_id, sizeof(mine.boot_id), "rank %d", job->rank);
    if (file)
        fclose(file);
    all = gather(job, &mine, sizeof(mine));
    if (!all)
        return 1;
    job->has_one_clock = 1;
    for (int r = 0; r < job->n_ranks; r++) {
        int n = 0;

        for (int q = 0; q < job->n_ranks; q++)
            n += strcmp(all[q].boot_id, all[r].boot_id) == 0;
        job->is_crowded |= n > all[r].n_cores;
        job->has_one_clock &= n == job->n_ranks;
        if (r == job->rank)
            job->n_here = n;
        if (strcmp(all[r].boot_id, mine.boot_id) != 0)
            continue;
        job->n_near += all[r].group_id == mine.group_id;
        job->here += r < job->rank;
    }
    free(all);
    return 0;
}

/* By the variables that tutti_comm_create_from_env() takes a rank from. */
static int has_launcher(void)
{
    static const char *const names[] = {"TUTTI_RANK", "RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (getenv(names[i]))
            return 1;
    return 0;
}

int bench_job_join(struct bench_job **job_out)
{
    struct bench_job *job = cli_alloc(sizeof(*job));
    tutti_comm_config config = {.size = sizeof(config), .name = "bench.control"};
    tutti_comm_info info = {.size = sizeof(info)};
    const tutti_result result = tutti_comm_create_from_env(&config, &job->comm);

    *job_out = NULL;
    if (result != TUTTI_OK) {
        free(job);
        return cli_error("no communicator%s: %s: %s",
                         has_launcher() ? " with the ranks that a launcher seems to have started"
                                        : "",
                         tutti_result_name(result), tutti_last_error());
    }
    if (tutti_comm_query(job->comm, &info) == TUTTI_OK) {
        job->rank = info.rank;
        job->n_ranks = info.n_ranks;
        job->n_hosts = info.n_hosts;
    }
    if (job->n_ranks > 1) {
        *job_out = job;
        return look_around(job);
    }
    bench_job_leave(job);
    return 0;
}

void bench_job_leave(struct bench_job *job)
{
    if (job)
        tutti_comm_destroy(job->comm);
    free(job);
}

int bench_job_meet(struct bench_board *board)
{
    struct bench_shared *shared = board->shared;
    struct bench_slot *slot = &board->slots[board->rank];
    const struct job_slot mine = {slot->t0,  slot->t1,    slot->result, (int32_t)shared->abort,
                                  shared->k, shared->last};
    struct job_slot *all = gather(board->job, &mine, sizeof(mine));

    if (!all) {
        atomic_store(&shared->abort, 1);
        return -1;
    }
    for (int r = 0; r < board->n_ranks; r++) {
        board->slots[r].t0 = all[r].t0;
        board->slots[r].t1 = all[r].t1;
        board->slots[r].result = all[r].result;
        if (all[r].failed)
            atomic_store(&shared->abort, 1);
    }
    shared->k = all[0].k;
    shared->last = all[0].last;
    free(all);
    return atomic_load(&shared->abort) ? -1 : 0;
}

tutti_result bench_job_tell(struct bench_job *job, void *data, size_t bytes)
{
    return tutti_broadcast(job->comm, data, bytes, TUTTI_DTYPE_U8, 0, NULL);
}

tutti_result bench_job_share_id(struct bench_job *job, tutti_unique_id *id)
{
    tutti_result result = TUTTI_OK;

    if (job->rank == 0)
        result = tutti_unique_id_create(id);
    if (result != TUTTI_OK) {
        tutti_comm_abort(job->comm);
        return result;
    }
    return bench_job_tell(job, id, sizeof(*id));
}

int bench_job_row(struct bench_board *board, int n_variants, int index)
{
    struct bench_job *job = board->job;
    const size_t n = (size_t)n_variants;
    struct bench_result *results = board->rows[index].results;
    struct job_check *mine = cli_alloc(n * sizeof(*mine)), *all;

    for (size_t v = 0; v < n; v++) {
        mine[v].checked = atomic_load(&results[v].checked);
        mine[v].wrong = atomic_load(&results[v].wrong);
        memcpy(mine[v].note, results[v].note, sizeof(mine[v].note));
    }
    all = gather(job, mine, n * sizeof(*mine));
    free(mine);
    for (size_t i = n; all && i < n * (size_t)job->n_ranks; i++) { /* rank 0's are there already */
        struct bench_result *result = &results[i % n];

        if (job->rank != 0)
            break;
        if (all[i].wrong && atomic_load(&result->wrong) == 0)
            memcpy(result->note, all[i].note, sizeof(result->note));
        atomic_fetch_add(&result->checked, all[i].checked);
        atomic_fetch_add(&result->wrong, all[i].wrong);
    }
    free(all);
    if (all && job->report)
        job->report->on_row(job->report, index);
    return all ? 0 : -1;
}

static int peer_all_gather(void *context, const void *mine, void *all, size_t bytes)
{
    const struct bench_job *job = context;

    return (int)tutti_all_gather(job->comm, mine, all, bytes, TUTTI_DTYPE_U8, NULL);
}

static const struct bench_peer *start_peer(struct bench_job *job, const char *against)
{
    const struct bench_exchange exchange = {job->rank, job->n_ranks, job, peer_all_gather};
    const struct bench_peer *peer = bench_peer_load(against);

    if (!peer)
        return NULL;
    if (peer->init(&exchange) != 0) {
        cli_error("--against %s: it does not start", against);
        return NULL;
    }
    if (peer->n_ranks() == job->n_ranks && peer->rank() == job->rank)
        return peer;
    cli_error("--against %s: this is rank %d of %d to it and %d of %d to tutti; start the ranks "
              "by mpirun",
              against, peer->rank(), peer->n_ranks(), job->rank, job->n_ranks);
    return NULL;
}

int bench_job_run(const struct bench_report *report)
{
    struct bench_job *job = report->board->job;
    const struct bench_peer *peer = NULL;
    struct bench_options options = *report->options;
    int status;

    options.no_pin = 1; /* the launcher has bound us, or was told not to */
    report->board->shared->crowded = job->is_crowded;
    job->report = job->rank == 0 ? report : NULL;
    if (options.n_gpus) {
        status = gpu_rank_main(report, job->rank);
        return report->board->shared->unsupported ? 2 : status;
    }
    if (options.against && !(peer = start_peer(job, options.against)))
        return 1;
    status = bench_rank_main(&options, report->plan, report->place, report->board, job->rank);
    if (status == 0 && peer)
        peer->finalize();
    return status;
}
