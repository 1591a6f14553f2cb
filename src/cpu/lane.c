/*
 * Meeting: every collective begins with each rank posting an arrival and waiting for all the others.
 * That one exchange carries the call's description (so that calls that do not match end with an
 * error), announces the data already in scratch, says what the buffers allow, and bounds how far
 * ranks may run apart: nobody is more than one call ahead, which is why two halves of scratch do.
 */
#include "cpu/cpu.h"

void tt_lane_begin(struct tt_lane *ln, size_t bytes)
{
    ln->epoch++;
    ln->weight = bytes >= TT_TIMED_BYTES        ? 1
                 : ln->epoch % TT_TIMED_EVERY ? 0
                                              : TT_TIMED_EVERY;
    tt_time_start(ln);
}

void tt_lane_arrive(struct tt_lane *ln, const struct tt_ticket *t)
{
    struct tt_arrival *a = &ln->mine->arrival[ln->epoch & 1];

    tt_store_relaxed(&a->what, t->what);
    tt_store_relaxed(&a->count, t->count);
    tt_store_relaxed(&a->can, t->can);
    tt_store_relaxed(&a->send, t->send);
    tt_store_relaxed(&a->recv, t->recv);
    tt_store_relaxed(&a->longest, t->longest);
    tt_post(ln->e, &a->epoch, ln->epoch);
}

tutti_result tt_lane_meet(struct tt_lane *ln, const struct tt_ticket *t, struct tt_meeting *m)
{
    struct tt_engine *e = ln->e;
    uint64_t all = t->can, any = t->can, longest = t->longest;

    for (int d = 1; d < e->n_ranks; d++) {
        const int r = e->rank + d < e->n_ranks ? e->rank + d : e->rank + d - e->n_ranks;
        const struct tt_arrival *a = tt_arrival_of(ln, r);
        uint64_t can, long_one;

        TT_TRY(tt_await(e, r, &a->epoch, ln->epoch));
        if (tt_load_relaxed(&a->what) != t->what || tt_load_relaxed(&a->count) != t->count)
            return tt_engine_fail(e, TT_MISMATCH, r, tt_load_relaxed(&a->what),
                                  tt_load_relaxed(&a->count));
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
        const int r = e->rank + d < e->n_ranks ? e->rank + d : e->rank + d - e->n_ranks;

        TT_TRY(tt_await(e, r, &tt_lane_of(ln, r)->produced, ln->produced));
    }
    tt_time_add(ln, &e->mine->stats.sync_ns);
    return TUTTI_OK;
}

tutti_result tt_cpu_barrier(struct tt_lane *ln, const struct tt_call *call)
{
    const struct tt_ticket t = {.what = tt_what(call)};
    struct tt_meeting m;

    tt_lane_begin(ln, 0);
    tt_lane_arrive(ln, &t);
    return tt_lane_meet(ln, &t, &m);
}
