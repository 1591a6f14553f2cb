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

/* ---- verdicts ---- */

/* A kernel knows that somebody did not come, the host who, and why. It looks once, and what it found stays, since
 * who is there changes: ranks that give up leave. Bits 0-7: the result, 8-15: presence,
 * 32-63: a bit for each rank that is missing or at fault; 0: none yet. */
static uint64_t verdict_word(tutti_result result, enum tt_presence presence, uint32_t ranks)
{
    return (uint64_t)(-(int)result & 0xff) | (uint64_t)presence << 8 | (uint64_t)ranks << 32;
}

static uint32_t bit_of(int rank)
{
    return rank >= 0 && rank < TT_CUDA_MAX_RANKS ? UINT32_C(1) << rank : 0;
}

static tutti_result result_of(uint64_t verdict)
{
    return (tutti_result) - (int)(verdict & 0xff);
}

/* The first of them, or -1. */
static int rank_of(uint64_t verdict)
{
    return verdict >> 32 ? __builtin_ctz((uint32_t)(verdict >> 32)) : -1;
}

static enum tt_presence presence_of(const struct tt_engine *e, int rank)
{
    return e->presence && rank >= 0 && rank < e->n_ranks && rank != e->rank
               ? e->presence(e->exchange.context, rank)
               : TT_IS_THERE;
}

/* The first of these ranks that has died, or left; or -1. */
static int find_gone(const struct tt_engine *e, uint32_t among, enum tt_presence how)
{
    for (int r = 0; r < e->n_ranks; r++)
        if (among & bit_of(r) && presence_of(e, r) == how)
            return r;
    return -1;
}

static int find_dead(const struct tt_engine *e)
{
    return find_gone(e, UINT32_MAX, TT_HAS_DIED);
}

/* Has rank r's kernel of this epoch begun? It has ended, or waits as the own one did; one that did not have to wait
 * long has ended by now. */
static int has_come(const struct tt_engine *e, int r, uint64_t epoch)
{
    struct tt_cuda_block first;
    uint64_t waits;

    return tt_cuda_read(&first, e->arena.at[r], sizeof(first)) != TUTTI_OK ||
           tt_cuda_read(&waits, e->arena.at[r] + TT_CUDA_WAITS_AT, sizeof(waits)) != TUTTI_OK ||
           first.epoch >= epoch || waits >= epoch;
}

/* Of whom a kernel gave up waiting for. It names one, who may only be waiting for another; in which epoch all of
 * them are says more. Sends and receives have none. */
static uint32_t find_missing(const struct tt_engine *e)
{
    const struct tt_cuda_report *report = e->report;
    struct tt_cuda_scope scope;
    uint32_t missing = 0;

    if (report->peer < 0 || report->coll == TT_COLL_SEND_RECV ||
        tt_cuda_scope_enter(e->device, &scope) != TUTTI_OK)
        return bit_of(report->peer);
    for (int r = 0; r < e->n_ranks; r++)
        if (r != e->rank && !has_come(e, r, report->epoch))
            missing |= bit_of(r);
    tt_cuda_scope_leave(&scope);
    return missing ? missing : bit_of(report->peer); /* all have come meanwhile */
}

/* The first verdict counts. */
static uint64_t pass(const struct tt_engine *e, uint64_t verdict)
{
    uint64_t before = 0;

    return __atomic_compare_exchange_n(&e->report->verdict, &before, verdict, 0, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST)
               ? verdict
               : before;
}

/* Who is missing may only be waiting for a third that has died; if it has left, that is what it did. */
static uint64_t judge(const struct tt_engine *e, tutti_result result)
{
    const uint32_t missing = result == TUTTI_E_TIMEOUT ? find_missing(e) : 0;
    int gone;

    if (result != TUTTI_E_TIMEOUT && result != TUTTI_E_ABORTED)
        return verdict_word(result, TT_IS_THERE, bit_of(e->report->peer));
    gone = find_gone(e, missing, TT_HAS_DIED);
    if (gone < 0)
        gone = find_dead(e);
    if (gone >= 0)
        return verdict_word(TUTTI_E_PEER, TT_HAS_DIED, bit_of(gone));
    gone = find_gone(e, missing, TT_HAS_LEFT);
    if (gone >= 0)
        return verdict_word(TUTTI_E_PEER, TT_HAS_LEFT, bit_of(gone));
    return verdict_word(result, TT_IS_THERE, missing);
}

