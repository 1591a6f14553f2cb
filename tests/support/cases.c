/* Running and checking one collective call: see cases.h. The calls themselves are in calls.c. */
#include "support/cases.h"

#include "support/calls.h"
#include "support/hosts.h"

const struct t_coll_facts t_colls[T_N_COLLS] = {
#define T_COLL_FACTS_(name, reduces, rooted, team) {#name, reduces, rooted, team},
    T_COLL_MAP(T_COLL_FACTS_)
#undef T_COLL_FACTS_
};

size_t t_case_room(int n_ranks, size_t max_count, size_t element)
{
    /* v-calls: up to 2 * count elements and a gap of up to 8 for each rank */
    return (size_t)n_ranks * (2 * max_count + 16) * element + 3 * 4096;
}

size_t t_case_fit(enum t_coll coll, int n_ranks, size_t room, size_t element, size_t count)
{
    const int whole = coll == T_all_reduce || coll == T_broadcast || coll == T_reduce ||
                      coll == T_ring || coll == T_barrier;
    const size_t elements = (room - 3 * 4096) / element;
    const size_t blocks = elements / (size_t)n_ranks / 2;
    const size_t most = whole ? elements : blocks > 16 ? blocks - 16 : 0;

    return count < most ? count : most;
}

static void open_on_device(struct t_stage *s, int registered, int side)
{
    const size_t bytes = s->memory[registered][side].bytes;
    void *p;

    if (registered)
        T_OK(tutti_mem_alloc(s->comm, bytes, &p));
    else
        p = t_device_alloc(bytes);
    s->device_memory[registered][side] = p;
}

void t_stage_open_on(struct t_stage *s, struct t_rank *t, tutti_comm *comm, size_t room,
                     int with_windows, struct t_device *device)
{
    tutti_comm_info info = TUTTI_COMM_INFO_INIT;

    *s = (struct t_stage){.t = t, .comm = comm, .rank = t->rank, .n_ranks = t->n_ranks};
    s->device = device;
    if (comm != NULL) {
        T_OK(tutti_comm_query(comm, &info));
        s->rank = info.rank;
        s->n_ranks = info.n_ranks;
    }
    s->room = room;
    for (int registered = 0; registered < 1 + with_windows; registered++)
        for (int side = 0; side < 2; side++) {
            s->memory[registered][side] = t_memory_new(room);
            if (device != NULL)
                open_on_device(s, registered, side);
        }
    for (int side = 0; with_windows && side < 2; side++)
        T_OK(tutti_window_register(
            comm, device != NULL ? s->device_memory[1][side] : s->memory[1][side].base,
            s->memory[1][side].bytes, &s->windows[side]));
    s->want = malloc(room);
    s->inputs = calloc((size_t)s->n_ranks, sizeof(*s->inputs));
    s->result = calloc(1, sizeof(*s->result));
    s->counts = calloc(4 * (size_t)s->n_ranks, sizeof(*s->counts));
    s->words = calloc(2 * (size_t)s->n_ranks, sizeof(*s->words));
    s->call = calloc(1, sizeof(*s->call));
    T_CHECK(s->want && s->inputs && s->result && s->counts && s->words && s->call,
            "no memory for a stage");
    if (device != NULL)
        s->device_words = t_device_alloc(2 * (size_t)s->n_ranks * sizeof(*s->words));
}

void t_stage_open(struct t_stage *s, struct t_rank *t, tutti_comm *comm, size_t room,
                  int with_windows)
{
    t_stage_open_on(s, t, comm, room, with_windows, NULL);
}

void t_stage_close(struct t_stage *s)
{
    for (int side = 0; side < 2; side++) {
        if (s->windows[side] != NULL)
            T_OK(tutti_window_deregister(s->comm, s->windows[side]));
        if (s->device_memory[0][side] != NULL)
            t_device_free(s->device_memory[0][side]);
        if (s->device_memory[1][side] != NULL)
            T_OK(tutti_mem_free(s->comm, s->device_memory[1][side]));
        t_memory_free(&s->memory[0][side]);
        t_memory_free(&s->memory[1][side]);
    }
    free(s->want);
    free(s->inputs);
    free(s->result);
    free(s->counts);
    free(s->words);
    free(s->call);
    if (s->device_words != NULL)
        t_device_free(s->device_words);
}

/* --- where the buffers of this rank are --- */

/* On a GPU what is registered must be so on all ranks, at the same offset; what is not may be anywhere. */
static int in_window(const struct t_stage *s, const struct t_case *c, int side)
{
    if (c->windows == T_ORDINARY || s->memory[1][0].base == NULL ||
        (s->device != NULL && c->windows == T_SKEWED))
        return 0;
    if (c->windows != T_MIXED)
        return 1;
    return (int)(t_hash(c->seed + 77 + (uint64_t)side, s->device ? 0 : (uint64_t)s->rank) & 1);
}

