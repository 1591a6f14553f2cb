/*
 * Latency over size, both logarithmic: a panel for each collective and dtype, a line for each variant.
 * SVG is written here; PNG goes by way of gnuplot.
 */
#include "bench.h"
#include "bench_plot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PANEL_WIDTH  420.0 /* at least */
#define PANEL_HEIGHT 300.0
#define LEFT         58.0
#define RIGHT        14.0
#define TOP          40.0
#define BOTTOM       40.0
#define HEAD         64.0

const char *const plot_colours[PLOT_N_COLOURS] = {"#c2410c", "#0f766e", "#475569",
                                                  "#7c3aed", "#b45309", "#2563eb"};

/* log2 without libm's precision: panels are some hundred pixels wide */
static double log_2(double x)
{
    double whole = 0;
    double fraction = 0;
    double step = 0.5;

    while (x >= 2) {
        x /= 2;
        whole++;
    }
    while (x < 1) {
        x *= 2;
        whole--;
    }
    for (int i = 0; i < 20; i++) {
        x *= x;
        if (x >= 2) {
            fraction += step;
            x /= 2;
        }
        step /= 2;
    }
    return whole + fraction;
}

int plot_panels(const struct bench_report *report, struct plot_panel *panels)
{
    const struct bench_plan *plan = report->plan;
    int n = 0;

    panels[0].n = 0;
    for (int i = 0; i < plan->n_cells && n < PLOT_MAX_PANELS; i++) {
        const struct bench_cell *cell = &plan->cells[i];
        const struct bench_cell *before = i ? cell - 1 : NULL;

        if (cell->id == BENCH_BARRIER)
            continue;
        if (n == 0 || !before || before->id != cell->id || before->dtype != cell->dtype ||
            before->op != cell->op) {
            panels[n].first = i;
            panels[n++].n = 0;
        }
        panels[n - 1].n++;
    }
    return n;
}

struct axes {
    double x0, x1;           /* log2 of bytes */
    double y0, y1;           /* log2 of us */
    double left, top, width; /* of the panel */
};

static double at_x(const struct axes *a, double bytes)
{
    const double width = a->width - LEFT - RIGHT;

    return a->left + LEFT + (log_2(bytes) - a->x0) / (a->x1 - a->x0) * width;
}

static double at_y(const struct axes *a, double us)
{
    const double height = PANEL_HEIGHT - TOP - BOTTOM;

    return a->top + TOP + height - (log_2(us) - a->y0) / (a->y1 - a->y0) * height;
}

static void find_range(const struct bench_report *report, const struct plot_panel *panel,
                       struct axes *axes)
{
    double least = 1e18;
    double most = 0;

    for (int i = panel->first; i < panel->first + panel->n; i++) {
        for (int v = 0; v < report->board->shared->n_variants; v++) {
            const struct bench_result *r = &report->board->rows[i].results[v];

            if (r->state != BENCH_DONE || r->p50_us <= 0)
                continue;
            least = r->p50_us < least ? r->p50_us : least;
            most = r->p50_us > most ? r->p50_us : most;
        }
    }
    if (most <= 0)
        least = most = 1;
    axes->x0 = log_2((double)report->board->rows[panel->first].bytes + 1e-9) - 0.3;
    axes->x1 = log_2((double)report->board->rows[panel->first + panel->n - 1].bytes) + 0.3;
    axes->y0 = log_2(least * 0.7);
    axes->y1 = log_2(most * 1.5);
}

