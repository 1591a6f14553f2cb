/* What the engine for GPUs on several hosts needs of this one beside the table: its parts, one by one. */
#include <stdio.h>

#include "coll/hier_parts.h"

struct tt_hier_place tt_hier_place(const struct tt_engine *e)
{
    return (struct tt_hier_place){.n_hosts = e->n_hosts,
                                  .host = e->host,
                                  .local = e->local,
                                  .n_local = e->n_local,
                                  .n_rails = e->n_rails,
                                  .is_even = e->is_even,
                                  .host_of = e->host_of,
                                  .members = e->members,
                                  .first = e->first};
}

tutti_result tt_hier_gather_local(void *engine, const void *send, void *recv, size_t bytes)
{
    struct tt_engine *e = engine;
    struct tt_call call = tt_call_even(TT_COLL_ALL_GATHER, TUTTI_DTYPE_U8, send, recv, bytes);
    const tutti_result res = tt_hier_local(e, &call);

    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}

enum tt_presence tt_hier_presence(struct tt_engine *e, int local)
{
    return tt_cpu_presence(e->local_engine, local);
}

/* ---- calls ---- */

tutti_result tt_hier_reduce_rail(struct tt_engine *e, const struct tt_call *call)
{
    const uint32_t rail = UINT32_C(0x7a11);
    tutti_result res = tt_cpu_failed(e->local_engine);
    uint64_t fp;

    if (res == TUTTI_OK) {
        e->kind = (uint32_t)(tt_cpu_what(call) & TT_WIRE_KIND_MASK);
        e->check = tt_hier_mix(tt_hier_mix(rail, ++e->rail_sequence), call->count);
        e->n_messages = 0;
        fp = tt_fp_enter();
        res = tt_hier_along_rail(e, call);
        tt_fp_leave(fp);
    }
    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}

struct turn {
    struct tt_engine *e;
    struct tt_hier_stream *streams;
    size_t n;
    int (*turn)(void *context);
    void *context;
};

/* Messages stay where they are until all are done, so they say how far they have come. */
static int take_turn(void *context)
{
    const struct turn *t = context;

    for (size_t i = 0; i < t->n; i++)
        t->streams[i].moved =
            t->streams[i].is_send ? t->e->messages[i].sent : t->e->messages[i].moved;
    return t->turn(t->context);
}

static tutti_result run_streams(struct tt_engine *e, struct turn *t)
{
    tutti_result res;

    TT_TRY(tt_hier_make_room(e, t->n));
    e->n_messages = 0;
    e->check = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct tt_hier_stream *s = &t->streams[i];
        struct tt_message *m;

        e->kind = (uint32_t)TT_COLL_SEND_RECV | (uint32_t)s->dtype << 5;
        m = s->is_send ? tt_hier_send(e, s->peer, s->window, s->bytes)
                       : tt_hier_recv(e, s->peer, s->window, s->bytes);
        m->window = s->window_bytes;
        m->ready = &s->limit;
    }
    tt_wire_on_turn(e->wire, take_turn, t);
    tt_hier_start(e);
    res = tt_hier_finish(e);
    tt_wire_on_turn(e->wire, NULL, NULL);
    return res;
}

tutti_result tt_hier_run_streams(struct tt_engine *e, struct tt_hier_stream *streams, size_t n,
                                 int (*turn)(void *context), void *context)
{
    struct turn t = {e, streams, n, turn, context};
    tutti_result res = tt_cpu_failed(e->local_engine);

    if (res == TUTTI_OK)
        res = run_streams(e, &t);
    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}

/* ---- failing ---- */

tutti_result tt_hier_failed(const struct tt_engine *e)
{
    return tt_cpu_failed(e->local_engine);
}

tutti_result tt_hier_fail(struct tt_engine *e, tutti_result why, int peer, const char *text)
{
    char plain[160];

    tt_hier_reason(text, plain, sizeof(plain));
    if (tt_cpu_failed(e->local_engine) == TUTTI_OK)
        (void)tt_cpu_fail(e->local_engine, why, peer, plain);
    return tt_hier_give_up(e, why);
}

tutti_result tt_hier_watch(struct tt_engine *e)
{
    tutti_result res = tt_cpu_failed(e->local_engine);

    if (res == TUTTI_OK) {
        const int moved = tt_wire_poll(e->wire);

        res = moved < 0 ? (tutti_result)moved : TUTTI_OK;
    }
    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}
