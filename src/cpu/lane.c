/*
 * Meeting: every collective begins with each rank posting an arrival and waiting for all the others.
 * That one exchange carries the call's description (so that calls that do not match end with an
 * error), announces the data already in scratch, says what the buffers allow, and bounds how far
 * ranks may run apart: nobody is more than one call ahead, which is why two halves of scratch do.
 */
#include "cpu/cpu.h"

static void add(_Atomic uint64_t *sum, uint64_t n)
{
    tt_store_relaxed(sum, tt_load_relaxed(sum) + n);
}

/* Count the call. Done once this rank has posted its arrival, while the peers' are on the way. */
void tt_lane_note(struct tt_lane *ln)
{
    struct tt_stats_area *st = &ln->e->mine->stats;
    const uint64_t bytes = ln->bytes_to_note - 1;

    ln->bytes_to_note = 0;
    add(&st->sequence, 1);
    add(&st->n_calls, 1);
    add(&st->n_bytes, bytes);
    tt_store_relaxed(&st->last_what, ln->what);
    tt_store_relaxed(&st->last_bytes, bytes);
}

tutti_result tt_lane_mismatch(struct tt_lane *ln, int r)
{
    const struct tt_arrival *a = tt_arrival_of(ln, r);

    return tt_engine_fail(ln->e, TT_MISMATCH, r, tt_load_relaxed(&a->what),
                          tt_load_relaxed(&a->count));
}

tutti_result tt_lane_meet(struct tt_lane *ln, const struct tt_ticket *t, struct tt_meeting *m)
{
    struct tt_engine *e = ln->e;
    uint64_t all = t->can, any = t->can, longest = t->longest;

    if (ln->bytes_to_note)
        tt_lane_note(ln);
    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);
        const struct tt_arrival *a = tt_arrival_of(ln, r);
        uint64_t can, long_one;

        TT_TRY(tt_await(e, r, &a->epoch, ln->epoch));
        if (tt_load_relaxed(&a->what) != t->what || tt_load_relaxed(&a->count) != t->count)
            return tt_lane_mismatch(ln, r);
        can = tt_load_relaxed(&a->can);
        all &= can;
        any |= can;
        long_one = tt_load_relaxed(&a->longest);
        longest = long_one > longest ? long_one : longest;
    }
    m->all_can = all;
    m->any_can = any;
    m->longest = longest;
    tt_time_add(ln, &e->mine->stats.wait_ns);
    return TUTTI_OK;
}

tutti_result tt_lane_barrier(struct tt_lane *ln)
{
    struct tt_engine *e = ln->e;

    ln->produced++;
    tt_post(e, &ln->mine->produced, ln->produced);
    if (TT_BROKEN(BARRIER))
        return TUTTI_OK;
    for (int d = 1; d < e->n_ranks; d++) {
        const int r = tt_after(e, d);

        TT_TRY(tt_await(e, r, &tt_lane_of(ln, r)->produced, ln->produced));
    }
    tt_time_add(ln, &e->mine->stats.sync_ns);
    tt_lane_ready(ln, 0, 0);
    return TUTTI_OK;
}

tutti_result tt_cpu_barrier(struct tt_lane *ln)
{
    tt_lane_begin(ln, 0);
    tt_lane_arrive_plain(ln, 0);
    TT_TRY(tt_lane_meet_plain(ln, 0, 0));
    tt_lane_ready(ln, 0, 0);
    return TUTTI_OK;
}