/* The same offset on all ranks. */
static enum t_place place_in_window_on_device(const struct t_case *c)
{
    const int is_even = c->coll == T_all_reduce || c->coll == T_reduce || c->coll == T_broadcast ||
                        c->coll == T_all_gather || c->coll == T_all_to_all ||
                        c->coll == T_reduce_scatter || t_is_counted(c->coll);

    return c->place == T_AT_END && !is_even ? T_ODD : c->place;
}

static enum t_place place_of(const struct t_stage *s, const struct t_case *c, int side)
{
    const uint64_t shift = t_hash(c->seed + 5 + (uint64_t)side, (uint64_t)s->rank);

    if (s->device != NULL && in_window(s, c, side))
        return place_in_window_on_device(c);
    if (c->windows == T_REGISTERED || c->windows == T_ORDINARY)
        return c->place;
    return (enum t_place)(shift % T_N_PLACES);
}

static struct t_side side_of(const struct t_stage *s, const struct t_case *c, int side,
                             size_t elements)
{
    const size_t element = tutti_dtype_bytes(c->dtype);
    struct t_side a = {.elements = elements, .bytes = elements * element};

    a.memory = &s->memory[in_window(s, c, side)][side];
    T_CHECK(a.bytes + 4096 <= s->room, "%s: stage too small", t_case_text(c));
    a.buf = t_place(a.memory, place_of(s, c, side), a.bytes, element);
    return a;
}

/* Gathered blocks are part of recv, scattered ones of send, also where others have none at all. */
static int lies_in_recv(const struct t_call *call)
{
    const enum t_coll coll = call->c->coll;

    return coll == T_all_gather || coll == T_all_gatherv || coll == T_gather ||
           coll == T_all_gatherv_device;
}

/* In place: the smaller side is part of the larger one, at the offset that the call prescribes. */
static void overlay(const struct t_call *call, struct t_side *send, struct t_side *recv)
{
    const size_t shift = call->in_place_offset * tutti_dtype_bytes(call->c->dtype);

    if (lies_in_recv(call)) {
        send->buf = recv->buf + shift;
        send->memory = recv->memory;
    } else {
        recv->buf = send->buf + shift;
        recv->memory = send->memory;
    }
}

/* --- inputs, results --- */

static void make_patterns(struct t_stage *s, const struct t_case *c)
{
    const size_t reach = ((size_t)s->n_ranks * (2 * c->count + 16)) * 8 + 400;

    for (int r = 0; r < s->n_ranks; r++)
        t_pattern_input(&s->inputs[r], reach, c->dtype, c->inputs, c->seed + c->round, r);
    if (t_colls[c->coll].reduces)
        t_hosts_reduce(s->result, s->inputs, s->n_ranks, reach, c->dtype, c->op, s->is_flat);
}

static void explain(const struct t_stage *s, const struct t_case *c, const char *what, size_t i,
                    const unsigned char *got, const unsigned char *want)
{
    const size_t element = tutti_dtype_bytes(c->dtype);
    const size_t at = i / element * element;
    uint64_t got_bits = 0, want_bits = 0;

    memcpy(&got_bits, got + at, element);
    memcpy(&want_bits, want + at, element);
    t_fail(__FILE__, __LINE__, "%s, rank %d of %d: %s element %zu is %#llx (%g), want %#llx (%g)",
           t_case_text(c), s->rank, s->n_ranks, what, at / element, (unsigned long long)got_bits,
           t_value(got + at, c->dtype), (unsigned long long)want_bits,
           t_value(want + at, c->dtype));
}

static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t bytes)
{
    size_t i = 0;

    while (i < bytes && a[i] == b[i])
        i++;
    return i;
}

/* 1 if the side holds what is in s->want. */
static int is_right(const struct t_stage *s, const struct t_case *c, const struct t_side *a,
                    const char *what)
{
    if (a->buf == NULL || a->bytes == 0 || memcmp(a->buf, s->want, a->bytes) == 0)
        return 1;
    if (!s->expect_failure)
        explain(s, c, what, first_difference(a->buf, s->want, a->bytes), a->buf, s->want);
    return 0;
}

