/* Every collective's shape, input, expected result and call: see calls.h. */
#include "support/calls.h"

#include "support/team.h"

enum { PARTS = 3 };
static const size_t row_bytes[PARTS] = {1, 12, 40};

static size_t element_of(const struct t_call *call)
{
    return call->c->coll == T_all_gatherv_rows ? 1 : tutti_dtype_bytes(call->c->dtype);
}

static size_t sum(const size_t counts[], int n)
{
    size_t total = 0;

    for (int r = 0; r < n; r++)
        total += counts[r];
    return total;
}

/* Room for `rows` rows of all parts, in elements of the case's dtype. */
static size_t elements_of_rows(const struct t_call *call, size_t rows)
{
    return rows * (1 + 12 + 40) / tutti_dtype_bytes(call->c->dtype) + 1;
}

/* What rank a sends to rank b in a v-call: nothing one time in four. */
static size_t v_count(const struct t_case *c, int a, int b)
{
    const uint64_t h = t_hash(c->seed + 1000, (uint64_t)(a * 64 + b));

    return h % 4 == 0 ? 0 : (h >> 8) % (2 * c->count + 1);
}

static size_t v_gap(const struct t_case *c, int a, int b)
{
    return t_hash(c->seed + 2000, (uint64_t)(a * 64 + b)) % 5;
}

static void v_shape(struct t_stage *s, struct t_call *call)
{
    const int n = s->n_ranks, me = s->rank;

    call->send_elements = call->recv_elements = 0;
    for (int r = 0; r < n; r++) {
        call->send_counts[r] = v_count(call->c, me, r);
        call->recv_counts[r] = v_count(call->c, r, me);
        call->send_displs[r] = call->send_elements + v_gap(call->c, me, r);
        call->recv_displs[r] = call->recv_elements + v_gap(call->c, r, me);
        call->send_elements = call->send_displs[r] + call->send_counts[r];
        call->recv_elements = call->recv_displs[r] + call->recv_counts[r];
    }
}

static void sizes(struct t_call *call, size_t send, size_t recv)
{
    call->send_elements = send;
    call->recv_elements = recv;
}

/* counts[r] of all_gatherv and reduce_scatterv; rows of all_gatherv_rows. */
static void block_counts(struct t_stage *s, struct t_call *call)
{
    size_t mine, all;

    for (int r = 0; r < s->n_ranks; r++) {
        call->send_counts[r] = v_count(call->c, r, r);
        if (call->c->coll == T_all_gatherv_rows)
            call->send_counts[r] /= 64; /* rows are wider than elements */
    }
    mine = call->send_counts[s->rank];
    all = sum(call->send_counts, s->n_ranks);
    call->in_place_offset = sum(call->send_counts, s->rank);
    if (call->c->coll == T_all_gatherv_rows)
        sizes(call, elements_of_rows(call, mine), elements_of_rows(call, all));
    else if (call->c->coll == T_all_gatherv)
        sizes(call, mine, all);
    else
        sizes(call, all, mine);
}

static void rooted_shape(const struct t_stage *s, struct t_call *call)
{
    const int is_root = s->rank == call->c->root;
    const int null_others = (int)(call->c->seed & 1);

    call->in_place = call->in_place && is_root;
    if (call->c->coll == T_scatter)
        call->null_send = !is_root && null_others;
    else
        call->null_recv = !is_root && null_others;
}

void t_call_shape(struct t_stage *s, struct t_call *call)
{
    const struct t_case *c = call->c;
    const size_t n = (size_t)s->n_ranks, me = (size_t)s->rank, count = c->count;

    call->send_counts = s->counts;
    call->send_displs = s->counts + n;
    call->recv_counts = s->counts + 2 * n;
    call->recv_displs = s->counts + 3 * n;
    call->in_place = c->in_place;
    if (t_is_counted(c->coll)) {
        t_counted_shape(s, call);
        return;
    }
    switch (c->coll) {
    case T_all_reduce:
    case T_broadcast:
    case T_reduce:
    case T_ring: sizes(call, count, count); break;
    case T_all_to_all: sizes(call, n * count, n * count); break;
    case T_reduce_scatter:
    case T_scatter:
        call->in_place_offset = me * count;
        sizes(call, n * count, count);
        break;
    case T_all_gather:
    case T_gather:
        call->in_place_offset = me * count;
        sizes(call, count, n * count);
        break;
    case T_reduce_scatterv:
    case T_all_gatherv:
    case T_all_gatherv_rows: block_counts(s, call); break;
    case T_all_to_allv: v_shape(s, call); break;
    default: sizes(call, 0, 0); break;
    }
    if (c->coll == T_broadcast)
        call->in_place = 1;
    else if (t_colls[c->coll].rooted)
        rooted_shape(s, call);
    else if (c->coll == T_ring || c->coll == T_all_gatherv_rows || c->coll == T_all_to_allv)
        call->in_place = 0;
}

