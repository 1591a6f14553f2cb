#include "commands.h"
#include "gpu_bench.h"

#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Ranks are processes, one a core. Every collective is timed from the last rank's arrival to "
    "the\n"
    "last one's completion, with fresh data, and every element of its result is compared with what "
    "it\n"
    "must be. Ordinary buffers and registered ones (windows) are measured in turn.\n"
    "\n"
    "  tutti bench                               all collectives: what this machine does\n"
    "  tutti bench all_reduce -b 1K -e 64M -f 2  one of them in detail\n"
    "  tutti bench all_reduce --against mpi      the same calls by the MPI that is installed\n"
    "  tutti bench all_reduce --json r.json --plot r.svg\n"
    "  tutti bench all_reduce --algorithm all    its algorithms side by side\n"
    "  tutti bench all_to_all --dtype bf16,e4m3 -n 4\n"
    "  tutti bench reduce_scatter --dtype f16 --op max --in-place\n"
    "  tutti bench all_reduce --gpus 8 --graph --against nccl\n"
    "  tutti run --hosts alpha:4,beta:4 -- tutti bench all_reduce --gpus 4 --graph\n"
    "\n"
    "Started as the ranks of a job (tutti run, torchrun, mpirun, srun), on one host or several, it "
    "takes\n"
    "part instead of starting ranks itself, and rank 0 prints.\n"
    "\n"
    "Collectives: all_reduce reduce_scatter reduce_scatterv all_gather all_gatherv "
    "all_gatherv_rows\n"
    "all_to_all all_to_allv broadcast reduce gather scatter sendrecv barrier, or all.\n"
    "\n"
    "bytes is the larger side of the call (as in nccl-tests). algbw is bytes / p50; busbw is "
    "algbw\n"
    "times 2(n-1)/n for all_reduce, (n-1)/n for reduce_scatter, all_gather, all_to_all, gather "
    "and\n"
    "scatter, 1 for broadcast, reduce and sendrecv: what each rank's link has to carry.\n"
    "Exit status: 0, 1 if an element was wrong or a rank failed, 2 for a mistake in the options.\n";

static struct bench_options options;

