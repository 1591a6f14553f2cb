#include "table.h"
#include "tune.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER    "tutti-tune 1\n"
#define MOST_ROWS 8 /* for one collective and number of ranks */

int tune_is_for_windows(const char *algorithm)
{
    return strcmp(algorithm, "direct") == 0;
}

int tune_make_folders(const char *path)
{
    char folder[512];

    snprintf(folder, sizeof(folder), "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0755) != 0 && errno != EEXIST)
            return cli_error("%s: %s; say where with -o FILE", folder, strerror(errno));
        *slash = '/';
    }
    return 0;
}

/* ---- the file ---- */

int tune_begin_file(const char *path, const char *settings, int fresh)
{
    char want[400];
    char line[400];
    FILE *file = fresh ? NULL : fopen(path, "re");
    int same = 0;

    snprintf(want, sizeof(want), "# %s\n", settings);
    if (file) {
        same = fgets(line, sizeof(line), file) && strcmp(line, HEADER) == 0 &&
               fgets(line, sizeof(line), file) && strcmp(line, want) == 0;
        fclose(file);
    }
    if (same) {
        fprintf(stderr, "tutti tune: going on where the last run broke off (--fresh: anew)\n");
        return 0;
    }
    file = fopen(path, "we");
    if (!file)
        return cli_error("%s: %s; say where with -o FILE", path, strerror(errno));
    fprintf(file, HEADER "%s", want);
    return fclose(file) == 0 ? 0 : cli_error("%s: %s", path, strerror(errno));
}

struct row {
    int on_gpu;
    char op[24];
    int n_ranks;
    char max_bytes[24];
    char algorithm[32];
    char width[24];
    char buffers[16];
    char wire[16];
    char gpu[96];
};

/* The next row that is no comment; 0 at the end. */
static int next_row(FILE *file, struct row *row)
{
    char line[512];

    while (fgets(line, sizeof(line), file)) {
        const int n = line[0] == '#'
                          ? 0
                          : sscanf(line, "%23s %d %23s %31s %23s %15s %15s %95s", row->op,
                                   &row->n_ranks, row->max_bytes, row->algorithm, row->width,
                                   row->buffers, row->wire, row->gpu);

        row->on_gpu = n == 8;
        if (n == 4 || n == 8)
            return 1;
    }
    return 0;
}

static void print_row(FILE *file, const struct row *row)
{
    fprintf(file, "%s %d %s %s", row->op, row->n_ranks, row->max_bytes, row->algorithm);
    if (row->on_gpu)
        fprintf(file, " %s %s %s %s", row->width, row->buffers, row->wire, row->gpu);
    fputc('\n', file);
}

static int is_about(const struct row *row, const struct tune_subject *subject)
{
    return strcmp(row->op, subject->op) == 0 && row->n_ranks == subject->n_ranks &&
           row->on_gpu == (subject->gpu != NULL) &&
           (!row->on_gpu || (strcmp(row->gpu, subject->gpu) == 0 &&
                             (strcmp(row->wire, subject->wire) == 0 ||
                              strcmp(row->wire, "any") == 0 || strcmp(subject->wire, "any") == 0)));
}

int tune_has_rows(const char *path, const struct tune_subject *subject)
{
    FILE *file = fopen(path, "re");
    struct row row;
    int found = 0;

    while (file && !found && next_row(file, &row))
        found = is_about(&row, subject);
    if (file)
        fclose(file);
    return found;
}

/* ---- the end ---- */

static void print_file(const char *path)
{
    static const char *const headings[] = {"collective", "ranks", "up to", "algorithm",
                                           "launch",     "for",   "wire",  "GPU"};
    struct row row = {0};
    struct table *table;
    FILE *file = fopen(path, "re");
    int on_gpu = 0;
    size_t bytes;
    char text[32];

    while (file && next_row(file, &row))
        on_gpu |= row.on_gpu;
    if (file)
        rewind(file);
    table = table_new(on_gpu ? 8 : 4, headings, on_gpu ? "lrrlrlll" : "lrrl");
    while (file && next_row(file, &row)) {
        table_cell(table, "%s", row.op);
        table_cell(table, "%d", row.n_ranks);
        if (cli_parse_bytes(row.max_bytes, &bytes) == 0)
            table_cell(table, "%s", cli_bytes_text(bytes, text, sizeof(text)));
        else
            table_cell(table, "any");
        table_cell(table, "%s", row.algorithm);
        if (!on_gpu)
            continue;
        table_cell(table, "%s", row.on_gpu ? row.width : "");
        table_cell(table, "%s", row.on_gpu ? row.buffers : "");
        table_cell(table, "%s", row.on_gpu ? row.wire : "");
        table_cell(table, "%s", row.on_gpu ? row.gpu : "host memory");
    }
    if (file)
        fclose(file);
    table_print(table, stdout);
    table_free(table);
}

