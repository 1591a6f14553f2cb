/* The way to one rank: operations in the order given, cut into pieces, a bounded number of them under
 * way. Nothing here waits, but for room and for a flush. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "net/net_parts.h"

#define FLUSH_NS UINT64_C(5000000000) /* for the peers to answer that all has arrived */
#define RETRY_NS 100000000 /* between two attempts to make a way; the provider complains of each */

static struct tt_net_op *op_at(struct tt_net_endpoint *e, uint64_t number)
{
    return &e->ops[number % TT_NET_MAX_OPS];
}

/* ---- making and ending ---- */

static void landed(struct tt_provider_request *request, int failed);

static tutti_result new_endpoint(struct tt_net *net, int rank)
{
    struct tt_net_endpoint *e = calloc(1, sizeof(*e));

    if (!e)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the way to rank %d", rank);
    e->net = net;
    e->rank = rank;
    for (int i = 0; i < TT_NET_MAX_FLIGHTS; i++) {
        e->flights[i].request.done = landed;
        e->flights[i].endpoint = e;
        e->flights[i].next = e->free_flight;
        e->free_flight = &e->flights[i];
    }
    net->ranks[rank].endpoint = e;
    net->used[net->n_used++] = e;
    return TUTTI_OK;
}

tutti_result tt_net_endpoint(struct tt_net *net, int rank, struct tt_net_endpoint **out)
{
    if (!net->ranks[rank].endpoint)
        TT_TRY(new_endpoint(net, rank));
    *out = net->ranks[rank].endpoint;
    return TUTTI_OK;
}

/* The way to it, made when something is first sent. */
static tutti_result wire(struct tt_net_endpoint *e)
{
    struct tt_net *net = e->net;
    const struct tt_net_rank *r = &net->ranks[e->rank];
    const size_t bytes = TT_NET_MAX_OPS * sizeof(*e->words);

    if (!e->words && posix_memalign((void **)&e->words, 4096, bytes) != 0)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for signals to rank %d", e->rank);
    if (!e->words_memory)
        TT_TRY(net->ops->expose(net->provider, e->words, bytes, 0, &e->words_memory));
    return net->ops->connect(net->provider, e->rank, r->address, r->n_address, &e->to);
}

/* A cable that is out for a moment, or a route that is not there yet, is no reason to give up before a host
 * counts as lost. Whether the peer lives at all is the watch's to say. */
static tutti_result make_way(struct tt_net_endpoint *e)
{
    const struct timespec pause = {.tv_nsec = RETRY_NS};
    struct tt_net *net = e->net;
    const uint64_t end = tt_now_ns() + net->lost_ns;
    tutti_result result;

    tt_watch_start(net->watch, e->rank);
    for (;;) {
        net->next_watch_ns = 0;
        result = wire(e);
        if (result != TUTTI_E_SYSTEM || e->life != TT_NET_HERE || tt_now_ns() >= end)
            return result;
        nanosleep(&pause, NULL);
        tt_net_look(net);
        TT_TRY(tt_net_check(net));
    }
}

/* The keys belong to the endpoint, so they go with it. */
static void drop_keys(struct tt_net_endpoint *e)
{
    for (struct tt_net_region *r = e->net->regions; r; r = r->next) {
        struct tt_net_part *part = &r->parts[e->rank];

        if (part->key)
            e->net->ops->drop_key(part->key);
        part->key = NULL;
    }
}

void tt_net_unwire(struct tt_net_endpoint *e)
{
    if (!e->to)
        return;
    drop_keys(e);
    e->net->ops->disconnect(e->to);
    e->to = NULL;
}

void tt_net_endpoint_free(struct tt_net_endpoint *e)
{
    tt_net_unwire(e);
    if (e->words_memory)
        e->net->ops->hide(e->words_memory);
    free(e->words);
    free(e);
}

/* ---- posting ---- */

