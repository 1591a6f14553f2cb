/* Reductions across hosts: partial results within each host, then their reduction in the order of
 * hosts. */
#include <string.h>

#include "coll/hier_parts.h"

/* Up to which size whole vectors cross the network, in one exchange instead of two. */
#define SMALL_BYTES (UINT64_C(16) << 10)
/* Up to which size of a rank's part two hosts exchange all of it. Beyond, the own half that is reduced twice
 * comes from main memory a second time. */
#define WHOLE_BYTES (UINT64_C(1) << 20)

struct tt_hier_part tt_hier_part_of(size_t count, int parts, int i, size_t size)
{
    const size_t line = 64 / size, lines = (count + line - 1) / line;
    const size_t each = (lines + (size_t)parts - 1) / (size_t)parts * line;
    const size_t first = each * (size_t)i < count ? each * (size_t)i : count;

    return (struct tt_hier_part){first, count - first < each ? count - first : each};
}

/* ---- what arrives is reduced ---- */

struct reduction {
    struct tt_engine *e;
    const unsigned char *own; /* this host's partial result of the part that this rank reduces */
    unsigned char *result;
    size_t slot_bytes; /* of each host's partial result in scratch */
    uint64_t arrived_least, ready;
    tutti_dtype dtype;
    tutti_op op;
};

struct arrival {
    struct reduction *of;
    uint64_t bytes;
    int host;
};

static void reduce_range(struct reduction *r, const unsigned char *const partials[], uint64_t at,
                         uint64_t end)
{
    struct tt_engine *e = r->e;

    for (int h = 0; h < e->n_hosts; h++)
        e->sources[h] = partials[h];
    tt_hier_combine(e, r->result + at, e->sources, (end - at) / tt_dtype_bytes(r->dtype), r->dtype,
                    r->op);
    r->ready = end;
}

/* With two hosts where it has arrived. */
static void take_from_one(struct tt_message *m, const unsigned char *piece, uint64_t at, size_t n)
{
    const struct arrival *a = m->context;
    struct reduction *r = a->of;
    const unsigned char *partials[2];

    partials[r->e->host] = r->own + at;
    partials[a->host] = piece;
    reduce_range(r, partials, at, at + n);
}

/* Two hosts: each sends all of its partial result to the other and reduces what comes. As many bytes as
 * reducing a half each and exchanging the results, in one step. `result` may be `partial`: what is on its
 * way out does not change. */
static tutti_result exchange_partials(struct tt_engine *e, const void *partial, void *result,
                                      size_t count, const struct tt_call *call)
{
    const size_t bytes = count * tt_dtype_bytes(call->dtype);
    const int other = 1 - e->host, peer = tt_hier_partner(e, other);
    struct reduction r = {
        .e = e, .own = partial, .result = result, .dtype = call->dtype, .op = call->op};
    struct arrival arrival = {&r, 0, other};
    const struct tt_message *out = tt_hier_send(e, peer, partial, bytes);
    struct tt_message *in = tt_hier_recv(e, peer, NULL, bytes);

    in->take = take_from_one;
    in->context = &arrival;
    in->after = out;
    return tt_hier_exchange(e);
}

/* ---- small: everybody gets the partial results of all hosts ---- */

static tutti_result all_reduce_small(struct tt_engine *e, const struct tt_call *call)
{
    const size_t bytes = call->count * tt_dtype_bytes(call->dtype);
    const void *partial = call->send;

    if (e->n_local > 1) {
        struct tt_call local =
            tt_call_even(TT_COLL_ALL_REDUCE, call->dtype, call->send, call->recv, call->count);

        local.op = tt_hier_partial_op(call->op);
        TT_TRY(tt_hier_local(e, &local));
        partial = call->recv;
    }
    if (e->n_hosts == 2 && (e->is_even || e->local == 0)) {
        TT_TRY(exchange_partials(e, partial, call->recv, call->count, call));
    } else if (e->is_even || e->local == 0) {
        TT_TRY(tt_hier_gather_hosts(e, partial, bytes, e->sources));
        tt_hier_combine(e, call->recv, e->sources, call->count, call->dtype, call->op);
    }
    if (!e->is_even && e->n_local > 1) {
        struct tt_call local =
            tt_call_even(TT_COLL_BROADCAST, call->dtype, call->recv, call->recv, call->count);

        TT_TRY(tt_hier_local(e, &local));
    }
    return TUTTI_OK;
}

