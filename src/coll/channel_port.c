/* Ports: the proxies of a set, each with a network, an arena and queues of its own; their beginning, what they
 * do all the time, and their end. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "coll/channel_parts.h"
#include "topo/cores.h"
#ifdef TUTTI_HAVE_CUDA
#include "cuda/channel_memory.h"
#include "cuda/cuda_engine.h"
#endif

#define LOOK_NS    UINT64_C(1000000) /* between looks at who is there */
#define RING_ALL   ((uint64_t)64 << 20)
#define RING_LEAST ((uint64_t)512 << 10)
#define RING_MOST  ((uint64_t)4 << 20)
#define PAGE       UINT64_C(4096)
#define LINGER_US  50000

/* ---- how many, and what lies where ---- */

/* Kernels of many blocks fill more queues than host code does. The GPU's architecture is not asked: a proxy that has
 * little to do sleeps, so too many cost nothing where a newer one would do with fewer; cores that are not there would. */
uint32_t tt_port_default_proxies(const tutti_channel_set *s)
{
    return tt_proxy_share(s->comm->n_nearby, s->device ? 8 : 4);
}

static uint64_t lines(uint64_t bytes)
{
    return (bytes + TT_CHANNEL_LINE - 1) / TT_CHANNEL_LINE * TT_CHANNEL_LINE;
}

void tt_port_lay_out(tutti_channel_set *s)
{
    struct tt_port_layout *l = &s->layout;
    const uint64_t places = (uint64_t)s->n_ranks * s->n_proxies;
    uint64_t at = lines(sizeof(struct tt_port_place));

    l->signals = at;
    at += (uint64_t)s->n_channels * TT_CHANNEL_LINE;
    l->packets_in = at;
    at += lines(s->n_channels * s->packet_bytes * 2);
    l->packets_out = at;
    at += lines(s->n_channels * s->packet_bytes * 2);
    if (s->device) {
        l->ring_bytes = RING_MOST;
        while (l->ring_bytes > RING_LEAST && l->ring_bytes * places > RING_ALL)
            l->ring_bytes /= 2;
        l->ring_in = at;
        at += l->ring_bytes + TT_CHANNEL_LINE; /* and a word for sums */
        l->ring_out = at;
        at += l->ring_bytes;
    }
    l->stride = (at + PAGE - 1) / PAGE * PAGE;
}

/* ---- what a proxy does ---- */

/* The net has failed by itself, or is to tell the others. */
static int give_up(struct tt_port *p, tutti_result result)
{
    char text[400];

    snprintf(text, sizeof(text), "%s", tt_error_text());
    if (result == TUTTI_E_ABORTED) { /* by whom, and why? */
        const tutti_result why = tt_channel_look(p->set, -1);

        if (why != TUTTI_OK) {
            result = why;
            snprintf(text, sizeof(text), "%s", tt_error_text());
        }
    }
    (void)tt_channel_fail(p->set, result, text);
    return 0;
}

/* Peers that have left fail nobody but who waits for them, and these are other threads. */
static int look_around(struct tt_port *p)
{
    tutti_channel_set *s = p->set;
    tutti_result result;

    for (int r = 0; r < s->n_ranks; r++) {
        if (!s->by_port[r] || atomic_load_explicit(&s->gone[r], memory_order_relaxed))
            continue;
        result = tt_net_check_peer(p->net, r);
        if (result != TUTTI_OK)
            atomic_store(&s->gone[r], (int)result);
    }
    return p->index == 0 ? (int)tt_channel_look(s, -1) : TUTTI_OK;
}

/* What a peer that has left has not answered for will not be delivered any more. */
static tutti_result check_delivery(struct tt_port *p)
{
    char text[200];

    for (int r = 0; r < p->set->n_ranks; r++) {
        const struct tt_port_peer *peer = &p->peers[r];

        if (peer->n_done == peer->n_entries || tt_net_check_peer(p->net, r) == TUTTI_OK)
            continue;
        snprintf(text, sizeof(text), "%s", tt_error_text());
        TT_TRY(tt_port_take_answers(p, r)); /* from before it left */
        if (peer->n_done != peer->n_entries)
            return TT_FAIL(TUTTI_E_PEER,
                           "not everything that was put could be delivered to rank %d before the "
                           "set of channels was destroyed: %s",
                           r, text);
    }
    return TUTTI_OK;
}

