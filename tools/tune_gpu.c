/*
 * `tutti tune --gpus`: every launch that is tried is a row of a tune file, and every communicator of a
 * run of the bench has such a file; so what is measured is what users will get. One run measures a
 * collective coarsely, a second one finely.
 */
#include "gpu_bench.h"
#include "tune.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST_BYTES 1024
#define MOST_BLOCKS 128 /* of a launch of tutti */
#define MAX_JOBS    256

struct task {
    enum bench_id id;
    int n_gpus;
    int packets;
};

static struct {
    const struct tune_options *options;
    struct task tasks[MAX_JOBS];
    int n_tasks;
    int now; /* the task that is measured */
    int stage, n_stages;
    struct gpu_facts facts;
    char gpu[96]; /* its name as files have it */
    char partial[600];
    struct tune_progress progress;
} job;

static struct tune_subject subject_of(const struct task *task)
{
    return (struct tune_subject){bench_traits[task->id].name, task->n_gpus, job.gpu,
                                 !bench_traits[task->id].reduces ? "any"
                                 : task->packets                 ? "packets"
                                                                 : "sentinel"};
}

static const char *const buffer_names[] = {"ordinary", "windows"};

/* ---- progress ---- */

static void on_wait(const struct bench_report *report, int n_rows, double elapsed)
{
    const double share = (job.stage + (double)n_rows / report->plan->n_cells) / job.n_stages;

    (void)elapsed;
    tune_show_progress(&job.progress, share, bench_traits[job.tasks[job.now].id].name,
                       job.tasks[job.now].n_gpus, "GPUs");
}

static void on_row(const struct bench_report *report, int index)
{
    on_wait(report, index + 1, 0);
}

/* ---- tables ---- */

static void print_row(FILE *file, const struct tune_search *search, const struct tune_size *size,
                      int buffers, int index)
{
    const struct tune_trials *trials = &size->trials[buffers];
    const struct tune_way engine = {"auto", 0, 0};
    const struct tune_way way = index < trials->n ? trials->ways[index] : engine;
    char width[24] = "auto";

    if (way.n_blocks)
        snprintf(width, sizeof(width), "%dx%d", way.n_blocks, way.n_threads);
    fprintf(file, "%s %d %zu %s %s %s any %s\n", bench_traits[search->id].name, search->n_ranks,
            size->bytes, way.algorithm, width, buffer_names[buffers], job.gpu);
}

