/*
 * The measurement.
 *
 * A sample: every rank writes fresh data into its send buffer (as the matrix product before a
 * collective does), all meet at a barrier of the bench's own, call, and note when they entered and
 * left. The sample is the time from the last arrival to the last completion. Samples are taken in
 * blocks, one variant after the other and round after round, so that whatever else the machine does
 * hits all variants alike. Results of the first and the last timed call of a cell are checked in full
 * on every rank, of small cells those of every block and of the warm-up too.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define N_WARM_UP          3
#define N_ROUNDS_WANTED    8
#define ALWAYS_CHECK_BYTES (64 * 1024)

struct cell {
    struct bench_rank *rank;
    struct bench_row *row;
    struct bench_shape shape;
    struct bench_values values;
    struct bench_call calls[BENCH_MAX_VARIANTS];
    uint32_t n_samples[BENCH_MAX_VARIANTS];
    int usable[BENCH_MAX_VARIANTS];
    uint32_t iteration;
    uint64_t begin_ns;
    uint64_t check_ns; /* spent on checks, by this rank */
};

static volatile uint64_t sink;

static void read_all(const void *data, size_t bytes)
{
    const uint64_t *words = data;
    uint64_t sum = 0;

    for (size_t i = 0; i < bytes / 8; i++)
        sum += words[i];
    sink = sum;
}

static int run(const struct bench_variant *variant, const struct bench_call *call)
{
    if (variant->peer)
        return variant->peer->run(call);
    if (variant->team)
        return (int)bench_team_run(variant->team, variant->comm, call);
    return (int)bench_call_run(variant->comm, call);
}

/* Where ranks wait for each other over the network, each variant's own barrier is on both sides of a sample. Before
 * it: all begin together, on connections that are as warm, and no rank polls on a core that a thread of the
 * peer's needs. After it: what a peer has still to send may move only while it is called. */
static void settle(const struct bench_variant *variant, const struct bench_call *call)
{
    struct bench_call barrier = *call;

    barrier.id = BENCH_BARRIER;
    if (variant->peer)
        variant->peer->run(&barrier);
    else
        (void)bench_call_run(variant->comm, &barrier); /* a failure shows at the call itself */
}

static void check(struct cell *cell, int v)
{
    const struct bench_shape *shape = &cell->shape;
    const struct bench_call *call = &cell->calls[v];
    struct bench_result *result = &cell->row->results[v];
    struct bench_verdict verdict = {0, 0, ""};
    uint32_t free_slot = 0;

    bench_check(shape, &cell->values, cell->iteration & 1, call->recv, call->in_place, &verdict);
    atomic_fetch_add(&result->checked, verdict.checked);
    if (!verdict.wrong)
        return;
    atomic_fetch_add(&result->wrong, verdict.wrong);
    if (atomic_compare_exchange_strong(&result->has_note, &free_slot, 1))
        snprintf(result->note, sizeof(result->note), "%s", verdict.first);
}