static const struct cli_option option_table[] = {
    {'n', "ranks", CLI_NUMBER, &options.n_ranks, "N", "ranks; default: one a core, at least 2"},
    {0, "gpus", CLI_NUMBER, &options.n_gpus, "N",
     "on N GPUs, by default with a rank on each;\nas ranks of a job: on N of each machine"},
    {0, "graph", CLI_FLAG, &options.graph, NULL, "GPUs: time graphs of calls, as models run them"},
    {0, "replays", CLI_NUMBER, &options.n_replays, "N", "GPUs: samples a line; default 20"},
    {'b', "min-bytes", CLI_BYTES, &options.min_bytes, "SIZE",
     "smallest size; default 64, on GPUs 1K"},
    {'e', "max-bytes", CLI_BYTES, &options.max_bytes, "SIZE",
     "largest size; default 16M, on GPUs 1G (all: 64M)"},
    {'f', "factor", CLI_NUMBER, &options.factor, "N",
     "from one size to the next; default 16 for all, else 4;\non GPUs 8 and 2"},
    {'d', "dtype", CLI_TEXT, &options.dtypes, "LIST",
     "f32 f16 bf16 f64 i8 u8 i32 u32 i64 u64 e4m3 e5m2;\ndefault f32, and bf16 for what reduces; "
     "on GPUs bf16"},
    {'o', "op", CLI_TEXT, &options.ops, "LIST", "sum prod max min avg; default sum"},
    {0, "device-counts", CLI_FLAG, &options.device_counts, NULL,
     "GPUs: v-calls with counts in GPU memory too"},
    {0, "even-counts", CLI_FLAG, &options.even_counts, NULL,
     "v-calls with the same count for every rank"},
    {0, "row", CLI_NUMBER, &options.row, "N",
     "v-calls whose counts are multiples of N elements; default 8,\n1: blocks begin anywhere"},
    {0, "root", CLI_NUMBER, &options.root, "RANK", "of broadcast, reduce, gather, scatter"},
    {0, "in-place", CLI_FLAG, &options.in_place, NULL, "send and receive in the same buffer"},
    {0, "ordinary", CLI_FLAG, &options.only_ordinary, NULL, "ordinary buffers only"},
    {0, "registered", CLI_FLAG, &options.only_registered, NULL, "registered buffers only"},
    {'a', "algorithm", CLI_TEXT, &options.algorithm, "NAME",
     "force an algorithm; all: compare those that the collective has"},
    {'t', "threads", CLI_NUMBER, &options.n_threads, "N", "ranks are teams of N threads"},
    {0, "time", CLI_SECONDS, &options.seconds, "TIME",
     "for the whole run; default 0.25 s a line,\nmore for sizes from 4M on"},
    {0, "end-to-end", CLI_FLAG, &options.end_to_end, NULL,
     "time writing the input and reading the result too"},
    {0, "no-pin", CLI_FLAG, &options.no_pin, NULL, "leave it to the scheduler where ranks run"},
    {0, "against", CLI_TEXT, &options.against, "mpi|nccl|gloo",
     "measure that too, interleaved (nccl: with --gpus;\ngloo: among ranks that a launcher "
     "started)"},
    {0, "json", CLI_TEXT, &options.json, "FILE",
     "all figures; - for standard output, without the table"},
    {0, "plot", CLI_TEXT, &options.plot, "FILE",
     "microseconds over bytes, .svg (or .png: gnuplot)"},
    {0, "csv", CLI_FLAG, &options.csv, NULL, "print lines for a spreadsheet instead of the table"},
    {0, "joined", CLI_TEXT, &options.joined, "PATH", NULL},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_bench = {"bench", "[COLLECTIVE ...] [options]",
                                          "time every collective and check every element", about,
                                          option_table};

/* What holds of ranks that a launcher has started. */
static int check_job(const struct bench_job *job)
{
    if (options.n_ranks && options.n_ranks != job->n_ranks)
        return cli_error("-n %d: a launcher has started %d ranks (by the environment), and these "
                         "are measured: leave -n out",
                         options.n_ranks, job->n_ranks);
    options.n_ranks = job->n_ranks;
    if (options.n_gpus > job->n_here)
        options.n_gpus = job->n_here;
    return 0;
}

/* Numbers that are not given become 0, which stands for the default from here on. */
static int check_given(void)
{
    if (options.n_ranks != CLI_NOT_GIVEN && options.n_ranks < 1)
        return cli_error("-n %d: 1 to 1024 ranks", options.n_ranks);
    if (options.factor != CLI_NOT_GIVEN && options.factor < 2)
        return cli_error("-f %d: sizes must grow, so at least 2", options.factor);
    if (options.n_gpus != CLI_NOT_GIVEN && options.n_gpus < 1)
        return cli_error("--gpus %d: 1 to 64", options.n_gpus);
    if (options.n_gpus == CLI_NOT_GIVEN && options.n_replays != CLI_NOT_GIVEN)
        return cli_error("--replays is for GPUs: say how many with --gpus");
    options.n_replays = options.n_replays == CLI_NOT_GIVEN ? 20 : options.n_replays;
    options.n_ranks = options.n_ranks == CLI_NOT_GIVEN ? 0 : options.n_ranks;
    options.factor = options.factor == CLI_NOT_GIVEN ? 0 : options.factor;
    options.n_gpus = options.n_gpus == CLI_NOT_GIVEN ? 0 : options.n_gpus;
    return 0;
}

static int check_sizes(int has_min, int has_max)
{
    char min[32], max[32];

    cli_bytes_text(options.min_bytes, min, sizeof(min));
    cli_bytes_text(options.max_bytes, max, sizeof(max));
    if (options.min_bytes < 1 || options.max_bytes < 1)
        return cli_error("-b %s -e %s: sizes begin at 1 byte", min, max);
    if (options.min_bytes <= options.max_bytes)
        return 0;
    if (has_min && !has_max)
        return cli_error("-b %s: the largest size is %s unless -e says more: give it, too", min,
                         max);
    if (has_max && !has_min)
        return cli_error("-e %s: the smallest size is %s unless -b says less: give it, too", max,
                         min);
    return cli_error("-b %s -e %s: the smallest size is above the largest", min, max);
}

static int check_against(const struct bench_job *job)
{
    const char *known = options.n_gpus ? "nccl" : "mpi";

    if (!options.against || strcmp(options.against, known) == 0)
        return 0;
    if (options.n_gpus || strcmp(options.against, "gloo") != 0)
        return cli_error("--against %s: only %s known %s --gpus", options.against,
                         options.n_gpus ? "nccl is" : "mpi and gloo are",
                         options.n_gpus ? "with" : "without");
    if (!job) /* it has none of its own */
        return cli_error(
            "--against gloo: among ranks that a launcher has started, as by `tutti run "
            "-n %d -- tutti bench ... --against gloo`",
            options.n_ranks);
    return 0;
}

static void set_defaults(const struct place *place)
{
    if (options.min_bytes == SIZE_MAX)
        options.min_bytes = 64;
    if (options.max_bytes == SIZE_MAX)
        options.max_bytes = 16 << 20;
    if (options.n_ranks == 0)
        options.n_ranks = place_fit(place) < 2 ? 2 : place_fit(place);
    if (options.factor == 0)
        options.factor = strcmp(options.collectives[0], "all") == 0 ? 16 : 4;
}

static int check_options(const struct place *place, const struct bench_job *job, char **words)
{
    const int has_min = options.min_bytes != SIZE_MAX;
    const int has_max = options.max_bytes != SIZE_MAX;
    int n = 0;

    for (; words[n]; n++) {
        if (n >= BENCH_N_COLLECTIVES)
            return cli_error("too many collectives; `all` is all of them");
        options.collectives[n] = words[n];
    }
    if (n == 0)
        options.collectives[0] = "all";
    if (job && check_job(job) != 0)
        return 2;
    if (options.n_gpus && gpu_options(&options, n) != 0)
        return 2;
    if (!options.n_gpus && (options.graph || options.device_counts))
        return cli_error("--graph and --device-counts are for GPUs: say how many with --gpus");
    set_defaults(place);
    if (options.n_ranks > 1024)
        return cli_error("-n %d: 1 to 1024 ranks", options.n_ranks);
    if (check_sizes(has_min, has_max) != 0 || check_against(job) != 0)
        return 2;
    if (options.algorithm && strcmp(options.algorithm, "all") == 0 &&
        (n != 1 || strcmp(options.collectives[0], "all") == 0))
        return cli_error("--algorithm all compares the algorithms of one collective: name it");
    if (options.row < 1)
        return cli_error("--row %d: elements of a row, at least 1", options.row);
    if (options.n_threads < 1 || options.n_threads > 256)
        return cli_error("--threads %d: 1 to 256", options.n_threads);
    if (options.root < 0 || options.root >= options.n_ranks)
        return cli_error("--root %d: ranks are 0 to %d", options.root, options.n_ranks - 1);
    if (options.only_ordinary && options.only_registered)
        return cli_error("--ordinary and --registered exclude each other; both is the default");
    if (options.csv && options.json && strcmp(options.json, "-") == 0)
        return cli_error("--csv and --json - exclude each other: both are for standard output");
    return options.joined || (job && job->rank != 0) ? 0 : bench_check_files(&options);
}

static void print_row(const struct bench_report *report, int index)
{
    if (index == 0)
        bench_print_head(report);
    bench_print_row(report, index);
}

static int run_all(struct bench_report *report, int argc, char **argv)
{
    const struct bench_job *job = report->board->job;
    struct bench_totals totals;
    struct ranks ranks = {0};
    int status = job ? bench_job_run(report) : bench_start(report, argc, argv, &ranks);
    int is_silent = job ? job->rank != 0 : status != 0;

    if (!job && status == 0)
        status = bench_follow(report, &ranks);
    ranks_free(&ranks);
    is_silent |= status == 2; /* what was asked for cannot be: there is nothing to sum up */
    if (is_silent)
        return status;
    bench_print_end(report, &totals);
    if (options.json && bench_write_json(report, options.json) != 0)
        status = 1;
    if (options.plot && bench_write_plot(report, options.plot) != 0)
        status = 1;
    return status ? status : totals.n_wrong ? 1 : 0;
}

int command_bench_run(int argc, char **argv)
{
    char **words = cli_alloc((size_t)(argc + 1) * sizeof(*words));
    struct bench_plan plan;
    struct place place;
    struct bench_board board;
    struct bench_report report = {&options, &plan, &place, &board, print_row, bench_print_progress};
    struct bench_job *job = NULL;
    int status;

    options.n_ranks = options.factor = options.n_gpus = options.n_replays = CLI_NOT_GIVEN;
    options.min_bytes = options.max_bytes = SIZE_MAX; /* not given */
    options.row = 8;
    options.ops = "sum";
    options.n_threads = 1;
    status = cli_parse(&command_bench, argc, argv, 0, words);
    if (status == CLI_GO && check_given() != 0)
        status = 2;
    if (status != CLI_GO)
        return status;
    gpu_take_variables(&options);
    status = options.joined ? 0 : bench_job_join(&job);
    if (status)
        return status;
    place_read(&place);
    status = check_options(&place, job, words);
    if (status == 0)
        status = bench_plan_make(&options, &plan);
    if (status == 0)
        status = bench_board_open(&board, options.joined, options.n_ranks, plan.n_cells);
    if (status)
        return status;
    if (options.joined)
        return bench_joined(&report);
    board.job = job;
    status = bench_check_memory(&options, &plan, job ? job->n_here : options.n_ranks,
                                job ? job->n_near : options.n_ranks);
    if (status)
        return status;
    status = run_all(&report, argc, argv);
    bench_job_leave(job);
    bench_board_close(&board);
    free(plan.cells);
    free(words);
    place_free(&place);
    return status;
}
