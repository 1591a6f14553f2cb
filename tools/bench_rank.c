/* What a rank does: communicator, buffers, variants, then cell after cell. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct estate {                            /* what a rank owns */
    tutti_comm *comms[BENCH_MAX_VARIANTS]; /* one, or one for each algorithm */
    const char *algorithms[BENCH_MAX_VARIANTS];
    tutti_window *windows[BENCH_MAX_VARIANTS][2];
    int n_comms;
    const struct bench_peer *peer;
    struct bench_team *team;
    char *ordinary[2]; /* in, out */
    char *registered[2];
    size_t bytes;
};

size_t bench_buffer_bytes(const struct bench_plan *plan)
{
    size_t most = 0;

    for (int i = 0; i < plan->n_cells; i++) {
        for (int rank = 0; rank<plan->n_ranks; rank += plan->n_ranks> 1 ? plan->n_ranks - 1 : 1) {
            struct bench_shape shape;
            size_t n;

            bench_shape_make(&plan->cells[i], rank, plan->n_ranks, 0, &shape);
            n = shape.n_send > shape.n_recv ? shape.n_send : shape.n_recv;
            if (n * shape.element_bytes > most)
                most = n * shape.element_bytes;
            if (shape.bytes > most)
                most = shape.bytes;
            bench_shape_free(&shape);
        }
    }
    return (most + BENCH_GUARD_BYTES + 2 * 4096 - 1) / 4096 * 4096;
}

static char *new_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    memset(p, 0, bytes); /* placed where this rank runs */
    return p;
}

tutti_result bench_share_id(struct bench_board *board, uint32_t index)
{
    struct bench_shared *shared = board->shared;

    if (board->job)
        return bench_job_share_id(board->job, &shared->ids[index]);
    if (board->rank == 0) {
        if (tutti_unique_id_create(&shared->ids[index]) != TUTTI_OK)
            return TUTTI_E_SYSTEM;
        atomic_store(&shared->n_ids, index + 1);
        bench_wake(&shared->n_ids);
    }
    while (atomic_load(&shared->n_ids) <= index && !atomic_load(&shared->abort))
        bench_wait_change(&shared->n_ids, index, 100);
    return TUTTI_OK;
}

/* A communicator that uses `algorithm` (NULL: as the library chooses). */
static int make_comm(struct bench_rank *rank, struct estate *estate, const char *algorithm)
{
    struct bench_board *board = rank->board;
    const int only = !rank->options->algorithm || strcmp(rank->options->algorithm, "all") != 0;
    tutti_comm **comm = &estate->comms[estate->n_comms];
    tutti_comm_config config = {.size = sizeof(config)};
    tutti_comm_info info = {.size = sizeof(info)};
    tutti_result result;

    config.name = "bench";
    config.algorithm = algorithm;
    if (rank->options->joined && only) {
        result = tutti_comm_create_from_env(&config, comm);
    } else {
        const uint32_t index = board->n_ids_used++;

        config.rank = rank->rank;
        config.n_ranks = board->n_ranks;
        config.id = &board->shared->ids[index];
        result = bench_share_id(board, index);
        if (result == TUTTI_OK)
            result = tutti_comm_create(&config, comm);
    }
    if (result == TUTTI_E_UNSUPPORTED && !only)
        return 0; /* on all ranks: this machine has it not */
    if (result != TUTTI_OK) {
        bench_abort(board, "rank %d: no communicator: %s: %s", rank->rank,
                    tutti_result_name(result), tutti_last_error());
        return -1;
    }
    estate->algorithms[estate->n_comms++] = algorithm;
    if (tutti_comm_query(*comm, &info) == TUTTI_OK && rank->rank == 0)
        snprintf(board->shared->engine, sizeof(board->shared->engine), "%s: %s", info.engine,
                 info.details ? info.details : "");
    return 0;
}

static int make_comms(struct bench_rank *rank, struct estate *estate)
{
    const char *collective = bench_traits[rank->plan->cells[0].id].name;
    const char *wanted = rank->options->algorithm;
    const char *name;

    if (!wanted || strcmp(wanted, "all") != 0)
        return make_comm(rank, estate, wanted);
    for (size_t i = 0; i < BENCH_MAX_VARIANTS - 1; i++) {
        if (tutti_algorithm_name(collective, i, &name) != TUTTI_OK)
            break;
        if (make_comm(rank, estate, name) != 0)
            return -1;
    }
    return 0;
}

static int make_registered(struct estate *estate, int i)
{
    void *memory = NULL;

    if (tutti_mem_alloc(estate->comms[0], estate->bytes, &memory) != TUTTI_OK)
        return -1;
    estate->registered[i] = memory;
    for (int c = 0; c < estate->n_comms; c++)
        if (tutti_window_register(estate->comms[c], memory, estate->bytes,
                                  &estate->windows[c][i]) != TUTTI_OK)
            return -1;
    return 0;
}

