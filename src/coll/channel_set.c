/* Sets of channels: their making by all ranks, single channels, and their end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "coll/channel_parts.h"
#include "cpu/cpu_engine.h"
#ifdef TUTTI_HAVE_CUDA
#include "cuda/channel_memory.h"
#include "cuda/cuda_engine.h"
#endif

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER; /* of all communicators' lists */

/* ---- what is asked for ---- */

static tutti_result check_config(const tutti_channel_config *c)
{
    if (c->flags & ~TUTTI_CHANNELS_BY_PORT)
        return TT_FAIL(TUTTI_E_ARG, "config.flags is %#x; only TUTTI_CHANNELS_BY_PORT is defined",
                       c->flags);
    if (c->n_channels > TT_CHANNEL_MAX)
        return TT_FAIL(TUTTI_E_ARG, "config.n_channels is %u; at most %u", c->n_channels,
                       TT_CHANNEL_MAX);
    if (c->n_proxies > TT_PORT_MAX_PROXIES)
        return TT_FAIL(TUTTI_E_ARG, "config.n_proxies is %u; at most %u", c->n_proxies,
                       TT_PORT_MAX_PROXIES);
    if (c->n_slots & (c->n_slots - 1) || c->n_slots > TT_CHANNEL_MAX_SLOTS || c->n_slots == 1)
        return TT_FAIL(TUTTI_E_ARG, "config.n_slots is %u; a power of 2 from 2 to %u", c->n_slots,
                       TT_CHANNEL_MAX_SLOTS);
    if (c->packet_bytes % 64 || c->packet_bytes > 1u << 20)
        return TT_FAIL(TUTTI_E_ARG, "config.packet_bytes is %u; a multiple of 64, at most 1 MiB",
                       c->packet_bytes);
    return TUTTI_OK;
}

static tutti_result read_config(const tutti_channel_config *given, tutti_channel_config *c)
{
    *c = (tutti_channel_config){.size = sizeof(*c)};
    if (given) {
        if (given->size != sizeof(*given))
            return TT_FAIL(TUTTI_E_ARG, "config.size is %u: set it to sizeof(tutti_channel_config)",
                           given->size);
        *c = *given;
    }
    TT_TRY(check_config(c));
    if (c->n_channels == 0)
        c->n_channels = 1;
    if (c->n_slots == 0)
        c->n_slots = 1024;
    if (c->packet_bytes == 0)
        c->packet_bytes = 4096;
    if (c->n_proxies == 0) {
        uint64_t n;

        TT_TRY(tt_env_number(TT_ENV_TUTTI_NET_PROXIES, &n));
        if (n > TT_PORT_MAX_PROXIES)
            return TT_FAIL(TUTTI_E_ARG, "TUTTI_NET_PROXIES=%llu; at most %u", (unsigned long long)n,
                           TT_PORT_MAX_PROXIES);
        c->n_proxies = (uint32_t)n;
    }
    return TUTTI_OK;
}

/* What the ranks tell each other. */
struct wish {
    int32_t result;
    uint32_t flags, n_channels, n_slots, packet_bytes, n_proxies;
    uint64_t bytes;
};

static tutti_result compare(const struct wish all[], int n, int me)
{
    for (int r = 0; r < n; r++)
        if (all[r].result != TUTTI_OK && r != me)
            return TT_FAIL((tutti_result)all[r].result, "rank %d could not make its channels: %s",
                           r, tt_result_text((tutti_result)all[r].result));
    for (int r = 1; r < n; r++)
        if (all[r].bytes != all[0].bytes || all[r].flags != all[0].flags ||
            all[r].n_channels != all[0].n_channels || all[r].n_slots != all[0].n_slots ||
            all[r].packet_bytes != all[0].packet_bytes)
            return TT_FAIL(
                TUTTI_E_MISMATCH,
                "channels of %llu bytes (%u channels, %u slots, %u bytes of packets, flags "
                "%#x) on rank 0 meet some of %llu bytes (%u, %u, %u, %#x) on rank %d",
                (unsigned long long)all[0].bytes, all[0].n_channels, all[0].n_slots,
                all[0].packet_bytes, all[0].flags, (unsigned long long)all[r].bytes,
                all[r].n_channels, all[r].n_slots, all[r].packet_bytes, all[r].flags, r);
    return TUTTI_OK;
}

