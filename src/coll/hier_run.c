/* One call on several hosts: counted, described for messages, handed to its collective; and what
 * happens when it fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "coll/hier_parts.h"

/* ---- failing: on all ranks of this host, and on all that this rank has talked to ---- */

/* "communicator world: rank 5 (pid 7) died; this rank 4 was in ..." without both ends */
void tt_hier_reason(const char *text, char *out, size_t bytes)
{
    const char *begin = strncmp(text, "communicator ", 13) == 0 ? strstr(text, ": ") : NULL;
    const char *end = strstr(text, "; this rank");

    begin = begin ? begin + 2 : text;
    snprintf(out, bytes, "%.*s", end && end > begin ? (int)(end - begin) : (int)strlen(begin),
             begin);
}

tutti_result tt_hier_give_up(struct tt_engine *e, tutti_result why)
{
    tutti_comm_state state = {.size = sizeof(state)};
    char text[160];

    tt_hier_reason(tt_error_text(), text, sizeof(text));
    if (tt_cpu_failed(e->local_engine) == TUTTI_OK)
        (void)tt_cpu_fail(e->local_engine, why, tt_wire_culprit(e->wire), text);
    if (!e->has_told) {
        e->has_told = 1;
        e->ops->state(e->local_engine, &state);
        tt_hier_reason(state.text, text, sizeof(text));
        tt_wire_tell(e->wire, state.result, state.peer, text);
    }
    return tt_cpu_failed(e->local_engine);
}

/* ---- collectives ---- */

uint32_t tt_hier_mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * UINT64_C(0xff51afd7ed558ccd);
    return (uint32_t)(h ^ h >> 32);
}

/* What messages and ranks of a host compare: the call, its number, and its counts where all ranks are
 * to have the same. */
static void describe(struct tt_engine *e, const struct tt_call *call)
{
    const uint64_t what = tt_cpu_what(call), root = what >> 25;
    uint64_t counts = call->send_counts ? 1 : call->count;

    if (call->counts)
        counts = tt_cpu_counts_hash(call->counts, (size_t)e->n_ranks);
    e->sequence++;
    e->kind = (uint32_t)(what & TT_WIRE_KIND_MASK) | (uint32_t)root << TT_WIRE_KIND_BITS;
    e->check = tt_hier_mix(tt_hier_mix(tt_hier_mix(1, e->sequence), root), counts);
}

/* The same block for every rank, or one for root only, as counts. */
static void fill_counts(struct tt_engine *e, struct tt_call *call)
{
    size_t *counts = tt_hier_row(e, TT_ROW_COUNTS);

    if (call->counts || call->parts)
        return;
    for (int r = 0; r < e->n_ranks; r++)
        counts[r] = call->coll == TT_COLL_REDUCE && r != call->root ? 0 : call->count;
    call->counts = counts;
}

static tutti_result dispatch(struct tt_engine *e, struct tt_call *call)
{
    switch (call->coll) {
    case TT_COLL_ALL_REDUCE: return tt_hier_all_reduce(e, call);
    case TT_COLL_REDUCE:
    case TT_COLL_REDUCE_SCATTER: fill_counts(e, call); return tt_hier_reduce_scatter(e, call);
    case TT_COLL_ALL_GATHER: fill_counts(e, call); return tt_hier_all_gather(e, call);
    case TT_COLL_ALL_TO_ALL: return tt_hier_all_to_all(e, call);
    case TT_COLL_BROADCAST: return tt_hier_broadcast(e, call);
    case TT_COLL_GATHER: return tt_hier_gather(e, call);
    case TT_COLL_SCATTER: return tt_hier_scatter(e, call);
    case TT_COLL_BARRIER: return tt_hier_barrier(e);
    default: return TT_FAIL(TUTTI_E_INTERNAL, "collective %d across hosts", (int)call->coll);
    }
}

/* The threads of a team leave the call to the first of them. */
tutti_result tt_hier_run(struct tt_engine *e, const struct tt_call *given)
{
    struct tt_call call = *given;
    tutti_result res;
    uint64_t fp;

    if (call.n_threads != TT_TEAM_NONE && call.thread != 0)
        return TUTTI_OK;
    call.n_threads = TT_TEAM_NONE;
    res = tt_cpu_failed(e->local_engine);
    if (res == TUTTI_OK) {
        describe(e, &call);
        if (call.thread == 0)
            tt_cpu_note(e->local_engine, &call, call.bytes);
        e->n_messages = 0;
        fp = tt_fp_enter();
        res = dispatch(e, &call);
        tt_fp_leave(fp);
    }
    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}

/* ---- sends and receives: those within the host beside those to others ---- */

tutti_result tt_hier_make_room(struct tt_engine *e, size_t n_messages)
{
    struct tt_message *more;

    if (n_messages <= e->max_messages)
        return TUTTI_OK;
    more = realloc(e->messages, n_messages * sizeof(*more));
    if (!more)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu sends and receives", n_messages);
    e->messages = more;
    e->max_messages = n_messages;
    return TUTTI_OK;
}

static tutti_result run_p2p(struct tt_engine *e, const struct tt_p2p ops[], size_t n_ops,
                            struct tt_p2p *within)
{
    size_t n_within = 0;

    e->n_messages = 0;
    e->check = 0;
    for (size_t i = 0; i < n_ops; i++) {
        const struct tt_p2p *op = &ops[i];

        if (e->host_of[op->peer] == e->host) {
            within[n_within] = *op;
            within[n_within++].peer = e->local_of[op->peer];
            continue;
        }
        e->kind = (uint32_t)TT_COLL_SEND_RECV | (uint32_t)op->dtype << 5;
        if (op->is_send)
            tt_hier_send(e, op->peer, op->buf, op->bytes);
        else
            tt_hier_recv(e, op->peer, op->buf, op->bytes);
    }
    tt_hier_start(e);
    if (n_within > 0)
        TT_TRY(tt_cpu_p2p(e->local_engine, within, n_within));
    return tt_hier_finish(e);
}

tutti_result tt_hier_run_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    struct tt_p2p one, *within = &one;
    uint64_t bytes = 0;
    tutti_result res = tt_cpu_failed(e->local_engine);

    if (res != TUTTI_OK)
        return tt_hier_give_up(e, res);
    TT_TRY(tt_hier_make_room(e, n_ops));
    if (n_ops > 1)
        within = malloc(n_ops * sizeof(*within));
    if (!within)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu sends and receives", n_ops);
    for (size_t i = 0; i < n_ops; i++)
        bytes += ops[i].bytes;
    tt_cpu_note_p2p(e->local_engine, n_ops, bytes);
    res = run_p2p(e, ops, n_ops, within);
    if (within != &one)
        free(within);
    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}
