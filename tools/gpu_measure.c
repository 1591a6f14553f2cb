/*
 * The measurement on GPUs.
 *
 * With --graph every rank captures the calls of a cell in one graph for each column. A sample: all
 * ranks meet at a barrier on the host and launch the graph between two events; the slowest rank's time
 * between them, divided by the number of calls, counts. Without, the calls are issued one by one
 * between the events. Columns take turns, sample by sample. Calls of a graph go round several buffer
 * sets where one set would stay in the L2 cache although it is large. What issuing a call takes is
 * measured on the host, always without a graph. Trials of `tutti tune` leave that out, and check one
 * buffer set only.
 */
#include "gpu_bench.h"

#include <stdlib.h>
#include <string.h>

#define N_WARM_UP             3
#define N_HOST_SAMPLES        5
#define N_TRIAL_SAMPLES       3 /* at least, of trials */
#define MAX_SAMPLES           1000
#define L2_BYTES              ((size_t)60 << 20)
#define ROUND_FROM            ((size_t)4 << 20) /* smaller inputs are in L2 in real programs, too */
#define CHECK_TWICE_TO        ((size_t)64 << 20)
#define CHECK_TRIALS_TWICE_TO ((size_t)4 << 20)
#define PEER_SECONDS          20 /* for whatever is under way: ours have a deadline of their own */

