/*
 * A network for tests: src/net/net.h between processes of one machine. Puts come late, in pieces and in
 * any order, but before the signal that follows them. T_NET=signal_early breaks that rule, to show that
 * the tests would notice; not for the first signals, so that what a test needs beforehand succeeds.
 * T_NET_GPU: its devices reach the memory of (simulated) GPUs, by "peermem" or "dmabuf"; or they say so, but
 * what they write there is lost: "lost".
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "boot/boot.h"
#include "net/net.h"
#include "support/proc.h"

enum { RING = 1 << 18, PIECE = 1 << 15, MOST_FLYING = 48, MOST_REGIONS = 8, SIGNALS_IN_ORDER = 16 };

/* What a sender has put on its way to a receiver. */
struct ring {
    _Atomic uint64_t head, tail;
    _Atomic uint64_t waits_ns; /* when the sender said that it waits */
    _Atomic int is_watcher;    /* the sender wants to know of our death */
    unsigned char data[RING];
};

struct inbox {
    _Atomic int has_left, is_aborted;
    struct ring rings[]; /* [n_ranks]: by sender */
};

struct record {
    uint32_t is_signal, region;
    uint64_t at, bytes, value;
};

struct op {
    const unsigned char *src;
    struct record record;
};

struct flying { /* a part of a put that has not landed */
    unsigned char *to;
    int is_gpu;
    size_t bytes;
    unsigned char data[PIECE];
};

struct peer {
    int pid, used;
    struct inbox *inbox;
    struct op *ops; /* [max]: posted ones that are not sent, from `first` on */
    size_t first, n, max;
    uint64_t posted, sent;
    struct flying *flying[MOST_FLYING];
    int n_flying;
};

struct tt_net {
    int rank, n_ranks, fd, n_regions;
    int signal_early, n_signals; /* in order until SIGNALS_IN_ORDER have come */
    size_t inbox_bytes;
    struct inbox *mine;
    struct peer *peers;
    struct tt_net_region *regions[MOST_REGIONS];
    uint64_t seed, next_look_ns, n_moves;
    tutti_result failed;
    char text[128];
};

struct tt_net_region {
    struct tt_net *net;
    uint32_t index;
    unsigned char *base;
    int is_gpu;
    tt_net_take_fn take;
    void *context;
    uint64_t bytes[]; /* [n_ranks] */
};

static uint64_t dice(struct tt_net *net, uint64_t below)
{
    net->seed = net->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (net->seed >> 33) % below;
}

const char *tt_net_missing(void)
{
    return "";
}

const char *tt_net_details(const struct tt_net *net)
{
    (void)net;
    return "fake, for tests";
}

/* ---- creating ---- */

struct card {
    int32_t pid, fd;
};

