/* Creating and ending the wire: the arena, its layout, and what is kept of each peer. */
#include "coll/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/log.h"
#include "coll/wire_parts.h"

#define SMALLEST_RING (UINT64_C(8) << 10)
#define LARGEST_RING  (UINT64_C(4) << 20)
#define LARGEST_CHUNK (UINT64_C(256) << 10)
#define FEW_RANKS     64 /* up to which packets may be long */
#define LONG_SLOT     4096u
#define SHORT_SLOT    1024u
#define PAGE          UINT64_C(4096)

/* The same on all ranks: it depends on their number and on ring_bytes alone. */
static void lay_out(struct tt_wire *w, uint64_t ring_bytes)
{
    const uint64_t n = (uint64_t)w->n_ranks;
    uint64_t at = sizeof(struct tt_wire_place);

    w->ring_bytes = LARGEST_RING;
    while (w->ring_bytes > SMALLEST_RING && w->ring_bytes * n > ring_bytes)
        w->ring_bytes /= 2;
    w->chunk = w->ring_bytes / 4 < LARGEST_CHUNK ? w->ring_bytes / 4 : LARGEST_CHUNK;
    w->slot_bytes = n <= FEW_RANKS ? LONG_SLOT : SHORT_SLOT;
    w->inline_max = (w->slot_bytes / 8 - TT_WIRE_HEADER_WORDS) * 4;
    w->notice_at = at;
    at += TT_WIRE_NOTICE_BYTES;
    w->slots_at = at;
    at = (at + TT_WIRE_SLOTS * w->slot_bytes + PAGE - 1) & ~(PAGE - 1);
    w->ring_at = at;
    w->stride = at + w->ring_bytes;
    w->arena_bytes = TT_WIRE_PLACES + n * w->stride;
}

/* Where a put and its signal can be one message, they are. */
static void fit_bundles(struct tt_wire *w)
{
    const uint64_t most = tt_net_bundle_bytes(w->net) & ~UINT64_C(63);

    if (most < w->slot_bytes)
        return;
    w->plain_max = w->slot_bytes - TT_PACKET_PLAIN_BYTES;
    w->chunk = w->chunk < most ? w->chunk : most;
}

static tutti_result make_arena(struct tt_wire *w)
{
    w->peers = calloc((size_t)w->n_ranks, sizeof(*w->peers));
    w->unpacked = aligned_alloc(64, LONG_SLOT);
    w->notice = malloc(TT_WIRE_NOTICE_BYTES);
    if (!w->peers || !w->unpacked || !w->notice)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for messages among %d ranks", w->n_ranks);
    w->arena = mmap(NULL, w->arena_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w->arena == MAP_FAILED) {
        w->arena = NULL;
        return TT_FAIL_SYS("no address space for %llu bytes of messages from other hosts",
                           (unsigned long long)w->arena_bytes);
    }
    return TUTTI_OK;
}

tutti_result tt_wire_create(const struct tt_wire_config *config, struct tt_wire **wire_out)
{
    const struct tt_net_config nc = {.rank = config->rank,
                                     .n_ranks = config->n_ranks,
                                     .host_of = config->host_of,
                                     .timeout_ns = config->timeout_ns,
                                     .key = config->key,
                                     .gpu = config->gpu,
                                     .polls = config->polls,
                                     .exchange = config->exchange,
                                     .route = config->route,
                                     .refused = config->refused};
    struct tt_wire *w = calloc(1, sizeof(*w));
    tutti_result res;

    if (!w)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for messages among %d ranks", config->n_ranks);
    w->rank = config->rank;
    w->n_ranks = config->n_ranks;
    w->host_of = config->host_of;
    w->timeout_ns = config->timeout_ns;
    w->polls = config->polls;
    w->check = config->check;
    w->waits = config->waits;
    w->context = config->context;
    w->culprit = -1;
    snprintf(w->name, sizeof(w->name), "%s", config->name);
    lay_out(w, config->ring_bytes);
    res = make_arena(w);
    if (res == TUTTI_OK)
        res = tt_net_create(&nc, &w->net);
    if (res == TUTTI_OK)
        fit_bundles(w);
    if (res == TUTTI_OK)
        res = tt_net_expose(w->net, config->exchange, w->arena, w->arena_bytes, &w->region);
    if (res != TUTTI_OK) {
        tt_wire_destroy(w);
        return res;
    }
    tt_net_offer(w->region, tt_wire_take, w);
    *wire_out = w;
    return TUTTI_OK;
}

void tt_wire_destroy(struct tt_wire *w)
{
    if (!w)
        return;
    w->n_messages = 0; /* nothing is taken any more */
    if (w->region)
        tt_net_hide(w->region);
    if (w->net)
        tt_net_destroy(w->net);
    if (w->arena)
        munmap(w->arena, w->arena_bytes);
    for (int r = 0; w->peers && r < w->n_ranks; r++)
        free(w->peers[r].outbox);
    free(w->peers);
    free(w->unpacked);
    free(w->notice);
    free(w);
}

void tt_wire_lend(struct tt_wire *w, void *base, uint64_t bytes, struct tt_net_region **lent_out)
{
    *lent_out = NULL;
    if (tt_net_lend(w->net, base, bytes, lent_out) != TUTTI_OK)
        TT_LOG(TUTTI_LOG_INFO, w->rank, w->n_ranks,
               "a window is not registered with the network: %s", tt_error_text());
}

void tt_wire_take_back(struct tt_net_region *lent)
{
    if (lent)
        tt_net_hide(lent);
}

void tt_wire_start(struct tt_wire *w, struct tt_message *messages, size_t n)
{
    w->messages = messages;
    w->n_messages = w->n_open = n;
    for (size_t i = 0; i < n; i++)
        w->peers[messages[i].peer].used = 1;
}

void tt_wire_on_turn(struct tt_wire *w, int (*turn)(void *context), void *context)
{
    w->turn = turn;
    w->turn_context = context;
}

int tt_wire_culprit(const struct tt_wire *w)
{
    return w->culprit;
}

void tt_wire_abort(struct tt_wire *w)
{
    tt_net_abort(w->net);
}

uint64_t tt_wire_memory(const struct tt_wire *w)
{
    return w->arena_bytes;
}

const char *tt_wire_details(const struct tt_wire *w)
{
    return tt_net_details(w->net);
}
