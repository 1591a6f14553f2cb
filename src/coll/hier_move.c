/* Collectives across hosts that move blocks from all ranks to all: all_gather and all_to_all. */
#include <string.h>

#include "coll/hier_parts.h"

/* ---- all_gather ---- */

static tutti_result gather_within(struct tt_engine *e, const void *mine, const size_t bytes[],
                                  void *const places[])
{
    size_t *counts = tt_hier_row(e, TT_ROW_LOCAL);
    void **blocks = e->places + e->n_ranks;
    struct tt_call local = {.coll = TT_COLL_ALL_GATHER,
                            .dtype = TUTTI_DTYPE_U8,
                            .send = mine,
                            .counts = counts,
                            .recv_blocks = blocks};

    for (int i = 0; i < e->n_local; i++) {
        counts[i] = bytes[tt_hier_member(e, e->host, i)];
        blocks[i] = places[tt_hier_member(e, e->host, i)];
    }
    return tt_hier_local(e, &local);
}

/* What the ranks of this host have received of host h's blocks becomes everybody's: in each round a
 * block from each of them. */
static tutti_result share_within(struct tt_engine *e, int h, const size_t bytes[],
                                 void *const places[])
{
    size_t *counts = tt_hier_row(e, TT_ROW_LOCAL);
    void **blocks = e->places + e->n_ranks;
    struct tt_call local = {.coll = TT_COLL_ALL_GATHER,
                            .dtype = TUTTI_DTYPE_U8,
                            .counts = counts,
                            .recv_blocks = blocks};

    for (int begin = 0; begin < tt_hier_size(e, h); begin += e->n_local) {
        for (int i = 0; i < e->n_local; i++) {
            const int is_there = begin + i < tt_hier_size(e, h);

            counts[i] = is_there ? bytes[tt_hier_member(e, h, begin + i)] : 0;
            blocks[i] = is_there ? places[tt_hier_member(e, h, begin + i)] : NULL;
        }
        local.send = blocks[e->local];
        TT_TRY(tt_hier_local(e, &local));
    }
    return TUTTI_OK;
}

/* Each block crosses the network once for each other host, to the rank that has the sender's number
 * there. */
void tt_hier_cross(struct tt_engine *e, const void *mine, const size_t bytes[],
                   void *const places[])
{
    for (int i = 1; i < e->n_hosts; i++) {
        const int to = (e->host + e->n_hosts - i) % e->n_hosts, from = (e->host + i) % e->n_hosts;

        if (bytes[e->rank])
            tt_hier_send(e, tt_hier_partner(e, to), mine, bytes[e->rank]);
        for (int k = e->local; k < tt_hier_size(e, from); k += e->n_local) {
            const int r = tt_hier_member(e, from, k);

            if (bytes[r])
                tt_hier_recv(e, r, places[r], bytes[r]);
        }
    }
}

/* And then it is shared with the ranks of the host. */
tutti_result tt_hier_gather_blocks(struct tt_engine *e, const void *mine, const size_t bytes[],
                                   void *const places[])
{
    tt_hier_cross(e, mine, bytes, places);
    tt_hier_start(e);
    if (e->n_local > 1)
        TT_TRY(gather_within(e, mine, bytes, places));
    else if (places[e->rank] != mine && bytes[e->rank])
        memmove(places[e->rank], mine, bytes[e->rank]);
    TT_TRY(tt_hier_finish(e));
    for (int h = 0; e->n_local > 1 && h < e->n_hosts; h++)
        if (h != e->host)
            TT_TRY(share_within(e, h, bytes, places));
    return TUTTI_OK;
}

/* Several tensors: their rows side by side in scratch where they fit, else one after the other. */
static tutti_result gather_rows(struct tt_engine *e, const struct tt_call *call)
{
    size_t *bytes = tt_hier_row(e, TT_ROW_COUNTS), row = 0, all = 0;
    unsigned char *mine = e->scratch, *to;

    for (size_t p = 0; p < call->n_parts; p++)
        row += call->parts[p].row_bytes;
    for (int r = 0; r < e->n_ranks; r++)
        all += call->counts[r] * row;
    if (all <= e->scratch_bytes / 2) {
        for (size_t p = 0; p < call->n_parts; p++) {
            const size_t n = call->counts[e->rank] * call->parts[p].row_bytes;

            if (n)
                memcpy(mine, call->parts[p].send, n);
            mine += n;
        }
        mine = e->scratch;
        to = e->scratch + e->scratch_bytes / 2;
        for (int r = 0; r < e->n_ranks; r++) {
            bytes[r] = call->counts[r] * row;
            e->places[r] = to;
            to += bytes[r];
        }
        TT_TRY(tt_hier_gather_blocks(e, mine, bytes, e->places));
    }
    for (size_t p = 0; p < call->n_parts; p++) {
        const tutti_rows *part = &call->parts[p];
        unsigned char *recv = part->recv;

        for (int r = 0; r < e->n_ranks; r++) {
            const size_t n = call->counts[r] * part->row_bytes;
            unsigned char *from = e->places[r];

            if (all <= e->scratch_bytes / 2) {
                if (n)
                    memcpy(recv, from, n);
                e->places[r] = from + n;
            } else {
                bytes[r] = n;
                e->places[r] = recv;
            }
            if (n)
                recv += n;
        }
        if (all > e->scratch_bytes / 2)
            TT_TRY(tt_hier_gather_blocks(e, part->send, bytes, e->places));
    }
    return TUTTI_OK;
}