/* `result` is what the report says, not 0. */
static uint64_t verdict_on(const struct tt_engine *e, uint32_t result)
{
    const uint64_t until = tt_now_ns() + WRITING_NS;
    uint64_t verdict;

    while (result == BEING_WRITTEN && tt_now_ns() < until)
        result = read_result(e);
    if (result == BEING_WRITTEN) /* whoever writes it was stopped: look again later */
        return verdict_word(TUTTI_E_INTERNAL, TT_IS_THERE, 0);
    atomic_thread_fence(memory_order_acquire);
    verdict = __atomic_load_n(&e->report->verdict, __ATOMIC_ACQUIRE);
    return verdict ? verdict : pass(e, judge(e, (tutti_result) - (int)result));
}

/* ---- in words ---- */

static int label(const struct tt_engine *e, int rank)
{
    return rank >= 0 && rank < e->n_ranks ? e->labels[rank] : rank;
}

/* "rank 1", or, where others have died too, "ranks 1, 0, 3". */
static void name_gone(const struct tt_engine *e, uint64_t verdict, int has_died, char *text,
                      size_t bytes)
{
    char others[128] = "";
    size_t at = 0;

    for (int r = 0; has_died && r < e->n_ranks && at + 16 < sizeof(others); r++)
        if (r != rank_of(verdict) && presence_of(e, r) == TT_HAS_DIED)
            at += (size_t)snprintf(others + at, sizeof(others) - at, ", %d", label(e, r));
    snprintf(text, bytes, "rank%s %d%s", at ? "s" : "", label(e, rank_of(verdict)), others);
}

static void tell_gone(const struct tt_engine *e, uint64_t verdict, char *text, size_t bytes)
{
    const int has_died = (verdict >> 8 & 0xff) == TT_HAS_DIED;
    const struct tt_cuda_report *r = e->report;
    const char *what = has_died ? "died" : "has destroyed its communicator";
    char who[160];

    name_gone(e, verdict, has_died, who, sizeof(who));
    if (read_result(e) == (uint32_t)-TUTTI_E_TIMEOUT)
        snprintf(text, bytes,
                 "communicator %s: %s %s; %s on the GPU of rank %d, launch %" PRIu64
                 ", waited %.1f s for rank %d",
                 e->name, who, what, coll_name(r->coll), label(e, e->rank), r->epoch,
                 (double)r->detail / 1e9, label(e, r->peer));
    else
        snprintf(text, bytes, "communicator %s: %s %s; what waited on the GPU of rank %d was ended",
                 e->name, who, what, label(e, e->rank));
}

/* Of counts in GPU memory: one is above its bound, or ranks have different ones. */
static void tell_counts(const struct tt_engine *e, char *text, size_t bytes)
{
    const struct tt_cuda_report *r = e->report;

    if (r->detail != 0)
        snprintf(text, bytes,
                 "%s with counts in GPU memory: rank %d has a count of %" PRIu64
                 ", above max_count; nothing was moved (launch %" PRIu64 "): raise max_count",
                 coll_name(r->coll), label(e, r->peer), r->detail, r->epoch);
    else
        snprintf(text, bytes,
                 "%s with counts in GPU memory: rank %d has other counts than rank %d, but they "
                 "must be the same on every rank (launch %" PRIu64 ")",
                 coll_name(r->coll), label(e, r->peer), label(e, e->rank), r->epoch);
}

static void tell_late(const struct tt_engine *e, uint64_t verdict, char *text, size_t bytes)
{
    const struct tt_cuda_report *r = e->report;
    int late[TT_CUDA_MAX_RANKS] = {0}, n = 0;
    char who[TT_RANKS_TEXT];

    for (int rank = 0; rank < e->n_ranks; rank++)
        if (verdict >> 32 & bit_of(rank))
            late[n++] = label(e, rank);
    tt_ranks_text(late, n, who);
    snprintf(text, bytes,
             "%s on the GPU of rank %d: %s did not come within %.1f s: %s busy, stopped or made "
             "another call (launch %" PRIu64 "; TUTTI_TIMEOUT says how long to wait)",
             coll_name(r->coll), label(e, e->rank), who, (double)r->detail / 1e9,
             n > 1 ? "they are" : "it is", r->epoch);
}

/* What kernels/stage.inc waited for is no peer but the thread that serves it. */
static void tell_unserved(const struct tt_engine *e, char *text, size_t bytes)
{
    snprintf(text, bytes,
             "%s on the GPU of rank %d: the thread that carries it to other hosts did not answer "
             "within %.1f s: has it been stopped, or has it no core to run on?",
             coll_name(e->report->coll), label(e, e->rank), (double)e->report->detail / 1e9);
}