/* All with the same wishes, and as many proxies as the rank with the fewest has cores for. */
static tutti_result agree_on(tutti_channel_set *s, struct wish mine)
{
    struct wish *all = calloc((size_t)s->n_ranks, sizeof(*all));
    char text[400];
    tutti_result result;

    if (!all)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory to agree on channels");
    snprintf(text, sizeof(text), "%s", mine.result == TUTTI_OK ? "" : tt_error_text());
    result = tt_comm_all_gather(s->comm, &mine, all, sizeof(mine));
    if (result == TUTTI_OK && mine.result != TUTTI_OK)
        result = TT_FAIL((tutti_result)mine.result, "%s", text);
    if (result == TUTTI_OK)
        result = compare(all, s->n_ranks, s->rank);
    s->n_proxies = mine.n_proxies;
    for (int r = 0; r < s->n_ranks; r++)
        if (all[r].n_proxies < s->n_proxies)
            s->n_proxies = all[r].n_proxies;
    free(all);
    return result;
}

/* ---- making ---- */

static tutti_result choose_ways(tutti_channel_set *s)
{
    const int *host = s->comm->host_of;

    s->by_port = calloc((size_t)s->n_ranks, sizeof(*s->by_port));
    s->gone = calloc((size_t)s->n_ranks, sizeof(*s->gone));
    if (!s->by_port || !s->gone)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for channels to %d ranks", s->n_ranks);
    for (int r = 0; r < s->n_ranks; r++) {
        s->by_port[r] =
            (unsigned char)(r != s->rank && (s->by_port_only || host[r] != host[s->rank]));
        s->n_port_peers += s->by_port[r];
        s->n_memory_peers += r != s->rank && !s->by_port[r];
    }
    return TUTTI_OK;
}

/* The same on all ranks: does any of them have a neighbour, or a peer that is far? */
static int any_neighbours(const tutti_channel_set *s)
{
    return !s->by_port_only && s->comm->n_hosts < s->n_ranks;
}

static int any_ports(const tutti_channel_set *s)
{
    return s->n_ranks > 1 && (s->by_port_only || s->comm->n_hosts > 1);
}

static tutti_result make_windows(tutti_channel_set *s)
{
    const struct tt_engine_ops *ops = s->comm->ops;

    TT_TRY(ops->window_register(s->comm->engine, s->memory, s->bytes, &s->window));
    return ops->window_register(s->comm->engine, s->words, s->words_bytes, &s->words_window);
}

/* Before the ranks agree that all of them have some. */
static tutti_result make_words(tutti_channel_set *s)
{
    const uint64_t ids = (uint64_t)s->n_ranks * s->n_channels;
    void *words;

    s->words_packets = ids * TT_CHANNEL_LINE;
    s->words_bytes = s->words_packets + ids * s->packet_bytes * 2;
    TT_TRY(s->comm->ops->mem_alloc(s->comm->engine, s->words_bytes, &words));
    s->words = words;
    return TUTTI_OK;
}

static uint64_t lines(uint64_t bytes)
{
    return (bytes + TT_CHANNEL_LINE - 1) / TT_CHANNEL_LINE * TT_CHANNEL_LINE;
}

/* One line for the report, then two queues of each proxy (channel_port.c), then what only this place needs. */
static tutti_result make_common(tutti_channel_set *s)
{
    const uint64_t ids = (uint64_t)s->n_ranks * s->n_channels;
    const uint64_t queue =
        s->n_slots * sizeof(tutti_trigger) + TT_CHANNEL_LINE + lines(ids * sizeof(uint64_t));
    const uint64_t states = TT_CHANNEL_LINE + 2 * s->n_proxies * queue;
    const uint64_t heads = states + ids * sizeof(tutti_channel_state);
    struct tt_channel_memory *m = &s->common;

    m->bytes = heads + 2 * (uint64_t)s->n_proxies * TT_CHANNEL_LINE;
#ifdef TUTTI_HAVE_CUDA
    if (s->device) {
        void *words;

        TT_TRY(tt_cuda_pin(s->device, m->bytes, (void **)&m->host, (void **)&m->at_device));
        TT_TRY(tt_cuda_words_new(s->device, m->bytes - states, &words));
        s->kernel_words = words;
    }
#endif
    if (!s->device) {
        m->host = aligned_alloc(TT_CHANNEL_LINE, m->bytes);
        if (!m->host)
            return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu bytes of queues", m->bytes);
        memset(m->host, 0, m->bytes);
    }
    s->report = (tutti_channel_report *)(void *)m->host;
    s->report->peer = -1;
    s->host_state = (tutti_channel_state *)(void *)(m->host + states);
    s->heads = (uint64_t *)(void *)(m->host + heads);
    return TUTTI_OK;
}