static int make_buffers(struct bench_rank *rank, struct estate *estate)
{
    const size_t bytes = estate->bytes;

    for (int i = 0; i < 2; i++) {
        estate->ordinary[i] = new_pages(bytes);
        rank->sources[i] = new_pages(bytes);
        if (!estate->ordinary[i] || !rank->sources[i]) {
            bench_abort(rank->board,
                        "rank %d: no memory for %zu bytes; try a smaller -e or fewer "
                        "ranks",
                        rank->rank, bytes);
            return -1;
        }
        if (!rank->options->only_ordinary && make_registered(estate, i) != 0) {
            bench_abort(rank->board, "rank %d: cannot register %zu bytes: %s", rank->rank, bytes,
                        tutti_last_error());
            return -1;
        }
    }
    return 0;
}

static void add_variant(struct bench_rank *rank, const struct estate *estate, const char *name,
                        tutti_comm *comm, char *const buffers[2])
{
    struct bench_shared *shared = rank->board->shared;
    const int v = rank->n_variants++;
    struct bench_variant *variant = &rank->variants[v];

    snprintf(variant->name, sizeof(variant->name), "%s", name);
    variant->comm = comm;
    variant->peer = comm ? NULL : estate->peer;
    variant->in = buffers[0];
    variant->out = buffers[1];
    variant->team = comm ? estate->team : NULL;
    rank->samples[v] = cli_alloc(BENCH_MAX_SAMPLES * sizeof(float));
    if (rank->rank == 0)
        snprintf(shared->variant_names[v], sizeof(shared->variant_names[v]), "%s", name);
}

static void make_variants(struct bench_rank *rank, const struct estate *estate)
{
    const struct bench_options *options = rank->options;
    const int all = options->algorithm && strcmp(options->algorithm, "all") == 0;

    for (int c = 0; c < estate->n_comms; c++) {
        if (all) { /* one kind of buffer, else there are too many columns */
            add_variant(rank, estate, estate->algorithms[c], estate->comms[c],
                        options->only_registered ? estate->registered : estate->ordinary);
            continue;
        }
        if (!options->only_registered)
            add_variant(rank, estate, "ordinary", estate->comms[c], estate->ordinary);
        if (!options->only_ordinary)
            add_variant(rank, estate, "registered", estate->comms[c], estate->registered);
    }
    if (estate->peer)
        add_variant(rank, estate, estate->peer->name(), NULL, estate->ordinary);
    if (rank->rank == 0)
        rank->board->shared->n_variants = rank->n_variants;
    if (rank->rank == 0)
        rank->board->shared->n_peers = estate->peer != NULL;
}

static int run_cells(struct bench_rank *rank)
{
    struct bench_board *board = rank->board;

    if (bench_barrier(board) != 0)
        return -1;
    for (int i = 0; i < rank->plan->n_cells; i++) {
        if (bench_measure(rank, i) != 0 ||
            bench_row_over(board, rank->rank, rank->n_variants, i) != 0)
            return -1;
    }
    return 0;
}

static void release(struct bench_rank *rank, struct estate *estate)
{
    for (int i = 0; i < 2; i++) {
        for (int c = 0; c < estate->n_comms; c++)
            if (estate->windows[c][i])
                tutti_window_deregister(estate->comms[c], estate->windows[c][i]);
        if (estate->registered[i])
            tutti_mem_free(estate->comms[0], estate->registered[i]);
    }
    bench_team_stop(estate->team);
    for (int c = 0; c < estate->n_comms; c++)
        tutti_comm_destroy(estate->comms[c]);
    for (int i = 0; i < 2; i++) {
        munmap(estate->ordinary[i], estate->bytes);
        munmap(rank->sources[i], estate->bytes);
    }
    for (int v = 0; v < rank->n_variants; v++)
        free(rank->samples[v]);
}

/* Large cells take longer, and would have too few samples else. */
double bench_weight(const struct bench_cell *cell)
{
    return cell->bytes >= 4 << 20 ? 2.5 : 1;
}

/* Time for a cell of weight 1. */
static double unit_seconds(const struct bench_options *options, const struct bench_plan *plan)
{
    double weights = 0;

    for (int i = 0; i < plan->n_cells; i++)
        weights += bench_weight(&plan->cells[i]);
    if (options->seconds > 0)
        return options->seconds / weights;
    return options->against ? 0.4 : 0.25;
}

int bench_rank_main(const struct bench_options *options, const struct bench_plan *plan,
                    const struct place *place, struct bench_board *board, int rank_number)
{
    struct bench_rank *rank = cli_alloc(sizeof(*rank));
    struct estate estate = {0};
    int status = 1;

    rank->options = options;
    rank->plan = plan;
    rank->place = place;
    rank->board = board;
    rank->rank = rank_number;
    rank->unit_seconds = unit_seconds(options, plan);
    board->rank = rank_number;
    board->crowded = board->shared->crowded;
    estate.bytes = bench_buffer_bytes(plan);
    if (options->joined || (board->job && options->against))
        estate.peer = bench_peer_load(options->against);
    if (options->n_threads > 1 && board->job) /* the cores that this process has are its own */
        estate.team = bench_team_start(place, 0, 1, options->n_threads);
    else if (options->n_threads > 1)
        estate.team = bench_team_start(place, rank_number, plan->n_ranks, options->n_threads);
    if (make_comms(rank, &estate) == 0 && make_buffers(rank, &estate) == 0) {
        make_variants(rank, &estate);
        status = run_cells(rank) == 0 ? 0 : 1;
    }
    if (status == 0) /* else peers may be gone, and all goes with the process */
        release(rank, &estate);
    free(rank);
    return status;
}