/* The last word to everybody who has not answered for all: when it is answered, all is delivered. */
static int deliver(struct tt_port *p)
{
    const tutti_channel_set *s = p->set;

    TT_TRY(check_delivery(p));
    if (!p->has_said_last) {
        for (int q = 0; q < TT_PORT_QUEUES; q++)
            if (!tt_port_is_empty(p, &p->queues[q]))
                return 0;
        for (int r = 0; r < s->n_ranks; r++)
            if (p->peers[r].is_unproven && !tt_port_has_room(&p->peers[r]))
                return 0;
        for (int r = 0; r < s->n_ranks; r++)
            if (p->peers[r].is_unproven)
                (void)tt_port_new_entry(p, r, TT_RECORD_NOTHING);
        p->has_said_last = 1;
        return 1;
    }
    for (int r = 0; r < s->n_ranks; r++)
        if (p->peers[r].n_done != p->peers[r].n_entries)
            return 0;
    atomic_store(&p->is_closed, 1);
    return 0;
}

static int work(struct tt_port *p)
{
    int moved = 0, now;

    for (int q = 0; q < TT_PORT_QUEUES; q++) {
        TT_TRY(now = tt_port_take_triggers(p, &p->queues[q]));
        moved |= now;
    }
    TT_TRY(now = tt_port_move_records(p));
    moved |= now;
    TT_TRY(tt_net_progress(p->net));
    moved |= tt_net_moves(p->net) != p->net_moves;
    p->net_moves = tt_net_moves(p->net);
    if (atomic_load_explicit(&p->is_closing, memory_order_relaxed) && !atomic_load(&p->is_closed))
        TT_TRY(now = deliver(p));
    return moved | now;
}

static int poll_port(void *context)
{
    struct tt_port *p = context;
    const uint64_t now = tt_now_ns();
    int result;

    if (atomic_load(&p->set->failed)) {
        (void)tt_net_progress(p->net); /* which tells the others */
        return 0;
    }
#ifdef TUTTI_HAVE_CUDA
    if (p->copier && (result = (int)tt_cuda_copier_enter(p->copier)) != TUTTI_OK)
        return give_up(p, (tutti_result)result);
#endif
    result = work(p);
    if (result >= 0 && now >= p->next_look_ns) {
        const int looked = look_around(p);

        p->next_look_ns = now + LOOK_NS;
        result = looked < 0 ? looked : result;
    }
    return result < 0 ? give_up(p, (tutti_result)result) : result;
}

/* ---- beginning ---- */

static tutti_result make_memory(struct tt_port *p)
{
    const tutti_channel_set *s = p->set;
    struct tt_channel_memory *m = &p->arena;

    m->bytes = (uint64_t)s->n_ranks * s->layout.stride;
    p->peers = calloc((size_t)s->n_ranks, sizeof(*p->peers));
    if (!p->peers)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for channels to %d ranks", s->n_ranks);
    for (int r = 0; r < s->n_ranks; r++) {
        p->peers[r].n_signals = calloc(s->n_channels, sizeof(uint64_t));
        if (!p->peers[r].n_signals)
            return TT_FAIL(TUTTI_E_MEMORY, "no memory for channels to %d ranks", s->n_ranks);
    }
#ifdef TUTTI_HAVE_CUDA
    if (s->device) {
        TT_TRY(tt_cuda_copier_new(s->device, &p->copier));
        return tt_cuda_pin(s->device, m->bytes, (void **)&m->host, (void **)&m->at_device);
    }
#endif
    m->host = aligned_alloc(PAGE, m->bytes);
    if (!m->host)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu bytes of channels to %d ranks", m->bytes,
                       s->n_ranks);
    memset(m->host, 0, m->bytes);
    return TUTTI_OK;
}

struct tt_exchange tt_channel_exchange(tutti_channel_set *s)
{
    return (struct tt_exchange){.rank = s->rank,
                                .n_ranks = s->n_ranks,
                                .all_gather = tt_comm_all_gather,
                                .context = s->comm,
                                .deadline_ns = tt_now_ns() + s->timeout_ns};
}

/* Every rank counts as a host where all are to be reached through the network. */
static int *hosts_for_net(const tutti_channel_set *s)
{
    int *hosts = calloc((size_t)s->n_ranks, sizeof(*hosts));

    for (int r = 0; hosts && r < s->n_ranks; r++)
        hosts[r] = s->by_port_only ? r : s->comm->host_of[r];
    return hosts;
}