/* ---- large: each rank of a rail reduces a part and sends it to the others of the rail ---- */

/* It waits in scratch for those of the other hosts. */
static void take_from_many(struct tt_message *m, const unsigned char *piece, uint64_t at, size_t n)
{
    struct arrival *a = m->context, *all = a - a->host;
    struct reduction *r = a->of;
    struct tt_engine *e = r->e;
    const unsigned char **partials = (const unsigned char **)(void *)e->places;
    uint64_t least = UINT64_MAX;

    memcpy(e->scratch + (size_t)a->host * r->slot_bytes + at, piece, n);
    a->bytes = at + n;
    for (int h = 0; h < e->n_hosts; h++)
        if (h != e->host && all[h].bytes < least)
            least = all[h].bytes;
    if (least <= r->ready)
        return;
    for (int h = 0; h < e->n_hosts; h++)
        partials[h] =
            h == e->host ? r->own + r->ready : e->scratch + (size_t)h * r->slot_bytes + r->ready;
    reduce_range(r, partials, r->ready, least);
}

/* Both exchanges at once: what is reduced goes on its way while the rest still comes in. A result
 * arrives where a partial result was only after that one has been taken from there. */
static tutti_result reduce_along_rail(struct tt_engine *e, const unsigned char *partial,
                                      unsigned char *result, size_t count,
                                      const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const int n = e->n_hosts;
    const struct tt_hier_part mine = tt_hier_part_of(count, n, e->host, size);
    struct arrival *arrivals = (struct arrival *)(void *)e->scratch;
    const size_t head = ((size_t)n * sizeof(*arrivals) + 63) & ~(size_t)63;
    struct reduction r = {.e = e,
                          .own = partial + mine.first * size,
                          .result = result + mine.first * size,
                          .slot_bytes = mine.n * size,
                          .dtype = call->dtype,
                          .op = call->op};
    tutti_result res;

    for (int i = 1; i < n; i++) {
        const int to = (e->host + n - i) % n, from = (e->host + i) % n;
        const struct tt_hier_part p = tt_hier_part_of(count, n, to, size);
        struct tt_message *m;

        tt_hier_send(e, tt_hier_partner(e, to), partial + p.first * size, p.n * size);
        m = tt_hier_recv(e, tt_hier_partner(e, from), NULL, mine.n * size);
        arrivals[from] = (struct arrival){&r, 0, from};
        m->context = &arrivals[from];
        m->take = n == 2 ? take_from_one : take_from_many;
    }
    for (int i = 1; i < n; i++) {
        const int to = (e->host + n - i) % n, from = (e->host + i) % n;
        const struct tt_hier_part p = tt_hier_part_of(count, n, from, size);

        tt_hier_send(e, tt_hier_partner(e, to), r.result, mine.n * size)->ready = &r.ready;
        tt_hier_recv(e, tt_hier_partner(e, from), result + p.first * size, p.n * size);
    }
    e->scratch += head;
    res = tt_hier_exchange(e);
    e->scratch -= head;
    return res;
}

/* Of a part, which this rank has in common with its rail. */
static tutti_result reduce_across(struct tt_engine *e, const unsigned char *partial,
                                  unsigned char *result, size_t count, const struct tt_call *call)
{
    if (e->n_hosts == 2 && count * tt_dtype_bytes(call->dtype) <= WHOLE_BYTES)
        return exchange_partials(e, partial, result, count, call);
    return reduce_along_rail(e, partial, result, count, call);
}