static void set_details(tutti_channel_set *s)
{
    snprintf(s->details, sizeof(s->details),
             "%d memory peers, %d port peers%s, %u channels each, %u proxies, %s",
             s->n_memory_peers, s->n_port_peers, s->by_port_only ? " (all by port)" : "",
             s->n_channels, s->n_proxies,
             !s->device             ? "host memory"
             : s->n_port_peers == 0 ? "GPU memory"
             : s->is_direct         ? "GPU memory, reached by the network's devices (GPUDirect)"
                                    : "GPU memory, staged through pinned memory");
    TT_LOG(TUTTI_LOG_INFO, s->rank, s->n_ranks, "channels of communicator %s: %s", s->comm->name,
           s->details);
}

static tutti_result set_up(tutti_channel_set *s, const tutti_channel_config *c, tutti_result mine)
{
    struct wish wish = {.result = (int32_t)mine,
                        .flags = c->flags,
                        .n_channels = c->n_channels,
                        .n_slots = c->n_slots,
                        .packet_bytes = c->packet_bytes,
                        .n_proxies = c->n_proxies ? c->n_proxies : tt_port_default_proxies(s),
                        .bytes = s->bytes};

    TT_TRY(agree_on(s, wish));
    s->n_channels = c->n_channels;
    s->n_slots = c->n_slots;
    s->packet_bytes = c->packet_bytes;
    s->by_port_only = (c->flags & TUTTI_CHANNELS_BY_PORT) != 0 || !s->comm->ops->window_at;
    if (!any_ports(s))
        s->n_proxies = 0;
    wish.result = (int32_t)choose_ways(s);
    if (wish.result == TUTTI_OK)
        wish.result = (int32_t)make_common(s);
    if (wish.result == TUTTI_OK && any_neighbours(s))
        wish.result = (int32_t)make_words(s);
    TT_TRY(agree_on(s, wish));
    if (!any_ports(s))
        s->n_proxies = 0;
    if (any_neighbours(s))
        TT_TRY(make_windows(s));
    if (any_ports(s)) {
        tt_port_lay_out(s);
        TT_TRY(tt_ports_create(s));
    }
    set_details(s);
    return TUTTI_OK;
}

static tutti_result check_memory(const tutti_comm *comm, const void *memory, size_t bytes)
{
    if (!memory || bytes == 0 || (uintptr_t)memory % 64 || bytes > TUTTI_TRIGGER_MASK)
        return TT_FAIL(TUTTI_E_ARG, "channels over %zu bytes at %p: some bytes, 64-byte aligned",
                       bytes, memory);
    if (comm->group)
        return TT_FAIL(TUTTI_E_ARG, "channels cannot be made inside a group");
    return TUTTI_OK;
}

/* ---- the end ---- */

