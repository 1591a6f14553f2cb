/* Any call of GPUs on several hosts, sends and receives. What happens on the GPU are steps within the host
 * by the CUDA engine, and launches that the proxy completes. */
#include "coll/hier_gpu_parts.h"

/* ---- any call ---- */

static tutti_result dispatch(struct tt_engine *e, const struct tt_call *call)
{
    if (call->device_counts)
        return tt_hier_gpu_counted(e, call);
    tt_cuda_note(e->cuda, call, call->bytes);
    switch (call->coll) {
    case TT_COLL_ALL_REDUCE: return tt_hier_gpu_all_reduce(e, call);
    case TT_COLL_REDUCE_SCATTER: return tt_hier_gpu_reduce_scatter(e, call);
    case TT_COLL_ALL_GATHER: return tt_hier_gpu_all_gather(e, call);
    case TT_COLL_ALL_TO_ALL: return tt_hier_gpu_all_to_all(e, call);
    default: return tt_hier_gpu_move(e, call);
    }
}

tutti_result tt_hier_gpu_run(struct tt_engine *e, const struct tt_call *call)
{
    tutti_result res;

    TT_TRY(tt_hier_gpu_failed(e));
    res = dispatch(e, call);
    /* If it has failed since: the proxy knows why. */
    return res == TUTTI_OK || tt_hier_failed(e->data) == TUTTI_OK ? res : tt_hier_failed(e->data);
}

/* ---- sends and receives ---- */

enum { WAITING, CHOSEN, DONE }; /* tt_p2p.done */

/* Message k of each peer and direction, for the least k that is left: how many each way. */
static void choose_round(const struct tt_engine *e, struct tt_p2p ops[], size_t n_ops, int n_out[2])
{
    unsigned char seen[2][TT_HIER_GPU_MAX_RANKS] = {{0}};

    n_out[0] = n_out[1] = 0;
    for (size_t i = 0; i < n_ops; i++) {
        unsigned char *had = &seen[ops[i].is_send != 0][ops[i].peer];

        if (ops[i].done != WAITING || *had || ops[i].peer == e->rank)
            continue;
        *had = 1;
        ops[i].done = CHOSEN;
        n_out[ops[i].is_send != 0]++;
    }
}

static tutti_result launch_chosen(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_call call = tt_call_even(TT_COLL_SEND_RECV, TUTTI_DTYPE_U8, NULL, NULL, 0);
    struct tt_gpu_plan plan;

    call.stream = ops[0].stream;
    tt_gpu_plan_begin(&plan, TT_GPU_MESSAGES, &call);
    for (int is_send = 1; is_send >= 0; is_send--)
        for (size_t i = 0; i < n_ops; i++) {
            if (ops[i].done != CHOSEN || ops[i].is_send != is_send)
                continue;
            call.dtype = ops[i].dtype;
            if (is_send)
                tt_gpu_plan_out(&plan, ops[i].buf, ops[i].bytes, ops[i].peer);
            else
                tt_gpu_plan_in(&plan, ops[i].buf, ops[i].bytes, ops[i].peer);
            ops[i].done = DONE;
        }
    return plan.n_out + plan.n_in > 0 ? tt_gpu_plan_launch(e, &plan) : TUTTI_OK;
}

/* As few launches as will hold them, cut between rounds: ranks whose groups are cut differently cannot
 * wait in a circle. Two ranks of a host meet here too, for they cannot know whether the other's group
 * goes to other hosts as well. */
tutti_result tt_hier_gpu_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_call call = tt_call_even(TT_COLL_SEND_RECV, TUTTI_DTYPE_U8, NULL, NULL, 0);
    int n[2] = {0, 0}, round[2];

    TT_TRY(tt_hier_gpu_failed(e));
    TT_TRY(tt_cuda_serve_oneself(e->cuda, e->rank, ops, n_ops));
    for (size_t i = 0; i < n_ops; i++)
        tt_cuda_note(e->cuda, &call, ops[i].bytes);
    for (;;) {
        choose_round(e, ops, n_ops, round);
        n[0] += round[0];
        n[1] += round[1];
        if (round[0] + round[1] == 0)
            return launch_chosen(e, ops, n_ops);
        /* The next round is no longer than this one. */
        if (tt_cuda_stage_window(e->stage, n[1] + round[1], n[0] + round[0]) == 0) {
            TT_TRY(launch_chosen(e, ops, n_ops));
            n[0] = n[1] = 0;
        }
    }
}