static void tell(const struct tt_engine *e, uint64_t verdict, char *text, size_t bytes)
{
    const struct tt_cuda_report *r = e->report;

    switch (result_of(verdict)) {
    case TUTTI_E_PEER: tell_gone(e, verdict, text, bytes); break;
    case TUTTI_E_TIMEOUT:
        if (r->peer < 0)
            tell_unserved(e, text, bytes);
        else
            tell_late(e, verdict, text, bytes);
        break;
    case TUTTI_E_MISMATCH:
        if (r->coll != TT_COLL_SEND_RECV) {
            tell_counts(e, text, bytes);
            break;
        }
        snprintf(text, bytes,
                 "%s: rank %d sends rank %d a message that is not as long as the one it waits for",
                 coll_name(r->coll), label(e, e->rank), label(e, r->peer));
        break;
    case TUTTI_E_ABORTED:
        snprintf(text, bytes, "communicator %s was aborted, by this rank or another", e->name);
        break;
    default:
        snprintf(text, bytes, "a kernel failed (%d) and did not say why: please report it",
                 (int)read_result(e));
    }
}

tutti_result tt_cuda_check_report(const struct tt_engine *e)
{
    const uint32_t result = read_result(e);
    uint64_t verdict;
    char text[256];

    if (__builtin_expect(result == 0, 1))
        return TUTTI_OK;
    verdict = verdict_on(e, result);
    tell(e, verdict, text, sizeof(text));
    return TT_FAIL(result_of(verdict), "%s", text);
}

uint32_t tt_cuda_sequence(const struct tt_engine *e)
{
    return (uint32_t)tt_load_relaxed(&e->sequence);
}

/* The last collective whose number has the bits that the kernel told; calls go on after a failure that nobody has
 * seen yet. What the host ended may have been any. */
static uint64_t failed_sequence(const struct tt_engine *e)
{
    const uint64_t last = tt_load_relaxed(&e->sequence);

    return e->report->sequence == 0 ? last : last - (uint32_t)(last - e->report->sequence);
}

void tt_cuda_state(const struct tt_engine *e, tutti_comm_state *state)
{
    uint64_t verdict;

    tt_cuda_watch(e);
    state->result = TUTTI_OK;
    state->peer = -1;
    state->sequence = tt_load_relaxed(&e->sequence);
    state->text[0] = 0;
    if (read_result(e) == 0)
        return;
    verdict = verdict_on(e, read_result(e));
    state->sequence = failed_sequence(e);
    tell(e, verdict, state->text, sizeof(state->text));
    state->result = result_of(verdict);
    state->peer = label(e, rank_of(verdict));
}

tutti_result tt_cuda_failed(const struct tt_engine *e, int *peer_out)
{
    const tutti_result result = tt_cuda_check_report(e);

    *peer_out = result == TUTTI_OK ? -1 : label(e, rank_of(verdict_on(e, read_result(e))));
    return result;
}

/* ---- ending kernels ---- */

void tt_cuda_end(const struct tt_engine *e, tutti_result why)
{
    uint32_t none = 0;

    __atomic_compare_exchange_n(&e->report->result, &none, (uint32_t)-why, 0, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
    __atomic_store_n(&e->report->abort, 1, __ATOMIC_SEQ_CST);
}

/* Our kernels look at our report; those of the peers, which cannot see it, at the marks in their
 * arenas. Any thread. */
static void end_kernels(const struct tt_engine *e, tutti_result why)
{
    struct tt_cuda_block marks[TT_CUDA_MAX_BLOCKS];
    struct tt_cuda_scope scope;

    tt_cuda_end(e, why);
    if (tt_cuda_scope_enter(e->device, &scope) != TUTTI_OK)
        return;
    for (int b = 0; b < TT_CUDA_MAX_BLOCKS; b++)
        marks[b] = (struct tt_cuda_block){.failed = 1}; /* what the epochs are is no matter now */
    for (int r = 0; r < e->n_ranks; r++)
        if (r != e->rank)
            (void)tt_cuda_write(e->arena.at[r], marks, sizeof(marks));
    tt_cuda_scope_leave(&scope);
}

void tt_cuda_abort(struct tt_engine *e)
{
    if (read_result(e) == 0)
        (void)pass(e, verdict_word(TUTTI_E_ABORTED, TT_IS_THERE, 0));
    end_kernels(e, TUTTI_E_ABORTED);
}

void tt_cuda_watch(const struct tt_engine *e)
{
    int dead;

    if (!e->report || read_result(e) != 0)
        return;
    dead = find_dead(e);
    if (dead < 0)
        return;
    (void)pass(e, verdict_word(TUTTI_E_PEER, TT_HAS_DIED, bit_of(dead)));
    end_kernels(e, TUTTI_E_PEER);
}

/* ---- counters ---- */

void tt_cuda_note(struct tt_engine *e, const struct tt_call *call, uint64_t bytes)
{
    const uint64_t what = (uint64_t)call->coll | (uint64_t)call->dtype << 8 |
                          (uint64_t)call->op << 16 | (uint64_t)(unsigned)call->root << 24;

    if (call->thread == TT_CALL_UNCOUNTED)
        return;
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
