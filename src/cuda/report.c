/* What a kernel says when it fails, aborts, and counters. */
#include <inttypes.h>
#include <stdio.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cuda/share_map.h"

#define BEING_WRITTEN UINT32_MAX /* result: a kernel is about to say more */
#define WRITING_NS    1000000u

static const char *const coll_text[] = {
#define TEXT(name, text) text,
    TT_COLL_MAP(TEXT)
#undef TEXT
};

static const char *coll_name(uint32_t coll)
{
    return coll < TT_LEN(coll_text) ? coll_text[coll] : "?";
}

static uint32_t read_result(const struct tt_engine *e)
{
    return *(const volatile uint32_t *)&e->report->result;
}

/* The failure in words; `result` is not 0. */
static tutti_result tell(const struct tt_engine *e, uint32_t result, char *text, size_t bytes)
{
    const struct tt_cuda_report *r = e->report;
    const uint64_t until = tt_now_ns() + WRITING_NS;

    while (result == BEING_WRITTEN && tt_now_ns() < until)
        result = read_result(e);
    atomic_thread_fence(memory_order_acquire);
    switch (-(int)result) {
    case TUTTI_E_TIMEOUT:
        snprintf(
            text, bytes,
            "%s on the GPU of rank %d: rank %d did not come within %.1f s: has it died, or made "
            "another call? (launch %" PRIu64 "; TUTTI_TIMEOUT says how long to wait)",
            coll_name(r->coll), e->rank, r->peer, (double)r->waited_ns / 1e9, r->epoch);
        return TUTTI_E_TIMEOUT;
    case TUTTI_E_MISMATCH:
        snprintf(text, bytes,
                 "%s: rank %d sends rank %d a message that is not as long as the one it waits for",
                 coll_name(r->coll), e->rank, r->peer);
        return TUTTI_E_MISMATCH;
    case TUTTI_E_ABORTED:
        snprintf(text, bytes, "communicator %s was aborted, by this rank or another", e->name);
        return TUTTI_E_ABORTED;
    default:
        snprintf(text, bytes, "a kernel failed (%d) and did not say why: please report it",
                 (int)result);
        return TUTTI_E_INTERNAL;
    }
}

tutti_result tt_cuda_check_report(const struct tt_engine *e)
{
    const uint32_t result = read_result(e);
    char text[256];
    tutti_result res;

    if (__builtin_expect(result == 0, 1))
        return TUTTI_OK;
    res = tell(e, result, text, sizeof(text));
    return TT_FAIL(res, "%s", text);
}

void tt_cuda_state(const struct tt_engine *e, tutti_comm_state *state)
{
    const uint32_t result = read_result(e);

    state->result = TUTTI_OK;
    state->peer = -1;
    state->sequence = tt_load_relaxed(&e->sequence);
    state->text[0] = 0;
    if (result == 0)
        return;
    state->result = tell(e, result, state->text, sizeof(state->text));
    if (state->result == TUTTI_E_TIMEOUT || state->result == TUTTI_E_MISMATCH)
        state->peer = e->report->peer;
}

/* Our kernels look at our report; those of the peers, which cannot see it, at the marks in their
 * arenas. Any thread. */
void tt_cuda_abort(struct tt_engine *e)
{
    struct tt_cuda_block marks[TT_CUDA_MAX_BLOCKS];
    struct tt_cuda_scope scope;
    uint32_t none = 0;

    __atomic_compare_exchange_n(&e->report->result, &none, (uint32_t)-TUTTI_E_ABORTED, 0,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    __atomic_store_n(&e->report->abort, 1, __ATOMIC_SEQ_CST);
    if (tt_cuda_scope_enter(e->device, &scope) != TUTTI_OK)
        return;
    for (int b = 0; b < TT_CUDA_MAX_BLOCKS; b++)
        marks[b] = (struct tt_cuda_block){.failed = 1}; /* what the epochs are is no matter now */
    for (int r = 0; r < e->n_ranks; r++)
        if (r != e->rank)
            (void)tt_cuda_write(e->arena.at[r], marks, sizeof(marks));
    tt_cuda_scope_leave(&scope);
}

/* ---- counters ---- */

void tt_cuda_note(struct tt_engine *e, const struct tt_call *call, uint64_t bytes)
{
    const uint64_t what = (uint64_t)call->coll | (uint64_t)call->dtype << 8 |
                          (uint64_t)call->op << 16 | (uint64_t)(unsigned)call->root << 24;

    tt_store_relaxed(&e->n_calls, tt_load_relaxed(&e->n_calls) + 1);
    tt_store_relaxed(&e->n_bytes, tt_load_relaxed(&e->n_bytes) + bytes);
    if (call->coll != TT_COLL_SEND_RECV)
        tt_store_relaxed(&e->sequence, tt_load_relaxed(&e->sequence) + 1);
    tt_store_relaxed(&e->last_bytes, bytes);
    tt_store_relaxed(&e->last_what, what);
}

static void what_text(uint64_t what, char *text, size_t bytes)
{
    const char *name = coll_name(what & 255);
    const char *dtype = tt_dtype_name((tutti_dtype)(what >> 8 & 255));
    const char *op = tt_op_name((tutti_op)(what >> 16 & 255));
    const unsigned root = (unsigned)(what >> 24);

    switch (what & 255) {
    case TT_COLL_BARRIER:
    case TT_COLL_SEND_RECV: snprintf(text, bytes, "%s", name); return;
    case TT_COLL_ALL_REDUCE:
    case TT_COLL_REDUCE_SCATTER: snprintf(text, bytes, "%s %s %s", name, dtype, op); return;
    case TT_COLL_REDUCE: snprintf(text, bytes, "%s %s %s root %u", name, dtype, op, root); return;
    case TT_COLL_BROADCAST:
    case TT_COLL_GATHER:
    case TT_COLL_SCATTER: snprintf(text, bytes, "%s %s root %u", name, dtype, root); return;
    default: snprintf(text, bytes, "%s %s", name, dtype); return;
    }
}

void tt_cuda_trace(const struct tt_engine *e, const struct tt_call *call, uint64_t bytes,
                   const struct tt_cuda_shape *shape)
{
    static const char *const algo_text[] = {
#define TEXT(name, text) text,
        TT_ALGO_MAP(TEXT)
#undef TEXT
    };

    TT_LOG(TUTTI_LOG_TRACE, e->rank, e->n_ranks, "%s of %" PRIu64 " bytes: %s by %d x %d threads",
           coll_name(call->coll), bytes, algo_text[shape->algo], shape->n_blocks, shape->n_threads);
}

/* What other ranks did is not known here: zeros. */
void tt_cuda_stats(const struct tt_engine *e, int rank, tutti_stats *stats)
{
    stats->rank = rank;
    snprintf(stats->last_call, sizeof(stats->last_call), "-");
    if (rank != e->rank)
        return;
    stats->n_calls = tt_load_relaxed(&e->n_calls);
    stats->n_bytes = tt_load_relaxed(&e->n_bytes);
    stats->sequence = tt_load_relaxed(&e->sequence);
    stats->last_bytes = tt_load_relaxed(&e->last_bytes);
    if (stats->n_calls > 0)
        what_text(tt_load_relaxed(&e->last_what), stats->last_call, sizeof(stats->last_call));
}
