/* The calls whose counts lie in device memory: see calls.h. Where their blocks lie, strides and bound
 * come from the case alone; counts change with its round. */
#include "support/calls.h"

enum { PARTS = 3, ROWS_SHARE = 64 }; /* rows are wider than elements */
static const size_t row_bytes[PARTS] = {1, 12, 40};

static int is_rows(const struct t_call *call)
{
    return call->c->coll == T_all_gatherv_rows_device;
}

static int is_exchange(const struct t_call *call)
{
    return call->c->coll == T_all_to_allv_device;
}

/* What rank a sends to rank b. Sometimes none send, one alone does, or all as much as they may. */
static size_t count_of(const struct t_call *call, int n_ranks, int a, int b)
{
    const uint64_t when = t_hash(call->c->seed + 4000, call->c->round);
    const uint64_t h = t_hash(when, (uint64_t)a * 64 + (uint64_t)b);

    switch (when % 8) {
    case 0: return 0;
    case 1: return a == (int)((when >> 8) % (uint64_t)n_ranks) ? call->max_count : 0;
    case 2: return call->max_count;
    default: return h % 4 == 0 ? 0 : (h >> 8) % (call->max_count + 1);
    }
}

static size_t step_of(const struct t_call *call, int side)
{
    const uint64_t h = t_hash(call->c->seed + 5000, (uint64_t)side);

    return h % 3 == 0 ? 0 : call->max_count + (h >> 8) % 3;
}

/* Where the blocks begin, in elements, and how many elements they take at most. */
static size_t place(const struct t_call *call, int n, size_t step, const size_t counts[],
                    size_t displs[])
{
    size_t at = 0;

    for (int r = 0; r < n; r++) {
        displs[r] = (step > 0 ? (size_t)r * step : at) * call->unit;
        at += counts[r];
    }
    return (size_t)n * (step > 0 ? step : call->max_count) * call->unit;
}

static size_t elements_of_rows(const struct t_call *call, size_t rows)
{
    return rows * (1 + 12 + 40) / tutti_dtype_bytes(call->c->dtype) + 1;
}

static void set_words(struct t_stage *s, const struct t_call *call)
{
    const int is_one = !is_exchange(call) && !t_colls[call->c->coll].reduces;

    for (int r = 0; r < s->n_ranks; r++) {
        s->words[r] = is_one && r > 0 ? UINT64_MAX : call->send_counts[is_one ? s->rank : r];
        s->words[s->n_ranks + r] = T_NO_WORD;
    }
}

void t_counted_shape(struct t_stage *s, struct t_call *call)
{
    const struct t_case *c = call->c;
    const uint64_t h = t_hash(c->seed + 3000, 0);
    const int n = s->n_ranks, reduces = t_colls[c->coll].reduces;

    call->counted = 1;
    call->unit = is_rows(call) ? 1 : 1 + h % 3;
    call->hears = !reduces && (h >> 8) % 2;
    call->max_count = 2 * c->count / (is_rows(call) ? ROWS_SHARE : call->unit);
    call->send_step = reduces || is_exchange(call) ? step_of(call, 0) : 0;
    call->recv_step = reduces ? 0 : step_of(call, 1);
    for (int r = 0; r < n; r++) {
        call->send_counts[r] = count_of(call, n, is_exchange(call) ? s->rank : r, r);
        call->recv_counts[r] = count_of(call, n, r, is_exchange(call) ? s->rank : r);
    }
    call->send_elements = place(call, n, call->send_step, call->send_counts, call->send_displs);
    call->recv_elements = place(call, n, call->recv_step, call->recv_counts, call->recv_displs);
    if (is_rows(call)) {
        call->send_elements = elements_of_rows(call, call->max_count);
        call->recv_elements = elements_of_rows(call, call->recv_elements);
    } else if (reduces) {
        call->recv_elements = call->max_count * call->unit;
    } else if (!is_exchange(call)) {
        call->send_elements = call->max_count * call->unit;
    }
    call->in_place = call->in_place && !is_rows(call) && !is_exchange(call) &&
                     (reduces ? call->send_step : call->recv_step) > 0;
    call->in_place_offset = (size_t)s->rank * (call->send_step + call->recv_step) * call->unit;
    set_words(s, call);
}