/* Of the file that there was: what the new rows are not about. Rows of host memory go together, those
 * of GPUs by collective, ranks, GPU and wire. */
static void keep_old_rows(const char *old, const char *partial, FILE *to)
{
    FILE *file = fopen(old, "re");
    FILE *fresh = fopen(partial, "re");
    struct row first = {0};
    struct row row;
    int n = 0;

    if (!fresh || !next_row(fresh, &first))
        first.on_gpu = 0;
    while (file && next_row(file, &row)) {
        const struct tune_subject subject = {row.op, row.n_ranks, row.on_gpu ? row.gpu : NULL,
                                             row.wire};

        if (row.on_gpu ? tune_has_rows(partial, &subject) : !first.on_gpu)
            continue;
        if (n++ == 0)
            fprintf(to, "# kept from before\n");
        print_row(to, &row);
    }
    if (fresh)
        fclose(fresh);
    if (file)
        fclose(file);
}

/* Header, settings and rows of the partial file, then what is kept of the old one. */
static int write_whole(const char *partial, const char *path, const char *whole)
{
    FILE *from = fopen(partial, "re");
    FILE *to = fopen(whole, "we");
    char line[512];
    int failed = !from || !to;

    for (int i = 0; !failed && fgets(line, sizeof(line), from); i++) {
        fputs(line, to);
        if (i == 1)
            fprintf(to, "# op ranks max_bytes algorithm [blocksxthreads buffers wire gpu]\n");
    }
    if (!failed)
        keep_old_rows(path, partial, to);
    failed |= (from && ferror(from)) || (to && ferror(to));
    if (from)
        fclose(from);
    if (to && fclose(to) != 0)
        failed = 1;
    return failed ? -1 : 0;
}

int tune_finish_file(const char *partial, const char *path)
{
    char whole[640];
    char *absolute;

    snprintf(whole, sizeof(whole), "%s.new", path);
    if (write_whole(partial, path, whole) != 0)
        return cli_error("%s: %s", whole, strerror(errno));
    if (rename(whole, path) != 0)
        return cli_error("%s: %s", path, strerror(errno));
    unlink(partial);
    print_file(path);
    absolute = realpath(path, NULL);
    printf("\nWritten to %s. To use it:\n  export TUTTI_TUNE_FILE=%s\n"
           "(or config.tune_file in tutti_comm_create; rank 0's counts)\n",
           path, absolute ? absolute : path);
    free(absolute);
    return 0;
}

/* ---- the choice ---- */

/* The variant for each row: the fastest, but the one of the row before if it is nearly as fast.
 * Returns how many changes that makes. */
static int choose(const struct bench_report *report, double nearly, int *choice)
{
    const struct bench_shared *shared = report->board->shared;
    int n_changes = 0;

    for (int i = 0; i < report->plan->n_cells; i++) {
        const struct bench_result *results = report->board->rows[i].results;
        int best = -1;

        for (int v = 0; v < shared->n_variants; v++) {
            const int usable = results[v].state == BENCH_DONE &&
                               atomic_load(&results[v].wrong) == 0 &&
                               !tune_is_for_windows(shared->variant_names[v]);

            if (usable && (best < 0 || results[v].p50_us < results[best].p50_us))
                best = v;
        }
        choice[i] = best;
        if (i == 0)
            continue;
        if (best < 0 || (choice[i - 1] >= 0 && results[choice[i - 1]].state == BENCH_DONE &&
                         results[choice[i - 1]].p50_us <= results[best].p50_us * nearly))
            choice[i] = choice[i - 1];
        n_changes += choice[i] != choice[i - 1];
    }
    return n_changes;
}