/* The communicator's engine may be no more: memory is not its own. */
static void free_parts(tutti_channel_set *s)
{
    tt_ports_free(s);
    if (s->words && !s->device)
        (void)tt_cpu_engine.mem_free(NULL, s->words);
#ifdef TUTTI_HAVE_CUDA
    if (s->words && s->device)
        (void)tt_cuda_engine.mem_free(NULL, s->words);
    if (s->device) {
        tt_cuda_words_free(s->device, s->kernel_words);
        tt_cuda_unpin(s->device, s->common.host);
        tt_cuda_channel_close(s->device);
        s->common.host = NULL;
    }
#endif
    free(s->common.host);
    free(s->by_port);
    free((void *)s->gone);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void list_add(tutti_channel_set *s)
{
    pthread_mutex_lock(&list_lock);
    s->next = s->comm->channel_sets;
    s->comm->channel_sets = s;
    pthread_mutex_unlock(&list_lock);
}

static int list_remove(tutti_channel_set *s)
{
    tutti_channel_set **at = &s->comm->channel_sets;
    int found;

    pthread_mutex_lock(&list_lock);
    while (*at && *at != s)
        at = &(*at)->next;
    found = *at != NULL;
    if (found)
        *at = s->next;
    pthread_mutex_unlock(&list_lock);
    return found;
}

tutti_result tt_channel_set_create(tutti_comm *comm, void *memory, size_t bytes,
                                   const tutti_channel_config *config, tutti_channel_set **set_out)
{
    tutti_channel_set *s = calloc(1, sizeof(*s));
    tutti_channel_config c;
    tutti_result result;
    char text[400];

    if (!s)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for channels");
    pthread_mutex_init(&s->lock, NULL);
    s->comm = comm;
    s->rank = comm->rank;
    s->n_ranks = comm->n_ranks;
    s->memory = memory;
    s->bytes = bytes;
    s->timeout_ns = comm->timeout_ms * 1000000;
    result = read_config(config, &c);
    if (result == TUTTI_OK)
        result = check_memory(comm, memory, bytes);
#ifdef TUTTI_HAVE_CUDA
    if (result == TUTTI_OK && comm->device == TUTTI_DEVICE_CUDA)
        result = tt_cuda_channel_open(comm->device_index, memory, bytes, &s->device);
#endif
    result = set_up(s, &c, result);
    if (result == TUTTI_OK) {
        list_add(s);
        *set_out = s;
        return TUTTI_OK;
    }
    snprintf(text, sizeof(text), "%s", tt_error_text());
    tt_ports_stop(s);
    if (s->words_window)
        (void)comm->ops->window_deregister(comm->engine, s->words_window);
    if (s->window)
        (void)comm->ops->window_deregister(comm->engine, s->window);
    free_parts(s);
    return TT_FAIL(result, "%s", text);
}

static void keep_first(tutti_result *result, tutti_result next)
{
    if (*result == TUTTI_OK)
        *result = next;
}

tutti_result tt_channel_set_destroy(tutti_channel_set *s)
{
    tutti_comm *comm = s->comm;
    tutti_result result;
    char text[400] = "";
    int32_t mine, *all = calloc((size_t)s->n_ranks, sizeof(*all));

    if (!list_remove(s)) {
        free(all);
        return TT_FAIL(TUTTI_E_ARG, "the set of channels at %p is none", (void *)s);
    }
    result = tt_channel_set_status(s);
    if (result == TUTTI_OK)
        result = tt_ports_deliver(s);
    snprintf(text, sizeof(text), "%s", result == TUTTI_OK ? "" : tt_error_text());
    /* Nobody puts into this rank's memory any more, and all that was put is there. */
    mine = (int32_t)result;
    if (all)
        keep_first(&result, tt_comm_all_gather(comm, &mine, all, sizeof(mine)));
    tt_ports_stop(s);
    if (s->words_window)
        keep_first(&result, comm->ops->window_deregister(comm->engine, s->words_window));
    if (s->window)
        keep_first(&result, comm->ops->window_deregister(comm->engine, s->window));
    if (result != TUTTI_OK && text[0] == 0)
        snprintf(text, sizeof(text), "%s", tt_error_text());
    free(all);
    free_parts(s);
    return result == TUTTI_OK ? TUTTI_OK : TT_FAIL(result, "%s", text);
}

/* ---- with the communicator ---- */

void tt_channels_abort(const tutti_comm *comm)
{
    pthread_mutex_lock(&list_lock);
    for (tutti_channel_set *s = comm->channel_sets; s; s = s->next) {
        __atomic_store_n(&s->report->abort, 1, __ATOMIC_RELEASE);
        for (int i = 0; i < s->n_started; i++)
            tt_net_abort(s->ports[i].net);
    }
    pthread_mutex_unlock(&list_lock);
}

void tt_channels_end_kernels(const tutti_comm *comm)
{
    pthread_mutex_lock(&list_lock);
    for (tutti_channel_set *s = comm->channel_sets; s; s = s->next)
        __atomic_store_n(&s->report->abort, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&list_lock);
}

void tt_channels_stop(tutti_comm *comm)
{
    for (tutti_channel_set *s = comm->channel_sets; s; s = s->next) {
        __atomic_store_n(&s->report->abort, 1, __ATOMIC_RELEASE);
        tt_ports_stop(s);
    }
}

/* The engines are no more, and their windows with them: what lay in these is free. */
void tt_channels_free(tutti_comm *comm)
{
    while (comm->channel_sets) {
        tutti_channel_set *s = comm->channel_sets;

        comm->channel_sets = s->next;
        free_parts(s);
    }
}

/* ---- one channel ---- */

static tutti_result check_channel(const tutti_channel_set *s, int peer, uint32_t index,
                                  tutti_channel_place place)
{
    if (peer < 0 || peer >= s->n_ranks || peer == s->rank)
        return TT_FAIL(TUTTI_E_ARG, "a channel from rank %d to rank %d of %d", s->rank, peer,
                       s->n_ranks);
    if (index >= s->n_channels)
        return TT_FAIL(TUTTI_E_ARG, "channel %u of %u", index, s->n_channels);
    if (place != TUTTI_CHANNEL_HOST && place != TUTTI_CHANNEL_KERNEL)
        return TT_FAIL(TUTTI_E_ARG, "place %d is neither host nor kernel", (int)place);
    if (place == TUTTI_CHANNEL_KERNEL && !s->device)
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "channels for kernels are made from a communicator of GPUs");
    if (place == TUTTI_CHANNEL_HOST && s->device && !s->by_port[peer])
        return TT_FAIL(TUTTI_E_UNSUPPORTED,
                       "host code cannot store to the GPU memory of rank %d: make the set with "
                       "TUTTI_CHANNELS_BY_PORT",
                       peer);
    return TUTTI_OK;
}

