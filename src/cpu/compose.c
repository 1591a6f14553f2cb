/* What an engine that is composed of this one needs beside the table: counting and failing as one. */
#include "cpu/cpu.h"
#include "cpu/cpu_engine.h"

void tt_cpu_note(struct tt_engine *e, const struct tt_call *call, uint64_t bytes)
{
    struct tt_lane *ln = &e->lanes[0];

    ln->what = tt_what(call);
    ln->bytes_to_note = 1 + bytes;
    tt_lane_note(ln);
}

void tt_cpu_note_p2p(struct tt_engine *e, size_t n_ops, uint64_t bytes)
{
    struct tt_stats_area *st = &e->mine->stats;

    tt_store_relaxed(&st->n_calls, tt_load_relaxed(&st->n_calls) + n_ops);
    tt_store_relaxed(&st->n_bytes, tt_load_relaxed(&st->n_bytes) + bytes);
    tt_store_relaxed(&st->last_what, TT_COLL_SEND_RECV);
    tt_store_relaxed(&st->last_bytes, bytes);
}

uint64_t tt_cpu_what(const struct tt_call *call)
{
    return tt_what(call);
}

uint64_t tt_cpu_counts_hash(const size_t *counts, size_t n)
{
    return tt_counts_hash(counts, n);
}

void tt_cpu_call_text(uint64_t what, char *text, size_t bytes)
{
    tt_what_text(what, text, bytes);
}

tutti_result tt_cpu_p2p(struct tt_engine *e, struct tt_p2p ops[], size_t n_ops)
{
    TT_TRY(tt_engine_failed(e));
    return tt_p2p_run(e, ops, n_ops);
}

tutti_result tt_cpu_failed(const struct tt_engine *e)
{
    return tt_engine_failed(e);
}

tutti_result tt_cpu_fail(struct tt_engine *e, tutti_result result, int peer, const char *text)
{
    return tt_engine_fail_outside(e, result, peer, text);
}

void tt_cpu_waits(struct tt_engine *e)
{
    tt_engine_waits(e, 1);
}

int tt_cpu_has_waited(const struct tt_engine *e)
{
    return atomic_load_explicit(&e->mine->waits, memory_order_relaxed) != 0;
}

_Atomic uint64_t *tt_cpu_refused(struct tt_engine *e)
{
    return &e->mine->stats.n_refused;
}

int tt_cpu_polls(const struct tt_engine *e)
{
    return e->spins > 0;
}
