/* Which launches of a collective to try on GPUs, and which to keep. Pure: no clock, no GPU. */
#include "tune.h"

#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 512
#define MIN_THREADS 64
#define VECTOR      16 /* bytes that a thread handles at a time */

/* Above that they are never the fastest: they send everything to everybody, or half as fast. */
#define ONE_SHOT_REDUCES_TO ((size_t)8 << 20)
#define ONE_SHOT_MOVES_TO   ((size_t)2 << 20)

static int same(const struct tune_way *a, const struct tune_way *b)
{
    return strcmp(a->algorithm, b->algorithm) == 0 && a->n_blocks == b->n_blocks &&
           a->n_threads == b->n_threads;
}

static int find(const struct tune_trials *trials, const struct tune_way *way)
{
    for (int i = 0; i < trials->n; i++)
        if (same(&trials->ways[i], way))
            return i;
    return -1;
}

static void add(struct tune_trials *trials, struct tune_way way)
{
    if (trials->n < TUNE_MAX_WAYS && find(trials, &way) < 0)
        trials->ways[trials->n++] = way;
}

static void add_width(const struct tune_search *search, struct tune_trials *trials,
                      const char *algorithm, int n_blocks, int n_threads)
{
    if (n_blocks > search->max_blocks)
        n_blocks = search->max_blocks;
    if (n_blocks >= 1 && n_threads >= MIN_THREADS && n_threads <= MAX_THREADS)
        add(trials, (struct tune_way){algorithm, n_blocks, n_threads});
}

int tune_has_windows(enum bench_id id)
{
    return id != BENCH_REDUCE && id != BENCH_GATHER && id != BENCH_SCATTER;
}

/* ---- the coarse net ---- */

/* From few threads to all, as far as they have something to do. */
static void add_net(const struct tune_search *search, struct tune_trials *trials,
                    const char *algorithm, size_t bytes)
{
    static const struct {
        int n_blocks, n_threads;
    } net[] = {{1, 128}, {4, 128}, {16, 128}, {32, 256}, {64, 256}, {64, 512}, {128, 512}};
    const size_t n_last = sizeof(net) / sizeof(net[0]) - 1;
    const size_t work = bytes / VECTOR;

    for (size_t i = 0; i <= n_last; i++) {
        const size_t threads = (size_t)net[i].n_blocks * (size_t)net[i].n_threads;

        if ((i == 0 || threads <= 8 * work) && (i == n_last || threads >= work / 512))
            add_width(search, trials, algorithm, net[i].n_blocks, net[i].n_threads);
    }
}

void tune_propose(struct tune_search *search)
{
    const struct tune_way engine = {"auto", 0, 0};
    const size_t one_shot_to =
        bench_traits[search->id].reduces ? ONE_SHOT_REDUCES_TO : ONE_SHOT_MOVES_TO;

    for (int i = 0; i < search->n_sizes; i++) {
        struct tune_size *size = &search->sizes[i];
        struct tune_trials *ordinary = &size->trials[TUNE_ORDINARY];
        struct tune_trials *windows = &size->trials[TUNE_WINDOWS];

        memset(size->trials, 0, sizeof(size->trials));
        add(ordinary, engine);
        if (search->id != BENCH_REDUCE_SCATTER && size->bytes <= one_shot_to)
            add_net(search, ordinary, "one_shot", size->bytes);
        add_net(search, ordinary, "two_shot", size->bytes);
        if (!tune_has_windows(search->id))
            continue;
        add(windows, engine);
        add_net(search, windows, "direct", size->bytes);
    }
}

/* ---- the finer net ---- */

/* The fastest, of all or of those with another algorithm than `but`; -1: none. */
static int fastest(const struct tune_trials *trials, const char *but)
{
    int best = -1;

    for (int i = 0; i < trials->n; i++) {
        const struct tune_way *way = &trials->ways[i];

        if (trials->us[i] <= 0 || way->n_blocks == 0 || (but && strcmp(way->algorithm, but) == 0))
            continue;
        if (best < 0 || trials->us[i] < trials->us[best])
            best = i;
    }
    return best;
}

static void add_neighbours(const struct tune_search *search, struct tune_trials *trials,
                           struct tune_way way)
{
    const int b = way.n_blocks, t = way.n_threads;