/* Its peers know of each other from here on, so that none dies unnoticed. */
static tutti_result greet(struct tt_port *p)
{
    for (int r = 0; p->index == 0 && r < p->set->n_ranks; r++)
        if (p->set->by_port[r])
            TT_TRY(tt_net_signal(p->net, r, p->arena_region,
                                 tt_port_theirs(p) + offsetof(struct tt_port_place, n_done), 0));
    return TUTTI_OK;
}

/* Where the GPU is plugged in that uses the channels; "": the caller's cores do. */
static void place_of(const tutti_channel_set *s, char *out, size_t bytes)
{
    out[0] = 0;
#ifdef TUTTI_HAVE_CUDA
    if (s->device)
        tt_cuda_device_place(s->device, out, bytes);
#else
    (void)s;
    (void)bytes;
#endif
}

/* Packets are read while they come. */
static int store_packets(void *context, uint64_t at, const void *data, uint64_t bytes)
{
    const struct tt_port *p = context;

    if (at > p->arena.bytes || bytes > p->arena.bytes - at)
        return 0;
    tt_store_words(p->arena.host + at, data, bytes);
    return 1;
}

static tutti_result make_net(struct tt_port *p, const int hosts[])
{
    tutti_channel_set *s = p->set;
    const struct tt_exchange x = tt_channel_exchange(s);
    char purpose[32], gpu[32];
    unsigned char key[32];
    const struct tt_net_config nc = {.rank = s->rank,
                                     .n_ranks = s->n_ranks,
                                     .host_of = hosts,
                                     .timeout_ns = s->timeout_ns,
                                     .key = key,
                                     .gpu = gpu,
                                     .exchange = &x,
                                     .refused = tt_comm_refused(s->comm)};

    place_of(s, gpu, sizeof(gpu));
    snprintf(purpose, sizeof(purpose), "tutti port %d", p->index);
    tt_hmac_sha256(s->comm->key, sizeof(s->comm->key), purpose, strlen(purpose), key);
    TT_TRY(tt_net_create(&nc, &p->net));
    TT_TRY(tt_net_expose(p->net, &x, p->arena.host, p->arena.bytes, &p->arena_region));
    tt_net_offer(p->arena_region, store_packets, p);
    if (!s->device)
        TT_TRY(tt_net_expose(p->net, &x, s->memory, s->bytes, &p->memory_region));
    return greet(p);
}

static void set_queues(struct tt_port *p)
{
    tutti_channel_set *s = p->set;
    const size_t queue = s->n_slots * sizeof(tutti_trigger);
    const size_t ids = (size_t)s->n_ranks * s->n_channels * sizeof(uint64_t);
    unsigned char *at = s->common.host + TT_CHANNEL_LINE +
                        (size_t)p->index * TT_PORT_QUEUES * (queue + lines(ids) + TT_CHANNEL_LINE);

    for (int q = 0; q < TT_PORT_QUEUES; q++) {
        p->queues[q].slots = (tutti_trigger *)(void *)at;
        p->queues[q].done = (uint64_t *)(void *)(at + queue);
        p->queues[q].flushed = (uint64_t *)(void *)(at + queue + TT_CHANNEL_LINE);
        at += queue + TT_CHANNEL_LINE + lines(ids);
    }
}

static tutti_result start(struct tt_port *p)
{
    char name[16], gpu[32];
    cpu_set_t cores;
    struct tt_proxy_config config = {.name = name, .poll = poll_port, .context = p};

    snprintf(name, sizeof(name), "tutti-port-%d", p->index);
    place_of(p->set, gpu, sizeof(gpu));
    /* Near the GPU that writes the queue; else wherever the caller may run. */
    if (gpu[0] && tt_cores_near(gpu, &cores)) {
        config.cpus = (const unsigned long *)(const void *)&cores;
        config.cpus_bytes = sizeof(cores);
    }
    TT_TRY(tt_proxy_start(&config, &p->proxy));
    return TUTTI_OK;
}

tutti_result tt_channel_agree(tutti_channel_set *s, tutti_result mine)
{
    int32_t one = (int32_t)mine;
    int32_t *all = calloc((size_t)s->n_ranks, sizeof(*all));
    char text[400];
    tutti_result result;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to agree on channels");
    snprintf(text, sizeof(text), "%s", mine == TUTTI_OK ? "" : tt_error_text());
    result = tt_comm_all_gather(s->comm, &one, all, sizeof(one));
    if (result == TUTTI_OK && mine != TUTTI_OK)
        result = TT_FAIL(mine, "%s", text);
    for (int r = 0; result == TUTTI_OK && r < s->n_ranks; r++)
        if (all[r] != TUTTI_OK)
            result = TT_FAIL((tutti_result)all[r], "rank %d could not make its channels: %s", r,
                             tt_result_text((tutti_result)all[r]));
    free(all);
    return result;
}

