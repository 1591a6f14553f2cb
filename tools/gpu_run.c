/* Before the ranks are there: defaults, what does not go together, the start. */
#include "gpu_bench.h"

#include <stdlib.h>
#include <string.h>

void gpu_take_variables(struct bench_options *o)
{
    const char *named = getenv("TUTTI_NCCL_LIBRARY");

    o->nccl_named = named && *named ? strdup(named) : NULL;
    unsetenv("TUTTI_NCCL_LIBRARY");
}

int gpu_options(struct bench_options *o, int n_collectives)
{
    const int all = n_collectives == 0 || strcmp(o->collectives[0], "all") == 0;
    const char *host = getenv("TUTTI_HOST");
    static char wheel[512];
    char text[300];

    if (o->n_gpus < 1 || o->n_gpus > 64)
        return cli_error("--gpus %d: 1 to 64", o->n_gpus);
    if (o->n_threads != 1 || o->end_to_end || o->no_pin || o->seconds > 0)
        return cli_error("--threads, --end-to-end, --no-pin and --time are for ranks on CPUs; "
                         "leave them out with --gpus");
    if (o->n_replays < 3 || o->n_replays > 1000)
        return cli_error("--replays %d: 3 to 1000", o->n_replays);
    if (o->n_ranks == 0)
        o->n_ranks = o->n_gpus;
    if (o->n_ranks > 0 && o->n_gpus > o->n_ranks)
        o->n_gpus = o->n_ranks;
    if (o->min_bytes == SIZE_MAX)
        o->min_bytes = 1024;
    if (o->max_bytes == SIZE_MAX)
        o->max_bytes = all ? (size_t)64 << 20 : (size_t)1 << 30;
    if (o->factor == 0)
        o->factor = all ? 8 : 2;
    if (!o->dtypes)
        o->dtypes = "bf16";
    if (!gpu_driver_load(text, sizeof(text)))
        return cli_error("--gpus %d: %s", o->n_gpus, text);
    setenv("NCCL_NVLS_ENABLE", "0", 0); /* no NVLink multicast, unless somebody has asked for it */
    if (host && *host) /* ranks that are not on one host to tutti are not to NCCL */
        setenv("NCCL_HOSTID", host, 0);
    wheel[0] = '\0';
    if (o->against && !o->nccl_named)
        gpu_nccl_find(wheel, sizeof(wheel));
    o->nccl_wheel = wheel;
    return 0;
}

static int rank_main(void *context, int rank)
{
    const struct bench_report *report = context;
    cpu_set_t set;

    place_of_rank(report->place, PLACE_CORE, rank, report->options->n_ranks, &set);
    sched_setaffinity(0, sizeof(set), &set);
    return gpu_rank_main(report, rank);
}

int gpu_start(const struct bench_report *report, struct ranks *ranks)
{
    const int n = report->options->n_ranks;

    return ranks_start(ranks, n, rank_main, (void *)(uintptr_t)report) == 0 ? 0 : 1;
}
