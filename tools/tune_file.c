#include "table.h"
#include "tune.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    char cpu[128];
    char want[400];
    char line[400];
    FILE *file = fresh ? NULL : fopen(path, "re");
    int same = 0;

    snprintf(want, sizeof(want), "# %s, %s\n", bench_cpu_name(cpu, sizeof(cpu)), settings);
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
    fprintf(file, HEADER "%s# op ranks max_bytes algorithm\n", want);
    return fclose(file) == 0 ? 0 : cli_error("%s: %s", path, strerror(errno));
}

struct row {
    char op[24];
    int n_ranks;
    char max_bytes[24];
    char algorithm[32];
};

/* The next row that is no comment; 0 at the end. */
static int next_row(FILE *file, struct row *row)
{
    char line[256];

    while (fgets(line, sizeof(line), file))
        if (line[0] != '#' && sscanf(line, "%23s %d %23s %31s", row->op, &row->n_ranks,
                                     row->max_bytes, row->algorithm) == 4)
            return 1;
    return 0;
}

int tune_has_rows(const char *path, const char *op, int n_ranks)
{
    FILE *file = fopen(path, "re");
    struct row row;
    int found = 0;

    while (file && !found && next_row(file, &row))
        found = strcmp(row.op, op) == 0 && row.n_ranks == n_ranks;
    if (file)
        fclose(file);
    return found;
}

void tune_print_file(const char *path)
{
    static const char *const headings[] = {"collective", "ranks", "up to", "algorithm"};
    struct table *table = table_new(4, headings, "lrrl");
    FILE *file = fopen(path, "re");
    struct row row;
    size_t bytes;
    char text[32];

    while (file && next_row(file, &row)) {
        table_cell(table, "%s", row.op);
        table_cell(table, "%d", row.n_ranks);
        if (cli_parse_bytes(row.max_bytes, &bytes) == 0)
            table_cell(table, "%s", cli_bytes_text(bytes, text, sizeof(text)));
        else
            table_cell(table, "any");
        table_cell(table, "%s", row.algorithm);
    }
    if (file)
        fclose(file);
    table_print(table, stdout);
    table_free(table);
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
