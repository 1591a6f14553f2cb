/* Regions: memory of every rank that the others may put into. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "boot/boot.h"
#include "net/net_parts.h"

#define HIDE_NS UINT64_C(5000000000)

struct card {
    uint64_t base, bytes;
    uint32_t n_key, unused;
    unsigned char key[TT_PROVIDER_MAX_KEY];
};

struct tt_provider_memory *tt_net_memory_of(const struct tt_net *net, const void *src,
                                            uint64_t bytes)
{
    const unsigned char *start = src;

    for (const struct tt_net_region *r = net->regions; r; r = r->next) {
        if (r->memory && start >= r->base && bytes <= r->bytes &&
            (uint64_t)(start - r->base) <= r->bytes - bytes)
            return r->memory;
    }
    return NULL;
}

static tutti_result offer(struct tt_net_region *region, int is_gpu, struct card *card)
{
    struct tt_net *net = region->net;
    size_t n_key = 0;

    if (region->bytes == 0)
        return TUTTI_OK;
    if (!region->base || (uintptr_t)region->base % 64)
        return TT_FAIL(TUTTI_E_ARG, "memory for the network must be 64-byte aligned; %p is not",
                       (void *)region->base);
    if (is_gpu && net->limits.gpu_ways == 0)
        return TT_FAIL(TUTTI_E_UNSUPPORTED, "the network's devices do not reach GPU memory: %s",
                       net->details);
    TT_TRY(net->ops->expose(net->provider, region->base, region->bytes, is_gpu, &region->memory));
    TT_TRY(net->ops->pack_key(region->memory, card->key, &n_key));
    card->n_key = (uint32_t)n_key;
    card->base = (uint64_t)(uintptr_t)region->base;
    card->bytes = region->bytes;
    return TUTTI_OK;
}

static tutti_result take_parts(struct tt_net_region *region, const struct card cards[])
{
    for (int r = 0; r < region->net->n_ranks; r++) {
        struct tt_net_part *part = &region->parts[r];

        if (cards[r].bytes == 0)
            continue;
        if (cards[r].n_key > sizeof(cards[r].key))
            return TT_FAIL(TUTTI_E_INTERNAL, "rank %d sent a key of %u bytes", r, cards[r].n_key);
        part->packed = malloc(cards[r].n_key);
        if (!part->packed)
            return TT_FAIL(TUTTI_E_MEMORY, "no memory for the keys of %d ranks",
                           region->net->n_ranks);
        memcpy(part->packed, cards[r].key, cards[r].n_key);
        part->n_packed = cards[r].n_key;
        part->base = cards[r].base;
        part->bytes = cards[r].bytes;
    }
    return TUTTI_OK;
}

static tutti_result expose(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                           uint64_t bytes, int is_gpu, struct tt_net_region *region,
                           struct card *cards)
{
    struct card mine = {0};
    tutti_result result = tt_net_check(net);

    region->net = net;
    region->base = base;
    region->bytes = bytes;
    if (result == TUTTI_OK)
        result = offer(region, is_gpu, &mine);
    TT_TRY(tt_net_gather(net, exchange, result, &mine, cards, sizeof(mine)));
    return take_parts(region, cards);
}

static tutti_result expose_region(struct tt_net *net, const struct tt_exchange *exchange,
                                  void *base, uint64_t bytes, int is_gpu,
                                  struct tt_net_region **region_out)
{
    const size_t n = (size_t)net->n_ranks;
    struct tt_net_region *region = calloc(1, sizeof(*region) + n * sizeof(region->parts[0]));
    struct card *cards = calloc(n, sizeof(*cards));
    tutti_result result;

    if (!region || !cards) {
        free(region);
        free(cards);
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a region of %zu ranks", n);
    }
    result = expose(net, exchange, base, bytes, is_gpu, region, cards);
    free(cards);
    if (result != TUTTI_OK) {
        tt_net_region_free(region);
        return result;
    }
    region->next = net->regions;
    net->regions = region;
    *region_out = region;
    return TUTTI_OK;
}

tutti_result tt_net_expose(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                           uint64_t bytes, struct tt_net_region **region_out)
{
    return expose_region(net, exchange, base, bytes, 0, region_out);
}

tutti_result tt_net_expose_gpu(struct tt_net *net, const struct tt_exchange *exchange, void *base,
                               uint64_t bytes, struct tt_net_region **region_out)
{
    return expose_region(net, exchange, base, bytes, 1, region_out);
}

tutti_result tt_net_lend(struct tt_net *net, void *base, uint64_t bytes,
                         struct tt_net_region **region_out)
{
    struct tt_net_region *region =
        calloc(1, sizeof(*region) + (size_t)net->n_ranks * sizeof(region->parts[0]));
    tutti_result result = tt_net_check(net);

    if (!region)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for a region");
    region->net = net;
    region->base = base;
    region->bytes = bytes;
    region->is_lent = 1;
    if (result == TUTTI_OK)
        result = net->ops->expose(net->provider, base, bytes, 0, &region->memory);
    if (result != TUTTI_OK) {
        free(region);
        return result;
    }
    region->next = net->regions;
    net->regions = region;
    *region_out = region;
    return TUTTI_OK;
}

unsigned tt_net_gpu_ways(const struct tt_net *net)
{
    return net->limits.gpu_ways;
}

void tt_net_region_free(struct tt_net_region *region)
{
    struct tt_net *net = region->net;

    for (int r = 0; net && r < net->n_ranks; r++) {
        if (region->parts[r].key)
            net->ops->drop_key(region->parts[r].key);
        free(region->parts[r].packed);
    }
    if (region->memory)
        net->ops->hide(region->memory);
    free(region);
}

/* An operation from or to the region that is not sent yet. */
static int is_used(const struct tt_net *net, const struct tt_net_region *region)
{
    for (int i = 0; i < net->n_used; i++) {
        const struct tt_net_endpoint *e = net->used[i];

        for (uint64_t k = e->n_sent; k != e->n_posted; k++) {
            const struct tt_net_op *op = &e->ops[k % TT_NET_MAX_OPS];

            if (op->region == region || (region->memory && op->memory == region->memory))
                return 1;
        }
    }
    return 0;
}

