/* `tutti tune`: measure the algorithms of every collective here, and write which is best when. */
#include "bench.h"
#include "commands.h"
#include "tune.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIN_BYTES 64

static struct tune_options options = {.max_bytes = SIZE_MAX}; /* not given */

static const struct cli_option option_table[] = {
    {'n', "ranks", CLI_TEXT, &options.ranks, "LIST", "as 2,4,8; default: powers of two that fit"},
    {0, "gpus", CLI_TEXT, &options.gpus, "LIST",
     "GPUs instead of cores: as 4, or 2,4,8; a rank on each"},
    {'c', "collectives", CLI_TEXT, &options.collectives, "LIST",
     "as all_reduce,all_gather; default: all with a\nchoice, on GPUs those five that move most"},
    {'o', "output", CLI_TEXT, &options.output, "FILE",
     "default ${XDG_CONFIG_HOME:-~/.config}/tutti/tune.txt"},
    {'e', "max-bytes", CLI_BYTES, &options.max_bytes, "SIZE",
     "largest size; default 16M, on GPUs 64M (quick: 4M, 16M)"},
    {0, "time", CLI_SECONDS, &options.seconds, "TIME",
     "for the whole; default 2 min, quick 20 s; on GPUs 5 min\nand 1 min for each number of them"},
    {'q', "quick", CLI_FLAG, &options.quick, NULL,
     "fewer sizes, a factor 16 apart; on GPUs 8, coarse"},
    {0, "csv", CLI_TEXT, &options.csv, "FILE",
     "GPUs: append all that is measured, also what is not best"},
    {0, "packets", CLI_FLAG, &options.packets, NULL, "GPUs: reductions of integers and f64, too"},
    {0, "fresh", CLI_FLAG, &options.fresh, NULL, "begin anew, where else a broken-off run goes on"},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_tune = {
    "tune", "[options]", "measure this machine and save which algorithm is best for which size",
    "For every collective, number of ranks and size each algorithm is measured, all in turn in one "
    "run\n"
    "of the bench (results are checked too), and the best is written into a table. Close other\n"
    "programs first. In host memory windows are not tuned: buffers in them take the direct way.\n"
    "\n"
    "On GPUs a row has a launch as well, blocks x threads, and there are rows for ordinary buffers "
    "and\n"
    "for windows. Calls are timed in CUDA graphs. A coarse net of launches is measured for each "
    "size,\n"
    "then a finer one about the best; auto, what the engine takes by itself, stays unless "
    "something "
    "is\n"
    "3 % faster. all_reduce, reduce_scatter, all_gather, all_to_all and broadcast, which their "
    "variants\n"
    "with counts follow; others if they are named with -c. A run that is broken off (Ctrl-C) goes "
    "on\n"
    "where it was; the rows replace those of the same collectives, ranks and GPU, all else in the "
    "file\n"
    "stays.\n"
    "\n"
    "  tutti tune\n"
    "  tutti tune --quick -n 2\n"
    "  tutti tune --gpus 2,4,8\n"
    "  tutti tune --gpus 4 -c all_reduce --time 1m -o h200.txt\n"
    "  TUTTI_TUNE_FILE=~/.config/tutti/tune.txt tutti bench all_reduce\n"
    "\n"
    "The table is text behind a first line `tutti-tune 1`: `op ranks max_bytes algorithm`, on "
    "GPUs\n"
    "followed by `blocksxthreads buffers wire gpu`. docs/design/selection.md has the details.\n",
    option_table};

struct job {
    enum bench_id ids[BENCH_N_COLLECTIVES];
    int n_ids;
    int ranks[32];
    int n_ranks;
    char path[512];
    char partial[520];
    struct tune_progress progress;
};

static struct job job;

/* ---- progress ---- */

void tune_show_progress(const struct tune_progress *progress, double share, const char *what,
                        int n_ranks, const char *kind)
{
    const double done = progress->n_done + share;
    const double spent = (double)(ranks_now_ns() - progress->begin_ns) / 1e9;
    const double fresh = progress->n_measured + share;
    char bar[31] = "";

    if (!cli_is_terminal(STDERR_FILENO))
        return;
    for (int i = 0; i < 30; i++)
        bar[i] = i < (int)(done / progress->n_all * 30) ? '=' : ' ';
    fprintf(stderr, "\r\033[K[%s] %3.0f%% %s, %d %s", bar, done / progress->n_all * 100, what,
            n_ranks, kind);
    if (fresh > 0.3)
        fprintf(stderr, ", about %.0f s left", spent / fresh * (progress->n_all - done));
}

void tune_clear_progress(void)
{
    if (cli_is_terminal(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

static void show_progress(const struct bench_report *report, int n_rows, double elapsed)
{
    (void)elapsed;
    tune_show_progress(&job.progress, (double)n_rows / report->plan->n_cells,
                       bench_traits[report->plan->cells[0].id].name, report->plan->n_ranks,
                       "ranks");
}

static void ignore_row(const struct bench_report *report, int index)
{
    show_progress(report, index + 1, 0);
}

/* ---- one collective on n ranks ---- */

static struct bench_options bench_of(enum bench_id id, int n_ranks, double seconds)
{
    return (struct bench_options){.collectives = {bench_traits[id].name},
                                  .n_ranks = n_ranks,
                                  .min_bytes = MIN_BYTES,
                                  .max_bytes = options.max_bytes,
                                  .factor = options.quick ? 16 : 4,
                                  .dtypes = bench_traits[id].reduces ? "bf16" : "f32",
                                  .ops = "sum",
                                  .only_ordinary = 1,
                                  .algorithm = "all",
                                  .n_threads = 1,
                                  .seconds = seconds};
}

/* Before the first measurement, not when it is the turn of that many ranks. */
static int check_memory(void)
{
    int status = 0;

    for (int n = 0; n < job.n_ranks; n++) {
        for (int i = 0; i < job.n_ids && status == 0; i++) {
            const struct bench_options o = bench_of(job.ids[i], job.ranks[n], 0);
            struct bench_plan plan;

            status = bench_plan_make(&o, &plan);
            if (status == 0)
                status = bench_check_memory(&o, &plan, o.n_ranks, o.n_ranks);
            free(plan.cells);
        }
    }
    return status;
}

static int measure(enum bench_id id, int n_ranks, double seconds)
{
    const struct bench_options o = bench_of(id, n_ranks, seconds);
    struct bench_plan plan;
    struct place place;
    struct bench_board board;
    struct bench_report report = {&o, &plan, &place, &board, ignore_row, show_progress};
    struct ranks ranks;
    int status;

    place_read(&place);
    status = bench_plan_make(&o, &plan);
    if (status == 0)
        status = bench_board_open(&board, NULL, n_ranks, plan.n_cells);
    if (status == 0)
        status = bench_start(&report, 0, NULL, &ranks);
    if (status == 0) {
        status = bench_follow(&report, &ranks);
        ranks_free(&ranks);
    }
    if (status == 0)
        status = tune_write_rows(&report, job.partial);
    if (status == 0)
        bench_board_close(&board);
    free(plan.cells);
    place_free(&place);
    return status;
}

static int measure_all(void)
{
    const double share = options.seconds / (job.n_ids * job.n_ranks);

    job.progress.begin_ns = ranks_now_ns();
    job.progress.n_all = job.n_ids * job.n_ranks;
    for (int n = 0; n < job.n_ranks; n++) {
        for (int i = 0; i < job.n_ids; i++) {
            const struct tune_subject subject = {bench_traits[job.ids[i]].name, job.ranks[n], NULL,
                                                 NULL};

            if (!tune_has_rows(job.partial, &subject)) {
                const int status = measure(job.ids[i], job.ranks[n], share);

                if (status)
                    return status;
                job.progress.n_measured++;
            }
            job.progress.n_done++;
        }
    }
    tune_clear_progress();
    return 0;
}

/* ---- options ---- */

/* A regular file, or none so far: a rename puts the new one in its place. */
static int check_path(void)
{
    struct stat state;

    if (strcmp(job.path, "-") == 0)
        return cli_error("-o -: the table is printed anyway; name a file, or leave -o out");
    if (stat(job.path, &state) == 0 && !S_ISREG(state.st_mode))
        return cli_error("%s is no regular file; say where with -o FILE", job.path);
    return tune_make_folders(job.path);
}

static int find_path(void)
{
    const char *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");

    if (options.output)
        snprintf(job.path, sizeof(job.path), "%s", options.output);
    else if (config && *config)
        snprintf(job.path, sizeof(job.path), "%s/tutti/tune.txt", config);
    else if (home && *home)
        snprintf(job.path, sizeof(job.path), "%s/.config/tutti/tune.txt", home);
    else
        return cli_error("HOME is not set: say where with -o FILE");
    return check_path();
}

static int find_ranks(void)
{
    struct place place;
    int fit;
    char word[16];

    place_read(&place);
    fit = place_fit(&place) < 2 ? 2 : place_fit(&place);
    place_free(&place);
    if (!options.ranks) {
        for (int n = 2; n <= fit && job.n_ranks < 30; n *= 2)
            job.ranks[job.n_ranks++] = n;
        if (job.ranks[job.n_ranks - 1] != fit)
            job.ranks[job.n_ranks++] = fit;
        return 0;
    }
    for (size_t k = 0; k < 32 && cli_word(options.ranks, k, word, sizeof(word)); k++) {
        int n;

        if (cli_parse_int(word, &n) != 0 || n < 2 || n > 1024)
            return cli_error("-n %s: expected numbers of ranks, 2 or more, as in 2,4,8",
                             options.ranks);
        if (n > fit)
            fprintf(stderr, "tutti tune: %d ranks share %d cores; what is found may not hold\n", n,
                    fit);
        job.ranks[job.n_ranks++] = n;
    }
    return 0;
}

int tune_collectives(const struct tune_options *o, const enum bench_id all[], int n,
                     enum bench_id ids[BENCH_N_COLLECTIVES], int *n_out)
{
    char word[32];

    *n_out = 0;
    for (int i = 0; i < n && !o->collectives; i++)
        ids[(*n_out)++] = all[i];
    for (size_t k = 0; o->collectives && cli_word(o->collectives, k, word, sizeof(word)); k++) {
        const int id = bench_find_collective(word);
        const char *name;

        /* Variants with counts follow the collective that they are a variant of. */
        if (id < 0 || *n_out == BENCH_N_COLLECTIVES || tutti_algorithm_name(word, 0, &name) != 0)
            return cli_error("-c %s: expected some of all_reduce, reduce_scatter, all_gather, "
                             "all_to_all, broadcast, reduce, gather, scatter",
                             o->collectives);
        ids[(*n_out)++] = (enum bench_id)id;
    }
    return 0;
}

/* Collectives that leave a choice. */
static int find_collectives(void)
{
    enum bench_id all[BENCH_N_COLLECTIVES];
    int n_all = 0;

    for (int i = 0; i < BENCH_N_COLLECTIVES; i++) {
        const char *name;
        int n = 0;

        for (size_t k = 0; tutti_algorithm_name(bench_traits[i].name, k, &name) == TUTTI_OK; k++)
            n += !tune_is_for_windows(name);
        if (n > 1)
            all[n_all++] = (enum bench_id)i;
    }
    if (n_all == 0)
        return cli_error("no collective of this build has more than one algorithm");
    return tune_collectives(&options, all, n_all, job.ids, &job.n_ids);
}

static int tune_cpu(void)
{
    char settings[256];
    char cpu[128];
    int status = find_collectives();

    if (status == 0)
        status = find_ranks();
    if (status == 0)
        status = check_memory();
    if (status)
        return status;
    snprintf(job.partial, sizeof(job.partial), "%s.partial", job.path);
    snprintf(settings, sizeof(settings), "%s, %s, up to %zu bytes, %g s",
             bench_cpu_name(cpu, sizeof(cpu)), options.quick ? "quick" : "full", options.max_bytes,
             options.seconds);
    status = tune_begin_file(job.partial, settings, options.fresh);
    if (status == 0)
        status = measure_all();
    return status ? status : tune_finish_file(job.partial, job.path);
}

static int check_options(void)
{
    int n_numbers = 1;

    if (options.gpus && options.ranks)
        return cli_error("--gpus and -n exclude each other: GPUs have a rank each");
    if ((options.packets || options.csv) && !options.gpus)
        return cli_error("--packets and --csv are for GPUs: say how many with --gpus");
    for (const char *c = options.gpus; c && *c; c++)
        n_numbers += *c == ',';
    if (options.seconds <= 0 && options.gpus)
        options.seconds = n_numbers * (options.quick ? 60 : 300);
    if (options.seconds <= 0)
        options.seconds = options.quick ? 20 : 120;
    if (options.max_bytes < MIN_BYTES)
        return cli_error("-e %zu: at least %d, the smallest size", options.max_bytes, MIN_BYTES);
    if (options.max_bytes == SIZE_MAX)
        options.max_bytes = (size_t)(options.quick ? 4 : 16) << (options.gpus ? 22 : 20);
    return find_path();
}

int command_tune_run(int argc, char **argv)
{
    char **words = cli_alloc((size_t)(argc + 1) * sizeof(*words));
    int status = cli_parse(&command_tune, argc, argv, 0, words);

    if (status == CLI_GO && words[0])
        status = cli_error("%s: nothing is expected here; `tutti help tune`", words[0]);
    free(words);
    if (status != CLI_GO)
        return status;
    status = check_options();
    if (status)
        return status;
    return options.gpus ? tune_gpu_run(&options, job.path) : tune_cpu();
}