static void count_sent(struct tt_net_endpoint *e)
{
    while (e->n_sent != e->n_started && op_at(e, e->n_sent)->n_flying == 0)
        e->n_sent++;
}

/* What the end of a flight says of the queue in this process: nothing that was before it is there. */
static void note_left(struct tt_net_endpoint *e, const struct tt_net_flight *flight)
{
    const uint64_t left =
        flight->bytes >= e->net->limits.queued_bytes ? flight->end : flight->first;

    e->n_left = left > e->n_left ? left : e->n_left;
}

static void landed(struct tt_provider_request *request, int failed)
{
    struct tt_net_flight *flight = (struct tt_net_flight *)(void *)request;
    struct tt_net_endpoint *e = flight->endpoint;

    flight->next = e->free_flight;
    e->free_flight = flight;
    if (flight->kind == TT_NET_FLUSH)
        e->flush = failed ? TT_NET_UNFLUSHED : TT_NET_FLUSHED;
    if (flight->kind == TT_NET_PUSH)
        e->is_pushed = 0;
    if (flight->kind == TT_NET_FLUSH || failed) {
        e->bytes_flying -= flight->bytes;
        return; /* "not sent" for ever: its endpoint is lost, and its source is left alone */
    }
    note_left(e, flight);
    e->bytes_flying -= flight->bytes;
    for (int i = 0; i < flight->n_ops; i++)
        op_at(e, flight->first + (uint64_t)i)->n_flying--;
}

/* One for operations [first, first + n), or NULL: not now. It is still among the free ones. */
static struct tt_net_flight *new_flight(struct tt_net_endpoint *e, enum tt_net_flight_kind kind,
                                        uint64_t first, int n, uint32_t bytes)
{
    struct tt_net_flight *flight = e->free_flight;

    if (!flight || e->bytes_flying + bytes > TT_NET_MAX_FLYING)
        return NULL;
    flight->kind = kind;
    flight->first = first;
    flight->end = first + (uint64_t)n;
    flight->n_ops = n;
    flight->bytes = bytes;
    return flight;
}

/* A flight takes off. 1: it did (or is already there); 0: not now. */
static int launch(struct tt_net_endpoint *e, struct tt_net_flight *flight,
                  enum tt_provider_status status)
{
    if (status == TT_PROVIDER_STARTED) {
        e->free_flight = flight->next;
        e->bytes_flying += flight->bytes;
        for (int i = 0; i < flight->n_ops; i++)
            op_at(e, flight->first + (uint64_t)i)->n_flying++;
    }
    if (status == TT_PROVIDER_DONE && flight->kind != TT_NET_FLUSH)
        note_left(e, flight);
    return status == TT_PROVIDER_DONE || status == TT_PROVIDER_STARTED;
}

static int post_flush(struct tt_net_endpoint *e)
{
    struct tt_net_flight *flight = new_flight(e, TT_NET_FLUSH, 0, 0, 0);
    enum tt_provider_status status;

    if (!flight)
        return 0;
    e->flush = TT_NET_FLUSHING;
    status = e->net->ops->flush(e->to, &flight->request);
    if (status == TT_PROVIDER_DONE)
        e->flush = TT_NET_FLUSHED;
    else if (!launch(e, flight, status))
        e->flush = TT_NET_UNFLUSHED;
    return e->flush == TT_NET_FLUSHED;
}

/* Whether everything before the signal is where it must be. */
static int is_fenced(struct tt_net_endpoint *e, struct tt_net_op *op)
{
    const struct tt_net_provider *ops = e->net->ops;

    if (op->is_fenced)
        return 1;
    if (ops->fence_orders)
        op->is_fenced = ops->fence(e->to) == TT_PROVIDER_DONE;
    else if (e->flush == TT_NET_UNFLUSHED)
        op->is_fenced = post_flush(e);
    else
        op->is_fenced = e->flush == TT_NET_FLUSHED;
    if (op->is_fenced)
        e->flush = TT_NET_UNFLUSHED;
    return op->is_fenced;
}