/* --- input --- */

static void rows_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    struct t_pattern p = s->inputs[s->rank];
    size_t at = 0;

    p.element = 1;
    for (int i = 0; i < PARTS; i++) {
        const size_t bytes = call->send_counts[s->rank] * row_bytes[i];

        t_pattern_write(&p, buf + at, (size_t)i * 100, bytes);
        at += bytes;
    }
}

static void v_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    for (int r = 0; r < s->n_ranks; r++)
        t_pattern_write(&s->inputs[s->rank], buf + call->send_displs[r] * element_of(call),
                        (size_t)r * 100, call->send_counts[r]);
}

void t_call_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    const struct t_case *c = call->c;
    const int idle = c->coll == T_scatter && s->rank != c->root;

    if (call->null_send || idle || (c->coll == T_broadcast && s->rank != c->root))
        return;
    if (call->counted)
        t_counted_input(s, call, buf);
    else if (c->coll == T_all_gatherv_rows)
        rows_input(s, call, buf);
    else if (c->coll == T_all_to_allv)
        v_input(s, call, buf);
    else
        t_pattern_write(&s->inputs[s->rank], buf, 0, call->send_elements);
}

/* --- result --- */

/* Block r of recv is elements first ... of rank r's input. */
static void gathered(const struct t_stage *s, const struct t_call *call, size_t first,
                     unsigned char *buf)
{
    for (int r = 0; r < s->n_ranks; r++) {
        const size_t n = call->c->coll == T_all_gatherv ? call->send_counts[r] : call->c->count;

        t_pattern_write(&s->inputs[r], buf, first, n);
        buf += n * element_of(call);
    }
}

static void rows_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    for (int i = 0; i < PARTS; i++)
        for (int r = 0; r < s->n_ranks; r++) {
            struct t_pattern p = s->inputs[r];
            const size_t bytes = call->send_counts[r] * row_bytes[i];

            p.element = 1;
            t_pattern_write(&p, buf, (size_t)i * 100, bytes);
            buf += bytes;
        }
}

static void v_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    for (int r = 0; r < s->n_ranks; r++)
        t_pattern_write(&s->inputs[r], buf + call->recv_displs[r] * element_of(call),
                        (size_t)s->rank * 100, call->recv_counts[r]);
}

void t_call_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    const struct t_case *c = call->c;
    const size_t me = (size_t)s->rank;
    const int before = (s->rank + s->n_ranks - 1) % s->n_ranks;

    const int idle = (c->coll == T_reduce || c->coll == T_gather) && s->rank != c->root;

    if (call->null_recv || idle)
        return;
    if (call->counted) {
        t_counted_result(s, call, buf);
        return;
    }
    switch (c->coll) {
    case T_all_reduce:
    case T_reduce: t_pattern_write(s->result, buf, 0, c->count); break;
    case T_reduce_scatter:
    case T_reduce_scatterv:
        t_pattern_write(s->result, buf, call->in_place_offset, call->recv_elements);
        break;
    case T_all_gather:
    case T_all_gatherv:
    case T_gather: gathered(s, call, 0, buf); break;
    case T_all_gatherv_rows: rows_result(s, call, buf); break;
    case T_all_to_all: gathered(s, call, me * c->count, buf); break;
    case T_all_to_allv: v_result(s, call, buf); break;
    case T_broadcast: t_pattern_write(&s->inputs[c->root], buf, 0, c->count); break;
    case T_scatter: t_pattern_write(&s->inputs[c->root], buf, me * c->count, c->count); break;
    case T_ring: t_pattern_write(&s->inputs[before], buf, 0, c->count); break;
    default: break;
    }
}

/* --- the call --- */

