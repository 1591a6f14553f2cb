/*
 * Sends and receives: from a group to as few launches as will hold it. A launch makes progress with
 * all that it was given, but what comes in a later launch waits for it. So that ranks whose groups
 * are cut differently cannot wait for one another, cuts are between rounds only: round k holds
 * message k of each peer and direction, and ends on every rank once the rounds before it have.
 */
#include "base/error.h"
#include "cuda/cuda.h"

enum { WAITING, CHOSEN, DONE }; /* tt_p2p.done */

/* Mark the next message of every peer and direction; how many there are. */
static int choose_round(struct tt_p2p ops[], size_t n_ops)
{
    unsigned char seen[2][TT_CUDA_MAX_RANKS] = {0};
    int n = 0;

    for (size_t i = 0; i < n_ops; i++) {
        unsigned char *had = &seen[ops[i].is_send != 0][ops[i].peer];

        if (ops[i].done != WAITING || *had)
            continue;
        *had = 1;
        ops[i].done = CHOSEN;
        n++;
    }
    return n;
}

/* Give the chosen of one peer and direction their place in the launch. */
static void add_channel(const struct tt_engine *e, struct tt_p2p ops[], size_t n_ops,
                        const struct tt_p2p *first, struct tt_cuda_p2p_args *args, int *n)
{
    args->first[args->n_channels++] = *n;
    for (size_t i = 0; i < n_ops; i++) {
        struct tt_cuda_p2p_op *op = &args->op[*n];

        if (ops[i].done != CHOSEN || ops[i].peer != first->peer || ops[i].is_send != first->is_send)
            continue;
        op->buf = ops[i].buf;
        op->bytes = ops[i].bytes;
        op->peer = ops[i].peer;
        op->is_send = ops[i].is_send;
        op->lanes = tt_cuda_p2p_lanes(&e->limits, ops[i].bytes);
        op->is_last = 0;
        args->lanes = op->lanes > args->lanes ? op->lanes : args->lanes;
        ops[i].done = DONE;
        ++*n;
    }
    args->op[*n - 1].is_last = 1;
}

static tutti_result launch(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_cuda_p2p_args args;
    int n = 0, n_units;

    args.base = e->base;
    args.base.coll = TT_COLL_SEND_RECV;
    args.base.sequence = tt_cuda_sequence(e);
    args.place = tt_cuda_p2p_place(&e->limits.layout);
    args.chunk = args.place >= TT_CUDA_TILE_ROOM
                     ? args.place / TT_CUDA_TILE_ROOM * TT_CUDA_TILE_BYTES
                     : args.place - TT_CUDA_TILE_TOPS;
    args.n_channels = args.lanes = 0;
    for (size_t i = 0; i < n_ops; i++)
        if (ops[i].done == CHOSEN)
            add_channel(e, ops, n_ops, &ops[i], &args, &n);
    n_units = args.n_channels * args.lanes;
    return tt_cuda_launch(e, TT_CUDA_KERNEL_tt_p2p,
                          n_units < e->limits.max_blocks ? n_units : e->limits.max_blocks,
                          TT_CUDA_MAX_THREADS, &args, sizeof(args), ops[0].stream);
}

/* Message k to oneself is copied to receive k from oneself: check that they match, or copy. */
static tutti_result serve_own(struct tt_engine *e, int rank, struct tt_p2p ops[], size_t n_ops,
                              int copy)
{
    size_t r = 0;

    for (size_t s = 0; s < n_ops; s++) {
        if (ops[s].peer != rank || !ops[s].is_send)
            continue;
        while (r < n_ops && (ops[r].peer != rank || ops[r].is_send))
            r++;
        if (r == n_ops || ops[r].bytes != ops[s].bytes || ops[r].dtype != ops[s].dtype)
            return TT_FAIL(TUTTI_E_ARG,
                           "rank %d sends %zu bytes to itself, but the group has no receive of as "
                           "many of the same type to go with it",
                           rank, ops[s].bytes);
        if (copy)
            TT_TRY(tt_cuda_copy(e, ops[r].buf, ops[s].buf, ops[s].bytes, ops[s].stream));
        ops[s].done = ops[r].done = DONE;
        r++;
    }
    for (; r < n_ops; r++)
        if (ops[r].peer == rank && !ops[r].is_send)
            return TT_FAIL(TUTTI_E_ARG,
                           "rank %d receives from itself, but the group has no send to go with it",
                           rank);
    return TUTTI_OK;
}

tutti_result tt_cuda_serve_oneself(struct tt_engine *e, int rank, struct tt_p2p ops[], size_t n_ops)
{
    TT_TRY(serve_own(e, rank, ops, n_ops, 0));
    return serve_own(e, rank, ops, n_ops, 1);
}

static void note(struct tt_engine *e, const struct tt_p2p ops[], size_t n_ops)
{
    struct tt_call call = {.coll = TT_COLL_SEND_RECV};

    for (size_t i = 0; i < n_ops; i++) {
        call.dtype = ops[i].dtype;
        tt_cuda_note(e, &call, ops[i].bytes);
    }
}

tutti_result tt_cuda_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    size_t left = n_ops;
    int chosen = 0;

    TT_TRY(tt_cuda_serve_oneself(e, e->rank, ops, n_ops));
    note(e, ops, n_ops);
    for (size_t i = 0; i < n_ops; i++)
        left -= ops[i].done == DONE;
    while (left > 0) {
        const int round = choose_round(ops, n_ops);

        chosen += round;
        left -= (size_t)round;
        /* The next round is no longer than this one. */
        if (left == 0 || chosen + round > TT_CUDA_P2P_OPS) {
            TT_TRY(launch(e, ops, n_ops));
            chosen = 0;
        }
    }
    return TUTTI_OK;
}