/* Halfway, on the logarithmic scale, from one measured size to the next. */
static unsigned long long between(unsigned long long low, unsigned long long high)
{
    while (low * 4 <= high) {
        low *= 2;
        high /= 2;
    }
    return low * 2 <= high ? low * 3 / 2 : low;
}

int tune_write_rows(const struct bench_report *report, const char *path)
{
    const int n = report->plan->n_cells;
    const struct bench_row *rows = report->board->rows;
    const char *op = bench_traits[report->plan->cells[0].id].name;
    int *choice = cli_alloc((size_t)n * sizeof(*choice));
    double nearly = 1.03;
    FILE *file = fopen(path, "ae");
    int failed;

    while (choose(report, nearly, choice) >= MOST_ROWS)
        nearly *= 1.1;
    for (int i = 0; file && i < n; i++) {
        if (choice[i] < 0 || (i + 1 < n && choice[i + 1] == choice[i]))
            continue;
        if (i + 1 < n)
            fprintf(file, "%s %d %llu %s\n", op, report->plan->n_ranks,
                    between(rows[i].bytes, rows[i + 1].bytes),
                    report->board->shared->variant_names[choice[i]]);
        else
            fprintf(file, "%s %d inf %s\n", op, report->plan->n_ranks,
                    report->board->shared->variant_names[choice[i]]);
    }
    free(choice);
    failed = !file || ferror(file);
    if (file && fclose(file) != 0)
        failed = 1;
    return failed ? cli_error("%s: %s", path, strerror(errno)) : 0;
}

/* ---- on GPUs ---- */

static void print_choice(FILE *file, const struct tune_subject *subject, const char *buffers,
                         const struct tune_search *search, const struct tune_choice *choice)
{
    for (int i = 0, at = 0; i < choice->n; i++) {
        const struct tune_way *way = &choice->rows[i].way;
        struct row row = {.on_gpu = 1, .n_ranks = subject->n_ranks, .width = "auto"};

        while (search->sizes[at].bytes < choice->rows[i].max_bytes)
            at++;
        if (i + 1 < choice->n)
            snprintf(row.max_bytes, sizeof(row.max_bytes), "%llu",
                     between(search->sizes[at].bytes, search->sizes[at + 1].bytes));
        else
            snprintf(row.max_bytes, sizeof(row.max_bytes), "inf");
        if (way->n_blocks)
            snprintf(row.width, sizeof(row.width), "%dx%d", way->n_blocks, way->n_threads);
        snprintf(row.op, sizeof(row.op), "%s", subject->op);
        snprintf(row.algorithm, sizeof(row.algorithm), "%s", way->algorithm);
        snprintf(row.buffers, sizeof(row.buffers), "%s", buffers);
        snprintf(row.wire, sizeof(row.wire), "%s", subject->wire);
        snprintf(row.gpu, sizeof(row.gpu), "%s", subject->gpu);
        print_row(file, &row);
    }
}

static int has_results(const struct tune_search *search, int buffers)
{
    for (int i = 0; i < search->n_sizes; i++)
        for (int k = 0; k < search->sizes[i].trials[buffers].n; k++)
            if (search->sizes[i].trials[buffers].us[k] > 0)
                return 1;
    return 0;
}

int tune_write_gpu_rows(const struct tune_subject *subject, const struct tune_search *search,
                        const char *path)
{
    FILE *file = fopen(path, "ae");
    struct tune_choice choice;
    int failed;

    if (file) {
        tune_choose(search, TUNE_ORDINARY, &choice);
        print_choice(file, subject, tune_has_windows(search->id) ? "ordinary" : "any", search,
                     &choice);
    }
    if (file && has_results(search, TUNE_WINDOWS)) {
        tune_choose(search, TUNE_WINDOWS, &choice);
        print_choice(file, subject, "windows", search, &choice);
    }
    failed = !file || ferror(file);
    if (file && fclose(file) != 0)
        failed = 1;
    return failed ? cli_error("%s: %s", path, strerror(errno)) : 0;
}