static tutti_result make_rows(struct t_stage *s, struct t_call *call)
{
    tutti_rows parts[PARTS];
    size_t sent = 0, received = 0;

    for (int i = 0; i < PARTS; i++) {
        parts[i] = (tutti_rows){call->send.buf + sent, call->recv.buf + received, row_bytes[i]};
        sent += call->send_counts[s->rank] * row_bytes[i];
        received += sum(call->send_counts, s->n_ranks) * row_bytes[i];
    }
    return tutti_all_gatherv_rows(s->comm, parts, PARTS, call->send_counts, call->stream);
}

static tutti_result make_ring(struct t_stage *s, const struct t_call *call)
{
    const struct t_case *c = call->c;
    const int next = (s->rank + 1) % s->n_ranks, before = (s->rank + s->n_ranks - 1) % s->n_ranks;

    T_OK(tutti_group_begin(s->comm));
    T_OK(tutti_send(s->comm, call->send.buf, c->count, c->dtype, next, call->stream));
    T_OK(tutti_recv(s->comm, call->recv.buf, c->count, c->dtype, before, call->stream));
    return tutti_group_end(s->comm);
}

static tutti_result make_alone(struct t_stage *s, struct t_call *k)
{
    const struct t_case *c = k->c;
    tutti_comm *comm = s->comm;
    void *send = k->send.buf, *recv = k->recv.buf;

    switch (c->coll) {
    case T_all_reduce:
        return tutti_all_reduce(comm, send, recv, c->count, c->dtype, c->op, k->stream);
    case T_reduce_scatter:
        return tutti_reduce_scatter(comm, send, recv, c->count, c->dtype, c->op, k->stream);
    case T_reduce_scatterv:
        return tutti_reduce_scatterv(comm, send, recv, k->send_counts, c->dtype, c->op, k->stream);
    case T_all_gather: return tutti_all_gather(comm, send, recv, c->count, c->dtype, k->stream);
    case T_all_gatherv:
        return tutti_all_gatherv(comm, send, recv, k->send_counts, c->dtype, k->stream);
    case T_all_gatherv_rows: return make_rows(s, k);
    case T_all_to_all: return tutti_all_to_all(comm, send, recv, c->count, c->dtype, k->stream);
    case T_all_to_allv:
        return tutti_all_to_allv(comm, send, k->send_counts, k->send_displs, recv, k->recv_counts,
                                 k->recv_displs, c->dtype, k->stream);
    case T_broadcast: return tutti_broadcast(comm, recv, c->count, c->dtype, c->root, k->stream);
    case T_reduce:
        return tutti_reduce(comm, send, recv, c->count, c->dtype, c->op, c->root, k->stream);
    case T_gather: return tutti_gather(comm, send, recv, c->count, c->dtype, c->root, k->stream);
    case T_scatter: return tutti_scatter(comm, send, recv, c->count, c->dtype, c->root, k->stream);
    case T_ring: return make_ring(s, k);
    default: break;
    }
    if (k->counted)
        return t_counted_make(s, k);
    return tutti_barrier(comm, k->stream);
}

struct team_call {
    struct t_stage *s;
    struct t_call *call;
};

static tutti_result make_as_member(void *context, int i, int n)
{
    const struct team_call *team = context;
    const struct t_call *k = team->call;
    const struct t_case *c = k->c;
    tutti_comm *comm = team->s->comm;
    void *send = k->send.buf, *recv = k->recv.buf;

    switch (c->coll) {
    case T_all_reduce:
        return tutti_all_reduce_team(comm, send, recv, c->count, c->dtype, c->op, i, n);
    case T_reduce_scatter:
        return tutti_reduce_scatter_team(comm, send, recv, c->count, c->dtype, c->op, i, n);
    case T_all_gather: return tutti_all_gather_team(comm, send, recv, c->count, c->dtype, i, n);
    case T_all_to_all: return tutti_all_to_all_team(comm, send, recv, c->count, c->dtype, i, n);
    default: return tutti_broadcast_team(comm, recv, c->count, c->dtype, c->root, i, n);
    }
}

tutti_result t_call_make(struct t_stage *s, struct t_call *call)
{
    const struct t_case *c = call->c;
    struct team_call team = {s, call};

    if (c->team == 0)
        return make_alone(s, call);
    return t_team_run(s->t, 1 + (int)(t_hash(c->seed, (uint64_t)s->rank) % (uint64_t)c->team),
                      make_as_member, &team);
}
