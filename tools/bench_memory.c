/* Before the ranks take their buffers: the kernel would answer with a kill instead of an error. */
#include "bench.h"

static int check(const struct bench_options *options, const struct bench_plan *plan, int n_ranks,
                 double have)
{
    const int n_buffers =
        options->only_ordinary ? 4 : 6; /* two to send from, and two of each kind */
    const double need = (double)n_buffers * (double)bench_buffer_bytes(plan) * n_ranks;
    char text[32];

    if (need < have * 0.9)
        return 0;
    return cli_error("%d ranks with buffers of %s need %.1f GiB, and %.1f GiB are available; use a "
                     "smaller -e or -n",
                     n_ranks, cli_bytes_text(options->max_bytes, text, sizeof(text)),
                     need / 1073741824.0, have / 1073741824.0);
}

int bench_check_memory(const struct bench_options *options, const struct bench_plan *plan,
                       int n_here, int n_near)
{
    struct place_memory have;
    int status;

    if (options->n_gpus)
        return 0;
    have = place_memory();
    status = check(options, plan, n_near, have.group);
    return status ? status : check(options, plan, n_here, have.system);
}