/* One call of all ranks. Returns -1 when the run was aborted. */
static int sample(struct cell *cell, int v, int with_check, int record)
{
    struct bench_rank *rank = cell->rank;
    struct bench_board *board = rank->board;
    struct bench_slot *slot = &board->slots[rank->rank];
    const struct bench_variant *variant = &rank->variants[v];
    const struct bench_call *call = &cell->calls[v];
    const struct bench_shape *shape = &cell->shape;
    const char *source = rank->sources[++cell->iteration & 1];
    const size_t send_bytes = shape->n_send * shape->element_bytes;
    const size_t recv_bytes = shape->n_recv * shape->element_bytes;
    const int end_to_end = rank->options->end_to_end;
    void *send = (void *)(uintptr_t)call->send;

    if (with_check && (!call->in_place || shape->cell.id == BENCH_BROADCAST ||
                       shape->cell.id == BENCH_ALL_GATHER))
        bench_poison(call->recv, recv_bytes + (call->in_place ? 0 : BENCH_GUARD_BYTES));
    if (!end_to_end && send_bytes)
        memcpy(send, source, send_bytes);
    if (bench_barrier(board) != 0)
        return -1;
    if (board->job)
        settle(variant, call);
    slot->t0 = ranks_now_ns();
    if (end_to_end && send_bytes)
        memcpy(send, source, send_bytes);
    slot->result = run(variant, call);
    if (end_to_end)
        read_all(call->recv, recv_bytes);
    slot->t1 = ranks_now_ns();
    if (board->job)
        settle(variant, call);
    if (bench_barrier(board) != 0)
        return -1;
    if (record && rank->rank == 0 && cell->n_samples[v] < BENCH_MAX_SAMPLES)
        rank->samples[v][cell->n_samples[v]++] = bench_sample_us(board);
    if (slot->result != 0 && record) {
        bench_abort(board, "rank %d: %s %s of %zu bytes: %s", rank->rank, variant->name,
                    bench_traits[shape->cell.id].name, shape->bytes,
                    variant->peer ? "the peer failed" : tutti_last_error());
        return -1;
    }
    if (with_check && slot->result == 0) {
        const uint64_t begin = ranks_now_ns();

        check(cell, v);
        cell->check_ns += ranks_now_ns() - begin;
    }
    return 0;
}

/* Did the call just made fail on all ranks in a way that leaves all as it was? 1: yes, 0: it worked,
 * -1: it failed for good. All ranks give the same answer. */
static int refused(struct cell *cell, int v)
{
    const struct bench_board *board = cell->rank->board;
    int n_refused = 0;
    int n_failed = 0;

    for (int r = 0; r < board->n_ranks; r++) {
        const int32_t result = board->slots[r].result;

        n_refused += result == TUTTI_E_UNSUPPORTED || result == TUTTI_E_ARG;
        n_failed += result != 0;
    }
    if (n_failed == 0)
        return 0;
    if (n_refused == board->n_ranks)
        return 1;
    if (board->slots[cell->rank->rank].result != 0)
        bench_abort(cell->rank->board, "rank %d: %s %s: %s", cell->rank->rank,
                    cell->rank->variants[v].name, bench_traits[cell->shape.cell.id].name,
                    cell->rank->variants[v].peer ? "the peer failed" : tutti_last_error());
    return -1;
}

static void not_available(struct cell *cell, int v, const char *why)
{
    struct bench_result *result = &cell->row->results[v];

    cell->usable[v] = 0;
    if (cell->rank->rank != 0)
        return;
    result->state = BENCH_NOT_AVAILABLE;
    snprintf(result->note, sizeof(result->note), "%s", why);
}

/* Warm up, and find out what works; the time of a round with one sample each in *round_ns_out. */
static int warm_up(struct cell *cell, uint64_t *round_ns_out)
{
    struct bench_rank *rank = cell->rank;
    const int small = cell->shape.bytes <= ALWAYS_CHECK_BYTES;
    uint64_t begin = 0;

    *round_ns_out = 1;
    for (int v = 0; v < rank->n_variants; v++) {
        const struct bench_variant *variant = &rank->variants[v];
        int no;

        cell->usable[v] = 1;
        if (variant->peer && variant->peer->prepare(&cell->calls[v]) != 0) {
            not_available(cell, v, "the peer has no such call");
            continue;
        }
        if (sample(cell, v, small, 0) != 0)
            return -1;
        no = refused(cell, v);
        if (no < 0)
            return -1;
        if (no)
            not_available(cell, v, variant->peer ? "the peer refused" : tutti_last_error());
        if (bench_barrier(rank->board) != 0) /* all have read the slots */
            return -1;
        begin = ranks_now_ns();
        for (int k = 1; k < N_WARM_UP && !no; k++)
            if (sample(cell, v, 0, 0) != 0)
                return -1;
        *round_ns_out += (ranks_now_ns() - begin) / (N_WARM_UP - 1);
    }
    return 0;
}

