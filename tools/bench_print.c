/* The table, as people know it from nccl-tests, with p50 and p99. */
#include "gpu_bench.h"

#include <string.h>
#include <unistd.h>

static int progress_shown;

/* JSON on standard output has it for itself. */
static int is_quiet(const struct bench_options *o)
{
    return o->json && strcmp(o->json, "-") == 0;
}

const char *bench_cpu_name(char *text, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];

    snprintf(text, size, "unknown CPU");
    while (file && fgets(line, sizeof(line), file)) {
        const char *colon = strchr(line, ':');

        if (!colon || (strncmp(line, "model name", 10) != 0 && strncmp(line, "Model", 5) != 0))
            continue;
        snprintf(text, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file)
        fclose(file);
    return text;
}

/* The peer, and each of many, is shown without GB/s. */
static int is_narrow(const struct bench_report *report, int v)
{
    const struct bench_shared *shared = report->board->shared;

    return shared->n_variants > 3 || v >= shared->n_variants - shared->n_peers;
}

/* Of this machine, for ranks that a launcher has bound to some. */
int bench_n_cores(const struct bench_report *report)
{
    return report->board->job ? (int)sysconf(_SC_NPROCESSORS_ONLN) : report->place->n_cores;
}

/* "4 ranks on 2 cores", "4 ranks on 2 hosts, rank 0's with 2 cores" */
static void print_ranks(const struct bench_report *report)
{
    const struct bench_options *o = report->options;
    const struct bench_job *job = report->board->job;
    const int n_cores = bench_n_cores(report);
    char cpu[128];

    printf("%d ranks", o->n_ranks);
    if (o->n_threads > 1)
        printf(" of %d threads", o->n_threads);
    if (job && job->n_hosts > 1)
        printf(" on %d hosts, rank 0's with", job->n_hosts);
    else
        printf(" on");
    printf(" %d %s (%s)", n_cores, n_cores == 1 ? "core" : "cores",
           bench_cpu_name(cpu, sizeof(cpu)));
}

static const char *sample_text(const struct bench_report *report)
{
    const struct bench_job *job = report->board->job;

    if (report->options->end_to_end)
        return job && !job->has_one_clock
                   ? "fill + call + read of the result, of the slowest rank, from a barrier on"
                   : "fill + call + read of the result, last arrival to last completion";
    return job && !job->has_one_clock
               ? "of the slowest rank, from a barrier on, fresh data"
               : "from the last rank's arrival to the last one's completion, fresh data";
}

void bench_print_head(const struct bench_report *report)
{
    const struct bench_options *o = report->options;
    const uint32_t version = tutti_version();

    if (is_quiet(o))
        return;
    if (o->csv) {
        printf("collective,bytes,count,type,op,variant,samples,min_us,p50_us,p99_us,algbw_GBps,"
               "busbw_GBps,checked,wrong\n");
        return;
    }
    if (o->n_gpus) {
        gpu_print_head(report);
        return;
    }
    printf("# tutti %u.%u.%u bench: ", version >> 16, version >> 8 & 255, version & 255);
    print_ranks(report);
    printf("%s%s\n", o->in_place ? ", in place" : "", o->algorithm ? ", forced algorithm" : "");
    printf("# engine %s\n", report->board->shared->engine);
    if (report->board->shared->crowded)
        printf("# ranks share cores: the times show that it works, not how fast it is\n");
    printf("# us: %s; medians and 99th percentiles of interleaved blocks\n", sample_text(report));
    printf("# GB/s: bytes / p50, and that times the busbw factor in brackets; every element is "
           "checked\n");
}

static void print_names(const struct bench_report *report)
{
    const struct bench_shared *shared = report->board->shared;

    printf("# %9s %10s %5s %5s", "", "", "", "");
    for (int v = 0; v < shared->n_variants; v++)
        printf(" | %-*.*s", is_narrow(report, v) ? 17 : 33, is_narrow(report, v) ? 17 : 33,
               shared->variant_names[v]);
    if (report->options->against)
        printf(" | %-*s", 11 * (shared->n_variants - 1) - 1, "times faster");
    printf(" |\n");
}

static void print_columns(const struct bench_report *report, enum bench_id id)
{
    const struct bench_shared *shared = report->board->shared;
    const double factor = bench_busbw_factor(id, report->plan->n_ranks);

    printf("#\n# %s", bench_traits[id].name);
    if (factor > 0)
        printf(" [busbw = algbw x %.2f]", factor);
    printf("\n");
    print_names(report);
    printf("# %9s %10s %5s %5s", "bytes", "count", "type", "op");
    for (int v = 0; v < shared->n_variants; v++) {
        printf(" | %8s %8s", "p50 us", "p99 us");
        if (!is_narrow(report, v))
            printf(" %7s %7s", "algbw", "busbw");
    }
    if (report->options->against) {
        printf(" |");
        for (int v = 0; v + 1 < shared->n_variants; v++)
            printf(" %10.10s", shared->variant_names[v]);
    }
    printf(" | %6s\n", "#wrong");
}

static void print_us(double us)
{
    printf(us < 100 ? " %8.2f" : " %8.1f", us);
}

static uint64_t wrong_in(const struct bench_report *report, const struct bench_row *row)
{
    uint64_t wrong = 0;

    for (int v = 0; v < report->board->shared->n_variants; v++)
        wrong += atomic_load(&row->results[v].wrong);
    return wrong;
}