    add(trials, way);
    add_width(search, trials, way.algorithm, 2 * b, t);
    add_width(search, trials, way.algorithm, b / 2, t);
    add_width(search, trials, way.algorithm, b, 2 * t);
    add_width(search, trials, way.algorithm, b, t / 2);
    add_width(search, trials, way.algorithm, b + b / 2, t);
    add_width(search, trials, way.algorithm, 2 * b, t / 2);
    add_width(search, trials, way.algorithm, b / 2, 2 * t);
}

void tune_refine(struct tune_search *search)
{
    struct tune_size *coarse = cli_alloc(sizeof(search->sizes));

    memcpy(coarse, search->sizes, sizeof(search->sizes));
    for (int i = 0; i < search->n_sizes; i++) {
        for (int buffers = 0; buffers < TUNE_N_BUFFERS; buffers++) {
            struct tune_trials *trials = &search->sizes[i].trials[buffers];
            const struct tune_trials *old = &coarse[i].trials[buffers];
            const int best = fastest(old, NULL);

            memset(trials, 0, sizeof(*trials));
            if (old->n == 0)
                continue;
            add(trials, old->ways[0]); /* the engine's */
            if (best >= 0) {
                const int other = fastest(old, old->ways[best].algorithm);

                add(trials, old->ways[best]);
                if (other >= 0)
                    add(trials, old->ways[other]);
            }
            for (int k = i - 1; k <= i + 1; k += 2) { /* so that rows may reach over sizes */
                const int near =
                    k < 0 || k >= search->n_sizes ? -1 : fastest(&coarse[k].trials[buffers], NULL);

                if (near >= 0)
                    add(trials, coarse[k].trials[buffers].ways[near]);
            }
            if (best >= 0)
                add_neighbours(search, trials, old->ways[best]);
        }
    }
    free(coarse);
}

/* ---- the choice ---- */

static double us_of(const struct tune_trials *trials, const struct tune_way *way)
{
    const int at = find(trials, way);

    return at < 0 ? 0 : trials->us[at];
}

/* A way's time for buffers of a kind. What is no matter of windows was measured without them. */
static double us_in(const struct tune_size *size, int buffers, const struct tune_way *way)
{
    const double us = us_of(&size->trials[buffers], way);

    return us > 0 || buffers == TUNE_ORDINARY || way->n_blocks == 0
               ? us
               : us_of(&size->trials[TUNE_ORDINARY], way);
}

static double best_us(const struct tune_size *size, int buffers)
{
    double best = 0;

    for (int from = 0; from <= buffers; from++)
        for (int i = 0; i < size->trials[from].n; i++) {
            const double us = us_in(size, buffers, &size->trials[from].ways[i]);

            if (us > 0 && (best <= 0 || us < best))
                best = us;
        }
    return best;
}

/* For how many sizes from `first` on is the way nearly the best? Its times over the best's, summed,
 * in *cost_out. Sizes without any result do not count against it. */
static int reach(const struct tune_search *search, int buffers, int first,
                 const struct tune_way *way, double *cost_out)
{
    int n = 0;

    *cost_out = 0;
    for (int i = first; i < search->n_sizes; i++) {
        const double us = us_in(&search->sizes[i], buffers, way);
        const double best = best_us(&search->sizes[i], buffers);

        if (best > 0 && (us <= 0 || us > best * TUNE_NEARLY))
            break;
        *cost_out += best > 0 ? us / best : 1;
        n++;
    }
    return n;
}

void tune_choose(const struct tune_search *search, int buffers, struct tune_choice *choice)
{
    int next;

    choice->n = 0;
    for (int i = 0; i < search->n_sizes; i += next) {
        struct tune_way best_way = {"auto", 0, 0};
        double best_cost;
        int n = reach(search, buffers, i, &best_way, &best_cost);

        for (int from = 0; from <= buffers; from++)
            for (int k = 0; k < search->sizes[i].trials[from].n; k++) {
                const struct tune_way *way = &search->sizes[i].trials[from].ways[k];
                double cost;
                const int longer = reach(search, buffers, i, way, &cost);
                /* As far as another: the engine's own choice, else the faster. */
                const int better =
                    longer > n || (longer == n && best_way.n_blocks > 0 && cost < best_cost);

                if (!better)
                    continue;
                n = longer;
                best_way = *way;
                best_cost = cost;
            }
        next = n > 0 ? n : 1; /* always at least one: the best itself */
        choice->rows[choice->n].max_bytes = search->sizes[i + next - 1].bytes;
        choice->rows[choice->n++].way = best_way;
    }
}