static tutti_result all_reduce_piece(struct tt_engine *e, const struct tt_call *call, size_t at,
                                     size_t count)
{
    const size_t size = tt_dtype_bytes(call->dtype);
    const unsigned char *send = (const unsigned char *)call->send + at * size;
    unsigned char *recv = (unsigned char *)call->recv + at * size;
    size_t *counts = tt_hier_row(e, TT_ROW_LOCAL);
    const struct tt_hier_part mine = e->local < e->n_rails
                                         ? tt_hier_part_of(count, e->n_rails, e->local, size)
                                         : (struct tt_hier_part){count, 0};
    const unsigned char *partial = send;
    struct tt_call local = {.coll = TT_COLL_REDUCE_SCATTER,
                            .dtype = call->dtype,
                            .op = tt_hier_partial_op(call->op),
                            .send = send,
                            .recv = recv + mine.first * size,
                            .counts = counts};

    for (int i = 0; i < e->n_local; i++)
        counts[i] = i < e->n_rails ? tt_hier_part_of(count, e->n_rails, i, size).n : 0;
    if (e->n_local > 1) {
        TT_TRY(tt_hier_local(e, &local));
        partial = recv + mine.first * size;
    }
    if (e->local < e->n_rails)
        TT_TRY(reduce_across(e, partial, recv + mine.first * size, mine.n, call));
    if (e->n_local == 1)
        return TUTTI_OK;
    local.coll = TT_COLL_ALL_GATHER;
    local.send = recv + mine.first * size;
    local.recv = recv;
    return tt_hier_local(e, &local);
}

tutti_result tt_hier_all_reduce(struct tt_engine *e, const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype), bytes = call->count * size;
    const size_t n = (size_t)e->n_hosts;
    const size_t slot = e->scratch_bytes / 2 / n / size & ~(size_t)63;
    const size_t piece = n == 2 ? call->count : slot * n * (size_t)e->n_rails;

    if (tt_hier_is_flat(call))
        return tt_hier_flat_all_reduce(e, call);
    if (bytes <= SMALL_BYTES && bytes * n <= e->scratch_bytes)
        return all_reduce_small(e, call);
    TT_TRY(tt_hier_meet(e, call));
    for (size_t at = 0; at < call->count; at += piece)
        TT_TRY(all_reduce_piece(e, call, at, call->count - at < piece ? call->count - at : piece));
    return TUTTI_OK;
}

/* What tt_hier_all_reduce() does between its steps within the host. */
tutti_result tt_hier_along_rail(struct tt_engine *e, const struct tt_call *call)
{
    const size_t size = tt_dtype_bytes(call->dtype), bytes = call->count * size;
    const size_t n = (size_t)e->n_hosts;
    const size_t slot = e->scratch_bytes / 2 / n / size & ~(size_t)63;
    const size_t most = n == 2 ? call->count : slot * n;
    const unsigned char *partial = call->send;
    unsigned char *result = call->recv;

    if (n > 2 && bytes <= SMALL_BYTES && bytes * n <= e->scratch_bytes) {
        TT_TRY(tt_hier_gather_hosts(e, partial, bytes, e->sources));
        tt_hier_combine(e, result, e->sources, call->count, call->dtype, call->op);
        return TUTTI_OK;
    }
    for (size_t at = 0; at < call->count; at += most)
        TT_TRY(reduce_across(e, partial + at * size, result + at * size,
                             call->count - at < most ? call->count - at : most, call));
    return TUTTI_OK;
}

/* ---- reduce_scatter, and reduce as one whose blocks are empty but for root's ---- */

struct scatter {
    const struct tt_call *call;
    const size_t *counts, *displs; /* of the ranks' blocks */
    size_t size, at, most;         /* a slice of every block: elements [at, at + most) of it */
    const unsigned char *partials; /* this rank's share of the host's partial results */
    unsigned char *spare;          /* scratch behind them */
};

static size_t slice_of(const struct scatter *s, int r)
{
    const size_t left = s->counts[r] > s->at ? s->counts[r] - s->at : 0;

    return left < s->most ? left : s->most;
}

static const unsigned char *slice_at(const struct scatter *s, int r)
{
    return (const unsigned char *)s->call->send + (s->displs[r] + s->at) * s->size;
}

/* On every host the ranks share out the blocks: the i'th rank of any host has its block reduced by
 * the i'th of this one. So the slices are brought into that order, and reduced and scattered. */