static struct tt_provider_put put_of(const struct tt_net_op *op)
{
    return (struct tt_provider_put){
        .src = op->src, .bytes = (uint32_t)op->bytes, .to = op->to, .key = op->key};
}

/* The signal after `n_puts` next ones (none, one, or two of which the first is small) takes them along. */
static int post_signal(struct tt_net_endpoint *e, int n_puts)
{
    struct tt_net_op *op = op_at(e, e->n_started + (uint64_t)n_puts);
    struct tt_provider_bundle bundle = {.body = {.bytes = 0}};
    struct tt_net_flight *flight;

    if (n_puts == 2)
        bundle.head = put_of(op_at(e, e->n_started));
    if (n_puts > 0)
        bundle.body = put_of(op_at(e, e->n_started + (uint64_t)n_puts - 1));
    flight = new_flight(e, TT_NET_OPS, e->n_started, n_puts + 1, bundle.body.bytes);
    if (!flight || !is_fenced(e, op))
        return 0;
    return launch(e, flight,
                  e->net->ops->signal(e->to, (const uint64_t *)(const void *)op->src, op->memory,
                                      op->to, op->key, n_puts ? &bundle : NULL, &flight->request));
}

static int post_pieces(struct tt_net_endpoint *e, struct tt_net_op *op)
{
    while (op->bytes > 0) {
        const uint32_t most = e->net->limits.piece_bytes;
        const uint32_t bytes = op->bytes < most ? (uint32_t)op->bytes : most;
        struct tt_net_flight *flight = new_flight(e, TT_NET_OPS, e->n_started, 1, bytes);

        if (!flight || !launch(e, flight,
                               e->net->ops->put(e->to, op->src, bytes, op->memory, op->to, op->key,
                                                &flight->request)))
            return 0;
        op->src += bytes;
        op->to += bytes;
        op->bytes -= bytes;
    }
    return 1;
}

static int is_put_up_to(const struct tt_net_op *op, uint32_t most)
{
    return !op->is_signal && op->bytes > 0 && op->bytes <= most;
}

/* How many of the next puts may travel with the signal after them; *is_open_out: if that comes next. */
static int n_bundled(struct tt_net_endpoint *e, int *is_open_out)
{
    const struct tt_provider_limits *limits = &e->net->limits;
    const uint64_t n = e->n_posted - e->n_started;
    int n_puts = 0;

    if (n > 0 && is_put_up_to(op_at(e, e->n_started), limits->bundle_bytes))
        n_puts = 1;
    if (n_puts && n > 1 && is_put_up_to(op_at(e, e->n_started), limits->head_bytes) &&
        is_put_up_to(op_at(e, e->n_started + 1), limits->bundle_bytes))
        n_puts = 2;
    *is_open_out = n_puts > 0 && n == (uint64_t)n_puts;
    return *is_open_out || op_at(e, e->n_started + (uint64_t)n_puts)->is_signal ? n_puts : 0;
}

/* Post the next operation, or some of them together; how many. 0: not now. Puts that are the last ones may
 * be held back, so that the signal that will probably follow takes them along. */
static int post_next(struct tt_net_endpoint *e, int may_hold)
{
    struct tt_net_op *op = op_at(e, e->n_started);
    int is_open, n_puts = n_bundled(e, &is_open);

    if (is_open && may_hold)
        return 0;
    if (op->is_signal || (n_puts > 0 && !is_open))
        return post_signal(e, n_puts) ? n_puts + 1 : 0;
    return post_pieces(e, op) ? 1 : 0;
}

static void pump(struct tt_net_endpoint *e, int may_hold)
{
    int n;

    if (!e->is_watched) {
        e->is_watched = tt_watch_is_ready(e->net->watch, e->rank);
        if (!e->is_watched)
            return;
    }
    while (e->n_started != e->n_posted && e->life == TT_NET_HERE &&
           (n = post_next(e, may_hold)) > 0)
        e->n_started += (uint64_t)n;
    count_sent(e);
}