static void put_grid(FILE *out, const struct axes *a)
{
    const double right = a->left + a->width - RIGHT;
    const double bottom = a->top + PANEL_HEIGHT - BOTTOM;
    const int every = a->x1 - a->x0 > 14 ? 4 : 2;
    double us = 0.001;
    char text[32];

    for (int decade = 0; decade < 12; decade++) {
        us *= 10;
        if (log_2(us) < a->y0 || log_2(us) > a->y1)
            continue;
        fprintf(out, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>", a->left + LEFT, at_y(a, us),
                right);
        fprintf(out, "<text class=\"t\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">%g</text>\n",
                a->left + LEFT - 6, at_y(a, us) + 4, us);
    }
    for (int e = 0; e < 48; e += every) {
        const double bytes = (double)(1ull << e);

        if (e < a->x0 || e > a->x1)
            continue;
        fprintf(out, "<path class=\"g\" d=\"M%.1f %.1fV%.1f\"/>", at_x(a, bytes), a->top + TOP,
                bottom);
        fprintf(out, "<text class=\"t\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                at_x(a, bytes), bottom + 16, cli_bytes_text((size_t)bytes, text, sizeof(text)));
    }
    fprintf(out, "<rect class=\"b\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
            a->left + LEFT, a->top + TOP, a->width - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM);
    fprintf(out,
            "<text class=\"t\" transform=\"translate(%.1f %.1f) rotate(-90)\" "
            "text-anchor=\"middle\">microseconds</text>\n",
            a->left + 14, a->top + TOP + (PANEL_HEIGHT - TOP - BOTTOM) / 2);
}

static void put_series(FILE *out, const struct bench_report *report, const struct plot_panel *panel,
                       const struct axes *axes, int v)
{
    const char *colour = plot_colours[v % PLOT_N_COLOURS];
    int begun = 0;

    fprintf(out, "<path class=\"l\" stroke=\"%s\" d=\"", colour);
    for (int i = panel->first; i < panel->first + panel->n; i++) {
        const struct bench_row *row = &report->board->rows[i];

        if (row->results[v].state != BENCH_DONE || row->results[v].p50_us <= 0)
            continue;
        fprintf(out, "%c%.1f %.1f", begun ? 'L' : 'M', at_x(axes, (double)row->bytes),
                at_y(axes, row->results[v].p50_us));
        begun = 1;
    }
    fputs("\"/>", out);
    for (int i = panel->first; i < panel->first + panel->n; i++) {
        const struct bench_row *row = &report->board->rows[i];

        if (row->results[v].state != BENCH_DONE || row->results[v].p50_us <= 0)
            continue;
        fprintf(out,
                "<circle fill=\"%s\" r=\"2.6\" cx=\"%.1f\" cy=\"%.1f\"><title>%s, %llu bytes: %.2f "
                "us (p99 %.2f)</title></circle>\n",
                colour, at_x(axes, (double)row->bytes), at_y(axes, row->results[v].p50_us),
                plot_variant_name(report, v), (unsigned long long)row->bytes,
                row->results[v].p50_us, row->results[v].p99_us);
    }
}

/* What a line of the legend takes: a stroke, the name, and room to the next. */
static double legend_width(const char *name)
{
    return 28 + 7.5 * (double)strlen(name) + 24;
}

/* Wide enough for the panels, and for the title and the legend above them. */
static double plot_width(const struct bench_report *report, int columns)
{
    double width = 16;

    for (int v = 0; v < report->board->shared->n_variants; v++)
        width += legend_width(plot_variant_name(report, v));
    width = width < 560 ? 560 : width;
    return width < PANEL_WIDTH * columns ? PANEL_WIDTH * columns : width;
}

static void put_head(FILE *out, const struct bench_report *report, double width, double height)
{
    const char *machine = report->board->shared->machine;
    double x = 16;
    char cpu[128];

    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
            "viewBox=\"0 0 %.0f %.0f\" font-family=\"system-ui,Helvetica,Arial,sans-serif\">\n"
            "<style>.t{font-size:11px;fill:#444}.h{font-size:14px;font-weight:600;fill:#111}"
            ".g{stroke:#e5e5e5;fill:none}.b{stroke:#999;fill:none}.l{fill:none;stroke-width:2}"
            "</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            width, height, width, height);
    fprintf(out,
            "<text class=\"h\" x=\"16\" y=\"24\">%d ranks, %s: median time of a call%s</text>\n",
            report->plan->n_ranks, machine[0] ? machine : bench_cpu_name(cpu, sizeof(cpu)),
            report->options->in_place ? ", in place" : "");
    for (int v = 0; v < report->board->shared->n_variants; v++) {
        const char *name = plot_variant_name(report, v);

        fprintf(out, "<path class=\"l\" stroke=\"%s\" d=\"M%.0f 44h22\"/>",
                plot_colours[v % PLOT_N_COLOURS], x);
        fprintf(out, "<text class=\"t\" style=\"font-size:13px\" x=\"%.0f\" y=\"48\">%s</text>\n",
                x + 28, name);
        x += legend_width(name);
    }
}

const char *plot_variant_name(const struct bench_report *report, int v)
{
    static char name[64];
    const char *own = report->board->shared->variant_names[v];
    const struct bench_shared *shared = report->board->shared;
    const int peer = v >= shared->n_variants - shared->n_peers;

    snprintf(name, sizeof(name), "%s%s", peer ? "" : "tutti, ", own);
    if (!peer)
        cli_append(name, sizeof(name), " buffers");
    return name;
}

static int write_svg(const struct bench_report *report, const char *path)
{
    struct plot_panel panels[PLOT_MAX_PANELS];
    const int n = plot_panels(report, panels);
    const int columns = n < 2 ? 1 : n <= 4 ? 2 : 3;
    const int rows = (n + columns - 1) / columns;
    const double width = plot_width(report, columns);
    FILE *out = fopen(path, "we");
    int failed;

    if (!out)
        return cli_error("--plot %s: %s", path, strerror(errno));
    put_head(out, report, width, HEAD + PANEL_HEIGHT * rows);
    for (int p = 0; p < n; p++) {
        const struct bench_cell *cell = &report->plan->cells[panels[p].first];
        const int row = p / columns;
        struct axes axes;

        find_range(report, &panels[p], &axes);
        axes.width = width / columns;
        axes.left = p % columns * axes.width;
        axes.top = HEAD + row * PANEL_HEIGHT;
        fprintf(out, "<text class=\"h\" x=\"%.1f\" y=\"%.1f\">%s %s %s</text>\n", axes.left + LEFT,
                axes.top + TOP - 10, bench_traits[cell->id].name, tutti_dtype_name(cell->dtype),
                bench_traits[cell->id].reduces ? tutti_op_name(cell->op) : "");
        put_grid(out, &axes);
        for (int v = 0; v < report->board->shared->n_variants; v++)
            put_series(out, report, &panels[p], &axes, v);
    }
    fputs("</svg>\n", out);
    failed = ferror(out);
    return fclose(out) == 0 && !failed ? 0 : cli_error("--plot %s: %s", path, strerror(errno));
}

int bench_write_plot(const struct bench_report *report, const char *path)
{
    const char *dot = strrchr(path, '.');

    if (dot && strcmp(dot, ".png") == 0)
        return plot_write_png(report, path);
    return write_svg(report, path);
}
