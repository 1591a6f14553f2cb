/* What the two ways to draw have in common. */
#ifndef TUTTI_TOOLS_BENCH_PLOT_H
#define TUTTI_TOOLS_BENCH_PLOT_H

#include "bench.h"

#define PLOT_MAX_PANELS 48
#define PLOT_N_COLOURS  6

struct plot_panel {
    int first; /* cell */
    int n;
};

extern const char *const plot_colours[PLOT_N_COLOURS];

int plot_panels(const struct bench_report *report, struct plot_panel *panels);
const char *plot_variant_name(const struct bench_report *report, int v); /* until the next call */
/* Before the measurement: 0, or an exit status after a message. */
int plot_check_png(const char *path);
int plot_write_png(const struct bench_report *report, const char *path);

#endif