static tutti_result open_peers(struct tt_net *net, const struct tt_exchange *x)
{
    struct card mine = {getpid(), net->fd}, *cards = calloc((size_t)net->n_ranks, sizeof(*cards));
    tutti_result res = x->all_gather(x->context, &mine, cards, sizeof(mine));

    for (int r = 0; res == TUTTI_OK && r < net->n_ranks; r++) {
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", cards[r].pid, cards[r].fd);
        fd = open(path, O_RDWR | O_CLOEXEC);
        net->peers[r].pid = cards[r].pid;
        net->peers[r].inbox =
            fd < 0 ? MAP_FAILED
                   : mmap(NULL, net->inbox_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (net->peers[r].inbox == MAP_FAILED) {
            net->peers[r].inbox = NULL;
            res = TT_FAIL_SYS("fake network: %s", path);
        }
        if (fd >= 0)
            close(fd);
    }
    mine.pid = res;
    if (res == TUTTI_OK)
        res = x->all_gather(x->context, &mine, cards, sizeof(mine));
    free(cards);
    return res;
}

tutti_result tt_net_create(const struct tt_net_config *config, struct tt_net **net_out)
{
    struct tt_net *net = calloc(1, sizeof(*net));
    const char *word = getenv("T_NET");
    tutti_result res = TUTTI_OK;

    net->rank = config->rank;
    net->n_ranks = config->n_ranks;
    net->seed = tt_now_ns() + (uint64_t)config->rank;
    net->signal_early = word && strcmp(word, "signal_early") == 0;
    net->inbox_bytes = sizeof(struct inbox) + (size_t)net->n_ranks * sizeof(struct ring);
    net->peers = calloc((size_t)net->n_ranks, sizeof(*net->peers));
    net->fd = memfd_create("fake-net", MFD_CLOEXEC);
    if (net->fd < 0 || ftruncate(net->fd, (off_t)net->inbox_bytes) != 0)
        res = TT_FAIL_SYS("fake network");
    if (res == TUTTI_OK)
        res = open_peers(net, config->exchange);
    if (res == TUTTI_OK)
        net->mine = net->peers[net->rank].inbox;
    if (res != TUTTI_OK) {
        tt_net_destroy(net);
        return res;
    }
    *net_out = net;
    return TUTTI_OK;
}

tutti_result tt_net_expose(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                           uint64_t bytes, struct tt_net_region **region_out)
{
    struct tt_net_region *region =
        calloc(1, sizeof(*region) + (size_t)net->n_ranks * sizeof(uint64_t));

    region->net = net;
    region->base = base;
    region->index = (uint32_t)net->n_regions;
    net->regions[net->n_regions++] = region;
    *region_out = region;
    return exchange->all_gather(exchange->context, &bytes, region->bytes, sizeof(bytes));
}

tutti_result tt_net_expose_gpu(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                               uint64_t bytes, struct tt_net_region **region_out)
{
    TT_TRY(tt_net_expose(net, exchange, base, bytes, region_out));
    (*region_out)->is_gpu = 1;
    return TUTTI_OK;
}

tutti_result tt_net_lend(struct tt_net *net, void *base, uint64_t bytes,
                         struct tt_net_region **region_out)
{
    (void)net;
    (void)base;
    (void)bytes;
    *region_out = NULL; /* it needs no registration */
    return TUTTI_OK;
}

unsigned tt_net_gpu_ways(const struct tt_net *net)
{
    const char *way = getenv("T_NET_GPU");

    (void)net;
    return way == NULL ? 0 : strcmp(way, "dmabuf") == 0 ? TT_NET_GPU_DMABUF : TT_NET_GPU_PEERMEM;
}

/* It is not there before somebody asks the GPU's driver. */
static void write_gpu(void *to, const void *data, size_t bytes)
{
    void *library = dlopen(getenv("TUTTI_CUDA_LIBRARY"), RTLD_LAZY | RTLD_NOLOAD);
    void (*write_later)(void *to, const void *data, size_t bytes) = NULL;
    void *at = library ? dlsym(library, "tt_sim_write_later") : NULL;

    memcpy(&write_later, &at, sizeof(at));
    if (strcmp(getenv("T_NET_GPU"), "lost") != 0)
        write_later(to, data, bytes);
    dlclose(library);
}

void tt_net_offer(struct tt_net_region *region, tt_net_take_fn take, void *context)
{
    region->take = take;
    region->context = context;
}

/* ---- sending ---- */

static void store(struct ring *ring, uint64_t at, const void *src, size_t bytes)
{
    const size_t to = at % RING, first = bytes < RING - to ? bytes : RING - to;

    if (bytes > 0)
        memcpy(ring->data + to, src, first);
    if (bytes > first)
        memcpy(ring->data, (const unsigned char *)src + first, bytes - first);
}

static void load(const struct ring *ring, uint64_t at, void *dst, size_t bytes)
{
    const size_t from = at % RING, first = bytes < RING - from ? bytes : RING - from;

    memcpy(dst, ring->data + from, first);
    memcpy((unsigned char *)dst + first, ring->data, bytes - first);
}

/* The next piece of the first operation, if there is room. */
static int pump(struct tt_net *net, struct peer *p)
{
    struct ring *ring = &p->inbox->rings[net->rank];
    struct op *op = &p->ops[p->first];
    struct record piece = op->record;
    const uint64_t head = atomic_load(&ring->head);

    piece.bytes = piece.bytes < PIECE ? piece.bytes : PIECE;
    if (RING - (head - atomic_load(&ring->tail)) < sizeof(piece) + piece.bytes)
        return 0;
    store(ring, head, &piece, sizeof(piece));
    store(ring, head + sizeof(piece), op->src, piece.bytes);
    atomic_store(&ring->head, head + sizeof(piece) + piece.bytes);
    net->n_moves++;
    op->src += piece.bytes;
    op->record.at += piece.bytes;
    op->record.bytes -= piece.bytes;
    if (op->record.bytes == 0) {
        p->first++;
        p->n--;
        p->sent++;
    }
    return 1;
}

static tutti_result post(struct tt_net *net, int peer, struct op op)
{
    struct peer *p = &net->peers[peer];

    if (net->failed != TUTTI_OK)
        return TT_FAIL(net->failed, "%s", net->text);
    p->used = 1;
    p->posted++;
    if (atomic_load(&p->inbox->has_left)) {
        p->sent++;
        return TUTTI_OK;
    }
    if (p->first + p->n == p->max) {
        if (p->n > 0)
            memmove(p->ops, p->ops + p->first, p->n * sizeof(op));
        p->first = 0;
        if (p->n == p->max)
            p->ops = realloc(p->ops, (p->max = 2 * p->max + 16) * sizeof(op));
    }
    p->ops[p->first + p->n++] = op;
    return TUTTI_OK;
}

tutti_result tt_net_put(struct tt_net *net, int peer, const void *src, uint64_t bytes,
                        struct tt_net_region *region, uint64_t at)
{
    const struct op op = {src, {0, region->index, at, bytes, 0}};

    if (at > region->bytes[peer] || bytes > region->bytes[peer] - at)
        return TT_FAIL(TUTTI_E_ARG, "fake network: a put of %llu bytes at %llu leaves the region",
                       (unsigned long long)bytes, (unsigned long long)at);
    return post(net, peer, op);
}

void tt_net_drop(struct tt_net *net, int peer)
{
    net->peers[peer].sent += net->peers[peer].n;
    net->peers[peer].n = 0;
}

void tt_net_push(struct tt_net *net, int peer) /* in its time, as everything here */
{
    (void)net;
    (void)peer;
}

tutti_result tt_net_signal(struct tt_net *net, int peer, struct tt_net_region *region, uint64_t at,
                           uint64_t value)
{
    const struct op op = {NULL, {1, region->index, at, 0, value}};

    if (at % 8 != 0 || at + 8 > region->bytes[peer])
        return TT_FAIL(TUTTI_E_ARG, "fake network: a signal at %llu", (unsigned long long)at);
    return post(net, peer, op);
}

/* Half of the ranks think that it does; nobody may rely on more than the signal's order. */
uint64_t tt_net_bundle_bytes(const struct tt_net *net)
{
    return net->rank % 2 ? 1 << 20 : 0;
}

uint64_t tt_net_posted(const struct tt_net *net, int peer)
{
    return net->peers[peer].posted;
}

uint64_t tt_net_moves(const struct tt_net *net)
{
    return net->n_moves;
}

uint64_t tt_net_sent(const struct tt_net *net, int peer)
{
    return net->peers[peer].sent;
}

int tt_net_has_left(struct tt_net *net, int peer, uint64_t number)
{
    return net->peers[peer].sent >= number;
}

/* ---- receiving ---- */

/* A put lands in up to three parts, cut between its words. */
static void take_off(struct peer *p, const struct ring *ring, uint64_t from,
                     const struct record *record, struct tt_net *net)
{
    const struct tt_net_region *region = net->regions[record->region];
    unsigned char *to = region->base + record->at;
    size_t bytes = record->bytes;

    while (bytes > 0) {
        struct flying *f = malloc(sizeof(*f));
        size_t n = bytes > 16 && dice(net, 3) ? (size_t)dice(net, bytes) & ~(size_t)7 : bytes;

        n = n == 0 || p->n_flying >= MOST_FLYING - 2 ? bytes : n;
        f->to = to;
        f->is_gpu = region->is_gpu;
        f->bytes = n;
        load(ring, from, f->data, n);
        p->flying[p->n_flying++] = f;
        to += n;
        from += n;
        bytes -= n;
    }
}

/* Now and then a piece is offered, if none before it is still flying. */
static int is_taken(struct tt_net *net, struct peer *p, const struct ring *ring, uint64_t from,
                    const struct record *record)
{
    static _Thread_local unsigned char data[PIECE];
    const struct tt_net_region *region = net->regions[record->region];

    if (!region->take || p->n_flying > 0 || dice(net, 3) == 0)
        return 0;
    load(ring, from, data, record->bytes);
    return region->take(region->context, record->at, data, record->bytes);
}

static void land(struct peer *p, int i)
{
    const struct flying *f = p->flying[i];

    if (f->is_gpu)
        write_gpu(f->to, f->data, f->bytes);
    else
        tt_store_words(f->to, f->data, f->bytes);
    free(p->flying[i]);
    p->flying[i] = p->flying[--p->n_flying];
}

static int is_early(const struct tt_net *net)
{
    return net->signal_early && net->n_signals >= SIGNALS_IN_ORDER;
}

static void receive(struct tt_net *net, struct peer *p, int sender)
{
    struct ring *ring = &net->mine->rings[sender];

    for (int turns = 0; turns < 8; turns++) {
        const uint64_t tail = atomic_load(&ring->tail);
        struct record record;
        unsigned char *to;

        net->n_moves += p->n_flying > 0;
        while (p->n_flying > 0 && dice(net, 4) != 0 && (!is_early(net) || dice(net, 64) == 0))
            land(p, (int)dice(net, (uint64_t)p->n_flying));
        if (atomic_load(&ring->head) == tail || p->n_flying > MOST_FLYING - 4)
            return;
        net->n_moves++;
        load(ring, tail, &record, sizeof(record));
        to = net->regions[record.region]->base + record.at;
        if (record.is_signal && p->n_flying > 0 && !is_early(net))
            return;
        net->n_signals += record.is_signal;
        if (record.is_signal)
            atomic_store((_Atomic uint64_t *)(void *)to, record.value);
        else if (!is_taken(net, p, ring, tail + sizeof(record), &record))
            take_off(p, ring, tail + sizeof(record), &record, net);
        atomic_store(&ring->tail, tail + sizeof(record) + record.bytes);
    }
}

static int is_gone(int pid)
{
    const char state = t_process_state(pid);

    return state == 'X' || state == 'Z';
}

/* Of those that it knows, or of all. */
static void look(struct tt_net *net, int everywhere)
{
    for (int r = 0; r < net->n_ranks; r++) {
        struct peer *p = &net->peers[r];

        if (r == net->rank || net->failed != TUTTI_OK || !is_gone(p->pid) ||
            atomic_load(&p->inbox->has_left) ||
            !(everywhere || p->used || net->mine->rings[r].head))
            continue;
        net->failed = TUTTI_E_PEER;
        snprintf(net->text, sizeof(net->text), "lost rank %d on fake: its process is gone", r);
    }
}

tutti_result tt_net_check_peer(struct tt_net *net, int peer)
{
    const struct peer *p = &net->peers[peer];
    struct ring *ring = &net->mine->rings[peer];

    if (net->failed != TUTTI_OK)
        return TT_FAIL(net->failed, "%s", net->text);
    if (!atomic_load(&p->inbox->has_left) || p->n_flying > 0 ||
        atomic_load(&ring->head) != atomic_load(&ring->tail))
        return TUTTI_OK;
    look(net, 1); /* who leaves because somebody died has said so before */
    if (net->failed == TUTTI_OK)
        return TT_FAIL(TUTTI_E_PEER, "rank %d on fake has left: it has destroyed its communicator",
                       peer);
    return TT_FAIL(net->failed, "%s", net->text);
}

tutti_result tt_net_progress(struct tt_net *net)
{
    const uint64_t now = tt_now_ns();

    if (atomic_load(&net->mine->is_aborted))
        return TT_FAIL(TUTTI_E_ABORTED, "the network was aborted");
    if (net->failed != TUTTI_OK)
        return TT_FAIL(net->failed, "%s", net->text);
    for (int r = 0; r < net->n_ranks; r++) {
        struct peer *p = &net->peers[r];

        if (r == net->rank)
            continue;
        while (p->n > 0 && atomic_load(&p->inbox->has_left)) {
            p->first++;
            p->n--;
            p->sent++;
        }
        while (p->n > 0 && dice(net, 8) && pump(net, p))
            ;
        receive(net, p, r);
    }
    if (now > net->next_look_ns) {
        net->next_look_ns = now + 8000000;
        look(net, 0);
    }
    return net->failed == TUTTI_OK ? TUTTI_OK : TT_FAIL(net->failed, "%s", net->text);
}

void tt_net_sleep(struct tt_net *net, uint64_t until_ns)
{
    const uint64_t now = tt_now_ns();
    const struct timespec t = {0, until_ns > now + 50000 ? 50000 : 1000};

    (void)net;
    nanosleep(&t, NULL);
}

void tt_net_watch(struct tt_net *net, int peer)
{
    net->peers[peer].used = 1;
    atomic_store(&net->peers[peer].inbox->rings[net->rank].is_watcher, 1);
}

int tt_net_has_met(const struct tt_net *net, int peer)
{
    const struct ring *ring = &net->mine->rings[peer];

    return peer != net->rank &&
           (net->peers[peer].used || atomic_load(&ring->is_watcher) || atomic_load(&ring->head));
}

void tt_net_tell_waits(struct tt_net *net)
{
    for (int r = 0; r < net->n_ranks; r++)
        atomic_store(&net->peers[r].inbox->rings[net->rank].waits_ns, tt_now_ns());
}

int tt_net_waits(const struct tt_net *net, int peer, uint64_t within_ns)
{
    return tt_now_ns() - atomic_load(&net->mine->rings[peer].waits_ns) <= within_ns;
}

void tt_net_tell_lost(struct tt_net *net, int rank)
{
    (void)net; /* everybody sees who is gone */
    (void)rank;
}

void tt_net_abort(struct tt_net *net)
{
    for (int r = 0; r < net->n_ranks; r++)
        atomic_store(&net->peers[r].inbox->is_aborted, 1);
}

/* ---- ending ---- */

static void send_all(struct tt_net *net)
{
    const uint64_t deadline = tt_now_ns() + UINT64_C(2000000000);
    int under_way = 1;

    while (under_way && tt_now_ns() < deadline && tt_net_progress(net) == TUTTI_OK) {
        under_way = 0;
        for (int r = 0; r < net->n_ranks; r++)
            under_way |= net->peers[r].n > 0;
    }
}

void tt_net_hide(struct tt_net_region *region)
{
    send_all(region->net);
}

void tt_net_destroy(struct tt_net *net)
{
    if (!net)
        return;
    if (net->mine) {
        send_all(net);
        atomic_store(&net->mine->has_left, 1);
    }
    for (int r = 0; r < net->n_ranks; r++) {
        struct peer *p = &net->peers[r];

        while (p->n_flying > 0)
            land(p, 0);
        if (p->inbox)
            munmap(p->inbox, net->inbox_bytes);
        free(p->ops);
    }
    for (int i = 0; i < net->n_regions; i++)
        free(net->regions[i]);
    if (net->fd >= 0)
        close(net->fd);
    free(net->peers);
    free(net);
}
