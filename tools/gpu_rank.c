/* What a rank on a GPU does: context, communicators, then cell after cell. */
#include "gpu_bench.h"

#include <stdlib.h>
#include <string.h>

int gpu_check(const struct gpu_rank *rank, const char *what, int result)
{
    const char *text = "an unknown error";

    if (result == 0)
        return 0;
    rank->driver->cuGetErrorString(result, &text);
    bench_abort(rank->board, "rank %d: %s on GPU %d: %s (%d)", rank->rank, what, rank->device, text,
                result);
    return -1;
}

int gpu_slowest(const struct gpu_rank *rank, double values[2])
{
    struct bench_board *board = rank->board;

    memcpy(&board->slots[rank->rank].t0, &values[0], sizeof(double));
    memcpy(&board->slots[rank->rank].t1, &values[1], sizeof(double));
    if (bench_barrier(board) != 0)
        return -1;
    for (int r = 0; r < board->n_ranks; r++) {
        double other[2];

        memcpy(&other[0], &board->slots[r].t0, sizeof(double));
        memcpy(&other[1], &board->slots[r].t1, sizeof(double));
        for (int i = 0; i < 2; i++)
            values[i] = other[i] > values[i] ? other[i] : values[i];
    }
    return bench_barrier(board); /* all have read */
}

int gpu_any(const struct gpu_rank *rank, int yes)
{
    struct bench_board *board = rank->board;
    int any = 0;

    board->slots[rank->rank].result = yes;
    if (bench_barrier(board) != 0)
        return -1;
    for (int r = 0; r < board->n_ranks; r++)
        any |= board->slots[r].result != 0;
    return bench_barrier(board) != 0 ? -1 : any;
}

void gpu_remark(const struct gpu_rank *rank, const char *text)
{
    struct bench_shared *shared = rank->board->shared;

    if (rank->rank == 0)
        cli_append(shared->remark, sizeof(shared->remark), "%s%s", shared->remark[0] ? "\n" : "",
                   text);
}

static int unsupported(const struct gpu_rank *rank, const char *text)
{
    rank->board->shared->unsupported = 1;
    bench_abort(rank->board, "%s", text);
    return -1;
}

/* ---- the GPU ---- */

static int open_gpu(struct gpu_rank *rank)
{
    const int n_gpus = rank->options->n_gpus;
    struct bench_shared *shared = rank->board->shared;
    const char *why = "an unknown error";
    char name[96] = "GPU";
    char text[200];
    int result = rank->driver->cuInit(0);
    int version = 0;
    int handle;
    int n = 0;

    if (result != 0) {
        rank->driver->cuGetErrorString(result, &why);
        snprintf(text, sizeof(text), "the CUDA driver does not start: %s (%d)", why, result);
        return unsupported(rank, text);
    }
    if (GPU(rank, cuDeviceGetCount, &n) != 0)
        return -1;
    if (n < n_gpus) {
        const int used = snprintf(text, sizeof(text),
                                  "--gpus %d: this machine has %d; ranks share GPUs with --gpus %d",
                                  n_gpus, n, n);

        if (!rank->board->job)
            snprintf(text + used, sizeof(text) - (size_t)used, " -n %d", rank->board->n_ranks);
        return unsupported(rank, text);
    }
    if (GPU(rank, cuDeviceGet, &handle, rank->device) != 0 ||
        GPU(rank, cuDevicePrimaryCtxRetain, &rank->context, handle) != 0 ||
        GPU(rank, cuCtxSetCurrent, rank->context) != 0 ||
        GPU(rank, cuDeviceGetName, name, (int)sizeof(name), handle) != 0 ||
        GPU(rank, cuDriverGetVersion, &version) != 0 ||
        GPU(rank, cuStreamCreate, &rank->stream, GPU_STREAM_NON_BLOCKING) != 0 ||
        GPU(rank, cuEventCreate, &rank->events[0], 0) != 0 ||
        GPU(rank, cuEventCreate, &rank->events[1], 0) != 0)
        return -1;
    if (rank->rank == 0)
        snprintf(shared->machine, sizeof(shared->machine), "%d x %s, CUDA %d.%d", n_gpus, name,
                 version / 1000, version % 1000 / 10);
    if (rank->n_here > n_gpus)
        gpu_remark(rank,
                   "ranks share GPUs, which take turns: the times show that it works, not how "
                   "fast it is");
    return 0;
}

/* ---- communicators ---- */

