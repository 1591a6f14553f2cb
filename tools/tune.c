/* `tutti tune`: measure the algorithms of every collective here, and write which is best when. */
#include "bench.h"
#include "commands.h"
#include "tune.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *ranks;
    const char *output;
    size_t max_bytes;
    double seconds;
    int quick;
    int fresh;
} options;

static const struct cli_option option_table[] = {
    {'n', "ranks", CLI_TEXT, &options.ranks, "LIST", "as 2,4,8; default: powers of two that fit"},
    {'o', "output", CLI_TEXT, &options.output, "FILE",
     "default ${XDG_CONFIG_HOME:-~/.config}/tutti/tune.txt"},
    {'e', "max-bytes", CLI_BYTES, &options.max_bytes, "SIZE", "largest size; default 16M"},
    {0, "time", CLI_SECONDS, &options.seconds, "TIME", "for the whole; default 2 min, quick 20 s"},
    {'q', "quick", CLI_FLAG, &options.quick, NULL, "fewer sizes: up to 4M, a factor 16 apart"},
    {0, "fresh", CLI_FLAG, &options.fresh, NULL, "begin anew, where else a broken-off run goes on"},
    {0, NULL, CLI_FLAG, NULL, NULL, NULL},
};

const struct cli_command command_tune = {
    "tune", "[options]", "measure this machine and save which algorithm is best for which size",
    "For every collective, number of ranks and size each algorithm is measured, all in turn in one "
    "run\n"
    "of the bench (results are checked too), and the best is written into a table. Windows are "
    "not\n"
    "tuned: buffers in them always take the direct way. Close other programs first.\n"
    "\n"
    "  tutti tune\n"
    "  tutti tune --quick -n 2\n"
    "  TUTTI_TUNE_FILE=~/.config/tutti/tune.txt tutti bench all_reduce\n"
    "\n"
    "The table is text: `op ranks max_bytes algorithm`, behind a first line `tutti-tune 1`.\n",
    option_table};

struct job {
    enum bench_id ids[BENCH_N_COLLECTIVES];
    int n_ids;
    int ranks[32];
    int n_ranks;
    char path[512];
    char partial[520];
    uint64_t begin_ns;
    int n_done;     /* of n_ids * n_ranks */
    int n_measured; /* of them, by this run */
};

static struct job job;

/* ---- progress ---- */

static void show_progress(const struct bench_report *report, int n_rows, double elapsed)
{
    const double share = (double)n_rows / report->plan->n_cells;
    const double done = job.n_done + share;
    const double all = job.n_ids * job.n_ranks;
    const double spent = (double)(ranks_now_ns() - job.begin_ns) / 1e9;
    const double fresh = job.n_measured + share;
    char bar[41] = "";

    (void)elapsed;
    if (!cli_is_terminal(STDERR_FILENO))
        return;
    for (int i = 0; i < 30; i++)
        bar[i] = i < (int)(done / all * 30) ? '=' : ' ';
    fprintf(stderr, "\r\033[K[%s] %3.0f%% %s, %d ranks", bar, done / all * 100,
            bench_traits[report->plan->cells[0].id].name, report->plan->n_ranks);
    if (fresh > 0.3)
        fprintf(stderr, ", about %.0f s left", spent / fresh * (all - done));
}

static void ignore_row(const struct bench_report *report, int index)
{
    show_progress(report, index + 1, 0);
}

/* ---- one collective on n ranks ---- */

static int measure(enum bench_id id, int n_ranks, double seconds)
{
    struct bench_options o = {.collectives = {bench_traits[id].name},
                              .n_ranks = n_ranks,
                              .min_bytes = 64,
                              .max_bytes = options.max_bytes,
                              .factor = options.quick ? 16 : 4,
                              .dtypes = bench_traits[id].reduces ? "bf16" : "f32",
                              .ops = "sum",
                              .only_ordinary = 1,
                              .algorithm = "all",
                              .n_threads = 1,
                              .seconds = seconds};
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

    job.begin_ns = ranks_now_ns();
    for (int n = 0; n < job.n_ranks; n++) {
        for (int i = 0; i < job.n_ids; i++) {
            if (!tune_has_rows(job.partial, bench_traits[job.ids[i]].name, job.ranks[n])) {
                const int status = measure(job.ids[i], job.ranks[n], share);

                if (status)
                    return status;
                job.n_measured++;
            }
            job.n_done++;
        }
    }
    if (cli_is_terminal(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    return 0;
}

/* ---- options ---- */

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
    snprintf(job.partial, sizeof(job.partial), "%s.partial", job.path);
    return tune_make_folders(job.path);
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

/* Collectives that leave a choice. */
static void find_collectives(void)
{
    for (int i = 0; i < BENCH_N_COLLECTIVES; i++) {
        const char *name;
        int n = 0;

        for (size_t k = 0; tutti_algorithm_name(bench_traits[i].name, k, &name) == TUTTI_OK; k++)
            n += !tune_is_for_windows(name);
        if (n > 1)
            job.ids[job.n_ids++] = (enum bench_id)i;
    }
}

int command_tune_run(int argc, char **argv)
{
    char **words = cli_alloc((size_t)(argc + 1) * sizeof(*words));
    char settings[128];
    char *absolute;
    int status = cli_parse(&command_tune, argc, argv, 0, words);

    if (status == CLI_GO && words[0])
        status = cli_error("%s: nothing is expected here; `tutti help tune`", words[0]);
    free(words);
    if (status != CLI_GO)
        return status;
    if (options.seconds <= 0)
        options.seconds = options.quick ? 20 : 120;
    if (options.max_bytes == 0)
        options.max_bytes = options.quick ? 4 << 20 : 16 << 20;
    find_collectives();
    if (job.n_ids == 0)
        return cli_error("no collective of this build has more than one algorithm");
    status = find_path();
    if (status == 0)
        status = find_ranks();
    if (status)
        return status;
    snprintf(settings, sizeof(settings), "%s, up to %zu bytes, %g s",
             options.quick ? "quick" : "full", options.max_bytes, options.seconds);
    status = tune_begin_file(job.partial, settings, options.fresh);
    if (status == 0)
        status = measure_all();
    if (status)
        return status;
    if (rename(job.partial, job.path) != 0)
        return cli_error("%s: %s", job.path, strerror(errno));
    tune_print_file(job.path);
    absolute = realpath(job.path, NULL);
    printf("\nWritten to %s. To use it:\n  export TUTTI_TUNE_FILE=%s\n"
           "(or config.tune_file in tutti_comm_create; rank 0's counts)\n",
           job.path, absolute ? absolute : job.path);
    free(absolute);
    return 0;
}