static void print_ratios(const struct bench_report *report, const struct bench_row *row)
{
    const int n = report->board->shared->n_variants;
    const struct bench_result *peer = &row->results[n - 1];

    printf(" |");
    for (int v = 0; v + 1 < n; v++) {
        if (peer->state == BENCH_DONE && row->results[v].state == BENCH_DONE &&
            row->results[v].p50_us > 0)
            printf(" %9.2fx", peer->p50_us / row->results[v].p50_us);
        else
            printf(" %10s", "-");
    }
}

static void print_csv(const struct bench_report *report, int index)
{
    const struct bench_cell *cell = &report->plan->cells[index];
    const struct bench_row *row = &report->board->rows[index];
    const double factor = bench_busbw_factor(cell->id, report->plan->n_ranks);

    for (int v = 0; v < report->board->shared->n_variants; v++) {
        const struct bench_result *r = &row->results[v];
        const double algbw = r->p50_us > 0 ? (double)row->bytes / r->p50_us / 1e3 : 0;

        if (r->state != BENCH_DONE)
            continue;
        printf("%s,%llu,%llu,%s,%s,%s,%u,%.3f,%.3f,%.3f,%.3f,%.3f,%llu,%llu\n",
               bench_traits[cell->id].name, (unsigned long long)row->bytes,
               (unsigned long long)row->count, tutti_dtype_name(cell->dtype),
               bench_traits[cell->id].reduces ? tutti_op_name(cell->op) : "",
               report->board->shared->variant_names[v], r->n, r->min_us, r->p50_us, r->p99_us,
               algbw, algbw * factor, (unsigned long long)atomic_load(&r->checked),
               (unsigned long long)atomic_load(&r->wrong));
    }
}

void bench_print_row(const struct bench_report *report, int index)
{
    const struct bench_cell *cell = &report->plan->cells[index];
    const struct bench_row *row = &report->board->rows[index];
    const double factor = bench_busbw_factor(cell->id, report->plan->n_ranks);
    const uint64_t wrong = wrong_in(report, row);

    bench_clear_progress();
    if (is_quiet(report->options))
        return;
    if (report->options->csv) {
        print_csv(report, index);
        return;
    }
    if (report->options->n_gpus) {
        gpu_print_row(report, index);
        return;
    }
    if (index == 0 || cell[-1].id != cell->id)
        print_columns(report, cell->id);
    printf("%11llu %10llu %5s %5s", (unsigned long long)row->bytes, (unsigned long long)row->count,
           cell->id == BENCH_BARRIER ? "-" : tutti_dtype_name(cell->dtype),
           bench_traits[cell->id].reduces ? tutti_op_name(cell->op) : "-");
    for (int v = 0; v < report->board->shared->n_variants; v++) {
        const struct bench_result *r = &row->results[v];
        const double algbw = r->p50_us > 0 ? (double)row->bytes / r->p50_us / 1e3 : 0;

        printf(" |");
        if (r->state != BENCH_DONE) {
            printf(" %8s %8s", "-", "-");
            if (!is_narrow(report, v))
                printf(" %7s %7s", "-", "-");
            continue;
        }
        print_us(r->p50_us);
        print_us(r->p99_us);
        if (!is_narrow(report, v))
            printf(" %7.2f %7.2f", algbw, algbw * factor);
    }
    if (report->options->against)
        print_ratios(report, row);
    printf(" | %6llu%s\n", (unsigned long long)wrong, wrong ? "  <- WRONG" : "");
    cli_flush();
}

void bench_print_progress(const struct bench_report *report, int n_done, double elapsed)
{
    const struct bench_plan *plan = report->plan;
    const struct bench_cell *cell =
        &plan->cells[n_done < plan->n_cells ? n_done : plan->n_cells - 1];
    const double share = (double)n_done / plan->n_cells;
    char bytes[32];

    if (!cli_is_terminal(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K[%3.0f%%] %s %s %s", share * 100, bench_traits[cell->id].name,
            tutti_dtype_name(cell->dtype), cli_bytes_text(cell->bytes, bytes, sizeof(bytes)));
    if (n_done > 3)
        fprintf(stderr, ", about %.0f s left", elapsed / share - elapsed);
    progress_shown = 1;
}

void bench_clear_progress(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = 0;
}

void bench_print_end(const struct bench_report *report, struct bench_totals *totals)
{
    memset(totals, 0, sizeof(*totals));
    bench_clear_progress();
    for (int i = 0; i < report->plan->n_cells; i++) {
        for (int v = 0; v < report->board->shared->n_variants; v++) {
            const struct bench_result *r = &report->board->rows[i].results[v];
            const uint64_t wrong = atomic_load(&r->wrong);

            if (r->state != BENCH_DONE)
                continue;
            totals->n_results++;
            totals->n_wrong += wrong > 0;
            totals->n_checked += atomic_load(&r->checked);
            if (wrong)
                fprintf(stderr, "wrong: %s %s, %llu bytes, %s: %s\n",
                        bench_traits[report->plan->cells[i].id].name,
                        tutti_dtype_name(report->plan->cells[i].dtype),
                        (unsigned long long)report->board->rows[i].bytes,
                        report->board->shared->variant_names[v], r->note);
        }
    }
    if (report->options->csv || is_quiet(report->options))
        return;
    printf("#\n# %llu elements compared with what they must be\n%llu results, %llu wrong\n",
           (unsigned long long)totals->n_checked, (unsigned long long)totals->n_results,
           (unsigned long long)totals->n_wrong);
    cli_flush();
}