tutti_result tt_ports_create(tutti_channel_set *s)
{
    int *hosts = hosts_for_net(s);
    tutti_result result = TUTTI_OK;

    s->ports = calloc(s->n_proxies, sizeof(*s->ports));
    if (!s->ports || !hosts)
        result = TT_FAIL(TUTTI_E_MEMORY, "no memory for %u proxies", s->n_proxies);
    else
        result = tt_memory_check((size_t)s->n_proxies * (size_t)s->n_ranks * s->layout.stride);
    for (uint32_t i = 0; result == TUTTI_OK && i < s->n_proxies; i++) {
        s->ports[i].set = s;
        s->ports[i].index = (int)i;
        set_queues(&s->ports[i]);
        result = make_memory(&s->ports[i]);
    }
    if (result == TUTTI_OK && tt_net_missing()[0])
        result = TT_FAIL(TUTTI_E_UNSUPPORTED, "port channels need a network: %s", tt_net_missing());
    result = tt_channel_agree(s, result);
    for (uint32_t i = 0; result == TUTTI_OK && i < s->n_proxies; i++)
        result = make_net(&s->ports[i], hosts); /* agrees by itself */
    free(hosts);
    TT_TRY(result);
    TT_TRY(tt_ports_try_direct(s));
    for (uint32_t i = 0; result == TUTTI_OK && i < s->n_proxies; i++) {
        result = start(&s->ports[i]);
        s->n_started += result == TUTTI_OK;
    }
    return tt_channel_agree(s, result);
}

/* ---- the end ---- */

tutti_result tt_ports_deliver(tutti_channel_set *s)
{
    const uint64_t until = tt_now_ns() + s->timeout_ns;
    int n_closed = 0;

    for (int i = 0; i < s->n_started; i++)
        atomic_store(&s->ports[i].is_closing, 1);
    while (n_closed < s->n_started) {
        TT_TRY(tt_channel_check(s));
        if (tt_now_ns() > until)
            return tt_channel_fail(
                s, TUTTI_E_TIMEOUT,
                "not everything that was put could be delivered before the set of "
                "channels was destroyed: does a peer not wait any more?");
        n_closed = 0;
        for (int i = 0; i < s->n_started; i++) {
            tt_proxy_kick(s->ports[i].proxy);
            n_closed += atomic_load(&s->ports[i].is_closed);
        }
        if (n_closed < s->n_started)
            usleep(20);
    }
    return TUTTI_OK;
}

/* After a failure the networks go on for a moment, or the others would hear that this rank is gone before they
 * hear why. */
void tt_ports_stop(tutti_channel_set *s)
{
    if (s->n_started > 0 && atomic_load(&s->failed) != TUTTI_OK)
        usleep(LINGER_US);
    for (uint32_t i = 0; s->ports && i < s->n_proxies; i++) {
        tt_proxy_stop(s->ports[i].proxy);
        s->ports[i].proxy = NULL;
    }
    for (uint32_t i = 0; s->ports && i < s->n_proxies; i++) {
        struct tt_port *p = &s->ports[i];

        if (p->memory_region)
            tt_net_hide(p->memory_region);
        if (p->arena_region)
            tt_net_hide(p->arena_region);
        if (p->net)
            tt_net_destroy(p->net);
        p->memory_region = p->arena_region = NULL;
        p->net = NULL;
    }
}

void tt_ports_free(tutti_channel_set *s)
{
    for (uint32_t i = 0; s->ports && i < s->n_proxies; i++) {
        struct tt_port *p = &s->ports[i];

        for (int r = 0; p->peers && r < s->n_ranks; r++)
            free(p->peers[r].n_signals);
        free(p->peers);
#ifdef TUTTI_HAVE_CUDA
        tt_cuda_copier_free(p->copier);
        if (s->device) {
            tt_cuda_unpin(s->device, p->arena.host);
            continue;
        }
#endif
        free(p->arena.host);
    }
    free(s->ports);
    s->ports = NULL;
}