/* The index'th way of every size, in memory that rank 0, a child, reads by that path. */
static int make_table(const struct tune_search *search, int index, char path[32], int *fd_out)
{
    const int fd = memfd_create("tutti tune", MFD_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(dup(fd), "w");

    *fd_out = fd;
    if (!file)
        return cli_error("no memory for a table: %s", cli_reason());
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    fprintf(file, "tutti-tune 1\n");
    for (int buffers = 0; buffers < TUNE_N_BUFFERS; buffers++)
        for (int i = 0; i < search->n_sizes; i++)
            if (buffers == TUNE_ORDINARY || tune_has_windows(search->id))
                print_row(file, search, &search->sizes[i], buffers, index);
    return fclose(file) == 0 ? 0 : cli_error("no memory for a table: %s", cli_reason());
}

/* ---- one run of the bench ---- */

/* What computes wrong is not worth tuning, so that is the end. */
static int wrong(const struct tune_search *search, const struct tune_size *size,
                 const struct tune_way *way, const char *note)
{
    tune_clear_progress();
    cli_error(
        "WRONG: %s of %zu bytes by %s, %d x %d threads: %s. Nothing is written. Please report "
        "it, with `tutti info`",
        bench_traits[search->id].name, size->bytes, way->algorithm, way->n_blocks, way->n_threads,
        note);
    return 1;
}

static int take_results(const struct bench_report *report, struct tune_search *search)
{
    const struct bench_shared *shared = report->board->shared;
    int n_seen[TUNE_N_BUFFERS] = {0};

    for (int v = 0; v < shared->n_variants; v++) {
        const int buffers = strcmp(shared->variant_names[v], "registered") == 0;
        const int index = n_seen[buffers]++;

        for (int i = 0; i < search->n_sizes; i++) {
            const struct bench_result *r = &report->board->rows[i].results[v];
            struct tune_trials *trials = &search->sizes[i].trials[buffers];

            if (index >= trials->n || r->state != BENCH_DONE)
                continue;
            if (atomic_load(&r->wrong))
                return wrong(search, &search->sizes[i], &trials->ways[index], r->note);
            trials->us[index] = r->p50_us;
        }
    }
    return 0;
}

static int run_bench(const struct bench_options *o, struct tune_search *search)
{
    struct bench_plan plan = {0};
    struct place place;
    struct bench_board board = {0};
    struct bench_report report = {o, &plan, &place, &board, on_row, on_wait};
    struct ranks ranks;
    int status;

    place_read(&place);
    status = bench_plan_make(o, &plan);
    if (status == 0)
        status = bench_board_open(&board, NULL, o->n_ranks, plan.n_cells);
    if (status == 0)
        status = bench_start(&report, 0, NULL, &ranks);
    if (status == 0) {
        status = bench_follow(&report, &ranks);
        ranks_free(&ranks);
    }
    if (status == 0)
        status = take_results(&report, search);
    if (board.shared)
        bench_board_close(&board);
    free(plan.cells);
    place_free(&place);
    return status;
}

/* Measure all ways of all sizes, in about so many seconds. */
static int measure(const struct task *task, struct tune_search *search, double seconds)
{
    char tables[TUNE_MAX_WAYS][32];
    int fds[TUNE_MAX_WAYS] = {0};
    uint32_t wanted[TUNE_MAX_SIZES][TUNE_N_BUFFERS] = {{0}};
    struct bench_trials trials = {.tables = tables,
                                  .wanted = (const uint32_t(*)[2])wanted,
                                  .cell_seconds = seconds / search->n_sizes};
    const struct bench_options o = {
        .collectives = {bench_traits[task->id].name},
        .n_ranks = task->n_gpus,
        .n_gpus = task->n_gpus,
        .min_bytes = FIRST_BYTES,
        .max_bytes = search->sizes[search->n_sizes - 1].bytes,
        .factor = job.options->quick ? 8 : 2,
        .dtypes = task->packets ? "i32" : "bf16",
        .ops = "sum",
        .n_threads = 1,
        .only_ordinary = !tune_has_windows(task->id),
        .graph = 1,
        .n_replays = job.options->quick ? 7 : 15,
        .trials = &trials,
    };
    int status = 0;

    for (int i = 0; i < search->n_sizes; i++)
        for (int b = 0; b < TUNE_N_BUFFERS; b++) {
            const int n = search->sizes[i].trials[b].n;

            wanted[i][b] = (1u << n) - 1;
            trials.n_tables = n > trials.n_tables ? n : trials.n_tables;
        }
    for (int k = 0; k < TUNE_MAX_WAYS; k++) {
        fds[k] = -1;
        if (status == 0 && k < trials.n_tables)
            status = make_table(search, k, tables[k], &fds[k]);
    }
    if (status == 0)
        status = run_bench(&o, search);
    for (int k = 0; k < TUNE_MAX_WAYS; k++)
        if (fds[k] >= 0)
            close(fds[k]);
    return status;
}

/* All that was measured, for people who want to know more than what is best. */
static int write_csv(const struct task *task, const struct tune_search *search)
{
    const struct tune_subject subject = subject_of(task);
    FILE *file = job.options->csv ? fopen(job.options->csv, "ae") : NULL;
    int failed;

    if (!job.options->csv)
        return 0;
    if (file && ftell(file) == 0)
        fprintf(file, "op,ranks,bytes,buffers,wire,algorithm,blocks,threads,microseconds,gpu\n");
    for (int i = 0; file && i < search->n_sizes; i++)
        for (int b = 0; b < TUNE_N_BUFFERS; b++) {
            const struct tune_trials *t = &search->sizes[i].trials[b];

            for (int k = 0; k < t->n; k++)
                if (t->us[k] > 0)
                    fprintf(file, "%s,%d,%zu,%s,%s,%s,%d,%d,%.3f,%s\n", subject.op, subject.n_ranks,
                            search->sizes[i].bytes, buffer_names[b], subject.wire,
                            t->ways[k].algorithm, t->ways[k].n_blocks, t->ways[k].n_threads,
                            t->us[k], job.gpu);
        }
    failed = !file || ferror(file);
    if (file && fclose(file) != 0)
        failed = 1;
    return failed ? cli_error("%s: %s", job.options->csv, strerror(errno)) : 0;
}

/* ---- tasks ---- */

static double seconds_left(void)
{
    const double spent = (double)(ranks_now_ns() - job.progress.begin_ns) / 1e9;

    return job.options->seconds > spent ? job.options->seconds - spent : 0;
}

/* The sizes of the bench's cells. */
static void set_sizes(struct tune_search *search)
{
    const size_t factor = job.options->quick ? 8 : 2;
    size_t bytes = FIRST_BYTES;

    for (;;) {
        search->sizes[search->n_sizes++].bytes = bytes;
        if (bytes >= job.options->max_bytes || search->n_sizes == TUNE_MAX_SIZES)
            break;
        bytes = bytes * factor > job.options->max_bytes ? job.options->max_bytes : bytes * factor;
    }
}

static int run_task(const struct task *task)
{
    const struct tune_subject subject = subject_of(task);
    struct tune_search *search = cli_alloc(sizeof(*search));
    int n_left = 0;
    int status = 0;

    for (int t = job.now; t < job.n_tasks; t++) {
        const struct tune_subject other = subject_of(&job.tasks[t]);

        n_left += !tune_has_rows(job.partial, &other);
    }
    search->id = task->id;
    search->n_ranks = task->n_gpus;
    search->max_blocks =
        job.facts.n_processors < MOST_BLOCKS ? job.facts.n_processors : MOST_BLOCKS;
    set_sizes(search);
    tune_propose(search);
    for (job.stage = 0; job.stage < job.n_stages && status == 0; job.stage++) {
        if (job.stage > 0)
            tune_refine(search);
        status =
            measure(task, search, seconds_left() / (n_left * job.n_stages - (double)job.stage));
        if (status == 0)
            status = write_csv(task, search);
    }
    job.stage = 0;
    if (status == 0)
        status = tune_write_gpu_rows(&subject, search, job.partial);
    free(search);
    return status;
}

static int run_tasks(void)
{
    job.progress.begin_ns = ranks_now_ns();
    job.progress.n_all = job.n_tasks;
    for (job.now = 0; job.now < job.n_tasks; job.now++) {
        const struct task *task = &job.tasks[job.now];
        const struct tune_subject subject = subject_of(task);

        if (!tune_has_rows(job.partial, &subject)) {
            const int status = run_task(task);

            if (status)
                return status;
            job.progress.n_measured++;
        }
        job.progress.n_done++;
    }
    tune_clear_progress();
    return 0;
}

/* ---- options ---- */

static int add_tasks(int n_gpus)
{
    static const enum bench_id all[] = {BENCH_ALL_REDUCE, BENCH_REDUCE_SCATTER, BENCH_ALL_GATHER,
                                        BENCH_ALL_TO_ALL, BENCH_BROADCAST};
    enum bench_id ids[BENCH_N_COLLECTIVES];
    int n = 0;
    const int status =
        tune_collectives(job.options, all, (int)(sizeof(all) / sizeof(all[0])), ids, &n);

    for (int i = 0; i < n && status == 0; i++)
        for (int packets = 0; packets <= (job.options->packets && bench_traits[ids[i]].reduces);
             packets++)
            if (job.n_tasks < MAX_JOBS)
                job.tasks[job.n_tasks++] = (struct task){ids[i], n_gpus, packets};
    return status;
}

static int find_tasks(void)
{
    char word[16];
    int status = 0;

    for (size_t k = 0; status == 0 && cli_word(job.options->gpus, k, word, sizeof(word)); k++) {
        int n;

        if (cli_parse_int(word, &n) != 0 || n < 2 || n > 32)
            return cli_error("--gpus %s: expected numbers of GPUs, 2 to 32, as in 2,4",
                             job.options->gpus);
        if (n > job.facts.n_gpus)
            return cli_error("--gpus %d: this machine has %d", n, job.facts.n_gpus);
        status = add_tasks(n);
    }
    if (status == 0 && job.n_tasks == 0)
        return cli_error("--gpus %s: expected numbers of GPUs, as in 2,4", job.options->gpus);
    return status;
}

int tune_gpu_run(const struct tune_options *options, const char *path)
{
    char settings[200];
    int status = gpu_probe(&job.facts);

    job.options = options;
    job.n_stages = options->quick ? 1 : 2;
    for (size_t i = 0; job.facts.name[i]; i++)
        job.gpu[i] = isspace((unsigned char)job.facts.name[i]) ? '_' : job.facts.name[i];
    if (status == 0)
        status = find_tasks();
    if (status)
        return status;
    /* What would keep the ranks from following the tables. */
    unsetenv("TUTTI_ALGO");
    unsetenv("TUTTI_CUDA_SHAPE");
    unsetenv("TUTTI_TUNE_FILE");
    snprintf(job.partial, sizeof(job.partial), "%s.gpu.partial", path);
    snprintf(settings, sizeof(settings), "%s, %s, up to %zu bytes", job.facts.name,
             options->quick ? "quick" : "full", options->max_bytes);
    status = tune_begin_file(job.partial, settings, options->fresh);
    if (status == 0)
        status = run_tasks();
    return status ? status : tune_finish_file(job.partial, path);
}