uint64_t t_call_received(const struct t_stage *s, const struct t_call *call, int r)
{
    (void)s;
    return call->recv_counts[r];
}

static size_t element_of(const struct t_call *call)
{
    return tutti_dtype_bytes(call->c->dtype);
}

/* The parts of both sides, in buffers that begin there. */
static void rows_of(const struct t_stage *s, const struct t_call *call, unsigned char *send,
                    unsigned char *recv, tutti_rows parts[PARTS])
{
    const size_t step = call->recv_step > 0 ? call->recv_step : call->max_count;

    for (int i = 0; i < PARTS; i++) {
        parts[i] = (tutti_rows){send, recv, row_bytes[i]};
        if (send != NULL)
            send += call->max_count * row_bytes[i];
        if (recv != NULL)
            recv += (size_t)s->n_ranks * step * row_bytes[i];
    }
}

static void write_rows(const struct t_stage *s, const struct t_call *call, int from, int part,
                       unsigned char *to)
{
    struct t_pattern p = s->inputs[from];

    p.element = 1;
    t_pattern_write(&p, to, (size_t)part * 100, call->recv_counts[from] * row_bytes[part]);
}

void t_counted_input(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    const struct t_pattern *mine = &s->inputs[s->rank];
    tutti_rows parts[PARTS];

    if (is_rows(call)) {
        rows_of(s, call, buf, NULL, parts);
        for (int i = 0; i < PARTS; i++)
            write_rows(s, call, s->rank, i, (unsigned char *)(uintptr_t)parts[i].send);
    } else if (is_exchange(call) || t_colls[call->c->coll].reduces) {
        for (int r = 0; r < s->n_ranks; r++)
            t_pattern_write(mine, buf + call->send_displs[r] * element_of(call), (size_t)r * 100,
                            call->send_counts[r] * call->unit);
    } else {
        t_pattern_write(mine, buf, 0, call->send_counts[s->rank] * call->unit);
    }
}

void t_counted_result(const struct t_stage *s, const struct t_call *call, unsigned char *buf)
{
    const size_t first = (size_t)s->rank * 100;
    tutti_rows parts[PARTS];

    if (t_colls[call->c->coll].reduces) {
        t_pattern_write(s->result, buf, first, call->send_counts[s->rank] * call->unit);
        return;
    }
    rows_of(s, call, NULL, buf, parts);
    for (int r = 0; r < s->n_ranks; r++) {
        for (int i = 0; is_rows(call) && i < PARTS; i++)
            write_rows(s, call, r, i,
                       (unsigned char *)parts[i].recv + call->recv_displs[r] * row_bytes[i]);
        if (!is_rows(call))
            t_pattern_write(&s->inputs[r], buf + call->recv_displs[r] * element_of(call),
                            is_exchange(call) ? first : 0, call->recv_counts[r] * call->unit);
    }
}

tutti_result t_counted_make(struct t_stage *s, const struct t_call *call)
{
    const struct t_case *c = call->c;
    uint64_t *words = s->device != NULL ? s->device_words : s->words;
    tutti_device_counts counts = TUTTI_DEVICE_COUNTS_INIT;
    tutti_rows parts[PARTS];

    counts.counts = words;
    counts.received = call->hears ? words + s->n_ranks : NULL;
    counts.max_count = call->max_count;
    counts.unit = call->unit > 1 ? call->unit : 0;
    counts.send_stride = call->send_step;
    counts.recv_stride = call->recv_step;
    switch (c->coll) {
    case T_reduce_scatterv_device:
        return tutti_reduce_scatterv_device(s->comm, call->send.buf, call->recv.buf, &counts,
                                            c->dtype, c->op, call->stream);
    case T_all_gatherv_rows_device:
        rows_of(s, call, call->send.buf, call->recv.buf, parts);
        return tutti_all_gatherv_rows_device(s->comm, parts, PARTS, &counts, call->stream);
    case T_all_gatherv_device:
        return tutti_all_gatherv_device(s->comm, call->send.buf, call->recv.buf, &counts, c->dtype,
                                        call->stream);
    default:
        return tutti_all_to_allv_device(s->comm, call->send.buf, call->recv.buf, &counts, c->dtype,
                                        call->stream);
    }
}
