#include "bench.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

static void put_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text < 32)
            fprintf(out, "\\u%04x", (unsigned char)*text);
        else
            fputc(*text, out);
    }
    fputc('"', out);
}

static void put_field(FILE *out, const char *name, const char *text)
{
    fprintf(out, "\"%s\": ", name);
    put_text(out, text);
    fputs(", ", out);
}

static void put_gpus(FILE *out, const struct bench_report *report)
{
    const struct bench_options *o = report->options;
    const struct bench_shared *shared = report->board->shared;

    fprintf(out, "\n\"gpus\": %d, \"graph\": %s, ", o->n_gpus, o->graph ? "true" : "false");
    put_field(out, "gpu", shared->machine);
    put_field(out, "remark", shared->remark);
    fputs("\"create_ms\": {", out);
    for (int v = 0; v < shared->n_variants; v++) {
        fputs(v ? ", " : "", out);
        put_text(out, shared->variant_names[v]);
        fprintf(out, ": %.1f", shared->create_ms[v]);
    }
    fputs("}, ", out);
}

static const char cpu_method[] =
    "a sample is the time from the last arrival to the last completion over all ranks, with fresh "
    "data; interleaved blocks; microseconds; bytes is the larger side of a call; algbw is bytes / "
    "p50, busbw that times factor";
static const char clocks_method[] =
    "a sample is the time of the slowest rank, from a barrier on, with fresh data, since the hosts "
    "have clocks of their own; interleaved blocks; microseconds; bytes is the larger side of a "
    "call; algbw is bytes / p50, busbw that times factor";
static const char gpu_method[] =
    "a sample is the time between two events around 4 to 20 calls, divided by their number, of the "
    "slowest rank; all ranks begin together; columns in turn; microseconds; host_us: what issuing "
    "a "
    "call without a graph takes on the host; algbw is bytes / p50, busbw that times factor";

static void put_head(FILE *out, const struct bench_report *report)
{
    const uint32_t version = tutti_version();
    const struct bench_options *o = report->options;
    const struct bench_shared *shared = report->board->shared;
    const struct bench_job *job = report->board->job;
    const char *method = o->n_gpus ? gpu_method : cpu_method;
    const time_t now = time(NULL);
    struct tm tm;
    struct utsname system = {0};
    char text[128];

    uname(&system);
    gmtime_r(&now, &tm);
    fprintf(out, "{\n\"program\": \"tutti bench\", \"version\": \"%u.%u.%u\", ", version >> 16,
            version >> 8 & 255, version & 255);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    put_field(out, "date", text);
    fputs("\n\"machine\": {", out);
    put_field(out, "cpu", bench_cpu_name(text, sizeof(text)));
    put_field(out, "arch", system.machine);
    put_field(out, "kernel", system.release);
    fprintf(out, "\"cores\": %d, \"numa_nodes\": %d},\n", bench_n_cores(report),
            report->place->n_nodes);
    put_field(out, "engine", shared->engine);
    fprintf(out,
            "\"ranks\": %d, \"hosts\": %d, \"threads\": %d, \"in_place\": %s, "
            "\"end_to_end\": %s, \"crowded\": %s, ",
            o->n_ranks, job ? job->n_hosts : 1, o->n_threads, o->in_place ? "true" : "false",
            o->end_to_end ? "true" : "false", shared->crowded ? "true" : "false");
    put_field(out, "algorithm", o->algorithm ? o->algorithm : "");
    if (o->n_gpus)
        put_gpus(out, report);
    if (job && !job->has_one_clock && !o->n_gpus)
        method = clocks_method;
    fprintf(out, "\n\"method\": \"%s\",\n\"rows\": [\n", method);
}

static void put_result(FILE *out, const char *name, const struct bench_row *row,
                       const struct bench_result *r, double factor)
{
    const double algbw = r->p50_us > 0 ? (double)row->bytes / r->p50_us / 1e3 : 0;

    put_text(out, name);
    if (r->state != BENCH_DONE) {
        fputs(": null", out);
        return;
    }
    fputs(": {", out);
    if (r->host_us > 0)
        fprintf(out, "\"host_us\": %.3f, ", r->host_us);
    fprintf(out,
            "\"samples\": %u, \"min_us\": %.3f, \"p50_us\": %.3f, \"p99_us\": %.3f, "
            "\"algbw_GBps\": %.3f, \"busbw_GBps\": %.3f, \"checked\": %llu, \"wrong\": %llu}",
            r->n, r->min_us, r->p50_us, r->p99_us, algbw, algbw * factor,
            (unsigned long long)atomic_load(&r->checked),
            (unsigned long long)atomic_load(&r->wrong));
}

int bench_write_json(const struct bench_report *report, const char *path)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    const struct bench_shared *shared = report->board->shared;
    int failed;

    if (!out)
        return cli_error("--json %s: %s", path, strerror(errno));
    put_head(out, report);
    for (int i = 0; i < report->plan->n_cells; i++) {
        const struct bench_cell *cell = &report->plan->cells[i];
        const struct bench_row *row = &report->board->rows[i];
        const double factor = bench_busbw_factor(cell->id, report->plan->n_ranks);

        fprintf(out,
                "{\"collective\": \"%s\", \"bytes\": %llu, \"count\": %llu, \"type\": \"%s\", "
                "\"op\": \"%s\", \"factor\": %.4f, \"us\": {",
                bench_traits[cell->id].name, (unsigned long long)row->bytes,
                (unsigned long long)row->count, tutti_dtype_name(cell->dtype),
                bench_traits[cell->id].reduces ? tutti_op_name(cell->op) : "", factor);
        for (int v = 0; v < shared->n_variants; v++) {
            if (v)
                fputs(",\n  ", out);
            put_result(out, shared->variant_names[v], row, &row->results[v], factor);
        }
        fprintf(out, "}}%s\n", i + 1 < report->plan->n_cells ? "," : "");
    }
    fputs("]\n}\n", out);
    if (out == stdout) /* whose end is looked after */
        return 0;
    failed = ferror(out);
    return fclose(out) != 0 || failed ? cli_error("--json %s: %s", path, strerror(errno)) : 0;
}