static int make_comm(struct gpu_rank *rank, struct gpu_estate *estate, const char *algorithm,
                     const char *tune_file)
{
    struct bench_board *board = rank->board;
    const int only = !rank->options->algorithm || strcmp(rank->options->algorithm, "all") != 0;
    const uint32_t index = board->n_ids_used++;
    tutti_comm_config config = TUTTI_COMM_CONFIG_INIT;
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;
    double ms[2] = {0, 0};
    uint64_t begin;
    tutti_result result;

    config.name = "bench";
    config.algorithm = algorithm;
    config.tune_file = tune_file;
    config.device = TUTTI_DEVICE_CUDA;
    config.device_index = rank->device;
    config.rank = rank->rank;
    config.n_ranks = board->n_ranks;
    config.id = &board->shared->ids[index];
    result = bench_share_id(board, index);
    if (bench_barrier(board) != 0)
        return -1;
    begin = ranks_now_ns();
    if (result == TUTTI_OK)
        result = tutti_comm_create(&config, &estate->comms[estate->n_comms]);
    ms[0] = (double)(ranks_now_ns() - begin) / 1e6;
    if (result == TUTTI_E_UNSUPPORTED && !only)
        return 0; /* on all ranks: this engine has it not */
    if (result != TUTTI_OK) {
        if (rank->rank != 0)
            ranks_sleep_ms(
                100); /* the others' errors may point to that of rank 0, which says why */
        if (result == TUTTI_E_UNSUPPORTED)
            return unsupported(rank, tutti_last_error());
        bench_abort(board, "rank %d: no communicator: %s: %s", rank->rank,
                    tutti_result_name(result), tutti_last_error());
        return -1;
    }
    if (gpu_slowest(rank, ms) != 0)
        return -1;
    estate->create_ms[estate->n_comms] = ms[0];
    if (tutti_comm_query(estate->comms[estate->n_comms], &info) == TUTTI_OK && rank->rank == 0)
        snprintf(board->shared->engine, sizeof(board->shared->engine), "%s: %s", info.engine,
                 info.details ? info.details : "");
    estate->algorithms[estate->n_comms++] = algorithm;
    return 0;
}

static int make_comms(struct gpu_rank *rank, struct gpu_estate *estate)
{
    const char *collective = bench_traits[rank->plan->cells[0].id].name;
    const char *wanted = rank->options->algorithm;
    const struct bench_trials *trials = rank->options->trials;
    const char *name;

    for (int i = 0; trials && i < trials->n_tables; i++)
        if (make_comm(rank, estate, NULL, trials->tables[i]) != 0)
            return -1;
    if (trials)
        return 0;
    if (!wanted || strcmp(wanted, "all") != 0)
        return make_comm(rank, estate, wanted, NULL);
    for (size_t i = 0; i < BENCH_MAX_VARIANTS - 3; i++) {
        if (tutti_algorithm_name(collective, i, &name) != TUTTI_OK)
            break;
        if (make_comm(rank, estate, name, NULL) != 0)
            return -1;
    }
    if (estate->n_comms == 0)
        return unsupported(rank, "no algorithm of this collective works on these GPUs");
    return 0;
}

static int make_nccl(struct gpu_rank *rank, struct gpu_estate *estate)
{
    double ms[2] = {0, 0};
    uint64_t begin;
    char text[512] = "";

    if (!rank->options->against)
        return 0;
    if (bench_barrier(rank->board) != 0)
        return -1;
    begin = ranks_now_ns();
    rank->nccl = gpu_nccl_open(rank, text, sizeof(text));
    ms[0] = (double)(ranks_now_ns() - begin) / 1e6;
    if (!rank->nccl)
        gpu_remark(rank, text);
    if (gpu_slowest(rank, ms) != 0)
        return -1;
    estate->nccl_ms = ms[0];
    return 0;
}

/* ---- its life ---- */

static int run_cells(struct gpu_rank *rank)
{
    struct bench_board *board = rank->board;

    for (int i = 0; i < rank->plan->n_cells; i++) {
        if (gpu_measure(rank, i) != 0 ||
            bench_row_over(board, rank->rank, rank->n_variants, i) != 0)
            return -1;
    }
    return 0;
}

static void release(struct gpu_rank *rank, struct gpu_estate *estate)
{
    for (int i = 0; i < 2; i++) {
        for (int c = 0; c < estate->n_comms; c++)
            if (estate->windows[c][i])
                tutti_window_deregister(estate->comms[c], estate->windows[c][i]);
        if (estate->registered[i])
            tutti_mem_free(estate->comms[0], (void *)(uintptr_t)estate->registered[i]);
        if (estate->ordinary[i])
            rank->driver->cuMemFree(estate->ordinary[i]);
        rank->driver->cuEventDestroy(rank->events[i]);
    }
    if (rank->pristine)
        rank->driver->cuMemFree(rank->pristine);
    if (rank->counts)
        rank->driver->cuMemFree(rank->counts);
    gpu_nccl_close(rank->nccl);
    for (int c = 0; c < estate->n_comms; c++)
        tutti_comm_destroy(estate->comms[c]);
    rank->driver->cuStreamDestroy(rank->stream);
}

int gpu_rank_main(const struct bench_report *report, int rank_number)
{
    const struct bench_job *job = report->board->job;
    struct gpu_rank *rank = cli_alloc(sizeof(*rank));
    struct gpu_estate *estate = cli_alloc(sizeof(*estate));
    char text[256];
    int status = 1;

    rank->options = report->options;
    rank->plan = report->plan;
    rank->place = report->place;
    rank->board = report->board;
    rank->board->rank = rank_number;
    rank->board->crowded = rank->board->shared->crowded;
    rank->rank = rank_number;
    rank->n_here = job ? job->n_here : report->board->n_ranks;
    rank->device = (job ? job->here : rank_number) % rank->options->n_gpus;
    rank->driver = gpu_driver_load(text, sizeof(text));
    if (rank->driver && open_gpu(rank) == 0 && gpu_choose_sizes(rank) == 0 &&
        make_comms(rank, estate) == 0 && make_nccl(rank, estate) == 0 &&
        gpu_make_buffers(rank, estate) == 0 && gpu_make_variants(rank, estate) == 0)
        status = run_cells(rank) == 0 ? 0 : 1;
    if (status == 0) /* else peers may be gone, and all goes with the process */
        release(rank, estate);
    free(estate);
    free(rank);
    return status;
}
