/* The table of a run on GPUs. */
#include "gpu_bench.h"

#include <string.h>

void gpu_print_head(const struct bench_report *report)
{
    const struct bench_options *o = report->options;
    const struct bench_shared *shared = report->board->shared;
    const uint32_t version = tutti_version();
    const struct bench_job *job = report->board->job;
    const char *line = shared->remark;

    printf("# tutti %u.%u.%u bench: %d ranks on ", version >> 16, version >> 8 & 255, version & 255,
           o->n_ranks);
    if (job && job->n_hosts > 1)
        printf("%d hosts, rank 0's machine with ", job->n_hosts);
    printf("%s%s%s%s\n", shared->machine, o->graph ? ", in a graph" : "",
           o->in_place ? ", in place" : "", o->algorithm ? ", forced algorithm" : "");
    printf("# engine %s\n", shared->engine);
    while (*line) {
        const size_t n = strcspn(line, "\n");

        printf("# %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
    printf("# created in:");
    for (int v = 0; v < shared->n_variants; v++)
        printf("%s %s %.0f ms", v ? "," : "", shared->variant_names[v], shared->create_ms[v]);
    printf("\n# us: %s / their number, slowest rank; columns in turn; "
           "medians and 99th percentiles\n",
           o->graph ? "a graph of 4 to 20 calls" : "4 to 20 calls one after the other");
    printf("# host: what issuing a call takes without a graph. busbw: GB/s, bytes / p50 times the "
           "factor in brackets. Every element is checked\n");
}

static int n_own(const struct bench_report *report)
{
    return report->board->shared->n_variants - report->board->shared->n_peers;
}

static void print_columns(const struct bench_report *report, enum bench_id id)
{
    const struct bench_shared *shared = report->board->shared;
    const double factor = bench_busbw_factor(id, report->plan->n_ranks);
    const int n = shared->n_variants;

    printf("#\n# %s", bench_traits[id].name);
    if (factor > 0)
        printf(" [busbw = algbw x %.2f]", factor);
    printf("\n# %9s %10s %5s %5s", "", "", "", "");
    for (int v = 0; v < n; v++)
        printf(" | %-32.32s", shared->variant_names[v]);
    if (shared->n_peers)
        printf(" | %-*s", 11 * n_own(report) - 1, "times faster");
    printf(" |\n# %9s %10s %5s %5s", "bytes", "count", "type", "op");
    for (int v = 0; v < n; v++)
        printf(" | %8s %8s %7s %6s", "p50 us", "p99 us", "busbw", "host");
    if (shared->n_peers) {
        printf(" |");
        for (int v = 0; v < n_own(report); v++)
            printf(" %10.10s", shared->variant_names[v]);
    }
    printf(" | %6s\n", "#wrong");
}

static void print_us(double us)
{
    printf(us < 100 ? " %8.2f" : " %8.1f", us);
}

/* Against the fastest of the peers. */
static void print_ratios(const struct bench_report *report, const struct bench_row *row)
{
    const int n = report->board->shared->n_variants;
    double best = 0;

    for (int v = n_own(report); v < n; v++)
        if (row->results[v].state == BENCH_DONE && (best <= 0 || row->results[v].p50_us < best))
            best = row->results[v].p50_us;
    printf(" |");
    for (int v = 0; v < n_own(report); v++) {
        if (best > 0 && row->results[v].state == BENCH_DONE && row->results[v].p50_us > 0)
            printf(" %9.2fx", best / row->results[v].p50_us);
        else
            printf(" %10s", "-");
    }
}

/* Why tutti has no figure. */
static void print_notes(const struct bench_report *report, const struct bench_row *row)
{
    const struct bench_shared *shared = report->board->shared;

    for (int v = 0; v < n_own(report); v++)
        if (row->results[v].state == BENCH_NOT_AVAILABLE && row->results[v].note[0])
            printf("# %s: %s\n", shared->variant_names[v], row->results[v].note);
}

void gpu_print_row(const struct bench_report *report, int index)
{
    const struct bench_shared *shared = report->board->shared;
    const struct bench_cell *cell = &report->plan->cells[index];
    const struct bench_row *row = &report->board->rows[index];
    const double factor = bench_busbw_factor(cell->id, report->plan->n_ranks);
    uint64_t wrong = 0;

    if (index == 0 || cell[-1].id != cell->id)
        print_columns(report, cell->id);
    printf("%11llu %10llu %5s %5s", (unsigned long long)row->bytes, (unsigned long long)row->count,
           cell->id == BENCH_BARRIER ? "-" : tutti_dtype_name(cell->dtype),
           bench_traits[cell->id].reduces ? tutti_op_name(cell->op) : "-");
    for (int v = 0; v < shared->n_variants; v++) {
        const struct bench_result *r = &row->results[v];
        const double algbw = r->p50_us > 0 ? (double)row->bytes / r->p50_us / 1e3 : 0;
        const double busbw = algbw * factor;

        wrong += atomic_load(&r->wrong);
        if (r->state != BENCH_DONE) {
            printf(" | %8s %8s %7s %6s", "-", "-", "-", "-");
            continue;
        }
        printf(" |");
        print_us(r->p50_us);
        print_us(r->p99_us);
        printf(busbw < 10 ? " %7.2f" : " %7.1f", busbw);
        printf(" %6.2f", r->host_us);
    }
    if (shared->n_peers)
        print_ratios(report, row);
    printf(" | %6llu%s\n", (unsigned long long)wrong, wrong ? "  <- WRONG" : "");
    print_notes(report, row);
    cli_flush();
}
