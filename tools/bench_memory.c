/* Before the ranks take their buffers: the kernel would answer with a kill instead of an error. */
#include "bench.h"

int bench_check_memory(const struct bench_options *options, const struct bench_plan *plan,
                       int n_ranks)
{
    const int n_buffers =
        options->only_ordinary ? 4 : 6; /* two to send from, and two of each kind */
    const double need = (double)n_buffers * (double)bench_buffer_bytes(plan) * n_ranks;
    const double have = place_memory();
    char text[32];

    if (need < have * 0.9 || options->n_gpus)
        return 0;
    return cli_error("%d ranks with buffers of %s need %.1f GiB, and %.1f GiB are available; use a "
                     "smaller -e or -n",
                     n_ranks, cli_bytes_text(options->max_bytes, text, sizeof(text)),
                     need / 1073741824.0, have / 1073741824.0);
}
