/* The same plot as a bitmap, drawn by gnuplot, which reads script and data from a pipe. */
#include "bench_plot.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int no_gnuplot(const char *path)
{
    return cli_error("--plot %s: PNG needs gnuplot (apt-get install gnuplot-nox); a name that ends "
                     "in .svg needs nothing",
                     path);
}

/* As execlp() looks for it. */
static int has_gnuplot(void)
{
    const char *folders = getenv("PATH");
    char path[4200];

    for (const char *at = folders ? folders : "/bin:/usr/bin"; *at;) {
        const size_t n = strcspn(at, ":");

        snprintf(path, sizeof(path), "%.*s/gnuplot", (int)n, at);
        if (access(path, X_OK) == 0)
            return 1;
        at += n + (at[n] == ':');
    }
    return 0;
}

int plot_check_png(const char *path)
{
    if (strchr(path, '\''))
        return cli_error("--plot %s: no quotes in the name, please", path);
    return has_gnuplot() ? 0 : no_gnuplot(path);
}

/* A gnuplot whose standard input is *out; 0 on success. */
static pid_t start_gnuplot(FILE **out)
{
    int ends[2];
    pid_t pid;

    if (pipe(ends) != 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        dup2(ends[0], STDIN_FILENO);
        close(ends[0]);
        close(ends[1]);
        execlp("gnuplot", "gnuplot", "-", (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    *out = pid > 0 ? fdopen(ends[1], "w") : NULL;
    return *out ? pid : -1;
}

static void put_data(FILE *out, const struct bench_report *report, const struct plot_panel *panel)
{
    for (int v = 0; v < report->board->shared->n_variants; v++) {
        fprintf(out, "$series%d << EOD\n", v);
        for (int i = panel->first; i < panel->first + panel->n; i++) {
            const struct bench_row *row = &report->board->rows[i];

            if (row->results[v].state == BENCH_DONE)
                fprintf(out, "%llu %.3f\n", (unsigned long long)row->bytes, row->results[v].p50_us);
        }
        fprintf(out, "EOD\n");
    }
}

static void put_panel(FILE *out, const struct bench_report *report, const struct plot_panel *panel)
{
    const struct bench_cell *cell = &report->plan->cells[panel->first];
    const int n = report->board->shared->n_variants;

    put_data(out, report, panel);
    fprintf(out, "set title '%s %s' noenhanced\n", bench_traits[cell->id].name,
            tutti_dtype_name(cell->dtype));
    fprintf(out, "plot ");
    for (int v = 0; v < n; v++)
        fprintf(out,
                "$series%d using 1:2 with linespoints lw 2 pt 7 ps 0.7 lc rgb '%s' title '%s'%s", v,
                plot_colours[v % PLOT_N_COLOURS], plot_variant_name(report, v),
                v + 1 < n ? ", " : "\n");
}

int plot_write_png(const struct bench_report *report, const char *path)
{
    struct plot_panel panels[PLOT_MAX_PANELS];
    const int n = plot_panels(report, panels);
    const int columns = n < 2 ? 1 : n <= 4 ? 2 : 3;
    const int rows = (n + columns - 1) / columns;
    FILE *out = NULL;
    pid_t pid;
    int status = 0;

    signal(SIGPIPE, SIG_IGN);
    pid = start_gnuplot(&out);
    if (pid < 0)
        return cli_error("--plot %s: %s", path, strerror(errno));
    fprintf(out,
            "set terminal pngcairo size %d,%d font 'sans,10'\nset output '%s'\n"
            "set logscale xy\nset format x '%%.0b %%B'\nset grid\nset key top left\n"
            "set xlabel 'bytes'\nset ylabel 'microseconds'\nset multiplot layout %d,%d\n",
            columns * 560, rows * 400, path, rows, columns);
    for (int p = 0; p < n; p++)
        put_panel(out, report, &panels[p]);
    fprintf(out, "unset multiplot\n");
    fclose(out);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return no_gnuplot(path);
    return status == 0 ? 0 : cli_error("--plot %s: gnuplot failed", path);
}
