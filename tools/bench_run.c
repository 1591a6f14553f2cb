/* Starting the ranks of a run and waiting for its rows. */
#include "gpu_bench.h"

#include <string.h>
#include <unistd.h>

static int rank_main(void *context, int rank)
{
    const struct bench_report *report = context;
    const struct bench_options *options = report->options;
    cpu_set_t set;

    if (!options->no_pin) {
        place_of_thread(report->place, rank, options->n_ranks, 0, options->n_threads, &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    return bench_rank_main(options, report->plan, report->place, report->board, rank);
}

int bench_joined(const struct bench_report *report)
{
    const struct bench_peer *peer = bench_peer_load(report->options->against);
    struct bench_options options = *report->options;
    struct bench_report own = *report;
    int status;

    ranks_die_with(getppid());
    if (!peer || peer->init(NULL) != 0)
        return cli_error("MPI does not start");
    if (peer->n_ranks() != options.n_ranks)
        return cli_error("mpirun started %d ranks instead of %d", peer->n_ranks(), options.n_ranks);
    if (!report->board->shared->crowded && options.n_threads == 1)
        options.no_pin = 1; /* mpirun has bound us */
    own.options = &options;
    status = rank_main(&own, peer->rank());
    if (status == 0)
        peer->finalize();
    return status;
}

int bench_start(const struct bench_report *report, int argc, char **argv, struct ranks *ranks)
{
    const struct bench_options *o = report->options;

    memset(ranks, 0, sizeof(*ranks));
    report->board->shared->crowded = place_is_crowded(report->place, o->n_ranks, o->n_threads);
    if (o->n_gpus)
        return gpu_start(report, ranks);
    if (!o->against)
        return ranks_start(ranks, o->n_ranks, rank_main, (void *)(uintptr_t)report) == 0 ? 0 : 1;
    ranks->n = 1;
    ranks->pids = cli_alloc(sizeof(*ranks->pids));
    ranks->status = cli_alloc(sizeof(*ranks->status));
    return bench_mpi_launch(o, report->place, report->board, argc, argv, &ranks->pids[0]);
}

/* A rank is gone although rows are missing: say so, unless a rank has said why. */
static void lost(const struct bench_report *report, const struct ranks *ranks, int failed)
{
    char text[96] = "ended early";

    ranks_sleep_ms(100); /* for the others to say what they saw */
    if (failed >= 0)
        ranks_describe(ranks->status[failed], text, sizeof(text));
    if (report->options->against && !report->options->n_gpus)
        bench_abort(report->board, "mpirun, or a rank under it: %s", text);
    else
        bench_abort(report->board, "rank %d: %s", failed < 0 ? 0 : failed, text);
}

int bench_follow(const struct bench_report *report, struct ranks *ranks)
{
    struct bench_shared *shared = report->board->shared;
    const uint64_t begin = ranks_now_ns();
    const int n_cells = report->plan->n_cells;
    int n_shown = 0;
    int failed = -1;

    while (n_shown < n_cells) {
        const uint32_t n_done = atomic_load(&shared->n_done);

        while (n_shown < (int)n_done)
            report->on_row(report, n_shown++);
        if (n_shown == n_cells || atomic_load(&shared->abort))
            break;
        if (ranks_poll(ranks, &failed) == 0 || failed >= 0) {
            if (atomic_load(&shared->n_done) == (uint32_t)n_cells)
                continue; /* the last row came in between */
            lost(report, ranks, failed);
            break;
        }
        report->on_wait(report, n_shown, (double)(ranks_now_ns() - begin) / 1e9);
        bench_wait_change(&shared->n_done, n_done, 200);
    }
    bench_clear_progress();
    if (!atomic_load(&shared->abort)) {
        ranks_finish(ranks, 10);
        return 0;
    }
    cli_error("%s", shared->error);
    ranks_finish(ranks, 1);
    return shared->unsupported ? 2 : 1;
}