static int check(struct t_stage *s, struct t_call *call)
{
    const struct t_case *c = call->c;
    int right;

    memset(s->want, T_POISON, call->recv.bytes);
    t_call_result(s, call, s->want);
    right = is_right(s, c, &call->recv, "recv");
    if (!call->in_place) {
        memset(s->want, T_POISON, call->send.bytes);
        t_call_input(s, call, s->want);
        right &= is_right(s, c, &call->send, "send");
    }
    if (s->expect_failure)
        return right;
    if (call->send.buf != NULL && (!call->in_place || call->send.bytes >= call->recv.bytes))
        t_check_canaries(call->send.memory, call->send.buf, call->send.bytes, t_case_text(c));
    if (call->recv.buf != NULL && (!call->in_place || call->recv.bytes >= call->send.bytes))
        t_check_canaries(call->recv.memory, call->recv.buf, call->recv.bytes, t_case_text(c));
    return right;
}

static void prepare(struct t_stage *s, struct t_call *call)
{
    make_patterns(s, call->c);
    call->send = side_of(s, call->c, 0, call->send_elements);
    call->recv = side_of(s, call->c, 1, call->recv_elements);
    if (call->in_place)
        overlay(call, &call->send, &call->recv);
    if (call->null_send)
        call->send = (struct t_side){0};
    if (call->null_recv)
        call->recv = (struct t_side){0};
    if (call->recv.buf != NULL)
        t_poison(call->recv.memory, call->recv.buf, call->recv.bytes);
    if (call->send.buf != NULL) {
        if (!call->in_place || call->send.bytes >= call->recv.bytes)
            t_poison(call->send.memory, call->send.buf, call->send.bytes);
        t_call_input(s, call, call->send.buf);
    }
}

/* --- to a GPU and back --- */

/* Where on the device the byte lies that the host has at p in `memory`. */
static unsigned char *on_device(const struct t_stage *s, const struct t_memory *memory,
                                const unsigned char *p)
{
    const size_t i = (size_t)(memory - &s->memory[0][0]);

    return s->device_memory[i / 2][i % 2] + (p - memory->base);
}

/* The side and its canaries; of two that share memory, the larger is enough. */
static void move_side(const struct t_stage *s, const struct t_side *a, int to_device)
{
    unsigned char *begin, *end;

    if (a->buf == NULL)
        return;
    begin = a->buf - a->memory->base > T_CANARY_BYTES ? a->buf - T_CANARY_BYTES : a->memory->base;
    end = a->buf + a->bytes + T_CANARY_BYTES;
    if (end > a->memory->base + a->memory->bytes)
        end = a->memory->base + a->memory->bytes;
    if (to_device)
        t_device_push(s->device, on_device(s, a->memory, begin), begin, (size_t)(end - begin));
    else
        t_device_pull(s->device, begin, on_device(s, a->memory, begin), (size_t)(end - begin));
}

static void move_sides(const struct t_stage *s, int to_device)
{
    const struct t_call *call = s->call;

    if (!call->in_place || call->send.bytes >= call->recv.bytes || call->recv.buf == NULL)
        move_side(s, &call->send, to_device);
    if (!call->in_place || call->recv.bytes > call->send.bytes || call->send.buf == NULL)
        move_side(s, &call->recv, to_device);
}

static void move_words(const struct t_stage *s, int to_device)
{
    const size_t bytes = 2 * (size_t)s->n_ranks * sizeof(*s->words);

    if (!s->call->counted)
        return;
    if (to_device)
        t_device_push(s->device, s->device_words, s->words, bytes);
    else
        t_device_pull(s->device, s->words, s->device_words, bytes);
}

static int check_words(const struct t_stage *s)
{
    const struct t_call *call = s->call;
    const uint64_t *received = s->words + s->n_ranks;

    for (int r = 0; call->counted && r < s->n_ranks; r++) {
        const uint64_t want = call->hears ? t_call_received(s, call, r) : T_NO_WORD;

        if (received[r] == want)
            continue;
        T_CHECK(s->expect_failure, "%s, rank %d of %d: received %llu from rank %d, want %llu",
                t_case_text(call->c), s->rank, s->n_ranks, (unsigned long long)received[r], r,
                (unsigned long long)want);
        return 0;
    }
    return 1;
}

/* --- the steps --- */

void t_case_load(struct t_stage *s, const struct t_case *c)
{
    *s->call = (struct t_call){.c = c};
    t_call_shape(s, s->call);
    prepare(s, s->call);
    if (s->device != NULL) {
        move_sides(s, 1);
        move_words(s, 1);
    }
}