tutti_result tt_hier_all_gather(struct tt_engine *e, const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    size_t *bytes = tt_hier_row(e, TT_ROW_COUNTS);
    unsigned char *recv = call->recv;

    TT_TRY(tt_hier_meet(e, call));
    if (call->parts)
        return gather_rows(e, call);
    for (int r = 0; r < e->n_ranks; r++) {
        bytes[r] = call->counts[r] * size;
        e->places[r] = call->recv_blocks ? call->recv_blocks[r] : recv;
        if (recv)
            recv += bytes[r];
    }
    return tt_hier_gather_blocks(e, call->send, bytes, e->places);
}

/* ---- all_to_all ---- */

static tutti_result move_within(struct tt_engine *e, const struct tt_hier_moves *moves)
{
    size_t *rows[4];
    struct tt_call local = {.coll = TT_COLL_ALL_TO_ALL,
                            .algo = TT_ALGO_ONE_SHOT,
                            .window_algo = TT_ALGO_ONE_SHOT,
                            .dtype = TUTTI_DTYPE_U8,
                            .send = moves->out,
                            .recv = moves->in,
                            .thread = TT_CALL_UNCOUNTED};

    for (int i = 0; i < 4; i++)
        rows[i] = tt_hier_row(e, TT_ROW_LOCAL + i);
    for (int i = 0; i < e->n_local; i++) {
        const int r = tt_hier_member(e, e->host, i);

        rows[0][i] = moves->out_bytes[r];
        rows[1][i] = moves->out_at[r];
        rows[2][i] = moves->in_bytes[r];
        rows[3][i] = moves->in_at[r];
    }
    local.send_counts = rows[0];
    local.send_displs = rows[1];
    local.recv_counts = rows[2];
    local.recv_displs = rows[3];
    /* Pieces through scratch: a rank's own leave before those for it come to their place. */
    if (moves->staged)
        return e->ops->run(e->local_engine, &local);
    return tt_hier_local(e, &local);
}

/* Straight from rank to rank, all at once; the ranks of the own host beside that. In place, what comes from a rank
 * follows what goes there. */
tutti_result tt_hier_move_blocks(struct tt_engine *e, const struct tt_hier_moves *moves)
{
    for (int i = 1; i < e->n_ranks; i++) {
        const int to = (e->rank + i) % e->n_ranks;
        const int from = moves->in_place ? to : (e->rank + e->n_ranks - i) % e->n_ranks;
        const struct tt_message *out = NULL;

        if (e->host_of[to] != e->host && (moves->out_bytes[to] || !moves->skip_empty))
            out = tt_hier_send(e, to, moves->out_bytes[to] ? moves->out + moves->out_at[to] : NULL,
                               moves->out_bytes[to]);
        if (e->host_of[from] != e->host && (moves->in_bytes[from] || !moves->skip_empty))
            tt_hier_recv(e, from, moves->in_bytes[from] ? moves->in + moves->in_at[from] : NULL,
                         moves->in_bytes[from])
                ->after = moves->in_place ? out : NULL;
    }
    tt_hier_start(e);
    TT_TRY(move_within(e, moves));
    return tt_hier_finish(e);
}

tutti_result tt_hier_all_to_all(struct tt_engine *e, const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    size_t *out = tt_hier_row(e, TT_ROW_OUT), *out_at = tt_hier_row(e, TT_ROW_OUT_AT);
    size_t *in = tt_hier_row(e, TT_ROW_IN), *in_at = tt_hier_row(e, TT_ROW_IN_AT);
    const int in_place = !call->send_counts && call->send == call->recv;
    struct tt_hier_moves moves = {.out_bytes = out,
                                  .out_at = out_at,
                                  .in_bytes = in,
                                  .in_at = in_at,
                                  .out = call->send,
                                  .in = call->recv,
                                  .in_place = in_place,
                                  .staged = in_place};

    TT_TRY(tt_hier_meet_any(e, call, &moves.staged));
    for (size_t r = 0; r < (size_t)e->n_ranks; r++) {
        out[r] = (call->send_counts ? call->send_counts[r] : call->count) * size;
        out_at[r] = (call->send_counts ? call->send_displs[r] : r * call->count) * size;
        in[r] = (call->send_counts ? call->recv_counts[r] : call->count) * size;
        in_at[r] = (call->send_counts ? call->recv_displs[r] : r * call->count) * size;
    }
    return tt_hier_move_blocks(e, &moves);
}
