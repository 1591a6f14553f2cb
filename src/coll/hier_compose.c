/* What the engine for GPUs on several hosts needs of this one beside the table: its parts, one by one. */
#include <stdio.h>

#include "coll/hier_parts.h"

enum {
    RAIL = 0x7a11,
    SCATTER = 0x5ca7,
    CROSS = 0xc055,
    ENTRIES = 0xe417
}; /* parts of calls, in `check` of messages */

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

enum tt_presence tt_hier_local_presence(struct tt_engine *e, int local)
{
    return tt_cpu_presence(e->local_engine, local);
}

/* ---- calls ---- */

/* Messages say what kind of call they belong to, and by `check` which one: those that only some ranks
 * make have numbers of their own, or none. */
static tutti_result begin(struct tt_engine *e, const struct tt_call *call, uint32_t check)
{
    TT_TRY(tt_cpu_failed(e->local_engine));
    e->kind = (uint32_t)(tt_cpu_what(call) & TT_WIRE_KIND_MASK);
    e->check = check;
    e->n_messages = 0;
    return TUTTI_OK;
}

static tutti_result end(struct tt_engine *e, tutti_result res)
{
    return res == TUTTI_OK ? TUTTI_OK : tt_hier_give_up(e, res);
}

tutti_result tt_hier_reduce_rail(struct tt_engine *e, const struct tt_call *call)
{
    const uint32_t number = tt_hier_mix(RAIL, ++e->rail_sequence);
    tutti_result res = begin(e, call, tt_hier_mix(number, call->count));
    uint64_t fp;

    if (res == TUTTI_OK) {
        fp = tt_fp_enter();
        res = tt_hier_along_rail(e, call);
        tt_fp_leave(fp);
    }
    return end(e, res);
}

tutti_result tt_hier_scatter_rail(struct tt_engine *e, const struct tt_call *call,
                                  const size_t bytes[])
{
    const uint32_t number =
        e->is_even ? tt_hier_mix(RAIL, ++e->rail_sequence) : tt_hier_mix(SCATTER, ++e->sequence);
    tutti_result res =
        begin(e, call, tt_hier_mix(number, tt_cpu_counts_hash(bytes, (size_t)e->n_ranks)));
    uint64_t fp;

    if (res == TUTTI_OK) {
        fp = tt_fp_enter();
        res = tt_hier_scatter_along_rail(e, call, bytes);
        tt_fp_leave(fp);
    }
    return end(e, res);
}

tutti_result tt_hier_run_cross(struct tt_engine *e, const void *mine, const size_t bytes[],
                               void *const places[])
{
    const struct tt_call call = tt_call_even(TT_COLL_ALL_GATHER, TUTTI_DTYPE_U8, NULL, NULL, 0);
    const uint32_t number = tt_hier_mix(CROSS, ++e->sequence);
    tutti_result res =
        begin(e, &call, tt_hier_mix(number, tt_cpu_counts_hash(bytes, (size_t)e->n_ranks)));

    if (res == TUTTI_OK) {
        tt_hier_cross(e, mine, bytes, places);
        res = tt_hier_exchange(e);
    }
    return end(e, res);
}

tutti_result tt_hier_run_entries(struct tt_engine *e, const struct tt_call *call)
{
    const uint32_t root = tt_hier_mix(ENTRIES, (uint64_t)call->root);
    tutti_result res = begin(e, call, tt_hier_mix(root, call->count));

    if (res == TUTTI_OK)
        res = tt_hier_broadcast_hosts(e, call);
    return end(e, res);
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
            t->streams[i].is_send ? t->e->messages[i].left : t->e->messages[i].moved;
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

void tt_hier_fail_like(struct tt_engine *e, const struct tt_engine *from)
{
    tutti_comm_state state = {.size = sizeof(state)};
    char plain[160];

    from->ops->state(from->local_engine, &state);
    tt_hier_reason(state.text, plain, sizeof(plain));
    if (state.result != TUTTI_OK && tt_cpu_failed(e->local_engine) == TUTTI_OK)
        (void)tt_cpu_fail(e->local_engine, state.result, state.peer, plain);
}

tutti_result tt_hier_serve(struct tt_engine *e)
{
    TT_TRY(tt_cpu_failed(e->local_engine));
    TT_TRY(tt_wire_poll(e->wire));
    return TUTTI_OK;
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