static size_t round_up(size_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

void gpu_geometry(const struct bench_options *options, const struct bench_cell *cell, int n_ranks,
                  struct gpu_geometry *g)
{
    const int in_place = options->in_place && bench_traits[cell->id].in_place;
    size_t most = 0;
    size_t n_sets;

    for (int r = 0; r < n_ranks; r++) {
        struct bench_shape shape;
        size_t n;

        bench_shape_make(cell, r, n_ranks, options->root, &shape);
        n = shape.n_send > shape.n_recv ? shape.n_send : shape.n_recv;
        most = n * shape.element_bytes > most ? n * shape.element_bytes : most;
        most = shape.bytes > most ? shape.bytes : most;
        bench_shape_free(&shape);
    }
    g->stride = round_up(most + BENCH_GUARD_BYTES);
    g->n_calls = most <= 16u << 20 ? GPU_MAX_CALLS : most <= 64u << 20 ? 8 : 4;
    g->n_samples =
        most <= 64u << 20 || options->n_replays < 20 ? options->n_replays : options->n_replays / 2;
    n_sets = most < ROUND_FROM ? 1 : 1 + 2 * L2_BYTES / (g->stride * (in_place ? 1 : 2));
    g->n_sets = n_sets < (size_t)g->n_calls ? (int)n_sets : g->n_calls;
}

/* ---- calls ---- */

static const char *why(const struct gpu_cell *cell, int v, int result)
{
    return cell->rank->variants[v].comm ? tutti_last_error()
                                        : gpu_nccl_error(cell->rank->nccl, result);
}

static int call_once(const struct gpu_cell *cell, int v, int i)
{
    const struct bench_call *call = &cell->calls[v][i % cell->geometry.n_sets];
    tutti_comm *comm = cell->rank->variants[v].comm;

    return comm ? (int)bench_call_run(comm, call) : gpu_nccl_run(cell->rank->nccl, call);
}

static int failed(const struct gpu_cell *cell, int v, const char *text)
{
    bench_abort(cell->rank->board, "rank %d: %s %s of %zu bytes: %s", cell->rank->rank,
                cell->rank->board->shared->variant_names[v], bench_traits[cell->shape.cell.id].name,
                cell->shape.bytes, text);
    return -1;
}

static int issue(const struct gpu_cell *cell, int v, int n)
{
    for (int i = 0; i < n; i++) {
        const int result = call_once(cell, v, i);

        if (result != 0)
            return failed(cell, v, why(cell, v, result));
    }
    return 0;
}

/* NCCL's calls have been seen to wait for ever. */
static int await_peer(const struct gpu_cell *cell, int v)
{
    const struct gpu_rank *rank = cell->rank;
    const uint64_t end = ranks_now_ns() + PEER_SECONDS * UINT64_C(1000000000);
    int result;

    while ((result = rank->driver->cuStreamQuery(rank->stream)) == GPU_NOT_READY) {
        char text[64];

        if (ranks_now_ns() < end)
            continue;
        snprintf(text, sizeof(text), "nothing came back within %d s", PEER_SECONDS);
        return failed(cell, v, text);
    }
    return gpu_check(rank, "cuStreamQuery", result);
}

/* Wait for the GPU, and see whether the calls came to a good end. */
static int finish(const struct gpu_cell *cell, int v)
{
    const struct gpu_rank *rank = cell->rank;
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    if (!rank->variants[v].comm)
        return await_peer(cell, v);
    if (GPU(rank, cuStreamSynchronize, rank->stream) != 0)
        return -1;
    if (tutti_comm_status(rank->variants[v].comm, &state) == TUTTI_OK && state.result != TUTTI_OK)
        return failed(cell, v, state.text);
    return 0;
}

static int capture(struct gpu_cell *cell, int v, int n, gpu_graph_exec *exec_out)
{
    const struct gpu_rank *rank = cell->rank;
    gpu_graph graph = NULL;
    int status;

    if (GPU(rank, cuStreamBeginCapture, rank->stream, GPU_CAPTURE_THREAD_LOCAL) != 0)
        return -1;
    status = issue(cell, v, n);
    if (GPU(rank, cuStreamEndCapture, rank->stream, &graph) != 0 || status != 0)
        return -1;
    status = GPU(rank, cuGraphInstantiateWithFlags, exec_out, graph, 0);
    return GPU(rank, cuGraphDestroy, graph) != 0 ? -1 : status;
}

/* ---- samples ---- */

/* All ranks together: a launch of the graph or, without, one call after the other. The slowest rank's
 * microseconds a call on its GPU and on its host. */
static int sample(struct gpu_cell *cell, int v, gpu_graph_exec graph, double slowest[2])
{
    struct gpu_rank *rank = cell->rank;
    const struct gpu_geometry *g = &cell->geometry;
    const double n = g->n_calls;
    uint64_t begin;
    uint64_t end;
    float ms = 0;

    if (gpu_spoils_input(&cell->calls[v][0]) &&
        GPU(rank, cuMemcpyDtoDAsync, rank->variants[v].out, rank->pristine,
            g->stride * (size_t)g->n_sets, rank->stream) != 0)
        return -1;
    if (GPU(rank, cuStreamSynchronize, rank->stream) != 0 || bench_barrier(rank->board) != 0 ||
        GPU(rank, cuEventRecord, rank->events[0], rank->stream) != 0)
        return -1;
    begin = ranks_now_ns();
    if (graph ? GPU(rank, cuGraphLaunch, graph, rank->stream) : issue(cell, v, g->n_calls))
        return -1;
    end = ranks_now_ns();
    if (GPU(rank, cuEventRecord, rank->events[1], rank->stream) != 0 || finish(cell, v) != 0 ||
        GPU(rank, cuEventElapsedTime, &ms, rank->events[0], rank->events[1]) != 0)
        return -1;
    slowest[0] = (double)ms * 1000 / n;
    slowest[1] = (double)(end - begin) / 1000 / n;
    return gpu_slowest(rank, slowest);
}

static int record(struct gpu_cell *cell, int v, gpu_graph_exec graph, int gpu, int host)
{
    double us[2];

    if (sample(cell, v, graph, us) != 0)
        return -1;
    if (gpu && cell->n_samples[0][v] < MAX_SAMPLES)
        cell->samples[0][v][cell->n_samples[0][v]++] = (float)us[0];
    if (host && cell->n_samples[1][v] < MAX_SAMPLES)
        cell->samples[1][v][cell->n_samples[1][v]++] = (float)us[1];
    return 0;
}

static void not_available(const struct gpu_cell *cell, int v, const char *text)
{
    struct bench_result *result = &cell->row->results[v];

    if (cell->rank->rank != 0)
        return;
    result->state = BENCH_NOT_AVAILABLE;
    snprintf(result->note, sizeof(result->note), "%s", text);
}

/* The first call with each buffer set: 1 if it worked, 0 if all ranks were refused, -1 to end. */
static int first_calls(struct gpu_cell *cell, int v)
{
    struct gpu_rank *rank = cell->rank;
    const int peer = !rank->variants[v].comm;
    int result;
    int no;
    int any;

    if (peer && !gpu_nccl_can(rank->nccl, &cell->calls[v][0])) {
        not_available(cell, v, "NCCL has no such call");
        return 0;
    }
    if (rank->variants[v].counted && !cell->calls[v][0].device_counts) {
        not_available(cell, v, "");
        return 0;
    }
    if (gpu_upload(cell, v) != 0 || bench_barrier(rank->board) != 0)
        return -1;
    result = call_once(cell, v, 0);
    no = peer ? result != 0 : result == TUTTI_E_UNSUPPORTED || result == TUTTI_E_ARG;
    if (result != 0 && !no)
        return failed(cell, v, why(cell, v, result));
    if (no)
        not_available(cell, v, why(cell, v, result));
    any = gpu_any(rank, no);
    if (any != 0) {
        if (any > 0 && !no)
            return failed(cell, v, "another rank's call was refused");
        return any < 0 ? -1 : 0;
    }
    for (int s = 1; s < cell->geometry.n_sets; s++)
        if ((result = call_once(cell, v, s)) != 0)
            return failed(cell, v, why(cell, v, result));
    if (finish(cell, v) != 0)
        return -1;
    if (cell->shape.bytes <= (rank->options->trials ? CHECK_TRIALS_TWICE_TO : CHECK_TWICE_TO) &&
        gpu_verify(cell, v) != 0)
        return -1;
    return 1;
}

static int is_wanted(const struct gpu_cell *cell, int v)
{
    const struct bench_trials *trials = cell->rank->options->trials;
    const struct gpu_variant *variant = &cell->rank->variants[v];
    const ptrdiff_t index = cell->row - cell->rank->board->rows;

    return !trials || (trials->wanted[index][variant->registered] >> variant->index & 1);
}

/* Everything of a column but its timed samples. */
static int prepare(struct gpu_cell *cell, int v)
{
    const int graph = cell->rank->options->graph;
    const int n_host = cell->rank->options->trials     ? 0
                       : cell->shape.bytes <= 1u << 20 ? N_HOST_SAMPLES
                                                       : 2;
    const int works = is_wanted(cell, v) ? first_calls(cell, v) : 0;
    double us[2];

    if (works <= 0)
        return works;
    cell->usable[v] = 1;
    for (int i = 0; i < n_host; i++) /* the first warms up */
        if (i == 0 ? sample(cell, v, NULL, us) != 0 : record(cell, v, NULL, 0, 1) != 0)
            return -1;
    if (graph && capture(cell, v, cell->geometry.n_calls, &cell->graphs[v]) != 0)
        return -1;
    for (int i = 0; i < N_WARM_UP; i++)
        if (sample(cell, v, cell->graphs[v], us) != 0)
            return -1;
    return 0;
}

/* Fresh data, the calls as they were timed, and the check. Calls that spoil their input must see it
 * once only, so they get a graph with a call for each buffer set. */
static int verify_as_timed(struct gpu_cell *cell, int v)
{
    struct gpu_rank *rank = cell->rank;
    const int once = gpu_spoils_input(&cell->calls[v][0]);
    const int n = once ? cell->geometry.n_sets : cell->geometry.n_calls;
    gpu_graph_exec graph = cell->graphs[v];
    int status = -1;

    if (graph && once && capture(cell, v, n, &graph) != 0)
        return -1;
    if (gpu_upload(cell, v) == 0 && bench_barrier(rank->board) == 0 &&
        (graph ? GPU(rank, cuGraphLaunch, graph, rank->stream) : issue(cell, v, n)) == 0 &&
        finish(cell, v) == 0)
        status = gpu_verify(cell, v);
    if (graph && once && GPU(rank, cuGraphExecDestroy, graph) != 0)
        return -1;
    return status;
}

/* ---- cells ---- */

static void summarise(struct gpu_cell *cell)
{
    for (int v = 0; v < cell->rank->n_variants; v++) {
        struct bench_result *result = &cell->row->results[v];
        struct bench_result host;

        if (!cell->usable[v] || cell->n_samples[0][v] == 0)
            continue;
        if (cell->n_samples[1][v] > 0) {
            bench_summarise(cell->samples[1][v], cell->n_samples[1][v], &host);
            result->host_us = host.p50_us;
        }
        bench_summarise(cell->samples[0][v], cell->n_samples[0][v], result);
        result->state = BENCH_DONE;
    }
}

/* The counts of the cell to the GPU, and their bound: the largest there is. */
static int upload_counts(struct gpu_cell *cell)
{
    struct gpu_rank *rank = cell->rank;
    const struct bench_shape *shape = &cell->shape;
    const int gathers = shape->cell.id != BENCH_REDUCE_SCATTERV;
    const int exchanges = shape->cell.id == BENCH_ALL_TO_ALLV;
    const size_t *counts = exchanges ? shape->send_counts : shape->counts;
    const tutti_device_counts none = TUTTI_DEVICE_COUNTS_INIT;
    uint64_t words[1024]; /* as many ranks as there may be */

    cell->counts = none;
    cell->counts.counts = (const uint64_t *)(uintptr_t)rank->counts;
    for (int r = 0; r < shape->n_ranks; r++) {
        words[r] = counts[gathers && !exchanges ? shape->rank : r];
        if (counts[r] > cell->counts.max_count)
            cell->counts.max_count = counts[r];
    }
    if (exchanges) { /* a block has room for that much */
        cell->counts.max_count = shape->count;
        cell->counts.send_stride = cell->counts.recv_stride = shape->count;
    }
    if (GPU(rank, cuMemcpyHtoDAsync, rank->counts, words, (size_t)shape->n_ranks * sizeof(*words),
            rank->stream) != 0)
        return -1;
    return GPU(rank, cuStreamSynchronize, rank->stream);
}

static int make_calls(struct gpu_cell *cell)
{
    struct gpu_rank *rank = cell->rank;
    const struct gpu_geometry *g = &cell->geometry;

    if (rank->counts && upload_counts(cell) != 0)
        return -1;
    for (int v = 0; v < rank->n_variants; v++) {
        for (int s = 0; s < g->n_sets; s++) {
            char *in = (char *)(uintptr_t)rank->variants[v].in + g->stride * (size_t)s;
            char *out = (char *)(uintptr_t)rank->variants[v].out + g->stride * (size_t)s;

            bench_call_make(&cell->shape, rank->options->in_place, in, out, &cell->calls[v][s]);
            cell->calls[v][s].stream = rank->stream;
            if (rank->variants[v].counted && bench_call_has_counts(&cell->calls[v][s]))
                cell->calls[v][s].device_counts = &cell->counts;
        }
    }
    if (!rank->pristine || !gpu_spoils_input(&cell->calls[0][0]))
        return 0;
    for (int s = 0; s < g->n_sets; s++)
        if (GPU(rank, cuMemcpyHtoDAsync, rank->pristine + g->stride * (size_t)s,
                rank->sources[s & 1], cell->shape.n_send * cell->shape.element_bytes,
                rank->stream) != 0)
            return -1;
    return GPU(rank, cuStreamSynchronize, rank->stream);
}

/* Columns in turn; trials end when their time is up. */
static int take_samples(struct gpu_cell *cell, uint64_t begin_ns)
{
    struct gpu_rank *rank = cell->rank;
    const struct bench_trials *trials = rank->options->trials;

    for (int i = 0; i < cell->geometry.n_samples; i++) {
        if (trials && i >= N_TRIAL_SAMPLES) {
            const double seconds = (double)(ranks_now_ns() - begin_ns) / 1e9;
            const int late = gpu_any(rank, seconds > trials->cell_seconds);

            if (late != 0)
                return late < 0 ? -1 : 0;
        }
        for (int k = 0; k < rank->n_variants; k++) {
            const int v = (i + k) % rank->n_variants;

            if (cell->usable[v] && record(cell, v, cell->graphs[v], 1, !rank->options->graph) != 0)
                return -1;
        }
    }
    return 0;
}

static int measure(struct gpu_cell *cell)
{
    const struct gpu_rank *rank = cell->rank;
    const uint64_t begin_ns = ranks_now_ns();

    gpu_fill_sources(cell);
    if (make_calls(cell) != 0)
        return -1;
    for (int v = 0; v < rank->n_variants; v++)
        if (prepare(cell, v) != 0)
            return -1;
    if (take_samples(cell, begin_ns) != 0)
        return -1;
    for (int v = 0; v < rank->n_variants; v++) {
        if (cell->usable[v] && verify_as_timed(cell, v) != 0)
            return -1;
        if (cell->graphs[v] && GPU(rank, cuGraphExecDestroy, cell->graphs[v]) != 0)
            return -1;
    }
    return bench_barrier(rank->board); /* all checks are counted */
}

int gpu_measure(struct gpu_rank *rank, int index)
{
    const struct bench_cell *what = &rank->plan->cells[index];
    struct gpu_cell *cell = cli_alloc(sizeof(*cell));
    int status = 0;

    cell->rank = rank;
    cell->row = &rank->board->rows[index];
    cell->iteration = 2 * (uint32_t)index;
    gpu_geometry(rank->options, what, rank->board->n_ranks, &cell->geometry);
    bench_shape_make(what, rank->rank, rank->board->n_ranks, rank->options->root, &cell->shape);
    bench_values_make(&cell->shape, &cell->values);
    for (int v = 0; v < rank->n_variants; v++)
        for (int i = 0; i < 2; i++)
            cell->samples[i][v] = cli_alloc(MAX_SAMPLES * sizeof(float));
    if (rank->rank == 0) {
        cell->row->bytes = cell->shape.bytes;
        cell->row->count = cell->shape.count;
    }
    if (cell->geometry.stride * (size_t)cell->geometry.n_sets <= rank->region_bytes)
        status = measure(cell);
    else
        for (int v = 0; v < rank->n_variants; v++)
            not_available(cell, v, "the buffers do not fit in the memory of the GPU");
    if (status == 0 && rank->rank == 0)
        summarise(cell);
    for (int v = 0; v < rank->n_variants; v++)
        for (int i = 0; i < 2; i++)
            free(cell->samples[i][v]);
    bench_values_free(&cell->values);
    bench_shape_free(&cell->shape);
    free(cell);
    return status;
}
