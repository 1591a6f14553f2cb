/* Data to the GPU and back, and the check of every element, by several threads where it is much. */
#include "gpu_bench.h"

#include <pthread.h>
#include <string.h>

#define MAX_THREADS    16
#define ELEMENTS_WORTH (1u << 20) /* a thread */
#define POISON         0xa5

struct part {
    const struct gpu_cell *cell;
    int v;
    int set;
    size_t from;
    size_t to;
    struct bench_verdict verdict;
};

static void fill_part(struct part *part)
{
    const struct gpu_cell *cell = part->cell;

    bench_fill_part(&cell->shape, &cell->values, cell->iteration + (uint32_t)part->set, part->from,
                    part->to, cell->rank->sources[part->set]);
}

/* Which source the set was filled from at the last upload. */
static uint32_t source_of(const struct gpu_cell *cell, int set)
{
    return (cell->n_uploads + (uint32_t)set) & 1;
}

static void check_part(struct part *part)
{
    const struct gpu_cell *cell = part->cell;
    const int in_place = cell->calls[part->v][part->set].in_place;
    const uint32_t iteration = cell->iteration + source_of(cell, part->set);

    bench_check_part(&cell->shape, &cell->values, iteration, cell->rank->result, in_place,
                     part->from, part->to, &part->verdict);
}

static void *fill_thread(void *part)
{
    fill_part(part);
    return NULL;
}

static void *check_thread(void *part)
{
    check_part(part);
    return NULL;
}

/* Elements 0 .. n - 1 by as many threads as that is worth; returns how many parts there were. */
static int share_out(const struct gpu_cell *cell, int v, int set, size_t n, struct part *parts,
                     void *(*body)(void *))
{
    const struct place *place = cell->rank->place;
    size_t n_threads = (size_t)(place->n_cores / cell->rank->n_here);
    pthread_t threads[MAX_THREADS];
    int started[MAX_THREADS] = {0};

    if (n_threads > n / ELEMENTS_WORTH)
        n_threads = n / ELEMENTS_WORTH;
    n_threads = n_threads < 1 ? 1 : n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
    for (size_t t = 0; t < n_threads; t++) {
        const struct part part = {
            cell, v, set, n / n_threads * t, t + 1 == n_threads ? n : n / n_threads * (t + 1), {0}};

        parts[t] = part;
        if (t > 0)
            started[t] = pthread_create(&threads[t], NULL, body, &parts[t]) == 0;
    }
    for (size_t t = 0; t < n_threads; t++) {
        if (!started[t])
            body(&parts[t]);
        else
            pthread_join(threads[t], NULL);
    }
    return (int)n_threads;
}

void gpu_fill_sources(struct gpu_cell *cell)
{
    struct part parts[MAX_THREADS];

    for (int i = 0; i < 2; i++)
        share_out(cell, 0, i, cell->shape.n_send, parts, fill_thread);
}

int gpu_spoils_input(const struct bench_call *call)
{
    return call->in_place && (call->id == BENCH_ALL_REDUCE || call->id == BENCH_REDUCE ||
                              call->id == BENCH_REDUCE_SCATTER || call->id == BENCH_ALL_TO_ALL);
}

int gpu_upload(struct gpu_cell *cell, int v)
{
    struct gpu_rank *rank = cell->rank;
    const struct bench_shape *shape = &cell->shape;
    const size_t send_bytes = shape->n_send * shape->element_bytes;
    const size_t recv_bytes = shape->n_recv * shape->element_bytes;

    cell->n_uploads++;
    for (int s = 0; s < gpu_n_checked(cell); s++) {
        const struct bench_call *call = &cell->calls[v][s];
        const gpu_ptr send = (gpu_ptr)(uintptr_t)call->send;
        const gpu_ptr recv = (gpu_ptr)(uintptr_t)call->recv;
        const size_t guard = call->in_place ? 0 : BENCH_GUARD_BYTES;

        if (recv_bytes &&
            GPU(rank, cuMemsetD8Async, recv, POISON, recv_bytes + guard, rank->stream) != 0)
            return -1;
        if (send_bytes && GPU(rank, cuMemcpyHtoDAsync, send, rank->sources[source_of(cell, s)],
                              send_bytes, rank->stream) != 0)
            return -1;
    }
    return GPU(rank, cuStreamSynchronize, rank->stream);
}

static void take_verdict(struct bench_result *result, const struct bench_verdict *verdict)
{
    uint32_t free_slot = 0;

    atomic_fetch_add(&result->checked, verdict->checked);
    if (!verdict->wrong)
        return;
    atomic_fetch_add(&result->wrong, verdict->wrong);
    if (atomic_compare_exchange_strong(&result->has_note, &free_slot, 1))
        snprintf(result->note, sizeof(result->note), "%s", verdict->first);
}

int gpu_verify(struct gpu_cell *cell, int v)
{
    struct gpu_rank *rank = cell->rank;
    const struct bench_shape *shape = &cell->shape;
    const size_t bytes = shape->n_recv * shape->element_bytes;

    for (int s = 0; s < gpu_n_checked(cell) && bytes; s++) {
        const struct bench_call *call = &cell->calls[v][s];
        const gpu_ptr recv = (gpu_ptr)(uintptr_t)call->recv;
        const size_t guard = call->in_place ? 0 : BENCH_GUARD_BYTES;
        struct part parts[MAX_THREADS];
        int n;

        if (GPU(rank, cuMemcpyDtoHAsync, rank->result, recv, bytes + guard, rank->stream) != 0 ||
            GPU(rank, cuStreamSynchronize, rank->stream) != 0)
            return -1;
        n = share_out(cell, v, s, shape->n_recv, parts, check_thread);
        for (int t = 0; t < n; t++)
            take_verdict(&cell->row->results[v], &parts[t].verdict);
    }
    return 0;
}