void tt_net_pump(struct tt_net_endpoint *e)
{
    pump(e, 0);
}

int tt_net_is_flushed(struct tt_net_endpoint *e)
{
    if (!e->to || e->n_flushed == e->n_posted || e->life != TT_NET_HERE)
        return 1;
    if (e->n_sent != e->n_posted)
        return 0;
    if (e->n_asked != e->n_posted)
        e->flush = TT_NET_UNFLUSHED;
    e->n_asked = e->n_posted;
    if (e->flush == TT_NET_UNFLUSHED)
        post_flush(e);
    if (e->flush == TT_NET_FLUSHED)
        e->n_flushed = e->n_posted;
    return e->n_flushed == e->n_posted;
}

void tt_net_flush(struct tt_net *net)
{
    uint64_t n_posted = 0;
    int is_open;

    for (int i = 0; i < net->n_used; i++)
        n_posted += net->used[i]->n_posted;
    if (n_posted != net->n_flushing) /* else it is the same that was waited for before */
        net->flush_end_ns = tt_now_ns() + FLUSH_NS;
    net->n_flushing = n_posted;
    do {
        is_open = 0;
        for (int i = 0; i < net->n_used; i++)
            is_open |= !tt_net_is_flushed(net->used[i]);
    } while (is_open && tt_net_progress(net) == TUTTI_OK && tt_now_ns() < net->flush_end_ns);
}

/* ---- what callers post ---- */

static tutti_result wait_for_room(struct tt_net_endpoint *e)
{
    struct tt_net *net = e->net;
    uint64_t seen = e->n_sent;
    uint64_t end = tt_now_ns() + net->timeout_ns;

    while (e->n_posted - e->n_sent == TT_NET_MAX_OPS && e->life != TT_NET_LEFT) {
        TT_TRY(tt_net_progress(net));
        if (e->n_sent != seen) {
            seen = e->n_sent;
            end = tt_now_ns() + net->timeout_ns;
        }
        if (tt_now_ns() < end)
            continue;
        tt_net_fail(
            net, -1, TUTTI_E_TIMEOUT,
            "rank %d on %s has taken nothing for %.1f s: %d puts wait for it; is it stopped, "
            "or does it not call the network?",
            e->rank, net->ranks[e->rank].host, (double)net->timeout_ns / 1e9, TT_NET_MAX_OPS);
        return tt_net_check(net);
    }
    return TUTTI_OK;
}

static tutti_result part_key(struct tt_net_endpoint *e, struct tt_net_part *part)
{
    if (part->key)
        return TUTTI_OK;
    return e->net->ops->unpack_key(e->to, part->packed, part->n_packed, &part->key);
}

static tutti_result check_range(const struct tt_net *net, int peer, uint64_t bytes,
                                const struct tt_net_region *region, uint64_t at)
{
    if (peer < 0 || peer >= net->n_ranks || peer == net->rank)
        return TT_FAIL(TUTTI_E_ARG, "rank %d cannot put to rank %d of %d", net->rank, peer,
                       net->n_ranks);
    if (region->net != net)
        return TT_FAIL(TUTTI_E_ARG, "the region belongs to another network");
    if (at > region->parts[peer].bytes || bytes > region->parts[peer].bytes - at)
        return TT_FAIL(TUTTI_E_ARG,
                       "%" PRIu64 " bytes at offset %" PRIu64 " would leave rank %d's part of the "
                       "region, which has %" PRIu64,
                       bytes, at, peer, region->parts[peer].bytes);
    return TUTTI_OK;
}

/* Room for one more operation of the peer; NULL in *op_out if it is done: nothing to send, or the peer
 * has left. */
static tutti_result new_op(struct tt_net *net, int peer, uint64_t bytes,
                           struct tt_net_region *region, uint64_t at,
                           struct tt_net_endpoint **e_out, struct tt_net_op **op_out)
{
    struct tt_net_endpoint *e;
    struct tt_net_part *part = &region->parts[peer];