void tt_net_hide(struct tt_net_region *region)
{
    struct tt_net *net = region->net;
    struct tt_net_region **at = &net->regions;
    const uint64_t end = tt_now_ns() + HIDE_NS;

    /* All of it, while there is memory for what comes in meanwhile: tt_net_destroy() has nothing left. */
    if (!region->is_lent)
        tt_net_flush(net);
    while (region->is_lent && is_used(net, region) && tt_net_progress(net) == TUTTI_OK &&
           tt_now_ns() < end)
        ;
    if (is_used(net, region)) /* or has failed before */
        tt_net_fail(net, -1, TUTTI_E_TIMEOUT,
                    "memory was taken back while puts from it or to its region were under way");
    if (tt_net_check(net) != TUTTI_OK) {
        net->is_closed = 1;
        for (int i = 0; i < net->n_used; i++)
            tt_net_unwire(net->used[i]);
    }
    while (*at && *at != region)
        at = &(*at)->next;
    if (*at)
        *at = region->next;
    tt_net_region_free(region);
}

void tt_net_offer(struct tt_net_region *region, tt_net_take_fn take, void *context)
{
    region->take = take;
    region->take_context = context;
}

int tt_net_arrived(void *context, void *to, const void *data, size_t bytes)
{
    const struct tt_net *net = context;
    const uintptr_t at = (uintptr_t)to;

    for (const struct tt_net_region *r = net->regions; r; r = r->next) {
        const uintptr_t base = (uintptr_t)r->base;

        if (r->take && at >= base && at - base < r->bytes)
            return r->take(r->take_context, at - base, data, bytes);
    }
    return 0;
}