tutti_result t_case_launch(struct t_stage *s)
{
    struct t_call call = *s->call;
    tutti_result result;

    if (s->device != NULL) {
        call.stream = s->device->stream;
        if (call.send.buf != NULL)
            call.send.buf = on_device(s, call.send.memory, call.send.buf);
        if (call.recv.buf != NULL)
            call.recv.buf = on_device(s, call.recv.memory, call.recv.buf);
    }
    t_at(__FILE__, __LINE__, t_colls[call.c->coll].name);
    result = t_call_make(s, &call);
    t_at(__FILE__, __LINE__, NULL);
    return result;
}

tutti_result t_case_verify(struct t_stage *s)
{
    tutti_comm_state state = TUTTI_COMM_STATE_INIT;

    if (s->device != NULL) {
        move_sides(s, 0);
        move_words(s, 0);
        t_device_sync(s->device);
        T_OK(tutti_comm_status(s->comm, &state));
        T_CHECK(s->expect_failure || state.result == TUTTI_OK, "%s, rank %d of %d: %s",
                t_case_text(s->call->c), s->rank, s->n_ranks, state.text);
    }
    return check_words(s) && check(s, s->call) ? TUTTI_OK : TUTTI_E_INTERNAL;
}

tutti_result t_case_try(struct t_stage *s, const struct t_case *c)
{
    tutti_result result;

    t_case_load(s, c);
    result = t_case_launch(s);
    return result != TUTTI_OK ? result : t_case_verify(s);
}

void t_case_run(struct t_stage *s, const struct t_case *c)
{
    const tutti_result result = t_case_try(s, c);

    T_CHECK(result == TUTTI_OK, "%s, rank %d of %d: %s: %s", t_case_text(c), s->rank, s->n_ranks,
            tutti_result_name(result), tutti_last_error());
}

struct t_case t_case_random(uint64_t seed, int n_ranks, size_t max_count)
{
    struct t_rng rng = {seed};
    struct t_case c = {.seed = t_random(&rng)};
    const size_t limit = max_count >> t_random_below(&rng, 20);

    c.coll = (enum t_coll)t_random_below(&rng, T_N_COLLS);
    c.dtype = (tutti_dtype)t_random_below(&rng, TUTTI_N_DTYPES);
    c.op = (tutti_op)t_random_below(&rng, TUTTI_N_OPS);
    c.count = t_random_below(&rng, limit + 2);
    if (c.count > max_count)
        c.count = max_count;
    c.root = (int)t_random_below(&rng, (uint64_t)n_ranks);
    c.in_place = (int)t_random_below(&rng, 2);
    c.team = t_colls[c.coll].has_team && t_random_below(&rng, 8) == 0 ? 3 : 0;
    c.place = (enum t_place)t_random_below(&rng, T_N_PLACES);
    c.windows = (enum t_windows)t_random_below(&rng, 4);
    c.inputs = (enum t_inputs)t_random_below(&rng, 3);
    return c;
}

struct t_case t_case_random_on(const struct t_stage *s, struct t_rng *rng, size_t max_count)
{
    struct t_case c = t_case_random(t_random(rng), s->n_ranks, max_count);

    c.count = t_case_fit(c.coll, s->n_ranks, s->room, tutti_dtype_bytes(c.dtype), c.count);
    c.team = s->device ? 0 : c.team;
    return c;
}

const size_t t_case_counts[T_CASE_N_COUNTS] = {1, 5, 67, 0, 130, 1027, 2, T_CASE_MOST};

struct t_case t_case_of_some_count(uint64_t seed, int n_ranks)
{
    struct t_case c = {.seed = t_hash(seed, 1)};

    c.count = t_case_counts[c.seed % T_CASE_N_COUNTS];
    c.inputs = (enum t_inputs)((c.seed >> 8) % 3);
    c.in_place = (int)(c.seed >> 16 & 1);
    c.place = (enum t_place)((c.seed >> 17) % T_N_PLACES);
    c.windows = (enum t_windows)((c.seed >> 24) % 4);
    c.root = (int)((c.seed >> 32) % (uint64_t)n_ranks);
    return c;
}

const char *t_case_text(const struct t_case *c)
{
    static const char *const places[] = {"at start", "at end", "aligned", "odd"};
    static const char *const windows[] = {"ordinary", "registered", "skewed", "mixed"};
    static const char *const inputs[] = {"small", "near", "bits", "ones"};
    static _Thread_local char text[256];

    snprintf(text, sizeof(text),
             "%s %s %s count %zu root %d%s team %d, %s, %s, inputs %s, seed %#llx",
             t_colls[c->coll].name, tutti_dtype_name(c->dtype), tutti_op_name(c->op), c->count,
             c->root, c->in_place ? " in place" : "", c->team, places[c->place],
             windows[c->windows], inputs[c->inputs], (unsigned long long)c->seed);
    return text;
}