/* Where kernels, or the host, see a place in memory of the host. */
static void *seen_at(const struct tt_channel_memory *m, void *at, tutti_channel_place place)
{
    return place == TUTTI_CHANNEL_KERNEL ? (void *)(m->at_device + ((unsigned char *)at - m->host))
                                         : at;
}

static void fill_memory_channel(const tutti_channel_set *s, uint32_t index, tutti_channel *c)
{
    const struct tt_engine_ops *ops = s->comm->ops;
    const unsigned char *mine = ops->window_at(s->comm->engine, s->window, s->rank);
    unsigned char *theirs = ops->window_at(s->comm->engine, s->words_window, c->peer);
    const uint64_t to = tt_channel_id(s, s->rank, index), from = tt_channel_id(s, c->peer, index);

    c->peer_memory = ops->window_at(s->comm->engine, s->window, c->peer);
    c->peer_memory += s->memory - mine; /* a part of a window is at the same place in all of them */
    c->signals = (const uint64_t *)(const void *)(s->words + from * TT_CHANNEL_LINE);
    c->peer_signals = (uint64_t *)(void *)(theirs + to * TT_CHANNEL_LINE);
    c->packets =
        (const uint64_t *)(const void *)(s->words + s->words_packets + from * s->packet_bytes * 2);
    c->packets_out = (uint64_t *)(void *)(theirs + s->words_packets + to * s->packet_bytes * 2);
}

static void fill_port_channel(const tutti_channel_set *s, uint32_t index, tutti_channel_place place,
                              tutti_channel *c)
{
    struct tt_port *p = &s->ports[tt_channel_proxy(s, c->peer, index)];
    const struct tt_port_queue *q = &p->queues[place];
    unsigned char *mine = (unsigned char *)tt_port_place(p, c->peer);
    const uint64_t packets = (uint64_t)index * s->packet_bytes * 2;
    unsigned char *heads =
        place == TUTTI_CHANNEL_HOST
            ? (unsigned char *)s->heads
            : s->kernel_words + ((unsigned char *)s->heads - (unsigned char *)s->host_state);

    heads += 2 * (uint64_t)p->index * TT_CHANNEL_LINE;
    c->n_slots = s->n_slots;
    c->signals =
        seen_at(&p->arena, mine + s->layout.signals + (uint64_t)index * TT_CHANNEL_LINE, place);
    c->packets = seen_at(&p->arena, mine + s->layout.packets_in + packets, place);
    c->packets_out = seen_at(&p->arena, mine + s->layout.packets_out + packets, place);
    c->slots = seen_at(&s->common, q->slots, place);
    c->done = seen_at(&s->common, q->done, place);
    c->flushed = seen_at(&s->common, &q->flushed[c->id], place);
    c->head = (uint64_t *)(void *)heads;
    c->seen = (uint64_t *)(void *)(heads + TT_CHANNEL_LINE);
}

tutti_result tt_channel_get(tutti_channel_set *s, int peer, uint32_t index,
                            tutti_channel_place place, tutti_channel *channel_out)
{
    tutti_channel c = {.rank = s->rank,
                       .peer = peer,
                       .memory = s->memory,
                       .bytes = s->bytes,
                       .packet_bytes = s->packet_bytes,
                       .timeout_ns = s->timeout_ns};

    TT_TRY(check_channel(s, peer, index, place));
    c.id = tt_channel_id(s, peer, index);
    c.report = seen_at(&s->common, s->report, place);
    if (place == TUTTI_CHANNEL_HOST) {
        c.set = s;
        c.state = &s->host_state[c.id];
    } else {
        c.state = (tutti_channel_state *)(void *)s->kernel_words + c.id;
    }
    if (s->by_port[peer])
        fill_port_channel(s, index, place, &c);
    else
        fill_memory_channel(s, index, &c);
    *channel_out = c;
    return TUTTI_OK;
}

void tt_channel_set_query(const tutti_channel_set *s, tutti_channel_info *info)
{
    info->n_proxies = (int32_t)s->n_proxies;
    info->n_memory_peers = s->n_memory_peers;
    info->n_port_peers = s->n_port_peers;
    info->n_triggers = 0;
    for (uint32_t i = 0; i < s->n_proxies; i++)
        info->n_triggers += atomic_load_explicit(&s->ports[i].n_triggers, memory_order_relaxed);
    info->details = s->details;
}