    TT_TRY(tt_net_endpoint(net, peer, &e));
    if (e->n_posted - e->n_sent == TT_NET_MAX_OPS)
        TT_TRY(wait_for_room(e));
    *e_out = e;
    *op_out = NULL;
    if (e->life == TT_NET_LEFT || (bytes == 0 && e->n_posted == e->n_sent)) {
        e->n_flushed = e->n_started = e->n_sent = ++e->n_posted;
        return TUTTI_OK;
    }
    if (e->life != TT_NET_HERE)
        TT_TRY(tt_net_check_peer(net, peer));
    if (!e->to)
        TT_TRY(make_way(e));
    TT_TRY(part_key(e, part));
    *op_out = op_at(e, e->n_posted);
    **op_out = (struct tt_net_op){.to = part->base + at, .key = part->key, .region = region};
    return TUTTI_OK;
}

tutti_result tt_net_put(struct tt_net *net, int peer, const void *src, uint64_t bytes,
                        struct tt_net_region *region, uint64_t at)
{
    struct tt_net_endpoint *e;
    struct tt_net_op *op;

    TT_TRY(tt_net_check(net));
    TT_TRY(check_range(net, peer, bytes, region, at));
    TT_TRY(new_op(net, peer, bytes, region, at, &e, &op));
    if (!op)
        return TUTTI_OK;
    op->src = src;
    op->bytes = bytes;
    op->memory = tt_net_memory_of(net, src, bytes);
    e->n_posted++;
    pump(e, 1);
    return TUTTI_OK;
}

void tt_net_push(struct tt_net *net, int peer)
{
    struct tt_net_endpoint *e = net->ranks[peer].endpoint;

    if (e && e->n_started != e->n_posted)
        pump(e, 0);
}

tutti_result tt_net_signal(struct tt_net *net, int peer, struct tt_net_region *region, uint64_t at,
                           uint64_t value)
{
    struct tt_net_endpoint *e;
    struct tt_net_op *op;
    uint64_t *word;

    TT_TRY(tt_net_check(net));
    TT_TRY(check_range(net, peer, sizeof(value), region, at));
    if (at % sizeof(value))
        return TT_FAIL(TUTTI_E_ARG, "a signal at offset %" PRIu64 ", which is no multiple of 8",
                       at);
    TT_TRY(new_op(net, peer, sizeof(value), region, at, &e, &op));
    if (!op)
        return TUTTI_OK;
    word = &e->words[e->n_posted % TT_NET_MAX_OPS];
    *word = value;
    op->src = (const unsigned char *)word;
    op->memory = e->words_memory;
    op->is_signal = 1;
    e->n_posted++;
    pump(e, 0);
    return TUTTI_OK;
}

uint64_t tt_net_posted(const struct tt_net *net, int peer)
{
    const struct tt_net_endpoint *e = net->ranks[peer].endpoint;

    return e ? e->n_posted : 0;
}

uint64_t tt_net_sent(const struct tt_net *net, int peer)
{
    const struct tt_net_endpoint *e = net->ranks[peer].endpoint;

    return e ? e->n_sent : 0;
}

int tt_net_has_left(struct tt_net *net, int peer, uint64_t number)
{
    struct tt_net_endpoint *e = net->ranks[peer].endpoint;
    struct tt_net_flight *flight;

    if (!e || e->n_left >= number || e->life != TT_NET_HERE)
        return 1;
    if (net->limits.queued_bytes == 0)
        return e->n_sent >= number;
    if (e->n_sent != e->n_posted || e->is_pushed)
        return 0;
    flight = new_flight(e, TT_NET_PUSH, e->n_posted, 0, 0);
    if (!flight)
        return 0;
    e->is_pushed = 1;
    if (!launch(e, flight, net->ops->push(e->to, &flight->request)) || e->free_flight == flight)
        e->is_pushed = 0; /* it is over already, or was refused */
    return e->n_left >= number;
}