/* Rank 0 decides how long a block is and whether this is the last round. */
static void decide(struct cell *cell, int round, uint64_t one_each_ns)
{
    struct bench_shared *shared = cell->rank->board->shared;
    const double budget = cell->rank->unit_seconds * bench_weight(&cell->shape.cell) * 1e9;
    const double all = (double)(ranks_now_ns() - cell->begin_ns);
    const double spent = all - (double)cell->check_ns;
    const double k = budget / N_ROUNDS_WANTED / (double)one_each_ns;
    const int full = (round + 2) * 50 > BENCH_MAX_SAMPLES;

    if (cell->rank->rank != 0)
        return;
    shared->k = k < 2 ? 2 : k > 50 ? 50 : (int32_t)k;
    shared->last = (round >= 2 && (full || spent + shared->k * (double)one_each_ns > budget)) ||
                   (round >= 1 && all > 4 * budget);
}

static int n_usable(const struct cell *cell)
{
    int n = 0;

    for (int v = 0; v < cell->rank->n_variants; v++)
        n += cell->usable[v];
    return n;
}

static int measure_rounds(struct cell *cell, uint64_t one_each_ns)
{
    struct bench_rank *rank = cell->rank;
    const int small = cell->shape.bytes <= ALWAYS_CHECK_BYTES;

    for (int round = 0;; round++) {
        int k;
        int last;

        decide(cell, round, one_each_ns);
        if (bench_barrier(rank->board) != 0)
            return -1;
        k = rank->board->shared->k;
        last = rank->board->shared->last;
        for (int i = 0; i < rank->n_variants; i++) {
            const int v = (i + round) % rank->n_variants;

            for (int j = 0; j < k && cell->usable[v]; j++) {
                const int with_check = (j == 0 && (round == 0 || small)) || (j == k - 1 && last);

                if (sample(cell, v, with_check, 1) != 0)
                    return -1;
            }
        }
        if (bench_barrier(rank->board) != 0) /* checks done, decisions read */
            return -1;
        if (last)
            return 0;
    }
}

static void summarise(struct cell *cell)
{
    for (int v = 0; v < cell->rank->n_variants; v++) {
        struct bench_result *result = &cell->row->results[v];
        float *samples = cell->rank->samples[v];
        const uint32_t n = cell->n_samples[v];

        if (!cell->usable[v] || n == 0)
            continue;
        bench_summarise(samples, n, result);
        result->state = BENCH_DONE;
    }
    cell->row->bytes = cell->shape.bytes;
    cell->row->count = cell->shape.count;
}

int bench_measure(struct bench_rank *rank, int index)
{
    struct cell *cell = cli_alloc(sizeof(*cell));
    uint64_t one_each_ns;
    int status;

    cell->rank = rank;
    cell->row = &rank->board->rows[index];
    cell->begin_ns = ranks_now_ns();
    bench_shape_make(&rank->plan->cells[index], rank->rank, rank->plan->n_ranks,
                     rank->options->root, &cell->shape);
    bench_values_make(&cell->shape, &cell->values);
    for (uint32_t i = 0; i < 2; i++)
        bench_fill(&cell->shape, &cell->values, i, rank->sources[i]);
    for (int v = 0; v < rank->n_variants; v++) {
        /* MPI's in-place reduce_scatter leaves the result elsewhere */
        const int elsewhere = rank->variants[v].peer && cell->shape.cell.id == BENCH_REDUCE_SCATTER;

        bench_call_make(&cell->shape, rank->options->in_place && !elsewhere, rank->variants[v].in,
                        rank->variants[v].out, &cell->calls[v]);
    }
    status = warm_up(cell, &one_each_ns);
    if (status == 0 && n_usable(cell) > 0)
        status = measure_rounds(cell, one_each_ns);
    if (status == 0 && rank->rank == 0)
        summarise(cell);
    bench_values_free(&cell->values);
    bench_shape_free(&cell->shape);
    free(cell);
    return status;
}
