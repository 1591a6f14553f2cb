/* The buffers of a rank on a GPU, and the columns that they make. */
#include "gpu_bench.h"

#include <string.h>
#include <sys/mman.h>

int gpu_choose_sizes(struct gpu_rank *rank)
{
    const struct bench_options *o = rank->options;
    const int n_regions = (o->only_registered ? 0 : 2) + (o->only_ordinary ? 0 : 2) +
                          (o->against ? 4 : 0) + (o->in_place ? 1 : 0);
    const int sharing = (rank->n_here + o->n_gpus - 1) / o->n_gpus;
    size_t available = 0;
    size_t total = 0;
    double least[2] = {0, 0};

    if (GPU(rank, cuMemGetInfo, &available, &total) != 0)
        return -1;
    least[0] = -0.85 * (double)available / sharing / n_regions;
    if (gpu_slowest(rank, least) != 0)
        return -1;
    for (int i = 0; i < rank->plan->n_cells; i++) {
        struct gpu_geometry g;
        size_t bytes;

        gpu_geometry(o, &rank->plan->cells[i], rank->board->n_ranks, &g);
        bytes = g.stride * (size_t)g.n_sets;
        if ((double)bytes > -least[0])
            continue;
        rank->region_bytes = bytes > rank->region_bytes ? bytes : rank->region_bytes;
        rank->host_bytes = g.stride > rank->host_bytes ? g.stride : rank->host_bytes;
    }
    if (rank->region_bytes)
        return 0;
    bench_abort(rank->board, "rank %d: the buffers of no size fit in the memory of GPU %d",
                rank->rank, rank->device);
    return -1;
}

static int new_buffers(const struct gpu_rank *rank, gpu_ptr *buffers, int n)
{
    for (int i = 0; i < n; i++)
        if (GPU(rank, cuMemAlloc, &buffers[i], rank->region_bytes) != 0 ||
            GPU(rank, cuMemsetD8Async, buffers[i], 0, rank->region_bytes, rank->stream) != 0)
            return -1;
    return 0;
}

static char *new_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Windows; where the engine has none the run goes on without. */
static int register_all(struct gpu_rank *rank, struct gpu_estate *estate)
{
    tutti_result result = TUTTI_OK;
    int any;

    for (int i = 0; i < 2; i++) {
        void *memory = NULL;

        result = tutti_mem_alloc(estate->comms[0], rank->region_bytes, &memory);
        estate->registered[i] = (gpu_ptr)(uintptr_t)memory;
        any = gpu_any(rank, result != TUTTI_OK);
        for (int c = 0; c < estate->n_comms && any == 0; c++) {
            result = tutti_window_register(estate->comms[c], memory, rank->region_bytes,
                                           &estate->windows[c][i]);
            any = gpu_any(rank, result != TUTTI_OK);
        }
        if (any < 0)
            return -1;
        if (any == 0)
            continue;
        if (result == TUTTI_E_UNSUPPORTED && !rank->options->only_registered) {
            char text[400];

            snprintf(text, sizeof(text), "no registered buffers: %.300s", tutti_last_error());
            gpu_remark(rank, text);
            return 0;
        }
        bench_abort(rank->board, "rank %d: cannot register %zu bytes: %s", rank->rank,
                    rank->region_bytes,
                    result == TUTTI_OK ? "another rank failed" : tutti_last_error());
        return -1;
    }
    estate->has_windows = 1;
    return 0;
}

int gpu_make_buffers(struct gpu_rank *rank, struct gpu_estate *estate)
{
    const struct bench_options *o = rank->options;

    rank->sources[0] = new_pages(rank->host_bytes);
    rank->sources[1] = new_pages(rank->host_bytes);
    rank->result = new_pages(rank->host_bytes);
    if (!rank->sources[0] || !rank->sources[1] || !rank->result) {
        bench_abort(rank->board, "rank %d: no host memory for %zu bytes; try a smaller -e",
                    rank->rank, 3 * rank->host_bytes);
        return -1;
    }
    if ((!o->only_registered || rank->nccl) && new_buffers(rank, estate->ordinary, 2) != 0)
        return -1;
    if (o->in_place && new_buffers(rank, &rank->pristine, 1) != 0)
        return -1;
    if (o->device_counts &&
        GPU(rank, cuMemAlloc, &rank->counts, (size_t)o->n_ranks * sizeof(uint64_t)) != 0)
        return -1;
    if (!o->only_ordinary && register_all(rank, estate) != 0)
        return -1;
    return GPU(rank, cuStreamSynchronize, rank->stream);
}

static void add_variant(struct gpu_rank *rank, const char *name, tutti_comm *comm, int index,
                        const gpu_ptr buffers[2], double create_ms)
{
    struct bench_shared *shared = rank->board->shared;
    const int v = rank->n_variants++;

    rank->variants[v].comm = comm;
    rank->variants[v].index = index;
    rank->variants[v].registered = strcmp(name, "registered") == 0;
    rank->variants[v].in = buffers[0];
    rank->variants[v].out = buffers[1];
    if (rank->rank != 0 && !rank->board->job)
        return;
    snprintf(shared->variant_names[v], sizeof(shared->variant_names[v]), "%s", name);
    shared->create_ms[v] = create_ms;
    shared->n_variants = rank->n_variants;
    shared->n_peers += comm == NULL;
}

/* The same columns once more. */
static void add_counted(struct gpu_rank *rank, const struct gpu_estate *estate, int c)
{
    const int first = rank->n_variants;

    if (!rank->options->only_registered)
        add_variant(rank, "ordinary, device counts", estate->comms[c], c, estate->ordinary,
                    estate->create_ms[c]);
    if (estate->has_windows)
        add_variant(rank, "registered, device counts", estate->comms[c], c, estate->registered,
                    estate->create_ms[c]);
    for (int v = first; v < rank->n_variants; v++)
        rank->variants[v].counted = 1;
}

int gpu_make_variants(struct gpu_rank *rank, struct gpu_estate *estate)
{
    const struct bench_options *o = rank->options;
    const int all = o->algorithm && strcmp(o->algorithm, "all") == 0;
    char text[400] = "";

    for (int c = 0; c < estate->n_comms; c++) {
        const double ms = estate->create_ms[c];
        const int windows = estate->has_windows;

        if (all) {
            add_variant(rank, estate->algorithms[c], estate->comms[c], c,
                        windows && o->only_registered ? estate->registered : estate->ordinary, ms);
            continue;
        }
        if (!o->only_registered)
            add_variant(rank, "ordinary", estate->comms[c], c, estate->ordinary, ms);
        if (windows)
            add_variant(rank, "registered", estate->comms[c], c, estate->registered, ms);
        if (o->device_counts)
            add_counted(rank, estate, c);
    }
    if (!rank->nccl)
        return bench_barrier(rank->board);
    gpu_remark(rank, gpu_nccl_name(rank->nccl));
    add_variant(rank, "nccl", NULL, 0, estate->ordinary, estate->nccl_ms);
    if (!o->only_ordinary) {
        if (gpu_nccl_symmetric(rank, estate->symmetric, text, sizeof(text)) == 0)
            add_variant(rank, "nccl_symmetric", NULL, 0, estate->symmetric, estate->nccl_ms);
        else
            gpu_remark(rank, text);
    }
    return bench_barrier(rank->board);
}
