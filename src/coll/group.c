/* Groups: calls that are queued and then run together. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "coll/comm.h"

struct item {
    struct tt_call call;
    size_t *counts; /* copies of the caller's arrays, [4][n_ranks] at most */
    tutti_rows *parts;
    tutti_device_counts *device_counts;
};

struct tt_group {
    struct item *items;
    size_t n_items, max_items;
    struct tt_p2p *p2p;
    size_t n_p2p, max_p2p;
};

static tutti_result grow(void **list, size_t n, size_t *max, size_t size)
{
    const size_t more = *max ? 2 * *max : 16;
    void *bigger;

    if (n < *max)
        return TUTTI_OK;
    bigger = realloc(*list, more * size);
    if (!bigger)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for %zu calls in a group", more);
    *list = bigger;
    *max = more;
    return TUTTI_OK;
}

tutti_result tt_group_begin(tutti_comm *comm)
{
    if (comm->group)
        return TT_FAIL(TUTTI_E_ARG, "group_begin: a group is open already; groups do not nest");
    comm->group = comm->spare_group ? comm->spare_group : calloc(1, sizeof(*comm->group));
    comm->spare_group = NULL;
    return comm->group ? TUTTI_OK : TT_FAIL(TUTTI_E_MEMORY, "no memory for a group");
}

static void empty(struct tt_group *group)
{
    for (size_t i = 0; i < group->n_items; i++) {
        free(group->items[i].counts);
        free(group->items[i].parts);
        free(group->items[i].device_counts);
    }
    group->n_items = group->n_p2p = 0;
}

void tt_group_free(struct tt_group *group)
{
    if (!group)
        return;
    empty(group);
    free(group->items);
    free(group->p2p);
    free(group);
}

/* The caller's arrays may be gone by group_end. */
static tutti_result keep_arrays(struct item *item, size_t n)
{
    const size_t **arrays[] = {&item->call.counts, &item->call.send_counts, &item->call.send_displs,
                               &item->call.recv_counts, &item->call.recv_displs};
    size_t *to;

    item->counts = malloc(TT_LEN(arrays) * n * sizeof(size_t));
    if (!item->counts)
        return TT_FAIL(TUTTI_E_MEMORY, "no memory for the counts of a call in a group");
    to = item->counts;
    for (size_t i = 0; i < TT_LEN(arrays); i++) {
        if (!*arrays[i])
            continue;
        memcpy(to, *arrays[i], n * sizeof(size_t));
        *arrays[i] = to;
        to += n;
    }
    if (item->call.parts) {
        item->parts = malloc(item->call.n_parts * sizeof(*item->parts));
        if (!item->parts)
            return TT_FAIL(TUTTI_E_MEMORY, "no memory for the parts of a call in a group");
        memcpy(item->parts, item->call.parts, item->call.n_parts * sizeof(*item->parts));
        item->call.parts = item->parts;
    }
    if (item->call.device_counts) {
        item->device_counts = malloc(sizeof(*item->device_counts));
        if (!item->device_counts)
            return TT_FAIL(TUTTI_E_MEMORY, "no memory for the counts of a call in a group");
        *item->device_counts = *item->call.device_counts;
        item->call.device_counts = item->device_counts;
    }
    return TUTTI_OK;
}

tutti_result tt_group_add_call(struct tt_group *group, const struct tt_call *call, int n_ranks)
{
    struct item *item;
    void *list = group->items;
    tutti_result res = grow(&list, group->n_items, &group->max_items, sizeof(*item));

    group->items = list;
    if (res != TUTTI_OK)
        return res;
    item = &group->items[group->n_items];
    *item = (struct item){.call = *call};
    res = keep_arrays(item, (size_t)n_ranks);
    if (res != TUTTI_OK) {
        free(item->counts);
        free(item->parts);
        return res;
    }
    group->n_items++;
    return TUTTI_OK;
}

tutti_result tt_group_add_p2p(struct tt_group *group, const struct tt_p2p *op)
{
    void *list = group->p2p;
    tutti_result res;

    if (group->n_p2p > 0 && op->stream != group->p2p[0].stream)
        return TT_FAIL(TUTTI_E_ARG, "the sends and receives of one group run at once, but two were "
                                    "given different streams");
    res = grow(&list, group->n_p2p, &group->max_p2p, sizeof(*op));
    group->p2p = list;
    if (res == TUTTI_OK)
        group->p2p[group->n_p2p++] = *op;
    return res;
}

/* Then the one after the other means something else than both at once. */
static int overlap(const struct tt_call *a, const struct tt_call *b)
{
    const uintptr_t x = (uintptr_t)a->recv, y = (uintptr_t)b->recv;

    return x < y + b->count * tt_dtype_bytes(b->dtype) &&
           y < x + a->count * tt_dtype_bytes(a->dtype) && a->count > 0 && b->count > 0;
}

/* Do n items from here on broadcast from each rank once? Then they are one all_gatherv. */
static int is_gather(const struct item *items, size_t left, size_t n)
{
    if (n < 2 || left < n)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (items[i].call.coll != TT_COLL_BROADCAST || items[i].call.dtype != items[0].call.dtype ||
            items[i].call.stream != items[0].call.stream)
            return 0;
        for (size_t j = 0; j < i; j++)
            if (items[j].call.root == items[i].call.root || overlap(&items[j].call, &items[i].call))
                return 0;
    }
    return 1;
}

static tutti_result run_as_gather(tutti_comm *comm, const struct item *items)
{
    const size_t n = (size_t)comm->n_ranks;
    size_t *counts = malloc(n * sizeof(*counts));
    void **blocks = malloc(n * sizeof(*blocks));
    struct tt_call call = {
        .coll = TT_COLL_ALL_GATHER, .dtype = items[0].call.dtype, .stream = items[0].call.stream};
    tutti_result res;

    if (counts && blocks) {
        for (size_t i = 0; i < n; i++) {
            counts[items[i].call.root] = items[i].call.count;
            blocks[items[i].call.root] = items[i].call.recv;
        }
        call.send = blocks[comm->rank];
        call.counts = counts;
        call.recv_blocks = blocks;
        res = tt_coll_run(comm, &call);
    } else {
        res = TT_FAIL(TUTTI_E_MEMORY, "no memory to run %zu broadcasts", n);
    }
    free(blocks);
    free(counts);
    return res;
}

tutti_result tt_group_end(tutti_comm *comm)
{
    struct tt_group *group = comm->group;
    tutti_result res = TUTTI_OK;

    if (!group)
        return TT_FAIL(TUTTI_E_ARG, "group_end without group_begin");
    comm->group = NULL;
    if (group->n_p2p > 0)
        res = comm->ops->run_p2p(comm->engine, group->p2p, group->n_p2p);
    for (size_t i = 0; res == TUTTI_OK && i < group->n_items;) {
        struct item *item = &group->items[i];

        if (is_gather(item, group->n_items - i, (size_t)comm->n_ranks)) {
            res = run_as_gather(comm, item);
            i += (size_t)comm->n_ranks;
        } else {
            res = tt_coll_run(comm, &item->call);
            i++;
        }
    }
    empty(group);
    comm->spare_group = group; /* decoding steps are groups of the same size, again and again */
    return res;
}