static tutti_result reduce_within(struct tt_engine *e, struct scatter *s)
{
    size_t *counts = tt_hier_row(e, TT_ROW_LOCAL);
    unsigned char *packed = e->scratch, *to = packed;
    struct tt_call local = {.coll = TT_COLL_REDUCE_SCATTER,
                            .dtype = s->call->dtype,
                            .op = tt_hier_partial_op(s->call->op),
                            .send = packed,
                            .counts = counts};

    for (int j = 0; j < e->n_local; j++) {
        const unsigned char *begin = to;

        for (int h = 0; h < e->n_hosts; h++)
            for (int i = j; i < tt_hier_size(e, h); i += e->n_local) {
                const int r = tt_hier_member(e, h, i);
                const size_t bytes = slice_of(s, r) * s->size;

                if (bytes)
                    memcpy(to, slice_at(s, r), bytes);
                to += bytes;
            }
        counts[j] = (size_t)(to - begin) / s->size;
    }
    to += -(uintptr_t)to & 63;
    s->partials = to;
    s->spare = to + counts[e->local] * s->size;
    s->spare += -(uintptr_t)s->spare & 63;
    local.recv = to;
    return tt_hier_local(e, &local);
}

/* A partial result of this host goes to the rank whose block it is of. */
static void give_partial(struct tt_engine *e, int r, const unsigned char *partial, size_t bytes)
{
    if (r == e->rank)
        e->sources[e->host] = partial;
    else if (bytes)
        tt_hier_send(e, r, partial, bytes);
}

/* Those of this rank's block that come from the other hosts, and all of them reduced. */
static tutti_result combine_partials(struct tt_engine *e, const struct tt_call *call,
                                     unsigned char *spare, unsigned char *result, size_t bytes)
{
    for (int h = 0; bytes && h < e->n_hosts; h++) {
        if (h == e->host)
            continue;
        e->sources[h] = spare;
        tt_hier_recv(e, tt_hier_partner(e, h), spare, bytes);
        spare += bytes;
    }
    TT_TRY(tt_hier_exchange(e));
    if (bytes)
        tt_hier_combine(e, result, e->sources, bytes / tt_dtype_bytes(call->dtype), call->dtype,
                        call->op);
    return TUTTI_OK;
}

static tutti_result reduce_slices(struct tt_engine *e, struct scatter *s)
{
    const unsigned char *from;

    s->spare = e->scratch;
    if (e->n_local > 1)
        TT_TRY(reduce_within(e, s));
    from = s->partials;
    for (int h = 0; h < e->n_hosts; h++)
        for (int i = e->local; i < tt_hier_size(e, h); i += e->n_local) {
            const int r = tt_hier_member(e, h, i);
            const size_t bytes = slice_of(s, r) * s->size;

            give_partial(e, r, e->n_local > 1 ? from : slice_at(s, r), bytes);
            from += bytes;
        }
    return combine_partials(e, s->call, s->spare, (unsigned char *)s->call->recv + s->at * s->size,
                            slice_of(s, e->rank) * s->size);
}

/* The same of partial results that are there already. */
tutti_result tt_hier_scatter_along_rail(struct tt_engine *e, const struct tt_call *call,
                                        const size_t bytes[])
{
    const unsigned char *from = call->send;

    for (int h = 0; h < e->n_hosts; h++)
        for (int i = e->local; i < tt_hier_size(e, h); i += e->n_local) {
            const int r = tt_hier_member(e, h, i);

            give_partial(e, r, from, bytes[r]);
            from += bytes[r];
        }
    return combine_partials(e, call, e->scratch, call->recv, bytes[e->rank]);
}

tutti_result tt_hier_reduce_scatter(struct tt_engine *e, const struct tt_call *call)
{
    size_t *displs = tt_hier_row(e, TT_ROW_DISPLS);
    struct scatter s = {.call = call,
                        .counts = call->counts,
                        .displs = displs,
                        .size = tt_dtype_bytes(call->dtype)};
    size_t sum = 0, longest = 0, n_blocks = 0;

    for (int r = 0; r < e->n_ranks; r++) {
        displs[r] = sum;
        sum += s.counts[r];
        longest = s.counts[r] > longest ? s.counts[r] : longest;
        n_blocks += s.counts[r] > 0;
    }
    s.most = (e->scratch_bytes - 256) / s.size / (2 * n_blocks + (size_t)e->n_hosts);
    TT_TRY(tt_hier_meet(e, call));
    if (tt_hier_is_flat(call))
        return tt_hier_flat_reduce_scatter(e, call);
    for (s.at = 0; s.at < longest; s.at += s.most)
        TT_TRY(reduce_slices(e, &s));
    return TUTTI_OK;
}
